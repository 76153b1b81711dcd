//! `lb dns`.

use super::Agent;
use crate::{
    api::{NameRequest, client},
    status::{AnswerDetail, AnswerList, AnswerStatus, TopName},
};
use anyhow::{Context as _, Result};
use clap::Subcommand;
use serde::de::DeserializeOwned;
use std::io::{self, Write as _};

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// The answers that the kernel holds.
    #[command(subcommand)]
    Cache(CacheVerb),
    /// Show the names that the kernel is asked for most: of each 64 answers of a CPU one is noted.
    Top {
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        agent: Agent,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum CacheVerb {
    /// Show all of them, or the first ten thousand.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        agent: Agent,
    },
    /// Show what the kernel's maps hold for a name, of every type.
    Show {
        /// The name.
        name: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        agent: Agent,
    },
    /// Have what the kernel holds for a name go, if it is there because it was asked for; what the config says is written anew.
    Flush {
        /// The name.
        name: String,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        agent: Agent,
    },
}

pub(super) async fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Top { json, agent } => {
            show(client::get(&agent.socket, "/dns/top").await?, json, |top: &Vec<TopName>| self::top(top))
        }
        Verb::Cache(CacheVerb::List { json, agent }) => {
            show(client::get(&agent.socket, "/dns/cache").await?, json, list)
        }
        Verb::Cache(CacheVerb::Show { name, json, agent }) => {
            show(client::post(&agent.socket, "/dns/cache/show", &NameRequest { name }).await?, json, details)
        }
        Verb::Cache(CacheVerb::Flush { name, json, agent }) => {
            let request = NameRequest { name };
            let count: usize = client::post(&agent.socket, "/dns/cache/flush", &request).await?;
            if json {
                return super::json(&serde_json::json!({ "flushed": count }));
            }
            println!("flushed {count} answer(s) of {}", request.name);
            Ok(())
        }
    }
}

fn show<T: DeserializeOwned>(answer: serde_json::Value, json: bool, text: fn(&T) -> Vec<String>) -> Result<()> {
    let text = if json { format!("{answer:#}") } else { text(&serde_json::from_value(answer)?).join("\n") };
    // Long, and so likely to be read by something that ends early.
    writeln!(io::stdout(), "{text}").context("cannot write all of it")
}

const HEADER: &str =
    "name                                      type   class          pick    bodies  slots   bytes  ends in";

fn list(list: &AnswerList) -> Vec<String> {
    let mut lines = vec![HEADER.into()];
    lines.extend(list.answers.iter().map(row));
    if list.total > list.answers.len() {
        lines.push(format!("and {} more", list.total - list.answers.len()));
    }
    lines
}

fn row(answer: &AnswerStatus) -> String {
    let AnswerStatus { name, kind, class, pick, bodies, slots, bytes, ends_in_seconds } = answer;
    let ends = ends_in_seconds.map_or_else(|| "never".into(), |seconds| format!("{seconds} s"));
    format!("{name:<41} {kind:<6} {class:<14} {pick:<7} {bodies:>6} {slots:>6} {bytes:>7}  {ends}")
}

fn details(details: &Vec<AnswerDetail>) -> Vec<String> {
    let mut lines = vec![HEADER.into()];
    for AnswerDetail { answer, bodies } in details {
        lines.push(row(answer));
        for body in bodies {
            let rotated = if body.rotated > 1 { ", rotated" } else { "" };
            let state = if body.is_as_written { "" } else { "; THE MAP HOLDS SOMETHING ELSE" };
            lines.push(format!(
                "  block {} generation {}: {}, {} record(s){rotated}{state}",
                body.block, body.generation, body.code, body.records
            ));
            lines.push(format!("    {}", body.data));
        }
    }
    lines
}

fn top(top: &[TopName]) -> Vec<String> {
    let mut lines = vec![format!("{:<50} {:<6} {:>8}  {:>6}", "name", "type", "samples", "share")];
    lines.extend(top.iter().map(|TopName { name, kind, samples, share }| {
        format!("{name:<50} {kind:<6} {samples:>8}  {:>5.1}%", share * 100.0)
    }));
    lines
}
