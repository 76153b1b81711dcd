//! `bench load`: what the tables take, before the first service and with many.

use crate::arguments::LoadArguments;
use anyhow::{Context as _, Result};
use lb_common::tables::{CHUNK_SLOTS, Slot};
use lb_userspace::{
    config::Config,
    kernel::load::load,
    model::{
        actual::Actual,
        desired::{Conditions, Desired},
        intent::{Intent, Limits},
        op::Op,
        plan::plan,
        reach::{Hop, Way},
    },
};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

/// Slots of each table: the least, so that as many tables as possible fit.
pub const SLOTS: u32 = 251;
/// Bytes of one.
pub const MIB: f64 = 1024.0 * 1024.0;
const LOOPBACK: (u32, [u8; 6]) = (1, [2, 0, 0, 0, 0, 1]);

/// Measures and prints.
pub fn run(arguments: &LoadArguments) -> Result<()> {
    let (programs, _maps) = load(None, Limits::default())?;
    println!("before the first service\n  maps of the default sizes  {:7.1} MiB", map_memory()? / MIB);
    drop((programs, _maps));

    let LoadArguments { services, backends } = *arguments;
    println!("\n{services} services with {backends} backends each, mode dsr");
    let text = text(*arguments);
    println!("  the config is {:.1} MiB of text", text.len() as f64 / MIB);
    let mut stages = Stages::default();
    let config = stages.time("parse", || Config::parse(&text))?;
    drop(text);
    let intent = stages.time("intent", || Intent::new(&config))?;
    drop(config);
    let conditions = conditions(&intent);
    let now = Duration::from_secs(1);
    let desired = stages.time("desired", || Desired::new(&intent, &conditions, now));
    let limits = intent.limits();
    let (programs, mut maps) = stages.time("load the programs", || load(None, limits))?;
    let mut actual = Actual::new(limits);
    let ops = stages.time("plan", || plan(&desired, &actual, now))?;
    stages.time("apply", || {
        ops.iter().try_for_each(|op| {
            maps.apply(op)?;
            actual.record(op);
            anyhow::Ok(())
        })
    })?;
    stages.print();

    let slots: usize = ops.iter().map(|op| if let Op::WriteTable { slots, .. } = op { slots.len() } else { 0 }).sum();
    let chunks = slots.div_ceil(CHUNK_SLOTS as usize);
    let chunk_memory = (chunks * CHUNK_SLOTS as usize * size_of::<Slot>()) as f64;
    println!("  {} steps; {slots} slots, {SLOTS} a service", ops.len());
    println!("  maps                       {:7.1} MiB", map_memory()? / MIB);
    println!("  slots, in {chunks:4} chunks      {:7.1} MiB", chunk_memory / MIB);
    println!("  the agent                  {:7.1} MiB", resident_memory()? / MIB);
    // Until here they hold the maps.
    drop((programs, maps));
    Ok(())
}

/// How long each stage took.
#[derive(Default)]
struct Stages(Vec<(&'static str, Duration)>);

impl Stages {
    fn time<T>(&mut self, name: &'static str, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let done = work();
        self.0.push((name, started.elapsed()));
        done
    }

    fn print(&self) {
        for (name, elapsed) in &self.0 {
            println!("  {name:26} {:7.2} s", elapsed.as_secs_f64());
        }
        let total: Duration = self.0.iter().map(|(_, elapsed)| *elapsed).sum();
        println!("  {:26} {:7.2} s", "from text to tables", total.as_secs_f64());
    }
}

/// The text of a config with so many.
pub fn text(LoadArguments { services, backends }: LoadArguments) -> String {
    let mut text = format!(
        "interfaces = [\"eth0\"]\nsecret = \"a secret that nobody keeps\"\n[check.all]\n\
         [limits]\nservices = {}\nbackends = {}\n",
        services.max(16),
        (services * backends).max(16)
    );
    for service in 0..services {
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(172, 16, 0, 0).to_bits() + service);
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "[[service]]\nname = \"service-{service}\"\naddress = \"{address}\"\nport = 80\nmode = \"dsr\"\ncheck = \"all\"\n\
             slots = {SLOTS}\n"
        );
        for backend in 0..backends {
            let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 1).to_bits() + service * backends + backend);
            let _ = writeln!(text, "[[service.backend]]\naddress = \"{address}\"");
        }
    }
    text
}

/// Everything is up and has a next hop.
pub fn conditions(intent: &Intent) -> Conditions {
    let (interface, source) = LOOPBACK;
    let hop = Hop { interface, destination: [2, 0, 0, 0, 1, 1], source, mtu: 1_500 };
    let mut conditions = Conditions::default();
    conditions.interfaces.insert(interface, source);
    for backend in intent.services().iter().flat_map(|service| &service.backends) {
        conditions.ways.insert(backend.endpoint.ip(), Ok(Way { hop, gateway: None }));
        conditions.up.insert(backend.target.clone());
    }
    conditions
}

/// Bytes that the maps of this process take, as the kernel counts them; chunks of slots, which it holds no descriptor of, apart.
fn map_memory() -> Result<f64> {
    let mut maps = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fdinfo").context("cannot list this process's descriptors")? {
        // The one of the listing itself is gone.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        if let (Some(id), Some(bytes)) = (field("map_id:"), field("memlock:")) {
            maps.insert(id, bytes);
        }
    }
    Ok(maps.values().sum::<u64>() as f64)
}

/// Bytes of this process's memory.
pub fn resident_memory() -> Result<f64> {
    let text = fs::read_to_string("/proc/self/status").context("cannot read this process's status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS in the status")?;
    let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse().context("VmRSS is no number")?;
    Ok(kibibytes * 1024.0)
}
