//! The path's own cost of an answer, with the tables of an agent that runs: its pinned maps, in the programs of `bench path`.

use super::{
    asker::packet,
    cable::Cable,
    cases::{Asked, Case, FIRST_CLIENT},
};
use crate::{
    arguments::DnsArguments,
    cases::{Action, PATH},
    control::{CLIENT4, Control, NAME4, ROUNDS},
    measure::{WARMING, learn, template},
    object::Programs,
    path::stay_on,
    report::median,
};
use anyhow::{Context as _, Result, ensure};
use aya::{EbpfLoader, programs::TestRunOptions};
use std::{fs, path::Path};

const FLOOR: &str = "rounds_pass";
const PORTS: [u16; 2] = [40_000, 53];

/// Nanoseconds a question: of the path, and of a program that lets the same frame, restored in the same way, pass. To be called in
/// the balancer's namespace.
pub fn measure(pins: &Path, cable: &Cable, case: &Case, arguments: &DnsArguments) -> Result<[f64; 2]> {
    stay_on(arguments.cpu)?;
    let entries = fs::read_dir(pins).with_context(|| format!("cannot list {}", pins.display()))?;
    let names = entries.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>>>()?;
    let mut loader = EbpfLoader::new();
    for name in names.iter().filter_map(|name| name.to_str()) {
        loader.map_pin_path(name, pins.join(name));
    }
    let mut programs = Programs::load(&mut loader)?;
    let [server, client] = cable.addresses(case.ipv6);
    let frame = packet(cable, [client, server], PORTS, &case.message()?);
    let mut control = template(&frame)?;
    programs.set_control(|_| control)?;
    learn(&programs, &frame, Action::Transmit, &mut control, arguments.cpu)?;
    if case.asked == Asked::Numbered {
        (control.flows, control.flow_mask) = (NAME4, case.names().into());
    } else if case.clients > 1 {
        (control.flows, control.flow_mask, control.first_flow) =
            (CLIENT4, (case.clients - 1).into(), FIRST_CLIENT.into());
    }
    let floor = Control { front: 0, end: 0, ..control };
    let rounds = [(PATH, control, Action::Transmit), (FLOOR, floor, Action::Pass)];
    let mut nanoseconds = [Vec::new(), Vec::new()];
    for _ in 0..arguments.runs {
        for ((program, control, action), numbers) in rounds.iter().zip(&mut nanoseconds) {
            programs.set_control(|_| *control)?;
            run(&programs, program, *action, &frame, WARMING)?;
            numbers.push(run(&programs, program, *action, &frame, arguments.packets.div_ceil(ROUNDS))?);
        }
    }
    Ok(nanoseconds.map(|mut numbers| {
        numbers.sort_by(f64::total_cmp);
        median(&numbers)
    }))
}

fn run(programs: &Programs, program: &str, action: Action, frame: &[u8], repeat: u32) -> Result<f64> {
    let options = TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::default() };
    let result = programs.run(program, options)?;
    let returned = result.return_value;
    ensure!(returned == action as u32, "the program returned {returned} instead of {action:?}");
    Ok(result.duration.as_nanos() as f64 / f64::from(ROUNDS))
}
