//! `rubelet`: the kubelet's program. Under the name `kubelet` it takes exactly upstream's command line.
//!
//! The way: command line ([`flags`]) → configuration → checks of the host → agent.

mod flags;
mod klog;
mod version;

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    let _control = klog::install();
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    let mut notices = Vec::new();
    let given = flags::parse(&arguments, &mut notices);
    for notice in notices {
        let _ = writeln!(std::io::stderr(), "{notice}");
    }
    match given {
        Err(error) => tracing::error!(err = %format!("failed to parse kubelet flag: {error}"), "command failed"),
        Ok(given) if given.is_on("help") => {
            let _ = write!(std::io::stdout(), "{}", flags::help("rubelet"));
            return ExitCode::SUCCESS;
        }
        Ok(given) => match given.value("version") {
            Some(serde_json::Value::Bool(true)) => {
                let _ = writeln!(std::io::stdout(), "{}", version::plain());
                return ExitCode::SUCCESS;
            }
            Some(serde_json::Value::String(_)) => {
                let _ = writeln!(std::io::stdout(), "{}", version::raw());
                return ExitCode::SUCCESS;
            }
            _ => tracing::error!(err = "this build does not read its configuration yet", "command failed"),
        },
    }
    ExitCode::FAILURE
}
