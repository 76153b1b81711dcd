//! DNS messages (RFC 1035 section 4.1) and EDNS (RFC 6891), as far as the path reads them.

use super::{ethernet::Addresses, header, ipv4, ipv6};
use zerocopy::byteorder::{
    little_endian::{U16 as Le16, U32 as Le32, U64 as Le64},
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
    /// An EDNS option without its data (RFC 6891 section 6.1.2).
    OptionHead = 4 {
        /// What it is.
        code: U16,
        /// Bytes that follow.
        length: U16,
    }
);

header!(
    /// [`DnsHeader`] by the words it is read and written by, in the order of the wire.
    DnsStart = 12 {
        /// Chosen by the client.
        id: Le16,
        /// Flags, questions, answers and authorities.
        middle: Le64,
        /// Additional records.
        additionals: Le16,
    }
);

header!(
    /// Eight bytes of a name, as a word in the order of the wire.
    NameWord = 8 {
        /// The bytes.
        word: Le64,
    }
);

header!(
    /// The front of any COOKIE option.
    ClientCookie = 12 {
        /// Code and length.
        head: OptionHead,
        /// The client's cookie.
        client: Le64,
    }
);

header!(
    /// A record's TTL, as a word in the order of the wire.
    Ttl = 4 {
        /// Seconds.
        seconds: Le32,
    }
);

header!(
    /// What follows a question's name, as a word.
    QuestionEnd = 4 {
        /// Type and class in the order of the wire.
        word: Le32,
    }
);

header!(
    /// [`Opt`] by words.
    OptWords = 11 {
        /// Name, type, size and all but the end of the flags.
        first: Le64,
        /// The end of the flags, and the first byte of the length.
        middle: Le16,
        /// The rest of the length.
        last: u8,
    }
);

header!(
    /// A COOKIE option (RFC 7873) with a server's cookie (RFC 9018), by words.
    CookieOption = 28 {
        /// Code and length.
        head: Le32,
        /// The client's cookie.
        client: Le64,
        /// Version, reserved bytes and time.
        stamp: Le64,
        /// What the server adds.
        hash: Le64,
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
        ip: ipv4::Words,
        /// The transport's header ([`Udp`](super::transport::Udp)) as a word in the order of the wire.
        udp: Le64,
        /// The message's header.
        dns: DnsStart,
    }
);

header!(
    /// A DNS message over IPv6, up to its question.
    DnsFrame6 = 74 {
        /// Receiver and sender on the link.
        ethernet: Addresses,
        /// What follows.
        ethertype: U16,
        /// The network's header, but for the addresses ([`Ipv6`](super::ipv6::Ipv6)).
        ip: Le64,
        /// Address of the sender.
        source: ipv6::Words,
        /// Address of the receiver.
        destination: ipv6::Words,
        /// As over IPv4.
        udp: Le64,
        /// The message's header.
        dns: DnsStart,
    }
);

/// The port of DNS servers.
pub const PORT: u16 = 53;
/// A response.
pub const RESPONSE: u16 = 0x8000;
/// The answer of an authority.
pub const AUTHORITATIVE: u16 = 0x0400;
/// Recursion desired.
pub const RECURSION_DESIRED: u16 = 0x0100;
/// Recursion available.
pub const AVAILABLE: u16 = 0x0080;
/// Checking disabled.
pub const CHECKING_DISABLED: u16 = 0x0010;
/// Truncated.
pub const TRUNCATED: u16 = 0x0200;
/// The response code.
pub const RCODE: u16 = 0x000f;
/// Response code: no answer can be given.
pub const SERVFAIL: u16 = 2;
/// QR, opcode and TC: all zero in a plain query.
pub const NOT_PLAIN: u16 = 0xfa00;
/// Type A.
pub const A: u16 = 1;
/// Type AAAA.
pub const AAAA: u16 = 28;
/// Type OPT.
pub const OPT: u16 = 41;
/// EDNS option: which server is this? (RFC 5001)
pub const NSID: u16 = 3;
/// EDNS option: cookies (RFC 7873).
pub const COOKIE: u16 = 10;
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
