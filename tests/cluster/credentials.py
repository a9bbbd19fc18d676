#!/usr/bin/env python3
"""Who gets a private image: pull secrets, the node's own credentials, a credential plugin, and who has nothing. Called by ./x test credentials, under tests/lib/own.sh.

usage: credentials.py --kubelet BIN|upstream [--runtime embedded|containerd] [--containerd DIR] [--rubelet BIN] [--only RE]
A docker-registry on loopback asks for a password. With containerd, upstream's kubelet reads what ours wrote down and the other way round.
The scenarios stand on each other. The last line is `check: N passed, N failed`.
"""
import argparse, base64, hashlib, json, os, re, socket, stat, sys, urllib.error, urllib.request

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../lib"))
import images
from node import BUSYBOX, ROOT, Checks, Cluster, add_options, end, eventually, is_ready, need, pod, wait

USER, PASSWORD = "puller", "hush-hush"
HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuu4uoW5CdSDmY8cLkib7pLDRBlvRVo8Pe\n"  # bcrypt of the password
RECORDS, INTENTS = f"{ROOT}/image_manager/pulled", f"{ROOT}/image_manager/pulling"
HERE = "already present on machine and can be accessed by the pod"


class Registry:
    """docker-registry on loopback: filled while it is open, then it wants a password."""
    def __init__(self, c, names):
        with socket.socket() as s: s.bind(("127.0.0.1", 0)); self.at = f"127.0.0.1:{s.getsockname()[1]}"
        self.c, self.settings = c, {"version": "0.1", "log": {"level": "warn", "accesslog": {"disabled": False}}, "storage": {"filesystem": {"rootdirectory": f"{c.work}/registry"}}, "http": {"addr": self.at}}
        self.serve()
        for name in names: images.push(f"http://{self.at}", name, "1", images.image(images._busybox_layer(), Cmd=["sleep", "100000"], Env=[images.PATH, f"NAME={name}"]))
        end(self.process); c.node.write("htpasswd", HTPASSWD); self.settings["auth"] = {"htpasswd": {"realm": "tests", "path": f"{c.work}/htpasswd"}}; self.serve()
        need(self.answer() == 401, "the registry wants a password", str(self.answer()))

    def serve(self):
        self.c.node.write("registry.json", json.dumps(self.settings)); self.process = self.c.node.spawn("registry", ["docker-registry", "serve", f"{self.c.work}/registry.json"])
        if not wait(lambda: self.answer() in (200, 401), 20): raise RuntimeError(f"docker-registry does not start; see {self.c.work}/log/registry.log")

    def answer(self):
        try:
            with urllib.request.urlopen(f"http://{self.at}/v2/", timeout=5) as answer: return answer.status
        except urllib.error.HTTPError as error: return error.code
        except OSError: return None

    def image(self, name): return f"{self.at}/{name}:1"
    def asked(self, name):
        """What the registry answered those who asked for an image."""
        with open(f"{self.c.work}/log/registry.log", errors="replace") as f: lines = [l for l in f if f"/v2/{name}/manifests/" in l]
        return [int(found[1]) for l in lines if (found := re.search(r'"(?:GET|HEAD) \S+ HTTP/1\.1" (\d+)', l))]


def logins(at, password=PASSWORD): return {"auths": {at: {"auth": base64.b64encode(f"{USER}:{password}".encode()).decode()}}}
def secret(name, at, password=PASSWORD): return {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/dockerconfigjson", "metadata": {"name": name}, "data": {".dockerconfigjson": base64.b64encode(json.dumps(logins(at, password)).encode()).decode()}}
def wants(name, image, policy="IfNotPresent", *secrets): return pod(name, image=image, command=None, container={"imagePullPolicy": policy}, **({"imagePullSecrets": [{"name": s} for s in secrets]} if secrets else {}))


def one(c, ns, name): return c.get(f"/api/v1/namespaces/{ns}/pods/{name}")
def waiting(c, ns, name): return next((s["state"].get("waiting", {}) for s in (one(c, ns, name) or {"status": {}})["status"].get("containerStatuses", [])), {})
def events(c, ns, name): return [(e["reason"], e["message"]) for e in c.get(f"/api/v1/namespaces/{ns}/events?fieldSelector=involvedObject.name={name}")["items"]]


def runs(c, ns, name, pulled):
    eventually(lambda: (p := one(c, ns, name)) and is_ready(p), 60, f"{name} runs", lambda: [waiting(c, ns, name), events(c, ns, name)])
    said = lambda: [m for r, m in events(c, ns, name) if r == "Pulled"]; eventually(said, 10, f"{name}: it is told how the image came")
    need(bool(re.search("^Successfully pulled image", said()[0])) == pulled and (pulled or HERE in said()[0]), f"{name} {'pulls' if pulled else 'does not pull'}", said())


def refused(c, ns, name):
    eventually(lambda: waiting(c, ns, name).get("reason") in ("ErrImagePull", "ImagePullBackOff"), 40, f"{name} cannot pull", lambda: [one(c, ns, name)["status"], events(c, ns, name)])
    eventually(lambda: {"Pulling", "Failed"} <= {r for r, _ in events(c, ns, name)}, 10, f"{name} has tried", lambda: events(c, ns, name)); need(not [m for r, m in events(c, ns, name) if r == "Pulled"], "and got nothing", events(c, ns, name))


def not_here(c, ns, name, image):
    eventually(lambda: waiting(c, ns, name).get("reason") == "ErrImageNeverPull", 40, f"{name}: for it the image is not here", lambda: [one(c, ns, name)["status"], events(c, ns, name)])
    need(waiting(c, ns, name)["message"] == f'Container image "{image}" is not present with pull policy of Never', "in the words for one that is not", waiting(c, ns, name))


def records():
    """All records by image name without tag, after a look at their modes."""
    need(stat.S_IMODE(os.stat(RECORDS).st_mode) == stat.S_IMODE(os.stat(INTENTS).st_mode) == 0o700, "only root gets into the folders"); found = {}
    for name in os.listdir(RECORDS):
        with open(f"{RECORDS}/{name}") as f: record = json.load(f)
        need(stat.S_IMODE(os.stat(f"{RECORDS}/{name}").st_mode) == 0o600 and name == "sha256-" + hashlib.sha256(record["imageRef"].encode()).hexdigest(), "a record's name and mode", name)
        need((record["kind"], record["apiVersion"]) == ("ImagePulledRecord", "kubelet.config.k8s.io/v1beta1"), "its kind", record); found.update(record.get("credentialMapping", {}))
    return found


def noted(c, ns, *names):
    """What a record says of secrets."""
    text = json.dumps({"username": USER, "password": PASSWORD}, separators=(",", ":"))
    return sorted(({"uid": c.get(f"/api/v1/namespaces/{n}/secrets/{s}")["metadata"]["uid"], "namespace": n, "name": s, "credentialHash": hashlib.sha256(text.encode()).hexdigest()} for n, s in names), key=lambda s: (s["namespace"], s["name"]))


def right(c, ns):
    c.create(ns, secret("good", c.registry.at), secret("bad", c.registry.at, "guess")); image = c.registry.image("team/app")
    c.create(ns, wants("first", image, "IfNotPresent", "good")); runs(c, ns, "first", True); need(200 in c.registry.asked("team/app"), "the registry gave it", c.registry.asked("team/app"))
    need(records()[f"{c.registry.at}/team/app"] == {"kubernetesSecrets": noted(c, ns, (ns, "good"))}, "it is written down by which secret", records()); need(not os.listdir(INTENTS), "no pull is under way", os.listdir(INTENTS))


def without(c, ns):
    image = c.registry.image("team/app"); before = len(c.registry.asked("team/app"))
    c.create(ns, wants("nothing", image), wants("never", image, "Never"), wants("wrong", image, "IfNotPresent", "bad"), wants("never-wrong", image, "Never", "bad"))
    for name in ("nothing", "wrong"): refused(c, ns, name)
    for name in ("never", "never-wrong"): not_here(c, ns, name, image)
    asked = c.registry.asked("team/app")[before:]; need(asked and set(asked) == {401}, "the registry was asked, and refused", asked)
    c.create(ns, wants("absent", c.registry.image("team/absent"), "Never")); not_here(c, ns, "absent", c.registry.image("team/absent"))
    for name in ("nothing", "never", "wrong", "never-wrong"): c.do("delete", "pod", "-n", ns, name, "--wait=false")


def same(c, ns):
    image = c.registry.image("team/app"); before = len(c.registry.asked("team/app")); other = c.namespace(f"{ns}-other")
    c.create(ns, wants("second", image, "IfNotPresent", "good"), wants("third", image, "Never", "bad", "good")); c.create(other, secret("copy", c.registry.at), wants("fourth", image, "Never", "copy"))
    for where, name in ((ns, "second"), (ns, "third"), (other, "fourth")): runs(c, where, name, False)
    need(len(c.registry.asked("team/app")) == before, "nobody asked the registry"); both = noted(c, ns, (ns, "good"), (other, "copy"))
    need(records()[f"{c.registry.at}/team/app"] == {"kubernetesSecrets": both}, "the copy is noted, too", records())


def preloaded(c, ns):
    c.create(ns, wants("seed", BUSYBOX, "Never")); eventually(lambda: one(c, ns, "seed")["status"].get("containerStatuses", [{}])[0].get("imageID"), 40, "an image that was here before is for all", lambda: one(c, ns, "seed")["status"])
    need(not any("busybox" in name for name in records()), "of what was here before nothing is written down", records())


def again(c, ns, name="again", which=None):
    """A kubelet that starts later knows it, too."""
    image = c.registry.image("team/app"); before = len(c.registry.asked("team/app")); written = records(); c.node.stop(); c.node.start(which); c.ready()
    c.create(ns, wants(f"{name}-good", image, "IfNotPresent", "good"), wants(f"{name}-never", image, "Never"), wants(f"{name}-seed", BUSYBOX, "Never")); runs(c, ns, f"{name}-good", False); not_here(c, ns, f"{name}-never", image)
    need(len(c.registry.asked("team/app")) == before, "nobody asked the registry"); need(records() == written, "the records stay", records()); c.do("delete", "pod", "-n", ns, f"{name}-never", "--wait=false")


def upstream_reads(c, ns):
    again(c, ns, "upstream", "upstream"); image = c.registry.image("team/theirs")
    c.create(ns, wants("theirs", image, "IfNotPresent", "good")); runs(c, ns, "theirs", True)


def reads_upstreams(c, ns):
    again(c, ns, "after"); image, before = c.registry.image("team/theirs"), len(c.registry.asked("team/theirs"))
    c.create(ns, wants("ours-good", image, "Never", "good"), wants("ours-never", image, "Never")); runs(c, ns, "ours-good", False); not_here(c, ns, "ours-never", image); need(len(c.registry.asked("team/theirs")) == before, "nobody asked the registry")


def counted(c, ns):
    text = c.do("get", "--raw", f"/api/v1/nodes/node-a/proxy/metrics"); of = lambda name: {m[1]: float(m[2]) for m in re.finditer(rf"^{name}({{[^}}]*}})? (\S+)$", text, re.M)}
    checks = of("kubelet_imagemanager_image_mustpull_checks_total")
    for result in ("credentialPolicyAllowed", "credentialRecordFound", "mustAuthenticate"): need(checks.get(f'{{result="{result}"}}', 0) > 0, f"{result} is counted", checks)
    wanted = of("kubelet_image_manager_ensure_image_requests_total"); need(any('pull_policy="never"' in k and 'pull_required="true"' in k and 'present_locally="true"' in k for k in wanted), "an image that is here and not for all", wanted)
    need(list(of("kubelet_imagemanager_ondisk_pullintents").values()) == [0] and "kubelet_imagemanager_inmemory_pulledrecords_usage_percent" in text, "the records are counted")


def always(c, ns):
    """With AlwaysVerify what was here before needs a pull, too; with a list, what is not in it."""
    for name, settings in (("strict", {"imagePullCredentialsVerificationPolicy": "AlwaysVerify"}), ("listed", {"imagePullCredentialsVerificationPolicy": "NeverVerifyAllowlistedImages", "preloadedImagesVerificationAllowlist": ["registry.k8s.io/e2e-test-images/*"]})):
        c.node.stop(); c.node.start(config=settings); c.ready(); c.create(ns, wants(name, BUSYBOX, "Never"), wants(f"{name}-good", c.registry.image("team/app"), "Never", "good")); runs(c, ns, f"{name}-good", False)
        if name == "strict": not_here(c, ns, name, BUSYBOX)
        else: eventually(lambda: one(c, ns, name)["status"].get("containerStatuses", [{}])[0].get("imageID"), 40, "an image on the list is for all", lambda: one(c, ns, name)["status"])


def unchecked(c, ns):
    """With the gate off whoever asks gets what is here."""
    c.node.stop(); c.node.start(config={"featureGates": {"KubeletEnsureSecretPulledImages": False}}); c.ready(); image = c.registry.image("team/app"); c.create(ns, wants("anybody", image, "Never"))
    eventually(lambda: is_ready(one(c, ns, "anybody")), 40, "a pod without secrets runs", lambda: one(c, ns, "anybody")["status"]); eventually(lambda: ("Pulled", f'Container image "{image}" already present on machine') in events(c, ns, "anybody"), 10, "and is told so", lambda: events(c, ns, "anybody"))


def node_s(c, ns):
    """The node's own credentials are for all its pods."""
    c.node.stop(); path = f"{ROOT}/config.json"; image = c.registry.image("team/node")
    with open(path, "w") as f: json.dump(logins(c.registry.at), f)
    c.node.start(); c.ready(); c.create(ns, wants("pulls", image)); runs(c, ns, "pulls", True); before = len(c.registry.asked("team/node")); c.create(ns, wants("has", image, "Never")); runs(c, ns, "has", False)
    need(len(c.registry.asked("team/node")) == before, "nobody asked the registry again"); need(records()[f"{c.registry.at}/team/node"] == {"nodePodsAccessible": True}, "it is for all", records()); os.unlink(path)


PLUGIN = """#!/bin/sh
cat >>{work}/asked.jsonl
echo '{answer}'
"""


def plugin(c, ns):
    """A program that is asked for credentials."""
    c.node.stop(); bin_dir, version = f"{c.work}/plugins", "credentialprovider.kubelet.k8s.io/v1"; os.makedirs(bin_dir); image = c.registry.image("team/plugin")
    answer = {"kind": "CredentialProviderResponse", "apiVersion": version, "cacheKeyType": "Registry", "auth": {c.registry.at: {"username": USER, "password": PASSWORD}}}
    c.node.write("plugins/login", PLUGIN.format(work=c.work, answer=json.dumps(answer))); os.chmod(f"{bin_dir}/login", 0o755)
    c.node.write("plugins.json", json.dumps({"apiVersion": "kubelet.config.k8s.io/v1", "kind": "CredentialProviderConfig", "providers": [{"name": "login", "apiVersion": version, "matchImages": [c.registry.at], "defaultCacheDuration": "10m"}]}))
    c.node.start(flags=[f"--image-credential-provider-config={c.work}/plugins.json", f"--image-credential-provider-bin-dir={bin_dir}"]); c.ready(); c.create(ns, wants("asks", image)); runs(c, ns, "asks", True)
    with open(f"{c.work}/asked.jsonl") as f: asked = [json.loads(l) for l in f.read().replace("}{", "}\n{").splitlines()]
    need([(a["kind"], a["apiVersion"], a["image"].split("/")[0]) for a in asked] == [("CredentialProviderRequest", version, c.registry.at)], "it was asked once for the registry", asked)
    c.create(ns, wants("has-too", image, "Never")); runs(c, ns, "has-too", False); need(records()[f"{c.registry.at}/team/plugin"] == {"nodePodsAccessible": True}, "it is for all", records())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter); add_options(parser, 12); options = parser.parse_args(); checks = Checks()
    with Cluster(options) as c:
        c.registry = Registry(c, [f"team/{name}" for name in ("app", "theirs", "node", "plugin")])
        try:
            c.node.start()
            if checks.run("the node joins", c.ready):
                ns = c.namespace("private"); swap = (upstream_reads, reads_upstreams) if options.runtime == "containerd" else ()
                for scenario in (right, without, same, preloaded, counted, again, *swap, node_s, plugin, always, unchecked):
                    if not options.only or scenario is right or re.search(options.only, scenario.__name__): checks.run(scenario.__name__.replace("_", " "), scenario, c, ns)
                options.keep = options.keep or checks.failed > 0
        finally: end(c.registry.process)
    checks.end()


if __name__ == "__main__":
    main()
