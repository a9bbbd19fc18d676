//! Development tasks of the project: `cargo run -p xtask -- <task>`.
//!
//! - `proto`: write `crates/proto/src/*.rs` anew from `crates/proto/protos/*.proto`.
//! - `tidy`: what the compiler does not hold (edges between crates, sizes, names, paths in the documents).

use std::process::ExitCode;

mod proto;
mod tidy;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let done = match (words.next().as_deref(), words.next()) {
        (Some("proto"), None) => proto::write(&proto::crate_dir()).map_err(|error| error.to_string()),
        (Some("tidy"), None) => tidy(),
        (Some(task), None) => Err(format!("unknown task {task:?}; tasks: proto, tidy")),
        _ => Err("say one task; tasks: proto, tidy".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}

fn tidy() -> Result<(), String> {
    let report = tidy::look(&tidy::workspace()).map_err(|error| format!("read the workspace: {error}"))?;
    eprintln!("{report}");
    match report.problems.len() {
        0 => Ok(()),
        count => Err(format!("{count} problems")),
    }
}
