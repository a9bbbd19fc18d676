#!/usr/bin/env bash
# usage: test.sh [PART ...]: runs the parts, prints one result line at the end. Called by ./x test.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/../.."
. tests/lib/debian.sh
. tests/lib/cargo.sh
. tests/lib/result.sh

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
