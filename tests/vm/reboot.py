#!/usr/bin/env python3
"""The embedded runtime through a power-down and a boot, under systemd: usage: reboot.py before RUBELET IMAGES.tar | reboot.py after

Before: the units of examples/systemd run the agent, and pods come up: one with a sidecar and a hook, one behind a port of the node, one that does not end when it is
told to. After: they were stopped in order and within their graces, run again as the same pods, and nothing of the last boot is left.
"""
import glob, json, os, re, shutil, subprocess, sys, time
from node import NGINX, Checks, container, fetch, pod, pods, read, ready, run, until, write

TOP, NAMES, PORT, GRACE_SECS = "/opt/reboot", ("told", "ported", "stubborn"), 8080, 5
UNTIL_TERM = """echo NAME $(cat /proc/sys/kernel/random/boot_id) >> /log/starts; trap 'sleep PAUSE; echo NAME >> /log/ends; exit 0' TERM; while :; do sleep 1 & wait $!; done"""
NEVER = """trap 'date +%s > /log/told' TERM; while :; do date +%s > /log/beat; sleep .5 & wait $!; done"""


def ending(name, pause, **more):
    return container(UNTIL_TERM.replace("NAME", name).replace("PAUSE", str(pause)), name, volumeMounts=[{"name": "log", "mountPath": "/log"}], **more)


def manifests():
    log = {"volumes": [{"name": "log", "hostPath": {"path": f"{TOP}/log", "type": "DirectoryOrCreate"}}]}
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "echo hook >> /log/ends"]}}}
    ports = [{"containerPort": 80, "hostPort": PORT}]
    return [
        pod("told", ending("main", 3, lifecycle=hook), initContainers=[ending("side", 0, restartPolicy="Always")], terminationGracePeriodSeconds=120, **log),
        pod("ported", {"name": "main", "image": NGINX, "imagePullPolicy": "Never", "ports": ports}),
        pod("stubborn", container(NEVER, volumeMounts=[{"name": "log", "mountPath": "/log"}]), terminationGracePeriodSeconds=GRACE_SECS, **log),
    ]


def lines(name): return read(f"{TOP}/log/{name}").splitlines()


def rules(): return run("nft", "list", "table", "inet", "rubelet").stdout


def stale(known):
    """Addresses in the rules that no pod has, and pods' ports that are not in them."""
    own = {p["status"].get("podIP") for p in known.values()}; found = set(re.findall(r"\b10\.86\.\d+\.\d+\b(?!/)", rules()))
    return found - own - {"10.86.0.1"} or (not re.search(rf"\b{PORT}\b.*{known['ported']['status'].get('podIP')}", rules()) and rules())


def traces():
    """How much of the runtime there is in the kernel."""
    mounts = [line for line in read("/proc/mounts").splitlines() if "rubelet" in line]
    links = [name for name in os.listdir("/sys/class/net") if name not in ("lo", "dummy0")]
    cgroups = glob.glob("/sys/fs/cgroup/kubepods.slice/**/*.scope", recursive=True) + glob.glob("/sys/fs/cgroup/kubepods.slice/**/*-pod*.slice", recursive=True)
    return {"mounts": len(mounts), "links": len(links), "cgroups": len(cgroups), "rules": len(rules().splitlines()), "pod dirs": len(os.listdir("/var/lib/kubelet/pods"))}


def served():
    """What the port answers by the addresses of this machine."""
    answers = [fetch(f"http://{address}:{PORT}/") for address in ("127.0.0.1", "10.99.0.2")]
    return all("nginx" in a and not a.startswith("!") for a in answers), answers


def before(rubelet, images):
    check = Checks()
    shutil.copy(rubelet, "/usr/local/bin/rubelet")
    for folder in ("/etc/rubelet", "/var/lib/rubelet/import", TOP): os.makedirs(folder, exist_ok=True)
    shutil.copy(images, "/var/lib/rubelet/import/images.tar")
    shutil.copy("config.yaml", "/etc/rubelet/config.yaml")
    for manifest in manifests(): write(f"/etc/rubelet/manifests/{manifest['metadata']['name']}.json", json.dumps(manifest))
    for unit in glob.glob("*.service"): shutil.copy(unit, "/etc/systemd/system/")
    subprocess.run(["systemctl", "enable", "--now", "rubelet", "rubelet-pods"], check=True, capture_output=True)
    found = until(lambda: ready(*NAMES))
    write("out/units.log", run("sh", "-c", "systemctl show 'rubelet-*.scope' 'kubepods*.slice' rubelet-pods.service").stdout)
    write(f"{TOP}/before.json", json.dumps({"uids": [p["metadata"]["uid"] for p in found or []], "traces": traces()}))
    check("reboot: the pods are up before it", found, pods())
    check("reboot: there are rules for the port, and it answers", traces()["rules"] > 10 and found and not stale(pods()) and until(lambda: served()[0], 30), (rules(), served()))
    check.end()


def unit_times(unit):
    """When systemd began to stop a unit in the last boot, and when it had."""
    entries = [json.loads(line) for line in run("journalctl", "-b", "-1", "-o", "json", f"UNIT={unit}", "_PID=1").stdout.splitlines()]
    return [int(e["__REALTIME_TIMESTAMP"]) / 1e6 for e in entries if re.match(r"(Stopping|Stopped) ", e.get("MESSAGE", ""))]


def after():
    check = Checks(); known = json.loads(read(f"{TOP}/before.json"))
    check("reboot: hook, container, sidecar ended in this order", lines("ends") == ["hook", "main", "side"], lines("ends"))
    told, beat = (int((lines(name) or ["0"])[0]) for name in ("told", "beat"))
    check("reboot: who does not end had its grace, and no more", GRACE_SECS - 2 <= beat - told <= GRACE_SECS + 10, (told, beat))
    times = unit_times("rubelet-pods.service"); said = run("journalctl", "-b", "-1", "-u", "rubelet-pods").stdout
    check("reboot: the pods were stopped side by side, and systemd did not lose patience", len(times) == 2 and GRACE_SECS - 1 <= times[1] - times[0] <= 60 and "timed out" not in said, (times, said[-600:]))
    found = until(lambda: ready(*NAMES))
    check("reboot: the pods come up by themselves", found, pods())
    starts = [line.split() for line in lines("starts")]
    check("reboot: each container was started once in each boot", [s[0] for s in starts] == ["side", "main"] * 2 and len({s[1] for s in starts}) == 2, starts)
    check("reboot: they are the same pods", found and [p["metadata"]["uid"] for p in found] == known["uids"], (known["uids"], found))
    counts = found and [[c["restartCount"] for c in p["status"].get("initContainerStatuses", []) + p["status"]["containerStatuses"]] for p in found]
    check("reboot: and say that they were restarted", counts == [[1, 1], [1], [1]], counts)
    check("reboot: nothing is left of the last boot", until(lambda: traces() == known["traces"]) and not stale(pods()), (known["traces"], traces(), stale(pods())))
    check("reboot: the port answers", until(lambda: served()[0], 30), served())
    subprocess.run(["systemctl", "restart", "rubelet"], check=True)
    check("a restart of the unit leaves the pods alone", until(lambda: ready(*NAMES)) and len(lines("starts")) == 4, lines("starts"))
    stopped = run("/usr/local/bin/rubelet", "stop", "--all")
    is_active = run("systemctl", "is-active", "rubelet").stdout.strip()
    check("stop --all ends pods and agent, which stays down", stopped.returncode == 0 and lines("ends") == ["hook", "main", "side"] * 2 and is_active == "inactive", (stopped, lines("ends"), is_active))
    check("stop --all does not read the archives of images before it is done", "imported" not in stopped.stderr, stopped.stderr)
    check("stop --all takes rules and links along", (traces()["rules"], traces()["links"]) == (0, 0), (rules(), os.listdir("/sys/class/net")))
    # The next boots are not for them.
    subprocess.run(["systemctl", "disable", "rubelet", "rubelet-pods"], check=True, capture_output=True)
    write("out/reboot.log", run("journalctl", "-u", "rubelet", "--no-pager").stdout)
    write("out/shutdown.log", run("sh", "-c", "journalctl -b -1 -o short-precise --no-pager | tail -300").stdout)
    check.end()


if __name__ == "__main__":
    after() if sys.argv[1] == "after" else before(*sys.argv[2:4])
