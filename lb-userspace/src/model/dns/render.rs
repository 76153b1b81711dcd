//! From what is known of a name to the answer to a question, by its policy.

use super::{
    data::{Data, View, write_record},
    rendered::{Body, Rendered},
    zone::Domain,
};
use crate::model::{
    intent::{Address, Policy},
    maglev::{self, Member},
};
use lb_common::{
    tables::answers::{NEGATIVE, Pick},
    wire::dns::{AUTHORITATIVE, RESPONSE},
};
use std::{
    cmp::Reverse,
    hash::{DefaultHasher, Hasher as _},
    net::IpAddr,
};

/// Response code: we can't say right now.
pub const SERVFAIL: u16 = 2;
/// Response code: there is no such name.
pub const NXDOMAIN: u16 = 3;
/// Slots of a table of weights; smaller if the weights come out with fewer.
pub const WEIGHT_SLOTS: u32 = 512;
/// Slots of a sticky name, a prime. The same whatever is up, since another number would send every client elsewhere.
pub const STICKY_SLOTS: u32 = 1_009;
/// Orders of a shuffled set that are rendered; each is rotated as well.
const ORDERS: usize = 8;
/// A larger set of records that differ in length is not rotated: it would be rendered as often as it has records.
const MOST_ROTATIONS: usize = 16;

/// A set of records, one after the other the first.
pub fn set(wire: &[u8], ttl_seconds: u32, data: &[View<'_>]) -> Rendered {
    if data.len() < 2 {
        return only(body(wire, ttl_seconds, data));
    }
    let rendered = body(wire, ttl_seconds, data);
    if rendered.turns > 1 {
        return Rendered { pick: Pick::Turn, slots: Vec::new(), bodies: vec![rendered] };
    }
    if data.len() > MOST_ROTATIONS {
        return only(rendered);
    }
    let rotations = (0..data.len()).map(|turn| {
        let (end, start) = data.split_at_checked(turn).unwrap_or_default();
        body(wire, ttl_seconds, &[start, end].concat())
    });
    Rendered { pick: Pick::Turn, slots: (0..data.len() as u16).collect(), bodies: rotations.collect() }
}

/// Addresses of one family, at least one, by the policy of their name.
pub fn addresses(wire: &[u8], ttl_seconds: u32, policy: Policy, addresses: &[&Address]) -> Rendered {
    let data: Vec<Data> = addresses.iter().map(|address| Data::address(address.address)).collect();
    let views: Vec<View<'_>> = data.iter().map(Data::view).collect();
    let weights: Vec<u32> = addresses.iter().map(|address| address.weight).collect();
    let each = |slots: Vec<u16>, pick| {
        let bodies = views.iter().map(|view| body(wire, ttl_seconds, &[*view])).collect();
        Rendered { pick, slots, bodies }
    };
    match policy {
        _ if data.len() < 2 => set(wire, ttl_seconds, &views),
        Policy::RoundRobin | Policy::Failover => set(wire, ttl_seconds, &views),
        Policy::Shuffle => shuffled(wire, ttl_seconds, &views),
        Policy::Weighted => each(interleaved(&weights), Pick::Turn),
        Policy::Sticky => each(sticky(addresses), Pick::Client),
    }
}

/// No records, with the SOA record of the domain if there is one (RFC 2308 section 3).
pub fn negative(wire: &[u8], domain: Option<&Domain>, code: u16) -> Rendered {
    let mut body = Body { class: NEGATIVE, flags: ANSWER | code, spent_at: u64::MAX, ..Body::default() };
    if let Some(domain) = domain.filter(|_| code != SERVFAIL) {
        write_record(&mut body.records, wire, &domain.wire, domain.negative_ttl_seconds, domain.soa.view());
        body.counts = [0, 1, 0];
    }
    only(body)
}

const ANSWER: u16 = RESPONSE | AUTHORITATIVE;

fn only(body: Body) -> Rendered {
    // What would be rotated is not by this pick.
    Rendered { pick: Pick::Only, slots: Vec::new(), bodies: vec![Body { turns: 0, ..body }] }
}

fn body(wire: &[u8], ttl_seconds: u32, data: &[View<'_>]) -> Body {
    let mut records = Vec::new();
    let mut lengths = Vec::with_capacity(data.len());
    for view in data {
        let start = records.len();
        write_record(&mut records, wire, wire, ttl_seconds, *view);
        lengths.push(records.len() - start);
    }
    // Sums of whole words don't depend on their order: records at odd offsets would change them.
    let alike = lengths.first().is_some_and(|first| first % 2 == 0 && lengths.iter().all(|length| length == first));
    Body {
        flags: ANSWER,
        counts: [data.len() as u16, 0, 0],
        records,
        turns: if alike && data.len() > 1 { data.len() as u16 } else { 0 },
        spent_at: u64::MAX,
        ..Body::default()
    }
}

/// Orders that no rotation turns into each other: all that there are, or some that depend on the name alone.
fn shuffled(wire: &[u8], ttl_seconds: u32, data: &[View<'_>]) -> Rendered {
    let mut orders = vec![data.to_vec()];
    let mut number = 0_u64;
    let all: usize = (1..data.len()).take(4).product();
    while orders.len() < all.min(ORDERS) {
        let mut order = data.to_vec();
        let Some((_, rest)) = order.split_first_mut() else { break };
        rest.sort_by_cached_key(|view| {
            let mut hasher = DefaultHasher::new();
            hasher.write(wire);
            hasher.write(view.bytes);
            hasher.write_u64(number);
            hasher.finish()
        });
        if !orders.contains(&order) {
            orders.push(order);
        }
        number += 1;
    }
    let slots = if orders.len() < 2 { 0 } else { orders.len() as u16 };
    Rendered {
        pick: Pick::Random,
        slots: (0..slots).collect(),
        bodies: orders.iter().map(|order| body(wire, ttl_seconds, order)).collect(),
    }
}

/// Which of the weights each slot belongs to, every one as evenly as can be: smooth weighted round robin, in which all gain their
/// weight in each turn and the richest one pays for the turn.
fn interleaved(weights: &[u32]) -> Vec<u16> {
    let shares = shares(weights);
    let total: i64 = shares.iter().sum();
    let mut gained = vec![0; shares.len()];
    let turns = (0..total).map(|_| {
        gained.iter_mut().zip(&shares).for_each(|(gained, share)| *gained += share);
        let richest = (0..).zip(&gained).max_by_key(|(number, gained)| (**gained, Reverse(*number)));
        let richest = richest.map_or(0, |(number, _)| number);
        gained.get_mut(usize::from(richest)).into_iter().for_each(|gained| *gained -= total);
        richest
    });
    turns.collect()
}

/// How many slots each weight gets: exactly its share if the weights come out with at most [`WEIGHT_SLOTS`], else the whole part of it,
/// and the slots that are left go to the largest remainders.
fn shares(weights: &[u32]) -> Vec<i64> {
    let divisor = weights.iter().fold(0, |divisor, weight| gcd(divisor, *weight)).max(1);
    let total: u64 = weights.iter().map(|weight| u64::from(weight / divisor)).sum();
    let slots = total.min(WEIGHT_SLOTS.into());
    let share = |weight: &u32| u64::from(weight / divisor) * slots;
    let mut shares: Vec<u64> =
        weights.iter().map(|weight| share(weight).checked_div(total).unwrap_or_default()).collect();
    let left = slots - shares.iter().sum::<u64>();
    let remainder = |weight: &u32| share(weight).checked_rem(total).unwrap_or_default();
    let mut by_remainder: Vec<_> = shares.iter_mut().zip(weights).collect();
    by_remainder.sort_by_key(|(_, weight)| Reverse(remainder(weight)));
    by_remainder.into_iter().zip(0..left).for_each(|((share, _), _)| *share += 1);
    shares.into_iter().map(|share| share as i64).collect()
}

fn gcd(one: u32, other: u32) -> u32 {
    if other == 0 { one } else { gcd(other, one % other) }
}

fn sticky(addresses: &[&Address]) -> Vec<u16> {
    let member = |(id, address): (u32, &&Address)| Member { id, key: key(address.address), weight: address.weight };
    let members: Vec<Member> = (0..).zip(addresses).map(member).collect();
    maglev::table(STICKY_SLOTS, &members).into_iter().map(|id| id as u16).collect()
}

/// What an address is known by on every machine.
fn key(address: IpAddr) -> [u64; 3] {
    let (bits, family) = match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 4),
        IpAddr::V6(address) => (address.to_bits(), 6),
    };
    [(bits >> 64) as u64, bits as u64, family]
}

#[cfg(test)]
mod tests;
