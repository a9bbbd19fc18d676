#!/usr/bin/env python3
"""What only a machine with systemd, cgroup v2 and AppArmor can show of the embedded runtime: usage: checks.py RUBELET IMAGES.tar

One pod with limits, one with users of its own; what they see is in their logs. Prints `check: N passed, N failed`.
"""
import glob, json, os, re, shutil, subprocess, sys, time

TOP, IMAGE, WAIT_SECS_MAX = "/opt/work/checks", "registry.k8s.io/e2e-test-images/busybox:1.37.0-1", 240
SCRIPT = """cat /proc/self/attr/current 2>/dev/null; echo; grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /proc/self/cgroup;
mknod /tmp/disk b $DISK 0; dd if=/tmp/disk of=/dev/null bs=512 count=1 2>&1; dd if=/dev/zero of=/dev/null count=1 2>&1 | tail -1; mount -t tmpfs x /mnt 2>&1; unshare -U true 2>&1; cat /proc/self/uid_map; touch /own; ls -ln /own /bin/busybox; echo end; sleep 10000"""


def manifest(name, **spec):
    disk = os.major(os.stat("/dev/vda").st_rdev)
    resources = {"requests": {"memory": "32Mi", "cpu": "100m"}, "limits": {"memory": "64Mi", "cpu": "500m"}}
    security = {"seccompProfile": {"type": "RuntimeDefault"}}
    container = {"name": "main", "image": IMAGE, "imagePullPolicy": "Never", "command": ["sh", "-c", SCRIPT], "env": [{"name": "DISK", "value": str(disk)}], "resources": resources, "securityContext": security}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [container], **spec}})


def log_of(agent, name):
    """The lines of a pod's log, once it is at its end."""
    end = time.time() + WAIT_SECS_MAX
    while time.time() < end and agent.poll() is None:
        for path in glob.glob(f"{TOP}/pods/default_{name}-*/main/0.log"):
            with open(path) as f: lines = [line.rstrip("\n").split(" ", 3)[3] for line in f]
            if "end" in lines: return lines
        time.sleep(.5)
    return []


def main():
    rubelet, images = (os.path.realpath(a) for a in sys.argv[1:3]); results = []
    def check(what, passed, seen=""): results.append(bool(passed)); print(("ok      " if passed else "FAILED  ") + what + ("" if passed else f": {seen}"), flush=True)
    for folder in ("manifests", "import"): os.makedirs(f"{TOP}/{folder}", exist_ok=True)
    shutil.copy(images, f"{TOP}/import/images.tar")
    own = [f"--embedded-root-dir={TOP}/root", f"--embedded-run-dir={TOP}/run", f"--embedded-import-dir={TOP}/import"]
    with open(f"{TOP}/config.json", "w") as f: json.dump({"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", "failSwapOn": False, "cgroupDriver": "systemd", "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}}, "authorization": {"mode": "AlwaysAllow"}, "enableDebuggingHandlers": False, "address": "127.0.0.1", "staticPodPath": f"{TOP}/manifests", "podLogsDir": f"{TOP}/pods"}, f)
    for name, text in (("plain", manifest("plain")), ("users", manifest("users", hostUsers=False))):
        with open(f"{TOP}/manifests/{name}.json", "w") as f: f.write(text)
    with open("out/checks.log", "wb") as log: agent = subprocess.Popen([rubelet, "--config", f"{TOP}/config.json", "--root-dir", f"{TOP}/kubelet", "--cert-dir", f"{TOP}/pki", "--v", "3", *own], stdout=log, stderr=log)
    try:
        plain, users = log_of(agent, "plain"), log_of(agent, "users"); text = "\n".join(plain); both = "\n".join(users)
        check("both pods run", plain and users, "no log")
        check("AppArmor: the profile is in force", "rubelet-default (enforce)" in plain, plain[:2])
        check("seccomp: a filter is in force", re.search(r"Seccomp:\s+2", text), text)
        check("memory and CPU are limited", {"67108864", "50000 100000"} <= set(plain), text)
        check("the cgroup is seen from a namespace of its own", "0::/" in plain, text)
        check("a disk of the host cannot be read", "Operation not permitted" in text and "disk" in text, text)
        check("a usual device can", re.search(r"512 bytes|1\+0 records out", text), text)
        check("nothing can be mounted", re.search(r"mount: .*(denied|permitted)", text), text)
        check("no user namespace can be made", re.search(r"unshare.*(denied|permitted)", text), text)
        check("users of its own: another range of the host's", any(re.match(r"\s+0\s+(65536|131072)\s+65536$", line) for line in users), both)
        check("users of its own: its files and the image's belong to its root", len([line for line in users if re.match(r"-rwx?r?.* 0 +0 ", line)]) >= 2, both)
        scopes = glob.glob("/sys/fs/cgroup/kubepods.slice/**/rubelet-*.scope", recursive=True)
        units = subprocess.run(["systemctl", "list-units", "--no-legend", "--plain", "rubelet-*.scope"], capture_output=True, text=True).stdout.splitlines()
        check("containers are scopes that systemd knows", len(scopes) == 4 and len(units) == 4, (scopes, units))
        subprocess.run(["systemctl", "daemon-reload"], check=True)
        check("a reload of systemd leaves the limits", any(open(f"{scope}/memory.max").read().strip() == "67108864" for scope in scopes))
    finally:
        done = subprocess.run([rubelet, "stop", "--all", *own], capture_output=True, text=True); agent.wait(60)
    check("stop --all ends the agent and the pods", done.returncode == 0 and not glob.glob("/sys/fs/cgroup/kubepods.slice/**/rubelet-*.scope", recursive=True), done.stderr)
    for folder in ("manifests",): shutil.rmtree(f"{TOP}/{folder}"); os.makedirs(f"{TOP}/{folder}")
    print(f"check: {sum(results)} passed, {len(results) - sum(results)} failed"); sys.exit(not all(results))


if __name__ == "__main__":
    main()
