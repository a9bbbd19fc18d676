//! The driver of resource claims for tests as a program of its own.

use std::io::{self, Write};
use std::process::ExitCode;

use rubelet_testkit::dra_driver::{DraDriver, Options, OptionsError, USAGE};
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        return said(io::stdout(), USAGE, ExitCode::SUCCESS);
    }
    let options = match Options::parse(words) {
        Ok(options) => options,
        Err(OptionsError(why)) => {
            return said(io::stderr(), &format!("dra-driver: {why}\n\n{USAGE}"), ExitCode::from(2));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(run(options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => said(io::stderr(), &format!("dra-driver: {error}\n"), ExitCode::FAILURE),
    }
}

async fn run(options: Options) -> io::Result<()> {
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let is_held = options.is_held;
    let driver = DraDriver::start(options)?;
    writeln!(io::stdout(), "ready")?;
    let released = async {
        let mut left = Vec::new();
        match is_held {
            true => drop(tokio::io::stdin().read_to_end(&mut left).await),
            false => std::future::pending().await,
        }
    };
    tokio::select! {
        () = driver.run() => {}
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
        () = released => {}
    }
    Ok(())
}

fn said(mut to: impl Write, text: &str, code: ExitCode) -> ExitCode {
    match to.write_all(text.as_bytes()) {
        Ok(()) => code,
        Err(_) => ExitCode::FAILURE,
    }
}
