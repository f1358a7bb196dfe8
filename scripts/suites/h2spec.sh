#!/usr/bin/env bash
# h2spec, the conformance suite for HTTP/2 servers (Go module github.com/summerwind/h2spec), strict.
#
#   h2spec.sh HOST PORT [--tls] [--min 146]
#
# What listens there must answer GET and POST of / with 200 and a body. `--tls`: over TLS with ALPN.
. "$(dirname "$0")/lib.sh"
host=${1:?host} port=${2:?port} suite=h2spec
shift 2
options=(--strict --timeout 2)
min=146
while [ $# -gt 0 ]; do
    case $1 in
    --tls) options+=(--tls --insecure) suite=h2spec-tls ;;
    --min) min=$2 && shift ;;
    *) missing "unknown argument $1" ;;
    esac
    shift
done
module=github.com/summerwind/h2spec
h2spec=$(go_tool h2spec $module@v2.2.1+incompatible $module/cmd/h2spec) || exit
timeout 600 "$h2spec" --host "$host" --port "$port" "${options[@]}" --junit-report "$scratch/report.xml" >"$scratch/out" 2>&1
[ -s "$scratch/report.xml" ] || missing "no report: $(tail -n 3 "$scratch/out")"
read -r total failed < <(python3 - "$scratch/report.xml" <<'PYTHON'
import sys
import xml.etree.ElementTree as tree

total, failed = 0, []
for suite in tree.parse(sys.argv[1]).iter("testsuite"):
    for case in suite.iter("testcase"):
        total += 1
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('package')} {case.get('classname')}")
print(total, len(failed))
for name in failed:
    print("failed:", name, file=sys.stderr)
PYTHON
)
verdict "$suite" $((total - failed)) "$failed" "$min"
