//! Files of backends, which change by themselves and may be wrong at any time: then what such a file has said before takes its place, so
//! that it holds up nothing else.

use super::{ConfigErrors, Problem};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A file that is watched, as it was when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The file.
    pub path: PathBuf,
    /// The text that is in use: its own, or what it was before.
    pub text: Arc<str>,
    /// Why its own is not.
    pub error: Option<String>,
    /// Of its own text, if it could be read.
    digest: Option<[u8; 32]>,
}

impl Watched {
    /// With its own text in use.
    pub fn new(path: &Path, text: &str) -> Self {
        Self { path: path.into(), text: text.into(), error: None, digest: Some(digest(text)) }
    }

    /// Whether its own text is still the same; none: it can't be read.
    pub fn is_still(&self, text: Option<&str>) -> bool {
        self.digest == text.map(digest)
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// What is known of files of backends from before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// The text of each when it was right.
    right: BTreeMap<PathBuf, Arc<str>>,
    /// Those of them whose own text is not to be used, and why.
    held: BTreeMap<PathBuf, String>,
}

impl Files {
    /// Of files with what was right of them.
    pub fn new(right: impl IntoIterator<Item = (PathBuf, impl Into<Arc<str>>)>) -> Self {
        let right = right.into_iter().map(|(path, text)| (path, text.into())).collect();
        Self { right, held: BTreeMap::new() }
    }

    /// Of those that are in use.
    pub fn of(watched: &[Watched]) -> Self {
        Self::new(watched.iter().map(|watched| (watched.path.clone(), Arc::clone(&watched.text))))
    }

    /// What was right of them.
    pub fn right(&self) -> &BTreeMap<PathBuf, Arc<str>> {
        &self.right
    }

    /// Reads something of a file: of its own text, or if that is wrong or not to be used, of that before.
    pub(super) fn read<T>(
        &self,
        path: &Path,
        of: impl Fn(&str) -> Result<T, Problem>,
    ) -> Result<(T, Watched), Problem> {
        let own = fs::read_to_string(path).map_err(|error| Problem::TargetsFile { path: path.into(), error });
        let digest = own.as_deref().ok().map(digest);
        let before = self.right.get(path);
        let (problem, text) = match (own.and_then(|text| Ok((of(&text)?, text))), before) {
            (Ok((read, text)), Some(before)) => match self.held.get(path) {
                Some(reason) => (reason.clone(), before),
                None => return Ok((read, Watched { path: path.into(), text: text.into(), error: None, digest })),
            },
            (Ok((read, text)), None) => {
                return Ok((read, Watched { path: path.into(), text: text.into(), error: None, digest }));
            }
            (Err(problem), Some(before)) => (problem.to_string(), before),
            (Err(problem), None) => return Err(problem),
        };
        let watched = Watched { path: path.into(), text: Arc::clone(text), error: Some(problem), digest };
        Ok((of(text)?, watched))
    }

    /// Reads a config with the own texts of all files that it can be right with. Of several that are wrong only together, some are held;
    /// a config that is wrong with what they all have been before is wrong by itself.
    pub fn fit<T>(&self, read: impl Fn(&Self) -> Result<T, ConfigErrors>) -> Result<T, ConfigErrors> {
        let errors = match read(self) {
            Ok(read) => return Ok(read),
            Err(errors) => errors,
        };
        let others = self.right.iter().filter(|(path, text)| fs::read_to_string(path).is_ok_and(|own| *own != ***text));
        let others: Vec<PathBuf> = others.map(|(path, _)| path.clone()).collect();
        let mut held: BTreeMap<PathBuf, String> = others.iter().map(|path| (path.clone(), String::new())).collect();
        if others.is_empty() || read(&self.holding(&held)).is_err() {
            return Err(errors);
        }
        // By halves: reading may be long, and mostly one alone is wrong.
        let mut wrong = vec![(others, errors)];
        while let Some((mut group, errors)) = wrong.pop() {
            if let [path] = group.as_slice() {
                held.insert(path.clone(), errors.without_lines());
                continue;
            }
            let rest = group.split_off(group.len() / 2);
            for half in [group, rest] {
                let mut less = held.clone();
                less.retain(|path, _| !half.contains(path));
                match read(&self.holding(&less)) {
                    Ok(_) => held = less,
                    Err(errors) => wrong.push((half, errors)),
                }
            }
        }
        read(&self.holding(&held))
    }

    fn holding(&self, held: &BTreeMap<PathBuf, String>) -> Self {
        Self { right: self.right.clone(), held: held.clone() }
    }
}
