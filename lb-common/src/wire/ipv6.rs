//! IPv6 (RFC 8200) and its extension headers.

use super::{ethernet::Addresses, header};
use crate::tables::Address;
use zerocopy::byteorder::{
    little_endian::U64 as Le64,
    network_endian::{U16, U32},
};

header!(
    /// The header.
    Ipv6 = 40 {
        /// Version 6, traffic class and flow label.
        version_class_flow: U32,
        /// What follows the header, in bytes.
        payload_length: U16,
        /// What follows: a protocol number.
        next_header: u8,
        /// Hops left.
        hop_limit: u8,
        /// Address of the sender.
        source: Words,
        /// Address of the receiver.
        destination: Words,
    }
);

header!(
    /// As [`super::ipv4::Head4`]: no tag, no extension headers.
    Head6 = 62 {
        /// Receiver and sender on the link.
        ethernet: Addresses,
        /// What follows.
        ethertype: U16,
        /// The header.
        ip: Ipv6,
        /// The ports.
        ports: super::transport::Ports,
        /// The rest of a UDP header, or TCP's sequence number.
        rest: [u8; 4],
    }
);

header!(
    /// The front of any IPv6 frame.
    Network6 = 54 {
        /// Receiver and sender on the link.
        ethernet: Addresses,
        /// What follows.
        ethertype: U16,
        /// The header.
        ip: Ipv6,
    }
);

header!(
    /// An address as the words it is read and stored by.
    Words = 16 {
        /// Its first half.
        first: Le64,
        /// Its second half.
        second: Le64,
    }
);

impl Words {
    /// The address, in the order of the wire.
    #[inline(always)]
    pub const fn get(&self) -> Address {
        [self.first.get(), self.second.get()]
    }

    /// Overwrites the address.
    #[inline(always)]
    pub fn set(&mut self, address: Address) {
        let [first, second] = address;
        self.first.set(first);
        self.second.set(second);
    }
}

header!(
    /// The first 8 bytes of an extension header, which is at least as long.
    Extension = 8 {
        /// What follows it: a protocol number.
        next_header: u8,
        /// Its length in words of 8 bytes, the first not counted; reserved in a fragment header.
        length: u8,
        /// In a fragment header [`FRAGMENT_OFFSET`] and [`MORE_FRAGMENTS`]; in a routing header its type and the segments left.
        fragment: U16,
        /// In a fragment header what tells the datagram.
        identification: U32,
    }
);

/// Hop-by-hop options.
pub const HOP_BY_HOP: u8 = 0;
/// Routing header.
pub const ROUTING: u8 = 43;
/// Fragment header.
pub const FRAGMENT: u8 = 44;
/// Destination options.
pub const DESTINATION_OPTIONS: u8 = 60;
/// In a fragment header: not the first fragment.
pub const FRAGMENT_OFFSET: u16 = 0xfff8;
/// In a fragment header: not the last fragment.
pub const MORE_FRAGMENTS: u16 = 1;

/// Whether this protocol number is that of an extension header that has the shape of [`Extension`].
#[inline(always)]
pub const fn is_extension(protocol: u8) -> bool {
    matches!(protocol, HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS)
}

/// Version 6 with neither class nor label.
pub const PLAIN: u32 = 0x6000_0000;
