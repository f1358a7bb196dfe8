"""Tulle as `tulle proxy --static`, and for pairs as two sidecars of `tulle run`; telemetry at its
defaults: metrics on, an access log line for each request, in a pair traces too.

For `benches/bench.py` and for harnesses with the same interface (PEERS_EXTRA=benches/peerbench).
$TULLE_BIN, else target/release/tulle of this repository.
"""
import base64
import os

from . import Launch, Peer, Spec, first_line

HERE = os.path.dirname(os.path.abspath(__file__))
BIN = os.environ.get("TULLE_BIN") or os.path.join(HERE, "..", "..", "target", "release", "tulle")
GATEWAY = "gateway.networking.k8s.io"


def port_of(address):
    return int(address.rsplit(":", 1)[1])


def gateway(listener):
    """A Gateway named `edge` with one listener."""
    return (f"apiVersion: {GATEWAY}/v1\nkind: Gateway\nmetadata: {{name: edge, namespace: default}}\n"
            f"spec:\n  gatewayClassName: tulle\n  addresses: [{{value: 127.0.0.1}}]\n  listeners: [{listener}]\n")


def service(to, protocol="http", count=1):
    """A Service named `app` with so many endpoints, all of them this address."""
    port = port_of(to)
    out = [f"apiVersion: v1\nkind: Service\nmetadata: {{name: app, namespace: default}}\nspec: {{selector: {{app: app}}, "
           f"ports: [{{name: main, port: 80, targetPort: {port}, appProtocol: {protocol}}}]}}\n"]
    for n in range(count):
        # Endpoints differ by address; all of 127.0.0.0/8 is this host.
        ip = "127.0.0.1" if count == 1 else f"127.0.{n // 250}.{n % 250 + 1}"
        out.append(f"apiVersion: tulle.dev/v1alpha1\nkind: Workload\nmetadata: {{name: app-{n}, namespace: default, "
                   f"labels: {{app: app}}}}\nspec: {{address: {ip}, ports: [{{name: main, port: {port}, appProtocol: {protocol}}}]}}\n")
    return out


def http_route(name="all", paths=()):
    """A route from `edge` to `app`: for everything, or for these prefixes."""
    rules = []
    for at in range(0, max(len(paths), 1), 16):
        matches = "".join(f"{{path: {{type: PathPrefix, value: {path}}}}}, " for path in paths[at:at + 16])
        matches = f"matches: [{matches[:-2]}], " if matches else ""
        rules.append(f"    - {{{matches}backendRefs: [{{name: app, port: 80}}]}}\n")
    return (f"apiVersion: {GATEWAY}/v1\nkind: HTTPRoute\nmetadata: {{name: {name}, namespace: default}}\n"
            f"spec:\n  parentRefs: [{{name: edge}}]\n  rules:\n{''.join(rules)}")


def tcp_route():
    return (f"apiVersion: {GATEWAY}/v1alpha2\nkind: TCPRoute\nmetadata: {{name: all, namespace: default}}\n"
            "spec: {parentRefs: [{name: edge}], rules: [{backendRefs: [{name: app, port: 80}]}]}\n")


def secret(name, ctx):
    """A certificate with its key."""
    data = {"tls.crt": ctx.cert, "tls.key": ctx.key}
    lines = "".join(f"  {k}: {base64.b64encode(open(v, 'rb').read()).decode()}\n" for k, v in data.items())
    return (f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: default}}\n"
            f"type: kubernetes.io/tls\ndata:\n{lines}")


class Tulle(Peer):
    name = "tulle"
    roles = frozenset({"h1", "h2", "tls", "tcp", "chain", "tcpchain", "routes", "endpoints"})

    def version(self):
        return first_line(BIN, "--version") if os.path.exists(BIN) else ""

    def spec(self, ctx, number, objects):
        folder = os.path.join(ctx.dir, f"static-{number}")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "all.yaml"), "w") as file:
            file.write("---\n".join(objects))
        admin = f"127.0.0.1:{port_of(ctx.listen) + 10000 + number}"
        return Spec([BIN, "proxy", "--static", folder, "--workers", str(getattr(ctx, "workers", 1)),
                     "--admin", admin])

    def mesh(self, ctx, protocol):
        """Two sidecars with a control plane (which is not counted), as `tulle run` starts them: the
        client's has a port that leads to the server, through mutual TLS between the two."""
        port, data = port_of(ctx.upstream), os.path.join(ctx.dir, "mesh")
        os.makedirs(data, exist_ok=True)
        env = {"TULLE_DATA_DIR": data, "TULLE_WORKERS": "1"}
        anywhere = [x for name in ("xds", "api", "metrics", "otlp") for x in (f"--{name}", "127.0.0.1:0")]
        control = Spec([BIN, "control", "--data-dir", data, *anywhere], env, counted=False)
        late = 'until [ -S "$TULLE_DATA_DIR/control.sock" ]; do sleep 0.02; done; exec "$0" "$@"'

        def run(*arguments):
            return Spec(["sh", "-c", late, BIN, "run", "--mode", "explicit", *arguments, "--", "sleep", "600"], env)

        return Launch([control, run("--service", "app", "--port", f"{port}/{protocol}"),
                       run("--service", "client", "--upstream", f"app:{port}={port_of(ctx.listen)}")])

    def listener(self, address, protocol, tls=""):
        return f"{{name: main, port: {port_of(address)}, protocol: {protocol}{tls}}}"

    def launch(self, role, ctx):
        ends_tls = ", tls: {certificateRefs: [{name: own}]}"
        count = getattr(ctx, "count", 1)

        def one(number, listen, protocol, route, to, app="http", extra=(), tls="", endpoints=1):
            parts = [gateway(self.listener(listen, protocol, tls)), route, *service(to, app, endpoints), *extra]
            return self.spec(ctx, number, parts)

        if role == "h1":
            return Launch([one(1, ctx.listen, "HTTP", http_route(), ctx.upstream)])
        if role == "h2":
            return Launch([one(1, ctx.listen, "HTTP", http_route(), ctx.upstream_h2, "kubernetes.io/h2c")])
        if role == "tls":
            return Launch([one(1, ctx.listen, "HTTPS", http_route(), ctx.upstream, tls=ends_tls, extra=[secret("own", ctx)])])
        if role == "tcp":
            return Launch([one(1, ctx.listen, "TCP", tcp_route(), ctx.upstream_tcp, "tcp")])
        if role in ("chain", "tcpchain"):
            return self.mesh(ctx, "tcp" if role == "tcpchain" else "http")
        if role == "routes":
            # Gateway API: at most 128 matches in a route.
            paths = [f"/r{n}" for n in range(count)]
            routes = [http_route(f"part-{at}", paths[at:at + 128]) for at in range(0, count, 128)]
            return Launch([one(1, ctx.listen, "HTTP", routes[0], ctx.upstream, extra=routes[1:])])
        return Launch([one(1, ctx.listen, "HTTP", http_route(), ctx.upstream, endpoints=count)])
