//! Questions for a name over the same servers.

use super::{
    report::Report,
    stage::{NAME, Stage},
};
use anyhow::{Context as _, Result};
use std::{collections::BTreeMap, net::IpAddr};
use tests::dig;

/// Questions while all servers are up, and while one is dead: 200 over both families.
const PHASES: [usize; 2] = [72, 28];
/// The server that dies.
const VICTIM: usize = 0;

/// Asks over IPv4 and IPv6, for A and AAAA.
pub fn questions(stage: &mut Stage, report: &mut Report) -> Result<()> {
    let balancer = stage.lab.balancer();
    let (ipv4, ipv6) = (balancer.ipv4().into(), balancer.ipv6().into());
    let [up, dead] = PHASES;
    let victim = stage.lab.backends().get(VICTIM).context("the lab has no backends")?;
    let (victim4, victim6) = (victim.ipv4().to_string(), victim.ipv6().to_string());

    for (family, server, kind) in [("IPv4", ipv4, "A"), ("IPv6", ipv6, "AAAA")] {
        report.step(&format!("{family}: {up} questions for {NAME} {kind} with dig"));
        let firsts = ask(stage, report, family, server, kind, up, 3)?;
        let mut table = String::new();
        for (address, count) in &firsts {
            table.push_str(&format!("{address:<20} first in {count} answers\n"));
        }
        report.text(&table);
        report.expect(firsts.len() == 3, &format!("{family}: each of the three servers came first at times"));
        let (least, most) = (firsts.values().min().copied(), firsts.values().max().copied());
        let spread = most.unwrap_or_default().saturating_sub(least.unwrap_or_default());
        // Each CPU takes turns by itself, so each adds one at most; the agent's own answer adds another.
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        report.expect(spread <= cpus + 1, &format!("{family}: they took turns, {spread} apart at most"));
    }

    report.step("a server dies");
    stage.servers.get_mut(VICTIM).map(|server| server.stop()).transpose()?;
    for service in ["web4", "web6"] {
        stage.wait_for_state(service, VICTIM, false)?;
    }
    for (family, server, kind, gone) in [("IPv4", ipv4, "A", victim4), ("IPv6", ipv6, "AAAA", victim6)] {
        let firsts = ask(stage, report, family, server, kind, dead, 2)?;
        report.expect(!firsts.contains_key(&gone), &format!("{family}: {gone} is gone from the answers"));
    }
    stage.servers.get_mut(VICTIM).map(|server| server.start_again()).transpose()?;
    Ok(())
}

/// Asks `count` times; returns how often each address came first. Every answer has to have `expected` addresses.
fn ask(
    stage: &Stage,
    report: &mut Report,
    family: &str,
    server: IpAddr,
    kind: &str,
    count: usize,
    expected: usize,
) -> Result<BTreeMap<String, usize>> {
    let before = answered(stage)?;
    let mut firsts = BTreeMap::new();
    let mut complete = 0;
    for _ in 0..count {
        let answer = dig(stage.lab.client(), server, NAME, kind, &[])?;
        let addresses = answer.data(kind);
        complete += usize::from(answer.status == "NOERROR" && addresses.len() == expected);
        if let Some(first) = addresses.first() {
            *firsts.entry((*first).to_owned()).or_default() += 1;
        }
    }
    let after = answered(stage)?;
    let (kernel, agent) = (after.0 - before.0, after.1 - before.1);
    report.text(&format!("answered by the kernel {kernel}, by the agent {agent}"));
    report.expect(complete == count, &format!("{family}: {complete} of {count} answers had {expected} addresses"));
    report.expect(
        kernel + agent == count as u64 && agent <= 2,
        &format!("{family}: the agent answered at most the first questions, the kernel all others"),
    );
    Ok(firsts)
}

/// Questions answered by the kernel and by the agent so far.
fn answered(stage: &Stage) -> Result<(u64, u64)> {
    let status = stage.status()?;
    let dns = status.get("dns").context("the status has no DNS")?;
    let kernel = dns.get("answered_by_kernel").and_then(|count| count.as_u64());
    let agent = dns.get("agent").and_then(|agent| agent.get("queries")?.as_u64());
    kernel.zip(agent).context("the status has no counts of answers")
}
