"""Small OCI images out of Debian's own programs, and how they get into a registry or an archive."""
import gzip, hashlib, io, json, os, re, subprocess, tarfile, tempfile, urllib.request

INDEX, MANIFEST, CONFIG, LAYER = (f"application/vnd.oci.image.{kind}" for kind in ("index.v1+json", "manifest.v1+json", "config.v1+json", "layer.v1.tar+gzip"))

PAUSE = r"""
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void leave(int s) { (void)s; _exit(0); }
static void reap(int s) { (void)s; while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) { signal(SIGINT, leave); signal(SIGTERM, leave); signal(SIGCHLD, reap); for (;;) pause(); }
"""
NGINX_CONF = b"""user root;
error_log stderr;
pid /run/nginx.pid;
events {}
http {
  types { text/html html; text/plain txt; }
  access_log /var/log/nginx/access.log;
  server { listen 80; root /usr/share/nginx/html; }
}
"""
NGINX_PAGE = b"<!DOCTYPE html>\n<title>Welcome to nginx!</title>\n<h1>Welcome to nginx!</h1>\n"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Layer:
    """A tar archive under construction; the same content gives the same bytes."""
    def __init__(self): self.raw = io.BytesIO(); self.tar = tarfile.open(fileobj=self.raw, mode="w"); self.folders, self.copied = set(), set()

    def _add(self, path, kind, mode, content=b"", link=""):
        member = tarfile.TarInfo(path.lstrip("/")); member.type, member.mode, member.size, member.linkname = kind, mode, len(content), link
        self.tar.addfile(member, io.BytesIO(content))

    def folder(self, path, mode=0o755):
        if path in ("", "/") or path in self.folders: return
        self.folder(os.path.dirname(path)); self.folders.add(path); self._add(path, tarfile.DIRTYPE, mode)

    def file(self, path, content, mode=0o644): self.folder(os.path.dirname(path)); self._add(path, tarfile.REGTYPE, mode, content)
    def link(self, path, to): self.folder(os.path.dirname(path)); self._add(path, tarfile.SYMTYPE, 0o777, link=to)
    def copy(self, path, source, mode=0o755):
        with open(source, "rb") as f: self.file(path, f.read(), mode)

    def program(self, path, source=None):
        """A program of Debian's with the libraries that it loads; the program itself may come from elsewhere."""
        loaded = re.findall(r"(/[^ )]+) \(0x", subprocess.run(["ldd", source or path], capture_output=True, text=True, check=True).stdout)
        for one in (path, *sorted(set(loaded))):
            if one not in self.copied: self.copied.add(one); self.copy(one, source if source and one == path else one)

    def bytes(self): self.tar.close(); return self.raw.getvalue()


def image(layer, **config):
    """The blobs of one image: (manifest, {digest: bytes}), with `config` as in the image specification (Cmd, Entrypoint, Env)."""
    blobs = {}
    def blob(content): digest = "sha256:" + hashlib.sha256(content).hexdigest(); blobs[digest] = content; return {"digest": digest, "size": len(content)}
    tar = layer.bytes()
    settings = {"architecture": "amd64", "os": "linux", "config": config, "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(tar).hexdigest()]}}
    packed = blob(gzip.compress(tar, 6, mtime=0))
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": {"mediaType": CONFIG, **blob(json.dumps(settings).encode())}, "layers": [{"mediaType": LAYER, **packed}]}
    return json.dumps(manifest).encode(), blobs


def pause(**config):
    """A process that waits and reaps: the sandbox."""
    with tempfile.TemporaryDirectory() as work:
        with open(f"{work}/pause.c", "w") as f: f.write(PAUSE)
        subprocess.run(["gcc", "-Os", "-static", "-s", "-o", f"{work}/pause", f"{work}/pause.c"], check=True)
        layer = Layer(); layer.copy("/pause", f"{work}/pause")
    return image(layer, Entrypoint=["/pause"], **config)


def _busybox_layer():
    layer = Layer(); layer.copy("/bin/busybox", "/bin/busybox")
    for applet in subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox": layer.link(f"/bin/{applet}", "busybox")
    layer.file("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"); layer.file("/etc/group", b"root:x:0:\nnogroup:x:65534:\n")
    for path in ("/root", "/proc", "/sys", "/dev", "/run", "/var/log"): layer.folder(path)
    layer.folder("/tmp", 0o1777)
    return layer


def busybox(): return image(_busybox_layer(), Cmd=["sh"], Env=[PATH])


def nginx(**more):
    """Debian's nginx with its libraries, on busybox; serves a page on port 80. `more` is added to its configuration."""
    layer = _busybox_layer(); layer.program("/usr/sbin/nginx")
    layer.file("/etc/nginx/nginx.conf", NGINX_CONF); layer.file("/usr/share/nginx/html/index.html", NGINX_PAGE)
    for path in ("/var/log/nginx", "/var/lib/nginx"): layer.folder(path)
    return image(layer, Cmd=["nginx", "-g", "daemon off;"], Env=[PATH], ExposedPorts={"80/tcp": {}}, StopSignal="SIGQUIT", **more)


def push(registry, name, tag, built):
    """Puts an image into a registry, `registry` being its http URL."""
    def send(method, url, content, kind):
        with urllib.request.urlopen(urllib.request.Request(url, content, {"Content-Type": kind}, method=method), timeout=30) as answer: return answer.headers
    manifest, blobs = built
    for digest, content in blobs.items():
        upload = send("POST", f"{registry}/v2/{name}/blobs/uploads/", b"", "application/octet-stream")["Location"]
        send("PUT", upload + ("&" if "?" in upload else "?") + "digest=" + digest, content, "application/octet-stream")
    send("PUT", f"{registry}/v2/{name}/manifests/{tag}", manifest, MANIFEST)


def archive(path, images):
    """Writes an OCI archive for `ctr images import`; images: {reference: built}."""
    layer, entries = Layer(), []
    layer.file("/oci-layout", b'{"imageLayoutVersion": "1.0.0"}'); written = set()
    for reference, (manifest, blobs) in images.items():
        digest = "sha256:" + hashlib.sha256(manifest).hexdigest()
        entries.append({"mediaType": MANIFEST, "digest": digest, "size": len(manifest), "annotations": {"org.opencontainers.image.ref.name": reference}})
        for name, content in {**blobs, digest: manifest}.items():
            if name not in written: written.add(name); layer.file("/blobs/sha256/" + name[7:], content)
    layer.file("/index.json", json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode())
    with open(path, "wb") as f: f.write(layer.bytes())
