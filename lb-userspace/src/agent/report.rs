//! What `lb status` tells.

use super::{Agent, health::Record};
use crate::{
    api::Refusal,
    changes::edit::BackendState,
    model::{
        actual::ActualService,
        backends::BackendKey,
        desired::{Share, Wanted},
        flows::has_flows,
        health::{Health, State},
        intent::{self, Kind, Origin, Service, Target},
        pool::Pool,
        reach::{narrow, reach},
    },
    status::{BackendStatus, ChangesStatus, DnsStatus, InterfaceStatus, ServiceStatus, Status},
};
use anyhow::Result;
use lb_common::{
    tables::{Endpoint, Traffic, answers::BLOCK_WORDS},
    verdict::Why,
    wire::transport::TCP,
};
use std::{collections::BTreeSet, fs, net::SocketAddr};

/// Questions that the kernel answered.
const ANSWERED: [Why; 3] = [Why::Answered, Why::AnsweredNegative, Why::AnsweredCached];
const BLOCK_BYTES: u64 = BLOCK_WORDS as u64 * 8;

impl Agent {
    /// One line on how it is, for who has started the agent.
    pub(super) fn summary(&self) -> String {
        let attached = self.attached.iter().filter(|(_, index)| self.conditions.interfaces.contains_key(index));
        let attached: Vec<_> = attached.map(|(name, _)| name.as_str()).collect();
        let attached = if attached.is_empty() { "nothing".into() } else { attached.join(", ") };
        let (services, names) = (self.intent.services().len(), self.intent.names().len());
        let (up, targets) = (self.conditions.up.len(), self.health.len());
        let refused = if self.refused { "the last reload was refused, see the log; " } else { "" };
        format!(
            "{refused}attached to {attached}; {services} service(s), {names} name(s); {up} of {targets} target(s) up"
        )
    }

    /// The state of everything.
    pub(super) fn status(&self) -> Result<Status> {
        let services =
            self.intent.services().iter().map(|service| self.service_status(service)).collect::<Result<_>>()?;
        let interface = |name: &String| InterfaceStatus {
            name: name.clone(),
            index: self.attached.get(name).copied().filter(|index| self.conditions.interfaces.contains_key(index)),
        };
        let counts = self.maps.counts()?;
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: self.started.elapsed().as_secs(),
            memory_bytes: memory(),
            reloads: self.reloads,
            changes: ChangesStatus { made: self.document.changes.list().len(), stale: self.document.stale.len() },
            interfaces: self.intent.interfaces().iter().map(interface).collect(),
            services,
            tracked_flows: self.flows.tracked,
            dns: DnsStatus {
                listen: self.intent.dns().to_vec(),
                names: self.intent.names().len(),
                answers_in_kernel: self.actual.answers.held.len(),
                negatives_in_kernel: self.actual.answers.cached.len(),
                answer_bytes: self.actual.answers.room.pages.taken() * BLOCK_BYTES,
                answer_memory: self.maps.answer_bytes(),
                left_to_agent: self.desired.answers.refused().len() + self.actual.answers.left.len(),
                answered_by_kernel: ANSWERED.iter().filter_map(|why| counts.get(why)).sum(),
                agent: self.counts.snapshot(),
            },
            packets: counts.into_iter().map(|(why, count)| (why.name().into(), count)).collect(),
        })
    }

    /// The state of the service with this name.
    pub(super) fn service_named(&self, name: &str) -> Result<ServiceStatus, Refusal> {
        let services = self.intent.services();
        match services.iter().find(|service| service.name == name) {
            Some(service) => self.service_status(service).map_err(|error| Refusal::failed(&error)),
            None => {
                let known: Vec<_> = services.iter().map(|service| service.name.as_str()).collect();
                let error = format!("there is no service `{name}`; the config has: {}", known.join(", "));
                Err(Refusal::not_found(error))
            }
        }
    }

    pub(super) fn service_status(&self, service: &Service) -> Result<ServiceStatus> {
        let known = self.actual.services.get(&service.endpoint);
        let table = known.and_then(|known| known.table.as_ref());
        let serving = serving(known);
        let backends = service.backends.iter().map(|backend| self.backend_status(service, backend, &serving));
        let mut backends = backends.collect::<Result<Vec<_>>>()?;
        for key in self.conditions.leaving.keys().filter(|key| key.service == service.endpoint) {
            backends.push(self.leaving_status(key)?);
        }
        Ok(ServiceStatus {
            name: service.name.clone(),
            address: address(&service.endpoint),
            protocol: if service.endpoint.protocol() == TCP { "tcp" } else { "udp" }.into(),
            mode: service.mode.to_string(),
            slots: table.map_or(service.slots, |table| table.region().slots),
            changed_slots: table.map_or(0, |table| table.changed()),
            pool: match self.desired.services.get(&service.endpoint) {
                Some(Wanted::Balanced(balanced)) => balanced.pool,
                _ => Pool::default(),
            },
            minimum_healthy: service.minimum_healthy,
            packets: backends.iter().map(|backend| backend.packets).sum(),
            bytes: backends.iter().map(|backend| backend.bytes).sum(),
            backends,
            names: self.names_status(service.questions.iter()),
            backends_file: service.file.as_deref().and_then(|path| self.file_status(path)),
        })
    }

    fn backend_status(
        &self,
        service: &Service,
        backend: &intent::Backend,
        serving: &BTreeSet<BackendKey>,
    ) -> Result<BackendStatus> {
        let key = BackendKey { service: service.endpoint, own: backend.endpoint, mode: service.mode };
        let record = self.health.get(&backend.target);
        let unknown = Health::new();
        let health = record.map_or(&unknown, |record| &record.health);
        let last = record.and_then(|record| record.last.as_ref());
        let hop = reach(&self.conditions, service.mode, key.own.ip());
        let narrow = hop.as_ref().ok().and_then(|hop| narrow(service.mode, key.own.ip(), hop));
        let draining = self.conditions.drains.get(&(key.service, key.own));
        let now = self.now();
        let left = draining.and_then(|draining| draining.deadline).map(|deadline| deadline.saturating_sub(now));
        let (host, srv, file) = match backend.origin.as_deref() {
            Some(Origin::Name { host, srv }) => {
                (Some(host.name.clone()), srv.as_ref().map(|srv| srv.name.clone()), None)
            }
            Some(Origin::File) => (None, None, service.file.clone()),
            None => (None, None, None),
        };
        Ok(BackendStatus {
            host,
            srv,
            file,
            weight: backend.weight,
            health: health.state(),
            since_seconds: health.changed().map(|changed| now.saturating_sub(changed).as_secs()),
            last_failure: health.last().and_then(Result::err).map(|failure| failure.to_string()),
            last_output: last.and_then(|last| last.output.as_deref()).map(Into::into),
            certificate: last.and_then(|last| last.certificate.as_deref()).cloned(),
            agent_says: self.agent_of(backend).map(|record| record.voice.to_string()),
            weight_percent: self.conditions.load(backend).per_mille / 10,
            backup: backend.tier > 0,
            draining: draining.is_some(),
            disabled: backend.state == BackendState::Disabled,
            draining_seconds: draining.map(|draining| now.saturating_sub(draining.since).as_secs()),
            drain_left_seconds: left.map(|left| left.as_secs()),
            drained: draining.is_some() && !has_flows(&self.actual, &self.flows, &key),
            no_next_hop: hop.err().map(|reason| reason.to_string()),
            narrow: narrow.map(|narrow| narrow.to_string()),
            serving: serving.contains(&key),
            ..self.traffic_status(&key)?
        })
    }

    /// What is known of the agent on a backend, if one is asked.
    fn agent_of(&self, backend: &intent::Backend) -> Option<&Record> {
        let is_agent = |target: &&Target| matches!(target.check.kind, Kind::Agent(_));
        backend.targets().filter(is_agent).last().and_then(|target| self.health.get(target))
    }

    /// A backend that is no longer in the config, but still has flows.
    fn leaving_status(&self, key: &BackendKey) -> Result<BackendStatus> {
        let leaving = self.conditions.leaving.get(key).cloned().unwrap_or_default();
        let record = leaving.target.and_then(|target| self.health.get(&target));
        let left = leaving.deadline.map(|deadline| deadline.saturating_sub(self.now()));
        Ok(BackendStatus {
            leaving: true,
            health: record.map_or(State::Unknown, |record| record.health.state()),
            drain_left_seconds: left.map(|left| left.as_secs()),
            no_next_hop: reach(&self.conditions, key.mode, key.own.ip()).err().map(|reason| reason.to_string()),
            ..self.traffic_status(key)?
        })
    }

    /// What a backend has had of packets and has of flows; the rest is not known.
    fn traffic_status(&self, key: &BackendKey) -> Result<BackendStatus> {
        let id = self.actual.backends.id(key);
        let traffic = id.map_or(Ok(Traffic::default()), |id| self.maps.traffic(id))?;
        Ok(BackendStatus {
            address: address(&key.own),
            host: None,
            srv: None,
            file: None,
            weight: 0,
            health: State::Unknown,
            since_seconds: None,
            last_failure: None,
            last_output: None,
            certificate: None,
            agent_says: None,
            weight_percent: 100,
            backup: false,
            draining: false,
            disabled: false,
            draining_seconds: None,
            drain_left_seconds: None,
            drained: false,
            leaving: false,
            flows: id.and_then(|id| self.flows.of.get(&id)).copied().unwrap_or_default(),
            no_next_hop: None,
            narrow: None,
            serving: false,
            packets: traffic.packets,
            bytes: traffic.bytes,
        })
    }
}

/// Who takes new flows.
fn serving(known: Option<&ActualService>) -> BTreeSet<BackendKey> {
    let reached = known.filter(|known| known.table.is_some()).and_then(|known| known.reached.as_ref());
    let members = reached.into_iter().flat_map(|reached| reached.members());
    members.map(|Share { backend, .. }| BackendKey::from(backend)).collect()
}

fn address(endpoint: &Endpoint) -> SocketAddr {
    SocketAddr::new(endpoint.ip(), endpoint.port())
}

/// Bytes of memory of this process; 0 if the kernel does not tell.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    resident.and_then(|kilobytes| kilobytes.parse::<u64>().ok()).unwrap_or_default() * 1_024
}
