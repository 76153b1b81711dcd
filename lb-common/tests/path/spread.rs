//! Which slot a flow falls into: always the same one, and not always the same ones.

use crate::support::{
    LAN, Numbers, SIDES, V4, V6, WAN, cases,
    frames::{FlowFrame, Transport},
    steered,
    tables::{FIRST, KEYS, SLOTS, dsr, empty, endpoint},
};
use lb_common::{
    hash::{self, Keys},
    host::HostTables,
    tables::{Region, Service, Slot, address_words},
    verdict::{Verdict, Why},
};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The words of a flow, as documented: client address, and both ports as on the wire.
fn words(from: SocketAddr, to: SocketAddr) -> [u64; 3] {
    let [first, second] = address_words(from.ip());
    let [port, service] = [from, to].map(|end| u64::from(u16::from_ne_bytes(end.port().to_be_bytes())));
    [first, second, port | service << 16]
}

fn slot(keys: &Keys, from: SocketAddr, to: SocketAddr) -> u32 {
    hash::slot(hash::flow(keys, words(from, to)), SLOTS)
}

/// A service whose every slot has a backend of its own, the slot's index above [`FIRST`].
fn one_backend_a_slot(keys: Keys, first: u32, at: SocketAddr, protocol: u8) -> HostTables {
    let mut tables = empty();
    tables.settings.as_mut().unwrap().keys = keys;
    tables.service_ids.insert(endpoint(at, protocol), 7);
    tables.services.insert(7, Service { region: Region { first, slots: SLOTS }.word(), flags: 0, id: 7 });
    for index in 0..SLOTS {
        tables.slots.insert(first.wrapping_add(index), Slot::clean(FIRST + index));
        tables.backends.insert(FIRST + index, dsr(&V4, protocol, LAN));
    }
    tables
}

/// The slot that the path took for a frame: the one whose backend was counted.
fn taken(frame: &FlowFrame, tables: &HostTables) -> u32 {
    let before = tables.traffic();
    let (verdict, _) = steered(&frame.bytes(), tables);
    assert_eq!(verdict, Verdict::Redirect(Why::ForwardedDsr, LAN));
    let after = tables.traffic();
    let moved: Vec<u32> = after.keys().filter(|id| before.get(id) != after.get(id)).copied().collect();
    assert_eq!(moved.len(), 1);
    moved[0] - FIRST
}

fn flows(count: u64) -> impl Iterator<Item = (SocketAddr, u8)> {
    let mut numbers = Numbers(count);
    (0..count).map(move |_| {
        let bits = u128::from(numbers.next()) << 64 | u128::from(numbers.next());
        let client: IpAddr =
            if bits & 1 == 0 { Ipv4Addr::from((bits >> 32) as u32).into() } else { Ipv6Addr::from(bits).into() };
        let number = numbers.next();
        (SocketAddr::new(client, number as u16), if number >> 16 & 1 == 0 { 6 } else { 17 })
    })
}

fn service_of(client: SocketAddr) -> SocketAddr {
    if client.is_ipv4() { V4.service() } else { V6.service() }
}

fn transport(protocol: u8) -> Transport {
    if protocol == 6 { Transport::Tcp } else { Transport::Udp }
}

/// Recorded: machines of one fleet must agree, so another hash is another version of the tables' layout.
#[test]
fn a_flow_has_the_hash_that_other_machines_give_it() {
    let client4 = SocketAddr::new([198, 51, 100, 7].into(), 40_000);
    let client6 = SocketAddr::new([0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7].into(), 40_000);
    assert_eq!(hash::flow(&KEYS, words(client4, V4.service())), RECORDED[0]);
    assert_eq!(hash::flow(&KEYS, words(client6, V6.service())), RECORDED[1]);
    assert_eq!(hash::flow(&KEYS, [0; 3]), RECORDED[2]);
    assert_eq!(hash::flow(&KEYS, [u64::MAX; 3]), RECORDED[3]);
}

/// By a naive version of the same formula in another language.
const RECORDED: [u32; 4] = [0xb13e_030e, 0xe449_593a, 0x6af4_4558, 0x1183_2d0e];

#[test]
fn the_path_takes_the_slot_of_the_flows_hash() {
    for (client, protocol) in flows(60) {
        let service = service_of(client);
        // Slots of a table need not start at zero, and the last table ends where the numbers do.
        for first in [0, 65_536, u32::MAX - SLOTS + 1] {
            let tables = one_backend_a_slot(KEYS, first, service, protocol);
            let frame = FlowFrame::asked(client, service, transport(protocol));
            assert_eq!(taken(&frame, &tables), slot(&KEYS, client, service));
        }
    }
}

#[test]
fn a_flow_keeps_its_slot_whatever_else_its_packets_say() {
    for side in SIDES {
        let tables = one_backend_a_slot(KEYS, 0, side.service(), 6);
        let frame = FlowFrame::to_service(&side, Transport::Tcp);
        let slot = taken(&frame, &tables);
        for (hops, mark, class, length) in [(57, 0xbeef, 0xb9, 27), (1, 0, 0, 0), (255, 0xffff, 0xff, 1_400)] {
            let frame = FlowFrame { hops, mark, class, payload: vec![0xaa; length], ..frame.clone() };
            assert_eq!(taken(&frame, &tables), slot);
        }
    }
}

#[test]
fn services_at_two_addresses_take_the_same_slot_for_a_client() {
    for (client, protocol) in flows(20) {
        let service = service_of(client);
        let other = SocketAddr::new(if client.is_ipv4() { V4.host } else { V6.host }, service.port());
        let taken = [service, other].map(|service| {
            let tables = one_backend_a_slot(KEYS, 0, service, protocol);
            taken(&FlowFrame::asked(client, service, transport(protocol)), &tables)
        });
        assert_eq!(taken[0], taken[1]);
    }
}

/// How many of the flows fall into the same slot both ways; a hash without a pattern leaves about one in [`SLOTS`].
fn agreeing(count: u64, one: impl Fn(SocketAddr) -> u32, other: impl Fn(SocketAddr) -> u32) -> u64 {
    flows(count).filter(|(client, _)| one(*client) == other(*client)).count() as u64
}

#[test]
fn whatever_tells_flows_apart_changes_their_slots() {
    const COUNT: u64 = 10_000;
    // 40 expected, with a deviation of 6.3.
    let chance = 10..=80;
    let known = |client: SocketAddr| slot(&KEYS, client, service_of(client));
    let with = |change: fn(&mut SocketAddr, &mut SocketAddr)| {
        move |mut client: SocketAddr| {
            let mut service = service_of(client);
            change(&mut client, &mut service);
            slot(&KEYS, client, service)
        }
    };
    let source_port = with(|client, _| client.set_port(client.port() ^ 1));
    assert!(chance.contains(&agreeing(COUNT, known, source_port)), "the client's port");
    let port = with(|_, service| service.set_port(80));
    assert!(chance.contains(&agreeing(COUNT, known, port)), "the service's port");
    let address = with(|client, _| {
        client.set_ip(match client.ip() {
            IpAddr::V4(address) => Ipv4Addr::from(u32::from(address) ^ 1).into(),
            IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) ^ 1).into(),
        });
    });
    assert!(chance.contains(&agreeing(COUNT, known, address)), "the client's address");
    for (name, keys) in [
        ("the first key", Keys { flow: [KEYS.flow[0] ^ 0x10_0000_0010, KEYS.flow[1], KEYS.flow[2]], ..KEYS }),
        ("the last key", Keys { flow: [KEYS.flow[0], KEYS.flow[1], KEYS.flow[2] ^ 0x10_0000_0010], ..KEYS }),
        ("the multiplier", Keys { multiplier: KEYS.multiplier ^ 0x5555_5555_5555_5554, ..KEYS }),
    ] {
        let keyed = |client: SocketAddr| slot(&keys, client, service_of(client));
        assert!(chance.contains(&agreeing(COUNT, known, keyed)), "{name}");
    }
}

/// Keys as an agent expands them from a secret.
fn random_keys(seed: u64) -> Keys {
    let mut numbers = Numbers(seed);
    Keys { flow: std::array::from_fn(|_| numbers.next()), multiplier: numbers.next() | 1, name: numbers.next() }
}

/// What real clients look like to a hash: counters.
fn patterns() -> Vec<(&'static str, Vec<[u64; 3]>)> {
    const FLOWS: u32 = 4 * SLOTS;
    let ports = |step: u32| {
        let flow = move |index| SocketAddr::new(V4.client, (32_768 + step * index) as u16);
        (0..FLOWS).map(|index| words(flow(index), V4.service())).collect()
    };
    let address = |index: u32| Ipv4Addr::from(0x0a00_0000 + index);
    let four = |index: u32, port| words(SocketAddr::new(address(index).into(), port), V4.service());
    let six = |bits: u128| {
        let client = Ipv6Addr::from(0x2001_0db8_u128 << 96 | bits);
        words(SocketAddr::new(client.into(), 40_000), V6.service())
    };
    vec![
        ("one client's ports in turn", ports(1)),
        ("one client's ports by twos", ports(2)),
        ("addresses in turn", (0..FLOWS).map(|index| four(index, 40_000)).collect()),
        ("addresses of one last byte", (0..FLOWS).map(|index| four(index << 8 | 1, 40_000)).collect()),
        (
            "a few clients with a few ports",
            (0..FLOWS).map(|index| four(index % 32, 32_768 + (index / 32) as u16)).collect(),
        ),
        ("hosts of one IPv6 network", (0..FLOWS).map(|index| six(index.into())).collect()),
        ("IPv6 networks of one host", (0..FLOWS).map(|index| six(u128::from(index) << 64 | 1)).collect()),
    ]
}

/// Chi-square per degree of freedom: 1 on average for a hash without a pattern, with a deviation of `sqrt(2 / 250)` = 0.09.
fn unevenness(keys: &Keys, flows: &[[u64; 3]]) -> f64 {
    let mut load = vec![0_u32; SLOTS as usize];
    for flow in flows {
        load[hash::slot(hash::flow(keys, *flow), SLOTS) as usize] += 1;
    }
    let mean = flows.len() as f64 / f64::from(SLOTS);
    let square = load.iter().map(|load| (f64::from(*load) - mean).powi(2)).sum::<f64>() / mean;
    square / f64::from(SLOTS - 1)
}

/// With any secret: one in a hundred that piles a busy proxy's ports onto a tenth of the slots is one fleet in a hundred.
#[test]
fn counters_spread_over_the_slots_with_every_key() {
    for (name, flows) in patterns() {
        for seed in 0..100 {
            let unevenness = unevenness(&random_keys(seed), &flows);
            assert!(unevenness < 1.8, "{name} with the keys of {seed}: {unevenness:.2} times what chance gives");
        }
    }
}

/// Universality allows 3 in 2^32 for each pair, and a hash without a pattern would have 1: four times that is the bound.
#[test]
fn a_hundred_thousand_flows_hardly_meet() {
    const FLOWS: u64 = 100_000;
    let mut hashes: Vec<u32> =
        flows(FLOWS).map(|(client, _)| hash::flow(&KEYS, words(client, service_of(client)))).collect();
    hashes.sort_unstable();
    let meetings = hashes.windows(2).filter(|pair| pair[0] == pair[1]).count();
    let expected = (FLOWS * (FLOWS - 1) / 2) as f64 / 2_f64.powi(32);
    assert!((meetings as f64) <= 4.0 * expected, "{meetings} meetings where chance gives {expected:.1}");
}

#[test]
fn slots_cover_a_table_from_its_first_to_its_last() {
    for slots in [1, 2, 251, 65_537, u32::MAX] {
        assert_eq!(hash::slot(0, slots), 0);
        assert_eq!(hash::slot(u32::MAX, slots), slots - 1);
    }
    for slots in [1, 2, 3, 251] {
        let step = u32::MAX / (8 * slots);
        let mut met: Vec<u32> = (0..=8 * slots).map(|index| hash::slot(index * step, slots)).collect();
        assert!(met.is_sorted());
        met.dedup();
        assert_eq!(met, (0..slots).collect::<Vec<_>>());
    }
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn a_slot_lies_within_its_table(hash in any::<u32>(), slots in 1_u32..) {
        prop_assert!(hash::slot(hash, slots) < slots);
    }
}

/// The interface that a packet came in by is no part of its flow: a fleet's routers may take turns.
#[test]
fn the_interface_does_not_matter() {
    let tables = one_backend_a_slot(KEYS, 0, V4.service(), 6);
    let frame = FlowFrame::to_service(&V4, Transport::Tcp).bytes();
    for interface in [WAN, LAN] {
        let outcome = crate::support::outcome(&frame, interface, crate::support::DRIVER, &tables);
        assert_eq!(outcome.traffic.len(), 1, "all packets went to one backend");
    }
}
