//! Ethernet II (IEEE 802.3).

use super::header;
use zerocopy::byteorder::{
    little_endian::{U32 as Le32, U64 as Le64},
    network_endian::U16,
};

header!(
    /// The header of a frame.
    Ethernet = 14 {
        /// MAC address of the receiver.
        destination: [u8; 6],
        /// MAC address of the sender.
        source: [u8; 6],
        /// What follows: one of the constants here.
        ethertype: U16,
    }
);

header!(
    /// Both addresses as the words they are stored by: LLVM copies an array of bytes byte by byte on BPF.
    Addresses = 12 {
        /// Destination and the first two bytes of the source.
        first: Le64,
        /// The rest of the source.
        rest: Le32,
    }
);

impl Addresses {
    /// Overwrites both addresses by words rendered with [`addresses`].
    #[inline(always)]
    pub fn set(&mut self, words: [u64; 2]) {
        let [first, rest] = words;
        self.first.set(first);
        self.rest.set(rest as u32);
    }

    /// Both addresses as such words.
    #[inline(always)]
    pub fn get(&self) -> [u64; 2] {
        [self.first.get(), self.rest.get().into()]
    }

    /// Sends the frame back where it came from.
    #[inline(always)]
    pub fn turn_around(&mut self) {
        self.set(turned_around(self.get()));
    }
}

/// Destination and source as two words, ready to be stored.
#[inline(always)]
pub const fn addresses(destination: [u8; 6], source: [u8; 6]) -> [u64; 2] {
    let [a, b, c, d, e, f] = destination;
    let [g, h, i, j, k, l] = source;
    [u64::from_le_bytes([a, b, c, d, e, f, g, h]), u32::from_le_bytes([i, j, k, l]) as u64]
}

/// The words of a frame that goes back where one with these came from.
#[inline(always)]
pub const fn turned_around(words: [u64; 2]) -> [u64; 2] {
    let [first, rest] = words;
    [first >> 48 | rest << 16 | first << 48, (first >> 16) & 0xffff_ffff]
}

/// Destination and source of words rendered by [`addresses`].
pub const fn parts(words: [u64; 2]) -> ([u8; 6], [u8; 6]) {
    let [first, rest] = words;
    let [a, b, c, d, e, f, g, h] = first.to_le_bytes();
    let [i, j, k, l, ..] = rest.to_le_bytes();
    ([a, b, c, d, e, f], [g, h, i, j, k, l])
}

/// EtherType of IPv4.
pub const IPV4: u16 = 0x0800;
/// EtherType of ARP.
pub const ARP: u16 = 0x0806;
/// EtherType of IPv6.
pub const IPV6: u16 = 0x86dd;
