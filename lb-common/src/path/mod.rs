//! The way of a packet, top to bottom.

pub mod answer;
mod backend;
mod forward;
mod neighbor;
mod parse;
mod service;
mod slot;

use crate::{
    frame::Frame,
    tables::Tables,
    verdict::{Verdict, Why},
};
use parse::Packet;

/// Decides what happens to a frame, rewrites it accordingly, and counts the reason.
///
/// A frame that passes is untouched, but for [`Why::ReturnedByStack`].
#[inline(always)]
pub fn steer<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let verdict = match decide(frame, tables) {
        Ok(verdict) => verdict,
        Err(why) => Verdict::Pass(why),
    };
    tables.count(verdict.why());
    verdict
}

#[inline(always)]
fn decide<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Why> {
    let flow = match parse::parse(frame)? {
        Packet::Flow(flow) => flow,
        Packet::Arp => return neighbor::answer_arp(frame, tables),
        Packet::NeighborSolicitation => return neighbor::answer_solicitation(frame, tables),
    };
    let settings = tables.settings().ok_or(Why::Inconsistent)?;
    let Some(service) = service::service(tables, &flow) else {
        return forward::come_back(frame, tables, settings, &flow);
    };
    if service.dns != 0 {
        return answer::answer(frame, tables, settings, &flow);
    }
    let slot = slot::slot(tables, settings, service, &flow)?;
    let backend = backend::backend(tables, slot.backend)?;
    forward::forward(frame, tables, slot.backend, backend, &flow)
}
