//! Probes, and the health that they add up to.

use super::Agent;
use crate::{
    model::{
        health::Health,
        intent::{Intent, Target},
    },
    probe::{self, Probed},
};
use std::{
    collections::{BTreeSet, HashSet, hash_map::Entry},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

/// For how long a target whose first probe has not ended keeps its services waiting for their first table.
const UNDECIDED: Duration = Duration::from_secs(1);

impl Agent {
    /// Everything that is probed: what the intent has, and what is leaving.
    fn targets(&self) -> BTreeSet<Target> {
        let mut targets = Intent::targets(&self.intent);
        targets.extend(self.conditions.leaving.values().filter_map(|leaving| leaving.target));
        targets
    }

    /// Starts and stops probes until exactly the targets are probed.
    pub(super) fn keep_probes(&mut self) {
        let targets = self.targets();
        self.probes.retain(|target, probe| {
            let wanted = targets.contains(target);
            if !wanted {
                probe.abort();
            }
            wanted
        });
        // Another check of the same address goes on from what is known of it: nothing is down because its interval changed.
        let up: HashSet<SocketAddr> =
            self.health.iter().filter(|(_, health)| health.is_up()).map(|(target, _)| target.address).collect();
        self.health.retain(|target, _| targets.contains(target));
        self.conditions.undecided.retain(|target| targets.contains(target));
        for target in targets {
            if let Entry::Vacant(health) = self.health.entry(target) {
                if up.contains(&target.address) {
                    health.insert(Health::inherited_up());
                } else {
                    health.insert(Health::new());
                    self.conditions.undecided.insert(target);
                    self.undecided_until = Some(self.started.elapsed() + UNDECIDED);
                }
            }
            let start = || probe::start(target, Arc::clone(&self.places), self.results.clone());
            self.probes.entry(target).or_insert_with(start);
        }
        let up = self.health.iter().filter(|(_, health)| health.is_up());
        self.conditions.up = up.map(|(target, _)| *target).collect();
        self.touched.all(&self.intent);
    }

    /// Takes the result of a probe.
    pub(super) fn probed(&mut self, Probed { target, result }: Probed) {
        let now = self.now();
        let Some(health) = self.health.get_mut(&target) else { return };
        let change = health.on(now, &target.check, result);
        if self.conditions.undecided.remove(&target) {
            self.touched.target(&target, &self.index, &self.conditions);
        }
        let Some(change) = change else { return };
        let after_ms = change.after.as_millis();
        match change.reason {
            None => {
                tracing::info!(target = %target.address, after_ms, "up");
                self.conditions.up.insert(target);
            }
            Some(reason) => {
                tracing::warn!(target = %target.address, after_ms, %reason, "down");
                self.conditions.up.remove(&target);
            }
        }
        self.touched.target(&target, &self.index, &self.conditions);
    }

    /// What has not answered for so long has not answered.
    pub(super) fn decide(&mut self, now: Duration) {
        if self.undecided_until.is_some_and(|until| until <= now) {
            self.undecided_until = None;
            for target in std::mem::take(&mut self.conditions.undecided) {
                self.touched.target(&target, &self.index, &self.conditions);
            }
        }
    }
}
