//! `lb detach`.

use super::json;
use crate::{
    api::{
        Interfaces,
        client::{self, ClientError},
    },
    kernel::{attach, load::Pins},
};
use anyhow::Result;
use std::path::PathBuf;

/// Detaches through the agent. Without one, detaches by the pins and removes them.
pub async fn detach(socket: PathBuf, pins: PathBuf, as_json: bool) -> Result<()> {
    let error = match client::post(&socket, "/detach", &()).await {
        Ok(answer) if as_json => return json(&answer),
        Ok(Interfaces { interfaces }) => {
            println!("detached from {interfaces} interface(s); the agent goes on, `lb attach` attaches again");
            return Ok(());
        }
        Err(error) => error,
    };
    if !matches!(error.downcast_ref(), Some(ClientError::NoAgent { .. })) {
        return Err(error);
    }
    if !pins.exists() {
        return Err(error.context(format!("nothing is pinned in {} either", pins.display())));
    }
    let pins = Pins::hold(&pins)?;
    let names = attach::attached(pins.path());
    for name in &names {
        attach::detach(pins.path(), name)?;
    }
    let path = pins.path().display().to_string();
    pins.remove()?;
    if as_json {
        return json(&Interfaces { interfaces: names.len() });
    }
    println!("no agent runs; detached from {} interface(s) and removed {path}", names.len());
    Ok(())
}
