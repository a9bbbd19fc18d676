#!/usr/bin/env python3
"""CPUs and memory that containers have for themselves: the same pods on upstream's kubelet and on ours, compared; then one takes over from the other.

usage: check_cpus.py --kubelet BIN --upstream BIN --images IMAGES.tar [--containerd DIR]

The policies static, Static and single-numa-node, with CPU 0 kept for the system. Told of each step: the CPUs and memory nodes in the cgroups of containers, quotas, refusals, and what the state files say.
On a machine of its own (`tests/lib/own.sh`) with two CPUs or more; prints `check: N passed, N failed`.
"""
import argparse, json, os, signal, subprocess, sys, tempfile, time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from machine import Embedded, Machine, wait
import golden

SECS_MAX, STATES = 60, ("cpu_manager_state", "memory_manager_state")
POLICIES = {"cpuManagerPolicy": "static", "reservedSystemCPUs": "0", "memoryManagerPolicy": "Static", "reservedMemory": [{"numaNode": 0, "limits": {"memory": "100Mi"}}],
            "topologyManagerPolicy": "single-numa-node"}
OWN = {"cpu": "1", "memory": "32Mi"}


def pod(name, resources, init=None):
    container = lambda name, resources, command: {"name": name, "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", command], "resources": resources}
    spec = {"terminationGracePeriodSeconds": 0, "hostNetwork": True, "containers": [container("main", resources, "trap exit TERM; sleep 100000 & wait")]}
    if init: spec["initContainers"] = [container("first", init, "true")]
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def guaranteed(**amounts): return {"limits": {**OWN, **amounts}, "requests": {**OWN, **amounts}}


class Subject:
    """A kubelet with its pods; what is seen of them goes to `facts`."""
    def __init__(self, options, kubelet, embedded=False):
        self.options, self.binary, self.facts = options, kubelet, {}
        work = tempfile.mkdtemp(prefix="rubelet-cpus-", dir="/var/tmp"); os.chmod(work, 0o755)
        self.machine = Embedded(work) if embedded else Machine(work, options.containerd, bridge="cpus0", subnet="10.90.0.0/16")
        if embedded: self.machine.start_runtime({}, None)
        named = f"{work}/import/images.tar" if embedded else f"{work}/images.tar"; golden.with_names(options.images, named, {"busybox:1.37.0-1": "busybox"})
        if not embedded: self.machine.start_containerd(named)

    def __enter__(self): return self
    def __exit__(self, *_):
        self.machine.stop()
        # Who was in the middle of something: the next one must not find them.
        for pid in processes():
            try: os.kill(pid, signal.SIGKILL)
            except ProcessLookupError: pass
        if not wait(lambda: not list(processes()), SECS_MAX): raise RuntimeError("processes of pods do not end")

    def start(self, binary=None, **config):
        self.machine.start_kubelet(binary or self.binary, {**POLICIES, **config}, ["--v", "2"])
    def kill(self): self.machine.kubelet.send_signal(signal.SIGKILL); self.machine.kubelet.wait()
    def apply(self, name, *how): self.machine.write(f"manifests/{name}.json", pod(name, *how))
    def remove(self, name): os.unlink(f"{self.machine.work}/manifests/{name}.json")
    def log(self):
        with open(f"{self.machine.work}/log/kubelet.log", errors="replace") as f: return f.read()

    def status(self, name):
        try: pods = self.machine.pods()
        except (OSError, ValueError, TypeError): return None
        return next((p["status"] | {"uid": p["metadata"]["uid"]} for p in pods if p["metadata"]["name"].startswith(name + "-")), None)

    def runs(self, name):
        need(lambda: (s := self.status(name)) and s.get("phase") == "Running" and all(c["state"].get("running") for c in s["containerStatuses"]), f"{name} runs", lambda: self.status(name) or self.log()[-600:])
        return self.status(name)

    def cgroup(self, name, file):
        """What a file says in the cgroup of the pod's container; None: there is none."""
        return read_below(file, self.runs(name)["containerStatuses"][0]["containerID"].split("://")[1])

    def state(self):
        """The state files, without what differs from one life to the next: UIDs and checksums."""
        texts = {}
        for name in STATES:
            with open(f"{self.machine.work}/kubelet/{name}") as f: text = f.read()
            for pod in self.machine.pods(): text = text.replace(pod["metadata"]["uid"], pod["metadata"]["name"])
            # Upstream's 1.37 writes all once more, as a text.
            texts[name] = {key: value for key, value in json.loads(text).items() if key not in ("checksum", "data", "dataChecksum")}
        return texts

    def see(self, step, **facts): self.facts[step] = facts


def processes():
    """Of all pods."""
    for folder, _, files in os.walk("/sys/fs/cgroup"):
        if "kubepods" not in folder or "cgroup.procs" not in files: continue
        try:
            with open(f"{folder}/cgroup.procs") as f: yield from map(int, f.read().split())
        except OSError: pass


def read_below(file, id):
    controller = file.split(".")[0]
    for top in (f"/sys/fs/cgroup/{controller}", "/sys/fs/cgroup/cpu,cpuacct", "/sys/fs/cgroup"):
        for folder, _, files in os.walk(top):
            if id in os.path.basename(folder) and file in files:
                with open(f"{folder}/{file}") as f: return f.read().strip()
    return None


def quotas(subject, name):
    status = subject.runs(name); id = status["containerStatuses"][0]["containerID"].split("://")[1]
    v1 = [read_below("cpu.cfs_quota_us", id), read_below("cpu.cfs_quota_us", f"pod{status['uid']}")]
    return v1 if v1[0] else [(read_below("cpu.max", of) or "").split()[:1] for of in (id, status["uid"].replace("-", "_"))]


class Wrong(Exception): pass


def need(holds, what, shown=lambda: ""):
    if not wait(holds, SECS_MAX): raise Wrong(f"{what}: not within {SECS_MAX} s; {shown()}")


def cpus_are(subject, name, wanted): need(lambda: subject.cgroup(name, "cpuset.cpus") == wanted, f"{name} has CPUs {wanted}", lambda: subject.cgroup(name, "cpuset.cpus"))


def play(subject):
    """Pods come and go."""
    last = os.cpu_count() - 1; everyone, rest = f"0-{last}", "0" if last == 1 else f"0,2-{last}"
    subject.start(); subject.apply("shares", {}); subject.runs("shares"); cpus_are(subject, "shares", everyone)
    subject.see("at first", shares=subject.cgroup("shares", "cpuset.cpus"), state=subject.state())
    subject.apply("own", guaranteed(), guaranteed()); subject.runs("own"); cpus_are(subject, "shares", rest)
    subject.see("one has a CPU", own=subject.cgroup("own", "cpuset.cpus"), mems=subject.cgroup("own", "cpuset.mems"), quotas=quotas(subject, "own"), state=subject.state())
    for name, amounts in {"many": {"cpu": str(os.cpu_count())}, "big": {"cpu": "10m", "memory": "1Ti"}}.items():
        subject.apply(name, guaranteed(**amounts)); need(lambda: (subject.status(name) or {}).get("phase") == "Failed", f"{name} is refused", lambda: subject.status(name))
        status = subject.status(name); subject.see(f"refused: {name}", reason=status.get("reason"), message=status.get("message")); subject.remove(name)
        need(lambda: not subject.status(name), f"{name} is gone")
    subject.remove("own"); need(lambda: not subject.status("own"), "own is gone"); cpus_are(subject, "shares", everyone); subject.see("the CPU is free again", state=subject.state()["cpu_manager_state"])


def take_over(subject, other):
    """Another kubelet goes on with what this one has given, and the first one again: the files are both's."""
    subject.start(); subject.apply("own", guaranteed()); subject.apply("shares", {}); subject.runs("own"); cpus_are(subject, "shares", "0" if os.cpu_count() == 2 else f"0,2-{os.cpu_count() - 1}")
    before = subject.status("own")["containerStatuses"][0]["containerID"], subject.cgroup("own", "cpuset.cpus"), subject.state()
    for binary in (other, subject.binary):
        subject.kill(); subject.start(binary); need(lambda: subject.status("own"), "the next one answers", lambda: subject.log()[-800:])
        # Upstream's computes another UID of a static pod that ours has started: it is another pod, for which there is no CPU while the old one has it.
        if binary == subject.options.upstream and subject.binary != binary: need(lambda: subject.status("own").get("reason") == "TopologyAffinityError", "what is written down holds", lambda: subject.status("own")); continue
        subject.runs("own"); now = subject.status("own")["containerStatuses"][0]["containerID"], subject.cgroup("own", "cpuset.cpus"), subject.state()
        if binary != subject.binary and now != before: raise Wrong(f"{binary}: {before} became {now}")
        if now[1] != before[1]: raise Wrong(f"{binary}: own has CPUs {now[1]}, had {before[1]}")
        before = now


def refuses(subject, **config):
    """How the start ends with another configuration."""
    subject.kill(); at = len(subject.log()); subject.start(**config)
    try: subject.machine.kubelet.wait(SECS_MAX)
    except subprocess.TimeoutExpired: raise Wrong(f"it starts with {config}")
    return " ".join(subject.log()[at:].split()).replace('\\"', '"').replace(subject.machine.work, "")


REFUSED = {
    "another CPU policy": ({"cpuManagerPolicy": "none"}, 'could not restore state from checkpoint: configured policy "none" differs from state checkpoint policy "static", please drain this node and delete the CPU manager checkpoint file "/kubelet/cpu_manager_state" before restarting Kubelet'),
    "another memory policy": ({"memoryManagerPolicy": "None", "reservedMemory": []}, 'could not restore state from checkpoint: [memorymanager] configured policy "None" differs from state checkpoint policy "Static", please drain this node and delete the memory manager checkpoint file "/kubelet/memory_manager_state" before restarting Kubelet'),
    "memory that is not kept": ({"reservedMemory": [{"numaNode": 0, "limits": {"memory": "1Gi"}}]}, 'the total amount "1Gi" of type "memory" is not equal to the value "100Mi" determined by Node Allocatable feature'),
    "CPUs that are not there": ({"reservedSystemCPUs": "400"}, "reserved-cpus: 400 is not a subset of online-cpus: 0"),
    "an unknown option": ({"cpuManagerPolicyOptions": {"fast": "true"}}, 'unknown CPU Manager Policy option: "fast"'),
    "an unknown topology option": ({"topologyManagerPolicyOptions": {"fast": "true"}}, 'unknown Topology Manager Policy option: "fast"'),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("kubelet", "upstream", "images"): parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--containerd"); options = parser.parse_args(); passed = failed = 0; facts = {}

    def check(name, what):
        nonlocal passed, failed
        since = time.monotonic()
        try: what(); passed += 1; print(f"ok      {name} ({time.monotonic() - since:.0f} s)", flush=True)
        except (Wrong, OSError, ValueError, KeyError, TypeError) as error: failed += 1; print(f"FAILED  {name}: {error!r}", flush=True)

    for name, binary, embedded in (("upstream", options.upstream, False), ("containerd", options.kubelet, False), ("embedded", options.kubelet, True)):
        with Subject(options, binary, embedded) as subject:
            check(f"{name}: pods come and go", lambda: play(subject)); facts[name] = subject.facts
            for what, (config, words) in REFUSED.items():
                def refused():
                    said = refuses(subject, **config)
                    if words not in said: raise Wrong(f"wanted: {words}\nsaid: {said[-1500:]}")
                check(f"{name}: refuses {what}", refused)
    for name in ("containerd", "embedded"):
        for step, wanted in facts["upstream"].items():
            def same():
                if facts[name].get(step) != wanted: raise Wrong(f"\n  upstream: {json.dumps(wanted, sort_keys=True)}\n  ours:     {json.dumps(facts[name].get(step), sort_keys=True)}")
            check(f"{name}: as upstream's: {step}", same)
    for name, first, second in (("ours takes over", options.upstream, options.kubelet), ("upstream's takes over", options.kubelet, options.upstream)):
        with Subject(options, first) as subject: check(name, lambda: take_over(subject, second))
    print(f"check: {passed} passed, {failed} failed")
    sys.exit(failed > 0)


if __name__ == "__main__": main()
