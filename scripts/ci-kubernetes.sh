#!/usr/bin/env bash
# The part of .ci/run that needs a cluster: the official suite. The tests that kill API servers and
# compact their store take longer, and are for people: `make kubernetes-e2e`.
#
#   scripts/ci-kubernetes.sh check   says where they would run; exits 1 and says why not
#   scripts/ci-kubernetes.sh run     runs them
#   scripts/ci-kubernetes.sh down    takes the kit's cluster down, if there is one
#
# With KUBECONFIG and TULLE_IMAGE that is the cluster's; otherwise one of the kit's (MESH_TESTKIT,
# ../shared/k8s) of its own name, but only where nothing has to be compiled or downloaded for it.
set -uo pipefail
cd "$(dirname "$0")/.."
# A lock of who called is not for daemons.
exec 9>&-

kit=${MESH_TESTKIT:-../shared/k8s}
export MESH_TESTKIT_CLUSTER=tulle-ci MESH_TESTKIT_INDEX=${MESH_TESTKIT_INDEX:-41}

stand_ins=
trap '[ -z "$stand_ins" ] || rm -rf "$stand_ins"' EXIT

given() { [ -n "${KUBECONFIG:-}" ] && kubectl --request-timeout=5s get --raw /readyz >/dev/null 2>&1; }

not() { echo "$*" >&2; exit 1; }

check() {
    command -v kubectl >/dev/null || not "needs kubectl"
    if given && [ -n "${TULLE_IMAGE:-}" ]; then
        echo "the cluster of KUBECONFIG"
        return
    fi
    local program
    [ -x "$kit/cluster" ] || not "needs KUBECONFIG and TULLE_IMAGE, or the cluster kit in $kit"
    [ "$(id -u)" = 0 ] || not "the cluster kit needs root"
    for program in go curl nsenter; do
        command -v "$program" >/dev/null || not "needs $program"
    done
    # The kit builds what is missing. It is asked to, with a go that does not compile or download and
    # without a way to install packages: what then succeeds has all that it needs.
    stand_ins=$(mktemp -d)
    printf '#!/bin/sh\ncase $1 in build|test|install|run|get) exit 1 ;; esac\nexec "%s" "$@"\n' "$(command -v go)" >"$stand_ins/go"
    printf '#!/bin/sh\nexit 1\n' >"$stand_ins/apt-get"
    chmod +x "$stand_ins"/*
    # Of one of the suite's tests it is asked only whether there is such a one.
    local cold="the cluster kit's cache is cold: $kit/cluster build, and make conformance, fill it"
    (
        export PATH=$stand_ins:$PATH GOPROXY=off GOTOOLCHAIN=local GOFLAGS=
        timeout 60 "$kit/cluster" build &&
            timeout 60 "$kit/cluster" conformance -test.list='^TestConformance$' &&
            go mod download "sigs.k8s.io/gateway-api@$(sed -n 's/^gateway_api=//p' scripts/kubernetes.sh)"
    ) >"$stand_ins/log" 2>&1 || not "$cold"
    grep -q '^TestConformance$' "$stand_ins/log" || not "$cold"
    echo "the cluster kit"
}

run() {
    if ! given || [ -z "${TULLE_IMAGE:-}" ]; then
        unset KUBECONFIG
    fi
    # An outer limit ends all of the group; the cluster is taken down by who called.
    bash scripts/conformance.sh --no-report
}

down() {
    [ ! -x "$kit/cluster" ] || "$kit/cluster" down
}

case ${1:-} in
    check) check ;;
    run) run ;;
    down) down ;;
    *) echo "usage: $0 check|run|down" >&2; exit 2 ;;
esac
