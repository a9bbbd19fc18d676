#!/usr/bin/env python3
"""The main job, checked from outside: usage: check_run.py COMMAND...

Starts COMMAND (which runs run.py on examples/pods), waits for its word that the pod runs, fetches the page, sees the log fill and
be truncated, kills nginx and sees it come back, sends ^C, and looks for anything left behind. Prints `check: N passed, N failed`.
"""
import glob, os, re, signal, subprocess, sys, threading, urllib.request
sys.dont_write_bytecode = True
from machine import kubepods, mounts_below
from golden import wait

START_SECS_MAX, RESTART_SECS_MAX, TRUNCATE_SECS_MAX = 300, 60, 25


def get(url): return urllib.request.urlopen(url, timeout=3).read().decode()
def nginx_masters(work): return [int(p.split("/")[2]) for p in glob.glob("/proc/[0-9]*/cmdline") if "nginx: master" in read(p) and work in read(p.replace("cmdline", "mountinfo"))]
def read(path):
    try:
        with open(path, errors="replace") as f: return f.read()
    except OSError: return ""


def left_behind(before):
    found = {"mounts": mounts_below("/var/lib/rubelet-run-"), "folders": glob.glob("/var/lib/rubelet-run-*"), "cgroups": sorted(kubepods()), "network namespaces": glob.glob("/run/netns/cni-*"),
             "bridge": glob.glob("/sys/class/net/rubelet0"), "processes": [p for p in glob.glob("/proc/[0-9]*/cmdline") if "/var/lib/rubelet-run-" in read(p)]}
    return {kind: [x for x in have if x not in before.get(kind, [])] for kind, have in found.items() if set(have) - set(before.get(kind, []))}


def main():
    before, lines, results = left_behind({}), [], []
    def check(what, passed): results.append(bool(passed)); print(("ok      " if passed else "FAILED  ") + what, flush=True)
    process = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)
    def follow():
        for line in process.stdout: lines.append(line); print("    " + line, end="", flush=True)
    reader = threading.Thread(target=follow); reader.start()
    try:
        said = wait(lambda: process.poll() is not None or re.search(r"curl (http://\S+:80/)(?s:.*)tail -F (/var/lib/rubelet-run-[^/]+)(?s:.*)\^C takes", "".join(lines)), START_SECS_MAX)
        check("says that the pod runs, and where", said and said is not True)
        if said and said is not True:
            url, work = said.group(1), said.group(2); log = lambda: glob.glob(f"{work}/kubelet/pods/*/volumes/kubernetes.io~empty-dir/nginx-logs/access.log")
            check("the pod's address serves nginx's page", wait(lambda: "Welcome to nginx" in get(url), 10))
            port = re.search(r" or (http://127.0.0.1:\d+/)", "".join(lines))
            check("a port of the host serves it, too", port and wait(lambda: "Welcome to nginx" in get(port.group(1)), 10))
            check("nginx writes its log into the emptyDir", wait(lambda: get(url) and os.path.getsize(log()[0]) > 0, 10))
            check("the other container truncates it", wait(lambda: os.path.getsize(log()[0]) == 0, TRUNCATE_SECS_MAX))
            first = nginx_masters(work)
            for pid in first: os.kill(pid, signal.SIGKILL)
            check("nginx, killed, comes back at the same address", first and wait(lambda: set(nginx_masters(work)) - set(first) and "Welcome" in get(url), RESTART_SECS_MAX))
    finally:
        if process.poll() is None: os.killpg(process.pid, signal.SIGINT)
        try: process.wait(120)
        except subprocess.TimeoutExpired: os.killpg(process.pid, signal.SIGKILL)
        reader.join(10)
    check("^C: ends well", process.returncode == 0); left = left_behind(before)
    check("^C: nothing is left" + (f": {left}" if left else ""), not left)
    print(f"check: {sum(results)} passed, {len(results) - sum(results)} failed"); sys.exit(not all(results))


if __name__ == "__main__":
    main()
