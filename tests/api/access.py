"""Who may ask what of a node, by the word of a real API server, and what else stands at its ports. Asked directly and through the API server's proxy."""
import concurrent.futures, json, os, re, socket, ssl, urllib.error, urllib.request

from controlplane import wait
from load import trust
from node import ADDRESS, NAME, PORT

RBAC = "rbac.authorization.k8s.io"
# An account, what it may, and what becomes of each path: 200 is any answer of one who was let in.
ACCOUNTS = {
    "scraper": (["nodes/metrics", "nodes/stats"], {"/metrics": 200, "/metrics/cadvisor": 200, "/metrics/resource": 200, "/stats/summary": 200, "/pods": 403, "/logs/": 403, "/configz": 403, "/containerLogs/default/x/x": 403}),
    "lister": (["nodes/pods", "nodes/healthz", "nodes/configz"], {"/pods": 200, "/runningpods/": 200, "/healthz": 200, "/configz": 200, "/flagz": 200, "/metrics": 403, "/statusz": 403}),
    "proxy": (["nodes/proxy"], {"/pods": 200, "/configz": 200, "/metrics": 403, "/stats/summary": 403, "/logs/": 403}),
    "nobody": (["configmaps"], {"/healthz": 403, "/pods": 403, "/nosuch": 404}),
}
EVERYWHERE = ["/", "/pods", "/runningpods/", "/healthz", "/configz", "/metrics", "/metrics/cadvisor", "/metrics/resource", "/metrics/probes", "/metrics/slis", "/stats/summary", "/containerLogs/a/b/c", "/exec/a/b/c", "/attach/a/b/c",
              "/run/a/b/c", "/portForward/a/b", "/checkpoint/a/b/c", "/logs/", "/debug/pprof/", "/debug/flags/v", "/flagz", "/statusz"]


class Asker:
    def __init__(self, context): self.context = context

    def __call__(self, path, method="GET", token=None, body=None):
        """Status and text."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            with urllib.request.urlopen(urllib.request.Request(f"https://{ADDRESS}:{PORT}{path}", body, headers, method=method), timeout=30, context=self.context) as r: return r.status, r.read().decode(errors="replace")
        except urllib.error.HTTPError as e: return e.code, e.read().decode(errors="replace")


def stranger():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE; return context


def account(plane, name, resources, verbs=("get",)):
    """A service account that may do that to these, and its token."""
    plane.request("POST", "/api/v1/namespaces/default/serviceaccounts", {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}, fails=True)
    plane.request("POST", f"/apis/{RBAC}/v1/clusterroles", {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": f"api-{name}"}, "rules": [{"apiGroups": [""], "resources": resources, "verbs": list(verbs)}]}, fails=True)
    plane.request("POST", f"/apis/{RBAC}/v1/clusterrolebindings", {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRoleBinding", "metadata": {"name": f"api-{name}"}, "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": f"api-{name}"},
                                                                   "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}]}, fails=True)
    _, made = plane.request("POST", f"/api/v1/namespaces/default/serviceaccounts/{name}/token", {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}})
    return made["status"]["token"]


def check_callers(plane, node, check):
    ask = Asker(stranger())
    for what, more in (("without credentials", {}), ("with a made-up token", {"token": "made-up"})):
        got = {path: ask(path, **more) for path in EVERYWHERE}
        check(f"access: {what}, 401 everywhere", all(answer == ((404, "404 page not found\n") if path == "/" else (401, "Unauthorized")) for path, answer in got.items()), got)
    for name, (resources, wanted) in ACCOUNTS.items():
        token = account(plane, name, resources)
        got = {path: status if (status := ask(path, token=token)[0]) in (401, 403, 404, 500) else 200 for path in wanted}
        check(f"access: a service account with {', '.join(resources)}", got == wanted, got)
    said = ask("/pods", token=token)
    check("access: 403 says what is missing", said == (403, "Forbidden (user=system:serviceaccount:default:nobody, verb=get, resource=nodes, subresource(s)=[pods proxy])\n"), said)


def check_pages(plane, node, check, is_embedded):
    ask = Asker(trust(plane))
    proxied = lambda path, **more: plane.request(more.pop("method", "GET"), f"/api/v1/nodes/{NAME}/proxy{path}", fails=True, **more)
    for path, pattern in (("/healthz", "^ok$"), ("/pods", "PodList"), ("/runningpods/", "PodList"), ("/configz", "kubeletconfig"), ("/stats/summary", NAME), ("/metrics/resource", "node_cpu_usage_seconds_total"), ("/logs/", "own.log"), ("/logs/own.log", "line one"),
                          ("/flagz", "hostname-override=" + NAME), ("/statusz", "kubelet statusz")):
        code, text = proxied(path)
        text = text if isinstance(text, str) else json.dumps(text)
        check(f"pages: {path} through the API server", code == 200 and re.search(pattern, text), (code, text[:300]))
    code, text = ask("/logs/?query=own")
    check("pages: the node's logs are queried", code == 200 and "line one\nline two\n" in text, (code, text))
    code, text = ask("/logs/?query=own&tailLines=1")
    check("pages: a file is only told whole, in upstream's words", code == 200 and "options present and query resolved to log files for [own]\ntry without specifying options" in text, (code, text))
    code, text = ask("/logs/?query=own&tailLines=x")
    check("pages: a query that is none", code == 400, (code, text))
    code, text = ask("/logs/?query=a%2Fb..&pattern=x")
    check("pages: a query out of bounds", code in (400, 406), (code, text))
    for path in ("/logs/../secret", "/logs/%2e%2e/secret", "/logs/..%2fsecret", "/logs/%2e%2e%2fsecret", "/logs/below/..%2f..%2fsecret", "/logs/link", "/logs/?query=..%2fsecret", "/logs/?query=../secret"):
        raw = raw_get(trust(plane), path)
        check(f"pages: {path} leads nowhere", b"HTTP/1.1 " in raw and b"of the host" not in raw, raw)
    for path in ("/containerLogs/default/..%2f..%2fsecret/x", "/containerLogs/..%2f..%2f/secret/x", "/containerLogs/default/shell-node-a/..%2f..%2fsecret"):
        code, text = ask(path)
        check(f"pages: {path} is no container", code == 404, (code, text))
    code, text = ask("/debug/pprof/heap")
    check("pages: profiles are refused clearly", code == 501 and "not written in Go" in text, (code, text))
    code, text = ask("/debug/flags/v", method="PUT")
    check("pages: the level of the log needs a number", code == 400, (code, text))
    said = [ask("/debug/flags/v", method="PUT", body=level.encode()) for level in ("5", "2")]
    check("pages: the level of the log is set", said == [(200, f"successfully set klog.logging.verbosity to {level}") for level in (5, 2)], said)
    code, text = ask(f"/run/default/shell-{NAME}/shell?cmd=echo%20ran", method="POST")
    check("pages: /run", (code, text) == (200, "ran\n"), (code, text))
    code, text = ask(f"/checkpoint/default/shell-{NAME}/shell", method="POST")
    check("pages: a checkpoint that the runtime cannot write is refused clearly", code == 500 and text.startswith(f"checkpointing of default/shell-{NAME}/shell failed (") and ("does not write checkpoints" in text or not is_embedded), (code, text))
    code, text = ask(f"/checkpoint/default/shell-{NAME}/nosuch", method="POST")
    check("pages: a checkpoint of no container", (code, text) == (404, "container nosuch does not exist"), (code, text))


def raw_get(context, path):
    """Without a client that cleans the path."""
    with context.wrap_socket(socket.create_connection((ADDRESS, PORT), 10)) as s:
        s.sendall(f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode()); got = b""
        while (piece := s.recv(65536)): got += piece
        return got


SPDY = "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\nX-Stream-Protocol-Version: portforward.k8s.io"
WEBSOCKET = "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io, v5.channel.k8s.io"
# A runtime may go on for 30 s after its client has gone.
NO_FRAMES, END_SECS_MAX = (b"\x00" * 64, b"\xff" * 4096, b"\x82\x7f" + b"\xff" * 12, b"\x80\x03\x00\x01\x00\xff\xff\xff" + b"A" * 4096, b"\x80\x03\x00\x07" + bytes(12), os.urandom(8192), b"GET / HTTP/1.1\r\n\r\n"), 50


def send_frames(context, path, head, frames):
    """Whether the connection ends after these."""
    try:
        with context.wrap_socket(socket.create_connection((ADDRESS, PORT), 10)) as s:
            s.settimeout(END_SECS_MAX); s.sendall(f"POST {path} HTTP/1.1\r\nHost: {NAME}\r\nConnection: Upgrade\r\n{head}\r\n\r\n".encode() + frames); s.shutdown(socket.SHUT_WR)
            while s.recv(65536): pass
    except TimeoutError: return False
    except OSError: pass
    return True


def check_upgrades(plane, node, check):
    """Frames that are none, on connections that were upgraded: the connection ends, the agent goes on."""
    context, paths = trust(plane), (f"/exec/default/shell-{NAME}/shell?command=cat&input=1&output=1", f"/attach/default/talker-{NAME}/talker?input=1&output=1", f"/portForward/default/served-{NAME}?port=9001")
    cases = [(path, head, frames) for path in paths for head in (SPDY, WEBSOCKET) for frames in NO_FRAMES]
    with concurrent.futures.ThreadPoolExecutor(len(cases)) as pool: ended = list(pool.map(lambda case: send_frames(context, *case), cases))
    wrong = [(path, head[9:13], frames[:8]) for (path, head, frames), has_ended in zip(cases, ended) if not has_ended]
    check(f"upgrades: {len(cases)} kinds of frames that are none end their connection", not wrong, wrong)
    check("upgrades: the agent answers as before", Asker(context)("/healthz") == (200, "ok"))


def check_service_manager(node, check):
    said = node.told
    check("systemd: READY=1, and the watchdog again and again", wait(lambda: said[:1] == ["READY=1"] and said.count("WATCHDOG=1") >= 2, 20), said[:5])


def write_files():
    with open("/var/log/own.log", "w") as f: f.write("line one\nline two\n")
    os.makedirs("/var/log/below", exist_ok=True)


def all_checks(plane, node, check, is_embedded):
    write_files()
    with open("/var/secret", "w") as f: f.write("of the host\n")
    try:
        check_callers(plane, node, check); check_pages(plane, node, check, is_embedded); check_upgrades(plane, node, check); check_service_manager(node, check)
    finally: os.unlink("/var/secret")
