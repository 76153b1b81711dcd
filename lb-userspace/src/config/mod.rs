//! The config as written, and where each of its values stands.
//!
//! Reading finds what is no TOML, an unknown key, or a value of the wrong type. What the values mean, and whether they can be
//! meant, [`crate::model::intent`] decides. Only [`Config::read`] and [`Config::parse`] look at files.

pub mod error;
pub mod schema;

pub use error::{ConfigError, ConfigErrors, Place, Problem};

use schema::{File, Secret};
use std::{
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

/// Where the agent answers its commands, unless the config says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/lb/lb.sock";
/// Where the agent pins maps and links, unless the config says otherwise.
pub const DEFAULT_PINS: &str = "/sys/fs/bpf/lb";

/// A config as written.
#[derive(Debug)]
pub struct Config {
    file: File,
    secret_of_file: Option<Secret>,
    source: Source,
}

impl Config {
    /// Reads a file. A relative `secret_file` in it is looked for beside it.
    pub fn read(path: &Path) -> Result<Self, ConfigErrors> {
        let text = fs::read_to_string(path).map_err(|error| {
            let errors = vec![ConfigError { line: None, place: Place::Top, problem: Problem::Unreadable { error } }];
            ConfigErrors { path: path.into(), errors }
        })?;
        Self::from_text(&text, path)
    }

    /// Reads a text, which errors call `config`. A relative `secret_file` in it is looked for in the current folder.
    pub fn parse(text: &str) -> Result<Self, ConfigErrors> {
        Self::from_text(text, Path::new("config"))
    }

    fn from_text(text: &str, path: &Path) -> Result<Self, ConfigErrors> {
        let source = Source::new(text, path);
        let file: File = toml::from_str(text).map_err(|error| {
            let span = error.span().unwrap_or_default();
            source.errors(span, Problem::from_toml(error.message()))
        })?;
        let mut config = Self { file, secret_of_file: None, source };
        config.read_secret_file()?;
        Ok(config)
    }

    fn read_secret_file(&mut self) -> Result<(), ConfigErrors> {
        let Some(name) = &self.file.secret_file else {
            return Ok(());
        };
        let folder = self.source.path.parent().unwrap_or(Path::new(""));
        let path = folder.join(name.get_ref());
        let mut secret = fs::read(&path).map_err(|error| {
            let path = path.clone();
            self.source.errors(name.span(), Problem::SecretFile { path, error })
        })?;
        // Editors and `openssl rand` end a file with a newline; a secret in the config has none.
        if secret.ends_with(b"\n") {
            secret.pop();
        }
        self.secret_of_file = Some(Secret::new(secret));
        Ok(())
    }

    /// What is written.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// What is in the file that `secret_file` names.
    pub fn secret_of_file(&self) -> Option<&Secret> {
        self.secret_of_file.as_ref()
    }

    /// Where it is written.
    pub fn source(&self) -> &Source {
        &self.source
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
        let errors = vec![ConfigError { line: Some(self.line(&span)), place: Place::Top, problem }];
        ConfigErrors { path: self.path.clone(), errors }
    }
}
