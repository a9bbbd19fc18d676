# Debian forky's packages, beside the machine's own Debian: apt with folders of its own. Sourced.

# The folder for everything that is fetched or built once: X_CACHE.
X_CACHE=${X_CACHE:-/var/cache/rubelet}
X_MIRROR=${X_MIRROR:-http://deb.debian.org/debian}

# Signatures are checked; how old the index is, is not: mirrors may be snapshots.
# forky_apt COMMAND...: runs an apt command that knows forky and nothing else, without touching the machine's lists.
forky_apt() {
  local top=$X_CACHE/apt
  if [ ! -e "$top/apt.conf" ] || [ -n "$(find "$top/updated" -mtime +1 2>/dev/null)" ] || [ ! -e "$top/updated" ]; then
    mkdir -p "$top"/{etc,state/lists/partial,cache/archives/partial}
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $X_MIRROR forky main" >"$top/etc/forky.list"
    touch "$top/state/status"
    cat >"$top/apt.conf" <<E2
Dir::Etc::SourceList "$top/etc/forky.list"; Dir::Etc::SourceParts "-";
Dir::State "$top/state"; Dir::State::status "$top/state/status"; Dir::Cache "$top/cache";
Acquire::Languages "none"; Acquire::Check-Valid-Until "false"; APT::Sandbox::User "root";
E2
    APT_CONFIG=$top/apt.conf apt-get update -qq >&2 && touch "$top/updated" || return 1
  fi
  APT_CONFIG=$top/apt.conf "$@"
}

# containerd2: prints a folder with containerd 2, its shim and ctr; they run on Debian 12's libc and runc.
containerd2() {
  local top=$X_CACHE/containerd2 download
  if [ ! -x "$top/usr/bin/containerd" ]; then
    download=$(mktemp -d)
    (cd "$download" && forky_apt apt-get download -qq containerd >&2 && dpkg-deb -x containerd_*.deb unpacked) && rm -rf "$top" && mv "$download/unpacked" "$top"
    rm -rf "$download"
  fi
  "$top/usr/bin/containerd" --version >&2 && echo "$top/usr/bin"
}

# busybox_new: prints the path of forky's static busybox. Its shell hands on variables whose names are no words of the shell.
busybox_new() {
  local top=$X_CACHE/busybox download
  if [ ! -x "$top/usr/bin/busybox" ]; then
    download=$(mktemp -d)
    (cd "$download" && forky_apt apt-get download -qq busybox-static >&2 && dpkg-deb -x busybox-static_*.deb unpacked) && rm -rf "$top" && mv "$download/unpacked" "$top"
    rm -rf "$download"
  fi
  echo "$top/usr/bin/busybox"
}
