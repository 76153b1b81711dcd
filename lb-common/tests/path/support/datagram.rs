//! Packets put together byte by byte from their meaning: options, extension headers in any order, tags, fragments and messages
//! about packets, for which etherparse's builder has no words. Checksums are summed here by 16-bit words, as RFC 1071 puts it.

use super::{BACKEND_MAC, LAN_MAC, Mac, ROUTER_MAC, Side, WAN_MAC, frames::Transport, tables::mac_of};
use std::net::{IpAddr, SocketAddr};

/// A packet in its frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    pub receiver: Mac,
    pub sender: Mac,
    /// VLAN tags as on the wire.
    pub tags: Vec<[u8; 4]>,
    pub from: IpAddr,
    pub to: IpAddr,
    pub hops: u8,
    /// Differentiated services and congestion notification.
    pub class: u8,
    /// IPv4's identification and half of IPv6's flow label.
    pub mark: u16,
    pub dont_fragment: bool,
    /// IPv4's, words of 4 bytes.
    pub options: Vec<u8>,
    /// IPv6's, in their order.
    pub extensions: Vec<Extension>,
    pub body: Body,
}

/// An extension header of IPv6: its protocol number, and all of it but its first byte, which says what follows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    pub number: u8,
    pub rest: Vec<u8>,
}

/// What an IP header is followed by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    Tcp { ports: [u16; 2], flags: u8, options: Vec<u8>, payload: Vec<u8> },
    Udp { ports: [u16; 2], with_checksum: bool, payload: Vec<u8> },
    Icmp { kind: u8, code: u8, rest: [u8; 4], payload: Vec<u8> },
    Other { protocol: u8, bytes: Vec<u8> },
}

impl Extension {
    /// Hop-by-hop options: a router alert (RFC 2711) in 8 bytes.
    pub fn hop_by_hop() -> Self {
        Self { number: 0, rest: vec![0, 5, 2, 0, 0, 1, 0] }
    }

    /// Destination options: padding (RFC 8200 section 4.2) in this many words of 8 bytes.
    pub fn destination_options(words: u8) -> Self {
        let padding = u8::try_from(u16::from(words) * 8 - 4).unwrap();
        let mut rest = vec![words - 1, 1, padding];
        rest.extend(vec![0; padding.into()]);
        Self { number: 60, rest }
    }

    /// A routing header (RFC 6275 section 6.4) with one address and so many segments left.
    pub fn routing(segments_left: u8) -> Self {
        let mut rest = vec![2, 2, segments_left, 0, 0, 0, 0];
        rest.extend([0xfd; 16]);
        Self { number: 43, rest }
    }

    /// A fragment header (RFC 8200 section 4.5): offset in bytes.
    pub fn fragment(identification: u32, offset: usize, more: bool) -> Self {
        let mut rest = vec![0];
        rest.extend((offset as u16 | u16::from(more)).to_be_bytes());
        rest.extend(identification.to_be_bytes());
        Self { number: 44, rest }
    }
}

impl Body {
    /// A TCP segment in the middle of a connection, as [`super::frames::FlowFrame`] has it.
    pub fn tcp(ports: [u16; 2], payload: &[u8]) -> Self {
        let options = vec![8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0];
        Self::Tcp { ports, flags: 0x18, options, payload: payload.to_vec() }
    }

    pub fn udp(ports: [u16; 2], payload: &[u8]) -> Self {
        Self::Udp { ports, with_checksum: true, payload: payload.to_vec() }
    }

    fn protocol(&self, four: bool) -> u8 {
        match self {
            Self::Tcp { .. } => 6,
            Self::Udp { .. } => 17,
            Self::Icmp { .. } => {
                if four {
                    1
                } else {
                    58
                }
            }
            Self::Other { protocol, .. } => *protocol,
        }
    }

    /// The bytes behind the IP header, with their checksum.
    fn bytes(&self, from: IpAddr, to: IpAddr) -> Vec<u8> {
        let (mut bytes, field, present) = match self {
            Self::Tcp { ports, flags, options, payload } => {
                let mut bytes: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
                bytes.extend([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde, 0xf0]);
                bytes.extend([((20 + options.len()) / 4 * 16) as u8, *flags, 0xfa, 0xf0, 0, 0, 0, 0]);
                bytes.extend(options);
                bytes.extend(payload);
                (bytes, 16, true)
            }
            Self::Udp { ports, with_checksum, payload } => {
                let mut bytes: Vec<u8> = ports.iter().flat_map(|port| port.to_be_bytes()).collect();
                bytes.extend((8 + payload.len() as u16).to_be_bytes());
                bytes.extend([0, 0]);
                bytes.extend(payload);
                (bytes, 6, *with_checksum)
            }
            Self::Icmp { kind, code, rest, payload } => ([&[*kind, *code, 0, 0], &rest[..], payload].concat(), 2, true),
            Self::Other { bytes, .. } => return bytes.clone(),
        };
        let protocol = self.protocol(from.is_ipv4());
        // ICMP alone has no pseudo header (RFC 792).
        let pseudo = if protocol == 1 { Vec::new() } else { pseudo_header(from, to, protocol, bytes.len()) };
        if present {
            let checksum = match (checksum(&[&pseudo[..], &bytes].concat()), protocol) {
                (0, 17) => 0xffff,
                (checksum, _) => checksum,
            };
            bytes[field..field + 2].copy_from_slice(&checksum.to_be_bytes());
        }
        bytes
    }
}

fn pseudo_header(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = [octets(from), octets(to)].concat();
    bytes.extend((length as u32).to_be_bytes());
    bytes.extend([0, 0, 0, protocol]);
    bytes
}

pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// RFC 1071: the complement of the sum of 16-bit words, the carries added back in.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) * 256 + u32::from(*pair.get(1).unwrap_or(&0));
        if sum > 0xffff {
            sum -= 0xffff;
        }
    }
    !(sum as u16)
}

impl Datagram {
    /// As [`super::frames::FlowFrame::asked`].
    pub fn asked(from: IpAddr, to: IpAddr, body: Body) -> Self {
        Self {
            receiver: WAN_MAC,
            sender: ROUTER_MAC,
            tags: Vec::new(),
            from,
            to,
            hops: 57,
            class: 0xb9,
            mark: 0xbeef,
            dont_fragment: true,
            options: Vec::new(),
            extensions: Vec::new(),
            body,
        }
    }

    /// From a client to the service, as [`super::frames::FlowFrame::to_service`].
    pub fn to_service(side: &Side, transport: Transport) -> Self {
        let ports = [side.client().port(), side.service().port()];
        Self::asked(side.client, side.service, body(transport, ports))
    }

    /// From a NAT backend to the client.
    pub fn reply(side: &Side, transport: Transport) -> Self {
        let ports = [side.backend().port(), side.client().port()];
        let link = Self::asked(side.backend, side.client, body(transport, ports));
        Self { receiver: LAN_MAC, sender: BACKEND_MAC, ..link }
    }

    pub fn with_options(self, options: &[u8]) -> Self {
        Self { options: options.to_vec(), ..self }
    }

    pub fn with_extensions(self, extensions: &[Extension]) -> Self {
        Self { extensions: extensions.to_vec(), ..self }
    }

    pub fn with_payload(mut self, bytes: &[u8]) -> Self {
        match &mut self.body {
            Body::Tcp { payload, .. } | Body::Udp { payload, .. } | Body::Icmp { payload, .. } => {
                *payload = bytes.to_vec()
            }
            Body::Other { .. } => panic!("no header that ends before a payload"),
        }
        self
    }

    /// The same as a backend gets it by `interface`: other MAC addresses.
    pub fn delivered(&self, interface: u32) -> Self {
        Self { receiver: BACKEND_MAC, sender: mac_of(interface), ..self.clone() }
    }

    /// The same as a NAT backend at `to` gets it, a hop later; port 0: the port stays.
    pub fn translated(&self, to: SocketAddr, interface: u32) -> Self {
        Self { hops: self.hops - 1, ..self.delivered(interface) }.with_destination(to)
    }

    /// A reply as the client gets it from the service at `from`, a hop later; port 0: the port stays.
    pub fn restored(&self, from: SocketAddr, interface: u32) -> Self {
        let sent = Self { receiver: ROUTER_MAC, sender: mac_of(interface), hops: self.hops - 1, ..self.clone() };
        sent.with_source(from)
    }

    /// The same from another endpoint; port 0: the port stays.
    pub fn with_source(mut self, from: SocketAddr) -> Self {
        self.from = from.ip();
        self.set_port(0, from.port());
        self
    }

    /// The same to another endpoint; port 0: the port stays.
    pub fn with_destination(mut self, to: SocketAddr) -> Self {
        self.to = to.ip();
        self.set_port(1, to.port());
        self
    }

    /// What `from` tells the sender of `about`, of which it repeats at most this many bytes from the IP header on.
    pub fn error(from: IpAddr, about: &Self, kind: u8, code: u8, repeated: usize) -> Self {
        let mut payload = about.packet();
        payload.truncate(repeated);
        Self::asked(from, about.from, Body::Icmp { kind, code, rest: [0, 0, 0x12, 0x34], payload })
    }

    fn set_port(&mut self, end: usize, port: u16) {
        if let Body::Tcp { ports, .. } | Body::Udp { ports, .. } = &mut self.body
            && port != 0
        {
            ports[end] = port;
        }
    }

    /// From the IP header on.
    pub fn packet(&self) -> Vec<u8> {
        let bytes = self.body.bytes(self.from, self.to);
        if self.from.is_ipv4() { self.packet4(&bytes, 0, false) } else { self.packet6(&bytes, &self.extensions) }
    }

    fn packet4(&self, payload: &[u8], offset: usize, more: bool) -> Vec<u8> {
        assert!(self.extensions.is_empty() && self.options.len().is_multiple_of(4) && self.options.len() <= 40);
        let header = 20 + self.options.len();
        let mut packet = vec![0x40 | (header / 4) as u8, self.class];
        packet.extend(((header + payload.len()) as u16).to_be_bytes());
        packet.extend(self.mark.to_be_bytes());
        let flags = u16::from(self.dont_fragment) << 14 | u16::from(more) << 13;
        packet.extend((flags | (offset / 8) as u16).to_be_bytes());
        packet.extend([self.hops, self.body.protocol(true), 0, 0]);
        packet.extend(octets(self.from));
        packet.extend(octets(self.to));
        packet.extend(&self.options);
        let checksum = checksum(&packet);
        packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        packet.extend(payload);
        packet
    }

    fn packet6(&self, payload: &[u8], extensions: &[Extension]) -> Vec<u8> {
        assert!(self.options.is_empty());
        let mut numbers: Vec<u8> = extensions.iter().map(|extension| extension.number).collect();
        numbers.push(self.body.protocol(false));
        let mut chain = Vec::new();
        for (extension, next) in extensions.iter().zip(&numbers[1..]) {
            assert!((1 + extension.rest.len()).is_multiple_of(8));
            chain.push(*next);
            chain.extend(&extension.rest);
        }
        let mut packet = (0x6000_0000 | u32::from(self.class) << 20 | u32::from(self.mark)).to_be_bytes().to_vec();
        packet.extend(((chain.len() + payload.len()) as u16).to_be_bytes());
        packet.extend([numbers[0], self.hops]);
        packet.extend(octets(self.from));
        packet.extend(octets(self.to));
        packet.extend(chain);
        packet.extend(payload);
        packet
    }

    /// The frame.
    pub fn bytes(&self) -> Vec<u8> {
        self.frame(&self.packet())
    }

    /// A frame with the same link and tags around a packet of the same family.
    pub fn frame(&self, packet: &[u8]) -> Vec<u8> {
        let ethertype = if self.from.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        [&self.receiver[..], &self.sender, self.tags.as_flattened(), &ethertype, packet].concat()
    }

    /// The frames of its fragments: the payload is cut at these bytes, multiples of 8. In IPv6 the extension headers come with each.
    pub fn fragments(&self, identification: u32, cuts: &[usize]) -> Vec<Vec<u8>> {
        let payload = self.body.bytes(self.from, self.to);
        let starts = [&[0], cuts].concat();
        let ends = [cuts, &[payload.len()]].concat();
        let pieces = starts.iter().zip(&ends).map(|(start, end)| {
            assert!(start.is_multiple_of(8) && start <= end);
            let (piece, more) = (&payload[*start..*end], *end < payload.len());
            self.frame(&if self.from.is_ipv4() {
                Self { mark: identification as u16, dont_fragment: false, ..self.clone() }.packet4(piece, *start, more)
            } else {
                let fragment = Extension::fragment(identification, *start, more);
                self.packet6(piece, &[&self.extensions[..], &[fragment]].concat())
            })
        });
        pieces.collect()
    }
}

fn body(transport: Transport, ports: [u16; 2]) -> Body {
    let payload = b"an odd number of bytes: 27!";
    match transport {
        Transport::Tcp => Body::tcp(ports, payload),
        Transport::Udp => Body::udp(ports, payload),
        Transport::UdpWithoutChecksum => Body::Udp { ports, with_checksum: false, payload: payload.to_vec() },
    }
}
