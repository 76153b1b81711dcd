//! Backends on their way out: drained by the operator, or no longer in the config.

use super::{Agent, document::milliseconds};
use crate::{
    changes::{Change, edit::BackendState},
    model::{
        backends::BackendKey,
        desired::{Drain, Draining},
        flows::has_flows,
        intent::{Intent, Target},
        leaving::leaving,
    },
    settle,
};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::task::block_in_place;

/// How often the flow tables are swept while there is something to find out.
const SWEEP: Duration = Duration::from_secs(2);
/// Large tables are swept less often: it takes one part of so many of the time at most.
const SWEEP_SHARE: u32 = 20;

impl Agent {
    /// Takes over from the intent what is drained.
    pub(super) fn note_drains(&mut self) {
        let drains = self.drains_of(&self.intent);
        self.drained_by = drains.iter().map(|(key, (_, change))| (*key, *change)).collect();
        self.conditions.drains = drains.into_iter().map(|(key, (draining, _))| (key, draining)).collect();
    }

    /// What an intent drains, each with the change that says so, if it is one.
    pub(super) fn drains_of(&self, intent: &Intent) -> BTreeMap<Drain, (Draining, Option<u64>)> {
        let mut drains = BTreeMap::new();
        for service in intent.services() {
            for backend in service.backends.iter().filter(|backend| backend.state == BackendState::Drain) {
                let key: Drain = (service.endpoint, backend.endpoint);
                let address = SocketAddr::new(backend.endpoint.ip(), backend.endpoint.port());
                let change = self.document.drained_by(&service.name, address);
                let limit = backend.drain.or(intent.tracking().drain);
                drains.insert(key, (self.draining(&key, change, limit), change.map(|change| change.id)));
            }
        }
        drains
    }

    fn draining(&self, key: &Drain, change: Option<&Change>, limit: Option<Duration>) -> Draining {
        let now = self.now();
        let before = self.conditions.drains.get(key);
        let since = before.map_or(now, |draining| draining.since);
        let Some(change) = change else {
            return Draining { since, deadline: limit.map(|limit| since + limit) };
        };
        let is_known = self.drained_by.get(key) == Some(&Some(change.id));
        match before.filter(|before| is_known && before.deadline.is_some() == limit.is_some()) {
            // By the clock that nobody sets.
            Some(before) => *before,
            None => {
                // By an agent before this one, if not just now; if the clock was set back since, it begins anew.
                let ago = Duration::from_millis(milliseconds().saturating_sub(change.at));
                Draining { since, deadline: limit.map(|limit| now + limit.saturating_sub(ago)) }
            }
        }
    }

    /// Finds out what is leaving, now that the intent is another one.
    pub(super) fn note_leaving(&mut self, before: &Intent) {
        let targets = targets_of(before);
        self.conditions.leaving = leaving(&self.actual, &self.intent, &self.conditions, &targets, self.now());
    }

    /// Touches what has come to its deadline since `before`.
    pub(super) fn note_deadlines(&mut self, before: Duration, now: Duration) {
        let is_over =
            |deadline: Option<Duration>| deadline.is_some_and(|deadline| before < deadline && deadline <= now);
        for ((service, backend), draining) in &self.conditions.drains {
            if is_over(draining.deadline) {
                tracing::info!(backend = %backend.ip(), port = backend.port(), "drain is over: what flows are left move");
                self.touched.service(service, &self.index);
            }
        }
        for (key, leaving) in &self.conditions.leaving {
            if is_over(leaving.deadline) {
                tracing::info!(backend = %key.own.ip(), port = key.own.port(), "removed: what flows are left move");
                self.touched.service(&key.service, &self.index);
            }
        }
    }

    /// When the next deadline is after `now`.
    pub(super) fn next_deadline(&self, now: Duration) -> Option<Duration> {
        let drains = self.conditions.drains.values().filter_map(|draining| draining.deadline);
        let leaving = self.conditions.leaving.values().filter_map(|leaving| leaving.deadline);
        drains.chain(leaving).filter(|deadline| *deadline > now).min()
    }

    /// Says when to sweep next, if there is something to find out.
    pub(super) fn plan_sweep(&mut self) {
        let needed = self.actual.changed_slots() > 0 || !self.conditions.leaving.is_empty();
        self.sweep_at = needed.then(|| self.sweep_at.unwrap_or_else(|| self.now() + SWEEP));
    }

    /// Sweeps the flow tables, and lets go who has no flows any more.
    pub(super) fn sweep(&mut self) {
        let started = Instant::now();
        let (maps, actual, tracking) = (&mut self.maps, &mut self.actual, self.intent.tracking());
        let swept = block_in_place(|| settle::sweep(maps, actual, tracking));
        self.sweep_at = Some(self.now() + SWEEP.max(started.elapsed() * SWEEP_SHARE));
        match swept {
            Ok(flows) => self.flows = flows,
            Err(error) => return tracing::error!("{:#}", anyhow::Error::from(error)),
        }
        tracing::debug!(
            flows = self.flows.tracked,
            changed_slots = self.actual.changed_slots(),
            microseconds = started.elapsed().as_micros(),
            "swept"
        );
        let keys = self.conditions.leaving.keys().copied();
        let gone: Vec<BackendKey> = keys.filter(|key| !has_flows(&self.actual, &self.flows, key)).collect();
        for key in &gone {
            tracing::info!(backend = %key.own.ip(), port = key.own.port(), "gone: it had been removed and has no flows left");
            self.conditions.leaving.remove(key);
            self.touched.service(&key.service, &self.index);
        }
        if !gone.is_empty() {
            self.keep_probes();
        }
        self.plan_sweep();
    }
}

/// What is probed for each backend.
pub(super) fn targets_of(intent: &Intent) -> BTreeMap<BackendKey, Target> {
    let mut targets = BTreeMap::new();
    for service in intent.services() {
        for backend in &service.backends {
            let key = BackendKey { service: service.endpoint, own: backend.endpoint, mode: service.mode };
            targets.insert(key, backend.target.clone());
        }
    }
    targets
}
