"""nginx (Debian: nginx, libnginx-mod-stream)."""
import os

from . import Launch, Peer, Spec, first_line

STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so"
BASE = """{load}daemon off;
worker_processes {workers};
pid {dir}/nginx-{number}.pid;
error_log stderr crit;
events {{ worker_connections 20000; }}
"""
HTTP = """http {{
  access_log off;
  client_body_temp_path {dir}/b; proxy_temp_path {dir}/p; fastcgi_temp_path {dir}/f;
  uwsgi_temp_path {dir}/u; scgi_temp_path {dir}/s;
  keepalive_requests 100000000;
  upstream up {{ {servers} keepalive 1024; keepalive_requests 100000000; }}
  server {{ listen {listen} {options} reuseport backlog=4096; {server} {locations} }}
}}
"""
PASS = 'proxy_pass {scheme}://up; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $host;'


class Nginx(Peer):
    name = "nginx"
    roles = frozenset({"h1", "h2", "tls", "tcp", "chain", "tcpchain", "routes", "endpoints"})

    def version(self):
        return first_line("nginx", "-v")

    def spec(self, ctx, number, text, stream=False):
        load = f"load_module {STREAM};\n" if stream and os.path.exists(STREAM) else ""
        base = BASE.format(load=load, workers=ctx.workers, dir=ctx.dir, number=number)
        return Spec(["nginx", "-p", ctx.dir, "-c", ctx.write(f"nginx-{number}.conf", base + text), "-e", "stderr"])

    def http(self, ctx, listen, to, options="", server="", inside="", locations=""):
        servers = "".join(f"server {one};" for one in to)
        inside = inside or PASS.format(scheme="http")
        return HTTP.format(dir=ctx.dir, listen=listen, servers=servers, options=options, server=server,
                           locations=locations or f"location / {{ {inside} }}")

    def launch(self, role, ctx):
        tls = (f"ssl_certificate {ctx.cert}; ssl_certificate_key {ctx.key}; ssl_protocols TLSv1.3;"
               "ssl_session_tickets off; ssl_session_cache off;")
        inward = f"{tls} ssl_client_certificate {ctx.ca}; ssl_verify_client on;"
        outward = (f"proxy_ssl_certificate {ctx.cert}; proxy_ssl_certificate_key {ctx.key};"
                   f"proxy_ssl_trusted_certificate {ctx.ca}; proxy_ssl_verify on; proxy_ssl_name app.local;"
                   "proxy_ssl_server_name on; proxy_ssl_protocols TLSv1.3;")
        up = [ctx.upstream]
        if role == "h1":
            return Launch([self.spec(ctx, 1, self.http(ctx, ctx.listen, up))])
        if role == "h2":  # towards upstreams it speaks HTTP/2 for gRPC alone
            return Launch([self.spec(ctx, 1, self.http(ctx, ctx.listen, [ctx.upstream_h2], "http2", inside="grpc_pass grpc://up;"))])
        if role == "tls":
            return Launch([self.spec(ctx, 1, self.http(ctx, ctx.listen, up, "ssl", tls))])
        if role == "tcp":
            text = f"stream {{ server {{ listen {ctx.listen}; proxy_pass {ctx.upstream_tcp}; proxy_buffer_size 64k; }} }}\n"
            return Launch([self.spec(ctx, 1, text, stream=True)])
        if role == "tcpchain":
            first = f"stream {{ server {{ listen {ctx.listen}; proxy_pass {ctx.listen2}; proxy_ssl on; {outward} }} }}\n"
            second = f"stream {{ server {{ listen {ctx.listen2} ssl; proxy_pass {ctx.upstream}; {inward} }} }}\n"
            return Launch([self.spec(ctx, 1, first, stream=True), self.spec(ctx, 2, second, stream=True)])
        if role == "chain":
            first = self.http(ctx, ctx.listen, [ctx.listen2], inside=PASS.format(scheme="https") + outward)
            return Launch([self.spec(ctx, 1, first), self.spec(ctx, 2, self.http(ctx, ctx.listen2, up, "ssl", inward))])
        if role == "routes":
            inside = PASS.format(scheme="http")
            locations = "".join(f"location /r{n}/ {{ {inside} }}\n" for n in range(ctx.count))
            return Launch([self.spec(ctx, 1, self.http(ctx, ctx.listen, up, locations=locations))])
        return Launch([self.spec(ctx, 1, self.http(ctx, ctx.listen, up * ctx.count))])
