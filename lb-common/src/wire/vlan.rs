//! VLAN tags (IEEE 802.1Q).

use super::{ethernet::Addresses, header};
use zerocopy::byteorder::{
    little_endian::{U32 as Le32, U64 as Le64},
    network_endian::U16,
};

header!(
    /// One tag.
    Tag = 4 {
        /// [`CUSTOMER`] or [`PROVIDER`], where the EtherType would be.
        protocol: U16,
        /// Priority and VLAN.
        control: U16,
    }
);

header!(
    /// The front of a frame with a tag.
    Tagged = 18 {
        /// Receiver and sender on the link.
        ethernet: Addresses,
        /// A [`Tag`], as a word.
        tag: Le32,
        /// What follows.
        ethertype: U16,
    }
);

header!(
    /// The front of a frame with two tags.
    TaggedTwice = 22 {
        /// Receiver and sender on the link.
        addresses: Addresses,
        /// Both [`Tag`]s, as a word.
        tags: Le64,
        /// What follows.
        ethertype: U16,
    }
);

/// Protocol of a customer's tag, the usual one.
pub const CUSTOMER: u16 = 0x8100;
/// Protocol of a provider's tag (IEEE 802.1ad), the outer one of two.
pub const PROVIDER: u16 = 0x88a8;
