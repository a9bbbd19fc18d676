"""What the node tells of CPU, memory, pressure and disk on cgroup v2: figures of a pod that burns, holds and writes as much as is known (see limits.py)."""
import json, re
from node import fetch, until, write

HELD, WRITTEN, LIMIT = 20 << 20, 8 << 20, 64 << 20


def values(page, name, **labels):
    """The values of a metric's series that have these labels."""
    lines = [line for line in page.splitlines() if re.match(rf"{name}[{{ ]", line) and all(f'{k}="{v}"' in line for k, v in labels.items())]
    return [float(re.sub(r"^[^{ ]*(\{.*\})? ", "", line).split()[0]) for line in lines]


def check(check, agent, known):
    seen = {}
    def settled():
        seen["summary"] = json.loads(fetch("http://127.0.0.1:10255/stats/summary"))
        main = [c for pod in seen["summary"]["pods"] if pod["podRef"]["name"] == "busy-node-a" for c in pod["containers"] if c["name"] == "main"]
        seen["main"] = main and main[0] or {}
        return seen["main"].get("cpu", {}).get("usageNanoCores")
    until(settled, 60)
    for page in ("cadvisor", "resource"): seen[page] = fetch(f"http://127.0.0.1:10255/metrics/{page}"); write(f"/opt/test/out/{page}.txt", seen[page])
    write("/opt/test/out/summary.json", json.dumps(seen["summary"], indent=1))
    main, node = seen["main"], seen["summary"]["node"]; told = lambda where, *path: told(where.get(path[0], {}), *path[1:]) if path else (where if where != {} else None)
    cpu, memory, io = main.get("cpu", {}), main.get("memory", {}), main.get("io", {})
    check("summary: CPU of a busy container, near its limit of 0.2", 50e6 < cpu.get("usageNanoCores", 0) < 260e6 and cpu.get("usageCoreNanoSeconds", 0) > 1e9, cpu)
    check("summary: its memory, what it holds at least and its limit at most", HELD <= memory.get("workingSetBytes", 0) <= LIMIT and HELD <= memory.get("usageBytes", 0) <= LIMIT and memory.get("availableBytes", -1) == LIMIT - memory["workingSetBytes"], memory)
    check("summary: CPU pressure of who is throttled", (told(cpu, "psi", "some", "total") or 0) > 1e6, cpu)
    check("summary: pressure of memory and disk is told", all(told(x, "psi", kind, "total") is not None for x in (memory, io) for kind in ("some", "full")), (memory, io))
    pod = [p for p in seen["summary"]["pods"] if p["podRef"]["name"] == "busy-node-a"][0]; volume = [v for v in pod.get("volume", []) if v["name"] == "disk"]
    check("summary: the pod's own figures are its container's at least", pod["cpu"]["usageCoreNanoSeconds"] >= cpu.get("usageCoreNanoSeconds", 1e30) / 2 and pod["memory"]["workingSetBytes"] >= HELD, pod)
    check("summary: its volume, its processes", volume and volume[0]["usedBytes"] >= WRITTEN and pod["process_stats"]["process_count"] >= 1, (volume, pod.get("process_stats")))
    check("summary: the node's", node["cpu"]["usageNanoCores"] >= 50e6 and node["memory"]["workingSetBytes"] > 50 << 20 and (told(node, "cpu", "psi", "some", "total") or 0) > 1e6 and node["fs"]["usedBytes"] > 0, {k: node.get(k) for k in ("cpu", "memory", "io", "fs")})
    page = lambda name, where="cadvisor", **more: max(values(seen[where], name, **(dict(pod="busy-node-a", container="main") if where == "cadvisor" and not more else more)), default=-1)
    throttled = page("container_cpu_cfs_throttled_periods_total"), page("container_cpu_cfs_periods_total"), page("container_cpu_cfs_throttled_seconds_total")
    check("cadvisor: throttled periods and seconds", throttled[1] >= throttled[0] >= 10 and throttled[2] > .5, throttled)
    check("cadvisor: CPU and memory", page("container_cpu_usage_seconds_total") > 1 and HELD <= page("container_memory_working_set_bytes") <= LIMIT and page("container_spec_memory_limit_bytes") == LIMIT, (page("container_cpu_usage_seconds_total"), page("container_memory_working_set_bytes")))
    check("cadvisor: what was written to the disk", page("container_fs_writes_bytes_total") >= WRITTEN and page("container_fs_writes_total") > 0, (page("container_fs_writes_bytes_total"), page("container_fs_writes_total")))
    pressure = {name: page(f"container_pressure_{name}_seconds_total") for name in ("cpu_waiting", "cpu_stalled", "memory_waiting", "memory_stalled", "io_waiting", "io_stalled")}
    check("cadvisor: pressure", pressure["cpu_waiting"] > 1 and min(pressure.values()) >= 0, pressure)
    resource = lambda name, **labels: page(name, "resource", **labels); own = {"pod": "busy-node-a"}
    figures = {"node cpu": resource("node_cpu_usage_seconds_total"), "node memory": resource("node_memory_working_set_bytes"), "pod cpu": resource("pod_cpu_usage_seconds_total", **own), "pod memory": resource("pod_memory_working_set_bytes", **own),
               "cpu": resource("container_cpu_usage_seconds_total", **own), "memory": resource("container_memory_working_set_bytes", **own), "error": resource("resource_scrape_error")}
    check("resource: node, pod and container", figures["node cpu"] > figures["cpu"] > 1 and figures["node memory"] > figures["memory"] >= HELD and figures["pod cpu"] > 1 and figures["pod memory"] >= HELD and figures["error"] == 0, figures)
