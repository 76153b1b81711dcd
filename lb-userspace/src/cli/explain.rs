//! `lb explain`.

use super::Agent;
use crate::{
    api::client,
    model::explain::{Ask, Explanation, Protocol, Reply, Told},
};
use anyhow::Result;
use clap::{Args, Subcommand};
use hickory_proto::rr::RecordType;
use std::net::{IpAddr, SocketAddr};

/// The port of a client that is named without one: any is as good for a question.
const CLIENT_PORT: u16 = 40_000;
/// The port of DNS servers.
const DNS_PORT: u16 = 53;

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// What a DNS question over UDP is answered with.
    Dns {
        /// The name.
        name: String,
        /// The type, such as AAAA or TYPE65.
        #[arg(default_value = "A", value_parser = record_type)]
        kind: u16,
        /// Who asks, with or without a port.
        #[arg(long, value_name = "CLIENT", value_parser = |text: &str| with_port(text, CLIENT_PORT))]
        from: SocketAddr,
        /// Whom, with or without a port; default the first DNS address of the config that is of the client's family.
        #[arg(long, value_name = "DNS_ADDRESS", value_parser = |text: &str| with_port(text, DNS_PORT))]
        to: Option<SocketAddr>,
        /// Ask for DNSSEC records.
        #[arg(long)]
        dnssec: bool,
        /// The largest reply that the client says it takes by EDNS; 0: it does not speak EDNS.
        #[arg(long, value_name = "BYTES", default_value_t = 1232)]
        size: u16,
        #[command(flatten)]
        output: Output,
    },
    /// Where a packet of a flow goes.
    Flow {
        /// Who sends it: `198.51.100.1:40000`, `[2001:db8::1]:40000`.
        client: SocketAddr,
        /// Where to.
        service: SocketAddr,
        /// By what.
        #[arg(long, value_enum, default_value = "tcp")]
        protocol: Protocol,
        /// A TCP packet that begins a connection; so it is unless `--ack` is given.
        #[arg(long, conflicts_with = "ack")]
        syn: bool,
        /// A TCP packet of a connection that is there.
        #[arg(long)]
        ack: bool,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub struct Output {
    /// As JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: Agent,
}

/// Asks the agent, and prints what it tells.
pub async fn explain(verb: Verb) -> Result<()> {
    let (ask, output) = match verb {
        Verb::Dns { name, kind, from, to, dnssec, size, output } => {
            let size = Some(size).filter(|size| *size > 0);
            (Ask::Dns { name, kind, client: from, server: to, dnssec, size }, output)
        }
        Verb::Flow { client, service, protocol, syn: _, ack, output } => {
            (Ask::Flow { client, service, protocol, begins: !ack }, output)
        }
    };
    let Output { json, agent } = output;
    let explanation: Explanation = client::post(&agent.socket, "/explain", &ask).await?;
    if json {
        println!("{}", serde_json::to_string_pretty(&explanation)?);
    } else {
        print!("{}", text(&explanation));
    }
    Ok(())
}

fn text(explanation: &Explanation) -> String {
    let Explanation { packet, steps, verdict, why, help, backend, interface, receiver, reply, notes } = explanation;
    let row = |what: &str, found: &str| format!("{what:<12} {found}");
    let mut lines = vec![row("packet", packet)];
    lines.extend(steps.iter().map(|Told { what, found }| row(what, found)));
    lines.push(String::new());
    lines.push(row("verdict", &format!("{verdict}: {why}")));
    lines.push(row("", help));
    if let Some(backend) = backend {
        lines.push(row("to", &super::status::address(*backend)));
    }
    match (interface, receiver) {
        (Some(interface), Some(receiver)) => {
            lines.push(row("leaves by", &format!("interface {interface}, to {receiver}")));
        }
        _ if verdict == "transmit" => lines.push(row("leaves by", "the interface that it came in by")),
        _ => (),
    }
    if let Some(Reply { status, flags, answers, authorities, additionals, bytes }) = reply {
        lines.push(row("reply", &format!("{status}, flags {}, {bytes} bytes", flags.join(" "))));
        for (section, records) in [("answer", answers), ("authority", authorities), ("additional", additionals)] {
            lines.extend(records.iter().map(|record| row(section, record)));
        }
    }
    lines.extend(notes.iter().map(|note| row("note", note)));
    lines.join("\n") + "\n"
}

fn record_type(text: &str) -> Result<u16, String> {
    let text = text.to_ascii_uppercase();
    let number = text.strip_prefix("TYPE").and_then(|number| number.parse().ok());
    let named = || text.parse::<RecordType>().ok().map(u16::from);
    number.or_else(named).ok_or_else(|| "no such type; one without a name is written as TYPE65".into())
}

fn with_port(text: &str, port: u16) -> Result<SocketAddr, String> {
    let bare = |text: &str| text.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, port));
    text.parse().ok().or_else(|| bare(text)).ok_or_else(|| {
        "not an address such as 198.51.100.1, 198.51.100.1:40000, 2001:db8::1 or [2001:db8::1]:40000".into()
    })
}
