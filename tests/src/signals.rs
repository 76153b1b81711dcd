//! SIGINT and SIGTERM: the labs of this process are removed before it ends.
//!
//! tokio's handlers only write to a pipe, and a handler, unlike a blocked signal, is not inherited by
//! the programs that a lab starts.

use std::{process, sync::Mutex, thread};

use anyhow::{Context, Result};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
};

use crate::belongings::{self, lock};

static WATCHING: Mutex<bool> = Mutex::new(false);

/// Makes SIGINT and SIGTERM remove this process's labs and then exit with 130 or 143, as a shell
/// would report these signals. Only the first call does anything.
pub(crate) fn watch() -> Result<()> {
    let mut watching = lock(&WATCHING);
    if *watching {
        return Ok(());
    }
    let runtime = runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .context("starting a runtime that waits for signals")?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt()).context("listening for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("listening for SIGTERM")?;
    drop(entered);
    thread::Builder::new()
        .name("lab-signals".to_owned())
        .spawn(move || {
            let code = runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => 130,
                    _ = terminate.recv() => 143,
                }
            });
            // The guard lives until the end, so that no test begins another lab meanwhile.
            let _no_more_labs = belongings::remove_all();
            process::exit(code);
        })
        .context("starting a thread that waits for signals")?;
    *watching = true;
    Ok(())
}
