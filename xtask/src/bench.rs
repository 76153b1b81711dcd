//! `cargo xtask bench`: builds what measures `lb`, and runs it.
//!
//! What measures is the crate `bench`; what can be asked of it is compiled into this command as well.

#[path = "../../tests/bench/src/arguments.rs"]
pub mod arguments;

use std::{
    env,
    process::{Command, ExitCode},
};

use anyhow::{Context as _, bail};

use arguments::What;

use crate::{
    need::PEERS,
    setup::{self, Outcome},
    workspace::Workspace,
};

/// Sets up, builds for release and measures, and ends as that does.
///
/// # Errors
/// When something cannot be installed, built or started.
pub fn run(what: &What) -> anyhow::Result<ExitCode> {
    if !setup::is_root() {
        eprintln!("BPF programs and namespaces need root; run: sudo env PATH=\"$PATH\" cargo xtask bench");
        return Ok(ExitCode::from(2));
    }
    let (more, packages): (_, &[&str]) = match what {
        What::Dns(_) => (PEERS, &["--package", "bench", "--package", "lb-userspace"]),
        What::Agent(_) => (&[][..], &["--package", "bench", "--package", "lb-userspace"]),
        What::Path(_) | What::Load(_) => (&[][..], &["--package", "bench"]),
    };
    if setup::run_with(false, more)? == Outcome::Refused {
        return Ok(ExitCode::from(2));
    }
    let workspace = Workspace::find()?;
    let built = workspace.cargo(["build", "--release"]).args(packages).status().context("cannot run cargo build")?;
    if !built.success() {
        bail!("what measures could not be built");
    }
    let bench = workspace.target.join("release/bench");
    // Judged already; what comes after this command's own name is handed on as it was written.
    let status = Command::new(&bench)
        .args(env::args_os().skip(2))
        .status()
        .with_context(|| format!("cannot run {}", bench.display()))?;
    match status.code() {
        Some(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
        None => bail!("measuring ended by {status}"),
    }
}
