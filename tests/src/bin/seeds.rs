//! Writes what fuzzing starts from: `seeds FOLDER` makes a folder in it for each target that has any.
#![forbid(unsafe_code)]

use anyhow::{Context as _, Result};
use std::{env, fs, path::Path};
use tests::fuzzing::seeds;

fn main() -> Result<()> {
    let folder = env::args_os().nth(1).context("usage: seeds FOLDER")?;
    let folder = Path::new(&folder).join("frame");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for (name, bytes) in seeds::frame()? {
        let path = folder.join(name);
        fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
