//! What is known of each target, and what `lb health` tells of it.

use super::Agent;
use crate::{
    api::Refusal,
    model::{
        certificate::Certificate,
        health::{Change, Failure, Health},
        history::Turn,
        intent::{Backend, Check, Kind, Origin, Target},
        load::{Load, Voice, slow_start},
    },
    probe::Probed,
    status::{FileStatus, HealthReport, NameStatus, TargetStatus, TurnStatus},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// What is known of a target.
#[derive(Debug, Default)]
pub struct Record {
    /// Up or down.
    pub health: Health,
    /// What its agent said, if it is asked.
    pub voice: Voice,
    /// The last probe.
    pub last: Option<Last>,
}

/// A probe that has ended.
#[derive(Debug)]
pub struct Last {
    at: Duration,
    took: Duration,
    /// What the target answered.
    pub output: Option<Box<str>>,
    /// Of the last probe that was shown one.
    pub certificate: Option<Box<Certificate>>,
}

impl Record {
    /// Of a target that an earlier agent held for up, or another check.
    pub fn inherited_up() -> Self {
        Self { health: Health::inherited_up(), ..Self::default() }
    }

    /// Takes what came of a probe.
    pub fn on(&mut self, now: Duration, probed: &Probed) -> Option<Change> {
        let Probed { target, outcome, took } = probed;
        let mut result = outcome.result;
        if let (Kind::Agent(agent), Some(said)) = (&target.check.kind, &outcome.said) {
            self.voice.hear(said, agent);
            result = if self.voice.is_up() { Ok(()) } else { Err(Failure::Told) };
        }
        let earlier = self.last.take().and_then(|last| last.certificate);
        let certificate = outcome.certificate.clone().or(earlier);
        self.last = Some(Last { at: now, took: *took, output: outcome.output.clone(), certificate });
        self.health.on(now, &target.check, result)
    }

    /// How much of its weight the target takes, and when that changes by itself.
    pub fn load(&self, now: Duration, check: &Check) -> (Load, Option<Duration>) {
        let recovered = self.health.recovered().filter(|_| self.health.is_up());
        let (per_mille, next) =
            recovered.map_or((Load::default().per_mille, None), |since| slow_start(since, check.slow_start, now));
        let ramp = Load { per_mille, ..Load::default() };
        let said = if matches!(check.kind, Kind::Agent(_)) { self.voice.load() } else { Load::default() };
        (ramp.and(said), next)
    }
}

impl Agent {
    /// The health of all targets, or of those of a service, a DNS name, an address or one target.
    pub(super) fn health_report(&self, of: Option<&str>) -> Result<HealthReport, Refusal> {
        let users = self.users();
        let (origins, files) = (self.origins(), self.files_of_targets());
        let address: Option<SocketAddr> = of.and_then(|of| of.parse().ok());
        let ip: Option<IpAddr> = of.and_then(|of| of.parse().ok());
        let is_wanted = |target: &Target, used_by: &[String]| match (of, address, ip) {
            (None, ..) => true,
            (_, Some(address), _) => target.address == address,
            (_, _, Some(ip)) => target.address.ip() == ip || target.via.is_some_and(|key| key.own.ip() == ip),
            (Some(of), ..) => used_by.iter().any(|user| user == of),
        };
        let mut targets: Vec<&Target> = self.health.keys().collect();
        targets.sort_unstable();
        let nobody = Vec::new();
        let of_all = targets.into_iter().map(|target| (target, users.get(target).unwrap_or(&nobody)));
        let shown = of_all.filter(|(target, used_by)| is_wanted(target, used_by));
        let targets: Vec<_> = shown
            .filter_map(|(target, used_by)| {
                let origins = origins.get(target).into_iter().flatten().copied();
                let files = files.get(target).into_iter().flatten().filter_map(|path| self.file_status(path));
                self.target_status(target, used_by, (self.names_of(origins), files.collect()))
            })
            .collect();
        match of {
            Some(of) if targets.is_empty() => Err(Refusal::not_found(format!(
                "nothing that is checked is called `{of}`; write the name of a service or of a DNS name, an address, or an \
                 address with its port"
            ))),
            _ => Ok(HealthReport { targets }),
        }
    }

    /// Which services and names go by which target.
    fn users(&self) -> BTreeMap<Target, Vec<String>> {
        let mut users: BTreeMap<Target, Vec<String>> = BTreeMap::new();
        let services = self.intent.services().iter().flat_map(|service| {
            service.backends.iter().flat_map(|backend| backend.targets()).map(|target| (target, &service.name))
        });
        let names = self.intent.names().iter().flat_map(|name| {
            name.addresses.iter().filter_map(|address| address.target.as_ref()).map(|target| (target, &name.name))
        });
        for (target, user) in services.chain(names) {
            let all = users.entry(target.clone()).or_default();
            if all.last() != Some(user) {
                all.push(user.clone());
            }
        }
        users
    }

    /// The names that targets come by, if they do.
    fn origins(&self) -> BTreeMap<&Target, Vec<&Origin>> {
        let mut origins: BTreeMap<&Target, Vec<&Origin>> = BTreeMap::new();
        for backend in self.intent.services().iter().flat_map(|service| &service.backends) {
            for target in backend.targets().filter(|_| backend.origin.is_some()) {
                origins.entry(target).or_default().extend(backend.origin.as_deref());
            }
        }
        origins
    }

    /// The files that list targets, if some do.
    fn files_of_targets(&self) -> BTreeMap<&Target, BTreeSet<&Path>> {
        let mut files: BTreeMap<&Target, BTreeSet<&Path>> = BTreeMap::new();
        for service in self.intent.services() {
            let of_file = |backend: &&Backend| matches!(backend.origin.as_deref(), Some(Origin::File));
            for target in service.backends.iter().filter(of_file).flat_map(Backend::targets) {
                files.entry(target).or_default().extend(service.file.as_deref());
            }
        }
        files
    }

    fn target_status(
        &self,
        target: &Target,
        used_by: &[String],
        (names, files): (Vec<NameStatus>, Vec<FileStatus>),
    ) -> Option<TargetStatus> {
        let record = self.health.get(target)?;
        let (now, health) = (self.now(), &record.health);
        let ago = |at: Duration| now.saturating_sub(at).as_secs();
        let load = self.conditions.loads.get(target).copied().unwrap_or_default();
        let says = matches!(target.check.kind, Kind::Agent(_)).then(|| record.voice.to_string());
        let last = record.last.as_ref();
        Some(TargetStatus {
            address: target.address,
            via: target.via.map(|key| key.own.ip()),
            check: target.check.kind.to_string(),
            used_by: used_by.to_vec(),
            health: health.state(),
            since_seconds: health.changed().map(ago),
            weight_percent: load.per_mille / 10,
            says,
            held_seconds: health.held(now).map(|left| left.as_secs()),
            contradicted: health.streak(),
            last_ago_ms: last.map(|last| now.saturating_sub(last.at).as_millis() as u64),
            last_took_ms: last.map(|last| last.took.as_millis() as u64),
            last_failure: health.last().and_then(Result::err).map(|failure| failure.to_string()),
            last_output: last.and_then(|last| last.output.as_deref()).map(Into::into),
            certificate: last.and_then(|last| last.certificate.as_deref()).cloned(),
            names,
            files,
            turns: self.history.of(target).map(|turn| turn_status(turn, now)).collect(),
        })
    }
}

fn turn_status(turn: &Turn, now: Duration) -> TurnStatus {
    let ago = now.saturating_sub(turn.at);
    let then = SystemTime::now().checked_sub(ago).and_then(|then| then.duration_since(UNIX_EPOCH).ok());
    TurnStatus {
        unix_seconds: then.map_or(0, |then| then.as_secs()),
        ago_seconds: ago.as_secs(),
        up: turn.up,
        reason: turn.reason.map(|reason| reason.to_string()),
        output: turn.output.as_deref().map(Into::into),
        took_ms: turn.took.as_millis() as u64,
        after_ms: turn.after.as_millis() as u64,
    }
}
