//! Requests over the servers, while one of them dies and comes back.

use super::{
    report::Report,
    stage::{Stage, WEIGHTS},
};
use anyhow::Result;
use std::{net::IpAddr, time::Instant};
use tests::{Reply, curl_many};

/// Requests before a server dies, after its check has turned, and after it is back: 1,000 in all.
const PHASES: [usize; 3] = [400, 300, 300];
/// Requests at once while waiting for the check to turn.
const MEANWHILE: usize = 20;
/// The server that dies: the one with the largest weight.
const VICTIM: usize = 2;

/// Does it over IPv4 and over IPv6.
pub fn both_families(stage: &mut Stage, report: &mut Report) -> Result<()> {
    let [ipv4, ipv6] = stage.services();
    for (family, service, address) in [("IPv4", "web4", ipv4), ("IPv6", "web6", ipv6)] {
        report.step(&format!("{family}: 1,000 requests to {address}, one connection each"));
        one_family(stage, report, family, service, address)?;
    }
    Ok(())
}

fn one_family(stage: &mut Stage, report: &mut Report, family: &str, service: &str, address: IpAddr) -> Result<()> {
    let url = if address.is_ipv6() { format!("http://[{address}]/") } else { format!("http://{address}/") };
    let [before, dead, after] = PHASES;

    let replies = curl_many(stage.lab.client(), &url, before)?;
    report.expect(failures(&replies) == 0, &format!("{family}: {before} requests, none failed"));
    table(stage, report, family, &replies, &WEIGHTS);

    // Checks of both families turn by themselves; requests go on meanwhile.
    let victim = stage.servers.get_mut(VICTIM);
    victim.map(|server| server.stop()).transpose()?;
    let died = Instant::now();
    let mut meanwhile = Vec::new();
    while is_serving(stage, service, VICTIM)? {
        meanwhile.extend(curl_many(stage.lab.client(), &url, MEANWHILE)?);
        anyhow::ensure!(died.elapsed().as_secs() < 20, "the check of the dead server did not turn");
    }
    report.text(&format!(
        "server {VICTIM} died; out of the table after at most {} ms, {} of {} requests failed until then",
        died.elapsed().as_millis(),
        failures(&meanwhile),
        meanwhile.len()
    ));

    let replies = curl_many(stage.lab.client(), &url, dead)?;
    report.expect(failures(&replies) == 0, &format!("{family}: {dead} requests after its check turned, none failed"));
    let [first, second, _] = WEIGHTS;
    table(stage, report, family, &replies, &[first, second, 0]);

    let back = Instant::now();
    let victim = stage.servers.get_mut(VICTIM);
    victim.map(|server| server.start_again()).transpose()?;
    for service in ["web4", "web6"] {
        stage.wait_for_state(service, VICTIM, true)?;
    }
    report
        .text(&format!("server {VICTIM} is back in the table {} ms after it was started", back.elapsed().as_millis()));
    let replies = curl_many(stage.lab.client(), &url, after)?;
    report.expect(failures(&replies) == 0, &format!("{family}: {after} requests after it came back, none failed"));
    table(stage, report, family, &replies, &WEIGHTS);
    Ok(())
}

fn is_serving(stage: &Stage, service: &str, index: usize) -> Result<bool> {
    let status = stage.status()?;
    let services = status.get("services").and_then(|services| services.as_array());
    let found = services.into_iter().flatten().find(|one| one.get("name").is_some_and(|name| name == service));
    let serving = found.and_then(|found| found.get("backends")?.get(index)?.get("serving")?.as_bool());
    serving.ok_or_else(|| anyhow::anyhow!("the status says nothing of {service}"))
}

fn failures(replies: &[Reply]) -> usize {
    replies.iter().filter(|reply| reply.status != Some(200)).count()
}

/// Prints who served how many, and checks that each share is what the weights say, give or take chance.
fn table(stage: &Stage, report: &mut Report, family: &str, replies: &[Reply], weights: &[u32]) {
    let total: u32 = weights.iter().sum();
    report.text("server        weight   served   by weight");
    for (server, weight) in stage.servers.iter().zip(weights) {
        let name = server.host().role();
        let served = replies.iter().filter(|reply| reply.body.trim() == name).count();
        let share = f64::from(*weight) / f64::from(total);
        let count = replies.len() as f64;
        let expected = share * count;
        report.text(&format!("{name:<12}  {weight:>6}   {served:>6}   {expected:>9.0}"));
        // Five standard deviations of a binomial distribution: one failure by chance in two million runs.
        let chance = 5.0 * (count * share * (1.0 - share)).sqrt();
        let within = (served as f64 - expected).abs() <= chance;
        report.expect(within, &format!("{family}: {name} served {served}, within chance of {expected:.0}"));
    }
}
