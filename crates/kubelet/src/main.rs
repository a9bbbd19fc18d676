//! `rubelet`: the kubelet's program. Under the name `kubelet` it takes exactly upstream's command line.
//!
//! The way: command line ([`flags`]) → one configuration ([`assemble`]) → the host, the agent, the signals ([`run`]).

mod agent;
mod assemble;
mod commands;
mod control;
mod embedded;
mod flags;
mod host_checks;
mod klog;
mod own;
mod run;
mod surroundings;
mod traces;
mod version;
mod watchdog;

use std::io::Write as _;
use std::process::ExitCode;

use assemble::{Call, assemble};
use surroundings::Surroundings;

fn main() -> ExitCode {
    // The process beside a container is this program, too; it goes its own way before anything else is set up.
    if let Some(arguments) = rubelet_shim::called() {
        return rubelet_shim::main(&arguments);
    }
    rubelet_host::memory::keep_small();
    let log = klog::install();
    let around = Surroundings::of_this_process();
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let mut notices = Vec::new();
    let call = assemble(&arguments, &around, &mut notices);
    for notice in notices {
        let _ = writeln!(std::io::stderr(), "{notice}");
    }
    match call {
        Ok(Call::Show(text)) => match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Ok(Call::Run(assembled)) => {
            log.set_format(assembled.logging.format);
            log.set_verbosity(assembled.logging.verbosity);
            log.set_patterns(assembled.logging.patterns.clone());
            run::run(*assembled, log)
        }
        Ok(Call::Command(command)) => command.carry_out(),
        Err(error) => {
            tracing::error!(err = %error, "command failed");
            if let Some(hint) = error.hint() {
                tracing::info!("{hint}");
            }
            ExitCode::FAILURE
        }
    }
}
