//! A demonstration: real servers, real clients, an agent, and what becomes of the traffic when a server dies.
//!
//! It ends with exit code 0 only if everything that it expected held.
#![forbid(unsafe_code)]

mod balance;
mod names;
mod report;
mod stage;

use report::Report;
use stage::Stage;
use std::{env, process::ExitCode, time::Instant};
use tests::Layout;

fn main() -> ExitCode {
    let keep = match env::args().nth(1).as_deref() {
        None => false,
        Some("--keep") => true,
        Some(other) => {
            eprintln!("demo: {other}: the only argument is --keep");
            return ExitCode::from(2);
        }
    };
    match run(keep) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs all of it; returns how many expectations did not hold.
fn run(keep: bool) -> anyhow::Result<usize> {
    let started = Instant::now();
    let mut report = Report::default();

    report.chapter("Direct server return: client, balancer and servers on one segment");
    let mut stage = Stage::set(Layout::Bridged, "dsr", &mut report)?;
    balance::both_families(&mut stage, &mut report)?;
    drop(stage);

    report.chapter("NAT: the servers are behind the balancer, on another interface and another port");
    let mut stage = Stage::set(Layout::Routed, "nat", &mut report)?;
    balance::both_families(&mut stage, &mut report)?;

    report.chapter("DNS: a name over the same servers, answered in the kernel");
    names::questions(&mut stage, &mut report)?;

    report.chapter("Where the packets went");
    report.text(&stage.status_text()?);
    if keep {
        report.chapter("Left up");
        let hints = stage.hints();
        report.text(&stage.keep()?);
        report.text(&hints);
    }
    Ok(report.end(started.elapsed()))
}
