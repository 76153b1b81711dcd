//! Brings the maps to what they should hold: does plans step by step, and sweeps the flow tables.

use crate::{
    kernel::{KernelError, flows::seconds, maps::Maps},
    model::{
        actual::Actual,
        desired::Desired,
        flows::{FlowCounts, Sweep},
        intent::Tracking,
        op::Op,
        plan::plan,
    },
};
use lb_common::tables::answers::DnsSettings;
use std::time::Duration;

/// Plans that follow each other until nothing is left to do. One is usual, two more make room.
const PLANS: usize = 4;

/// Makes the maps what they should be, and says how many steps that took. What was done is recorded: after an error the next plan
/// goes on from there.
pub fn settle(desired: &Desired, maps: &mut Maps, actual: &mut Actual, now: Duration) -> anyhow::Result<usize> {
    let (mut steps, mut plans) = (0, 0);
    while plans < PLANS {
        let ops = plan(desired, actual, now)?;
        for op in &ops {
            apply(op, maps, actual)?;
        }
        if ops.is_empty() {
            break;
        }
        steps += ops.len();
        // Of many answers each plan has some.
        if !ops.iter().any(|op| matches!(op, Op::FollowAnswers { .. })) {
            plans += 1;
        }
    }
    Ok(steps)
}

/// Says that the agent is there: moves on until when its answers hold.
pub fn heartbeat(settings: DnsSettings, maps: &mut Maps, actual: &mut Actual) -> Result<(), KernelError> {
    if actual.dns == Some(settings) { Ok(()) } else { apply(&Op::PutDns(settings), maps, actual) }
}

/// Sweeps the flow tables: makes clean what is, and forgets what need not be known.
pub fn sweep(maps: &mut Maps, actual: &mut Actual, tracking: Tracking) -> Result<FlowCounts, KernelError> {
    let first = look(maps, actual, tracking)?;
    let clean = first.clean();
    let (forget, counts) = if clean.is_empty() {
        first.end()
    } else {
        for op in clean.iter().chain([&Op::Grace]) {
            apply(op, maps, actual)?;
        }
        look(maps, actual, tracking)?.end()
    };
    if let Some(op) = &forget {
        apply(op, maps, actual)?;
    }
    Ok(counts)
}

fn look<'a>(maps: &Maps, actual: &'a Actual, tracking: Tracking) -> Result<Sweep<'a>, KernelError> {
    let mut sweep = Sweep::new(actual, tracking, seconds()?);
    maps.for_each_flow(|table, key, flow| sweep.look(table, key, flow))?;
    Ok(sweep)
}

fn apply(op: &Op, maps: &mut Maps, actual: &mut Actual) -> Result<(), KernelError> {
    maps.apply(op)?;
    actual.record(op);
    log(op);
    Ok(())
}

fn log(op: &Op) {
    match op {
        Op::StoreSlots { endpoint, slots, .. } if !slots.is_empty() => {
            tracing::debug!(address = %endpoint.ip(), port = endpoint.port(), slots = slots.len(), "slots turned");
        }
        Op::SwapTable { endpoint, region, .. } => {
            tracing::debug!(address = %endpoint.ip(), port = endpoint.port(), slots = region.slots, "table swapped");
        }
        Op::PutService { endpoint, .. } => {
            tracing::info!(address = %endpoint.ip(), port = endpoint.port(), "service added")
        }
        Op::RemoveService { endpoint, .. } => {
            tracing::info!(address = %endpoint.ip(), port = endpoint.port(), "service removed");
        }
        _ => (),
    }
}
