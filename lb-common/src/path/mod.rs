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
use parse::{Kind, Parsed};

/// Decides what happens to a frame, rewrites it accordingly, and counts the reason.
///
/// A frame that passes is untouched, but for [`Why::ReturnedByStack`].
#[inline(always)]
pub fn steer<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let tags = vlan::take_off(frame);
    let verdict = match decide(frame, tables) {
        Ok(verdict) => verdict,
        Err(why) => Verdict::Pass(why),
    };
    let verdict = vlan::put_back(frame, tags, verdict);
    tables.count(verdict.why());
    verdict
}

#[inline(always)]
fn decide<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Why> {
    let packet = match parse::parse(frame)? {
        Parsed::Ip(packet) => packet,
        Parsed::Arp => return neighbor::answer_arp(frame, tables),
    };
    let settings = tables.settings().ok_or(Why::Inconsistent)?;
    match packet.kind {
        Kind::Flow => (),
        Kind::Icmp if neighbor::is_solicitation(frame, &packet) => return neighbor::answer_solicitation(frame, tables),
        Kind::Icmp if echo::is_request(frame, &packet) => return echo::answer(frame, tables, &packet),
        Kind::Icmp => return error::forward(frame, tables, settings, &packet),
        Kind::Rest => return fragment::follow(frame, tables, settings, &packet),
    }
    let Some(service) = service::service(tables, settings, &packet.to) else {
        return forward::come_back(frame, tables, settings, &packet);
    };
    if service.flags & DNS != 0 {
        return answer::answer(frame, tables, settings, &packet);
    }
    let flow = FlowKey::new(&packet.from, &packet.to, service.id);
    let (slot, hash) = slot::slot(tables, settings, service, &flow)?;
    let id = track::backend(frame, tables, service, slot, &flow, &packet)?;
    let backend = backend::backend(tables, id)?;
    fragment::remember(tables, &packet, id, false);
    forward::forward(frame, tables, id, backend, &packet, hash)
}
