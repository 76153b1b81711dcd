//! Health checks: those of the config by name, and the one that services have without any.

use super::{
    Check, Target,
    part::{Part, Problems},
};
use crate::config::{Place, Problem, schema};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
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

/// What a check does to any address.
#[derive(Clone, Copy)]
pub(super) struct Probe {
    check: Check,
    port: Option<u16>,
}

impl Probe {
    /// The one that services have without any.
    pub(super) fn of_services() -> Self {
        Self { check: check(DEFAULT_INTERVAL, DEFAULT_TIMEOUT, DEFAULT_RISE, DEFAULT_FALL), port: None }
    }

    /// What is probed for an address that is used at `port`.
    pub(super) fn target(&self, address: IpAddr, port: u16) -> Target {
        Target { address: SocketAddr::new(address, self.port.unwrap_or(port)), check: self.check }
    }
}

/// The config's checks; none in place of those that something is wrong with.
pub(super) struct Checks(BTreeMap<String, Option<Probe>>);

impl Checks {
    /// Reads them.
    pub(super) fn read(file: &schema::File, problems: &mut Problems<'_>) -> Self {
        let checks = file.check.iter().map(|(name, written)| {
            let mut part = problems.part(Place::Check(name.get_ref().clone()), Some(name.span()));
            (name.get_ref().clone(), probe(written, &mut part))
        });
        Self(checks.collect())
    }

    /// The one with this name.
    pub(super) fn named(&self, name: &Spanned<String>, part: &mut Part<'_, '_>) -> Option<Probe> {
        match self.0.get(name.get_ref()) {
            Some(probe) => *probe,
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
        part: &mut Part<'_, '_>,
    ) -> Option<Probe> {
        let probe = self.named(name, part)?;
        if probe.port.is_none() {
            part.report(name, Problem::CheckWithoutPort { check: name.get_ref().clone(), user });
        }
        Some(probe)
    }
}

fn probe(written: &schema::Check, part: &mut Part<'_, '_>) -> Option<Probe> {
    let kind = part.choice_or_first("kind", &written.kind, &[("tcp", ())]);
    let port = written.port.as_ref().map(|port| part.port("port", port));
    let interval = part.number_or("interval_ms", &written.interval_ms, MILLISECONDS, DEFAULT_INTERVAL);
    let default_timeout = interval.map_or(DEFAULT_TIMEOUT, |interval| interval.min(DEFAULT_TIMEOUT));
    let timeout = part.number_or("timeout_ms", &written.timeout_ms, MILLISECONDS, default_timeout);
    let rise = part.number_or("rise", &written.rise, IN_A_ROW, DEFAULT_RISE);
    let fall = part.number_or("fall", &written.fall, IN_A_ROW, DEFAULT_FALL);
    if let (Some(interval), Some(timeout), Some(place)) = (interval, timeout, &written.timeout_ms)
        && timeout > interval
    {
        part.report(place, Problem::TimeoutBeyondInterval { timeout, interval });
    }
    kind?;
    let port = port.map_or(Some(None), |port| port.map(Some))?;
    Some(Probe { check: check(interval?, timeout?, rise?, fall?), port })
}

fn check(interval: u32, timeout: u32, rise: u32, fall: u32) -> Check {
    let milliseconds = |milliseconds: u32| Duration::from_millis(milliseconds.into());
    Check { interval: milliseconds(interval), timeout: milliseconds(timeout), rise, fall }
}
