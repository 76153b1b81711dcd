//! Checks: how many a core does, and whether each target of thousands is checked at its time.

use super::{Figures, PORT, TURN, backends, head, service};
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{
    fmt::Write as _,
    fs,
    net::{IpAddr, SocketAddr},
    thread::sleep,
    time::{Duration, Instant},
};
use tests::{Agent, Crowd, Lab, Layout, LineServer, protocol_counters, wait_until};

/// Targets of each service.
const EACH: usize = 500;
/// How long it is looked on.
const WINDOW: Duration = Duration::from_secs(10);

/// As many checks as a few targets can be given, by what the agent's process takes of the CPU for them.
pub fn of_few(figures: &mut Figures) -> Result<()> {
    const TARGETS: u32 = 250;
    const INTERVAL: u32 = 50;
    let lab = Lab::blueprint(Layout::Bridged).backends(1).up()?;
    let host = lab.backends().first().context("no backend")?;
    let target = |number: u32| format!("10.77.1.{}", number + 1);
    let addresses = (0..TARGETS).map(|number| format!("address add {}/32 dev eth0", target(number)));
    host.ip(&addresses.collect::<Vec<_>>())?;
    lab.balancer().ip(&["route add 10.77.1.0/24 dev eth0".to_owned()])?;
    let _server = LineServer::start(host, PORT)?;
    let mut text = head(&lab, INTERVAL);
    service(&mut text, "lines", "tcp", lab.service_ipv4(0).into());
    for number in 0..TARGETS {
        let _ = writeln!(text, "[[service.backend]]\naddress = \"{}\"", target(number));
    }
    let agent = Agent::start(lab.balancer(), &text)?;
    wait_until(TURN, "all targets are up", || (are(&agent.status().ok()?, "up") == TARGETS as usize).then_some(()))?;
    let opened =
        || -> Result<u64> { Ok(protocol_counters(host)?.get("Tcp PassiveOpens").copied().unwrap_or_default()) };
    let measured = || -> Result<(u64, f64)> { Ok((opened()?, cpu_seconds(agent.running().pid())?)) };
    let ((opened_before, cpu_before), started) = (measured()?, Instant::now());
    sleep(Duration::from_secs(3));
    let ((opened, cpu), elapsed) = (measured()?, started.elapsed().as_secs_f64());
    let probes = (opened - opened_before) as f64;
    figures.put(
        format!("TCP checks of {TARGETS} targets every {INTERVAL} ms, as many as came"),
        probes / elapsed,
        "1/s",
    );
    figures.put("TCP checks a second of one core's time", probes / (cpu - cpu_before).max(0.01), "1/s");
    Ok(())
}

/// Thousands of targets, by an agent that has one core: two thirds take a connection, of the others a page is asked, which never comes.
pub fn of_many(figures: &mut Figures, targets: u16) -> Result<()> {
    const INTERVAL: u32 = 1_000;
    let lab = Lab::blueprint(Layout::Bridged).backends(1).up()?;
    let host = lab.backends().first().context("no backend")?;
    let crowd = Crowd::start(host, lab.balancer(), PORT)?;
    let silent = targets / 3;
    let answering: Vec<_> = (0..targets - silent).map(|number| crowd.member(number)).collect();
    let silent: Vec<_> = (0..silent).map(|number| crowd.silent(number)).collect();
    let mut text = head(&lab, INTERVAL);
    let _ = writeln!(
        text,
        "[check.page]\nkind = \"http\"\nport = {PORT}\ninterval_ms = {INTERVAL}\ntimeout_ms = {INTERVAL}\nrise = 1\nfall = 2"
    );
    for (check, of_check) in [("all", &answering), ("page", &silent)] {
        for (number, backends) in of_check.chunks(EACH).enumerate() {
            let address = lab.service_ipv4(number.try_into().unwrap_or_default());
            let mut own = String::new();
            service(&mut own, &format!("{check}-{number}"), if check == "all" { "tcp" } else { "udp" }, address.into());
            text += &own.replace("check = \"all\"", &format!("check = \"{check}\""));
            for backend in backends {
                let _ = writeln!(text, "[[service.backend]]\naddress = \"{}\"", backend.ip());
            }
        }
    }
    let agent = Agent::start_by(lab.balancer(), &["taskset", "--cpu-list", "0"], &text)?;
    let decided = |status: &Value| (are(status, "up"), are(status, "down")) == (answering.len(), silent.len());
    wait_until(TURN, "all targets are up or down", || decided(&agent.status().ok()?).then_some(()))?;
    drop(crowd.take_seen());
    let (cpu, started) = (cpu_seconds(agent.running().pid())?, Instant::now());
    let mut most_files = 0;
    while started.elapsed() < WINDOW {
        let files = fs::read_dir(format!("/proc/{}/fd", agent.running().pid()))?.count();
        most_files = most_files.max(files);
        sleep(Duration::from_millis(100));
    }
    let (seen, elapsed) = (crowd.take_seen(), started.elapsed().as_secs_f64());
    let cpu = cpu_seconds(agent.running().pid())? - cpu;
    let times = |target: &SocketAddr| match target.ip() {
        IpAddr::V4(address) => seen.get(&address).map_or(0, Vec::len),
        IpAddr::V6(_) => 0,
    };
    let case = format!("{targets} targets every {INTERVAL} ms on one core, a third of them hanging");
    let all: usize = seen.values().map(Vec::len).sum();
    figures.put(format!("{case}: checks"), all as f64 / elapsed, "1/s");
    let (fewest, most) = answering
        .iter()
        .chain(&silent)
        .map(times)
        .fold((usize::MAX, 0), |(fewest, most), times| (fewest.min(times), most.max(times)));
    figures.put(format!("{case}: of the target with the fewest"), fewest as f64 / elapsed, "1/s");
    figures.put(format!("{case}: of the target with the most"), most as f64 / elapsed, "1/s");
    figures.put(format!("{case}: of the core"), cpu / elapsed * 100.0, "%");
    figures.put(format!("{case}: open files, at most"), most_files as f64, "files");
    Ok(())
}

/// How many backends are so.
fn are(status: &Value, health: &str) -> usize {
    backends(status).filter(|backend| backend["health"] == health).count()
}

/// What a process has taken of the CPU: the 14th and 15th field of proc_pid_stat(5), in hundredths of a second.
fn cpu_seconds(pid: u32) -> Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, behind) = text.rsplit_once(')').context("no name in the process's state")?;
    let ticks = behind.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    Ok(ticks.sum::<f64>() / 100.0)
}
