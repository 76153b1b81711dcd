//! Limits: tokens by prefix, with the clock moved by hand.

use crate::support::{
    SIDES, Side,
    messages::{A, AAAA, Edns, Name, Question, question_frame},
    steered,
    tables::{Build, NOW, empty},
};
use lb_common::{
    dns::cookie::fresh,
    host::HostTables,
    tables::{
        Endpoint,
        answers::{COOKIES, LEASED, LIMITED},
    },
    verdict::{Verdict, Why},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};

const RATE: u64 = 100;
const BURST: u64 = 250;

fn tables(side: &Side) -> HostTables {
    let mut tables =
        empty().with_dns(side.dns()).with_answer(&Name::of("example.com"), &["192.0.2.1".parse().unwrap()]);
    let settings = tables.dns_settings();
    (settings.features, settings.cookie_secrets) = (LIMITED | COOKIES, [[1, 2], [3, 4]]);
    (settings.answer_rate, settings.miss_rate) = (RATE | BURST << 32, RATE | BURST << 32);
    tables
}

fn asked(side: &Side, from: IpAddr, question: &Question) -> Vec<u8> {
    question_frame(SocketAddr::new(from, 4_000), side.dns(), question.bytes()).bytes()
}

/// Asks so often, and counts what came of it.
fn ask(tables: &HostTables, frame: &[u8], times: u64) -> BTreeMap<Why, u64> {
    let mut whys = BTreeMap::new();
    for _ in 0..times {
        let (verdict, _) = steered(frame, tables);
        *whys.entry(verdict.why()).or_default() += 1;
    }
    whys
}

fn neighbor(side: &Side, in_prefix: bool) -> IpAddr {
    match side.client {
        IpAddr::V4(address) => (address.to_bits() ^ if in_prefix { 0xff } else { 0x100 }).to_be_bytes().into(),
        IpAddr::V6(address) => {
            (address.to_bits() ^ if in_prefix { 0xff << 64 } else { 0x100 << 64 }).to_be_bytes().into()
        }
    }
}

#[test]
fn a_prefix_gets_its_burst_and_then_its_rate() {
    for side in SIDES {
        for (kind, limited) in [(A, [Why::Answered, Why::DnsSlipped]), (AAAA, [Why::DnsMiss, Why::DnsMissLimited])] {
            let mut tables = tables(&side);
            let question = Question::plain(&Name::of("example.com"), kind);
            let frame = asked(&side, side.client, &question);
            let mut whys = ask(&tables, &frame, 2 * BURST);
            assert_eq!(whys.remove(&limited[0]), Some(BURST));
            match kind {
                // One of two slips.
                A => assert_eq!(whys, [(Why::DnsSlipped, BURST / 2), (Why::DnsLimited, BURST / 2)].into()),
                _ => assert_eq!(whys, [(Why::DnsMissLimited, BURST)].into()),
            }
            // All of its prefix, and nobody else.
            let from = |in_prefix| asked(&side, neighbor(&side, in_prefix), &question);
            assert_eq!(ask(&tables, &from(true), 1).get(&limited[0]), None);
            assert_eq!(ask(&tables, &from(false), 1).get(&limited[0]), Some(&1));
            // A second later: a second's worth, as exactly as ticks of a millisecond allow.
            tables.seconds += 1;
            let more = ask(&tables, &frame, 2 * BURST).remove(&limited[0]).unwrap();
            assert!(more.abs_diff(RATE) <= 1, "{more} more");
            // Long after: no more than the burst.
            tables.seconds += 1_000;
            assert_eq!(ask(&tables, &frame, 2 * BURST).remove(&limited[0]), Some(BURST));
        }
    }
}

#[test]
fn a_valid_cookie_is_not_limited() {
    for side in SIDES {
        let tables = tables(&side);
        let address = Endpoint::new(side.client, 17, 0).address;
        let cookie = fresh(&[1, 2], &address, if side.client.is_ipv4() { 4 } else { 6 }, NOW as u32, 5);
        let words = [cookie.client, cookie.stamp, cookie.hash].map(u64::to_le_bytes).concat();
        let edns = |words: &[u8]| Edns { options: [&[0, 10, 0, 24], words].concat(), ..Edns::of_size(1232) };
        let mut wrong = words.clone();
        wrong[20] ^= 1;
        for (kind, why) in [(A, Why::Answered), (AAAA, Why::DnsMiss)] {
            let question =
                |words| Question { edns: Some(edns(words)), ..Question::plain(&Name::of("example.com"), kind) };
            let frame = asked(&side, side.client, &question(&words));
            assert_eq!(ask(&tables, &frame, 3 * BURST), [(why, 3 * BURST)].into());
            let frame = asked(&side, side.client, &question(&wrong));
            assert_eq!(ask(&tables, &frame, 3 * BURST).get(&why), Some(&BURST));
        }
    }
}

/// So that nothing is gained by asking with another's address.
#[test]
fn what_slips_is_no_larger_than_the_question() {
    for side in SIDES {
        let mut tables = tables(&side);
        tables.dns_settings().answer_rate = 1;
        tables.dns_settings().slip_and_prefixes |= 1;
        tables.dns_settings().slip_and_prefixes &= !2;
        for options in [vec![], vec![0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8], [&[0, 10, 0, 24][..], &[9; 24]].concat()] {
            let edns = Edns { options, ..Edns::of_size(1232) };
            let question = Question { edns: Some(edns), ..Question::plain(&Name::of("example.com"), A) };
            for question in [question, Question::plain(&Name::of("example.com"), A)] {
                let frame = asked(&side, side.client, &question);
                let (verdict, reply) = steered(&frame, &tables);
                assert_eq!(verdict, Verdict::Transmit(Why::DnsSlipped));
                assert!(reply.len() <= frame.len());
            }
        }
    }
}

#[test]
fn answers_go_on_until_the_lease_is_over() {
    for side in SIDES {
        let mut tables = tables(&side);
        (tables.dns_settings().features, tables.dns_settings().lease_until) = (LEASED, NOW);
        let frame = asked(&side, side.client, &Question::plain(&Name::of("example.com"), A));
        tables.nanoseconds = 999_999_999;
        assert_eq!(steered(&frame, &tables).0, Verdict::Transmit(Why::Answered));
        (tables.seconds, tables.nanoseconds) = (NOW + 1, 0);
        assert_eq!(steered(&frame, &tables).0, Verdict::Pass(Why::DnsLapsed));
        tables.dns_settings().lease_until = NOW + 1;
        assert_eq!(steered(&frame, &tables).0, Verdict::Transmit(Why::Answered));
    }
}
