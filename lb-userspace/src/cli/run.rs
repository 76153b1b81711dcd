//! `lb run`.

use crate::{
    agent,
    config::Config,
    kernel::{load::Pins, privileges},
    model::intent::Intent,
};
use anyhow::Result;
use std::{
    io::{self, IsTerminal as _},
    path::Path,
};
use tracing_subscriber::EnvFilter;

/// Runs the agent. `RUST_LOG` chooses what is logged, by default what an operator wants to know.
pub fn run(config: &Path) -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // Colours are for people: a journal or a file would be full of escape sequences.
    log.with_ansi(io::stderr().is_terminal()).init();
    let intent = Intent::new(&Config::read(config)?)?;
    // Mounting and making folders takes more privileges than running. Given up before there are threads, or each would have its
    // own.
    let pins = Pins::hold(intent.pins())?;
    privileges::give_up()?;
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(agent::run(config, intent, pins))
}
