#!/usr/bin/env python3
"""A node without a cluster, from outside: usage: check_standalone.py KUBELET [IMAGES]

One agent on its embedded runtime, on a machine of its own (tests/lib/own.sh), with everything at once that a machine may bring: registries with an own
authority or a slow line, a disk that fills up, manifests by URL from a server that fails, addresses of both families, huge pages, CNI plugins, probes
of a gRPC server (with IMAGES, an archive that has agnhost), another agent that takes over by the lock file, kills, and `rubelet cri`. Prints `check: N passed, N failed`.
"""
import http.server, json, os, random, re, subprocess, sys, tempfile, threading, time, urllib.error, urllib.request
sys.dont_write_bytecode = True
import images
from machine import Embedded, kubepods, mounts_below
from golden import fetch, wait
from registry import Registry

AGNHOST = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"
DISK_BYTES, ROOM_BYTES, BIG_BYTES = 512 << 20, 8 << 20, 24 << 20
KILLS = 12
SLOW_BYTES, SLOW_BYTES_PER_SEC = 5 << 20, 400_000  # longer than the 10 s after which a pull says how far it is
PLUGIN = """#!/bin/sh
echo "$CNI_COMMAND $CNI_ARGS" >>WORK/plugin.log
[ "$CNI_COMMAND" != CHECK ] || { [ ! -e WORK/plugin-broken ] || { echo '{"cniVersion":"1.0.0","code":11,"msg":"its address is gone"}'; exit 1; }; }
[ "$CNI_COMMAND" != ADD ] || echo '{"cniVersion":"1.0.0","ips":[{"address":"10.9.9.2/24"}]}'
"""
HUGE = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"


class Manifests(http.server.BaseHTTPRequestHandler):
    """What is served at the manifests' URL, to who has the header."""
    status, body, asked, refused = 200, b"", 0, 0
    def log_message(self, *_): pass
    def do_GET(self):
        Manifests.asked += 1
        known = self.headers.get("X-Key") == "of the house"; Manifests.refused += not known
        self.send_response(Manifests.status if known else 403); self.send_header("Content-Length", str(len(Manifests.body))); self.end_headers(); self.wfile.write(Manifests.body)
    @classmethod
    def say(cls, status, *pods):
        body = json.dumps({"apiVersion": "v1", "kind": "PodList", "items": pods}).encode() if status == 200 else b"no"
        before = cls.asked; cls.status, cls.body = status, body
        return wait(lambda: cls.asked > before + 1, 20)  # it has been heard


def pod(name, image="busybox:latest", command=("sleep", "100000"), annotations=None, **more):
    container = {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent", **({"command": list(command)} if command else {}), **more.pop("container", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": annotations or {}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [container], **more}}


def big(size):
    """busybox, and so many bytes that do not compress."""
    layer = images._busybox_layer(); layer.file("/ballast", os.urandom(size)); return images.image(layer, Cmd=["sleep", "100000"], Env=[images.PATH])


class Check:
    def __init__(self, kubelet, archive, work):
        self.kubelet, self.archive, self.work, self.machine, self.results = kubelet, archive, work, Embedded(work), []

    def check(self, what, passed, why=""):
        self.results.append(bool(passed)); print(("ok      " if passed else "FAILED  ") + what + (f": {why}" if why and not passed else ""), flush=True)
        return passed

    def put(self, manifest): self.machine.write(f"manifests/.{manifest['metadata']['name']}", json.dumps(manifest)); os.rename(f"{self.work}/manifests/.{manifest['metadata']['name']}", f"{self.work}/manifests/{manifest['metadata']['name']}.json")
    def find(self, name): return next((p for p in self.machine.pods() if p["metadata"]["name"].startswith(f"{name}-node-a")), None)
    def running(self, name, secs=30):
        def is_so(): found = self.find(name); return found if found and found["status"].get("phase") == "Running" and all(c["ready"] for c in found["status"]["containerStatuses"]) else None
        return wait(is_so, secs)
    def waiting(self, name):
        found = self.find(name); state = (found or {}).get("status", {}).get("containerStatuses", [{}])[0].get("state", {}); return state.get("waiting") or {}
    def says(self, name, *words): return wait(lambda: all(w in self.waiting(name).get("message", "").lower() for w in words) and self.waiting(name), 30)
    def ids(self): return {p["metadata"]["name"]: [c.get("containerID") for c in p["status"].get("containerStatuses", [])] + [p["status"].get("podIP")] for p in self.machine.pods()}
    def log(self, name="kubelet"):
        with open(f"{self.work}/log/{name}.log", errors="replace") as f: return f.read()
    def logged(self, pattern, secs=10, name="kubelet"): return wait(lambda: re.search(pattern, self.log(name), re.I), secs)

    def begin(self):
        self.registry = Registry(self.work); busybox = images.busybox()
        self.registry.serves = {("library/mirrored", "1"): images.image(images._busybox_layer(), Cmd=["sleep", "100000"], Labels={"from": "the mirror"}, Env=[images.PATH]), ("library/slow", "1"): big(SLOW_BYTES), ("library/big", "1"): big(BIG_BYTES), ("strange", "1"): busybox}
        self.registry.slow = {"library/slow": SLOW_BYTES_PER_SEC}
        host = f'[host."{self.registry.url}"]\n  capabilities = ["pull", "resolve"]\n'
        self.machine.write("certs.d/docker.io/hosts.toml", f'server = "https://registry-1.docker.io"\n{host}  ca = "{self.registry.ca}"\n')
        self.machine.write("certs.d/strange.test/hosts.toml", f'server = "https://strange.test"\n{host}')
        os.makedirs(f"{self.work}/root"); subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", f"{self.work}/root"], check=True)
        self.machine.start_runtime({("library/busybox", "latest"): busybox}, None)
        if self.archive: os.symlink(self.archive, f"{self.work}/import/agnhost.tar")
        self.manifests = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Manifests); threading.Thread(target=self.manifests.serve_forever, daemon=True).start()
        Manifests.body = json.dumps({"apiVersion": "v1", "kind": "PodList", "items": [pod("by-url", hostNetwork=True)]}).encode()
        self.has_huge_pages = self.reserve_huge_pages()
        self.put(pod("ground", command=("httpd", "-f", "-p", "80"))); self.put(pod("mirrored", "mirrored:1", None)); self.put(pod("strange", "strange.test/strange:1", None)); self.put(pod("slow", "slow:1", None))
        if self.has_huge_pages: self.put(pod("huge", container={"resources": {"limits": {"hugepages-2Mi": "4Mi", "memory": "64Mi"}}, "volumeMounts": [{"name": "pages", "mountPath": "/pages"}]}, volumes=[{"name": "pages", "emptyDir": {"medium": "HugePages"}}]))
        if self.archive:
            probe = {"grpc": {"port": 5000}, "periodSeconds": 1, "failureThreshold": 2}
            self.put(pod("grpc", AGNHOST, ("/agnhost", "grpc-health-checking", "--port", "5000", "--http-port", "8080"), container={"readinessProbe": {**probe, "failureThreshold": 1}, "livenessProbe": {**probe, "failureThreshold": 4}}))
        self.flags = ["--v=3", f"--embedded-hosts-dirs={self.work}/certs.d", f"--lock-file={self.work}/lock", "--exit-on-lock-contention"]
        self.config = {"staticPodURL": f"http://127.0.0.1:{self.manifests.server_address[1]}/pods", "staticPodURLHeader": {"X-Key": ["of the house"]}, "httpCheckFrequency": "1s"}
        self.first = self.machine.start_kubelet(self.kubelet, self.config, self.flags)

    def reserve_huge_pages(self):
        """Some of them, where the kernel gives any."""
        try:
            with open(HUGE) as f: self.huge_before = f.read().strip()
            with open(HUGE, "w") as f: f.write(str(int(self.huge_before) + 4))
            with open(HUGE) as f: return int(f.read()) >= 2
        except OSError: return False

    def addresses(self):
        ground = self.running("ground"); found = [i["ip"] for i in (ground or {}).get("status", {}).get("podIPs", [])]
        self.check("a pod on the built-in bridge has an address of each family, podIP is the first", len(found) == 2 and "." in found[0] and ":" in found[1] and ground["status"]["podIP"] == found[0], found)
        for ip in found: self.check(f"{ip} answers", wait(lambda: answers(f"http://[{ip}]/" if ":" in ip else f"http://{ip}/"), 10))

    def url(self):
        first = self.running("by-url"); self.check("a pod comes from the URL, asked with its header", first and not Manifests.refused, Manifests.refused)
        before = self.ids().get("by-url-node-a"); Manifests.say(500); Manifests.say(503)
        self.check("the server fails: what it said last stays in force", before and self.ids().get("by-url-node-a") == before, (before, self.ids()))
        one, two = pod("by-url", hostNetwork=True), pod("by-url-too", hostNetwork=True); Manifests.say(200, one, two)
        self.check("it answers again, with one more: that one runs, the other has not noticed", self.running("by-url-too") and self.ids().get("by-url-node-a") == before)
        Manifests.say(200, two); self.check("what it names no more goes", wait(lambda: not self.find("by-url") and self.find("by-url-too"), 20))

    def registries(self):
        mirrored = self.running("mirrored"); self.check("an image of docker.io comes from a mirror with an own authority", mirrored and "/v2/library/mirrored/manifests/1" in self.registry.asked, self.waiting("mirrored"))
        said = self.says("strange", "certificate"); self.check("the same server under a name without the authority is refused, and says why", said and said["reason"] in ("ErrImagePull", "ImagePullBackOff"), self.waiting("strange"))
        said = self.logged(r'"Pulling an image" image="slow:1" progress="\d of 6 MB \(\d+ %\)"', 30); self.check("a long pull says how far it is", said)
        if said: print(f"        {said.group(0)}")
        self.check("and ends well", self.running("slow", 40), self.waiting("slow"))

    def disk(self):
        free = os.statvfs(f"{self.work}/root"); ballast = f"{self.work}/root/ballast"
        with open(ballast, "wb") as f: os.posix_fallocate(f.fileno(), 0, free.f_bavail * free.f_frsize - ROOM_BYTES)
        before = self.ids(); self.put(pod("big", "big:1", None)); said = self.says("big", "no space left on device")
        self.check("a disk that is full: the pod's status says so", said and said["reason"] in ("ErrImagePull", "ImagePullBackOff"), self.waiting("big"))
        if said: print(f"        {said['reason']}: {said['message']}")
        self.check("so does an event", self.logged(r'"Event occurred" object="default/big-node-a".*reason="Failed" message="Failed to pull image \\"big:1\\": .*no space left on device'))
        self.put(pod("meanwhile")); self.check("what the pull had taken is given back: another pod can start", self.running("meanwhile", 15), self.waiting("meanwhile"))
        self.check("pods that run have not noticed", {**self.ids(), **before} == self.ids())
        os.unlink(ballast); self.check("there is room again: the pull succeeds", self.running("big", 60), self.waiting("big"))

    def huge(self):
        if not self.has_huge_pages: print("        huge pages: the kernel gives none"); return
        self.check("a pod with huge pages runs", self.running("huge"), (self.find("huge") or {}).get("status"))
        mounted = [l for p in os.listdir("/proc") if p.isdigit() for l in read(f"/proc/{p}/mounts").splitlines() if " /pages hugetlbfs " in l]
        self.check("its volume of huge pages is mounted", mounted and "pagesize=2M" in mounted[0], mounted)
        self.put(pod("too-huge", container={"resources": {"limits": {"hugepages-2Mi": "1Gi", "memory": "64Mi"}}}))
        self.check("one that wants more than there are is refused, and says of what", wait(lambda: "res: hugepages-2Mi" in self.find("too-huge")["status"].get("message", "") and self.find("too-huge")["status"]["phase"] == "Failed", 20), (self.find("too-huge") or {}).get("status"))
        counting = next((l.split()[1] for l in open("/proc/self/mounts") if l.split()[2] == "cgroup" and "hugetlb" in l.split()[3].split(",")), None)
        if not counting: print("        its limit: no hierarchy of cgroup v1 here counts huge pages"); return
        limits = {read(f"{folder}/hugetlb.2MB.limit_in_bytes").strip() for folder, _, _ in os.walk(f"{counting}/kubepods") if re.search(r"/pod[^/]+/[0-9a-f]{64}$", folder)}
        self.check("its container is held to its limit of them", str(4 << 20) in limits, limits)

    def grpc(self):
        if not self.archive: print("        gRPC probes: no archive with agnhost is given"); return
        found = self.running("grpc", 40); self.check("a gRPC server that says SERVING is ready", found, (self.find("grpc") or {}).get("status"))
        if not found: return
        fetch(f"http://{found['status']['podIP']}:8080/make-not-serving"); state = lambda: self.find("grpc")["status"]["containerStatuses"][0]
        self.check("it says NOT_SERVING: it is not ready", wait(lambda: not state()["ready"], 10))
        self.check("an event says why", self.logged(r'reason="Unhealthy" message="Readiness probe failed: service unhealthy \(responded with \\"NOT_SERVING\\"\)"'))
        self.check("the liveness probe has it started anew, and it is ready again", wait(lambda: state()["restartCount"] == 1 and state()["ready"], 30), state())

    def plugin(self):
        """One pod's network is made by a plugin, the configuration of which is there for that pod only."""
        self.machine.write("plugin", PLUGIN.replace("WORK", self.work)); os.chmod(f"{self.work}/plugin", 0o755); os.makedirs("/opt/cni/bin", exist_ok=True); os.makedirs("/etc/cni/net.d", exist_ok=True)
        os.symlink(f"{self.work}/plugin", "/opt/cni/bin/own-plugin")
        with open("/etc/cni/net.d/1.conflist", "w") as f: json.dump({"cniVersion": "1.0.0", "name": "own", "plugins": [{"type": "own-plugin"}]}, f)
        self.put(pod("by-plugin")); found = self.running("by-plugin"); os.unlink("/etc/cni/net.d/1.conflist")
        self.check("a CNI plugin gives a pod its address", found and found["status"]["podIP"] == "10.9.9.2", read(f"{self.work}/plugin.log"))

    def another(self):
        """What a second agent finds: everything as it was, but for two pods' networks that somebody has broken."""
        self.put(pod("cut")); self.check("all pods run", self.running("cut")); before = self.ids()
        link = re.search(r"^\d+: (rbl[^@:]+).*alias \S*cut-node-a", subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout, re.M)
        if self.check("the host's end of a pod's link bears its name", link): subprocess.run(["ip", "link", "del", link.group(1)], check=True)
        subprocess.run(["nft", "delete", "table", "inet", "rubelet"], capture_output=True); open(f"{self.work}/plugin-broken", "w").close()
        second = self.machine.start_kubelet(self.kubelet, self.config, self.flags, name="second")
        try: code = self.first.wait(20)
        except subprocess.TimeoutExpired: code = "it goes on"
        self.check("another agent opens the lock file: the first ends, well", code == 0 and "Someone else opened the lock file" in self.log(), code)
        self.check("the second goes on with the pods as they are", wait(lambda: self.ids() == before, 20) and second.poll() is None, (before, self.ids() if second.poll() is None else second.returncode))
        self.check("its images are whole", "incomplete on disk" not in self.log("second"))
        for name in ("cut", "by-plugin"): self.check(f"it says that the network of {name} is broken", self.logged(rf'the network of a running pod is not what it was given.*pod="{name}-node-a_', 20, "second"))
        self.check("plugins are asked with CHECK", re.search("^CHECK .*K8S_POD_NAME=by-plugin-node-a", read(f"{self.work}/plugin.log"), re.M))
        self.check("of others it says nothing", len(re.findall("the network of a running pod", self.log("second"))) == 2)
        self.check("the table of nftables is there again", subprocess.run(["nft", "list", "table", "inet", "rubelet"], capture_output=True).returncode == 0)
        self.check("the address of a pod answers as before", wait(lambda: answers(f"http://{self.find('ground')['status']['podIP']}/"), 10))

    def kills(self):
        """SIGKILL of the agent again and again while its pods come, change and go."""
        seed = int(os.environ.get("X_SEED", time.time_ns() % 1000000)); dice, wanted, before = random.Random(seed), {}, {n: i for n, i in self.ids().items() if not n.startswith("killed")}
        for turn in range(KILLS):
            for name in dice.sample([f"killed-{n}" for n in range(4)], 2):
                if wanted.pop(name, None) and dice.random() < .5: os.unlink(f"{self.work}/manifests/{name}.json")
                else: wanted[name] = turn; self.put(pod(name, command=("sleep", str(5000 + turn)), container={"ports": [{"containerPort": 80, "hostPort": 8100 + int(name[-1])}]}, initContainers=[{"name": "first", "image": "busybox:latest", "imagePullPolicy": "IfNotPresent", "command": ["true"]}]))
            time.sleep(dice.random() * .8); self.machine.kubelet.kill(); self.machine.kubelet.wait(); time.sleep(dice.random() * .1)
            self.machine.start_kubelet(self.kubelet, self.config, self.flags, name="killed")
        def shown(): return {p["metadata"]["name"].removesuffix("-node-a"): p["spec"]["containers"][0]["command"][1] for p in self.machine.pods() if p["metadata"]["name"].startswith("killed-") and p["status"].get("phase") == "Running"}
        def sleeping(): return sorted(w[1] for p in os.listdir("/proc") if p.isdigit() and (w := read(f"/proc/{p}/cmdline").split("\0"))[0] == "sleep" and w[1].startswith("50"))
        want = {name: str(5000 + turn) for name, turn in wanted.items()}
        self.check(f"{KILLS} kills between edits: what runs is what the directory says, once (X_SEED={seed})", wait(lambda: shown() == want and sleeping() == sorted(want.values()), 40), (want, shown(), sleeping()))
        self.check("pods that nobody touched have not noticed", {n: i for n, i in self.ids().items() if n in before} == before)

    def served(self):
        """`rubelet cri` in the place of the agent, whose pods run on meanwhile."""
        self.machine.kubelet.terminate(); self.machine.kubelet.wait(20); sock = f"{self.work}/cri.sock"
        serving = self.machine.spawn("cri", [self.kubelet, "cri", f"--listen=unix://{sock}", *self.machine.own(), "--cgroup-driver=cgroupfs"])
        self.check("the runtime is served when the agent has gone", wait(lambda: os.path.exists(sock), 20))
        def ask(*words): return subprocess.run([self.kubelet, *words, *self.machine.own(), "--cgroup-driver=cgroupfs"], capture_output=True, text=True)
        images.archive(f"{self.work}/late.tar", {"late.test/late:1": images.busybox()}); done = ask("image", "import", f"{self.work}/late.tar")
        self.check("it imports an archive for who asks", done.returncode == 0 and "late.test/late:1" in done.stdout.split(), done.stderr)
        before, done = self.living(), ask("stop", "--all")
        self.check("it stops all pods, and ends", before and done.returncode == 0 and not self.living() and serving.wait(20) == 0, (before, self.living(), done.stderr))
        self.machine.start_kubelet(self.kubelet, self.config, self.flags, name="again"); self.check("the agent starts them again", self.running("ground") and self.running("cut"))

    def living(self): return [p for p in os.listdir("/proc") if p.isdigit() and read(f"/proc/{p}/cmdline").startswith(("sleep\0", "httpd\0", "/agnhost\0"))]

    def leftovers(self):
        """What pods have on a machine, apart from images and logs."""
        folders = [f"{self.work}/{place}" for place in ("run/sandboxes", "run/containers", "run/netns", "root/records/sandboxes", "root/records/containers", "root/volumes", "root/images/containers", "root/images/ingest", "kubelet/pods")]
        found = [f"{folder}/{name}" for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)]
        found += [m for m in mounts_below(f"{self.work}/run/") + mounts_below(f"{self.work}/kubelet/")] + [g for top in kubepods() for g, _, _ in os.walk(top) if re.search(r"/pod[^/]*$|/[0-9a-f]{64}$", g)]
        found += re.findall(r"^\d+: (rbl\S*|rubelet0)", subprocess.run(["ip", "-o", "link"], capture_output=True, text=True).stdout, re.M)
        if subprocess.run(["nft", "list", "table", "inet", "rubelet"], capture_output=True).returncode == 0: found.append("the table of nftables")
        return found + self.living()

    def end(self):
        for name in os.listdir(f"{self.work}/manifests"): os.unlink(f"{self.work}/manifests/{name}")
        Manifests.say(200); self.check("without manifests nothing is left", wait(lambda: not self.leftovers(), 40), self.leftovers())
        self.check("plugins were told to take back what they gave", re.search("^DEL .*K8S_POD_NAME=by-plugin-node-a", read(f"{self.work}/plugin.log"), re.M))
        self.machine.kubelet.terminate(); self.machine.kubelet.wait(20)


def read(path):
    try:
        with open(path, errors="replace") as f: return f.read()
    except OSError: return ""


def answers(url):
    try: urllib.request.urlopen(url, timeout=3)
    except urllib.error.HTTPError: pass
    return True


def main():
    kubelet, archive = sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None
    work = tempfile.mkdtemp(prefix="standalone-", dir="/var/lib/rubelet"); os.chmod(work, 0o755); check = Check(kubelet, archive, work); begun = time.monotonic()
    try:
        check.begin()
        # While the slow image is on its way.
        for scenario in (check.addresses, check.url, check.huge, check.plugin, check.grpc, check.registries, check.disk, check.another, check.kills, check.served, check.end):
            try: scenario()
            except Exception as error: check.check(scenario.__name__, False, repr(error))
        if not all(check.results):
            for name in ("kubelet", "second", "killed", "cri", "again"): print(f"--- the end of {name}.log", *read(f"{work}/log/{name}.log").splitlines()[-60:], sep="\n    ")
    finally:
        check.machine.stop()
        if hasattr(check, "huge_before"):
            with open(HUGE, "w") as f: f.write(check.huge_before)
    print(f"        took {time.monotonic() - begun:.0f} s"); print(f"check: {sum(check.results)} passed, {len(check.results) - sum(check.results)} failed"); sys.exit(not all(check.results))


if __name__ == "__main__":
    main()
