#!/usr/bin/env bash
# Puts Tulle and Gateway API into a cluster. Sourced by the scripts that test it there, or run by hand:
#
#   scripts/kubernetes.sh
#
#   KUBECONFIG    a cluster to use; without it the kit in ../shared/k8s (MESH_TESTKIT) is brought up
#   TULLE_BIN     the binary that goes into the image, for the kit [target/release/tulle]
#   TULLE_IMAGE   an image that the cluster can pull, for any other cluster
#   GATEWAY_SERVICE   LoadBalancer or ClusterIP [kit: ClusterIP; other clusters: LoadBalancer]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { echo "$(basename "$0"): $*" >&2; }
die() { say "$*"; exit 2; }
command -v go >/dev/null || die "Gateway API's CRDs come as a Go module: install Go"
command -v kubectl >/dev/null || die "install kubectl"

gateway_api=v1.6.3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# ---- the cluster, and the image in it
kit=
if [ -z "${KUBECONFIG:-}" ]; then
    kit=${MESH_TESTKIT:-../shared/k8s}
    [ -x "$kit/cluster" ] || die "set KUBECONFIG to a cluster's, or MESH_TESTKIT to the cluster kit; there is no $kit/cluster"
    KUBECONFIG=$("$kit/cluster" kubeconfig)
    export KUBECONFIG
    # Where it runs already it is left alone: bringing it up again ends its kube-proxy.
    kubectl --request-timeout=5s get --raw /readyz >/dev/null 2>&1 || "$kit/cluster" up
    "$kit/cluster" conformance-images
    binary=${TULLE_BIN:-target/release/tulle}
    [ -x "$binary" ] || die "there is no $binary: run make build, or set TULLE_BIN"
    # A tag of its own for each build, so that what runs is what was built.
    TULLE_IMAGE=test.local/tulle:$(sha256sum "$binary" | cut -c1-16)
    "$kit/cluster" make-image -with-libs -o "$scratch/tulle.tar" -name "$TULLE_IMAGE" \
        -user 65532:65532 -entrypoint /tulle "$binary:/tulle:755"
    "$kit/cluster" load-image "$scratch/tulle.tar" >/dev/null
    : "${GATEWAY_SERVICE:=ClusterIP}"
fi
[ -n "${TULLE_IMAGE:-}" ] || die "set TULLE_IMAGE to an image that the cluster can pull"
: "${GATEWAY_SERVICE:=LoadBalancer}"

# ---- Gateway API, experimental channel, from the same version as the suite
say "installing Gateway API $gateway_api (experimental) and Tulle ($TULLE_IMAGE)"
api=$(go mod download -json "sigs.k8s.io/gateway-api@$gateway_api" | sed -n 's/^\t"Dir": "\(.*\)",\{0,1\}$/\1/p')
for crd in "$api"/config/crd/experimental/gateway.networking.*.yaml; do
    kubectl apply --server-side --force-conflicts -f "$crd" >/dev/null
done

# ---- Tulle
kubectl apply --server-side --force-conflicts -f deploy/kubernetes/crds.yaml >/dev/null
kubectl wait --for=condition=Established crd --all --timeout=60s >/dev/null
kubectl apply -f deploy/kubernetes/namespace.yaml -f deploy/kubernetes/rbac.yaml -f deploy/kubernetes/gatewayclass.yaml >/dev/null
sed -e "s|tulle\.dev/tulle:v[0-9.]*|$TULLE_IMAGE|" -e "s|--gateway-service=LoadBalancer|--gateway-service=$GATEWAY_SERVICE|" \
    deploy/kubernetes/control.yaml | kubectl apply -f - >/dev/null
kubectl -n tulle-system rollout status deployment/tulle-control --timeout=180s >&2
kubectl wait --for=condition=Accepted gatewayclass/tulle --timeout=60s >&2

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    say "Tulle runs there: KUBECONFIG=$KUBECONFIG"
fi
