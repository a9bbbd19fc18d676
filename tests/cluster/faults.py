#!/usr/bin/env python3
"""What goes wrong between a node and its API server: killed again and again, answering badly, not answering at all. Called by ./x test faults, under tests/lib/own.sh.

usage: faults.py --kubelet BIN|upstream [--runtime embedded|containerd] [--containerd DIR] [--rubelet BIN] [--pods N] [--kills N] [--only killed|injected|silent|cold]
killed    the API server is killed 20 times while 200 pods are made and deleted
injected  conflicts, throttling, errors, lost and slow answers, broken watches, while pods are made and deleted
silent    packets to and from the API server are dropped: pods go on, static ones start; afterwards everything is told
cold      the kubelet starts while the API server is silent: static pods start as fast as without one
Each container writes a line when it starts: none starts twice, none is forgotten.
"""
import argparse, json, os, random, re, signal, ssl, statistics, subprocess, sys, threading, time, urllib.request

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../lib"))
from controlplane import KUBECONFIG, free_ports
from node import BUSYBOX, MANIFESTS, NAME, ROOT, Checks, Cluster, Watch, add_options, eventually, is_ready, need, pod, restarts, wait

NS, AT_ONCE, END_SECS_MAX = "faults", 30, 180


def noted(c, name, kind, **more):
    """A pod whose container writes a line when it starts: `stays`, `ends` or `fails`."""
    command = {"stays": "exec sleep 100000", "ends": "exit 0", "fails": "exit 4"}[kind]; folder = f"{c.work}/starts"; os.makedirs(folder, exist_ok=True)
    volumes = {"volumes": [{"name": "n", "hostPath": {"path": folder}}, {"name": "c", "configMap": {"name": "conf"}}], "container": {"env": [{"name": "POD", "value": name}], "volumeMounts": [{"name": "n", "mountPath": "/n"}, {"name": "c", "mountPath": "/c"}]}}
    made = pod(name, command=["sh", "-c", f"echo $(cat /c/key) >>/n/{name}; {command}"], restartPolicy="Always" if kind == "stays" else "Never", **volumes); made["spec"].update(nodeName=NAME, **more); return made


def starts(c, name):
    try:
        with open(f"{c.work}/starts/{name}") as f: return len(f.readlines())
    except OSError: return 0


def insist(c, method, path, body=None, good=(200, 201)):
    """A request that is made again until the API server takes it; what it answered in the end."""
    end = time.monotonic() + 120
    while time.monotonic() < end:
        code, answer = c.request(method, path, body, fails=True)
        if code in good: return answer
        time.sleep(.3)
    need(False, f"{method} {path} is not taken: {code} {answer}")


class Load(threading.Thread):
    """Makes pods, some of which end by themselves, and deletes every second that stays; at most so many at a time."""
    def __init__(self, c, count):
        super().__init__(daemon=True); self.c, self.count, self.kept, self.gone, self.error = c, count, {}, {}, None; self.start()
    def run(self):
        try:
            path = f"/api/v1/namespaces/{NS}/pods"
            for i in range(self.count):
                kind = ("stays", "stays", "stays", "ends", "stays", "fails")[i % 6]; name = f"{kind}-{i}"
                uid = (insist(self.c, "POST", path, noted(self.c, name, kind), (200, 201, 409)).get("metadata") or {}).get("uid"); self.kept[name] = uid
                while len(self.kept) > AT_ONCE:  # the oldest that stays goes, whatever has become of it
                    old = next((n for n in self.kept if n.startswith("stays")), next(iter(self.kept))); insist(self.c, "DELETE", f"{path}/{old}", None, (200, 202, 404)); self.gone[old] = self.kept.pop(old)
                if i % 7 == 3 and name in self.kept:  # at once after it was made
                    insist(self.c, "DELETE", f"{path}/{name}", None, (200, 202, 404)); self.gone[name] = self.kept.pop(name)
                time.sleep(random.random() * .3)
        except Exception as error: self.error = error


def prepare(c):
    c.namespace(NS); c.create(NS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf"}, "data": {"key": "started"}})


def ended_well(c, load):
    """Every pod ended where it should."""
    need(not load.error, f"the load broke off: {load.error!r}"); want = {"stays": "Running", "ends": "Succeeded", "fails": "Failed"}
    pods = lambda: {p["metadata"]["name"]: p for p in c.pods(NS)}
    def wrong(): return {n: (pods().get(n) or {"status": "not there"})["status"] for n in load.kept if n not in (now := pods()) or now[n]["status"]["phase"] != want[n.split("-")[0]] or n.startswith("stays") and not is_ready(now[n])}
    eventually(lambda: not wrong(), END_SECS_MAX, "every pod that is wanted is where it should be", wrong, every=1); eventually(lambda: not set(pods()) & set(load.gone), END_SECS_MAX, "every deleted pod is gone", lambda: {n: p["status"] for n, p in pods().items() if n in load.gone}, every=1)
    for name in load.kept: need(starts(c, name) == 1, f"{name} was started {starts(c, name)} times"); need(not restarts(pods()[name]), f"{name} is told to have restarted", pods()[name]["status"])
    twice = [n for n in load.gone if starts(c, n) > 1]; need(not twice, "deleted pods were started twice", twice)
    codes = {n: pods()[n]["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] for n in load.kept if not n.startswith("stays")}; need(all(code == {"ends": 0, "fails": 4}[n.split("-")[0]] for n, code in codes.items()), "ends are told with their code", codes)
    left = lambda: sorted(set(os.listdir(f"{ROOT}/pods")) & set(load.gone.values())); eventually(lambda: not left(), 90, "no folder of a deleted pod is left", left, every=1)
    eventually(lambda: not running_of(c, load.gone), 60, "nothing of a deleted pod runs", lambda: running_of(c, load.gone))


def running_of(c, names):
    """Deleted pods of which a process is left."""
    return sorted({n for p in filter(str.isdigit, os.listdir("/proc")) if (n := pod_of(p)) in names})


def pod_of(process):
    """The pod that a process says it is of."""
    try:
        with open(f"/proc/{process}/environ", "rb") as f: found = re.search(rb"(?:^|\0)POD=([^\0]+)", f.read())
    except OSError: return None
    return found and found.group(1).decode()


def killed(c):
    prepare(c); load, kills = Load(c, c.options.pods), 0
    while kills < c.options.kills or load.is_alive():
        time.sleep(random.uniform(1, 4))
        if kills < c.options.kills: c.plane.stop("apiserver", signal.SIGKILL); kills += 1; time.sleep(random.uniform(0, 1.5)); c.plane.start("apiserver")
    load.join(); print(f"        {kills} kills, {len(load.gone)} of {c.options.pods} pods deleted", flush=True); ended_well(c, load)


class Proxy:
    """tests/cluster/faulty before the API server, and a kubeconfig through it."""
    def __init__(self, c):
        self.c, [self.port] = c, free_ports(1); w = c.plane.work
        self.process = c.node.spawn("faulty", [f"{c.options.bin}/faulty", f"127.0.0.1:{self.port}", f"{w}/apiserver.crt", f"{w}/apiserver.key", f"{w}/ca.crt", f"https://127.0.0.1:{c.plane.ports['apiserver']}"])
        self.kubeconfig = f"{c.work}/faulty.conf"; c.node.write("faulty.conf", KUBECONFIG.format(port=self.port, work=w, token=f"token-of-{NAME}")); need(wait(lambda: self.ask(), 10), "the proxy starts")
    def ask(self, faults=None):
        context = ssl.create_default_context(cafile=f"{self.c.plane.work}/ca.crt"); body = None if faults is None else json.dumps(faults).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(f"https://127.0.0.1:{self.port}/-/faults", body), context=context, timeout=5) as r: return json.loads(r.read()) or {"none": 0}
        except OSError: return None


FAULTS = {"conflict": .2, "throttle": .05, "error": .1, "slow": .1, "slowMs": 2000, "lost": .05, "watchSecs": 6, "brokenEvent": .4, "gone": .2, "missing": .2}


def injected(c):
    prepare(c); proxy = Proxy(c); c.node.stop(); proxy.ask(FAULTS); c.node.start(kubeconfig=proxy.kubeconfig); c.ready(120); load = Load(c, c.options.pods // 2); load.join(); done = proxy.ask({})
    print(f"        injected: {json.dumps(done)}", flush=True); need(all(done.get(k) for k in ("conflict", "throttle", "error", "slow", "lost", "watchEnded", "brokenEvent", "missing")), "every fault was injected", done)
    try: ended_well(c, load)
    finally: c.node.stop(); c.node.start()  # without the proxy


def silence(c, on):
    """Packets to and from the API server are dropped, or not any more."""
    for which in ("--dport", "--sport"): subprocess.run(["iptables", "-A" if on else "-D", "INPUT", "-i", "lo", "-p", "tcp", which, str(c.plane.ports["apiserver"]), "-j", "DROP"], check=True)


def static(c, name, **more):
    made = noted(c, name, "stays", **more); made["spec"].pop("nodeName"); made["spec"]["volumes"] = [v for v in made["spec"]["volumes"] if v["name"] == "n"]; made["spec"]["containers"][0]["volumeMounts"].pop()
    made["spec"]["containers"][0]["command"][2] = f"awk '{{print $1}}' /proc/uptime >>/n/{name}; exec sleep 100000"; made["metadata"]["namespace"] = "kube-system"; return made


def put_static(made):
    name = made["metadata"]["name"]
    with open(f"{MANIFESTS}/.{name}", "w") as f: json.dump(made, f)
    at = uptime(); os.rename(f"{MANIFESTS}/.{name}", f"{MANIFESTS}/{name}.json"); return at


def uptime():
    with open("/proc/uptime") as f: return float(f.read().split()[0])


def started(c, name, secs=60):
    eventually(lambda: starts(c, name), secs, f"{name} starts", lambda: c.node.log()[-400:], every=.02)
    with open(f"{c.work}/starts/{name}") as f: return float(f.readline())


def silent(c):
    prepare(c); c.create(NS, noted(c, "stays-1", "stays"), noted(c, "stays-2", "stays"), noted(c, "ends-late", "ends")); late = noted(c, "fails-late", "fails"); late["spec"]["containers"][0]["command"][2] = "echo x >>/n/fails-late; sleep 8; exit 4"; c.create(NS, late)
    eventually(lambda: all(is_ready(p) for p in c.pods(NS) if "stays" in p["metadata"]["name"]) and starts(c, "fails-late"), 60, "pods run"); before = {p["metadata"]["name"]: p for p in c.pods(NS)}
    at = put_static(static(c, "usual")); usual = started(c, "usual") - at
    silence(c, True)
    try:
        at = put_static(static(c, "meanwhile")); meanwhile = started(c, "meanwhile") - at; print(f"        a static pod starts in {usual:.2f} s, in {meanwhile:.2f} s when the API server is silent", flush=True)
        need(meanwhile < usual * 1.5 + .5, f"a static pod waited: {meanwhile:.2f} s instead of {usual:.2f} s"); victim = next(p for p in filter(str.isdigit, os.listdir("/proc")) if pod_of(p) == "stays-1"); os.kill(int(victim), signal.SIGKILL)
        eventually(lambda: starts(c, "stays-1") == 2, 40, "what dies is started again meanwhile"); time.sleep(20); need(c.node.kubelet.poll() is None and starts(c, "stays-2") == 1, "the others go on")
    finally: silence(c, False)
    told = lambda: {p["metadata"]["name"]: p["status"] for p in c.pods(NS)}
    eventually(lambda: told()["stays-1"]["containerStatuses"][0]["restartCount"] == 1 and told()["fails-late"]["phase"] == "Failed", 60, "afterwards what happened is told", told)
    eventually(lambda: c.get(f"/api/v1/namespaces/kube-system/pods/meanwhile-{NAME}"), 60, "and the new static pod has its mirror"); c.ready(60); need(told()["stays-2"]["containerStatuses"][0]["containerID"] == before["stays-2"]["status"]["containerStatuses"][0]["containerID"], "a pod that ran is the same")


def cold(c):
    """From the start of the kubelet to the first instruction of a static pod: without an API server, with a silent one, with one."""
    os.makedirs(f"{c.work}/starts", exist_ok=True); times = {}
    for round_ in range(3):
        for how in ("standalone", "silent", "joined"):
            name = f"cold-{how}-{round_}"; c.node.stop(); put_static(static(c, name))
            if how == "silent": silence(c, True)
            at = uptime(); c.node.start(join=how != "standalone")
            try: times.setdefault(how, []).append(started(c, name, 90) - at)
            finally:
                if how == "silent": silence(c, False)
            os.unlink(f"{MANIFESTS}/{name}.json"); eventually(lambda: not running_of(c, [name]), 60, "the static pod goes")
    best = {how: statistics.median(t) for how, t in times.items()}; print("        a static pod after the kubelet's start: " + ", ".join(f"{how} {t:.2f} s" for how, t in best.items()), flush=True)
    need(best["silent"] < best["standalone"] * 1.3 + .3, "with a silent API server static pods wait", times); c.ready()


def cleared(c):
    for manifest in os.listdir(MANIFESTS): os.unlink(f"{MANIFESTS}/{manifest}")
    if c.node.which != c.options.kubelet or not c.node.kubelet or c.node.kubelet.poll() is not None: c.node.stop(); c.node.start()
    c.ready(); c.request("DELETE", f"/api/v1/namespaces/{NS}", fails=True); eventually(lambda: c.get(f"/api/v1/namespaces/{NS}") is None, 150, "the namespace goes", lambda: c.pods(NS), every=1); subprocess.run(["rm", "-rf", f"{c.work}/starts"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter); add_options(parser, 9)
    parser.add_argument("--pods", type=int, default=200); parser.add_argument("--kills", type=int, default=20); options = parser.parse_args(); checks = Checks()
    with Cluster(options, scheduler=False) as c:
        c.node.start()
        if checks.run("the node joins", c.ready):
            for scenario in (silent, killed, injected, cold):
                if options.only and not re.search(options.only, scenario.__name__): continue
                checks.run(scenario.__name__, scenario, c); checks.run("and everything goes again", cleared, c)
        options.keep = options.keep or checks.failed > 0
    checks.end()


if __name__ == "__main__":
    main()
