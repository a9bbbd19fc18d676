#!/usr/bin/env python3
"""A node of a real control plane, checked from outside: usage: check_node.py KUBELET, as root in namespaces of its own (alone.sh).

Starts a control plane and the kubelet with its embedded runtime, and compares the Node, the Lease and the registration with what upstream's
kubelet was recorded saying. Then: signs of life and no idle write, a start over, cordon, a server that comes and goes, a server that swallows
every packet, and joining by bootstrap. Prints `check: N passed, N failed`.
"""
import datetime, json, os, re, shutil, subprocess, sys, tempfile, time
sys.dont_write_bytecode = True
LIB = os.path.dirname(os.path.realpath(__file__)); sys.path.insert(0, LIB)
import images
from controlplane import ControlPlane, wait
from machine import Embedded, end

NODE, ADDRESS, RECORDED = "node-a", "192.0.2.7", f"{LIB}/../golden/cluster/_node"
NODE_PATH, LEASE_PATH = f"/api/v1/nodes/{NODE}", f"/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{NODE}"
SIZES = ("cpu", "memory", "ephemeral-storage")
POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "still"}, "spec": {"terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "busybox", "imagePullPolicy": "IfNotPresent", "command": ["sleep", "1000000"]}]}}


def run(*command): subprocess.run(command, check=True, capture_output=True)


def network():
    """An address and a default route: what goes there is swallowed."""
    run("ip", "link", "add", "node0", "type", "veth", "peer", "name", "nowhere")
    for name in ("node0", "nowhere"): run("ip", "link", "set", name, "up")
    run("ip", "addr", "add", f"{ADDRESS}/24", "dev", "node0"); run("ip", "neigh", "add", "192.0.2.1", "lladdr", "02:00:00:00:00:01", "dev", "node0"); run("ip", "route", "add", "default", "via", "192.0.2.1")


def condition(node, kind): return next((c for c in node.get("status", {}).get("conditions", []) if c["type"] == kind), {})
def is_ready(node): return condition(node, "Ready").get("status") == "True"


def comparable(value, path=""):
    """Without what is another on each machine and in each run."""
    if isinstance(value, dict):
        out = {}
        for key, inner in value.items():
            if key in ("managedFields", "images", "runtimeHandlers") or key == "node.alpha.kubernetes.io/ttl": continue
            if re.search(r"Time$|Timestamp$|^uid$|^resourceVersion$", key) or key in ("bootID", "machineID", "systemUUID", "kernelVersion", "kubeletVersion", "containerRuntimeVersion", "osImage"): out[key] = "<own>"
            elif path.endswith((".capacity", ".allocatable")) and key in SIZES: out[key] = "<own>"
            else: out[key] = comparable(inner, f"{path}.{key}")
        return {k: v for k, v in out.items() if not (path.endswith((".capacity", ".allocatable")) and k.startswith("hugepages-"))}
    if isinstance(value, list): return [comparable(v, path) for v in value]
    return value.replace(ADDRESS, "<hostIP>") if isinstance(value, str) else value


class Check:
    def __init__(self, kubelet, work):
        self.kubelet, self.work, self.results = kubelet, work, []
        self.plane = ControlPlane(f"{work}/plane", controllers=True, audit=True)
        self.machine = Embedded(f"{work}/machine", bridge="rubelet0")
        self.config = {"cgroupRoot": "/rubelet-check-node", "clusterDomain": "cluster.local"}

    def check(self, what, passed, why=""):
        self.results.append(bool(passed)); print(("ok      " if passed else "FAILED  ") + what + ("" if passed else f": {why}"), flush=True)

    def get(self, path): code, answer = self.plane.request("GET", path, fails=True); return answer if code == 200 else {}
    def node(self): return self.get(NODE_PATH)
    def lease(self): return self.get(LEASE_PATH)
    def renewed(self): return self.lease().get("spec", {}).get("renewTime")

    def said(self, since=0):
        """Requests of the node so far."""
        with open(f"{self.plane.work}/audit.jsonl") as f: lines = [l for l in f if l.endswith("\n")]
        return [json.loads(l) for l in lines][since:]

    def log(self):
        with open(f"{self.machine.work}/log/kubelet.log") as f: return f.read()

    def start(self, kubeconfig=None, flags=(), config=None):
        kubeconfig = kubeconfig or f"{self.plane.work}/{NODE}.conf"
        return self.machine.start_kubelet(self.kubelet, {**self.config, **(config or {})}, ["--kubeconfig", kubeconfig, "--hostname-override", NODE, "--v=3", *flags])

    def same(self, what, ours, theirs):
        ours, theirs = comparable(ours), comparable(theirs)
        if ours != theirs:
            import difflib
            text = lambda v: json.dumps(v, indent=1, sort_keys=True).splitlines()
            print("\n".join(l for l in difflib.unified_diff(text(theirs), text(ours), "recorded", "ours", lineterm="", n=1)))
        self.check(what, ours == theirs, "see above")

    def joins(self):
        began = time.monotonic(); self.start()
        ready = wait(lambda: is_ready(self.node()), 60); print(f"    ready after {time.monotonic() - began:.1f} s")
        self.check("the node becomes Ready", ready, self.node().get("status", {}).get("conditions"))
        wait(lambda: self.lease().get("kind") == "Lease", 20)
        load = lambda name: json.load(open(f"{RECORDED}/{name}"))
        self.same("the Node is as recorded from upstream", self.node(), load("node.json")); self.same("the Lease is as recorded from upstream", self.lease(), load("lease.json"))
        with open(f"{RECORDED}/api.jsonl") as f: recorded = [json.loads(l) for l in f]
        for what, uri in (("registration", "/api/v1/nodes"), ("CSINode", "/apis/storage.k8s.io/v1/csinodes")):
            theirs = next(r["body"] for r in recorded if r["verb"] == "create" and r["uri"] == uri)
            ours = [r["requestObject"] for r in self.said() if r["verb"] == "create" and r["requestURI"] == uri and r["responseStatus"]["code"] == 201]
            if what == "CSINode":
                theirs["spec"]["drivers"] = []
                # A server of 1.37 shows in its log the field that it knows and nobody wrote.
                for one in ours:
                    if not one.get("status"): one.pop("status", None)
            self.same(f"the {what} is written as recorded from upstream", ours[0] if ours else None, theirs); self.check(f"one {what}", len(ours) == 1, len(ours))
        asked = [r["responseStatus"]["code"] for r in self.said() if r["verb"] == "get" and "/csinodes/" in r["requestURI"]]; self.check("the CSINode is asked for once", asked == [404], asked)

    def lives(self):
        renewed, asked = self.renewed(), len(self.said())
        self.check("the lease is renewed", wait(lambda: self.renewed() not in (None, renewed), 15))
        time.sleep(12)  # what must not happen takes its time
        idle = [f"{r['verb']} {r['requestURI']}" for r in self.said(asked) if r["verb"] not in ("watch",) and "/leases/" not in r["requestURI"]]
        self.check("an idle node asks for nothing else", not idle, idle)
        puts = [r for r in self.said(asked) if "/leases/" in r["requestURI"]]
        self.check("a renewal is one request", puts and all(r["verb"] == "update" for r in puts), [r["verb"] for r in puts])

    def restarts(self):
        self.plane.request("PATCH", NODE_PATH, {"metadata": {"labels": {"mine": "stays", "kubernetes.io/os": "minix"}}}, content_type="application/merge-patch+json")
        self.check("the label of the operating system is put back", wait(lambda: self.node()["metadata"]["labels"]["kubernetes.io/os"] == "linux", 15))
        before = self.node(); end(self.machine.kubelet); asked = len(self.said()); self.start()
        self.check("started over, it finds its Node", wait(lambda: "Node was previously registered" in self.log(), 30))
        wait(lambda: any("/leases/" in r["requestURI"] for r in self.said(asked)), 30); time.sleep(2); after = self.node()
        self.check("the Node is the same, and stayed ready", after["metadata"]["uid"] == before["metadata"]["uid"] and condition(after, "Ready")["lastTransitionTime"] == condition(before, "Ready")["lastTransitionTime"])
        self.check("labels of others stay", after["metadata"]["labels"].get("mine") == "stays", after["metadata"]["labels"])

    def cordon(self):
        self.plane.request("PATCH", NODE_PATH, {"spec": {"unschedulable": True}}, content_type="application/merge-patch+json")
        self.check("a cordon is told of", wait(lambda: "NodeNotSchedulable" in self.log(), 10))
        self.plane.request("PATCH", NODE_PATH, {"spec": {"unschedulable": None}}, content_type="application/merge-patch+json")
        self.check("and its end", wait(lambda: re.search(r"\bNodeSchedulable", self.log()), 10))
        self.plane.request("PATCH", NODE_PATH, {"spec": {"podCIDR": "10.99.0.0/24", "podCIDRs": ["10.99.0.0/24"]}}, content_type="application/merge-patch+json")
        self.check("the runtime is told the pods' addresses", wait(lambda: re.search(r'Updating Pod CIDR.*10\.99\.0\.0/24', self.log()), 10))

    def outage(self):
        renewed = self.renewed(); self.plane.stop("apiserver"); time.sleep(12); self.plane.start("apiserver")
        self.check("the server was gone and comes back: the lease is renewed", wait(lambda: self.renewed() not in (None, renewed), 40))
        self.check("the node is ready", wait(lambda: is_ready(self.node()), 20))

    def anew(self):
        """The next start finds no Node."""
        end(self.machine.kubelet); self.plane.request("DELETE", NODE_PATH, fails=True); return len(self.said())

    def writes(self, asked, uri): return [r for r in self.said(asked) if r["verb"] in ("create", "patch") and r["requestURI"].startswith(uri)]

    def unregistered(self):
        """registerNode: false: somebody else makes the Node."""
        asked = self.anew(); self.start(config={"registerNode": False})
        wait(lambda: "Started kubelet" in self.log().rsplit("Ending; pods go on", 1)[-1], 30); time.sleep(3)
        self.check("a node that must not register makes no Node", not self.node() and not self.writes(asked, "/api/v1/nodes"), self.writes(asked, "/api/v1/nodes"))
        self.plane.request("POST", "/api/v1/nodes", {"metadata": {"name": NODE, "labels": {"given": "yes"}}})
        self.check("and becomes ready when somebody else has made it", wait(lambda: is_ready(self.node()), 30), self.node())
        self.check("with the labels that it was given", self.node()["metadata"]["labels"] == {"given": "yes", "kubernetes.io/arch": self.node()["status"]["nodeInfo"]["architecture"], "kubernetes.io/os": "linux"}, self.node()["metadata"]["labels"])

    def presents(self):
        """What flags and configuration say of a new node."""
        self.anew(); taint = {"key": "reserved", "value": "yes", "effect": "NoSchedule"}
        self.start(flags=["--cloud-provider=external", "--node-labels=tier=edge,node.kubernetes.io/instance-type=box"], config={"registerWithTaints": [taint], "providerID": "test://7", "nodeLeaseDurationSeconds": 20})
        ready = wait(lambda: is_ready(self.node()), 30); node = self.node(); taints = node["spec"].get("taints", [])
        self.check("labels, taints, provider id of a new node", ready and node["metadata"]["labels"].get("tier") == "edge" and node["metadata"]["labels"].get("node.kubernetes.io/instance-type") == "box" and taint in taints and node["spec"].get("providerID") == "test://7", node)
        self.check("with an external cloud: the taint, and no address", {"key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true", "effect": "NoSchedule"} in taints and not node["status"].get("addresses"), node)
        self.check("the lease lasts as long as configured", wait(lambda: self.lease().get("spec", {}).get("leaseDurationSeconds") == 20, 10), self.lease())
        cloud = [{"type": "InternalIP", "address": "10.1.2.3"}, {"type": "ExternalDNS", "address": "box.example.com"}]
        self.plane.request("PATCH", f"{NODE_PATH}/status", {"status": {"addresses": cloud}}, content_type="application/merge-patch+json"); asked = len(self.said()); time.sleep(12)
        self.check("addresses by the cloud stay", self.node()["status"]["addresses"] == cloud and not self.writes(asked, NODE_PATH), self.writes(asked, NODE_PATH))

    def start_pod(self):
        """Seconds until a static pod runs with a kubelet that was just started."""
        began = time.monotonic()
        def runs():
            try: return any(p["status"].get("phase") == "Running" for p in self.machine.pods())
            except OSError: return False
        return time.monotonic() - began if wait(runs, 60, .01) else None

    def black_hole(self):
        """Static pods start as fast as on a node of its own when no packet comes back."""
        end(self.machine.kubelet); took = {}
        for name in ("alone", "black hole"):
            self.machine.remove_containers(); shutil.rmtree(f"{self.machine.work}/kubelet", ignore_errors=True)
            self.machine.write("manifests/still.json", json.dumps(POD))
            if name == "alone": self.machine.start_kubelet(self.kubelet, self.config, ["--hostname-override", NODE])
            else: self.start(self.elsewhere())
            took[name] = self.start_pod(); healthy = subprocess.run(["curl", "-sf", "http://127.0.0.1:10248/healthz"], capture_output=True).stdout
            self.check(f"a static pod starts, {name}", took[name] is not None and healthy == b"ok", self.log()[-2000:])
            os.unlink(f"{self.machine.work}/manifests/still.json"); wait(lambda: not self.machine.tasks(), 30); end(self.machine.kubelet)
        print(f"    seconds until a static pod runs: {took}")
        self.check("a server that swallows packets does not slow it down", None not in took.values() and took["black hole"] < took["alone"] + .5, took)

    def elsewhere(self):
        """A kubeconfig whose server is behind an interface that swallows every packet."""
        with open(f"{self.plane.work}/{NODE}.conf") as f: text = f.read()
        with open(f"{self.work}/elsewhere.conf", "w") as f: f.write(re.sub(r"https://[^\"]*", "https://198.51.100.1:6443", text))
        return f"{self.work}/elsewhere.conf"

    def bootstraps(self):
        self.plane.request("DELETE", NODE_PATH, fails=True); shutil.rmtree(f"{self.machine.work}/pki", ignore_errors=True); kubeconfig = f"{self.work}/own.conf"
        self.start(kubeconfig, ["--bootstrap-kubeconfig", f"{self.plane.work}/bootstrap.conf"], {"rotateCertificates": True, "serverTLSBootstrap": True})
        self.check("by bootstrap the node gets a certificate and becomes Ready", wait(lambda: is_ready(self.node()), 60), self.log()[-2000:])
        self.check("its kubeconfig is its own", os.path.exists(kubeconfig) and "kubelet-client-current.pem" in open(kubeconfig).read())
        requests = lambda: [c for c in self.plane.request("GET", "/apis/certificates.k8s.io/v1/certificatesigningrequests")[1]["items"] if c["spec"]["signerName"] == "kubernetes.io/kubelet-serving"]
        if self.check_csr(wait(requests, 20)):
            served = wait(lambda: subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{10250}", "-CAfile", f"{self.plane.work}/ca.crt", "-verify_return_error", "-verify_ip", ADDRESS], input=b"", capture_output=True).returncode == 0, 20, .5)
            self.check("its server shows the signed certificate", served)
        end(self.machine.kubelet)

    def check_csr(self, requests):
        self.check("it asks for a certificate of its server", requests)
        if not requests: return False
        csr = requests[0]; now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        csr["status"] = {"conditions": [{"type": "Approved", "status": "True", "reason": "Test", "message": "by hand", "lastUpdateTime": now}]}
        self.plane.request("PUT", f"/apis/certificates.k8s.io/v1/certificatesigningrequests/{csr['metadata']['name']}/approval", csr); return True

    def run(self):
        self.machine.start_runtime({("library/busybox", "latest"): images.busybox()}, "")
        try:
            with self.plane:
                for act in (self.joins, self.lives, self.restarts, self.cordon, self.outage, self.unregistered, self.presents, self.black_hole, self.bootstraps): act()
        finally:
            if keep := os.environ.get("X_KEEP"): shutil.copytree(f"{self.machine.work}/log", keep, dirs_exist_ok=True); shutil.copy(f"{self.plane.work}/audit.jsonl", keep)
            self.machine.stop()
            for top, _, _ in os.walk("/sys/fs/cgroup"):
                if os.path.basename(top) == "rubelet-check-node":
                    for folder, _, _ in os.walk(top, topdown=False):
                        try: os.rmdir(folder)
                        except OSError: pass
        print(f"check: {sum(self.results)} passed, {len(self.results) - sum(self.results)} failed"); sys.exit(not all(self.results))


def main():
    network()
    work = tempfile.mkdtemp(prefix="rubelet-node-", dir="/var/lib")
    try: Check(os.path.abspath(sys.argv[1]), work).run()
    finally: shutil.rmtree(work, ignore_errors=True)


if __name__ == "__main__":
    main()
