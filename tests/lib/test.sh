#!/usr/bin/env bash
# usage: test.sh [PART ...]: runs the parts, prints one result line at the end. Called by ./x test.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/../.."
. tests/lib/debian.sh
. tests/lib/cargo.sh
. tests/lib/result.sh
. tests/lib/forky.sh
. tests/lib/golden.sh

logs=${X_LOGS:-/tmp/rubelet-test}
mkdir -p "$logs"
X_TALLY=$(mktemp)
export X_TALLY
trap 'rm -f "$X_TALLY"' EXIT

# cargo_test NAME ARG...: shows what is worth seeing while it runs, keeps all of it in a log, counts it.
cargo_test() {
  local log=$logs/$1.log
  shift
  { cargo test --no-fail-fast "$@" && echo 0 >"$log.status" || echo 1 >"$log.status"; } 2>&1 |
    tee "$log" | { grep -vE '^test .* \.\.\. ok$|^$|^running [01] tests?$' || true; }
  tally_cargo "$log" "$(cat "$log.status")"
}

test_unit() { cargo_test unit --workspace --exclude xtask; }
test_tidy() { cargo_test tidy -p xtask; }

# What upstream's kubelet was recorded doing with each manifest, done by ours.
test_golden() {
  if [ "$(id -u)" != 0 ]; then tally skipped 1 "golden: needs root"; return; fi
  if ! golden_tools; then tally skipped 1 "golden: needs Go"; return; fi
  [ -n "${X_KUBELET:-}" ] || cargo build -q -p rubelet-kubelet || { tally failed 1 "golden: the kubelet does not build"; return; }
  local containerd log=$logs/golden.log agree differ allowed
  containerd=$(containerd2) || { tally skipped 1 "golden: no containerd 2 from Debian forky"; return; }
  tests/golden/play --kubelet "${X_KUBELET:-$CARGO_TARGET_DIR/debug/rubelet}" --recorder "$X_CACHE/bin/crirecord" --images "$X_CACHE/images/golden.tar" \
    --containerd "$containerd" --allow tests/golden/allowed.tsv --out "$logs/golden" 2>&1 | tee "$log" || true
  if read -r agree differ allowed < <(sed -n 's/^golden: \([0-9]*\) agree, \([0-9]*\) differ, \([0-9]*\) allowed$/\1 \2 \3/p' "$log"); then
    tally passed "$agree"
    [ "$differ" = 0 ] || tally failed "$differ" "golden: files that differ from the recordings, see $log"
    [ "$allowed" = 0 ] || tally skipped "$allowed" "golden: files that may differ (tests/golden/allowed.tsv)"
  else
    tally failed 1 "golden: not played, see $log"
  fi
}

[ $# -gt 0 ] || set -- unit tidy
for part in "$@"; do
  declare -F "test_$part" >/dev/null || { echo "x: no such part: $part" >&2; exit 2; }
done
need_rust
for part in "$@"; do
  SECONDS=0
  echo "== $part"
  "test_$part"
  echo "== $part: ${SECONDS} s"
done
tally_end
