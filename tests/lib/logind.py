"""systemd's logind as far as a kubelet needs it: on a socket of its own, it gives a delay lock and says that the machine goes down."""
import os, socket, struct, threading

BUS = "/run/dbus/system_bus_socket"


def padded(data, to=8): return data + b"\0" * (-len(data) % to)


def field(code, kind, text):
    """A field of a message's header."""
    data = text.encode()
    return bytes([code, 1, ord(kind), 0]) + (bytes([len(data)]) if kind == "g" else struct.pack("<I", len(data))) + data + b"\0"


def message(kind, signature="", body=b"", reply_to=None, member=None):
    fields = b""
    if reply_to is not None: fields += bytes([5, 1, ord("u"), 0]) + struct.pack("<I", reply_to)
    if member: fields = padded(fields) + padded(field(1, "o", "/org/freedesktop/login1")) + padded(field(2, "s", "org.freedesktop.login1.Manager")) + padded(field(3, "s", member)) + field(7, "s", ":1.0")
    if signature: fields = padded(fields) + field(8, "g", signature)
    return padded(struct.pack("<cBBBIII", b"l", kind, 0, 1, len(body), 1, len(fields)) + fields) + body


class Logind:
    def __init__(self, delay_secs, bus=BUS):
        os.makedirs(os.path.dirname(bus), exist_ok=True); self.listener = socket.socket(socket.AF_UNIX); self.listener.bind(bus); self.listener.listen()
        self.delay, self.calls, self.clients, self.locks = delay_secs * 1000000, [], [], []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True: threading.Thread(target=self.talk, args=(self.listener.accept()[0],), daemon=True).start()

    def talk(self, client):
        stream = client.makefile("rb")
        while True:
            line = stream.readline().lstrip(b"\0")
            if not line: return
            if line.startswith(b"AUTH EXTERNAL") and len(line.split()) > 2: client.sendall(b"OK 0123456789abcdef0123456789abcdef\r\n")
            elif line.startswith(b"AUTH"): client.sendall(b"REJECTED EXTERNAL\r\n")
            elif line.startswith(b"NEGOTIATE"): client.sendall(b"AGREE_UNIX_FD\r\n")
            elif line.startswith(b"BEGIN"): break
        while len(head := stream.read(16)) == 16:
            _, kind, _, _, length, serial, size = struct.unpack("<cBBBIII", head); rest = stream.read(size + -size % 8 + length)
            if kind == 1: self.answer(client, serial, self.member(rest[:size]))

    @staticmethod
    def member(fields):
        at = 0
        while at < len(fields):
            code, kind = fields[at], chr(fields[at + 2]); start = at + (5 if kind == "g" else 8); size = fields[at + 4] if kind == "g" else struct.unpack("<I", fields[at + 4:at + 8])[0]
            if kind == "u": at += 8; continue
            if code == 3: return fields[start:start + size].decode()
            at = start + size + 1; at += -at % 8
        return ""

    def answer(self, client, serial, member):
        self.calls.append(member)
        if member == "Hello": client.sendall(message(2, "s", struct.pack("<I", 4) + b":1.1\0", serial))
        elif member == "Get": client.sendall(message(2, "v", b"\x01t\0\0\0\0\0\0" + struct.pack("<Q", self.delay), serial))
        elif member == "Inhibit":
            ours, theirs = os.pipe(); self.locks.append(ours)
            # One descriptor comes with it: a field of the header says so.
            fields = bytes([5, 1, ord("u"), 0]) + struct.pack("<I", serial) + padded(field(8, "g", "h")) + bytes([9, 1, ord("u"), 0]) + struct.pack("<I", 1); body = struct.pack("<I", 0)
            socket.send_fds(client, [padded(struct.pack("<cBBBIII", b"l", 2, 0, 1, len(body), 1, len(fields)) + fields) + body], [theirs]); os.close(theirs)
        else:
            client.sendall(message(2, reply_to=serial))
            if member == "AddMatch": self.clients.append(client)

    def is_held(self):
        """Whether the machine has to wait for somebody."""
        import select
        return bool(self.locks) and not any(select.select([fd], [], [], 0)[0] for fd in self.locks[-1:])

    def prepare(self, down):
        """Tells that the machine goes down, or that it does not after all."""
        for client in self.clients:
            try: client.sendall(message(4, "b", struct.pack("<I", int(down)), member="PrepareForShutdown"))
            except OSError: pass
