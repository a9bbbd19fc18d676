"""Images for the contract's scenarios: images.py LIB archive FILE; images.py LIB push REGISTRY."""
import sys

sys.dont_write_bytecode = True
sys.path.insert(0, sys.argv[1])
import images


def busybox(passwd="", group="", **config):
    layer = images._busybox_layer()
    if passwd:
        # A later member of an archive replaces an earlier one.
        layer.file("/etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n" + passwd.encode())
        layer.file("/etc/group", b"root:x:0:\n" + group.encode())
    return images.image(layer, **{"Cmd": ["sh"], "Env": [images.PATH], **config})


def env(word): return {"Env": [images.PATH, word]}


def named():
    user = {"User": "www-data"}
    return busybox("www-data:x:33:33::/:/bin/sh\n", "www-data:x:33:\naudio:x:29:www-data\n", **user)


# As rubelet_testkit::contract::REGISTRY_IMAGES says.
PUSHED = {
    ("contract/first", "1"): busybox(**env("FIRST=yes")), ("contract/first", "latest"): busybox(**env("FIRST=yes")),
    ("contract/second", "1"): busybox(**env("SECOND=yes")), ("contract/third", "1"): busybox(**env("THIRD=yes")),
    **{("contract/tags", tag): busybox(**env("TAGS=yes")) for tag in "abc"},
    ("contract/user", "1"): busybox(User="1002"), ("contract/username", "1"): named(),
    ("contract/entry", "1"): busybox(Entrypoint=["echo"], Cmd=["of the image"], WorkingDir="/var/log", StopSignal="SIGUSR1",
                                     Env=[images.PATH, "NAME=image", "KEPT=kept"]),
    ("contract/signal", "1"): busybox(StopSignal="SIGUSR1"),
}

if sys.argv[2] == "archive":
    images.archive(sys.argv[3], {"localhost/pause:1": images.pause(), "localhost/busybox:1": images.busybox()})
else:
    for (name, tag), built in PUSHED.items(): images.push(sys.argv[3], name, tag, built)
