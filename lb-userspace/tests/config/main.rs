//! What configs mean, and what is said of wrong ones: the very words, since an operator has nothing else.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of a test")]

mod api;
mod checks;
mod discovery;
mod dns;
mod files;
mod meaning;
mod names;
mod records;
mod services;
mod text;
mod tunnel;
mod whole;

use lb_userspace::{
    config::{Config, ConfigErrors},
    model::intent::Intent,
};
use std::path::{Path, PathBuf};

const FULL: &str = include_str!("full.toml");

fn intent(text: &str) -> Result<Intent, ConfigErrors> {
    Intent::new(&Config::parse(text)?)
}

fn errors(text: &str) -> String {
    match intent(text) {
        Ok(_) => panic!("this is right:\n{text}"),
        Err(errors) => errors.to_string(),
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(name)
}

/// What is said when one line of the full config, and all like it, is another.
#[track_caller]
fn says(line: &str, instead: &str, expected: &str) {
    assert!(FULL.lines().any(|other| other == line), "no line is {line}");
    let lines: Vec<_> = FULL.lines().map(|other| if other == line { instead } else { other }).collect();
    assert_eq!(errors(&lines.join("\n")), expected);
}
