"""What the agent changes on the host when it starts: kernel tunables, its own limits, chains of iptables; and that it refuses to where it is told not to."""
import re, subprocess
from node import Agent, fetch, read, run, until

# kubelet 1.36's values; before the start all are others.
TUNABLES = {"vm/overcommit_memory": 1, "vm/panic_on_oom": 0, "kernel/panic": 10, "kernel/panic_on_oops": 1, "kernel/keys/root_maxkeys": 1000000, "kernel/keys/root_maxbytes": 25000000}
OTHERS = {"vm/overcommit_memory": 0, "vm/panic_on_oom": 1, "kernel/panic": 3, "kernel/panic_on_oops": 0, "kernel/keys/root_maxkeys": 500, "kernel/keys/root_maxbytes": 20000}
FIREWALL = r"-A KUBE-FIREWALL ! -s 127\.0\.0\.0/8 -d 127\.0\.0\.0/8 .*--ctstate RELATED,ESTABLISHED,DNAT -j DROP"


def tunables(): return {name: int(read(f"/proc/sys/{name}")) for name in TUNABLES}


def before(check, binary, top):
    for name, value in OTHERS.items():
        with open(f"/proc/sys/{name}", "w") as f: f.write(str(value))
    rules = run("iptables-save", "-t", "filter").stdout.count("KUBE-")  # of an agent before it
    agent = Agent(binary, top, {"protectKernelDefaults": True, "readOnlyPort": 0}); agent.start("out/protected.log")
    try: code = agent.process.wait(120)
    except subprocess.TimeoutExpired: code = "it runs"; agent.process.kill()
    said = read("out/protected.log")
    wanted = [f"invalid kernel flag: {name}, expected value: {value}, actual value: {OTHERS[name]}" for name, value in TUNABLES.items()]
    check("protectKernelDefaults: other tunables are refused, all by name", code == 1 and f"failed to start ContainerManager: [{', '.join(wanted)}]" in said.replace('\\"', '"'), (code, said[-800:]))
    check("protectKernelDefaults: and nothing is changed", tunables() == OTHERS and run("iptables-save", "-t", "filter").stdout.count("KUBE-") == rules, (tunables(), rules))


def check(check, agent, known):
    check("kernel tunables are set", tunables() == TUNABLES, tunables())
    pid = agent.process.pid; limit = re.search(r"Max open files +(\d+) +(\d+)", read(f"/proc/{pid}/limits"))
    check("the agent's own limits", limit and limit.groups() == ("1000000", "1000000") and read(f"/proc/{pid}/oom_score_adj") == "-999\n", (limit, read(f"/proc/{pid}/oom_score_adj")))
    chains = {}
    def has_chains():
        for program in ("iptables", "ip6tables"): chains[program] = run(f"{program}-save").stdout
        return all(c.count("-j KUBE-FIREWALL") == 2 and ":KUBE-IPTABLES-HINT" in c and c.count(":KUBE-KUBELET-CANARY") == 3 for c in chains.values()) and re.search(FIREWALL, chains["iptables"])
    until(has_chains, 60)
    check("iptables: its chains, for both families", has_chains(), chains)


def asked_logs(check):
    """The node log query by journald, of a service that says two lines. (Its command line is in the journal, too.)"""
    unit = run("systemd-run", "--unit=told-service", "--wait", "--collect", "sh", "-c", "echo first $((1+1)); echo second $((1+1)) >&2")
    ask = lambda more: fetch(f"https://127.0.0.1:10250/logs/?query={more}")
    both = until(lambda: (text := ask("told-service")) and "Deactivated" in text and text, 60) or ask("told-service")
    lines = [line for line in both.splitlines() if " sh[" in line]
    check("log query: a service's lines from the journal", unit.returncode == 0 and [line.split("]: ")[-1] for line in lines] == ["first 2", "second 2"] and all(re.match(r"\w{3} \d\d \d\d:\d\d:\d\d\.\d{6} node-a ", line) for line in lines), (unit, both))
    last, found = ask("told-service&tailLines=1"), ask("told-service&pattern=first%202")
    check("log query: its last line, its lines with a word", both.endswith(last) and last.count("\n") == 1 and "first 2" in found and "second 2" not in found and found.count("\n") == 1, (last, found))
    since = ask("told-service&sinceTime=2099-01-01T00:00:00Z")
    earlier = ask("told-service&boot=-7")
    check("log query: none of a time to come, nor of a boot that was not", "first 2" not in since + earlier and "!" not in (since + earlier)[:1], (since, earlier))
    refused = ask("told/../service"), ask("told%20service")
    check("log query: names that are none are refused", refused[0].startswith("!HTTP Error 406") and "input contains unsupported characters" in refused[1], refused)
