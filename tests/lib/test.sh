#!/usr/bin/env bash
# usage: test.sh [PART ...]: runs the parts, prints one result line at the end. Called by ./x test.
set -euo pipefail
cd "$(dirname "$(realpath "$0")")/../.."
. tests/lib/debian.sh
. tests/lib/cargo.sh
. tests/lib/result.sh
. tests/lib/forky.sh
. tests/lib/golden.sh
. tests/lib/controlplane.sh

logs=${X_LOGS:-/tmp/rubelet-test}
mkdir -p "$logs"
X_TALLY=$(mktemp)
export X_TALLY
trap '[ -z "${vm_job:-}" ] || kill "$vm_job" 2>/dev/null || true; rm -f "$X_TALLY"' EXIT

# cargo_test NAME ARG...: shows what is worth seeing while it runs, keeps all of it in a log, counts it.
cargo_test() {
  local log=$logs/$1.log
  shift
  { cargo test --no-fail-fast "$@" && echo 0 >"$log.status" || echo 1 >"$log.status"; } 2>&1 |
    tee "$log" | { grep -vE '^test .* \.\.\. ok$|^$|^running [01] tests?$' || true; }
  tally_cargo "$log" "$(cat "$log.status")"
}

test_unit() {
  # Tests that compare with Debian's tools say so where these are missing.
  [ "$(id -u)" != 0 ] || need_debian "tests of images" docker-registry skopeo umoci || true
  cargo_test unit --workspace --exclude xtask
}
test_tidy() { cargo_test tidy -p xtask; }

# exec, attach and port-forward with the clients of Kubernetes and the server of Go runtimes (the first time: two minutes for client-go).
test_streaming() {
  if ! need_go; then tally skipped 1 "streaming: needs Go"; return; fi
  cargo_test streaming -p rubelet-streaming --test served -- --ignored
}

# What upstream's kubelet was recorded doing with each manifest, done by ours: on its embedded runtime, on Debian 12's containerd and on Debian forky's.
test_golden() {
  if [ "$(id -u)" != 0 ]; then tally skipped 1 "golden: needs root"; return; fi
  if ! need_go; then tally skipped 1 "golden: needs Go"; return; fi
  golden_tools || { tally failed 1 "golden: its tools do not build"; return; }
  local kubelet containerd
  kubelet=$(kubelet_binary) || { tally failed 1 "golden: the kubelet does not build"; return; }
  play_golden "$kubelet" embedded --embedded "$kubelet"
  # Debian 12's does not report the users of containers.
  play_golden "$kubelet" containerd1 --without-user
  if containerd=$(containerd2); then play_golden "$kubelet" containerd2 --containerd "$containerd"; else
    tally skipped 1 "golden: no containerd 2 from Debian forky"
  fi
}

# play_golden KUBELET NAME ARG...: plays all recordings on one containerd.
play_golden() {
  local kubelet=$1 log=$logs/golden-$2.log out=$logs/golden-$2
  shift 2
  tests/golden/play --kubelet "$kubelet" --recorder "$X_CACHE/bin/crirecord" --images "$X_CACHE/images/golden.tar" \
    "$@" --only "${X_ONLY:-.}" --allow tests/golden/allowed.tsv --out "$out" 2>&1 | tee "$log" || true
  tally_golden "$log"
}

# tally_golden LOG: counts the last lines of the plays.
tally_golden() {
  local log=$1 agree differ allowed
  if read -r agree differ allowed < <(awk '/^golden: [0-9]+ agree, [0-9]+ differ, [0-9]+ allowed$/ { a += $2; d += $4; s += $6; n++ } END { if (n) print a, d, s }' "$log"); then
    tally passed "$agree"
    [ "$differ" = 0 ] || tally failed "$differ" "golden: files that differ from the recordings, see $log"
    [ "$allowed" = 0 ] || tally skipped "$allowed" "golden: files that may differ (see its --allow)"
  else
    tally failed 1 "golden: not played, see $log"
  fi
}

# The main job as a user does it: ./x run, looked at from outside, and ^C.
test_run() {
  if [ "$(id -u)" != 0 ]; then tally skipped 1 "run: needs root"; return; fi
  # First as on a machine that has no container runtime.
  need_embedded_run || { tally failed 1 "run: packages are missing"; return; }
  check_run "$logs/run.log" ./x run
  need_run || { tally failed 1 "run: packages are missing"; return; }
  check_run "$logs/run-containerd.log" ./x run --on-containerd
}

# check_run LOG COMMAND...: counts what check_run.py finds.
check_run() {
  local log=$1 passed failed
  shift
  python3 tests/lib/check_run.py "$@" 2>&1 | tee "$log" || true
  if read -r passed failed < <(sed -n 's/^check: \([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$log"); then
    tally passed "$passed"
    [ "$failed" = 0 ] || tally failed "$failed" "run: see $log"
  else
    tally failed 1 "run: not checked, see $log"
  fi
}

# What any runtime must do, on the embedded one and the containerds of Debian 12 and of Debian forky, in namespaces of their own.
test_contract() {
  if [ "$(id -u)" != 0 ]; then tally skipped 1 "contract: needs root"; return; fi
  need_debian "the contract's runtimes" containerd runc crun containernetworking-plugins docker-registry busybox-static iptables iproute2 python3 gcc libc6-dev
  local kinds=${X_RUNTIMES:-embedded,runc,crun,containerd1,containerd2} programs=
  programs=$(containerd2) || tally failed 1 "contract: no containerd 2 from Debian forky"
  RUBELET_CONTRACT=$kinds RUBELET_CONTAINERD2=$programs RUBELET_CONTRACT_ONLY=${X_ONLY:-} \
    cargo_test contract -p rubelet-testkit --config "target.'cfg(all())'.runner = '$PWD/tests/lib/alone.sh'" \
    --test contract --test embedded -- --nocapture --test-threads 1
}

# What talks to a control plane, with a real one on loopback (the first time it is built: five minutes).
test_cluster() {
  if [ "$(id -u)" != 0 ] && [ -z "${KUBEBUILDER_ASSETS:-}" ]; then
    tally skipped 1 "cluster: needs root for Debian's etcd, or KUBEBUILDER_ASSETS"
    return
  fi
  if [ -z "${KUBEBUILDER_ASSETS:-}" ] && ! need_go; then
    tally skipped 1 "cluster: needs Go to build the control plane, or KUBEBUILDER_ASSETS"
    return
  fi
  controlplane_programs >"$logs/cluster-programs.log" || { tally failed 1 "cluster: no control plane"; return; }
  cargo_test cluster -p rubelet-apiserver --test cluster -- --ignored --test-threads 1
  local program plane
  program=$(sed -n 's/^controlplane //p' "$logs/cluster-programs.log")
  if [ -n "$program" ]; then
    RUBELET_TEST_CONTROLPLANE=$program cargo_test cluster-server -p rubelet-server --lib api_server
  else
    tally skipped 1 "cluster: the server's test needs a control plane of our own build"
  fi
  plane=$(mktemp -d)
  # Certificates that are good for a minute, so that they are seen to be renewed.
  if tests/controlplane/run.py up "$plane" --controllers --controllers-flag=--cluster-signing-duration=60s; then
    RUBELET_TEST_KUBECONFIG=$plane/admin.conf cargo_test cluster-agent -p rubelet-agent --lib -- --include-ignored \
      references::real_tests certificates::tests::a_node_joins || true
    RUBELET_TEST_KUBECONFIG=$plane/admin.conf cargo_test cluster-pods -p rubelet-agent --test agent -- objects:: drivers:: || true
  else
    tally failed 1 "cluster: the control plane does not start"
  fi
  tests/controlplane/run.py down "$plane"
  rm -rf "$plane"
}

# What reads strangers' bytes, tried on damaged ones for 20 s each.
test_fuzz() {
  local log=$logs/fuzz.log passed failed
  ./x fuzz --seconds "${X_FUZZ_SECONDS:-20}" 2>&1 | tee "$log" | grep -v '^thread\|^note' || true
  if read -r passed failed < <(sed -n 's/^\([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$log"); then
    tally passed "$passed"
    [ "$failed" = 0 ] || tally failed "$failed" "fuzz: see $log"
  else
    tally failed 1 "fuzz: it broke off, see $log"
  fi
}

# The main job on a Debian 12 that has nothing installed yet.
test_fresh() {
  if [ "$(id -u)" != 0 ]; then tally skipped 1 "fresh: needs root"; return; fi
  local log=$logs/fresh.log passed failed
  tests/fresh/run.sh run 2>&1 | tee "$log" || true
  if read -r passed failed < <(awk '/^check: [0-9]+ passed, [0-9]+ failed$/ { p += $2; f += $4; n++ } END { if (n) print p, f }' "$log"); then
    tally passed "$passed"
    [ "$failed" = 0 ] || tally failed "$failed" "fresh: see $log"
  else
    tally failed 1 "fresh: not checked, see $log"
  fi
}

# The recordings of cgroup v2 and the systemd driver, and what else only such a machine can show, in emulated ones. These mostly wait: they run beside
# the other parts, one for each runtime.
test_vm() {
  [ -n "$vm_job" ] || vm_begin
  wait "$vm_job" || tally failed 1 "vm: broke off, see $logs/vm.log"
  vm_job=
  cat "$logs/vm.log"
}
vm_job=
vm_begin() {
  vm_machines >"$logs/vm.log" 2>&1 &
  vm_job=$!
}

vm_machines() {
  if [ "$(id -u)" != 0 ]; then tally skipped 1 "vm: needs root"; return; fi
  if ! need_go; then tally skipped 1 "vm: needs Go"; return; fi
  golden_tools || { tally failed 1 "vm: its tools do not build"; return; }
  local kubelet runtime machine machines=()
  kubelet=$(kubelet_binary) || { tally failed 1 "vm: the kubelet does not build"; return; }
  tests/vm/image.sh || { tally failed 1 "vm: the machine could not be built"; return; }
  trap '[ ${#machines[@]} = 0 ] || kill "${machines[@]}" 2>/dev/null || true' EXIT
  for runtime in ${X_VM_RUNTIMES:-embedded containerd}; do
    X_VM_RUNTIMES=$runtime tests/vm/run.sh "$kubelet" "$logs/vm-$runtime" "${X_ONLY:-.}" >"$logs/vm-$runtime.log" 2>&1 &
    machines+=("$!")
  done
  for machine in "${machines[@]}"; do wait "$machine" || true; done
  machines=()
  for runtime in ${X_VM_RUNTIMES:-embedded containerd}; do
    cat "$logs/vm-$runtime.log"
    tally_vm "$logs/vm-$runtime.log"
  done
}

# tally_vm LOG: counts what one machine did.
tally_vm() {
  local log=$1 passed failed
  if grep -q '^vm: timed out' "$log"; then tally failed 1 "vm: timed out or did not boot, see $log"; return; fi
  tally_golden "$log"
  while read -r passed failed; do
    tally passed "$passed"
    [ "$failed" = 0 ] || tally failed "$failed" "vm: see $log"
  done < <(sed -n 's/^check: \([0-9]*\) passed, \([0-9]*\) failed$/\1 \2/p' "$log")
}

[ $# -gt 0 ] || set -- unit tidy run golden contract streaming fuzz vm
for part in "$@"; do
  declare -F "test_$part" >/dev/null || { echo "x: no such part: $part" >&2; exit 2; }
done
need_rust
case " $* " in *" vm "*) vm_begin ;; esac
for part in "$@"; do
  SECONDS=0
  echo "== $part"
  "test_$part"
  echo "== $part: ${SECONDS} s"
done
tally_end
