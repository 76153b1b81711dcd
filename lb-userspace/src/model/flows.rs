//! What the flow tables tell: which slots are clean again, which backends have no flows any more, and which entries are stale.
//!
//! A sweep looks at all entries twice. The first look finds slots that no live flow contradicts; they are made clean. After a
//! grace period no packet of theirs looks for its flow any more, so the second look finds what can be forgotten: a stale entry would
//! capture a later flow of the same client.

use super::{
    actual::{Actual, ActualService},
    backends::{BackendKey, is_live},
    intent::Tracking,
    op::Op,
    tracking::Table,
};
use lb_common::{
    hash::{self, Keys},
    tables::{CLEAN, CLOSED, FlowKey, FlowTable, Slot, Tracked},
    wire::transport::TCP,
};
use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

/// After its end a connection is over when both sides have had time to send what is left: RFC 9293 section 3.6.1, twice the
/// longest time of a segment on its way, as Linux counts it (`TCP_TIMEWAIT_LEN`).
const CLOSING_SECONDS: u32 = 120;

/// Entries that were looked at.
pub struct Sweep<'a> {
    actual: &'a Actual,
    keys: Keys,
    tracking: Tracking,
    seconds: u32,
    /// Services by id.
    services: HashMap<u32, (bool, &'a ActualService)>,
    /// Closed slots that a live flow contradicts, by the service's id.
    contradicted: HashMap<u32, BTreeSet<u32>>,
    /// Live flows by backend.
    flows: HashMap<u32, u64>,
    tracked: u64,
    stale: Vec<(FlowTable, FlowKey)>,
}

/// Live flows, as of a sweep.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// By the id of their backend.
    pub of: HashMap<u32, u64>,
    /// Entries that are kept, live or not.
    pub tracked: u64,
}

impl<'a> Sweep<'a> {
    /// Of tables that hold this, at a second of the path's clock.
    pub fn new(actual: &'a Actual, tracking: Tracking, seconds: u64) -> Self {
        let service = |(endpoint, service): (&lb_common::tables::Endpoint, &'a ActualService)| {
            (service.id, (endpoint.protocol() == TCP, service))
        };
        Self {
            actual,
            keys: actual.settings.map_or(bytemuck::Zeroable::zeroed(), |settings| settings.keys),
            tracking,
            seconds: seconds as u32,
            services: actual.services.iter().map(service).collect(),
            contradicted: HashMap::new(),
            flows: HashMap::new(),
            tracked: 0,
            stale: Vec::new(),
        }
    }

    /// Looks at an entry.
    pub fn look(&mut self, table: FlowTable, key: &FlowKey, flow: Tracked) {
        let backend = self.actual.backends.entry(flow.backend);
        let Some((is_tcp, number, slot)) = self.slot(key).filter(|_| backend.is_some()) else {
            // Nothing leads to it, and nothing may find it when its ids are given to others.
            return self.stale.push((table, *key));
        };
        if slot.previous == CLEAN {
            return self.stale.push((table, *key));
        }
        self.tracked += 1;
        if backend.is_some_and(is_live) && self.is_fresh(flow, is_tcp) {
            *self.flows.entry(flow.backend).or_default() += 1;
            if slot.previous == CLOSED && flow.backend != slot.current {
                self.contradicted.entry(key.service()).or_default().insert(number);
            }
        }
    }

    /// The slot of a flow, with its number, and whether its service is TCP.
    fn slot(&self, key: &FlowKey) -> Option<(bool, u32, Slot)> {
        let (is_tcp, service) = self.services.get(&key.service())?;
        let table = service.table.as_ref()?;
        let number = hash::slot(hash::flow(&self.keys, key.words()), table.region().slots);
        Some((*is_tcp, number, *table.slots().get(number as usize)?))
    }

    fn is_fresh(&self, flow: Tracked, is_tcp: bool) -> bool {
        let idle = if is_tcp { self.tracking.tcp_idle } else { self.tracking.udp_idle };
        let limit = if flow.closing { CLOSING_SECONDS } else { idle.as_secs().try_into().unwrap_or(u32::MAX) };
        // The clocks may be a moment apart, and entries have 31 bits of it.
        let age = self.seconds.wrapping_sub(flow.seen) & 0x7fff_ffff;
        age <= limit || age > 0x4000_0000
    }

    /// Steps that make those slots clean whose windows are closed and which no live flow contradicts.
    pub fn clean(&self) -> Vec<Op> {
        let mut ops = Vec::new();
        for (endpoint, service) in &self.actual.services {
            let Some(table) = service.table.as_ref().filter(|table| table.changed() > 0) else { continue };
            let contradicted = self.contradicted.get(&service.id);
            let is_clean = |number: &u32| contradicted.is_none_or(|contradicted| !contradicted.contains(number));
            let closed = (0..).zip(table.slots()).filter(|(_, slot)| slot.previous == CLOSED);
            let slots = closed.filter(|(number, _)| is_clean(number));
            let slots: Vec<_> = slots.map(|(number, slot)| (number, Slot::clean(slot.current))).collect();
            if !slots.is_empty() {
                let (endpoint, region, deadline) = (*endpoint, table.region(), Duration::MAX);
                ops.push(Op::StoreSlots { endpoint, region, slots: slots.into(), deadline, reached: None });
            }
        }
        ops
    }

    /// The step that forgets what no packet looks for, if there is any, and what flows there are. A grace period must have passed
    /// since the last slot was made clean.
    pub fn end(self) -> (Option<Op>, FlowCounts) {
        let forget = (!self.stale.is_empty()).then(|| Op::ForgetFlows { flows: self.stale.into() });
        (forget, FlowCounts { of: self.flows, tracked: self.tracked })
    }
}

/// Whether a backend has flows: tracked ones, or such that the path would still find by a slot.
pub fn has_flows(actual: &Actual, counts: &FlowCounts, key: &BackendKey) -> bool {
    let Some(id) = actual.backends.id(key) else { return false };
    let table = actual.services.get(&key.service).and_then(|service| service.table.as_ref());
    counts.of.contains_key(&id) || table.is_some_and(|table: &Table| table.names(id))
}
