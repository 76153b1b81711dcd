//! Tunnels in all four mixes of families: the outer header, built by etherparse, and the packet behind it, which stays as it was.

use crate::support::{
    BACKEND_MAC, LAN, LAN_MAC, Numbers, SIDES, Side, V4, V6,
    datagram::{Datagram, octets},
    frames::Transport,
    steered,
    tables::{Build, MTU, empty, endpoint, tunnel, tunnel_from},
};
use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header, NetSlice, SlicedPacket};
use lb_common::{
    host::HostTables,
    path::tunnel::Sources,
    tables::{Backend, Endpoint, TUNNEL4, TUNNEL6},
    verdict::{Verdict, Why},
    wire::ethernet::addresses,
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Inner and outer families.
const MIXES: [(Side, Side); 4] = [(V4, V4), (V4, V6), (V6, V4), (V6, V6)];
const FORWARDED: Verdict = Verdict::Redirect(Why::ForwardedTunnel, LAN);

/// The frame of a packet through a tunnel, its flow label aside, which is zero where there is one source.
pub fn wrapped(packet: &Datagram, source: IpAddr, destination: IpAddr, interface: u32) -> Vec<u8> {
    wrapped_packet(&packet.packet(), packet, source, destination, interface)
}

/// The same for a part of a datagram.
pub fn wrapped_packet(inner: &[u8], of: &Datagram, source: IpAddr, destination: IpAddr, interface: u32) -> Vec<u8> {
    let protocol = if of.from.is_ipv4() { IpNumber::IPV4 } else { IpNumber::IPV6 };
    let ether_type = if source.is_ipv4() { EtherType::IPV4 } else { EtherType::IPV6 };
    let Datagram { receiver, sender, tags, .. } = of.delivered(interface);
    let mut link = Vec::new();
    Ethernet2Header { source: sender, destination: receiver, ether_type }.write(&mut link).unwrap();
    // Tags stand between the addresses and the EtherType.
    let mut frame = [&link[..12], tags.as_flattened(), &link[12..]].concat();
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let (source, destination) = (source.octets(), destination.octets());
            let mut outer = Ipv4Header::new(inner.len() as u16, 64, protocol, source, destination).unwrap();
            outer.dscp = (of.class >> 2).try_into().unwrap();
            outer.ecn = (of.class & 3).try_into().unwrap();
            outer.dont_fragment = true;
            outer.header_checksum = outer.calc_header_checksum();
            outer.write(&mut frame).unwrap();
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let outer = Ipv6Header {
                traffic_class: of.class,
                payload_length: inner.len() as u16,
                next_header: protocol,
                hop_limit: 64,
                source: source.octets(),
                destination: destination.octets(),
                ..Ipv6Header::default()
            };
            outer.write(&mut frame).unwrap();
        }
        _ => panic!("no tunnel has ends of both families"),
    }
    frame.extend(inner);
    frame
}

/// Network of a prefix with a pattern in its bits and zeros behind.
fn network(side: &Side, prefix: u8) -> IpAddr {
    let ones = |bits: u32| if prefix == 0 { 0 } else { u128::MAX << (bits - u32::from(prefix)) };
    match side.tunnel {
        IpAddr::V4(_) => Ipv4Addr::from_bits(0x0aa5_c35a & ones(32) as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(0xfd99_a5c3_5aa5_c35a_a5c3_5aa5_c35a_a5c3 & ones(128)).into(),
    }
}

fn prefixes(side: &Side) -> Vec<u8> {
    if side.tunnel.is_ipv4() {
        (8..=32).collect()
    } else {
        vec![8, 16, 32, 48, 56, 64, 80, 95, 96, 97, 103, 104, 112, 119, 120, 121, 126, 127, 128]
    }
}

/// The outer source of a packet, and what tells flows apart in IPv6 besides.
fn source(packet: &Datagram, tables: &HostTables) -> (IpAddr, u32) {
    let (verdict, sent) = steered(&packet.bytes(), tables);
    assert!(matches!(verdict, Verdict::Redirect(_, LAN)), "{verdict:?}");
    let read = SlicedPacket::from_ethernet(&sent);
    // etherparse reads on into the inner packet, which may be an odd one.
    match read.unwrap().net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let outer = ip.header().to_header();
            assert_eq!(outer.header_checksum, outer.calc_header_checksum());
            (outer.source.into(), 0)
        }
        NetSlice::Ipv6(ip) => {
            let outer = ip.header().to_header();
            (outer.source.into(), outer.flow_label.value())
        }
        NetSlice::Arp(_) => panic!("not IP"),
    }
}

/// A flow of one of many clients.
fn flow(side: &Side, number: u64) -> Datagram {
    let client = match side.client {
        IpAddr::V4(_) => IpAddr::from(Ipv4Addr::from_bits(0xc633_6400 | (number >> 16) as u32 & 0xff)),
        IpAddr::V6(_) => Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number >> 16)).into(),
    };
    Datagram::to_service(side, Transport::Udp).with_source(SocketAddr::new(client, number as u16 | 1))
}

fn tables(inner: &Side, outer: &Side, prefix: u8) -> HostTables {
    let backend = tunnel_from(Sources::new(network(outer, prefix), prefix), inner, outer, 17, LAN);
    empty().with_service(inner.service(), 17, &[backend])
}

/// The last 32 bits that a prefix leaves vary; everything else is the network's.
#[test]
fn an_outer_source_is_of_the_network_and_varies_by_flow_as_far_as_its_prefix_allows() {
    for (inner, outer) in MIXES {
        for prefix in prefixes(&outer) {
            let tables = tables(&inner, &outer, prefix);
            let bits = if outer.tunnel.is_ipv4() { 32 } else { 128 };
            let free = (bits - u32::from(prefix)).min(32);
            let network = octets(network(&outer, prefix));
            let mut numbers = Numbers(u64::from(prefix));
            let mut met = BTreeSet::new();
            for _ in 0..100 {
                let (source, _) = source(&flow(&inner, numbers.next()), &tables);
                let source = octets(source);
                let last = |octets: &[u8]| u32::from_be_bytes(octets[octets.len() - 4..].try_into().unwrap());
                let varies = last(&source) ^ last(&network);
                assert_eq!(source[..source.len() - 4], network[..network.len() - 4]);
                assert!(u64::from(varies) < 1 << free, "{source:x?} of /{prefix}");
                met.insert(varies);
            }
            // All of a few are met, and of many nearly as many as there are flows.
            let least = if free <= 4 { 1 << free } else { (1_usize << free.min(7)).min(100) / 2 };
            assert!(met.len() >= least, "{} sources of a /{prefix}", met.len());
        }
    }
}

#[test]
fn a_flow_keeps_its_outer_source_and_label() {
    for (inner, outer) in MIXES {
        let tables = tables(&inner, &outer, if outer.tunnel.is_ipv4() { 8 } else { 64 });
        let mut met = BTreeSet::new();
        let mut numbers = Numbers(7);
        for _ in 0..50 {
            let flow = flow(&inner, numbers.next());
            let first = source(&flow, &tables);
            assert!(first.1 <= 0xffff);
            for packet in [
                Datagram { hops: 1, class: 0, mark: 1, ..flow.clone() },
                flow.clone().with_payload(&[0xff; 1_000]),
                Datagram { sender: [6; 6], tags: vec![[0x81, 0, 0, 9]], ..flow.clone() },
            ] {
                assert_eq!(source(&packet, &tables), first);
            }
            // An error about it takes the same way.
            let back = Datagram { from: flow.to, to: flow.from, ..flow.clone() };
            let back = Datagram { body: Datagram::to_service(&inner, Transport::Udp).body, ..back };
            let [from, to] = [inner.service(), SocketAddr::new(flow.from, port(&flow))];
            let back = back.with_source(from).with_destination(to);
            let error = Datagram::error(inner.router, &back, if inner.client.is_ipv4() { 3 } else { 1 }, 0, 100);
            assert_eq!(source(&error, &tables), first);
            met.insert(first);
        }
        assert!(met.len() > 45, "{} sources", met.len());
        let labels: BTreeSet<u32> = met.iter().map(|(_, label)| *label).collect();
        assert_eq!(labels.len() > 45, outer.tunnel.is_ipv6(), "{} labels", labels.len());
    }
}

fn port(flow: &Datagram) -> u16 {
    let crate::support::datagram::Body::Udp { ports: [port, _], .. } = &flow.body else { panic!("not UDP") };
    *port
}

/// The upper bits of a flow's hash have chosen its slot: sources of one backend's flows must not have them in common.
#[test]
fn flows_of_one_slot_have_different_outer_sources() {
    for (outer, prefix) in [(V4, 24), (V6, 120)] {
        // Of many backends one is a tunnel with few sources: only flows of its slots are counted.
        let near = tunnel_from(Sources::new(network(&outer, prefix), prefix), &V4, &outer, 17, LAN);
        let mut tables = empty().with_service(V4.service(), 17, &[near]);
        let first = *tables.slots.keys().next().unwrap();
        tables.slots.iter_mut().filter(|(slot, _)| **slot != first).for_each(|(_, slot)| slot.current = u32::MAX);
        let mut numbers = Numbers(9);
        let mut sources = Vec::new();
        while sources.len() < 60 {
            let flow = flow(&V4, numbers.next());
            let (verdict, _) = steered(&flow.bytes(), &tables);
            if verdict == FORWARDED {
                sources.push(source(&flow, &tables));
            }
        }
        let met: BTreeSet<_> = sources.iter().collect();
        // 256 sources and 60 flows: 53 on average.
        assert!(met.len() > 42, "{} sources", met.len());
    }
}

#[test]
fn every_class_is_copied() {
    for (inner, outer) in MIXES {
        let tables = empty().with_service(inner.service(), 6, &[tunnel(&inner, &outer, 6, LAN)]);
        for class in 0..=u8::MAX {
            let packet = Datagram { class, ..Datagram::to_service(&inner, Transport::Tcp) };
            let sent = wrapped(&packet, outer.tunnel, outer.backend, LAN);
            assert_eq!(steered(&packet.bytes(), &tables), (FORWARDED, sent), "class {class:#x}");
        }
    }
}

#[test]
fn every_length_is_that_of_the_packet() {
    for (inner, outer) in MIXES {
        let tables = empty().with_service(inner.service(), 17, &[tunnel(&inner, &outer, 17, LAN)]);
        for length in (0..80).chain([255, 256, 1_000, 1_400]) {
            let packet = Datagram::to_service(&inner, Transport::Udp).with_payload(&vec![0x5a; length]);
            let sent = wrapped(&packet, outer.tunnel, outer.backend, LAN);
            assert_eq!(steered(&packet.bytes(), &tables), (FORWARDED, sent), "{length} bytes");
        }
    }
}

/// Carries in the outer header's checksum: sources and destinations of ones and zeros.
#[test]
fn the_outer_checksum_holds_for_extreme_addresses() {
    let extremes = [0x0000_0001, 0x00ff_ffff, 0xffff_0000, 0xffff_fffe, 0xffff_ffff, 0x8000_8000, 0x7fff_8001];
    let side = V4;
    for source in extremes.map(Ipv4Addr::from_bits) {
        for destination in extremes.map(Ipv4Addr::from_bits) {
            let own = Endpoint::new(destination.into(), 6, 443);
            let backend = Backend::new(own, endpoint(side.service(), 6), 0).via(LAN, BACKEND_MAC, LAN_MAC, MTU);
            let backend = backend.through(Sources::new(source.into(), 32));
            let tables = empty().with_service(side.service(), 6, &[backend]);
            for length in [0, 1, 0x3a3, 1_400] {
                let packet = Datagram::to_service(&side, Transport::Tcp).with_payload(&vec![0; length]);
                let sent = wrapped(&packet, source.into(), destination.into(), LAN);
                assert_eq!(steered(&packet.bytes(), &tables), (FORWARDED, sent), "{source} to {destination}");
            }
        }
    }
}

/// The rest of a datagram has no ports, but goes by one way.
#[test]
fn the_rest_of_a_datagram_has_one_outer_source_of_the_network() {
    for (inner, outer) in MIXES {
        let tables = tables(&inner, &outer, if outer.tunnel.is_ipv4() { 24 } else { 120 });
        let frames = flow(&inner, 5).with_payload(&[0x5a; 200]).fragments(7, &[64, 128, 192]);
        let at = if outer.tunnel.is_ipv4() { 26..30 } else { 22..38 };
        let sources: Vec<Vec<u8>> = frames.iter().map(|frame| steered(frame, &tables).1[at.clone()].to_vec()).collect();
        assert!(sources[1..].iter().all(|source| *source == sources[1]));
        let network = octets(network(&outer, if outer.tunnel.is_ipv4() { 24 } else { 120 }));
        assert!(sources.iter().all(|source| source[..source.len() - 1] == network[..network.len() - 1]));
    }
}

#[test]
fn a_tunnel_is_of_the_family_of_its_ends() {
    for (inner, outer) in MIXES {
        let backend = tunnel(&inner, &outer, 6, LAN);
        let (flag, overhead) = if outer.tunnel.is_ipv4() { (TUNNEL4, 20) } else { (TUNNEL6, 40) };
        assert_eq!((backend.flags & (TUNNEL4 | TUNNEL6), backend.overhead()), (flag, overhead));
        assert_eq!(backend.mtu, MTU - overhead);
        assert_eq!(backend.ethernet(), addresses(BACKEND_MAC, LAN_MAC), "an EtherType is no part of them");
    }
    for side in SIDES {
        let without = Backend::new(endpoint(side.service(), 6), endpoint(side.service(), 6), 0);
        let without = without.via(LAN, BACKEND_MAC, LAN_MAC, 30);
        assert_eq!(
            (without.overhead(), without.through(Sources::new(side.tunnel, 24)).mtu),
            (0, if side.tunnel.is_ipv4() { 10 } else { 0 })
        );
    }
}
