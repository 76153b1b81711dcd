//! `lb completions` and `lb man`: made from the command's own tree.

use super::Cli;
use anyhow::{Context as _, Result};
use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

#[derive(Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell.
    shell: Shell,
}

#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// A folder that gets a page for each command; without, the page of `lb` itself is printed.
    folder: Option<PathBuf>,
}

pub(super) fn completions(CompletionsArgs { shell }: &CompletionsArgs) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut Cli::command(), "lb", &mut script);
    print(&script)
}

pub(super) fn man(ManArgs { folder }: &ManArgs) -> Result<()> {
    let mut command = Cli::command().name("lb");
    let Some(folder) = folder else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page)?;
        return print(&page);
    };
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    command.build();
    let place = || format!("cannot write pages to {}", folder.display());
    clap_mangen::generate_to(command, folder).with_context(place)?;
    let pages = fs::read_dir(folder).with_context(place)?.count();
    print(format!("wrote {pages} pages to {}\n", folder.display()).as_bytes())
}

fn print(text: &[u8]) -> Result<()> {
    // Long, and so likely to be read by something that ends early.
    io::stdout().write_all(text).context("cannot write all of it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Command;

    /// Every command that does something, with its words.
    fn leaves(command: &Command, words: &str, found: &mut Vec<(String, bool)>) {
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let words = format!("{words} {}", verb.get_name());
            if !verb.has_subcommands() || !verb.is_subcommand_required_set() {
                let has_json = verb.get_arguments().any(|argument| argument.get_long() == Some("json"));
                found.push((words.trim().into(), has_json));
            }
            leaves(verb, &words, found);
        }
    }

    #[test]
    fn the_command_is_sound_and_answers_in_json() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        let mut found = Vec::new();
        leaves(&command, "", &mut found);
        let without: Vec<_> = found.iter().filter(|(_, json)| !json).map(|(words, _)| words.as_str()).collect();
        // What runs on, draws, prints for a program, or only says that it is done on this very machine.
        assert_eq!(without, ["run", "top", "decap attach", "decap detach", "completions", "man"]);
        assert!(found.len() > 30, "{found:?}");
    }

    /// The help of a command and of those below it.
    fn help(command: &mut Command, words: &str, text: &mut String) {
        *text += &format!("$ {words} --help\n{}\n", command.clone().term_width(100).render_long_help());
        for verb in command.get_subcommands_mut().filter(|verb| verb.get_name() != "help") {
            help(verb, &format!("{words} {}", verb.get_name()), text);
        }
    }

    /// `UPDATE=1` writes it anew, for review.
    #[test]
    fn the_help_is_as_recorded() {
        let mut command = Cli::command().name("lb");
        command.build();
        let mut text = String::new();
        help(&mut command, "lb", &mut text);
        let text: String = text.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help.txt");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&path, &text).unwrap();
        }
        assert_eq!(fs::read_to_string(path).unwrap(), text);
    }

    #[test]
    fn completions_and_pages_have_every_command() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "lb", &mut script);
            let script = String::from_utf8(script).unwrap();
            for word in ["backend", "undrain", "changes", "--with-secret", "stats"] {
                assert!(script.contains(word.trim_start_matches("--")), "{shell} does not know {word}");
            }
        }
        let folder = std::env::temp_dir().join(format!("lb-man-{}", std::process::id()));
        man(&ManArgs { folder: Some(folder.clone()) }).unwrap();
        let pages: Vec<_> = fs::read_dir(&folder).unwrap().map(|page| page.unwrap().file_name()).collect();
        for page in ["lb.1", "lb-apply.1", "lb-backend-drain.1", "lb-changes-drop.1"] {
            assert!(pages.iter().any(|name| name == page), "{page} is not among {pages:?}");
        }
        let page = fs::read_to_string(folder.join("lb.1")).unwrap();
        assert!(page.contains("Exit codes"), "{page}");
        fs::remove_dir_all(folder).unwrap();
    }
}
