//! Neighbour discovery (RFC 4861), as far as it takes to answer for a service address.

use super::{
    ethernet::Ethernet,
    header,
    ipv6::{Ipv6, Words},
};
use zerocopy::byteorder::network_endian::U32;

header!(
    /// A frame with a neighbour solicitation (RFC 4861 section 4.3), without its options.
    NeighborSolicitation = 78 {
        /// Receiver and sender on the link.
        ethernet: Ethernet,
        /// The network's header.
        ip: Ipv6,
        /// [`SOLICITATION`].
        kind: u8,
        /// Zero.
        code: u8,
        /// Of pseudo header and message.
        checksum: [u8; 2],
        /// Reserved here, flags in an advertisement.
        flags: U32,
        /// The address asked about.
        target: Words,
    }
);

header!(
    /// A frame with a neighbour advertisement (RFC 4861 section 4.4) and its one option, the target's link-layer address.
    NeighborAdvertisement = 86 {
        /// The message, which has the shape of a solicitation.
        message: NeighborSolicitation,
        /// 2: target link-layer address.
        option: u8,
        /// 1: the option is 8 bytes long.
        option_length: u8,
        /// The address.
        mac: [u8; 6],
    }
);

/// Type of a neighbour solicitation.
pub const SOLICITATION: u8 = 135;
/// Type of a neighbour advertisement.
pub const ADVERTISEMENT: u8 = 136;
/// The answer to a question that came from an address.
pub const SOLICITED: u32 = 0x4000_0000;
/// Replaces what the asker knew.
pub const OVERRIDE: u32 = 0x2000_0000;
/// Hop limit of every message: a router would have decremented it.
pub const HOP_LIMIT: u8 = 255;
