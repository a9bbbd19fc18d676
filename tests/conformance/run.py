#!/usr/bin/env python3
"""Runs upstream's node conformance suite with a kubelet, on a machine of its own: mounts, network and paths that nobody else sees.

usage: run.py --kubelet BIN --suite e2e_node.test --ginkgo GINKGO --images IMAGES.tar --out DIR [--containerd DIR] [--embedded]
              [--labels EXPR] [--focus RE] [--skip RE] [--nodes N] [--timeout 60m] [--again]

The suite is built from the Go module of Kubernetes (see build.sh beside). It starts an API server and the kubelet by itself.
Specs in known.tsv may fail and count as skipped then. The last line is `conformance: N passed, N failed, N skipped`.
"""
import argparse, glob, json, os, re, shutil, signal, socket, subprocess, sys, tarfile, tempfile, xml.etree.ElementTree

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [os.path.join(HERE, "../golden/tools"), os.path.join(HERE, "../lib")]
import golden, images

# What the suite and the kubelet use below fixed paths.
OWN = ("/var/lib/kubelet", "/var/log/pods", "/var/log/containers", "/run/containerd", "/etc/cni", "/etc/kubernetes", "/var/lib/cni", "/run/netns", "/run/rubelet")
NODE, ADDRESS = "node-a", "10.88.0.1"
NETWORK = {"cniVersion": "0.4.0", "name": "conformance", "plugins": [
    {"type": "bridge", "bridge": "conf0", "isGateway": True, "ipMasq": False, "hairpinMode": True,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.87.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}], "dataDir": ""}},
    {"type": "portmap", "capabilities": {"portMappings": True}}, {"type": "loopback"}]}
# As the suite's own default, but for cgroup v1 and the disk of a machine that is shared.
CONFIG = """apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
cgroupRoot: /
cgroupDriver: cgroupfs
failCgroupV1: false
failSwapOn: false
volumeStatsAggPeriod: 10s
serializeImagePulls: false
fileCheckFrequency: 10s
podCIDR: 10.100.0.0/24
evictionPressureTransitionPeriod: 30s
evictionHard: {memory.available: 250Mi, nodefs.available: 1%, nodefs.inodesFree: 1%}
resolvConf: /etc/resolv.conf
clusterDomain: cluster.local
imageGCHighThresholdPercent: 99
imageGCLowThresholdPercent: 98
"""
REGISTRY, RUNTIME_CGROUP = "127.0.0.1:5000", "docker-daemon"  # the cgroup is the one that the suite names to the kubelet


def own_trees():
    """Roots of the cgroup hierarchies that are this machine's own: those of version 1."""
    with open("/proc/mounts") as f: return [place for _, place, kind, *_ in map(str.split, f) if kind == "cgroup"]


def run(line): subprocess.run(line, shell=True, check=True)


class Machine:
    def __init__(self, args):
        self.args, self.work, self.processes = args, os.environ["RUBELET_ALONE"], []

    def furnish(self):
        run("mount --make-rprivate /")
        for number, path in enumerate(OWN):
            os.makedirs(path, exist_ok=True); own = f"{self.work}/own/{number}"; os.makedirs(own)
            run(f"mount --bind {own} {path}")
        # After the binds: made of a shared mount, they would be its peers, and what one loses all lose.
        run("mount --make-rshared /")
        run(f"ip link set lo up && ip link add eth0 type veth peer name out0 && ip link set out0 up && ip addr add {ADDRESS}/24 dev eth0 && ip link set eth0 up && ip route add default via 10.88.0.254 dev eth0")
        self.talk()
        with open(f"{self.work}/resolv.conf", "w") as f: f.write("nameserver 127.0.0.1\n")
        with open(f"{self.work}/hosts", "w") as f: f.write(f"127.0.0.1 localhost\n::1 localhost\n{ADDRESS} {NODE}\n")
        # There is no systemd here that would start anything, whatever its packages say.
        if shutil.which("systemd-run"): run(f"mount --bind /dev/null {shutil.which('systemd-run')}")
        for name in ("resolv.conf", "hosts"): run(f"mount --bind {self.work}/{name} /etc/{name}")

    @staticmethod
    def talk():
        """The node has had some traffic, as the suite expects: a megabyte in, less out."""
        for name, frames in (("out0", 800), ("eth0", 50)):
            with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as s:
                s.bind((name, 0))
                for _ in range(frames): s.send(b"\xff" * 6 + b"\x02" + bytes(5) + b"\x88\xb5" + bytes(1400))

    def registry(self):
        """docker-registry on loopback with the suite's images, in the place of registry.k8s.io."""
        config = {"version": "0.1", "log": {"level": "warn"}, "storage": {"filesystem": {"rootdirectory": f"{self.work}/registry"}}, "http": {"addr": REGISTRY}}
        with open(f"{self.work}/registry.yml", "w") as f: json.dump(config, f)
        self.spawn(["docker-registry", "serve", f"{self.work}/registry.yml"], "registry.log")
        if not golden.wait(lambda: socket.socket().connect_ex(tuple(REGISTRY.split(":")[:1]) + (int(REGISTRY.split(":")[1]),)) == 0, 30): raise RuntimeError("docker-registry does not answer")
        with tarfile.open(self.args.images) as archive:
            blob = lambda digest: archive.extractfile("blobs/" + digest.replace(":", "/")).read()
            for entry in json.load(archive.extractfile("index.json"))["manifests"]:
                manifest = blob(entry["digest"]); parts = json.loads(manifest); digests = [part["digest"] for part in (parts["config"], *parts["layers"])]
                name, tag = entry["annotations"]["org.opencontainers.image.ref.name"].removeprefix("registry.k8s.io/").rsplit(":", 1)
                images.push(f"http://{REGISTRY}", name, tag, (manifest, {digest: blob(digest) for digest in digests}))
        os.makedirs(f"{self.work}/certs.d/registry.k8s.io")
        with open(f"{self.work}/certs.d/registry.k8s.io/hosts.toml", "w") as f: f.write(f'server = "https://registry.k8s.io"\n[host."http://{REGISTRY}"]\n  capabilities = ["pull", "resolve"]\n')

    def spawn(self, command, log, **more):
        with open(os.path.join(self.args.out, log), "w") as f: process = subprocess.Popen(command, stdout=f, stderr=f, **more)
        self.processes.append(process); return process

    def spawn_runtime(self, command, log, **more):
        """In the cgroup that the suite looks for."""
        in_cgroup = 'for tree in ' + " ".join(f"{tree}/{RUNTIME_CGROUP}" for tree in own_trees()) + '; do echo $$ >$tree/cgroup.procs; done; exec "$@"'
        for tree in own_trees():
            os.makedirs(f"{tree}/{RUNTIME_CGROUP}", exist_ok=True)
            for file in glob.glob(f"{tree}/cpuset.cpus") + glob.glob(f"{tree}/cpuset.mems"): shutil.copyfile(file, f"{tree}/{RUNTIME_CGROUP}/{os.path.basename(file)}")
        return self.spawn(["sh", "-c", in_cgroup, "sh", *command], log, **more)

    def embedded(self):
        """The embedded runtime in containerd's place: the suite, too, speaks to it."""
        binary, sock = os.path.realpath(self.args.kubelet), "/run/containerd/containerd.sock"
        own = [f"--embedded-root-dir={self.work}/root", f"--embedded-run-dir={self.work}/state"]; os.makedirs(f"{self.work}/state")
        self.spawn_runtime([binary, "cri", f"--listen=unix://{sock}", *own, "--cgroup-driver=cgroupfs", f"--embedded-hosts-dirs={self.work}/certs.d", "--embedded-pod-cidrs=10.87.0.0/16", "--runtime-handler=test-handler=embedded"], "embedded.log")
        if not golden.wait(lambda: socket.socket(socket.AF_UNIX).connect_ex(sock) == 0, 30): raise RuntimeError("the embedded runtime does not answer, see embedded.log")
        subprocess.run([binary, "image", "import", self.args.images, *own], check=True, stdout=subprocess.DEVNULL)
        return f"unix://{sock}"

    def containerd(self):
        network = json.loads(json.dumps(NETWORK)); network["plugins"][0]["ipam"]["dataDir"] = f"{self.work}/ipam"
        network["plugins"] = network["plugins"][:2]
        os.makedirs(f"{self.work}/cni"); os.makedirs(f"{self.work}/root"); os.makedirs(f"{self.work}/state")
        with open(f"{self.work}/cni/10-conformance.conflist", "w") as f: json.dump(network, f)
        template = golden.CONTAINERD_2 if self.args.containerd else golden.CONTAINERD_1
        sock = "/run/containerd/containerd.sock"
        text = template.format(work=self.work, sock=sock, restrict=str(not golden.may_lower_oom_score()).lower(), systemd="false")
        # A second name of the usual runtime, for the suite's pods with a handler.
        text += text[text.index("  [plugins", text.index("containerd.runtimes.runc") - 60):].replace("runtimes.runc", "runtimes.test-handler")
        text += ("[plugins.'io.containerd.cri.v1.images'.registry]\n" if self.args.containerd else '[plugins."io.containerd.grpc.v1.cri".registry]\n') + f'  config_path = "{self.work}/certs.d"\n'
        with open(f"{self.work}/containerd.toml", "w") as f: f.write(text)
        path = os.environ["PATH"] if not self.args.containerd else f"{self.args.containerd}:{os.environ['PATH']}"
        self.spawn_runtime([shutil.which("containerd", path=path), "--config", f"{self.work}/containerd.toml"], "containerd.log", env=dict(os.environ, PATH=path))
        ctr = [shutil.which("ctr", path=path), "--address", sock, "-n", "k8s.io"]
        if not golden.wait(lambda: subprocess.run([*ctr, "version"], capture_output=True).returncode == 0, 30): raise RuntimeError("containerd does not answer")
        subprocess.run([*ctr, "images", "import", self.args.images], check=True, stdout=subprocess.DEVNULL)
        return f"unix://{sock}"

    def suite(self, endpoint, out, focus, skip, nodes):
        a, bin_dir = self.args, f"{self.work}/bin"
        if not os.path.exists(bin_dir):
            os.makedirs(bin_dir); os.makedirs(f"{self.work}/unit"); os.symlink(os.path.realpath(a.suite), f"{self.work}/e2e_node.test")
            for name in ("kubelet", "systemctl", "sudo"): os.symlink(f"{HERE}/unit.sh", f"{bin_dir}/{name}")
            program = f"{self.work}/kubelet"; os.symlink(os.path.realpath(a.kubelet), program)
            self.env = dict(os.environ, PATH=f"{bin_dir}:{os.environ['PATH']}", UNIT=f"{self.work}/unit", KUBELET=f"{os.path.realpath(a.kubelet)} kubelet" if a.upstream else program)
        with open(f"{self.work}/kubelet.yaml", "w") as f: f.write(CONFIG)
        with open(f"{self.work}/spec.yaml", "w") as f: f.write("os: Linux\nkernelSpec: {versions: ['.*']}\ncgroups: []\nruntimeSpec: {}\n")
        flags = [f"--k8s-bin-dir={bin_dir}", f"--container-runtime-endpoint={endpoint}", f"--image-service-endpoint={endpoint}", f"--node-name={NODE}", "--prepull-images=false",
                 f"--report-dir={out}", f"--kubelet-config-file={self.work}/kubelet.yaml", f"--system-spec-file={self.work}/spec.yaml", "--dns-domain=cluster.local"]
        ginkgo = [a.ginkgo, f"--nodes={nodes}", f"--timeout={a.timeout}", "--no-color", "--keep-going", "--poll-progress-after=300s"]
        if a.labels: ginkgo.append(f"--label-filter={a.labels}")
        if focus: ginkgo.append(f"--focus={focus}")
        if skip: ginkgo.append(f"--skip={skip}")
        self.spawn([*ginkgo, f"{self.work}/e2e_node.test", "--", *flags], f"{out}/suite.log", cwd=self.work, env=self.env).wait()

    def leave(self):
        for process in reversed(self.processes): golden.end(process)


def verdicts(out):
    """{spec: "passed" | "failed" | "skipped"} from the suite's reports, without those that were not chosen; what is no spec counts when it failed."""
    found = {}
    for name in glob.glob(f"{out}/junit*.xml"):
        for case in xml.etree.ElementTree.parse(name).getroot().iter("testcase"):
            status, name, skipped = case.get("status", ""), case.get("name", ""), case.find("skipped")
            if status == "passed": kind = "passed"
            elif status in ("skipped", "pending"): kind = "skipped" if skipped is not None and skipped.get("message", "") not in ("", "skipped") else None
            else: kind = "failed"
            if kind == "failed" or kind and name.startswith("[It] "): found[name.removeprefix("[It] ")] = kind
    return found


def known():
    """Specs that fail on a machine like this one with upstream's kubelet, too: [(pattern, reason)]."""
    with open(os.path.join(HERE, "known.tsv")) as f: rows = [line.rstrip("\n").split("\t") for line in f if line.strip() and not line.startswith("#")]
    return [(re.compile(pattern), reason) for pattern, reason in rows]


def report(first, again):
    """Prints what is to be said of single specs; the numbers."""
    numbers = {"passed": 0, "failed": 0, "skipped": 0}
    for name, kind in sorted(first.items()):
        reason = next((reason for pattern, reason in known() if pattern.search(name)), None)
        if kind == "failed" and reason: print(f"known: {name}: {reason}"); kind = "skipped"
        elif kind == "failed" and again.get(name) == "passed": print("passed alone, at the second attempt:", name); kind = "passed"
        elif kind == "failed": print("failed:", name)
        elif kind == "passed" and reason: print(f"passed, although known to fail: {name}: {reason}")
        numbers[kind] += 1
    return numbers


def alone(out):
    """This program once more, where nobody else is; nothing of it is left."""
    work = tempfile.mkdtemp(prefix="rubelet-conformance-"); own = os.path.join(HERE, "../lib/own.sh")
    child = subprocess.Popen([own, "--bare", sys.executable, *sys.argv], env=dict(os.environ, RUBELET_ALONE=work))
    for number in (signal.SIGTERM, signal.SIGINT): signal.signal(number, lambda *_: child.terminate())
    try: return child.wait()
    finally: shutil.rmtree(work, ignore_errors=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--kubelet", "--suite", "--ginkgo", "--images", "--out"): parser.add_argument(option, required=True)
    for option in ("--containerd", "--labels", "--focus", "--skip"): parser.add_argument(option)
    parser.add_argument("--embedded", action="store_true", help="on the embedded runtime, served on a socket, instead of containerd")
    parser.add_argument("--upstream", action="store_true", help="BIN is the control plane's program: upstream's kubelet is its `kubelet`")
    parser.add_argument("--again", action="store_true", help="what failed has a second attempt, one by one: a spec that only fails beside others is told, and counts as passed")
    parser.add_argument("--nodes", type=int, default=8); parser.add_argument("--timeout", default="60m")
    args = parser.parse_args()
    args.out = os.path.abspath(args.out)
    if "RUBELET_ALONE" not in os.environ:
        shutil.rmtree(args.out, ignore_errors=True); os.makedirs(args.out)
        return alone(args.out)
    machine = Machine(args)
    again = {}
    try:
        machine.furnish(); machine.registry(); endpoint = machine.embedded() if args.embedded else machine.containerd()
        machine.suite(endpoint, args.out, args.focus, args.skip, args.nodes)
        first = verdicts(args.out)
        failed = [name for name, kind in first.items() if kind == "failed" and name.startswith("[sig-") and not any(pattern.search(name) for pattern, _ in known())]
        if args.again and failed:
            os.makedirs(f"{args.out}/again")
            machine.suite(endpoint, f"{args.out}/again", "|".join(re.escape(name) for name in failed), None, 1)
            again = verdicts(f"{args.out}/again")
    finally:
        machine.leave()
    numbers = report(first, again)
    print(f"conformance: {numbers['passed']} passed, {numbers['failed']} failed, {numbers['skipped']} skipped")
    return 1 if numbers["failed"] or not numbers["passed"] else 0


if __name__ == "__main__": sys.exit(main())
