//! Runs cases in the kernel: each is seen to do what it says before it is measured.

use crate::{
    cases::{Action, Case, PATH},
    control::{
        ADDRESS4, ADDRESS4_TAGGED, ADDRESS6, ALL, Control, DATAGRAM4, HEADERS, LINK, ONE_FLOW, ROUNDS, TAGGED,
        TEMPLATE_WORDS,
    },
    object::{Object, Programs},
};
use anyhow::{Context as _, Result, ensure};
use aya::programs::TestRunOptions;
use bytemuck::Zeroable as _;
use lb_common::{tables::FlowTable, verdict::Why};
use std::collections::BTreeMap;

/// Runs of a check: a few, as the first one of a program has other caches.
const CHECKED: u32 = 3;
/// Runs before a measurement, twice as many packets as the flows that fit some cache.
pub const WARMING: u32 = (1 << 17) / ROUNDS;

/// A case that does what it says.
pub struct Ready {
    /// The case.
    pub case: Case,
    /// What its programs are told.
    pub control: Control,
}

impl Ready {
    /// Sees what the path does with the case's frame, whether that is what the case says, and how it is undone. Everything runs on
    /// this CPU, where this thread has to stay.
    pub fn new(object: &mut Object, case: Case, cpu: usize) -> Result<Self> {
        let name = case.name.clone();
        Self::try_new(object, case, cpu).with_context(|| format!("case {name:?}"))
    }

    fn try_new(object: &mut Object, mut case: Case, cpu: usize) -> Result<Self> {
        write_first_flow(&mut case);
        let mut ready = Self { control: control(&case)?, case };
        if ready.case.program == PATH {
            ready.begin(object)?;
            let Self { case, control } = &mut ready;
            learn(&object.programs, &case.frame, case.action, control, cpu)?;
        } else if ready.case.program == "rounds_encapsulate" {
            ready.control.front = -20;
        }
        ready.check(object)?;
        Ok(ready)
    }

    /// Nanoseconds a packet, once caches and predictors know the case.
    pub fn measure(&self, object: &mut Object, packets: u32) -> Result<f64> {
        let runs = self.begin(object).and_then(|()| {
            self.run(object, WARMING)?;
            self.run(object, packets.div_ceil(ROUNDS))
        });
        runs.with_context(|| format!("case {:?}", self.case.name))
    }

    fn begin(&self, object: &mut Object) -> Result<()> {
        object.tables.set_features(self.case.features)?;
        object.programs.set_control(|_| self.control)?;
        if let Some(frame) = &self.case.before {
            object.programs.run("probe", TestRunOptions { data_in: Some(frame), ..TestRunOptions::default() })?;
        }
        Ok(())
    }

    fn run(&self, object: &Object, repeat: u32) -> Result<f64> {
        let options = TestRunOptions { data_in: Some(&self.case.frame), repeat, ..TestRunOptions::default() };
        let result = object.programs.run(self.case.program, options)?;
        let (returned, expected) = (result.return_value, self.case.action);
        ensure!(returned == expected as u32, "the program returned {returned} instead of {expected:?}");
        Ok(result.duration.as_nanos() as f64 / f64::from(ROUNDS))
    }

    /// Runs the case and compares what is counted with what it says.
    fn check(&self, object: &mut Object) -> Result<()> {
        let Self { case, .. } = self;
        let repeat = match case.tracked {
            // Each flow sends a packet.
            Some(_) => case.flows / ROUNDS,
            None => CHECKED,
        };
        self.begin(object)?;
        let before = object.tables.counts()?;
        self.run(object, repeat)?;
        let after = object.tables.counts()?;
        let moved: BTreeMap<Why, u64> = after
            .into_iter()
            .map(|(why, count)| (why, count - before.get(&why).copied().unwrap_or_default()))
            .filter(|(_, count)| *count != 0)
            .collect();
        let expected: BTreeMap<Why, u64> = case.why.iter().map(|why| (*why, u64::from(repeat * ROUNDS))).collect();
        ensure!(moved == expected, "counted {moved:?} instead of {expected:?}");
        self.check_flows(object)
    }

    /// Sees that the flows of the case are tracked. Before its measurement and after it.
    pub fn check_flows(&self, object: &Object) -> Result<()> {
        let Some(table) = self.case.tracked else { return Ok(()) };
        let (name, flows) = (&self.case.name, u64::from(self.case.flows));
        let count = object.tables.flows()?.get(&table).copied().unwrap_or_default();
        // A flood fills its table and then pushes out its like.
        let as_said = if table == FlowTable::Established { count == flows } else { count > 0 };
        ensure!(as_said, "{name:?}: {count} flows are tracked ({table:?})");
        Ok(())
    }

    /// In one line, how its frame is restored.
    pub fn describe(&self) -> String {
        let Control { length, restored, front, end, flows, .. } = self.control;
        let restored = match restored {
            LINK => "Ethernet header",
            TAGGED => "Ethernet header and tag",
            HEADERS => "headers",
            _ => "all of it",
        };
        let written = if flows == ONE_FLOW { "" } else { ", flow written" };
        format!("{length} bytes, front {front:+}, end {end:+}, restored: {restored}{written}")
    }
}

/// One call of the path, to learn how far it moves the frame's ends and what it overwrites.
pub fn learn(programs: &Programs, frame: &[u8], action: Action, control: &mut Control, cpu: usize) -> Result<()> {
    let mut after = vec![0; 4096];
    let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut after), ..TestRunOptions::default() };
    let result = programs.run("probe", options)?;
    ensure!(result.return_value == action as u32, "the path returned {}", result.return_value);
    after.truncate(result.data_size_out as usize);
    let [start, end, new_start, new_end] = programs.control(cpu)?.bounds.map(|address| address as i64);
    (control.front, control.end) = (new_start - start, new_end - end);
    // What was cut off is not known to be unchanged.
    let is_changed = |at: &usize| {
        let place = usize::try_from(*at as i64 - control.front).ok();
        place.and_then(|place| after.get(place)) != frame.get(*at)
    };
    let changed = (0..frame.len()).rev().find(is_changed).map_or(0, |last| last + 1);
    control.restored = match changed {
        0..=14 => LINK,
        15..=18 => TAGGED,
        19..=64 => HEADERS,
        65..=72 if frame.len() >= 72 => HEADERS,
        _ => ALL,
    };
    Ok(())
}

/// What programs are told of a frame that is the same in each round.
pub fn template(frame: &[u8]) -> Result<Control> {
    let mut control = Control::zeroed();
    ensure!(frame.len() <= TEMPLATE_WORDS * 8, "a frame of {} bytes is too long", frame.len());
    let template: &mut [u8] = bytemuck::cast_slice_mut(&mut control.template);
    template.iter_mut().zip(frame).for_each(|(to, from)| *to = *from);
    control.length = frame.len() as u64;
    Ok(control)
}

fn control(case: &Case) -> Result<Control> {
    let mut control = template(&case.frame)?;
    control.flows = case.vary;
    control.flow_mask = u64::from(case.flows - 1);
    control.first_flow = case.first;
    Ok(control)
}

/// The frame by itself is of the first flow.
fn write_first_flow(case: &mut Case) {
    let bytes = case.first.to_be_bytes();
    let (at, length) = match case.vary {
        ADDRESS4 => (26, 4),
        ADDRESS4_TAGGED => (30, 4),
        ADDRESS6 => (30, 8),
        DATAGRAM4 => (18, 2),
        _ => return,
    };
    let bytes = bytes.iter().skip(bytes.len() - length);
    case.frame.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
}
