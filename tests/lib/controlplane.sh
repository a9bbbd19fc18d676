# The programs of a control plane: upstream's, built from its Go module, etcd and kubectl. Sourced after debian.sh, forky.sh and golden.sh.

# controlplane_binary: prints the path of the program that is kube-apiserver and the others by its first argument.
# The first time it is built: two to five minutes and 1.5 GB of Go's cache. It is kept outside of the checkout.
# X_KUBERNETES=1.37 makes it of that version: the same source, with the versions of go-1.37.mod.
controlplane_binary() {
  local folder=tests/controlplane out
  out=$(controlplane_path) || return 1
  if [ ! -x "$out" ]; then
    need_go || return 1
    mkdir -p "$X_CACHE/bin" || return 1
    # Who comes while it is built waits for it.
    {
      flock 9
      [ -x "$out" ] || build_controlplane "$folder" "$(controlplane_modules)" "$out"
    } 9>"$X_CACHE/bin/controlplane.lock" || return 1
  fi
  echo "$out"
}

# controlplane_modules: prints the name of the file with the versions of modules.
controlplane_modules() {
  local modules=go.mod
  [ "${X_KUBERNETES:-1.36}" = 1.36 ] || modules=go-$X_KUBERNETES.mod
  [ -e "tests/controlplane/$modules" ] || { echo "x: there is no tests/controlplane/$modules: which versions of modules is Kubernetes $X_KUBERNETES made of?" >&2; return 1; }
  echo "$modules"
}

# controlplane_path: prints where the program is once it is built.
controlplane_path() {
  local modules stamp
  modules=$(controlplane_modules) || return 1
  stamp=$(cat tests/controlplane/main.go "tests/controlplane/$modules" | sha256sum | cut -c1-16)
  echo "$X_CACHE/bin/controlplane-$stamp"
}

# build_controlplane FOLDER MODULES OUT
build_controlplane() {
  local folder=$1 modules=$2 out=$3 version=component-base/version kubernetes
  kubernetes=$(sed -n 's/^\s*k8s.io\/kubernetes v\([0-9.]*\)$/\1/p' "$folder/$modules")
  echo "x: building upstream's control plane $kubernetes from its Go module (the first time: up to five minutes)" >&2
  # The version is set as upstream's build does it: clients object to v0.0.0.
  (cd "$folder" && CGO_ENABLED=0 nice go build -modfile "$modules" -trimpath -o "$out.new" \
    -ldflags "-s -w -X k8s.io/$version.gitVersion=v$kubernetes -X k8s.io/$version.gitMajor=${kubernetes%%.*} -X k8s.io/$version.gitMinor=$(cut -d. -f2 <<<"$kubernetes")" .) >&2 || return 1
  mv "$out.new" "$out"
}

# scraper_binary: prints the path of metrics-server, built from its Go module (the first time: five minutes).
scraper_binary() {
  local folder=tests/api/scraper out
  out=$X_CACHE/bin/scraper-$(cat "$folder/main.go" "$folder/go.mod" | sha256sum | cut -c1-16)
  if [ ! -x "$out" ]; then
    need_go || return 1
    mkdir -p "$X_CACHE/bin" || return 1
    echo "x: building metrics-server from its Go module (the first time: five minutes)" >&2
    (cd "$folder" && CGO_ENABLED=0 nice go build -trimpath -o "$out.new.$$" -ldflags "-s -w" .) >&2 && mv "$out.new.$$" "$out" || return 1
  fi
  echo "$out"
}

# forky_program PACKAGE PROGRAM: prints the path of a program of Debian forky, unpacked beside.
forky_program() {
  local top=$X_CACHE/forky/$1 download
  if [ ! -x "$top/usr/bin/$2" ]; then
    download=$(mktemp -d)
    mkdir -p "$X_CACHE/forky"
    (cd "$download" && forky_apt apt-get download -qq "$1" >&2 && dpkg-deb -x "$1"_*.deb unpacked) && rm -rf "$top" && mv "$download/unpacked" "$top"
    rm -rf "$download"
  fi
  [ -x "$top/usr/bin/$2" ] && echo "$top/usr/bin/$2"
}

# controlplane_programs: prints `NAME PATH` for controlplane, etcd, etcd-forky and kubectl. What KUBEBUILDER_ASSETS has comes from there, and is not
# looked for elsewhere; fails if there is no API server at all.
controlplane_programs() {
  local name path given=" "
  need_debian "certificates of a control plane" openssl python3 >&2 || return 1
  for name in kube-apiserver kube-controller-manager kube-scheduler etcd kubectl kubelet; do
    [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$KUBEBUILDER_ASSETS/$name" ] || continue
    echo "$name $KUBEBUILDER_ASSETS/$name"
    given+="$name "
  done
  if [[ $given != *" kube-apiserver "* || $given != *" kube-controller-manager "* || $given != *" kube-scheduler "* ]]; then
    # Who has brought an API server may do without the others.
    if need_go && path=$(controlplane_binary); then echo "controlplane $path"; elif [[ $given != *" kube-apiserver "* ]]; then return 1; fi
  fi
  if [[ $given != *" etcd "* ]]; then
    need_debian "a control plane" etcd-server >&2 || return 1
    echo "etcd $(command -v etcd)"
    # Nice to have.
    if path=$(forky_program etcd-server etcd); then echo "etcd-forky $path"; fi
  fi
  if [[ $given != *" kubectl "* ]] && path=$(forky_program kubectl kubectl); then echo "kubectl $path"; fi
  return 0
}

# need_plane PART COUNT: an API server can be had; if not, says that so many tests of the part are not run.
need_plane() {
  { [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$KUBEBUILDER_ASSETS/kube-apiserver" ]; } || need_go && return 0
  tally skipped "$2" "$1: not run: no Go to build a control plane, and no kube-apiserver in KUBEBUILDER_ASSETS"
  return 1
}

# peers_binary: prints the path of the programs that speak gRPC with the agent, with upstream's types.
peers_binary() {
  local out=$X_CACHE/bin/peers
  need_go || return 1
  mkdir -p "$X_CACHE/bin" || return 1
  (cd tests/api/peers && CGO_ENABLED=0 nice go build -trimpath -o "$out" .) >&2 && echo "$out"
}
