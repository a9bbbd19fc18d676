#!/usr/bin/env bash
# usage: build.sh DIR: builds the CRI validation suite, its command line client and its images into DIR, where they stay.
# Cold five minutes. Needs go, gcc, nginx, procps, util-linux; Debian's other busybox is fetched.
set -euo pipefail
dir=$(realpath -m "$1")
cd "$(dirname "$(realpath "$0")")"
. ../lib/debian.sh
X_CACHE=${X_CACHE:-/var/cache/rubelet}
mkdir -p "$dir"
stamp=$(cat go.mod tools.go build.sh images.py ../lib/debian.sh ../lib/images.py | sha256sum)
[ "$(cat "$dir/stamp" 2>/dev/null)" != "$stamp" ] || exit 0
export CGO_ENABLED=0
digest=$(BUSYBOX=$(busybox_plain) python3 images.py "$dir/images.tar")
# One spec pulls an image by a digest that stands in the suite. Nobody can make another image of that digest, so the suite gets that of ours.
module=sigs.k8s.io/cri-tools
rm -rf "$dir/source"
cp -r "$(go mod download -json $module | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')" "$dir/source"
chmod -R u+w "$dir/source"
sed -i "s/\(\"test-image-digest@\)sha256:[0-9a-f]*\"/\1$digest\"/" "$dir/source/pkg/validate/consts.go"
grep -q "$digest" "$dir/source/pkg/validate/consts.go" || { echo "build.sh: the suite's digest is not where it was" >&2; exit 1; }
cp go.mod go.sum "$dir"
go mod edit -replace "$module=$dir/source" "$dir/go.mod"
nice go test -c -trimpath -modfile "$dir/go.mod" -ldflags "-s -w" -o "$dir/critest" $module/cmd/critest
nice go build -trimpath -modfile "$dir/go.mod" -ldflags "-s -w" -o "$dir/crictl" $module/cmd/crictl
rm -rf "$dir/source"
echo "$stamp" >"$dir/stamp"
