"""The node in the emulated machine, as the checks see it: checks are counted, pods described, waited for and asked about."""
import glob, json, os, shutil, ssl, subprocess, sys, time, urllib.request

BUSYBOX, NGINX, WAIT_SECS_MAX = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1", "registry.k8s.io/e2e-test-images/nginx:1.15-4", 300
CONFIG = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "failSwapOn": False, "cgroupDriver": "systemd", "address": "127.0.0.1", "readOnlyPort": 10255,
          "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}}, "authorization": {"mode": "AlwaysAllow"}}


class Checks:
    """Says what passed, and in the end `check: N passed, N failed`."""
    def __init__(self): self.results = []

    def __call__(self, what, passed, seen=""):
        self.results.append(bool(passed)); print(("ok      " if passed else "FAILED  ") + what + ("" if passed else f": {seen}"), flush=True)

    def end(self):
        print(f"check: {sum(self.results)} passed, {len(self.results) - sum(self.results)} failed", flush=True); sys.exit(not all(self.results))


def until(condition, secs=WAIT_SECS_MAX):
    """What `condition` says in the end."""
    end = time.time() + secs
    while not (seen := condition()) and time.time() < end: time.sleep(.5)
    return seen


def read(path):
    try:
        with open(path) as f: return f.read()
    except OSError: return ""


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f: f.write(text)


def run(*command): return subprocess.run(command, capture_output=True, text=True)


def fetch(url):
    """An answer's text; what went wrong begins with `!`."""
    try: return urllib.request.urlopen(url, timeout=60, context=ssl._create_unverified_context()).read().decode()
    except OSError as error: return f"!{error} {error.read().decode() if hasattr(error, 'read') else ''}"


def container(script, name="main", **more):
    return {"name": name, "image": BUSYBOX, "imagePullPolicy": "Never", "command": ["sh", "-c", script], **more}


def pod(name, *containers, **spec):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": list(containers), **spec}}


def pods():
    """What the node tells of its pods, by the names of their manifests."""
    try: items = json.loads(fetch("http://127.0.0.1:10255/pods"))["items"] or []
    except ValueError: return {}
    return {item["metadata"]["name"].rsplit("-node-a", 1)[0]: item for item in items}


def is_ready(pod): return pod and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))


def ready(*names):
    """The pods, once all of them are ready."""
    known = pods(); found = [known.get(name) for name in names]
    return found if all(map(is_ready, found)) else None


class Agent:
    """An agent that is no unit, with its pods and all that it keeps below `top`."""
    def __init__(self, binary, top, config=(), given=()):
        self.binary, self.top, self.process = binary, top, None
        for folder in ("manifests", "import"): os.makedirs(f"{top}/{folder}", exist_ok=True)
        self.own = [f"--embedded-root-dir={top}/root", f"--embedded-run-dir={top}/run", f"--embedded-import-dir={top}/import"]
        write(f"{top}/config.json", json.dumps({**CONFIG, "staticPodPath": f"{top}/manifests", "podLogsDir": f"{top}/pods", **dict(config)}))
        self.command = [binary, "--config", f"{top}/config.json", "--root-dir", f"{top}/kubelet", "--cert-dir", f"{top}/pki", "--v", "3", *self.own, *given]

    def wants(self, *manifests):
        for manifest in manifests: write(f"{self.top}/manifests/{manifest['metadata']['name']}.json", json.dumps(manifest))

    def start(self, log):
        with open(log, "ab") as f: self.process = subprocess.Popen(self.command, stdout=f, stderr=f)

    def is_up(self): return self.process.poll() is None

    def log_of(self, name, container="main"):
        """The lines of a pod's log."""
        return [line.split(" ", 3)[3] for path in sorted(glob.glob(f"{self.top}/pods/default_{name}-*/{container}/*.log")) for line in read(path).splitlines()]

    def said(self, name, last="end"):
        """The same, once the line `last` is in it."""
        until(lambda: last in self.log_of(name) or not self.is_up(), 120)
        return self.log_of(name)

    def cgroup(self, name, container=None):
        """The cgroup of a pod, or that of one of its containers."""
        known = pods().get(name)
        if not known: return ""
        uid = known["metadata"].get("annotations", {}).get("kubernetes.io/config.hash") or known["metadata"]["uid"]
        found = glob.glob(f"/sys/fs/cgroup/kubepods.slice/**/*pod{uid.replace('-', '_')}.slice", recursive=True)
        if not container or not found: return (found or [""])[0]
        ids = [s["containerID"].split("//")[1] for s in known["status"].get("containerStatuses", []) if s["name"] == container and s.get("containerID")]
        return (glob.glob(f"{found[0]}/*{ids[0]}*.scope") or [""])[0] if ids else ""

    def stop_all(self):
        """Stops the pods and the agent; the command's end."""
        done = run(self.binary, "stop", "--all", *self.own)
        try: self.process.wait(60)
        except subprocess.TimeoutExpired: self.process.kill()
        shutil.rmtree(f"{self.top}/manifests"); os.makedirs(f"{self.top}/manifests")
        return done
