//! Files that the config names and that change by themselves.

use super::Agent;
use crate::{
    config::{Files, Watched},
    status::FileStatus,
};
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};
use tokio::task::block_in_place;

/// How a file was when it was last looked at: what changes when it is written or replaced; none: it could not be looked at.
pub type Seen = BTreeMap<PathBuf, Option<[i64; 4]>>;

fn stamp(path: &Path) -> io::Result<[i64; 4]> {
    let found = fs::metadata(path)?;
    Ok([found.mtime(), found.mtime_nsec(), found.size() as i64, found.ino() as i64])
}

impl Agent {
    /// Reads the files anew if one of them has another text; the config's own is what it was: who edits it has not said yet that it
    /// counts. Each change is looked at once.
    pub(super) async fn look_at_files(&mut self) {
        let mut changed = None;
        let mut seen = Seen::new();
        for known in self.intent.watched() {
            let now = stamp(&known.path).ok();
            if self.seen_files.get(&known.path) != Some(&now)
                && !known.is_still(fs::read_to_string(&known.path).ok().as_deref())
            {
                changed = Some(known.path.clone());
            }
            seen.insert(known.path.clone(), now);
        }
        self.seen_files = seen;
        if let Some(file) = changed {
            tracing::info!(file = %file.display(), "changed");
            self.reload_files().await;
        }
    }

    /// Says which files are wrong that were not before, and keeps what is right of all for a later agent.
    pub(super) fn note_files(&mut self, before: &[Watched]) {
        for Watched { path, error, .. } in self.intent.watched() {
            let before = before.iter().find(|before| before.path == *path).and_then(|before| before.error.as_ref());
            match error {
                Some(error) if before != Some(error) => {
                    tracing::error!(file = %path.display(), "what the file listed before holds: {error}");
                }
                None if before.is_some() => tracing::info!(file = %path.display(), "the file is right again"),
                _ => (),
            }
        }
        let files = Files::of(self.intent.watched());
        if files == self.document.files {
            return;
        }
        if let Err(error) = block_in_place(|| self.document.store.save_files(files.right())) {
            let folder = self.document.store.folder().display();
            tracing::warn!(%folder, %error, "cannot keep what files of backends list; should one be wrong at a start, it is refused");
        }
        self.document.files = files;
    }

    /// What there is to say of a service's file of backends.
    pub(super) fn file_status(&self, path: &Path) -> Option<FileStatus> {
        let watched = self.intent.watched().iter().find(|watched| watched.path == path)?;
        Some(FileStatus { path: watched.path.clone(), error: watched.error.clone() })
    }

    /// Those of all files that are wrong.
    pub(super) fn wrong_files(&self) -> Vec<FileStatus> {
        let mut wrong: Vec<FileStatus> = Vec::new();
        for Watched { path, error, .. } in self.intent.watched() {
            if error.is_some() && wrong.iter().all(|known| known.path != *path) {
                wrong.push(FileStatus { path: path.clone(), error: error.clone() });
            }
        }
        wrong
    }
}
