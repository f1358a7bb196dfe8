#!/usr/bin/env bash
# Runs the end-to-end tests that need a cluster: with Tulle in it (deployed::), then with Tulle beside
# it (kubernetes::), for which the one in it is stopped.
#
#   scripts/kubernetes-e2e.sh [NAMES OF TESTS]
#
# The variables are those of scripts/kubernetes.sh.
set -euo pipefail
. "$(dirname "$0")/kubernetes.sh"

names=("$@")
TULLE_BIN=$(realpath "${TULLE_BIN:-target/release/tulle}")
export TULLE_BIN
skip=()
if [ -z "$kit" ]; then
    say "the API server of just any cluster is not killed: the tests of its restart are left out"
    skip=(--skip kubernetes::restarts)
fi
log=$scratch/log
code=0

# run NAMES: `test` fails also where no test has such a name.
run() {
    say "running $*"
    # shellcheck disable=SC2086
    ${CARGO:-cargo} test --profile quick --workspace --test it ${CARGO_FLAGS:-} -- --ignored "$@" "${skip[@]}" --test-threads=1 2>&1 |
        tee "$log" || code=1
    if grep -q '^running 0 tests' "$log"; then
        say "there is no such test: $*"
        code=1
    fi
}

# of PART: those of the names that begin so; all of the part where there are none at all.
of() {
    local name
    [ ${#names[@]} -gt 0 ] || { echo "$1"; return; }
    for name in "${names[@]}"; do
        case $name in "$1"*) echo "$name" ;; esac
    done
}

mapfile -t inside < <(of deployed::)
mapfile -t beside < <(of kubernetes::)
[ ${#inside[@]} -gt 0 ] || [ ${#beside[@]} -gt 0 ] || die "names of tests begin with deployed:: or kubernetes::"
if [ ${#inside[@]} -gt 0 ]; then
    run "${inside[@]}"
fi
if [ ${#beside[@]} -gt 0 ]; then
    control() { kubectl -n tulle-system scale deployment/tulle-control --replicas="$1" >/dev/null; }
    trap 'control 1; rm -rf "$scratch"' EXIT
    control 0
    # Where there is none any more, kubectl finds nothing to wait for.
    pods=(kubectl -n tulle-system get pods -l app.kubernetes.io/name=tulle-control -o name)
    kubectl -n tulle-system wait --for=delete pod -l app.kubernetes.io/name=tulle-control --timeout=60s >&2 ||
        [ -z "$("${pods[@]}")" ]
    run "${beside[@]}"
fi
exit "$code"
