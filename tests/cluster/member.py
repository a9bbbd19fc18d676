#!/usr/bin/env python3
"""What a member of a cluster does, seen at the API server: who it is, whom it believes, how often it asks, what it gives up. Called by ./x test member, under tests/lib/own.sh.

usage: member.py --kubelet BIN|upstream --csi BIN [--runtime embedded|containerd] [--containerd DIR] [--rubelet BIN] [--only RE]
One scenario after the other: each starts the kubelet with settings of its own. The last line is `check: N passed, N failed`.
"""
import argparse, calendar, collections, json, os, re, shutil, sys, threading, time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../lib"))
from controlplane import KUBECONFIG
from faults import Proxy
from logind import Logind
from node import BUSYBOX, MANIFESTS, NAME, Checks, Cluster, Watch, add_options, eventually, is_ready, is_true, need, pod
from scenarios import start_csi

SECS_MAX, USER = 60, f"system:node:{NAME}"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NAME}"


def said(c, since=0):
    """What the node asked the API server, each request once, by the time when it came."""
    with open(f"{c.plane.work}/audit.jsonl") as f: requests = {r["auditID"]: r for r in map(json.loads, [l for l in f if l.endswith("\n")]) if r["user"]["username"] == USER}
    return sorted((r for r in ({**r, "at": seconds(r["requestReceivedTimestamp"])} for r in requests.values()) if r["at"] >= since), key=lambda r: r["at"])


def seconds(text): whole, _, part = text.rstrip("Z").partition("."); return calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) + float(f"0.{part or 0}")
def renewed(c): return ((c.get(LEASE) or {}).get("spec") or {}).get("renewTime")


def lives(c, secs=40):
    """The node's lease is renewed from now on."""
    before = renewed(c); eventually(lambda: renewed(c) not in (None, before), secs, "the lease is renewed", lambda: c.node.log()[-600:])


def anew(c, **how):
    c.node.stop(); since = time.time(); c.node.start(**how); return since


def authority(c):
    """The API server gets a certificate by another authority while the node is connected; the node's file says so before it and after it, without a word to the node."""
    w = c.plane.work; shutil.copy(f"{w}/ca.crt", f"{c.work}/believed.crt")
    with open(f"{w}/{NAME}.conf") as f: c.node.write("believes.conf", f.read().replace(f"{w}/ca.crt", f"{c.work}/believed.crt"))
    anew(c, kubeconfig=f"{c.work}/believes.conf"); c.ready(); lives(c); c.create("default", pod("watches")); eventually(lambda: is_ready(c.get("/api/v1/namespaces/default/pods/watches")), SECS_MAX, "a pod runs")
    kept = {n: open(f"{w}/{n}").read() for n in ("ca.crt", "ca.key", "apiserver.crt", "apiserver.key")}
    def believes(*names): c.node.write(".believed", "".join(open(f"{w}/{n}").read() if n != "old" else kept["ca.crt"] for n in names)); os.rename(f"{c.work}/.believed", f"{c.work}/believed.crt")
    c.plane.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "ca.key", "-out", "new-ca.crt", "-days", "30", "-subj", "/CN=another", "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,digitalSignature")
    try:
        believes("old", "new-ca.crt"); lives(c)
        shutil.copy(f"{w}/new-ca.crt", f"{w}/ca.crt"); c.plane.certificate("apiserver", "/CN=kube-apiserver", "extendedKeyUsage=serverAuth\nsubjectAltName=DNS:localhost,IP:127.0.0.1,IP:10.96.0.1")
        c.plane.stop("apiserver"); c.plane.start("apiserver"); lives(c, 60); c.do("delete", "pod", "watches", "-n", "default", "--wait=false"); eventually(lambda: not c.get("/api/v1/namespaces/default/pods/watches"), SECS_MAX, "what is deleted goes")
        believes("new-ca.crt"); lives(c); need(c.node.kubelet.poll() is None, "the kubelet went on")
        c.plane.stop("apiserver"); believes("old"); c.plane.start("apiserver"); before = renewed(c); time.sleep(25); need(renewed(c) == before, "a server by an authority that is gone from the file is not believed")
        believes("old", "new-ca.crt"); lives(c, 60)
    finally:
        for name, text in kept.items(): c.plane.write(name, text)
        c.plane.stop("apiserver"); c.plane.start("apiserver")
    lives(c, 60)


def plugin(c):
    """A program says who the node is, for half a minute at a time; then it is asked again, and when its token is refused."""
    log = f"{c.work}/plugin.log"; token = f"{c.work}/plugin.token"; c.node.write("plugin.token", f"token-of-{NAME}")
    c.node.write("plugin.sh", f"""#!/bin/sh
echo "$(date +%s) $PLUGIN_WORD $KUBERNETES_EXEC_INFO" >>{log}
printf '{{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{{"token":"%s","expirationTimestamp":"%s"}}}}' "$(cat {token})" "$(date -u -d '+30 seconds' +%Y-%m-%dT%H:%M:%SZ)"
"""); os.chmod(f"{c.work}/plugin.sh", 0o755)
    text = KUBECONFIG.format(port=c.plane.ports["apiserver"], work=c.plane.work, token="x").replace("user: {token: x}", f'user: {{exec: {{apiVersion: client.authentication.k8s.io/v1, command: "{c.work}/plugin.sh", interactiveMode: Never, provideClusterInfo: true, env: [{{name: PLUGIN_WORD, value: please}}]}}}}')
    c.node.write("plugin.conf", text); calls = lambda: open(log).read().splitlines() if os.path.exists(log) else []
    anew(c, kubeconfig=f"{c.work}/plugin.conf"); c.ready(); lives(c); need(len(calls()) == 1, f"the program was asked once for all that was said, not {len(calls())} times")
    info = json.loads(calls()[0].split(" ", 2)[2]); need(calls()[0].split()[1] == "please" and info["spec"]["interactive"] is False and info["spec"]["cluster"]["server"] == f"https://127.0.0.1:{c.plane.ports['apiserver']}", "it is told what the kubeconfig says", info)
    time.sleep(32); lives(c); need(2 <= len(calls()) <= 3, f"after half a minute it is asked again: {len(calls())} times", calls())
    c.node.write("plugin.token", "nobody"); before = len(calls()); eventually(lambda: len(calls()) > before, 45, "it is asked again"); time.sleep(15)  # it says who is nobody
    refused = len(calls()); need(refused - before < 20, f"a refusal does not make a storm of calls: {refused - before} in 15 s"); c.node.write("plugin.token", f"token-of-{NAME}"); lives(c, 60); need(c.node.kubelet.poll() is None, "the kubelet went on")


def limits(c):
    """As many requests as `kubeAPIQPS` and `kubeAPIBurst` allow, counted at the API server; what is said of the node itself and events have clients of their own."""
    qps, burst = 4, 6; since = anew(c, config={"kubeAPIQPS": qps, "kubeAPIBurst": burst}); c.ready(); ns = c.namespace("limits")
    for i in range(12): c.create(ns, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"m{i}"}, "data": {"a": "b"}}, pod(f"p{i}", automountServiceAccountToken=True, volumes=[{"name": "c", "configMap": {"name": f"m{i}"}}]))
    eventually(lambda: sum(map(is_ready, c.pods(ns))) == 12, 120, "all pods run", lambda: [p["status"] for p in c.pods(ns) if not is_ready(p)])
    # kubelet 1.36: leases, the Node's status and events go by clients of their own.
    all_ = said(c, since); counted = [r for r in all_ if "/leases/" not in r["requestURI"] and not (r["objectRef"]["resource"] == "nodes" and r["verb"] in ("get", "patch")) and not r["requestURI"].startswith(("/api/v1/namespaces/limits/events", "/api/v1/namespaces/default/events", "/apis/events"))]
    worst = max((j - i + 1 - burst - qps * (counted[j]["at"] - counted[i]["at"]), j - i + 1, counted[j]["at"] - counted[i]["at"]) for i in range(len(counted)) for j in range(i, len(counted)))
    print(f"        {len(counted)} requests beside {len(all_) - len(counted)} of leases, node and events; the most at once: {worst[1]} in {worst[2]:.2f} s, where {burst + qps * worst[2]:.1f} are allowed", flush=True)
    kinds = collections.Counter(f"{r['verb']} {r['objectRef']['resource']}" for r in counted); need(len(counted) > 30, "there was something to limit", dict(kinds)); need(worst[0] <= 1.5, f"more requests than allowed: {worst}", dict(kinds))
    c.do("delete", "namespace", ns, "--wait=false"); eventually(lambda: not c.pods(ns), SECS_MAX, "all pods go")


def tokens(c):
    """A token is asked for again at four fifths of its life, and the pod reads the new one."""
    ns = c.namespace("tokens"); proxy = Proxy(c); proxy.ask({"tokenSecs": 60}); since = anew(c, kubeconfig=proxy.kubeconfig); c.ready(); c.create(ns, pod("reads", automountServiceAccountToken=True))
    eventually(lambda: is_ready(c.pods(ns)[0]), SECS_MAX, "the pod runs"); read = lambda: c.kubectl("exec", "-n", ns, "reads", "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token").stdout; first = read(); need(first.count(".") == 2, "there is a token", first)
    asked = lambda: [r["at"] for r in said(c, since) if r["verb"] == "create" and r["requestURI"].startswith(f"/api/v1/namespaces/{ns}/serviceaccounts/default/token")]
    try:
        eventually(lambda: len(asked()) >= 3, 180, "the token is asked for again, twice", asked, every=1); gaps = [b - a for a, b in zip(asked(), asked()[1:])]; print(f"        a token of 60 s is asked for again after {', '.join(f'{g:.1f}' for g in gaps)} s", flush=True)
        # kubelet 1.36: 80 % and up to 10 s earlier; it looks when it syncs the pod, which is at least every 90 s.
        need(all(37 <= g <= (49.5 if c.options.kubelet != "upstream" else 140) for g in gaps), "at four fifths, or up to ten seconds earlier", gaps); eventually(lambda: read() not in ("", first), 30, "the pod reads the new token")
    finally: c.do("delete", "namespace", ns, "--wait=false"); anew(c); c.ready()


def preemption(c):
    """A critical pod gets the room of others: as many as must go, and the API server is told why."""
    anew(c, config={"maxPods": 60}); c.ready(); ns = c.namespace("preempts"); node = c.get(f"/api/v1/nodes/{NAME}")["status"]["allocatable"]["cpu"]; cpu = int(node[:-1]) if node.endswith("m") else int(node) * 1000
    def takes(name, share, **more): return pod(name, container={"resources": {"requests": {"cpu": f"{int(cpu * share)}m"}}}, grace=3, nodeName=NAME, **more)
    c.create(ns, takes("large", .5), takes("small", .3)); eventually(lambda: len(c.pods(ns)) == 2 and all(map(is_ready, c.pods(ns))), SECS_MAX, "the node is full", lambda: c.pods(ns))
    c.create("kube-system", takes("critical", .6, priorityClassName="system-node-critical")); one = lambda where, name: c.get(f"/api/v1/namespaces/{where}/pods/{name}")
    eventually(lambda: is_ready(one("kube-system", "critical")), SECS_MAX, "the critical pod runs", lambda: one("kube-system", "critical"))
    status = one(ns, "large")["status"]; need((status["phase"], status.get("reason"), status.get("message")) == ("Failed", "Preempting", "Preempted in order to admit critical pod"), "the one whose room is enough says why it went", status)
    need(is_true(one(ns, "large"), "DisruptionTarget") and next(x for x in status["conditions"] if x["type"] == "DisruptionTarget")["reason"] == "TerminationByKubelet", "and whose doing it was", status["conditions"])
    need(is_ready(one(ns, "small")), "the other one stays", one(ns, "small")["status"]); c.create(ns, takes("late", .3)); eventually(lambda: one(ns, "late")["status"].get("reason") == "OutOfcpu", 30, "one that is not critical is refused", lambda: one(ns, "late")["status"])
    events = lambda: [(e["reason"], e["message"]) for e in c.get(f"/api/v1/namespaces/{ns}/events?fieldSelector=involvedObject.name=large")["items"]]; eventually(lambda: ("Preempting", "Preempted in order to admit critical pod") in events(), 20, "it is told as an event", events)
    static = takes("static-critical", .35, priorityClassName="system-node-critical", priority=2000001000); static["spec"].pop("nodeName"); static["metadata"]["namespace"] = "kube-system"; path = f"{MANIFESTS}/static-critical.json"
    with open(path, "w") as f: json.dump(static, f)
    try: eventually(lambda: is_ready(one("kube-system", f"static-critical-{NAME}") or static | {"status": {}}), SECS_MAX, "so does a critical static pod", lambda: one("kube-system", f"static-critical-{NAME}")); need(one(ns, "small")["status"].get("reason") == "Preempting", "whose room was the other's", one(ns, "small")["status"])
    finally: os.unlink(path); c.do("delete", "pod", "-n", "kube-system", "critical", "--wait=false"); c.do("delete", "namespace", ns, "--wait=false"); eventually(lambda: not c.pods(ns) and not one("kube-system", "critical"), SECS_MAX, "all go")


def attached(c):
    """A volume whose driver wants it attached first: the controller asks for it, somebody attaches it, and only then it is staged; it is detached after it was unstaged."""
    ns = c.namespace("attached"); c.driver = start_csi(c, c.options.csi, attach=True); anew(c); c.ready(); handle, path = "attached-one", "/apis/storage.k8s.io/v1/volumeattachments"
    try:
        c.request("POST", "/api/v1/persistentvolumes", {"metadata": {"name": handle}, "spec": {"capacity": {"storage": "8Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": ns, "persistentVolumeReclaimPolicy": "Retain", "csi": {"driver": c.driver, "volumeHandle": handle, "fsType": "ext4"}}})
        eventually(lambda: any(d["name"] == c.driver for d in c.get(f"/apis/storage.k8s.io/v1/csinodes/{NAME}")["spec"]["drivers"] or []), 30, "the driver is in the CSINode")
        c.create(ns, {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": ns, "resources": {"requests": {"storage": "4Mi"}}}},
                 pod("keeps", command=["sh", "-c", "echo kept >/data/x; exec sleep 100000"], volumes=[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}], container={"volumeMounts": [{"name": "data", "mountPath": "/data"}]}))
        watch = Watch(c.plane, path); calls = lambda method: [x for x in map(json.loads, open(f"{c.work}/csi/calls.jsonl")) if x["method"] == method and x["request"].get("volume_id") == handle]
        attachment = lambda: next((a for a in c.get(path)["items"] if a["spec"]["source"].get("persistentVolumeName") == handle), None); eventually(attachment, SECS_MAX, "the controller wants it attached"); in_use = lambda: c.get(f"/api/v1/nodes/{NAME}")["status"].get("volumesInUse") or []
        unique = f"kubernetes.io/csi/{c.driver}^{handle}"; eventually(lambda: unique in in_use(), 30, "the node says that it uses it", in_use); time.sleep(5); need(not calls("NodeStageVolume"), "it is not staged before it is attached", calls("NodeStageVolume"))
        c.request("PATCH", f"{path}/{attachment()['metadata']['name']}/status", {"status": {"attached": True, "attachmentMetadata": {"lun": "7"}}}, content_type="application/merge-patch+json")
        eventually(lambda: c.pods(ns) and is_ready(c.pods(ns)[0]), 120, "the pod runs", lambda: c.pods(ns)); [staged] = calls("NodeStageVolume"); need(staged["request"]["publish_context"] == {"lun": "7"}, "the driver is told what attaching it gave", staged)
        need([v["name"] for v in c.get(f"/api/v1/nodes/{NAME}")["status"].get("volumesAttached") or []] == [unique], "the controller's word in the Node stays")
        c.do("delete", "pod", "-n", ns, "keeps", "--wait=false"); eventually(lambda: calls("NodeUnstageVolume"), SECS_MAX, "it is unstaged"); eventually(lambda: unique not in in_use(), 60, "and in use no more", in_use); eventually(lambda: not attachment(), 60, "and detached", attachment); watch.stop()
    finally: c.do("delete", "namespace", ns, "--wait=false")


def shutdown(c):
    """The machine goes down: the API server is told that the node is not ready, and that its pods were ended; it does not go down after all, and the node is ready again."""
    logind = Logind(delay_secs=20); anew(c, config={"shutdownGracePeriod": "20s", "shutdownGracePeriodCriticalPods": "8s", "featureGates": {"GracefulNodeShutdown": True}}); c.ready(); ns = c.namespace("shutdown"); eventually(logind.is_held, 20, "the lock is held", lambda: logind.calls)
    c.create(ns, pod("web", command=["sh", "-c", "trap 'sleep 2; exit 0' TERM; while :; do sleep .1; done"], grace=10)); eventually(lambda: is_ready(c.pods(ns)[0]), SECS_MAX, "a pod runs")
    nodes = Watch(c.plane, "/api/v1/nodes"); eventually(lambda: nodes.seen, 10, "the watch starts"); at = time.monotonic(); logind.prepare(True)
    ready = lambda: next(x for x in c.get(f"/api/v1/nodes/{NAME}")["status"]["conditions"] if x["type"] == "Ready")
    eventually(lambda: ready()["status"] == "False", 10, "the node is told not ready", ready, every=.05); told = time.monotonic() - at; need((ready()["reason"], ready()["message"]) == ("KubeletNotReady", "node is shutting down"), "and why", ready())
    eventually(lambda: c.pods(ns)[0]["status"].get("reason") == "Terminated", 30, "the pod is told as ended", lambda: c.pods(ns)[0]["status"]); status = c.pods(ns)[0]["status"]; ended = time.monotonic() - at
    need((status["phase"], status["message"]) == ("Failed", "Pod was terminated in response to imminent node shutdown."), "with the reason", status); need(is_true(c.pods(ns)[0], "DisruptionTarget"), "and whose doing it was", status["conditions"])
    eventually(lambda: not logind.is_held(), 30, "the lock is let go"); print(f"        not ready after {told:.1f} s, the pod ended after {ended:.1f} s, the lock let go after {time.monotonic() - at:.1f} s", flush=True)
    late = pod("late", nodeName=NAME, tolerations=[{"operator": "Exists"}]); c.create(ns, late); state = lambda: c.get(f"/api/v1/namespaces/{ns}/pods/late")["status"]; eventually(lambda: state().get("reason") == "NodeShutdown", 30, "one that comes then is refused", state)
    logind.prepare(False); eventually(lambda: ready()["status"] == "True", 30, "it does not go down after all: ready again", ready); eventually(logind.is_held, 20, "and the lock is held again", lambda: logind.calls); nodes.stop(); c.do("delete", "namespace", ns, "--wait=false")


SCENARIOS = (authority, plugin, limits, tokens, preemption, attached, shutdown)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter); add_options(parser, 1 + len(SCENARIOS)); parser.add_argument("--csi", required=True, help="the CSI driver of the tests"); options = parser.parse_args(); checks = Checks()
    with Cluster(options, audit=True) as c:
        c.node.start()
        if checks.run("the node joins", c.ready):
            for scenario in SCENARIOS:
                if not options.only or re.search(options.only, scenario.__name__): checks.run(scenario.__name__, scenario, c)
        options.keep = options.keep or checks.failed > 0
    checks.end()


if __name__ == "__main__":
    main()
