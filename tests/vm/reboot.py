#!/usr/bin/env python3
"""The embedded runtime through a power-down and a boot, under systemd: usage: reboot.py before RUBELET IMAGES.tar | reboot.py after

Before: the units of examples/systemd run the agent, and a pod with a sidecar and a hook comes up. After: it was stopped in order, runs again
as the same pod, and nothing of the last boot is left. Prints `check: N passed, N failed`.
"""
import glob, json, os, shutil, subprocess, sys, time, urllib.request

TOP, IMAGE, WAIT_SECS_MAX = "/opt/reboot", "registry.k8s.io/e2e-test-images/busybox:1.37.0-1", 300
UNTIL_TERM = """echo NAME $(cat /proc/sys/kernel/random/boot_id) >> /log/starts; trap 'sleep PAUSE; echo NAME >> /log/ends; exit 0' TERM; while :; do sleep 1 & wait $!; done"""


def container(name, pause, **more):
    script = UNTIL_TERM.replace("NAME", name).replace("PAUSE", str(pause))
    return {"name": name, "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", script], "volumeMounts": [{"name": "log", "mountPath": "/log"}], **more}


def manifest():
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /log/ends"]}}}
    spec = {
        "terminationGracePeriodSeconds": 120, "volumes": [{"name": "log", "hostPath": {"path": f"{TOP}/log", "type": "DirectoryOrCreate"}}],
        "initContainers": [container("side", 0, restartPolicy="Always")], "containers": [container("main", 3, lifecycle=hook)],
    }
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "told"}, "spec": spec})


def pods():
    try: return json.load(urllib.request.urlopen("http://127.0.0.1:10255/pods", timeout=30))["items"] or []
    except (OSError, ValueError): return []


def until(condition):
    """What `condition` says in the end."""
    end = time.time() + WAIT_SECS_MAX
    while not (seen := condition()) and time.time() < end: time.sleep(1)
    return seen


def ready():
    """The pod, once it is ready."""
    found = [pod for pod in pods() if any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", []))]
    return found[0] if found else None


def lines(name):
    try:
        with open(f"{TOP}/log/{name}") as f: return f.read().split("\n")[:-1]
    except FileNotFoundError: return []


def traces():
    """How much of the runtime there is in the kernel."""
    with open("/proc/mounts") as f: mounts = [line for line in f if "rubelet" in line]
    links = [name for name in os.listdir("/sys/class/net") if name not in ("lo", "dummy0")]
    cgroups = glob.glob("/sys/fs/cgroup/kubepods.slice/**/*.scope", recursive=True) + glob.glob("/sys/fs/cgroup/kubepods.slice/**/*-pod*.slice", recursive=True)
    rules = subprocess.run(["nft", "list", "table", "inet", "rubelet"], capture_output=True, text=True).stdout if shutil.which("nft") else ""
    return {"mounts": len(mounts), "links": len(links), "cgroups": len(cgroups), "rules": len(rules.splitlines()), "pod dirs": len(os.listdir("/var/lib/kubelet/pods"))}


def before(rubelet, images):
    shutil.copy(rubelet, "/usr/local/bin/rubelet")
    for folder in ("/etc/rubelet/manifests", "/var/lib/rubelet/import", TOP): os.makedirs(folder, exist_ok=True)
    shutil.copy(images, "/var/lib/rubelet/import/images.tar")
    shutil.copy("config.yaml", "/etc/rubelet/config.yaml")
    with open("/etc/rubelet/manifests/told.json", "w") as f: f.write(manifest())
    for unit in glob.glob("*.service"): shutil.copy(unit, "/etc/systemd/system/")
    subprocess.run(["systemctl", "enable", "--now", "rubelet", "rubelet-pods"], check=True)
    pod = until(ready)
    with open("out/units.log", "w") as f: subprocess.run("systemctl show 'rubelet-*.scope' 'kubepods*.slice' rubelet-pods.service", shell=True, stdout=f)
    with open(f"{TOP}/before.json", "w") as f: json.dump({"uid": pod and pod["metadata"]["uid"], "traces": traces()}, f)
    print(("ok      " if pod else "FAILED  ") + "reboot: the pod is up before it", flush=True)
    if not pod: print("check: 0 passed, 1 failed"); sys.exit(1)


def after():
    results = []
    def check(what, passed, seen=""): results.append(bool(passed)); print(("ok      " if passed else "FAILED  ") + what + ("" if passed else f": {seen}"), flush=True)
    with open(f"{TOP}/before.json") as f: known = json.load(f)
    check("reboot: hook, container, sidecar ended in this order", lines("ends") == ["hook", "main", "side"], lines("ends"))
    pod = until(ready)
    check("reboot: the pod comes up by itself", pod, pods())
    starts = [line.split() for line in lines("starts")]
    check("reboot: each container was started once in each boot", [s[0] for s in starts] == ["side", "main"] * 2 and len({s[1] for s in starts}) == 2, starts)
    check("reboot: it is the same pod", pod and pod["metadata"]["uid"] == known["uid"], pod and pod["metadata"])
    counts = pod and [c["restartCount"] for c in pod["status"]["initContainerStatuses"] + pod["status"]["containerStatuses"]]
    check("reboot: and says that it was restarted", counts == [1, 1], counts)
    check("reboot: nothing is left of the last boot", until(lambda: traces() == known["traces"]), (known["traces"], traces()))
    subprocess.run(["systemctl", "restart", "rubelet"], check=True)
    check("a restart of the unit leaves the pod alone", until(ready) and len(lines("starts")) == 4, lines("starts"))
    subprocess.run(["/usr/local/bin/rubelet", "stop", "--all"], check=True)
    is_active = subprocess.run(["systemctl", "is-active", "rubelet"], capture_output=True, text=True).stdout.strip()
    check("stop --all ends pods and agent, which stays down", lines("ends") == ["hook", "main", "side"] * 2 and is_active == "inactive", (lines("ends"), is_active))
    log = subprocess.run(["journalctl", "-u", "rubelet", "--no-pager"], capture_output=True, text=True).stdout
    with open("out/reboot.log", "w") as f: f.write(log)
    with open("out/shutdown.log", "w") as f: subprocess.run("journalctl -b -1 -o short-precise --no-pager | tail -300", shell=True, stdout=f)
    print(f"check: {sum(results)} passed, {len(results) - sum(results)} failed"); sys.exit(not all(results))


if __name__ == "__main__":
    after() if sys.argv[1] == "after" else before(*sys.argv[2:4])
