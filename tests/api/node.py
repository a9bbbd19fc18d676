"""A node whose API is asked: the agent on one runtime with webhook authentication and authorization, known to a real API server under the name node-a."""
import glob, json, os, socket, subprocess, sys, tempfile, threading

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, f"{HERE}/../lib")
import images
from controlplane import wait
from machine import PAUSE, Embedded, Machine, kubepods

NAME, ADDRESS, PORT, IMAGE = "node-a", "10.77.0.1", 10250, "localhost/rubelet/api:1"
LOG_BYTES_MAX, LOG_FILES_MAX = 1 << 20, 4
FLOOD_LINES, TAIL = 300_000, "0123456789abcdef" * 5


def sh(script, **more): return {"command": ["sh", "-c", script], **more}


# What each pod is for stands with the check that uses it.
CONTAINERS = {
    "shell": sh("trap 'exit 0' TERM; sleep 100000 & wait"),
    "talker": sh("while read x; do echo heard $x; done; sleep 100000", stdin=True),
    "screen": sh("while read x; do echo heard $x; done", stdin=True, tty=True),
    "counter": sh("head -c 100000 /dev/zero | tr '\\0' x; echo; sleep 1; i=0; while :; do i=$((i+1)); echo line $i; [ $((i % 10)) = 0 ] && echo err $i >&2; [ $i -lt 3000 ] || usleep 100000; done"),
    "crash": sh("echo life $(cat /proc/sys/kernel/random/uuid); sleep 1; exit 1"),
    # One that is too fast would be rotated away before it is read.
    "flood": sh(f"until [ -e /tmp/go ]; do usleep 100000; done; i=0; while [ $i -lt {FLOOD_LINES} ]; do i=$((i+1)); echo $i {TAIL}; [ $((i % 1000)) != 0 ] || usleep 40000; done; sleep 100000"),
    "served": {"command": ["/bin/served"]},
}


def built_image():
    layer = images._busybox_layer()
    with tempfile.TemporaryDirectory() as work:
        subprocess.run(["gcc", "-O2", "-static", "-s", "-o", f"{work}/served", f"{HERE}/served.c"], check=True)
        layer.copy("/bin/served", f"{work}/served")
    return images.image(layer, Env=[images.PATH])


def manifest(name, container):
    one = {"name": name, "image": IMAGE, "imagePullPolicy": "IfNotPresent", **container}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [one]}}


def cgroup_tops(): return [p for p in glob.glob("/sys/fs/cgroup/*/") if os.path.exists(f"{p}cgroup.procs") and not os.path.islink(p[:-1])] if not os.path.exists("/sys/fs/cgroup/cgroup.procs") else ["/sys/fs/cgroup/"]


class Node:
    """kind: `embedded`, or a folder with containerd, or None for the machine's own containerd."""
    def __init__(self, kind, kubelet, plane, containers=None, log_bytes_max=LOG_BYTES_MAX, log_format="text"):
        self.kubelet, self.plane, self.containers, self.log_bytes_max, self.log_format = kubelet, plane, CONTAINERS if containers is None else containers, log_bytes_max, log_format
        work = tempfile.mkdtemp(prefix="rubelet-api-", dir="/var/lib"); os.chmod(work, 0o755)
        self.machine = Embedded(work) if kind == "embedded" else Machine(work, kind, bridge="api0", subnet="10.90.0.0/16")
        self.cgroup = os.path.basename(work)
        for top in cgroup_tops(): os.makedirs(f"{top}{self.cgroup}", exist_ok=True)

    def __enter__(self):
        try: self.start()
        except BaseException: self.__exit__(); raise
        return self

    def start(self):
        machine = self.machine
        if isinstance(machine, Embedded):
            machine.start_runtime({}, ""); images.archive(f"{machine.work}/import/images.tar", {IMAGE: built_image()})
        else:
            images.archive(f"{machine.work}/images.tar", {PAUSE: images.pause(), IMAGE: built_image()}); machine.start_runtime({}, f"{machine.work}/images.tar")
        for name, container in self.containers.items(): machine.write(f"manifests/{name}.json", json.dumps(manifest(name, container)))
        self.start_kubelet(); wanted = {f"{name}-{NAME}" for name in self.containers}
        if not wait(lambda: self.is_answering() and self.started() == wanted or self.process.poll() is not None, 120) or self.process.poll() is not None: raise RuntimeError(f"not all pods run: {sorted(wanted - self.started())}; see {machine.work}/log/kubelet.log: {self.log_end()}")
        self.register()

    def start_kubelet(self):
        self.listen_as_systemd()
        self.process = self.machine.start_kubelet(self.kubelet, self.config(), ["--kubeconfig", f"{self.plane.work}/{NAME}.conf", "--hostname-override", NAME])

    def listen_as_systemd(self):
        """What the agent tells its service manager, in `told`."""
        path, self.told = f"{self.machine.work}/notify", []
        self.notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); self.notified.bind(path)
        self.machine.env.update(NOTIFY_SOCKET=path, WATCHDOG_USEC="2000000")
        def hear():
            while True:
                try: self.told.append(self.notified.recv(200).decode())
                except OSError: return
        threading.Thread(target=hear, daemon=True).start()

    def config(self):
        return {"address": "0.0.0.0", "cgroupRoot": f"/{self.cgroup}", "cgroupDriver": "cgroupfs", "evictionHard": {"memory.available": "1Mi"}, "registerNode": False, "logging": {"format": self.log_format, "verbosity": 2},
                "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}, "x509": {"clientCAFile": f"{self.plane.work}/ca.crt"}}, "authorization": {"mode": "Webhook"},
                "containerLogMaxSize": str(self.log_bytes_max), "containerLogMaxFiles": LOG_FILES_MAX, "containerLogMonitorInterval": "3s", "featureGates": {"PodLogsQuerySplitStreams": True}, "enableSystemLogQuery": True}

    def is_answering(self):
        try: return self.machine.pods() is not None
        except (OSError, TypeError): return False

    def started(self):
        try: pods = self.machine.pods()
        except (OSError, TypeError): return set()
        return {p["metadata"]["name"] for p in pods if all(s.get("state", {}).get("running") or s["restartCount"] for s in p["status"].get("containerStatuses") or [{"restartCount": 0}])}

    def pod(self, name): return next(p for p in self.machine.pods() if p["metadata"]["name"] == f"{name}-{NAME}")

    def logs(self, name):
        pod = self.pod(name)["metadata"]
        return f"{self.machine.work}/pods/{pod['namespace']}_{pod['name']}_{pod['uid']}/{name}"

    def register_node(self):
        status = {"addresses": [{"type": "InternalIP", "address": ADDRESS}, {"type": "Hostname", "address": NAME}], "daemonEndpoints": {"kubeletEndpoint": {"Port": PORT}}}
        self.put("/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": NAME}}, status)

    def register(self):
        """The node and its pods in the API server, bound and running, so that it sends on what is asked of them."""
        self.register_node()
        # The agent tells of its pods itself; what it does not tell in time is told for it.
        if wait(lambda: self.mirrored() >= {pod["metadata"]["name"] for pod in self.machine.pods()}, 60): return
        for pod in self.machine.pods():
            meta = {k: pod["metadata"][k] for k in ("name", "namespace", "labels", "annotations") if k in pod["metadata"]}
            self.put(f"/api/v1/namespaces/{meta['namespace']}/pods", {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": pod["spec"]}, {"phase": "Running"})

    def mirrored(self):
        _, pods = self.plane.request("GET", "/api/v1/namespaces/default/pods", fails=True)
        return {pod["metadata"]["name"] for pod in pods.get("items", []) if pod["status"].get("phase") == "Running" or pod["status"].get("containerStatuses")} if isinstance(pods, dict) else set()

    def put(self, path, item, status):
        code, text = self.plane.request("POST", path, item, fails=True)
        if code not in (201, 409): raise RuntimeError(f"POST {path}: {code} {text}")
        self.plane.request("PATCH", f"{path}/{item['metadata']['name']}/status", {"status": status}, content_type="application/merge-patch+json")

    def unregister(self):
        if not self.plane.is_running("apiserver"): return
        self.plane.request("DELETE", "/api/v1/namespaces/default/pods?gracePeriodSeconds=0", fails=True)
        self.plane.request("DELETE", f"/api/v1/nodes/{NAME}", fails=True)

    def log_end(self):
        with open(f"{self.machine.work}/log/kubelet.log", errors="replace") as f: return "".join(f.readlines()[-5:])

    def __exit__(self, *_):
        self.unregister()
        self.machine.kubepods_before = kubepods()  # ours are elsewhere
        try: self.take_down()
        finally:
            self.machine.stop()
            for top in cgroup_tops():
                for folder, _, _ in os.walk(f"{top}{self.cgroup}", topdown=False):
                    try: os.rmdir(folder)
                    except OSError: pass

    def take_down(self):
        """The agent stops its pods: their manifests are gone."""
        for path in glob.glob(f"{self.machine.work}/manifests/*.json"): os.unlink(path)
        if hasattr(self, "process") and self.process.poll() is None: wait(lambda: not self.machine.tasks(), 30)


def enter_alone():
    """A network, and what one machine has once, of our own: for a process in its own mount and network namespace."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True); subprocess.run(["ip", "addr", "replace", f"{ADDRESS}/32", "dev", "lo"], check=True)
    for folder in ("/var/log", "/run/netns", "/var/lib/kubelet"):
        if folder == "/run/netns" or os.path.isdir(folder): os.makedirs(folder, exist_ok=True); subprocess.run(["mount", "-t", "tmpfs", "rubelet-api", folder], check=True)
