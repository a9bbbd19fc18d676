#!/usr/bin/env bash
# usage: build.sh DIR: builds the conformance suite, its runner and its images from the Go module of Kubernetes into DIR, where they stay.
# Cold ten minutes. Needs go, gcc, curl, nginx, bash, netcat-openbsd; busybox is fetched.
set -euo pipefail
dir=$(realpath -m "$1")
cd "$(dirname "$(realpath "$0")")"
. ../lib/forky.sh
mkdir -p "$dir"
stamp=$(cat go.mod tools.go images.py ../lib/images.py | sha256sum)
[ "$(cat "$dir/stamp" 2>/dev/null)" != "$stamp" ] || exit 0
export CGO_ENABLED=0
kubernetes=$(sed -n 's/^\s*k8s.io\/kubernetes v\([0-9.]*\)$/\1/p' go.mod)
version=k8s.io/component-base/version
go test -c -trimpath -o "$dir/e2e_node.test" \
  -ldflags "-s -w -X $version.gitVersion=v$kubernetes -X $version.gitMajor=${kubernetes%%.*} -X $version.gitMinor=$(cut -d. -f2 <<<"$kubernetes")" \
  k8s.io/kubernetes/test/e2e_node
go build -trimpath -o "$dir/ginkgo" github.com/onsi/ginkgo/v2/ginkgo
sources=$(go list -m -f '{{.Dir}}' k8s.io/kubernetes)/test/images
for program in agnhost nonewprivs regression-issue-74839 sample-device-plugin; do
  go build -trimpath -ldflags "-s -w" -o "$dir/$program" "k8s.io/kubernetes/test/images/$program"
done
BUSYBOX=$(busybox_new) python3 images.py "$dir/images.tar" "$sources" "$dir/agnhost" "$dir/nonewprivs" "$dir/regression-issue-74839" "$dir/sample-device-plugin"
echo "$stamp" >"$dir/stamp"
