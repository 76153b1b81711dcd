//! What an operator types and sees, held against a file of `tests/golden/cli`. `UPDATE=1` writes them anew, for review.

use std::{env, fs, path::Path};
use tests::{Agent, Lab, Output};

/// Commands with what they said, in their order.
pub struct Transcript<'a> {
    lab: &'a Lab,
    text: String,
}

impl<'a> Transcript<'a> {
    /// Nothing yet.
    pub fn of(lab: &'a Lab) -> Self {
        Self { lab, text: String::new() }
    }

    /// Runs `lb` with these arguments and notes what it says.
    pub fn lb(&mut self, agent: &Agent, arguments: &[&str]) -> Output {
        let output = agent.attempt_lb(arguments).unwrap();
        let shown = |text: &str| text.replace(&self.lab.folder().display().to_string(), "LAB");
        let line: Vec<_> = arguments.iter().map(|argument| shown(argument)).collect();
        self.text += &format!("$ lb {}\n{}", line.join(" "), without_ages(&shown(&output.stdout)));
        self.text += &without_ages(&shown(&output.stderr));
        match output.status.code() {
            Some(0) => (),
            code => self.text += &format!("[exit code {}]\n", code.unwrap_or(-1)),
        }
        self.text.push('\n');
        output
    }

    /// Calls something by another name.
    pub fn rename(&mut self, name: &str, other: &str) {
        self.text = self.text.replace(name, other);
    }

    /// Holds it against the file.
    pub fn is(self, name: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/cli").join(format!("{name}.txt"));
        if env::var_os("UPDATE").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &self.text).unwrap();
        }
        let expected = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(self.text, expected, "{}", path.display());
    }
}

/// With a word for how long ago something was.
fn without_ages(text: &str) -> String {
    let lines = text.lines().map(|line| match line.rsplit_once("  (") {
        Some((front, age)) if age.ends_with(" ago)") => format!("{front}  (AGE ago)\n"),
        _ => format!("{line}\n"),
    });
    lines.collect()
}
