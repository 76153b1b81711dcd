//! The file that keeps changes, and how files are replaced: wholly or not at all.

use super::Changes;
use crate::model::discovery::Kept;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
    sync::Arc,
};
use thiserror::Error;

/// Where the state is kept, unless the config or systemd says otherwise.
pub const DEFAULT_STATE: &str = "/var/lib/lb";
const FILE: &str = "changes.json";
/// What DNS has said of the names of backends.
const NAMES: &str = "discovery.json";
/// What was right of the files of backends.
const FILES: &str = "files.json";
/// Counted up when what is in the file changes its meaning.
const VERSION: u32 = 1;

/// What is wrong with the state.
#[derive(Debug, Error)]
pub enum StateError {
    /// It can't be read.
    #[error("cannot read the changes made by command in {}; move it away to go on without them", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// It is none.
    #[error("{} does not hold changes made by command: {reason}; move it away to go on without them", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        reason: String,
    },
    /// It can't be written.
    #[error("cannot keep the change in {}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
}

#[derive(Serialize, Deserialize)]
struct Content {
    version: u32,
    #[serde(flatten)]
    changes: Changes,
}

/// What every file begins with.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

#[derive(Serialize, Deserialize)]
struct Names {
    version: u32,
    names: Vec<Kept>,
}

#[derive(Serialize, Deserialize)]
struct Texts {
    version: u32,
    files: BTreeMap<PathBuf, String>,
}

/// A folder for the state.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

impl Store {
    /// In this folder, which is made when there is something to keep.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.into() }
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of the changes.
    pub fn path(&self) -> PathBuf {
        self.folder.join(FILE)
    }

    /// The changes that are kept; none if there is no file.
    pub fn load(&self) -> Result<Changes, StateError> {
        let path = self.path();
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Changes::default()),
            Err(source) => return Err(StateError::Unreadable { path, source }),
        };
        let malformed = |reason| StateError::Malformed { path: self.path(), reason };
        let Content { version, changes } =
            serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        if version != VERSION {
            return Err(malformed(format!("its version is {version}, and this lb reads {VERSION}")));
        }
        Ok(changes)
    }

    /// Keeps these changes in place of those before.
    pub fn save(&self, changes: &Changes) -> Result<(), StateError> {
        let failed = |source| StateError::Unwritable { path: self.path(), source };
        self.write(FILE, &Content { version: VERSION, changes: changes.clone() }).map_err(failed)
    }

    /// What DNS has answered an earlier agent.
    pub fn load_names(&self) -> Vec<Kept> {
        let known: Option<Names> = self.load_known(NAMES, "what DNS has said before");
        known.map(|known| known.names).unwrap_or_default()
    }

    /// Keeps what DNS has answered.
    pub fn save_names(&self, names: Vec<Kept>) -> io::Result<()> {
        self.write(NAMES, &Names { version: VERSION, names })
    }

    /// What files of backends were when they were last right.
    pub fn load_files(&self) -> BTreeMap<PathBuf, String> {
        let known: Option<Texts> = self.load_known(FILES, "what files of backends were before");
        known.map(|known| known.files).unwrap_or_default()
    }

    /// Keeps what files of backends are.
    pub fn save_files(&self, files: &BTreeMap<PathBuf, Arc<str>>) -> io::Result<()> {
        let files = files.iter().map(|(path, text)| (path.clone(), text.to_string())).collect();
        self.write(FILES, &Texts { version: VERSION, files })
    }

    /// What can be found out anew: what can't be read is as good as unknown.
    fn load_known<T: DeserializeOwned>(&self, file: &str, what: &str) -> Option<T> {
        let path = self.folder.join(file);
        let read = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            read => read.map_err(|error| error.to_string()),
        };
        let known = read.and_then(|text| {
            let Versioned { version } = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
            if version != VERSION {
                return Err(format!("its version is {version}, and this lb reads {VERSION}"));
            }
            serde_json::from_slice(&text).map_err(|error| error.to_string())
        });
        known.inspect_err(|error| tracing::warn!(file = %path.display(), %error, "cannot read {what}")).ok()
    }

    fn write(&self, file: &str, content: &impl Serialize) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let text = serde_json::to_vec_pretty(content)?;
        Replacement::write(&self.folder.join(file), &text)?.install()
    }
}

/// What is to stand in a file's place, written beside it; gone when it is dropped without being installed.
#[derive(Debug)]
pub struct Replacement {
    path: PathBuf,
    place: PathBuf,
}

impl Replacement {
    /// Writes it, down to the disk; others may read it if they may read the file that it replaces.
    pub fn write(place: &Path, content: &[u8]) -> io::Result<Self> {
        let replaced = fs::metadata(place).ok();
        let mode = replaced.as_ref().map_or(0o600, |metadata| metadata.permissions().mode() & 0o777);
        let mut name = place.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let path = place.with_file_name(name);
        // What a crash has left behind may have others' permissions.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => (),
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        let new = Self { path, place: place.into() };
        file.write_all(content)?;
        if let Some(replaced) = replaced {
            // Where that is not allowed, fewer may read it than before, and nobody else.
            let _ = fchown(&file, Some(replaced.uid()), Some(replaced.gid()));
        }
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        Ok(new)
    }

    /// Puts it into the place.
    pub fn install(self) -> io::Result<()> {
        fs::rename(&self.path, &self.place)?;
        let folder = self.place.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        // Not there any more if it was installed.
        let _ = fs::remove_file(&self.path);
    }
}
