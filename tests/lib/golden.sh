# What playing the recorded manifests needs beside a kubelet. Sourced after debian.sh and forky.sh.

# need_go: a Go that builds the recorder and the test images; fails with a word when there is none.
need_go() {
  [ -x /usr/local/go/bin/go ] && PATH=$PATH:/usr/local/go/bin
  export PATH
  command -v go >/dev/null || { echo "x: no Go here: the recorder between kubelet and runtime cannot be built" >&2; return 1; }
}

# need_run: what ./x run takes from Debian.
need_run() {
  [ "$(id -u)" = 0 ] || { echo "x: run: needs root: containers, mounts and a network are made" >&2; return 1; }
  need_debian "running pods" containerd runc containernetworking-plugins docker-registry nginx-light busybox-static iptables iproute2 conntrack python3 gcc libc6-dev
}

# need_embedded_run: what ./x run takes from Debian when rubelet is its own runtime: two programs to make images of.
need_embedded_run() {
  [ "$(id -u)" = 0 ] || { echo "x: run: needs root: containers, mounts and a network are made" >&2; return 1; }
  need_debian "the images of the example" nginx-light busybox-static python3
}

# golden_tools: builds $X_CACHE/bin/crirecord and $X_CACHE/images/golden.tar when they are not there or older than their sources.
golden_tools() {
  [ -z "${X_PREPARED:-}" ] || return 0
  local tools=tests/golden/tools stamp
  need_debian "the test machine" containerd runc containernetworking-plugins iptables iproute2 python3 conntrack ca-certificates || return 1
  need_go || return 1
  mkdir -p "$X_CACHE/bin" "$X_CACHE/images" || return 1
  (cd "$tools" && CGO_ENABLED=0 go build -o "$X_CACHE/bin/crirecord" ./crirecord) || return 1
  stamp=$(cat "$tools/images.sh" "$tools/images.go" "$tools/go.mod" | sha256sum | cut -c1-16)
  [ ! -e "$X_CACHE/images/golden.tar" ] || [ "$(cat "$X_CACHE/images/golden.stamp" 2>/dev/null)" != "$stamp" ] || return 0
  need_debian "the test images" umoci jq busybox-static nginx-light gcc libc6-dev || return 1
  echo "x: building the test images from Debian's busybox and nginx and one Go module (the first time: three minutes)"
  "$tools/images.sh" "$X_CACHE/images/golden.tar" && echo "$stamp" >"$X_CACHE/images/golden.stamp"
}

# reference_kubelet: prints the path of upstream's kubelet, built from its Go module (the first time: five minutes).
reference_kubelet() {
  local out=$X_CACHE/bin/kubelet-upstream version=component-base/version
  need_go || return 1
  if [ ! -x "$out" ]; then
    echo "x: building upstream's kubelet from its Go module (five minutes)" >&2
    (cd tests/reference-kubelet && CGO_ENABLED=0 nice go build -trimpath -o "$out" \
      -ldflags "-s -w -X k8s.io/$version.gitVersion=v1.36.3 -X k8s.io/$version.gitMajor=1 -X k8s.io/$version.gitMinor=36" .)
  fi
  echo "$out"
}
