//! Frames built by etherparse, from their meaning alone, and tables to try them with.

use etherparse::{
    EtherType, IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header, LinkHeader, PacketBuilder, VlanId,
};
use lb_common::{
    decap::{
        decapsulate,
        host::HostTables,
        tables::{Settings, Source, endpoint},
        verdict::{Verdict, Why},
    },
    host::Buffer,
};
use std::{collections::BTreeMap, net::IpAddr};

pub const OUTER_CLASS: u8 = 0xb8;
pub const INNER_CLASS: u8 = 0x28;

/// What the four mixes are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Four,
    Six,
}
pub use Family::{Four, Six};

/// Outer and inner families, and the reason of what comes out.
pub const MIXES: [(Family, Family, Why); 4] = [
    (Four, Four, Why::Ipv4InIpv4),
    (Four, Six, Why::Ipv6InIpv4),
    (Six, Four, Why::Ipv4InIpv6),
    (Six, Six, Why::Ipv6InIpv6),
];

impl Family {
    pub fn header(self) -> usize {
        if self == Four { 20 } else { 40 }
    }

    fn pick(self, four: &str, six: &str) -> IpAddr {
        if self == Four { four } else { six }.parse().unwrap()
    }

    /// Where the balancer sends from.
    pub fn balancer(self) -> IpAddr {
        self.pick("10.0.1.1", "fd00:1::1")
    }

    /// The backend's own address.
    pub fn backend(self) -> IpAddr {
        self.pick("10.0.3.21", "fd00:3::21")
    }

    pub fn client(self) -> IpAddr {
        self.pick("198.51.100.7", "2001:db8:c::7")
    }

    pub fn service(self) -> IpAddr {
        self.pick("192.0.2.10", "2001:db8::10")
    }

    pub fn ethertype(self) -> [u8; 2] {
        if self == Four { [0x08, 0x00] } else { [0x86, 0xdd] }
    }
}

/// A packet in a tunnel.
#[derive(Clone, Debug)]
pub struct Tunneled {
    pub outer: Family,
    pub inner: Family,
    /// 0 to 2.
    pub tags: usize,
    pub to: IpAddr,
    pub from: IpAddr,
    /// Congestion notifications.
    pub marks: [u8; 2],
    pub payload: Vec<u8>,
}

impl Tunneled {
    pub fn new(outer: Family, inner: Family) -> Self {
        let payload = b"an odd number of bytes: 27!".to_vec();
        Self { outer, inner, tags: 0, to: outer.backend(), from: outer.balancer(), marks: [0, 0], payload }
    }

    pub fn tagged(self, tags: usize) -> Self {
        Self { tags, ..self }
    }

    pub fn marked(self, outer: u8, inner: u8) -> Self {
        Self { marks: [outer, inner], ..self }
    }

    /// The packet inside.
    pub fn packet(&self) -> Vec<u8> {
        self.packet_marked(self.marks[1])
    }

    fn packet_marked(&self, mark: u8) -> Vec<u8> {
        let header = header(self.inner.client(), self.inner.service(), INNER_CLASS | mark);
        let mut packet = Vec::new();
        let builder = PacketBuilder::ip(header).tcp(40_000, 443, 0x1234_5678, 0xfaf0).psh().ack(7);
        builder.write(&mut packet, &self.payload).unwrap();
        packet
    }

    /// Offset of the outer header.
    pub fn link(&self) -> usize {
        14 + 4 * self.tags
    }

    /// Offset of the inner header.
    pub fn start(&self) -> usize {
        self.link() + self.outer.header()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.around(&self.packet())
    }

    /// The frame around another packet than the one that it has.
    pub fn around(&self, packet: &[u8]) -> Vec<u8> {
        self.with_protocol(if self.inner == Four { 4 } else { 41 }, packet)
    }

    /// The frame with another outer protocol or next header.
    pub fn with_protocol(&self, protocol: u8, packet: &[u8]) -> Vec<u8> {
        let header = header(self.from, self.to, OUTER_CLASS | self.marks[0]);
        let mut frame = Vec::new();
        let link = PacketBuilder::ethernet2([2, 1, 1, 1, 1, 1], [2, 2, 2, 2, 2, 2]);
        let (outer_tag, inner_tag) = (VlanId::try_new(100).unwrap(), VlanId::try_new(3_077).unwrap());
        let builder = match self.tags {
            0 => link.ip(header),
            1 => link.single_vlan(inner_tag).ip(header),
            _ => link.double_vlan(outer_tag, inner_tag).ip(header),
        };
        // The builder wants to know more of extension headers than is known here.
        builder.write(&mut frame, IpNumber::ARIS, packet).unwrap();
        if self.outer == Four {
            frame[self.link() + 9] = protocol;
            repair(&mut frame, self.link());
        } else {
            frame[self.link() + 6] = protocol;
        }
        frame
    }

    /// What is left when the outer header is gone, with this congestion notification.
    pub fn taken_out(&self, mark: u8) -> Vec<u8> {
        let mut link = self.bytes()[..self.link()].to_vec();
        link[self.link() - 2..].copy_from_slice(&self.inner.ethertype());
        [link, self.packet_marked(mark)].concat()
    }

    /// The frame with an edited IPv4 outer header, whose checksum is right.
    pub fn edited(&self, edit: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut frame = self.bytes();
        edit(&mut frame);
        repair(&mut frame, self.link());
        frame
    }
}

pub fn header(from: IpAddr, to: IpAddr, class: u8) -> IpHeaders {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = Ipv4Header::new(0, 57, IpNumber::UDP, from.octets(), to.octets()).unwrap();
            header.identification = 0xbeef;
            header.dscp = (class >> 2).try_into().unwrap();
            header.ecn = (class & 3).try_into().unwrap();
            IpHeaders::Ipv4(header, Default::default())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header {
                traffic_class: class,
                flow_label: Ipv6FlowLabel::try_new(0xbeef).unwrap(),
                hop_limit: 57,
                source: from.octets(),
                destination: to.octets(),
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(header, Default::default())
        }
        _ => panic!("no packet is of both families: from {from} to {to}"),
    }
}

/// Makes the checksum of the IPv4 header without options at `start` right, by etherparse.
pub fn repair(frame: &mut [u8], start: usize) {
    let header = Ipv4Header::from_slice(&frame[start..]).unwrap().0;
    frame[start + 10..start + 12].copy_from_slice(&header.calc_header_checksum().to_be_bytes());
}

/// A frame that is neither.
pub fn other(ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let link = etherparse::Ethernet2Header {
        source: [2, 1, 1, 1, 1, 1],
        destination: [2, 2, 2, 2, 2, 2],
        ether_type: EtherType(ether_type),
    };
    let mut frame = Vec::new();
    LinkHeader::Ethernet2(link).write(&mut frame).unwrap();
    [&frame, payload].concat()
}

/// Tables of a backend that takes packets from these sources; from any, if there are none.
pub fn tables(sources: &[(&str, u32)]) -> HostTables {
    let sources: Vec<_> = sources.iter().map(|(prefix, bits)| Source::new(prefix.parse().unwrap(), *bits)).collect();
    let mut tables = HostTables::default();
    tables.settings = Settings::new(&sources);
    assert!(tables.settings.is_some(), "{} sources are too many", sources.len());
    tables.addresses.extend([Four, Six].map(|family| endpoint(family.backend())));
    tables
}

/// What came of a frame, all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    pub frame: Vec<u8>,
    pub counts: BTreeMap<Why, u64>,
}

impl Outcome {
    pub fn expected(verdict: Verdict, frame: Vec<u8>) -> Self {
        Self { verdict, frame, counts: BTreeMap::from([(verdict.why(), 1)]) }
    }
}

/// The decapsulator needs no room: it only takes away.
pub fn outcome(frame: &[u8], tables: &HostTables) -> Outcome {
    let mut buffer = Buffer::new(frame, 2, 0, 0);
    let tables = tables.clone();
    let verdict = decapsulate(&mut buffer, &tables);
    Outcome { verdict, frame: buffer.bytes().to_vec(), counts: tables.counts() }
}
