//! The tables of the path's cases, made by the agent's own code.

use crate::config::{self, BACKENDS, CHANGED, FAR4, SLOTS};
use anyhow::{Context as _, Result, ensure};
use aya::Ebpf;
use lb_common::{
    tables::{FlowTable, Settings},
    verdict::Why,
};
use lb_userspace::{
    config::Config,
    kernel::maps::Maps,
    model::{
        actual::Actual,
        desired::{self, Conditions, Desired, Draining},
        intent::{Backend, Intent, Limits},
        op::Op,
        reach::{Hop, Way},
    },
    settle::settle,
};
use std::{collections::BTreeMap, time::Duration};

/// An interface of the balancer.
#[derive(Clone, Copy)]
pub struct Link {
    /// Its index.
    pub index: u32,
    /// Its MAC address.
    pub mac: [u8; 6],
}

/// Where the frames of test runs come in.
pub const LOOPBACK: Link = Link { index: 1, mac: [2, 0, 0, 0, 0, 1] };
/// Bytes of the longest packet on all ways.
const MTU: u16 = 1_500;
/// A moment, and one at which no adoption window is over yet.
const MOMENTS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(2)];

/// The maps and what they hold.
pub struct Tables {
    maps: Maps,
    actual: Actual,
}

impl Tables {
    /// Takes the maps of an object and writes them. Most backends are at `near`, some at `far`; clients may be at `others`.
    pub fn write(ebpf: &mut Ebpf, near: Link, far: Link, others: &[Link]) -> Result<Self> {
        let limits = Limits::default();
        let mut tables = Self { maps: Maps::take(ebpf, limits, None)?, actual: Actual::new(limits) };
        let intent = Intent::new(&Config::parse(&config::text())?)?;
        let mut conditions = conditions(&intent, near, far);
        conditions.interfaces.extend(others.iter().map(|link| (link.index, link.mac)));
        // One half takes over from the other, so that each slot changes.
        let changed = intent.services().iter().find(|service| service.name == CHANGED);
        let changed = changed.context("no service whose slots change")?;
        let (first, second) = changed.backends.split_at(BACKENDS.into());
        for (drained, now) in [second, first].into_iter().zip(MOMENTS) {
            let drain = |backend: &Backend| ((changed.endpoint, backend.endpoint), Draining::default());
            conditions.drains = drained.iter().map(drain).collect();
            let mut desired = Desired::new(&intent, &conditions, now);
            desired.answers.replace(desired::names(&intent, &conditions).all());
            settle(&desired, &mut tables.maps, &mut tables.actual, now)?;
        }
        let count = tables.actual.changed_slots();
        ensure!(count == SLOTS as usize, "{count} slots are changed instead of {SLOTS}");
        Ok(tables)
    }

    /// Has packets pay for what some service needs, or for nothing but the least.
    pub fn set_features(&mut self, features: u64) -> Result<()> {
        let settings = self.actual.settings.context("the tables are empty")?;
        let op = Op::PutSettings(Settings { features, ..settings }.into());
        self.maps.apply(&op)?;
        self.actual.record(&op);
        Ok(())
    }

    /// Packets by the way they left.
    pub fn counts(&self) -> Result<BTreeMap<Why, u64>> {
        Ok(self.maps.counts()?)
    }

    /// Packets that were sent to backends through tunnels.
    pub fn tunneled(&self) -> Result<u64> {
        Ok(self.counts()?.get(&Why::ForwardedTunnel).copied().unwrap_or_default())
    }

    /// How many flows are tracked, in each of the two tables.
    pub fn flows(&self) -> Result<BTreeMap<FlowTable, u64>> {
        let mut counts = BTreeMap::new();
        self.maps.for_each_flow(|table, _, _| *counts.entry(table).or_default() += 1)?;
        Ok(counts)
    }
}

fn conditions(intent: &Intent, near: Link, far: Link) -> Conditions {
    let interfaces = [near, far].map(|link| (link.index, link.mac)).into();
    let mut conditions = Conditions { interfaces, ..Conditions::default() };
    for backend in intent.services().iter().flat_map(|service| &service.backends) {
        let address = backend.endpoint.ip();
        let Link { index, mac } = if address.to_string().starts_with(FAR4) { far } else { near };
        let hop = Hop { interface: index, destination: [2, 0, 0, 0, 1, 1], source: mac, mtu: MTU };
        conditions.ways.insert(address, Ok(Way { hop, gateway: None }));
        conditions.up.insert(backend.target.clone());
    }
    conditions
}
