//! The contract's scenarios on the embedded runtime, in this process. Played as `RUBELET_CONTRACT` says: see `tests/contract`.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should say where")]
#![expect(clippy::print_stdout, reason = "it is its own harness, and speaks as the usual one")]

#[path = "../contract/machine.rs"]
mod machine;
#[path = "../contract/report.rs"]
mod report;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::sync::Arc;

use machine::{Machine, is_wanted};
use rubelet_runtime::{Creator, Embedded, Options};
use rubelet_testkit::contract::Bench;

/// What the embedded runtime does otherwise: nothing.
const KNOWN: &[(&str, &str)] = &[];
/// What it does otherwise with runc.
const KNOWN_RUNC: &[(&str, &str)] = &[NO_USERS[0], NO_USERS[1]];
/// What it does otherwise with crun.
const KNOWN_CRUN: &[(&str, &str)] = &[
    ("a directory in the way of the command is a StartError", "crun does not name the program"),
    NO_USERS[0],
    NO_USERS[1],
];
const NO_USERS: [(&str, &str); 2] = [
    ("a pod may have users of its own", "by our own shim only"),
    ("what a pod with users of its own mounts belongs to whom it belonged", "by our own shim only"),
];

fn main() -> ExitCode {
    // Shims are this program, too.
    if let Some(arguments) = rubelet_shim::called() {
        return rubelet_shim::main(&arguments);
    }
    println!("\nrunning 1 test");
    let is_ok = catch_unwind(embedded).is_ok();
    let (verdict, passed) = if is_ok { ("ok", 1) } else { ("FAILED", 0) };
    println!("test embedded ... {verdict}");
    println!("\ntest result: {verdict}. {passed} passed; {} failed; 0 ignored; 0 measured; 0 filtered out", 1 - passed);
    if is_ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn embedded() {
    if is_wanted("embedded") {
        on(Creator::BuiltIn, "embedded", KNOWN);
    }
    if is_wanted("runc") {
        on(Creator::from("runc"), "embedded with runc", KNOWN_RUNC);
    }
    if is_wanted("crun") {
        // It refuses hybrid cgroups. The test is in a mount namespace of its own; where nothing is mounted there, nothing happens.
        let _ = std::process::Command::new("umount").arg("/sys/fs/cgroup/unified").output();
        on(Creator::from("crun"), "embedded with crun", KNOWN_CRUN);
    }
}

/// Plays all on the embedded runtime whose containers this creates.
fn on(creator: Creator, name: &str, known: &[(&str, &str)]) {
    let machine = Machine::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut options = Options::at(&machine.path("root"), &machine.path("run"));
        options.creator = creator;
        options.network.cni_conf_dir = machine.path("none");
        let embedded = Embedded::start(options).await.unwrap();
        let (images, archive) = (embedded.images().clone(), machine.path("images.tar"));
        let import = move || images.import(std::fs::File::open(archive).unwrap(), "images.tar", false).unwrap();
        tokio::task::spawn_blocking(import).await.unwrap();
        report::play(name, &Bench::new(Arc::new(embedded), machine.settings()), known).await;
    });
}
