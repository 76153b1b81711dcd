//! ICMP errors: they go to who sent the packet that they are about, which is told by the part of it that they repeat.

use super::{
    backend::backend,
    forward,
    nat::{Change, End},
    parse::{self, Kind, Packet},
    service, slot, track,
};
use crate::{
    checksum,
    frame::Frame,
    tables::{DNS, FAMILY_4, FlowKey, Tables},
    verdict::{Verdict, Why},
    wire::{
        ethernet::Ethernet,
        icmp::{Icmp, PARAMETER_PROBLEM4, PARAMETER_PROBLEM6, TIME_EXCEEDED4, UNREACHABLE4, UNREACHABLE6},
        ipv4::Ipv4,
        ipv6::Ipv6,
        transport::{Checksum, Ports, TCP, Tcp, Udp},
    },
};

/// Sends an error about a service's packet to the backend that owns the flow, and one about a packet to a NAT backend to the client.
#[inline(always)]
pub fn forward<F: Frame, T: Tables>(frame: &mut F, tables: &T, packet: &Packet) -> Result<Verdict, Why> {
    let settings = tables.settings().ok_or(Why::Inconsistent)?;
    let icmp: &Icmp = frame.view(packet.payload.into()).ok_or(Why::Truncated)?;
    if !is_error(icmp.kind, packet.family) || packet.in_fragments {
        return Err(Why::IcmpNotOurs);
    }
    let about = about(frame, packet).ok_or(Why::IcmpNotOurs)?;
    if about.from.address != packet.to.address {
        return Err(Why::IcmpNotOurs);
    }
    match service::service(tables, settings, &about.from) {
        Some(service) if service.flags & DNS == 0 => {
            let flow = FlowKey::new(&about.to, &about.from, service.id);
            let (slot, hash) = slot::slot(tables, settings, service, &flow)?;
            let id = track::owner(tables, slot, &flow);
            forward::forward(frame, tables, id, backend(tables, id)?, packet, hash)
        }
        _ => {
            let (_, backend) = forward::returning(tables, settings, &about.to).ok_or(Why::IcmpNotOurs)?;
            forward::restore(frame, tables, backend, packet)
        }
    }
}

#[inline(always)]
const fn is_error(kind: u8, family: u8) -> bool {
    if family == FAMILY_4 {
        matches!(kind, UNREACHABLE4 | TIME_EXCEEDED4 | PARAMETER_PROBLEM4)
    } else {
        UNREACHABLE6 <= kind && kind <= PARAMETER_PROBLEM6
    }
}

/// What an error is about, if that is a packet of a flow.
#[inline(always)]
fn about<F: Frame>(frame: &F, error: &Packet) -> Option<Packet> {
    let about = parse::packet(frame, quote(error), error.family).ok()?;
    let end = Ethernet::LEN + usize::from(error.length);
    (about.kind == Kind::Flow && usize::from(about.payload) + Udp::LEN <= end).then_some(about)
}

/// Where the packet that an error repeats starts.
#[inline(always)]
fn quote(error: &Packet) -> usize {
    usize::from(error.payload) + Icmp::LEN
}

/// Rewrites the end of the repeated packet that is the other one's, and the checksums in and around it. Nothing is changed when it
/// fails.
#[inline(always)]
pub fn rewrite<F: Frame>(frame: &mut F, error: &Packet, change: &Change) -> Result<(), Why> {
    let about = about(frame, error).ok_or(Why::IcmpNotOurs)?;
    let payload = usize::from(about.payload);
    let end = Ethernet::LEN + usize::from(error.length);
    let at = payload + if about.protocol == TCP { Tcp::CHECKSUM } else { Udp::CHECKSUM };
    let ports: &mut Ports = frame.view_mut(payload).ok_or(Why::Truncated)?;
    let change = change.other_end();
    change.ports(ports);
    // RFC 792 promises no more of a packet than 8 bytes behind its header: TCP's checksum may be missing.
    let mut counted = false;
    if at + Checksum::LEN <= end
        && let Some(Checksum { field }) = frame.view_mut(at)
        && (*field != [0, 0] || about.protocol == TCP)
    {
        *field = if about.protocol == TCP {
            checksum::update(*field, change.endpoint_difference)
        } else {
            checksum::update_udp(*field, change.endpoint_difference)
        };
        counted = true;
    }
    let [address, _] = change.to.address;
    // What has changed in the message, its own checksum apart: a header's checksum makes up for what it covers.
    let mut difference = if counted { 0 } else { u64::from(change.endpoint_difference) };
    if error.family == FAMILY_4 {
        let ip: &mut Ipv4 = frame.view_mut(quote(error)).ok_or(Why::Truncated)?;
        match change.end {
            End::Source => ip.source.set(address as u32),
            End::Destination => ip.destination.set(address as u32),
        }
        ip.checksum = checksum::update(ip.checksum, change.address_difference);
        difference += u64::from(checksum::opposite(change.address_difference));
    } else {
        let ip: &mut Ipv6 = frame.view_mut(quote(error)).ok_or(Why::Truncated)?;
        match change.end {
            End::Source => ip.source.set(change.to.address),
            End::Destination => ip.destination.set(change.to.address),
        }
        // ICMPv6 counts the addresses of its own packet (RFC 4443 section 2.3).
        difference += u64::from(change.outer_difference);
    }
    let icmp: &mut Icmp = frame.view_mut(error.payload.into()).ok_or(Why::Truncated)?;
    icmp.checksum = checksum::update(icmp.checksum, checksum::fold(difference));
    Ok(())
}
