#!/usr/bin/env python3
"""What a kubelet does with a manifest: recorded from outside, and compared between two kubelets.

usage: golden.py record --kubelet BIN --recorder CRIRECORD --images IMAGES.tar --manifests DIR --out DIR [--containerd DIR] [--only RE]
       golden.py compare REFERENCE_DIR OTHER_DIR [--lines N] [--only RE] [--without-user]

--manifests  a folder of NAME.yaml files, or of NAME/manifest.yaml (an earlier record)
--cgroup-driver systemd, on a machine that systemd runs; --slow N on an emulated one
--containerd a folder with containerd, containerd-shim-runc-v2 and ctr to use instead of the ones in PATH
A record of one manifest is a folder: manifest.yaml, calls.jsonl (the CRI calls that change or execute something), pod.json (from /pods once settled),
tree.txt (files of the pod and of its logs), cgroups.txt, events.txt, etc-hosts.txt, logs/. Ids, times and addresses are replaced by names.
Runs as root, on the default paths (/etc/kubernetes/manifests, /var/lib/kubelet, /var/log/pods), on a machine without another kubelet.
Needs containerd, runc, the CNI plugins in /usr/lib/cni. Ends the processes it started and removes what they left.
"""
import argparse, base64, difflib, glob, json, os, re, shutil, ssl, subprocess, sys, tempfile, time, urllib.request

MANIFESTS, ROOT, NODE, READ_ONLY = "/etc/kubernetes/manifests", "/var/lib/kubelet", "node-a", "http://127.0.0.1:10255"
CALLS = {"RunPodSandbox", "StopPodSandbox", "RemovePodSandbox", "CreateContainer", "StartContainer", "StopContainer", "RemoveContainer", "ExecSync", "PullImage",
         "UpdateContainerResources", "UpdatePodSandboxResources", "ReopenContainerLog", "CheckpointContainer", "UpdateRuntimeConfig"}
CGROUP_FILES = ["cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "memory.limit_in_bytes", "pids.max", "cpuset.cpus",
                "cpu.weight", "cpu.max", "memory.max", "memory.high", "memory.min", "memory.low", "memory.oom.group"]
def _statuses(pod): return pod["status"].get("initContainerStatuses", []) + pod["status"].get("containerStatuses", [])
def finished(pod):
    """Ended, and its sandbox is taken down."""
    return pod["status"].get("phase") in ("Succeeded", "Failed") and any(c["type"] == "PodReadyToStartContainers" and c["status"] == "False" for c in pod["status"].get("conditions", []))
def backing_off(pod): return any(s["restartCount"] == 3 and "running" not in s["state"] for s in _statuses(pod))  # the third wait is long enough to look into
# What to wait for before looking; without an entry: SETTLE_SECS after the start.
SETTLED = {**dict.fromkeys(("09-crash-loop", "12-liveness-fails", "57-poststart-fails", "c13-crash-loop"), backing_off),
           **dict.fromkeys(("08-completes", "10-on-failure", "21-deadline", "51-init-fails", "52-restart-rules", "c05-completes", "c53-sidecars", "c54-deadline"), finished)}
SETTLE_SECS, SETTLE_SECS_MAX = {"07-init-and-sidecar": 9, "20-image-missing": 12, "53-sidecars-stop-order": 9}, 90
ENDPOINTS = {"metrics.txt": "/metrics", "metrics-cadvisor.txt": "/metrics/cadvisor", "metrics-resource.txt": "/metrics/resource",
             "metrics-probes.txt": "/metrics/probes", "stats-summary.json": "/stats/summary"}

CONTAINERD_2 = """version = 3
root = "{work}/root"
state = "{work}/state"
[grpc]
  address = "{sock}"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = "registry.k8s.io/pause:3.10.2"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = {restrict}
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{work}/cni"
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      SystemdCgroup = {systemd}
"""
CONTAINERD_1 = """version = 2
root = "{work}/root"
state = "{work}/state"
[grpc]
  address = "{sock}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.10.2"
  restrict_oom_score_adj = {restrict}
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{work}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = {systemd}
"""
NETWORK = {"cniVersion": "0.4.0", "name": "golden", "plugins": [
    {"type": "bridge", "bridge": "goldbr0", "isGateway": True, "ipMasq": False, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.87.0.0/16"}]], "dataDir": ""}},
    {"type": "portmap", "capabilities": {"portMappings": True}}]}
KUBELET_CONFIG = """apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failCgroupV1: false
failSwapOn: false
cgroupDriver: {driver}
staticPodPath: {manifests}
address: 127.0.0.1
readOnlyPort: 10255
containerRuntimeEndpoint: unix://{recorder}
authentication: {{anonymous: {{enabled: true}}, webhook: {{enabled: false}}}}
authorization: {{mode: AlwaysAllow}}
evictionHard: {{memory.available: 1Mi}}
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
resolvConf: {work}/resolv.conf
"""


def read(path):
    if not os.path.exists(path): return ""
    with open(path) as f: return f.read()


def fetch(url):
    return urllib.request.urlopen(url, context=ssl._create_unverified_context() if url.startswith("https") else None, timeout=5).read()


def wait(condition, secs):
    end = time.time() + secs
    while time.time() < end:
        try:
            if value := condition(): return value
        except Exception: pass
        time.sleep(.1)
    return None


def end(process):
    process.terminate()
    try: process.wait(30)
    except subprocess.TimeoutExpired: process.kill(); process.wait()


def may_lower_oom_score():
    """Whether this process has CAP_SYS_RESOURCE (bit 24); without it runc cannot set a negative oom_score_adj."""
    with open("/proc/self/status") as f: return any(l.startswith("CapEff") and int(l.split()[1], 16) >> 24 & 1 for l in f)


def with_names(archive, out, names):
    """Writes an archive of images anew in which some have a second name, docker.io's."""
    import tarfile
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(archive) as tar: tar.extractall(folder, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {}))  # Debian 12's Python has none
        with open(f"{folder}/index.json") as f: index = json.load(f)
        key = "org.opencontainers.image.ref.name"
        for have, want in names.items():
            one = next(m for m in index["manifests"] if m["annotations"][key].endswith("/" + have))
            index["manifests"].append({**one, "annotations": {key: f"docker.io/library/{want}:latest"}})
        with open(f"{folder}/index.json", "w") as f: json.dump(index, f)
        with tarfile.open(out, "w") as tar:
            for name in sorted(os.listdir(folder)): tar.add(f"{folder}/{name}", name)


class Names:
    """Stable names for ids, digests, times and addresses, numbered in order of appearance."""
    def __init__(self, known): self.known = dict(known)
    def add(self, kind, value): self.known.setdefault(value, f"<{kind}-{sum(v.startswith('<' + kind) for v in self.known.values()) + 1}>")
    def clean(self, text):
        for value, name in self.known.items(): text = re.sub(r"(?<![\w.])" + re.escape(value) + r"(?![\w.]*\w)" if re.fullmatch(r"[\d.]+", value) else re.escape(value), name, text)
        for pattern, name in ((r"sha256:[0-9a-f]{64}", "<digest>"), (r"\b[0-9a-f]{64}\b", "<id>"), (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", "<time>"),
                              (r"\b10\.87\.\d+\.\d+\b", "<podIP>"), (r"kube-api-access-[a-z0-9]{5}\b", "kube-api-access-<random>"), (r'("resourceVersion": ?)"\d+"', r'\1"<version>"'), (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", "<uuid>"), (r"\.\.\d{4}(_\d\d){5}\.\d+", "..<stamp>"), (r"(/containers/[^/\"]+/)[0-9a-f]{8}\b", r"\1<random>")):
            text = re.sub(pattern, name, text)
        return text


class Bench:
    """containerd, the recorder in front of it, and the kubelet under test."""
    def __init__(self, args):
        self.work, self.procs, self.driver, self.slow = tempfile.mkdtemp(prefix="golden-"), [], args.cgroup_driver, args.slow
        self.env = dict(os.environ, PATH=(args.containerd + ":" if args.containerd else "") + os.environ["PATH"])
        self.addresses = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()
        self.sock, self.recorder = f"{self.work}/c.sock", f"{self.work}/cri.sock"
        if os.path.isdir(ROOT) and os.listdir(ROOT): sys.exit(f"{ROOT} is not empty: this needs a machine without another kubelet")
        for d in (MANIFESTS, ROOT, f"{self.work}/cni"): os.makedirs(d, exist_ok=True)
        for f in os.listdir(MANIFESTS): os.unlink(f"{MANIFESTS}/{f}")
        subprocess.run(["mount", "--bind", ROOT, ROOT], check=True); subprocess.run(["mount", "--make-rshared", ROOT], check=True)
        if args.embedded: self.start_embedded(os.path.realpath(args.embedded), args.images)
        else: self.start_containerd(args.images)
        self.spawn([args.recorder, self.recorder, self.sock, f"{self.work}/cri.jsonl"], "recorder.log"); wait(lambda: os.path.exists(self.recorder), 10)
        self.write("resolv.conf", "nameserver 10.0.0.2\nsearch host.test\n"); self.write("config.yaml", self.CONFIG.format(manifests=MANIFESTS, recorder=self.recorder, work=self.work, driver=self.driver))
        self.kubelet = f"{self.work}/kubelet"; os.symlink(os.path.realpath(args.kubelet), self.kubelet)  # the name under which upstream's command line is taken
        self.start_kubelet(["--config", f"{self.work}/config.yaml", "--hostname-override", NODE, "--v", "3"])
        if not wait(lambda: fetch(READ_ONLY + "/pods"), 60 * self.slow): raise RuntimeError(f"the kubelet does not serve /pods; see {self.work}/kubelet.log")
        time.sleep(3)

    # where pods come from: here a folder
    CONFIG, embedded = KUBELET_CONFIG, None
    def start_kubelet(self, flags): self.spawn([self.kubelet, *flags], "kubelet.log")
    def pod_name(self, text):
        found = re.search(r"^  name: (\S+)$|metadata: \{name: ([a-z0-9-]+)", text, re.M); return (found.group(1) or found.group(2)) + "-" + NODE
    def apply(self, name, text):
        with open(f"{MANIFESTS}/.{name}", "w") as f: f.write(text)
        os.rename(f"{MANIFESTS}/.{name}", f"{MANIFESTS}/{name}.yaml")
    def settle(self, name, find):
        if name in SETTLED: wait(lambda: SETTLED[name](find()), SETTLE_SECS_MAX * self.slow)
        else: time.sleep(SETTLE_SECS.get(name, 5) * self.slow)
        if name == "11-probes": time.sleep(20); self.scrape(f"{self.work}/endpoints")
    def then(self, name): pass  # a second act, for sources that have one
    def remove(self, name, text): os.unlink(f"{MANIFESTS}/{name}.yaml")
    def find(self, pod): return next((p for p in json.loads(fetch(READ_ONLY + "/pods"))["items"] or [] if p["metadata"]["name"] == pod), None)
    def known(self, pod): return {}  # values to replace by names
    def extras(self, since): return {}  # further files of a record

    def write(self, name, text):
        with open(f"{self.work}/{name}", "w") as f: f.write(text)
    def spawn(self, command, log):
        self.procs.append(subprocess.Popen(command, stdout=open(f"{self.work}/{log}", "ab"), stderr=subprocess.STDOUT, start_new_session=True, env=self.env))
    def ctr(self, *command): return subprocess.run(["ctr", "-a", self.sock, "-n", "k8s.io", *command], capture_output=True, text=True, env=self.env)
    def start_containerd(self, images):
        version = subprocess.run(["containerd", "--version"], capture_output=True, text=True, env=self.env).stdout
        self.write("c.toml", (CONTAINERD_2 if "/v2" in version else CONTAINERD_1).format(work=self.work, sock=self.sock, systemd=str(self.driver == "systemd").lower(), restrict=str(not may_lower_oom_score()).lower()))
        NETWORK["plugins"][0]["ipam"]["dataDir"] = f"{self.work}/ipam"; self.write("cni/10-golden.conflist", json.dumps(NETWORK))
        self.spawn(["containerd", "-c", f"{self.work}/c.toml"], "containerd.log")
        if not wait(lambda: self.ctr("version").returncode == 0, 30 * self.slow): raise RuntimeError(f"containerd does not start; see {self.work}/containerd.log")
        if (done := self.ctr("images", "import", images)).returncode: raise RuntimeError(done.stderr)
        for have, want in (("nginx:1.15-4", "nginx"), ("busybox:1.37.0-1", "busybox")): self.ctr("images", "tag", f"registry.k8s.io/e2e-test-images/{have}", f"docker.io/library/{want}:latest")

    def start_embedded(self, program, images):
        """The embedded runtime of rubelet, served on a socket, in containerd's place; with the built-in network."""
        archive = f"{self.work}/images.tar"; with_names(images, archive, {"nginx:1.15-4": "nginx", "busybox:1.37.0-1": "busybox"})
        own = [f"--embedded-root-dir={self.work}/root", f"--embedded-run-dir={self.work}/state", "--embedded-pod-cidrs=10.87.0.0/16", "--cgroup-driver", self.driver]
        subprocess.run([program, "image", "import", archive, *own], check=True, stdout=subprocess.DEVNULL)
        self.spawn([program, "cri", f"--listen=unix://{self.sock}", *own], "embedded.log")
        if not wait(lambda: os.path.exists(self.sock), 30): raise RuntimeError(f"the embedded runtime does not start; see {self.work}/embedded.log")
        self.embedded = [program, "stop", "--all", *own]

    def calls(self):
        with open(f"{self.work}/cri.jsonl") as f: return [json.loads(line) for line in f if line.endswith("\n")]
    def log(self):
        with open(f"{self.work}/kubelet.log", errors="replace") as f: return f.read()
    def scrape(self, out):
        os.makedirs(out, exist_ok=True)
        for name, url in {**{n: READ_ONLY + p for n, p in ENDPOINTS.items()}, "configz.json": "https://127.0.0.1:10250/configz"}.items():
            try:
                with open(f"{out}/{name}", "wb") as f: f.write(fetch(url))
            except Exception as e: print(f"{name}: {e}")

    def stop(self):
        for p in reversed(self.procs[1:]): end(p)
        if self.embedded: end(self.procs[0]); subprocess.run(self.embedded); subprocess.run(["ip", "link", "del", "rubelet0"], capture_output=True)
        else:
            for i in self.ctr("c", "ls", "-q").stdout.split(): self.ctr("t", "rm", "-f", i); self.ctr("c", "rm", i)
            if self.procs: end(self.procs[0])
        with open("/proc/self/mounts") as f: points = sorted((l.split()[1] for l in f), reverse=True)
        for m in points:
            if m.startswith((ROOT + "/", self.work)): subprocess.run(["umount", "-l", m])
        # Its own mount, none below it: what is removed under somebody's mount is gone for those, too, who have it as theirs.
        subprocess.run(["umount", "-l", ROOT])
        subprocess.run(["ip", "link", "del", "goldbr0"], capture_output=True); shutil.rmtree(ROOT, ignore_errors=True)
        for top in (g for pattern in ("/sys/fs/cgroup/*/kubepods*", "/sys/fs/cgroup/kubepods*") for g in glob.glob(pattern)):
            for folder, _, _ in os.walk(top, topdown=False):
                try: os.rmdir(folder)
                except OSError: pass


def files_of(pod, uid):
    rows = []
    for top in (f"{ROOT}/pods/{uid}", *glob.glob(f"/var/log/pods/*_{pod}_{uid}")):
        for base, dirs, files in os.walk(top):
            for name in sorted([""] + files + [d for d in dirs if os.path.islink(f"{base}/{d}")]):
                path = os.path.join(base, name) if name else base; s = os.lstat(path)
                rows.append(f"{s.st_mode:o} {s.st_uid}:{s.st_gid} {path}" + (f" -> {os.readlink(path)}" if os.path.islink(path) else ""))
    return rows + [f"{q} -> {os.readlink(q)}" for q in sorted(glob.glob(f"/var/log/containers/{pod}_*"))]


def forget(pod):
    """Removes the logs of an earlier pod of that name: the restart count goes on from them."""
    for path in glob.glob(f"/var/log/pods/*_{pod}_*"): shutil.rmtree(path, ignore_errors=True)
    for path in glob.glob(f"/var/log/containers/{pod}_*"): os.unlink(path)


def cgroups_of(uid):
    rows = []
    for level in sorted(glob.glob("/sys/fs/cgroup/**/kubepods*/", recursive=True)):
        for name in ("cpu.shares", "cpu.weight"):
            if "pod" not in os.path.basename(level[:-1])[8:] and os.path.isfile(level + name):
                with open(level + name) as f: rows.append(f"{level[len('/sys/fs/cgroup/'):-1]} {name}={f.read().strip()}")
    for group in sorted(g for u in {uid, uid.replace("-", "_")} for g in glob.glob(f"/sys/fs/cgroup/**/kubepods*/**/*pod{u}*", recursive=True)):
        for name in CGROUP_FILES:
            if os.path.isfile(f"{group}/{name}"):
                with open(f"{group}/{name}") as f: rows.append(f"{group[len('/sys/fs/cgroup/'):]} {name}={f.read().strip()}")
        for child in sorted(glob.glob(group + "/*/")):
            for name in CGROUP_FILES:
                if os.path.isfile(child + name):
                    with open(child + name) as f: rows.append(f"{child[len('/sys/fs/cgroup/'):-1]} {name}={f.read().strip()}")
    return rows


def record_one(bench, manifest, name, out):
    with open(manifest) as f: text = f.read()
    pod = bench.pod_name(text)
    def find(): return bench.find(pod)
    calls_before, log_before, started = len(bench.calls()), len(bench.log()), time.time()
    forget(pod); bench.apply(name, text); found = wait(find, 30 * bench.slow)
    bench.settle(name, find)
    bench.then(name); found = find() or found; uid = found["metadata"]["uid"] if found else "none"
    tree, cgroups, hosts = files_of(pod, uid), cgroups_of(uid), read(f"{ROOT}/pods/{uid}/etc-hosts")
    logs = {}
    for path in glob.glob(f"/var/log/pods/*_{pod}_{uid}/*/*.log"):
        with open(path, errors="replace") as f: logs[".".join(path.split("/")[-2:])] = f.read(20000)
    removed = time.time() - .01; bench.remove(name, text); wait(lambda: find() is None, 60 * bench.slow); wait(lambda: not os.path.exists(f"{ROOT}/pods/{uid}"), 75 * bench.slow)
    def sandboxes(method, part): return {(c.get(part) or {}).get("pod_sandbox_id") for c in bench.calls()[calls_before:] if c["method"] == method and c["code"] == "OK"}
    wait(lambda: sandboxes("RunPodSandbox", "response") <= sandboxes("StopPodSandbox", "request"), 20); time.sleep(1.5)

    names = Names({bench.work: "<work>", **{ip: "<hostIP>" for ip in bench.addresses}, **bench.known(found)})
    calls = sorted(bench.calls()[calls_before:], key=lambda c: c["t"])
    for c in calls:
        response = c.get("response") or {}
        if "pod_sandbox_id" in response and c["method"] == "RunPodSandbox": names.add("sandbox", response["pod_sandbox_id"])
        if "container_id" in response and c["method"] == "CreateContainer": names.add("container", response["container_id"])
    ours = [v for v in names.known if len(v) == 64] + [uid]; rows = []
    for c in calls:
        request = json.dumps(c.get("request"))
        if c["method"] not in CALLS or not (c["method"] == "PullImage" or any(o in request for o in ours)): continue
        row = {"after_s": round(c["t"] - started, 1), "stage": "stop" if c["t"] >= removed else "run", "method": c["method"], "code": c["code"], "request": c["request"]}
        for env in (row["request"].get("config") or {}).get("envs", []): env["value"] = base64.b64decode(env.get("value", "")).decode(errors="replace")
        if c.get("error"): row["error"] = c["error"]
        if c["method"] == "ExecSync" and c.get("response"): row["response"] = c["response"]
        rows.append(json.dumps(row))
    events = re.findall(r'"Event occurred" object="[^"]*/' + re.escape(pod) + r'" fieldPath="([^"]*)" kind="Pod" apiVersion="[^"]*" type="(\w+)" reason="(\w+)" message="((?:[^"\\]|\\.)*)"', bench.log()[log_before:])
    shutil.rmtree(out, ignore_errors=True); os.makedirs(f"{out}/logs")
    content = {"manifest.yaml": text, "pod.json": json.dumps(found, indent=1, sort_keys=True), "calls.jsonl": "\n".join(rows), "tree.txt": "\n".join(tree), "cgroups.txt": "\n".join(cgroups), "etc-hosts.txt": hosts,
               "events.txt": "\n".join(f"{kind} {reason} {field} {message}" for field, kind, reason, message in events), **{f"logs/{k}": v for k, v in logs.items()}, **bench.extras(started)}
    for k, v in content.items():
        v = v if k == "manifest.yaml" else names.clean(v)
        with open(f"{out}/{k}", "w") as f: f.write(v + ("" if v.endswith("\n") or not v else "\n"))
    print(f"{name}: {len(rows)} calls, {len(tree)} files, {len(events)} events, phase {found and found['status'].get('phase')}", flush=True)


def record(args, kind=Bench):
    manifests = {os.path.basename(os.path.dirname(f)): f for f in glob.glob(f"{args.manifests}/*/manifest.yaml")} or {os.path.basename(f)[:-5]: f for f in glob.glob(f"{args.manifests}/*.yaml")}
    os.makedirs(args.out, exist_ok=True); bench = kind.__new__(kind)
    try:
        bench.__init__(args)
        for name in sorted(manifests):
            if not args.only or re.search(args.only, name): record_one(bench, manifests[name], name, f"{args.out}/{name}")
        print("work folder with raw calls, logs and endpoints:", bench.work)
    finally:
        if hasattr(bench, "procs"): bench.stop()


def comparable(path, without_user):
    """The lines of one file, without what differs from run to run of the same kubelet or from machine to machine, and without the UID of a static pod, which even upstream changes with each minor version."""
    text = read(path)
    if uid := re.search(r'"uid": "([0-9a-f]{32})"', read(os.path.join(os.path.dirname(path), "pod.json"))): text = text.replace(uid.group(1), "<pod-uid>")
    for pattern, name in ((r'("oom_score_adj": )"(?!1000"|0")\d+"', r'\1"<by memory>"'), (r'("key": "EPH", "value": )"\d+"', r'\1"<disk>"'), (r"cpuset\.cpus=.*", "cpuset.cpus=<cpus>"), (r"(\.scope pids\.max)=\d+", r"\1=<by systemd>"), (r"(kubepods(?:\.slice)? cpu\.(?:shares|weight))=.*", r"\1=<by cpus>"), (r'"hugepage_limits": \[[^]]*\]', '"hugepage_limits": "<page sizes>"')):
        text = re.sub(pattern, name, text)
    text = text.replace("rubelet://", "containerd://").replace("/rubelet-<", "/cri-containerd-<")  # the runtime's name in ids and scopes
    if path.endswith("calls.jsonl"): return calls_in_order(text)
    if path.endswith("pod.json") and text.strip() not in ("", "null"):
        pod = json.loads(text)
        for s in _statuses(pod) + pod["status"].get("ephemeralContainerStatuses", []):
            if without_user: s.pop("user", None)
            if s["restartCount"] and "running" not in s["state"] and pod["status"]["phase"] == "Running": s["state"] = s["lastState"] = "<between two restarts>"  # dead, or backing off: upstream shows either, by its own lag
        return json.dumps(pod, indent=1, sort_keys=True).splitlines()
    lines = text.splitlines()
    if path.endswith("events.txt"): return sorted({l for l in lines if "code = Canceled" not in l and "connection refused" not in l})  # probes cut short by the stop
    return sorted(lines) if path.endswith(("tree.txt", "cgroups.txt")) else lines


def calls_in_order(text):
    """Starting is a sequence; stopping goes in waves (calls within half a second), each without order; of probes only which, not how often; garbage collection has no promised time."""
    run, waves, probes, last, stopped = [], [], set(), None, set()
    for row in map(json.loads, text.splitlines()):
        at = row.pop("after_s")
        if row["method"] in ("RemoveContainer", "RemovePodSandbox"): continue
        if row["method"] == "StopPodSandbox":  # once is enough, again is harmless
            if row["request"]["pod_sandbox_id"] in stopped: continue
            stopped.add(row["request"]["pod_sandbox_id"])
        if row["method"] == "ExecSync": probes.add(json.dumps({"ExecSync": {k: v for k, v in row["request"].items() if k != "container_id"}}, sort_keys=True)); continue
        if envs := (row["request"].get("config") or {}).get("envs"): envs.sort(key=lambda e: e["key"])  # upstream's order is a hash map's
        for config in (row["request"].get("config") or {}, row["request"].get("sandbox_config") or {}):
            if options := (config.get("dns_config") or {}).get("options"): options.sort()  # so is theirs
        shown = json.dumps(row, sort_keys=True, indent=1)
        if row["stage"] == "run": run.append(shown); continue
        if any(shown in w for w in waves): continue
        if last is None or at - last > .5: waves.append(set())
        waves[-1].add(shown); last = at
    return "\n".join(run + [c for w in waves for c in sorted(w)] + sorted(probes)).splitlines()


def compare(args):
    differ = total = 0
    for name in sorted(os.listdir(args.reference)):
        if not os.path.exists(f"{args.reference}/{name}/manifest.yaml") or args.only and not re.search(args.only, name): continue
        files = [f for f in ("calls.jsonl", "pod.json", "tree.txt", "cgroups.txt", "events.txt", "etc-hosts.txt") if os.path.exists(f"{args.reference}/{name}/{f}")]; total += len(files)
        if not os.path.exists(f"{args.other}/{name}/manifest.yaml"): differ += len(files); print(f"{name}: not recorded"); continue
        for file in files:
            a, b = comparable(f"{args.reference}/{name}/{file}", args.without_user), comparable(f"{args.other}/{name}/{file}", args.without_user)
            if a == b: continue
            differ += 1; diff = [l for l in difflib.unified_diff(a, b, lineterm="", n=0) if not l.startswith(("---", "+++", "@@"))]
            print(f"{name}/{file}: {len(diff)} lines differ", *("    " + l[:200] for l in diff[:args.lines]), sep="\n")
    print(f"{total - differ} of {total} files agree"); sys.exit(bool(differ))


def add_bench_options(verb):
    verb.add_argument("--containerd"); verb.add_argument("--embedded", help="rubelet: its embedded runtime instead of containerd"); verb.add_argument("--only")
    verb.add_argument("--cgroup-driver", choices=("cgroupfs", "systemd"), default="cgroupfs"); verb.add_argument("--slow", type=float, default=1, help="multiply the settling times (emulated machines)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter); verbs = parser.add_subparsers(required=True)
    verb = verbs.add_parser("record"); verb.set_defaults(run=record)
    for option in ("--kubelet", "--recorder", "--images", "--manifests", "--out"): verb.add_argument(option, required=True)
    add_bench_options(verb)
    verb = verbs.add_parser("compare"); verb.set_defaults(run=compare)
    verb.add_argument("reference"); verb.add_argument("other"); verb.add_argument("--lines", type=int, default=12); verb.add_argument("--only")
    verb.add_argument("--without-user", action="store_true", help="containerd 1.6 does not report the user of a container")
    args = parser.parse_args(); args.run(args)


if __name__ == "__main__":
    main()
