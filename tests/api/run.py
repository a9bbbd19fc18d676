#!/usr/bin/env python3
"""The agent's API as real clients use it: kubectl of Debian forky through a real API server, on each runtime; then many clients at once.

usage: run.py --kubelet BIN [--runtime embedded|containerd1|containerd2] ... [--containerd2 DIR] [--scraper METRICS-SERVER] [--peers PEERS] [--record FILE] [PART ...]
parts: clients access allowed top peers noise load (all by default; top and noise on the first runtime); top needs a --scraper, peers --peers. --record FILE: what the kubelet answers those whom it lets in is written there, and nothing else done
To be run in a mount and a network namespace of its own (tests/lib/alone.sh). The last line is `check: N passed, N failed`.
"""
import argparse, os, signal, sys, tempfile, time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.realpath(__file__))
sys.path[:0] = [HERE, f"{HERE}/../lib"]
import access, allowed, clients, load, noise, peers, top
from node import NAME, Node, enter_alone

results = []


def check(what, passed, seen=None):
    results.append(bool(passed))
    print(("ok      " if passed else "FAILED  ") + what + ("" if passed or seen is None else f": {str(seen)[-600:]}"), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kubelet", required=True); parser.add_argument("--runtime", action="append"); parser.add_argument("--containerd2"); parser.add_argument("--scraper"); parser.add_argument("--peers"); parser.add_argument("--record"); parser.add_argument("part", nargs="*"); args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1)); enter_alone()
    parts, kinds = args.part or ["clients", "access", "allowed", "top", "peers", "noise", "load"], {"embedded": "embedded", "containerd1": None, "containerd2": args.containerd2}
    with tempfile.TemporaryDirectory(prefix="rubelet-plane-") as work, top.ControlPlane(work, nodes=[NAME]) as plane:
        for runtime in args.runtime or kinds:
            # What does not depend on the runtime is looked at once.
            if not args.part and runtime != (args.runtime or list(kinds))[0]: parts = [part for part in parts if part not in ("top", "noise")]
            tell = lambda what, passed, seen=None: check(f"{runtime}: {what}", passed, seen)
            try:
                if args.record:
                    with allowed.Recorded(kinds[runtime], args.kubelet, plane, allowed.CONTAINERS) as node: allowed.record(plane, node, args.record)
                    continue
                if {"clients", "access", "allowed", "top"} & set(parts):
                    with Node(kinds[runtime], args.kubelet, plane) as node:
                        if "clients" in parts: clients.all_checks(plane, node, tell, runtime == "embedded")
                        if "access" in parts: access.all_checks(plane, node, tell, runtime == "embedded")
                        if "allowed" in parts: allowed.all_checks(plane, node, tell)
                        if "top" in parts and args.scraper: top.all_checks(plane, args.scraper, tell)
                        tell("the agent lives", node.process.poll() is None, node.log_end())
                if "peers" in parts and args.peers: peers.all_checks(args.kubelet, kinds[runtime], plane, args.peers, tell)
                if "noise" in parts: noise.all_checks(args.kubelet, kinds[runtime], plane, tell)
                if "load" in parts: load.all_checks(args.kubelet, kinds[runtime], plane, tell)
            except RuntimeError as error: tell(f"broke off: {error}", False)
    print(f"check: {sum(results)} passed, {len(results) - sum(results)} failed"); sys.exit(not all(results))


if __name__ == "__main__": main()
