//! Changes by command, and another config: read, checked, kept, and only then taken up.

use super::{
    Agent, discovery,
    document::{Document, milliseconds},
};
use crate::{
    api::{ChangeList, ChangeStatus, Credentials, Done, Export, FoundStatus, Kind, Refusal, StaleStatus, TcpError},
    changes::{
        Changes, Edited, Merged, Stale,
        document::{Document as Editable, Misfit},
        edit::{Edit, as_in_commands},
        state::{Replacement, Store},
    },
    config::{Config, ConfigErrors, Files, read_text},
    kernel::KernelError,
    model::{
        discovery::Discovery,
        intent::{DRAIN_SECONDS, Intent, Origin},
    },
};
use anyhow::{Error, Result};
use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::task::block_in_place;

impl Agent {
    /// Makes a change: kept first, then taken up. What fails leaves everything as it was.
    pub(super) async fn change(&mut self, edit: Edit) -> Result<Done, Refusal> {
        let claimed = match &edit {
            Edit::SetClaim { address, claim: true } => Some(*address),
            _ => None,
        };
        let done = self.make(edit).await?;
        // Also if it was claimed already: a switch may have learned otherwise.
        if let Some(address) = claimed {
            self.announce(address);
        }
        Ok(done)
    }

    async fn make(&mut self, edit: Edit) -> Result<Done, Refusal> {
        if let Some(done) = self.make_at_once(&edit) {
            return done;
        }
        let with = block_in_place(|| self.document.changes.with(&self.document.text, edit.clone(), milliseconds()));
        let changes = match with.map_err(|misfit| self.not_written(&edit).unwrap_or_else(|| refusal_of(&misfit)))? {
            Edited::Nothing => return Ok(self.done(false)),
            Edited::Changes(changes) => changes,
        };
        tracing::info!("change by command: {edit}");
        self.take_changes(changes).await
    }

    /// Why a backend can't be changed or removed that is there, but not in the config's own text.
    fn not_written(&self, edit: &Edit) -> Option<Refusal> {
        let (Edit::SetWeight { service, backend, .. } | Edit::RemoveBackend { service, backend }) = edit else {
            return None;
        };
        let by = match self.intent.backend(service, *backend)?.origin.as_deref()? {
            Origin::Name { host, srv: None } => format!("host = \"{}\" of the config", host.name),
            Origin::Name { srv: Some(srv), .. } => format!("the SRV records of {}", srv.name),
            Origin::File => "the service's backends_file".into(),
        };
        let backend = as_in_commands(*backend);
        let error = format!(
            "nothing was changed: service `{service}` has backend {backend} by {by}; change it there, or use `lb backend drain` or \
             `disable`"
        );
        Some(Refusal::new(Kind::Conflict, error))
    }

    /// Gives a backend another state or weight without reading the config again, which may be long: nothing else goes by it, and it
    /// makes no config wrong. None if that is not all that is to be done.
    fn make_at_once(&mut self, edit: &Edit) -> Option<Result<Done, Refusal>> {
        let service = match edit {
            Edit::SetState { service, backend, state, drain_seconds } => {
                let known = self.intent.backend(service, *backend)?;
                if drain_seconds.is_some_and(|seconds| !DRAIN_SECONDS.contains(&seconds)) {
                    // The config's own words for it are the best.
                    return None;
                }
                let drain = drain_seconds.map(|seconds| Duration::from_secs(seconds.into()));
                if (known.state, known.drain) == (*state, drain) && drain.is_none() {
                    return Some(Ok(self.done(false)));
                }
                self.intent.with_state(service, *backend, *state, drain)?
            }
            Edit::SetWeight { service, backend, weight } => {
                let known = self.intent.backend(service, *backend)?;
                // What is found by name or in a file has its weight from there.
                if known.origin.is_some() {
                    return None;
                }
                if i64::from(known.weight) == *weight {
                    return Some(Ok(self.done(false)));
                }
                self.intent.with_weight(service, *backend, *weight)?
            }
            _ => return None,
        };
        let changes = self.document.changes.with_fitting(edit, milliseconds())?;
        tracing::info!("change by command: {edit}");
        if let Err(refusal) = self.keep(&changes) {
            return Some(Err(refusal));
        }
        let is_there = |stale: &Stale| changes.list().iter().any(|change| change.id == stale.id);
        self.document.stale.retain(is_there);
        self.document.changes = changes;
        self.warn_of_size(&service);
        self.touched.service(&service.endpoint, &self.index);
        self.intent.replace(service);
        self.note_drains();
        Some(self.settle_change().map(|()| self.done(true)))
    }

    fn keep(&self, changes: &Changes) -> Result<(), Refusal> {
        let kept = block_in_place(|| self.document.store.save(changes));
        kept.map_err(|error| Refusal::new(Kind::Storage, format!("nothing was changed: {error}")))
    }

    /// The answer tells of something done.
    fn settle_change(&mut self) -> Result<(), Refusal> {
        let settled = self.settle();
        settled.map_err(|error| Refusal::failed(&error.context("the change is kept, but the tables can't follow yet")))
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
        let meant = block_in_place(|| self.document.intent_with(&changes, &self.document.text));
        let (intent, merged) = meant.map_err(|errors| Refusal::new(Kind::Invalid, errors.without_lines()))?;
        let is_new = |id: u64| self.document.changes.list().iter().all(|change| change.id != id);
        if let Some(Stale { reason, .. }) = merged.stale.iter().find(|stale| is_new(stale.id)) {
            return Err(refusal_of(reason));
        }
        self.keep(&changes)?;
        let before = std::mem::replace(&mut self.document.changes, changes);
        if let Err(error) = self.take_intent(intent).await {
            self.document.changes = before;
            if let Err(error) = block_in_place(|| self.document.store.save(&self.document.changes)) {
                tracing::error!("a change that was refused is kept nevertheless: {error}");
            }
            return Err(refused(&error));
        }
        self.note_stale(merged);
        self.settle_change()?;
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
        self.take_all(text).await.map_err(|error| refused(&error))?;
        if let Err(error) = block_in_place(|| new.install()) {
            if let Err(error) = self.take_text(before).await {
                tracing::error!("{:#}", error.context("the config before can't be had back; reload again"));
            }
            return Err(failed(error));
        }
        tracing::info!(config = %path.display(), "applied");
        self.refused = false;
        self.settle().map_err(|error| Refusal::failed(&error.context("applied, but the tables can't follow yet")))?;
        Ok(self.done(true))
    }

    /// Reads the config's file again and takes it up, with the files of the API's credentials.
    pub(super) async fn try_reload(&mut self) -> Result<()> {
        let taken = match block_in_place(|| read_text(&self.document.path)) {
            Ok(text) => self.take_all(text).await,
            Err(error) => Err(error.into()),
        };
        self.refused = taken.is_err();
        taken
    }

    /// Takes up a text as the config's, and the API's token, certificate and key as their files are now.
    async fn take_all(&mut self, text: String) -> Result<()> {
        let taken = self.try_all(text).await;
        self.counted(taken)
    }

    /// Takes up a text as the config's.
    pub(super) async fn take_text(&mut self, text: String) -> Result<()> {
        let taken = self.try_text(text).await;
        self.counted(taken)
    }

    fn counted(&mut self, taken: Result<()>) -> Result<()> {
        let count = if taken.is_ok() { &mut self.reloads.applied } else { &mut self.reloads.refused };
        *count += 1;
        taken
    }

    async fn try_all(&mut self, text: String) -> Result<()> {
        let api = self.intent.api().filter(|_| self.credentials.is_some());
        let credentials = api.map(|api| block_in_place(|| Credentials::read(api))).transpose()?;
        self.try_text(text).await?;
        if let (Some(in_use), Some(credentials)) = (&self.credentials, credentials) {
            in_use.send_replace(credentials);
        }
        Ok(())
    }

    async fn try_text(&mut self, text: String) -> Result<()> {
        let (intent, merged) = block_in_place(|| self.document.intent(&text))?;
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
        Done { changed, stale: stale.collect(), wrong_files: self.wrong_files() }
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
        let merged = self.document.merged().text;
        let (text, found) = (without_found(&merged), self.found()?);
        let lines = found.iter().map(|found| format!("{FOUND_LINE}{found}\n")).collect::<String>();
        let header = if lines.is_empty() { lines } else { format!("{FOUND}{lines}") };
        if with_secret {
            return Ok(Export { config: header + text, left_out: Vec::new(), found });
        }
        let mut document = Editable::read(text).map_err(|misfit| refusal_of(&misfit))?;
        let left_out: Vec<String> = document.redact().into_iter().map(Into::into).collect();
        if left_out.is_empty() {
            return Ok(Export { config: header + text, left_out, found });
        }
        let secrets = format!("# Left out: {}. `lb export --with-secret` has them too.\n", left_out.join(", "));
        Ok(Export { config: secrets + &header + &document.text(), left_out, found })
    }

    /// The backends that the config has by a name or a file.
    fn found(&self) -> Result<Vec<FoundStatus>, Refusal> {
        let mut found = Vec::new();
        let services = self.intent.services().iter();
        for service in services.filter(|service| service.backends.iter().any(|backend| backend.origin.is_some())) {
            let status = self.service_status(service).map_err(|error| Refusal::failed(&error))?;
            found.extend(status.backends.iter().filter_map(|backend| {
                Some(FoundStatus {
                    service: service.name.clone(),
                    address: as_in_commands(backend.address),
                    by: backend.found_by()?,
                    weight: backend.weight,
                    state: backend.state(),
                })
            }));
        }
        Ok(found)
    }
}

/// What tells in an exported config of backends that are not written in it: comments, so that it is a config.
const FOUND: &str = "# By name or from a file, as of this export, and so not written below:\n";
const FOUND_LINE: &str = "#   ";

/// A text without what an earlier export has told.
fn without_found(text: &str) -> &str {
    let Some(mut rest) = text.strip_prefix(FOUND) else { return text };
    while rest.starts_with(FOUND_LINE) {
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
    }
    rest
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
        error if error.is::<ConfigErrors>() || error.is::<TcpError>() => Kind::Invalid,
        error if error.is::<KernelError>() => Kind::Kernel,
        _ => Kind::Failed,
    };
    Refusal::new(kind, format!("nothing was changed: {error:#}"))
}

/// Reads a config and the changes that are kept for it; `state` says where, with what is written in the config.
pub fn open(path: &Path, state: impl FnOnce(Option<&str>) -> PathBuf) -> Result<(Document, Intent)> {
    let text = read_text(path)?;
    let written = Config::state_in(&text, path)?;
    let store = Store::new(&state(written.as_deref()));
    let changes = store.load()?;
    let (names, files) = (Discovery::inherited(store.load_names()), Files::new(store.load_files()));
    let mut document = Document { path: path.into(), text, store, changes, stale: Vec::new(), names, files };
    let (intent, merged) = discovery::first(&mut document)?;
    document.stale = merged.stale;
    Ok((document, intent))
}
