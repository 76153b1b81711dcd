//! TCP (RFC 9293) and UDP (RFC 768), as far as a balancer reads them.

use super::{ethernet::Addresses, header, ipv4::Ipv4, ipv6::Ipv6};
use zerocopy::byteorder::network_endian::{U16, U32};

header!(
    /// The first words of TCP and of UDP. Ports are kept in the order of the wire.
    Ports = 4 {
        /// Port of the sender.
        source: [u8; 2],
        /// Port of the receiver.
        destination: [u8; 2],
    }
);

header!(
    /// UDP's header.
    Udp = 8 {
        /// Its ports.
        ports: Ports,
        /// Header and payload, in bytes.
        length: U16,
        /// Of pseudo header, header and payload; zero over IPv4: there is none.
        checksum: [u8; 2],
    }
);

header!(
    /// TCP's header without options.
    Tcp = 20 {
        /// Its ports.
        ports: Ports,
        /// Sequence and acknowledgement numbers, header length and flags, window.
        state: [u8; 12],
        /// Of pseudo header, header and payload.
        checksum: [u8; 2],
        /// Where urgent data ends.
        urgent: U16,
    }
);

macro_rules! frames {
    ($($(#[$meta:meta])* $name:ident = $len:literal: $ip:ty, $transport:ty;)*) => { $(header!(
        $(#[$meta])*
        $name = $len {
            /// Receiver and sender on the link.
            ethernet: Addresses,
            /// What follows.
            ethertype: U16,
            /// The network's header.
            ip: $ip,
            /// The transport's header.
            transport: $transport,
        }
    );)* };
}
frames! {
    /// UDP over IPv4.
    UdpFrame4 = 42: Ipv4, Udp;
    /// UDP over IPv6.
    UdpFrame6 = 62: Ipv6, Udp;
    /// TCP over IPv4.
    TcpFrame4 = 54: Ipv4, Tcp;
    /// TCP over IPv6.
    TcpFrame6 = 74: Ipv6, Tcp;
}

header!(
    /// The part of TCP's header that says where a connection is in its life.
    TcpFlags = 2 {
        /// Length of the header in words of 4 bytes, in the upper half.
        length: u8,
        /// [`FIN`], [`SYN`], [`RST`], [`ACK`] and others.
        flags: u8,
    }
);

/// Where [`TcpFlags`] are in TCP's header.
pub const FLAGS_OFFSET: usize = 12;
/// The sender has no more to send.
pub const FIN: u8 = 1;
/// Begins a connection.
pub const SYN: u8 = 2;
/// Ends a connection at once.
pub const RST: u8 = 4;
/// Acknowledges.
pub const ACK: u8 = 16;

header!(
    /// The checksum of either.
    Checksum = 2 {
        /// Of pseudo header, header and payload.
        field: [u8; 2],
    }
);

impl Tcp {
    /// Where the checksum is in the header.
    pub const CHECKSUM: usize = 16;
}

impl Udp {
    /// Where the checksum is in the header.
    pub const CHECKSUM: usize = 6;
}

header!(
    /// What a QUIC packet with a long header starts with (RFC 8999 section 5.1).
    QuicLong = 5 {
        /// Form, fixed bit and type.
        first: u8,
        /// Version.
        version: U32,
    }
);

/// Protocol number of ICMP.
pub const ICMP: u8 = 1;
/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;
