"""What kubectl gets of a node through a real API server: exec, attach, cp, port-forward, logs. `check(WHAT, WHETHER)` is told each result."""
import fcntl, hashlib, os, re, select, signal, socket, struct, subprocess, tempfile, termios, threading, time

from access import Asker
from controlplane import wait
from load import trust
from node import FLOOD_LINES, IMAGE, LOG_FILES_MAX, NAME, TAIL

# Who speaks how: kubectl asks for WebSockets unless it is told not to.
PROTOCOLS = {"websocket": {}, "spdy": {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}}
PATIENCE = 60


class Kubectl:
    def __init__(self, plane, protocol):
        self.words = plane.programs["kubectl"] + ["--kubeconfig", f"{plane.work}/admin.conf"]
        self.env = dict(os.environ, HOME=plane.work, **PROTOCOLS[protocol])

    def __call__(self, *words, stdin=b""):
        try: done = subprocess.run(self.words + list(words), input=stdin, capture_output=True, env=self.env, timeout=PATIENCE)
        except subprocess.TimeoutExpired as late: return 124, late.stdout or b"", (late.stderr or b"") + b"(no end)"
        return done.returncode, done.stdout, done.stderr

    def start(self, *words, **more): return subprocess.Popen(self.words + list(words), env=self.env, start_new_session=True, **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **more})


def pod(name): return f"{name}-{NAME}"


def stop(process):
    if process.poll() is None: process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream: stream.close()


class Reader:
    """Everything that comes out of a file, as it comes."""
    def __init__(self, fd): self.fd, self.text = fd, b""

    def until(self, pattern, seconds=PATIENCE):
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text)) and (left := end - time.monotonic()) > 0:
            if not select.select([self.fd], [], [], left)[0]: break
            try: more = os.read(self.fd, 65536)
            except OSError: break  # a terminal whose other side is gone
            if not more: break
            self.text += more
        return found


class Terminal:
    """A program on a terminal of a given size."""
    def __init__(self, kubectl, words, rows, columns):
        self.fd, other = os.openpty(); self.resize(rows, columns)
        self.process = kubectl.start(*words, stdin=other, stdout=other, stderr=other, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(other); self.reader = Reader(self.fd)

    def resize(self, rows, columns): fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    def write(self, text): os.write(self.fd, text)
    def close(self): stop(self.process); os.close(self.fd)


def check_exec(kubectl, check):
    code, out, err = kubectl("exec", pod("shell"), "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    check("exec: streams and exit code", (code, out) == (7, b"out\n") and err.startswith(b"err\n"), (code, out, err))
    code, out, err = kubectl("exec", pod("shell"), "--", "true")
    check("exec: silence", (code, out, err) == (0, b"", b""), (code, out, err))
    data = os.urandom(5 << 20)
    code, out, _ = kubectl("exec", "-i", pod("shell"), "--", "cat", stdin=data)
    check("exec: 5 MiB through stdin and back", (code, out) == (0, data), (code, len(out)))
    code, out, _ = kubectl("exec", "-i", pod("shell"), "--", "wc", "-c", stdin=data)
    check("exec: the end of stdin is told", (code, out.strip()) == (0, str(len(data)).encode()), (code, out))
    code, out, _ = kubectl("exec", pod("shell"), "--", "sh", "-c", "head -c 20000000 /dev/zero")
    check("exec: 20 MB of output", (code, len(out)) == (0, 20_000_000), (code, len(out)))
    code, _, err = kubectl("exec", pod("shell"), "--", "/no/such/program")
    check("exec: no such program", code not in (0, 124) and b"no such file" in err.lower(), (code, err))
    code, _, err = kubectl("exec", pod("shell"), "--", "sh", "-c", "kill -9 $$")
    check("exec: killed", code == 137, (code, err))
    code, _, err = kubectl("exec", pod("shell"), "-c", "nosuch", "--", "true")
    check("exec: no such container", code == 1 and b"nosuch" in err, (code, err))
    many = [kubectl.start("exec", pod("shell"), "--", "echo", f"number {i}", stdin=subprocess.DEVNULL) for i in range(10)]
    said = [process.communicate(timeout=PATIENCE)[0] for process in many]
    check("exec: ten at once", said == [f"number {i}\n".encode() for i in range(10)], said)


def check_terminal(kubectl, check):
    at = Terminal(kubectl, ["exec", "-it", pod("shell"), "--", "sh", "-c", "tty; until [ \"$(stty size 2>/dev/null)\" = '37 91' ]; do usleep 50000; done; echo first; read x; echo got $x; until [ \"$(stty size 2>/dev/null)\" = '40 100' ]; do usleep 50000; done; echo second; exit 5"], 37, 91)
    try:
        check("terminal: it is one, of the client's size", at.reader.until(rb"/dev/pts/\d+\r\nfirst\r\n"), at.reader.text)
        at.write(b"hello\r")
        check("terminal: what is typed", at.reader.until(rb"got hello\r\n"), at.reader.text)
        at.resize(40, 100)
        check("terminal: another size", at.reader.until(rb"second\r\n"), at.reader.text)
        code = wait(lambda: at.process.poll() is not None, 20) and at.process.returncode
        check("terminal: exit code", code == 5, (code, at.reader.text))
    finally: at.close()


def check_attach(kubectl, check):
    process = kubectl.start("attach", "-i", pod("talker"), stdin=subprocess.PIPE, bufsize=0)
    try:
        reader = Reader(process.stdout.fileno())
        for word in (b"one", b"two"):
            process.stdin.write(word + b"\n")
            check(f"attach: {word.decode()} is heard", reader.until(b"heard " + word + b"\n"), reader.text)
    finally: stop(process)
    again = kubectl.start("attach", "-i", pod("talker"), stdin=subprocess.PIPE, bufsize=0)
    try:
        reader = Reader(again.stdout.fileno()); again.stdin.write(b"three\n")
        check("attach: again after the first has gone", reader.until(rb"heard three\n"), reader.text)
    finally: stop(again)
    at = Terminal(kubectl, ["attach", "-it", pod("screen")], 30, 80)
    try:
        at.reader.until(rb"press enter|command prompt", 5); at.write(b"four\r")
        check("attach: a terminal", at.reader.until(rb"heard four\r\n"), at.reader.text)
    finally: at.close()


def digest(folder):
    found = {}
    for at, _, names in os.walk(folder):
        for name in names:
            with open(f"{at}/{name}", "rb") as f: found[os.path.relpath(f"{at}/{name}", folder)] = hashlib.sha256(f.read()).hexdigest()
    return found


def check_cp(kubectl, check):
    with tempfile.TemporaryDirectory() as work:
        os.makedirs(f"{work}/there/below")
        for name, size in (("large", 8 << 20), ("below/small", 10), ("below/empty", 0)):
            with open(f"{work}/there/{name}", "wb") as f: f.write(os.urandom(size))
        kubectl("exec", pod("shell"), "--", "rm", "-rf", "/tmp/there")
        code, _, err = kubectl("cp", f"{work}/there", f"default/{pod('shell')}:/tmp/there")
        check("cp: there", code == 0, err)
        code, _, err = kubectl("cp", f"default/{pod('shell')}:/tmp/there", f"{work}/back")
        check("cp: and back the same", code == 0 and digest(f"{work}/there") == digest(f"{work}/back"), (err, digest(f"{work}/back")))


def talk(port, data, half=False):
    """Sends all, ends its half if asked to, and returns what comes back: as much as was sent, or everything."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as s:
        s.settimeout(PATIENCE); got = bytearray()
        def send():
            try: s.sendall(data); half and s.shutdown(socket.SHUT_WR)
            except OSError: pass  # what comes back says enough
        sender = threading.Thread(target=send); sender.start()
        try:
            while (half or len(got) < len(data)) and (piece := s.recv(65536)): got += piece
        except OSError as e: got += f" {e}".encode()
        sender.join(PATIENCE); return bytes(got)


def check_port_forward(kubectl, check, is_embedded):
    process = kubectl.start("port-forward", f"pod/{pod('served')}", ":9001", ":9002", ":9003")
    try:
        reader = Reader(process.stdout.fileno())
        ports = {to: (found := reader.until(rb"127\.0\.0\.1:(\d+) -> %d" % to)) and int(found.group(1)) for to in (9001, 9002, 9003)}
        check("port-forward: listens", all(ports.values()), reader.text)
        if not all(ports.values()): return
        data, results = [os.urandom(1 << 20) for _ in range(20)], {}
        def one(i): results[i] = talk(ports[9001], data[i])
        threads = [threading.Thread(target=one, args=(i,)) for i in range(len(data))]
        for thread in threads: thread.start()
        for thread in threads: thread.join(PATIENCE)
        check("port-forward: 20 connections at once, 1 MiB each, there and back", all(results.get(i) == d for i, d in enumerate(data)), {i: len(r) for i, r in results.items()})
        # containerd 2.1 does not tell the server of the client's end: it goes on for a second, then closes.
        if is_embedded:
            got = talk(ports[9002], b"x" * 3_000_000, half=True)
            check("port-forward: the client's half ends, the answer still comes", got == b"3000000\n", got[:100])
        got = talk(ports[9003], b"x" * 10, half=True)
        check("port-forward: a port where nobody listens", got == b"" or b"reset" in got, got)
        check("port-forward: the refusal is told", reader.until(rb"refused|unable to"), reader.text)
    finally: stop(process)
    # kubectl itself may end with a connection that failed: another one goes on.
    process = kubectl.start("port-forward", f"pod/{pod('served')}", ":9001")
    try:
        found = (reader := Reader(process.stdout.fileno())).until(rb"127\.0\.0\.1:(\d+) -> 9001")
        got = found and talk(int(found.group(1)), b"again")
        check("port-forward: another one after that", got == b"again", (got, reader.text))
    finally: stop(process)


def check_logs(kubectl, check, plane, node):
    name = pod("counter")
    wait(lambda: b"line 3000\n" in kubectl("logs", name, "--tail=2000")[1], PATIENCE)
    code, out, err = kubectl("logs", name)
    lines = out.split(b"\n")
    check("logs: a line of 100,000 bytes is one", code == 0 and lines[0] == b"x" * 100_000, (err, lines[0][:50], len(lines[0])))
    numbers = [int(line[5:]) for line in lines if line.startswith(b"line ")]
    check("logs: every line, in order", numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 3000, (len(numbers), numbers[:3]))
    check("logs: both streams", lines.count(b"err 10") == 1 and lines.count(b"err 3000") == 1, None)
    _, out, _ = kubectl("logs", name, "--tail=7")
    check("logs --tail", out.count(b"\n") == 7, out)
    _, out, _ = kubectl("logs", name, "--limit-bytes=1000")
    check("logs --limit-bytes", out == b"x" * 1000, len(out))
    _, out, _ = kubectl("logs", name, "--tail=3", "--timestamps")
    check("logs --timestamps", len(re.findall(rb"(?m)^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+(?:Z|[+-]\d\d:\d\d) (?:line|err) \d+$", out)) == 3, out)
    _, out, _ = kubectl("logs", name, "--since=3s")
    check("logs --since", 5 <= out.count(b"\n") <= 60, out.count(b"\n"))
    stamp = re.match(rb"\S+", kubectl("logs", name, "--tail=20", "--timestamps")[1]).group().decode()
    _, out, _ = kubectl("logs", name, f"--since-time={stamp}", "--timestamps")
    # RFC 3339 in the API has whole seconds.
    check("logs --since-time", out.split() and min(line.split()[0] for line in out.splitlines())[:19] >= stamp[:19].encode(), out[:100])
    follower = kubectl.start("logs", name, "-f", "--tail=1")
    try:
        reader = Reader(follower.stdout.fileno()); found = reader.until(rb"(?:line \d+\n(?:err \d+\n)?){20}", 30)
        numbers = [int(n) for n in re.findall(rb"line (\d+)", reader.text)]
        check("logs -f", found and numbers == list(range(numbers[0], numbers[0] + len(numbers))), reader.text)
    finally: stop(follower)
    for stream, pattern in (("Stdout", rb"(?:line \d+\n){5}"), ("Stderr", rb"(?:err \d+\n){5}")):
        # The API server has an alpha gate of its own for it.
        code, text = Asker(trust(plane))(f"/containerLogs/default/{name}/counter?stream={stream}"); out, err = text.encode(), code
        check(f"logs of {stream}", re.search(pattern, out) and (b"err" in out) == (stream == "Stderr") and (b"line" in out) == (stream == "Stdout"), (out[-100:], err))
    code, _, err = kubectl("logs", name, "-c", "nosuch")
    check("logs: no such container", code == 1 and b"nosuch" in err, err)
    restarts = lambda: node.pod("crash")["status"]["containerStatuses"][0]
    check("logs: a container that crashes", wait(lambda: restarts()["restartCount"] >= 1 and restarts().get("lastState"), PATIENCE), None)
    now, before = kubectl("logs", pod("crash"))[1], kubectl("logs", pod("crash"), "--previous")[1]
    check("logs --previous", now.startswith(b"life ") and before.startswith(b"life "), (now, before))


def check_rotation(kubectl, check, node):
    """Lines are numbered: a follower gets each once, across every rotation."""
    # Two descriptions of one file: what reads it must not move where it is written.
    written = tempfile.NamedTemporaryFile(); log = open(written.name, "rb")
    follower = kubectl.start("logs", pod("flood"), "-f", stdout=written)
    try:
        kubectl("exec", pod("flood"), "--", "touch", "/tmp/go"); folder, seen = node.logs("flood"), set()
        def at_end(): seen.update(os.listdir(folder)); log.seek(max(0, os.fstat(log.fileno()).st_size - 200)); return f"\n{FLOOD_LINES} {TAIL}\n".encode() in log.read()
        check("rotation: the follower comes to the end", wait(at_end, 120), sorted(seen))
        log.seek(0); wrong = next((f"{i}: {line}" for i, line in enumerate(log, 1) if line != f"{i} {TAIL}\n".encode()), None)
        check("rotation: it gets every line once", wrong is None, wrong)
        rotated = {name[:len("0.log.20060102-150405")] for name in seen if name != "0.log"}
        check("rotation: there were several", len(rotated) >= 3, sorted(seen))
    finally: stop(follower); log.close(); written.close()
    names = sorted(os.listdir(folder)); plain = [n for n in names if not n.endswith(".gz")]
    check("rotation: not more files than are kept", len(names) <= LOG_FILES_MAX, names)
    check("rotation: all but two are compressed", 1 <= len(plain) <= 2 and names[0] == "0.log" and subprocess.run(["gzip", "-t", *(f"{folder}/{n}" for n in names if n.endswith(".gz"))]).returncode == 0, names)
    _, out, _ = kubectl("logs", pod("flood"), "--tail=1")
    check("rotation: the last line is still told", out == f"{FLOOD_LINES} {TAIL}\n".encode() or b"" == out, out)


def all_checks(plane, node, check, is_embedded):
    for protocol in PROTOCOLS:
        kubectl, tell = Kubectl(plane, protocol), lambda what, passed, seen=None: check(f"{protocol}: {what}", passed, seen)
        for part in (check_exec, check_terminal, check_attach, check_cp): part(kubectl, tell)
        check_port_forward(kubectl, tell, is_embedded)
    kubectl = Kubectl(plane, "websocket")
    check_logs(kubectl, check, plane, node); check_rotation(kubectl, check, node)
