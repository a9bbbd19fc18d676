//! Development tasks of the project: `cargo run -p xtask -- <task>`.
//!
//! - `proto`: write `crates/proto/src/*.rs` anew from `crates/proto/protos/*.proto`.

use std::process::ExitCode;

mod proto;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let done = match (words.next().as_deref(), words.next()) {
        (Some("proto"), None) => proto::write(&proto::crate_dir()).map_err(|error| error.to_string()),
        (Some(task), None) => Err(format!("unknown task {task:?}; tasks: proto")),
        _ => Err("say one task; tasks: proto".to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("xtask: {message}");
            ExitCode::FAILURE
        }
    }
}
