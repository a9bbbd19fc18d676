"""What those get who are let in: every endpoint, method and port, and what each right opens, by the word of a real API server. Compared with what upstream's kubelet was seen
to answer here (tests/golden/server-allowed.tsv; `run.py --record FILE` makes it)."""
import http.client, json, os, re, socket

from access import account, stranger, write_files
from load import trust
from node import ADDRESS, CONTAINERS as ALL, NAME, PORT, Node

HERE = os.path.dirname(os.path.realpath(__file__))
RECORDED, TOP = f"{HERE}/../golden/server-allowed.tsv", "# port\tcaller (admin: the API server's certificate; get:X, create:X …: an account that may do that to nodes/X)\tpath\tanswer of each method, or what is answered by neither 401 nor 403"
METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "FOO"]
CONTAINERS, SHELL = {"shell": ALL["shell"]}, f"default/shell-{NAME}/shell"
PATHS = ["/", "/nosuch", "/pods", "/pods/", "/pods/x", "/runningpods/", "/runningpods/x", "/healthz", "/healthz/ping", "/healthz/log", "/healthz/syncloop", "/healthz/device-plugin", "/healthz/nosuch", "/healthz?verbose", "/configz", "/metrics", "/metrics/cadvisor", "/metrics/resource",
         "/metrics/probes", "/metrics/slis", "/metrics/nosuch", "/stats/", "/stats/summary", "/stats/summary?only_cpu_and_memory=true", "/stats/container", "/stats/a/b/c/d", "/logs/", "/logs/own.log", "/logs/below/", "/logs/below", "/logs/nosuch", "/logs/?query=own",
         "/containerLogs/" + SHELL, "/containerLogs/default/nosuch/shell", f"/containerLogs/default/shell-{NAME}/nosuch", f"/containerLogs/{SHELL}?tailLines=x", f"/containerLogs/{SHELL}?tailLines=-1", f"/containerLogs/{SHELL}?limitBytes=0", f"/containerLogs/{SHELL}?sinceSeconds=x",
         f"/containerLogs/{SHELL}?previous=true", f"/containerLogs/{SHELL}?stream=Stdout", f"/containerLogs/{SHELL}?stream=x", "/containerLogs/a/b", f"/exec/{SHELL}", f"/exec/{SHELL}?command=true&output=1", f"/exec/{SHELL}?output=1", "/exec/default/nosuch/x?command=true&output=1", "/exec/a",
         f"/attach/{SHELL}", f"/attach/{SHELL}?output=1", "/attach/default/nosuch/x?output=1", f"/portForward/default/shell-{NAME}", f"/portForward/default/shell-{NAME}?port=80", "/portForward/default/nosuch?port=80", f"/run/{SHELL}?cmd=echo%20ran", f"/run/{SHELL}?cmd=false", "/run/default/nosuch/x?cmd=true",
         "/checkpoint/default/nosuch/x", f"/checkpoint/default/shell-{NAME}/nosuch", "/checkpoint/a", "/flagz", "/statusz", "/debug/pprof/", "/debug/pprof/cmdline", "/debug/pprof/symbol", "/debug/pprof/heap", "/debug/pprof/nosuch", "/debug/flags/v", "/debug/flags/"]
WEBSOCKET = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol": "v4.channel.k8s.io"}
OPENMETRICS, PROTOBUF = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5", "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
# The same paths otherwise: a word for it, and headers.
OTHERWISE = [(path, word, {"Accept": accept}) for path in ("/metrics", "/metrics/cadvisor", "/metrics/resource", "/metrics/probes", "/metrics/slis") for word, accept in (("as OpenMetrics", OPENMETRICS), ("as protobuf", PROTOBUF), ("as anything", "*/*"), ("as JSON", "application/json"))] + \
            [(path, "gzipped", {"Accept-Encoding": "gzip"}) for path in ("/metrics", "/metrics/cadvisor", "/pods", "/configz", "/stats/summary", "/logs/own.log", "/containerLogs/" + SHELL, "/runningpods/", "/healthz")] + \
            [(path, word, {"Accept": accept}) for path in ("/flagz", "/statusz", "/configz", "/pods", "/healthz", "/runningpods/", "/stats/summary", "/logs/", "/containerLogs/" + SHELL) for word, accept in (("as JSON", "application/json"), ("as text", "text/plain"), ("as HTML", "text/html"), ("as YAML", "application/yaml"), ("as text or JSON", "text/plain,application/json;q=0.5"))] + \
            [(path, "by WebSocket", WEBSOCKET) for path in (f"/exec/{SHELL}?command=true&output=1", f"/exec/{SHELL}?command=true", f"/attach/{SHELL}?output=1", f"/portForward/default/shell-{NAME}?port=80", "/exec/default/nosuch/x?command=true&output=1", "/attach/default/nosuch/x?output=1", "/portForward/default/nosuch?port=80")]
RIGHTS = [("get", right) for right in ("nothing", "pods", "healthz", "configz", "metrics", "stats", "log", "checkpoint", "statusz", "flagz", "exec", "spec", "proxy")] + [("create", "proxy"), ("create", "checkpoint"), ("update", "proxy"), ("*", "*")]
# What each right opens is asked of these.
DOORS = ["/pods", "/runningpods/", "/healthz", "/healthz/ping", "/configz", "/metrics", "/metrics/cadvisor", "/metrics/slis", "/stats/summary", "/logs/", "/logs/own.log", "/containerLogs/" + SHELL, f"/exec/{SHELL}", f"/attach/{SHELL}", f"/portForward/default/shell-{NAME}", f"/run/{SHELL}?cmd=true",
         "/checkpoint/default/nosuch/x", "/flagz", "/statusz", "/debug/pprof/cmdline", "/debug/flags/v"]
# Longer bodies are not compared.
BODY_CHARS_MAX = 200


class Asker:
    """Asks one port, on one connection as long as it lasts."""
    def __init__(self, port, context=None, token=None): self.port, self.context, self.token, self.connection = port, context, token, None

    def __call__(self, method, path, headers=()):
        if not self.connection: self.connection = http.client.HTTPSConnection(ADDRESS, self.port, timeout=30, context=self.context) if self.context else http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            self.connection.request(method, path, headers={**({"Authorization": f"Bearer {self.token}"} if self.token else {}), **dict(headers)}); answer = self.connection.getresponse()
            if answer.status == 101: self.close(); return answer, b""
            return answer, answer.read()
        except (http.client.HTTPException, OSError): self.close(); raise

    def close(self): self.connection.close(); self.connection = None


def told(answer, body):
    """An answer in a cell: status, type, encoding; the body if it says what is wrong, or is short."""
    said = [str(answer.status), answer.getheader("Content-Type") or "-"]
    if (encoding := answer.getheader("Content-Encoding")): said.append(encoding)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{64}", "ID", body.decode(errors="replace")) if not encoding else ""
    if answer.status not in (200, 101, 301, 307) and len(text) <= BODY_CHARS_MAX: said.append(json.dumps(text))
    if answer.status in (301, 307): said.append(answer.getheader("Location") or "")
    return " ".join(said)


def cells(ask, path):
    """Methods that are answered alike are told together; HEAD with those whose answer is the same but for the body."""
    groups = {}
    for method in METHODS:
        answer = told(*ask(method, path))
        if method == "HEAD": answer = next((known for known in groups if known.startswith(answer.removesuffix(' ""'))), answer)
        groups.setdefault(answer, []).append(method)
    return "; ".join(f"{','.join(sorted(methods, key=METHODS.index))}: {answer}" for answer, methods in groups.items())


def rows(plane, node):
    """(port, caller, path) and the answers, for all that is asked."""
    admin = Asker(PORT, trust(plane))
    for port, caller, ask in ((PORT, "admin", admin), (10255, "anyone", Asker(10255)), (10248, "anyone", Asker(10248))):
        for path in PATHS: yield (str(port), caller, path), cells(ask, path)
    for path, word, headers in OTHERWISE: yield (str(PORT), "admin", f"{path} {word}"), "GET: " + told(*admin("GET", path, headers))
    for verb, right in RIGHTS:
        name, resource = f"{verb}-{right}".replace("*", "all"), "nodes" if right == "nothing" else "*" if right == "*" else f"nodes/{right}"
        ask = Asker(PORT, stranger(), account(plane, name, [resource], [verb]))
        opened = [f"{method} {path}" for path in DOORS for method in METHODS if ask(method, path)[0].status not in (401, 403)]
        yield (str(PORT), f"{verb}:{right}", "what is let in"), ", ".join(opened) or "nothing"


def recorded():
    with open(RECORDED) as f: lines = [line.rstrip("\n").split("\t") for line in f if not line.startswith("#")]
    return {tuple(line[:3]): line[3] for line in lines}


class Recorded(Node):
    """A node whose pods the API server does not know: upstream's would take their copies there for others."""
    def register(self): self.register_node()


def record(plane, node, path):
    write_files()
    with open(path, "w") as f:
        f.write(TOP + "\n")
        for key, answers in rows(plane, node): f.write("\t".join((*key, answers)) + "\n")


def asked(listener):
    try: listener.accept()[0].close(); return True
    except BlockingIOError: return False


def excused(key):
    """Whether this may differ: a line of server-differs.tsv says so, and why."""
    with open(f"{HERE}/../golden/server-differs.tsv") as f: lines = [line.split("\t") for line in f if not line.startswith("#")]
    return any(re.fullmatch(caller, key[1]) and re.fullmatch(path, key[2]) for caller, path, _ in lines)


def all_checks(plane, node, check):
    write_files()
    # Where traces would go if nobody said where; nobody wants any.
    with socket.create_server(("127.0.0.1", 4317)) as collector: upstream, seen = recorded(), dict(rows(plane, node)); collector.setblocking(False); has_come = asked(collector)
    check("allowed: without `tracing` nobody is told of traces", not has_come)
    wrong = [f"{' '.join(key)}: {seen[key]} — upstream: {upstream.get(key)}" for key in seen if seen[key] != upstream.get(key) and not excused(key)]
    print("".join(f"        {line}\n" for line in wrong), end="")
    check(f"allowed: {len(seen)} rows as upstream's", not wrong and seen.keys() == upstream.keys(), f"{len(wrong)} differ")
