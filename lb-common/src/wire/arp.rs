//! ARP for IPv4 over Ethernet (RFC 826).

use super::{ethernet::Ethernet, header};
use zerocopy::byteorder::network_endian::U16;

header!(
    /// A whole ARP frame.
    ArpFrame = 42 {
        /// Its Ethernet header.
        ethernet: Ethernet,
        /// 1: Ethernet.
        hardware: U16,
        /// The EtherType of IPv4.
        protocol: U16,
        /// 6: bytes of a MAC address.
        hardware_length: u8,
        /// 4: bytes of an IPv4 address.
        protocol_length: u8,
        /// [`REQUEST`] or [`REPLY`].
        operation: U16,
        /// MAC address of the sender.
        sender_mac: [u8; 6],
        /// IPv4 address of the sender.
        sender: [u8; 4],
        /// MAC address asked for.
        target_mac: [u8; 6],
        /// IPv4 address asked about.
        target: [u8; 4],
    }
);

/// Who has this address?
pub const REQUEST: u16 = 1;
/// I have it.
pub const REPLY: u16 = 2;
