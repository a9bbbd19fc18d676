#!/usr/bin/env python3
"""The images that the CRI validation suite names, as one OCI archive, from Debian's programs; prints the digest of the one that is pulled by its digest.

usage: BUSYBOX=PROGRAM images.py OUT.tar      (Debian's dynamic busybox; needs gcc, nginx, and Debian's pgrep and ipcs)
"""
import hashlib, os, subprocess, sys, tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../lib"))
import images
from images import Layer, image

BUSYBOX = os.environ["BUSYBOX"]
E2E, STAGING = "registry.k8s.io/e2e-test-images", "gcr.io/k8s-staging-cri-tools"
# What is pulled by digest; its tag is for the archive only.
BY_DIGEST = f"{STAGING}/test-image-digest:latest"
# Says who it is; that it says 0 to a user of no privileges is the point of its set-uid bit.
WHO = r"""
#include <stdio.h>
#include <unistd.h>
int main(void) { printf("Effective uid: %d\n", (int)geteuid()); }
"""
USERS = b"root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n"
GROUPS = b"root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n"
NGINX = b"""user root;
error_log stderr;
pid /run/nginx.pid;
events {}
http {
  access_log /dev/stdout;
  server { listen %d; root /usr/share/nginx/html; }
}
"""


def base(users=b"", groups=b""):
    """Busybox, two programs that Debian leaves out of it, and an `ls` of its own, which is masked in a spec."""
    layer = Layer(); layer.program("/bin/busybox", BUSYBOX)
    programs = ("/usr/bin/pgrep", "/usr/bin/ipcs", "/bin/ls"); own = [os.path.basename(path) for path in programs]
    for path in programs: layer.program(path)
    for applet in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet not in ("busybox", *own): layer.link(f"/bin/{applet}", "busybox")
    layer.file("/etc/passwd", USERS + users); layer.file("/etc/group", GROUPS + groups)
    for path in ("/root", "/proc", "/sys", "/dev", "/run", "/var/log", "/var/lib", "/home"): layer.folder(path)
    layer.folder("/tmp", 0o1777); layer.link("/var/run", "/run")
    return layer


def busybox(*files, **config):
    layer = base()
    for path in files: layer.file(path, b"")
    return image(layer, **{"Cmd": ["sh"], "Env": [images.PATH], **config})


def web(port, command, **config):
    """A web server, whose log is its output."""
    layer = base(); layer.program("/usr/sbin/nginx")
    layer.file("/etc/nginx/nginx.conf", NGINX % port); layer.file("/usr/share/nginx/html/index.html", images.NGINX_PAGE)
    for path in ("/var/log/nginx", "/var/lib/nginx"): layer.folder(path)
    return image(layer, Cmd=command, Env=[images.PATH], ExposedPorts={f"{port}/tcp": {}}, **config)


def who():
    with tempfile.TemporaryDirectory() as work:
        with open(f"{work}/who.c", "w") as f: f.write(WHO)
        subprocess.run(["gcc", "-Os", "-static", "-s", "-o", f"{work}/who", f"{work}/who.c"], check=True)
        layer = base(); layer.copy("/who", f"{work}/who", 0o4755)
    return image(layer, Entrypoint=["/who"], Env=[images.PATH])


def in_a_group():
    """Somebody whom the image's own files put into a group more."""
    layer = base(b"default-user:x:1000:1000::/home:/bin/sh\n", b"default-user:x:1000:\ngroup-defined-in-image:x:50000:default-user\n")
    return image(layer, Cmd=["sh"], Env=[images.PATH], User="1000")


def main():
    nginx, by_digest = ["nginx", "-g", "daemon off;"], busybox("/test-image-digest")
    same, pause = busybox("/same-image"), images.pause()
    users = {"uid": "1002", "username": "www-data", "uid-group": "1003:1004", "username-group": "www-data:1004"}
    images.archive(sys.argv[1], {
        "registry.k8s.io/pause:3.10.2": pause,  # of containerd's sandboxes
        "registry.k8s.io/pause:3.9": images.pause(Labels={"is": "3.9"}), "k8s.gcr.io/pause:3.9": images.pause(Labels={"is": "3.9"}),
        f"{E2E}/busybox:1.29-2": busybox(), f"{E2E}/nonewprivs:1.3": who(), f"{E2E}/nginx:1.14-2": web(80, nginx),
        f"{E2E}/httpd:2.4.39-4": web(80, ["sh", "-c", "echo httpd; exec nginx -g 'daemon off;'"]),
        f"{STAGING}/hostnet-nginx-amd64:latest": web(12003, nginx), f"{STAGING}/test-image-predefined-group:latest": in_a_group(), BY_DIGEST: by_digest,
        **{f"{STAGING}/test-image-{name}:latest": busybox(f"/test-image-{name}") for name in ("1", "2", "3", "latest")},
        **{f"{STAGING}/test-image-tags:{tag}": same for tag in ("1", "2", "3")}, **{f"{STAGING}/test-image-tag:{tag}": busybox(f"/{tag}") for tag in ("test", "all")},
        **{f"{STAGING}/test-image-user-{name}:latest": busybox(User=user) for name, user in users.items()}})
    print("sha256:" + hashlib.sha256(by_digest[0]).hexdigest())


if __name__ == "__main__": main()
