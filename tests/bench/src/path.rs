//! `bench path`: the path's own cost.

use crate::{
    arguments::PathArguments,
    cases::{self, CLIENTS, Case},
    live,
    measure::Ready,
    object::Object,
    report::{self, Row},
    tables::{LOOPBACK, Link},
};
use anyhow::{Context as _, Result, ensure};
use lb_userspace::{
    kernel::load::{PROGRAMS, load, program},
    model::intent::Limits,
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use tests::{Host, Lab, Layout};

/// Measures what was asked for and reports it.
pub fn run(arguments: &PathArguments) -> Result<()> {
    let lab = Lab::blueprint(Layout::Routed).backends(1).up()?;
    let rows = lab.balancer().inside(|| measure(lab.balancer(), arguments))??;
    report::print(&rows);
    if let Some(path) = &arguments.json {
        report::write(&rows, path)?;
    }
    if arguments.live {
        live::run(&lab, arguments)?;
    }
    Ok(())
}

fn measure(balancer: &Host, arguments: &PathArguments) -> Result<Vec<Row>> {
    stay_on(arguments.cpu)?;
    print_sizes()?;
    let [eth0, eth1] = ["eth0", "eth1"].map(|name| link(balancer, name));
    let (eth0, eth1) = (eth0?, eth1?);
    // The kernel knows the way to the clients.
    let neighbor = |client| format!("neigh replace {client} lladdr 02:00:00:00:00:10 dev eth0 nud permanent");
    balancer.ip(&CLIENTS.map(neighbor))?;
    let mut object = Object::load(LOOPBACK, eth1, &[eth0])?;
    let ready = wanted(arguments)?
        .into_iter()
        .map(|case| Ready::new(&mut object, case, arguments.cpu))
        .collect::<Result<Vec<_>>>()?;
    let mut nanoseconds = vec![Vec::new(); ready.len()];
    for _ in 0..arguments.runs {
        for (ready, numbers) in ready.iter().zip(&mut nanoseconds) {
            numbers.push(ready.measure(&mut object, arguments.packets)?);
        }
    }
    ready.iter().try_for_each(|ready| ready.check_flows(&object))?;
    Ok(ready
        .iter()
        .zip(nanoseconds)
        .map(|(ready, numbers)| Row::new(&ready.case.name, &ready.describe(), numbers))
        .collect())
}

fn wanted(arguments: &PathArguments) -> Result<Vec<Case>> {
    let mut cases = cases::all()?;
    let only = &arguments.only;
    if !only.is_empty() {
        cases.retain(|case| case.why.is_none() || only.iter().any(|text| case.name.contains(text)));
        ensure!(cases.iter().any(|case| case.why.is_some()), "no case has one of {only:?} in its name");
    }
    Ok(cases)
}

/// How large the programs of `lb` are.
fn print_sizes() -> Result<()> {
    let (mut ebpf, _maps) = load(None, Limits::default())?;
    for name in PROGRAMS {
        let info = program(&mut ebpf, name)?.info()?;
        let followed = info.verified_instruction_count().unwrap_or_default();
        println!("{name}: {} bytes of machine code, {followed} instructions verified", info.size_jitted());
    }
    println!();
    Ok(())
}

fn link(host: &Host, name: &str) -> Result<Link> {
    let interface = host.interface(name).with_context(|| format!("the balancer has no {name}"))?;
    Ok(Link { index: interface.index, mac: interface.mac })
}

/// Keeps this thread on one CPU.
pub fn stay_on(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).with_context(|| format!("cannot stay on CPU {cpu}"))
}
