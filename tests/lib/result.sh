# Counting what passed, failed and was skipped, over several processes. Sourced.

# The tally is a file with one line for each result: `passed N`, `failed N NAME`, `skipped N WHY`.
tally() { echo "$*" >>"$X_TALLY"; }

# tally_cargo LOG STATUS: counts the `test result:` lines of cargo test; a failure without any counts as one.
tally_cargo() {
  local passed failed ignored
  read -r passed failed ignored < <(awk '/^test result: / { p += $4; f += $6; i += $8 } END { print p + 0, f + 0, i + 0 }' "$1")
  [ "$2" = 0 ] || [ "$failed" -gt 0 ] || failed=1
  tally passed "$passed"
  [ "$failed" = 0 ] || tally failed "$failed" "unit tests: see $1"
  [ "$ignored" = 0 ] || tally skipped "$ignored" "ignored by cargo test"
}

# tally_end: prints what failed and was skipped, then the result line; fails when something failed or nothing ran.
tally_end() {
  awk -v OFS=, '
    { n[$1] += $2; what = $0; sub(/^[a-z]+ [0-9]+ ?/, "", what); if ($1 != "passed") print "  " $1 ": " what (($2 > 1) ? " (" $2 ")" : "") }
    END { printf "%d passed, %d failed, %d skipped\n", n["passed"], n["failed"], n["skipped"]; exit n["failed"] > 0 || n["passed"] == 0 }
  ' "$X_TALLY"
}
