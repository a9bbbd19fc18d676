#!/usr/bin/env python3
"""What a power failure leaves of the embedded runtime's images: usage: power.py small RUBELET IMAGES.tar DIR | power.py before RUBELET IMAGES.tar | power.py after RUBELET IMAGES.tar

small: a file system of its own below DIR is stopped at some points of an import, as a power failure would stop it (ext4's shutdown), and looked at.
before: with a pod running, an import begins, and in the middle of it the machine is reset without a word to anybody: what was not flushed is lost. (The emulated disk keeps
what the machine wrote, flushed or not, so this shows what is lost of the machine's memory, not of a disk's.) after: the store is whole, and so is the pod.
"""
import fcntl, glob, hashlib, io, json, os, stat, subprocess, sys, tarfile, time, zlib
from node import Agent, Checks, container, is_ready, pod, pods, read, run, until, write

TOP, STOP, NO_FLUSH = "/opt/power", 0x8004587D, (2).to_bytes(4, "little")  # EXT4_IOC_SHUTDOWN, EXT4_GOING_FLAGS_NOLOGFLUSH
SHORT = {"busybox": ["sh", "-c", "echo end; sleep 10000"], "agnhost": ["/agnhost", "pause"], "nginx": None, "pause": None}


def tree(root):
    """A figure for all that is in a folder."""
    total = hashlib.sha256()
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(folders + files):
            path = os.path.join(folder, name); s = os.lstat(path); content = ""
            if stat.S_ISREG(s.st_mode):
                with open(path, "rb") as f: content = zlib.crc32(f.read())
            elif stat.S_ISLNK(s.st_mode): content = os.readlink(path)
            total.update(repr((os.path.relpath(path, root), s.st_mode, s.st_uid, s.st_gid, stat.S_ISREG(s.st_mode) and s.st_size, content)).encode())
    return total.hexdigest()


def records(store): return [json.loads(read(path)) for path in sorted(glob.glob(f"{store}/images/*.json"))]


def layers(store, chains):
    """The figures of the layers of these names that are there."""
    places = {chain: f"{store}/layers/{chain.split(':')[-1][:16]}" for chain in chains}
    return {chain: tree(place) for chain, place in places.items() if os.path.isdir(place)}


def damage(store, wanted):
    """What is wrong with the images that are recorded. `wanted`: figures of their layers."""
    wrong = []
    for path in glob.glob(f"{store}/images/*"):
        try: record = json.loads(read(path))
        except ValueError: wrong.append((path, "no record", read(path)[:80])); continue
        for digest in [record["id"], *record["documents"]]:
            file = f"{store}/blobs/sha256/{digest.split(':')[-1]}"
            if not os.path.exists(file) or hashlib.sha256(open(file, "rb").read()).hexdigest() != digest.split(":")[-1]: wrong.append((path, "blob", digest))
        found = layers(store, record["chains"])
        wrong += [(path, "layer", chain) for chain in record["chains"] if wanted and found.get(chain) != wanted[chain]]
    return wrong


def listed(folder): return os.listdir(folder) if os.path.isdir(folder) else []


def left(store): return listed(f"{store}/ingest") + [name for name in listed(f"{store}/layers") if name.startswith(".")]


def small(binary, images, top):
    check = Checks(); wanted, at = {}, f"{top}/disk"; store = f"{at}/root/images"; os.makedirs(at, exist_ok=True)
    points = [("at its end", lambda: False), ("while the archive is read", lambda: listed(f"{store}/ingest")),
              ("while a layer is unpacked", lambda: any(n.startswith(".tmp-new") for n in listed(f"{store}/layers"))), ("when the first image is recorded", lambda: glob.glob(f"{store}/images/*.json"))]
    take_in = [binary, "image", "import", images, f"--embedded-root-dir={at}/root", f"--embedded-run-dir={top}/run", f"--embedded-import-dir={top}/none"]
    for where, point in points:
        with open(f"{top}/image", "wb") as f: f.truncate(1 << 30)
        subprocess.run(["mkfs.ext4", "-q", "-F", f"{top}/image"], check=True); subprocess.run(["mount", "-o", "loop", f"{top}/image", at], check=True)
        process = subprocess.Popen(take_in, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        while process.poll() is None and not point(): time.sleep(.002)
        is_done = process.poll() is not None
        if where == "at its end": wanted = layers(store, {chain for record in records(store) for chain in record["chains"]})
        fd = os.open(at, os.O_RDONLY); fcntl.ioctl(fd, STOP, NO_FLUSH); os.close(fd)
        process.communicate(timeout=120)
        subprocess.run(["umount", at], check=True); subprocess.run(["mount", "-o", "loop", f"{top}/image", at], check=True)
        there = len(records(store)); wrong = damage(store, wanted)
        check(f"power failure of an import, {where}: what is recorded is whole ({there} images)", not wrong and is_done == (where == "at its end") and (there == 4 or not is_done), (is_done, there, wrong))
        again = run(*take_in); wrong = damage(store, wanted)
        check(f"power failure of an import, {where}: it can be imported then, and nothing is left over", again.returncode == 0 and len(records(store)) == 4 and not wrong and not left(store), (again, wrong, left(store)))
        subprocess.run(["umount", at], check=True)
    write(f"{top}/layers.json", json.dumps(wanted))
    os.unlink(f"{top}/image"); os.rmdir(at); check.end()


def only(archive, word, to):
    """An archive's images with a word in their names, as an archive."""
    with tarfile.open(archive) as old, tarfile.open(to, "w") as new:
        for member in old:
            content = member.isfile() and old.extractfile(member).read()
            if os.path.basename(member.name) == "index.json":
                index = json.loads(content); index["manifests"] = [m for m in index["manifests"] if word in json.dumps(m)]; content = json.dumps(index).encode(); member.size = len(content)
            new.addfile(member, io.BytesIO(content) if content else None)


def before(binary, images):
    check = Checks(); agent = Agent(binary, TOP); store = f"{TOP}/root/images"
    only(images, "busybox", f"{TOP}/import/first.tar")
    agent.wants(pod("first", container("echo end; sleep 10000"))); agent.start("out/power-before.log"); agent.said("first")
    check("reset: a pod runs before it, on the only image", until(lambda: is_ready(pods().get("first"))) and len(records(store)) == 1, (pods(), records(store)))
    if not all(check.results): check.end()
    print("check: 1 passed, 0 failed", flush=True); os.sync()
    process = subprocess.Popen([binary, "image", "import", images, *agent.own])
    while process.poll() is None and len(glob.glob(f"{store}/images/*.json")) < 3: time.sleep(.002)
    if process.poll() is None:
        with open("/proc/sysrq-trigger", "w") as f: f.write("b")
    print("check: 0 passed, 1 failed\nFAILED  reset: the import was faster than the reset", flush=True); sys.exit(1)


def after(binary, images):
    check = Checks(); agent = Agent(binary, TOP); store = f"{TOP}/root/images"; wanted = json.loads(read("/opt/small/layers.json"))
    there = records(store); wrong = damage(store, wanted); busybox = [r for r in there if "busybox" in str(r["tags"])]
    check(f"reset: the import was broken off, and what is recorded is whole ({len(there)} images)", not wrong and busybox and 2 <= len(there) < 4, (there, wrong))
    run_each = lambda images: [pod(f"each-{tag.split('/')[-1].split(':')[0]}", {"name": "main", "image": tag, "imagePullPolicy": "Never", **({"command": c} if (c := SHORT[tag.split('/')[-1].split(':')[0]]) else {})}) for r in images for tag in r["tags"]]
    listed = run_each(there); agent.wants(*listed); agent.start("out/power-after.log")
    up = lambda names: until(lambda: (known := pods()) and all(is_ready(known.get(n)) for n in names))
    check("reset: the pod runs again", up(["first"]), pods().get("first"))
    check("reset: every image that is there can be run", up([p["metadata"]["name"] for p in listed]), pods())
    again = run(binary, "image", "import", images, *agent.own); wrong = damage(store, wanted); every = run_each(records(store)); agent.wants(*every)
    check("reset: the import works then, and nothing is left over", again.returncode == 0 and len(records(store)) == 4 and not wrong and not left(store), (again, wrong, left(store)))
    check("reset: and every image of it can be run", len(every) == 4 and up([p["metadata"]["name"] for p in every]), pods())
    done = agent.stop_all(); check("reset: stop --all ends them", done.returncode == 0, done)
    check.end()


if __name__ == "__main__":
    {"small": small, "before": before, "after": after}[sys.argv[1]](*sys.argv[2:])
