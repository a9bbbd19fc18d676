//! This program may be killed between any two effects: what is left goes with the next sweep or attempt.

use std::cell::Cell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;

use super::world::{Pod, UPLINK, World, ask, mirror, on_a_host, port, run};
use crate::{Network, NetworkError, Options, PortMapping, Protocol};

thread_local! {
    /// How many points may still be passed.
    static LEFT: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// What is thrown instead of a kill: nothing of ours catches it, so nothing is taken back.
struct Killed;

fn fault(_point: &'static str) {
    let left = LEFT.get();
    if left == 0 {
        resume_unwind(Box::new(Killed));
    }
    LEFT.set(left - 1);
}

/// Whether `work` ended, or was killed after so many points.
fn is_killed_after(points: usize, work: impl FnOnce()) -> bool {
    LEFT.set(points);
    let ended = catch_unwind(AssertUnwindSafe(work));
    LEFT.set(usize::MAX);
    match ended {
        Ok(()) => false,
        Err(thrown) if thrown.is::<Killed>() => true,
        Err(thrown) => resume_unwind(thrown),
    }
}

fn ports() -> [PortMapping; 2] {
    [port(8080, 80, Protocol::Tcp), port(5353, 53, Protocol::Udp)]
}

/// A pod's whole life.
fn live(network: &Network) -> Result<(), NetworkError> {
    network.make_namespace("web")?;
    Pod::new("web", &ports()).attach(network)?;
    network.detach("web")?;
    network.remove_namespace("web")
}

fn kill_everywhere(world: &World, options: &Options, least: usize, nothing: impl Fn() -> String) {
    let fresh = || Network::open(Options { fault: Some(fault), ..options.clone() }).unwrap();
    let before = nothing();
    let mut points = 0;
    while is_killed_after(points, || live(&fresh()).unwrap()) {
        let swept = fresh().sweep(&[]).unwrap();
        assert!(swept.failed.is_empty(), "after {points} points: {swept:?}");
        assert_eq!(nothing(), before, "after {points} points");
        // The same, by who knows the sandbox and tears it down by itself.
        assert!(is_killed_after(points, || live(&fresh()).unwrap()));
        let network = fresh();
        network.detach("web").unwrap();
        network.remove_namespace("web").unwrap();
        // With its last pod the bridge goes; where that was cut short, the next sweep goes on.
        network.sweep(&[]).unwrap();
        run_out(world);
        assert_eq!(nothing(), before, "after {points} points, by detaching");
        points += 1;
    }
    assert!(points >= least, "{points} points");
}

/// Waits for what the kernel does in the background: a link goes some time after its namespace.
fn run_out(world: &World) {
    let begin = std::time::Instant::now();
    while run("ip -o link").contains(": r") && begin.elapsed() < super::world::PATIENCE {
        std::thread::yield_now();
    }
    let _ = fs::read_dir(world.path("netns"));
}

#[test]
fn kills_leave_nothing_of_the_bridge() {
    on_a_host(|world| {
        let options = world.options();
        kill_everywhere(world, &options, 11, || world.inventory());
        // The same with another pod on the bridge, which nobody must notice.
        let network = world.network();
        let (pod, _) = Pod::new("stays", &[port(90, 80, Protocol::Tcp)]).start(&network);
        mirror(&pod, "[::]:80");
        let fresh = || Network::open(Options { fault: Some(fault), ..options.clone() }).unwrap();
        let before = world.inventory();
        let mut points = 0;
        while is_killed_after(points, || live(&fresh()).unwrap()) {
            assert!(ask(&world.outside(), (UPLINK[0], 90)).is_ok(), "after {points} points: {}", world.inventory());
            fresh().sweep(&["stays"]).unwrap();
            assert_eq!(world.inventory(), before, "after {points} points");
            assert!(ask(&world.outside(), (UPLINK[0], 90)).is_ok());
            points += 1;
        }
    });
}

#[test]
fn an_attempt_after_a_kill_succeeds() {
    on_a_host(|world| {
        let options = world.options();
        let fresh = || Network::open(Options { fault: Some(fault), ..options.clone() }).unwrap();
        fresh().make_namespace("web").unwrap();
        let pod = Pod::new("web", &ports());
        let mut points = 0;
        while is_killed_after(points, || drop(pod.attach(&fresh()).unwrap())) {
            let network = fresh();
            pod.attach(&network).unwrap();
            network.check("web").unwrap();
            assert_eq!(run("nft list map inet rubelet ports4").matches("10.86.").count(), 2);
            network.detach("web").unwrap();
            network.sweep(&["web"]).unwrap();
            points += 1;
        }
        assert!(points >= 4, "{points} points");
    });
}

/// One that keeps an address in a file, as plugins do that manage addresses.
const PLUGIN: &str = r#"#!/bin/sh
cat > /dev/null
case $CNI_COMMAND in
ADD) echo held > DIR/held-$0-$CNI_CONTAINERID
  echo '{"cniVersion":"1.0.0","ips":[{"address":"10.9.9.2/24"}]}' ;;
DEL) rm -f DIR/held-$0-$CNI_CONTAINERID ;;
esac
"#;

#[test]
fn kills_leave_nothing_of_plugins() {
    on_a_host(|world| {
        use std::os::unix::fs::PermissionsExt;
        let (bin, held) = (world.path("bin"), world.path("held"));
        for dir in [&bin, &held, &world.path("net.d")] {
            fs::create_dir_all(dir).unwrap();
        }
        for name in ["one", "two"] {
            let script = PLUGIN.replace("$0", name).replace("DIR", &held.display().to_string());
            fs::write(bin.join(name), script).unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let list = r#"{"cniVersion":"1.0.0","name":"net","plugins":[{"type":"one"},{"type":"two"}]}"#;
        fs::write(world.path("net.d/1.conflist"), list).unwrap();
        let options = Options { cni_bin_dirs: vec![bin], ..world.options() };
        let count = |dir: &Path| fs::read_dir(dir).unwrap().count();
        kill_everywhere(world, &options, 6, || format!("{} {}", count(&held), world.inventory()));
    });
}
