//! Changes by command, and another config: read, checked, kept, and only then taken up.

use super::{
    Agent,
    document::{Document, milliseconds},
};
use crate::{
    api::{ChangeList, ChangeStatus, Done, Export, Kind, Refusal, StaleStatus},
    changes::{
        Changes, Edited, Merged, Stale,
        document::{Document as Editable, Misfit},
        edit::Edit,
        state::Replacement,
    },
    config::{ConfigErrors, read_text},
    kernel::KernelError,
    model::intent::Intent,
};
use anyhow::{Error, Result};
use std::fs;
use tokio::task::block_in_place;

impl Agent {
    /// Makes a change: kept first, then taken up. What fails leaves everything as it was.
    pub(super) async fn change(&mut self, edit: Edit) -> Result<Done, Refusal> {
        let with = block_in_place(|| self.document.changes.with(&self.document.text, edit.clone(), milliseconds()));
        let changes = match with.map_err(|misfit| refusal_of(&misfit))? {
            Edited::Nothing => return Ok(self.done(false)),
            Edited::Changes(changes) => changes,
        };
        tracing::info!("change by command: {edit}");
        self.take_changes(changes).await
    }

    /// Takes a change back, or all of them.
    pub(super) async fn drop_changes(&mut self, id: Option<u64>) -> Result<Done, Refusal> {
        let changes = match id {
            Some(id) => self.document.changes.without(id).ok_or_else(|| {
                let error = format!("there is no change {id}; `lb changes` shows those that there are");
                Refusal::new(Kind::NotFound, error)
            })?,
            None if self.document.changes.list().is_empty() => return Ok(self.done(false)),
            None => self.document.changes.cleared(),
        };
        self.take_changes(changes).await
    }

    async fn take_changes(&mut self, changes: Changes) -> Result<Done, Refusal> {
        let Document { path, text, store, .. } = &self.document;
        let meant = block_in_place(|| changes.intent(text, path));
        let (intent, merged) = meant.map_err(|errors| Refusal::new(Kind::Invalid, errors.without_lines()))?;
        let is_new = |id: u64| self.document.changes.list().iter().all(|change| change.id != id);
        if let Some(Stale { reason, .. }) = merged.stale.iter().find(|stale| is_new(stale.id)) {
            return Err(refusal_of(reason));
        }
        let keep = |changes| block_in_place(|| store.save(changes));
        keep(&changes).map_err(|error| Refusal::new(Kind::Storage, format!("nothing was changed: {error}")))?;
        let before = std::mem::replace(&mut self.document.changes, changes);
        if let Err(error) = self.take_intent(intent).await {
            self.document.changes = before;
            if let Err(error) = block_in_place(|| self.document.store.save(&self.document.changes)) {
                tracing::error!("a change that was refused is kept nevertheless: {error}");
            }
            return Err(refused(&error));
        }
        self.note_stale(merged);
        // The answer tells of something done.
        self.settle()
            .map_err(|error| Refusal::failed(&error.context("the change is kept, but the tables can't follow yet")))?;
        Ok(self.done(true))
    }

    /// Takes up a config, and with a text installs it first in place of the file.
    pub(super) async fn apply(&mut self, text: Option<String>) -> Result<Done, Refusal> {
        let Some(text) = text else {
            self.try_reload().await.map_err(|error| refused(&error))?;
            self.settle()
                .map_err(|error| Refusal::failed(&error.context("applied, but the tables can't follow yet")))?;
            return Ok(self.done(true));
        };
        let path = fs::canonicalize(&self.document.path).unwrap_or_else(|_| self.document.path.clone());
        let failed = |error| {
            let error = format!("nothing was changed: cannot write {}: {error}", path.display());
            Refusal::new(Kind::Storage, error)
        };
        // On the disk before anything is taken up, so that only a renaming is left to fail.
        let new = block_in_place(|| Replacement::write(&path, text.as_bytes())).map_err(failed)?;
        let before = self.document.text.clone();
        self.take_text(text).await.map_err(|error| refused(&error))?;
        if let Err(error) = block_in_place(|| new.install()) {
            if let Err(error) = self.take_text(before).await {
                tracing::error!("{:#}", error.context("the config before can't be had back; reload again"));
            }
            return Err(failed(error));
        }
        tracing::info!(config = %path.display(), "applied");
        self.settle().map_err(|error| Refusal::failed(&error.context("applied, but the tables can't follow yet")))?;
        Ok(self.done(true))
    }

    /// Reads the config's file again and takes it up.
    pub(super) async fn try_reload(&mut self) -> Result<()> {
        let text = block_in_place(|| read_text(&self.document.path))?;
        self.take_text(text).await
    }

    /// Takes up a text as the config's.
    async fn take_text(&mut self, text: String) -> Result<()> {
        let taken = self.try_text(text).await;
        let count = if taken.is_ok() { &mut self.reloads.applied } else { &mut self.reloads.refused };
        *count += 1;
        taken
    }

    async fn try_text(&mut self, text: String) -> Result<()> {
        let (intent, merged) = block_in_place(|| self.document.changes.intent(&text, &self.document.path))?;
        self.take_intent(intent).await?;
        self.document.text = text;
        self.note_stale(merged);
        Ok(())
    }

    fn note_stale(&mut self, merged: Merged) {
        self.document.stale = merged.stale;
        self.tell_stale();
    }

    /// Says which changes no longer apply.
    pub(super) fn tell_stale(&self) {
        for Stale { id, reason } in &self.document.stale {
            let changes = self.document.changes.list();
            if let Some(change) = changes.iter().find(|change| change.id == *id) {
                tracing::warn!("change {id} by command ({}) no longer applies: {reason}", change.edit);
            }
        }
    }

    fn done(&self, changed: bool) -> Done {
        let stale =
            self.document.stale.iter().map(|Stale { id, reason }| StaleStatus { id: *id, reason: reason.to_string() });
        Done { changed, stale: stale.collect() }
    }

    /// The changes that were made by command.
    pub(super) fn change_list(&self) -> ChangeList {
        let now = milliseconds();
        let changes = self.document.changes.list().iter().map(|change| ChangeStatus {
            id: change.id,
            text: change.edit.to_string(),
            at_seconds: change.at / 1_000,
            age_seconds: now.saturating_sub(change.at) / 1_000,
            no_longer_applies: self
                .document
                .stale
                .iter()
                .find(|stale| stale.id == change.id)
                .map(|stale| stale.reason.to_string()),
            edit: change.edit.clone(),
        });
        ChangeList { file: self.document.store.path(), changes: changes.collect() }
    }

    /// The config with the changes in it.
    pub(super) fn export(&self, with_secret: bool) -> Result<Export, Refusal> {
        let text = self.document.merged().text;
        if with_secret {
            return Ok(Export { config: text, left_out: Vec::new() });
        }
        let mut document = Editable::read(&text).map_err(|misfit| refusal_of(&misfit))?;
        let left_out: Vec<String> = document.redact().into_iter().map(Into::into).collect();
        if left_out.is_empty() {
            return Ok(Export { config: text, left_out });
        }
        let header = format!("# Left out: {}. `lb export --with-secret` has them too.\n", left_out.join(", "));
        Ok(Export { config: header + &document.text(), left_out })
    }
}

fn refusal_of(misfit: &Misfit) -> Refusal {
    let kind = match misfit {
        misfit if misfit.is_absence() => Kind::NotFound,
        Misfit::ServiceIsThere { .. } | Misfit::BackendIsThere { .. } => Kind::Conflict,
        _ => Kind::Invalid,
    };
    Refusal::new(kind, format!("nothing was changed: {misfit}"))
}

/// Why a config was not taken up.
pub(super) fn refused(error: &Error) -> Refusal {
    let kind = match error {
        error if error.is::<ConfigErrors>() => Kind::Invalid,
        error if error.is::<KernelError>() => Kind::Kernel,
        _ => Kind::Failed,
    };
    Refusal::new(kind, format!("nothing was changed: {error:#}"))
}

/// What a document means at the agent's start.
pub fn open(
    path: &std::path::Path,
    state: impl FnOnce(Option<&str>) -> std::path::PathBuf,
) -> Result<(Document, Intent)> {
    let text = read_text(path)?;
    let config = crate::config::Config::of_text(&text, path)?;
    let written = config.file().state.as_ref().map(|state| state.get_ref().as_str());
    let store = crate::changes::state::Store::new(&state(written));
    let changes = store.load()?;
    let (intent, merged) = if changes.list().is_empty() {
        let text = text.clone();
        (Intent::new(&config)?, Merged { text, stale: Vec::new() })
    } else {
        changes.intent(&text, path)?
    };
    Ok((Document { path: path.into(), text, store, changes, stale: merged.stale }, intent))
}
