//! Frames that tell a link, unasked, who answers for an address: an ARP announcement (RFC 5227 section 3) or an unsolicited neighbour
//! advertisement (RFC 4861 section 7.2.6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ARP: [u8; 2] = [0x08, 0x06];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ICMPV6: u8 = 58;
const ADVERTISEMENT: u8 = 136;
/// What is known of the address is to be replaced.
const OVERRIDE: u8 = 0x20;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// The frame that says that an address is at `mac`.
pub fn frame(address: IpAddr, mac: [u8; 6]) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(address, mac),
        IpAddr::V6(address) => advertisement(address, mac),
    }
}

fn arp(address: Ipv4Addr, mac: [u8; 6]) -> Vec<u8> {
    let address = address.octets();
    // Ethernet and IPv4, a request for the sender's own address.
    let head = [0, 1, 8, 0, 6, 4, 0, 1];
    [&[0xff; 6][..], &mac, &ARP, &head, &mac, &address, &[0; 6], &address].concat()
}

fn advertisement(address: Ipv6Addr, mac: [u8; 6]) -> Vec<u8> {
    let [from, to] = [address, ALL_NODES].map(|address| address.octets());
    // The option says the link-layer address: type 2, of 8 bytes.
    let message = |sum: [u8; 2]| [&[ADVERTISEMENT, 0][..], &sum, &[OVERRIDE, 0, 0, 0], &from, &[2, 1], &mac].concat();
    let length = message([0; 2]).len() as u16;
    let pseudo = [&from[..], &to, &[0, 0], &length.to_be_bytes(), &[0, 0, 0, ICMPV6]].concat();
    let sum = sum(&[pseudo, message([0; 2])].concat());
    let header = [&[0x60, 0, 0, 0][..], &length.to_be_bytes(), &[ICMPV6, 255], &from, &to].concat();
    [&ALL_NODES_MAC[..], &mac, &IPV6, &header, &message(sum.to_be_bytes())].concat()
}

/// The Internet checksum (RFC 1071) of an even number of bytes.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| pair.iter().fold(0, |word, byte| word << 8 | u32::from(*byte)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::{Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 7];

    #[test]
    fn an_ipv4_address_is_announced_by_a_request_for_itself() {
        let frame = frame("192.0.2.10".parse().unwrap(), MAC);
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Arp(arp)) = packet.net else { panic!("{packet:?}") };
        assert_eq!((arp.operation().0, arp.sender_hw_addr()), (1, MAC.as_slice()));
        assert_eq!(
            (arp.sender_protocol_addr(), arp.target_protocol_addr()),
            (&[192, 0, 2, 10][..], &[192, 0, 2, 10][..])
        );
    }

    #[test]
    fn an_ipv6_address_is_announced_to_all_nodes() {
        let address: Ipv6Addr = "2001:db8::10".parse().unwrap();
        let frame = frame(address.into(), MAC);
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) = (packet.net, packet.transport) else {
            panic!("not ICMPv6")
        };
        let header = ip.header();
        assert_eq!((header.source_addr(), header.destination_addr(), header.hop_limit()), (address, ALL_NODES, 255));
        assert!(icmp.is_checksum_valid(header.source(), header.destination()));
        assert!(
            matches!(icmp.icmp_type(), Icmpv6Type::NeighborAdvertisement(flags) if flags.r#override && !flags.solicited)
        );
        assert!(icmp.payload().ends_with(&[&[2, 1][..], &MAC].concat()));
    }
}
