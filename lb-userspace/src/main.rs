//! The command `lb`.
#![forbid(unsafe_code)]

use clap::Parser as _;
use lb_userspace::cli::{self, Cli};
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lb: {error:#}");
            cli::exit_code(&error)
        }
    }
}
