//! Changes by command: edits of the config's document, put onto its text whenever that is read, until the operator drops them.
//!
//! What comes out is a config like any other: [`crate::config::Config`] reads it, and there is one validation and one form of errors.

pub mod document;
pub mod edit;
pub mod state;

use crate::{
    config::{Config, ConfigErrors, Files},
    model::{discovery::Answers, intent::Intent},
};
use document::{Document, Misfit};
use edit::Edit;
use serde::{Deserialize, Serialize};
use std::{path::Path, time::Duration};

/// A change that was made by command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// What it is called by; no two ever have the same.
    pub id: u64,
    /// When it was made, in milliseconds since 1970.
    pub at: u64,
    /// What it is.
    #[serde(flatten)]
    pub edit: Edit,
}

/// The changes that were made, in their order.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// The last id that was given away.
    last: u64,
    changes: Vec<Change>,
}

/// A change that is not in effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    /// Which one.
    pub id: u64,
    /// Why.
    pub reason: Misfit,
}

/// A document with changes put onto it.
#[derive(Clone, Debug, PartialEq)]
pub struct Merged {
    /// Its text.
    pub text: String,
    /// The changes that it is without.
    pub stale: Vec<Stale>,
}

/// What becomes of the changes with another edit.
#[derive(Clone, Debug, PartialEq)]
pub enum Edited {
    /// Everything is as the edit wants it already.
    Nothing,
    /// They are these.
    Changes(Changes),
}

/// What a config's text has its backends from besides.
#[derive(Clone, Copy, Debug)]
pub struct Found<'f> {
    /// What files of backends have been before.
    pub files: &'f Files,
    /// What DNS has answered.
    pub answers: &'f Answers,
}

impl Changes {
    /// All of them.
    pub fn list(&self) -> &[Change] {
        &self.changes
    }

    /// Puts them onto a text. What does not fit is left out and told; a text that is no TOML stays as it is.
    pub fn merge(&self, text: &str) -> Merged {
        self.merge_without(text, Vec::new())
    }

    /// The same, without those that are stale for another reason.
    fn merge_without(&self, text: &str, mut stale: Vec<Stale>) -> Merged {
        if self.changes.is_empty() {
            return Merged { text: text.into(), stale };
        }
        let Ok(mut document) = Document::read(text) else { return Merged { text: text.into(), stale } };
        self.put_onto(&mut document, &mut stale);
        stale.sort_unstable_by_key(|stale| stale.id);
        Merged { text: document.text(), stale }
    }

    /// Puts all but the stale ones onto a document, and adds those to the stale ones that do not fit.
    fn put_onto(&self, document: &mut Document, stale: &mut Vec<Stale>) {
        for Change { id, edit, .. } in &self.changes {
            if stale.iter().any(|stale| stale.id == *id) {
                continue;
            }
            if let Err(reason) = document.edit(edit) {
                stale.push(Stale { id: *id, reason });
            }
        }
    }

    /// A text's document with them.
    fn document(&self, text: &str) -> Result<Document, Misfit> {
        let mut document = Document::read(text)?;
        self.put_onto(&mut document, &mut Vec::new());
        Ok(document)
    }

    /// With another edit of a text, made at `at`. Earlier ones that are of no use after it go.
    pub fn with(&self, text: &str, edit: Edit, at: u64) -> Result<Edited, Misfit> {
        let mut document = self.document(text)?;
        let mut changes = self.clone();
        changes.changes.retain(|earlier| !edit.supersedes(&earlier.edit));
        let takes_away = changes.changes.len() < self.changes.len();
        match document.edit(&edit) {
            Ok(true) => (),
            Ok(false) => return Ok(Edited::Nothing),
            // The backend is not in the text, but in a file that it names, or gone: an earlier edit is all there is to take back.
            Err(_) if edit.takes_back() && takes_away => return Ok(Edited::Changes(changes)),
            Err(misfit) => return Err(misfit),
        }
        // Without what it has taken away the edit may have nothing left to do.
        if !takes_away || changes.document(text)?.edit(&edit) == Ok(true) {
            changes.last += 1;
            changes.changes.push(Change { id: changes.last, at, edit });
        }
        Ok(Edited::Changes(changes))
    }

    /// The same for an edit that is known to fit and to change something, if what is left of it can be said without a text. A weight
    /// that the text has already stays as the operator's word.
    pub fn with_fitting(&self, edit: &Edit, at: u64) -> Option<Self> {
        let mut changes = self.clone();
        changes.changes.retain(|earlier| !edit.supersedes(&earlier.edit));
        if edit.takes_back() && changes.changes.len() < self.changes.len() {
            // The text may have nothing else to take back.
            return None;
        }
        changes.last += 1;
        changes.changes.push(Change { id: changes.last, at, edit: edit.clone() });
        Some(changes)
    }

    /// Without one of them, if it is there.
    pub fn without(&self, id: u64) -> Option<Self> {
        let mut changes = self.clone();
        changes.changes.retain(|change| change.id != id);
        (changes.changes.len() < self.changes.len()).then_some(changes)
    }

    /// Without all of them.
    pub fn cleared(&self) -> Self {
        Self { last: self.last, changes: Vec::new() }
    }

    /// What a text means with them and with what DNS and files say, and the document that says so. Changes that would make a right config
    /// wrong are left out and told.
    pub fn intent(&self, text: &str, path: &Path, found: Found<'_>) -> Result<(Intent, Merged), ConfigErrors> {
        let mut merged = self.merge(text);
        let whole = meaning(&merged.text, path, found);
        if whole.is_ok() || self.changes.is_empty() {
            let mut intent = whole?;
            merged.stale.retain(|stale| !self.is_of_file(stale, &mut intent));
            return Ok((intent, merged));
        }
        // Its own lines are what an operator looks at.
        let mut intent = meaning(text, path, found)?;
        let mut wrong = Vec::new();
        let mut fitting = Self { last: self.last, changes: Vec::new() };
        for change in &self.changes {
            fitting.changes.push(change.clone());
            match meaning(&fitting.merge(text).text, path, found) {
                Ok(meant) => intent = meant,
                Err(errors) => {
                    fitting.changes.pop();
                    wrong.push(Stale { id: change.id, reason: Misfit::Wrong(errors.without_lines()) });
                }
            }
        }
        merged = self.merge_without(text, wrong);
        merged.stale.retain(|stale| !self.is_of_file(stale, &mut intent));
        Ok((intent, merged))
    }

    /// Puts a backend into its state that is in no text, but in a file of backends; says whether that is what this change is about.
    fn is_of_file(&self, Stale { id, reason }: &Stale, intent: &mut Intent) -> bool {
        if !matches!(reason, Misfit::NoBackend { .. }) {
            return false;
        }
        let change = self.changes.iter().find(|change| change.id == *id);
        let Some(Edit::SetState { service, backend, state, drain_seconds }) = change.map(|change| &change.edit) else {
            return false;
        };
        let drain = drain_seconds.map(|seconds| Duration::from_secs(seconds.into()));
        let changed = intent.with_state(service, *backend, *state, drain);
        let is_there = changed.is_some();
        changed.into_iter().for_each(|service| intent.replace(service));
        is_there
    }
}

fn meaning(text: &str, path: &Path, Found { files, answers }: Found<'_>) -> Result<Intent, ConfigErrors> {
    Intent::with(&Config::with_files(text, path, files)?, answers)
}

#[cfg(test)]
mod tests;
