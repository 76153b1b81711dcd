//! Who a client is taken for: all of a prefix for one.

use crate::{
    hash::{self, Keys},
    tables::{Address, FAMILY_4, answers::DnsSettings},
};

/// Keyed hash of a client's prefix: finds its tokens, and the slot that a sticky name gives it. Nobody without the keys can tell
/// whose tokens are whose.
#[inline(always)]
pub const fn hash(keys: &Keys, settings: &DnsSettings, address: &Address, family: u8) -> u32 {
    let [first, second] = prefix(settings, address, family);
    hash::flow(keys, [first, second, family as u64])
}

/// The prefix of an address that counts as one client.
#[inline(always)]
pub const fn prefix(settings: &DnsSettings, address: &Address, family: u8) -> Address {
    let [first, _] = *address;
    // Masks in the order of the wire. Bits beyond a family's own count as all of it.
    let mask = if family == FAMILY_4 {
        let bits = settings.slip_and_prefixes >> 8 & 0xff;
        ((u32::MAX as u64) << 32_u64.saturating_sub(bits)) as u32 as u64
    } else {
        let bits = settings.slip_and_prefixes >> 16 & 0xff;
        if bits == 0 { 0 } else { u64::MAX << 64_u64.saturating_sub(bits) }
    };
    let mask = if family == FAMILY_4 { (mask as u32).swap_bytes() as u64 } else { mask.swap_bytes() };
    [first & mask, 0]
}
