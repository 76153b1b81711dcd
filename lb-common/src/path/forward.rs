//! Sends a packet to its backend, and a backend's reply back to the client.

use super::{backend::backend, parse::Flow};
use crate::{
    checksum,
    frame::Frame,
    tables::{Backend, Endpoint, FAMILY_4, NAT, Route, Settings, Tables},
    verdict::{Verdict, Why},
    wire::{
        ethernet::Addresses,
        ipv4::Ipv4,
        ipv6::Ipv6,
        transport::{Ports, TCP, Tcp, TcpFrame4, TcpFrame6, Udp, UdpFrame4, UdpFrame6},
    },
};

/// Which end of a packet is rewritten.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Source,
    Destination,
}

/// Sends a packet to a backend.
#[inline(always)]
pub fn forward<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    id: u32,
    backend: &Backend,
    flow: &Flow,
) -> Result<Verdict, Why> {
    let why = if backend.flags & NAT != 0 {
        let change = Change {
            end: End::Destination,
            to: &backend.own,
            address_difference: backend.address_difference,
            endpoint_difference: backend.endpoint_difference,
            hops: 1,
        };
        rewrite(frame, flow, &change)?;
        Why::ForwardedNat
    } else {
        Why::ForwardedDsr
    };
    tables.forwarded(id, frame.len() as u64);
    leave(frame, backend.ethernet, backend.interface, why)
}

/// Sends a packet to no service: a NAT backend's reply, restored, or anything else, which passes.
///
/// No table of connections is needed, since one backend endpoint belongs to one service. Whether the packet is for a client or
/// for this machine (the answer to a probe) is asked of the routing table before anything is changed.
#[inline(always)]
pub fn come_back<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    settings: &Settings,
    flow: &Flow,
) -> Result<Verdict, Why> {
    if settings.returns == 0 {
        return Err(Why::NoService);
    }
    let id = tables.returning(&flow.from).ok_or(Why::NoService)?;
    let backend = backend(tables, id)?;
    // An element of a hash map may be reused while it is read: what it leads to is compared.
    if backend.own != flow.from {
        return Err(Why::NoService);
    }
    let route = tables.route(frame.interface(), &backend.service, &flow.to, flow.length);
    if route == Route::NotForwarded {
        return Err(Why::ReturnNotForwarded);
    }
    let change = Change {
        end: End::Source,
        to: &backend.service,
        address_difference: checksum::opposite(backend.address_difference),
        endpoint_difference: checksum::opposite(backend.endpoint_difference),
        hops: u8::from(route != Route::Stack),
    };
    rewrite(frame, flow, &change)?;
    match route {
        Route::Via { interface, ethernet } => leave(frame, ethernet, interface, Why::Returned),
        _ => Ok(Verdict::Pass(Why::ReturnedByStack)),
    }
}

/// Puts the next hop's addresses on a frame.
#[inline(always)]
fn leave<F: Frame>(frame: &mut F, ethernet: [u64; 2], interface: u32, why: Why) -> Result<Verdict, Why> {
    let same = frame.interface() == interface;
    frame.head_mut::<Addresses>().ok_or(Why::Truncated)?.set(ethernet);
    Ok(if same { Verdict::Transmit(why) } else { Verdict::Redirect(why, interface) })
}

/// What rewriting one end of a packet takes.
struct Change<'e> {
    end: End,
    to: &'e Endpoint,
    address_difference: u16,
    endpoint_difference: u16,
    /// Hops to take: one where the path forwards (RFC 1812 section 5.3.1), none where the kernel will.
    hops: u8,
}

/// Rewrites one end of a packet with its checksums. An error leaves the packet as it was.
#[inline(always)]
fn rewrite<F: Frame>(frame: &mut F, flow: &Flow, change: &Change) -> Result<(), Why> {
    match (flow.family == FAMILY_4, flow.protocol == TCP) {
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

impl Change<'_> {
    #[inline(always)]
    fn ipv4(&self, ip: &mut Ipv4) -> Result<(), Why> {
        if ip.time_to_live <= self.hops {
            return Err(Why::HopsExceeded);
        }
        ip.time_to_live -= self.hops;
        // The hop count is the first byte of its 16-bit word, which in memory order is the low one.
        let hops = checksum::difference(u64::from(self.hops), 0);
        ip.checksum =
            checksum::update(ip.checksum, checksum::fold(u64::from(hops) + u64::from(self.address_difference)));
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

    #[inline(always)]
    fn ports(&self, ports: &mut Ports) {
        match self.end {
            End::Source => ports.source = self.to.port_bytes(),
            End::Destination => ports.destination = self.to.port_bytes(),
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
