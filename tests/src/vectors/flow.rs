//! Whose packet a frame is, as a foreign reader of packets sees it.

use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use std::net::{IpAddr, SocketAddr};

/// A client's end, the balancer's, and the protocol between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    /// Where its packets come from.
    pub from: SocketAddr,
    /// Where they go to.
    pub to: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: &'static str,
}

impl Flow {
    /// The flow of a packet, or that which an ICMP error is about, if it is one's.
    pub fn of(frame: &[u8]) -> Option<Self> {
        let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
        let quote = match &packet.transport {
            Some(TransportSlice::Icmpv4(icmp)) => icmp.payload(),
            Some(TransportSlice::Icmpv6(icmp)) => icmp.payload(),
            _ => return Self::of_packet(&packet),
        };
        let Self { from, to, protocol } = Self::of_packet(&LaxSlicedPacket::from_ip(quote).ok()?)?;
        Some(Self { from: to, to: from, protocol })
    }

    fn of_packet(packet: &LaxSlicedPacket<'_>) -> Option<Self> {
        let (from, to): (IpAddr, IpAddr) = match packet.net.as_ref()? {
            LaxNetSlice::Ipv4(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            LaxNetSlice::Ipv6(ip) => (ip.header().source_addr().into(), ip.header().destination_addr().into()),
            LaxNetSlice::Arp(_) => return None,
        };
        let (source, destination, protocol) = match packet.transport.as_ref()? {
            TransportSlice::Tcp(tcp) => (tcp.source_port(), tcp.destination_port(), "tcp"),
            TransportSlice::Udp(udp) => (udp.source_port(), udp.destination_port(), "udp"),
            _ => return None,
        };
        Some(Self { from: SocketAddr::new(from, source), to: SocketAddr::new(to, destination), protocol })
    }
}
