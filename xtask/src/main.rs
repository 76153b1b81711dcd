//! The commands of development: `cargo xtask setup`, `demo`, `kernels`, `test` and `bench`.
//!
//! Exit codes: 0 done, 1 the answer is no or something failed, 2 wrongly called (usage, or not as root).

#![forbid(unsafe_code)]

mod bench;
mod bpf_tools;
mod demo;
mod fuzz;
mod kernels;
mod need;
mod plan;
mod progress;
mod setup;
mod tally;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::Parser;

use crate::test::Scope;

/// The commands of development
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Command {
    /// Find or install what building and testing need
    Setup {
        /// Only report what is missing
        #[arg(long)]
        check: bool,
    },
    /// Build lb and show it at work in namespaces of this machine (needs root)
    Demo {
        /// Leave everything running at the end, to look around
        #[arg(long)]
        keep: bool,
    },
    /// Boot Debian's stock kernels and try the BPF programs in them; also part of `test`
    Kernels,
    /// Run all checks and tests
    Test {
        /// Only what needs neither root nor a kernel
        #[arg(long)]
        quick: bool,
    },
    /// Fuzz the path and the plans (needs cargo-fuzz); a short run is part of `test` where it is installed
    Fuzz {
        /// Only this
        target: Option<fuzz::Target>,
        /// For how long, each
        #[arg(long, value_name = "N", default_value_t = 60)]
        seconds: u32,
    },
    /// Measure lb on this machine (needs root)
    Bench {
        #[command(subcommand)]
        what: bench::arguments::What,
    },
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Setup { check } => setup::run(check).map(|outcome| match outcome {
            setup::Outcome::Ready => ExitCode::SUCCESS,
            setup::Outcome::Lacking => ExitCode::from(1),
            setup::Outcome::Refused => ExitCode::from(2),
        }),
        Command::Demo { keep } => demo::run(keep),
        Command::Kernels => test::run(Scope::Kernels),
        Command::Fuzz { target, seconds } => fuzz::run(target, seconds),
        Command::Bench { what } => bench::run(&what),
        Command::Test { quick } => test::run(if quick { Scope::Quick } else { Scope::All }),
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(1)
    })
}
