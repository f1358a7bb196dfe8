"""HAProxy (Debian: haproxy)."""
from . import Launch, Peer, Spec, first_line

HEAD = """global
  nbthread {threads}
  maxconn 4000
  tune.ssl.cachesize 0
defaults
  mode {mode}
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 60s
{splice}
"""
SPLICE = "  option splice-auto\n  option splice-request\n  option splice-response\n"
TLS13 = "ssl-min-ver TLSv1.3 ssl-max-ver TLSv1.3"


class HAProxy(Peer):
    name = "haproxy"
    roles = frozenset({"h1", "h2", "tls", "tcp", "chain", "tcpchain", "routes", "endpoints"})

    def version(self):
        return first_line("haproxy", "-v")

    def spec(self, ctx, number, text, mode="http"):
        head = HEAD.format(threads=ctx.workers, mode=mode, splice=SPLICE if mode == "tcp" else "")
        return Spec(["haproxy", "-db", "-f", ctx.write(f"haproxy-{number}.cfg", head + text)])

    def section(self, listen, servers, bind="", server="", rules=""):
        lines = "".join(f"  server s{n} {to} {server}\n" for n, to in enumerate(servers))
        return f"frontend in\n  bind {listen} {bind}\n{rules}  default_backend up\nbackend up\n{lines}"

    def http(self, *args, **kwargs):
        return self.section(*args, **kwargs) + "  http-reuse always\n"

    def launch(self, role, ctx):
        pair = ctx.write("pair.pem", open(ctx.cert).read() + open(ctx.key).read())
        inward = f"ssl crt {pair} ca-file {ctx.ca} verify required {TLS13}"
        outward = f"ssl crt {pair} ca-file {ctx.ca} verify required sni str(app.local) verifyhost app.local {TLS13}"
        up = [ctx.upstream]
        if role == "h1":
            return Launch([self.spec(ctx, 1, self.http(ctx.listen, up))])
        if role == "h2":
            return Launch([self.spec(ctx, 1, self.http(ctx.listen, [ctx.upstream_h2], "proto h2", "proto h2"))])
        if role == "tls":
            return Launch([self.spec(ctx, 1, self.http(ctx.listen, up, f"ssl crt {pair} {TLS13} no-tls-tickets"))])
        if role == "tcp":
            return Launch([self.spec(ctx, 1, self.section(ctx.listen, [ctx.upstream_tcp]), "tcp")])
        if role == "tcpchain":
            return Launch([self.spec(ctx, 1, self.section(ctx.listen, [ctx.listen2], server=outward), "tcp"),
                           self.spec(ctx, 2, self.section(ctx.listen2, up, inward), "tcp")])
        if role == "chain":
            return Launch([self.spec(ctx, 1, self.http(ctx.listen, [ctx.listen2], server=outward)),
                           self.spec(ctx, 2, self.http(ctx.listen2, up, inward))])
        if role == "routes":
            table = "".join(f"/r{n}/ up\n" for n in range(ctx.count))
            rules = f"  use_backend %[path,map_beg({ctx.write('routes.map', table)})]\n"
            return Launch([self.spec(ctx, 1, self.http(ctx.listen, up, rules=rules))])
        return Launch([self.spec(ctx, 1, self.http(ctx.listen, up * ctx.count))])
