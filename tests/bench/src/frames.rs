//! The frames that cases begin with, made by a foreign packet builder. None is shorter than Ethernet allows.

use anyhow::{Result, bail};
use etherparse::{
    EtherType, Ethernet2Header, Icmpv4Type, IpFragOffset, IpNumber, Ipv4Header, PacketBuilder, PacketBuilderStep,
    err::packet::BuildWriteError, icmpv4::DestUnreachableHeader,
};
use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RecordType},
};
use std::net::{IpAddr, Ipv4Addr};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PEER: [u8; 6] = [2, 0, 0, 0, 0, 0x10];
/// The shortest frame, less the check sequence that a network card takes off.
const SHORTEST: usize = 64;

/// Where a packet comes from and goes to.
#[derive(Clone, Copy)]
pub struct Ends<'a> {
    pub from: &'a str,
    pub from_port: u16,
    pub to: &'a str,
    pub to_port: u16,
}

impl Ends<'_> {
    fn network(&self) -> Result<PacketBuilderStep<etherparse::IpHeaders>> {
        let builder = PacketBuilder::ethernet2(PEER, OURS);
        Ok(match (self.from.parse()?, self.to.parse()?) {
            (IpAddr::V4(from), IpAddr::V4(to)) => builder.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => builder.ipv6(from.octets(), to.octets(), 64),
            (from, to) => bail!("{from} and {to} are of different families"),
        })
    }

    /// A TCP packet in the midst of a connection.
    pub fn tcp(&self, payload: usize) -> Result<Vec<u8>> {
        let builder = self.network()?.tcp(self.from_port, self.to_port, 1_000, 64_240).ack(1);
        written(|frame| builder.write(frame, &vec![0x5a; payload]))
    }

    /// The packet that begins a TCP connection.
    pub fn syn(&self) -> Result<Vec<u8>> {
        let builder = self.network()?.tcp(self.from_port, self.to_port, 1_000, 64_240).syn();
        written(|frame| builder.write(frame, &[]))
    }

    /// A UDP packet.
    pub fn udp(&self, payload: &[u8]) -> Result<Vec<u8>> {
        let builder = self.network()?.udp(self.from_port, self.to_port);
        written(|frame| builder.write(frame, payload))
    }

    /// A DNS question for an IPv4 address.
    pub fn question(&self, name: &str) -> Result<Vec<u8>> {
        let mut message = Message::query();
        message.metadata.id = 7;
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name)?, RecordType::A));
        self.udp(&message.to_vec()?)
    }

    /// An echo request.
    pub fn echo(&self) -> Result<Vec<u8>> {
        let builder = self.network()?;
        if self.from.contains(':') {
            let builder = builder.icmpv6_echo_request(1, 1);
            written(|frame| builder.write(frame, &[0x5a; 56]))
        } else {
            let builder = builder.icmpv4_echo_request(1, 1);
            written(|frame| builder.write(frame, &[0x5a; 56]))
        }
    }

    /// A fragment of an IPv4 datagram of UDP: the first one, or one without ports.
    pub fn fragment(&self, first: bool) -> Result<Vec<u8>> {
        let (from, to): (Ipv4Addr, Ipv4Addr) = (self.from.parse()?, self.to.parse()?);
        let mut payload = [&self.from_port.to_be_bytes()[..], &self.to_port.to_be_bytes(), &[8, 0, 0, 0]].concat();
        payload.resize(512, 0x5a);
        let mut header = Ipv4Header::new(payload.len().try_into()?, 64, IpNumber::UDP, from.octets(), to.octets())?;
        header.identification = 7;
        header.more_fragments = true;
        header.fragment_offset = IpFragOffset::try_new(if first { 0 } else { 64 })?;
        header.header_checksum = header.calc_header_checksum();
        Ok(ethernet(EtherType::IPV4, &[&header.to_bytes()[..], &payload].concat()))
    }

    /// What a router says that can't forward a packet of the other direction.
    pub fn unreachable(&self, router: &str) -> Result<Vec<u8>> {
        let back = Ends { from: self.to, from_port: self.to_port, to: self.from, to_port: self.from_port };
        let packet = back.tcp(0)?;
        let quote = packet.get(Ethernet2Header::LEN..Ethernet2Header::LEN + 28).unwrap_or_default();
        let kind = Icmpv4Type::DestinationUnreachable(DestUnreachableHeader::Host);
        let builder = Ends { from: router, ..*self }.network()?.icmpv4(kind);
        written(|frame| builder.write(frame, quote))
    }
}

/// The frame with a VLAN tag.
pub fn tagged(frame: &[u8], vlan: u16) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    [addresses, &[0x81, 0], &vlan.to_be_bytes(), rest].concat()
}

fn ethernet(ether_type: EtherType, payload: &[u8]) -> Vec<u8> {
    let header = Ethernet2Header { source: PEER, destination: OURS, ether_type };
    [&header.to_bytes(), payload].concat()
}

fn written(write: impl FnOnce(&mut Vec<u8>) -> Result<(), BuildWriteError>) -> Result<Vec<u8>> {
    let mut frame = Vec::new();
    write(&mut frame)?;
    let length = frame.len().max(SHORTEST);
    frame.resize(length, 0);
    Ok(frame)
}
