# Debian packages: installs what is missing and says so. Sourced.

# need_debian WHY PACKAGE...: afterwards every PACKAGE is installed. No service of a new package is started.
need_debian() {
  local why=$1 package missing=()
  shift
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  if [ "$(id -u)" != 0 ]; then
    echo "x: $why needs these Debian packages, and only root can install them: ${missing[*]}" >&2
    return 1
  fi
  # Parts of the tests run side by side.
  {
    flock 9
    install_debian "$why" "${missing[@]}"
  } 9>/tmp/x-apt.lock
}

# install_debian WHY PACKAGE...: the same, one at a time.
install_debian() {
  local why=$1
  shift
  echo "x: installing from Debian, for $why: $*"
  local policy=/usr/sbin/policy-rc.d ours=
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    ours=yes
  fi
  local done=0
  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@"; } \
    >/tmp/x-apt.$$ 2>&1 || done=$?
  [ -z "$ours" ] || rm -f "$policy"
  [ "$done" = 0 ] || sed 's/^/  apt: /' /tmp/x-apt.$$ >&2
  rm -f /tmp/x-apt.$$
  return "$done"
}

# busybox_plain: prints the path of Debian's dynamic busybox, whose shell runs the programs that it finds before its own. Not installed: busybox-static excludes it.
busybox_plain() {
  local top=$X_CACHE/busybox-plain download
  if [ ! -x "$top/bin/busybox" ]; then
    download=$(mktemp -d)
    (cd "$download" && { apt-get download -qq busybox || { apt-get update -qq && apt-get download -qq busybox; }; } >&2 && dpkg-deb -x busybox_*.deb unpacked) &&
      rm -rf "$top" && mv "$download/unpacked" "$top"
    rm -rf "$download"
  fi
  "$top/bin/busybox" true && echo "$top/bin/busybox"
}
