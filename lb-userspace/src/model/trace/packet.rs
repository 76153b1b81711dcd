//! What the headers of a sampled frame say, as far as it was kept.

use lb_common::{
    tables::Endpoint,
    wire::transport::{TCP, UDP},
};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};

const VLANS: [u16; 2] = [0x8100, 0x88a8];
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// Extension headers of the common form: hop-by-hop options, routing, destination options.
const EXTENSIONS: [u8; 3] = [0, 43, 60];
const FRAGMENT: u8 = 44;
/// More than any packet has that is handled.
const MOST_EXTENSIONS: usize = 8;

/// Headers in words. What is missing is not there, or behind what was kept of the frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packet {
    /// `tcp`, `udp`, `icmp`, `icmpv6`, `arp`, or a number.
    pub protocol: String,
    /// Who sent it.
    pub source: Option<IpAddr>,
    /// From which port.
    pub source_port: Option<u16>,
    /// Who is to get it.
    pub destination: Option<IpAddr>,
    /// At which port.
    pub destination_port: Option<u16>,
}

/// Where the layer above IP begins, and what it is.
struct Payload {
    protocol: u8,
    /// Nowhere in the rest of a datagram in fragments.
    at: Option<usize>,
}

impl Packet {
    /// Reads a frame's beginning.
    #[must_use]
    pub fn read(frame: &[u8]) -> Self {
        let mut at = 12;
        let mut ethertype = half(frame, at);
        while ethertype.is_some_and(|ethertype| VLANS.contains(&ethertype)) {
            at += 4;
            ethertype = half(frame, at);
        }
        let ip = frame.get(at + 2..).unwrap_or_default();
        match ethertype {
            Some(ETHERTYPE_IPV4) => Self::above(ip, ipv4(ip), address4(ip, 12), address4(ip, 16)),
            Some(ETHERTYPE_IPV6) => Self::above(ip, ipv6(ip), address6(ip, 8), address6(ip, 24)),
            Some(ETHERTYPE_ARP) => Self::named("arp".into(), address4(ip, 14), address4(ip, 24)),
            Some(other) => Self::named(format!("ethertype {other:#06x}"), None, None),
            None => Self::named("truncated".into(), None, None),
        }
    }

    const fn named(protocol: String, source: Option<IpAddr>, destination: Option<IpAddr>) -> Self {
        Self { protocol, source, source_port: None, destination, destination_port: None }
    }

    fn above(ip: &[u8], payload: Option<Payload>, source: Option<IpAddr>, destination: Option<IpAddr>) -> Self {
        let Some(Payload { protocol, at }) = payload else { return Self::named("ip".into(), source, destination) };
        let name = match protocol {
            1 => "icmp".into(),
            TCP => "tcp".into(),
            UDP => "udp".into(),
            58 => "icmpv6".into(),
            other => format!("protocol {other}"),
        };
        let at = at.filter(|_| matches!(protocol, TCP | UDP));
        let port = |offset| half(ip, at? + offset);
        Self { source_port: port(0), destination_port: port(2), ..Self::named(name, source, destination) }
    }

    /// Where it comes from, as the tables have it.
    #[must_use]
    pub fn source_endpoint(&self) -> Option<Endpoint> {
        self.endpoint(self.source, self.source_port)
    }

    /// Where it goes to, likewise.
    #[must_use]
    pub fn destination_endpoint(&self) -> Option<Endpoint> {
        self.endpoint(self.destination, self.destination_port)
    }

    fn endpoint(&self, address: Option<IpAddr>, port: Option<u16>) -> Option<Endpoint> {
        let protocol = if self.protocol == "tcp" { TCP } else { UDP };
        Some(Endpoint::new(address?, protocol, port?))
    }

    /// Both ends in one line.
    #[must_use]
    pub fn ends(&self) -> String {
        let end = |address: Option<IpAddr>, port: Option<u16>| match (address, port) {
            (Some(address), Some(port)) => SocketAddr::new(address, port).to_string(),
            (Some(address), None) => address.to_string(),
            (None, _) => "?".into(),
        };
        let (from, to) = (end(self.source, self.source_port), end(self.destination, self.destination_port));
        format!("{} {from} > {to}", self.protocol)
    }
}

fn ipv4(ip: &[u8]) -> Option<Payload> {
    let length = usize::from(ip.first()? & 0xf) * 4;
    let is_first = half(ip, 6)? & 0x1fff == 0;
    Some(Payload { protocol: *ip.get(9)?, at: is_first.then_some(length) })
}

fn ipv6(ip: &[u8]) -> Option<Payload> {
    let mut protocol = *ip.get(6)?;
    let mut at = 40;
    for _ in 0..MOST_EXTENSIONS {
        let length = match protocol {
            FRAGMENT if half(ip, at + 2)? & 0xfff8 != 0 => {
                return Some(Payload { protocol: *ip.get(at)?, at: None });
            }
            FRAGMENT => 8,
            header if EXTENSIONS.contains(&header) => (usize::from(*ip.get(at + 1)?) + 1) * 8,
            _ => break,
        };
        protocol = *ip.get(at)?;
        at += length;
    }
    Some(Payload { protocol, at: Some(at) })
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|chunk| u16::from_be_bytes(*chunk))
}

fn address4(ip: &[u8], at: usize) -> Option<IpAddr> {
    ip.get(at..)?.first_chunk::<4>().map(|bytes| IpAddr::from(*bytes))
}

fn address6(ip: &[u8], at: usize) -> Option<IpAddr> {
    ip.get(at..)?.first_chunk::<16>().map(|bytes| IpAddr::from(*bytes))
}
