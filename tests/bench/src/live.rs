//! `bench path --live`: live frames over veths, counted where they arrive.
//!
//! Frames are made in the client's namespace, come in by `in` of the balancer, and leave by `in` or by `out`. Everything that
//! happens to a frame happens on the CPU that makes it: the kernel's driver of veths has a queue for each CPU. So this is the rate of
//! a core that does nothing else, with what it takes to make the frame, and the difference between two rows is what the path takes.

use crate::{
    arguments::PathArguments,
    cases::{AWAY, TUNNEL},
    control::{ADDRESS4, Control, HEADERS},
    frames::Ends,
    object::Object,
    path::stay_on,
    report::median,
    tables::Link,
};
use anyhow::{Context as _, Result, ensure};
use aya::{
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode, xdp::XdpLinkId},
    util::online_cpus,
};
use bytemuck::Zeroable as _;
use std::{
    panic::resume_unwind,
    thread,
    time::{Duration, Instant},
};
use tests::{Host, Lab, wait_until};

const RUNS: usize = 5;
/// Frames that are made at once.
const BATCH: u32 = 64;
/// Flows of each CPU.
const FLOWS: u64 = 1 << 16;

/// Both ends of two cables: index, and MAC address of the balancer's end.
const IN: Link = Link { index: 1_001, mac: [2, b'l', b'b', 9, 0, 1] };
const CLIENT: u32 = 1_002;
const OUT: Link = Link { index: 1_003, mac: [2, b'l', b'b', 9, 0, 3] };
const BACKEND: u32 = 1_004;

/// What is done with the frames that come in.
struct Row {
    name: &'static str,
    /// The balancer's program.
    program: &'static str,
    /// What the frames are sent to.
    to: Ends<'static>,
    /// Whether the path sends them on to a backend.
    steered: bool,
}

const fn row(name: &'static str, program: &'static str, to: Ends<'static>, steered: bool) -> Row {
    Row { name, program, to, steered }
}

/// With the least that brings a frame to where it is counted, and with the path.
const ROWS: [Row; 6] = [
    row("drop", "receive", TUNNEL, false),
    row("drop, after the path", "live_path_drop", TUNNEL, true),
    row("transmit", "live_swap", TUNNEL, false),
    row("transmit, by the path", "live_path", TUNNEL, true),
    row("redirect", "live_redirect", TUNNEL, false),
    row("redirect, by the path", "live_path", AWAY, true),
];

/// Measures and prints.
pub fn run(lab: &Lab, arguments: &PathArguments) -> Result<()> {
    let first = arguments.cpu;
    let online = online_cpus().map_err(|(_, error)| error).context("cannot count the CPUs")?;
    let second = online.into_iter().map(|cpu| cpu as usize).find(|cpu| *cpu != first);
    lay_cables(lab)?;
    println!("\n{:22}  {:>9}  {:>9}  {:>7}  {:>6}", "Mpps where they arrive", "1 CPU", "2 CPUs", "ratio", "lost");
    let mut object = lab.balancer().inside(|| Object::load(IN, OUT, &[]))??;
    attach(&mut object, lab.client(), "receive", CLIENT)?;
    let backend = lab.backends().first().context("the lab has no backend")?;
    attach(&mut object, backend, "receive", BACKEND)?;
    for row in &ROWS {
        let one = measure(&mut object, lab, row, &[first], arguments.frames)?;
        let two = match second {
            Some(second) => Some(measure(&mut object, lab, row, &[first, second], arguments.frames)?),
            None => None,
        };
        let lost = one.lost.max(two.as_ref().map_or(0.0, |two| two.lost)) * 100.0;
        print!("{:22}  {:9.2}", row.name, one.rate);
        match two {
            Some(two) => println!("  {:9.2}  {:7.2}  {lost:5.1}%", two.rate, two.rate / one.rate),
            None => println!("  {:>9}  {:>7}  {lost:5.1}%", "-", "-"),
        }
    }
    Ok(())
}

/// A pair of veths to the client and one to a backend, with a queue for each of two CPUs.
fn lay_cables(lab: &Lab) -> Result<()> {
    let backend = lab.backends().first().context("the lab has no backend")?;
    let cable = |name: &str, link: Link, peer: u32, host: &Host| {
        let mac = link.mac.map(|byte| format!("{byte:02x}")).join(":");
        let queues = "numtxqueues 2 numrxqueues 2";
        [
            format!(
                "link add name {name} index {} address {mac} {queues} type veth peer name {name} index {peer} {queues} netns {}",
                link.index,
                host.namespace()
            ),
            format!("link set {name} up"),
        ]
    };
    lab.balancer().ip(&[cable("in", IN, CLIENT, lab.client()), cable("out", OUT, BACKEND, backend)].concat())?;
    lab.client().ip(&["link set in up".into()])?;
    backend.ip(&["link set out up".into()])
}

/// Puts a program on an interface for as long as the object lives.
fn attach(object: &mut Object, host: &Host, name: &'static str, index: u32) -> Result<XdpLinkId> {
    let program = object.programs.program_mut(name)?;
    host.inside(|| program.attach_to_if_index(index, XdpMode::Driver))?
        .with_context(|| format!("cannot attach {name} to interface {index}"))
}

/// What came of a row's runs.
struct Outcome {
    /// Million frames a second that arrived, median.
    rate: f64,
    /// The largest share of the frames that did not.
    lost: f64,
}

fn measure(object: &mut Object, lab: &Lab, row: &Row, cpus: &[usize], frames: u32) -> Result<Outcome> {
    let link = attach(object, lab.balancer(), row.program, IN.index)?;
    let outcome = try_measure(object, lab, row, cpus, frames).with_context(|| format!("live frames, {}", row.name));
    object.programs.program_mut(row.program)?.detach(link)?;
    outcome
}

fn try_measure(object: &mut Object, lab: &Lab, row: &Row, cpus: &[usize], frames: u32) -> Result<Outcome> {
    let frame = row.to.tcp(0)?;
    let mut control = Control::zeroed();
    let template: &mut [u8] = bytemuck::cast_slice_mut(&mut control.template);
    template.iter_mut().zip(&frame).for_each(|(to, from)| *to = *from);
    control.length = frame.len() as u64;
    (control.restored, control.flows, control.flow_mask) = (HEADERS, ADDRESS4, FLOWS - 1);
    (control.interface, control.away) = (CLIENT.into(), OUT.index.into());
    object.programs.set_control(|cpu| {
        let mut own = control;
        own.first_flow = 0x0a00_0000 + cpu as u64 * FLOWS;
        own
    })?;

    let sent = u64::from(frames) * cpus.len() as u64;
    let (mut rates, mut lost) = (Vec::new(), 0.0_f64);
    for _ in 0..RUNS {
        let tunneled = object.tables.tunneled()?;
        let before = object.programs.received()?;
        let elapsed = generate(object.programs.program("generate")?, lab.client(), cpus, &frame, frames)?;
        let arrived = arrived(object, before, sent)?;
        if row.steered {
            let tunneled = object.tables.tunneled()? - tunneled;
            ensure!(tunneled >= arrived, "{arrived} frames arrived, but the path sent {tunneled} to backends");
        }
        ensure!(arrived * 2 > sent, "of {sent} frames only {arrived} arrived");
        rates.push(arrived as f64 / elapsed.as_secs_f64() / 1e6);
        lost = lost.max(1.0 - arrived as f64 / sent as f64);
    }
    rates.sort_by(f64::total_cmp);
    Ok(Outcome { rate: median(&rates), lost })
}

/// Has each CPU make frames, and says how long that took.
fn generate(program: &Xdp, client: &Host, cpus: &[usize], frame: &[u8], frames: u32) -> Result<Duration> {
    let on = |cpu: usize| -> Result<(Instant, Instant)> {
        client.inside(|| {
            stay_on(cpu)?;
            let started = Instant::now();
            let attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
            let options = TestRunOptions { data_in: Some(frame), repeat: frames, attrs, ..TestRunOptions::default() };
            program.test_run(options).context("BPF_PROG_TEST_RUN failed")?;
            Ok((started, Instant::now()))
        })?
    };
    let moments = thread::scope(|scope| {
        let threads: Vec<_> = cpus.iter().map(|cpu| scope.spawn(|| on(*cpu))).collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
        joined.collect::<Result<Vec<_>>>()
    })?;
    let started = moments.iter().map(|(started, _)| *started).min().context("no CPU")?;
    let ended = moments.iter().map(|(_, ended)| *ended).max().context("no CPU")?;
    Ok(ended - started)
}

/// How many frames have arrived, when all have or no more do.
fn arrived(object: &Object, before: u64, sent: u64) -> Result<u64> {
    let mut last = None;
    wait_until(Duration::from_secs(5), "no more frames arrive", || {
        let now = object.programs.received().ok()?.saturating_sub(before);
        let ended = now == sent || last.replace(now) == Some(now);
        ended.then_some(now)
    })
}
