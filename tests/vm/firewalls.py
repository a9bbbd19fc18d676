#!/usr/bin/env python3
"""The embedded network beside Debian's Docker and firewalld, which come later and start anew: usage: firewalls.py RUBELET IMAGES.tar

A network namespace is the world, which asks the node's port; this machine asks the pod itself. Whether a pod gets out beside them is not shown here.
"""
import re, shutil, subprocess, sys, time
from node import NGINX, Agent, Checks, fetch, is_ready, pod, pods, run, until

TOP, WORLD, NODE, PORT = "/opt/firewalls", "10.98.0.2", "10.98.0.1", 8081
CONFIG = "/etc/firewalld/firewalld.conf"


def zone(change, name):
    for more in ([], ["--permanent"]): subprocess.run(["firewall-cmd", *more, f"--zone={name}", change], check=True, stdout=subprocess.DEVNULL)


def world():
    """A neighbour of this machine."""
    for line in ("netns add world", "link add world0 type veth peer name eth0 netns world", f"addr add {NODE}/24 dev world0", "link set world0 up", f"-n world addr add {WORLD}/24 dev eth0", "-n world link set eth0 up", "-n world link set lo up", f"-n world route add default via {NODE}"):
        subprocess.run(["ip", *line.split()], check=True)


def ways(agent):
    """Which ways are open: the world to the node's port, this machine to the pod's own address."""
    address = pods().get("served", {"status": {}})["status"].get("podIP")
    ask = f"import urllib.request; print(urllib.request.urlopen('http://{NODE}:{PORT}/', timeout=3).status)"
    port = run("ip", "netns", "exec", "world", sys.executable, "-c", ask).stdout.strip() == "200"
    own = "nginx" in fetch(f"http://{address}/")
    return {"port": port, "address": own}


def main():
    binary, images = sys.argv[1:3]; check = Checks(); agent = Agent(binary, TOP); shutil.copy(images, f"{TOP}/import/images.tar"); open_ways = {"port": True, "address": True}
    world()
    agent.wants(pod("served", {"name": "main", "image": NGINX, "imagePullPolicy": "Never", "ports": [{"containerPort": 80, "hostPort": PORT}]}))
    agent.start("out/firewalls.log")
    def are_open(what):
        began = time.time(); until(lambda: ways(agent) == open_ways, 90); seen = ways(agent)
        check(f"firewalls: {what}", seen == open_ways, seen); print(f"vm: open after {time.time() - began:.0f} s", flush=True)
    try:
        until(lambda: (known := pods()) and all(is_ready(known.get(name)) for name in ("served",)))
        are_open("without any, the port and the pod's address work")
        # Docker forbids to forward what is not its own if it is the one who switches forwarding on, as when it comes first.
        with open("/proc/sys/net/ipv4/ip_forward", "w") as f: f.write("0")
        subprocess.run(["systemctl", "start", "firewalld", "docker"], check=True)
        # The world is in another zone than what is in none: nothing goes from one to the other by itself.
        zone("--add-interface=world0", "home")
        # A table that firewalld keeps for itself: what docs/guides/embedded-runtime.md says.
        zone("--add-interface=rubelet0", "trusted")
        running = [run("systemctl", "is-active", unit).stdout.strip() for unit in ("firewalld", "docker")]
        check("firewalls: both run", running == ["active", "active"] and "policy drop" in run("nft", "list", "chain", "ip", "filter", "FORWARD").stdout, (running, run("nft", "list", "chain", "ip", "filter", "FORWARD")))
        are_open("beside Docker and firewalld they work")
        subprocess.run(["firewall-cmd", "--reload"], check=True, stdout=subprocess.DEVNULL)
        are_open("and when firewalld has read its rules again, which it was told to keep")
        subprocess.run(["nft", "flush", "chain", "ip", "filter", "DOCKER-USER"], check=True)
        are_open("and when somebody has emptied Docker's chain for users")
        subprocess.run(["systemctl", "restart", "docker"], check=True)
        are_open("and when Docker has started anew")
        zone("--remove-interface=rubelet0", "trusted")
        subprocess.run(["sed", "-i", "s/^NftablesTableOwner=yes/NftablesTableOwner=no/", CONFIG], check=True)
        subprocess.run(["systemctl", "restart", "firewalld"], check=True)
        are_open("and when firewalld shares its table, without a word to it")
        subprocess.run(["firewall-cmd", "--reload"], check=True, stdout=subprocess.DEVNULL)
        are_open("and when that has read its rules again")
        with open("out/ruleset.txt", "w") as f: f.write(run("nft", "list", "ruleset").stdout)
    finally:
        done = agent.stop_all()
    rules = run("nft", "list", "ruleset").stdout; left = [line for line in rules.splitlines() if "rubelet" in line and "trusted" not in line and "zone" not in line]
    check("firewalls: the rules go with the last pod", done.returncode == 0 and "DOCKER-USER" in rules and 'comment "rubelet"' not in rules and "table inet rubelet" not in rules, left)
    run("systemctl", "stop", "docker", "docker.socket", "containerd", "firewalld"); run("ip", "netns", "del", "world")
    check.end()


if __name__ == "__main__":
    main()
