//! Tunnels in all four mixes of families: the outer header, built by etherparse, and the packet behind it, which stays as it was.

use crate::support::datagram::Datagram;
use etherparse::{EtherType, Ethernet2Header, IpNumber, Ipv4Header, Ipv6Header};
use std::net::IpAddr;

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
