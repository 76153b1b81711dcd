//! The config as written, and where each of its values stands.
//!
//! Reading finds what is no TOML, an unknown key, or a value of the wrong type. What the values mean, and whether they can be
//! meant, [`crate::model::intent`] decides. Only reading a [`Config`] looks at files.

pub mod error;
mod files;
pub mod schema;
mod targets;

pub use error::{ConfigError, ConfigErrors, Place, Problem};
pub use files::{Files, Watched};

use schema::{File, Secret};
use std::{
    collections::BTreeMap,
    fmt, fs,
    ops::Range,
    path::{Path, PathBuf},
};
use toml::Spanned;

/// Where the agent answers its commands, unless the config says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/lb/lb.sock";
/// Where the agent pins maps and links, unless the config says otherwise.
pub const DEFAULT_PINS: &str = "/sys/fs/bpf/lb";

/// A config as written.
#[derive(Debug)]
pub struct Config {
    file: File,
    secret_of_file: Option<Secret>,
    cookie_secret_of_file: Option<Secret>,
    authorities: BTreeMap<String, Vec<u8>>,
    records: Vec<RecordsText>,
    watched: Vec<Watched>,
    source: Source,
}

impl Config {
    /// Reads a file, and those that it names; where they are named by relative paths, they are looked for beside it.
    pub fn read(path: &Path) -> Result<Self, ConfigErrors> {
        Self::of_text(&read_text(path)?, path)
    }

    /// Reads a text, which errors call `config`. Files that it names by relative paths are looked for in the current folder.
    pub fn parse(text: &str) -> Result<Self, ConfigErrors> {
        Self::of_text(text, Path::new("config"))
    }

    /// Reads a text as if it stood in this file.
    pub fn of_text(text: &str, path: &Path) -> Result<Self, ConfigErrors> {
        Self::with_files(text, path, &Files::default())
    }

    /// The same with what files of backends have been before, should they be wrong now.
    pub fn with_files(text: &str, path: &Path, files: &Files) -> Result<Self, ConfigErrors> {
        let (file, source) = written(text, path)?;
        let mut config = Self {
            file,
            secret_of_file: None,
            cookie_secret_of_file: None,
            authorities: BTreeMap::new(),
            records: Vec::new(),
            watched: Vec::new(),
            source,
        };
        config.read_files(files)?;
        Ok(config)
    }

    /// Where a text has the state kept, if it says so. The files that it names are not looked at: some of them may be in there.
    pub fn state_in(text: &str, path: &Path) -> Result<Option<String>, ConfigErrors> {
        let (file, _) = written(text, path)?;
        Ok(file.state.map(Spanned::into_inner))
    }

    /// Reads the files that are named.
    fn read_files(&mut self, files: &Files) -> Result<(), ConfigErrors> {
        self.secret_of_file = self.file.secret_file.as_ref().map(|name| self.secret(name)).transpose()?;
        let named = self.file.check.values().filter_map(|check| check.ca_file.as_ref());
        let authorities = named.map(|name| {
            let path = self.beside(name);
            let read = fs::read(&path).map_err(|error| {
                let path = path.clone();
                self.source.errors(name.span(), Problem::AuthoritiesFile { path, error })
            })?;
            Ok((name.get_ref().clone(), read))
        });
        self.authorities = authorities.collect::<Result<_, _>>()?;
        self.read_targets(files)?;
        let Some(dns) = &self.file.dns else {
            return Ok(());
        };
        let dns = dns.get_ref();
        self.cookie_secret_of_file = dns.cookie_secret_file.as_ref().map(|name| self.secret(name)).transpose()?;
        let files = dns.record_files().map(|name| {
            let path = self.beside(name);
            let text = fs::read_to_string(&path).map_err(|error| {
                let path = path.clone();
                self.source.errors(name.span(), Problem::RecordsFile { path, error })
            })?;
            Ok(RecordsText { path, text })
        });
        self.records = files.collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Puts the backends of files behind those that are written in the config.
    fn read_targets(&mut self, files: &Files) -> Result<(), ConfigErrors> {
        let mut all = Vec::new();
        for (number, service) in self.file.service.iter().enumerate() {
            let Some(name) = &service.get_ref().backends_file else { continue };
            let path = self.beside(name);
            let read = files.read(&path, |text| targets::backends(text, &path, &name.span()));
            let (backends, watched) = read.map_err(|problem| self.source.errors(name.span(), problem))?;
            all.push((number, backends, watched));
        }
        for (number, backends, watched) in all {
            if let Some(service) = self.file.service.get_mut(number).map(Spanned::get_mut) {
                service.backend.extend(backends);
                service.file = Some(watched.path.clone());
            }
            self.watched.push(watched);
        }
        Ok(())
    }

    fn secret(&self, name: &Spanned<String>) -> Result<Secret, ConfigErrors> {
        let path = self.beside(name);
        let mut secret = fs::read(&path).map_err(|error| {
            let path = path.clone();
            self.source.errors(name.span(), Problem::SecretFile { path, error })
        })?;
        // Editors and `openssl rand` end a file with a newline; a secret in the config has none.
        if secret.ends_with(b"\n") {
            secret.pop();
        }
        Ok(Secret::new(secret))
    }

    /// The path of a file that is named, from the config's folder.
    pub fn beside(&self, name: &Spanned<String>) -> PathBuf {
        self.source.path.parent().unwrap_or(Path::new("")).join(name.get_ref())
    }

    /// What is written.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What is in the file that `secret_file` names.
    pub fn secret_of_file(&self) -> Option<&Secret> {
        self.secret_of_file.as_ref()
    }

    /// What is in the file that `cookie_secret_file` names.
    pub fn cookie_secret_of_file(&self) -> Option<&Secret> {
        self.cookie_secret_of_file.as_ref()
    }

    /// What is in a file that a check names as `ca_file`.
    pub fn authorities_of_file(&self, name: &str) -> Option<&[u8]> {
        self.authorities.get(name).map(Vec::as_slice)
    }

    /// The files that `[[dns.records]]` name, in their order.
    pub fn records(&self) -> &[RecordsText] {
        &self.records
    }

    /// The files that it is read anew for when they have changed.
    pub fn watched(&self) -> &[Watched] {
        &self.watched
    }

    /// Where it is written.
    pub fn source(&self) -> &Source {
        &self.source
    }
}

fn written(text: &str, path: &Path) -> Result<(File, Source), ConfigErrors> {
    let source = Source::new(text, path);
    let file = toml::from_str(text).map_err(|error| {
        let span = error.span().unwrap_or_default();
        source.errors(span, Problem::from_toml(error.message()))
    })?;
    Ok((file, source))
}

/// Reads a config's text.
pub fn read_text(path: &Path) -> Result<String, ConfigErrors> {
    fs::read_to_string(path).map_err(|error| {
        let problem = Problem::Unreadable { error };
        let errors = vec![ConfigError { file: None, line: None, place: Place::Top, problem }];
        ConfigErrors { path: path.into(), errors }
    })
}

/// A file with records.
pub struct RecordsText {
    /// The file.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// Without the text, which may be long.
impl fmt::Debug for RecordsText {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RecordsText").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The text that a config was read from, as far as errors need it: without the secret.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    line_ends: Vec<usize>,
}

impl Source {
    fn new(text: &str, path: &Path) -> Self {
        Self { path: path.into(), line_ends: text.match_indices('\n').map(|(at, _)| at).collect() }
    }

    /// What it is called.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The line, counted from one, that something stands on.
    pub fn line(&self, span: &Range<usize>) -> usize {
        self.line_ends.partition_point(|end| *end < span.start) + 1
    }

    fn errors(&self, span: Range<usize>, problem: Problem) -> ConfigErrors {
        let errors = vec![ConfigError { file: None, line: Some(self.line(&span)), place: Place::Top, problem }];
        ConfigErrors { path: self.path.clone(), errors }
    }
}
