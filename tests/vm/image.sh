#!/usr/bin/env bash
# usage: image.sh: builds what ./x test vm boots, once, in $X_CACHE/vm: disk.img, vmlinuz, initrd. Needs root.
# X_VM_DEBIAN=bookworm: another release than forky, in $X_CACHE/vm-bookworm: older kernel, systemd and containerd.
# A Debian with systemd, cgroup v2 and containerd, which runs /opt/test/run from its second disk and powers off
# (unless /opt/test/rebooting says that it brings the machine down by itself, and is perhaps run again after a boot).
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/../.."
. tests/lib/debian.sh
. tests/lib/forky.sh

release=${X_VM_DEBIAN:-forky}
vm=$X_CACHE/vm
[ "$release" = forky ] || vm+=-$release
stamp=$(sha256sum tests/vm/image.sh | cut -c1-16)
[ "$(cat "$vm/ready" 2>/dev/null)" != "$stamp" ] || exit 0
need_debian "building the virtual machine" debootstrap e2fsprogs qemu-system-x86 busybox-static xz-utils
mkdir -p "$vm"
root=$(mktemp -d "$vm/root-XXXX")
trap 'rm -rf "$root"' EXIT
packages=linux-image-cloud-amd64,systemd-sysv,dbus,udev,containerd,runc,containernetworking-plugins,iproute2,iptables,nftables,python3,conntrack,ca-certificates,apparmor,e2fsprogs,xfsprogs,kmod
echo "x: building a Debian with systemd for the virtual machine, once (about two minutes)"
script=/usr/share/debootstrap/scripts/$release
[ -e "$script" ] || script=/usr/share/debootstrap/scripts/sid
debootstrap --variant=minbase --include="$packages" "$release" "$root" "$X_MIRROR" "$script" >"$vm/debootstrap.log" 2>&1 ||
  { tail -5 "$vm/debootstrap.log" >&2; exit 1; }
# What debootstrap cannot configure, because it wants a system that is whole already: started by the checks, not by the boot.
chroot "$root" sh -c 'apt-get update -qq -o Acquire::Check-Valid-Until=false && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends firewalld docker.io' >>"$vm/debootstrap.log" 2>&1 ||
  { tail -5 "$vm/debootstrap.log" >&2; exit 1; }
cp "$root"/boot/vmlinuz-* "$vm/vmlinuz"
# Debian's own initrd has 24 MB of what could be needed; an emulated processor unpacks that for a long time, at each boot.
small=$root/small
mkdir -p "$small"/{bin,dev,root,modules}
cp /bin/busybox "$small/bin/"
kernel=$(basename "$root"/lib/modules/*)
for driver in virtio_pci virtio_blk ext4; do
  for module in $(chroot "$root" modprobe -S "$kernel" -D "$driver" | awk '$1 == "insmod" { print $2 }'); do
    name=$(basename "${module%.ko*}").ko
    ls "$small"/modules/*-"$name" >/dev/null 2>&1 || xz -dcf "$root$module" >"$small/modules/$(printf %02d "$(ls "$small/modules" | wc -l)")-$name"
  done
done
cat >"$small/init" <<'INIT'
#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do /bin/busybox insmod "$module"; done
until /bin/busybox mount -t ext4 /dev/vda /root; do /bin/busybox sleep .1; done
exec /bin/busybox switch_root /root /sbin/init
INIT
chmod +x "$small/init"
(cd "$small" && find . | /bin/busybox cpio -o -H newc >"$vm/initrd")
rm -rf "$small"
chroot "$root" systemctl disable -q containerd.service docker.service docker.socket firewalld.service nftables.service apt-daily.timer apt-daily-upgrade.timer man-db.timer e2scrub_all.timer 2>/dev/null || true
# What a first boot does for a machine that is to be kept; here each is the first.
chroot "$root" systemctl mask -q ldconfig.service systemd-journal-catalog-update.service systemd-update-done.service systemd-hwdb-update.service systemd-binfmt.service proc-sys-fs-binfmt_misc.automount \
  systemd-firstboot.service systemd-pcrphase.service systemd-tpm2-setup.service getty.target serial-getty@ttyS0.service e2scrub_reap.service polkit-agent-helper.socket fstrim.timer dpkg-db-backup.timer \
  systemd-sysext.socket systemd-sysinstall.socket systemd-factory-reset.socket systemd-tmpfiles-clean.timer 2>/dev/null || true
# Debian's profiles of programs that are not here; their parts, which others include, stay.
find "$root/etc/apparmor.d" -maxdepth 1 -type f -delete
mkdir -p "$root/opt/test"
cat >"$root/etc/systemd/system/rubelet-test.service" <<'UNIT'
[Unit]
Description=What the second disk says
After=local-fs.target systemd-udevd.service dbus.service
[Service]
Type=oneshot
Environment=HOME=/root
ExecStartPre=/bin/mount /dev/vdb /opt/test
ExecStart=/bin/sh -c '/opt/test/run >>/opt/test/log 2>&1; s=$?; [ -e /opt/test/rebooting ] || echo $s >/opt/test/status'
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
