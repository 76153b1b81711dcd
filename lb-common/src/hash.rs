//! The keyed hash that spreads flows over slots, and the one that finds names.

use bytemuck::{Pod, Zeroable};

/// The keys of both hashes, expanded by the agent from the secret of the config. Machines with the same secret pick the
/// same slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Keys {
    /// One word for each word of a flow: NH's key.
    pub flow: [u64; 3],
    /// Odd multiplier of the last step of a flow's hash.
    pub multiplier: u64,
    /// Start of a name's hash.
    pub name: u64,
}

/// Hash of a flow's three words, uniform over 32 bits.
///
/// NH (Black et al., UMAC, CRYPTO 1999) and then multiply-shift (Dietzfelbinger et al., 1997). Both are universal: for any two
/// flows chosen without the keys, the chance to have the same hash is at most 3 in 2^32, so an outsider can't aim at a slot. It costs four
/// multiplications, a third of what SipHash-1-3 costs on BPF.
#[inline(always)]
pub const fn flow(keys: &Keys, words: [u64; 3]) -> u32 {
    let [a, b, c] = words;
    let [key_a, key_b, key_c] = keys.flow;
    let sum = nh(a, key_a).wrapping_add(nh(b, key_b)).wrapping_add(nh(c, key_c));
    // NH is linear in each half of a word, and counters (ports or addresses in turn) would go through a multiplication as
    // arithmetic progressions: one key in a hundred then leaves most slots empty. Folding loses nothing, as it can be undone.
    ((sum ^ sum >> 32).wrapping_mul(keys.multiplier) >> 32) as u32
}

#[inline(always)]
const fn nh(word: u64, key: u64) -> u64 {
    let low = (word as u32).wrapping_add(key as u32) as u64;
    let high = ((word >> 32) as u32).wrapping_add((key >> 32) as u32) as u64;
    low * high
}

/// The slot of a hash: a multiplication instead of a division (Lemire, 2019).
#[inline(always)]
pub const fn slot(hash: u32, slots: u32) -> u32 {
    ((hash as u64 * slots as u64) >> 32) as u32
}

/// One step of a name's hash. Not claimed to resist collisions: the whole name is compared after it.
#[inline(always)]
pub const fn name_step(hash: u64, word: u64) -> u64 {
    let product = (hash ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    product ^ (product >> 32)
}
