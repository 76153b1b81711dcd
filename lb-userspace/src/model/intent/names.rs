//! The names that the config has itself.

use super::{
    Address, Below, Name, Policy,
    checks::{A_NAME, Checks, Probe},
    part::Part,
    text,
};
use crate::{
    config::{Problem, schema},
    model::dns::data::{self, Data, LARGEST_SET},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
};
use toml::Spanned;

/// Health checks are of no use to who keeps an answer for longer than a day.
const TTLS: RangeInclusive<u32> = 0..=86_400;
const DEFAULT_TTL: u32 = 30;
/// Addresses of one family: an answer with so many IPv6 addresses, each of which may be the first, still fits what the kernel holds.
const MOST_ADDRESSES: usize = 16;
const WEIGHTS: RangeInclusive<u32> = 0..=65_535;
const TIERS: RangeInclusive<u32> = 1..=255;
const FAMILIES: [(&str, IsOf); 2] = [("IPv4", IpAddr::is_ipv4), ("IPv6", IpAddr::is_ipv6)];

type IsOf = fn(&IpAddr) -> bool;

/// Reads a name; notes it among those that are `taken`, each with its line.
pub(super) fn read(
    written: &schema::Name,
    checks: &Checks,
    taken: &mut BTreeMap<Vec<u8>, usize>,
    part: &mut Part<'_, '_>,
) -> Option<Name> {
    let name = part.required("name", &written.name, "name = \"www.example.com\"");
    let wire = name.and_then(|name| take_name(name, taken, part));
    let ttl_seconds = part.number_or("ttl_seconds", &written.ttl_seconds, TTLS, DEFAULT_TTL);
    let policy = part.choice_or_first(
        "policy",
        &written.policy,
        &[
            ("round-robin", Policy::RoundRobin),
            ("shuffle", Policy::Shuffle),
            ("weighted", Policy::Weighted),
            ("sticky", Policy::Sticky),
            ("failover", Policy::Failover),
        ],
    );
    let addresses = addresses(written, checks, policy, part);
    let minimum_healthy = minimum(written, &addresses, part);
    let below_minimum = below(written, part);
    let data = data(written, part);
    alone(written, part);
    Some(Name {
        name: name?.get_ref().trim_end_matches('.').to_ascii_lowercase(),
        wire: wire?.into(),
        ttl_seconds: ttl_seconds?,
        addresses,
        policy: policy?,
        minimum_healthy: minimum_healthy?,
        below_minimum: below_minimum?,
        data,
    })
}

fn take_name(
    written: &Spanned<String>,
    taken: &mut BTreeMap<Vec<u8>, usize>,
    part: &mut Part<'_, '_>,
) -> Option<Vec<u8>> {
    let wire = text::name_in(written, part)?;
    if let Some(line) = taken.insert(wire.clone(), part.line(written)) {
        part.report(written, Problem::DuplicateName { line });
    }
    Some(wire)
}

fn addresses(written: &schema::Name, checks: &Checks, policy: Option<Policy>, part: &mut Part<'_, '_>) -> Vec<Address> {
    let common = written.check.as_ref().map(|check| checks.named_with_port(check, A_NAME, false, part));
    let mut seen = BTreeSet::new();
    let mut addresses = Vec::new();
    for written in &written.addresses {
        let Some(address) = address(written, checks, common.clone(), policy, part) else { continue };
        if !seen.insert(address.address) {
            part.report(written, Problem::DuplicateAddress { address: address.address });
        }
        addresses.push(address);
    }
    for (family, is_of) in FAMILIES {
        let count = || addresses.iter().filter(|address| is_of(&address.address));
        too_many(family, count().count(), part);
        if count().count() > 0 && count().all(|address| address.weight == 0) {
            part.report_here(Problem::NoWeightOfFamily { family });
        }
    }
    addresses
}

fn too_many(family: &'static str, count: usize, part: &mut Part<'_, '_>) {
    if count > MOST_ADDRESSES {
        part.report_here(Problem::TooManyAddresses { family, count, most: MOST_ADDRESSES });
    }
}

fn address(
    written: &Spanned<schema::Address>,
    checks: &Checks,
    common: Option<Option<Probe>>,
    policy: Option<Policy>,
    part: &mut Part<'_, '_>,
) -> Option<Address> {
    // The port is the check's own.
    let target = |probe: Option<Option<Probe>>, address| match probe {
        Some(probe) => Some(Some(probe?.target(address, 0))),
        None => Some(None),
    };
    let table = match written.get_ref() {
        schema::Address::Plain(text) => {
            let address = part.address_text("address", written, text)?;
            return Some(Address { address, weight: 1, tier: 1, target: target(common, address)? });
        }
        schema::Address::Table(table) => table,
    };
    let Some(text) = &table.address else {
        part.report(written, Problem::Missing { key: "address", cure: "address = \"192.0.2.10\"" });
        return None;
    };
    let address = part.address("address", text);
    let weight = part.number_or("weight", &table.weight, WEIGHTS, 1);
    let tier = part.number_or("tier", &table.tier, TIERS, 1);
    let own = table.check.as_ref().map(|check| checks.named_with_port(check, A_NAME, false, part));
    if let Some(weight) = &table.weight
        && policy.is_some_and(|policy| ![Policy::Weighted, Policy::Sticky].contains(&policy))
    {
        part.report(weight, Problem::OtherPolicy { key: "weight", policies: "\"weighted\" or \"sticky\"" });
    }
    if let Some(tier) = &table.tier
        && policy.is_some_and(|policy| policy != Policy::Failover)
    {
        part.report(tier, Problem::OtherPolicy { key: "tier", policies: "\"failover\"" });
    }
    let address = address?;
    Some(Address { address, weight: weight?, tier: tier?, target: target(own.or(common), address)? })
}

fn minimum(written: &schema::Name, addresses: &[Address], part: &mut Part<'_, '_>) -> Option<u32> {
    let minimum = part.number_or("minimum_healthy", &written.minimum_healthy, 1..=MOST_ADDRESSES as u32, 1)?;
    let of_family = |is_of: IsOf| addresses.iter().filter(|one| is_of(&one.address)).count();
    let most = FAMILIES.map(|(_, is_of)| of_family(is_of)).into_iter().max().unwrap_or_default();
    // Of addresses that could not be read it is not known whose family they are of.
    let all = addresses.len() == written.addresses.len() && most > 0;
    if let Some(written) = written.minimum_healthy.as_ref().filter(|_| all && minimum as usize > most) {
        part.report(written, Problem::MinimumBeyondAddresses { minimum, most });
    }
    Some(minimum)
}

fn below(written: &schema::Name, part: &mut Part<'_, '_>) -> Option<Below> {
    let mut fallback = Vec::new();
    for written in &written.fallback {
        let Some(address) = part.address("fallback", written) else { continue };
        if fallback.contains(&address) {
            part.report(written, Problem::DuplicateAddress { address });
        }
        fallback.push(address);
    }
    for (family, is_of) in FAMILIES {
        too_many(family, fallback.iter().filter(|address| is_of(address)).count(), part);
    }
    let choices = [
        ("servfail", Below::ServFail),
        ("nodata", Below::NoData),
        ("fail-open", Below::FailOpen),
        ("fallback", Below::Fallback(fallback)),
    ];
    let numbers: [(&str, usize); 4] =
        std::array::from_fn(|number| (choices.get(number).map_or("", |(word, _)| word), number));
    let number = part.choice_or_first("below_minimum", &written.below_minimum, &numbers)?;
    let below = choices.into_iter().nth(number).map(|(_, below)| below)?;
    match &below {
        Below::Fallback(addresses) if addresses.is_empty() && written.fallback.is_empty() => {
            part.report_here(Problem::NoFallback);
        }
        Below::Fallback(_) => (),
        _ => {
            if let Some(first) = written.fallback.first() {
                part.report(first, Problem::UnusedFallback);
            }
        }
    }
    Some(below)
}

/// The other records.
fn data(written: &schema::Name, part: &mut Part<'_, '_>) -> Vec<Data> {
    let cname = written.cname.as_ref().and_then(|name| text::name_in(name, part)).map(|name| Data::cname(&name));
    let mut all: Vec<Data> = cname.into_iter().collect();
    for (kind, list) in [(data::MX, &written.mx), (data::TXT, &written.txt), (data::SRV, &written.srv)] {
        let name = data::kind_name(kind);
        let start = all.len();
        for written in list {
            let text = written.get_ref();
            let read = if kind == data::TXT { Ok(Data::txt(&[text.as_bytes()])) } else { text::data(kind, text) };
            match read {
                Err(problem) => part.report(written, problem),
                Ok(data) if all.contains(&data) => {
                    part.report(written, Problem::DuplicateRecord { kind: name, value: text.clone() });
                }
                Ok(data) => all.push(data),
            }
        }
        let length = data::set_length(all.iter().skip(start).map(Data::view));
        if length > LARGEST_SET {
            part.report_here(Problem::LargeSet { kind: name, length, most: LARGEST_SET });
        }
    }
    all
}

/// Reports what does not go together, and whether there is nothing.
fn alone(written: &schema::Name, part: &mut Part<'_, '_>) {
    let lists = [
        ("addresses", written.addresses.is_empty()),
        ("mx", written.mx.is_empty()),
        ("txt", written.txt.is_empty()),
        ("srv", written.srv.is_empty()),
    ];
    let others: Vec<String> = lists.iter().filter(|(_, none)| !none).map(|(key, _)| format!("`{key}`")).collect();
    match &written.cname {
        Some(cname) if !others.is_empty() => part.report(cname, Problem::CnameNotAlone { others: others.join(", ") }),
        None if others.is_empty() => part.report_here(Problem::NoRecords),
        _ => (),
    }
    if !written.addresses.is_empty() || others.is_empty() && written.cname.is_none() {
        return;
    }
    let of_addresses = [
        ("check", written.check.is_some()),
        ("policy", written.policy.is_some()),
        ("minimum_healthy", written.minimum_healthy.is_some()),
        ("below_minimum", written.below_minimum.is_some()),
        ("fallback", !written.fallback.is_empty()),
    ];
    for (key, _) in of_addresses.into_iter().filter(|(_, is_written)| *is_written) {
        part.report_here(Problem::WithoutAddresses { key });
    }
}
