//! Backends on their way out: drained by the operator, or no longer in the config.

use super::Agent;
use crate::{
    api::Refusal,
    model::{
        backends::BackendKey,
        desired::{Drain, Draining},
        flows::has_flows,
        intent::{Intent, Target},
        leaving::leaving,
    },
    settle,
};
use anyhow::Result;
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
    /// Drains a backend, for so long or as long as the config says, or takes that back.
    pub(super) fn drain(
        &mut self,
        name: &str,
        address: SocketAddr,
        drain: bool,
        limit: Option<Duration>,
    ) -> Result<(), Refusal> {
        let service = self.intent.services().iter().find(|service| service.name == name);
        let service = service.ok_or_else(|| Refusal::no_service(name, self.intent.services()))?;
        let backend = service
            .backends
            .iter()
            .find(|backend| (backend.endpoint.ip(), backend.endpoint.port()) == (address.ip(), address.port()));
        let backend = backend.ok_or_else(|| Refusal::no_backend(service, address))?;
        let key: Drain = (service.endpoint, backend.endpoint);
        if drain {
            let now = self.now();
            let since = self.conditions.drains.get(&key).map_or(now, |draining| draining.since);
            let limit = limit.or(self.intent.tracking().drain);
            self.conditions.drains.insert(key, Draining { since, deadline: limit.map(|limit| now + limit) });
        } else {
            self.conditions.drains.remove(&key);
        }
        self.touched.service(&key.0, &self.index);
        tracing::info!(service = name, backend = %address, drain, "drain");
        // The answer tells of something done.
        self.settle().map_err(|error| Refusal::failed(&error))
    }

    /// Finds out what is leaving, now that the intent is another one.
    pub(super) fn note_leaving(&mut self, before: &Intent) {
        let mut targets: BTreeMap<BackendKey, Target> = BTreeMap::new();
        for service in before.services() {
            for backend in &service.backends {
                let key = BackendKey { service: service.endpoint, own: backend.endpoint, mode: service.mode };
                targets.insert(key, backend.target.clone());
            }
        }
        self.conditions.leaving = leaving(&self.actual, &self.intent, &self.conditions, &targets, self.now());
        self.conditions.drains.retain(|(service, backend), _| {
            let mut services = self.intent.services().iter().filter(|one| one.endpoint == *service);
            services.any(|one| one.backends.iter().any(|one| one.endpoint == *backend))
        });
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
