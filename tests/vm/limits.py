"""Limits in force on cgroup v2 with the systemd driver: memory, CPU, processes, huge pages."""
import glob, re, signal, subprocess, sys
from node import container, pod, read, until

PIDS = 120
# Twice what it may have; what is killed is a child, but the container ends as a whole.
GREEDY = "echo end; dd if=/dev/zero of=/dev/null bs=128M count=1; sleep 5; echo went on; exit 3"
# Memory that is held, bytes on a disk, and all the CPU time that there is.
BUSY = "dd if=/dev/zero of=/dev/shm/held bs=1M count=20 2>&1; dd if=/dev/zero of=/disk/written bs=1M count=8 conv=fsync 2>&1; echo end; while :; do :; done"
# A shell that cannot fork ends.
MANY = f"(i=0; while [ $i -lt {PIDS + 30} ]; do sleep 10000 & i=$((i+1)); done; echo all of them); echo end; exec sleep 10000"

# Becomes one of a container's processes, and uses so many huge pages: who may not have one dies of it.
HUGE = """import mmap, os, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as f: f.write(str(os.getpid()))
pages = mmap.mmap(-1, int(sys.argv[2]) << 21, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
for at in range(0, len(pages), 1 << 21): pages[at] = 1
"""
HUGE_PAGES = 2


def pods():
    # More than the pod may have, so that it is its limit that counts. The agent looks when it starts.
    with open("/proc/sys/vm/nr_hugepages", "w") as f: f.write(str(4 * HUGE_PAGES))
    limits = lambda **limits: {"resources": {"limits": limits}}
    disk = {"volumeMounts": [{"name": "disk", "mountPath": "/disk"}]}
    # systemd removes a container's cgroup at its end, with the count of kills: several, because that is a race.
    greedy = [container(GREEDY, name, **limits(memory="64Mi")) for name in ("main", "two", "three", "four")]
    return [pod("greedy", *greedy, restartPolicy="Never"), pod("many", container(MANY)),
            pod("huge", container("mount | grep /pages; echo end; exec sleep 10000", **limits(**{"hugepages-2Mi": f"{2 * HUGE_PAGES}Mi", "memory": "64Mi"}), volumeMounts=[{"name": "pages", "mountPath": "/pages"}]), volumes=[{"name": "pages", "emptyDir": {"medium": "HugePages"}}]),
            pod("busy", container(BUSY, **limits(cpu="200m", memory="64Mi"), **disk), volumes=[{"name": "disk", "emptyDir": {}}])]


def number(text, name): return int((re.search(rf"^{name} (\d+)", text, re.M) or [0, -1])[1])


def check(check, agent, known):
    ended = [s["state"].get("terminated", {}) for s in known["greedy"]["status"]["containerStatuses"]]
    check("memory: who is over the limit is OOMKilled, as a whole", [(e.get("reason"), e.get("exitCode")) for e in ended] == [("OOMKilled", 137)] * 4 and "went on" not in agent.log_of("greedy"), (ended, agent.log_of("greedy")))
    scope = agent.cgroup("busy", "main"); seen = ""
    def is_throttled():
        nonlocal seen
        seen = read(f"{scope}/cpu.stat"); return number(seen, "nr_throttled") >= 10
    until(is_throttled, 60)
    check("CPU: who is over the limit is throttled", number(seen, "nr_throttled") >= 10 and read(f"{scope}/cpu.max") == "20000 100000\n", (scope, seen))
    # Before Linux 6.11 the group whose fork failed counts, since then the one whose limit it was.
    slice = agent.cgroup("many"); events = [read(group) for group in glob.glob(f"{slice}/**/pids.events", recursive=True)]
    check("processes: a pod has as many as it may and no more", read(f"{slice}/pids.max") == f"{PIDS}\n" and PIDS - 2 <= int(read(f"{slice}/pids.current") or 0) <= PIDS and any(number(e, "max") > 0 for e in events), (slice, read(f"{slice}/pids.max"), read(f"{slice}/pids.current"), events))
    check("processes: its container is refused more", any("can't fork" in line for line in agent.log_of("many")) and "all of them" not in agent.log_of("many"), agent.log_of("many"))
    scope = agent.cgroup("huge", "main"); uses = lambda pages: subprocess.run([sys.executable, "-c", HUGE, scope, str(pages)]).returncode
    check("huge pages: a pod gets its volume of them", any("hugetlbfs" in line for line in agent.said("huge")), agent.log_of("huge"))
    check("huge pages: a container may have its limit of them", read(f"{scope}/hugetlb.2MB.max") == f"{HUGE_PAGES << 21}\n" and uses(HUGE_PAGES) == 0, (scope, read(f"{scope}/hugetlb.2MB.max")))
    check("huge pages: and no more", (ended := uses(HUGE_PAGES + 1)) == -signal.SIGBUS, ended)
