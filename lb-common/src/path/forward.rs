//! Sends a packet to its backend, and a backend's reply back to the client.

use super::{
    backend::backend,
    fragment,
    nat::{Change, rewrite},
    parse::{Kind, Packet},
    too_long, tunnel,
};
use crate::{
    frame::Frame,
    tables::{ANY_PORT, Backend, Endpoint, NAT, RETURNS, Route, Settings, TUNNEL4, TUNNEL6, Tables},
    verdict::{Verdict, Why},
    wire::ethernet::Addresses,
};

/// Sends a packet to a backend; `hash` varies the outer source of a tunnel.
#[inline(always)]
pub fn forward<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    id: u32,
    backend: &Backend,
    packet: &Packet,
    hash: u32,
) -> Result<Verdict, Why> {
    if packet.length > backend.mtu {
        return too_long::answer(frame, packet, backend.mtu);
    }
    let bytes = frame.len() as u64;
    let why = match backend.flags & (NAT | TUNNEL4 | TUNNEL6) {
        0 => {
            next_hop(frame, backend.ethernet())?;
            Why::ForwardedDsr
        }
        NAT => {
            rewrite(frame, packet, &Change::to_backend(backend))?;
            next_hop(frame, backend.ethernet())?;
            Why::ForwardedNat
        }
        _ => {
            tunnel::wrap(frame, packet, backend, hash)?;
            Why::ForwardedTunnel
        }
    };
    tables.forwarded(id, bytes);
    let why = match packet.kind {
        Kind::Flow => why,
        Kind::Icmp => Why::ErrorForwarded,
        Kind::Rest => Why::FragmentForwarded,
    };
    Ok(leave(frame, backend.interface, why))
}

/// Sends a packet to no service: a NAT backend's reply, restored, or anything else, which passes.
#[inline(always)]
pub fn come_back<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    settings: &Settings,
    packet: &Packet,
) -> Result<Verdict, Why> {
    let (id, backend) = returning(tables, settings, &packet.from).ok_or(Why::NoService)?;
    let verdict = restore(frame, tables, backend, packet)?;
    fragment::remember(tables, packet, id, true);
    Ok(verdict)
}

/// The NAT backend at this endpoint. No table of connections is needed, since one backend endpoint belongs to one service.
#[inline(always)]
pub fn returning<'t, T: Tables>(tables: &'t T, settings: &Settings, own: &Endpoint) -> Option<(u32, &'t Backend)> {
    if settings.features & RETURNS == 0 {
        return None;
    }
    let id = match tables.returning(own) {
        None if settings.features & ANY_PORT != 0 => tables.returning(&own.without_port())?,
        id => id?,
    };
    let found = backend(tables, id).ok()?;
    // An element of a hash map may be reused while it is read: what it leads to is compared.
    let same = found.own == *own || found.own == own.without_port();
    same.then_some((id, found))
}

/// Restores the service's address on what comes from a NAT backend, and sends it to the client.
///
/// Whether the packet is for a client or for this machine (the answer to a probe) is asked of the routing table before anything is
/// changed.
#[inline(always)]
pub fn restore<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    backend: &Backend,
    packet: &Packet,
) -> Result<Verdict, Why> {
    let route = match tables.route(frame.interface(), &backend.service, &packet.to, packet.length) {
        Route::NotForwarded => return Err(Why::ReturnNotForwarded),
        // What may be fragmented, the kernel fragments.
        Route::TooLong { mtu } if too_long::may_not_be_fragmented(frame, packet) => {
            return too_long::answer(frame, packet, mtu);
        }
        route => route,
    };
    let hops = u8::from(matches!(route, Route::Via { .. }));
    rewrite(frame, packet, &Change::from_backend(backend, packet, hops))?;
    let why = if packet.kind == Kind::Icmp { Why::ErrorReturned } else { Why::Returned };
    match route {
        Route::Via { interface, ethernet } => {
            next_hop(frame, ethernet)?;
            Ok(leave(frame, interface, why))
        }
        _ => Ok(Verdict::Pass(Why::ReturnedByStack)),
    }
}

/// Puts the next hop's addresses on a frame.
#[inline(always)]
fn next_hop<F: Frame>(frame: &mut F, ethernet: [u64; 2]) -> Result<(), Why> {
    frame.head_mut::<Addresses>().ok_or(Why::Truncated)?.set(ethernet);
    Ok(())
}

#[inline(always)]
fn leave<F: Frame>(frame: &F, interface: u32, why: Why) -> Verdict {
    if frame.interface() == interface { Verdict::Transmit(why) } else { Verdict::Redirect(why, interface) }
}
