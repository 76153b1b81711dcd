//! The packet inside: whether it is what the outer header says, and its congestion notification.

use super::{outer::Outer, verdict::Why};
use crate::{
    checksum,
    frame::Frame,
    tables::FAMILY_4,
    wire::{ipv4::Ipv4, ipv6::Ipv6},
};

/// Holds the inner header against the outer one; returns its congestion notification (RFC 3168 section 5). All else is the
/// stack's to judge.
#[inline(always)]
pub fn inspect<F: Frame>(frame: &F, outer: &Outer) -> Result<u8, Why> {
    if outer.inner == FAMILY_4 { inner4(frame, outer) } else { inner6(frame, outer) }
}

#[inline(always)]
fn inner4<F: Frame>(frame: &F, outer: &Outer) -> Result<u8, Why> {
    // Where the outer packet ends and padding begins the frame does not say.
    if outer.length < Ipv4::LEN {
        return Err(Why::InnerLength);
    }
    let ip: &Ipv4 = frame.view(outer.start).ok_or(Why::InnerLength)?;
    if ip.version_length >> 4 != 4 {
        return Err(Why::InnerVersion);
    }
    let (header, total) = (usize::from(ip.version_length & 0xf) * 4, usize::from(ip.total_length.get()));
    if header < Ipv4::LEN || total < header || total > outer.length {
        return Err(Why::InnerLength);
    }
    Ok(ip.traffic_class & 3)
}

#[inline(always)]
fn inner6<F: Frame>(frame: &F, outer: &Outer) -> Result<u8, Why> {
    if outer.length < Ipv6::LEN {
        return Err(Why::InnerLength);
    }
    let ip: &Ipv6 = frame.view(outer.start).ok_or(Why::InnerLength)?;
    let word = ip.version_class_flow.get();
    if word >> 28 != 6 {
        return Err(Why::InnerVersion);
    }
    if Ipv6::LEN + usize::from(ip.payload_length.get()) > outer.length {
        return Err(Why::InnerLength);
    }
    Ok(((word >> 20) & 3) as u8)
}

/// Writes another congestion notification.
#[inline(always)]
pub fn mark<F: Frame>(frame: &mut F, outer: &Outer, old: u8, new: u8) -> Result<(), Why> {
    if old == new {
        return Ok(());
    }
    let change = old ^ new;
    if outer.inner == FAMILY_4 {
        let ip: &mut Ipv4 = frame.view_mut(outer.start).ok_or(Why::Inconsistent)?;
        // Differentiated services and this are the second byte of a 16-bit word.
        let word = |class| u64::from(u16::from_ne_bytes([0, class]));
        let (before, after) = (ip.traffic_class, ip.traffic_class ^ change);
        ip.traffic_class = after;
        ip.checksum = checksum::update(ip.checksum, checksum::difference(word(before), word(after)));
    } else {
        let ip: &mut Ipv6 = frame.view_mut(outer.start).ok_or(Why::Inconsistent)?;
        ip.version_class_flow.set(ip.version_class_flow.get() ^ u32::from(change) << 20);
    }
    Ok(())
}
