//! The shim alone, as small as it gets: what `rubelet shim BUNDLE` is.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    rubelet_shim::main(&arguments)
}
