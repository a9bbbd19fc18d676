//! The driver of resource claims for tests as a program of its own.

use std::process::ExitCode;

use rubelet_testkit::dra_driver::{DraDriver, Options, USAGE};
use rubelet_testkit::program::{Program, run};

fn main() -> ExitCode {
    let program = Program { name: "dra-driver", usage: USAGE };
    run(
        &program,
        Options::parse,
        |options| options.is_held,
        async |options| {
            let driver = DraDriver::start(options)?;
            Ok(driver.run())
        },
    )
}
