//! ICMP (RFC 792) and ICMPv6 (RFC 4443), as far as a balancer reads and writes them.

use super::{ethernet::Addresses, header, ipv4::Ipv4, ipv6::Ipv6};
use zerocopy::byteorder::{
    little_endian::{U32 as Le32, U64 as Le64},
    network_endian::{U16, U32},
};

header!(
    /// What every message starts with.
    Icmp = 8 {
        /// Type.
        kind: u8,
        /// Its variant.
        code: u8,
        /// Of the message; in ICMPv6 of a pseudo header too.
        checksum: [u8; 2],
        /// By type: identifier and sequence number, or the next hop's MTU.
        rest: U32,
    }
);

/// Bytes of a packet that an ICMP error repeats: with both headers the 576 that every host takes (RFC 1812 section 4.3.2.3).
pub const QUOTE4: usize = 548;
/// Bytes of a packet that an ICMPv6 error repeats: with both headers IPv6's smallest MTU (RFC 4443 section 2.4 (c)).
pub const QUOTE6: usize = 1232;

header!(
    /// A frame whose packet is to be quoted, over IPv4.
    Quoted4 = 562 {
        /// Receiver and sender on the link.
        ethernet: Addresses,
        /// What follows.
        ethertype: U16,
        /// The start of the packet.
        packet: [Le64; 68],
        /// The end of what is quoted.
        last: Le32,
    }
);

header!(
    /// A frame whose packet is to be quoted, over IPv6.
    Quoted6 = 1246 {
        /// Receiver and sender on the link.
        ethernet: Addresses,
        /// What follows.
        ethertype: U16,
        /// The start of the packet.
        packet: [Le64; 154],
    }
);

header!(
    /// A frame with an ICMP message.
    IcmpFrame4 = 42 {
        /// Receiver and sender on the link.
        ethernet: Addresses,
        /// What follows.
        ethertype: U16,
        /// The network's header.
        ip: Ipv4,
        /// The message's.
        icmp: Icmp,
    }
);

header!(
    /// A frame with an ICMPv6 message.
    IcmpFrame6 = 62 {
        /// Receiver and sender on the link.
        ethernet: Addresses,
        /// What follows.
        ethertype: U16,
        /// The network's header.
        ip: Ipv6,
        /// The message's.
        icmp: Icmp,
    }
);

/// ICMP: echo request.
pub const ECHO_REQUEST4: u8 = 8;
/// ICMP: echo reply.
pub const ECHO_REPLY4: u8 = 0;
/// ICMP: destination unreachable.
pub const UNREACHABLE4: u8 = 3;
/// ICMP: its code for a packet that is too long and may not be fragmented (RFC 1191).
pub const FRAGMENTATION_NEEDED: u8 = 4;
/// ICMP: time exceeded.
pub const TIME_EXCEEDED4: u8 = 11;
/// ICMP: parameter problem.
pub const PARAMETER_PROBLEM4: u8 = 12;
/// ICMPv6: destination unreachable.
pub const UNREACHABLE6: u8 = 1;
/// ICMPv6: packet too big.
pub const PACKET_TOO_BIG: u8 = 2;
/// ICMPv6: parameter problem, the last of the errors that are in use.
pub const PARAMETER_PROBLEM6: u8 = 4;
/// ICMPv6: echo request.
pub const ECHO_REQUEST6: u8 = 128;
/// ICMPv6: echo reply.
pub const ECHO_REPLY6: u8 = 129;
