//! Where cargo says that things are, so that `CARGO_TARGET_DIR` and cargo's settings count.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use serde_json::Value;

/// The folders of the workspace that this command is run in.
#[derive(Debug)]
pub struct Workspace {
    /// Where the root manifest is.
    pub root: PathBuf,
    /// Where cargo builds.
    pub target: PathBuf,
}

impl Workspace {
    /// Asks cargo.
    ///
    /// # Errors
    /// When this is no workspace, or cargo cannot read it.
    pub fn find() -> anyhow::Result<Self> {
        let output = Command::new("cargo")
            .args(["metadata", "--no-deps", "--format-version", "1"])
            .output()
            .context("cannot run cargo metadata")?;
        if !output.status.success() {
            bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let answer: Value = serde_json::from_slice(&output.stdout).context("cannot read what cargo metadata says")?;
        let folder = |name: &str| {
            answer.get(name).and_then(Value::as_str).map(PathBuf::from).with_context(|| format!("cargo has no {name}"))
        };
        Ok(Self { root: folder("workspace_root")?, target: folder("target_directory")? })
    }

    /// The file of a binary that was built for development.
    pub fn binary(&self, name: impl AsRef<Path>) -> PathBuf {
        self.target.join("debug").join(name)
    }

    /// A call of cargo in this workspace.
    pub fn cargo(&self, words: impl IntoIterator<Item = &'static str>) -> Command {
        let mut command = Command::new("cargo");
        command.args(words).current_dir(&self.root);
        command
    }
}
