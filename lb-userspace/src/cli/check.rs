//! `lb check`.

use super::json;
use crate::{config::Config, model::intent::Intent};
use anyhow::Result;
use std::path::Path;

/// Prints what a right config holds.
pub fn check(file: &Path, as_json: bool) -> Result<()> {
    let intent = Intent::new(&Config::read(file)?)?;
    let backends: usize = intent.services().iter().map(|service| service.backends.len()).sum();
    let (services, names) = (intent.services().len(), intent.names().len());
    if as_json {
        return json(&serde_json::json!({ "services": services, "backends": backends, "names": names }));
    }
    println!("{}: right: {services} service(s) with {backends} backend(s), {names} name(s)", file.display());
    Ok(())
}
