#!/usr/bin/env bash
# Runs the official Gateway API conformance suite against Tulle on Kubernetes, writes its report to
# conformance/, and prints what passed and what did not. Exits 0 only if every test passed.
#
#   scripts/conformance.sh [--profiles A,B] [--run-test NAME] [--no-report] [--keep] [-- FLAGS OF THE SUITE]
#
#   KUBECONFIG    a cluster to use; without it the kit in ../shared/k8s (MESH_TESTKIT) is brought up
#   TULLE_BIN     the binary that goes into the image, for the kit [target/release/tulle]
#   TULLE_IMAGE   an image that the cluster can pull, for any other cluster
#   GATEWAY_SERVICE   LoadBalancer or ClusterIP [kit: ClusterIP; other clusters: LoadBalancer]
#   USABLE_ADDRESS, UNUSABLE_ADDRESS   for GatewayStaticAddresses [of Services of type ClusterIP, found out]
#
# With --run-test no report is written: it would not say what it seems to say. --no-report leaves
# conformance/ as it is.
set -euo pipefail

profiles=GATEWAY-HTTP,GATEWAY-GRPC,GATEWAY-TLS,GATEWAY-TCP,GATEWAY-UDP
single= keep= keep_report=yes
while [ $# -gt 0 ]; do
    case $1 in
        --profiles) profiles=$2; shift 2 ;;
        --run-test) single=$2; shift 2 ;;
        --no-report) keep_report=; shift ;;
        --keep) keep=yes; shift ;;
        --) shift; break ;;
        *) echo "conformance: unknown option $1; see the head of $0" >&2; exit 2 ;;
    esac
done
flags=("$@")

# The cluster, Tulle in it, and what these scripts share.
. "$(dirname "$0")/kubernetes.sh"
cache=${XDG_CACHE_HOME:-$HOME/.cache}/tulle/conformance-$gateway_api
mkdir -p "$cache"

# ---- addresses for GatewayStaticAddresses
if [ "$GATEWAY_SERVICE" = ClusterIP ]; then
    : "${UNUSABLE_ADDRESS:=192.0.2.1}"
    if [ -z "${USABLE_ADDRESS:-}" ]; then
        # One that was just free: of a Service that is gone again.
        kubectl -n tulle-system create service clusterip address-probe --tcp=80 >/dev/null
        USABLE_ADDRESS=$(kubectl -n tulle-system get service address-probe -o jsonpath='{.spec.clusterIP}')
        kubectl -n tulle-system delete service address-probe >/dev/null
    fi
fi
[ -z "${USABLE_ADDRESS:-}" ] || flags+=("-usable-address=$USABLE_ADDRESS")
[ -z "${UNUSABLE_ADDRESS:-}" ] || flags+=("-unusable-address=$UNUSABLE_ADDRESS")

# ---- the suite
timeout=${CONFORMANCE_TIMEOUT:-90m}
if [ -n "$kit" ]; then
    export MESH_TESTKIT_CONFORMANCE_TIMEOUT=$timeout
    suite=("$kit/cluster" conformance)
else
    binary=$cache/suite.test
    suite=("$binary" -test.v -test.timeout "$timeout" -test.run '^TestConformance$')
    if [ ! -x "$binary" ]; then
        say "building the suite (the first time: minutes)"
        mkdir -p "$cache/src"
        (
            cd "$cache/src"
            rm -f go.mod go.sum
            printf '%s\n' 'package suite' 'import ("testing"; "sigs.k8s.io/gateway-api/conformance")' \
                'func TestConformance(t *testing.T) { conformance.RunConformance(t) }' >suite_test.go
            export GOFLAGS=-mod=mod CGO_ENABLED=0
            go mod init suite
            go get "sigs.k8s.io/gateway-api/conformance@$gateway_api"
            go test -c -trimpath -ldflags "-s -w" -o "$binary" .
        ) >&2
    fi
fi
# Everything that a gateway can do; the features of meshes have profiles of their own.
mesh=$(sed -n 's/.*FeatureName = "\(Mesh[A-Za-z0-9]*\)".*/\1/p' "$api"/pkg/features/*.go | sort -u | paste -sd, -)
run=(-gateway-class=tulle -all-features "-exempt-features=$mesh" "-conformance-profiles=$profiles")
commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
report=
if [ -n "$single" ]; then
    run+=("-run-test=$single")
else
    report=$scratch/report.yaml
    run+=("-report-output=$report" -organization=tulle-mesh -project=tulle
        -url=https://github.com/tulle-mesh/tulle "-version=v0.1.0-$commit"
        -contact=https://github.com/tulle-mesh/tulle/issues)
fi
[ -z "$keep" ] || run+=(-cleanup-base-resources=false)

say "running $profiles${single:+, only $single}"
log=$cache/last.log
code=0
"${suite[@]}" "${run[@]}" "${flags[@]}" >"$log" 2>&1 || code=$?

# ---- what came of it
if [ -s "${report:-/nonexistent}" ]; then
    if [ -n "$keep_report" ]; then
        mkdir -p conformance
        target=conformance/experimental-v0.1.0-default-report.yaml
        cp "$report" "$target"
        chmod 644 "$target"
        say "report: $target"
    fi
    awk '
        /(core|extended):$/ { part = $NF; sub(":", "", part) }
        /^ *name: GATEWAY/ { name = $2; for (p in n) { printf "%-14s %s\n", name, n[p] } delete n }
        /^ *(Failed|Passed|Skipped):/ { n[part] = n[part] " " tolower($1) $2 }
        /^ *result:/ { n[part] = part ": " $2 n[part] }
    ' "$report" || true
fi
awk '
    /^    --- (PASS|FAIL|SKIP): TestConformance\/[A-Za-z0-9]+ / {
        name = $3; sub("TestConformance/", "", name)
        if ($2 == "PASS:") passed++; else if ($2 == "FAIL:") { failed++; names = names "\n  failed: " name } else { skipped++; left = left " " name }
    }
    END {
        if (left != "" && passed + failed > 1) printf "not run:%s\n", left
        printf "tests: %d passed, %d failed%s\n", passed, failed, names
        exit failed > 0 || passed == 0
    }
' "$log" || code=1
say "the suite's own words: $log"
exit "$code"
