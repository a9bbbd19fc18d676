#!/usr/bin/env python3
"""Runs the CRI validation suite against a container runtime, on a machine of its own (call it in tests/lib/own.sh).

usage: run.py --kubelet RUBELET | --containerd [DIR]  --critest BIN --images IMAGES.tar --out DIR
              [--oci-runtime PROGRAM] [--cgroup-driver systemd] [--websocket] [--focus RE] [--skip RE] [--only-list FILE] [--call COMMAND]

--kubelet    the embedded runtime of this program, as `rubelet cri` serves it
--containerd Debian's containerd, or the one in DIR
--only-list  specs beyond those in the file (lines of names, `[It] ` before each) are not run
--call       a shell command instead of the suite: $SOCKET is where the runtime is, $RUNTIME its process, images can be pulled
Specs in known.tsv may fail and count as skipped then. The last line is `critest: N passed, N failed, N skipped`.
"""
import argparse, json, os, re, shutil, socket, subprocess, sys, tarfile, tempfile, xml.etree.ElementTree

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [os.path.join(HERE, "../golden/tools"), os.path.join(HERE, "../lib")]
import golden, images

REGISTRY, REGISTRIES = ("127.0.0.1", 5000), ("registry.k8s.io", "k8s.gcr.io", "gcr.io")
NETWORK = {"cniVersion": "0.4.0", "name": "critest", "plugins": [
    {"type": "bridge", "bridge": "critest0", "isGateway": True, "ipMasq": False, "hairpinMode": True,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.87.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
    {"type": "portmap", "capabilities": {"portMappings": True}}]}


class Machine:
    def __init__(self, args, work):
        self.args, self.work, self.processes = args, work, []

    def spawn(self, command, log, **more):
        with open(os.path.join(self.args.out, log), "w") as f: process = subprocess.Popen(command, stdout=f, stderr=f, **more)
        self.processes.append(process); return process

    def registry(self):
        """docker-registry on loopback with the suite's images, in the place of all registries."""
        config = {"version": "0.1", "log": {"level": "warn"}, "storage": {"filesystem": {"rootdirectory": f"{self.work}/registry"}}, "http": {"addr": "%s:%d" % REGISTRY}}
        with open(f"{self.work}/registry.yml", "w") as f: json.dump(config, f)
        self.spawn(["docker-registry", "serve", f"{self.work}/registry.yml"], "registry.log")
        if not golden.wait(lambda: socket.socket().connect_ex(REGISTRY) == 0, 30): raise RuntimeError("docker-registry does not answer")
        url = "http://%s:%d" % REGISTRY
        with tarfile.open(self.args.images) as archive:
            blob = lambda digest: archive.extractfile("blobs/" + digest.replace(":", "/")).read()
            for entry in json.load(archive.extractfile("index.json"))["manifests"]:
                manifest = blob(entry["digest"]); parts = json.loads(manifest); digests = [part["digest"] for part in (parts["config"], *parts["layers"])]
                name, tag = entry["annotations"]["org.opencontainers.image.ref.name"].split("/", 1)[1].rsplit(":", 1)
                images.push(url, name, tag, (manifest, {digest: blob(digest) for digest in digests}))
        for name in REGISTRIES:
            os.makedirs(f"{self.work}/certs.d/{name}")
            with open(f"{self.work}/certs.d/{name}/hosts.toml", "w") as f: f.write(f'server = "https://{name}"\n[host."{url}"]\n  capabilities = ["pull", "resolve"]\n')

    def embedded(self):
        place = "/run/rubelet/cri.sock"
        more = [f"--{name}={value}" for name, value in (("oci-runtime", self.args.oci_runtime), ("cgroup-driver", self.args.cgroup_driver)) if value]
        process = self.spawn([os.path.realpath(self.args.kubelet), "cri", f"--listen=unix://{place}", f"--embedded-hosts-dirs={self.work}/certs.d", *more], "runtime.log")
        if not golden.wait(lambda: socket.socket(socket.AF_UNIX).connect_ex(place) == 0, 30): raise RuntimeError("the embedded runtime does not answer, see runtime.log")
        return process, f"unix://{place}"

    def containerd(self):
        place, path = "/run/containerd/containerd.sock", f"{self.args.containerd}:{os.environ['PATH']}" if self.args.containerd else os.environ["PATH"]
        os.makedirs(f"{self.work}/cni")
        with open(f"{self.work}/cni/10-critest.conflist", "w") as f: json.dump(NETWORK, f)
        template, table = (golden.CONTAINERD_2, "'io.containerd.cri.v1.images'") if self.args.containerd else (golden.CONTAINERD_1, '"io.containerd.grpc.v1.cri"')
        text = template.format(work=self.work, sock=place, restrict=str(not golden.may_lower_oom_score()).lower(), systemd="false")
        with open(f"{self.work}/containerd.toml", "w") as f: f.write(text + f'[plugins.{table}.registry]\n  config_path = "{self.work}/certs.d"\n')
        process = self.spawn([shutil.which("containerd", path=path), "--config", f"{self.work}/containerd.toml"], "runtime.log", env=dict(os.environ, PATH=path))
        ctr = [shutil.which("ctr", path=path), "--address", place, "-n", "k8s.io"]
        if not golden.wait(lambda: subprocess.run([*ctr, "version"], capture_output=True).returncode == 0, 30): raise RuntimeError("containerd does not answer, see runtime.log")
        return process, f"unix://{place}"

    def suite(self, endpoint, focus):
        a = self.args
        command = [os.path.realpath(a.critest), f"-runtime-endpoint={endpoint}", f"-image-endpoint={endpoint}", "-test.timeout=0", "-ginkgo.no-color", "-ginkgo.timeout=60m",
                   f"-ginkgo.junit-report={a.out}/junit.xml", "-ginkgo.poll-progress-after=120s", *(f"-ginkgo.focus={one}" for one in focus)]
        if a.skip: command.append(f"-ginkgo.skip={a.skip}")
        if a.websocket: command += ["-websocket-exec", "-websocket-attach", "-websocket-portforward"]
        # What the suite makes in the folder for temporary files goes with the work.
        os.makedirs(f"{self.work}/tmp")
        self.spawn(command, "suite.log", cwd=self.work, env=dict(os.environ, TMPDIR=f"{self.work}/tmp")).wait()

    def leave(self):
        for process in reversed(self.processes): golden.end(process)


def verdicts(report):
    """{spec: ("passed" | "failed" | "skipped", why)}, without those that were not chosen; what is no spec counts when it failed."""
    found = {}
    for case in xml.etree.ElementTree.parse(report).getroot().iter("testcase"):
        status, name, skipped = case.get("status", ""), case.get("name", ""), case.find("skipped")
        if status == "passed": kind, why = "passed", ""
        elif status in ("skipped", "pending"):
            kind, why = "skipped", skipped.get("message", "").removeprefix("skipped - ") if skipped is not None else ""
            if why in ("", "skipped"): continue
        else: kind, why = "failed", ""
        if kind == "failed" or name.startswith("[It] "): found[name.removeprefix("[It] ")] = kind, why
    return found


def known(runtime):
    """Specs that may fail with the runtime: [(pattern, reason)]."""
    with open(os.path.join(HERE, "known.tsv")) as f: rows = [line.rstrip("\n").split("\t") for line in f if line.strip() and not line.startswith("#")]
    return [(re.compile(pattern), reason) for kind, pattern, reason in rows if kind in (runtime, "any")]


def report(found, runtime):
    numbers = {"passed": 0, "failed": 0, "skipped": 0}
    for name, (kind, why) in sorted(found.items()):
        reason = next((reason for pattern, reason in known(runtime) if pattern.search(name)), None)
        if kind == "failed" and reason: print(f"known: {name}: {reason}"); kind = "skipped"
        elif kind == "failed": print("failed:", name)
        elif kind == "skipped": print(f"skipped: {name}: {why}")
        elif reason: print(f"passed, although known to fail: {name}: {reason}")
        numbers[kind] += 1
    return numbers


def chosen(args):
    """What is run: patterns of names."""
    if not args.only_list: return [args.focus] if args.focus else []
    with open(args.only_list) as f: names = [line.strip().removeprefix("[It] ") for line in f if line.strip()]
    # The report's names have the specs' labels behind them, which the pattern does not see.
    return ["^" + re.escape(re.sub(r" \[Serial\]$", "", name)) + "$" for name in names]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("--critest", "--images", "--out"): parser.add_argument(option, required=True)
    for option in ("--kubelet", "--oci-runtime", "--cgroup-driver", "--focus", "--skip", "--only-list", "--call"): parser.add_argument(option)
    parser.add_argument("--containerd", nargs="?", const="", default=None); parser.add_argument("--websocket", action="store_true")
    args = parser.parse_args()
    if (args.kubelet is None) == (args.containerd is None): parser.error("one of --kubelet and --containerd")
    args.out = os.path.abspath(args.out); shutil.rmtree(args.out, ignore_errors=True); os.makedirs(args.out)
    runtime = "embedded" if args.kubelet else "containerd2" if args.containerd else "containerd1"
    os.makedirs("/var/lib/rubelet", exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="rubelet-critest-", dir="/var/lib/rubelet", ignore_cleanup_errors=True) as work:
        machine = Machine(args, work)
        try:
            machine.registry()
            process, endpoint = machine.embedded() if args.kubelet else machine.containerd()
            if args.call: return subprocess.run(["bash", "-c", args.call], env=dict(os.environ, SOCKET=endpoint, RUNTIME=str(process.pid))).returncode
            machine.suite(endpoint, chosen(args))
            if process.poll() is not None: print(f"the runtime ended with {process.returncode}, see {args.out}/runtime.log")
        finally:
            machine.leave()
    numbers = report(verdicts(f"{args.out}/junit.xml"), runtime)
    print(f"critest: {numbers['passed']} passed, {numbers['failed']} failed, {numbers['skipped']} skipped")
    return 1 if numbers["failed"] or not numbers["passed"] else 0


if __name__ == "__main__": sys.exit(main())
