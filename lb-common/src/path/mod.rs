//! The way of a packet, top to bottom.

pub mod answer;
mod backend;
mod echo;
mod error;
mod forward;
mod fragment;
mod nat;
mod neighbor;
mod parse;
mod service;
mod slot;
mod too_long;
mod track;
pub mod tunnel;
mod vlan;

use crate::{
    frame::Frame,
    tables::{DNS, FlowKey, Tables},
    verdict::{Verdict, Why},
};
use parse::{Kind, Packet, Parsed};

/// Decides what happens to a frame, rewrites it accordingly, and counts the reason.
///
/// A frame that passes is untouched, but for [`Why::ReturnedByStack`].
pub fn steer<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    plain(frame, tables).unwrap_or_else(|| rare(frame, tables))
}

/// [`steer`] for what nearly every frame is, a packet of TCP or UDP with everything where it mostly is; `None` for others, which
/// are left as they were.
#[inline(always)]
pub fn plain<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Option<Verdict> {
    let packet = parse::plain(frame)?;
    let verdict = flow(frame, tables, &packet).unwrap_or_else(Verdict::Pass);
    tables.count(verdict.why());
    Some(verdict)
}

/// [`steer`] for any frame: also behind VLAN tags, with options, extension headers or in fragments, ICMP, ARP.
#[inline(always)]
pub fn rare<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let verdict = match vlan::take_off(frame) {
        Some(tags) => {
            let verdict = any(frame, tables).unwrap_or_else(Verdict::Pass);
            vlan::put_back(frame, tags).map_or(Verdict::Pass(Why::NoRoom), |()| verdict)
        }
        None => Verdict::Pass(Why::Truncated),
    };
    tables.count(verdict.why());
    verdict
}

#[inline(always)]
fn any<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Why> {
    let packet = match parse::parse(frame)? {
        Parsed::Ip(packet) => packet,
        Parsed::Arp => return neighbor::answer_arp(frame, tables),
    };
    match packet.kind {
        Kind::Flow => flow(frame, tables, &packet),
        Kind::Icmp if neighbor::is_solicitation(frame, &packet) => neighbor::answer_solicitation(frame, tables),
        Kind::Icmp if echo::is_request(frame, &packet) => echo::answer(frame, tables, &packet),
        Kind::Icmp => error::forward(frame, tables, &packet),
        Kind::Rest => fragment::follow(frame, tables, &packet),
    }
}

#[inline(always)]
fn flow<F: Frame, T: Tables>(frame: &mut F, tables: &T, packet: &Packet) -> Result<Verdict, Why> {
    let settings = tables.settings().ok_or(Why::Inconsistent)?;
    let Some(service) = service::service(tables, settings, &packet.to) else {
        return forward::come_back(frame, tables, settings, packet);
    };
    if service.flags & DNS != 0 {
        return answer::answer(frame, tables, settings, service, packet);
    }
    let flow = FlowKey::new(&packet.from, &packet.to, service.id);
    let (slot, hash) = slot::slot(tables, settings, service, &flow)?;
    let id = track::backend(frame, tables, service, slot, &flow, packet)?;
    let backend = backend::backend(tables, id)?;
    fragment::remember(tables, packet, id, false);
    forward::forward(frame, tables, id, backend, packet, hash)
}
