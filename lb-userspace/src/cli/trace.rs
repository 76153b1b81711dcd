//! `lb trace`.

use super::{Agent, attach::seconds, pcapng::Pcapng, status::address};
use crate::{
    api::client,
    model::trace::{Event, Line, TraceRequest},
};
use anyhow::{Context as _, Result};
use clap::Args;
use std::{
    fs::File,
    io::{self, Write},
    num::NonZeroU64,
    path::PathBuf,
};

#[derive(Debug, Args)]
pub(super) struct TraceArgs {
    /// Only packets to this service, or from it; `dns` for the DNS addresses.
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
    /// Only packets from this address or prefix, or to it.
    #[arg(long, value_name = "PREFIX")]
    client: Option<String>,
    /// Only packets with this reason, as `lb status` names it.
    #[arg(long, value_name = "NAME")]
    why: Option<String>,
    /// Look at one of so many packets only.
    #[arg(long, value_name = "NUMBER")]
    every: Option<NonZeroU64>,
    /// End after so many packets.
    #[arg(long, value_name = "NUMBER")]
    count: Option<NonZeroU64>,
    /// End after this time, such as `30s` or `5m`.
    #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
    time: Option<u32>,
    /// A line in JSON for each packet.
    #[arg(long, conflicts_with = "pcapng")]
    json: bool,
    /// Write the packets' beginnings to a file for Wireshark and tcpdump, with what became of them as comments; `-`: to the standard
    /// output.
    #[arg(long, value_name = "FILE")]
    pcapng: Option<PathBuf>,
    #[command(flatten)]
    agent: Agent,
}

/// Shows what the agent tells, until it ends or is interrupted.
pub(super) async fn trace(arguments: TraceArgs) -> Result<()> {
    let TraceArgs { service, client, why, every, count, time, json, pcapng, agent } = arguments;
    let seconds = time.and_then(|time| NonZeroU64::new(time.into()));
    let request = TraceRequest { service, client, why, every, count, seconds, frames: pcapng.is_some() };
    let mut lines = client::stream(&agent.socket, "/trace", &request).await?;
    let place = pcapng.as_ref().map_or("standard output".into(), |path| path.display().to_string());
    let mut writer: Box<dyn Write> = match &pcapng {
        Some(path) if path.as_os_str() != "-" => {
            Box::new(File::create(path).with_context(|| format!("cannot write {place}"))?)
        }
        _ => Box::new(io::stdout()),
    };
    let mut file = Pcapng::default();
    let mut lost: u64 = 0;
    if pcapng.is_some() {
        writer.write_all(&Pcapng::head()).with_context(|| format!("cannot write {place}"))?;
    }
    while let Some(line) = lines.next::<Line>().await? {
        let bytes = match (&line, pcapng.is_some()) {
            (Line::Lost { events }, is_file) => {
                lost = lost.saturating_add(*events);
                eprintln!("lb: {events} packet(s) not shown: more came than can be told");
                if is_file || !json { Vec::new() } else { in_json(&line)? }
            }
            (Line::Event(event), true) => file.packet(event),
            (Line::Event(_), false) if json => in_json(&line)?,
            (Line::Event(event), false) => text(event).into_bytes(),
        };
        // It may be read by something that ends early.
        writer.write_all(&bytes).and_then(|()| writer.flush()).with_context(|| format!("cannot write {place}"))?;
    }
    if lost > 0 {
        eprintln!("lb: {lost} packet(s) in all were not shown; `--every` looks at fewer");
    }
    Ok(())
}

fn in_json(line: &Line) -> Result<Vec<u8>> {
    Ok((serde_json::to_string(line)? + "\n").into_bytes())
}

/// One line.
fn text(event: &Event) -> String {
    let Event { interface, verdict, why, length, packet, .. } = event;
    let time = time_of_day(event.unix_nanoseconds);
    let mut line = format!("{time} {interface} {} {length} bytes: {verdict} {why}", packet.ends());
    if let Some(service) = &event.service {
        line += &format!(" service {service}");
    }
    if let Some(backend) = event.backend {
        line += &format!(" backend {}", address(backend));
    }
    line + "\n"
}

/// The time of day in UTC, in microseconds.
fn time_of_day(nanoseconds: u64) -> String {
    let microseconds = nanoseconds / 1_000;
    let (seconds, fraction) = (microseconds / 1_000_000 % 86_400, microseconds % 1_000_000);
    format!("{:02}:{:02}:{:02}.{fraction:06}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let event = |more: &str| -> Event {
            let text = format!(
                r#"{{"unix_nanoseconds":1700000000123456789,"interface":"eth0","verdict":"redirect","why":"forwarded_dsr","protocol":"tcp",
                "source":"2001:db8::1","source_port":40000,"destination":"2001:db8::10","destination_port":80,"length":86{more}}}"#
            );
            serde_json::from_str(&text).unwrap()
        };
        assert_eq!(
            text(&event(r#","service":"web6","backend":"[fd00::1]:80""#)),
            "22:13:20.123456Z eth0 tcp [2001:db8::1]:40000 > [2001:db8::10]:80 86 bytes: redirect forwarded_dsr service web6 backend \
             [fd00::1]:80\n"
        );
        let line = text(&event(""));
        assert!(line.ends_with("forwarded_dsr\n"), "{line}");
    }
}
