//! Rewrites one end of a packet with its checksums.

use super::{
    error,
    parse::{Kind, Packet},
};
use crate::{
    checksum,
    frame::Frame,
    tables::{Backend, Endpoint, FAMILY_4},
    verdict::Why,
    wire::{
        ipv4::{Ipv4, Network4},
        ipv6::{Ipv6, Network6},
        transport::{Ports, TCP, Tcp, TcpFrame4, TcpFrame6, Udp, UdpFrame4, UdpFrame6},
    },
};

/// Which end of a packet is rewritten.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Where it comes from.
    Source,
    /// Where it goes to.
    Destination,
}

/// What rewriting one end of a packet takes.
#[derive(Clone, Copy)]
pub struct Change<'e> {
    /// Which end.
    pub end: End,
    /// What is written there; port 0: the port stays.
    pub to: &'e Endpoint,
    /// What a change from the other side's address to this one adds to a checksum.
    pub address_difference: u16,
    /// What a change of address and port adds.
    pub endpoint_difference: u16,
    /// What the change of the IP header's address adds; another than `address_difference` for an error that a router sent.
    pub outer_difference: u16,
    /// Hops to take: one where the path forwards (RFC 1812 section 5.3.1), none where the kernel will.
    hops: u8,
}

impl<'e> Change<'e> {
    /// From the service to the backend.
    #[inline(always)]
    pub const fn to_backend(backend: &'e Backend) -> Self {
        Self {
            end: End::Destination,
            to: &backend.own,
            address_difference: backend.address_difference,
            endpoint_difference: backend.endpoint_difference,
            outer_difference: backend.address_difference,
            hops: 1,
        }
    }

    /// From the backend, or from a router behind which it is, to the service.
    #[inline(always)]
    pub const fn from_backend(backend: &'e Backend, packet: &Packet, hops: u8) -> Self {
        let address_difference = checksum::opposite(backend.address_difference);
        Self {
            end: End::Source,
            to: &backend.service,
            address_difference,
            endpoint_difference: checksum::opposite(backend.endpoint_difference),
            outer_difference: match packet.kind {
                Kind::Icmp => checksum::difference(packet.from.address_sum(), backend.service.address_sum()),
                _ => address_difference,
            },
            hops,
        }
    }

    /// The same for a packet of the other direction, as an ICMP error repeats it.
    #[inline(always)]
    pub const fn other_end(&self) -> Self {
        let end = match self.end {
            End::Source => End::Destination,
            End::Destination => End::Source,
        };
        Self { end, ..*self }
    }

    #[inline(always)]
    fn ipv4(&self, ip: &mut Ipv4) -> Result<(), Why> {
        if ip.time_to_live <= self.hops {
            return Err(Why::HopsExceeded);
        }
        ip.time_to_live -= self.hops;
        // The hop count is the first byte of its 16-bit word, which in memory order is the low one.
        let hops = checksum::difference(u64::from(self.hops), 0);
        ip.checksum = checksum::update(ip.checksum, checksum::fold(u64::from(hops) + u64::from(self.outer_difference)));
        let [address, _] = self.to.address;
        match self.end {
            End::Source => ip.source.set(address as u32),
            End::Destination => ip.destination.set(address as u32),
        }
        Ok(())
    }

    #[inline(always)]
    fn ipv6(&self, ip: &mut Ipv6) -> Result<(), Why> {
        if ip.hop_limit <= self.hops {
            return Err(Why::HopsExceeded);
        }
        ip.hop_limit -= self.hops;
        match self.end {
            End::Source => ip.source.set(self.to.address),
            End::Destination => ip.destination.set(self.to.address),
        }
        Ok(())
    }

    /// Rewrites the port.
    #[inline(always)]
    pub fn ports(&self, ports: &mut Ports) {
        let port = self.to.port_bytes();
        if port == [0, 0] {
            return;
        }
        match self.end {
            End::Source => ports.source = port,
            End::Destination => ports.destination = port,
        }
    }

    #[inline(always)]
    fn tcp(&self, tcp: &mut Tcp) {
        self.ports(&mut tcp.ports);
        tcp.checksum = checksum::update(tcp.checksum, self.endpoint_difference);
    }

    #[inline(always)]
    fn udp(&self, udp: &mut Udp) {
        self.ports(&mut udp.ports);
        if udp.checksum != [0, 0] {
            udp.checksum = checksum::update_udp(udp.checksum, self.endpoint_difference);
        }
    }
}

/// Rewrites one end of a packet with its checksums. An error leaves the packet as it was.
#[inline(always)]
pub fn rewrite<F: Frame>(frame: &mut F, packet: &Packet, change: &Change) -> Result<(), Why> {
    if !packet.plain || packet.kind != Kind::Flow {
        return rewrite_rare(frame, packet, change);
    }
    match (packet.family == FAMILY_4, packet.protocol == TCP) {
        (true, true) => {
            let TcpFrame4 { ip, transport, .. } = frame.head_mut().ok_or(Why::Truncated)?;
            change.ipv4(ip)?;
            change.tcp(transport);
        }
        (true, false) => {
            let UdpFrame4 { ip, transport, .. } = frame.head_mut().ok_or(Why::Truncated)?;
            change.ipv4(ip)?;
            change.udp(transport);
        }
        (false, true) => {
            let TcpFrame6 { ip, transport, .. } = frame.head_mut().ok_or(Why::Truncated)?;
            change.ipv6(ip)?;
            change.tcp(transport);
        }
        (false, false) => {
            let UdpFrame6 { ip, transport, .. } = frame.head_mut().ok_or(Why::Truncated)?;
            change.ipv6(ip)?;
            change.udp(transport);
        }
    }
    Ok(())
}

/// The same for a packet with options, extension headers or fragments, and for ICMP errors.
#[inline(always)]
fn rewrite_rare<F: Frame>(frame: &mut F, packet: &Packet, change: &Change) -> Result<(), Why> {
    if packet.family == FAMILY_4 {
        change.ipv4(&mut frame.head_mut::<Network4>().ok_or(Why::Truncated)?.ip)?;
    } else {
        change.ipv6(&mut frame.head_mut::<Network6>().ok_or(Why::Truncated)?.ip)?;
    }
    // All of it has been seen to be there.
    match (packet.kind, packet.protocol) {
        (Kind::Rest, _) => (),
        (Kind::Icmp, _) => error::rewrite(frame, packet, change)?,
        (Kind::Flow, TCP) => change.tcp(frame.view_mut(packet.payload.into()).ok_or(Why::Truncated)?),
        (Kind::Flow, _) => change.udp(frame.view_mut(packet.payload.into()).ok_or(Why::Truncated)?),
    }
    Ok(())
}
