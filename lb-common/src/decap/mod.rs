//! The way back out of a tunnel, top to bottom: what a backend does with the packets that a balancer sends it in mode
//! `tunnel`, before its network stack sees them.
//!
//! All four mixes are taken apart: IPv4 in IPv4 (RFC 2003), IPv6 in IPv4 (RFC 4213), and both in IPv6 (RFC 2473). Pure as
//! [`crate::path`] is, over [`Frame`] and [`Tables`]; what is not for us passes untouched, so that a tunnel device of the
//! kernel gets it.

mod congestion;
#[cfg(feature = "host")]
pub mod host;
mod inner;
mod link;
mod outer;
pub mod tables;
pub mod verdict;

use crate::frame::Frame;
use outer::Outer;
use tables::Tables;
use verdict::{Verdict, Why};

/// Decides what happens to a frame, takes its outer header off if it is to, and counts the reason.
///
/// A frame that passes is untouched, unless its reason says that it came out of a tunnel. The one that is dropped is told of
/// congestion by that (RFC 6040 section 4.2), as by any router on the way.
#[inline(always)]
pub fn decapsulate<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Verdict {
    let verdict = match decide(frame, tables) {
        Ok(verdict) => verdict,
        Err(why) => Verdict::Pass(why),
    };
    tables.count(verdict.why());
    verdict
}

#[inline(always)]
fn decide<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Why> {
    let link = link::link(frame)?;
    let outer = outer::outer(frame, &link)?;
    admit(tables, &outer)?;
    let marked = inner::inspect(frame, &outer)?;
    let Some(mark) = congestion::combined(outer.mark, marked) else {
        return Ok(Verdict::Drop(Why::DroppedForCongestion));
    };
    inner::mark(frame, &outer, marked, mark)?;
    link::strip(frame, &link, outer.header, outer.inner)?;
    Ok(Verdict::Pass(outer.why()))
}

/// Whether this packet's tunnel ends here.
#[inline(always)]
fn admit<T: Tables>(tables: &T, outer: &Outer) -> Result<(), Why> {
    if !tables.receives(&outer.to) {
        return Err(Why::OtherDestination);
    }
    let settings = tables.settings().ok_or(Why::Inconsistent)?;
    if settings.admits(&outer.from) { Ok(()) } else { Err(Why::OtherSource) }
}
