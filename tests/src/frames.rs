//! Frames to try the path with, at least one for every way out of it, made by a foreign packet builder.

mod dns;
mod rare;

use crate::fixture::{BROKEN_SERVICE, KNOWN_CLIENTS, Moment, OWN_ADDRESSES, UNKNOWN_CLIENTS};
use anyhow::{Context as _, Result};
use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header, Icmpv6Header, Icmpv6Type, IpFragOffset,
    IpNumber, Ipv4Header, PacketBuilder, PacketBuilderStep, err::packet::BuildWriteError,
};
use std::net::{IpAddr, Ipv6Addr};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 0x10];

/// A frame with a name that says what it tries.
#[derive(Clone, Debug)]
pub struct Named {
    /// What it tries.
    pub name: &'static str,
    /// When it comes.
    pub moment: Moment,
    /// Frames that come before it, if it takes any.
    pub before: Vec<Vec<u8>>,
    /// Its bytes.
    pub frame: Vec<u8>,
}

/// All frames.
pub fn all() -> Result<Vec<Named>> {
    let [known4, known6] = KNOWN_CLIENTS;
    let [unknown4, unknown6] = UNKNOWN_CLIENTS;
    let [own4, own6] = OWN_ADDRESSES;
    let mut all = Vec::new();
    let mut add = |name, frame: Result<Vec<u8>>| {
        all.push(Named {
            name,
            moment: Moment::Usual,
            before: Vec::new(),
            frame: frame.with_context(|| format!("cannot build frame {name}"))?,
        });
        anyhow::Ok(())
    };
    add("dsr4_tcp_syn", tcp(known4, 40_001, "192.0.2.10", 80))?;
    add("dsr4_tcp_other_flow", tcp(known4, 40_002, "192.0.2.10", 80))?;
    add("dsr4_tcp_third_flow", tcp("203.0.113.9", 1_024, "192.0.2.10", 80))?;
    add("nat4_tcp", tcp(known4, 40_001, "192.0.2.11", 80))?;
    add("nat4_tcp_other_flow", tcp("203.0.113.7", 40_004, "192.0.2.11", 80))?;
    add("nat4_udp", udp(known4, 40_001, "192.0.2.11", 443, b"hello"))?;
    add("nat4_udp_without_checksum", udp(known4, 40_001, "192.0.2.11", 443, b"hello").map(without_checksum))?;
    add("dsr6_udp", udp(known6, 40_001, "2001:db8::10", 443, b"hello"))?;
    add("dsr6_udp_other_flow", udp(known6, 40_003, "2001:db8::10", 443, b"hello"))?;
    add("nat6_tcp", tcp(known6, 40_001, "2001:db8::11", 80))?;
    add("nat6_udp", udp(known6, 40_001, "2001:db8::11", 443, b"hello"))?;
    add("return4_tcp", tcp("10.78.2.21", 8080, known4, 40_001))?;
    add("return4_udp", udp("10.78.2.23", 4433, known4, 40_001, b"hello"))?;
    add("return4_to_an_unknown_neighbor", tcp("10.78.2.21", 8080, unknown4, 40_001))?;
    add("return4_to_the_balancer", tcp("10.78.2.21", 8080, own4, 40_001))?;
    add("return6_tcp", tcp("fd78:2::21", 8080, known6, 40_001))?;
    add("return6_udp", udp("fd78:2::23", 4433, known6, 40_001, b"hello"))?;
    add("return6_to_an_unknown_neighbor", tcp("fd78:2::21", 8080, unknown6, 40_001))?;
    add("return6_to_the_balancer", udp("fd78:2::23", 4433, own6, 40_001, b"hello"))?;
    add("nat4_last_hop", tcp(known4, 40_001, "192.0.2.11", 80).map(|frame| with_byte(frame, 22, 1)))?;
    add("nat6_last_hop", tcp(known6, 40_001, "2001:db8::11", 80).map(|frame| with_byte(frame, 21, 1)))?;
    add("no_backend", tcp(known4, 40_001, "192.0.2.12", 80))?;
    add("other_port", tcp(known4, 40_001, "192.0.2.10", 81))?;
    add("ssh_to_the_balancer", tcp(known4, 40_001, own4, 22))?;
    add("slots_lead_to_nobody", tcp(known4, 40_001, BROKEN_SERVICE, 80))?;
    add("ipv4_fragment", fragment(known4, "192.0.2.10"))?;
    add("icmp_echo", echo(known4, "192.0.2.10"))?;
    add("icmpv6_echo", echo(known6, "2001:db8::10"))?;
    add("arp_for_a_service", arp(ArpOperation::REQUEST, known4, "192.0.2.10"))?;
    add("arp_probe_for_a_service", arp(ArpOperation::REQUEST, "0.0.0.0", "192.0.2.10"))?;
    add("arp_announcement", arp(ArpOperation::REQUEST, "192.0.2.10", "192.0.2.10"))?;
    add("arp_for_the_balancer", arp(ArpOperation::REQUEST, known4, own4))?;
    add("arp_reply", arp(ArpOperation::REPLY, known4, "192.0.2.10"))?;
    add("solicitation_for_a_service", solicitation(known6, "2001:db8::10", true))?;
    add("solicitation_without_an_option", solicitation(known6, "2001:db8::10", false))?;
    add("solicitation_from_nobody", solicitation("::", "2001:db8::10", false))?;
    add("solicitation_for_the_balancer", solicitation(known6, own6, true))?;
    add("not_ip", Ok(ethernet(EtherType(0x88cc), &[0; 46])))?;
    add("other_protocol", tcp(known4, 40_001, "192.0.2.10", 80).map(|frame| with_byte(frame, 23, 47)))?;
    add("cut_off", tcp(known4, 40_001, "192.0.2.10", 80).map(|frame| frame.into_iter().take(40).collect()))?;
    add("longer_than_the_frame", udp(known4, 40_001, "192.0.2.10", 80, &[7; 40]).map(|frame| cut(frame, 20)))?;
    all.extend(dns::all()?);
    all.extend(rare::all()?);
    Ok(all)
}

/// Frames whose outcome depends on those before: DNS questions that are counted.
pub fn counted() -> Result<Vec<Named>> {
    dns::counted()
}

/// A DNS message from a client to the balancer, over both families.
pub fn with_message(message: &[u8]) -> Result<[Vec<u8>; 2]> {
    let [four, six] = KNOWN_CLIENTS;
    Ok([udp(four, 40_001, "192.0.2.53", 53, message)?, udp(six, 40_001, "2001:db8::53", 53, message)?])
}

fn network(from: &str, to: &str) -> Result<PacketBuilderStep<etherparse::IpHeaders>> {
    let builder = PacketBuilder::ethernet2(PEER, OURS);
    Ok(match (from.parse()?, to.parse()?) {
        (IpAddr::V4(from), IpAddr::V4(to)) => builder.ipv4(from.octets(), to.octets(), 64),
        (IpAddr::V6(from), IpAddr::V6(to)) => builder.ipv6(from.octets(), to.octets(), 64),
        (from, to) => anyhow::bail!("{from} and {to} are of different families"),
    })
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> Result<(), BuildWriteError>) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    write(&mut frame)?;
    Ok(frame)
}

fn tcp(from: &str, from_port: u16, to: &str, to_port: u16) -> Result<Vec<u8>> {
    let builder = network(from, to)?.tcp(from_port, to_port, 1_000, 64_240).syn();
    written(|frame| builder.write(frame, &[]))
}

fn udp(from: &str, from_port: u16, to: &str, to_port: u16, payload: &[u8]) -> Result<Vec<u8>> {
    let builder = network(from, to)?.udp(from_port, to_port);
    written(|frame| builder.write(frame, payload))
}

fn echo(from: &str, to: &str) -> Result<Vec<u8>> {
    let builder = network(from, to)?;
    if from.contains(':') {
        let builder = builder.icmpv6_echo_request(1, 1);
        written(|frame| builder.write(frame, b"ping"))
    } else {
        let builder = builder.icmpv4_echo_request(1, 1);
        written(|frame| builder.write(frame, b"ping"))
    }
}

fn ethernet(ether_type: EtherType, payload: &[u8]) -> Vec<u8> {
    let header = Ethernet2Header { source: PEER, destination: OURS, ether_type };
    [&header.to_bytes(), payload].concat()
}

fn fragment(from: &str, to: &str) -> Result<Vec<u8>> {
    let (IpAddr::V4(from), IpAddr::V4(to)) = (from.parse()?, to.parse()?) else {
        anyhow::bail!("an IPv4 fragment needs IPv4 addresses");
    };
    let mut header = Ipv4Header::new(64, 64, IpNumber::UDP, from.octets(), to.octets())?;
    header.fragment_offset = IpFragOffset::try_new(185)?;
    header.header_checksum = header.calc_header_checksum();
    Ok(ethernet(EtherType::IPV4, &[&header.to_bytes()[..], &[9; 64]].concat()))
}

fn arp(operation: ArpOperation, from: &str, about: &str) -> Result<Vec<u8>> {
    let (IpAddr::V4(from), IpAddr::V4(about)) = (from.parse()?, about.parse()?) else {
        anyhow::bail!("ARP is for IPv4 addresses");
    };
    let packet = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        operation,
        &PEER,
        &from.octets(),
        &[0; 6],
        &about.octets(),
    )?;
    Ok(ethernet(EtherType::ARP, &packet.to_bytes()))
}

fn solicitation(from: &str, about: &str, with_option: bool) -> Result<Vec<u8>> {
    let (from, about): (Ipv6Addr, Ipv6Addr) = (from.parse()?, about.parse()?);
    let group = "ff02::1:ff00:10".parse::<Ipv6Addr>()?;
    let mut payload = about.octets().to_vec();
    if with_option {
        payload.extend([1, 1]);
        payload.extend(PEER);
    }
    let kind = Icmpv6Type::NeighborSolicitation;
    let header = Icmpv6Header::with_checksum(kind, from.octets(), group.octets(), &payload)?;
    let builder = PacketBuilder::ethernet2(PEER, [0x33, 0x33, 0xff, 0, 0, 0x10]);
    let builder = builder.ipv6(from.octets(), group.octets(), 255).icmpv6(header.icmp_type);
    written(|frame| builder.write(frame, &payload))
}

fn with_byte(mut frame: Vec<u8>, offset: usize, value: u8) -> Vec<u8> {
    if let Some(byte) = frame.get_mut(offset) {
        *byte = value;
    }
    frame
}

fn without_checksum(frame: Vec<u8>) -> Vec<u8> {
    with_byte(with_byte(frame, 40, 0), 41, 0)
}

fn cut(mut frame: Vec<u8>, by: usize) -> Vec<u8> {
    frame.truncate(frame.len().saturating_sub(by));
    frame
}
