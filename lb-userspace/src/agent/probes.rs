//! Probes, and the health that they add up to.

use super::{Agent, health::Record};
use crate::{
    kernel::{KernelError, detour::Tun},
    model::{
        backends::{BackendKey, is_live},
        desired,
        health::Change,
        history::Turn,
        intent::{Intent, Target},
        load::Load,
    },
    probe::{Detour, Probed},
};
use std::{
    collections::{BTreeSet, HashSet, hash_map::Entry},
    net::SocketAddr,
    time::Duration,
};

/// For how long a target whose first probe has not ended keeps its services waiting for their first table.
const UNDECIDED: Duration = Duration::from_secs(1);

impl Agent {
    /// Everything that is probed: what the intent has, and what is leaving.
    fn targets(&self) -> BTreeSet<Target> {
        let mut targets = Intent::targets(&self.intent);
        targets.extend(self.conditions.leaving.values().filter_map(|leaving| leaving.target.clone()));
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
        let up = self.held_for_up();
        self.health.retain(|target, _| targets.contains(target));
        self.rising.retain(|target, _| targets.contains(target));
        self.conditions.loads.retain(|target, _| targets.contains(target));
        self.conditions.undecided.retain(|target| targets.contains(target));
        for target in targets {
            if let Entry::Vacant(health) = self.health.entry(target.clone()) {
                if up.contains(&(target.address, target.via)) {
                    health.insert(Record::inherited_up());
                } else {
                    health.insert(Record::default());
                    self.conditions.undecided.insert(target.clone());
                    self.undecided_until = Some(self.started.elapsed() + UNDECIDED);
                }
            }
            if let Entry::Vacant(probe) = self.probes.entry(target) {
                let started = self.prober.start(probe.key().clone());
                probe.insert(started);
            }
        }
        let up = self.health.iter().filter(|(_, record)| record.health.is_up());
        self.conditions.up = up.map(|(target, _)| target.clone()).collect();
        self.touched.all(&self.intent);
        self.show_ways();
    }

    /// Sees to the way of probes to service addresses, if the intent has any.
    pub(super) async fn make_detour(&self, intent: &Intent) -> Result<(), KernelError> {
        let mut backends = intent.services().iter().flat_map(|service| &service.backends);
        let needed = backends.any(|backend| backend.target.via.is_some());
        if !needed || self.prober.detour().is_some() {
            return Ok(());
        }
        let tun = Tun::new().map_err(KernelError::Tun)?;
        let sender = self.prober.sender().ok_or(KernelError::NoSender)?;
        let mark = self.netlink.route_marked(&tun.name).await?;
        tracing::info!(device = tun.name, mark = format!("{mark:#x}"), "checks go to service addresses");
        self.prober.set_detour(Detour::start(tun, mark, sender));
        Ok(())
    }

    /// Tells the probes that go to service addresses how their backends are reached.
    pub(super) fn show_ways(&self) {
        let Some(detour) = self.prober.detour() else { return };
        let entry = |target: &Target| {
            let key = target.via?;
            Some((key, desired::entry(&key, self.intent.tunnel(), &self.conditions)?))
        };
        detour.know(self.health.keys().filter_map(entry).collect());
    }

    /// Where another check goes on from what is known: nothing is down because it is checked in another way. That is where a target is
    /// up, and where the backend takes traffic that a target belongs to.
    fn held_for_up(&self) -> HashSet<(SocketAddr, Option<BackendKey>)> {
        let up = self.health.iter().filter(|(_, record)| record.health.is_up());
        let mut all: HashSet<_> = up.map(|(target, _)| (target.address, target.via)).collect();
        for service in self.intent.services() {
            for backend in service.backends.iter().filter(|backend| !self.health.contains_key(&backend.target)) {
                let key = BackendKey { service: service.endpoint, own: backend.endpoint, mode: service.mode };
                if self.actual.backends.get(&key).is_some_and(|(_, entry)| is_live(entry)) {
                    all.insert((backend.target.address, backend.target.via));
                }
            }
        }
        all
    }

    /// Takes the result of a probe.
    pub(super) fn probed(&mut self, probed: Probed) {
        let now = self.now();
        let Some(record) = self.health.get_mut(&probed.target) else { return };
        let before = record.voice;
        let change = record.on(now, &probed);
        if record.voice != before {
            let target = probed.target.address;
            tracing::info!(%target, says = %record.voice, output = probed.outcome.output.as_deref(), "agent");
        }
        let target = probed.target.clone();
        if self.conditions.undecided.remove(&target) {
            self.touched.target(&target, &self.index, &self.conditions);
        }
        if let Some(change) = change {
            self.turned(probed, change, now);
        }
        self.weigh(&target, now);
    }

    /// Notes that a target has turned.
    fn turned(&mut self, Probed { target, outcome, took }: Probed, change: Change, now: Duration) {
        let (address, check, output) = (target.address, &target.check.kind, outcome.output.as_deref());
        let (after_ms, took_ms) = (change.after.as_millis(), took.as_millis());
        match change.reason {
            None => {
                tracing::info!(target = %address, %check, after_ms, took_ms, output, "up");
                self.conditions.up.insert(target.clone());
            }
            Some(reason) => {
                let held_seconds = change.held.map(|held| held.as_secs());
                tracing::warn!(target = %address, %check, after_ms, took_ms, %reason, output, held_seconds, "down");
                self.conditions.up.remove(&target);
            }
        }
        self.touched.target(&target, &self.index, &self.conditions);
        let Change { up, after, reason, held: _ } = change;
        self.history.note(&target, Turn { at: now, up, reason, output: outcome.output, took, after });
    }

    /// Notes how much of its weight a target takes now, and when that changes by itself.
    fn weigh(&mut self, target: &Target, now: Duration) {
        let Some(record) = self.health.get(target) else { return };
        let (load, next) = record.load(now, &target.check);
        match next {
            Some(next) => _ = self.rising.insert(target.clone(), next),
            None => _ = self.rising.remove(target),
        }
        let before = self.conditions.loads.get(target).copied().unwrap_or_default();
        if load == before {
            return;
        }
        if load == Load::default() {
            self.conditions.loads.remove(target);
        } else {
            self.conditions.loads.insert(target.clone(), load);
        }
        self.touched.target(target, &self.index, &self.conditions);
    }

    /// Raises the weights whose time has come.
    pub(super) fn raise(&mut self, now: Duration) {
        let due: Vec<Target> =
            self.rising.iter().filter(|(_, next)| **next <= now).map(|(target, _)| target.clone()).collect();
        for target in due {
            self.weigh(&target, now);
        }
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
