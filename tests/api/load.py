"""Many clients at once: nothing is lost, and the agent's memory has a bound. Connections go to the agent itself, with the API server's certificate."""
import asyncio, hashlib, json, re, ssl, threading, time

from controlplane import wait
from node import ADDRESS, NAME, PORT, TAIL, Node, sh

IDLE, FOLLOWERS, SLEEPERS, FORWARDS, LINES, FORWARD_BYTES = 1000, 200, 20, 100, 10_000, 5 << 20
# What the agent may take beside what it has at rest (PSS, MiB). Seen on the embedded runtime: 25, 34 and 55, and 20 stay. A connection: what TLS and HTTP keep, 25 KiB. A follower: that and
# two pieces of 128 KiB on their way when it does not read. A forwarded connection: that, 64 KiB in each direction, and the runtime's end of it where that is in the agent.
IDLE_MIB_MAX, FOLLOW_MIB_MAX, FORWARD_MIB_MAX, LEFT_MIB_MAX = 40, 64, 88, 32
PATIENCE = 180

CONTAINERS = {
    "lines": sh(f"until [ -e /tmp/go ]; do usleep 50000; done; i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo $i {TAIL}; [ $((i % 500)) != 0 ] || usleep 100000; done; sleep 100000"),
    "served": {"command": ["/bin/served"]},
}


def pss_mib(pid):
    with open(f"/proc/{pid}/smaps_rollup") as f: return int(re.search(r"^Pss:\s+(\d+)", f.read(), re.M).group(1)) / 1024


class Peak:
    """The most memory of a process while something is done."""
    def __init__(self, pid): self.pid, self.most, self.over = pid, pss_mib(pid), threading.Event()
    def __enter__(self): self.thread = threading.Thread(target=self.look); self.thread.start(); return self
    def look(self):
        while not self.over.wait(0.2): self.most = max(self.most, pss_mib(self.pid))
    def __exit__(self, *_): self.over.set(); self.thread.join()


def trust(plane):
    """A client with the API server's certificate. Who the agent is, is of no matter here."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT); context.check_hostname = False; context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(f"{plane.work}/apiserver-kubelet-client.crt", f"{plane.work}/apiserver-kubelet-client.key"); return context


async def connect(context): return await asyncio.open_connection(ADDRESS, PORT, ssl=context, limit=1 << 18)


async def ask(context, path, head="", at_once=None):
    """Sends a request; status, reader and writer. The answer's head is read."""
    reader, writer = at_once or await connect(context)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\n{head}\r\n".encode()); await writer.drain()
    answer = await reader.readuntil(b"\r\n\r\n"); return int(answer.split()[1]), reader, writer


async def in_groups(makers, count=50):
    """Starts them, so many at a time."""
    room = asyncio.Semaphore(count)
    async def one(make):
        async with room: return await make()
    return await asyncio.gather(*(one(make) for make in makers))


async def idle(context, pid, rest, check):
    with Peak(pid) as peak:
        held = await in_groups([lambda: connect(context)] * IDLE)
        # On half of them something was asked.
        answers = await in_groups([lambda at=at: ask(context, "/healthz", at_once=at) for at in held[: IDLE // 2]])
        check(f"load: {IDLE} connections, {len(answers)} of which have asked", all(status == 200 for status, _, _ in answers))
        await asyncio.sleep(0.5)
    for _, writer in held: writer.close()
    check(f"load: {IDLE} connections take at most {IDLE_MIB_MAX} MiB more than rest: {rest:.0f} to {peak.most:.0f}", peak.most - rest <= IDLE_MIB_MAX)


async def follow(context, start, wakes):
    """All that a follower gets, hashed; it reads when it is woken."""
    status, reader, writer = await ask(context, f"/containerLogs/default/lines-{NAME}/lines?follow=true")
    if status != 200: return status
    start.release(); await wakes.wait(); got, end, seen = hashlib.sha256(), f"{LINES} {TAIL}\n".encode(), b""
    while not seen.endswith(end):
        size = int(await reader.readuntil(b"\r\n"), 16)
        if size == 0: return f"ended after {seen[-60:]}"
        piece = (await reader.readexactly(size + 2))[:-2]; got.update(piece); seen = (seen + piece)[-200:]
    writer.close(); return got.hexdigest()


async def followers(context, pid, rest, go, check):
    wanted = hashlib.sha256(b"".join(f"{i} {TAIL}\n".encode() for i in range(1, LINES + 1))).hexdigest()
    now, later, started = asyncio.Event(), asyncio.Event(), asyncio.Semaphore(0); now.set()
    with Peak(pid) as peak:
        tasks = [asyncio.create_task(follow(context, started, later if i < SLEEPERS else now)) for i in range(FOLLOWERS)]
        for _ in tasks: await asyncio.wait_for(started.acquire(), PATIENCE)
        await asyncio.to_thread(go)
        first = await asyncio.wait_for(asyncio.gather(*tasks[SLEEPERS:]), PATIENCE); later.set()
        last = await asyncio.wait_for(asyncio.gather(*tasks[:SLEEPERS]), PATIENCE)
    wrong = [got for got in first + last if got != wanted]
    check(f"load: {FOLLOWERS} followers of {LINES} lines get each one; {SLEEPERS} of them read late", not wrong, (len(wrong), wrong[:3]))
    check(f"load: {FOLLOWERS} followers take at most {FOLLOW_MIB_MAX} MiB more than rest: {rest:.0f} to {peak.most:.0f}", peak.most - rest <= FOLLOW_MIB_MAX)


async def forward(context, index):
    """One connection to the port that gives back what comes, over a WebSocket with channels; None if all came back."""
    head = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n"
    status, reader, writer = await ask(context, f"/portForward/default/served-{NAME}?port=9001", head)
    if status != 101: return f"{status} {(await reader.read(300))!r}"
    block = hashlib.sha256(str(index).encode()).digest() * 1024; count = FORWARD_BYTES // len(block)
    async def send():
        # A mask of zeros changes nothing. Channel 0 is the data's, 1 that of errors.
        for _ in range(count): writer.write(b"\x82\xff" + (len(block) + 1).to_bytes(8, "big") + bytes(4) + b"\0" + block); await writer.drain()
    sending, got, size, ports = asyncio.create_task(send()), hashlib.sha256(), 0, {0: 2, 1: 2}
    while size < count * len(block):
        first, length = await reader.readexactly(2); length = int.from_bytes(await reader.readexactly({126: 2, 127: 8}[length]), "big") if length > 125 else length
        payload = await reader.readexactly(length)
        if first & 15 == 8: return f"closed after {size}"
        if first & 15 > 2 or not payload: continue
        channel, data = payload[0], payload[1:]; skipped = min(ports[channel], len(data)); ports[channel] -= skipped; data = data[skipped:]  # each begins with its port
        if channel == 1 and data: return data
        if channel == 0: got.update(data); size += len(data)
    await sending; writer.close()
    return None if got.digest() == hashlib.sha256(block * count).digest() else f"other bytes than were sent, {size} of them"


async def forwards(context, pid, rest, check):
    start = time.monotonic()
    with Peak(pid) as peak: outcomes = await asyncio.wait_for(asyncio.gather(*(forward(context, i) for i in range(FORWARDS)), return_exceptions=True), PATIENCE)
    secs, total = time.monotonic() - start, 2 * FORWARDS * FORWARD_BYTES / (1 << 20); wrong = [o for o in outcomes if o is not None]
    check(f"load: {FORWARDS} forwarded connections, {total:.0f} MiB there and back in {secs:.0f} s", not wrong, (len(wrong), wrong[:3]))
    check(f"load: {FORWARDS} forwarded connections take at most {FORWARD_MIB_MAX} MiB more than rest: {rest:.0f} to {peak.most:.0f}", peak.most - rest <= FORWARD_MIB_MAX)


def is_json(line):
    try: item = json.loads(line)
    except ValueError: return False
    return isinstance(item.get("ts"), float) and isinstance(item.get("msg"), str) and ":" in item.get("caller", "")


def all_checks(kubelet, kind, plane, check):
    with Node(kind, kubelet, plane, CONTAINERS, 1 << 34, "json") as node:
        pid, context = node.process.pid, trust(plane); rest = pss_mib(pid)
        go = lambda: plane.kubectl("exec", f"lines-{NAME}", "--", "touch", "/tmp/go")
        async def everything():
            await idle(context, pid, rest, check); await followers(context, pid, rest, go, check); await forwards(context, pid, rest, check)
        asyncio.run(everything())
        wait(lambda: pss_mib(pid) - rest <= LEFT_MIB_MAX, 20)
        check(f"load: at most {LEFT_MIB_MAX} MiB stay when all are gone: {rest:.0f} to {pss_mib(pid):.0f}", pss_mib(pid) - rest <= LEFT_MIB_MAX)
        with open(f"{node.machine.work}/log/kubelet.log") as f: lines = f.read().splitlines()
        check("the log in JSON: each line", len(lines) >= 3 and all(is_json(line) for line in lines), [line for line in lines if not is_json(line)][:2])
        check("load: the agent lives", node.process.poll() is None, node.log_end())
