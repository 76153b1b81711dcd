//! `lb check`.

use crate::{config::Config, model::intent::Intent};
use anyhow::Result;
use std::path::Path;

/// Prints what a right config holds.
pub fn check(file: &Path) -> Result<()> {
    let intent = Intent::new(&Config::read(file)?)?;
    let backends: usize = intent.services().iter().map(|service| service.backends.len()).sum();
    println!(
        "{}: right: {} service(s) with {backends} backend(s), {} name(s)",
        file.display(),
        intent.services().len(),
        intent.names().len()
    );
    Ok(())
}
