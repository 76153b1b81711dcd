//! An agent with many services, asked for changes by its command: each time is that of the whole command, its start included.

use super::{FEW, Figures, PORT, TURN};
use crate::load::{MIB, SLOTS};
use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};
use tests::{Agent, Crowd, Lab, Layout, wait_until};

/// Machines that the backends of all services are on.
const MACHINES: u32 = 1_000;
/// For an agent with so many to start.
const START: Duration = Duration::from_secs(120);
const FIRST: &str = "service-0";

/// Measures `lb` commands to an agent with so many services.
pub fn commands(figures: &mut Figures, services: u32) -> Result<()> {
    let lab = Lab::blueprint(Layout::Bridged).backends(1).up()?;
    let host = lab.backends().first().context("no backend")?;
    let crowd = Crowd::start(host, lab.balancer(), PORT)?;
    let text = text(&lab, &crowd, services);
    let case = format!("{services} services x {FEW} backends on {MACHINES} machines");
    let started = Instant::now();
    let agent = Agent::start_within(lab.balancer(), &text, START)?;
    figures.milliseconds(format!("{case}: `lb run`, until it answers"), started.elapsed());
    let mut last = String::new();
    let waited = wait_until(TURN, &format!("all backends of {FIRST} serve"), || {
        last = agent.lb(["service", "show", FIRST, "--json"]).ok()?.stdout;
        let shown: Value = serde_json::from_str(&last).ok()?;
        let serving = shown.get("backends")?.as_array()?.iter().filter(|backend| backend["serving"] == true);
        (serving.count() == FEW as usize).then_some(())
    });
    waited.with_context(|| format!("the service is {last}"))?;

    let backend = format!("{}:{PORT}", crowd.member(0).ip());
    let another = format!("{}:{PORT}", crowd.member(500).ip());
    let file = lab.folder().join("other.toml");
    let one = format!("address = \"{}\"\n", crowd.member(0).ip());
    let other = text.replacen(&one, &format!("{one}weight = 7\n"), 1);
    ensure!(other != text, "no backend to change");
    fs::write(&file, other)?;
    let file = file.display().to_string();
    let mut measured = |what: &str, line: &[&str]| -> Result<()> {
        let started = Instant::now();
        agent.lb(line)?;
        figures.milliseconds(format!("{case}: {what}"), started.elapsed());
        Ok(())
    };
    measured("`lb backend weight`", &["backend", "weight", FIRST, &backend, "3"])?;
    measured("`lb backend weight`, once more", &["backend", "weight", FIRST, &backend, "4"])?;
    measured("`lb backend drain`", &["backend", "drain", FIRST, &backend])?;
    measured("`lb backend add`", &["backend", "add", FIRST, &another])?;
    measured("`lb service show`", &["service", "show", FIRST])?;
    measured("`lb status --json`", &["status", "--json"])?;
    measured("`lb diff`", &["diff", &file])?;
    measured("`lb apply`", &["apply", &file])?;

    let status = fs::read_to_string(format!("/proc/{}/status", agent.running().pid()))?;
    for (name, what) in [("VmRSS:", "memory of `lb run`"), ("VmHWM:", "memory of `lb run`, at most")] {
        let line =
            status.lines().find_map(|line| line.strip_prefix(name)).context("no memory in the process's state")?;
        let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().context("the memory is no number")?;
        figures.put(format!("{case}: {what}"), kibibytes * 1_024.0 / MIB, "MiB");
    }
    Ok(())
}

fn text(lab: &Lab, crowd: &Crowd, services: u32) -> String {
    let mut text = super::head(lab, 1_000);
    let backends = 2 * services * FEW;
    let _ = writeln!(text, "[limits]\nservices = {}\nbackends = {backends}", services.max(16));
    text.push_str("[tunnel]\nsource_ipv4 = \"10.99.0.0/16\"\n");
    for service in 0..services {
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(172, 16, 0, 0).to_bits() + service);
        let mut own = String::from("\n");
        super::service(&mut own, &format!("service-{service}"), "tcp", address.into());
        let own = own.replace("mode = \"dsr\"", "mode = \"tunnel\"");
        let _ = writeln!(text, "{own}slots = {SLOTS}");
        for backend in 0..FEW {
            let machine = (service + backend) % MACHINES;
            let address = crowd.member(machine.try_into().unwrap_or_default()).ip();
            let _ = writeln!(text, "[[service.backend]]\naddress = \"{address}\"");
        }
    }
    text
}
