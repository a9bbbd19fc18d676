#!/usr/bin/env python3
"""Runs a folder of manifests with a given kubelet until ^C, on its embedded runtime or on containerd. Called by ./x run, which builds and installs.

usage: run.py --kubelet BIN [--verbose] [--on-containerd] FOLDER
Everything lives in one folder that is removed at the end; the manifests in FOLDER are followed while it runs.
"""
import argparse, os, re, signal, sys, tempfile, time, urllib.error, urllib.request
sys.dont_write_bytecode = True
import images
from machine import PAUSE, PODS, Embedded, Machine, port_is_taken

PORTS = {10248: "health", 10250: "the kubelet's API", 10255: "the kubelet's read-only API"}
FOLLOW_SECS, TAKE_DOWN_SECS_MAX = .2, 60


class Stopped(Exception): pass


def registry_answers(host):
    try: urllib.request.urlopen(f"https://{host}/v2/", timeout=4); return True
    except urllib.error.HTTPError: return True  # it wants to know who asks
    except OSError: return False


class Follower:
    """Copies the manifests of FOLDER into the kubelet's folder, whole or not at all, and takes them away at the end."""
    def __init__(self, source, target): self.source, self.target, self.seen = source, target, {}
    def look(self):
        found = {e.name: (e.stat().st_mtime_ns, e.stat().st_size) for e in os.scandir(self.source) if e.is_file() and re.search(r"^[^.].*\.(ya?ml|json)$", e.name)}
        for name in found.keys() - {n for n, s in self.seen.items() if found.get(n) == s}:
            with open(f"{self.source}/{name}", "rb") as f: text = f.read()
            with open(f"{self.target}/.{name}", "wb") as f: f.write(text)
            os.rename(f"{self.target}/.{name}", f"{self.target}/{name}")
        for name in self.seen.keys() - found.keys(): os.unlink(f"{self.target}/{name}")
        self.seen = found
    def take_away(self):
        for name in self.seen: os.unlink(f"{self.target}/{name}")
        self.seen = {}


def describe(pod, work):
    """What one wants to know of a pod that runs: where it is and how to look at it."""
    name, namespace, uid = (pod["metadata"].get(k, "") for k in ("name", "namespace", "uid")); status = pod["status"]; ip = status.get("podIP", "")
    print(f"\npod {namespace}/{name}: {status['phase']} at {ip}")
    for container in pod["spec"]["containers"]:
        for port in container.get("ports", []):
            if port.get("protocol", "TCP") == "TCP": print(f"  curl http://{ip}:{port['containerPort']}/" + (f" or http://127.0.0.1:{port['hostPort']}/" if port.get("hostPort") else ""))
    for container in pod["spec"]["containers"]: print(f"  tail -F {work}/pods/{namespace}_{name}_{uid}/{container['name']}/*.log")
    sys.stdout.flush()


def trouble(pod):
    waiting = [f"{s['name']}: {w['reason']}" + (f" ({w['message'][:160]})" if w.get("message") else "") for s in pod["status"].get("containerStatuses", []) if (w := s["state"].get("waiting")) and w.get("reason") not in ("ContainerCreating", "PodInitializing")]
    return ", ".join(waiting)


def watch(machine, follower):
    """Follows the folder and tells each change of a pod once; returns when the kubelet ended."""
    told = {}
    while machine.kubelet.poll() is None:
        follower.look()
        try: pods = machine.pods()
        except OSError: pods = []
        for pod in pods:
            key = pod["metadata"]["uid"]; phase = pod["status"].get("phase"); ready = phase == "Running" and all(s.get("ready") for s in pod["status"].get("containerStatuses", []))
            what = "running" if ready else phase if phase in ("Succeeded", "Failed") else trouble(pod)
            if told.get(key) == what or not what: continue
            told[key] = what
            if ready: describe(pod, machine.work); print(f"\n  curl {PODS}\n  tail -F {machine.work}/log/kubelet.log\n^C takes everything down again", flush=True)
            else: print(f"pod {pod['metadata']['name']}: {what}", flush=True)
        time.sleep(FOLLOW_SECS)
    raise RuntimeError(f"the kubelet ended with {machine.kubelet.returncode}")


def take_down(machine, follower):
    """Takes the manifests away and waits until the kubelet has removed their pods."""
    follower.take_away(); end = time.monotonic() + TAKE_DOWN_SECS_MAX
    while machine.kubelet.poll() is None and time.monotonic() < end:
        if not machine.tasks(): return True
        time.sleep(.2)
    return not machine.tasks()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kubelet", required=True); parser.add_argument("--containerd"); parser.add_argument("--on-containerd", action="store_true", help="instead of the embedded runtime"); parser.add_argument("--verbose", action="store_true", help="the kubelet's log at --v=3"); parser.add_argument("folder"); args = parser.parse_args()
    for port, what in PORTS.items():
        if port_is_taken(port): sys.exit(f"x: port {port} ({what}) is taken: is another kubelet running here?")
    def stop(*_): raise Stopped
    signal.signal(signal.SIGINT, stop); signal.signal(signal.SIGTERM, stop)
    os.makedirs("/var/lib", exist_ok=True); work = tempfile.mkdtemp(prefix="rubelet-run-", dir="/var/lib"); os.chmod(work, 0o755)
    machine = Machine(work, args.containerd) if args.on_containerd else Embedded(work); follower = Follower(args.folder, f"{work}/manifests"); failed = 0
    try:
        built = {}
        if registry_answers("registry-1.docker.io"): print("images: from docker.io")
        else:
            print("images: docker.io does not answer; nginx and busybox are built from Debian's packages", flush=True)
            built = {("library/nginx", "latest"): images.nginx(), ("library/busybox", "latest"): images.busybox()}
        if args.on_containerd: images.archive(f"{work}/pause.tar", {PAUSE: images.pause()})
        print(machine.start_runtime(built, f"{work}/pause.tar"), f"manifests: {os.path.abspath(args.folder)}", sep="\n", flush=True)
        if any("cgroup2" not in l for l in open("/proc/self/mounts") if l.split()[1] == "/sys/fs/cgroup"): print("cgroups: version 1 here, which a kubelet refuses unless it is told not to (failCgroupV1: false, set for this run)", flush=True)
        machine.start_kubelet(args.kubelet, flags=["--v", "3"] if args.verbose else []); watch(machine, follower)
    except Stopped: print("\ntaking the pods down", flush=True)
    except RuntimeError as error:
        failed = 1; print(f"x: {error}", file=sys.stderr)
        log = next((p for n in ("kubelet", "containerd", "registry") if os.path.exists(p := f"{work}/log/{n}.log")), None)
        if log:
            with open(log, errors="replace") as f: print(f"the end of its log ({os.path.basename(log)}):", *("   " + l.rstrip() for l in f.readlines()[-15:]), sep="\n", file=sys.stderr)
    finally:
        for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_IGN)  # the end is not interrupted
        if hasattr(machine, "kubelet") and not failed and not take_down(machine, follower): failed = 1; print("x: the kubelet did not take its pods down in time; they are removed by force", file=sys.stderr)
        machine.stop()
    if not failed: print("nothing is left")
    sys.exit(failed)


if __name__ == "__main__":
    main()
