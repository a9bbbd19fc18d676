#!/usr/bin/env python3
"""The same pods and the same faults on upstream's kubelet and on ours: what became of each pod in the end, side by side. Called by ./x test beside, under tests/lib/own.sh.

usage: beside.py --kubelet BIN [--runtime embedded|containerd] [--containerd DIR] [--rubelet BIN] [--allow FILE] [--out DIR]
The kubelet is killed, then the API server, then the runtime, and processes of pods die at each time. Compared of each pod: status, events, files, and which calls
made or started something. When it happened is not compared. --allow: lines `POD/FILE<tab>why`. The last line is `check: N passed, N failed`.
"""
import argparse, collections, copy, difflib, glob, json, os, re, shutil, signal, sys, time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../lib"))
from node import BUSYBOX, MANIFESTS, NAME, ROOT, Checks, Cluster, Failed, add_options, eventually, golden, is_ready, need, pod, restarts, wait

NS, SETTLES_SECS_MAX, FILES = "beside", 150, ("status", "events", "files", "calls")
MAKES = ("RunPodSandbox", "CreateContainer", "StartContainer")
# What a probe or a call that was cut short says is chance, or who happens to ask a runtime that is gone, or an object before upstream's kubelet has begun to look for it; so is how often was tried meanwhile.
CHANCE = re.compile(r"code = Canceled|code = Unavailable|connection refused|context canceled|Back-off|BackOff|DeadlineExceeded|connection error|error reading from server|ImageInspectError|not registered|timed out after")


def loop(text): return ["sh", "-c", text]
def marked(name, **more): return pod(name, nodeName=NAME, **{**more, "container": {"env": [{"name": "POD", "value": name}], **more.get("container", {})}})


def manifests():
    volumes = [{"name": "c", "configMap": {"name": "conf"}}, {"name": "s", "secret": {"secretName": "sec", "defaultMode": 0o400}}, {"name": "e", "emptyDir": {}}, {"name": "d", "downwardAPI": {"items": [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]}}]
    mounts = {"volumeMounts": [{"name": v["name"], "mountPath": "/" + v["name"]} for v in volumes]}
    main = "exec sleep 100000"; again = "test -e /e/twice || { test -e /e/once && touch /e/twice; touch /e/once; exit 1; }"
    sidecar = {"name": "side", "image": BUSYBOX, "command": loop(main), "restartPolicy": "Always", "env": [{"name": "POD", "value": "side"}]}
    held = marked("held"); held["metadata"]["finalizers"] = ["example.com/held"]
    def never(name, text, initContainers=(), os=None, **container): return pod(name, nodeName=NAME, restartPolicy="Never", command=loop(text), container=container, **({"initContainers": list(initContainers)} if initContainers else {}), **({"os": os} if os else {}))
    return [
        marked("stays", volumes=volumes, automountServiceAccountToken=True, container=mounts, securityContext={"fsGroup": 2000}),
        marked("dies-without-kubelet"), marked("dies-without-server"), marked("dies-without-runtime"),
        marked("never", restartPolicy="Never"), marked("ends", restartPolicy="Never", command=loop("while ! test -e /n/ends; do sleep .2; done; exit 0"), volumes=[{"name": "n", "hostPath": {"path": "NOTES"}}], container={"volumeMounts": [{"name": "n", "mountPath": "/n"}]}),
        marked("fails", restartPolicy="Never", command=loop("while ! test -e /n/fails; do sleep .2; done; exit 4"), volumes=[{"name": "n", "hostPath": {"path": "NOTES"}}], container={"volumeMounts": [{"name": "n", "mountPath": "/n"}]}),
        marked("loses-sandbox"), marked("deleted", grace=5), marked("again", volumes=[{"name": "e", "emptyDir": {}}], restartPolicy="OnFailure", initContainers=[{"name": "first", "image": BUSYBOX, "command": loop(again), "volumeMounts": [{"name": "e", "mountPath": "/e"}]}]),
        marked("sidecar", initContainers=[sidecar]),
        marked("lives", container={"livenessProbe": {"exec": {"command": ["test", "!", "-e", "/tmp/bad"]}, "periodSeconds": 1, "failureThreshold": 2}, "readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1}}),
        marked("late-map", volumes=[{"name": "c", "configMap": {"name": "late"}}], container={"volumeMounts": [{"name": "c", "mountPath": "/c"}]}),
        marked("no-secret", container={"envFrom": [{"secretRef": {"name": "never-there"}}]}), marked("no-image", image="registry.invalid/nothing:1"),
        pod("other-node-selector", nodeName=NAME, nodeSelector={"is": "not-there"}), marked("deadline", activeDeadlineSeconds=20),
        marked("two", shareProcessNamespace=True, containers=[{"name": "main", "image": BUSYBOX, "command": loop(main), "env": [{"name": "POD", "value": "two"}]}, {"name": "other", "image": BUSYBOX, "command": loop(main)}]),
        marked("subpath", volumes=volumes[:1], container={"volumeMounts": [{"name": "c", "mountPath": "/f", "subPath": "key"}], "env": [{"name": "POD", "value": "subpath"}, {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}]}),
        marked("hostnet", hostNetwork=True, container={"ports": [{"containerPort": 7999}]}), held, pod(f"twin-{NAME}", nodeName=NAME),
        marked("rules", restartPolicy="Never", volumes=[{"name": "e", "emptyDir": {}}], command=loop("test -e /e/once && exec sleep 100000; touch /e/once; exit 42"), container={"volumeMounts": [{"name": "e", "mountPath": "/e"}], "restartPolicy": "Never", "restartPolicyRules": [{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]}),
        never("hook-fails", main, lifecycle={"postStart": {"exec": {"command": ["sh", "-c", "echo no; exit 3"]}}}), pod("no-program", nodeName=NAME, restartPolicy="Never", command=["/nothing"]), never("startup-fails", main, startupProbe={"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1, "terminationGracePeriodSeconds": 2}),
        never("says-file", "echo words > /dev/termination-log; exit 5"), never("says-log", "echo words; exit 6", terminationMessagePolicy="FallbackToLogsOnError"), never("is-root", main, securityContext={"runAsNonRoot": True}), never("too-big", main, resources={"requests": {"cpu": "1000"}}),
        never("first-fails", main, initContainers=[{"name": "first", "image": BUSYBOX, "command": ["false"]}]), never("job", "sleep 2", initContainers=[sidecar]), pod("halves", nodeName=NAME, restartPolicy="Never", containers=[{"name": "good", "image": BUSYBOX, "command": ["true"]}, {"name": "bad", "image": BUSYBOX, "command": loop("sleep 1; exit 7")}]),
        marked("port", container={"ports": [{"containerPort": 80, "hostPort": 7998}]}), marked("port-again", container={"ports": [{"containerPort": 80, "hostPort": 7998}]}), never("os", main, os={"name": "windows"})]


STATIC = ("fixed", "twin")
ENDED = {**dict.fromkeys(("deadline", "hook-fails", "no-program", "startup-fails", "says-file", "says-log", "too-big", "first-fails", "halves", "port-again", "os"), "Failed"), "job": "Succeeded"}


def processes(name):
    """The processes that say they are of a pod, without those that only wait for others."""
    found = []
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{p}/environ", "rb") as f:
                if f"POD={name}".encode() in f.read().split(b"\0"): found.append(int(p))
        except OSError: pass
    return sorted(found)


def kill(name):
    for p in need(processes(name), f"{name} runs"): os.kill(p, signal.SIGKILL)


def pause_of(name):
    """The process that holds the network of a pod."""
    theirs = os.readlink(f"/proc/{processes(name)[0]}/ns/net"); own = set(processes(name))
    for p in filter(str.isdigit, os.listdir("/proc")):
        try:
            if int(p) not in own and os.readlink(f"/proc/{p}/ns/net") == theirs and "pause" in open(f"/proc/{p}/cmdline").read(): return int(p)
        except OSError: pass
    return None


class Subject(Cluster):
    """A cluster whose node has the one or the other kubelet, and what was done to it."""
    def one(self, name): return self.get(f"/api/v1/namespaces/{NS}/pods/{name}")
    def calls(self):
        with open(f"{self.work}/cri.jsonl") as f: return [json.loads(line) for line in f if line.endswith("\n")]
    def back(self, name, times=1): eventually(lambda: (p := self.one(name)) and restarts(p) == times and is_ready(p), SETTLES_SECS_MAX, f"{name} is back", lambda: self.one(name))
    def phase(self, name, phase): eventually(lambda: self.one(name)["status"]["phase"] == phase, SETTLES_SECS_MAX, f"{name} is {phase}", lambda: self.one(name)["status"])

    def play(self):
        self.node.spawn("crirecord", [f"{self.options.bin}/crirecord", f"{self.work}/recorder.sock", self.node.sock, f"{self.work}/cri.jsonl"]); need(wait(lambda: os.path.exists(f"{self.work}/recorder.sock"), 10), "the recorder starts"); self.node.endpoint = f"{self.work}/recorder.sock"
        notes = f"{self.work}/notes"; os.makedirs(notes); self.namespace(NS); note = lambda name: open(f"{notes}/{name}", "w").close()
        self.node.start(); self.ready(); self.create(NS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf"}, "data": {"key": "one"}}, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sec"}, "stringData": {"word": "hush"}})
        self.create(NS, *json.loads(json.dumps(manifests()).replace("NOTES", notes)))
        eventually(lambda: is_ready(self.one(f"twin-{NAME}")), SETTLES_SECS_MAX, "the one that has a static pod's name runs")
        for name in STATIC: self.node.write("static.json", json.dumps(pod(name, NS, container={"env": [{"name": "POD", "value": name}]}))); shutil.copy(f"{self.work}/static.json", f"{MANIFESTS}/.{name}"); os.rename(f"{MANIFESTS}/.{name}", f"{MANIFESTS}/{name}.json")
        up = (f"fixed-{NAME}", f"twin-{NAME}", "two", "subpath", "hostnet", "held", "rules", "port", "stays", "dies-without-kubelet", "dies-without-server", "dies-without-runtime", "never", "ends", "fails", "loses-sandbox", "deleted", "again", "sidecar", "lives")
        eventually(lambda: all((p := self.one(n)) and is_ready(p) for n in up), SETTLES_SECS_MAX, "all run", lambda: [n for n in up if not (self.one(n) and is_ready(self.one(n)))]); eventually(lambda: processes("twin"), SETTLES_SECS_MAX, "the static pod runs beside the other of its name")
        for name, phase in ENDED.items(): self.phase(name, phase)
        time.sleep(11)  # kubelet 1.36: what was started less than 10 s before it counts as just started
        self.node.stop(signal.SIGKILL); dying = ("dies-without-kubelet", "subpath", "hostnet"); note("fails"); self.do("delete", "pod", "-n", NS, "deleted", "held", "--wait=false")
        for name in dying: kill(name)
        kill("fixed"); time.sleep(3); self.node.start()
        for name in (*dying, f"fixed-{NAME}"): self.back(name)
        self.phase("fails", "Failed"); eventually(lambda: not self.one("deleted"), SETTLES_SECS_MAX, "the deleted one is gone")
        self.plane.stop("apiserver", signal.SIGKILL); kill("dies-without-server"); kill("two"); kill("twin"); kill("never"); note("ends"); time.sleep(8); self.plane.start("apiserver")
        self.back("dies-without-server"); self.back("two"); eventually(lambda: processes("twin"), SETTLES_SECS_MAX, "the static pod is back"); self.phase("never", "Failed"); self.phase("ends", "Succeeded"); self.create(NS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}, "data": {"key": "late"}})
        os.kill(self.node.runtime.pid, signal.SIGKILL); self.node.runtime.wait(); kill("dies-without-runtime"); time.sleep(3); self.serve_runtime(); self.back("dies-without-runtime"); self.ready()
        # The embedded runtime's sandboxes are held by no process.
        if holder := pause_of("loses-sandbox"): os.kill(holder, signal.SIGKILL); self.back("loses-sandbox")
        kill("sidecar"); self.back("sidecar")
        eventually(lambda: self.kubectl("exec", "-n", NS, "lives", "--", "touch", "/tmp/bad").returncode == 0, 30, "exec works again"); self.back("lives"); eventually(lambda: is_ready(self.one("late-map")), SETTLES_SECS_MAX, "what waited for its map runs", lambda: self.one("late-map"))
        eventually(lambda: all(is_ready(self.one(n)) for n in up if n not in ("never", "ends", "fails", "deleted", "held")), 60, "all run again", lambda: [n for n in up if self.one(n) and not is_ready(self.one(n))]); time.sleep(5)

    def leave(self):
        """Nothing of it is left for the next."""
        for name in STATIC: os.unlink(f"{MANIFESTS}/{name}.json")
        self.do("patch", "pod", "-n", NS, "held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}'); self.do("delete", "pods", "-n", NS, "--all", "--grace-period=1", "--wait=false"); eventually(lambda: not self.pods(NS) and not os.listdir(f"{ROOT}/pods"), 120, "everything goes", lambda: [os.listdir(f"{ROOT}/pods"), [p["metadata"]["name"] for p in self.pods(NS)]])

    def serve_runtime(self):
        for name in (self.node.sock, self.node.sock + ".ttrpc"):
            if os.path.exists(name): os.unlink(name)
        self.node.serve_containerd() if self.options.runtime == "containerd" else self.node.serve_embedded()

    def records(self):
        """{pod: {file: lines}} of what is left in the end."""
        found = {}; calls = self.calls(); owner = {c["response"]["pod_sandbox_id"]: c["request"]["config"]["metadata"]["name"] for c in calls if c["method"] == "RunPodSandbox" and c["code"] == "OK"}
        owner.update({c["response"]["container_id"]: owner.get(c["request"]["pod_sandbox_id"]) for c in calls if c["method"] == "CreateContainer" and c["code"] == "OK"})
        def of(c): return c["request"]["config"]["metadata"]["name"] if c["method"] == "RunPodSandbox" else owner.get(c["request"].get("pod_sandbox_id") or c["request"].get("container_id"))
        for p in self.pods(NS):
            name, uid = p["metadata"]["name"], p["metadata"]["uid"]; uid = p["metadata"].get("annotations", {}).get("kubernetes.io/config.hash", uid); names = golden.Names({self.work: "<work>", uid: "<pod-uid>", self.node_ip(p): "<hostIP>"})
            events = self.get(f"/api/v1/namespaces/{NS}/events?fieldSelector=involvedObject.name%3D{name}")["items"]
            made = collections.Counter(f"{c['method']} {(c['request'].get('config') or {}).get('metadata', {}).get('name', '') if c['method'] == 'CreateContainer' else ''}".strip() for c in calls if c["method"] in MAKES and c["code"] == "OK" and of(c) == name)
            files = {re.sub(r"/\d+\.log", "/<n>.log", re.sub(r"_[0-9a-f]{32}/", "_<static-uid>/", f)) for f in golden.files_of(name, uid)}
            text = {"status": json.dumps(shape(p["status"]), indent=1, sort_keys=True), "events": "\n".join(sorted({f"{e['type']} {e['reason']} {e['involvedObject'].get('fieldPath', '')} {e['message']}" for e in events if e.get("source", {}).get("component") == "kubelet" and not CHANCE.search(f"{e['reason']} {e['message']}")})),
                    "files": "\n".join(sorted(files)), "calls": "\n".join(f"{n} x {what}" for what, n in sorted(made.items()))}
            found[name] = {file: sorted(set(names.clean(t).splitlines())) if file == "files" else names.clean(t).splitlines() for file, t in text.items()}
        return found

    @staticmethod
    def node_ip(p): return p["status"].get("hostIP") or "192.0.2.10"


def shape(status):
    """A status, but for the moment at which it was looked at."""
    status = copy.deepcopy(status)
    if status.get("resources") == {"limits": {"memory": "9007199254740988Ki"}}: status["resources"] = {}  # kubelet 1.36 on cgroup v1 tells it of pods without a limit, or not, by the moment
    if status["phase"] in ("Failed", "Succeeded"): status = {k: v for k, v in status.items() if k not in ("podIP", "podIPs")}  # kubelet 1.36 forgets the address when it is started anew (docs/differences.md)
    for s in (s for k in ("initContainerStatuses", "containerStatuses") for s in status.get(k, [])):
        if "terminated" in s["state"] and s["restartCount"]: s["lastState"] = "<until it is collected>"
        if s["state"].get("waiting", {}).get("reason") in ("ErrImagePull", "ImagePullBackOff", "ImageInspectError"): s["state"]["waiting"] = "<the pull fails>"
    return status


def compared(theirs, ours, name, allowed):
    for file in FILES:
        a, b = theirs.get(name, {}).get(file, ["not there"]), ours.get(name, {}).get(file, ["not there"])
        if a == b: continue
        diff = [l for l in difflib.unified_diff(a, b, lineterm="", n=0) if not l.startswith(("---", "+++", "@@"))]
        if why := allowed.get(f"{name}/{file}"): print(f"        {name}/{file}: {len(diff)} lines differ, allowed: {why}", flush=True); continue
        raise Failed(f"{file}: {len(diff)} lines differ:\n" + "\n".join("    " + l[:260] for l in diff[:20]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter); add_options(parser, 2 + len(manifests())); parser.add_argument("--allow"); parser.add_argument("--out", help="where the records are kept"); options = parser.parse_args(); checks, records = Checks(), {}
    options.rubelet = options.rubelet or options.kubelet
    allowed = dict(line.rstrip("\n").split("\t", 1) for line in golden.read(options.allow).splitlines() if line and not line.startswith("#")) if options.allow else {}
    def one(which):
        options.kubelet = which; golden.forget("*")
        with Subject(options, served=True, scheduler=False) as c:
            try: c.play(); records[which] = c.records(); c.leave()
            except BaseException: options.keep = True; raise
    ours = options.kubelet
    for which, name in (("upstream", "upstream's kubelet under the faults"), (ours, "ours under the same")):
        if not checks.run(name, one, which): break
    if options.out: json.dump(records, open(f"{options.out}/beside.json", "w"), indent=1)
    if len(records) == 2:
        for name in sorted(records["upstream"].keys() | records[ours].keys()): checks.run(name, compared, records["upstream"], records[ours], name, allowed)
    checks.end()


if __name__ == "__main__":
    main()
