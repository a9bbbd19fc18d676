"""Programs with upstream's own types that speak gRPC with the agent (peers/main.go): a collector of traces and a client of pod-resources, with a device plugin beside."""
import json, os, subprocess, tempfile

from controlplane import free_ports, wait
from machine import Embedded
from node import IMAGE, NAME, Node, sh

RESOURCE, DEVICES, PLUGINS = "rubelet.test/thing", ["one", "two", "three"], "/var/lib/kubelet/device-plugins"
PATIENCE = 60


class Traced(Node):
    """A node whose spans go to a collector, all of them."""
    def __init__(self, kind, kubelet, plane, binary):
        super().__init__(kind, kubelet, plane, {}); (port,) = free_ports(1); self.endpoint, self.binary, self.children = f"127.0.0.1:{port}", binary, []

    def config(self): return super().config() | {"tracing": {"endpoint": self.endpoint, "samplingRatePerMillion": 1_000_000}}

    def spawn(self, name, *words):
        log = open(f"{self.machine.work}/{name}.out", "wb")
        self.children.append(subprocess.Popen([self.binary, *words], stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)); log.close()

    def start(self): os.makedirs(self.machine.work, exist_ok=True); self.spawn("spans", "collect", self.endpoint); super().start()

    def said(self, name):
        with open(f"{self.machine.work}/{name}.out") as f: return f.read()

    def spans(self): return [json.loads(line) for line in self.said("spans").splitlines(True) if line.startswith("{") and line.endswith("}\n")]

    def wants(self, name, **container):
        """A pod that comes now; once it runs."""
        one = {"name": name, "image": IMAGE, "imagePullPolicy": "IfNotPresent", **sh("trap 'exit 0' TERM; sleep 100000 & wait"), **container}
        self.machine.write(f"manifests/{name}.json", json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [one]}}))
        return wait(lambda: f"{name}-{NAME}" in self.started(), PATIENCE)

    def __exit__(self, *of):
        try: super().__exit__(*of)
        finally:
            for child in self.children: child.kill(); child.wait()


def ask(node, namespace, pod):
    """What pod-resources answers."""
    done = subprocess.run([node.binary, "resources", f"{node.machine.work}/kubelet/pod-resources/kubelet.sock", namespace, pod], capture_output=True, text=True, timeout=30)
    return json.loads(done.stdout) if done.returncode == 0 else {"failed": done.stderr}


def check_resources(node, check):
    """With a device plugin's devices, as devices have no other way in; CPUs of a container's own are nobody's here."""
    node.spawn("plugin", "plugin", PLUGINS, RESOURCE, *DEVICES)
    limits = {"resources": {"limits": {"cpu": "1", "memory": "32Mi", RESOURCE: "2"}}}
    has_plugin = wait(lambda: len(ask(node, "default", "x").get("allocatable", {}).get("devices", [])) == len(DEVICES), PATIENCE)
    check("pod-resources: a client of upstream's sees the devices of a plugin", has_plugin, (node.said("plugin"), node.log_end()))
    if not has_plugin: return
    check("pod-resources: a pod that has two of them runs", node.wants("device", **limits), node.log_end())
    seen = ask(node, "default", f"device-{NAME}"); pods = {pod["name"]: pod for pod in seen.get("list", {}).get("podResources", [])}
    (container,) = pods.get(f"device-{NAME}", {}).get("containers") or [{}]
    given = [d for device in container.get("devices", []) if device["resourceName"] == RESOURCE for d in device["deviceIds"]]
    check("pod-resources: List tells what the container has", len(given) == 2 and set(given) < set(DEVICES) and container.get("name") == "device" and "cpuIds" not in container, seen)
    check("pod-resources: of which NUMA node each is", all(device.get("topology", {}).get("nodes") for device in container.get("devices", [])), container)
    check("pod-resources: Get tells the same of one pod", seen.get("get", {}).get("podResources") == pods.get(f"device-{NAME}"), seen)
    check("pod-resources: Get of no pod is refused", seen.get("get nosuch", {}).get("code") == "Unknown" and "nosuch" in seen["get nosuch"]["message"], seen.get("get nosuch"))
    check("pod-resources: a pod without devices is told of, too", f"plain-{NAME}" in pods and not pods[f"plain-{NAME}"]["containers"][0].get("devices"), pods.keys())
    check("pod-resources: what there is to give stays", sorted(d for device in seen["allocatable"]["devices"] for d in device["deviceIds"]) == sorted(DEVICES), seen["allocatable"])
    return seen


def check_traces(node, check):
    check("traces: a pod starts", node.wants("plain"), node.log_end())
    uid = node.pod("plain")["metadata"]["uid"]
    of_pod = lambda: [span for span in node.spans() if uid in span["attributes"].get("k8s.pod.uid", "")]
    steps = ("CreateSandbox", "CreateContainer", "StartContainer")
    wait(lambda: all(any(span["name"] == step for span in of_pod()) for step in steps), PATIENCE)
    mine, all_spans = of_pod(), node.spans(); by_id = {span["span"]: span for span in all_spans}; names = {span["name"] for span in mine}
    check("traces: the collector gets the steps of the pod", names >= set(steps), names)
    check("traces: they are one trace", len({span["trace"] for span in mine}) == 1, mine)
    wanted = {"runtime.v1.RuntimeService/RunPodSandbox": "CreateSandbox", "runtime.v1.RuntimeService/CreateContainer": "CreateContainer", "runtime.v1.RuntimeService/StartContainer": "StartContainer"}
    seen = {span["name"]: by_id.get(span["parent"], {}).get("name") for span in all_spans if span["trace"] in {s["trace"] for s in mine} and span["name"] in wanted}
    # The embedded runtime is called, not asked: the step says it all.
    if not isinstance(node.machine, Embedded):
        check("traces: calls to the runtime are within the step that makes them", seen == wanted, seen)
        calls = [span for span in all_spans if span["name"] in wanted]
        described = lambda span: {"rpc.system.name": 'string_value:"grpc"', "rpc.method": f'string_value:"{span["name"]}"', "rpc.response.status_code": 'string_value:"OK"'}
        check("traces: as upstream describes its calls", calls and all(span["attributes"] == described(span) and span["kind"] == "SPAN_KIND_CLIENT" for span in calls), calls[:1])
    asked = [span for span in all_spans if span["name"] == "HTTP PATCH" and "/pods/plain-" in span["attributes"].get("url.full", "")]
    wanted = {"http.request.method", "http.response.status_code", "server.address", "server.port", "url.full"}
    check("traces: what the API server is asked is, as upstream describes it", asked and all(wanted == span["attributes"].keys() and span["kind"] == "SPAN_KIND_CLIENT" for span in asked), sorted({span["name"] for span in all_spans}))
    served = [span for span in all_spans if span["kind"] == "SPAN_KIND_SERVER"]
    check("traces: what the server is asked is", served and all({"http.request.method", "http.response.status_code", "url.path"} <= span["attributes"].keys() for span in served), served[:1])
    check("traces: of this node's kubelet", {(span["resource"].get("service.name"), span["resource"].get("host.name")) for span in all_spans} == {("kubelet", NAME)}, all_spans[:1])
    check("traces: no span ends before it begins or outlives the step it is in", all(span["start"] <= span["end"] and (not (up := by_id.get(span["parent"])) or up["start"] <= span["start"] and span["end"] <= up["end"]) for span in all_spans))


def all_checks(kubelet, kind, plane, binary, check):
    os.makedirs(PLUGINS, exist_ok=True)
    with Traced(kind, kubelet, plane, binary) as node: check_traces(node, check); check_resources(node, check)
