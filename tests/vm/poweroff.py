#!/usr/bin/env python3
"""Graceful node shutdown with systemd's logind: usage: poweroff.py before, in the machine | poweroff.py after OUT, where the machine's folder `out` is then

Before: the unit of reboot.py runs with `shutdownGracePeriod`, pods of two priorities are up, the lock is held. Then `systemctl poweroff`; what the pods and the agent say
of it goes to the second disk. After: the pods ended by priority before the machine did.
"""
import json, os, shutil, subprocess, sys, time
from node import Checks, container, pod, pods, read, ready, run, until, write

OUT, GRACE_SECS, CRITICAL_SECS, PAUSE_SECS = "/opt/test/out/poweroff", 60, 25, 4
CRITICAL = {"priority": 2000001000, "priorityClassName": "system-node-critical"}
SCRIPT = """say() { echo NAME $1 $(cut -d' ' -f1 /proc/uptime) >> /log/ends; sync /log/ends; }; trap 'say told; sleep PAUSE; say ended; exit 0' TERM; while :; do sleep .5 & wait $!; done"""


def manifest(name, pause, **spec):
    script = SCRIPT.replace("NAME", name).replace("PAUSE", str(pause))
    return pod(name, container(script, volumeMounts=[{"name": "log", "mountPath": "/log"}]), terminationGracePeriodSeconds=30, volumes=[{"name": "log", "hostPath": {"path": OUT, "type": "Directory"}}], **spec)


def before():
    check = Checks(); os.makedirs(OUT); shutil.rmtree("/etc/rubelet/manifests")
    run("systemctl", "disable", "--now", "rubelet-pods")
    for m in (manifest("web", PAUSE_SECS), manifest("worker", 1), manifest("critical", PAUSE_SECS, **CRITICAL)): write(f"/etc/rubelet/manifests/{m['metadata']['name']}.json", json.dumps(m))
    with open("/etc/rubelet/config.yaml", "a") as f: f.write(f"shutdownGracePeriod: {GRACE_SECS}s\nshutdownGracePeriodCriticalPods: {CRITICAL_SECS}s\n")
    write("/etc/systemd/system/rubelet.service.d/log.conf", f"[Service]\nStandardOutput=append:{OUT}/agent.log\nStandardError=append:{OUT}/agent.log\n")
    subprocess.run(["systemctl", "daemon-reload"], check=True); subprocess.run(["systemctl", "restart", "rubelet"], check=True)
    check("poweroff: the pods are up before it", until(lambda: ready("web", "worker", "critical")), pods())
    locks = lambda: [line.split() for line in run("systemd-inhibit", "--list", "--no-legend", "--no-pager").stdout.splitlines() if line.startswith("kubelet ")]
    held = until(locks, 60); pid = run("systemctl", "show", "-P", "MainPID", "rubelet").stdout.strip()
    check("poweroff: the lock is held", held and len(held) == 1 and pid in held[0] and "shutdown" in held[0] and held[0][-1] == "delay", (held, pid))
    delay = run("busctl", "get-property", "org.freedesktop.login1", "/org/freedesktop/login1", "org.freedesktop.login1.Manager", "InhibitDelayMaxUSec").stdout
    check("poweroff: logind waits as long as it may take", delay.split() == ["t", f"{GRACE_SECS}000000"] and f"InhibitDelayMaxSec={GRACE_SECS}" in read("/etc/systemd/logind.conf.d/99-kubelet.conf"), delay)
    # Watches until the machine is gone: what is told of the pods, and of one that comes too late.
    subprocess.run(["systemd-run", "--unit=told-watch", "--collect", f"--working-directory={os.getcwd()}", "-p", "DefaultDependencies=no", sys.executable, os.path.abspath(__file__), "watch"], check=True, capture_output=True)
    check.end()


def watch():
    while True:
        known = pods()
        if known: write(f"{OUT}/pods.json.new", json.dumps(known)); os.replace(f"{OUT}/pods.json.new", f"{OUT}/pods.json")
        if " told " in read(f"{OUT}/ends") and "late" not in known: write("/etc/rubelet/manifests/late.json", json.dumps(manifest("late", 0)))
        time.sleep(.3)


def after(out):
    check = Checks(); out = f"{out}/poweroff"
    said = [line.split() for line in read(f"{out}/ends").splitlines()]; at = {(name, what): float(when) for name, what, when in said}
    check("poweroff: every pod was told once, and ended by itself", sorted((s[0], s[1]) for s in said) == sorted((n, w) for n in ("web", "worker", "critical") for w in ("told", "ended")), said)
    if len(at) == 6:
        check("poweroff: the critical pod was told when the others had ended", at["critical", "told"] >= max(at["web", "ended"], at["worker", "ended"]) and at["web", "told"] < at["worker", "ended"], said)
    log = read(f"{out}/agent.log")
    check("poweroff: the agent says so, and that all pods were stopped", "Shutdown manager detected shutdown event" in log and log.index("Shutdown manager detected") < (log + "all pods were stopped").index("all pods were stopped") < len(log), log[-800:])
    known = json.loads(read(f"{out}/pods.json") or "{}"); state = lambda name: [known.get(name, {}).get("status", {}).get(key) for key in ("phase", "reason", "message")]
    check("poweroff: a pod that was stopped says why", all(state(n)[1:] == ["Terminated", "Pod was terminated in response to imminent node shutdown."] for n in ("web", "worker")), [state(n) for n in known])
    check("poweroff: one that comes then is refused", state("late")[:2] == ["Failed", "NodeShutdown"], state("late"))
    check.end()


if __name__ == "__main__":
    {"before": before, "watch": watch, "after": after}[sys.argv[1]](*sys.argv[2:])
