//! The link's header: Ethernet (IEEE 802.3) with up to two VLAN tags (IEEE 802.1Q).

use super::verdict::Why;
use crate::{
    frame::{Frame, Header},
    tables::FAMILY_4,
    wire::{
        ethernet::{Addresses, Ethernet, IPV4, IPV6},
        header,
        vlan::{CUSTOMER, PROVIDER, Tagged, TaggedTwice},
    },
};
use zerocopy::byteorder::network_endian::U16;

header!(
    /// Without a tag, by words.
    Untagged = 14 {
        /// Receiver and sender on the link.
        ethernet: Addresses,
        /// What follows.
        ethertype: U16,
    }
);

/// What the link's header says.
#[derive(Clone, Copy)]
pub struct Link {
    /// Its length.
    pub length: usize,
    /// What follows it: [`IPV4`] or [`IPV6`].
    pub ethertype: u16,
}

/// Reads the link's header.
#[inline(always)]
pub fn link<F: Frame>(frame: &F) -> Result<Link, Why> {
    let mut ethertype = frame.head::<Untagged>().ok_or(Why::Truncated)?.ethertype.get();
    let mut length = Untagged::LEN;
    if is_tag(ethertype) {
        ethertype = frame.head::<Tagged>().ok_or(Why::Truncated)?.ethertype.get();
        length = Tagged::LEN;
        if is_tag(ethertype) {
            ethertype = frame.head::<TaggedTwice>().ok_or(Why::Truncated)?.ethertype.get();
            length = TaggedTwice::LEN;
        }
    }
    match ethertype {
        IPV4 | IPV6 => Ok(Link { length, ethertype }),
        _ => Err(Why::NotIp),
    }
}

#[inline(always)]
const fn is_tag(ethertype: u16) -> bool {
    ethertype == CUSTOMER || ethertype == PROVIDER
}

/// Takes the `outer` bytes behind the link's header away; what follows now is of this family.
#[inline(always)]
pub fn strip<F: Frame>(frame: &mut F, link: &Link, outer: usize, family: u8) -> Result<(), Why> {
    let ethertype = U16::new(if family == FAMILY_4 { IPV4 } else { IPV6 });
    match link.length {
        Untagged::LEN => move_up(frame, outer, |link: Untagged| Untagged { ethertype, ..link }),
        Tagged::LEN => move_up(frame, outer, |link: Tagged| Tagged { ethertype, ..link }),
        _ => move_up(frame, outer, |link: TaggedTwice| TaggedTwice { ethertype, ..link }),
    }
    // Never: all that is moved here has been seen.
    .ok_or(Why::Inconsistent)
}

#[inline(always)]
fn move_up<L: Header + Copy, F: Frame>(frame: &mut F, by: usize, change: impl FnOnce(L) -> L) -> Option<()> {
    let link = change(*frame.head()?);
    frame.shrink_front(by)?;
    *frame.head_mut()? = link;
    Some(())
}

const _: () = assert!(Ethernet::LEN == Untagged::LEN);
