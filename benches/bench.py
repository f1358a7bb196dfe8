#!/usr/bin/env python3
"""Tulle beside HAProxy, nginx and Envoy, those that are installed, on this machine and in one run.

    benches/bench.py [--work h1,h2,...] [--peers tulle,haproxy] [--rounds 3] [--secs 3] [--out FILE]

What it prints are ratios (HAProxy = 1), because times of one machine say nothing about another. For
each workload and round every peer is started afresh with one worker on core 0; load and upstream
have core 1. Cost is the processor time of the peer's processes, by the scheduler's own count, per
request. Peers take turns, every second round in reverse; a ratio is taken within its round, and the
median of the rounds is shown with the least and the greatest. docs/performance.md says more.

Needs two cores, and wrk, h2load, iperf3 and openssl (Debian: wrk nghttp2-client iperf3 openssl).
"""
import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time

import peers

HERE = os.path.dirname(os.path.abspath(__file__))
TOOLS = os.environ.get("BENCH_BIN") or os.path.join(HERE, "..", "target", "quick")
PROXY_CORE, LOAD_CORE = "0", "1"
REQUEST = b"GET / HTTP/1.1\r\nHost: app.local\r\n\r\n"

# name: (role, what it is, figure, its unit; less is better unless the unit is per something)
WORKLOADS = {
    "h1": ("h1", "HTTP/1.1, small GET, 64 connections", "cpu_us", "CPU per request"),
    "h1-large": ("h1", "HTTP/1.1, 100 KiB, 64 connections", "cpu_us", "CPU per request"),
    "h2": ("h2", "HTTP/2, 8 connections of 8 streams", "cpu_us", "CPU per request"),
    "grpc": ("h2", "gRPC unary, 8 connections of 8 streams", "cpu_us", "CPU per call"),
    "pair": ("chain", "sidecar to sidecar, mutual TLS, HTTP read at both ends", "cpu_us", "CPU per request, both"),
    "l4-pair": ("tcpchain", "the same load as bytes in mutual TLS", "cpu_us", "CPU per request, both"),
    "handshake": ("tls", "full handshake X25519MLKEM768 and one GET", "cpu_us", "CPU each"),
    "tcp": ("tcp", "TCP, one stream", "cpu_us", "CPU per MB"),
    "latency": ("h1", "added at 2,000 requests/s", "p50_us", "p50 added"),
    "latency-p99": ("h1", "added at 2,000 requests/s", "p99_us", "p99 added"),
    "pair-latency": ("chain", "added at 2,000 requests/s by the pair", "p50_us", "p50 added"),
    "memory": ("h1", "idle", "idle_kib", "Pss"),
    "connection": ("h1", "1,000 idle connections", "kib", "Pss per connection"),
    "startup": ("h1", "from exec to the first 200", "ms", "time"),
    "cores": ("h1", "two workers against one", "scale", "times the requests per CPU-second x 2"),
    "routes": ("routes", "10,000 routes, the last one asked for, against one", "scale", "times the CPU per request"),
    "endpoints": ("endpoints", "1,000 endpoints against one, both at 20,000 requests/s", "scale", "times the CPU per request"),
    "endpoints-full": ("endpoints", "the same, each with as many requests as it takes", "scale", "times the CPU per request"),
}


# Requests per second where all are to have the same.
PACE = 20_000

# Where the reference does not take part: OpenSSL 3.0, which many builds of HAProxy and nginx have,
# knows no ML-KEM.
REFERENCES = {"handshake": "envoy"}


class Failed(Exception):
    """A measurement that gave nothing."""


class Context:
    """What a peer may use for its configuration, and what it was told."""

    def __init__(self, root):
        self.root, self.number, self.workers, self.count = root, 0, 1, 1
        self.upstream, self.upstream_h2, self.upstream_tcp = "127.0.0.1:29180", "127.0.0.1:29182", "127.0.0.1:29184"
        self.ca, self.cert, self.key = (os.path.join(root, f"{name}.pem") for name in ("ca", "app", "app-key"))

    def fresh(self):
        """Ports and a folder that no peer before has used."""
        self.number += 1
        port = 21000 + (self.number * 4) % 8000
        self.listen, self.listen2 = f"127.0.0.1:{port}", f"127.0.0.1:{port + 1}"
        self.dir = os.path.join(self.root, str(self.number))
        os.mkdir(self.dir)

    def write(self, name, text):
        path = os.path.join(self.dir, name)
        with open(path, "w") as file:
            file.write(text)
        return path


def certificates(folder):
    """An authority and `app.local`, P-256."""
    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca-key.pem", "-out", "ca.pem", "-days", "30", "-subj", "/CN=bench authority")
    openssl("req", *key, "-keyout", "app-key.pem", "-out", "app.csr", "-subj", "/CN=app.local")
    with open(os.path.join(folder, "extensions"), "w") as file:
        file.write("subjectAltName=DNS:app.local\nbasicConstraints=CA:FALSE\nkeyUsage=digitalSignature\n"
                   "extendedKeyUsage=serverAuth,clientAuth\n")
    openssl("x509", "-req", "-in", "app.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial",
            "-days", "30", "-extfile", "extensions", "-out", "app.pem")


def family(pid):
    """A process and all below it."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                for child in file.read().split():
                    found += family(int(child))
    return found


class Running:
    """A peer in a role, started and answering."""

    def __init__(self, peer, role, context, cores=PROXY_CORE):
        self.role, self.processes, self.counted = role, [], []
        launch = peer.launch(role, context)
        self.client = launch.client or context.listen
        self.log = open(os.path.join(context.dir, "log"), "w+")
        self.path = f"/r{context.count - 1}/" if role == "routes" else "/"
        try:
            begun = time.monotonic()
            for spec in launch.procs:
                where = cores if spec.counted else LOAD_CORE
                self.processes.append(subprocess.Popen(
                    ["taskset", "-c", where, *map(str, spec.argv)], env={**os.environ, **spec.env},
                    stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log, start_new_session=True))
                if spec.counted:
                    self.counted.append(self.processes[-1])
            self.wait()
            self.startup_ms = (time.monotonic() - begun) * 1e3
        except BaseException:
            self.close()
            raise

    def wait(self):
        end = time.monotonic() + 60
        while time.monotonic() < end and all(p.poll() is None for p in self.processes):
            if answers(self.client, self.role, self.path):
                return
            time.sleep(0.001)
        self.log.flush()
        self.log.seek(0)
        raise Failed("it does not answer: " + self.log.read()[-300:].strip().replace("\n", " "))

    def cpu(self):
        """Seconds of processor time so far."""
        total = 0
        for pid in {p for process in self.counted for p in family(process.pid)}:
            with contextlib.suppress(OSError):
                for task in os.listdir(f"/proc/{pid}/task"):
                    with contextlib.suppress(OSError), open(f"/proc/{pid}/task/{task}/schedstat") as file:
                        total += int(file.read().split()[0])
        return total / 1e9

    def memory(self):
        """Proportional set size in KiB."""
        total = 0
        for pid in {p for process in self.counted for p in family(process.pid)}:
            with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as file:
                total += int(re.search(r"^Pss:\s+(\d+)", file.read(), re.M).group(1))
        return total

    def close(self):
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self.processes:
            try:
                process.wait(1)
            except subprocess.TimeoutExpired:
                for pid in reversed(family(process.pid)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                process.wait()
        self.log.close()


def host_port(address):
    host, port = address.rsplit(":", 1)
    return host, int(port)


def answers(address, role, path="/"):
    """Does it answer 200 (in the role `tcp`: accept)?"""
    if role == "h2":
        done = subprocess.run(["h2load", "-n1", "-c1", f"http://{address}{path}"], capture_output=True, text=True, timeout=10)
        return " 1 2xx" in done.stdout
    try:
        with socket.create_connection(host_port(address), timeout=1) as stream:
            if role == "tcp":
                return True
            if role == "tls":
                context = ssl.create_default_context()
                context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
                stream = context.wrap_socket(stream, server_hostname="app.local")
            stream.settimeout(1)
            stream.sendall(REQUEST.replace(b" / ", f" {path} ".encode(), 1))
            return stream.recv(4096).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def run(argv, timeout=60):
    done = subprocess.run(["taskset", "-c", LOAD_CORE, *map(str, argv)], capture_output=True, text=True, timeout=timeout)
    if done.returncode:
        raise Failed(f"{argv[0]}: {(done.stderr or done.stdout).strip()[-200:]}")
    return done.stdout


def wrk(peer, path, seconds):
    url = f"http://{peer.client}{path}"
    argv = ["wrk", "-t1", "-c64", "-H", "Host: app.local", url]
    run([*argv, "-d1"])
    before = peer.cpu()
    text = run([*argv, f"-d{seconds}"])
    spent = peer.cpu() - before
    if re.search(r"Non-2xx|Socket errors", text):
        raise Failed(" ".join(re.findall(r"(?:Non-2xx|Socket errors).*", text)))
    count = int(re.search(r"(\d+) requests in", text).group(1))
    if not count:
        raise Failed("no request was answered")
    return {"cpu_us": spent / count * 1e6, "rate": count / seconds}


def h2load(peer, seconds, *more):
    argv = ["h2load", "-t1", "-c8", "-m8", *more, f"http://{peer.client}/test.Echo/Unary"]
    run([*argv, "-n4000"])
    before = peer.cpu()
    text = run([*argv, "-D", seconds])
    spent = peer.cpu() - before
    count = int(re.search(r"status codes: (\d+) 2xx", text).group(1))
    failed = re.search(r"(\d+) failed, (\d+) errored", text)
    # Requests on their way when the time is up count as failed.
    if not count or int(failed.group(1)) > count / 100:
        raise Failed(failed.group(0))
    return {"cpu_us": spent / count * 1e6, "rate": count / seconds}


def latency(client, rate, seconds):
    found = json.loads(run([os.path.join(TOOLS, "bench-open"), "--addr", client, "--rate", rate, "--secs", seconds, "--conns", 32]))
    if found["errors"]:
        raise Failed(f"{found['errors']} errors")
    return found


def paced(peer, seconds):
    """The processor time of requests that come at a rate of their own: how many are there at once, and
    so how many share a turn, does not follow from how fast the proxy is."""
    latency(peer.client, PACE, 1)
    before = peer.cpu()
    found = latency(peer.client, PACE, seconds)
    return {"cpu_us": (peer.cpu() - before) / found["sent"] * 1e6, "rate": found["sent"] / seconds}


def handshakes(peer, context, seconds):
    argv = [os.path.join(TOOLS, "bench-handshake"), "--addr", peer.client, "--ca", context.ca, "--kx", "mlkem"]
    run([*argv, "--secs", 0.5])
    before = peer.cpu()
    found = json.loads(run([*argv, "--secs", seconds]))
    if found["errors"] or not found["ok"]:
        raise Failed(f"{found['ok']} of {found['ok'] + found['errors']} handshakes: no ML-KEM?")
    return {"cpu_us": (peer.cpu() - before) / found["ok"] * 1e6, "rate": found["per_s"]}


def iperf(peer, seconds):
    host, port = host_port(peer.client)
    before = peer.cpu()
    for _ in range(20):
        # The server takes one client at a time, and the look whether the proxy accepts was one.
        try:
            found = json.loads(run(["iperf3", "-c", host, "-p", port, "-t", seconds, "-J"]))
            megabytes = found["end"]["sum_received"]["bytes"] / 1e6
            break
        except (Failed, KeyError):
            time.sleep(0.1)
            before = peer.cpu()
    else:
        raise Failed("iperf3 had no connection")
    return {"cpu_us": (peer.cpu() - before) / megabytes * 1e6, "rate": megabytes / seconds}


def connections(peer, count=1000):
    """Pss per kept connection after one request on each."""
    held = []

    def more(number):
        for _ in range(number):
            stream = socket.create_connection(host_port(peer.client), timeout=5)
            held.append(stream)
            stream.sendall(REQUEST)
            if not stream.recv(4096).startswith(b"HTTP/1.1 200"):
                raise Failed("no 200")
        time.sleep(0.3)
        return peer.memory()

    try:
        few = more(20)
        return {"kib": (more(count) - few) / count}
    finally:
        for stream in held:
            stream.close()


def measure(work, peer, context, options, floor):
    """One measurement: a dictionary with the workload's figure."""
    seconds = options.secs
    role = WORKLOADS[work][0]
    context.fresh()
    context.workers = 1
    context.count = {"routes": 10_000, "endpoints": 1_000}.get(role, 1)
    load = (lambda r: paced(r, seconds)) if work == "endpoints" else (lambda r: wrk(r, r.path, seconds))
    with contextlib.closing(Running(peer, role, context)) as running:
        if work in ("h1", "pair", "l4-pair"):
            return wrk(running, "/", seconds)
        if work == "h1-large":
            return wrk(running, "/big", seconds)
        if work == "h2":
            return h2load(running, seconds)
        if work == "grpc":
            message = context.write("message", "\0\0\0\0\x0d" + "x" * 13)
            return h2load(running, seconds, "-H", "content-type: application/grpc", "-H", "te: trailers", "-d", message)
        if work == "handshake":
            return handshakes(running, context, seconds)
        if work == "tcp":
            return iperf(running, seconds)
        if work in ("latency", "latency-p99", "pair-latency"):
            found = latency(running.client, options.rate, seconds)
            return {name: found[name] - floor()[name] for name in ("p50_us", "p99_us")}
        if work == "connection":
            return connections(running)
        if work == "memory":
            return {"idle_kib": running.memory()}
        if work == "startup":
            return {"ms": running.startup_ms}
        one = load(running)
    if role in ("routes", "endpoints"):
        context.fresh()
        context.count = 1
        with contextlib.closing(Running(peer, "h1", context)) as running:
            return {"scale": one["cpu_us"] / load(running)["cpu_us"]}
    # Two workers on both cores; the load shares them, so requests per CPU-second are compared.
    context.fresh()
    context.workers = 2
    with contextlib.closing(Running(peer, role, context, f"{PROXY_CORE},{LOAD_CORE}")) as running:
        two = wrk(running, "/", seconds)
    return {"scale": 2 * one["cpu_us"] / two["cpu_us"]}


def show(results, names, reference):
    """Markdown: a row for each workload, a column for each peer."""
    lines = [f"| workload | figure ({reference} = 1) | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(names)]
    for work, (_, text, figure, unit) in WORKLOADS.items():
        own = [r for r in results if r["work"] == work]
        if not own:
            continue
        base = REFERENCES.get(work, reference)
        unit += f" ({base} = 1)" if base != reference else ""
        rounds = {}
        for r in own:
            if "value" in r:
                rounds.setdefault(r["round"], {})[r["peer"]] = r["value"]
        cells = []
        for name in names:
            absolute = figure == "scale"
            values = [v[name] / (1 if absolute else v[base]) for v in rounds.values()
                      if name in v and (absolute or v.get(base, 0) > 0)]
            alone = [v[name] for v in rounds.values() if name in v]
            failed = sorted({r["failed"] for r in own if r["peer"] == name and "failed" in r})
            if values:
                least, most = f"{min(values):.2f}", f"{max(values):.2f}"
                spread = f" ({least}..{most})" if least != most else ""
                cells.append(f"{statistics.median(values):.2f}{'' if absolute else 'x'}{spread}")
            elif alone:
                cells.append(f"{statistics.median(alone):.1f} (no {base})")
            else:
                cells.append(failed[0][:80].replace("|", "/") if failed else "")
        lines.append(f"| {work}: {text} | {unit} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def start_upstream(context):
    def start(*argv):
        return subprocess.Popen(["taskset", "-c", LOAD_CORE, *argv], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    port = host_port(context.upstream)[1]
    upstream = [start(os.path.join(TOOLS, "bench-upstream"), "--h1", f"0.0.0.0:{port}", "--h2", context.upstream_h2)]
    if shutil.which("iperf3"):
        upstream.append(start("iperf3", "-s", "-p", str(host_port(context.upstream_tcp)[1])))
    end = time.monotonic() + 5
    while not (answers(context.upstream, "h1") and answers(context.upstream_h2, "h2")):
        if time.monotonic() > end:
            raise SystemExit("bench.py: the upstream does not answer")
        time.sleep(0.02)
    return upstream


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", default=",".join(WORKLOADS), help="comma list")
    parser.add_argument("--peers", default="", help="comma list; those that are installed")
    parser.add_argument("--reference", default="haproxy", help="the peer that is 1")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--secs", type=int, default=3, help="of each measurement")
    parser.add_argument("--rate", type=int, default=2000, help="requests per second for latencies")
    parser.add_argument("--out", help="every measurement, as JSON")
    return parser.parse_args()


def main():
    options = arguments()
    missing = [tool for tool in ("wrk", "h2load", "openssl", "taskset") if not shutil.which(tool)]
    if missing:
        raise SystemExit(f"bench.py: not installed: {', '.join(missing)}; apt-get install wrk nghttp2-client openssl")
    if (os.cpu_count() or 1) < 2:
        raise SystemExit("bench.py: needs two cores, one for the proxy and one for the load")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    found = peers.load()
    names = [n for n in options.peers.split(",") if n] or list(found)
    unknown = [n for n in names if n not in found]
    if unknown:
        raise SystemExit(f"bench.py: not installed: {', '.join(unknown)}; there are {', '.join(found)}")
    for name in names:
        print(f"{name}: {found[name].version()}", file=sys.stderr)
    root = tempfile.mkdtemp(prefix="tulle-bench-")
    os.chmod(root, 0o755)
    results, upstream = [], []
    try:
        certificates(root)
        context = Context(root)
        upstream = start_upstream(context)
        for turn in range(options.rounds):
            for work in options.work.split(","):
                floors = []

                def floor():
                    if not floors:
                        floors.append(latency(context.upstream, options.rate, options.secs))
                    return floors[0]

                role, _, figure, unit = WORKLOADS[work]
                order = [n for n in names if role in found[n].roles]
                for name in order if turn % 2 == 0 else reversed(order):
                    record = {"work": work, "peer": name, "round": turn}
                    try:
                        record["all"] = measure(work, found[name], context, options, floor)
                        record["value"] = record["all"][figure]
                    except (Failed, subprocess.SubprocessError, OSError, ValueError, AttributeError) as error:
                        record["failed"] = str(error) or type(error).__name__
                    results.append(record)
                    shown = record.get("failed") or f"{record['value']:.2f} {unit} ({figure})"
                    print(f"round {turn + 1} {work:12} {name:8} {shown}", file=sys.stderr, flush=True)
        print(show(results, names, options.reference))
        if options.out:
            with open(options.out, "w") as file:
                json.dump({"versions": {n: found[n].version() for n in names}, "results": results}, file, indent=1)
    finally:
        for process in upstream:
            process.terminate()
            process.wait()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
