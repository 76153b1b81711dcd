//! IPv4 (RFC 791).

use super::{ethernet::Addresses, header};
use zerocopy::byteorder::{
    little_endian::{U32 as Le32, U64 as Le64},
    network_endian::U16,
};

header!(
    /// The header without its options.
    Ipv4 = 20 {
        /// Version 4 and the header's length in words of 4 bytes.
        version_length: u8,
        /// Differentiated services and congestion notification.
        traffic_class: u8,
        /// Header and payload, in bytes.
        total_length: U16,
        /// Names the datagram that a fragment belongs to.
        identification: U16,
        /// Flags and offset of a fragment.
        fragment: U16,
        /// Hops left.
        time_to_live: u8,
        /// What follows: a protocol number.
        protocol: u8,
        /// Of the header alone.
        checksum: [u8; 2],
        /// Address of the sender, as a word in the order of the wire.
        source: Le32,
        /// Address of the receiver.
        destination: Le32,
    }
);

header!(
    /// [`Ipv4`] by the words it is written by, in the order of the wire.
    Words = 20 {
        /// Version, class, total length, identification, flags and offset.
        first: Le64,
        /// Hops, protocol, checksum and source.
        second: Le64,
        /// Destination.
        destination: Le32,
    }
);

header!(
    /// What nearly every IPv4 frame starts with: no tag, no options, and the 8 bytes that TCP and UDP both have.
    Head4 = 42 {
        /// Receiver and sender on the link.
        ethernet: Addresses,
        /// What follows.
        ethertype: U16,
        /// The header.
        ip: Ipv4,
        /// The ports.
        ports: super::transport::Ports,
        /// The rest of a UDP header, or TCP's sequence number.
        rest: [u8; 4],
    }
);

header!(
    /// The front of any IPv4 frame.
    Network4 = 34 {
        /// Receiver and sender on the link.
        ethernet: Addresses,
        /// What follows.
        ethertype: U16,
        /// The header.
        ip: Ipv4,
    }
);

/// Version 4, five words: a header without options.
pub const NO_OPTIONS: u8 = 0x45;
/// More fragments, or an offset: not a whole datagram.
pub const FRAGMENT_MASK: u16 = 0x3fff;
/// The offset alone: not the first fragment.
pub const FRAGMENT_OFFSET: u16 = 0x1fff;
/// Don't fragment.
pub const DONT_FRAGMENT: u16 = 0x4000;
