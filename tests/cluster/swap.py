#!/usr/bin/env python3
"""A node changes its kubelet under running pods: started by upstream's, taken over by another, and back, three times. Called by ./x test swap, under tests/lib/own.sh.

usage: swap.py --kubelet BIN|upstream [--runtime embedded|containerd] [--containerd DIR] [--rubelet BIN] [--times N]
20 pods of the API (probes, volumes of all sorts, sidecars) and 3 static ones: no container starts again, no pod is told unready, and the new kubelet really has them.
"""
import argparse, json, os, re, sys, time, urllib.request

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../lib"))
from node import AGNHOST, BUSYBOX, MANIFESTS, NAME, Checks, Cluster, Watch, add_options, eventually, is_ready, need, pod, restarts

TAKES_OVER_SECS, NS, API_PODS, STATIC_PODS = 20, "swapped", 20, 3


def kinds(i):
    """Pods that differ in what a kubelet remembers of them."""
    probe = {"readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1}, "livenessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 2}}
    http = {"args": ["netexec", "--http-port=8080"], "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1}, "startupProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1, "failureThreshold": 30}}
    volumes = [{"name": "c", "configMap": {"name": "conf"}}, {"name": "s", "secret": {"secretName": "sec"}}, {"name": "e", "emptyDir": {}}, {"name": "m", "emptyDir": {"medium": "Memory"}}, {"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]
    mounts = {"volumeMounts": [{"name": v["name"], "mountPath": "/" + v["name"]} for v in volumes] + [{"name": "c", "mountPath": "/one", "subPath": "key"}]}
    limits = {"resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "200m", "memory": "64Mi"}}}
    sidecar = {"initContainers": [{"name": "first", "image": BUSYBOX, "command": ["true"]}, {"name": "side", "image": BUSYBOX, "command": ["sleep", "100000"], "restartPolicy": "Always"}]}
    return [pod(f"p{i}", container=probe), pod(f"p{i}", image=AGNHOST, command=None, container=http), pod(f"p{i}", container={**mounts, **limits}, volumes=volumes, securityContext={"fsGroup": 2000}),
            pod(f"p{i}", automountServiceAccountToken=True, **sidecar), pod(f"p{i}", hostNetwork=True, container=probe)][i % 5]


def kind_of(name): return int(name[1:]) % 5 if re.fullmatch(r"p\d+", name) else "static" if name.startswith("static") else name


def containers(pods):
    """What must stay: of each pod its UID, of each container its id, its start and how often it was started."""
    return {p["metadata"]["name"]: (p["metadata"]["annotations"].get("kubernetes.io/config.hash") if p["metadata"].get("ownerReferences") else p["metadata"]["uid"], p["status"].get("podIP"),
            [(s["name"], s["containerID"], s["restartCount"], s["state"]) for k in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses") for s in p["status"].get(k, [])]) for p in pods}


def flips(watch, since):
    """Pods that were told unready, gone, or in another phase after a moment."""
    return [(round(at - since, 1), kind, o["metadata"]["name"], [c for c in o["status"].get("conditions", []) if c["status"] != "True"]) for at, kind, o in list(watch.seen)
            if at > since and (kind == "DELETED" or not is_ready(o) or o["status"]["phase"] != "Running")]


def node_flips(watch, since): return [(round(at - since, 1), c) for at, _, o in list(watch.seen) if at > since for c in o["status"].get("conditions", []) if c["type"] == "Ready" and c["status"] != "True"]


def prepare(c):
    c.namespace(NS)
    for i in range(STATIC_PODS):
        with open(f"{MANIFESTS}/static-{i}.yaml", "w") as f: json.dump(pod(f"static-{i}", NS, grace=5, hostNetwork=i == 1, container={"readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1}}), f)
    c.node.start("upstream"); c.ready()
    c.create(NS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf"}, "data": {"key": "one"}}, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sec"}, "stringData": {"word": "hush"}}, *map(kinds, range(API_PODS)))
    eventually(lambda: sum(map(is_ready, c.pods(NS))) == API_PODS + STATIC_PODS, 180, "all pods run", lambda: [(p["metadata"]["name"], p["status"].get("conditions")) for p in c.pods(NS) if not is_ready(p)])
    time.sleep(12)  # kubelet 1.36: what was started less than 10 s before it counts as just started


def swapped(c, which, state):
    """One change of kubelets."""
    since = time.monotonic(); c.node.stop(); c.node.start(which); renewed = lambda: c.get(f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NAME}")["spec"]["renewTime"]; before = renewed()
    eventually(lambda: c.node.kubelet.poll() is None and renewed() != before, 60, "the new kubelet renews the node's lease", lambda: c.node.log()[-500:]); time.sleep(TAKES_OVER_SECS)
    need(c.node.kubelet.poll() is None, "the new kubelet goes on", c.node.log()[-500:]); now = containers(c.pods(NS))
    changed = {n: {"was": state.get(n), "is": now.get(n)} for n in state.keys() | now.keys() if state.get(n) != now.get(n)}; need(not changed, f"{len(changed)} pods changed", changed)
    told = flips(c.watch, since)
    # Upstream's kubelet tells pods with probes unready when it starts, whoever was there before: no others because ours was.
    if which == "upstream":
        names = sorted({name for _, _, name, _ in told}); print(f"        upstream tells {len(names)} pods unready: {' '.join(names)}", flush=True); flipped = {kind_of(n) for n in names}
        # Static pods it tells unready at some of its starts and not at others, also after itself.
        if c.own_flips is None: c.own_flips = flipped | {"static"}
        else: need(flipped <= c.own_flips, f"pods are told unready that upstream's kubelet would have left alone after itself: {flipped - c.own_flips}", told)
        return
    need(not told, f"{len(told)} times a pod was told unready", told); need(not (told := node_flips(c.nodes, since)), "the node was told unready", told)


def has_them(c, which):
    """The kubelet that is there now has what it took over: it starts again what dies, sees what becomes unready, takes down what is deleted."""
    victim, other = "p0", "p1"; one = lambda n: next((p for p in c.pods(NS) if p["metadata"]["name"] == n), None); uid = one(victim)["metadata"]["uid"]
    try: urllib.request.urlopen(f"http://{one(other)['status']['podIP']}:8080/exit?code=3", timeout=5)
    except OSError: pass  # it ends before it answers
    c.create(NS, {**kinds(0), "metadata": {"name": "fresh"}}); c.do("delete", "pod", "-n", NS, victim, "--wait=false")
    eventually(lambda: not one(victim), 40, "a deleted pod goes"); eventually(lambda: uid not in os.listdir("/var/lib/kubelet/pods"), 40, "with its folder"); eventually(lambda: one("fresh") and is_ready(one("fresh")), 60, "a new pod runs", lambda: one("fresh"))
    eventually(lambda: restarts(one(other)) == 1 and is_ready(one(other)), 60, "what ends is started again", lambda: one(other)["status"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter); add_options(parser, 10); parser.add_argument("--times", type=int, default=3)
    options = parser.parse_args(); checks = Checks()
    with Cluster(options, served=True) as c:
        if checks.run("upstream's kubelet runs the pods", prepare, c):
            c.watch, c.nodes = Watch(c.plane, f"/api/v1/namespaces/{NS}/pods"), Watch(c.plane, "/api/v1/nodes"); state = containers(c.pods(NS))
            c.own_flips = None; checks.run("upstream's kubelet after itself", swapped, c, "upstream", state); state = containers(c.pods(NS))
            for i in range(options.times):
                for which, name in ((options.kubelet, "taken over"), ("upstream", "and back")): checks.run(f"{name}, {i + 1}", swapped, c, which, state); state = containers(c.pods(NS))
            checks.run("taken over for good", swapped, c, options.kubelet, state); checks.run("what was taken over is looked after", has_them, c, options.kubelet)
        options.keep = options.keep or checks.failed > 0
    checks.end()


if __name__ == "__main__":
    main()
