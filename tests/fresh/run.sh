#!/usr/bin/env bash
# usage: run.sh [PART ...]: `./x test PART ...` (default: run) of this checkout on a Debian 12 that has nothing but its base system, Rust and Go.
# The machine is a folder with mount namespace of its own; it is thrown away at the end. Needs root.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/../.."
. tests/lib/debian.sh
. tests/lib/forky.sh

base=$X_CACHE/fresh-base
if [ ! -e "$base/ready" ]; then
  need_debian "a fresh Debian" debootstrap
  echo "x: installing the base system of Debian 12, once"
  rm -rf "$base"
  debootstrap --variant=minbase bookworm "$base/root" "$X_MIRROR" >/tmp/x-fresh.log 2>&1 || { tail -5 /tmp/x-fresh.log >&2; exit 1; }
  touch "$base/ready"
fi
top=$(mktemp -d "$X_CACHE/fresh-XXXX")
trap 'rm -rf "$top"' EXIT
cp -a "$base/root/." "$top/"
mkdir -p "$top"/{old,src,root/.cargo,root/.rustup,usr/local/go}
git archive HEAD | tar -x -C "$top/src"
cp /etc/resolv.conf /etc/hosts "$top/etc/"
# Certificates of the network that this machine is in; ca-certificates would bring the public ones.
mkdir -p "$top/etc/ssl/certs"
cp /etc/ssl/certs/ca-certificates.crt "$top/etc/ssl/network.crt"
kubelet=
if [ -n "${X_KUBELET:-}" ]; then cp "$X_KUBELET" "$top/rubelet" && kubelet=/rubelet; fi

# inside: makes $top the root of a mount namespace, then runs the tests in it.
inside='
set -e
top=$1; shift
mount --make-rprivate /
mount --bind "$top" "$top"
for folder in proc sys dev; do mount --rbind "/$folder" "$top/$folder"; done
for folder in root/.cargo root/.rustup usr/local/go; do [ ! -d "/$folder" ] || mount --bind "/$folder" "$top/$folder"; done
cd "$top"
pivot_root . old
cd /src
umount -l /old
exec env -i HOME=/root TERM=dumb PATH=/root/.cargo/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  SSL_CERT_FILE=/etc/ssl/network.crt X_KUBELET="$X_KUBELET" ./x test "$@"
'
[ $# -gt 0 ] || set -- run
X_KUBELET=$kubelet unshare -m bash -c "$inside" fresh "$top" "$@"
