"""A node of a control plane, for tests: a container runtime and a kubelet, on the default paths of a machine of its own (see own.sh).

    with Cluster(work, options) as cluster:           # control plane and runtime; options: see add_options
        cluster.node.start(); cluster.ready()
        cluster.kubectl("get", "pods")
"""
import argparse, json, os, re, shutil, signal, ssl, subprocess, sys, tempfile, threading, time, traceback, urllib.request

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, "../golden/tools"))
import golden
from controlplane import ADMIN, SERVICES, ControlPlane, upstream_kubelet, wait
from golden import end

NAME, ADDRESS, PODS = "node-a", "192.0.2.10", "10.87.0.0/16"
AGNHOST, BUSYBOX, NGINX = ("registry.k8s.io/e2e-test-images/" + i for i in ("agnhost:2.63.0", "busybox:1.37.0-1", "nginx:1.15-4"))
ROOT, MANIFESTS = "/var/lib/kubelet", "/etc/kubernetes/manifests"
CONFIG = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "failSwapOn": False, "failCgroupV1": False, "cgroupDriver": "cgroupfs", "staticPodPath": MANIFESTS,
          "authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}}, "authorization": {"mode": "Webhook"}, "clusterDNS": ["10.96.0.10"], "clusterDomain": "cluster.local",
          "imageGCHighThresholdPercent": 100, "evictionHard": {"memory.available": "50Mi"}, "maxPods": 250, "resolvConf": "/etc/resolv.conf"}


class Count(argparse.Action):
    """Says how many checks there are and does none."""
    def __call__(self, *_): print(self.const); sys.exit(0)


def add_options(parser, checks, required=True):
    parser.add_argument("--count", action=Count, nargs=0, const=checks, help="say how many checks there are")
    parser.add_argument("--kubelet", required=required, help="rubelet; `upstream`: the one in the control plane's program")
    parser.add_argument("--runtime", choices=("embedded", "containerd"), default="embedded"); parser.add_argument("--containerd", help="a folder with another containerd, its shim and ctr")
    parser.add_argument("--rubelet", help="whose embedded runtime upstream's kubelet gets"); parser.add_argument("--images", default="/var/cache/rubelet/images/golden.tar")
    parser.add_argument("--bin", default="/var/cache/rubelet/bin", help="where the tests' own programs are")
    parser.add_argument("--etcd", default="etcd", choices=("etcd", "etcd-forky")); parser.add_argument("--only"); parser.add_argument("--keep", action="store_true", help="leave the work folder")


class Node:
    """The machine's runtime and kubelet. `served`: the embedded runtime is a program beside the kubelet, not part of it."""
    def __init__(self, work, options, plane, served=False):
        self.work, self.options, self.plane, self.served = work, options, plane, served or options.kubelet == "upstream"
        self.env = dict(os.environ, PATH=(options.containerd + ":" if options.containerd else "") + os.environ["PATH"])
        self.sock, self.kubelet, self.runtime, self.which = f"{work}/runtime.sock", None, None, None
        self.endpoint = self.sock  # where the kubelet finds the runtime
        for folder in (f"{work}/log", f"{work}/cni", f"{work}/bin", MANIFESTS): os.makedirs(folder, exist_ok=True)

    def write(self, name, text):
        with open(f"{self.work}/{name}", "w") as f: f.write(text)

    def spawn(self, name, command):
        return subprocess.Popen(command, stdout=open(f"{self.work}/log/{name}.log", "ab"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True, env=self.env)

    @property
    def rubelet(self): return os.path.realpath(self.options.rubelet or self.options.kubelet)
    def own(self): return [f"--embedded-root-dir={self.work}/root", f"--embedded-run-dir={self.work}/state", f"--embedded-pod-cidrs={PODS}"]

    def start_runtime(self, archives=()):
        """The runtime with golden's images and those of further archives."""
        if self.options.runtime == "embedded":
            named = f"{self.work}/images.tar"; golden.with_names(self.options.images, named, {"nginx:1.15-4": "nginx", "busybox:1.37.0-1": "busybox"})
            done = subprocess.run([self.rubelet, "image", "import", named, *archives, *self.own(), "--cgroup-driver", "cgroupfs"], capture_output=True, text=True)
            if done.returncode: raise RuntimeError(f"images are not imported: {done.stderr[-500:]}")
            os.unlink(named)
            if self.served: self.serve_embedded()
            return
        version = subprocess.run(["containerd", "--version"], capture_output=True, text=True, env=self.env).stdout
        self.write("containerd.toml", (golden.CONTAINERD_2 if "/v2" in version else golden.CONTAINERD_1).format(work=self.work, sock=self.sock, systemd="false", restrict=str(not golden.may_lower_oom_score()).lower()))
        bridge = {"type": "bridge", "bridge": "pods0", "isGateway": True, "ipMasq": False, "hairpinMode": True, "ipam": {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": f"{self.work}/ipam"}}
        self.write("cni/10-pods.conflist", json.dumps({"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]}))
        self.serve_containerd()
        for archive in (self.options.images, *archives):
            if (done := self.ctr("images", "import", archive)).returncode: raise RuntimeError(done.stderr)
        for have, want in (("nginx:1.15-4", "nginx"), ("busybox:1.37.0-1", "busybox")): self.ctr("images", "tag", f"registry.k8s.io/e2e-test-images/{have}", f"docker.io/library/{want}:latest")

    def add_images(self, archive):
        """Before the kubelet starts."""
        if self.options.runtime == "embedded": done = subprocess.run([self.rubelet, "image", "import", archive, *self.own(), "--cgroup-driver", "cgroupfs"], capture_output=True, text=True)
        else: done = self.ctr("images", "import", archive)
        if done.returncode: raise RuntimeError(f"{archive} is not imported: {done.stderr[-500:]}")

    def serve_containerd(self):
        self.runtime = self.spawn("containerd", ["containerd", "-c", f"{self.work}/containerd.toml"])
        if not wait(lambda: self.ctr("version").returncode == 0, 30): raise RuntimeError(f"containerd does not start; see {self.work}/log/containerd.log")

    def serve_embedded(self):
        self.runtime = self.spawn("embedded", [self.rubelet, "cri", f"--listen=unix://{self.sock}", *self.own(), "--cgroup-driver", "cgroupfs"])
        if not wait(lambda: os.path.exists(self.sock), 30): raise RuntimeError(f"the embedded runtime does not start; see {self.work}/log/embedded.log")

    def ctr(self, *command): return subprocess.run(["ctr", "-a", self.sock, "-n", "k8s.io", *command], capture_output=True, text=True, env=self.env)

    def command(self, which):
        """The kubelet's program: under the name `kubelet` it is upstream's in its command line, as `rubelet` it has a runtime of its own."""
        if which == "upstream": return upstream_kubelet(self.plane.programs)
        if self.options.runtime == "embedded" and not self.served: return [os.path.realpath(which), *self.own()]
        link = f"{self.work}/bin/kubelet"
        if os.path.islink(link): os.unlink(link)
        os.symlink(os.path.realpath(which), link); return [link]

    def start(self, which=None, kubeconfig=None, config=None, flags=(), join=True):
        """Starts a kubelet; `which` instead of the option's."""
        self.which = which or self.options.kubelet
        settings = {**CONFIG, **(config or {})}
        if join: settings["authentication"] = {**settings["authentication"], "x509": {"clientCAFile": f"{self.plane.work}/ca.crt"}}
        else: settings.update(authentication={"anonymous": {"enabled": True}, "webhook": {"enabled": False}}, authorization={"mode": "AlwaysAllow"})
        if self.options.runtime == "containerd" or self.served: settings["containerRuntimeEndpoint"] = f"unix://{self.endpoint}"
        self.write("kubelet.json", json.dumps(settings, indent=1))
        joins = ["--kubeconfig", kubeconfig or f"{self.plane.work}/{NAME}.conf"] if join else []
        self.kubelet = self.spawn("kubelet", [*self.command(self.which), "--config", f"{self.work}/kubelet.json", "--hostname-override", NAME, "--node-ip", ADDRESS, "--v", "3", *joins, *flags])
        return self.kubelet

    def stop(self, how=signal.SIGTERM):
        if not self.kubelet: return
        self.kubelet.send_signal(how)
        try: self.kubelet.wait(30)
        except subprocess.TimeoutExpired: self.kubelet.kill(); self.kubelet.wait()
        self.kubelet = None

    def log(self):
        with open(f"{self.work}/log/kubelet.log", errors="replace") as f: return f.read()


class Watch(threading.Thread):
    """Everything that becomes of the objects of a path, as it comes: a list of (seconds, type, object). Goes on after a break."""
    def __init__(self, plane, path, label=None):
        super().__init__(daemon=True); self.plane, self.path, self.seen, self.over = plane, path, [], False; self.query = f"&labelSelector={label}" if label else ""; self.start()
    def run(self):
        version = None
        while not self.over:
            try:
                if version is None:
                    listed = self.plane.request("GET", f"{self.path}?x=y{self.query}")[1]; version = listed["metadata"]["resourceVersion"]
                    self.seen += [(time.monotonic(), "LISTED", o) for o in listed["items"]]
                context = ssl.create_default_context(cafile=f"{self.plane.work}/ca.crt")
                request = urllib.request.Request(f"https://127.0.0.1:{self.plane.ports['apiserver']}{self.path}?watch=1&allowWatchBookmarks=true&resourceVersion={version}{self.query}", headers={"Authorization": f"Bearer {ADMIN}"})
                with urllib.request.urlopen(request, timeout=120, context=context) as lines:
                    for line in lines:
                        event = json.loads(line)
                        if event["type"] == "ERROR": version = None; break
                        version = event["object"]["metadata"]["resourceVersion"]
                        if event["type"] != "BOOKMARK": self.seen.append((time.monotonic(), event["type"], event["object"]))
                        if self.over: return
            except (OSError, ValueError, RuntimeError): time.sleep(.2)
    def stop(self): self.over = True
    def of(self, name): return [(t, kind, o) for t, kind, o in list(self.seen) if o["metadata"]["name"] == name]


class Cluster:
    def __init__(self, options, served=False, scheduler=True, controllers=True, audit=False, flags=None):
        self.work = tempfile.mkdtemp(prefix="cluster-", dir="/var/tmp"); os.chmod(self.work, 0o755); self.options = options
        self.plane = ControlPlane(f"{self.work}/plane", nodes=[NAME], controllers=controllers, scheduler=scheduler, etcd=options.etcd, audit=audit, flags=flags)
        self.node = Node(self.work, options, self.plane, served)

    def __enter__(self):
        try: self.plane.up(); self.node.start_runtime(); return self
        except BaseException: self.__exit__(); raise
    def __exit__(self, *error):
        self.node.stop()
        if self.node.runtime: end(self.node.runtime)
        self.plane.down()
        if not self.options.keep and not any(error): shutil.rmtree(self.work, ignore_errors=True)
        else: print(f"kept: {self.work}")

    def request(self, *words, **more): return self.plane.request(*words, **more)
    def kubectl(self, *words, stdin=None, secs=120):
        try: return subprocess.run([*self.plane.programs["kubectl"], "--kubeconfig", f"{self.plane.work}/admin.conf", *words], input=stdin, capture_output=True, text=True, timeout=secs)
        except subprocess.TimeoutExpired as late: return subprocess.CompletedProcess(late.cmd, 124, (late.stdout or b"").decode(), f"kubectl {' '.join(words)}: not done in {secs} s")
    def do(self, *words, **more):
        """kubectl that must succeed; what it says."""
        done = self.kubectl(*words, **more)
        if done.returncode: raise Failed(f"kubectl {' '.join(words)}: {done.stderr.strip()[-400:]}")
        return done.stdout
    def create(self, namespace, *objects):
        for o in objects: self.do("create", "-n", namespace, "-f", "-", stdin=json.dumps(o))
    def get(self, path): code, found = self.request("GET", path, fails=True); return found if code == 200 else None
    def pods(self, namespace, label=None): return (self.get(f"/api/v1/namespaces/{namespace}/pods" + (f"?labelSelector={label}" if label else "")) or {"items": []})["items"]
    def namespace(self, name):
        self.request("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        if not wait(lambda: self.get(f"/api/v1/namespaces/{name}/serviceaccounts/default"), 30): raise Failed(f"no service account in {name}")
        return name

    def ready(self, secs=90):
        """Waits until the node is Ready and takes pods."""
        def look():
            if self.node.kubelet and self.node.kubelet.poll() is not None: raise Failed(f"the kubelet ended with {self.node.kubelet.returncode}: {self.node.log()[-600:]}")
            node = self.get(f"/api/v1/nodes/{NAME}")
            return node and is_true(node, "Ready") and not node["spec"].get("taints")
        if not wait(look, secs, .2): raise Failed(f"the node is not Ready after {secs} s; see {self.work}/log/kubelet.log")


class Failed(Exception): pass
def is_true(thing, condition): return any(c["type"] == condition and c["status"] == "True" for c in thing["status"].get("conditions", []))
def is_ready(pod): return is_true(pod, "Ready") and "deletionTimestamp" not in pod["metadata"]
def restarts(pod): return sum(s["restartCount"] for s in pod["status"].get("containerStatuses", []))


def need(truth, what, *about):
    """Fails with `what` unless it is true."""
    if not truth: raise Failed(what + "".join(f"; {json.dumps(a) if not isinstance(a, str) else a}"[:600] for a in about))
    return truth


def eventually(what, secs, message, about=None, every=.2):
    """Waits until it is true, or fails."""
    found = wait(what, secs, every)
    return need(found, f"{message} (not within {secs} s)", *([about()] if about else []))


class Checks:
    """Scenarios that ran: each passes or fails as a whole, and says why."""
    def __init__(self): self.passed, self.failed, self.lock = 0, 0, threading.Lock()
    def run(self, name, scenario, *arguments):
        at = time.monotonic()
        try: scenario(*arguments); why = None
        except Failed as failed: why = str(failed)
        except Exception as error: frames = [f for f in traceback.extract_tb(error.__traceback__) if '/tests/' in f.filename]; why = f"{error!r} at {' < '.join(f'{os.path.basename(f.filename)}:{f.lineno}' for f in reversed(frames))}"
        with self.lock:
            self.passed += why is None; self.failed += why is not None
            print(f"{'ok     ' if why is None else 'FAILED '} {name} ({time.monotonic() - at:.0f} s)" + (f": {why}" if why else ""), flush=True)
        return why is None
    def end(self):
        print(f"check: {self.passed} passed, {self.failed} failed"); sys.exit(self.failed > 0 or not self.passed)


def pod(name, namespace=None, image=BUSYBOX, command=("sleep", "100000"), grace=1, **spec):
    container = {"name": "main", "image": image, **({"command": list(command)} if command else {}), **spec.pop("container", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, **({"namespace": namespace} if namespace else {}), "labels": {"app": name}}, "spec": {"terminationGracePeriodSeconds": grace, "automountServiceAccountToken": False, "containers": [container], **spec}}
