//! DNS messages (RFC 1035 section 4.1) and EDNS (RFC 6891), as far as the path reads them.

use super::{ethernet::Addresses, header, ipv4::Ipv4, ipv6::Ipv6, transport::Udp};
use zerocopy::byteorder::{
    little_endian::{U32 as Le32, U64 as Le64},
    network_endian::{U16, U32},
};

header!(
    /// The header of a message.
    DnsHeader = 12 {
        /// Chosen by the client.
        id: U16,
        /// QR, opcode, AA, TC, RD, RA, Z, AD, CD and the response code.
        flags: U16,
        /// Questions.
        questions: U16,
        /// Records of the answer.
        answers: U16,
        /// Records of the authority section.
        authorities: U16,
        /// Additional records.
        additionals: U16,
    }
);

header!(
    /// What follows a question's name.
    QuestionTail = 4 {
        /// The type asked for.
        kind: U16,
        /// The class, nearly always 1.
        class: U16,
    }
);

header!(
    /// The pseudo record of EDNS without its options (RFC 6891 section 6.1.2).
    Opt = 11 {
        /// Zero: the root.
        name: u8,
        /// 41.
        kind: U16,
        /// The largest response that the sender takes, in bytes.
        payload_size: U16,
        /// Extended response code, version and flags.
        extended: U32,
        /// Bytes of options that follow.
        options_length: U16,
    }
);

header!(
    /// An A record whose owner is the question's name, by words.
    RecordA = 16 {
        /// Owner, type, class and the upper half of the TTL.
        first: Le64,
        /// The lower half, the length and the address.
        second: Le64,
    }
);

header!(
    /// An AAAA record whose owner is the question's name, by words.
    RecordAaaa = 28 {
        /// Owner, type, class and the upper half of the TTL.
        first: Le64,
        /// The lower half, the length and the start of the address.
        second: Le64,
        /// The middle of the address.
        third: Le64,
        /// Its end.
        last: Le32,
    }
);

header!(
    /// A DNS message over IPv4, up to its question.
    DnsFrame4 = 54 {
        /// Receiver and sender on the link.
        ethernet: Addresses,
        /// What follows.
        ethertype: U16,
        /// The network's header.
        ip: Ipv4,
        /// The transport's header.
        udp: Udp,
        /// The message's header.
        dns: DnsHeader,
    }
);

header!(
    /// A DNS message over IPv6, up to its question.
    DnsFrame6 = 74 {
        /// Receiver and sender on the link.
        ethernet: Addresses,
        /// What follows.
        ethertype: U16,
        /// The network's header.
        ip: Ipv6,
        /// The transport's header.
        udp: Udp,
        /// The message's header.
        dns: DnsHeader,
    }
);

/// A response.
pub const RESPONSE: u16 = 0x8000;
/// The answer of an authority.
pub const AUTHORITATIVE: u16 = 0x0400;
/// Recursion desired.
pub const RECURSION_DESIRED: u16 = 0x0100;
/// Checking disabled.
pub const CHECKING_DISABLED: u16 = 0x0010;
/// QR, opcode and TC: all zero in a plain query.
pub const NOT_PLAIN: u16 = 0xfa00;
/// Type A.
pub const A: u16 = 1;
/// Type AAAA.
pub const AAAA: u16 = 28;
/// Type OPT.
pub const OPT: u16 = 41;
/// Class IN.
pub const IN: u16 = 1;
/// DNSSEC OK, in [`Opt::extended`]; repeated in the reply (RFC 3225 section 3).
pub const DNSSEC_OK: u32 = 0x8000;
/// The EDNS version, in [`Opt::extended`].
pub const EDNS_VERSION: u32 = 0x00ff_0000;
/// The largest response that `lb` sends by UDP and the size it offers: fits IPv6's smallest MTU (DNS flag day 2020).
pub const PAYLOAD_SIZE: u16 = 1232;
/// What a client without EDNS takes (RFC 1035 section 4.2.1).
pub const PLAIN_SIZE: usize = 512;
