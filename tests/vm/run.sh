#!/usr/bin/env bash
# usage: run.sh KUBELET OUT [ONLY_RE]: boots the machine that image.sh made, plays the recordings of cgroup v2 in it,
# on the embedded runtime and on containerd (X_VM_RUNTIMES, X_VM_DEBIAN), does the other checks (X_VM_PARTS: golden checks reboot power poweroff; firewalls only when named; X_VM_QUOTA=xfs: projects are counted by that),
# and leaves its log, records and console in OUT. Ends with `vm: passed`, `vm: failed` or `vm: timed out`.
set -euo pipefail
kubelet=$(realpath "$1") out=$(realpath -m "$2") only=${3:-.}
cd "$(dirname "$(realpath "$0")")/../.."
. tests/lib/forky.sh

vm=$X_CACHE/vm
[ "${X_VM_DEBIAN:-forky}" = forky ] || vm+=-$X_VM_DEBIAN
minutes=${X_VM_MINUTES:-40}
work=$(mktemp -d)
qemu=
trap 'exit 1' TERM INT
trap '[ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true; rm -rf "$work"' EXIT
mkdir -p "$work/disk" "$out"
rm -rf "${out:?}"/*
cp -r tests/golden "$work/disk/golden"
cp "$kubelet" "$work/disk/kubelet"
cp "$X_CACHE/bin/crirecord" "$X_CACHE/images/golden.tar" "$work/disk/"
mv "$work/disk/golden.tar" "$work/disk/images.tar"
cp tests/vm/guest "$work/disk/run"
cp tests/vm/*.py examples/systemd/* "$work/disk/"
mkdir "$work/disk/out"
echo "$only" >"$work/disk/only"
echo "${X_VM_RUNTIMES:-embedded containerd}" >"$work/disk/runtimes"
echo "${X_VM_QUOTA:-ext4}" >"$work/disk/quota"
echo "${X_VM_PARTS:-golden checks reboot power poweroff}" >"$work/disk/parts"
# One CPU: with more, QEMU 7.2 runs code that the guest is just changing on another one, and the kernel dies of it (int3 at a static key).
accel=tcg,thread=multi cpu=max slow=8 cpus=1
# Not by the presence of /dev/kvm: nested ones are seen to end in the boot loader.
[ "${X_VM_ACCEL:-}" != kvm ] || accel=kvm cpu=host slow=1 cpus=$(nproc)
# An emulated clock that is late looks like a broken one at boot: no_timer_check.
echo "$slow" >"$work/disk/slow"
truncate -s 1G "$work/disk.img"
mkfs.ext4 -q -F -d "$work/disk" "$work/disk.img"

echo "vm: booting ($accel), at most $minutes minutes; console: $out/console.log"
qemu-system-x86_64 -M q35 -accel "$accel" -cpu "$cpu" -smp "$cpus" -m 3G -nographic -nic none \
  -kernel "$vm/vmlinuz" -initrd "$vm/initrd" -append "root=/dev/vda rw console=ttyS0 quiet no_timer_check" \
  -drive "file=$vm/disk.img,if=virtio,format=raw,cache=unsafe,snapshot=on" \
  -drive "file=$work/disk.img,if=virtio,format=raw,cache=unsafe" </dev/null >"$out/console.log" 2>&1 &
qemu=$!
# Waited for in the background, so that a signal to this script ends the machine at once.
timeout $((minutes * 60)) tail --pid="$qemu" -f /dev/null &
wait $! || kill "$qemu" 2>/dev/null || true
wait "$qemu" 2>/dev/null || true
qemu=
e2fsck -fy "$work/disk.img" >/dev/null 2>&1 || true
for part in log status out; do debugfs -R "rdump /$part $out" "$work/disk.img" >/dev/null 2>&1 || true; done
[ -s "$out/log" ] && cat "$out/log"
if [ -s "$out/status" ] && [ -d "$out/out/poweroff" ]; then python3 -B tests/vm/poweroff.py after "$out/out" || echo 1 >"$out/status"; fi
if [ ! -s "$out/status" ]; then
  echo "vm: timed out or did not boot, see $out/console.log"
  exit 3
fi
if [ "$(cat "$out/status")" = 0 ]; then echo "vm: passed"; else
  echo "vm: failed"
  exit 1
fi
