#!/usr/bin/env bash
# The published suites through `tulle proxy --static`: h2spec over clear text and TLS, gRPC interop
# through one proxy and through two, Autobahn's WebSocket cases. Prints a line of JSON for each and
# exits 0 only if all of them passed as they should.
#
#   TULLE_BIN=target/release/tulle scripts/suites/all.sh [SUITE...]     h2spec grpc websocket
. "$(dirname "$0")/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)
tulle=${TULLE_BIN:-$here/../../target/release/tulle}
[ -x "$tulle" ] || missing "there is no $tulle; run: make build"
[ $# -gt 0 ] || set -- h2spec grpc websocket

origin=19181 plain=19182 tls=19183 echo=19184 sockets=19185 interop=19186 first=19187 second=19188

# gateway NAME PORT BACKEND APP-PROTOCOL [TLS]: a Gateway that leads everything to a port of this host.
gateway() {
    local protocol=HTTP extra=
    if [ -n "${5:-}" ]; then
        protocol=HTTPS extra=', tls: {certificateRefs: [{name: own}]}'
    fi
    cat <<YAML
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: $1, namespace: default}
spec:
  gatewayClassName: tulle
  addresses: [{value: 127.0.0.1}]
  listeners: [{name: main, port: $2, protocol: $protocol$extra}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: $1, namespace: default}
spec: {parentRefs: [{name: $1}], rules: [{backendRefs: [{name: $1, port: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: $1, namespace: default}
spec: {selector: {app: $1}, ports: [{name: main, port: 80, targetPort: $3, appProtocol: $4}]}
---
apiVersion: tulle.dev/v1alpha1
kind: Workload
metadata: {name: $1-0, namespace: default, labels: {app: $1}}
spec: {address: 127.0.0.1, ports: [{name: main, port: $3, appProtocol: $4}]}
---
YAML
}

objects=$scratch/static
mkdir "$objects"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$scratch/key" -out "$scratch/cert" \
    -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 2>/dev/null || missing "openssl failed"
{
    gateway plain $plain $origin http
    gateway tls $tls $origin http tls
    gateway sockets $sockets $echo http
    gateway first $first $interop kubernetes.io/h2c
    gateway second $second $first kubernetes.io/h2c
    cat <<YAML
apiVersion: v1
kind: Secret
metadata: {name: own, namespace: default}
type: kubernetes.io/tls
data:
  tls.crt: $(base64 -w 0 "$scratch/cert")
  tls.key: $(base64 -w 0 "$scratch/key")
YAML
} >"$objects/all.yaml"
"$tulle" proxy --static "$objects" --workers 1 --admin off --access-log off 2>"$scratch/proxy.log" &
started="$started $!"
python3 - "$origin" 2>/dev/null <<'PYTHON' &
import http.server
import sys


class Origin(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            size = 1
            while size:
                size = int(self.rfile.readline().split(b";")[0], 16)
                self.rfile.read(size + 2)
        else:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", "10")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"ten bytes\n")

    do_POST = do_HEAD = do_PUT = do_GET

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Origin).serve_forever()
PYTHON
started="$started $!"
(wait_port $plain && wait_port $origin) || missing "the proxy: $(tail -n 3 "$scratch/proxy.log")"

failed=0
judged() {
    "$here/$@" || failed=1
}
for suite in "$@"; do
    case $suite in
    h2spec)
        # 3.5: a clear-text port answers an invalid preface as the malformed HTTP/1 request that it
        # looks like, with 400, and the suite takes those words for a frame.
        judged h2spec.sh 127.0.0.1 $plain --min 145
        judged h2spec.sh 127.0.0.1 $tls --tls
        ;;
    grpc)
        "$here/grpc-interop.sh" serve $interop >/dev/null 2>"$scratch/interop.log" &
        started="$started $!"
        # It is built first, where it is not there.
        for _ in $(seq 60); do [ -x "$suites/bin/grpc-interop-server" ] && break || sleep 5; done
        wait_port $interop
        judged grpc-interop.sh run 127.0.0.1 $first
        judged grpc-interop.sh run 127.0.0.1 $second
        ;;
    websocket)
        "$here/websocket.sh" serve $echo >/dev/null 2>"$scratch/echo.log" &
        started="$started $!"
        for _ in $(seq 60); do [ -x "$suites/websockets/bin/python" ] && break || sleep 2; done
        wait_port $echo
        judged websocket.sh run 127.0.0.1 $sockets
        ;;
    *) missing "there is no suite $suite" ;;
    esac
done
[ $failed = 0 ] || { echo "the proxy's last words:" && tail -n 5 "$scratch/proxy.log"; } >&2
exit $failed
