//! `lb status`.

use crate::{
    api::client,
    status::{BackendStatus, Status},
};
use anyhow::Result;
use std::path::Path;

/// Prints the agent's status as text or as JSON.
pub async fn status(socket: &Path, json: bool) -> Result<()> {
    if json {
        let status: serde_json::Value = client::get(socket, "/status").await?;
        println!("{status:#}");
    } else {
        print!("{}", text(&client::get(socket, "/status").await?));
    }
    Ok(())
}

fn text(status: &Status) -> String {
    let mut lines = vec![format!("lb {}, up {} s", status.version, status.uptime_seconds)];
    for interface in &status.interfaces {
        let state = if interface.index.is_some() { "attached" } else { "detached" };
        lines.push(format!("interface {}  {state}", interface.name));
    }
    for service in &status.services {
        lines.push(String::new());
        lines.push(format!(
            "service {}  {} {}  {}  {} slots",
            service.name, service.protocol, service.address, service.mode, service.slots
        ));
        lines.push(format!("  {:<40} {:>6}  {:<9} {:>12} {:>16}", "backend", "weight", "state", "packets", "bytes"));
        for backend in &service.backends {
            let address = backend.address.to_string();
            let state = state(backend);
            lines.push(format!(
                "  {address:<40} {:>6}  {state:<9} {:>12} {:>16}",
                backend.weight, backend.packets, backend.bytes
            ));
            if let Some(failure) = &backend.last_failure {
                let since = backend.since_seconds.map(|seconds| format!(", {} for {seconds} s", backend.health));
                lines.push(format!("    last probe: {failure}{}", since.unwrap_or_default()));
            }
            if let Some(reason) = &backend.no_next_hop {
                lines.push(format!("    no next hop: {reason}"));
            }
        }
        lines.push(format!("  {:<40} {:>6}  {:<9} {:>12} {:>16}", "all", "", "", service.packets, service.bytes));
    }
    let dns = &status.dns;
    if !dns.listen.is_empty() {
        let listen: Vec<_> = dns.listen.iter().map(ToString::to_string).collect();
        lines.push(String::new());
        lines.push(format!("dns  {}  {} name(s)", listen.join(" "), dns.names));
        lines.push(format!(
            "  answered by the kernel {}, by the agent {}; {} answer(s) in the kernel",
            dns.answered_by_kernel, dns.agent.queries, dns.answers_in_kernel
        ));
    }
    lines.push(String::new());
    lines.push("packets".into());
    let counted = status.packets.iter().filter(|(_, count)| **count > 0);
    lines.extend(counted.map(|(why, count)| format!("  {why:<24} {count:>14}")));
    lines.join("\n") + "\n"
}

fn state(backend: &BackendStatus) -> String {
    if backend.draining { "draining".into() } else { backend.health.to_string() }
}
