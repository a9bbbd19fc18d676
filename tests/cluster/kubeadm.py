#!/usr/bin/env python3
"""A control plane as static pods, in kubeadm's layout: the kubelet starts etcd, API server, controllers and scheduler from manifests, joins what it started,
and after a reboot everything comes back by itself. Called by ./x test kubeadm, under tests/lib/own.sh.

usage: kubeadm.py --kubelet BIN|upstream [--runtime embedded|containerd] [--containerd DIR] [--rubelet BIN]
"""
import argparse, glob, json, os, re, shutil, signal, subprocess, sys, time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../lib"))
import images
from controlplane import BINDINGS, programs
from node import ADDRESS, MANIFESTS, NAME, Checks, Cluster, add_options, end, eventually, is_ready, is_true, need, pod, restarts, wait

UP_SECS_MAX, IMAGE, ETCD = 120, "registry.k8s.io/controlplane:v1.36.3", "registry.k8s.io/etcd:3.4"
PARTS = {"etcd": "etcd", "apiserver": "kube-apiserver", "controllers": "kube-controller-manager", "scheduler": "kube-scheduler"}


def with_libraries(*programs):
    """An image of programs of this machine and the libraries that they need."""
    layer = images.Layer(); libraries = set()
    for program in programs: layer.copy(inside(program), program); libraries |= set(re.findall(r"(/[^ )]+) \(0x", subprocess.run(["ldd", program], capture_output=True, text=True).stdout))
    for library in sorted(libraries): layer.copy(library, library)
    for folder in ("/tmp", "/etc", "/var/lib/etcd", "/run"): layer.folder(folder)
    return images.image(layer, Entrypoint=[inside(programs[0])])


def inside(program): return f"/{os.path.basename(program)}"


class Layout(Cluster):
    """The node of a control plane that is on it."""
    def __enter__(self):
        p = self.plane; os.makedirs(f"{p.work}/log"); os.chmod(p.work, 0o755); p.programs = programs(); p.ports = {"etcd": 2379, "peer": 2380, "apiserver": 6443, "controllers": 10257, "scheduler": 10259}; p.write_files()
        images.archive(f"{self.work}/plane.tar", {IMAGE: with_libraries(*sorted({p.programs[name][0] for part, name in PARTS.items() if part != "etcd"})), ETCD: with_libraries(p.programs[self.options.etcd][0])})
        self.node.start_runtime([f"{self.work}/plane.tar"]); return self

    def manifests(self):
        os.makedirs("/var/lib/etcd", exist_ok=True)
        for part, name in PARTS.items():
            command = self.plane.command(part); words = self.plane.programs[self.options.etcd if part == "etcd" else name]; program = [inside(words[0]), *words[1:]]; flags = command[len(words):]
            flags = [f.replace(f"{self.plane.work}/etcd", "/var/lib/etcd") for f in flags]
            health = {"etcd": ("HTTP", 2379, "/health"), "apiserver": ("HTTPS", 6443, "/livez"), "controllers": ("HTTPS", 10257, "/healthz"), "scheduler": ("HTTPS", 10259, "/healthz")}[part]; get = {"host": "127.0.0.1", "scheme": health[0], "port": health[1], "path": health[2]}
            probes = {"startupProbe": {"httpGet": get, "periodSeconds": 2, "failureThreshold": 30, "timeoutSeconds": 15}, **({"livenessProbe": {"httpGet": get, "failureThreshold": 8, "timeoutSeconds": 15}} if part != "apiserver" else {})}
            container = {"image": ETCD if part == "etcd" else IMAGE, "imagePullPolicy": "IfNotPresent", "command": [*program, *flags], "resources": {"requests": {"cpu": "50m"}}, "volumeMounts": [{"name": "pki", "mountPath": self.plane.work}, {"name": "data", "mountPath": "/var/lib/etcd"}], **probes}
            made = pod(name, "kube-system", command=None, grace=30, hostNetwork=True, priorityClassName="system-node-critical", securityContext={"seccompProfile": {"type": "RuntimeDefault"}},
                       volumes=[{"name": "pki", "hostPath": {"path": self.plane.work, "type": "DirectoryOrCreate"}}, {"name": "data", "hostPath": {"path": "/var/lib/etcd", "type": "DirectoryOrCreate"}}])
            made["spec"]["containers"][0] = {**container, "name": name}; made["metadata"]["labels"] = {"component": name, "tier": "control-plane"}
            with open(f"{MANIFESTS}/{name}.yaml", "w") as f: json.dump(made, f, indent=1)

    def mirrors(self): return {p["metadata"]["name"]: p for p in self.pods("kube-system") if "kubernetes.io/config.mirror" in p["metadata"].get("annotations", {})}

    def reboot(self):
        """Everything ends at once; what a machine forgets is forgotten; the runtime and the kubelet are started as an init system would."""
        keep = {1, os.getpid()}; parent = os.getppid()
        while parent > 1: keep.add(parent); parent = int(open(f"/proc/{parent}/stat").read().rsplit(")", 1)[1].split()[1])
        for _ in range(20):
            others = [int(p) for p in os.listdir("/proc") if p.isdigit() and int(p) not in keep and os.path.exists(f"/proc/{p}/exe") and not is_dead(p)]
            for p in others:
                try: os.kill(p, signal.SIGKILL)
                except ProcessLookupError: pass
            for process in (self.node.kubelet, self.node.runtime):
                if process: process.wait()
            if not others: break
            time.sleep(.1)
        need(not others, "everything is dead", others); self.node.kubelet = self.node.runtime = None
        with open("/proc/self/mounts") as f: points = sorted((l.split()[1] for l in f), reverse=True)
        for m in points:
            if m.startswith((self.work, "/run/", "/var/lib/kubelet/", "/var/lib/rubelet/")): subprocess.run(["umount", "-l", m])
        for entry in os.scandir("/run"): shutil.rmtree(entry.path, ignore_errors=True) if entry.is_dir() else os.unlink(entry.path)
        os.makedirs("/run/netns")
        for state in (f"{self.work}/state",): shutil.rmtree(state, ignore_errors=True)
        for name in (f for f in (self.node.sock, self.node.sock + ".ttrpc") if os.path.exists(f)): os.unlink(name)
        for top in glob.glob("/sys/fs/cgroup/*/kubepods*"):
            for folder, _, _ in os.walk(top, topdown=False): wait(lambda: is_removed(folder), 10)
        for link in os.listdir("/sys/class/net"):
            if link not in ("lo", "node0", "world0"): subprocess.run(["ip", "link", "del", link], capture_output=True)
        with open(f"{self.work}/boot_id", "w") as f: f.write("11111111-2222-4333-8444-555555555555\n")
        subprocess.run(["mount", "--bind", f"{self.work}/boot_id", "/proc/sys/kernel/random/boot_id"], check=True)
        if self.options.runtime == "containerd": self.node.serve_containerd()
        elif self.node.served: self.node.serve_embedded()
        self.node.start()


def is_removed(folder):
    try: os.rmdir(folder); return True
    except OSError: return not os.path.exists(folder)  # of who was just killed


def is_dead(p):
    try: return open(f"/proc/{p}/stat").read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError: return True


def comes_up(c):
    at = time.monotonic(); c.manifests(); c.node.start(); eventually(lambda: c.request("GET", "/readyz", fails=True)[0] == 200, UP_SECS_MAX, "the API server answers", lambda: c.node.log()[-600:])
    served = time.monotonic() - at
    for binding in BINDINGS: c.plane.bind(*binding)
    c.ready(); print(f"        the API server answers after {served:.0f} s, the node is Ready after {time.monotonic() - at:.0f} s", flush=True)


def mirrored(c):
    want = {f"{name}-{NAME}" for name in PARTS.values()}; eventually(lambda: {n for n, p in c.mirrors().items() if is_ready(p)} == want, UP_SECS_MAX, "all parts have ready mirrors", lambda: {n: p["status"] for n, p in c.mirrors().items()})
    for p in c.mirrors().values():
        need(p["spec"]["nodeName"] == NAME and p["spec"]["priority"] == 2000001000 and p["status"]["podIP"] == ADDRESS, "a mirror tells what runs", p["spec"], p["status"])
    need(not restarts(c.mirrors()[f"etcd-{NAME}"]), "etcd, which waits for nobody, was started once")


def works(c):
    c.namespace("work"); c.do("create", "deployment", "web", "-n", "work", "--image=registry.k8s.io/e2e-test-images/nginx:1.15-4", "--replicas=2"); c.do("rollout", "status", "-n", "work", "deployment/web", "--timeout=60s")
    need("etcdserver" in c.do("logs", "-n", "kube-system", f"etcd-{NAME}", "--tail=2000"), "the log of a mirror is that of its pod")


def comes_back(c):
    before = {n: p["metadata"]["uid"] for n, p in c.mirrors().items()}; pods = {p["metadata"]["uid"] for p in c.pods("work")}; at = time.monotonic(); c.reboot()
    eventually(lambda: c.request("GET", "/readyz", fails=True)[0] == 200, UP_SECS_MAX, "the API server answers again", lambda: c.node.log()[-600:]); served = time.monotonic() - at; c.ready(UP_SECS_MAX)
    eventually(lambda: len(c.mirrors()) == 4 and all(is_ready(p) and restarts(p) >= 1 for p in c.mirrors().values()), UP_SECS_MAX, "all parts are ready again and say that they were started again", lambda: {n: p["status"] for n, p in c.mirrors().items()})
    eventually(lambda: {p["metadata"]["uid"] for p in c.pods("work") if is_ready(p) and restarts(p) == 1} == pods, UP_SECS_MAX, "the same pods of the API run again, once", lambda: c.pods("work"))
    need(before == {n: p["metadata"]["uid"] for n, p in c.mirrors().items()}, "the mirrors are the same"); print(f"        the API server answers after {served:.0f} s", flush=True)
    events = lambda: [e["reason"] for e in c.get("/api/v1/namespaces/default/events?fieldSelector=involvedObject.kind%3DNode")["items"]]
    eventually(lambda: "Rebooted" in events(), 30, "the node tells that it was rebooted", events); need(is_true(c.get(f"/api/v1/nodes/{NAME}"), "Ready"), "the node is Ready")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter); add_options(parser, 4); options = parser.parse_args(); checks = Checks()
    with Layout(options) as c:
        for name, part in (("static pods make a control plane, and the node joins it", comes_up), ("their mirrors tell of them", mirrored), ("pods of the API run", works), ("a reboot comes back by itself", comes_back)):
            if not checks.run(name, part, c): break
        options.keep = options.keep or checks.failed > 0; c.node.stop()
        for p in filter(str.isdigit, os.listdir("/proc")):  # what static pods ran goes with the machine; a control plane that nobody keeps must not write any more
            try:
                if os.readlink(f"/proc/{p}/exe").startswith(tuple(inside(c.plane.programs[n][0]) for n in PARTS.values() if n != "etcd")): os.kill(int(p), signal.SIGKILL)
            except OSError: pass
    checks.end()


if __name__ == "__main__":
    main()
