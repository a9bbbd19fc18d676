//! Containers made from CRI's words, on the real kernel: what they see and may is what was asked for. Needs root and busybox (Debian's
//! `busybox-static`), one test python3; without them each test says that it was not run.

#![expect(clippy::unwrap_used, reason = "a test")]
#![expect(clippy::print_stdout, reason = "it is its own harness, and speaks as the usual one")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

mod made;
mod pod;

const TESTS: [(&str, fn()); 10] = [
    ("a_pods_container", made::a_pods_container),
    ("a_pod_with_users_of_its_own", made::a_pod_with_users_of_its_own),
    ("a_pod_that_shares", made::a_pod_that_shares),
    ("users_and_capabilities", made::users_and_capabilities),
    ("read_only_and_hidden", made::read_only_and_hidden),
    ("devices", made::devices),
    ("devices_by_cdi", made::devices_by_cdi),
    ("volumes_of_the_image", made::volumes_of_the_image),
    ("the_usual_system_calls", made::the_usual_system_calls),
    ("a_profile_of_its_own", made::a_profile_of_its_own),
];

fn main() -> ExitCode {
    if let Some(arguments) = rubelet_shim::called() {
        return rubelet_shim::main(&arguments);
    }
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let chosen: Vec<_> = TESTS.iter().filter(|(name, _)| name.contains(&filter)).collect();
    println!("\nrunning {} tests", chosen.len());
    let mut failed = 0;
    for (name, test) in &chosen {
        let is_ok = catch_unwind(AssertUnwindSafe(test)).is_ok();
        failed += usize::from(!is_ok);
        println!("test {name} ... {}", if is_ok { "ok" } else { "FAILED" });
    }
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    let passed = chosen.len() - failed;
    let filtered = TESTS.len() - chosen.len();
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {filtered} filtered out"
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
