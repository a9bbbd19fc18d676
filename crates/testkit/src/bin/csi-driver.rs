//! The CSI driver for tests as a program of its own.

use std::process::ExitCode;

use rubelet_testkit::csi_driver::{CsiDriver, Options, USAGE};
use rubelet_testkit::program::{Program, run};

fn main() -> ExitCode {
    let program = Program { name: "csi-driver", usage: USAGE };
    run(
        &program,
        Options::parse,
        |options| options.is_held,
        async |options| {
            let driver = CsiDriver::start(options)?;
            Ok(driver.run())
        },
    )
}
