//! Frames that nobody would send, and the laws that hold for all of them.

use crate::{
    echo,
    laws::judged,
    support::{
        LAN, Numbers, Room, SIDES, V4, V6, WAN, cases,
        datagram::{Datagram, Extension},
        frames::{Arp, FlowFrame, Neighbor, Transport},
        messages::{A, AAAA, Name, Question, question_frame},
        reader::parts,
        sound::{repair, sound},
        tables::{Build, MTU, dsr, empty, endpoint, mac_of, nat, route_via, tunnel, tunnel_from},
    },
    ways::{name, records, rows},
};
use etherparse::{NetSlice, SlicedPacket};
use lb_common::{
    host::HostTables,
    path::tunnel::Sources,
    tables::{Backend, CLOSED, ECHO, NAT, ON_LINK, Route},
    verdict::Why,
    wire::ethernet::addresses,
};
use proptest::{prelude::*, sample::Index, test_runner::TestRunner};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};

/// Tables in which every frame of the rows and of [`seeds`] finds something.
pub fn tables_of_all() -> HostTables {
    let mut tables = empty();
    for side in SIDES {
        let mut second = side.backend();
        second.set_port(9_443);
        let second = Backend::new(endpoint(second, 17), endpoint(side.service(), 17), NAT);
        let second = second.via(WAN, [2, 2, 2, 2, 2, 2], mac_of(WAN), MTU);
        let any = SocketAddr::new(side.service, 0);
        let own = SocketAddr::new(side.router, 0);
        let behind = Backend::new(endpoint(own, 17), endpoint(any, 17), NAT).via(LAN, [4; 6], mac_of(LAN), MTU);
        let (far, sources) = if side.client.is_ipv4() {
            (V6, Sources::new([0xfd99, 0, 0, 0, 0, 0, 0, 0].into(), 64))
        } else {
            (V4, Sources::new([10, 0, 0, 0].into(), 8))
        };
        let far = tunnel_from(sources, &side, &far, 6, LAN);
        let near = Backend { mtu: 1_400, ..dsr(&side, 6, LAN) };
        tables = tables
            .with_service(side.service(), 6, &[dsr(&side, 6, WAN), nat(&side, 6, LAN), near, far])
            .with_service(side.service(), 17, &[nat(&side, 17, LAN), second, tunnel(&side, &side, 17, WAN)])
            .with_service(any, 17, &[behind, dsr(&side, 17, LAN)])
            .with_dns(side.dns())
            .with_address(side.service, ON_LINK | ECHO)
            .with_address(side.dns, ON_LINK)
            .with_route(side.client, route_via(WAN))
            .with_route(side.host, Route::Stack)
            .with_route(side.dns, Route::TooLong { mtu: 1_280 });
    }
    let named = |tables: HostTables, name: &Name, kind| tables.with_answer(name, &records(kind));
    named(named(named(tables, &name(), A), &name(), AAAA), &Name::of(""), A)
}

/// The same after some slots have changed.
fn crowded() -> HostTables {
    let mut tables = tables_of_all();
    let HostTables { slots, backends, .. } = &mut tables;
    for (index, slot) in slots.iter_mut().filter(|(index, _)| *index % 3 == 0) {
        // Another backend of the same service: all of them stand next to each other.
        let next = slot.current + 1;
        let same = backends.get(&next).is_some_and(|other| other.service == backends[&slot.current].service);
        slot.previous = if same && index % 7 > 1 { next } else { CLOSED };
    }
    tables
}

/// What the rows don't show: packets in all their shapes, in an order in which the first fragment comes first.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = rows().into_iter().map(|row| row.frame).collect();
    for side in SIDES {
        let mut packets = Vec::new();
        for transport in [Transport::Tcp, Transport::Udp] {
            let asked = Datagram::to_service(&side, transport);
            let reply = Datagram::reply(&side, transport);
            let mut any = side.service();
            any.set_port(7_777);
            packets.extend([asked.clone().with_destination(any), reply.clone().with_destination(side.host())]);
            packets.push(reply.clone().with_destination(side.dns()).with_payload(&[0x77; 1_400]));
            packets.push(asked.clone().with_payload(&[0x77; 1_400]));
            // Many flows, so that slots of all kinds are met.
            for port in 1..24 {
                packets.push(asked.clone().with_source(SocketAddr::new(side.client, port)));
            }
            let errors = [
                (side.router, reply.clone().with_source(side.service())),
                (side.backend, asked.clone().with_destination(side.backend())),
                (side.router, asked.with_destination(side.backend()).with_payload(&[0x77; 700])),
            ];
            let kinds: &[u8] = if side.client.is_ipv4() { &[3, 11, 12] } else { &[1, 2, 3, 4] };
            for (from, about) in errors {
                for kind in kinds {
                    let about = shaped(&about);
                    let header = if side.client.is_ipv4() { 20 } else { 40 };
                    packets.extend(about.iter().map(|about| Datagram::error(from, about, *kind, 0, 548)));
                    packets.push(Datagram::error(from, &about[0], *kind, 4, header + 8));
                }
            }
        }
        packets.push(echo::request(&side, b"an odd number of bytes: 27!"));
        for packet in packets {
            seeds.extend(shaped(&packet).iter().map(Datagram::bytes));
            seeds.extend(packet.fragments(0x1234_5678, &[24]));
        }
        let dns = question_frame(side.client(), side.dns(), Question::plain(&name(), A).bytes()).bytes();
        let link = match side.client.is_ipv4() {
            true => Arp::request(side.client, side.service).bytes(),
            false => Neighbor::solicitation(side.client, side.service).with_source_link_layer().bytes(),
        };
        seeds.extend([tagged(&dns, &[[0x81, 0, 0, 7]]), tagged(&link, &[[0x81, 0, 0, 7]])]);
    }
    seeds
}

/// A frame behind tags.
fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    [&frame[..12], tags.as_flattened(), &frame[12..]].concat()
}

/// A packet as it is, behind tags, and with options or extension headers.
fn shaped(packet: &Datagram) -> Vec<Datagram> {
    let one = Datagram { tags: vec![[0x81, 0, 0, 7]], ..packet.clone() };
    let two = Datagram { tags: vec![[0x88, 0xa8, 0x20, 7], [0x81, 0, 0, 9]], ..packet.clone() };
    let extended = if packet.from.is_ipv4() {
        two.clone().with_options(&[148, 4, 0, 0])
    } else {
        let extensions = [Extension::hop_by_hop(), Extension::destination_options(3), Extension::fragment(9, 0, false)];
        one.clone().with_extensions(&extensions)
    };
    vec![packet.clone(), one, two, extended]
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
fn the_laws_hold_for_every_frame_of_the_rows_and_other_shapes() {
    let tables = crowded();
    let mut met = BTreeSet::new();
    for frame in seeds() {
        for interface in [WAN, LAN] {
            met.insert(judged(&tables, &frame, interface, Room { head: 256, tail: 256 }));
            met.insert(judged(&tables, &frame, interface, Room { head: 0, tail: 0 }));
        }
    }
    // Limits, cookies, leases and other answers than an authority's have tables of their own, in the rows of `ways`.
    let others = [
        Why::AnsweredNegative,
        Why::AnsweredCached,
        Why::DnsTruncated,
        Why::DnsSlipped,
        Why::DnsLimited,
        Why::DnsMissLimited,
        Why::DnsLapseRefused,
        Why::DnsReplaced,
    ];
    let changing = Why::ALL.iter().take_while(|why| **why != Why::Truncated).filter(|why| !others.contains(why));
    let missed: Vec<_> = changing.filter(|why| !met.contains(why)).collect();
    assert!(missed.is_empty(), "the laws say little without {missed:?}");
    assert!(tables.flows().len() > 20, "flows of changed slots are tracked");
}

#[test]
fn the_laws_hold_for_spoilt_frames() {
    let tables = crowded();
    let seeds = seeds();
    let spoilt = (0..seeds.len(), prop::collection::vec(mutation(), 1..5), any::<bool>(), interface(), room());
    let judged = |(index, mutations, repaired, interface, room): (usize, Vec<Mutation>, bool, u32, Room)| {
        let mut frame = seeds[index].clone();
        mutations.iter().for_each(|mutation| mutation.apply(&mut frame));
        if repaired {
            repair(&mut frame);
        }
        judged(&tables, &frame, interface, room);
        Ok(())
    };
    TestRunner::new(cases(8_000)).run(&spoilt, judged).unwrap();
}

/// A few frames of each way out.
fn kinds() -> Vec<Vec<u8>> {
    let tables = crowded();
    let mut kinds = BTreeMap::new();
    for frame in seeds() {
        let why = judged(&tables, &frame, WAN, Room { head: 256, tail: 256 });
        let frames: &mut Vec<_> = kinds.entry(why).or_default();
        let tags = frame.get(12..14).map(<[u8]>::to_vec);
        if frames.len() < 4 && frames.iter().all(|other: &Vec<u8>| other.get(12..14).map(<[u8]>::to_vec) != tags) {
            frames.push(frame);
        }
    }
    kinds.into_values().flatten().collect()
}

/// Each bit of the headers matters to one field or none, so that one flipped bit is the most telling change.
#[test]
fn the_laws_hold_for_every_flipped_bit_of_a_few_frames_of_each_kind() {
    let tables = crowded();
    for frame in kinds() {
        for bit in 0..8 * frame.len().min(110) {
            let mut frame = frame.clone();
            frame[bit / 8] ^= 1 << (bit % 8);
            judged(&tables, &frame, WAN, Room { head: 256, tail: 0 });
        }
    }
}

#[test]
fn the_laws_hold_for_every_frame_cut_short() {
    let tables = crowded();
    for frame in kinds() {
        for length in 0..frame.len().min(200) {
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
    for built in seeds() {
        let Some(parts) = parts(&built) else { continue };
        if parts.end > built.len() || sound(&built) != Some(true) {
            continue;
        }
        let icmp = if parts.four { 1 } else { 58 };
        let field = BTreeMap::from([(icmp, 2), (6, 16), (17, 6)]).get(&parts.protocol).copied();
        let field = field.map(|field| parts.payload + field).filter(|_| !parts.in_fragments);
        if field.is_some_and(|field| parts.protocol == 17 && built[field..field + 2] == [0, 0]) {
            continue;
        }
        for field in parts.four.then_some(parts.ip + 10).into_iter().chain(field) {
            let mut frame = built.clone();
            frame[field] ^= 0x55;
            assert_eq!(sound(&frame), Some(false));
            repair(&mut frame);
            assert_eq!((sound(&frame), &frame), (Some(true), &built));
            repaired += 1;
        }
    }
    assert!(repaired > 500, "only {repaired} checksums");
}

/// Two hands build the same frames: etherparse, and one byte by byte.
#[test]
fn datagrams_are_the_frames_that_etherparse_builds() {
    for side in SIDES {
        for transport in [Transport::Tcp, Transport::Udp, Transport::UdpWithoutChecksum] {
            if transport != Transport::UdpWithoutChecksum || side.client.is_ipv4() {
                let built = Datagram::to_service(&side, transport).bytes();
                assert_eq!(built, FlowFrame::to_service(&side, transport).bytes());
            }
        }
    }
}

/// All seeds are valid packets to etherparse too, and their checksums hold.
#[test]
fn frames_of_all_shapes_are_sound() {
    let mut checked = 0;
    for frame in seeds() {
        if let Some(parts) = parts(&frame)
            && parts.end <= frame.len()
            && !parts.in_fragments
            && matches!(parts.protocol, 1 | 6 | 17 | 58)
            && sound(&frame) == Some(true)
            && let Ok(packet) = SlicedPacket::from_ethernet(&frame)
        {
            let header = |at: usize, length| &frame[at..at + length];
            match packet.net.unwrap() {
                NetSlice::Ipv4(ip) => {
                    assert_eq!(ip.header().slice(), header(parts.ip, parts.payload - parts.ip));
                    assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
                    assert_eq!(ip.payload_ip_number().0, parts.protocol);
                }
                NetSlice::Ipv6(ip) => {
                    assert_eq!(ip.header().slice(), header(parts.ip, 40));
                    assert_eq!(ip.payload().ip_number.0, parts.protocol);
                    assert_eq!(ip.payload().payload, &frame[parts.payload..parts.end]);
                }
                NetSlice::Arp(_) => panic!("not IP"),
            }
            checked += 1;
        }
    }
    assert!(checked > 500, "only {checked} frames are sound packets");
}

/// How the laws read what the tables hold: rendered addresses are little-endian words.
#[test]
fn the_laws_read_addresses_as_they_are_rendered() {
    let [first, rest] = addresses([1, 2, 3, 4, 5, 6], [7, 8, 9, 10, 11, 12]);
    let link = [&first.to_le_bytes()[..], &(rest as u32).to_le_bytes()].concat();
    assert_eq!(link, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
}
