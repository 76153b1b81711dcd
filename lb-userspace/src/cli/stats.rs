//! `lb stats`: how much goes where, from what is counted at two moments.

use super::Agent;
use crate::{
    api::client,
    rates::{BackendRates, Rates, ServiceRates, short},
    status::Status,
};
use anyhow::{Context as _, Result};
use clap::Args;
use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};
use tokio::time::sleep;

#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    /// Go on until it is interrupted.
    #[arg(long)]
    watch: bool,
    /// Seconds over which is counted.
    #[arg(long, value_name = "SECONDS", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    interval: u32,
    /// As JSON, with `--watch` a line each time.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    agent: Agent,
}

pub(super) async fn stats(StatsArgs { watch, interval, json, agent }: StatsArgs) -> Result<()> {
    let mut before: Status = client::get(&agent.socket, "/status").await?;
    let mut at = Instant::now();
    loop {
        sleep(Duration::from_secs(interval.into())).await;
        let after: Status = client::get(&agent.socket, "/status").await?;
        let rates = Rates::between(&before, &after, at.elapsed());
        (before, at) = (after, Instant::now());
        let text = match (json, watch) {
            (true, true) => serde_json::to_string(&rates)? + "\n",
            (true, false) => serde_json::to_string_pretty(&rates)? + "\n",
            (false, true) => text(&rates) + "\n",
            (false, false) => text(&rates),
        };
        // It may be read by something that ends early.
        io::stdout().write_all(text.as_bytes()).context("cannot write all of it")?;
        if !watch {
            return Ok(());
        }
    }
}

fn text(rates: &Rates) -> String {
    let mut lines = vec![row("each second", "packets", "bytes")];
    for ServiceRates { service, packets, bytes, backends } in &rates.services {
        lines.push(row(&format!("service {service}"), &short(*packets), &short(*bytes)));
        for BackendRates { backend, packets, bytes } in backends {
            lines.push(row(&format!("  {backend}"), &short(*packets), &short(*bytes)));
        }
    }
    lines.push(row("dns answered by the kernel", &short(rates.dns_by_kernel), ""));
    lines.push(row("dns asked of the agent", &short(rates.dns_by_agent), ""));
    lines.extend(rates.packets.iter().map(|(why, packets)| row(why, &short(*packets), "")));
    lines.join("\n") + "\n"
}

fn row(what: &str, packets: &str, bytes: &str) -> String {
    format!("{what:<50} {packets:>9} {bytes:>9}").trim_end().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::sample;

    #[test]
    fn rates_stand_below_each_other() {
        let (before, mut after) = (sample(), sample());
        after.services[0].backends[0].packets += 1_500;
        after.services[0].backends[0].bytes += 2_000_000;
        *after.packets.get_mut("forwarded_dsr").unwrap() += 1_500;
        let expected = "\
each second                                          packets     bytes
service web                                             1.5k      2.0M
  10.0.0.1:80                                           1.5k      2.0M
  [fd00::1]:80                                             0         0
dns answered by the kernel                                 0
dns asked of the agent                                     0
forwarded_dsr                                           1.5k
";
        assert_eq!(text(&Rates::between(&before, &after, Duration::from_secs(1))), expected);
    }
}
