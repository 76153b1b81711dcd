//! `lb status`.

use crate::{
    api::client,
    model::pool::Pool,
    status::{BackendStatus, FileStatus, NameStatus, ServiceStatus, Status},
};
use anyhow::Result;
use std::{
    net::SocketAddr,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

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
        lines.extend(service_text(service));
    }
    let dns = &status.dns;
    if !dns.listen.is_empty() {
        let listen: Vec<_> = dns.listen.iter().map(ToString::to_string).collect();
        lines.push(String::new());
        lines.push(format!("dns  {}  {} name(s)", listen.join(" "), dns.names));
        lines.push(format!(
            "  answered by the kernel {}, by the agent {}; {} answer(s) in the kernel ({} of them negative) in {} KiB of {} KiB",
            dns.answered_by_kernel,
            dns.agent.queries,
            dns.answers_in_kernel,
            dns.negatives_in_kernel,
            dns.answer_bytes.div_ceil(1_024),
            dns.answer_memory.div_ceil(1_024)
        ));
        if dns.left_to_agent > 0 {
            lines.push(format!("  {} answer(s) left to the agent: too long, or there is no room", dns.left_to_agent));
        }
    }
    lines.push(String::new());
    lines.push(format!("tracked flows  {}", status.tracked_flows));
    lines.push(String::new());
    lines.push("packets".into());
    let counted = status.packets.iter().filter(|(_, count)| **count > 0);
    lines.extend(counted.map(|(why, count)| format!("  {why:<24} {count:>14}")));
    lines.join("\n") + "\n"
}

/// A service in one line.
pub(super) fn service_line(service: &ServiceStatus) -> String {
    format!(
        "service {}  {} {}  {}  {} slots{}",
        service.name,
        service.protocol,
        address(service.address),
        service.mode,
        service.slots,
        if service.changed_slots > 0 { format!(", {} changed", service.changed_slots) } else { String::new() }
    )
}

/// A service with its backends.
pub(super) fn service_text(service: &ServiceStatus) -> Vec<String> {
    let mut lines = vec![service_line(service)];
    match service.pool {
        Pool::Main => (),
        pool => lines.push(format!("  {pool}; minimum_healthy is {}", service.minimum_healthy)),
    }
    lines.push(row(["backend", "weight", "state", "packets", "bytes", "flows"].map(ToString::to_string)));
    for backend in &service.backends {
        let BackendStatus { address: own, weight, packets, bytes, flows, .. } = backend;
        let [weight, packets, bytes, flows] = [&u64::from(*weight), packets, bytes, flows].map(ToString::to_string);
        lines.push(row([address(*own), weight, backend.state(), packets, bytes, flows]));
        lines.extend(backend.found_by().map(|by| format!("    {by}")));
        if let Some(drain) = drain(backend) {
            lines.push(format!("    {drain}"));
        }
        if let Some(failure) = &backend.last_failure {
            let since = backend.since_seconds.map(|seconds| format!(", {} for {seconds} s", backend.health));
            let output = backend.last_output.iter().map(|output| format!(" ({output})")).collect::<String>();
            lines.push(format!("    last probe: {failure}{output}{}", since.unwrap_or_default()));
        }
        lines.extend(backend.agent_says.iter().map(|says| format!("    agent: {says}")));
        if backend.weight_percent != 100 {
            lines.push(format!("    takes {} % of its weight", backend.weight_percent));
        }
        if let Some(certificate) = &backend.certificate {
            lines.push(format!("    {}", certificate.told(unix_seconds())));
        }
        if let Some(reason) = &backend.no_next_hop {
            lines.push(format!("    no next hop: {reason}"));
        }
        if let Some(narrow) = &backend.narrow {
            lines.push(format!("    {narrow}"));
        }
    }
    lines.extend(service.names.iter().map(|name| format!("  name {}", name_text(name))));
    lines.extend(service.backends_file.iter().map(|file| format!("  file {}", file_text(file))));
    let flows: u64 = service.backends.iter().map(|backend| backend.flows).sum();
    let [packets, bytes, flows] = [service.packets, service.bytes, flows].map(|count| count.to_string());
    lines.push(row(["all".into(), String::new(), String::new(), packets, bytes, flows]));
    lines
}

/// What is known of a file of backends in one line.
pub(super) fn file_text(FileStatus { path, error }: &FileStatus) -> String {
    let error = error.iter().map(|error| format!(": wrong now, what it listed before holds: {error}"));
    format!("{}{}", path.display(), error.collect::<String>())
}

/// What is known of a name in one line.
pub(super) fn name_text(NameStatus { name, kind, records, resolved_seconds, error }: &NameStatus) -> String {
    let resolved = match resolved_seconds {
        Some(seconds) => format!("{} record(s), resolved {seconds} s ago", records.len()),
        None => "not resolved yet".into(),
    };
    let error = error.iter().map(|error| format!("; DNS fails now: {error}")).collect::<String>();
    format!("{name} {kind}: {resolved}{error}")
}

/// Of a backend: address, weight, state, packets, bytes, tracked flows.
fn row([address, weight, state, packets, bytes, flows]: [String; 6]) -> String {
    format!("  {address:<40} {weight:>6}  {state:<9} {packets:>12} {bytes:>16} {flows:>10}")
}

/// An address with its port, or with `any`.
pub(super) fn address(address: SocketAddr) -> String {
    if address.port() == 0 { format!("{} any port", address.ip()) } else { address.to_string() }
}

/// Seconds since 1970.
pub(super) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// For how long it has been drained, and for how long it will be.
fn drain(backend: &BackendStatus) -> Option<String> {
    let since = backend.draining_seconds.map(|seconds| format!("drained for {seconds} s"));
    let left = backend.drain_left_seconds.map(|seconds| format!("flows that are left are given up in {seconds} s"));
    let parts: Vec<_> = since.into_iter().chain(left).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}
