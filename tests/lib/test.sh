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
# A lane counts for who started it.
lane_of=${X_TALLY:-}
X_TALLY=${X_TALLY:-$(mktemp)}
export X_TALLY
trap '[ -z "${vm_job:-}" ] || kill "$vm_job" 2>/dev/null || true; [ -z "${lane:-}" ] || kill -- "-$lane" 2>/dev/null || true; [ -n "$lane_of" ] || rm -f "$X_TALLY"' EXIT

# tally_check LOG PART: counts what checks said, `check: N passed, N failed`, one line for each.
tally_check() {
  local log=$1 part=$2 passed failed
  if read -r passed failed < <(awk '/^check: [0-9]+ passed, [0-9]+ failed$/ { p += $2; f += $4; n++ } END { if (n) print p, f }' "$log"); then
    tally passed "$passed"
    [ "$failed" = 0 ] || tally failed "$failed" "$part: see $log"
  else
    tally failed 1 "$part: not checked, see $log"
  fi
}

# cargo_test NAME ARG...: shows what is worth seeing while it runs, keeps all of it in a log, counts it.
cargo_test() {
  local log=$logs/$1.log
  shift
  { cargo test --no-fail-fast "$@" && echo 0 >"$log.status" || echo 1 >"$log.status"; } 2>&1 |
    tee "$log" | { grep -vE '^test .* \.\.\. ok$|^$|^running [01] tests?$' || true; }
  tally_cargo "$log" "$(cat "$log.status")"
}

test_unit() {
  # The tests run these programs: networks beside plugins and firewalls, images beside Debian's tools, containers beside runtimes.
  if [ "$(id -u)" = 0 ]; then
    need_debian "the unit tests" nftables iproute2 iptables conntrack containernetworking-plugins docker-registry skopeo umoci \
      containerd runc crun dbus-daemon python3 busybox-static || tally failed 1 "unit: packages are missing"
  fi
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

# Upstream's kubelet and ours take over from each other under running pods (the first time upstream's is built: five minutes).
# Upstream's of 1.37, too, where it has been built (X_KUBERNETES=1.37 builds it).
test_swap() {
  if [ "$(id -u)" != 0 ]; then tally skipped 1 "swap: needs root"; return; fi
  if ! need_go; then tally skipped 1 "swap: needs Go"; return; fi
  golden_tools || { tally failed 1 "swap: its tools do not build"; return; }
  local kubelet upstream newer
  kubelet=$(kubelet_binary) || { tally failed 1 "swap: the kubelet does not build"; return; }
  upstream=$(reference_kubelet) || { tally failed 1 "swap: upstream's kubelet does not build"; return; }
  swap_with "$kubelet" "$upstream" "$logs/swap.log"
  cpus_beside "$kubelet" "$upstream" "$logs/swap-cpus.log"
  newer=$(X_KUBERNETES=1.37 controlplane_path) || { tally failed 1 "swap: no modules of 1.37"; return; }
  [ "${X_KUBERNETES:-}" != 1.37 ] || newer=$(controlplane_binary) || { tally failed 1 "swap: 1.37 does not build"; return; }
  if [ ! -x "$newer" ]; then tally skipped 1 "swap: upstream's 1.37 has not been built: X_KUBERNETES=1.37 ./x test swap"; return; fi
  # The kubelet is one of several in the program, by its first argument.
  upstream=$(mktemp -d)
  printf '#!/bin/sh\nexec %s kubelet "$@"\n' "$newer" >"$upstream/kubelet"
  chmod 755 "$upstream/kubelet"
  swap_with "$kubelet" "$upstream/kubelet" "$logs/swap-1.37.log"
  cpus_beside "$kubelet" "$upstream/kubelet" "$logs/swap-cpus-1.37.log"
  rm -r "$upstream"
}

# cpus_beside KUBELET UPSTREAM LOG: CPUs and memory of their own, on both kubelets.
cpus_beside() {
  if [ "$(nproc)" -lt 2 ]; then tally skipped 1 "swap: CPUs of their own need two"; return; fi
  tests/lib/own.sh python3 tests/lib/check_cpus.py --kubelet "$1" --upstream "$2" --images "$X_CACHE/images/golden.tar" 2>&1 | tee "$3" || true
  tally_check "$3" "swap"
}

# swap_with KUBELET UPSTREAM LOG: kubelets change under running pods.
swap_with() {
  local programs options=()
  if programs=$(containerd2); then options=(--containerd "$programs"); fi
  tests/lib/own.sh tests/golden/swap --kubelet "$1" --upstream "$2" --recorder "$X_CACHE/bin/crirecord" \
    --images "$X_CACHE/images/golden.tar" "${options[@]}" 2>&1 | tee "$3" || true
  tally_check "$3" "swap"
}

# play_golden KUBELET NAME ARG...: plays all recordings on one runtime, on a machine of its own.
play_golden() {
  local kubelet=$1 log=$logs/golden-$2.log out=$logs/golden-$2
  shift 2
  tests/lib/own.sh tests/golden/play --kubelet "$kubelet" --recorder "$X_CACHE/bin/crirecord" --images "$X_CACHE/images/golden.tar" \
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
  local kubelet
  # First as on a machine that has no container runtime.
  need_embedded_run || { tally failed 1 "run: packages are missing"; return; }
  # What must be fetched is fetched now: the machine that it runs on is its own, and has no way out.
  kubelet=$(kubelet_binary) || { tally failed 1 "run: the kubelet does not build"; return; }
  X_KUBELET=$kubelet check_run "$logs/run.log" ./x run
  check_standalone "$kubelet"
  need_run || { tally failed 1 "run: packages are missing"; return; }
  X_KUBELET=$kubelet check_run "$logs/run-containerd.log" ./x run --on-containerd
}

# check_standalone KUBELET: counts what check_standalone.py finds. Its server of gRPC is in an archive that Go builds.
check_standalone() {
  local log=$logs/standalone.log archive=()
  need_debian "a standalone node" nginx-light busybox-static nftables iproute2 openssl python3 || { tally failed 1 "run: packages are missing"; return; }
  if need_go && golden_tools; then archive=("$X_CACHE/images/golden.tar"); else tally skipped 1 "run: probes of a gRPC server need Go"; fi
  tests/lib/own.sh python3 tests/lib/check_standalone.py "$1" "${archive[@]}" 2>&1 | tee "$log" || true
  tally_check "$log" "run"
}

# check_run LOG COMMAND...: counts what check_run.py finds.
check_run() {
  local log=$1
  shift
  tests/lib/own.sh python3 tests/lib/check_run.py "$@" 2>&1 | tee "$log" || true
  tally_check "$log" "run"
}

# The same of a node of a real control plane: recordings of 13 pods and of the node's registration, on a machine of its own.
test_golden-cluster() {
  if [ "$(id -u)" != 0 ]; then tally skipped 1 "golden-cluster: needs root"; return; fi
  need_plane golden-cluster "$((3 * $(ls -d tests/golden/cluster/[!_]*/ | wc -l)))" || return 0
  if ! need_go; then tally skipped "$((3 * $(ls -d tests/golden/cluster/[!_]*/ | wc -l)))" "golden-cluster: needs Go for its tools"; return; fi
  golden_tools || { tally failed 1 "golden-cluster: its tools do not build"; return; }
  controlplane_programs >"$logs/golden-cluster-programs.log" || { tally failed 1 "golden-cluster: no control plane"; return; }
  local kubelet containerd
  kubelet=$(kubelet_binary) || { tally failed 1 "golden-cluster: the kubelet does not build"; return; }
  play_cluster "$kubelet" embedded --embedded "$kubelet"
  play_cluster "$kubelet" containerd1 --without-user --allow tests/golden/allowed-cluster-containerd1.tsv
  if containerd=$(containerd2); then play_cluster "$kubelet" containerd2 --containerd "$containerd"; else
    tally skipped 1 "golden-cluster: no containerd 2 from Debian forky"
  fi
}

# play_cluster KUBELET NAME ARG...: plays the recordings of a cluster on one runtime.
play_cluster() {
  local kubelet=$1 log=$logs/golden-cluster-$2.log out=$logs/golden-cluster-$2
  shift 2
  tests/lib/own.sh tests/golden/play-cluster --kubelet "$kubelet" --recorder "$X_CACHE/bin/crirecord" --images "$X_CACHE/images/golden.tar" \
    --only "${X_ONLY:-.}" --allow tests/golden/allowed-cluster.tsv --out "$out" "$@" 2>&1 | tee "$log" || true
  tally_golden "$log"
}

# What scrapers see of an agent, in namespaces of its own: without a control plane, and by the token of a service account, as Prometheus' example for Kubernetes has it.
test_metrics() {
  if [ "$(id -u)" != 0 ]; then tally skipped 1 "metrics: needs root"; return; fi
  need_embedded_run && need_debian "scraping" prometheus iproute2 || { tally failed 1 "metrics: packages are missing"; return; }
  local kubelet
  kubelet=$(kubelet_binary) || { tally failed 1 "metrics: the kubelet does not build"; return; }
  check_metrics "$logs/metrics.log" --kubelet "$kubelet"
  need_plane "metrics at a control plane" 1 || return 0
  controlplane_programs >"$logs/metrics-programs.log" || { tally failed 1 "metrics: no control plane"; return; }
  check_metrics "$logs/metrics-plane.log" --kubelet "$kubelet" --plane
}

# check_metrics LOG ARG...: counts what check_metrics.py finds.
check_metrics() {
  local log=$1
  shift
  tests/lib/alone.sh python3 tests/lib/check_metrics.py "$@" 2>&1 | tee "$log" || true
  tally_check "$log" "metrics"
}

# What people run on a cluster (deployments, daemons, stateful pods on a CSI driver, jobs, streams, eviction), on the embedded runtime and on containerd.
test_scenarios() { on_a_cluster scenarios embedded containerd; }
# Resource claims: a driver that prepares and takes back, comes late, fails, and survives kubelets.
test_dra() { on_a_cluster dra embedded containerd; }
# Running pods change from upstream's kubelet to ours and back, three times.
test_takeover() { on_a_cluster swap embedded containerd; }
# A control plane as static pods, and a reboot.
test_kubeadm() { on_a_cluster kubeadm embedded containerd; }
# Who a member of a cluster is, whom it believes, how often it asks, what it gives up: seen at the API server.
test_member() { on_a_cluster member embedded containerd; }
# An API server that is killed, answers badly or not at all.
test_faults() { on_a_cluster faults embedded containerd; }

# The same pods and faults on upstream's kubelet and on ours, compared.
test_beside() { on_a_cluster beside embedded containerd; }

# Who gets a private image: pull secrets, the node's credentials, plugins; upstream's kubelet and ours read each other's records.
test_credentials() {
  if [ "$(id -u)" = 0 ]; then need_debian "a private registry" docker-registry busybox-static python3 || { tally failed 1 "credentials: packages are missing"; return; }; fi
  on_a_cluster credentials embedded containerd
}

# on_a_cluster SCRIPT RUNTIME...: runs tests/cluster/SCRIPT.py on a machine of its own, for each runtime.
on_a_cluster() {
  local script=$1 runtime kubelet containerd log
  shift
  local count runtimes=(${X_RUNTIMES:-$@})
  count=$(($(python3 "tests/cluster/$script.py" --count) * ${#runtimes[@]}))
  if [ "$(id -u)" != 0 ]; then tally skipped "$count" "$script: needs root"; return; fi
  need_plane "$script" "$count" || return 0
  if ! need_go; then tally skipped "$count" "$script: needs Go for its tools"; return; fi
  golden_tools || { tally failed 1 "$script: its tools do not build"; return; }
  controlplane_programs >"$logs/$script-programs.log" || { tally failed 1 "$script: no control plane"; return; }
  kubelet=$(kubelet_binary) || { tally failed 1 "$script: the kubelet does not build"; return; }
  cluster_tools || { tally failed 1 "$script: its tools do not build"; return; }
  containerd=$(containerd2) || { tally failed 1 "$script: no containerd 2 from Debian forky"; return; }
  for runtime in "${runtimes[@]}"; do
    log=$logs/$script-$runtime.log
    local more=()
    [ "$runtime" = embedded ] || more=(--containerd "$containerd")
    case $script in scenarios | member) more+=(--csi "$CARGO_TARGET_DIR/debug/csi-driver") ;; esac
    [ "$script" != beside ] || more+=(--allow tests/cluster/beside-allowed.tsv)
    [ "$script" != dra ] || more+=(--dra "$CARGO_TARGET_DIR/debug/dra-driver" --rubelet "$kubelet")
    tests/lib/own.sh python3 "tests/cluster/$script.py" --kubelet "$kubelet" --runtime "$runtime" --bin "$X_CACHE/bin" \
      --images "$X_CACHE/images/golden.tar" --only "${X_ONLY:-.}" "${more[@]}" 2>&1 | tee "$log" || true
    tally_check "$log" "$script"
  done
}

# cluster_tools: the programs that the scenarios need: a CSI driver and the Go server before it, and a proxy that does badly.
cluster_tools() {
  [ -z "${X_PREPARED:-}" ] || return 0
  local tool
  for tool in grpcfront faulty; do
    (cd "tests/cluster/$tool" && CGO_ENABLED=0 go build -o "$X_CACHE/bin/$tool" .) || return 1
  done
  cargo build -q -p rubelet-testkit --bin csi-driver --bin dra-driver
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
  need_plane cluster "$(($(grep -c '#\[ignore' crates/apiserver/tests/cluster/main.rs) + $(grep -o 'self\.check(' tests/lib/check_node.py | wc -l)))" || return 0
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
      references::real_tests certificates::tests::a_node_joins events::tests::a_real_server || true
    RUBELET_TEST_KUBECONFIG=$plane/admin.conf cargo_test cluster-pods -p rubelet-agent --test agent -- cluster:: objects:: drivers:: || true
  else
    tally failed 1 "cluster: the control plane does not start"
  fi
  tests/controlplane/run.py down "$plane"
  rm -rf "$plane"
  check_node
}

# A node of a real control plane as users have it: the program, its embedded runtime, everything in namespaces of its own.
check_node() {
  if [ "$(id -u)" != 0 ]; then tally skipped 1 "cluster: a whole node needs root"; return; fi
  need_embedded_run || { tally failed 1 "cluster: packages are missing"; return; }
  local kubelet log=$logs/cluster-node.log
  kubelet=$(kubelet_binary) || { tally failed 1 "cluster: the kubelet does not build"; return; }
  tests/lib/alone.sh python3 tests/lib/check_node.py "$kubelet" 2>&1 | tee "$log" || true
  tally_check "$log" "cluster: a whole node"
}

# Upstream's node conformance suite with our kubelet, on containerd, or with X_RUNTIMES=embedded on the embedded runtime (the first time it is built: ten minutes;
# then it runs for half an hour).
test_conformance() {
  if [ "$(id -u)" != 0 ]; then tally skipped 1 "conformance: needs root"; return; fi
  if ! need_go; then tally skipped 1 "conformance: needs Go"; return; fi
  need_debian "the conformance suite" containerd runc containernetworking-plugins docker-registry iproute2 iptables busybox-static curl nginx bash netcat-openbsd gcc libc6-dev python3
  local kubelet dir=$X_CACHE/conformance log=$logs/conformance.log passed failed skipped
  kubelet=$(kubelet_binary) || { tally failed 1 "conformance: the kubelet does not build"; return; }
  tests/conformance/build.sh "$dir" || { tally failed 1 "conformance: the suite does not build"; return; }
  local options=(--again)
  [ "${X_RUNTIMES:-}" != embedded ] || options+=(--embedded)
  tests/conformance/run.py --kubelet "$kubelet" --suite "$dir/e2e_node.test" --ginkgo "$dir/ginkgo" --images "$dir/images.tar" --out "$logs/conformance" \
    --focus "${X_ONLY:-\[NodeConformance\]|\[Conformance\]}" --skip '\[Serial\]|\[Flaky\]|\[Slow\]' "${options[@]}" 2>&1 | tee "$log" || true
  if read -r passed failed skipped < <(sed -n 's/^conformance: \([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p' "$log"); then
    tally passed "$passed"
    [ "$failed" = 0 ] || tally failed "$failed" "conformance: see $log"
  else
    tally failed 1 "conformance: it broke off, see $log"
  fi
}

# The suite with which runtimes of CRI are validated, against the embedded one, and where X_RUNTIMES has them, containerd1 and containerd2 (a minute and a half
# each; the first time it is built: two minutes).
test_critest() {
  if [ "$(id -u)" != 0 ]; then tally skipped 1 "critest: needs root"; return; fi
  if ! need_go; then tally skipped 1 "critest: needs Go"; return; fi
  need_debian "the CRI validation suite" containerd runc containernetworking-plugins docker-registry iproute2 iptables nginx-light procps util-linux gcc libc6-dev python3
  local kubelet containerd runtime dir=$X_CACHE/critest log passed failed skipped options
  kubelet=$(kubelet_binary) || { tally failed 1 "critest: the kubelet does not build"; return; }
  tests/critest/build.sh "$dir" || { tally failed 1 "critest: the suite does not build"; return; }
  local runtimes=${X_RUNTIMES:-embedded}
  for runtime in ${runtimes//,/ }; do
    log=$logs/critest-$runtime.log
    case $runtime in
      embedded) options=(--kubelet "$kubelet") ;;
      containerd1) options=(--containerd) ;;
      containerd | containerd2) containerd=$(containerd2) || { tally failed 1 "critest: no containerd 2 from Debian forky"; continue; }; options=(--containerd "$containerd") ;;
      *) options=(--kubelet "$kubelet" --oci-runtime "$runtime") ;;
    esac
    [ -z "${X_ONLY:-}" ] || options+=(--focus "$X_ONLY")
    tests/lib/own.sh tests/critest/run.py "${options[@]}" --critest "$dir/critest" --images "$dir/images.tar" --out "$logs/critest-$runtime" 2>&1 | tee "$log" || true
    if read -r passed failed skipped < <(sed -n 's/^critest: \([0-9]*\) passed, \([0-9]*\) failed, \([0-9]*\) skipped$/\1 \2 \3/p' "$log"); then
      tally passed "$passed"
      [ "$failed" = 0 ] || tally failed "$failed" "critest on $runtime: see $log"
      [ "$skipped" = 0 ] || tally skipped "$skipped" "critest on $runtime: cases that this machine or the runtime has nothing for, see $log"
    else
      tally failed 1 "critest on $runtime: it broke off, see $log"
    fi
  done
}

# The agent's API through a real API server with kubectl, on each runtime, and with many clients at once: in namespaces of its own.
test_api() {
  if [ "$(id -u)" != 0 ]; then tally skipped 1 "api: needs root"; return; fi
  need_plane api 1 || return 0
  local kubelet containerd scraper peers log=$logs/api.log kind options=()
  need_embedded_run && need_run || { tally failed 1 "api: packages are missing"; return; }
  controlplane_programs >"$logs/api-programs.log" || { tally failed 1 "api: no control plane"; return; }
  grep -q '^kubectl ' "$logs/api-programs.log" || { tally skipped 1 "api: no kubectl from Debian forky"; return; }
  kubelet=$(kubelet_binary) || { tally failed 1 "api: the kubelet does not build"; return; }
  if containerd=$(containerd2); then options=(--containerd2 "$containerd"); else tally skipped 1 "api: no containerd 2 from Debian forky"; fi
  if scraper=$(scraper_binary); then options+=(--scraper "$scraper"); else tally skipped 1 "api: metrics-server does not build"; fi
  if peers=$(peers_binary); then options+=(--peers "$peers"); else tally skipped 1 "api: upstream's types of gRPC do not build"; fi
  for kind in ${X_RUNTIMES:-embedded ${containerd:+containerd2}}; do options+=(--runtime "$kind"); done
  tests/lib/alone.sh python3 tests/api/run.py --kubelet "$kubelet" "${options[@]}" 2>&1 | tee "$log" || true
  tally_check "$log" "api"
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
  local log=$logs/fresh.log
  tests/fresh/run.sh run 2>&1 | tee "$log" || true
  tally_check "$log" "fresh"
}

# The recordings of cgroup v2 and the systemd driver, and what else only such a machine can show, in emulated ones, one for each
# runtime. They take all that the processors have: the other parts come before.
test_vm() {
  vm_machines >"$logs/vm.log" 2>&1 &
  vm_job=$!
  wait "$vm_job" || tally failed 1 "vm: broke off, see $logs/vm.log"
  vm_job=
  cat "$logs/vm.log"
}
vm_machines() {
  if [ "$(id -u)" != 0 ]; then tally skipped 1 "vm: needs root"; return; fi
  if ! need_go; then tally skipped 1 "vm: needs Go"; return; fi
  golden_tools || { tally failed 1 "vm: its tools do not build"; return; }
  local kubelet runtime machine machines=()
  trap 'for machine in "${machines[@]}"; do kill "$machine" 2>/dev/null || true; done' EXIT
  kubelet=$(kubelet_binary) || { tally failed 1 "vm: the kubelet does not build"; return; }
  tests/vm/image.sh || { tally failed 1 "vm: the machine could not be built"; return; }
  # Side by side where there is a processor for each: an emulated machine has one.
  for runtime in ${X_VM_RUNTIMES:-embedded containerd}; do
    X_VM_RUNTIMES=$runtime tests/vm/run.sh "$kubelet" "$logs/vm-$runtime" "${X_ONLY:-.}" >"$logs/vm-$runtime.log" 2>&1 &
    machines+=($!)
    [ "$(nproc)" -ge 2 ] || wait $! || true
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
  local log=$1
  if grep -q '^vm: timed out' "$log"; then tally failed 1 "vm: timed out or did not boot, see $log"; return; fi
  tally_golden "$log"
  ! grep -q '^check: ' "$log" || tally_check "$log" "vm"
  # A program that broke off counts nothing.
  if grep -q '^vm: failed' "$log" && ! grep -Eq '^(check: [0-9]+ passed, [1-9]|golden: [0-9]+ agree, [1-9])' "$log"; then tally failed 1 "vm: broke off, see $log"; fi
}

# parts PART...: one after another.
parts() {
  local part
  for part in "$@"; do
    SECONDS=0
    echo "== $part"
    "test_$part"
    echo "== $part: ${SECONDS} s"
  done
}

# prepare: what several parts use is built once. What cannot be is said by the parts.
prepare() {
  local kubelet
  kubelet=$(kubelet_binary) || return 0
  export X_KUBELET=$kubelet
  if [ "$(id -u)" = 0 ] && need_go && golden_tools && controlplane_programs >/dev/null && cluster_tools && reference_kubelet >/dev/null; then export X_PREPARED=yes; fi
}

# everything: what needs the processors alone, and between that two lanes of parts that mostly wait, each in namespaces of its own.
everything() {
  parts unit tidy
  prepare
  # A group of processes of its own, so that all of it can be ended.
  setsid "$PWD/tests/lib/test.sh" contract critest swap streaming >"$logs/lane.log" 2>&1 &
  lane=$!
  parts run metrics golden golden-cluster credentials scenarios
  echo "== beside that, in $logs/lane.log: contract critest swap streaming"
  wait "$lane" || tally failed 1 "the second lane broke off, see $logs/lane.log"
  lane=
  cat "$logs/lane.log"
  parts fuzz vm
}

for part in "$@"; do
  declare -F "test_$part" >/dev/null || { echo "x: no such part: $part" >&2; exit 2; }
done
need_rust
if [ $# -gt 0 ]; then parts "$@"; else everything; fi
[ -n "$lane_of" ] || tally_end
