"""A machine for pods in one folder: containerd, a network, a registry on loopback and a kubelet, all private and all taken down again."""
import base64, glob, json, os, re, shutil, signal, socket, subprocess, sys, time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../golden/tools"))
from golden import CONTAINERD_1, CONTAINERD_2, end, fetch, may_lower_oom_score, wait
import images

PAUSE = "registry.k8s.io/pause:3.10.2"  # the sandbox image of golden's containerd configurations
KUBELET_CONFIG = {"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "failSwapOn": False, "failCgroupV1": False, "address": "127.0.0.1", "readOnlyPort": 10255,
                  "imageGCHighThresholdPercent": 100, "evictionHard": {"memory.available": "100Mi"},  # however full the disk is
                  "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}}, "authorization": {"mode": "AlwaysAllow"}}
FOLDERS = ("/var/lib/kubelet", "/var/log/containers")  # a kubelet makes them wherever its root is
PODS = "http://127.0.0.1:10255/pods"


def has_systemd(): return os.path.isdir("/run/systemd/system")


def free_port():
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); return s.getsockname()[1]


def port_is_taken(port):
    with socket.socket() as s: return s.connect_ex(("127.0.0.1", port)) == 0


def mounts_below(folder):
    with open("/proc/self/mounts") as f: return sorted((l.split()[1] for l in f if l.split()[1].startswith(folder)), reverse=True)


def shims_of(work):
    """Shims whose containerd lived in `work`: one stays when its sandbox was half made."""
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/cmdline") as f: words = f.read().split("\0")
        except OSError: continue
        if "containerd-shim" in words[0] and any(w.startswith(work + "/") for w in words): yield int(process)


def kubepods(): return {g for pattern in ("/sys/fs/cgroup/*/kubepods*", "/sys/fs/cgroup/kubepods*") for g in glob.glob(pattern)}


class Machine:
    def __init__(self, work, containerd=None, bridge="rubelet0", subnet="10.88.0.0/16"):
        self.work, self.bridge, self.subnet, self.procs, self.mirror = work, bridge, subnet, [], None
        self.sock, self.env = f"{work}/containerd.sock", dict(os.environ, PATH=(containerd + ":" if containerd else "") + os.environ["PATH"])
        self.kubepods_before = kubepods()
        self.folders_before = {f for f in FOLDERS if os.path.exists(f)}
        for folder in ("cni", "certs.d", "log", "manifests", "kubelet"): os.makedirs(f"{work}/{folder}", exist_ok=True)

    def write(self, name, text):
        os.makedirs(os.path.dirname(f"{self.work}/{name}"), exist_ok=True)
        with open(f"{self.work}/{name}", "w") as f: f.write(text)

    def spawn(self, name, command):
        process = subprocess.Popen(command, stdout=open(f"{self.work}/log/{name}.log", "ab"), stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True, env=self.env)
        self.procs.append(process); return process

    def start_registry(self, pushed):
        """docker-registry on loopback with `pushed`: {(name, tag): image}; containerd asks it for what docker.io should have."""
        port = free_port()
        self.write("registry.yml", json.dumps({"version": "0.1", "log": {"level": "warn"}, "storage": {"filesystem": {"rootdirectory": f"{self.work}/registry"}}, "http": {"addr": f"127.0.0.1:{port}"}}))
        self.spawn("registry", ["docker-registry", "serve", f"{self.work}/registry.yml"]); url = f"http://127.0.0.1:{port}"
        if not wait(lambda: fetch(url + "/v2/") is not None, 20): raise RuntimeError(f"docker-registry does not start; see {self.work}/log/registry.log")
        for (name, tag), built in pushed.items(): images.push(url, name, tag, built)
        self.write("certs.d/docker.io/hosts.toml", f'server = "https://registry-1.docker.io"\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n'); self.mirror = url

    def start_containerd(self, archive):
        version = subprocess.run(["containerd", "--version"], capture_output=True, text=True, env=self.env, check=True).stdout
        two = "/v2" in version; template = CONTAINERD_2 if two else CONTAINERD_1
        text = template.format(work=self.work, sock=self.sock, systemd=str(has_systemd()).lower(), restrict=str(not may_lower_oom_score()).lower())
        text += "[plugins.'io.containerd.cri.v1.images'.registry]\n" if two else '[plugins."io.containerd.grpc.v1.cri".registry]\n'
        self.write("containerd.toml", text + f'  config_path = "{self.work}/certs.d"\n')
        may_masquerade = subprocess.run(["iptables", "-t", "nat", "-S"], capture_output=True).returncode == 0
        bridge = {"type": "bridge", "bridge": self.bridge, "isGateway": True, "ipMasq": may_masquerade, "ipam": {"type": "host-local", "ranges": [[{"subnet": self.subnet}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": f"{self.work}/ipam"}}
        self.write("cni/10-pods.conflist", json.dumps({"cniVersion": "0.4.0", "name": self.bridge, "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]}))
        self.containerd = self.spawn("containerd", ["containerd", "-c", f"{self.work}/containerd.toml"])
        if not wait(lambda: self.ctr("version").returncode == 0, 30): raise RuntimeError(f"containerd does not start; see {self.work}/log/containerd.log")
        if (done := self.ctr("images", "import", archive)).returncode: raise RuntimeError(done.stderr)
        return version.split()[2]

    def ctr(self, *command): return subprocess.run(["ctr", "-a", self.sock, "-n", "k8s.io", *command], capture_output=True, text=True, env=self.env)
    def containers(self): return self.ctr("c", "ls", "-q").stdout.split()

    def tasks(self): return self.ctr("t", "ls", "-q").stdout.split()

    def start_kubelet(self, binary, config=None, flags=(), name="kubelet"):
        link = f"{self.work}/bin/kubelet"; os.makedirs(os.path.dirname(link), exist_ok=True)
        if os.path.islink(link): os.unlink(link)
        os.symlink(os.path.realpath(binary), link)  # the name under which upstream's command line is taken
        driver = "systemd" if has_systemd() else "cgroupfs"
        settings = {**KUBELET_CONFIG, "cgroupDriver": driver, "staticPodPath": f"{self.work}/manifests", "containerRuntimeEndpoint": f"unix://{self.sock}", "podLogsDir": f"{self.work}/pods", **(config or {})}
        self.write("kubelet.yaml", json.dumps(settings, indent=1))
        self.kubelet = self.spawn(name, [link, "--config", f"{self.work}/kubelet.yaml", "--root-dir", f"{self.work}/kubelet", "--cert-dir", f"{self.work}/pki", *flags])
        return self.kubelet

    def start_runtime(self, built, archive):
        """containerd, with `built` in a registry of its own when there is something in it; its version."""
        if built: self.start_registry(built)
        return f"containerd {self.start_containerd(archive)}: {self.sock}"

    def pods(self): return json.loads(fetch(PODS))["items"] or []

    def remove_containers(self):
        for name in self.containers() if self.procs else (): self.ctr("t", "rm", "-f", name); self.ctr("c", "rm", name)

    def network_leftovers(self, cache="/var/lib/cni/results"):
        """What CNI plugins remember of this machine's pods, no other's: its files, and the network namespaces in them."""
        files, namespaces = [], set()
        for path in glob.glob(f"{cache}/{self.bridge}-*"):
            with open(path) as f: known = json.load(f)
            # The configuration that it was made by names this machine's folder.
            if f'"{self.work}/ipam"'.encode() not in base64.b64decode(known.get("config", "")): continue
            files.append(path); namespaces.update(i["sandbox"] for i in known.get("result", {}).get("interfaces", ()) if i.get("sandbox"))
        return files, namespaces

    def stop(self):
        """Ends the processes and removes what pods leave on a machine. What the kubelet did not take down is taken down here."""
        for process in reversed([p for p in self.procs if p.args[0] not in ("containerd", "docker-registry")]): end(process)
        self.remove_containers()
        for process in reversed(self.procs):
            if process.poll() is None: end(process)
        for pid in shims_of(self.work): os.kill(pid, signal.SIGKILL)
        for point in mounts_below(self.work): subprocess.run(["umount", "-l", point], capture_output=True)
        files, namespaces = self.network_leftovers()
        for netns in namespaces: subprocess.run(["ip", "netns", "del", os.path.basename(netns)], capture_output=True)
        subprocess.run(["ip", "link", "del", self.bridge], capture_output=True)
        for path in files: os.unlink(path)
        for top in kubepods() - self.kubepods_before:
            for folder, _, _ in os.walk(top, topdown=False):
                try: os.rmdir(folder)
                except OSError: pass
        for folder in set(FOLDERS) - self.folders_before: shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(self.work, ignore_errors=True)


class Embedded(Machine):
    """The same with rubelet alone: its embedded runtime, and images from an archive."""
    def start_runtime(self, built, archive):
        os.makedirs(f"{self.work}/import")
        if built: images.archive(f"{self.work}/import/images.tar", {f"docker.io/{name}:{tag}": image for (name, tag), image in built.items()})
        return "embedded runtime: no containerd, no runc, no CNI plugins"

    def own(self): return [f"--embedded-root-dir={self.work}/root", f"--embedded-run-dir={self.work}/run", f"--embedded-import-dir={self.work}/import"]

    def start_kubelet(self, binary, config=None, flags=(), name="kubelet"):
        self.binary, driver = os.path.realpath(binary), "systemd" if has_systemd() else "cgroupfs"
        settings = {**KUBELET_CONFIG, "cgroupDriver": driver, "staticPodPath": f"{self.work}/manifests", "podLogsDir": f"{self.work}/pods", **(config or {})}
        self.write("kubelet.yaml", json.dumps(settings, indent=1))
        self.kubelet = self.spawn(name, [self.binary, "--config", f"{self.work}/kubelet.yaml", "--root-dir", f"{self.work}/kubelet", "--cert-dir", f"{self.work}/pki", *self.own(), *flags])
        return self.kubelet

    def tasks(self): return os.listdir(f"{self.work}/run/sandboxes") if os.path.isdir(f"{self.work}/run/sandboxes") else []

    def remove_containers(self):
        if self.tasks(): subprocess.run([self.binary, "stop", "--all", *self.own()], capture_output=True)
