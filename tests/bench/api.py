#!/usr/bin/env python3
"""How fast logs and commands go through a kubelet's API, beside what could not be faster in the same run. Called by ./x bench api.

usage: api.py --kubelet NAME=BIN [--kubelet NAME=BIN ...] --barecri BARECRI [--containerd DIR] [--rounds N] [--execs N]

log    curl reads a container's log of 1 GiB (lines of 100 bytes) over TLS 1.3 with one cipher, and a file with the same text from Debian's nginx, in turn;
       MiB/s of text, p50. --tail=10 of the same: until the first byte, and what it adds to the memory of the kubelet (PSS).
exec   /bin/true over a WebSocket, from dialing until the stream has ended; bare: the runtime's own Exec and stream, by the same client, without TLS. Half of the
       bare ones before, half after. The kubelet named rubelet also runs on its embedded runtime, whose own are measured by `rubelet cri` afterwards.
To be run in a mount and a network namespace of its own.
"""
import argparse, os, statistics, subprocess, sys

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [HERE, f"{HERE}/../api", f"{HERE}/../lib"]
from controlplane import wait
from load import pss_mib
from machine import Embedded, end
from node import NAME, PORT, Node, enter_alone, sh

FILE_BYTES, TEXT, STAMP, CIPHER, NGINX_PORT = 1 << 30, "0123456789" * 9 + "abcdefghi", "2026-01-01T00:00:00.000000000Z stdout F ", "TLS_AES_128_GCM_SHA256", 8443
POD = f"default/shell-{NAME}/shell"
NGINX = """daemon off; worker_processes 1; pid {work}/nginx.pid; error_log stderr;
events {{}}
http {{ access_log off; sendfile on; server {{ listen 127.0.0.1:{port} ssl; ssl_certificate {work}/pki/kubelet.crt; ssl_certificate_key {work}/pki/kubelet.key; ssl_protocols TLSv1.3; root {work}/static; }} }}
"""


class Subject(Node):
    """A kubelet that answers everyone, with one pod."""
    def __init__(self, kind, kubelet): super().__init__(kind, kubelet, None, {"shell": sh("trap 'exit 0' TERM; sleep 100000 & wait")})
    def start_kubelet(self):
        config = {"cgroupRoot": f"/{self.cgroup}", "cgroupDriver": "cgroupfs", "evictionHard": {"memory.available": "1Mi"}, "containerLogMaxSize": "16Gi"}
        self.process = self.machine.start_kubelet(self.kubelet, config, ["--hostname-override", NAME])
    def register(self): pass
    def unregister(self): pass
    def container(self): return self.pod("shell")["status"]["containerStatuses"][0]["containerID"].split("://")[1]

    def write_log(self):
        """A log of FILE_BYTES; the number of bytes of its text."""
        line = f"{STAMP}{TEXT}\n".encode(); block = line * 8192
        with open(f"{self.logs('shell')}/0.log", "wb") as f:
            for _ in range(FILE_BYTES // len(block)): f.write(block)
        return FILE_BYTES // len(block) * 8192 * (len(TEXT) + 1)

    def start_nginx(self, text_bytes):
        work = self.machine.work; os.makedirs(f"{work}/static"); block = f"{TEXT}\n".encode() * 8192; os.chmod(work, 0o755)
        with open(f"{work}/static/log", "wb") as f:
            for _ in range(text_bytes // len(block)): f.write(block)
        self.machine.write("nginx.conf", NGINX.format(work=work, port=NGINX_PORT)); self.machine.spawn("nginx", ["nginx", "-c", f"{work}/nginx.conf"])
        wait(lambda: subprocess.run(["curl", "-sk", "-o", "/dev/null", "-r", "0-9", f"https://127.0.0.1:{NGINX_PORT}/log"]).returncode == 0, 10)


def curl(url, wanted=None):
    """Seconds until the first byte and until the last."""
    done = subprocess.run(["curl", "-skf", "--http1.1", "--tls13-ciphers", CIPHER, "-o", "/dev/null", "-w", "%{time_starttransfer} %{time_total} %{size_download}", url], capture_output=True, text=True)
    if done.returncode: raise RuntimeError(f"curl {url}: {done.returncode} {done.stderr}")
    first, last, size = done.stdout.split()
    if wanted is not None and int(size) != wanted: raise RuntimeError(f"curl {url}: {size} bytes instead of {wanted}")
    return float(first), float(last)


def bench_log(args, name, subject, table):
    size = subject.write_log(); subject.start_nginx(size); pid, mib = subject.process.pid, size / (1 << 20)
    log, static = f"https://127.0.0.1:{PORT}/containerLogs/{POD}", f"https://127.0.0.1:{NGINX_PORT}/log"
    curl(static, size)
    before = pss_mib(pid); firsts = [1000 * curl(f"{log}?tailLines=10", 10 * (len(TEXT) + 1))[0] for _ in range(args.rounds)]; added = pss_mib(pid) - before
    theirs, ours = [], []
    for _ in range(args.rounds): theirs.append(mib / curl(static, size)[1]); ours.append(mib / curl(log, size)[1])
    table += [["log, whole", f"nginx (beside {name})", theirs, "MiB/s", None], ["log, whole", name, ours, "MiB/s", theirs], ["log, last 10 lines of 1 GiB: first byte", name, firsts, "ms", None],
              ["log, last 10 lines of 1 GiB: memory", name, [added], "MiB", None], ["log: memory after all of it", name, [pss_mib(pid)], "MiB", None]]


def execs(args, at, container, count):
    done = subprocess.run([args.barecri, "exec", at, container, str(count)], capture_output=True, text=True)
    if done.returncode: raise RuntimeError(done.stderr)
    return [[float(word) for word in line.split()] for line in done.stdout.splitlines()]


def bench_exec(args, name, subject, table):
    api, container, half = f"https://127.0.0.1:{PORT}", subject.container(), args.execs // 2
    execs(args, api, POD, 3)
    if isinstance(subject.machine, Embedded):
        ours = execs(args, api, POD, args.execs); machine = subject.machine; end(subject.process)
        machine.spawn("cri", [subject.kubelet, "cri", f"--listen=unix://{machine.sock}", *machine.own(), "--cgroup-driver", "cgroupfs"]); wait(lambda: os.path.exists(machine.sock), 30)
        execs(args, machine.sock, container, 3); bare, kind = execs(args, machine.sock, container, args.execs), "embedded"
    else:
        bare = execs(args, subject.machine.sock, container, half); ours = execs(args, api, POD, args.execs); bare += execs(args, subject.machine.sock, container, half); kind = "containerd"
    bare = [took for took, _ in bare]
    table += [[f"exec, {kind}", f"bare (beside {name})", bare, "ms", None], [f"exec, {kind}", name, [took for took, _ in ours], "ms", bare],
              [f"exec, {kind}: but for the handshake of TLS", name, [took - handshake for took, handshake in ours], "ms", bare]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kubelet", action="append", required=True); parser.add_argument("--barecri", required=True); parser.add_argument("--containerd"); parser.add_argument("--rounds", type=int, default=5); parser.add_argument("--execs", type=int, default=40)
    args = parser.parse_args(); enter_alone(); table, failed = [], False
    for name, binary in (k.split("=", 1) for k in args.kubelet):
        for kind in ["embedded", args.containerd] if name == "rubelet" else [args.containerd]:
            print(f"{name} on {kind or 'containerd'} …", flush=True)
            try:
                with Subject(kind, binary) as subject:
                    if kind == "embedded" or name != "rubelet": bench_log(args, name, subject, table)
                    bench_exec(args, name, subject, table)
            except RuntimeError as error: failed = True; print(f"x: bench: {name}: {error}", file=sys.stderr)
    print(f"\n{os.cpu_count()} CPUs, Linux {os.uname().release}, p50 of {args.rounds} logs and {args.execs} commands\n")
    shown = [["", "", "p50", "unit", "to the one above"]] + [[what, who, f"{statistics.median(values):.1f}", unit, f"{statistics.median(values) / statistics.median(beside):.2f}" if beside else ""] for what, who, values, unit, beside in table]
    widths = [max(len(r[i]) for r in shown) for i in range(5)]
    for r in shown: print("  ".join(c.ljust(w) if i < 2 else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths))).rstrip())
    sys.exit(failed)


if __name__ == "__main__": main()
