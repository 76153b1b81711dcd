//! Which answer of several a client gets, and with which record it begins.

use crate::support::{
    V4,
    messages::{A, Name, Question, question_frame},
    steered,
    tables::{Answer, Build, KEYS, empty},
};
use lb_common::{
    dns::client,
    hash,
    host::HostTables,
    tables::{Endpoint, answers::Pick},
    verdict::{Verdict, Why},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

fn address(index: u8) -> IpAddr {
    [192, 0, 2, index].into()
}

fn name() -> Name {
    Name::of("www.example.com")
}

/// The last byte of each address in the reply.
fn ask(tables: &HostTables, from: IpAddr) -> Vec<u8> {
    let question = Question::plain(&name(), A).bytes();
    let frame = question_frame(SocketAddr::new(from, 4_000), V4.dns(), question.clone()).bytes();
    let (verdict, reply) = steered(&frame, tables);
    assert_eq!(verdict, Verdict::Transmit(Why::Answered));
    reply[42 + question.len()..].chunks(16).map(|record| record[15]).collect()
}

fn slots(pick: Pick, slots: &[usize]) -> HostTables {
    let bodies: Vec<Answer> = (0..4).map(|index| Answer::of(&[address(index)])).collect();
    empty().with_dns(V4.dns()).with_slots(&name(), A, pick, &bodies, slots)
}

#[test]
fn slots_take_turns_one_by_one() {
    let order = [0, 1, 0, 2, 0, 1, 3];
    let tables = slots(Pick::Turn, &order);
    for round in 0..3 * order.len() {
        assert_eq!(ask(&tables, V4.client), [order[round % order.len()] as u8]);
    }
}

#[test]
fn chance_gives_every_slot_its_share() {
    let order = [0, 1, 0, 2, 0, 1, 3, 0];
    let tables = slots(Pick::Random, &order);
    let mut counts = BTreeMap::new();
    const ASKED: usize = 40_000;
    for _ in 0..ASKED {
        *counts.entry(ask(&tables, V4.client)[0]).or_insert(0_usize) += 1;
    }
    let chi_square: f64 = (0..4_u8)
        .map(|index| {
            let share = order.iter().filter(|slot| **slot == usize::from(index)).count();
            let expected = (ASKED * share) as f64 / order.len() as f64;
            (counts[&index] as f64 - expected).powi(2) / expected
        })
        .sum();
    // Three degrees of freedom: beyond 16.3 in one of a thousand sequences.
    assert!(chi_square < 16.3, "{chi_square}: {counts:?}");
}

#[test]
fn a_prefix_keeps_its_slot_which_anyone_can_compute() {
    let order: Vec<usize> = (0..101).map(|slot| slot % 4).collect();
    let mut tables = slots(Pick::Client, &order);
    let settings = *tables.dns_settings();
    let mut met = BTreeMap::new();
    for prefix in 0..500_u32 {
        let client = Ipv4Addr::from_bits(0x0a00_0001 + (prefix << 8)).into();
        let hash = client::hash(&KEYS, &settings, &Endpoint::new(client, 17, 0).address, 4);
        let expected = order[hash::slot(hash, order.len() as u32) as usize] as u8;
        for last in [1, 77, 254] {
            let IpAddr::V4(client) = client else { panic!("IPv4") };
            assert_eq!(ask(&tables, Ipv4Addr::from_bits(client.to_bits() & !0xff | last).into()), [expected]);
        }
        *met.entry(expected).or_insert(0) += 1;
    }
    assert!(met.values().all(|count| *count > 80), "{met:?}");
}

#[test]
fn records_are_rotated_as_the_pick_says() {
    let addresses: Vec<IpAddr> = (0..5).map(address).collect();
    for (pick, firsts) in [(Pick::Only, 1), (Pick::Client, 1), (Pick::Turn, 5), (Pick::Random, 5)] {
        let tables = empty().with_dns(V4.dns()).with_body(&name(), A, pick, &Answer::of(&addresses));
        let mut met = BTreeMap::new();
        for _ in 0..200 {
            let records = ask(&tables, V4.client);
            let first = records[0];
            let expected: Vec<u8> = (0..5).map(|index| (first + index) % 5).collect();
            assert_eq!(records, expected);
            *met.entry(first).or_insert(0) += 1;
        }
        assert_eq!(met.len(), firsts, "{pick:?}: {met:?}");
    }
}

/// Permutations, each rotated: every record is first about as often.
#[test]
fn shuffled_permutations_begin_anywhere() {
    let orders = [[0, 1, 2, 3], [0, 2, 1, 3], [0, 3, 1, 2]];
    let bodies = orders.map(|order| Answer::of(&order.map(address)));
    let tables = empty().with_dns(V4.dns()).with_slots(&name(), A, Pick::Random, &bodies, &[0, 1, 2]);
    let mut met = BTreeMap::new();
    for _ in 0..2_400 {
        *met.entry(ask(&tables, V4.client)).or_insert(0) += 1;
    }
    assert_eq!(met.len(), 12, "{met:?}");
    assert!(met.values().all(|count| (140..260).contains(count)), "{met:?}");
}

/// Two names may share a row; each then begins anew at a place that is spread evenly.
#[test]
fn the_do_bit_and_other_names_have_answers_of_their_own() {
    let tables = slots(Pick::Turn, &[0, 1, 2, 3]);
    let other = Name::of("other.example.com");
    let tables = tables.with_answer(&other, &[address(9)]);
    assert_eq!(ask(&tables, V4.client), [0]);
    let question = Question::plain(&other, A).bytes();
    let frame = question_frame(V4.client(), V4.dns(), question).bytes();
    assert_eq!(steered(&frame, &tables).0, Verdict::Transmit(Why::Answered));
    assert_eq!(ask(&tables, V4.client), [1]);
}
