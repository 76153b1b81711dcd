//! Measures `lb` on this machine's kernel: what `cargo xtask bench` builds and runs. Nothing here is a test of speed, since
//! machines differ; compare numbers of one machine, and of one sitting.

mod agent;
mod arguments;
mod cases;
mod config;
#[path = "../../../lb-ebpf/src/control.rs"]
mod control;
mod dns;
mod frames;
mod live;
mod load;
mod measure;
mod object;
mod path;
#[expect(dead_code, reason = "some of it only the programs use")]
#[path = "../../../lb-ebpf/src/questions.rs"]
mod questions;
mod report;
mod tables;

use arguments::What;
use clap::Parser;
use std::process::ExitCode;

/// Measure lb
#[derive(Debug, Parser)]
struct Bench {
    #[command(subcommand)]
    what: What,
}

fn main() -> ExitCode {
    let result = match Bench::parse().what {
        What::Path(arguments) => path::run(&arguments),
        What::Load(arguments) => load::run(&arguments),
        What::Agent(arguments) => agent::run(&arguments),
        What::Dns(arguments) => dns::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
