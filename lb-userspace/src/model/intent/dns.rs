//! DNS: where questions are answered, what holds for all of them, and the names.

use super::{
    Answering, Name, RateLimit,
    checks::Checks,
    names,
    part::{Part, Problems},
    records, text,
};
use crate::{
    config::{
        Config, Place, Problem,
        schema::{self, Secret, Written},
    },
    model::dns::{
        data::{CNAME, Data},
        respond::Server,
        stored::Stored,
        zone::{Domain, Zone},
    },
};
use lb_common::{hash::Keys, tables::answers::Lapse};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, net::SocketAddr, ops::RangeInclusive, sync::Arc, time::Duration};
use toml::Spanned;

const DEFAULT_PORT: u16 = 53;
/// A day without an agent is as good as for ever.
const LEASES: RangeInclusive<u32> = 0..=86_400;
const DEFAULT_LEASE: u32 = 60;
/// Resolvers keep nothing negative for longer than some hours whatever it says (RFC 2308 section 5).
const NEGATIVE_TTLS: RangeInclusive<u32> = 0..=86_400;
const DEFAULT_NEGATIVE_TTL: u32 = 60;
/// More than the path's buckets have room for is no limit.
const RATES: RangeInclusive<u32> = 0..=1_000_000;
const DEFAULT_RESPONSES: u32 = 500;
const DEFAULT_SLIP: u32 = 2;
const DEFAULT_MISSES: u32 = 200;
const DEFAULT_PREFIXES: [u8; 2] = [24, 56];

/// What the config says of DNS.
pub(super) struct Read {
    pub(super) listens: Vec<SocketAddr>,
    pub(super) answering: Option<Answering>,
    pub(super) zone: Arc<Zone>,
}

/// Reads all of it. What something is wrong with may be left out.
pub(super) fn read(
    config: &Config,
    checks: &Checks,
    secret: Option<&Secret>,
    keys: Option<Keys>,
    problems: &mut Problems<'_>,
) -> Read {
    let Some(spanned) = &config.file().dns else {
        let answering = Answering {
            lease: None,
            lapse: Lapse::Pass,
            cookie_secrets: [[0; 2]; 2],
            limit: None,
            prefixes: DEFAULT_PREFIXES,
        };
        return Read { listens: Vec::new(), answering: Some(answering), zone: Arc::default() };
    };
    let written = spanned.get_ref();
    let mut part = problems.part(Place::Dns, Some(spanned.span()));
    let listens = listens(written, &mut part);
    let lease = part.number_or("lease_seconds", &written.lease_seconds, LEASES, DEFAULT_LEASE);
    let lapse = part.choice_or_first("lapse", &written.lapse, &[("pass", Lapse::Pass), ("servfail", Lapse::Fail)]);
    let cookie_secrets = cookie_secrets(config, written, secret, &mut part);
    let (limit, prefixes) = match &written.limit {
        Some(spanned) => limit(spanned.get_ref(), &mut problems.part(Place::DnsLimit, Some(spanned.span()))),
        None => (Some(None), Some(DEFAULT_PREFIXES)),
    };
    let answering = || {
        Some(Answering {
            lease: lease?.checked_sub(1).map(|seconds| Duration::from_secs(u64::from(seconds) + 1)),
            lapse: lapse?,
            cookie_secrets: cookie_secrets?,
            limit: limit?,
            prefixes: prefixes?,
        })
    };
    let answering = answering();
    let mut taken = BTreeMap::new();
    let names = written.name.iter().filter_map(|written| {
        let name = written.get_ref().name.as_ref();
        let place = name.map_or(Place::Dns, |name| Place::Name(name.get_ref().clone()));
        names::read(written.get_ref(), checks, &mut taken, &mut problems.part(place, Some(written.span())))
    });
    let names: Vec<_> = names.collect();
    for written in written.records.iter().filter(|written| written.get_ref().file.is_none()) {
        let mut part = problems.part(Place::Records, Some(written.span()));
        part.required("file", &written.get_ref().file, "file = \"names.txt\"");
    }
    let stored = records::read(config.records(), &taken, problems);
    let domains = domains(written, is_alias(&names, &stored), problems);
    let server = answering.zip(keys).map(|(answering, keys)| Server { keys, settings: answering.settings() });
    let zone = Zone::new(names, stored, domains, server.unwrap_or_default());
    Read { listens, answering, zone: Arc::new(zone) }
}

fn listens(written: &schema::Dns, part: &mut Part<'_, '_>) -> Vec<SocketAddr> {
    let port = written.port.as_ref().map_or(Some(DEFAULT_PORT), |port| part.port("port", port));
    if written.listen.is_empty() {
        part.report_here(Problem::NoListen);
    }
    let mut listens = Vec::new();
    for written in &written.listen {
        let address = part.address_of_machine("listen address", written);
        let Some(listen) = address.zip(port).map(SocketAddr::from) else {
            continue;
        };
        if listens.contains(&listen) {
            part.report(written, Problem::DuplicateListen { address: listen.ip() });
        }
        listens.push(listen);
    }
    listens
}

/// The one that cookies are made with, and the one before it.
fn cookie_secrets(
    config: &Config,
    written: &schema::Dns,
    secret: Option<&Secret>,
    part: &mut Part<'_, '_>,
) -> Option<[[u64; 2]; 2]> {
    let current = match (&written.cookie_secret, &written.cookie_secret_file) {
        (Some(_), Some(second)) => {
            part.report(second, Problem::TwoCookieSecrets);
            None
        }
        (Some(written), None) => cookie_secret("cookie_secret", written, written.get_ref(), part),
        (None, Some(file)) => cookie_secret("cookie_secret_file", file, config.cookie_secret_of_file()?, part),
        (None, None) => secret.map(derived),
    };
    let before = match &written.cookie_secret_before {
        Some(written) => cookie_secret("cookie_secret_before", written, written.get_ref(), part),
        None => current,
    };
    Some([current?, before?])
}

fn cookie_secret<T>(
    what: &'static str,
    written: &Spanned<T>,
    secret: &Secret,
    part: &mut Part<'_, '_>,
) -> Option<[u64; 2]> {
    let digits = std::str::from_utf8(secret.bytes()).ok().filter(|text| text.len() == 32);
    // A sign would be taken for part of the number.
    let digits = digits.filter(|text| text.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let number = digits.and_then(|text| u128::from_str_radix(text, 16).ok());
    if number.is_none() {
        part.report(written, Problem::CookieSecret { what });
    }
    // SipHash reads its key as two little-endian words.
    let (first, second) = number.map(|number| ((number >> 64) as u64, number as u64))?;
    Some([first.swap_bytes(), second.swap_bytes()])
}

/// One that tells nothing of the hashes' keys.
fn derived(secret: &Secret) -> [u64; 2] {
    let digest = Sha256::new().chain_update(b"lb cookies").chain_update(secret.bytes()).finalize();
    let word = |skip| digest.iter().skip(skip).take(8).rfold(0, |word, byte| word << 8 | u64::from(*byte));
    [word(0), word(8)]
}

fn limit(written: &schema::DnsLimit, part: &mut Part<'_, '_>) -> (Option<Option<RateLimit>>, Option<[u8; 2]>) {
    let mut rate = |key, written: &Written<i64>, default| part.number_or(key, written, RATES, default);
    let responses = rate("responses_per_second", &written.responses_per_second, DEFAULT_RESPONSES);
    let misses = rate("misses_per_second", &written.misses_per_second, DEFAULT_MISSES);
    let burst = responses.unwrap_or_default().max(1).saturating_mul(2);
    let burst = part.number_or("burst", &written.burst, 1..=*RATES.end() * 2, burst);
    let slip = part.number_or("slip", &written.slip, 0..=255, DEFAULT_SLIP);
    let [default4, default6] = DEFAULT_PREFIXES;
    let ipv4 = part.number_or("ipv4_prefix", &written.ipv4_prefix, 8..=32, default4.into());
    // A client has a network of 64 bits to itself.
    let ipv6 = part.number_or("ipv6_prefix", &written.ipv6_prefix, 16..=64, default6.into());
    let limit =
        || Some(RateLimit { responses_per_second: responses?, burst: burst?, slip: slip?, misses_per_second: misses? });
    (limit().map(Some), ipv4.zip(ipv6).map(|(ipv4, ipv6)| [ipv4 as u8, ipv6 as u8]))
}

/// Whether a name stands for another one.
fn is_alias(names: &[Name], stored: &Stored) -> impl Fn(&[u8]) -> bool {
    |wire| {
        let named = names.iter().filter(|name| *name.wire == *wire).flat_map(|name| &name.data);
        let filed = stored.get(wire).unwrap_or_default();
        named.map(|data| data.kind).chain(filed.into_iter().map(|set| set.kind)).any(|kind| kind == CNAME)
    }
}

fn domains(written: &schema::Dns, is_alias: impl Fn(&[u8]) -> bool, problems: &mut Problems<'_>) -> Vec<Domain> {
    let mut taken = BTreeMap::new();
    let domains = written.domain.iter().filter_map(|written| {
        let name = written.get_ref().name.as_ref();
        let place = name.map_or(Place::Dns, |name| Place::Domain(name.get_ref().clone()));
        let mut part = problems.part(place, Some(written.span()));
        let domain = domain(written.get_ref(), &mut taken, &mut part)?;
        if is_alias(&domain.wire) {
            part.report_here(Problem::AliasOfDomain);
        }
        Some(domain)
    });
    domains.collect()
}

fn domain(written: &schema::Domain, taken: &mut BTreeMap<Vec<u8>, usize>, part: &mut Part<'_, '_>) -> Option<Domain> {
    let name = part.required("name", &written.name, "name = \"example.com\"");
    let primary = part.required("primary", &written.primary, "primary = \"ns1.example.com\"");
    let wire = name.and_then(|name| text::name_in(name, part));
    if let (Some(name), Some(wire)) = (name, &wire)
        && let Some(line) = taken.insert(wire.clone(), part.line(name))
    {
        part.report(name, Problem::DuplicateDomain { line });
    }
    let primary = primary.and_then(|primary| text::name_in(primary, part));
    let contact = match &written.contact {
        Some(contact) => text::name_in(contact, part),
        None => wire.as_ref().map(|wire| [b"\x0ahostmaster", wire.as_slice()].concat()),
    };
    let ttl =
        part.number_or("negative_ttl_seconds", &written.negative_ttl_seconds, NEGATIVE_TTLS, DEFAULT_NEGATIVE_TTL);
    let serial = part.number_or("serial", &written.serial, 0..=u32::MAX, 1);
    let negative_ttl_seconds = ttl?;
    Some(Domain {
        wire: wire?.into(),
        soa: Data::soa(&primary?, &contact?, serial?, negative_ttl_seconds),
        negative_ttl_seconds,
    })
}
