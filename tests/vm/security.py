"""What a container may do and see, with systemd, cgroup v2 and AppArmor: in the logs of pods."""
import os, re, subprocess
from node import container, pod

SCRIPT = """cat /proc/self/attr/current 2>/dev/null; echo; grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/cpu.max /proc/self/cgroup;
mknod /tmp/disk b $DISK 0; dd if=/tmp/disk of=/dev/null bs=512 count=1 2>&1; dd if=/dev/zero of=/dev/null count=1 2>&1 | tail -1; mount -t tmpfs x /mnt 2>&1; unshare -U true 2>&1; cat /proc/self/uid_map; touch /own; ls -ln /own /bin/busybox; echo end; sleep 10000"""
# Another profile than ours, and none: what they allow differs in a way that can be seen.
PROFILE = """profile told-local flags=(attach_disconnected,mediate_deleted) {
  file, capability, network, umount, mount, signal, ptrace,
  deny /secret w,
}
"""
CONFINED = "cat /proc/self/attr/current; echo; echo x > /secret; echo secret $?; echo x > /other; echo other $?; echo end; sleep 10000"


def pods():
    resources = {"requests": {"memory": "32Mi", "cpu": "100m"}, "limits": {"memory": "64Mi", "cpu": "500m"}}
    disk = [{"name": "DISK", "value": str(os.major(os.stat("/dev/vda").st_rdev))}]
    plain = container(SCRIPT, env=disk, resources=resources, securityContext={"seccompProfile": {"type": "RuntimeDefault"}})
    confined = lambda **profile: container(CONFINED, securityContext={"appArmorProfile": profile})
    subprocess.run(["apparmor_parser", "-r"], input=PROFILE, text=True, check=True)
    return [pod("plain", plain), pod("users", plain, hostUsers=False), pod("local", confined(type="Localhost", localhostProfile="told-local")),
            pod("unconfined", confined(type="Unconfined")), pod("unknown", confined(type="Localhost", localhostProfile="nobody-knows"))]


def check(check, agent, known):
    plain, users = agent.said("plain"), agent.said("users"); text = "\n".join(plain); both = "\n".join(users)
    check("both pods run", plain and users, "no log")
    check("AppArmor: the profile is in force", "rubelet-default (enforce)" in plain, plain[:2])
    local, free = agent.said("local"), agent.said("unconfined")
    check("AppArmor: a Localhost profile is in force, and no other", "told-local (enforce)" in local and "secret 1" in local and "other 0" in local, local)
    check("AppArmor: Unconfined is", "unconfined" in free and "secret 0" in free, free)
    waits = [s["state"].get("waiting", {}) for s in known["unknown"]["status"].get("containerStatuses", [])]
    check("AppArmor: a profile that is not there is refused by name", any("apparmor profile not found nobody-knows" in w.get("message", "") for w in waits), waits)
    check("seccomp: a filter is in force", re.search(r"Seccomp:\s+2", text), text)
    check("memory and CPU are limited", {"67108864", "50000 100000"} <= set(plain), text)
    check("the cgroup is seen from a namespace of its own", "0::/" in plain, text)
    check("a disk of the host cannot be read", "Operation not permitted" in text and "disk" in text, text)
    check("a usual device can", re.search(r"512 bytes|1\+0 records out", text), text)
    check("nothing can be mounted", re.search(r"mount: .*(denied|permitted)", text), text)
    check("no user namespace can be made", re.search(r"unshare.*(denied|permitted)", text), text)
    check("users of its own: another range of the host's", any(re.match(r"\s+0\s+\d*(65536|131072)\s+65536$", line) for line in users), both)
    check("users of its own: its files and the image's belong to its root", len([line for line in users if re.match(r"-rwx?r?.* 0 +0 ", line)]) >= 2, both)
