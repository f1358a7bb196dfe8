"""The proxies that `make bench` sets beside each other: one small file each, a subclass of Peer.

Tulle's own file is in `../peerbench`, so that other harnesses with the same interface find it alone.
"""
import importlib
import importlib.util
import os
import subprocess
from dataclasses import dataclass, field

HERE = os.path.dirname(os.path.abspath(__file__))


@dataclass
class Spec:
    """A process to start; its cost counts, unless it is only needed."""

    argv: list
    env: dict = field(default_factory=dict)
    counted: bool = True


@dataclass
class Launch:
    """The processes of a peer in a role, and where the load goes (the context's `listen` if None)."""

    procs: list
    client: str = None


class Peer:
    """Roles: h1, h2 (both sides in clear text), tls (TLS 1.3 in, HTTP/1.1 out), tcp (bytes),
    chain (HTTP/1.1 in, mutual TLS 1.3 between two processes, HTTP/1.1 out),
    tcpchain (the same with bytes), routes and endpoints (h1 with many of them)."""

    name = None
    roles = frozenset()

    def version(self):
        """One line."""
        return ""

    def launch(self, role, ctx):
        """ctx: listen, listen2 ("127.0.0.1:PORT"), upstream, upstream_h2, upstream_tcp, ca, cert, key
        (paths), count (routes or endpoints), write(name, text) -> path, dir."""
        raise NotImplementedError


def first_line(*argv):
    """The first line that a command prints, or ""."""
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10)
    except OSError:
        return ""
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else ""


def load():
    """All peers that are installed, by name; Tulle first."""
    files = [os.path.join(HERE, "..", "peerbench", "tulle.py")]
    files += [os.path.join(HERE, f"{name}.py") for name in ("haproxy", "nginx", "envoy")]
    found = {}
    for path in files:
        name = os.path.basename(path)[:-3]
        spec = importlib.util.spec_from_file_location(f"{__name__}.{name}", path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for value in vars(module).values():
            own = isinstance(value, type) and issubclass(value, Peer) and value.__module__ == module.__name__
            if own and value.name and value().version():
                found[value.name] = value()
    return found
