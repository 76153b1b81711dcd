//! DNS cookies (RFC 7873) that all servers with the same secret make and accept (RFC 9018).
//!
//! All words are as in memory, that is in the order of the wire.

use crate::tables::{Address, FAMILY_4};

/// A COOKIE option's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    /// The client's part.
    pub client: u64,
    /// Version, reserved bytes and time.
    pub stamp: u64,
    /// What only who knows the secret can say.
    pub hash: u64,
}

/// Bytes of a client's cookie.
pub const CLIENT_LENGTH: u16 = 8;
/// Bytes of a client's and a server's cookie as every server makes them that follows RFC 9018.
pub const LENGTH: u16 = 24;
/// The most bytes of both together (RFC 7873 section 4).
pub const MAX_LENGTH: u16 = 40;
/// Version 1, in [`Cookie::stamp`] with three reserved bytes.
const VERSION: u32 = 1;
/// For how many seconds a cookie is accepted (RFC 9018 section 4.3).
const ACCEPTED: i32 = 3_600;
/// How far ahead a server's clock may be.
const AHEAD: i32 = 300;
/// After how many seconds a client gets another one.
const RENEWED: i32 = 1_800;

/// What a client's cookie is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// The client has shown that it is at its address.
    pub is_valid: bool,
    /// What it gets back.
    pub reply: Cookie,
}

/// Whether a COOKIE option can have this length.
#[inline(always)]
pub const fn is_length(length: u16) -> bool {
    length == CLIENT_LENGTH || (length >= 16 && length <= MAX_LENGTH)
}

/// Checks a cookie; `sent` is all three words if it is [`LENGTH`] bytes long. `now` is the second since 1970 modulo 2^32, `secrets`
/// the current one and the one before; `is_known` that this very cookie was found to be made with the current one.
#[inline(always)]
pub fn check(
    secrets: &[[u64; 2]; 2],
    address: &Address,
    family: u8,
    now: u32,
    client: u64,
    sent: Option<[u64; 2]>,
    is_known: bool,
) -> Checked {
    let [current, before] = secrets;
    let mut is_valid = false;
    if let Some([stamp, hash]) = sent {
        let sent = Cookie { client, stamp, hash };
        let age = now.wrapping_sub(((stamp >> 32) as u32).swap_bytes()) as i32;
        if stamp as u32 == VERSION && (-AHEAD..=ACCEPTED).contains(&age) {
            if is_known || hash_of(current, address, family, client, stamp) == hash {
                if age < RENEWED {
                    return Checked { is_valid: true, reply: sent };
                }
                is_valid = true;
            } else {
                is_valid = hash_of(before, address, family, client, stamp) == hash;
            }
        }
    }
    Checked { is_valid, reply: fresh(current, address, family, now, client) }
}

/// A new cookie.
#[inline(always)]
pub fn fresh(secret: &[u64; 2], address: &Address, family: u8, now: u32, client: u64) -> Cookie {
    let stamp = VERSION as u64 | (now.swap_bytes() as u64) << 32;
    Cookie { client, stamp, hash: hash_of(secret, address, family, client, stamp) }
}

#[inline(always)]
fn hash_of(secret: &[u64; 2], address: &Address, family: u8, client: u64, stamp: u64) -> u64 {
    let [first, second] = *address;
    if family == FAMILY_4 {
        sip_hash(secret, [client, stamp, first, 0], 20)
    } else {
        sip_hash(secret, [client, stamp, first, second], 32)
    }
}

/// SipHash-2-4 (Aumasson and Bernstein, 2012) of the first `length` bytes, 16 to 32, which are followed by zeros.
///
/// Not inline: it is called for up to three cookies, and would be most of the path's code.
#[inline(never)]
pub fn sip_hash(key: &[u64; 2], words: [u64; 4], length: u64) -> u64 {
    let [key0, key1] = *key;
    let [first, second, third, fourth] = words;
    let mut state = State([
        key0 ^ 0x736f_6d65_7073_6575,
        key1 ^ 0x646f_7261_6e64_6f6d,
        key0 ^ 0x6c79_6765_6e65_7261,
        key1 ^ 0x7465_6462_7974_6573,
    ]);
    state.absorb(first);
    state.absorb(second);
    let end = length << 56;
    if length < 24 {
        state.absorb(third | end);
    } else {
        state.absorb(third);
        if length < 32 {
            state.absorb(fourth | end);
        } else {
            state.absorb(fourth);
            state.absorb(end);
        }
    }
    state.finish()
}

struct State([u64; 4]);

impl State {
    #[inline(always)]
    fn absorb(&mut self, word: u64) {
        let Self([_, _, _, d]) = self;
        *d ^= word;
        self.round();
        self.round();
        let Self([a, ..]) = self;
        *a ^= word;
    }

    #[inline(always)]
    fn round(&mut self) {
        let Self([a, b, c, d]) = self;
        *a = a.wrapping_add(*b);
        *c = c.wrapping_add(*d);
        *b = b.rotate_left(13) ^ *a;
        *d = d.rotate_left(16) ^ *c;
        *a = a.rotate_left(32).wrapping_add(*d);
        *c = c.wrapping_add(*b);
        *d = d.rotate_left(21) ^ *a;
        *b = b.rotate_left(17) ^ *c;
        *c = c.rotate_left(32);
    }

    #[inline(always)]
    fn finish(mut self) -> u64 {
        let Self([_, _, c, _]) = &mut self;
        *c ^= 0xff;
        for _ in 0..4 {
            self.round();
        }
        let Self([a, b, c, d]) = self;
        a ^ b ^ c ^ d
    }
}
