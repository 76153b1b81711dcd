//! `cargo xtask demo`: builds `lb` and shows it at work in namespaces of this machine.
//!
//! The demo itself is the binary `demo` of the crate `tests`; this prepares what it runs with.

use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};

use crate::{
    setup::{self, Outcome},
    workspace::Workspace,
};

/// Sets up, builds and runs the demo, and ends as it does.
///
/// # Errors
/// When something cannot be installed, built or started.
pub fn run(keep: bool) -> anyhow::Result<ExitCode> {
    let keep = keep.then_some("--keep");
    if !setup::is_root() {
        let arguments = keep.map(|word| format!(" {word}")).unwrap_or_default();
        eprintln!("namespaces and XDP programs need root; run: sudo env PATH=\"$PATH\" cargo xtask demo{arguments}");
        return Ok(ExitCode::from(2));
    }
    if setup::run(false)? == Outcome::Refused {
        return Ok(ExitCode::from(2));
    }
    let workspace = Workspace::find()?;
    // Not for release: what `cargo xtask test` builds anyway, in half the time, and fast enough to show everything.
    let built = workspace
        .cargo(["build", "--package", "lb-userspace", "--package", "tests"])
        .status()
        .context("cannot run cargo build")?;
    if !built.success() {
        bail!("lb could not be built");
    }
    let demo = workspace.binary("demo");
    let status = Command::new(&demo)
        .args(keep)
        .env("LB_BIN", workspace.binary("lb"))
        .status()
        .with_context(|| format!("cannot run {}", demo.display()))?;
    match status.code() {
        Some(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
        None => bail!("the demo ended by {status}"),
    }
}
