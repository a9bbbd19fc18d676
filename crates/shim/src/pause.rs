//! The process that holds a pod's namespaces. It is a copy of the shim (nothing is executed, so its pages are shared with it), waits,
//! reaps what is orphaned in a PID namespace that it is the first process of, and ends on SIGTERM or SIGINT.

use crate::sys;

/// Never returns.
pub(crate) fn run() -> ! {
    sys::reset_signals();
    sys::set_name(c"pause");
    loop {
        match sys::wait_for_signal(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT]) {
            libc::SIGTERM | libc::SIGINT => sys::exit_now(0),
            _ => while sys::reap().is_some() {},
        }
    }
}
