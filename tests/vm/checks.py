#!/usr/bin/env python3
"""What only a machine with systemd, cgroup v2 and AppArmor can show of the embedded runtime and its agent: usage: checks.py RUBELET IMAGES.tar

One agent, with the pods of all the checks. Prints `check: N passed, N failed`.
"""
import glob, json, os, shutil, subprocess, sys
import figures, host, limits, node, quota, security

TOP = "/opt/work/checks"


def scopes(): return glob.glob("/sys/fs/cgroup/kubepods.slice/**/rubelet-*.scope", recursive=True)


def units(check):
    """A container is a scope, and so is each pod's pause process; systemd knows them all."""
    running = [pod for pod in node.pods().values() if pod["status"]["phase"] in ("Running", "Pending")]
    wanted = sum(1 + len([s for s in pod["status"].get("containerStatuses", []) if "running" in s["state"]]) for pod in running)
    known = [line.split()[0] for line in node.run("systemctl", "list-units", "--no-legend", "--plain", "--state=running", "rubelet-*.scope").stdout.splitlines()]
    check("containers are scopes that systemd knows", sorted(map(os.path.basename, scopes())) == sorted(known) and len(known) == wanted > 8, (wanted, known, scopes()))
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    check("a reload of systemd leaves the limits", any(node.read(f"{scope}/memory.max").strip() == "67108864" for scope in scopes()))


def main():
    rubelet, images = (os.path.realpath(a) for a in sys.argv[1:3]); check = node.Checks()
    host.before(check, rubelet, f"{TOP}/protected")
    agent = node.Agent(rubelet, TOP, {"podPidsLimit": limits.PIDS, "enableSystemLogQuery": True, "featureGates": quota.GATES})
    quota.before(f"{TOP}/kubelet")
    shutil.copy(images, f"{TOP}/import/images.tar")
    agent.wants(*security.pods(), *limits.pods(), *quota.pods())
    agent.start("out/checks.log")
    try:
        for name in ("plain", "users", "local", "unconfined", "greedy", "many", "busy", "counted", "scanned"): agent.said(name)
        def settled():
            known = node.pods(); told = lambda name: [s["state"] for s in known.get(name, {"status": {}})["status"].get("containerStatuses", [])]
            return known if told("greedy") and all("terminated" in s for s in told("greedy")) and any("message" in s.get("waiting", {}) for s in told("unknown")) else None
        known = node.until(settled) or node.pods()
        with open("out/pods.json", "w") as f: json.dump(known, f, indent=1)
        for part in (security, limits, figures, host, quota): part.check(check, agent, known)
        host.asked_logs(check)
        units(check)
    finally:
        done = agent.stop_all()
    check("stop --all ends the agent and the pods", done.returncode == 0 and not scopes(), done.stderr)
    check.end()


if __name__ == "__main__":
    main()
