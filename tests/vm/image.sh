#!/usr/bin/env bash
# usage: image.sh: builds what ./x test vm boots, once, in $X_CACHE/vm: disk.img, vmlinuz, initrd. Needs root.
# A Debian with systemd, cgroup v2 and containerd, which runs /opt/test/run from its second disk and powers off
# (unless /opt/test/rebooting says that it is run again after a boot).
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/../.."
. tests/lib/debian.sh
. tests/lib/forky.sh

vm=$X_CACHE/vm
stamp=$(sha256sum tests/vm/image.sh | cut -c1-16)
[ "$(cat "$vm/ready" 2>/dev/null)" != "$stamp" ] || exit 0
need_debian "building the virtual machine" debootstrap e2fsprogs qemu-system-x86
mkdir -p "$vm"
root=$(mktemp -d "$vm/root-XXXX")
trap 'rm -rf "$root"' EXIT
packages=linux-image-cloud-amd64,systemd-sysv,dbus,udev,containerd,runc,containernetworking-plugins,iproute2,iptables,python3,conntrack,ca-certificates,apparmor
echo "x: building a Debian with systemd for the virtual machine, once (about two minutes)"
script=/usr/share/debootstrap/scripts/forky
[ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
debootstrap --variant=minbase --include="$packages" forky "$root" "$X_MIRROR" "$script" >"$vm/debootstrap.log" 2>&1 ||
  { tail -5 "$vm/debootstrap.log" >&2; exit 1; }
cp "$root"/boot/vmlinuz-* "$vm/vmlinuz"
cp "$root"/boot/initrd.img-* "$vm/initrd"
chroot "$root" systemctl disable -q containerd.service apt-daily.timer apt-daily-upgrade.timer man-db.timer e2scrub_all.timer 2>/dev/null || true
mkdir -p "$root/opt/test"
cat >"$root/etc/systemd/system/rubelet-test.service" <<'UNIT'
[Unit]
Description=What the second disk says
After=local-fs.target systemd-udevd.service dbus.service
[Service]
Type=oneshot
Environment=HOME=/root
ExecStartPre=/bin/mount /dev/vdb /opt/test
ExecStart=/bin/sh -c '/opt/test/run >>/opt/test/log 2>&1; echo $? >/opt/test/status'
ExecStopPost=/bin/sh -c 'sync; [ -e /opt/test/rebooting ] || systemctl poweroff --no-block; umount /opt/test'
TimeoutStopSec=20
StandardOutput=journal+console
[Install]
WantedBy=multi-user.target
UNIT
ln -sf ../rubelet-test.service "$root/etc/systemd/system/multi-user.target.wants/rubelet-test.service"
echo node-a >"$root/etc/hostname"
rm -rf "$root"/var/cache/apt/archives/*.deb "$root"/var/lib/apt/lists/*
rm -f "$vm/disk.img"
truncate -s 6G "$vm/disk.img"
mkfs.ext4 -q -F -d "$root" "$vm/disk.img"
echo "$stamp" >"$vm/ready"
