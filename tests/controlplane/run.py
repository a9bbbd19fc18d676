#!/usr/bin/env python3
"""A control plane on loopback: etcd, kube-apiserver, and the others if wanted.

usage: run.py up DIR [OPTION ...]     start it; DIR gets admin.conf, NODE.conf (user system:node:NODE), bootstrap.conf, ca.crt, log/
       run.py down DIR                stop it
       run.py hold DIR [OPTION ...]   start it, say `ready`, stop it when standard input ends; lines `stop PART` and `start PART` are done and answered with `done`
       run.py programs                build and fetch the programs and say where they are
"""
import argparse, os, shutil, sys

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../lib"))
from controlplane import PARTS, ControlPlane, programs


def hold(plane):
    with plane:
        print("ready", flush=True)
        for line in sys.stdin:
            verb, _, part = line.strip().partition(" ")
            if verb not in ("stop", "start", "kill") or part not in PARTS: print(f"what is {line.strip()!r}?", flush=True); continue
            plane.start(part) if verb == "start" else plane.stop(part, 9 if verb == "kill" else 15)
            print("done", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("up", "hold"):
        verb = verbs.add_parser(name); verb.add_argument("dir")
        verb.add_argument("--node", action="append", help="a node's name (more than once; default node-a)")
        verb.add_argument("--controllers", action="store_true", help="with kube-controller-manager, which also signs certificates")
        verb.add_argument("--scheduler", action="store_true", help="with kube-scheduler")
        verb.add_argument("--etcd", default="etcd", choices=["etcd", "etcd-forky"], help="Debian 12's 3.4 (no streamed lists), or Debian forky's 3.5")
        verb.add_argument("--audit", action="store_true", help="what nodes say goes to DIR/audit.jsonl")
        for part in PARTS: verb.add_argument(f"--{part}-flag", action="append", default=[], metavar="--FLAG=VALUE", help=f"one more flag for {part}")
    verbs.add_parser("down").add_argument("dir"); verbs.add_parser("programs")
    o = parser.parse_args()
    try:
        if o.verb == "programs":
            for name, command in programs().items(): print(name, *command)
        elif o.verb == "down":
            if os.path.exists(f"{o.dir}/state.json"): ControlPlane.of(o.dir).down()
        else:
            flags = {part: getattr(o, f"{part}_flag") for part in PARTS}
            plane = ControlPlane(o.dir, o.node or ["node-a"], o.controllers, o.scheduler, o.etcd, o.audit, flags, dies_with_us=o.verb == "hold")
            if o.verb == "hold": hold(plane)
            else:
                plane.up()
                print(f"https://127.0.0.1:{plane.ports['apiserver']}; kubeconfigs: {', '.join(f'{plane.work}/{n}.conf' for n in ['admin', 'bootstrap', *plane.nodes])}; kubectl: {' '.join(plane.programs.get('kubectl', ['none']))}")
    except (RuntimeError, OSError) as e: sys.exit(f"controlplane: {e}")


if __name__ == "__main__": main()
