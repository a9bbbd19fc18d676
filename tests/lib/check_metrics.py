#!/usr/bin/env python3
"""What scrapers see of an agent with two pods: usage: check_metrics.py --kubelet BIN [--plane]. Called by ./x test metrics, in namespaces of its own.

The pages are compared with upstream's recording (families, types, stability, labels, buckets), given to promtool, and scraped by Debian's
Prometheus by the jobs of its own example for Kubernetes: over HTTPS and, with --plane, by the token of a service account with that example's
rights, which takes a control plane. (Debian's Prometheus is built without the discovery of nodes: the target is given.) Prints `check: N passed, N failed`.
"""
import argparse, glob, json, os, re, signal, ssl, subprocess, sys, tempfile, time, urllib.error, urllib.request
sys.dont_write_bytecode = True
import images
from machine import Embedded, end, free_port, wait
from controlplane import ControlPlane

HERE = os.path.dirname(os.path.realpath(__file__))
GOLDEN = os.path.join(HERE, "../golden")
IMAGE = "docker.io/rubelet/metrics:1"
PAGES = ("/metrics", "/metrics/cadvisor", "/metrics/probes", "/metrics/resource", "/metrics/slis")
ROOT = f"rubelet-metrics-{os.getpid()}"
START_SECS_MAX, SCRAPE_SECS_MAX = 120, 60
# A probe, an init container and files for one pod; nothing of that for the other.
PODS = [
    {"metadata": {"name": "probed"}, "spec": {"terminationGracePeriodSeconds": 1, "initContainers": [{"name": "first", "image": IMAGE, "command": ["/bin/busybox", "true"]}],
     "volumes": [{"name": "files", "emptyDir": {}}],
     "containers": [{"name": "main", "image": IMAGE, "resources": {"limits": {"cpu": "500m", "memory": "64Mi"}}, "volumeMounts": [{"name": "files", "mountPath": "/files"}],
                     "readinessProbe": {"exec": {"command": ["/bin/busybox", "true"]}, "periodSeconds": 1}}]}},
    {"metadata": {"name": "plain"}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "main", "image": IMAGE}]}},
]
# The jobs of Prometheus' documentation/examples/prometheus-kubernetes.yml for kubelets.
PROMETHEUS = """
global: {{scrape_interval: 1s, scrape_timeout: 1s}}
scrape_configs:
""" + "".join("""
- job_name: %s
  scheme: https
  metrics_path: %s
  tls_config: {{ca_file: {work}/ca.crt, insecure_skip_verify: true}}
  authorization: {{credentials_file: {work}/token}}
  static_configs: [{{targets: ['127.0.0.1:{port}']}}]
""" % job for job in (("kubernetes-nodes", "/metrics"), ("kubernetes-cadvisor", "/metrics/cadvisor"), ("kubernetes-probes", "/metrics/probes"), ("kubernetes-resource", "/metrics/resource")))
# More than 0 in a cluster that the node has just joined, once somebody has asked with a token.
TOLD_IN_CLUSTER = ["kubelet_node_startup_%s_seconds" % part for part in ("pre_kubelet_duration", "pre_registration_duration", "registration_duration", "post_registration_duration", "duration")] + [
    "kubelet_pod_status_sync_duration_seconds_count", 'apiserver_delegated_authn_request_total{code="201"}', 'apiserver_delegated_authz_request_total{code="201"}',
    'authentication_token_cache_request_total{status="hit"}', 'authentication_token_cache_fetch_total{status="ok"}']
RULES = [{"apiGroups": [""], "resources": ["nodes", "nodes/metrics", "services", "endpoints", "pods"], "verbs": ["get", "list", "watch"]}, {"nonResourceURLs": ["/metrics", "/metrics/cadvisor"], "verbs": ["get"]}]
RBAC = "/apis/rbac.authorization.k8s.io/v1"


def read(path):
    with open(path) as f: return f.read()


def parse(text):
    """{family: {type, stability, labels, buckets}} and the samples as (name, {label: value})."""
    families, samples = {}, []
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, name, help_text = (line + " ").split(" ", 3); word = re.match(r"\[(ALPHA|BETA|STABLE|INTERNAL)\]", help_text)
            families[name] = {"type": "", "stability": word.group(1) if word else "", "labels": set(), "buckets": []}
        elif line.startswith("# TYPE "): _, _, name, kind = line.split(" "); families[name]["type"] = kind
        elif line:
            name, rest = re.match(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(.*)", line).groups(); labels = dict(re.findall(r'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"', rest)); samples.append((name, dict(labels)))
            base = name if name in families else re.sub(r"_(bucket|sum|count)$", "", name); family = families[base]
            if "le" in labels and family["type"] == "histogram":
                bound = labels.pop("le")
                if bound not in family["buckets"]: family["buckets"].append(bound)
            family["labels"] |= set(labels)
    return families, samples


def left_out(page, name):
    rows = [line.split("\t") for line in read(f"{GOLDEN}/metrics-left-out.tsv").splitlines()[1:]]
    return any(p == page and (name == f or f.endswith("*") and name.startswith(f[:-1])) for p, f, _ in rows)


def compare(page, families):
    """What is recorded and not so here."""
    for line in read(f"{GOLDEN}/metrics.tsv").splitlines()[1:]:
        endpoint, name, kind, stability, labels, buckets = line.split("\t")
        if endpoint != page or left_out(page, name): continue
        if name not in families: yield f"{name} is missing"; continue
        ours = families[name]; have = (ours["type"], ours["stability"], ",".join(sorted(ours["labels"])), ",".join(ours["buckets"]))
        if have != (kind, stability, labels, buckets): yield f"{name} is {have}, recorded {(kind, stability, labels, buckets)}"


def shape(value, path=""):
    """The paths of an object, lists without their numbers, and what kind of value is at each."""
    if isinstance(value, dict): return {path} | {one for key, below in value.items() for one in shape(below, f"{path}.{key}")}
    if isinstance(value, list): return {path} | {one for below in value for one in shape(below, f"{path}[]")}
    return {f"{path}: {'number' if isinstance(value, (int, float)) and not isinstance(value, bool) else type(value).__name__}"}


def compare_shapes(name, ours, may_lack):
    """What is recorded of a JSON page and not so here."""
    with open(f"{GOLDEN}/{name}") as f: recorded = shape(json.load(f))
    return [f"{path} is missing" for path in sorted(recorded - shape(ours)) if not re.search(may_lack, path)]


class Agent(Embedded):
    def __init__(self, work, binary, plane):
        super().__init__(work); self.port, self.plane, self.program = free_port(), plane, binary; self.start_runtime({}, "")
        layer = images.Layer(); layer.copy("/bin/busybox", "/bin/busybox"); layer.folder("/files")
        images.archive(f"{work}/import/images.tar", {IMAGE: images.image(layer, Entrypoint=["/bin/busybox", "sleep", "1000000"])})
        for hierarchy in self.hierarchies(): os.makedirs(f"{hierarchy}/{ROOT}", exist_ok=True)
        config = {"cgroupRoot": f"/{ROOT}", "port": self.port, "readOnlyPort": 0, "healthzPort": 0, "evictionHard": {"memory.available": "1Mi"}}
        flags = ["--hostname-override=node-a"]
        if plane:
            flags.append(f"--kubeconfig={plane.work}/node-a.conf")
            config |= {"authentication": {"anonymous": {"enabled": False}, "webhook": {"enabled": True}}, "authorization": {"mode": "Webhook"}}
        for pod in PODS: self.write(f"manifests/{pod['metadata']['name']}.json", json.dumps({"apiVersion": "v1", "kind": "Pod", **pod}))
        self.start_kubelet(binary, config, flags)

    def hierarchies(self): return ["/sys/fs/cgroup"] if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else [h for h in glob.glob("/sys/fs/cgroup/*") if os.path.isdir(h) and not os.path.islink(h)]

    def get(self, path, token=None):
        context = ssl.create_default_context(); context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        request = urllib.request.Request(f"https://127.0.0.1:{self.port}{path}", headers={"Authorization": f"Bearer {token or self.token}"} if token or self.token else {})
        return urllib.request.urlopen(request, timeout=10, context=context).read().decode()

    def is_running(self):
        try: pods = json.loads(self.get("/pods"))["items"] or []
        except OSError: return False
        return len(pods) == len(PODS) and all(p["status"].get("phase") == "Running" and all(s["ready"] for s in p["status"]["containerStatuses"]) for p in pods)

    def stop(self):
        self.remove_containers(); super().stop()
        for hierarchy in self.hierarchies():
            for folder, _, _ in os.walk(f"{hierarchy}/{ROOT}", topdown=False):
                try: os.rmdir(folder)
                except OSError: pass


def account(plane):
    """The token of a service account with the rights of Prometheus' example."""
    names = {"metadata": {"name": "prometheus"}}
    plane.request("POST", "/api/v1/namespaces/default/serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", **names})
    plane.request("POST", f"{RBAC}/clusterroles", {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", **names, "rules": RULES})
    plane.request("POST", f"{RBAC}/clusterrolebindings", {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", **names, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "prometheus"},
                  "subjects": [{"kind": "ServiceAccount", "name": "prometheus", "namespace": "default"}]})
    return plane.request("POST", "/api/v1/namespaces/default/serviceaccounts/prometheus/token", {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}})[1]["status"]["token"]


class Prometheus:
    def __init__(self, work, agent):
        os.makedirs(work); self.url = f"http://127.0.0.1:{free_port()}"
        with open(f"{work}/token", "w") as f: f.write(agent.token or "none")
        with open(f"{work}/ca.crt", "w") as f: f.write(read(f"{agent.plane.work}/ca.crt" if agent.plane else glob.glob(f"{agent.work}/pki/*.crt")[0]))
        with open(f"{work}/prometheus.yml", "w") as f: f.write(PROMETHEUS.format(work=work, port=agent.port))
        self.process = subprocess.Popen(["prometheus", f"--config.file={work}/prometheus.yml", f"--storage.tsdb.path={work}/data", f"--web.listen-address={self.url[7:]}"], stdout=open(f"{work}/log", "w"), stderr=subprocess.STDOUT)

    def ask(self, path): return json.loads(urllib.request.urlopen(self.url + path, timeout=5).read())["data"]
    def value(self, query):
        found = self.ask("/api/v1/query?query=" + urllib.request.quote(query))["result"]
        return float(found[0]["value"][1]) if found else None
    def targets(self):
        try: return self.ask("/api/v1/targets")["activeTargets"]
        except (OSError, ValueError): return []


def main():
    parser = argparse.ArgumentParser(); parser.add_argument("--kubelet", required=True); parser.add_argument("--plane", action="store_true"); args = parser.parse_args()
    results = []
    def check(what, problems=()):
        problems = list(problems) if not isinstance(problems, bool) else ([] if problems else ["no"])
        results.append(not problems); print(("ok      " if not problems else "FAILED  ") + what + "".join(f"\n        {p}" for p in problems), flush=True)
    # What a kubelet makes on every machine is ours alone here.
    for folder in ("/var/log/containers", "/var/lib/kubelet"): os.makedirs(folder, exist_ok=True); subprocess.run(["mount", "-t", "tmpfs", "none", folder], check=True)
    work = tempfile.mkdtemp(prefix="rubelet-metrics-", dir="/var/lib"); agent = prometheus = plane = None
    try:
        if args.plane: plane = ControlPlane(f"{work}/plane", flags={}); plane.up()
        agent = Agent(f"{work}/agent", args.kubelet, plane); agent.token = account(plane) if plane else None
        everyone = agent.token
        if plane:  # the account may read metrics, not pods
            agent.token = "token-of-admin"; agent.token = next(line.split(",")[0] for line in read(f"{plane.work}/tokens.csv").splitlines() if "system:masters" in line)
        check("two pods run", bool(wait(agent.is_running, START_SECS_MAX)))
        agent.token, admin = everyone, agent.token
        agent.get("/healthz", admin); wait(lambda: "kubelet_pleg_last_seen_seconds 0\n" not in agent.get("/metrics"), 30)  # a relist has been made
        agent.get("/stats/summary", admin)
        texts = {page: agent.get(page) if page != "/metrics/slis" else agent.get(page, admin) for page in PAGES}
        parsed = {page: parse(text) for page, text in texts.items()}
        for page in PAGES: check(f"{page}: families as recorded", compare(page, parsed[page][0]))
        # But for what the recorded configuration sets and this one does not.
        check("/configz has all that is recorded", compare_shapes("configz.json", json.loads(agent.get("/configz", admin)), r"^\.kubeletconfig\.(clusterDNS|clusterDomain|readOnlyPort|tlsCertFile|tlsPrivateKeyFile)"))
        # A rate takes two looks.
        def lacking(): return compare_shapes("stats-summary.json", json.loads(agent.get("/stats/summary", admin)), r"^$")
        wait(lambda: not lacking(), 30); check("/stats/summary has all that is recorded", lacking())
        check("no series is there twice", [f"{page}: {sample}" for page, (_, samples) in parsed.items() for sample in {str(s) for s in samples if samples.count(s) > 1}][:5])
        check("health is on its page", parsed["/metrics/slis"][0].keys() == {"kubernetes_healthcheck", "kubernetes_healthchecks_total"})
        wanted = {("main", "probed-node-a"), ("main", "plain-node-a")}
        for page, family in (("/metrics/cadvisor", "container_memory_working_set_bytes"), ("/metrics/resource", "container_cpu_usage_seconds_total"), ("/metrics/probes", "prober_probe_total")):
            have = {(l.get("container"), l.get("pod")) for n, l in parsed[page][1] if n == family}
            check(f"{page} tells of the containers", (wanted if "probes" not in page else {("main", "probed-node-a")}) <= have)
        levels = {l["id"] for n, l in parsed["/metrics/cadvisor"][1] if n == "container_cpu_usage_seconds_total"}
        check("/metrics/cadvisor tells of the machine and of all levels", {"/"} | {f"/{ROOT}/kubepods{level}" for level in ("", "/burstable", "/besteffort")} <= levels if not os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "/" in levels)
        if plane:
            def value_of(line): return next((float(found.rsplit(" ", 1)[1]) for found in agent.get("/metrics").splitlines() if found.startswith(line + " ")), 0)
            check("both static pods have their mirrors", bool(wait(lambda: value_of("kubelet_mirror_pods") == len(PODS), 30)))
            def missing(): return [name for name in TOLD_IN_CLUSTER if not value_of(name) > 0]
            wait(lambda: not missing(), 30); check("the node's way into the cluster and what it asks is counted", missing())
        for page in PAGES:
            # What it says of names that are upstream's is known.
            done = subprocess.run(["promtool", "check", "metrics"], input=texts[page], capture_output=True, text=True); said = done.stdout + done.stderr
            known = set(read(f"{GOLDEN}/metrics-lint.txt").splitlines())
            check(f"promtool finds nothing on {page}", [line for line in said.splitlines() if line and line not in known])
        prometheus = Prometheus(f"{work}/prometheus", agent)
        def are_up(): targets = prometheus.targets(); return len(targets) == 4 and all(t["health"] == "up" for t in targets)
        is_up = wait(are_up, SCRAPE_SECS_MAX)
        check("Prometheus scrapes its four jobs", [] if is_up else [f"{t['labels']['job']}: {t['health']} {t['lastError']}" for t in prometheus.targets()] or ["no targets"])
        value = wait(lambda: prometheus.value('sum(container_memory_working_set_bytes{container="main",pod="probed-node-a"})'), 20)
        check("Prometheus knows the memory of a container", bool(value and value > 0)); check("Prometheus knows the pods", prometheus.value("kubelet_running_pods") == 2)
    except (RuntimeError, OSError, KeyError) as error: check(f"the check itself: {error!r}", False)
    finally:
        if prometheus: end(prometheus.process)
        if not all(results) and agent:
            print("".join(open(f"{agent.work}/log/kubelet.log", errors="replace").readlines()[-15:]))
        if agent: agent.stop()
        if plane: plane.down()
        subprocess.run(["rm", "-rf", work])
    print(f"check: {sum(results)} passed, {len(results) - sum(results)} failed"); sys.exit(not all(results))


if __name__ == "__main__":
    main()
