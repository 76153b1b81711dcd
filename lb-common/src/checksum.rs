//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Sums are one's complement sums of 16-bit words in the byte order of memory, carried in 64 bits and folded once at the
//! end: RFC 1071 section 2(B) shows that the byte order does not matter.

/// Adds the four 16-bit words of a word to a sum without losing a carry.
#[inline(always)]
pub const fn add(sum: u64, word: u64) -> u64 {
    sum + (word & 0xffff_ffff) + (word >> 32)
}

/// Folds a sum into 16 bits.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The checksum field for a sum: its complement, as stored in memory.
#[inline(always)]
pub const fn finish(sum: u64) -> [u8; 2] {
    (!fold(sum)).to_ne_bytes()
}

/// As [`finish`] for UDP, where an all-zero field means that there is no checksum (RFC 768).
#[inline(always)]
pub const fn finish_udp(sum: u64) -> [u8; 2] {
    match !fold(sum) {
        0 => [0xff, 0xff],
        field => field.to_ne_bytes(),
    }
}

/// What replacing words that sum to `old` by words that sum to `new` adds to a sum: `~m + m'` of RFC 1624 section 3.
#[inline(always)]
pub const fn difference(old: u64, new: u64) -> u16 {
    fold(!fold(old) as u64 + fold(new) as u64)
}

/// The checksum field after a [`difference`]: `~(~HC + ~m + m')`, equation 3 of RFC 1624, the one without the corner
/// case of equation 2.
#[inline(always)]
pub const fn update(field: [u8; 2], difference: u16) -> [u8; 2] {
    finish(!u16::from_ne_bytes(field) as u64 + difference as u64)
}

/// As [`update`] for UDP, see [`finish_udp`].
#[inline(always)]
pub const fn update_udp(field: [u8; 2], difference: u16) -> [u8; 2] {
    finish_udp(!u16::from_ne_bytes(field) as u64 + difference as u64)
}

/// The difference that undoes another one.
#[inline(always)]
pub const fn opposite(difference: u16) -> u16 {
    !difference
}
