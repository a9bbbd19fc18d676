#!/usr/bin/env python3
"""Resource claims (DRA) on a node with the given kubelet: a driver prepares and takes back, comes late, fails, and survives kubelets. Called by ./x test dra, under tests/lib/own.sh.

usage: dra.py --kubelet BIN|upstream --dra BIN [--runtime embedded|containerd] [--containerd DIR] [--rubelet BIN] [--only RE]
One scenario after the other, for all have the same driver. The last line is `check: N passed, N failed`.
"""
import argparse, json, os, re, signal, sys, time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../lib"))
from node import BUSYBOX, NAME, ROOT, Checks, Cluster, add_options, eventually, is_ready, need, pod, restarts

DRIVER, SLICES, SECS_MAX = "dra.test.rubelet.io", "/apis/resource.k8s.io/v1/resourceslices", 60
STATE, CDI, REGISTRY = f"{ROOT}/dra_manager_state", "/var/run/cdi", f"{ROOT}/plugins_registry"
REGISTRATION, SOCKET = f"{REGISTRY}/{DRIVER}-reg.sock", f"{ROOT}/plugins/{DRIVER}/dra.sock"
UNPREPARED = "Failed to prepare dynamic resources: prepare dynamic resources: "


class Driver:
    """The program, behind a server of Go's as real drivers have it, and what its controller would do: offer its devices."""
    def __init__(self, c): self.c, self.data, self.process, self.front = c, f"{c.work}/dra", None, None
    def start(self, *more):
        for folder in (REGISTRY, os.path.dirname(SOCKET)): os.makedirs(folder, exist_ok=True)
        behind = f"{self.c.work}/behind"; sockets = [f"{behind}/{DRIVER}-reg.sock", f"{behind}/dra.sock"]
        self.process = self.c.node.spawn("dra", [self.c.options.dra, "--registry", behind, "--socket", sockets[1], "--endpoint", SOCKET, "--data", self.data, "--cdi", CDI, *more])
        eventually(lambda: self.process.poll() is None and all(map(os.path.exists, sockets)), 10, "the driver starts")
        # Its work first: who finds the registration may ask at once.
        self.front = self.c.node.spawn("grpcfront", [f"{self.c.options.bin}/grpcfront", f"{sockets[1]}={SOCKET}", f"{sockets[0]}={REGISTRATION}"]); eventually(lambda: os.path.exists(REGISTRATION), 10, "and its front")
    def stop(self, how=signal.SIGTERM):
        for process in (self.front, self.process): process.send_signal(how); process.wait(10)
        for socket in (REGISTRATION, SOCKET): os.unlink(socket)
        self.process = None
    def up(self, *more):
        """As it is wanted, registered, and offering its devices."""
        if self.process: self.stop(); time.sleep(2)  # the kubelet sees it go
        since = self.count(); self.start(*more); eventually(lambda: self.calls("NotifyRegistrationStatus", since), 20, "the driver is registered", lambda: self.c.node.log()[-500:]); self.offer()
    def offer(self):
        if not self.c.get(f"{SLICES}/{NAME}-test"):
            self.c.request("POST", SLICES, {"metadata": {"name": f"{NAME}-test"}, "spec": {"driver": DRIVER, "nodeName": NAME, "pool": {"name": "here", "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": f"dev-{i}"} for i in range(8)]}})
    def calls(self, method, since=0):
        try:
            with open(f"{self.data}/calls.jsonl") as f: return [call for call in map(json.loads, f.readlines()[since:]) if call["method"] == method]
        except FileNotFoundError: return []
    def count(self): return sum(1 for _ in open(f"{self.data}/calls.jsonl")) if os.path.exists(f"{self.data}/calls.jsonl") else 0
    def of(self, method, since): return [claim["name"] for call in self.calls(method, since) for claim in call["request"]]
    def prepared(self): return os.listdir(f"{self.data}/prepared")
    def fail(self, method, text): open(f"{self.data}/fail/{method}", "w").write(text)
    def work(self, method): os.unlink(f"{self.data}/fail/{method}")


def claim_spec(*requests): return {"devices": {"requests": [{"name": name, "exactly": {"deviceClassName": "test"}} for name in requests]}}
def claim(name, *requests): return {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": name}, "spec": claim_spec(*(requests or ("first",)))}
def template(name, *requests): return {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate", "metadata": {"name": name}, "spec": {"spec": claim_spec(*(requests or ("first",)))}}
def with_claim(name, claim="one", **more): return pod(name, container={"resources": {"claims": [{"name": "c"}]}}, resourceClaims=[{"name": "c", **({"resourceClaimTemplateName": claim[2:]} if claim.startswith("t:") else {"resourceClaimName": claim})}], **more)
def told(c, ns, name, *command, container="main"):
    """What a command in a container says; a kubelet that has just started may not have it yet."""
    return eventually(lambda: (done := c.kubectl("exec", "-n", ns, name, "-c", container, "--", *command)).returncode == 0 and [done.stdout], 30, f"{command[0]} in {name}", lambda: str(c.kubectl("exec", "-n", ns, name, "-c", container, "--", *command)))[0]
def seen(c, ns, name, container="main"): return sorted(told(c, ns, name, "sh", "-c", "env | grep ^DRA_; ls /dev/dev-* 2>/dev/null; true", container=container).splitlines())
def another(c, which=None, how=signal.SIGTERM, meanwhile=lambda: None):
    """Another kubelet: it offers nothing of old when it starts, and finds the driver."""
    d = c.driver; c.node.stop(how); since = d.count(); meanwhile(); c.node.start(which); c.ready()
    eventually(lambda: not c.get(f"{SLICES}/{NAME}-test"), 40, "a kubelet that starts offers nothing of old"); eventually(lambda: d.calls("NotifyRegistrationStatus", since), 30, "it finds the driver"); d.offer()
def runs(c, ns, *names, secs=SECS_MAX): c.do("wait", "-n", ns, *[f"pod/{n}" for n in names], "--for=condition=Ready", f"--timeout={secs}s", secs=secs + 10)
def one(c, ns, name): return c.get(f"/api/v1/namespaces/{ns}/pods/{name}")
def gone(c, ns, *names): c.do("delete", "pod", "-n", ns, *names, "--wait=false"); eventually(lambda: not any(one(c, ns, n) for n in names), 40, f"{names} are gone", lambda: c.pods(ns))
def events(c, ns, reason): return [e["message"] for e in c.get(f"/api/v1/namespaces/{ns}/events")["items"] if e["reason"] == reason]
def remembered(): return sorted(claim["ClaimName"] for claim in json.loads(json.load(open(STATE))["Data"])["ClaimInfoStateList"] or [])
def metrics(c): return c.do("get", "--raw", f"/api/v1/nodes/{NAME}/proxy/metrics")
def health(c, ns, name): return {s["name"]: [(r["health"], r.get("message")) for r in s["resources"]] for s in (one(c, ns, name)["status"].get("containerStatuses") or [{}])[0].get("allocatedResourcesStatus", [])}


def used(c, ns):
    """By name and from a template, whole and by request, in init containers too; shared by two pods."""
    d = c.driver; d.up("--requests", "first,second"); since = d.count()
    c.create(ns, claim("own", "first", "second"), template("made", "first", "second"))
    use = lambda *uses: {"resources": {"claims": [{"name": n, **({"request": r} if r else {})} for n, r in uses]}}; sleeps = {"image": BUSYBOX, "command": ["sleep", "100000"]}
    p = pod("both", container=use(("own", None), ("made", "second")), resourceClaims=[{"name": "own", "resourceClaimName": "own"}, {"name": "made", "resourceClaimTemplateName": "made"}],
            initContainers=[{"name": "init", "image": BUSYBOX, "command": ["sh", "-c", "test -n \"$DRA_FIRST\" && test -z \"$DRA_SECOND\""], **use(("own", "first"))}])
    p["spec"]["containers"] += [{"name": "part", **sleeps, **use(("own", "second"))}, {"name": "none", **sleeps}]; c.create(ns, p); runs(c, ns, "both", secs=150)
    c.create(ns, with_claim("other", "own")); runs(c, ns, "other"); made = one(c, ns, "both")["status"]["resourceClaimStatuses"][0]["resourceClaimName"]
    need(seen(c, ns, "both", "none") == [], "who names no claim has no device", seen(c, ns, "both", "none"))
    part = seen(c, ns, "both", "part"); need(len(part) == 2 and part[1].endswith(" of own") and part[1].startswith("DRA_SECOND="), "who names one request has its device", part)
    both = seen(c, ns, "both"); need(len(both) == 5 and sorted(l.split("=")[0] for l in both if "DRA" in l) == ["DRA_FIRST", "DRA_SECOND"], "who names all has all", both)
    need(len(seen(c, ns, "other")) == 4, "and so does another pod", seen(c, ns, "other"))
    need(sorted(d.of("NodePrepareResources", since)) == sorted(["own", made]), "each claim is prepared once", d.of("NodePrepareResources", since)); need(remembered() == sorted(["own", made]), "and written down", remembered())
    said = metrics(c); need(f'dra_resource_claims_in_use{{driver_name="{DRIVER}"}} 2' in said and 'dra_resource_claims_in_use{driver_name="<any>"} 2' in said, "the metrics say how many", [l for l in said.splitlines() if "dra_" in l])
    need(re.search(rf'dra_grpc_operations_duration_seconds_count\{{driver_name="{DRIVER}",grpc_status_code="OK",method_name="/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources"\}} \d', said) and re.search(r'dra_operations_duration_seconds_count\{is_error="false",operation_name="PrepareResources"\} \d', said), "and how long it took")
    gone(c, ns, "both"); need(d.of("NodeUnprepareResources", since) == [made], "what another pod uses is left alone", d.of("NodeUnprepareResources", since)); need(seen(c, ns, "other"), "it goes on")
    gone(c, ns, "other"); need(d.of("NodeUnprepareResources", since) == [made, "own"] and not d.prepared() and not remembered(), "then it is taken back", remembered())
    eventually(lambda: not c.get(f"/apis/resource.k8s.io/v1/namespaces/{ns}/resourceclaims/own")["status"].get("reservedFor"), 30, "others may have it")
    c.create(ns, claim("done"), with_claim("done", "done", restartPolicy="Never", command=("true",))); eventually(lambda: one(c, ns, "done")["status"]["phase"] == "Succeeded", SECS_MAX, "a pod that ends", lambda: one(c, ns, "done")["status"])
    need(d.of("NodeUnprepareResources", since)[-1] == "done", "gives back before it is told to have ended"); c.do("delete", "pod", "-n", ns, "done", "--wait=false")


def healths(c, ns):
    d = c.driver; c.create(ns, claim("one"), with_claim("well")); runs(c, ns, "well")
    eventually(lambda: health(c, ns, "well") == {"claim:c": [("Healthy", None)]}, 30, "the device is well", lambda: one(c, ns, "well")["status"])
    device = open(f"{d.data}/prepared/" + d.prepared()[0]).read().strip(); open(f"{d.data}/health/{device}", "w").write("too hot")
    eventually(lambda: health(c, ns, "well") == {"claim:c": [("Unhealthy", "too hot")]}, 20, "it is told not to be", lambda: one(c, ns, "well")["status"]); os.unlink(f"{d.data}/health/{device}")
    eventually(lambda: health(c, ns, "well") == {"claim:c": [("Healthy", None)]}, 20, "and to be again"); d.stop()
    # Upstream's kubelet tells it with whatever it tells next.
    if c.options.kubelet != "upstream": eventually(lambda: health(c, ns, "well") == {"claim:c": [("Unknown", None)]}, 20, "nobody knows without the driver", lambda: one(c, ns, "well")["status"])
    d.up(); gone(c, ns, "well"); need(not d.prepared(), "given back")


def fails(c, ns):
    d = c.driver; c.create(ns, claim("one")); d.fail("NodePrepareResources", "14 not today"); c.create(ns, with_claim("fails"))
    words = f"{UNPREPARED}NodePrepareResources: rpc error: code = Unavailable desc = not today"
    eventually(lambda: words in events(c, ns, "FailedPrepareDynamicResources"), SECS_MAX, "a driver's refusal is told", lambda: events(c, ns, "FailedPrepareDynamicResources")); d.work("NodePrepareResources")
    runs(c, ns, "fails", secs=150); need(seen(c, ns, "fails"), "then it runs"); d.fail("NodeUnprepareResources", "14 nor now"); c.do("delete", "pod", "-n", ns, "fails", "--wait=false")
    eventually(lambda: any(call["refused"] for call in d.calls("NodeUnprepareResources")), 20, "taking back fails"); time.sleep(3); p = one(c, ns, "fails"); need(p and p["status"]["phase"] == "Running", "the pod is not told to have ended", p and p["status"])
    d.work("NodeUnprepareResources"); eventually(lambda: not one(c, ns, "fails"), 60, "it ends when it was"); need(not d.prepared() and not remembered(), "nothing is left")
    c.create(ns, with_claim("early", "absent")); early = one(c, ns, "early"); need(not early["spec"].get("nodeName"), "without its claim it is not scheduled"); bound = with_claim("bound", "absent"); bound["spec"]["nodeName"] = NAME; c.create(ns, bound)
    said = lambda: [m for m in events(c, ns, "FailedPrepareDynamicResources") if "absent" in m]; eventually(said, 30, "one that was bound by hand is told so")
    need(said()[0].startswith(f"{UNPREPARED}fetch ResourceClaim absent: "), "in upstream's words", said()); c.do("delete", "pod", "-n", ns, "early", "bound", "--wait=false"); eventually(lambda: not c.pods(ns), 40, "they go all the same", lambda: c.pods(ns))


def late_driver(c, ns):
    d = c.driver; d.stop(); time.sleep(3); c.create(ns, claim("one"), with_claim("waits"))
    words = f"{UNPREPARED}DRA driver {DRIVER} is not registered"
    eventually(lambda: words in events(c, ns, "FailedPrepareDynamicResources"), 25, "without its driver a pod waits", lambda: events(c, ns, "FailedPrepareDynamicResources") or one(c, ns, "waits")["status"]); need(not remembered(), "nothing is written down", remembered())
    eventually(lambda: not c.get(f"{SLICES}/{NAME}-test"), 60, "after a while the driver offers nothing any more"); d.up("--version", "v1beta1"); at = time.monotonic()
    runs(c, ns, "waits", secs=150); took = time.monotonic() - at; need(seen(c, ns, "waits"), "the older service does as well"); need(c.options.kubelet == "upstream" or took < 20, f"it took {took:.0f} s after the driver came")
    d.stop(); c.do("delete", "pod", "-n", ns, "waits", "--wait=false"); time.sleep(8); need(one(c, ns, "waits")["status"]["phase"] == "Running", "without its driver a pod does not end", one(c, ns, "waits"))
    d.up(); eventually(lambda: not one(c, ns, "waits"), 60, "with it, it does"); need(not d.prepared() and not remembered(), "nothing is left")


def restarted(c, ns):
    d = c.driver; since = d.count(); c.create(ns, claim("one"), claim("two"), with_claim("stays", grace=1), with_claim("forced", "two")); runs(c, ns, "stays", "forced"); before = one(c, ns, "stays")["status"]["containerStatuses"][0]["containerID"]; was = seen(c, ns, "stays")
    another(c, how=signal.SIGKILL, meanwhile=lambda: c.do("delete", "pod", "-n", ns, "forced", "--force", "--grace-period=0")); eventually(lambda: is_ready(one(c, ns, "stays")), 60, "the pod is there", lambda: one(c, ns, "stays"))
    need(one(c, ns, "stays")["status"]["containerStatuses"][0]["containerID"] == before and seen(c, ns, "stays") == was, "the pod went on"); need(d.of("NodePrepareResources", since).count("one") == 1, "without being prepared again")
    # Upstream's kubelet looks once a minute.
    eventually(lambda: d.of("NodeUnprepareResources", since) == ["two"], 130, "what a pod used that is gone is taken back", lambda: d.of("NodeUnprepareResources", since))
    gone(c, ns, "stays"); need(d.of("NodeUnprepareResources", since) == ["two", "one"] and not remembered(), "and at the end the other", d.of("NodeUnprepareResources", since))


def again(c, ns):
    """A container that ends starts again with its device, after a restart of the kubelet too."""
    d = c.driver; c.create(ns, claim("one"), with_claim("again", command=["sh", "-c", "while ! test -e /tmp/end; do sleep .2; done"])); runs(c, ns, "again"); was = seen(c, ns, "again"); another(c)
    told(c, ns, "again", "touch", "/tmp/end"); eventually(lambda: restarts(one(c, ns, "again")) == 1 and is_ready(one(c, ns, "again")), 60, "it starts again", lambda: one(c, ns, "again")["status"]); need(seen(c, ns, "again") == was, "with its device", seen(c, ns, "again")); gone(c, ns, "again")


def extended(c, ns):
    """An extended resource that a claim stands for."""
    d = c.driver; c.request("POST", "/apis/resource.k8s.io/v1/deviceclasses", {"metadata": {"name": "gadgets"}, "spec": {"extendedResourceName": "example.com/gadget", "selectors": [{"cel": {"expression": f'device.driver == "{DRIVER}"'}}]}})
    c.create(ns, pod("gadget", container={"resources": {"limits": {"example.com/gadget": "1"}}})); runs(c, ns, "gadget"); need(one(c, ns, "gadget")["status"].get("extendedResourceClaimStatus"), "the scheduler made a claim", one(c, ns, "gadget")["status"])
    need(len(seen(c, ns, "gadget")) == 2, "the container has its device", seen(c, ns, "gadget")); gone(c, ns, "gadget"); eventually(lambda: not d.prepared(), 20, "it is taken back")


def swapped(c, ns):
    """Kubelets take over from each other what drivers have prepared."""
    d = c.driver; other = "upstream" if c.options.kubelet != "upstream" else c.options.rubelet; c.create(ns, claim("one"), claim("two"))
    for first, then in ((None, other), (other, None)):
        another(c, first); since = d.count(); c.create(ns, with_claim("first"), with_claim("both", "two")); runs(c, ns, "first", "both"); another(c, then)
        eventually(lambda: is_ready(one(c, ns, "first")) and is_ready(one(c, ns, "both")), 60, "they go on", lambda: c.pods(ns)); need(d.of("NodePrepareResources", since).count("one") == 1, "without being prepared again"); time.sleep(5)
        gone(c, ns, "first", "both"); need(sorted(d.of("NodeUnprepareResources", since)) == ["one", "two"] and not d.prepared(), f"{then or c.options.kubelet} takes back what {first or c.options.kubelet} had prepared", d.of("NodeUnprepareResources", since))


SCENARIOS = (used, healths, fails, late_driver, restarted, again, extended, swapped)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter); add_options(parser, 2 + len(SCENARIOS)); parser.add_argument("--dra", required=True, help="the driver of the tests"); options = parser.parse_args(); checks = Checks()
    def named(c, scenario):
        ns = c.namespace(scenario.__name__.replace("_", "-")); c.driver.up()
        try: scenario(c, ns)
        finally: c.kubectl("delete", "pod", "-n", ns, "--all", "--timeout=30s", secs=40)  # the next one finds nothing of it
    with Cluster(options, served=options.runtime == "embedded") as c:
        c.node.start(); c.driver = Driver(c)
        if checks.run("the node joins", c.ready):
            c.request("POST", "/apis/resource.k8s.io/v1/deviceclasses", {"metadata": {"name": "test"}, "spec": {"selectors": [{"cel": {"expression": f'device.driver == "{DRIVER}"'}}]}})
            if checks.run("the driver registers", c.driver.up):
                for s in SCENARIOS:
                    if not options.only or re.search(options.only, s.__name__): checks.run(s.__name__, named, c, s)
        options.keep = options.keep or checks.failed > 0
        if c.driver.process: c.driver.stop()
    checks.end()


if __name__ == "__main__": main()
