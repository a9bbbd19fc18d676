#!/usr/bin/env python3
"""What people run on a cluster, on a node with the given kubelet: controllers' pods, volumes, streams, eviction. Called by ./x test scenarios, under tests/lib/own.sh.

usage: scenarios.py --kubelet BIN|upstream [--runtime embedded|containerd] [--containerd DIR] [--rubelet BIN] [--csi BIN] [--only RE]
Each scenario has a namespace of its own; all run at once, but for those that take the node away from the others.
The last line is `check: N passed, N failed`.
"""
import argparse, base64, concurrent.futures, datetime, json, os, re, subprocess, sys, tempfile, time, urllib.request

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../lib"))
from controlplane import minor, programs
from node import ADDRESS, AGNHOST, BUSYBOX, NAME, Checks, Cluster, Failed, Watch, add_options, eventually, is_ready, need, pod, restarts
from signer import DENIES, FAILS, ISSUES, Signers, of_certificate, of_key

SECS_MAX = 90


def web(name, version="1", replicas=3, kind="Deployment", **more):
    """Pods that serve HTTP and are ready when they do."""
    container = {"name": "main", "image": AGNHOST, "args": ["netexec", "--http-port=8080"], "ports": [{"containerPort": 8080, "name": "http"}], "env": [{"name": "VERSION", "value": version}],
                 "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1}, "resources": {"requests": {"cpu": "10m", "memory": "10Mi"}}, **more.pop("container", {})}
    template = {"metadata": {"labels": {"app": name}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [container], **more.pop("pod", {})}}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": {"selector": {"matchLabels": {"app": name}}, "template": template, **({"replicas": replicas} if kind != "DaemonSet" else {}), **more}}


def version_of(p): return next(e["value"] for e in p["spec"]["containers"][0]["env"] if e["name"] == "VERSION")


def least_ready(seen, since):
    """The smallest number of ready pods that the API server told of after a moment."""
    ready, least = {}, None
    for at, kind, p in seen:
        ready[p["metadata"]["name"]] = kind != "DELETED" and is_ready(p); count = sum(ready.values())
        if at >= since: least = count if least is None else min(least, count)
    return least


def deployment(c, ns):
    c.create(ns, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}},
             web("web", strategy={"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}))
    c.do("rollout", "status", "-n", ns, "deployment/web", f"--timeout={SECS_MAX}s"); pods = c.pods(ns)
    need(len({p["status"]["podIP"] for p in pods}) == 3, "three pods have three addresses")
    for p in pods: need(urllib.request.urlopen(f"http://{p['status']['podIP']}:8080/hostname", timeout=5).read().decode() == p["metadata"]["name"], "a pod answers with its name at its address")
    slices = lambda: sorted(a for s in c.get(f"/apis/discovery.k8s.io/v1/namespaces/{ns}/endpointslices")["items"] for e in s["endpoints"] or [] if e["conditions"]["ready"] for a in e["addresses"])
    eventually(lambda: slices() == sorted(p["status"]["podIP"] for p in c.pods(ns)), 10, "the service has the ready pods' addresses", slices)
    watch = Watch(c.plane, f"/api/v1/namespaces/{ns}/pods"); eventually(lambda: len(watch.seen) >= 3, 10, "the watch starts"); since = time.monotonic()
    c.do("set", "env", "-n", ns, "deployment/web", "VERSION=2"); c.do("rollout", "status", "-n", ns, "deployment/web", f"--timeout={SECS_MAX}s")
    eventually(lambda: [version_of(p) for p in c.pods(ns)] == ["2"] * 3, 30, "after the update there are three new pods and no old one")
    watch.stop(); need((least := least_ready(list(watch.seen), since)) >= 3, f"a rolling update without unavailable pods had {least} of 3 ready")
    c.do("rollout", "undo", "-n", ns, "deployment/web"); c.do("rollout", "status", "-n", ns, "deployment/web", f"--timeout={SECS_MAX}s")
    eventually(lambda: [version_of(p) for p in c.pods(ns)] == ["1"] * 3, 30, "undone: the old version again")
    c.do("scale", "-n", ns, "deployment/web", "--replicas=5"); eventually(lambda: sum(map(is_ready, c.pods(ns))) == 5, SECS_MAX, "five are ready")
    c.do("scale", "-n", ns, "deployment/web", "--replicas=1"); eventually(lambda: len(c.pods(ns)) == 1, 40, "one is left")
    need(not sum(map(restarts, c.pods(ns))), "nothing restarted"); c.do("delete", "-n", ns, "deployment/web", "--wait=false"); eventually(lambda: not c.pods(ns), 40, "all are gone")


def daemonset(c, ns):
    c.create(ns, web("agent", kind="DaemonSet", pod={"hostNetwork": True}, container={"args": ["netexec", "--http-port=8099", "--udp-port=8098"], "ports": [{"containerPort": 8099, "name": "http"}]}))
    c.do("rollout", "status", "-n", ns, "ds/agent", f"--timeout={SECS_MAX}s"); [p] = c.pods(ns)
    need(p["status"]["podIP"] == p["status"]["hostIP"] == ADDRESS, "a pod on the host's network has its address", p["status"]); need(urllib.request.urlopen(f"http://{ADDRESS}:8099/hostname", timeout=5).read().decode() == "node-a", "and its name")
    c.do("set", "env", "-n", ns, "ds/agent", "VERSION=2"); c.do("rollout", "status", "-n", ns, "ds/agent", f"--timeout={SECS_MAX}s"); [p] = c.pods(ns)
    need(version_of(p) == "2" and is_ready(p), "the new version took the old one's place and port", p["status"])


def volume(c, ns, name):
    """A persistent volume of the CSI driver of the tests, or a local one."""
    source = {"csi": {"driver": c.driver, "volumeHandle": f"{ns}-{name}", "fsType": "ext4"}} if c.driver else {"local": {"path": f"{c.work}/volumes/{ns}-{name}"}}
    if not c.driver: os.makedirs(source["local"]["path"])
    c.request("POST", "/api/v1/persistentvolumes", {"metadata": {"name": f"{ns}-{name}"}, "spec": {"capacity": {"storage": "8Mi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": ns, "persistentVolumeReclaimPolicy": "Retain", **source,
              "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [NAME]}]}]}}}})


def statefulset(c, ns):
    for i in range(3): volume(c, ns, str(i))
    script = "test -e /data/first || hostname >/data/first; echo started >>/data/starts; exec sleep 100000"
    claim = {"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": ns, "resources": {"requests": {"storage": "4Mi"}}}}
    c.create(ns, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "db"}, "spec": {"clusterIP": "None", "selector": {"app": "db"}}}, {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {
        "serviceName": "db", "replicas": 3, "selector": {"matchLabels": {"app": "db"}}, "volumeClaimTemplates": [claim], "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"terminationGracePeriodSeconds": 1, "securityContext": {"fsGroup": 2000},
        "containers": [{"name": "main", "image": BUSYBOX, "command": ["sh", "-c", script], "env": [{"name": "VERSION", "value": "1"}], "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}}}})
    c.do("rollout", "status", "-n", ns, "sts/db", f"--timeout={SECS_MAX}s")
    # A started container's file may take a moment.
    first = lambda i: c.kubectl("exec", "-n", ns, f"db-{i}", "--", "cat", "/data/first").stdout.strip()
    for i in range(3): eventually(lambda: first(i) == f"db-{i}", 10, f"db-{i} has a volume of its own", lambda: first(i))
    uid = lambda i: next((p["metadata"]["uid"] for p in c.pods(ns) if p["metadata"]["name"] == f"db-{i}" and is_ready(p)), None)
    before = uid(1); c.do("delete", "pod", "-n", ns, "db-1"); eventually(lambda: uid(1) not in (None, before), SECS_MAX, "db-1 comes back", lambda: c.pods(ns))
    need(first(1) == "db-1", "db-1 finds its data again"); need(c.do("exec", "-n", ns, "db-1", "--", "cat", "/data/starts").count("started") == 2, "what it wrote before is there")
    c.do("set", "env", "-n", ns, "sts/db", "VERSION=2"); c.do("rollout", "status", "-n", ns, "sts/db", f"--timeout={SECS_MAX}s"); need(all(first(i) == f"db-{i}" for i in range(3)), "all find their data after an update")
    c.do("scale", "-n", ns, "sts/db", "--replicas=1"); eventually(lambda: len(c.pods(ns)) == 1, 40, "one is left")
    eventually(lambda: f"{ns}-" not in "".join(open("/proc/self/mounts")).replace(claims_mounted(c, ns), ""), 30, "the volumes of the others are not mounted any more", lambda: "".join(l for l in open("/proc/self/mounts") if ns in l))


def claims_mounted(c, ns):
    """What the mounts of the pod that is left are called."""
    name = next((v["spec"]["volumeName"] for v in c.get(f"/api/v1/namespaces/{ns}/persistentvolumeclaims")["items"] if v["metadata"]["name"] == "data-db-0"), "")
    return name


def job(c, ns):
    def one(name, command, **more): return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {**more, "template": {"metadata": {"labels": {"app": name}}, "spec": {"restartPolicy": more.pop("restart", "Never"), "containers": [{"name": "main", "image": BUSYBOX, "command": ["sh", "-c", command], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}], "volumes": [{"name": "v", "emptyDir": {}}]}}}}
    def spec(job): job["spec"].pop("restart", None); return job
    c.create(ns, spec(one("four", "echo index $JOB_COMPLETION_INDEX", completions=4, parallelism=2, completionMode="Indexed")), spec(one("fails", "exit 3", backoffLimit=1)),
             spec(one("again", "test -e /v/seen || { touch /v/seen; exit 1; }", restart="OnFailure", backoffLimit=3)), spec(one("late", "sleep 1000", activeDeadlineSeconds=3)))
    c.do("wait", "-n", ns, "job/four", "job/again", "--for=condition=Complete", f"--timeout={SECS_MAX}s", secs=SECS_MAX + 10); c.do("wait", "-n", ns, "job/fails", "job/late", "--for=condition=Failed", f"--timeout={SECS_MAX}s", secs=SECS_MAX + 10)
    four = c.pods(ns, "app=four"); need([p["status"]["phase"] for p in four] == ["Succeeded"] * 4, "four pods succeeded", [p["status"] for p in four])
    said = sorted(c.do("logs", "-n", ns, p["metadata"]["name"]).strip() for p in four); need(said == [f"index {i}" for i in range(4)], "each did its part", said)
    fails = c.pods(ns, "app=fails"); need(len(fails) == 2 and all(p["status"]["phase"] == "Failed" and p["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3 for p in fails), "two tries failed with their code", [p["status"] for p in fails])
    [again] = c.pods(ns, "app=again"); need(again["status"]["phase"] == "Succeeded" and restarts(again) == 1, "the second start in the same pod succeeded", again["status"])
    eventually(lambda: not c.pods(ns, "app=late"), 40, "the pod of the late job is gone", lambda: c.pods(ns, "app=late"))
    c.do("delete", "-n", ns, "job", "--all", "--wait=false"); eventually(lambda: not c.pods(ns), 40, "all pods are gone")


def cronjob(c, ns):
    c.create(ns, {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "tick"}, "spec": {"schedule": "* * * * *", "jobTemplate": {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "main", "image": BUSYBOX, "command": ["echo", "tick"]}]}}}}}})
    done = lambda: [p for p in c.pods(ns) if p["status"]["phase"] == "Succeeded"]
    eventually(done, 60 + SECS_MAX, "the minute's job ran", lambda: c.pods(ns)); need(c.do("logs", "-n", ns, done()[0]["metadata"]["name"]) == "tick\n", "and said so")


def streams(c, ns):
    main = {"args": ["netexec", "--http-port=8080"], "ports": [{"containerPort": 8080}]}
    c.create(ns, pod("web", image=AGNHOST, command=None, container=main), pod("box", command=["sh", "-c", "for i in 1 2 3; do echo line $i; done; echo err >&2; exec sleep 100000"]), pod("crash", command=["sh", "-c", "echo start; sleep 1; exit 5"]))
    c.do("wait", "-n", ns, "pod/web", "pod/box", "--for=condition=Ready", f"--timeout={SECS_MAX}s")
    done = c.kubectl("exec", "-n", ns, "box", "--", "sh", "-c", "echo out; echo err >&2; exit 3"); need((done.returncode, done.stdout) == (3, "out\n") and done.stderr.startswith("err\n"), "exec: both streams and the code", str(done))
    need(c.do("exec", "-i", "-n", ns, "box", "--", "cat", stdin="hello\n" * 1000) == "hello\n" * 1000, "exec -i: what goes in comes out")
    done = c.kubectl("exec", "-n", ns, "box", "--", "nosuch"); need(done.returncode in (1, 126, 127), "exec of nothing fails", str(done))
    eventually(lambda: c.do("logs", "-n", ns, "box").splitlines() == ["line 1", "line 2", "line 3", "err"] or sorted(c.do("logs", "-n", ns, "box").splitlines()) == ["err", "line 1", "line 2", "line 3"], 10, "logs: all lines")
    need(len(c.do("logs", "-n", ns, "box", "--tail=2").splitlines()) == 2, "logs --tail"); need(re.match(r"\d{4}-\d\d-\d\dT\S+Z line 1\n", c.do("logs", "-n", ns, "box", "--timestamps", "--limit-bytes=60")), "logs --timestamps")
    follow = subprocess.Popen([*c.plane.programs["kubectl"], "--kubeconfig", f"{c.plane.work}/admin.conf", "logs", "-f", "-n", ns, "crash"], stdout=subprocess.PIPE, text=True)
    try: need("start\n" in follow.communicate(timeout=60)[0], "logs -f ends with the container")
    finally: follow.kill()
    eventually(lambda: c.kubectl("logs", "-n", ns, "crash", "--previous").stdout == "start\n", 60, "logs --previous", lambda: str(c.kubectl("logs", "-n", ns, "crash", "--previous")))
    forwarded(c, ns)
    with tempfile.TemporaryDirectory() as folder:
        content = os.urandom(1 << 20)
        with open(f"{folder}/there", "wb") as f: f.write(content)
        c.do("cp", "-n", ns, f"{folder}/there", "box:/tmp/there"); c.do("cp", "-n", ns, "box:/tmp/there", f"{folder}/back")
        with open(f"{folder}/back", "rb") as f: need(f.read() == content, "cp: there and back again")
    c.do("debug", "-n", ns, "box", f"--image={BUSYBOX}", "--target=main", "-c", "dbg", "--", "sleep", "100000")
    state = lambda: next((s["state"] for s in c.get(f"/api/v1/namespaces/{ns}/pods/box")["status"].get("ephemeralContainerStatuses", [])), None)
    eventually(lambda: "running" in (state() or {}), 40, "debug: the ephemeral container runs", state); need("sleep 100000" in c.do("exec", "-n", ns, "box", "-c", "dbg", "--", "ps"), "and sees the other's processes")
    said = c.kubectl("run", "once", "-n", ns, "-i", "--rm", "--restart=Never", f"--image={BUSYBOX}", "--", "cat", stdin="through\n", secs=60); need("through" in said.stdout, "run -i: attach to what starts", str(said))
    raw = lambda path: c.do("get", "--raw", f"/api/v1/nodes/{NAME}/proxy{path}")
    need(json.loads(raw("/configz"))["kubeletconfig"]["clusterDomain"] == "cluster.local", "configz through the node's proxy"); need(NAME in raw("/stats/summary") and "kubelet_running_pods" in raw("/metrics"), "statistics and metrics, too")
    need(raw("/containerLogs/" + f"{ns}/box/main").count("line") == 3, "containerLogs")


def forwarded(c, ns):
    forward = subprocess.Popen([*c.plane.programs["kubectl"], "--kubeconfig", f"{c.plane.work}/admin.conf", "port-forward", "-n", ns, "pod/web", ":8080"], stdout=subprocess.PIPE, text=True)
    try:
        port = need(re.search(r"127.0.0.1:(\d+)", forward.stdout.readline()), "port-forward says its port").group(1)
        for _ in range(5): need(urllib.request.urlopen(f"http://127.0.0.1:{port}/hostname", timeout=10).read() == b"web", "port-forward: the pod answers")
    finally: forward.kill(); forward.wait()


def objects(c, ns):
    c.create(ns, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf"}, "data": {"key": "one"}}, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sec"}, "stringData": {"word": "hush"}})
    volumes = [{"name": "c", "configMap": {"name": "conf"}}, {"name": "s", "secret": {"secretName": "sec"}}, {"name": "d", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
               {"name": "late", "configMap": {"name": "late", "optional": True}}]
    mounts = [{"name": v["name"], "mountPath": "/" + v["name"]} for v in volumes] + [{"name": "c", "mountPath": "/fixed", "subPath": "key"}]
    p = pod("reads", automountServiceAccountToken=True, volumes=volumes, container={"volumeMounts": mounts, "env": [{"name": "W", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "word"}}}]}); c.create(ns, p)
    c.do("wait", "-n", ns, "pod/reads", "--for=condition=Ready", f"--timeout={SECS_MAX}s"); read = lambda path: c.kubectl("exec", "-n", ns, "reads", "--", "sh", "-c", f"cat {path}").stdout
    need(read("/c/key") == "one" and read("/s/word") == "hush" and c.do("exec", "-n", ns, "reads", "--", "sh", "-c", "echo $W") == "hush\n", "files and environment")
    token = read("/var/run/secrets/kubernetes.io/serviceaccount/token"); review = c.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {"token": token}})[1]["status"]
    need(review.get("authenticated") and review["user"]["username"] == f"system:serviceaccount:{ns}:default" and review["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["reads"], "the token is the pod's", review)
    c.request("PATCH", f"/api/v1/namespaces/{ns}/configmaps/conf", {"data": {"key": "two"}}, content_type="application/merge-patch+json"); c.do("label", "-n", ns, "pod", "reads", "colour=blue"); c.create(ns, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}, "data": {"now": "here"}})
    # kubelet 1.36: files follow within the sync period (a minute) and its spread.
    eventually(lambda: read("/c/key") == "two", 120, "a changed config map comes into the volume", lambda: read("/c/key"), every=1); eventually(lambda: 'colour="blue"' in read("/d/labels") and read("/late/now") == "here", 120, "so do labels and what was not there", lambda: read("/d/labels /late/*"), every=1)
    need(read("/fixed") == "one", "a subPath stays")


def trust_bundles(c, ns):
    """Certificates of the cluster in files, in whatever version the API server has them."""
    group = "/apis/certificates.k8s.io"; version = next(v for v in ("v1", "v1beta1") if any(r["name"] == "clustertrustbundles" for r in (c.get(f"{group}/{v}") or {"resources": []})["resources"])); path = f"{group}/{version}/clustertrustbundles"
    print(f"        the API server has ClusterTrustBundles as {version}", flush=True)
    def made(n): c.plane.openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"anchor-{n}.key", "-out", f"anchor-{n}.crt", "-days", "30", "-subj", f"/CN=anchor-{n}", "-addext", "basicConstraints=critical,CA:TRUE"); return open(f"{c.plane.work}/anchor-{n}.crt").read()
    one, two, three = map(made, range(3)); body = lambda pem: sorted("".join(part.split("-----END")[0].split()) for part in pem.split("-----BEGIN CERTIFICATE-----")[1:])
    bundle = lambda name, pem, signer=None, **labels: c.request("POST", path, {"metadata": {"name": name, "labels": labels}, "spec": {"trustBundle": pem, **({"signerName": signer} if signer else {})}})
    bundle("plain", "a comment\n" + one); signer = "example.com/anchors"; bundle("example.com:anchors:a", two, signer, live="yes"); bundle("example.com:anchors:b", three + two, signer, live="no")
    sources = [{"clusterTrustBundle": {"name": "plain", "path": "plain.pem"}}, {"clusterTrustBundle": {"signerName": signer, "labelSelector": {"matchLabels": {"live": "yes"}}, "path": "signed.pem"}},
               {"clusterTrustBundle": {"signerName": signer, "labelSelector": {}, "path": "all.pem"}}, {"clusterTrustBundle": {"name": "absent", "path": "absent.pem", "optional": True}}]
    c.create(ns, pod("trusts", volumes=[{"name": "t", "projected": {"sources": sources}}], container={"volumeMounts": [{"name": "t", "mountPath": "/t"}]}), pod("doubts", volumes=[{"name": "t", "projected": {"sources": [{"clusterTrustBundle": {"name": "later", "path": "x"}}]}}], container={"volumeMounts": [{"name": "t", "mountPath": "/t"}]}))
    c.do("wait", "-n", ns, "pod/trusts", "--for=condition=Ready", f"--timeout={SECS_MAX}s"); read = lambda name: c.kubectl("exec", "-n", ns, "trusts", "--", "cat", f"/t/{name}").stdout
    seen = lambda: {n: body(read(f"{n}.pem")) for n in ("plain", "signed", "all", "absent")}; need(seen() == {"plain": body(one), "signed": body(two), "all": sorted(body(two) + body(three)), "absent": []}, "the files have the certificates of the bundles", seen()); need("comment" not in read("plain.pem"), "and nothing else")
    c.request("PATCH", f"{path}/example.com:anchors:b", {"metadata": {"labels": {"live": "yes"}}}, content_type="application/merge-patch+json"); c.request("PATCH", f"{path}/plain", {"spec": {"trustBundle": three}}, content_type="application/merge-patch+json"); bundle("later", one)
    eventually(lambda: seen() == {"plain": body(three), "signed": sorted(body(two) + body(three)), "all": sorted(body(two) + body(three)), "absent": []}, 120, "a changed bundle comes into the files", seen, every=1)
    eventually(lambda: any(p["metadata"]["name"] == "doubts" and is_ready(p) for p in c.pods(ns)), 120, "a pod that waited for its bundle runs", lambda: c.pods(ns, "app=doubts"))


def certified(name, *sources, **more):
    return pod(name, volumes=[{"name": "t", "projected": {"defaultMode": 0o444, "sources": [{"podCertificate": s} for s in sources]}}], container={"volumeMounts": [{"name": "t", "mountPath": "/t"}]}, **more)


def pod_certificates(c, ns):
    """Certificates of pods in files: requested, issued, denied, failed; requested anew by a kubelet that comes back."""
    kinds = ("RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"); states = lambda: sorted(l.split("{")[1] for l in c.kubectl("get", "--raw", f"/api/v1/nodes/{NAME}/proxy/metrics").stdout.splitlines() if l.startswith("kubelet_podcertificate_states{"))
    with Signers(c, ns) as signers:
        print(f"        the API server has PodCertificateRequests as {signers.version}", flush=True)
        sources = [{"signerName": ISSUES, "keyType": k, "credentialBundlePath": f"{k}.pem"} for k in kinds] + [{"signerName": ISSUES, "keyType": "ECDSAP256", "keyPath": "own/key", "certificateChainPath": "own/chain", "maxExpirationSeconds": 7200, "userAnnotations": {"example.com/colour": "blue"}}]
        # The kubelet's own cgroup is not measured here: keys of RSA take their time in a program that is not optimized.
        c.create(ns, certified("has", *sources), certified("grouped", {"signerName": ISSUES, "keyType": "ED25519", "credentialBundlePath": "b"}, securityContext={"fsGroup": 2000, "runAsUser": 1000}),
                 certified("denied", {"signerName": DENIES, "keyType": "ED25519", "keyPath": "k"}), certified("failed", {"signerName": FAILS, "keyType": "ED25519", "keyPath": "k"}), certified("unsigned", {"signerName": "example.com/nobody", "keyType": "ED25519", "keyPath": "k"}))
        c.do("wait", "-n", ns, "pod/has", "pod/grouped", "--for=condition=Ready", f"--timeout={SECS_MAX}s"); read = lambda name, of="has": c.kubectl("exec", "-n", ns, of, "--", "cat", f"/t/{name}").stdout
        chains = list(signers.issued.values()); blocks = lambda text: ["-----BEGIN" + part for part in text.split("-----BEGIN")[1:]]
        def sound(key, *chain): return of_key(key) == of_certificate(chain[0]) and len(chain) == 2 and any(blocks(made) == list(chain) for made in signers.issued.values())
        for k in kinds: need(sound(*blocks(read(f"{k}.pem"))), f"{k}: key and certificate belong together", read(f"{k}.pem")[-300:], signers.problems)
        need(sound(read("own/key"), *blocks(read("own/chain"))), "so they do in files of their own"); need(c.do("exec", "-n", ns, "has", "--", "stat", "-Lc", "%a", "/t/own/key") == "444\n", "the key has the volume's mode")
        need(c.do("exec", "-n", ns, "grouped", "--", "stat", "-Lc", "%a %u %g", "/t/b") == "640 1000 2000\n", "with users of its own only they read it", c.do("exec", "-n", ns, "grouped", "--", "stat", "-Lc", "%a %u %g", "/t/b"))
        p = next(p for p in c.pods(ns) if p["metadata"]["name"] == "has"); spec = next(r for r in signers.requests() if "unverifiedUserAnnotations" in r["spec"]); uid = lambda path: c.get(path)["metadata"]["uid"]
        wanted = {"signerName": ISSUES, "podName": "has", "podUID": p["metadata"]["uid"], "serviceAccountName": "default", "serviceAccountUID": uid(f"/api/v1/namespaces/{ns}/serviceaccounts/default"), "nodeName": NAME, "nodeUID": uid(f"/api/v1/nodes/{NAME}"), "maxExpirationSeconds": 7200, "unverifiedUserAnnotations": {"example.com/colour": "blue"}}
        need({k: v for k, v in spec["spec"].items() if k in wanted} == wanted, "the request says whose it is", spec["spec"]); need(spec["metadata"]["generateName"] == "req-" and [o["uid"] for o in spec["metadata"]["ownerReferences"]] == [wanted["podUID"]], "and goes with its pod", spec["metadata"])
        events = lambda name: [(e["reason"], e["message"]) for e in c.get(f"/api/v1/namespaces/{ns}/events?fieldSelector=involvedObject.name={name}")["items"]]; told = lambda name, reason, part: any(r == reason and part in m for r, m in events(name))
        for name, reason, words, why in (("denied", "Denied", "was denied", 'reason="UnsupportedKeyType", message="only \\"stone\\""'), ("failed", "Failed", "failed", 'reason="Broken", message="no ink"')):
            eventually(lambda: told(name, reason, f"{words}, {why}") and told(name, "FailedMount", f"PodCertificateRequest was permanently {name}: {why.replace(',', '')}"), 40, f"a request that is {name} is told", lambda: events(name))
        eventually(lambda: told("unsigned", "FailedMount", "credential bundle is not issued yet"), 60, "so is one that nobody answers", lambda: events("unsigned"))
        silent = lambda: [r["metadata"]["name"] for r in signers.requests() if r["spec"]["signerName"] == "example.com/nobody"]; gone = silent()[0]
        # Upstream's takes more than ten minutes.
        if c.node.which != "upstream": c.request("DELETE", f"{signers.path}/{gone}"); eventually(lambda: len(silent()) == 1 and gone not in silent(), 30, "a request that is deleted is made anew", silent)
        need(states() == sorted(f'signer_name="{s}",state="{w}"}} {n}' for s, w, n in ((ISSUES, "fresh", 8), (DENIES, "denied", 1), (FAILS, "failed", 1), ("example.com/nobody", "not_yet_issued", 1))), "and counted", states())
        before = read("ED25519.pem"); c.node.stop(); c.node.start(config=c.config); eventually(lambda: read("ED25519.pem") not in ("", before), 120, "a kubelet that comes back has new ones", states, every=1); need(sound(*blocks(read("ED25519.pem"))), "that belong together"); need(not restarts(next(p for p in c.pods(ns) if p["metadata"]["name"] == "has")), "and the pod goes on")
        c.do("delete", "pod", "-n", ns, "--all"); eventually(lambda: not states(), 60, "certificates of pods that are gone are forgotten", states); eventually(lambda: not signers.requests(), 60, "and their requests", signers.requests); need(not signers.problems, "the signers had no problems", signers.problems)


def certificate_renewal(c, ns):
    """A certificate is renewed when its signer says so: at the earliest five minutes after it was issued, up to five later."""
    with Signers(c, ns, age=datetime.timedelta(minutes=4, seconds=50)) as signers:
        c.create(ns, certified("has", {"signerName": ISSUES, "keyType": "ECDSAP256", "credentialBundlePath": "b"})); c.do("wait", "-n", ns, "pod/has", "--for=condition=Ready", f"--timeout={SECS_MAX}s"); read = lambda: c.kubectl("exec", "-n", ns, "has", "--", "cat", "/t/b").stdout
        before = read(); since = time.monotonic(); eventually(lambda: len(signers.issued) == 2, 660, "it is requested again", signers.requests, every=5); need(time.monotonic() - since > 250, "not before its time")
        eventually(lambda: read() not in ("", before), 120, "the new one comes into the file", every=1); key, *chain = ["-----BEGIN" + part for part in read().split("-----BEGIN")[1:]]; need(of_key(key) == of_certificate(chain[0]) and not restarts(c.pods(ns)[0]), "key and certificate belong together", signers.problems)


def waits_for_objects(c, ns):
    p = pod("needs", container={"envFrom": [{"secretRef": {"name": "absent"}}]}, volumes=[{"name": "v", "configMap": {"name": "nope"}}]); p["spec"]["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": "/v"}]; c.create(ns, p)
    events = lambda: [e["reason"] for e in c.get(f"/api/v1/namespaces/{ns}/events")["items"]]
    eventually(lambda: "FailedMount" in events(), 40, "a missing config map is told", events); c.create(ns, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "nope"}, "data": {"a": "b"}})
    reason = lambda: (c.pods(ns)[0]["status"].get("containerStatuses") or [{}])[0].get("state", {}).get("waiting", {}).get("reason")
    eventually(lambda: reason() == "CreateContainerConfigError", 100, "a missing secret is told", reason); c.create(ns, {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "absent"}, "stringData": {"A": "1"}})
    eventually(lambda: is_ready(c.pods(ns)[0]), 100, "with both it runs", lambda: c.pods(ns))


def deletion(c, ns):
    slow = ["sh", "-c", "trap 'sleep 3; echo bye; exit 0' TERM; while :; do sleep .1; done"]
    c.create(ns, pod("graceful", command=slow, grace=30), pod("deaf", command=["sh", "-c", "trap '' TERM; while :; do sleep .1; done"], grace=2), pod("forced", grace=60, command=slow))
    c.do("wait", "-n", ns, "pod", "--all", "--for=condition=Ready", f"--timeout={SECS_MAX}s"); watch = Watch(c.plane, f"/api/v1/namespaces/{ns}/pods"); eventually(lambda: len(watch.seen) >= 3, 10, "the watch starts")
    at = time.monotonic(); c.do("delete", "pod", "-n", ns, "graceful", "deaf", "--wait=false"); c.do("delete", "pod", "-n", ns, "forced", "--force", "--grace-period=0")
    eventually(lambda: not c.pods(ns), 40, "all are gone", lambda: c.pods(ns)); watch.stop()
    ends = {name: [(t - at, o) for t, kind, o in watch.of(name) if kind == "DELETED"] for name in ("graceful", "deaf", "forced")}; need(all(len(e) == 1 for e in ends.values()), "each is told deleted once")
    need(2.5 < ends["graceful"][0][0] < 20, f"the graceful one had its time: {ends['graceful'][0][0]:.1f} s"); need(1.5 < ends["deaf"][0][0] < 20, f"the deaf one was killed: {ends['deaf'][0][0]:.1f} s")
    last = {name: e[0][1]["status"] for name, e in ends.items()}; codes = {name: [s["state"].get("terminated", {}).get("exitCode") for s in last[name]["containerStatuses"]] for name in ("graceful", "deaf")}
    need(codes == {"graceful": [0], "deaf": [137]}, "how they ended is the last that is told", codes); need({n: last[n]["phase"] for n in codes} == {"graceful": "Succeeded", "deaf": "Failed"}, "and their phases", {n: last[n]["phase"] for n in codes})
    left = lambda: [p for p in os.listdir("/var/lib/kubelet/pods") if any(p == o["metadata"]["uid"] for e in ends.values() for _, o in e)]
    eventually(lambda: not left(), 60, "their folders are gone", left)


def static_pods(c, ns):
    path = "/etc/kubernetes/manifests/static-web.yaml"; p = pod("static-web", ns, grace=1)
    def put(): open("/etc/kubernetes/manifests/.new", "w").write(json.dumps(p)); os.rename("/etc/kubernetes/manifests/.new", path)
    mirror = lambda: c.get(f"/api/v1/namespaces/{ns}/pods/static-web-{NAME}"); ready = lambda but=None: (m := mirror()) and is_ready(m) and but not in (m["metadata"]["uid"], m["metadata"]["annotations"]["kubernetes.io/config.hash"]) and m
    put(); first = eventually(ready, 60, "a static pod has a mirror", mirror)["metadata"]
    need("kubernetes.io/config.mirror" in first["annotations"] and first["ownerReferences"][0]["kind"] == "Node", "marked as what it is", first)
    c.do("delete", "pod", "-n", ns, first["name"], "--wait=false"); again = eventually(lambda: ready(first["uid"]), 60, "a deleted mirror comes back", mirror); need(not restarts(again), "the pod went on")
    p["spec"]["containers"][0]["env"] = [{"name": "A", "value": "2"}]; put(); eventually(lambda: ready(again["metadata"]["annotations"]["kubernetes.io/config.hash"]), 60, "a changed manifest makes a new pod", mirror)
    os.unlink(path); eventually(lambda: not mirror(), 60, "without its manifest the mirror goes", mirror)


def disruption(c, ns):
    """Takes the node from others: runs alone."""
    static = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "pdb"}, "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "web"}}}}
    c.create(ns, static, web("web", replicas=2), web("agent", kind="DaemonSet", container={"args": ["netexec", "--http-port=8080"]})); c.do("rollout", "status", "-n", ns, "deployment/web", f"--timeout={SECS_MAX}s"); c.do("rollout", "status", "-n", ns, "ds/agent", f"--timeout={SECS_MAX}s")
    eventually(lambda: c.get(f"/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets/pdb")["status"].get("currentHealthy") == 2, 20, "the budget knows its pods")
    victim = c.pods(ns, "app=web")[0]["metadata"]["name"]; evict = lambda: c.request("POST", f"/api/v1/namespaces/{ns}/pods/{victim}/eviction", {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": victim}}, fails=True)[0]
    need(evict() == 429, "the budget holds"); c.request("PATCH", f"/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets/pdb", {"spec": {"minAvailable": 1}}, content_type="application/merge-patch+json")
    eventually(lambda: evict() == 201, 20, "an eviction that the budget allows"); eventually(lambda: victim not in [p["metadata"]["name"] for p in c.pods(ns)], 40, "the evicted is gone"); eventually(lambda: sum(map(is_ready, c.pods(ns, "app=web"))) == 2, SECS_MAX, "and has a successor")
    c.do("cordon", NAME); c.create(ns, pod("waits")); eventually(lambda: any(x["reason"] == "Unschedulable" for x in c.pods(ns, "app=waits")[0]["status"].get("conditions", []) if x.get("reason")), 20, "cordoned: nothing new")
    c.do("uncordon", NAME); eventually(lambda: is_ready(c.pods(ns, "app=waits")[0]), 40, "uncordoned: it runs", lambda: c.pods(ns, "app=waits")); c.do("delete", "pod", "-n", ns, "waits")
    c.request("DELETE", f"/apis/policy/v1/namespaces/{ns}/poddisruptionbudgets/pdb"); before = {p["metadata"]["uid"] for p in c.pods(ns, "app=web")}
    done = c.kubectl("drain", NAME, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=100s", secs=110); need(not done.returncode, "drain", done.stderr[-500:])
    need(not before & {p["metadata"]["uid"] for p in c.pods(ns)}, "the drained are gone"); need(len(c.pods(ns, "app=agent")) == 1 and is_ready(c.pods(ns, "app=agent")[0]), "the daemon stays")
    c.do("uncordon", NAME); eventually(lambda: sum(map(is_ready, c.pods(ns, "app=web"))) == 2, SECS_MAX, "the others come again", lambda: c.pods(ns))


TOGETHER = (cronjob, trust_bundles, objects, waits_for_objects, deployment, statefulset, job, streams, deletion, daemonset, static_pods)
ALONE = (pod_certificates, disruption)
# Only when --only says exactly this.
SLOW = (certificate_renewal,)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter); add_options(parser, 1 + len(TOGETHER) + len(ALONE))
    parser.add_argument("--csi", help="the CSI driver of the tests; without it the stateful pods have local volumes"); options = parser.parse_args(); checks = Checks()
    wanted = lambda s: not options.only or re.search(options.only, s.__name__)
    def named(c, scenario): scenario(c, c.namespace(scenario.__name__.replace("_", "-")))
    # 1.36 has these where they are turned on.
    gates = ("ClusterTrustBundle", "ClusterTrustBundleProjection", "PodCertificateRequest"); kinds = ("clustertrustbundles", "podcertificaterequests")
    certificates = [] if minor(programs()) > 36 else ["--feature-gates=" + ",".join(f"{g}=true" for g in gates), "--runtime-config=" + ",".join(f"certificates.k8s.io/v1beta1/{k}=true" for k in kinds)]
    with Cluster(options, flags={"apiserver": certificates}) as c:
        c.driver = start_csi(c, options.csi) if options.csi else None; c.config = {"featureGates": {g: True for g in gates}}; c.node.start(config=c.config)
        if checks.run("the node joins", c.ready):
            with concurrent.futures.ThreadPoolExecutor(len(TOGETHER)) as together:
                for wait in [together.submit(checks.run, s.__name__, named, c, s) for s in TOGETHER if wanted(s)]: wait.result()
            for s in [*filter(wanted, ALONE), *(s for s in SLOW if options.only == s.__name__)]: checks.run(s.__name__, named, c, s)
            options.keep = options.keep or checks.failed > 0
    checks.end()


def start_csi(c, program, attach=False):
    """The CSI driver of the tests, behind a server of Go's as real drivers have it: its name."""
    name, registry = "csi.test.rubelet.io", "/var/lib/kubelet/plugins_registry"; sockets = [f"/var/lib/kubelet/plugins/{name}/csi.sock", f"{registry}/{name}-reg.sock"]; os.makedirs(registry, exist_ok=True)
    driver = c.node.spawn("csi", [program, "--registry", registry, "--data", f"{c.work}/csi", "--name", name, "--node-id", NAME])
    eventually(lambda: driver.poll() is None and all(map(os.path.exists, sockets)), 10, "the CSI driver starts"); c.node.spawn("grpcfront", [f"{c.options.bin}/grpcfront", *sockets]); eventually(lambda: os.path.exists(sockets[1]) and os.path.exists(f"{registry}/.{name}-reg.sock"), 10, "and its front")
    c.request("POST", "/apis/storage.k8s.io/v1/csidrivers", {"metadata": {"name": name}, "spec": {"attachRequired": attach, "podInfoOnMount": True, "fsGroupPolicy": "File"}}); return name


if __name__ == "__main__":
    main()
