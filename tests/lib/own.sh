#!/bin/sh
# usage: own.sh [--bare] COMMAND...: runs it on what looks like a machine of its own, named node-a: own processes, network (192.0.2.10, nothing behind
# it), cgroups, and empty folders where kubelets and container runtimes keep their things. Whatever it leaves running ends with it. Needs root.
# --bare: own processes, cgroups, mounts and a network without anything in it; who is called furnishes them.
set -eu
bare=
if [ "${1:-}" = --bare ]; then bare=--bare; shift; fi
name=own-$$
work=/var/lib/rubelet-$name
if [ "${1:-}" != --inside ]; then
  groups= child=
  leave() {
    [ -z "$child" ] || kill -9 "$child" 2>/dev/null || true
    # The last of them end a moment after the first.
    for _ in $(seq 100); do
      for group in $groups; do [ ! -d "$group" ] || find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true; done
      for group in $groups; do [ ! -d "$group" ] || { sleep .1; continue 2; }; done
      break
    done
    rm -rf "$work"
  }
  trap leave EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  mkdir -p "$work"
  while read -r _ top kind _; do
    case $kind in cgroup) controller=$(basename "$top") ;; cgroup2) controller= ;; *) continue ;; esac
    below=$top$(sed -n "s/^[0-9]*:\(name=\)\{0,1\}$controller://p" /proc/self/cgroup)
    group=${below%/}/$name
    groups="$groups $group"
    mkdir "$group"
    [ ! -e "$group/cpuset.cpus" ] || { cat "$below/cpuset.cpus" >"$group/cpuset.cpus" && cat "$below/cpuset.mems" >"$group/cpuset.mems"; }
  done </proc/self/mounts
  # In a shell of its own, because this one must not be in the groups that it removes. It ends when this one is gone.
  OWN_GROUPS=$groups OWN_WORK=$work setpriv --pdeathsig KILL sh -eu -c '
    for group in $OWN_GROUPS; do echo $$ >"$group/cgroup.procs"; done
    exec unshare -m -n -C -p -u -i --fork --kill-child --mount-proc "$@"' sh "$0" $bare --inside "$@" &
  child=$!
  if wait "$child"; then exit 0; else exit $?; fi
fi
shift
awk '$3 == "cgroup" || $3 == "cgroup2" {print $2, $3, $4}' /proc/self/mounts | while read -r top kind options; do
  umount "$top"
  options=$(echo "$options" | tr ',' '\n' | grep -vxE 'rw|nosuid|nodev|noexec|relatime|noatime' | paste -sd,) || true
  mount -t "$kind" ${options:+-o "$options"} "$kind" "$top"
done
# Somebody must reap what nobody waits for: the shell does while it waits.
call() {
  "$@" <&0 &
  if wait $!; then exit 0; else exit $?; fi
}
[ -z "$bare" ] || call "$@"
hostname node-a
ip link set lo up
ip link add node0 type veth peer name world0
ip link set world0 up
ip addr add 192.0.2.10/24 dev node0
ip link set node0 up
ip route add default via 192.0.2.1
for folder in /var/lib/kubelet /var/lib/rubelet /var/lib/containerd /var/lib/cni /var/lib/etcd /var/log/pods /var/log/containers /etc/kubernetes /etc/cni /etc/containerd /opt/cni; do
  mkdir -p "$OWN_WORK$folder" "$folder"
  mount --bind "$OWN_WORK$folder" "$folder"
done
# It knows its own name; nobody knows others, and says so at once.
printf '127.0.0.1 localhost\n192.0.2.10 node-a\n' >"$OWN_WORK/hosts"
printf 'nameserver 127.0.0.1\n' >"$OWN_WORK/resolv.conf"
for file in hosts resolv.conf; do mount --bind "$OWN_WORK/$file" "/etc/$file"; done
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/netns
# A kubelet's mounts are seen by its containers' runtime.
mount --make-rshared /
call "$@"
