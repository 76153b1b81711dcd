//! From a frame to what the path needs to know of it.

use crate::{
    frame::Frame,
    tables::{Endpoint, FAMILY_4, FAMILY_6},
    verdict::Why,
    wire::{
        ethernet::{ARP, Ethernet, IPV4, IPV6},
        ipv4::{self, Head4, Ipv4},
        ipv6::{Head6, Ipv6},
        transport::{ICMPV6, TCP, Tcp, UDP, Udp},
    },
};

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packet {
    /// TCP or UDP.
    Flow(Flow),
    /// ARP, not looked into.
    Arp,
    /// ICMPv6, not looked into.
    NeighborSolicitation,
}

/// A packet of TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Where it comes from.
    pub from: Endpoint,
    /// Where it goes to.
    pub to: Endpoint,
    /// Bytes from the IP header on, as that header says.
    pub length: u16,
    /// [`FAMILY_4`] or [`FAMILY_6`].
    pub family: u8,
    /// Protocol number of TCP or UDP.
    pub protocol: u8,
}

/// Reads the headers. The common frame costs one comparison for each family.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F) -> Result<Packet, Why> {
    let Ethernet { ethertype, .. } = frame.head().ok_or(Why::Truncated)?;
    match ethertype.get() {
        IPV4 => parse4(frame),
        IPV6 => parse6(frame),
        ARP => Ok(Packet::Arp),
        _ => Err(Why::NotIp),
    }
}

#[inline(always)]
fn parse4<F: Frame>(frame: &F) -> Result<Packet, Why> {
    let Head4 { ip, ports, .. } = frame.head().ok_or(Why::Truncated)?;
    if ip.version_length != ipv4::NO_OPTIONS {
        return Err(Why::Ipv4Options);
    }
    if ip.fragment.get() & ipv4::FRAGMENT_MASK != 0 {
        return Err(Why::Fragment);
    }
    if ip.protocol != TCP && ip.protocol != UDP {
        return Err(Why::OtherProtocol);
    }
    let length = ip.total_length.get();
    if frame.len() < Ethernet::LEN + usize::from(length)
        || usize::from(length) < Ipv4::LEN + transport_length(ip.protocol)
    {
        return Err(Why::Truncated);
    }
    let tail = |port| Endpoint::tail(port, ip.protocol, FAMILY_4);
    Ok(Packet::Flow(Flow {
        from: Endpoint { address: [u64::from(ip.source.get()), 0], tail: tail(ports.source) },
        to: Endpoint { address: [u64::from(ip.destination.get()), 0], tail: tail(ports.destination) },
        length,
        family: FAMILY_4,
        protocol: ip.protocol,
    }))
}

#[inline(always)]
fn parse6<F: Frame>(frame: &F) -> Result<Packet, Why> {
    let Head6 { ip, ports, .. } = frame.head().ok_or(Why::Truncated)?;
    if ip.version_class_flow.get() >> 28 != 6 {
        return Err(Why::NotIp);
    }
    if ip.next_header == ICMPV6 {
        return Ok(Packet::NeighborSolicitation);
    }
    if ip.next_header != TCP && ip.next_header != UDP {
        return Err(Why::OtherProtocol);
    }
    // An IPv6 packet without a jumbogram option is never longer than this sum fits (RFC 2675 is not for us).
    let length = usize::from(ip.payload_length.get()) + Ipv6::LEN;
    if frame.len() < Ethernet::LEN + length || length < Ipv6::LEN + transport_length(ip.next_header) {
        return Err(Why::Truncated);
    }
    let tail = |port| Endpoint::tail(port, ip.next_header, FAMILY_6);
    Ok(Packet::Flow(Flow {
        from: Endpoint { address: ip.source.get(), tail: tail(ports.source) },
        to: Endpoint { address: ip.destination.get(), tail: tail(ports.destination) },
        length: length as u16,
        family: FAMILY_6,
        protocol: ip.next_header,
    }))
}

/// The least that a transport's header takes.
#[inline(always)]
const fn transport_length(protocol: u8) -> usize {
    if protocol == TCP { Tcp::LEN } else { Udp::LEN }
}
