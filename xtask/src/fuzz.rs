//! `cargo xtask fuzz`: coverage-guided fuzzing of what `tests/fuzz` names, from seeds made of the tests' frames.
//!
//! It takes cargo-fuzz, which nothing else needs and which is not installed here. The sanitizers want a nightly compiler and find
//! what safe Rust does not have, so the targets run without; coverage needs none.

use std::{
    fs,
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::{Context as _, bail};
use clap::ValueEnum;

use crate::workspace::Workspace;

/// What is fuzzed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Target {
    /// Sequences of frames through the path
    Frame,
    /// Histories of an agent's plans
    PlanOps,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Frame, Self::PlanOps];

    /// Inputs that the test run tries: about ten seconds' worth.
    const fn runs(self) -> u32 {
        match self {
            Self::Frame => 150_000,
            Self::PlanOps => 8_000,
        }
    }

    /// Its name in `tests/fuzz`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Frame => "frame",
            Self::PlanOps => "plan_ops",
        }
    }
}

/// How to get cargo-fuzz, if it is missing.
pub fn missing() -> Option<&'static str> {
    let found = Command::new("cargo").args(["fuzz", "--version"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let found = found.is_ok_and(|status| status.success());
    (!found).then_some("cargo-fuzz is missing; `cargo install cargo-fuzz` installs it")
}

/// Fuzzes one target, or all one after the other, each for so many seconds; the answer is no when something was found.
///
/// # Errors
/// When cargo-fuzz is missing or nothing can be built.
pub fn run(target: Option<Target>, seconds: u32) -> anyhow::Result<ExitCode> {
    if let Some(cure) = missing() {
        bail!(cure);
    }
    let workspace = Workspace::find()?;
    let corpus = workspace.target.join("corpus");
    seed(&workspace, &corpus)?;
    let targets = target.map_or_else(|| Target::ALL.to_vec(), |target| vec![target]);
    let mut found = false;
    for target in targets {
        let mut command = command(&workspace, target, &corpus)?;
        command.arg(format!("-max_total_time={seconds}"));
        found |= !command.status().context("cannot run cargo fuzz")?.success();
    }
    Ok(ExitCode::from(u8::from(found)))
}

/// Fuzzes each target for a moment, in the same way every time: what the test run says of a commit does not depend on luck. New
/// inputs are for [`run`] to find.
///
/// # Errors
/// When the seeds cannot be written.
pub fn same_commands(workspace: &Workspace) -> anyhow::Result<Vec<(Target, Command)>> {
    let corpus = workspace.target.join("corpus-of-test");
    if corpus.exists() {
        fs::remove_dir_all(&corpus).with_context(|| format!("cannot remove {}", corpus.display()))?;
    }
    seed(workspace, &corpus)?;
    let same = |target: Target| {
        let mut command = command(workspace, target, &corpus)?;
        command.args(["-seed=1", &format!("-runs={}", target.runs())]);
        Ok((target, command))
    };
    Target::ALL.into_iter().map(same).collect()
}

/// Writes what fuzzing starts from; what was found to be worth keeping is kept beside it.
fn seed(workspace: &Workspace, corpus: &Path) -> anyhow::Result<()> {
    let mut seeds = workspace.cargo(["run", "--quiet", "--package", "tests", "--bin", "seeds", "--"]);
    if !seeds.arg(corpus).status().context("cannot run cargo")?.success() {
        bail!("the seeds could not be written to {}", corpus.display());
    }
    Ok(())
}

/// Fuzzes a target; further arguments are libFuzzer's.
fn command(workspace: &Workspace, target: Target, corpus: &Path) -> anyhow::Result<Command> {
    let corpus = corpus.join(target.name());
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let mut command = workspace.cargo(["fuzz", "run", "--sanitizer", "none", "--features", "libfuzzer"]);
    command.args(["--fuzz-dir", "tests/fuzz"]).arg("--target-dir").arg(workspace.target.join("fuzz"));
    command.arg(target.name()).arg(corpus);
    command.args(["--", "-print_final_stats=1"]);
    Ok(command)
}
