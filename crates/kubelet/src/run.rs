//! From a finished configuration to the end of the process: the host, the agent, the signals.

use std::ffi::OsString;
use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use rubelet_agent::pulse::Pulse;
use rubelet_host::cgroup;
use rubelet_host::tuning::iptables::Iptables;
use rubelet_host::tuning::lock::Contention;
use rubelet_host::tuning::notify;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use crate::assemble::Assembled;
use crate::traces::TraceSettings;
use crate::{agent, host_checks, klog, watchdog};

/// Threads for work that blocks: mounts, files, names.
const BLOCKING_THREADS: usize = 16;
/// How often the iptables chains are looked at; from kubelet 1.36.
const IPTABLES_PERIOD: Duration = Duration::from_secs(60);

/// Runs the agent until it is told to end. What was logged as `command failed` made it fail.
pub(crate) fn run(assembled: Assembled, log: klog::Control) -> ExitCode {
    match prepare_and_live(assembled, log) {
        Ok(code) => code,
        Err(said) => {
            error!(err = %said, "command failed");
            ExitCode::FAILURE
        }
    }
}

fn prepare_and_live(assembled: Assembled, log: klog::Control) -> Result<ExitCode, String> {
    for remark in &assembled.remarks {
        remark.log();
    }
    let host = &assembled.host;
    let cgroups = cgroup::detect_version().map_err(|error| format!("failed to run Kubelet: {}", chain(&error)))?;
    host_checks::check_cgroups(cgroups, host.fail_cgroup_v1).map_err(|e| e.to_string())?;
    let period = watchdog::period(&assembled.around, std::process::id()).map_err(|e| e.to_string())?;
    let flags = &assembled.flags;
    // The lock is held until this function returns.
    let lock =
        host_checks::take_lock(flags.lock_file.as_deref(), flags.exit_on_lock_contention).map_err(|e| chain(&e))?;
    host_checks::check_swap(host.fail_swap_on).map_err(|e| e.to_string())?;
    host_checks::arrange(host).map_err(|e| e.to_string())?;
    let (_lock, contention) = lock.map_or((None, None), |(lock, contention)| (Some(lock), contention));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()
        .map_err(|error| format!("failed to run Kubelet: start the event loop: {error}"))?;
    let wished = TraceSettings::of(&assembled);
    let code = runtime.block_on(async {
        if let Some(settings) = wished {
            log.traces().start(settings);
        }
        live(assembled, log, contention, period).await
    });
    // Whatever still blocks in a thread does not hold up the end.
    runtime.shutdown_background();
    code
}

/// An error with its sources.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        source = inner.source();
    }
    text
}

async fn live(
    assembled: Assembled,
    log: klog::Control,
    contention: Option<Contention>,
    watchdog_period: Option<Duration>,
) -> Result<ExitCode, String> {
    let mut signals =
        Signals::listen().map_err(|error| format!("failed to run Kubelet: listen for signals: {error}"))?;
    let contended = contended(contention);
    let notify_socket = assembled.around.variable("NOTIFY_SOCKET").map(str::to_owned);
    if assembled.config.network.make_iptables_util_chains {
        let path = assembled.around.variable("PATH").unwrap_or_default().into();
        rubelet_host::task::spawn(keep_chains(path));
    }
    let running = tokio::select! {
        started = agent::start(assembled, log) => started?,
        name = signals.next() => {
            info!(signal = name, "Ending before the agent has started");
            return Ok(ExitCode::SUCCESS);
        }
    };
    if let Some(socket) = notify_socket {
        tell(&socket, "READY=1");
        if let Some(period) = watchdog_period {
            rubelet_host::task::spawn(stay_alive(socket, period, running.pulse()));
        }
    }
    tokio::select! {
        name = signals.next() => info!(signal = name, "Ending; pods go on"),
        () = contended => info!("Someone else opened the lock file; ending"),
    }
    Ok(end(running.stop(), signals.next()).await)
}

/// 0 once everything has ended, 1 at once when told a second time.
async fn end(ending: impl Future<Output = ()>, second: impl Future<Output = &'static str>) -> ExitCode {
    tokio::select! {
        biased;
        () = ending => ExitCode::SUCCESS,
        name = second => {
            warn!(signal = name, "Told a second time; ending at once");
            ExitCode::FAILURE
        }
    }
}

/// Completes when the process is told to end.
///
/// # Errors
/// The system's, at once.
pub(crate) fn told_to_end() -> std::io::Result<impl Future<Output = ()>> {
    let mut signals = Signals::listen()?;
    Ok(async move {
        signals.next().await;
    })
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Ends when someone else opens the lock file; never without a watch.
fn contended(contention: Option<Contention>) -> impl Future<Output = ()> {
    let (sender, receiver) = oneshot::channel();
    let waits = contention.is_some();
    if let Some(mut contention) = contention {
        std::thread::spawn(move || match contention.wait() {
            // Nobody listens any more when the process is ending.
            Ok(()) => drop(sender.send(())),
            Err(error) => error!(err = %error, "Failed to watch the lock file"),
        });
    }
    async move {
        if !waits || receiver.await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn tell(socket: &str, state: &str) {
    if let Err(error) = notify::tell(socket, state) {
        warn!(err = %error, socket, state, "Failed to notify systemd");
    }
}

/// Tells systemd's watchdog again and again that pods are looked after. When they are not, it is left to systemd to start anew.
async fn stay_alive(socket: String, period: Duration, pulse: Pulse) {
    let mut ticks = tokio::time::interval(period);
    loop {
        ticks.tick().await;
        match pulse.check() {
            Ok(()) => tell(&socket, "WATCHDOG=1"),
            // From kubelet 1.36.
            Err(err) => error!(err, "Do not notify watchdog this iteration as the kubelet is reportedly not healthy"),
        }
    }
}

/// Makes the iptables chains and makes them again when someone has flushed them. Failures are told when they change.
async fn keep_chains(path: OsString) {
    let tools = Iptables::find(&path);
    if tools.is_empty() {
        info!("No iptables on this host; its chains are not kept");
        return;
    }
    let mut said = String::new();
    let mut ticks = tokio::time::interval(IPTABLES_PERIOD);
    loop {
        ticks.tick().await;
        let work = tools.clone();
        let outcome = rubelet_host::task::blocking(move || {
            work.iter().try_for_each(|tool| if tool.is_untouched()? { Ok(()) } else { tool.ensure() })
        });
        let now = match outcome.await {
            Ok(Ok(())) => String::new(),
            Ok(Err(error)) => chain(&error),
            Err(_) => return,
        };
        if !now.is_empty() && now != said {
            error!(err = %now, "Failed to set up iptables chains; trying again every minute");
        }
        said = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    fn block<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    #[test]
    fn a_second_signal_ends_at_once() {
        assert_eq!(block(end(ready(()), pending())), ExitCode::SUCCESS);
        assert_eq!(block(end(pending(), ready("SIGINT"))), ExitCode::FAILURE);
    }

    #[test]
    fn contention_ends_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let (_lock, contention) = host_checks::take_lock(Some(&path), true).unwrap().unwrap();
        block(async {
            let contended = contended(contention);
            std::fs::File::open(&path).unwrap();
            contended.await;
        });
    }
}
