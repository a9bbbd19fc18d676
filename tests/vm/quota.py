"""What volumes take, by the account that the file system keeps of them: an ext4 or an XFS with project quotas, where the agent keeps its pods."""
import json, os, subprocess
from node import container, fetch, pod, read, until

GATES = {"LocalStorageCapacityIsolationFSQuotaMonitoring": True}
WRITTEN, HIDDEN = 8 << 20, 4 << 20
# A file that has no name any more: whoever counts files does not find it.
SCRIPT = ("dd if=/dev/zero of=/disk/written bs=1M count=8 conv=fsync 2>&1; exec 3>/disk/hidden; dd if=/dev/zero bs=1M count=4 >&3; rm /disk/hidden; sync; mkdir /disk/below; echo x >/disk/below/file; "
          "echo end; trap 'exit 0' TERM; while :; do sleep 1; done")


def before(folder):
    """Makes the file system at `folder`."""
    os.makedirs(folder, exist_ok=True); image = folder + ".img"
    with open(image, "wb") as f: f.truncate(1 << 30)
    kind = (read("quota") or "ext4").strip(); make = {"ext4": ["mkfs.ext4", "-q", "-O", "project,quota", "-E", "quotatype=prjquota"], "xfs": ["mkfs.xfs", "-q"]}[kind]
    subprocess.run([*make, image], check=True); subprocess.run(["mount", "-t", kind, "-o", "loop,prjquota", image, folder], check=True)
    # Of somebody else, and the first number that upstream gives.
    with open("/etc/projects", "w") as f: f.write("1048577:/srv\n")
    with open("/etc/projid", "w") as f: f.write("srv:1048577\n")


def pods():
    more = {"volumes": [{"name": "disk", "emptyDir": {}}]}; mounted = {"volumeMounts": [{"name": "disk", "mountPath": "/disk"}]}
    return [pod("counted", container(SCRIPT, **mounted), hostUsers=False, **more), pod("scanned", container(SCRIPT, **mounted), **more)]


def volume(name):
    summary = json.loads(fetch("http://127.0.0.1:10255/stats/summary"))
    found = [v for p in summary["pods"] if p["podRef"]["name"] == f"{name}-node-a" for v in p.get("volume", []) if v["name"] == "disk"]
    return found[0] if found else {}


def folder(agent, known, name):
    """The volume of a pod on the disk."""
    meta = known[name]["metadata"]; return f"{agent.top}/kubelet/pods/{meta['uid']}/volumes/kubernetes.io~empty-dir/disk"


def check(check, agent, known):
    dirs = {name: folder(agent, known, name) for name in ("counted", "scanned")}; projects, names = read("/etc/projects"), read("/etc/projid")
    check("quota: a volume of a pod with users of its own has a project of its own, written down", projects == f"1048577:/srv\n1048578:{dirs['counted']}\n" and names == "srv:1048577\nvolume1048578:1048578\n", (projects, names))
    shown = {name: [line.split()[0] for line in subprocess.run(["lsattr", "-p", "-d", path, f"{path}/written", f"{path}/below/file"], capture_output=True, text=True).stdout.splitlines()] for name, path in dirs.items()}
    check("quota: its files belong to it, others to none", shown == {"counted": ["1048578"] * 3, "scanned": ["0"] * 3}, shown)
    counted, scanned = volume("counted"), volume("scanned")
    # XFS sets room aside behind a file that grows.
    room = 8 << 20 if (read("quota") or "").strip() == "xfs" else 1 << 20
    check("quota: what it takes is the file system's account, files without names included", WRITTEN + HIDDEN <= counted.get("usedBytes", 0) < WRITTEN + HIDDEN + room and counted.get("inodesUsed") == 5, counted)
    check("quota: without it, files are counted by their names", WRITTEN <= scanned.get("usedBytes", 0) < WRITTEN + HIDDEN and scanned.get("inodesUsed") == 4, scanned)
    os.unlink(f"{agent.top}/manifests/counted.json")
    gone = until(lambda: not os.path.exists(dirs["counted"]) and read("/etc/projects") == "1048577:/srv\n", 120)
    check("quota: it is given back with the pod", gone and read("/etc/projid") == "srv:1048577\n", (read("/etc/projects"), read("/etc/projid"), os.path.exists(dirs["counted"])))
