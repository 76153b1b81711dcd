//! `bench agent`: how long the agent takes for what an operator waits for, and what it takes for itself.
//!
//! Figures of the tables are measured in this process by the agent's own code; those of checks and connections with `lb run` in a lab.

mod checks;
mod large;

use crate::{
    arguments::{AgentArguments, LoadArguments},
    load::{self, MIB, resident_memory},
};
use anyhow::{Context as _, Result, ensure};
use lb_userspace::{
    config::Config,
    kernel::{load::load, maps::Maps},
    model::{
        actual::Actual,
        desired::{Conditions, Desired},
        intent::Intent,
        maglev::{self, Member},
    },
    settle::settle,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
    time::{Duration, Instant},
};
use tests::{Agent, Host, Lab, Layout, LineServer, UdpEcho, UdpFlows, wait_until};

/// Backends of each service where their number is not what is measured.
const FEW: u32 = 10;
/// For the agent to follow a change.
const TURN: Duration = Duration::from_secs(60);
const PORT: u16 = 7_000;
/// A backend that has had no packet for so long gets none.
const QUIET: Duration = Duration::from_secs(1);

/// Measures, prints and writes.
pub fn run(arguments: &AgentArguments) -> Result<()> {
    let mut figures = Figures::default();
    // First of all, while this process has had no other memory.
    start(&mut figures, arguments)?;
    for services in [10, 1_000, 10_000].into_iter().filter(|services| *services <= arguments.services) {
        change(&mut figures, services)?;
    }
    maglev(&mut figures);
    for (interval, silent) in [(100, false), (100, true), (1_000, false)].into_iter().take(arguments.deaths) {
        death(&mut figures, interval, silent)?;
    }
    checks::of_few(&mut figures)?;
    checks::of_many(&mut figures, arguments.targets)?;
    large::commands(&mut figures, arguments.services)?;
    connections(&mut figures, arguments.connections)?;
    arguments.json.as_deref().map_or(Ok(()), |path| figures.write(path))
}

/// What was measured, in order.
#[derive(Default)]
struct Figures(Vec<Value>);

impl Figures {
    /// Prints and keeps one.
    fn put(&mut self, case: impl Into<String>, value: f64, unit: &str) {
        let (case, value) = (case.into(), (value * 1_000.0).round() / 1_000.0);
        println!("{case:84} {value:12} {unit}");
        self.0.push(json!({ "case": case, "value": value, "unit": unit }));
    }

    fn milliseconds(&mut self, case: impl Into<String>, time: Duration) {
        self.put(case, time.as_secs_f64() * 1_000.0, "ms");
    }

    fn write(&self, path: &Path) -> Result<()> {
        let text: String = self.0.iter().map(|line| format!("{line}\n")).collect();
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// Tables, as an agent holds them.
struct Tables {
    intent: Intent,
    conditions: Conditions,
    desired: Desired,
    maps: Maps,
    actual: Actual,
    _programs: aya::Ebpf,
}

const NOW: Duration = Duration::from_secs(1);

impl Tables {
    fn new(text: &str) -> Result<Self> {
        let intent = Intent::new(&Config::parse(text)?)?;
        let conditions = load::conditions(&intent);
        let (programs, maps) = load(None, intent.limits())?;
        let actual = Actual::new(intent.limits());
        let desired = Desired::new(&intent, &conditions, NOW);
        let mut tables = Self { intent, conditions, desired, maps, actual, _programs: programs };
        tables.settle()?;
        Ok(tables)
    }

    fn settle(&mut self) -> Result<usize> {
        settle(&self.desired, &mut self.maps, &mut self.actual, NOW)
    }

    /// What a reload does once the text is read.
    fn reload(&mut self, text: &str) -> Result<usize> {
        self.intent = Intent::new(&Config::parse(text)?)?;
        let mut desired = Desired::new(&self.intent, &self.conditions, NOW);
        desired.share(&self.desired);
        desired.keep_answers(std::mem::take(&mut self.desired));
        self.desired = desired;
        self.settle()
    }
}

fn start(figures: &mut Figures, arguments: &AgentArguments) -> Result<()> {
    let AgentArguments { services, backends, .. } = *arguments;
    let text = load::text(LoadArguments { services, backends });
    let started = Instant::now();
    let tables = Tables::new(&text)?;
    figures.milliseconds(
        format!("start with {services} services x {backends} backends, from text to maps"),
        started.elapsed(),
    );
    drop(text);
    let case = format!("memory of the agent with {services} services x {backends} backends, without checks");
    figures.put(case, resident_memory()? / MIB, "MiB");
    drop(tables);
    Ok(())
}

fn change(figures: &mut Figures, services: u32) -> Result<()> {
    let text = load::text(LoadArguments { services, backends: FEW });
    let mut tables = Tables::new(&text)?;
    let changed = text.replacen("address = \"10.0.0.1\"\n", "address = \"10.0.0.1\"\nweight = 3\n", 1);
    ensure!(changed != text, "no backend to change");
    let started = Instant::now();
    let steps = tables.reload(&changed)?;
    figures.milliseconds(
        format!("a weight in the config to the maps, {services} services x {FEW} backends"),
        started.elapsed(),
    );
    ensure!(steps > 0, "a change of weight took no step");

    let service = tables.intent.services().first().context("no service")?.clone();
    let down = &service.backends.last().context("no backend")?.target;
    tables.conditions.up.remove(down);
    let started = Instant::now();
    tables.desired.refresh(&tables.intent, &tables.conditions, NOW, [&service].into_iter());
    let steps = tables.settle()?;
    figures.milliseconds(
        format!("a backend's failure to the maps, {services} services x {FEW} backends"),
        started.elapsed(),
    );
    ensure!(steps > 0, "a failure took no step");
    Ok(())
}

fn maglev(figures: &mut Figures) {
    for (slots, backends) in [(1_009, 10), (10_007, 100), (65_537, 100), (65_537, 650)] {
        let member = |number: u32| Member { id: number, key: [u64::from(number), 7, 9], weight: 1 + number % 3 };
        let members: Vec<_> = (0..backends).map(member).collect();
        let started = Instant::now();
        let table = maglev::table(slots, &members);
        let elapsed = started.elapsed();
        figures.milliseconds(format!("Maglev: a table of {slots} slots for {} backends made", members.len()), elapsed);
        drop(table);
    }
    for slots in [1_009, 65_537] {
        let text = load::text(LoadArguments { services: 1, backends: 100 });
        let text = text.replace(&format!("slots = {}", load::SLOTS), &format!("slots = {slots}"));
        let swapped = Tables::new(&text).and_then(|mut tables| {
            let text = text.replacen("address = \"10.0.0.1\"\n", "address = \"10.0.0.1\"\nweight = 3\n", 1);
            tables.intent = Intent::new(&Config::parse(&text)?)?;
            tables.desired = Desired::new(&tables.intent, &tables.conditions, NOW);
            let started = Instant::now();
            tables.settle()?;
            Ok(started.elapsed())
        });
        if let Ok(elapsed) = swapped {
            figures
                .milliseconds(format!("Maglev: planned, and the changed slots of {slots} stored in the map"), elapsed);
        }
    }
}

/// A lab in which one machine behind a service of each kind is as good as three.
struct Site {
    agent: Agent,
    lines: Vec<LineServer>,
    _echoes: Vec<UdpEcho>,
    lab: Lab,
}

impl Site {
    fn up(backends: u8, interval: u32) -> Result<Self> {
        let lab = Lab::blueprint(Layout::Bridged).backends(backends).up()?;
        let service = SocketAddr::new(lab.service_ipv4(0).into(), PORT);
        for host in lab.backends() {
            lab.add_service_address(host, service.ip())?;
        }
        let lines = lab.backends().iter().map(|host| LineServer::start(host, PORT)).collect::<Result<_>>()?;
        let echoes = lab.backends().iter().map(|host| UdpEcho::start(host, &[service])).collect::<Result<_>>()?;
        let weights: Vec<_> = lab.backends().iter().map(|_| 1).collect();
        let agent = Agent::start(lab.balancer(), &config(&lab, interval, &weights))?;
        let site = Self { agent, lines, _echoes: echoes, lab };
        site.wait_until_serving(backends.into())?;
        Ok(site)
    }

    fn service(&self) -> SocketAddr {
        SocketAddr::new(self.lab.service_ipv4(0).into(), PORT)
    }

    fn wait_until_serving(&self, count: usize) -> Result<()> {
        wait_until(TURN, &format!("{count} backends serve"), || {
            let status = self.agent.status().ok()?;
            let serving = backends(&status).filter(|backend| backend["serving"] == true).count();
            (serving == 2 * count).then_some(())
        })
    }
}

/// Those of all services.
fn backends(status: &Value) -> impl Iterator<Item = &Value> {
    let services = status.get("services").and_then(Value::as_array).into_iter().flatten();
    services.flat_map(|service| service.get("backends").and_then(Value::as_array).into_iter().flatten())
}

fn config(lab: &Lab, interval: u32, weights: &[u32]) -> String {
    let mut text = head(lab, interval);
    for (name, protocol) in [("lines", "tcp"), ("echo", "udp")] {
        service(&mut text, name, protocol, lab.service_ipv4(0).into());
        for (host, weight) in lab.backends().iter().zip(weights) {
            // Writing to a string does not fail.
            let _ = writeln!(text, "[[service.backend]]\naddress = \"{}\"\nweight = {weight}", host.ipv4());
        }
    }
    text
}

fn head(lab: &Lab, interval: u32) -> String {
    format!(
        "interfaces = [\"eth0\"]\nsecret = \"a secret that nobody keeps\"\nsocket = {:?}\npins = {:?}\n[check.all]\nport = {PORT}\n\
         interval_ms = {interval}\ntimeout_ms = {interval}\nrise = 1\nfall = 2\n",
        lab.socket(),
        lab.pins()
    )
}

fn service(text: &mut String, name: &str, protocol: &str, address: IpAddr) {
    let _ = write!(
        text,
        "[[service]]\nname = \"{name}\"\naddress = \"{address}\"\nport = {PORT}\nprotocol = \"{protocol}\"\nmode = \"dsr\"\n\
         check = \"all\"\n"
    );
}

/// From a backend's death to the last packet that it is sent: its server ends, or it answers checks no more.
fn death(figures: &mut Figures, interval: u32, silent: bool) -> Result<()> {
    let mut site = Site::up(3, interval)?;
    let flows = UdpFlows::start(site.lab.client(), site.service(), 60, 64)?;
    let died = Instant::now();
    if silent {
        let host = site.lab.backends().first().context("no backend")?;
        host.ip(&[format!("route add blackhole {}/32", site.lab.balancer().ipv4())])?;
    } else {
        site.lines.first_mut().context("no server")?.stop();
    }
    let address = site.lab.backends().first().map(Host::ipv4).unwrap_or(std::net::Ipv4Addr::UNSPECIFIED);
    let own = SocketAddr::new(address.into(), PORT).to_string();
    let (mut packets, mut last) = (0, died.elapsed());
    while died.elapsed() < last + QUIET + Duration::from_millis(u64::from(interval) * 3) {
        let status = site.agent.status()?;
        let now: u64 = backends(&status)
            .filter(|backend| backend["address"] == *own)
            .filter_map(|one| one["packets"].as_u64())
            .sum();
        if now != packets {
            (packets, last) = (now, died.elapsed());
        }
    }
    flows.stop()?;
    let how = if silent { "answers no check" } else { "refuses checks" };
    figures
        .milliseconds(format!("a backend {how}, to the last packet sent to it; every {interval} ms, 2 failures"), last);
    Ok(())
}

/// Idle connections, through changes that each turn slots.
fn connections(figures: &mut Figures, count: usize) -> Result<()> {
    const WEIGHTS: [[u32; 4]; 10] = [
        [1, 1, 1, 0],
        [1, 1, 1, 1],
        [3, 1, 1, 1],
        [1, 3, 1, 1],
        [0, 1, 1, 1],
        [1, 1, 0, 1],
        [1, 2, 3, 4],
        [4, 3, 2, 1],
        [1, 0, 0, 1],
        [1, 1, 1, 1],
    ];
    let count = count.min(most_connections(count)?);
    let site = Site::up(4, 500)?;
    let service = site.service();
    let (mut open, mut owners) = (Vec::new(), Vec::new());
    site.lab.client().inside(|| -> Result<()> {
        for _ in 0..count {
            let stream = TcpStream::connect_timeout(&service, TURN)?;
            owners.push(exchange(&stream)?);
            open.push(stream);
        }
        Ok(())
    })??;
    let mut elapsed = Duration::ZERO;
    for (number, weights) in (1..).zip(WEIGHTS) {
        let started = Instant::now();
        site.agent.reload(&config(&site.lab, 500, &weights))?;
        wait_until(TURN, "the reload", || {
            (site.agent.running().log().matches(" reloaded").count() == number).then_some(())
        })?;
        elapsed += started.elapsed();
    }
    let answers = open.iter().map(exchange);
    let moved = answers.zip(&owners).filter(|(now, before)| now.as_ref().ok() != Some(before)).count();
    let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
    owners.iter().for_each(|name| *shares.entry(name).or_default() += 1);
    ensure!(shares.len() == 4, "not all backends had connections: {shares:?}");
    figures.put(format!("{count} idle connections through 10 changes: moved or broken"), moved as f64, "connections");
    figures.milliseconds("a reload of those, from the signal to the log", elapsed / 10);
    Ok(())
}

/// How many connections this process may have both ends of, after raising its limit as far as that is needed and allowed.
fn most_connections(wanted: usize) -> Result<usize> {
    const OTHERS: u64 = 300;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let files = most.max(2 * wanted as u64 + OTHERS);
    if setrlimit(Resource::RLIMIT_NOFILE, files, files).is_ok() {
        return Ok(wanted);
    }
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("cannot raise the number of open files")?;
    Ok((most.saturating_sub(OTHERS) / 2).try_into().unwrap_or(wanted))
}

/// Sends a line and gives the name of who answered.
fn exchange(stream: &TcpStream) -> Result<String> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (mut writer, mut answer) = (stream, String::new());
    writer.write_all(b"here\n")?;
    BufReader::new(stream).read_line(&mut answer)?;
    let (name, _) = answer.split_once(' ').context("no name in the answer")?;
    Ok(name.to_owned())
}
