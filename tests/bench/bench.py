#!/usr/bin/env python3
"""How fast and how small a kubelet is, beside bare calls to the runtime in the same run. Called by ./x bench.

usage: bench.py start|memory|restart|embedded|metrics|all --kubelet NAME=BIN [--kubelet NAME=BIN ...] --barecri BARECRI [--containerd DIR] [--rounds N] [--pods N]

start    from the rename of a static pod's manifest to the first instruction of its workload, one pod after the other, on the host's
         network and on a bridge; from killing a workload to the first instruction of its successor; N pods at once, until the last.
         bare: RunPodSandbox, CreateContainer, StartContainer of the same; for the restart from the kill until the runtime says that
         it exited, then CreateContainer and StartContainer; N at once with the same parallelism.
memory   PSS of the kubelet with 1 and with N pods, CPU per hour at rest with N pods (measured for 60 s), size of the binary.
restart  SIGKILL of the kubelet with N pods running, and its start, until /pods shows all Running; restarts of containers (wanted: none).
embedded the same starts on rubelet's embedded runtime (bridge: its built-in network), beside bare calls to containerd; PSS of what stays beside
         an idle pod (shims and pause) and of the whole tree with 10 pods; an archive of images imported and unpacked, beside ctr's import.
metrics  CPU time of the kubelet (embedded runtime; upstream's: on containerd) for one scrape of all its metrics pages with N pods (start it with --pods 100), and
         how much its memory grows at most meanwhile; CPU time when it is scraped every 15 and 30 s, with what it does all the time. bare: a program that does nothing but open and read the files that such a scrape was seen to read.
Times are of CLOCK_MONOTONIC, which the workload reads itself. p50/p95 over all rounds. A ratio is to bare, at p50.
"""
import argparse, json, os, re, signal, statistics, subprocess, sys, tempfile, threading, time, urllib.request
sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../lib"))
import images
from machine import PAUSE, PODS, Embedded, Machine, end, port_is_taken, wait

IMAGE, START_SECS_MAX, REST_SECS, SETTLE_SECS = "localhost/rubelet/first:1", 120, 60, 20
# A node's own reserve must not refuse the pods of a small test machine.
CONFIG = {"evictionHard": {"memory.available": "1Mi"}, "maxPods": 250}


def manifest(name, folder, network):
    spec = {"terminationGracePeriodSeconds": 1, "containers": [{"name": "first", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "volumeMounts": [{"name": "stamp", "mountPath": "/stamp"}]}],
            "volumes": [{"name": "stamp", "hostPath": {"path": folder, "type": "DirectoryOrCreate"}}]}
    if network == "host": spec["hostNetwork"] = True
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})


def first_image():
    here = os.path.dirname(os.path.realpath(__file__))
    with tempfile.TemporaryDirectory() as work:
        subprocess.run(["gcc", "-Os", "-static", "-s", "-o", f"{work}/first", f"{here}/first.c"], check=True)
        layer = images.Layer(); layer.copy("/first", f"{work}/first"); layer.folder("/stamp")
    return images.image(layer, Entrypoint=["/first"])


class Subject:
    """One kubelet on its own machine."""
    def __init__(self, args, binary):
        self.args, self.binary = args, binary; self.machine = Machine(tempfile.mkdtemp(prefix="rubelet-bench-", dir="/var/lib"), args.containerd, bridge="bench0", subnet="10.89.0.0/16")
        self.stamps = f"{self.machine.work}/stamps"; os.makedirs(self.stamps); images.archive(f"{self.machine.work}/images.tar", {PAUSE: images.pause(), IMAGE: first_image()})
        self.containerd = self.machine.start_containerd(f"{self.machine.work}/images.tar")

    def start_kubelet(self):
        self.process = self.machine.start_kubelet(self.binary, CONFIG)
        if wait(lambda: self.machine.pods() is not None, 60) is None: raise RuntimeError(f"{self.binary} does not serve {PODS}: {self.log_end()}")

    def log_end(self):
        with open(f"{self.machine.work}/log/kubelet.log", errors="replace") as f: return "".join(f.readlines()[-5:])

    def apply(self, name, network):
        hidden = f"{self.machine.work}/manifests/.{name}"
        with open(hidden, "w") as f: f.write(manifest(name, f"{self.stamps}/{name}", network))
        at = time.monotonic_ns(); os.rename(hidden, f"{self.machine.work}/manifests/{name}.json"); return at

    def stamp(self, name, count=1):
        def read():
            with open(f"{self.stamps}/{name}/at") as f: lines = f.read().splitlines()
            return int(lines[count - 1]) if len(lines) >= count else None
        if (at := wait(read, START_SECS_MAX)) is None: raise RuntimeError(f"{name}: no start {count}: {self.log_end()}")
        return at

    def all_running(self, count):
        pods = self.machine.pods()
        return len(pods) == count and all(p["status"].get("phase") == "Running" and all(s["ready"] for s in p["status"]["containerStatuses"]) for p in pods)

    def remove(self, names):
        for name in names: os.unlink(f"{self.machine.work}/manifests/{name}.json")
        if not wait(lambda: not self.machine.tasks(), START_SECS_MAX): raise RuntimeError(f"pods are not removed: {self.log_end()}")
        wait(lambda: not self.machine.pods(), START_SECS_MAX)

    def workload(self, name):
        for process in os.listdir("/proc"):
            try:
                with open(f"/proc/{process}/comm") as f, open(f"/proc/{process}/mountinfo") as g:
                    if f.read().strip() == "first" and f"/{name} /stamp" in g.read(): return int(process)
            except OSError: pass
        raise RuntimeError(f"no workload of {name}")

    def one_by_one(self, network, rounds):
        starts, agains = [], []
        for i in range(rounds):
            name = f"{network}-{i}"; at = self.apply(name, network); starts.append((self.stamp(name) - at) / 1e6)
            wait(lambda: self.all_running(1), 60); pid = self.workload(name)
            at = time.monotonic_ns(); os.kill(pid, signal.SIGKILL); agains.append((self.stamp(name, 2) - at) / 1e6); self.remove([name])
        return starts, agains

    def at_once(self, count, network="cni", prefix="many"):
        names = [f"{prefix}-{i}" for i in range(count)]; at = [self.apply(name, network) for name in names][0]
        return names, [(self.stamp(name) - at) / 1e6 for name in names]

    def bare(self, network, count, at_once=1):
        done = subprocess.run([self.args.barecri, self.machine.sock, f"{self.stamps}", network, IMAGE, str(count), str(at_once)], capture_output=True, text=True)
        if done.returncode: raise RuntimeError(done.stderr)
        rows = [[float(v) for v in line.split()] for line in done.stdout.splitlines()]; return [r[0] for r in rows], [r[1] for r in rows]


class EmbeddedSubject(Subject):
    """The kubelet with its embedded runtime."""
    def __init__(self, args, binary):
        self.args, self.binary = args, binary; self.machine = Embedded(tempfile.mkdtemp(prefix="rubelet-bench-", dir="/var/lib"))
        self.stamps = f"{self.machine.work}/stamps"; os.makedirs(self.stamps); self.machine.start_runtime({}, ""); self.containerd = ""
        images.archive(f"{self.machine.work}/import/images.tar", {IMAGE: first_image()})

    def tree(self):
        """All its processes: by the name of their program."""
        pids = [self.process.pid]
        for process in filter(str.isdigit, os.listdir("/proc")):
            try:
                if int(process) != self.process.pid and os.path.samefile(f"/proc/{process}/exe", self.binary): pids.append(int(process))
                with open(f"/proc/{process}/comm") as f, open(f"/proc/{process}/mountinfo") as g:
                    if f.read().strip() == "first" and self.stamps in g.read(): pids.append(int(process))
            except OSError: pass
        return pids

    def import_secs(self, archive):
        own = [f"--embedded-root-dir={self.machine.work}/unpacked", f"--embedded-run-dir={self.machine.work}/unpacking"]
        at = time.monotonic(); subprocess.run([self.binary, "image", "import", archive, *own], check=True, capture_output=True); return time.monotonic() - at


def comm(pid):
    with open(f"/proc/{pid}/comm") as f: return f.read().strip()


def pss_mib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f: return int(re.search(r"^Pss:\s+(\d+)", f.read(), re.M).group(1)) / 1024


def cpu_secs(pid):
    with open(f"/proc/{pid}/stat") as f: fields = f.read().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")  # its own and that of children it waited for


def percentile(values, part): return sorted(values)[min(len(values) - 1, int(len(values) * part))]


def row(table, what, name, values, bare=None, unit="ms"):
    p50, p95 = statistics.median(values), percentile(values, .95)
    table.append([what, name, f"{p50:.0f}" if p50 >= 10 else f"{p50:.1f}", f"{p95:.0f}" if len(values) > 1 else "", unit, f"{p50 / statistics.median(bare):.2f}" if bare else ""])


def bench_start(args, subject, name, table):
    for network in ("host", "cni"):
        # Half of the bare calls before, half after: a machine that gets slower meanwhile slows both.
        bare = subject.bare(network, args.rounds // 2 + 1); subject.start_kubelet(); starts, agains = subject.one_by_one(network, args.rounds); end(subject.process)
        more = subject.bare(network, args.rounds // 2 + 1); bare_starts, bare_agains = bare[0] + more[0], bare[1] + more[1]
        row(table, f"start, {network}", "bare", bare_starts); row(table, f"start, {network}", name, starts, bare_starts)
        row(table, f"start after a crash, {network}", "bare", bare_agains); row(table, f"start after a crash, {network}", name, agains, bare_agains)
    many = lambda: max(subject.bare("cni", args.pods, args.pods)[0])
    bare, ours = [many()], []
    for i in range(AT_ONCE_ROUNDS):
        subject.start_kubelet(); names, times = subject.at_once(args.pods, prefix=f"many-{i}"); ours.append(max(times)); subject.remove(names); end(subject.process); bare.append(many())
    row(table, f"{args.pods} pods at once, the last", "bare", bare); row(table, f"{args.pods} pods at once, the last", name, ours, bare)


def bench_memory(args, subject, name, table):
    subject.start_kubelet(); pid = subject.process.pid; subject.at_once(1, prefix="one"); time.sleep(SETTLE_SECS)
    row(table, "PSS, 1 pod", name, [pss_mib(pid)], unit="MiB")
    subject.at_once(args.pods - 1); wait(lambda: subject.all_running(args.pods), START_SECS_MAX); time.sleep(SETTLE_SECS); before = cpu_secs(pid); time.sleep(REST_SECS)
    row(table, f"CPU at rest, {args.pods} pods", name, [1000 * (cpu_secs(pid) - before) / REST_SECS], unit="ms/s"); row(table, f"PSS, {args.pods} pods", name, [pss_mib(pid)], unit="MiB")
    row(table, "binary", name, [os.path.getsize(os.path.realpath(subject.binary)) / 1e6], unit="MB")


def bench_restart(args, subject, name, table):
    subject.start_kubelet(); subject.at_once(args.pods); wait(lambda: subject.all_running(args.pods), START_SECS_MAX); times = []
    for _ in range(3):
        subject.process.kill(); subject.process.wait(); at = time.monotonic(); subject.process = subject.machine.start_kubelet(subject.binary, CONFIG)
        if not wait(lambda: subject.all_running(args.pods), START_SECS_MAX): raise RuntimeError(f"not all pods are Running again: {subject.log_end()}")
        times.append(1000 * (time.monotonic() - at))
    time.sleep(5); again = sum(len(open(f"{subject.stamps}/many-{i}/at").readlines()) - 1 for i in range(args.pods))
    counted = sum(s["restartCount"] for p in subject.machine.pods() for s in p["status"]["containerStatuses"])
    row(table, f"kubelet killed, {args.pods} pods Running again", name, times); row(table, "containers restarted by that", name, [max(again, counted)], unit="")


def bench_embedded(args, subject, name, table):
    archive = os.environ.get("X_CACHE", "/var/cache/rubelet") + "/images/golden.tar"
    bare = {network: subject.bare(network, args.rounds) for network in ("host", "cni")}; unpacks = []
    for _ in range(3 if os.path.exists(archive) else 0):
        at = time.monotonic(); subject.machine.ctr("images", "import", archive); unpacks.append(1000 * (time.monotonic() - at))
        for image in subject.machine.ctr("images", "ls", "-q").stdout.split():
            if "e2e-test" in image: subject.machine.ctr("images", "rm", "--sync", image)
    own = EmbeddedSubject(args, subject.binary)
    try:
        for network, shown in (("host", "host"), ("cni", "bridge")):
            own.start_kubelet(); starts, agains = own.one_by_one(network, args.rounds); end(own.process)
            row(table, f"embedded: start, {shown}", "bare", bare[network][0]); row(table, f"embedded: start, {shown}", name, starts, bare[network][0])
            row(table, f"embedded: start after a crash, {shown}", "bare", bare[network][1]); row(table, f"embedded: start after a crash, {shown}", name, agains, bare[network][1])
        if unpacks:
            mine = []
            for _ in range(3): mine.append(1000 * own.import_secs(archive)); subprocess.run(["rm", "-rf", f"{own.machine.work}/unpacked"])
            row(table, "embedded: import of 64 MB in 4 images", "bare", unpacks); row(table, "embedded: import of 64 MB in 4 images", name, mine, unpacks)
        own.start_kubelet(); own.at_once(10, prefix="ten"); wait(lambda: own.all_running(10), START_SECS_MAX); time.sleep(SETTLE_SECS)
        sizes = {pid: pss_mib(pid) for pid in own.tree()}; beside = [size for pid, size in sizes.items() if comm(pid) in ("rubelet-shim", "pause")]
        row(table, "embedded: PSS of shims and pause, per pod of one container", name, [sum(beside) / 10], unit="MiB"); row(table, "embedded: PSS of the agent", name, [sizes[own.process.pid]], unit="MiB")
        row(table, "embedded: PSS of everything with 10 pods", name, [sum(sizes.values())], unit="MiB"); own.remove([f"ten-{i}" for i in range(10)]); end(own.process)
    finally: own.machine.stop()


# In turn with the bare ones: what so many processes need of a machine differs by a quarter from one time to the next.
AT_ONCE_ROUNDS = 4
PAGES, SCRAPES = ("/metrics", "/metrics/cadvisor", "/metrics/probes", "/metrics/resource"), 30
# Upstream reads in the background what its pages tell: what they cost shows only in what it uses all the time.
SPACED, SPACED_SECS = 4, (15, 30)


class Watched:
    """The most memory that a process has meanwhile, by kind, as often as it can be looked at."""
    def __init__(self, pid): self.pid, self.first, self.most, self.is_over = pid, {}, {}, threading.Event()
    def look(self):
        with open(f"/proc/{self.pid}/status") as f: now = {kind: int(size) for kind, size in re.findall(r"(Rss\w+):\s+(\d+)", f.read())}
        for kind, size in now.items(): self.first.setdefault(kind, size); self.most[kind] = max(size, self.most.get(kind, 0))
    def watch(self):
        while not self.is_over.wait(0.002): self.look()
    def grown(self, kind): return (self.most[kind] - self.first[kind]) / 1024
    def __enter__(self): self.look(); self.thread = threading.Thread(target=self.watch); self.thread.start(); return self
    def __exit__(self, *_): self.is_over.set(); self.thread.join()


def scrape(times):
    for _ in range(times):
        for page in PAGES: urllib.request.urlopen(PODS.replace("/pods", page), timeout=30).read()


def files_read(pid):
    """What one scrape opens, in order, as lines for reread.c."""
    with tempfile.NamedTemporaryFile("r") as trace:
        strace = subprocess.Popen(["strace", "-f", "-y", "-s", "4096", "-e", "trace=openat,getdents64", "-o", trace.name, "-p", str(pid)], stderr=subprocess.DEVNULL)
        time.sleep(1); scrape(1); end(strace); lines, order, partial = trace.read().splitlines(), [], {}
    whole = []
    for line in lines:
        thread, text = line.split(None, 1)
        if text.endswith("<unfinished ...>"): partial[thread] = text[:-len("<unfinished ...>")]; continue
        if (resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", text)): text = partial.pop(thread, "") + resumed.group(1)
        whole.append(text)
    for text in whole:
        if (found := re.match(r'openat\((AT_FDCWD|\d+)(?:<([^>]*)>)?, "([^"]*)", (\S+?)[,)].*= (\d+)', text)):
            at, folder, name, flags, _ = found.groups(); folder = "" if at == "AT_FDCWD" else folder
            order.append(["D" if "O_DIRECTORY" in flags else "F", folder, name])
        elif (found := re.match(r"getdents64\(\d+<([^>]*)>", text)):
            for entry in reversed(order):
                if entry[0] in "DL" and os.path.join(entry[1], entry[2]).rstrip("/") == found.group(1).rstrip("/"): entry[0] = "L"; break
    return "".join("\t".join(e) + "\n" for e in order)


def bench_metrics(args, subject, name, table):
    own = EmbeddedSubject(args, subject.binary) if name != "upstream" else subject
    try:
        own.start_kubelet(); pid = own.process.pid; own.at_once(args.pods, prefix="told"); wait(lambda: own.all_running(args.pods), START_SECS_MAX); time.sleep(SETTLE_SECS)
        scrape(2); time.sleep(SETTLE_SECS); before_mib = pss_mib(pid)
        at_rest = cpu_secs(pid); time.sleep(10); at_rest = (cpu_secs(pid) - at_rest) / 10
        before, at = cpu_secs(pid), time.monotonic()
        with Watched(pid) as most: scrape(SCRAPES)
        took = time.monotonic() - at; used = (cpu_secs(pid) - before - at_rest * took) / SCRAPES
        what = f"CPU of a scrape of all pages, {args.pods} pods"
        if name != "upstream":
            with tempfile.TemporaryDirectory() as work:
                here = os.path.dirname(os.path.realpath(__file__)); subprocess.run(["gcc", "-O2", "-o", f"{work}/reread", f"{here}/reread.c"], check=True)
                with open(f"{work}/list", "w") as f: f.write(files_read(pid))
                bare = float(subprocess.run([f"{work}/reread", f"{work}/list", str(SCRAPES)], check=True, capture_output=True, text=True).stdout)
                if os.environ.get("X_KEEP"): subprocess.run(["cp", f"{work}/list", os.environ["X_KEEP"]])
            row(table, what, "bare", [1000 * bare / SCRAPES]); row(table, what, name, [1000 * used], [1000 * bare / SCRAPES])
        else: row(table, what, name, [1000 * used])
        row(table, "size of all pages", name, [sum(len(urllib.request.urlopen(PODS.replace("/pods", p)).read()) for p in PAGES) / 1e6], unit="MB")
        row(table, "memory of its own at most above that at rest", name, [most.grown("RssAnon")], unit="MiB"); row(table, "its program in the page cache, mapped at most above that at rest", name, [most.grown("RssFile")], unit="MiB")
        for secs in SPACED_SECS:
            before, at = cpu_secs(pid), time.monotonic()
            for _ in range(SPACED): scrape(1); at += secs; time.sleep(max(0, at - time.monotonic()))
            row(table, f"CPU with a scrape every {secs} s", name, [1000 * (cpu_secs(pid) - before) / (SPACED * secs)], unit="ms/s")
        time.sleep(SETTLE_SECS)
        row(table, "PSS, at rest after scrapes, more than before", name, [pss_mib(pid) - before_mib], unit="MiB")
        own.remove([f"told-{i}" for i in range(args.pods)]); end(own.process)
    finally:
        if own is not subject: own.machine.stop()


KINDS = {"start": bench_start, "memory": bench_memory, "restart": bench_restart, "embedded": bench_embedded, "metrics": bench_metrics}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=[*KINDS, "all"]); parser.add_argument("--kubelet", action="append", required=True); parser.add_argument("--barecri", required=True)
    parser.add_argument("--containerd"); parser.add_argument("--rounds", type=int, default=10); parser.add_argument("--pods", type=int, default=50); args = parser.parse_args()
    if port_is_taken(10255): sys.exit("x: bench: another kubelet runs here (port 10255 is taken)")
    table, failed = [], False
    for name, binary in (k.split("=", 1) for k in args.kubelet):
        for kind in KINDS if args.kind == "all" else [args.kind]:
            subject = None
            try: print(f"{name}: {kind} …", flush=True); subject = Subject(args, binary); KINDS[kind](args, subject, name, table)
            except RuntimeError as error: failed = True; print(f"x: bench: {name}: {error}", file=sys.stderr)
            finally:
                if subject: version = subject.containerd; subject.machine.stop()
    print(f"\n{os.cpu_count()} CPUs, Linux {os.uname().release}, containerd {version}, {args.rounds} rounds; bare: the same calls to the runtime, with nothing in between\n")
    order = [t[0] for t in table]; table = sorted(table, key=lambda r: order.index(r[0])); table.insert(0, ["", "", "p50", "p95", "unit", "to bare"]); widths = [max(len(r[i]) for r in table) for i in range(6)]
    for r in table: print("  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))).rstrip())
    sys.exit(failed)


if __name__ == "__main__":
    main()
