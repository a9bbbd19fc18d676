#!/usr/bin/env python3
"""The images that the conformance suite names, as one OCI archive, from Debian's programs and the suite's own Go programs.

usage: BUSYBOX=PROGRAM images.py OUT.tar SOURCES AGNHOST NONEWPRIVS REGRESSION DEVICES     (the folder of the module's images, and the programs, static)
"""
import functools, os, subprocess, sys, tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../lib"))
import images
from images import Layer, image

BUSYBOX = os.environ["BUSYBOX"]
E2E = "registry.k8s.io/e2e-test-images"
# What the suite's scripts ask of busybox's nmeter, which Debian's busybox leaves out: the time of day with milliseconds, line by line.
NMETER = r"""
#include <stdio.h>
#include <time.h>
int main(void) {
  for (;;) {
    struct timespec now; clock_gettime(CLOCK_REALTIME, &now);
    long day = now.tv_sec % 86400;
    if (printf("%02ld:%02ld:%02ld.%03ld\n", day / 3600, day / 60 % 60, day % 60, now.tv_nsec / 1000000) < 0 || fflush(stdout)) return 0;
  }
}
"""
USERS = b"root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\nuser-defined-in-image:x:1000:1000::/home:/bin/sh\n"
GROUPS = b"root:x:0:\nnogroup:x:65534:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"


@functools.cache
def nmeter():
    with tempfile.TemporaryDirectory() as work:
        with open(f"{work}/nmeter.c", "w") as f: f.write(NMETER)
        subprocess.run(["gcc", "-Os", "-static", "-s", "-o", f"{work}/nmeter", f"{work}/nmeter.c"], check=True)
        with open(f"{work}/nmeter", "rb") as f: return f.read()


def base(without=()):
    """Busybox with the users that the suite expects."""
    layer = Layer(); layer.copy("/bin/busybox", BUSYBOX)
    for applet in subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet not in ("busybox", *without): layer.link(f"/bin/{applet}", "busybox")
    layer.file("/bin/nmeter", nmeter(), 0o755)
    layer.file("/etc/passwd", USERS); layer.file("/etc/group", GROUPS)
    for path in ("/root", "/proc", "/sys", "/dev", "/run", "/var/log", "/uploads", "/home"): layer.folder(path)
    layer.folder("/tmp", 0o1777)
    return layer


# What the suite reads in a volume of this image.
KITTEN = {"/data.json": b'{"image": "kitten.jpg"}\n', "/etc/os-release": b'NAME="Alpine Linux"\n'}


def agnhost(program, sources, files={}, **config):
    """The program that the suite's pods run, with the certificate that it serves, and an nc that speaks UDP; busybox's shell would take its own."""
    layer = base(without=("nc", "sh"))
    for path in ("/bin/bash", "/bin/dash", "/bin/nc.openbsd"): layer.program(path)
    layer.link("/bin/nc", "nc.openbsd"); layer.link("/bin/sh", "dash")
    for name in ("localhost.crt", "localhost.key"): layer.copy(f"/{name}", f"{sources}/agnhost/porter/{name}", 0o644)
    for path, content in files.items(): layer.file(path, content)
    layer.copy("/agnhost", program); layer.link("/agnhost-2", "agnhost"); layer.program("/usr/bin/curl")
    return image(layer, Entrypoint=["/agnhost"], Cmd=["pause"], Env=[images.PATH], **config)


def setuid(program):
    """A program that everybody runs as root, if privileges may be gained."""
    layer = base(); layer.copy("/nnp", program, 0o4755)
    return image(layer, Entrypoint=["/nnp"], Env=[images.PATH])


def glibc():
    """Names of hosts as Debian's library finds them."""
    layer = base(without=("hostname",)); layer.program("/bin/hostname")
    layer.file("/etc/nsswitch.conf", b"hosts: files dns\n")
    return image(layer, Cmd=["sh"], Env=[images.PATH])


def one(program, path):
    layer = base(); layer.copy(path, program)
    return image(layer, Entrypoint=[path], Env=[images.PATH])


def main():
    out, sources, agn, nnp, regression, devices = sys.argv[1:]
    busybox, host = images.image(base(), Cmd=["sh"], Env=[images.PATH]), agnhost(agn, sources)
    nginx, nginx_new = images.nginx(), images.nginx(Labels={"is": "the newer one"})
    images.archive(out, {
        "registry.k8s.io/pause:3.10.2": images.pause(), f"{E2E}/busybox:1.37.0-1": busybox,
        f"{E2E}/ipc-utils:1.4": image(base(), Cmd=["sh"], Env=[images.PATH], Labels={"is": "ipc-utils"}),
        f"{E2E}/agnhost:2.63.0": host, f"{E2E}/agnhost:2.55": agnhost(agn, sources, Labels={"is": "the one before"}), f"{E2E}/nautilus:1.8": host, f"{E2E}/kitten:1.8": agnhost(agn, sources, KITTEN),
        f"{E2E}/glibc-dns-testing:2.0.0": glibc(), f"{E2E}/nonroot:1.5": agnhost(agn, sources, User="1234"), f"{E2E}/nonewprivs:1.4": setuid(nnp), f"{E2E}/regression-issue-74839:1.4": one(regression, "/regression-issue-74839"),
        f"{E2E}/sample-device-plugin:1.7": one(devices, "/sampledeviceplugin"),
        f"{E2E}/nginx:1.15-4": nginx, f"{E2E}/nginx:1.27-0": nginx_new})


if __name__ == "__main__": main()
