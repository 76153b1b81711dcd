//! Frames that nobody would send, and the laws that hold for all of them.

use crate::{
    support::{
        LAN, Numbers, Outcome, Room, SIDES, WAN, cases,
        frames::{FlowFrame, Neighbor, Transport},
        messages::{A, Name, Question, reply_frame},
        outcome,
        sound::{repair, sound},
        tables::{Build, TTL, dsr, empty, endpoint, mac_of, nat, route_via},
    },
    ways::{name, records, rows},
};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lb_common::{
    host::HostTables,
    tables::{Backend, Endpoint, NAT, Route, Traffic},
    verdict::{Verdict, Why},
    wire::ethernet::addresses,
};
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    ops::Range,
};

/// Tables in which every frame of the rows finds something.
fn crowded() -> HostTables {
    let mut tables = empty();
    for side in SIDES {
        let mut second = side.backend();
        second.set_port(9_443);
        let second = Backend::new(endpoint(second, 17), endpoint(side.service(), 17), NAT);
        let second = second.via(WAN, [2, 2, 2, 2, 2, 2], mac_of(WAN));
        tables = tables
            .with_service(side.service(), 6, &[dsr(&side, 6, WAN), nat(&side, 6, LAN), dsr(&side, 6, LAN)])
            .with_service(side.service(), 17, &[nat(&side, 17, LAN), second, dsr(&side, 17, LAN)])
            .with_dns(side.dns())
            .with_claim(side.service)
            .with_claim(side.dns)
            .with_route(side.client, route_via(WAN))
            .with_route(side.host, Route::Stack);
    }
    tables.with_answer(&name(), &records(A)).with_answer(&name(), &records(28)).with_answer(&Name::of(""), &records(A))
}

/// What must be true of any frame and what came of it.
fn judge(tables: &HostTables, frame: &[u8], interface: u32, outcome: &Outcome) {
    let why = outcome.verdict.why();
    assert_eq!(outcome.counts, BTreeMap::from([(why, 1)]), "one frame leaves in one way");
    let mut counted = outcome.traffic.iter();
    if let Why::ForwardedDsr | Why::ForwardedNat = why {
        let (id, traffic) = counted.next().unwrap();
        assert_eq!(*traffic, Traffic { packets: 1, bytes: frame.len() as u64 });
        let backend = &tables.backends[id];
        left_for(interface, backend.ethernet, backend.interface, frame, outcome);
        if why == Why::ForwardedDsr {
            assert_eq!(backend.flags & NAT, 0);
            assert_eq!(outcome.frame[12..], frame[12..], "behind the MAC addresses nothing changes");
        } else {
            rewritten(frame, &outcome.frame, false, &backend.own, 1);
        }
    }
    assert_eq!(counted.next(), None, "nothing else went to a backend");
    match why {
        Why::ForwardedDsr | Why::ForwardedNat => {}
        Why::Returned | Why::ReturnedByStack => returned(tables, frame, interface, outcome),
        Why::Answered => answered(frame, outcome),
        Why::ArpAnswered => arp_answered(frame, interface, outcome),
        Why::NeighborAnswered => neighbor_answered(frame, interface, outcome),
        why => {
            assert_eq!((outcome.verdict, &outcome.frame[..]), (Verdict::Pass(why), frame), "what passes is untouched")
        }
    }
}

/// The frame left by an interface, with these addresses on the link and as long as it was.
fn left_for(came_by: u32, ethernet: [u64; 2], interface: u32, frame: &[u8], outcome: &Outcome) {
    let why = outcome.verdict.why();
    let expected = if came_by == interface { Verdict::Transmit(why) } else { Verdict::Redirect(why, interface) };
    assert_eq!((outcome.verdict, outcome.frame.len()), (expected, frame.len()));
    let [first, rest] = ethernet;
    let link = [&first.to_le_bytes()[..], &(rest as u32).to_le_bytes()].concat();
    assert_eq!(outcome.frame[..12], link);
}

/// Between a frame and what it was rewritten to, one end, the hops and the checksums differ.
fn rewritten(frame: &[u8], sent: &[u8], source: bool, to: &Endpoint, hops: u8) {
    let four = frame[12..14] == [0x08, 0x00];
    let (network, protocol, hop) = if four { (34, frame[23], 22) } else { (54, frame[20], 21) };
    let length = if four { 4 } else { 16 };
    let address = if source { network - 2 * length } else { network - length };
    let port = if source { network } else { network + 2 };
    let checksum = network + if protocol == 6 { 16 } else { 6 };

    let ip = match to.ip() {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    assert_eq!(sent[address..address + length], ip);
    assert_eq!(sent[port..port + 2], to.port_bytes());
    assert_eq!(sent[hop], frame[hop] - hops);
    // An absent checksum stays absent, though over IPv6 it should never have been.
    let absent = protocol == 17 && frame[checksum..checksum + 2] == [0, 0];
    if absent {
        assert_eq!(sent[checksum..checksum + 2], [0, 0]);
    }
    if four || !absent {
        assert_eq!(sound(sent), sound(frame), "right stays right and wrong stays wrong");
    }

    let header_checksum = if four { 24..26 } else { 0..0 };
    let may_differ: [Range<usize>; 6] =
        [0..12, hop..hop + 1, header_checksum, address..address + length, port..port + 2, checksum..checksum + 2];
    for (at, (before, after)) in frame.iter().zip(sent).enumerate() {
        assert!(before == after || may_differ.iter().any(|range| range.contains(&at)), "byte {at} changed");
    }
}

fn returned(tables: &HostTables, frame: &[u8], interface: u32, outcome: &Outcome) {
    let (from, to) = ends(frame);
    let backend = &tables.backends[&tables.returns[&from]];
    assert_eq!(backend.own, from);
    match tables.routes[&to.address] {
        Route::Via { interface: by, ethernet } => {
            assert_eq!(outcome.verdict.why(), Why::Returned);
            left_for(interface, ethernet, by, frame, outcome);
            rewritten(frame, &outcome.frame, true, &backend.service, 1);
        }
        Route::Stack => {
            assert_eq!(outcome.verdict, Verdict::Pass(Why::ReturnedByStack));
            assert_eq!(outcome.frame[..12], frame[..12], "the kernel puts its own MAC addresses on");
            assert_eq!(outcome.frame.len(), frame.len());
            rewritten(frame, &outcome.frame, true, &backend.service, 0);
        }
        Route::NotForwarded => panic!("rewritten for nobody"),
    }
}

/// Both ends of a packet by etherparse.
fn ends(frame: &[u8]) -> (Endpoint, Endpoint) {
    let (addresses, ports, protocol) = match frame[12..14] {
        [0x08, 0x00] => {
            let address = |at: usize| IpAddr::from(<[u8; 4]>::try_from(&frame[at..at + 4]).unwrap());
            ([address(26), address(30)], 34, frame[23])
        }
        _ => {
            let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
            ([address(22), address(38)], 54, frame[20])
        }
    };
    let port = |at: usize| u16::from_be_bytes([frame[at], frame[at + 1]]);
    let [from, to] = addresses;
    (Endpoint::new(from, protocol, port(ports)), Endpoint::new(to, protocol, port(ports + 2)))
}

/// The question as etherparse and a reader of one byte at a time see it has exactly this reply.
fn answered(frame: &[u8], outcome: &Outcome) {
    assert_eq!(outcome.verdict, Verdict::Transmit(Why::Answered));
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    assert!(!packet.is_ip_payload_fragmented());
    let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("not UDP") };
    let [from, to]: [IpAddr; 2] = match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => [ip.header().source_addr().into(), ip.header().destination_addr().into()],
        NetSlice::Ipv6(ip) => [ip.header().source_addr().into(), ip.header().destination_addr().into()],
        NetSlice::Arp(_) => panic!("not IP"),
    };
    let asked = FlowFrame {
        receiver: frame[..6].try_into().unwrap(),
        sender: frame[6..12].try_into().unwrap(),
        ..FlowFrame::asked(
            SocketAddr::new(from, udp.source_port()),
            SocketAddr::new(to, udp.destination_port()),
            Transport::Udp,
        )
    };
    let question = Question::parse(udp.payload()).unwrap();
    assert!([name().0, vec![0]].contains(&question.name.in_lower_case().0));
    let records = records(question.kind);
    let possible = (0..records.len()).any(|turn| {
        let mut rotated = records.clone();
        rotated.rotate_left(turn);
        reply_frame(&asked, question.reply(&rotated, TTL)).bytes() == outcome.frame
    });
    assert!(possible, "{question:?} has another reply");
}

/// RFC 826: the fields change places, and the address asked for is filled in.
fn arp_answered(frame: &[u8], interface: u32, outcome: &Outcome) {
    let mac = mac_of(interface);
    let mut expected = frame.to_vec();
    expected[..6].copy_from_slice(&frame[22..28]);
    expected[6..12].copy_from_slice(&mac);
    expected[20..22].copy_from_slice(&[0, 2]);
    expected[22..28].copy_from_slice(&mac);
    expected[28..32].copy_from_slice(&frame[38..42]);
    expected[32..42].copy_from_slice(&frame[22..32]);
    assert_eq!((outcome.verdict, &outcome.frame), (Verdict::Transmit(Why::ArpAnswered), &expected));
}

fn neighbor_answered(frame: &[u8], interface: u32, outcome: &Outcome) {
    let address = |at: usize| IpAddr::from(<[u8; 16]>::try_from(&frame[at..at + 16]).unwrap());
    let mut asked = Neighbor::solicitation(address(22), address(62));
    asked.sender = frame[6..12].try_into().unwrap();
    let mut expected = asked.advertisement(mac_of(interface)).bytes();
    // Class and flow label stay the asker's; no checksum covers them.
    expected[14..18].copy_from_slice(&frame[14..18]);
    assert_eq!((outcome.verdict, &outcome.frame), (Verdict::Transmit(Why::NeighborAnswered), &expected));
    assert_eq!(sound(&outcome.frame), Some(true));
}

fn judged(tables: &HostTables, frame: &[u8], interface: u32, room: Room) -> Why {
    let (counts, traffic) = (tables.counts(), tables.traffic());
    let mut outcome = outcome(frame, interface, room, tables);
    // Only what moved; to copy the tables for every frame would take most of the time.
    outcome.counts.retain(|why, count| {
        *count -= counts.get(why).copied().unwrap_or_default();
        *count != 0
    });
    outcome.traffic.retain(|id, to| {
        let before = traffic.get(id).copied().unwrap_or_default();
        *to = Traffic { packets: to.packets - before.packets, bytes: to.bytes - before.bytes };
        *to != Traffic::default()
    });
    judge(tables, frame, interface, &outcome);
    outcome.verdict.why()
}

fn room() -> impl Strategy<Value = Room> {
    let side = || prop_oneof![Just(0), Just(4_096), 0_usize..300];
    (side(), side()).prop_map(|(head, tail)| Room { head, tail })
}

fn interface() -> impl Strategy<Value = u32> {
    prop_oneof![4 => Just(WAN), 4 => Just(LAN), 1 => any::<u32>()]
}

/// One way to spoil a frame.
#[derive(Clone, Debug)]
enum Mutation {
    Flip(Index, u8),
    Set(Index, u8),
    Cut(Index),
    Insert(Index, u8),
    Remove(Index),
    Append(u8, u8),
    /// Copies bytes from one place to another: lengths and addresses that are valid elsewhere.
    Copy(Index, Index, u8),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    use Mutation::*;
    prop_oneof![
        4 => (any::<Index>(), 0_u8..8).prop_map(|(at, bit)| Flip(at, bit)),
        3 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Set(at, byte)),
        1 => any::<Index>().prop_map(Cut),
        1 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Insert(at, byte)),
        1 => any::<Index>().prop_map(Remove),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(length, byte)| Append(length, byte)),
        1 => (any::<Index>(), any::<Index>(), 1_u8..17).prop_map(|(from, to, length)| Copy(from, to, length)),
    ]
}

impl Mutation {
    fn apply(&self, frame: &mut Vec<u8>) {
        if frame.is_empty() {
            return;
        }
        let length = frame.len();
        match self {
            Self::Flip(at, bit) => frame[at.index(length)] ^= 1 << bit,
            Self::Set(at, byte) => frame[at.index(length)] = *byte,
            Self::Cut(at) => frame.truncate(at.index(length)),
            Self::Insert(at, byte) => frame.insert(at.index(length), *byte),
            Self::Remove(at) => {
                frame.remove(at.index(length));
            }
            Self::Append(more, byte) => frame.resize(length + usize::from(*more), *byte),
            Self::Copy(from, to, count) => {
                let (from, to) = (from.index(length), to.index(length));
                let count = usize::from(*count).min(length - from).min(length - to);
                frame.copy_within(from..from + count, to);
            }
        }
    }
}

#[test]
fn the_laws_hold_for_every_frame_of_the_rows() {
    let tables = crowded();
    let mut met = BTreeSet::new();
    for row in rows() {
        for interface in [WAN, LAN] {
            met.insert(judged(&tables, &row.frame, interface, Room { head: 256, tail: 256 }));
            met.insert(judged(&tables, &row.frame, interface, Room { head: 0, tail: 0 }));
        }
    }
    let changing = [
        Why::ForwardedDsr,
        Why::ForwardedNat,
        Why::Returned,
        Why::ReturnedByStack,
        Why::Answered,
        Why::ArpAnswered,
        Why::NeighborAnswered,
    ];
    let missed: Vec<_> = changing.iter().filter(|why| !met.contains(why)).collect();
    assert!(missed.is_empty(), "the laws say little without {missed:?}");
}

#[test]
fn the_laws_hold_for_spoilt_frames() {
    let tables = crowded();
    let frames: Vec<Vec<u8>> = rows().into_iter().map(|row| row.frame).collect();
    let spoilt = (0..frames.len(), prop::collection::vec(mutation(), 1..5), any::<bool>(), interface(), room());
    let judged = |(index, mutations, repaired, interface, room): (usize, Vec<Mutation>, bool, u32, Room)| {
        let mut frame = frames[index].clone();
        mutations.iter().for_each(|mutation| mutation.apply(&mut frame));
        if repaired {
            repair(&mut frame);
        }
        judged(&tables, &frame, interface, room);
        Ok(())
    };
    TestRunner::new(cases(4_000)).run(&spoilt, judged).unwrap();
}

/// Each bit of the headers matters to one field or none, so that one flipped bit is the most telling change.
#[test]
fn the_laws_hold_for_every_flipped_bit_of_one_frame_of_each_kind() {
    let tables = crowded();
    let mut kinds = BTreeMap::new();
    for row in rows() {
        kinds.entry(row.verdict.why()).or_insert(row.frame);
    }
    for frame in kinds.values() {
        for bit in 0..8 * frame.len().min(90) {
            let mut frame = frame.clone();
            frame[bit / 8] ^= 1 << (bit % 8);
            judged(&tables, &frame, WAN, Room { head: 256, tail: 0 });
        }
    }
}

#[test]
fn the_laws_hold_for_every_frame_cut_short() {
    let tables = crowded();
    let mut kinds = BTreeMap::new();
    for row in rows() {
        kinds.entry(row.verdict.why()).or_insert(row.frame);
    }
    for frame in kinds.values() {
        for length in 0..frame.len() {
            judged(&tables, &frame[..length], LAN, Room { head: 0, tail: 256 });
        }
    }
}

/// Bytes of any length; most with a beginning that gets them further than the EtherType.
#[test]
fn the_laws_hold_for_arbitrary_bytes() {
    let tables = crowded();
    let arbitrary = (0_usize..=2_000, any::<u64>(), 0_usize..6, interface(), room());
    let judged = |(length, seed, beginning, interface, room): (usize, u64, usize, u32, Room)| {
        let mut numbers = Numbers(seed);
        let mut frame: Vec<u8> =
            std::iter::repeat_with(|| numbers.next().to_le_bytes()).flatten().take(length).collect();
        let beginnings: [&[(usize, u8)]; 6] = [
            &[],
            &[(12, 0x08), (13, 0x00), (14, 0x45), (20, 0x40), (21, 0)],
            &[(12, 0x08), (13, 0x00), (14, 0x45), (16, 0), (17, 60), (20, 0), (21, 0), (23, 17)],
            &[(12, 0x86), (13, 0xdd), (14, 0x60), (18, 0), (19, 40), (20, 17)],
            &[(12, 0x86), (13, 0xdd), (14, 0x60), (20, 58), (21, 255), (54, 135), (55, 0)],
            &[(12, 0x08), (13, 0x06), (14, 0), (15, 1), (16, 8), (17, 0), (18, 6), (19, 4), (20, 0), (21, 1)],
        ];
        for (at, byte) in beginnings[beginning] {
            if let Some(place) = frame.get_mut(*at) {
                *place = *byte;
            }
        }
        judged(&tables, &frame, interface, room);
        Ok(())
    };
    TestRunner::new(cases(1_000)).run(&arbitrary, judged).unwrap();
}

/// What the laws say of checksums rests on this.
#[test]
fn a_repaired_frame_is_the_one_that_was_built() {
    let mut repaired = 0;
    for row in rows() {
        if sound(&row.frame) != Some(true) {
            continue;
        }
        let mut frame = row.frame.clone();
        let four = frame[12..14] == [0x08, 0x00];
        let (network, protocol) = if four { (34, frame[23]) } else { (54, frame[20]) };
        let field = network + BTreeMap::from([(6, 16), (17, 6), (58, 2)])[&protocol];
        if four && frame[field..field + 2] == [0, 0] && protocol == 17 {
            continue;
        }
        frame[field] ^= 0x55;
        assert_eq!(sound(&frame), Some(false), "{}", row.name);
        if four {
            frame[24] ^= 0x55;
        }
        repair(&mut frame);
        assert_eq!((sound(&frame), &frame), (Some(true), &row.frame), "{}", row.name);
        repaired += 1;
    }
    assert!(repaired > 100, "only {repaired} frames have checksums");
}

/// How the laws read what the tables hold: rendered addresses are little-endian words.
#[test]
fn the_laws_read_addresses_as_they_are_rendered() {
    let [first, rest] = addresses([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]);
    let link = [&first.to_le_bytes()[..], &(rest as u32).to_le_bytes()].concat();
    assert_eq!(link, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
}
