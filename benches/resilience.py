#!/usr/bin/env python3
"""How Tulle and Envoy bear what goes wrong behind them, as they come and with settings for it.

    benches/resilience.py [--case slow,failing,overload,storm] [--peers tulle,tulle-tuned,envoy,envoy-tuned]
                          [--rounds 3] [--secs 8] [--out FILE]

A service of ten endpoints (`bench-service`), each working on two requests at once for 20 ms: it can do
1,000 requests a second. Requests come at the moments of a Poisson process (`bench-open`), whatever the
answers do, and one that has no 200 after two seconds has failed. Each peer is started afresh for each
case, with one worker; what is told is the share of requests that were answered with 200, the 99th
percentile of how long those took, and how many requests the service got for each that was made.

Needs $TULLE_BIN (or target/release/tulle), and Envoy as $ENVOY_BIN or on the path.
"""
import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
import types
import urllib.request

import bench
import peers

PORT = 29190
ENDPOINTS = [f"127.0.0.{n}:{PORT}" for n in range(1, 11)]
COMMAND = f"http://127.0.0.200:{PORT}"
PATIENCE = 2.0

# name: (what it is, arguments of the service, requests per second, milliseconds of an outage)
CASES = {
    "slow": ("one endpoint of ten slow by 1 s", ["--bad", "1", "--slow", "1000"], 400, 0),
    "failing": ("one of ten fails half its requests", ["--bad", "1", "--fail", "50"], 400, 0),
    "overload": ("twice as many requests as it can do", [], 2000, 0),
    "storm": ("all fail for two seconds, at 80 % of what it can do", [], 800, 2000),
}

TUNED = """
apiVersion: tulle.dev/v1alpha1
kind: TrafficPolicy
metadata: {name: app, namespace: default}
spec:
  targetRefs: [{group: "", kind: Service, name: app}]
  loadBalancer: {algorithm: PeakEwma}
  timeouts: {request: 2s, perTry: 500ms}
  retries: {attempts: 2, on: [connect-failure, refused-stream, reset, "5xx"]}
  hedging: {delay: 150ms}
  outlierDetection: {interval: 1s, baseEjectionTime: 5s, failurePercentage: {threshold: 30, minimumRequests: 20}}
  adaptiveConcurrency: {}
"""


def module_of(peer):
    """What else is in the file of a peer."""
    return types.SimpleNamespace(**type(peer).launch.__globals__)


class Tulle:
    """As `tulle proxy --static`; telemetry at its defaults."""

    def __init__(self, tuned):
        self.peer = peers.load()["tulle"]
        self.tuned = tuned

    def spec(self, ctx):
        own = module_of(self.peer)
        objects = [own.gateway(self.peer.listener(ctx.listen, "HTTP")), own.http_route()]
        objects.append("apiVersion: v1\nkind: Service\nmetadata: {name: app, namespace: default}\nspec: {selector: {app: app}, "
                       f"ports: [{{name: main, port: 80, targetPort: {PORT}, appProtocol: http}}]}}\n")
        for n, endpoint in enumerate(ENDPOINTS):
            objects.append(f"apiVersion: tulle.dev/v1alpha1\nkind: Workload\nmetadata: {{name: app-{n}, namespace: default, "
                           f"labels: {{app: app}}}}\nspec: {{address: {endpoint.split(':')[0]}, "
                           f"ports: [{{name: main, port: {PORT}, appProtocol: http}}]}}\n")
        if self.tuned:
            objects.append(TUNED)
        return self.peer.spec(ctx, 1, objects)


class Envoy:
    """Static configuration; its statistics on, as shipped."""

    def __init__(self, tuned):
        self.peer = peers.load()["envoy"]
        self.tuned = tuned

    def spec(self, ctx):
        own = module_of(self.peer)
        typed = own.typed
        points = [{"endpoint": {"address": own.address(one)}} for one in ENDPOINTS]
        cluster = {"name": "up", "type": "STATIC", "connect_timeout": "5s", "lb_policy": "LEAST_REQUEST",
                   "load_assignment": {"cluster_name": "up", "endpoints": [{"lb_endpoints": points}]}}
        route = {"cluster": "up"}
        filters = []
        if self.tuned:
            cluster["outlier_detection"] = {
                "interval": "1s", "base_ejection_time": "5s", "max_ejection_percent": 50, "failure_percentage_threshold": 30,
                "failure_percentage_request_volume": 20, "enforcing_failure_percentage": 100}
            budget = {"budget_percent": {"value": 20}, "min_retry_concurrency": 10}
            cluster["circuit_breakers"] = {"thresholds": [{"retry_budget": budget}]}
            previous = typed("extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate")
            route |= {"timeout": "2s", "retry_policy": {
                "retry_on": "connect-failure,refused-stream,reset,5xx", "num_retries": 2, "per_try_timeout": "0.5s",
                "host_selection_retry_max_attempts": 5,
                "retry_host_predicate": [{"name": "envoy.retry_host_predicates.previous_hosts", "typed_config": previous}]}}
            filters.append({"name": "envoy.filters.http.adaptive_concurrency", "typed_config": typed(
                "extensions.filters.http.adaptive_concurrency.v3.AdaptiveConcurrency",
                gradient_controller_config={
                    "concurrency_limit_params": {"concurrency_update_interval": "0.1s"},
                    "min_rtt_calc_params": {"interval": "60s", "request_count": 50}})})
        filters.append({"name": "envoy.filters.http.router", "typed_config": typed("extensions.filters.http.router.v3.Router")})
        manager = typed("extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", stat_prefix="in",
                        http_filters=filters, route_config={"virtual_hosts": [{
                            "name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": route}]}]})
        chain = {"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}
        listener = {"name": "in", "address": own.address(ctx.listen), "filter_chains": [chain]}
        resources = {"static_resources": {"listeners": [listener], "clusters": [cluster]}}
        path = ctx.write("envoy.json", json.dumps(resources))
        return peers.Spec([own.find(), "-c", path, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error",
                           "--disable-hot-restart"])


class Launched:
    """What `bench.Running` starts: one process."""

    def __init__(self, peer):
        self.peer = peer

    def launch(self, _role, ctx):
        return peers.Launch([self.peer.spec(ctx)])


def told(path):
    with urllib.request.urlopen(COMMAND + path, timeout=5) as answer:
        return int(answer.read())


def measure(case, peer, ctx, secs):
    """One peer in one case."""
    _, arguments, rate, outage = CASES[case]
    tool = os.path.join(bench.TOOLS, "bench-service")
    service = subprocess.Popen([tool, "--port", str(PORT), "--time", "20", "--at-once", "2", *arguments])
    try:
        end = time.monotonic() + 10
        while True:
            try:
                told("/counts")
                break
            except OSError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.01)
        ctx.fresh()
        running = bench.Running(Launched(peer), "h1", ctx, cores="0,1")
        try:
            before = told("/counts")
            load = subprocess.Popen(
                [os.path.join(bench.TOOLS, "bench-open"), "--addr", ctx.listen, "--rate", str(rate), "--secs", str(secs),
                 "--warm", "0", "--conns", "512", "--patience", str(PATIENCE)], stdout=subprocess.PIPE, text=True)
            if outage:
                time.sleep(secs / 4)
                told(f"/outage?ms={outage}")
            out = json.loads(load.communicate(timeout=secs + 60)[0])
            good = out["measured"] / max(out["sent"], 1) * 100
            return {"good": good, "p99_ms": out["p99_us"] / 1e3, "tries": (told("/counts") - before) / max(out["sent"], 1)}
        finally:
            running.close()
    finally:
        service.terminate()
        service.wait()


def main():
    known = {"tulle": lambda: Tulle(False), "tulle-tuned": lambda: Tulle(True),
             "envoy": lambda: Envoy(False), "envoy-tuned": lambda: Envoy(True)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--case", default=",".join(CASES))
    parser.add_argument("--peers", default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--secs", type=float, default=8)
    parser.add_argument("--out")
    options = parser.parse_args()
    installed = peers.load()
    names = (options.peers or ",".join(name for name in known if name.split("-")[0] in installed)).split(",")
    results = {}
    with tempfile.TemporaryDirectory() as root:
        ctx = bench.Context(root)
        for case in options.case.split(","):
            print(f"\n{case}: {CASES[case][0]}, {CASES[case][2]} requests/s")
            print(f"  {'':14}{'answered':>18}{'p99':>22}{'requests behind':>20}")
            found = {name: [] for name in names}
            for turn in range(options.rounds):
                for name in names if turn % 2 == 0 else reversed(names):
                    found[name].append(measure(case, known[name](), ctx, options.secs))
            for name in names:
                columns = []
                for key, form in (("good", "{:.1f} %"), ("p99_ms", "{:.0f} ms"), ("tries", "{:.2f}")):
                    values = [one[key] for one in found[name]]
                    spread = f" ({form.format(min(values))}..{form.format(max(values))})" if key != "tries" else ""
                    columns.append(form.format(statistics.median(values)) + spread)
                print(f"  {name:14}{columns[0]:>26}{columns[1]:>28}{columns[2]:>10}", flush=True)
            results[case] = found
    if options.out:
        with open(options.out, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
