//! Files that the config names and that change by themselves.

use super::Agent;
use crate::config::Watched;
use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// How a file was when it was last looked at: what changes when it is written or replaced; none: it could not be looked at.
pub type Seen = BTreeMap<PathBuf, Option<[i64; 4]>>;

fn stamp(path: &Path) -> io::Result<[i64; 4]> {
    let found = fs::metadata(path)?;
    Ok([found.mtime(), found.mtime_nsec(), found.size() as i64, found.ino() as i64])
}

impl Agent {
    /// Reads the files anew if one of them has another text; the config's own is what it was: who edits it has not said yet that it
    /// counts. Each change is looked at once: a file that is wrong is complained about, and not again until it is another one.
    pub(super) async fn look_at_files(&mut self) {
        let mut changed = None;
        let mut seen = Seen::new();
        for known in self.intent.watched() {
            let now = stamp(&known.path);
            let before = self.seen_files.get(&known.path);
            if let (Err(error), Some(Some(_)) | None) = (&now, before) {
                tracing::warn!(file = %known.path.display(), %error, "cannot look for changes; the backends stay what they are");
            }
            let now = now.ok();
            if now.is_some()
                && before != Some(&now)
                && let Ok(text) = fs::read_to_string(&known.path)
                && Watched::new(&known.path, &text) != *known
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
}
