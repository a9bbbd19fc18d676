#!/bin/sh
# usage: own_cgroups.sh COMMAND...: runs it in a mount, a cgroup and a process namespace of its own, on cgroup v1: what it sees as the root of each
# hierarchy is a cgroup made for it, so that several nodes can be on one machine. Everything in it ends with it.
set -eu
name=alone-$$
for tree in /sys/fs/cgroup/*/; do
  [ -e "$tree/cgroup.procs" ] || continue
  mkdir "$tree/$name" 2>/dev/null || continue
  if [ -e "$tree/cpuset.cpus" ]; then
    cat "$tree/cpuset.cpus" >"$tree/$name/cpuset.cpus"
    cat "$tree/cpuset.mems" >"$tree/$name/cpuset.mems"
  fi
done
leave() {
  for tree in /sys/fs/cgroup/*/; do
    [ ! -d "$tree/$name" ] || find "$tree/$name" -depth -type d -exec rmdir {} + 2>/dev/null || true
  done
}
trap leave EXIT
child=
# The child's death takes everything in its namespace along.
trap '[ -z "$child" ] || kill -KILL "$child"; exit 130' INT
trap '[ -z "$child" ] || kill -KILL "$child"; exit 143' TERM
done=0
# The first shell joins, so that its child's namespace has these cgroups as roots.
sh -c '
for tree in /sys/fs/cgroup/*/; do [ ! -d "$tree/$0" ] || echo $$ >"$tree/$0/cgroup.procs"; done
exec unshare --cgroup --mount --pid --fork --mount-proc --kill-child sh -c "
mount --make-rprivate /
grep \" cgroup \" /proc/mounts | while read -r device place kind options rest; do
  own=\$(echo \$options | tr , \"\\n\" | grep -vE \"^(rw|ro|nosuid|nodev|noexec|relatime|xattr|release_agent.*)\$\" | paste -sd,)
  umount \$place && mount -t cgroup -o \$own cgroup \$place
done
exec \"\$@\"" sh "$@"' "$name" "$@" <&0 &
child=$!
wait "$child" || done=$?
exit "$done"
