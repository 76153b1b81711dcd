//! VLAN tags: taken off before a frame is looked into and put back before it leaves, so that everything between finds its
//! headers where they are without tags. A frame leaves by the VLAN that it came in by.

use crate::{
    frame::Frame,
    verdict::{Verdict, Why},
    wire::{
        ethernet::{Addresses, Ethernet},
        vlan::{self, Tag, Tagged, TaggedTwice},
    },
};
use zerocopy::byteorder::little_endian::{U32 as Le32, U64 as Le64};

/// The tags of a frame, as on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tags {
    /// No tag.
    None,
    /// One.
    One(u32),
    /// Two.
    Two(u64),
}

/// Takes off up to two tags.
#[inline(always)]
pub fn take_off<F: Frame>(frame: &mut F) -> Tags {
    match frame.head::<Ethernet>() {
        Some(ethernet) if vlan::is_tag(ethernet.ethertype.get()) => take_off_some(frame),
        _ => Tags::None,
    }
}

#[inline(always)]
fn take_off_some<F: Frame>(frame: &mut F) -> Tags {
    let (addresses, tags) = match frame.head::<TaggedTwice>() {
        Some(TaggedTwice { ethernet, tags, .. }) if vlan::is_tag(((tags.get() >> 32) as u16).to_be()) => {
            (ethernet.get(), Tags::Two(tags.get()))
        }
        _ => match frame.head::<Tagged>() {
            Some(Tagged { ethernet, tag, .. }) => (ethernet.get(), Tags::One(tag.get())),
            None => return Tags::None,
        },
    };
    if frame.shrink_front(length(tags)).is_none() {
        return Tags::None;
    }
    if let Some(head) = frame.head_mut::<Addresses>() {
        head.set(addresses);
    }
    tags
}

/// Puts the tags back.
#[inline(always)]
pub fn put_back<F: Frame>(frame: &mut F, tags: Tags, verdict: Verdict) -> Verdict {
    match tags {
        Tags::None => verdict,
        // What was taken off has room; only a tunnel's header can have taken it.
        _ => put_back_some(frame, tags).map_or(Verdict::Pass(Why::NoRoom), |()| verdict),
    }
}

#[inline(always)]
fn put_back_some<F: Frame>(frame: &mut F, tags: Tags) -> Option<()> {
    let addresses = frame.head::<Addresses>()?.get();
    frame.grow_front(length(tags))?;
    frame.head_mut::<Addresses>()?.set(addresses);
    match tags {
        Tags::None => (),
        Tags::One(tag) => frame.head_mut::<Tagged>()?.tag = Le32::new(tag),
        Tags::Two(tags) => frame.head_mut::<TaggedTwice>()?.tags = Le64::new(tags),
    }
    Some(())
}

#[inline(always)]
const fn length(tags: Tags) -> usize {
    match tags {
        Tags::None => 0,
        Tags::One(_) => Tag::LEN,
        Tags::Two(_) => 2 * Tag::LEN,
    }
}
