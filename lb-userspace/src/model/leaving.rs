//! Backends that are no longer in the config, but still have flows: they stay in the tables, for these only.

use super::{
    actual::Actual,
    backends::{BackendKey, is_live},
    desired::Conditions,
    intent::{Intent, Mode, Target},
};
use lb_common::tables::Endpoint;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A backend that is leaving.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leaving {
    /// What is probed for it; unknown after a restart.
    pub target: Option<Target>,
    /// When its flows are given up.
    pub deadline: Option<Duration>,
}

impl Leaving {
    /// Whether its flows can stay with it.
    pub fn is_up(&self, conditions: &Conditions, now: Duration) -> bool {
        let up = self.target.as_ref().is_none_or(|target| conditions.up.contains(target));
        up && self.deadline.is_none_or(|deadline| deadline > now)
    }
}

/// What is in the tables and not in the intent, but may have flows that can stay: backends of services that go on, with another
/// forward mode or without them. `conditions` are those of before; `targets` says what was probed for a backend.
///
/// Of two NAT backends at one endpoint nobody could tell the replies apart, so the one that comes ends the one that leaves.
pub fn leaving(
    actual: &Actual,
    intent: &Intent,
    conditions: &Conditions,
    targets: &BTreeMap<BackendKey, Target>,
    now: Duration,
) -> BTreeMap<BackendKey, Leaving> {
    let nat = intent.services().iter().filter(|service| service.mode == Mode::Nat);
    let nat: BTreeSet<Endpoint> = nat.flat_map(|service| &service.backends).map(|backend| backend.endpoint).collect();
    let nat_addresses: BTreeSet<Endpoint> = nat.iter().map(Endpoint::without_port).collect();
    let is_taken = |own: &Endpoint| {
        nat.contains(own) || nat.contains(&own.without_port()) || own.port() == 0 && nat_addresses.contains(own)
    };
    let mut leaving = BTreeMap::new();
    for service in intent.services() {
        let stays: BTreeSet<Endpoint> = service.backends.iter().map(|backend| backend.endpoint).collect();
        for (_, backend) in actual.backends.of(&service.endpoint).filter(|(_, backend)| is_live(backend)) {
            let key = BackendKey::from(backend);
            if key.mode == service.mode && stays.contains(&key.own) || key.mode == Mode::Nat && is_taken(&key.own) {
                continue;
            }
            let known = conditions.leaving.get(&key).cloned().unwrap_or_else(|| {
                let drained = conditions.drains.get(&(key.service, key.own)).and_then(|drain| drain.deadline);
                let deadline = drained.or_else(|| Some(now + intent.tracking().drain?));
                Leaving { target: targets.get(&key).cloned(), deadline }
            });
            leaving.insert(key, known);
        }
    }
    leaving
}
