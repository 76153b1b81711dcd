//! What is said of attaching by command.

use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// How to attach.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// What is attached newly is detached after so many seconds, unless it is confirmed.
    #[serde(default)]
    pub confirm_seconds: Option<u32>,
    /// Attach also where no frame is seen.
    #[serde(default)]
    pub unproven: bool,
}

/// What is attached.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Attached {
    /// All interfaces of the config.
    pub interfaces: Vec<Proven>,
    /// What the operator is to know.
    pub warnings: Vec<String>,
    /// Those that wait for a confirmation.
    pub on_trial: Vec<String>,
    /// Where the agent has its pins, should it die before the confirmation.
    pub pins: PathBuf,
}

/// An interface with the program on it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Proven {
    /// Its name.
    pub name: String,
    /// `native` or `generic`.
    pub mode: String,
    /// After how long a frame was seen to reach the program, if one was.
    pub milliseconds: Option<u64>,
}

/// Where the last trial is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrialStatus {
    /// Its phase.
    pub phase: Phase,
    /// Until it ends without a confirmation.
    pub left_milliseconds: Option<u64>,
}

/// A phase of a trial.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// There was none.
    #[default]
    None,
    /// It waits for its confirmation.
    Running,
    /// It was confirmed.
    Confirmed,
    /// It was not confirmed in time.
    RolledBack,
}
