#!/usr/bin/env python3
"""Runs upstream's node conformance suite with a kubelet, on a machine of its own: mounts, network and paths that nobody else sees.

usage: run.py --kubelet BIN --suite e2e_node.test --ginkgo GINKGO --images IMAGES.tar --out DIR [--containerd DIR] [--embedded]
              [--labels EXPR] [--focus RE] [--skip RE] [--nodes N] [--timeout 60m]

The suite is built from the Go module of Kubernetes (see build.sh beside). It starts an API server and the kubelet by itself.
The last line is `conformance: N passed, N failed, N skipped`.
"""
import argparse, json, os, shlex, shutil, signal, subprocess, sys, tempfile, time, xml.etree.ElementTree

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.join(HERE, "../golden/tools"))
import golden

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
imageGCHighThresholdPercent: 100
resolvConf: /etc/resolv.conf
"""


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
        with open(f"{self.work}/resolv.conf", "w") as f: f.write("nameserver 127.0.0.1\n")
        with open(f"{self.work}/hosts", "w") as f: f.write(f"127.0.0.1 localhost\n::1 localhost\n{ADDRESS} {NODE}\n")
        # There is no systemd here that would start anything, whatever its packages say.
        if shutil.which("systemd-run"): run(f"mount --bind /dev/null {shutil.which('systemd-run')}")
        for name in ("resolv.conf", "hosts"): run(f"mount --bind {self.work}/{name} /etc/{name}")

    def spawn(self, command, log, **more):
        with open(f"{self.args.out}/{log}", "w") as f: process = subprocess.Popen(command, stdout=f, stderr=f, **more)
        self.processes.append(process); return process

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
        with open(f"{self.work}/containerd.toml", "w") as f: f.write(text)
        path = os.environ["PATH"] if not self.args.containerd else f"{self.args.containerd}:{os.environ['PATH']}"
        self.spawn([shutil.which("containerd", path=path), "--config", f"{self.work}/containerd.toml"], "containerd.log", env=dict(os.environ, PATH=path))
        ctr = [shutil.which("ctr", path=path), "--address", sock, "-n", "k8s.io"]
        if not golden.wait(lambda: subprocess.run([*ctr, "version"], capture_output=True).returncode == 0, 30): raise RuntimeError("containerd does not answer")
        subprocess.run([*ctr, "images", "import", self.args.images], check=True, stdout=subprocess.DEVNULL)
        return f"unix://{sock}"

    def suite(self, endpoint):
        a, bin_dir = self.args, f"{self.work}/bin"; os.makedirs(bin_dir)
        if a.upstream:
            with open(f"{bin_dir}/kubelet", "w") as f: f.write(f'#!/bin/sh\nexec {a.kubelet} kubelet "$@"\n')
            os.chmod(f"{bin_dir}/kubelet", 0o755)
        else: os.symlink(os.path.realpath(a.kubelet), f"{bin_dir}/kubelet")
        with open(f"{self.work}/kubelet.yaml", "w") as f: f.write(CONFIG)
        with open(f"{self.work}/spec.yaml", "w") as f: f.write("os: Linux\nkernelSpec: {versions: ['.*']}\ncgroups: []\nruntimeSpec: {}\n")
        flags = [f"--k8s-bin-dir={bin_dir}", f"--container-runtime-endpoint={endpoint}", f"--image-service-endpoint={endpoint}", f"--node-name={NODE}", "--prepull-images=false",
                 f"--report-dir={a.out}", f"--kubelet-config-file={self.work}/kubelet.yaml", f"--system-spec-file={self.work}/spec.yaml", "--dns-domain=cluster.local"]
        ginkgo = [a.ginkgo, f"--nodes={a.nodes}", f"--timeout={a.timeout}", "--no-color", "--keep-going", "--poll-progress-after=300s"]
        if a.labels: ginkgo.append(f"--label-filter={a.labels}")
        if a.focus: ginkgo.append(f"--focus={a.focus}")
        if a.skip: ginkgo.append(f"--skip={a.skip}")
        os.symlink(os.path.realpath(a.suite), f"{self.work}/e2e_node.test")
        done = self.spawn([*ginkgo, f"{self.work}/e2e_node.test", "--", *flags], "suite.log", cwd=self.work)
        done.wait()

    def leave(self):
        for process in reversed(self.processes): golden.end(process)


def count(out):
    """Names of the failed, and how many of each kind; from the suite's reports."""
    numbers, failed = {"passed": 0, "failed": 0, "skipped": 0}, []
    for name in os.listdir(out):
        if not name.startswith("junit") or not name.endswith(".xml"): continue
        for case in xml.etree.ElementTree.parse(f"{out}/{name}").getroot().iter("testcase"):
            status = case.get("status", "")
            if case.get("name", "").startswith("["+"It]") or "[It]" in case.get("name", ""):
                kind = "passed" if status == "passed" else "skipped" if status in ("skipped", "pending") else "failed"
                numbers[kind] += 1
                if kind == "failed": failed.append(case.get("name"))
            elif status not in ("passed", "skipped", ""): failed.append(case.get("name")); numbers["failed"] += 1
    return numbers, failed


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
    parser.add_argument("--upstream", action="store_true", help="BIN is the control plane's program: upstream's kubelet is its `kubelet`")
    parser.add_argument("--nodes", type=int, default=8); parser.add_argument("--timeout", default="60m")
    args = parser.parse_args()
    args.out = os.path.abspath(args.out)
    if "RUBELET_ALONE" not in os.environ:
        shutil.rmtree(args.out, ignore_errors=True); os.makedirs(args.out)
        return alone(args.out)
    machine = Machine(args)
    try:
        machine.furnish(); machine.suite(machine.containerd())
    finally:
        machine.leave()
    numbers, failed = count(args.out)
    for name in failed: print("failed:", name)
    print(f"conformance: {numbers['passed']} passed, {numbers['failed']} failed, {numbers['skipped']} skipped")
    return 1 if numbers["failed"] or not numbers["passed"] else 0


if __name__ == "__main__": sys.exit(main())
