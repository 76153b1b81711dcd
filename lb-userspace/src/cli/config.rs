//! `lb changes`, `lb export`, `lb diff`, `lb apply`: the config that is in effect, and the way to another one.

use super::{
    change::{Output, tell, warn},
    json,
};
use crate::api::{ChangeList, ChangeStatus, ConfigText, Diff, Done, Export, client};
use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use std::{
    fs,
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

#[derive(Debug, Args)]
pub(super) struct ChangesArgs {
    #[command(subcommand)]
    verb: Option<ChangesVerb>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum ChangesVerb {
    /// List the changes that were made by command and are put onto the config whenever it is read.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Take a change back.
    Drop {
        /// Its number, as the list says it.
        number: u64,
        #[command(flatten)]
        output: Output,
    },
    /// Take all changes back: what holds is the config's file alone.
    Clear {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// With secrets that are written in the config itself; what a file holds stays there.
    #[arg(long)]
    with_secret: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The config; `-` for the standard input.
    file: PathBuf,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// Another config, which is checked by the agent and installed in place of its file; `-` for the standard input.
    file: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

pub(super) async fn changes(ChangesArgs { verb, output }: ChangesArgs) -> Result<()> {
    match verb.unwrap_or(ChangesVerb::List { output }) {
        ChangesVerb::List { output } => list(&output).await,
        ChangesVerb::Drop { number, output } => {
            let done = client::delete(&output.agent.socket, &format!("/changes/{number}")).await?;
            tell(&done, &output, &format!("change {number}: dropped"))
        }
        ChangesVerb::Clear { output } => {
            let done: Done = client::delete(&output.agent.socket, "/changes").await?;
            let line = if done.changed { "all changes are dropped" } else { "there are no changes" };
            if output.json { json(&done) } else { print(&format!("{line}\n")) }
        }
    }
}

async fn list(output: &Output) -> Result<()> {
    let list: ChangeList = client::get(&output.agent.socket, "/changes").await?;
    if output.json {
        return json(&list);
    }
    if list.changes.is_empty() {
        return print("no changes by command; what holds is the config's file\n");
    }
    let lines = list.changes.iter().map(|change| {
        let ChangeStatus { id, text, age_seconds, no_longer_applies, .. } = change;
        let stale = no_longer_applies.as_ref().map(|reason| format!("\n      no longer applies: {reason}"));
        format!("{id:>4}  {text}  ({} ago){}\n", age(*age_seconds), stale.unwrap_or_default())
    });
    print(&lines.collect::<String>())
}

fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

pub(super) async fn export(ExportArgs { with_secret, output }: ExportArgs) -> Result<()> {
    let export: Export = client::get(&output.agent.socket, &format!("/config?with_secret={with_secret}")).await?;
    if output.json {
        return json(&export);
    }
    print(&export.config)
}

pub(super) async fn diff(DiffArgs { file, output }: DiffArgs) -> Result<()> {
    let diff: Diff = client::post(&output.agent.socket, "/config/diff", &text_of(&file)?).await?;
    if output.json {
        return json(&diff);
    }
    for stale in &diff.stale {
        eprintln!("lb: change {} would no longer apply: {}", stale.id, stale.reason);
    }
    if diff.lines.is_empty() && diff.steps == 0 {
        return print("nothing would change\n");
    }
    let lines: String = diff.lines.iter().map(|line| format!("{line}\n")).collect();
    print(&format!("{lines}{} step(s) on the data path\n", diff.steps))
}

pub(super) async fn apply(ApplyArgs { file, output }: ApplyArgs) -> Result<()> {
    let text = match &file {
        Some(file) => text_of(file)?,
        None => ConfigText { config: None },
    };
    let done: Done = client::post(&output.agent.socket, "/config/apply", &text).await?;
    if output.json {
        return json(&done);
    }
    warn(&done);
    print(if file.is_some() { "installed and applied\n" } else { "applied\n" })
}

fn text_of(file: &Path) -> Result<ConfigText> {
    let text = if file == Path::new("-") {
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        fs::read_to_string(file)
    };
    let text = text.with_context(|| format!("cannot read {}", file.display()))?;
    Ok(ConfigText { config: Some(text) })
}

fn print(text: &str) -> Result<()> {
    // It may be long, and so be read by something that ends early.
    io::stdout().write_all(text.as_bytes()).context("cannot write all of it")
}
