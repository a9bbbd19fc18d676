"""A registry that only reads, over TLS with a certificate of its own authority; some images it gives slowly."""
import hashlib, http.server, re, ssl, subprocess, threading, time
from images import MANIFEST

PIECE = 64 * 1024


class Registry:
    def __init__(self, work):
        """`serves`: {(name, tag): (manifest, blobs)}; `slow`: {name: bytes per second}; `asked`: the paths that were asked for."""
        self.serves, self.slow, self.asked, self.ca = {}, {}, [], f"{work}/ca.pem"
        key, request, certificate, names = (f"{work}/registry.{end}" for end in ("key", "csr", "pem", "names"))
        def openssl(*words): subprocess.run(["openssl", *words], check=True, capture_output=True)
        with open(names, "w") as f: f.write("subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{work}/ca.key", "-out", self.ca, "-subj", "/CN=own authority", "-days", "2")
        openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", request, "-subj", "/CN=registry")
        openssl("x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", f"{work}/ca.key", "-CAcreateserial", "-out", certificate, "-days", "2", "-extfile", names)
        registry = self
        class Answer(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            def log_message(self, *_): pass
            def do_HEAD(self): registry.answer(self, False)
            def do_GET(self): registry.answer(self, True)
        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            def handle_error(self, *_): pass  # who asks may give up
        server = Server(("127.0.0.1", 0), Answer)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER); context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def answer(self, request, is_whole):
        path = request.path.split("?")[0]; self.asked.append(path)
        found = re.fullmatch(r"/v2/(.+)/(manifests|blobs)/([^/]+)", path)
        name, _, what = found.groups() if found else ("", "", "")
        images = [image for (n, tag), image in self.serves.items() if n == name and (tag == what or ":" in what)]
        content, kind = (b"{}", "application/json") if path == "/v2/" else (None, "application/octet-stream")
        for manifest, blobs in images:
            digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
            if what in (digest,) or ":" not in what: content, kind = manifest, MANIFEST
            elif what in blobs: content = blobs[what]
        if content is None: request.send_response(404); request.send_header("Content-Length", "0"); request.end_headers(); return
        begin = int(m.group(1)) if (m := re.match(r"bytes=(\d+)-$", request.headers.get("Range", ""))) else 0
        request.send_response(206 if begin else 200); request.send_header("Content-Type", kind)
        if begin: request.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - begin)); request.end_headers()
        rate = self.slow.get(name)
        for at in range(begin, len(content) if is_whole else begin, PIECE):
            request.wfile.write(content[at:at + PIECE])
            if rate: time.sleep(PIECE / rate)
