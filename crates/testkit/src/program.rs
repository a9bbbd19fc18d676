//! What drivers for tests are as programs: they take a command line, say `ready`, and serve until they are told to end.

use std::io::{self, Write};
use std::process::ExitCode;

use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

/// Why a command line is no good.
#[derive(Debug, PartialEq, Eq)]
pub struct OptionsError(pub String);

/// How a program calls itself, and what it says of itself.
#[derive(Clone, Copy, Debug)]
pub struct Program {
    pub name: &'static str,
    pub usage: &'static str,
}

/// Runs it: `start` makes what serves until it is dropped; `is_held`: it ends with its standard input, too.
pub fn run<O, W: Future<Output = ()>>(
    program: &Program,
    parse: impl FnOnce(Vec<String>) -> Result<O, OptionsError>,
    is_held: impl FnOnce(&O) -> bool,
    start: impl AsyncFnOnce(O) -> io::Result<W>,
) -> ExitCode {
    let Program { name, usage } = program;
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        return said(io::stdout(), usage, ExitCode::SUCCESS);
    }
    let options = match parse(words) {
        Ok(options) => options,
        Err(OptionsError(why)) => {
            return said(io::stderr(), &format!("{name}: {why}\n\n{usage}"), ExitCode::from(2));
        }
    };
    let is_held = is_held(&options);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(serve(is_held, start(options)))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => said(io::stderr(), &format!("{name}: {error}\n"), ExitCode::FAILURE),
    }
}

async fn serve<W: Future<Output = ()>>(is_held: bool, start: impl Future<Output = io::Result<W>>) -> io::Result<()> {
    let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let work = start.await?;
    writeln!(io::stdout(), "ready")?;
    let released = async {
        let mut left = Vec::new();
        match is_held {
            true => drop(tokio::io::stdin().read_to_end(&mut left).await),
            false => std::future::pending().await,
        }
    };
    tokio::select! {
        () = work => {}
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
