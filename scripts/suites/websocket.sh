#!/usr/bin/env bash
# Autobahn's WebSocket cases (PyPI autobahntestsuite, Python 2.7) against a WebSocket echo server.
#
#   websocket.sh serve PORT                          an echo server, until stopped
#   websocket.sh run HOST PORT [--full] [--min N]    the cases; what listens there leads to the server
#
# Without `--full` the cases of limits (9) and compression (12, 13) are left out: 247 remain, of
# which 7.1.5 (a message cut by a close) depends on the echo server alone.
. "$(dirname "$0")/lib.sh"
case ${1:-} in
serve)
    venv=$suites/websockets
    [ -x "$venv/bin/python" ] || { python3 -m venv "$venv" && "$venv/bin/pip" -q install websockets==15.0.1; } >&2 ||
        missing "the package websockets could not be installed"
    exec "$venv/bin/python" - "${2:?port}" <<'PYTHON'
import asyncio
import sys

import websockets


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main():
    async with websockets.serve(echo, "127.0.0.1", int(sys.argv[1]), max_size=None, ping_interval=None):
        await asyncio.Future()


asyncio.run(main())
PYTHON
    ;;
run) ;;
*) missing "usage: serve PORT, or run HOST PORT" ;;
esac
host=${2:?host} port=${3:?port} min=246
shift 3
excluded='"9.*", "12.*", "13.*"'
while [ $# -gt 0 ]; do
    case $1 in
    --full) excluded= ;;
    --min) min=$2 && shift ;;
    *) missing "unknown argument $1" ;;
    esac
    shift
done
venv=$suites/autobahn
if [ ! -x "$venv/bin/wstest" ]; then
    python=$(command -v python2.7 || ls "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7 2>/dev/null | head -n 1)
    { [ -n "$python" ] && "$python" --version; } >/dev/null 2>&1 ||
        python=$(ls "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7.*/bin/python2.7 2>/dev/null | head -n 1)
    [ -n "$python" ] || missing "Python 2.7 is not installed"
    {
        "$python" -m pip -q install --target "$suites/virtualenv" virtualenv==20.15.1 &&
            PYTHONPATH=$suites/virtualenv "$python" -m virtualenv -q "$venv" &&
            "$venv/bin/pip" -q install autobahntestsuite==0.8.2
    } >&2 || missing "autobahntestsuite could not be installed"
fi
cat >"$scratch/spec.json" <<JSON
{"outdir": "$scratch/report", "servers": [{"agent": "it", "url": "ws://$host:$port"}],
 "cases": ["*"], "exclude-cases": [$excluded], "exclude-agent-cases": {}}
JSON
timeout 900 "$venv/bin/wstest" -m fuzzingclient -s "$scratch/spec.json" >"$scratch/log" 2>&1
[ -s "$scratch/report/index.json" ] || missing "no report: $(tail -n 2 "$scratch/log" | cut -c 1-300)"
read -r passed failed < <(python3 - "$scratch/report/index.json" <<'PYTHON'
import json
import sys

cases = json.load(open(sys.argv[1]))["it"]
bad = sorted(k for k, v in cases.items() if "FAILED" in (v["behavior"], v["behaviorClose"]))
print(len(cases) - len(bad), len(bad))
for name in bad:
    print("failed:", name, file=sys.stderr)
PYTHON
)
verdict websocket "$passed" "$failed" "$min"
