//! VLAN tags: taken off before a frame is looked into and put back before it leaves, so that everything between finds its
//! headers where they are without tags. A frame leaves by the VLAN that it came in by.

use crate::{
    frame::Frame,
    wire::{
        ethernet::Addresses,
        vlan::{CUSTOMER, PROVIDER, Tag, Tagged, TaggedTwice},
    },
};
use core::hint::black_box;

/// The tags of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags {
    /// Their length in bytes: none, one or two tags.
    length: usize,
    /// As on the wire.
    word: u64,
}

/// Takes off up to two tags. `None` if the frame is shorter than two tags take; no header that the path reads fits behind them.
///
/// The kernel's verifier follows the rest of the path once for every number of tags that it can tell apart. So nothing here is
/// decided: the number is computed, and no tag is taken off like one.
#[inline(always)]
pub fn take_off<F: Frame>(frame: &mut F) -> Option<Tags> {
    let TaggedTwice { addresses, tags, .. } = frame.head()?;
    let (addresses, word) = (addresses.get(), tags.get());
    let outer = tags_at((word as u16).to_be());
    let inner = tags_at(((word >> 32) as u16).to_be());
    let length = (black_box(outer + (outer & inner)) & 3) * Tag::LEN;
    frame.shrink_front(length)?;
    // Whatever grows, they will be put back.
    frame.reserve_front(length);
    frame.head_mut::<Addresses>()?.set(addresses);
    Some(Tags { length, word })
}

/// How many tags start where this EtherType is: one or none.
#[inline(always)]
fn tags_at(ethertype: u16) -> usize {
    let is = |protocol: u16| black_box(usize::from(ethertype ^ protocol)).wrapping_sub(1) >> (usize::BITS - 1);
    is(CUSTOMER) | is(PROVIDER)
}

/// Puts the tags back, for which there is room.
#[inline(always)]
pub fn put_back<F: Frame>(frame: &mut F, tags: Tags) -> Option<()> {
    let addresses = frame.head::<Addresses>()?.get();
    frame.reserve_front(0);
    frame.grow_front(tags.length)?;
    frame.head_mut::<Addresses>()?.set(addresses);
    match tags.length / Tag::LEN {
        0 => (),
        1 => frame.head_mut::<Tagged>()?.tag.set(tags.word as u32),
        _ => frame.head_mut::<TaggedTwice>()?.tags.set(tags.word),
    }
    Some(())
}
