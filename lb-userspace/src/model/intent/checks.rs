//! Health checks: those of the config by name, and the one that services have without any.

mod kinds;

use super::{
    BackendKey, Check, Damping, Kind, Target,
    part::{Part, Problems},
};
use crate::config::{Config, Place, Problem, schema};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};
use toml::Spanned;

/// A longer interval than a day is no health check, and would overflow deadlines somewhere.
const MILLISECONDS: RangeInclusive<u32> = 1..=86_400_000;
/// More than this many results in a row are no health check either.
const IN_A_ROW: RangeInclusive<u32> = 1..=1_000;
const DEFAULT_INTERVAL: u32 = 1_000;
const DEFAULT_TIMEOUT: u32 = 500;
const DEFAULT_RISE: u32 = 2;
const DEFAULT_FALL: u32 = 3;
/// With more, a check could follow the one before at once.
const JITTERS: RangeInclusive<u32> = 0..=50;
const DEFAULT_JITTER: u32 = 10;
const SECONDS: RangeInclusive<u32> = 1..=86_400;
const SLOW_STARTS: RangeInclusive<u32> = 0..=86_400;
/// Of so many turns the times are kept for each target.
const FLAPS: RangeInclusive<u32> = 1..=100;
const DEFAULT_FLAP_WINDOW: u32 = 60;
const DEFAULT_FLAP_HOLD: u32 = 30;
const DEFAULT_FLAP_MOST: u32 = 600;

/// What a name in DNS is called in errors.
pub(super) const A_NAME: &str = "a name";

/// What a check does to any address.
#[derive(Clone)]
pub(super) struct Probe {
    check: Arc<Check>,
    port: Option<u16>,
}

impl Probe {
    /// The one that services have without any.
    pub(super) fn of_services() -> Self {
        Self { check: Arc::default(), port: None }
    }

    /// What is probed for an address that is used at `port`.
    pub(super) fn target(&self, address: IpAddr, port: u16) -> Target {
        let port = if self.check.kind.is_portless() { 0 } else { self.port.unwrap_or(port) };
        Target { address: SocketAddr::new(address, port), check: Arc::clone(&self.check), via: None }
    }

    /// What is probed for a backend; `port` is the one that it is used at.
    pub(super) fn target_of(&self, key: &BackendKey, port: u16) -> Target {
        if !self.check.to_service {
            return self.target(key.own.ip(), port);
        }
        Target { via: Some(*key), ..self.target(key.service.ip(), port) }
    }

    /// Whether it goes to the service's address.
    pub(super) fn is_to_service(&self) -> bool {
        self.check.to_service
    }

    /// Whether it needs no port of who uses it.
    fn knows_its_port(&self) -> bool {
        self.port.is_some() || self.check.kind.is_portless()
    }
}

/// The config's checks; none in place of those that something is wrong with.
pub(super) struct Checks(BTreeMap<String, Option<Probe>>);

impl Checks {
    /// Reads them.
    pub(super) fn read(config: &Config, problems: &mut Problems<'_>) -> Self {
        let checks = config.file().check.iter().map(|(name, written)| {
            let mut part = problems.part(Place::Check(name.get_ref().clone()), Some(name.span()));
            (name.get_ref().clone(), probe(written, config, &mut part))
        });
        Self(checks.collect())
    }

    /// The one with this name.
    pub(super) fn named(&self, name: &Spanned<String>, part: &mut Part<'_, '_>) -> Option<Probe> {
        match self.0.get(name.get_ref()) {
            Some(probe) => probe.clone(),
            None => {
                let known = self.0.keys().cloned().collect();
                part.report(name, Problem::UnknownCheck { check: name.get_ref().clone(), known });
                None
            }
        }
    }

    /// The same, for who has no TCP port of its own to probe.
    pub(super) fn named_with_port(
        &self,
        name: &Spanned<String>,
        user: &'static str,
        has_udp_port: bool,
        part: &mut Part<'_, '_>,
    ) -> Option<Probe> {
        let probe = self.named(name, part)?;
        if user == A_NAME && probe.check.to_service {
            part.report(name, Problem::ProbeOfService { check: name.get_ref().clone(), user });
        }
        if !(probe.knows_its_port() || has_udp_port && probe.check.kind.is_udp()) {
            part.report(name, Problem::CheckWithoutPort { check: name.get_ref().clone(), user });
        }
        Some(probe)
    }

    /// The same, which has to ask an agent.
    pub(super) fn named_agent(&self, name: &Spanned<String>, part: &mut Part<'_, '_>) -> Option<Probe> {
        let probe = self.named(name, part)?;
        if !matches!(probe.check.kind, Kind::Agent(_)) {
            part.report(name, Problem::NotAnAgent { check: name.get_ref().clone() });
        }
        Some(probe)
    }
}

fn probe(written: &schema::Check, config: &Config, part: &mut Part<'_, '_>) -> Option<Probe> {
    let kind = kinds::read(written, config, part);
    let port = written.port.as_ref().map(|port| part.port("port", port));
    let interval = part.number_or("interval_ms", &written.interval_ms, MILLISECONDS, DEFAULT_INTERVAL);
    let default_timeout = interval.map_or(DEFAULT_TIMEOUT, |interval| interval.min(DEFAULT_TIMEOUT));
    let timeout = part.number_or("timeout_ms", &written.timeout_ms, MILLISECONDS, default_timeout);
    let rise = part.number_or("rise", &written.rise, IN_A_ROW, DEFAULT_RISE);
    let fall = part.number_or("fall", &written.fall, IN_A_ROW, DEFAULT_FALL);
    let jitter = part.number_or("jitter_percent", &written.jitter_percent, JITTERS, DEFAULT_JITTER);
    let slow_start = part.number_or("slow_start_seconds", &written.slow_start_seconds, SLOW_STARTS, 0);
    let damping = damping(written, part);
    let to_service = part.choice_or_first("probe", &written.probe, &[("backend", false), ("service", true)]);
    if let (Some(probe), Some(true), Some(Kind::Icmp | Kind::Agent(_))) = (&written.probe, to_service, &kind) {
        part.report(probe, Problem::ProbeOfKind);
    }
    if let (Some(interval), Some(timeout), Some(place)) = (interval, timeout, &written.timeout_ms)
        && timeout > interval
    {
        part.report(place, Problem::TimeoutBeyondInterval { timeout, interval });
    }
    let milliseconds = |milliseconds: u32| Duration::from_millis(milliseconds.into());
    let check = Check {
        interval: milliseconds(interval?),
        timeout: milliseconds(timeout?),
        rise: rise?,
        fall: fall?,
        jitter: jitter?,
        slow_start: Duration::from_secs(slow_start?.into()),
        damping: damping?,
        to_service: to_service?,
        kind: kind?,
    };
    let port = port.map_or(Some(None), |port| port.map(Some))?;
    Some(Probe { check: Arc::new(check), port })
}

/// What holds a target down if it turns too often, if anything does.
fn damping(written: &schema::Check, part: &mut Part<'_, '_>) -> Option<Option<Damping>> {
    let keys = [
        ("flap_window_seconds", &written.flap_window_seconds, DEFAULT_FLAP_WINDOW),
        ("flap_hold_seconds", &written.flap_hold_seconds, DEFAULT_FLAP_HOLD),
        ("flap_hold_most_seconds", &written.flap_hold_most_seconds, DEFAULT_FLAP_MOST),
    ];
    let Some(turns) = &written.flap_turns else {
        for (key, value, _) in keys {
            if let Some(value) = value {
                part.report(value, Problem::WithoutFlapTurns { key });
            }
        }
        return Some(None);
    };
    let turns = part.number("flap_turns", turns, FLAPS);
    let [window, hold, most] = keys.map(|(key, value, default)| part.number_or(key, value, SECONDS, default));
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    let hold = seconds(hold?);
    let damping = Damping { turns: turns?, window: seconds(window?), hold, most: seconds(most?).max(hold) };
    Some(Some(damping))
}
