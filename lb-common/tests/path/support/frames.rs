//! Frames built by etherparse, from their meaning alone.

use super::{BROADCAST, Mac, ROUTER_MAC, Side, WAN_MAC};
use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Icmpv6Type, IpHeaders, IpNumber, Ipv4Header, Ipv6FlowLabel,
    Ipv6Header, PacketBuilder, TcpHeader, TcpOptionElement, icmpv6::NeighborAdvertisementHeader,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
    /// Over IPv4 only: its field is zero (RFC 768).
    UdpWithoutChecksum,
}

impl Transport {
    pub fn number(self) -> u8 {
        if self == Self::Tcp { 6 } else { 17 }
    }
}

/// A frame of TCP or UDP.
#[derive(Clone, Debug)]
pub struct FlowFrame {
    pub receiver: Mac,
    pub sender: Mac,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub hops: u8,
    pub transport: Transport,
    pub payload: Vec<u8>,
    /// IPv4's identification and half of IPv6's flow label: what nobody may touch.
    pub mark: u16,
    /// Differentiated services and congestion notification.
    pub class: u8,
}

impl FlowFrame {
    /// From a client to one of the balancer's addresses, as the router in front sends it.
    pub fn asked(from: SocketAddr, to: SocketAddr, transport: Transport) -> Self {
        Self {
            receiver: WAN_MAC,
            sender: ROUTER_MAC,
            from,
            to,
            hops: 57,
            transport,
            payload: b"an odd number of bytes: 27!".to_vec(),
            mark: 0xbeef,
            class: 0xb9,
        }
    }

    /// From a client to the service.
    pub fn to_service(side: &Side, transport: Transport) -> Self {
        Self::asked(side.client(), side.service(), transport)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let link = PacketBuilder::ethernet2(self.sender, self.receiver);
        let ip = link.ip(ip_header(self.from.ip(), self.to.ip(), self.hops, self.mark, self.class));
        let mut frame = Vec::new();
        if self.transport == Transport::Tcp {
            let mut tcp = TcpHeader::new(self.from.port(), self.to.port(), 0x1234_5678, 0xfaf0);
            (tcp.ack, tcp.psh, tcp.acknowledgment_number) = (true, true, 0x9abc_def0);
            tcp.set_options(&[TcpOptionElement::Timestamp(0x0102_0304, 0x0506_0708)]).unwrap();
            ip.tcp_header(tcp).write(&mut frame, &self.payload).unwrap();
        } else {
            ip.udp(self.from.port(), self.to.port()).write(&mut frame, &self.payload).unwrap();
        }
        if self.transport == Transport::UdpWithoutChecksum {
            assert!(self.from.is_ipv4(), "UDP over IPv6 always has a checksum (RFC 8200 section 8.1)");
            frame[40..42].fill(0);
        }
        frame
    }

    /// The checksum of its transport.
    pub fn checksum(&self) -> u16 {
        let field = match (self.from.is_ipv4(), self.transport) {
            (true, Transport::Tcp) => 34 + 16,
            (false, Transport::Tcp) => 54 + 16,
            (true, _) => 34 + 6,
            (false, _) => 54 + 6,
        };
        let frame = self.bytes();
        u16::from_be_bytes([frame[field], frame[field + 1]])
    }

    /// The same with a last payload word that makes the sum of everything 0xffff, so that the checksum is zero.
    pub fn with_sum_of_ones(mut self) -> Self {
        self.payload = vec![0; 8];
        let word = self.checksum();
        self.payload[6..].copy_from_slice(&word.to_be_bytes());
        self
    }
}

pub fn ip_header(from: IpAddr, to: IpAddr, hops: u8, mark: u16, class: u8) -> IpHeaders {
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            // The builder sets the protocol and the lengths.
            let mut header = Ipv4Header::new(0, hops, IpNumber::UDP, from.octets(), to.octets()).unwrap();
            header.identification = mark;
            header.dscp = (class >> 2).try_into().unwrap();
            header.ecn = (class & 3).try_into().unwrap();
            IpHeaders::Ipv4(header, Default::default())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = Ipv6Header {
                traffic_class: class,
                flow_label: Ipv6FlowLabel::try_new(u32::from(mark)).unwrap(),
                hop_limit: hops,
                source: from.octets(),
                destination: to.octets(),
                ..Ipv6Header::default()
            };
            IpHeaders::Ipv6(header, Default::default())
        }
        _ => panic!("no packet is of both families: from {from} to {to}"),
    }
}

/// A packet to the service of a protocol that is neither TCP nor UDP.
pub fn other(side: &Side, protocol: u8) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(ROUTER_MAC, WAN_MAC).ip(ip_header(side.client, side.service, 57, 1, 0));
    builder.write(&mut frame, IpNumber(protocol), &[0x55; 32]).unwrap();
    frame
}

/// ARP (RFC 826).
#[derive(Clone, Debug)]
pub struct Arp {
    pub receiver: Mac,
    pub sender: Mac,
    pub hardware: u16,
    pub protocol: u16,
    pub operation: u16,
    pub sender_mac: Mac,
    pub sender_address: Ipv4Addr,
    pub target_mac: Mac,
    pub target_address: Ipv4Addr,
}

impl Arp {
    /// Who has `target`? Tell `sender`.
    pub fn request(sender: IpAddr, target: IpAddr) -> Self {
        let (IpAddr::V4(sender_address), IpAddr::V4(target_address)) = (sender, target) else {
            panic!("ARP is IPv4's")
        };
        Self {
            receiver: BROADCAST,
            sender: ROUTER_MAC,
            hardware: 1,
            protocol: 0x0800,
            operation: 1,
            sender_mac: ROUTER_MAC,
            sender_address,
            target_mac: [0; 6],
            target_address,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let packet = ArpPacket::new(
            ArpHardwareId(self.hardware),
            EtherType(self.protocol),
            ArpOperation(self.operation),
            &self.sender_mac,
            &self.sender_address.octets(),
            &self.target_mac,
            &self.target_address.octets(),
        );
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(self.sender, self.receiver).arp(packet.unwrap()).write(&mut frame).unwrap();
        frame
    }
}

/// A message of neighbour discovery (RFC 4861).
#[derive(Clone, Debug)]
pub struct Neighbor {
    pub receiver: Mac,
    pub sender: Mac,
    pub from: Ipv6Addr,
    pub to: Ipv6Addr,
    pub hops: u8,
    pub kind: Icmpv6Type,
    pub target: Ipv6Addr,
    pub options: Vec<u8>,
}

impl Neighbor {
    /// Who has `target`? Sent to its solicited-node group (RFC 4291 section 2.7.1), without options.
    pub fn solicitation(from: IpAddr, target: IpAddr) -> Self {
        let (IpAddr::V6(from), IpAddr::V6(target)) = (from, target) else { panic!("neighbour discovery is IPv6's") };
        let [.., a, b, c] = target.octets();
        let group = u16::from_be_bytes([0xff, a]);
        Self {
            receiver: [0x33, 0x33, 0xff, a, b, c],
            sender: ROUTER_MAC,
            from,
            to: Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, group, u16::from_be_bytes([b, c])),
            hops: 255,
            kind: Icmpv6Type::NeighborSolicitation,
            target,
            options: Vec::new(),
        }
    }

    /// With the option that names the asker's MAC address (RFC 4861 section 4.6.1).
    pub fn with_source_link_layer(mut self) -> Self {
        self.options.extend([1, 1]);
        self.options.extend(self.sender);
        self
    }

    /// What RFC 4861 section 7.2.4 wants for an answer.
    pub fn advertisement(&self, mac: Mac) -> Self {
        let nobody = self.from.is_unspecified();
        let header = NeighborAdvertisementHeader { router: false, solicited: !nobody, r#override: true };
        let mut options = vec![2, 1];
        options.extend(mac);
        Self {
            receiver: if nobody { [0x33, 0x33, 0, 0, 0, 1] } else { self.sender },
            sender: mac,
            from: self.target,
            to: if nobody { Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1) } else { self.from },
            hops: 255,
            kind: Icmpv6Type::NeighborAdvertisement(header),
            target: self.target,
            options,
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let header = ip_header(self.from.into(), self.to.into(), self.hops, 0, 0);
        let payload = [&self.target.octets()[..], &self.options].concat();
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(self.sender, self.receiver).ip(header);
        builder.icmpv6(self.kind).write(&mut frame, &payload).unwrap();
        frame
    }
}

/// The same with zeros behind, as a link pads it.
pub fn padded(mut frame: Vec<u8>, to: usize) -> Vec<u8> {
    frame.resize(to.max(frame.len()), 0);
    frame
}
