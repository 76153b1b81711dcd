//! What requests and responses hold, apart from the status.

use crate::{
    changes::edit::{BackendState, Edit},
    status::FileStatus,
};
use serde::{Deserialize, Serialize};
use std::{fmt, path::PathBuf};

/// Whose health is meant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealthQuery {
    /// A service, a DNS name, an address or an address with port; default everything.
    pub of: Option<String>,
}

/// What became of a change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Done {
    /// Whether anything is another way than before.
    pub changed: bool,
    /// Changes made by command that are not in effect.
    pub stale: Vec<StaleStatus>,
    /// Files of backends that are wrong, so that what they have listed before holds.
    pub wrong_files: Vec<FileStatus>,
}

/// A change that is not in effect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct StaleStatus {
    /// Which one.
    pub id: u64,
    /// Why.
    pub reason: String,
}

/// The changes that were made by command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeList {
    /// The file that keeps them.
    pub file: PathBuf,
    /// They, in their order.
    pub changes: Vec<ChangeStatus>,
}

/// A change that was made by command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ChangeStatus {
    /// What it is called by.
    pub id: u64,
    /// What it is, in words.
    pub text: String,
    /// When it was made, in seconds since 1970.
    pub at_seconds: u64,
    /// How long ago that was.
    pub age_seconds: u64,
    /// Why it is not in effect, if it is not.
    pub no_longer_applies: Option<String>,
    /// What it is.
    #[serde(flatten)]
    pub edit: Edit,
}

/// What to change of a backend; what is left out stays.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendChange {
    /// Its weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<BackendState>,
    /// Seconds after which its flows are given up, with the state `drain`; default what the config says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain_seconds: Option<u32>,
}

/// A config.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigText {
    /// Its text; none: what is in the agent's file.
    #[serde(default)]
    pub config: Option<String>,
}

/// The config with the changes in it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Export {
    /// Its text.
    pub config: String,
    /// Keys of secrets that it is without.
    pub left_out: Vec<String>,
    /// Backends that it has by a name or a file.
    pub found: Vec<FoundStatus>,
}

/// A backend that is not written in the config, as it is now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct FoundStatus {
    /// The service's name.
    pub service: String,
    /// Its address, with its port unless that is any.
    pub address: String,
    /// The host or the file by which it is one.
    pub by: String,
    /// Its weight.
    pub weight: u32,
    /// What it does.
    pub state: String,
}

impl fmt::Display for FoundStatus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, address, by, weight, state } = self;
        write!(formatter, "{service}  {address}  weight {weight}  {state}  {by}")
    }
}

/// What another config would change.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Diff {
    /// In words, a line for each.
    pub lines: Vec<String>,
    /// Steps that the data path would be changed by.
    pub steps: usize,
    /// Changes made by command that would not be in effect.
    pub stale: Vec<StaleStatus>,
}

/// Which name is meant.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NameRequest {
    /// The name.
    pub name: String,
}

/// How many interfaces a command was carried out on.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Interfaces {
    /// The number.
    pub interfaces: usize,
}
