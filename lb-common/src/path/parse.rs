//! From a frame to what the path needs to know of its packet.

use crate::{
    frame::Frame,
    tables::{Endpoint, FAMILY_4, FAMILY_6},
    verdict::Why,
    wire::{
        ethernet::{ARP, Ethernet, IPV4, IPV6},
        icmp::Icmp,
        ipv4::{self, Head4, Ipv4},
        ipv6::{self, Extension, Head6, Ipv6},
        transport::{ICMP, ICMPV6, Ports, TCP, Tcp, UDP, Udp},
    },
};

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A packet of either family.
    Ip(Packet),
    /// ARP, not looked into.
    Arp,
}

/// A packet of IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from; without a port unless it is a [`Kind::Flow`].
    pub from: Endpoint,
    /// Where it goes to; likewise.
    pub to: Endpoint,
    /// How it is told which way to go.
    pub kind: Kind,
    /// Tells the datagram of a fragment; zero for one that is whole.
    pub identification: u32,
    /// Where its payload starts in the frame.
    pub payload: u16,
    /// Bytes from the IP header on, as that header says.
    pub length: u16,
    /// [`FAMILY_4`] or [`FAMILY_6`].
    pub family: u8,
    /// What the payload is: a protocol number.
    pub protocol: u8,
    /// Differentiated services and congestion notification.
    pub traffic_class: u8,
    /// Whether its payload is in fragments.
    pub in_fragments: bool,
    /// Has neither options, extension headers nor fragments, so that everything is where it mostly is.
    pub plain: bool,
}

/// How a packet is told which way to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By ports: TCP or UDP, the first fragment of a datagram included.
    Flow,
    /// By what its message is about: ICMP or ICMPv6.
    Icmp,
    /// By the first fragment of its datagram: the rest has no ports.
    Rest,
}

/// The packet of nearly every frame: TCP or UDP, all of it, with everything where it mostly is. It costs one comparison of the
/// length for each family.
#[inline(always)]
pub fn plain<F: Frame>(frame: &F) -> Option<Packet> {
    let Ethernet { ethertype, .. } = frame.head()?;
    let packet = match ethertype.get() {
        IPV4 => plain4(frame)?,
        IPV6 => plain6(frame)?,
        _ => return None,
    };
    is_whole(frame, &packet).then_some(packet)
}

/// Reads the headers of any frame.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F) -> Result<Parsed, Why> {
    let Ethernet { ethertype, .. } = frame.head().ok_or(Why::Truncated)?;
    let family = match ethertype.get() {
        IPV4 => FAMILY_4,
        IPV6 => FAMILY_6,
        ARP => return Ok(Parsed::Arp),
        _ => return Err(Why::NotIp),
    };
    let packet = packet(frame, Ethernet::LEN, family)?;
    if is_whole(frame, &packet) { Ok(Parsed::Ip(packet)) } else { Err(Why::Truncated) }
}

/// Whether all of a packet is in the frame.
#[inline(always)]
fn is_whole<F: Frame>(frame: &F, packet: &Packet) -> bool {
    let end = Ethernet::LEN + usize::from(packet.length);
    frame.len() >= end && usize::from(packet.payload) + least_payload(packet) <= end
}

/// The least that a packet's payload takes.
#[inline(always)]
const fn least_payload(packet: &Packet) -> usize {
    match (packet.kind, packet.protocol) {
        (Kind::Flow, TCP) => Tcp::LEN,
        (Kind::Flow, _) => Udp::LEN,
        (Kind::Icmp, _) => Icmp::LEN,
        (Kind::Rest, _) => 1,
    }
}

#[inline(always)]
fn plain4<F: Frame>(frame: &F) -> Option<Packet> {
    let Head4 { ip, ports, .. } = frame.head()?;
    if ip.version_length != ipv4::NO_OPTIONS
        || ip.fragment.get() & ipv4::FRAGMENT_MASK != 0
        || (ip.protocol != TCP && ip.protocol != UDP)
    {
        return None;
    }
    Some(Packet {
        from: endpoint4(ip.source.get(), ip.protocol, ports.source),
        to: endpoint4(ip.destination.get(), ip.protocol, ports.destination),
        kind: Kind::Flow,
        identification: 0,
        payload: (Ethernet::LEN + Ipv4::LEN) as u16,
        length: ip.total_length.get(),
        family: FAMILY_4,
        protocol: ip.protocol,
        traffic_class: ip.traffic_class,
        in_fragments: false,
        plain: true,
    })
}

#[inline(always)]
fn plain6<F: Frame>(frame: &F) -> Option<Packet> {
    let Head6 { ip, ports, .. } = frame.head()?;
    let first = ip.version_class_flow.get();
    if first >> 28 != 6 || (ip.next_header != TCP && ip.next_header != UDP) {
        return None;
    }
    Some(Packet {
        from: endpoint6(ip.source.get(), ip.next_header, ports.source),
        to: endpoint6(ip.destination.get(), ip.next_header, ports.destination),
        kind: Kind::Flow,
        identification: 0,
        payload: (Ethernet::LEN + Ipv6::LEN) as u16,
        length: length6(ip),
        family: FAMILY_6,
        protocol: ip.next_header,
        traffic_class: (first >> 20) as u8,
        in_fragments: false,
        plain: true,
    })
}

/// Reads any packet whose IP header is at `at`: that of a frame, or the one that an ICMP error is about. Whether all of it is there is
/// for the caller to say.
#[inline(always)]
pub fn packet<F: Frame>(frame: &F, at: usize, family: u8) -> Result<Packet, Why> {
    let mut packet = if family == FAMILY_4 { packet4(frame, at)? } else { packet6(frame, at)? };
    if packet.kind == Kind::Rest {
        return Ok(packet);
    }
    packet.kind = match (packet.protocol, family) {
        (TCP | UDP, _) => Kind::Flow,
        (ICMP, FAMILY_4) | (ICMPV6, FAMILY_6) => Kind::Icmp,
        _ => return Err(Why::OtherProtocol),
    };
    if packet.kind == Kind::Flow {
        let Ports { source, destination } = frame.view(packet.payload.into()).ok_or(Why::Truncated)?;
        packet.from.tail |= u64::from(u16::from_ne_bytes(*source));
        packet.to.tail |= u64::from(u16::from_ne_bytes(*destination));
    }
    Ok(packet)
}

#[inline(always)]
fn packet4<F: Frame>(frame: &F, at: usize) -> Result<Packet, Why> {
    let ip: &Ipv4 = frame.view(at).ok_or(Why::Truncated)?;
    if ip.version_length >> 4 != 4 || ip.version_length < ipv4::NO_OPTIONS {
        return Err(Why::Ipv4Header);
    }
    let header = usize::from(ip.version_length & 0xf) * 4;
    let fragment = ip.fragment.get();
    let in_fragments = fragment & ipv4::FRAGMENT_MASK != 0;
    Ok(Packet {
        from: endpoint4(ip.source.get(), ip.protocol, [0, 0]),
        to: endpoint4(ip.destination.get(), ip.protocol, [0, 0]),
        kind: if fragment & ipv4::FRAGMENT_OFFSET != 0 { Kind::Rest } else { Kind::Flow },
        identification: if in_fragments { u32::from(ip.identification.get()) } else { 0 },
        payload: (at + header) as u16,
        length: ip.total_length.get(),
        family: FAMILY_4,
        protocol: ip.protocol,
        traffic_class: ip.traffic_class,
        in_fragments,
        plain: ip.version_length == ipv4::NO_OPTIONS && !in_fragments,
    })
}

/// Extension headers that are walked past: more than any sender but a hostile one uses.
const EXTENSIONS: usize = 4;

#[inline(always)]
fn packet6<F: Frame>(frame: &F, at: usize) -> Result<Packet, Why> {
    let ip: &Ipv6 = frame.view(at).ok_or(Why::Truncated)?;
    let first = ip.version_class_flow.get();
    if first >> 28 != 6 {
        return Err(Why::NotIp);
    }
    let mut packet = Packet {
        from: endpoint6(ip.source.get(), 0, [0, 0]),
        to: endpoint6(ip.destination.get(), 0, [0, 0]),
        kind: Kind::Flow,
        identification: 0,
        payload: (at + Ipv6::LEN) as u16,
        length: length6(ip),
        family: FAMILY_6,
        protocol: ip.next_header,
        traffic_class: (first >> 20) as u8,
        in_fragments: false,
        plain: !ipv6::is_extension(ip.next_header),
    };
    for _ in 0..EXTENSIONS {
        if !ipv6::is_extension(packet.protocol) || packet.kind == Kind::Rest {
            break;
        }
        let extension: &Extension = frame.view(packet.payload.into()).ok_or(Why::Truncated)?;
        let mut length = (u16::from(extension.length) + 1) * 8;
        match packet.protocol {
            ipv6::FRAGMENT => {
                let fragment = extension.fragment.get();
                length = Extension::LEN as u16;
                // Zero in both: a datagram that is whole in spite of the header (RFC 6946).
                if fragment & (ipv6::FRAGMENT_OFFSET | ipv6::MORE_FRAGMENTS) != 0 {
                    packet.in_fragments = true;
                    packet.identification = extension.identification.get();
                }
                if fragment & ipv6::FRAGMENT_OFFSET != 0 {
                    packet.kind = Kind::Rest;
                }
            }
            // It goes on to other addresses before its destination reads the rest (RFC 8200 section 4.4).
            ipv6::ROUTING if extension.fragment.get() & 0xff != 0 => return Err(Why::Ipv6Extensions),
            _ => (),
        }
        packet.protocol = extension.next_header;
        packet.payload += length;
    }
    if packet.kind != Kind::Rest && ipv6::is_extension(packet.protocol) {
        return Err(Why::Ipv6Extensions);
    }
    packet.from.tail |= Endpoint::tail([0, 0], packet.protocol, 0);
    packet.to.tail |= Endpoint::tail([0, 0], packet.protocol, 0);
    Ok(packet)
}

/// Header and payload. A packet without a jumbogram option is never longer than the sum fits (RFC 2675 is not for us).
#[inline(always)]
fn length6(ip: &Ipv6) -> u16 {
    ip.payload_length.get().saturating_add(Ipv6::LEN as u16)
}

#[inline(always)]
const fn endpoint4(address: u32, protocol: u8, port: [u8; 2]) -> Endpoint {
    Endpoint { address: [address as u64, 0], tail: Endpoint::tail(port, protocol, FAMILY_4) }
}

#[inline(always)]
const fn endpoint6(address: [u64; 2], protocol: u8, port: [u8; 2]) -> Endpoint {
    Endpoint { address, tail: Endpoint::tail(port, protocol, FAMILY_6) }
}
