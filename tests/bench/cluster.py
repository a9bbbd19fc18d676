#!/usr/bin/env python3
"""A node of a cluster: how long a pod takes from its binding to Running, beside the same pod standalone, and how big the kubelet is with 110 pods. Called by ./x bench cluster, under tests/lib/own.sh.

usage: cluster.py --of NAME=BIN [--of upstream=upstream ...] [--runtime embedded|containerd] [--containerd DIR] [--rubelet BIN] [--rounds N] [--pods N]

standalone  from the rename of a manifest to the workload's first instruction, and to Running on /pods
cluster     from the request that makes a bound pod to the first instruction, and to Running as a watch of the API server tells it
memory      PSS with 110 pods at rest, and CPU
A ratio is to the same kubelet's standalone start. Upstream's kubelet has no runtime of its own: it is measured on containerd. p50/p95 over all rounds.
"""
import argparse, copy, json, os, sys, time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__)); sys.path[:0] = [HERE, f"{HERE}/../lib"]
import bench, images
from node import MANIFESTS, NAME, Checks, Cluster, Failed, Watch, add_options, eventually, golden, is_ready, need, wait

NS, SETTLE_SECS, REST_SECS, READ_ONLY = "bench", 20, 30, "http://127.0.0.1:10255/pods"


def workload(c, name):
    """A pod that writes the time of its first instruction."""
    made = json.loads(bench.manifest(name, f"{c.work}/stamps/{name}", "cni")); made["metadata"]["namespace"] = NS; made["spec"]["automountServiceAccountToken"] = False; return made


def stamp(c, name):
    def read():
        with open(f"{c.work}/stamps/{name}/at") as f: lines = f.read().splitlines()
        return int(lines[0]) if lines else None
    def tried():
        try: return read()
        except OSError: return None
    return eventually(tried, 60, f"{name} starts", lambda: c.node.log()[-400:], every=.005)


def phase_of(pod): return pod["status"].get("phase") == "Running" and all("running" in s["state"] for s in pod["status"].get("containerStatuses", [{"state": {}}]))


def standalone(c, rounds):
    """Pairs of milliseconds: to the first instruction, to Running."""
    found = []; c.node.start(join=False, config=CONFIG); need(wait(lambda: answers(READ_ONLY) is not None, 30), "the kubelet answers")
    for i in range(rounds):
        name = f"alone-{i}"
        with open(f"{MANIFESTS}/.{name}", "w") as f: json.dump(workload(c, name), f)
        at = time.monotonic_ns(); os.rename(f"{MANIFESTS}/.{name}", f"{MANIFESTS}/{name}.json")
        eventually(lambda: any(p["metadata"]["name"].startswith(name) and phase_of(p) for p in answers(READ_ONLY) or []), 60, "it runs", every=.005); running = time.monotonic_ns(); found.append(((stamp(c, name) - at) / 1e6, (running - at) / 1e6))
        os.unlink(f"{MANIFESTS}/{name}.json"); eventually(lambda: answers(READ_ONLY) == [], 60, "it goes")
    c.node.stop(); return found


def answers(url):
    try: return json.loads(golden.fetch(url))["items"] or []
    except (OSError, ValueError): return None


def joined(c, rounds):
    found, watch = [], Watch(c.plane, f"/api/v1/namespaces/{NS}/pods")
    for i in range(rounds):
        made = workload(c, f"bound-{i}"); made["spec"]["nodeName"] = NAME; name = made["metadata"]["name"]; at = time.monotonic_ns(); c.request("POST", f"/api/v1/namespaces/{NS}/pods", made)
        running = eventually(lambda: next((t for t, _, o in watch.of(name) if phase_of(o)), None), 60, f"{name} is told to run", every=.005); found.append(((stamp(c, name) - at) / 1e6, running * 1e3 - at / 1e6))
        c.request("DELETE", f"/api/v1/namespaces/{NS}/pods/{name}"); eventually(lambda: not c.pods(NS), 60, "it goes")
    watch.stop(); return found


def size(c, count):
    """PSS in MiB and CPU in ms/s with many pods at rest."""
    for i in range(count):
        made = workload(c, f"many-{i}"); made["spec"]["nodeName"] = NAME; c.request("POST", f"/api/v1/namespaces/{NS}/pods", made)
    eventually(lambda: sum(map(is_ready, c.pods(NS))) == count, 300, "all run", lambda: str(sum(map(is_ready, c.pods(NS)))), every=1); time.sleep(SETTLE_SECS)
    pid = c.node.kubelet.pid; before = bench.cpu_secs(pid); time.sleep(REST_SECS); return bench.pss_mib(pid), 1000 * (bench.cpu_secs(pid) - before) / REST_SECS


CONFIG = {"readOnlyPort": 10255}


def measure(options, name, binary, table):
    options = copy.copy(options); options.kubelet = binary
    if binary == "upstream": options.runtime = "containerd"
    with Cluster(options, scheduler=False) as c:
        archive = f"{c.work}/first.tar"; images.archive(archive, {bench.IMAGE: bench.first_image()}); c.node.add_images(archive); c.namespace(NS)
        alone = standalone(c, options.rounds); c.node.start(config=CONFIG); c.ready(); there = joined(c, options.rounds); pss, cpu = size(c, options.pods)
        for which, i in (("the first instruction", 0), ("Running", 1)):
            bench.row(table, f"standalone: to {which}", name, [t[i] for t in alone]); bench.row(table, f"cluster: from binding to {which}", name, [t[i] for t in there], [t[i] for t in alone])
        bench.row(table, f"PSS, {options.pods} pods of a cluster", name, [pss], unit="MiB"); bench.row(table, f"CPU at rest, {options.pods} pods of a cluster", name, [cpu], unit="ms/s")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter); add_options(parser, 0, required=False)
    parser.add_argument("--of", action="append", required=True, metavar="NAME=BIN"); parser.add_argument("--rounds", type=int, default=10); parser.add_argument("--pods", type=int, default=110); options = parser.parse_args(); table, failed = [], 0
    for name, binary in (k.split("=", 1) for k in options.of):
        try: print(f"{name}: cluster …", flush=True); measure(options, name, binary, table)
        except (RuntimeError, Failed) as error: failed = 1; print(f"x: bench: {name}: {error}", file=sys.stderr)
    print(f"\n{os.cpu_count()} CPUs, Linux {os.uname().release}, {options.runtime} (upstream: containerd), {options.rounds} rounds\n"); widths = [max(len(str(r[i])) for r in table) for i in range(6)] if table else []
    for row in table: print("  ".join(str(v).ljust(w) for v, w in zip(row, widths)).rstrip())
    sys.exit(failed)


if __name__ == "__main__":
    main()
