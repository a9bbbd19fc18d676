//! For tests with real mounts.

use std::thread;

/// Runs `test` in a thread with a mount namespace of its own; says so when it can't.
pub(crate) fn in_private_namespace(test: impl FnOnce() + Send + 'static) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not run: needs root");
        return;
    }
    let run = || {
        rubelet_host::mount::enter_private_namespace().unwrap();
        test();
    };
    if let Err(panic) = thread::spawn(run).join() {
        std::panic::resume_unwind(panic);
    }
}
