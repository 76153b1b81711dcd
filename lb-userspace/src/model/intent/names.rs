//! DNS: where questions are answered, and the names.

use super::{
    Name,
    checks::Checks,
    part::{Part, Problems},
};
use crate::config::{Place, Problem, schema};
use lb_common::tables::MAX_RECORDS;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};
use toml::Spanned;

const DEFAULT_PORT: u16 = 53;
/// Health checks are of no use to who keeps an answer for longer than a day.
const TTLS: RangeInclusive<u32> = 0..=86_400;
const DEFAULT_TTL: u32 = 30;
/// Bytes of the longest label and of the longest name (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;
const LONGEST_NAME: usize = 255;

/// Reads where questions are answered, and the names. What something is wrong with may be left out.
pub(super) fn read(file: &schema::File, checks: &Checks, problems: &mut Problems<'_>) -> (Vec<SocketAddr>, Vec<Name>) {
    let Some(spanned) = &file.dns else {
        return (Vec::new(), Vec::new());
    };
    let written = spanned.get_ref();
    let listens = listens(written, &mut problems.part(Place::Dns, Some(spanned.span())));
    let mut taken = BTreeMap::new();
    let names = written.name.iter().filter_map(|written| {
        let name = written.get_ref().name.as_ref();
        let place = name.map_or(Place::Dns, |name| Place::Name(name.get_ref().clone()));
        self::name(written.get_ref(), checks, &mut taken, &mut problems.part(place, Some(written.span())))
    });
    (listens, names.collect())
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

fn name(
    written: &schema::Name,
    checks: &Checks,
    taken: &mut BTreeMap<Vec<u8>, usize>,
    part: &mut Part<'_, '_>,
) -> Option<Name> {
    let name = part.required("name", &written.name, "name = \"www.example.com\"");
    let wire = name.and_then(|name| take_name(name, taken, part));
    let ttl_seconds = part.number_or("ttl_seconds", &written.ttl_seconds, TTLS, DEFAULT_TTL);
    let addresses = addresses(written, part);
    let probe = written.check.as_ref().map(|check| checks.named_with_port(check, "a name", part));
    // The port is the check's own.
    let target = |address| Some(probe??.target(address, 0));
    Some(Name {
        name: name?.get_ref().trim_end_matches('.').to_ascii_lowercase(),
        wire: wire?,
        ttl_seconds: ttl_seconds?,
        addresses: addresses.into_iter().map(|address| (address, target(address))).collect(),
    })
}

fn take_name(
    written: &Spanned<String>,
    taken: &mut BTreeMap<Vec<u8>, usize>,
    part: &mut Part<'_, '_>,
) -> Option<Vec<u8>> {
    let wire = match wire(written.get_ref()) {
        Ok(wire) => wire,
        Err(problem) => {
            part.report(written, problem);
            return None;
        }
    };
    if let Some(line) = taken.insert(wire.clone(), part.line(written)) {
        part.report(written, Problem::DuplicateName { line });
    }
    Some(wire)
}

/// A name as on the wire (RFC 1035 section 3.1), in lower case.
fn wire(name: &str) -> Result<Vec<u8>, Problem> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(Problem::EmptyName);
    }
    let mut wire = Vec::new();
    for label in name.split('.') {
        if label.is_empty() {
            return Err(Problem::EmptyLabel);
        }
        if label == "*" {
            return Err(Problem::Wildcard);
        }
        let odd = |character: &char| !character.is_ascii_alphanumeric() && !"-_".contains(*character);
        if let Some(character) = label.chars().find(odd) {
            return Err(Problem::NameCharacter { character });
        }
        let length = u8::try_from(label.len()).ok().filter(|_| label.len() <= LONGEST_LABEL);
        wire.push(length.ok_or_else(|| Problem::LongLabel { label: label.into() })?);
        wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    wire.push(0);
    if wire.len() > LONGEST_NAME {
        return Err(Problem::LongName { length: wire.len() });
    }
    Ok(wire)
}

fn addresses(written: &schema::Name, part: &mut Part<'_, '_>) -> Vec<IpAddr> {
    if written.addresses.is_empty() {
        part.report_here(Problem::NoAddresses);
    }
    let mut seen = BTreeSet::new();
    let mut addresses = Vec::new();
    for written in &written.addresses {
        let Some(address) = part.address("address", written) else {
            continue;
        };
        if !seen.insert(address) {
            part.report(written, Problem::DuplicateAddress { address });
        }
        addresses.push(address);
    }
    for (family, is_of) in [("IPv4", IpAddr::is_ipv4 as fn(&IpAddr) -> bool), ("IPv6", IpAddr::is_ipv6)] {
        let count = addresses.iter().filter(|address| is_of(address)).count();
        if count > MAX_RECORDS {
            part.report_here(Problem::TooManyAddresses { family, count });
        }
    }
    addresses
}
