//! The config's document: the text that is in effect, and the changes made by command that are put onto it.

use crate::{
    changes::{
        Change, Changes, Found, Merged, Stale,
        edit::{BackendState, Edit},
        state::Store,
    },
    config::{ConfigErrors, Files},
    model::{discovery::Discovery, intent::Intent},
};
use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

/// What the agent's intent was made of.
#[derive(Clone)]
pub struct Document {
    /// The config's file.
    pub path: PathBuf,
    /// Its text, as it was read.
    pub text: String,
    /// Where the changes are kept.
    pub store: Store,
    /// The changes.
    pub changes: Changes,
    /// Those of them that are not in effect.
    pub stale: Vec<Stale>,
    /// What DNS has answered for the names of backends.
    pub names: Discovery,
    /// What files of backends were when they were last right.
    pub files: Files,
}

impl Document {
    /// What a text means in place of the one that is in effect.
    pub fn intent(&self, text: &str) -> Result<(Intent, Merged), ConfigErrors> {
        self.intent_with(&self.changes, text)
    }

    /// The same with other changes.
    pub fn intent_with(&self, changes: &Changes, text: &str) -> Result<(Intent, Merged), ConfigErrors> {
        self.files.fit(|files| changes.intent(text, &self.path, Found { files, answers: self.names.answers() }))
    }

    /// The text with the changes.
    pub fn merged(&self) -> Merged {
        let mut fitting = self.changes.clone();
        for Stale { id, .. } in &self.stale {
            fitting = fitting.without(*id).unwrap_or(fitting);
        }
        fitting.merge(&self.text)
    }

    /// The change by which a backend is drained, if it is one.
    pub fn drained_by(&self, service: &str, backend: SocketAddr) -> Option<&Change> {
        self.changes.list().iter().rev().find(|Change { edit, .. }| {
            matches!(edit, Edit::SetState { service: name, backend: address, state: BackendState::Drain, .. }
                if name == service && *address == backend)
        })
    }
}

/// Milliseconds since 1970.
pub fn milliseconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
