//! `lb health`.

use super::status::{file_text, name_text, unix_seconds};
use crate::{
    api::client,
    status::{HealthReport, TargetStatus, TurnStatus},
};
use anyhow::Result;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::path::Path;

/// Prints the health of everything, or of what is named, as text or as JSON.
pub async fn health(socket: &Path, of: Option<&str>, json: bool) -> Result<()> {
    let query = of.map(|of| format!("?of={}", utf8_percent_encode(of, NON_ALPHANUMERIC)));
    let path = format!("/health{}", query.unwrap_or_default());
    if json {
        let report: serde_json::Value = client::get(socket, &path).await?;
        println!("{report:#}");
    } else {
        let report: HealthReport = client::get(socket, &path).await?;
        let now = unix_seconds();
        let texts: Vec<_> = report.targets.iter().map(|target| text(target, now)).collect();
        print!("{}", texts.join("\n"));
    }
    Ok(())
}

fn text(target: &TargetStatus, now: u64) -> String {
    let since = target.since_seconds.map(|seconds| format!(" for {seconds} s")).unwrap_or_default();
    let address = if target.address.port() == 0 { target.address.ip().to_string() } else { target.address.to_string() };
    let via = target.via.map(|via| format!(" via {via}")).unwrap_or_default();
    let mut lines = vec![format!("{address}{via}  {}  {}{since}", target.check, target.health)];
    if !target.used_by.is_empty() {
        lines.push(format!("  for {}", target.used_by.join(", ")));
    }
    lines.extend(target.names.iter().map(|name| format!("  by {}", name_text(name))));
    lines.extend(target.files.iter().map(|file| format!("  by {}", file_text(file))));
    if let (Some(ago), Some(took)) = (target.last_ago_ms, target.last_took_ms) {
        let result = target.last_failure.as_deref().unwrap_or("right");
        let output = target.last_output.iter().map(|output| format!(": {output}")).collect::<String>();
        lines.push(format!("  last probe {ago} ms ago, after {took} ms: {result}{output}"));
    }
    if target.contradicted > 0 {
        lines.push(format!("  {} result(s) in a row against that", target.contradicted));
    }
    if let Some(seconds) = target.held_seconds {
        lines.push(format!("  held down for {seconds} s more: it has turned too often"));
    }
    lines.extend(target.says.iter().map(|says| format!("  agent: {says}")));
    if target.weight_percent != 100 {
        lines.push(format!("  takes {} % of its weight", target.weight_percent));
    }
    lines.extend(target.certificate.iter().map(|certificate| format!("  {}", certificate.told(now))));
    lines.extend(target.turns.iter().map(turn));
    lines.join("\n") + "\n"
}

fn turn(turn: &TurnStatus) -> String {
    let TurnStatus { ago_seconds, up, reason, output, took_ms, after_ms, .. } = turn;
    let state = if *up { "up" } else { "down" };
    let reason = reason.iter().map(|reason| format!(", {reason}")).collect::<String>();
    let output = output.iter().map(|output| format!(": {output}")).collect::<String>();
    format!("  {ago_seconds} s ago {state}{reason}{output} (the probe took {took_ms} ms, the turn {after_ms} ms)")
}
