"""Ratings of books: an HTTP server of Python's standard library, nothing else.

GET /ratings/ISBN -> {"isbn": ..., "ratings": {"reviewer": stars}, "instance": ...}
GET /healthz      -> ok
Environment: PORT (9080), HOST (all addresses).
"""

import json
import os
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

INSTANCE = "ratings-%d" % os.getpid()


def ratings(isbn):
    """Stars from 1 to 5, the same for a book every time."""
    seed = sum(isbn.encode())
    return {"Mara": 3 + seed % 3, "Jonas": 2 + seed % 4}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body leave in one packet.
    wbufsize = -1
    disable_nagle_algorithm = True
    timeout = 300

    def do_GET(self):
        path = self.path.split("?", 1)[0]
        if path == "/healthz":
            return self.reply(200, "text/plain", b"ok\n")
        if path.startswith("/ratings/") and 0 < len(path) - 9 <= 32:
            isbn = path[9:]
            answer = {"isbn": isbn, "ratings": ratings(isbn), "instance": INSTANCE}
            return self.reply(200, "application/json", json.dumps(answer).encode())
        self.reply(404, "application/json", b'{"error":"no such page"}')

    def reply(self, status, kind, body):
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.send_header("x-bookshop-instance", INSTANCE)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024


def listen(host, port):
    if not host and socket.has_dualstack_ipv6():
        # Both families on one socket.
        class DualStack(Server):
            address_family = socket.AF_INET6

            def server_bind(self):
                self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                super().server_bind()

        try:
            return DualStack(("::", port), Handler)
        except OSError:
            pass
    if ":" in host:
        Server.address_family = socket.AF_INET6
    return Server((host, port), Handler)


def main():
    server = listen(os.environ.get("HOST", ""), int(os.environ.get("PORT", "9080")))

    def stop(*_):
        # shutdown() waits for the loop that this handler interrupts.
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    # One write: print() makes two, and whoever reads the first may be gone before the second.
    sys.stderr.write("%s: listening on port %d\n" % (INSTANCE, server.server_address[1]))
    server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
