//! Incremental checksums against recomputed ones.

use crate::support::cases;
use etherparse::checksum::Sum16BitWords;
use lb_common::checksum::{add, difference, finish, finish_udp, fold, opposite, update, update_udp};
use proptest::prelude::*;

/// The sum of bytes as the path carries it: by words of eight, in the order of memory.
fn sum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0, |sum, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        add(sum, u64::from_ne_bytes(word))
    })
}

/// The checksum field by etherparse, which sums in the order of memory as well.
fn recomputed(bytes: &[u8]) -> [u8; 2] {
    Sum16BitWords::new().add_slice(bytes).ones_complement().to_ne_bytes()
}

/// Equal in one's complement, where 0 and 0xffff are the same number.
fn same(a: u16, b: u16) -> bool {
    a % 0xffff == b % 0xffff
}

/// Bytes that favour the words in which carries and the two zeros are met.
fn bytes(words: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![4 => any::<u16>(), 1 => Just(0), 1 => Just(0xffff), 1 => Just(1), 1 => Just(0xfffe)];
    prop::collection::vec(word, words).prop_map(|words| words.into_iter().flat_map(u16::to_be_bytes).collect())
}

#[test]
fn the_example_of_rfc_1071() {
    let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(fold(sum(&bytes)).to_ne_bytes(), [0xdd, 0xf2]);
    assert_eq!(finish(sum(&bytes)), [0x22, 0x0d]);
}

/// Where equation 2 of RFC 1624 gives 0xffff, an invalid checksum, equation 3 gives 0.
#[test]
fn the_example_of_rfc_1624() {
    let word = |word: u16| u64::from(word.to_be());
    let difference = difference(word(0x5555), word(0x3285));
    assert_eq!(update([0xdd, 0x2f], difference), [0x00, 0x00]);
    assert_eq!(update([0x00, 0x00], opposite(difference)), [0xdd, 0x2f]);
}

#[test]
fn a_sum_folds_to_zero_only_if_nothing_was_added() {
    assert_eq!(fold(0), 0);
    for sum in [0xffff, 0xffff_0000, 0xffff_ffff, 0x1_fffe, u64::MAX, u64::MAX - 0xffff] {
        assert_eq!(fold(sum), 0xffff, "{sum:#x}");
    }
}

#[test]
fn udp_never_writes_a_checksum_of_zero() {
    for sum in [0xffff, 0xffff_ffff, u64::MAX] {
        assert_eq!((finish(sum), finish_udp(sum)), ([0, 0], [0xff, 0xff]));
    }
    assert_eq!(finish_udp(0), [0xff, 0xff]);
    assert_eq!(finish_udp(1), finish(1));
    for field in 0..=u16::MAX {
        // The difference that brings the field to zero in one step.
        let to_zero = difference(u64::from(!field), 0xffff);
        assert_eq!(update(field.to_ne_bytes(), to_zero), [0, 0], "{field:#x}");
        assert_eq!(update_udp(field.to_ne_bytes(), to_zero), [0xff, 0xff], "{field:#x}");
    }
}

proptest! {
    #![proptest_config(cases(512))]

    #[test]
    fn a_checksum_is_that_of_another_implementation(bytes in bytes(1..40)) {
        prop_assert_eq!(finish(sum(&bytes)), recomputed(&bytes));
    }

    #[test]
    fn folding_keeps_the_number(word in any::<u64>(), more in any::<u64>()) {
        prop_assert_eq!(u64::from(fold(word)) % 0xffff, word % 0xffff);
        prop_assert_eq!(fold(u64::from(fold(word))), fold(word));
        let halves = u64::from(fold(word >> 32)) + u64::from(fold(word & 0xffff_ffff));
        prop_assert_eq!(fold(halves), fold(word));
        let apart = u64::from(fold(add(0, word))) + u64::from(fold(add(0, more)));
        prop_assert_eq!(fold(add(add(0, word), more)), fold(apart));
        prop_assert_eq!(fold(add(0, word)), fold(word));
    }

    /// RFC 1071 section 2(B).
    #[test]
    fn the_order_of_bytes_does_not_matter(bytes in bytes(1..20)) {
        let swapped: Vec<u8> = bytes.chunks(2).flat_map(|pair| [pair[1], pair[0]]).collect();
        prop_assert_eq!(fold(sum(&bytes)).swap_bytes(), fold(sum(&swapped)));
    }

    #[test]
    fn an_updated_checksum_is_the_recomputed_one(
        rest in bytes(0..10),
        (old, new) in (1_usize..12).prop_flat_map(|len| (bytes(len..len + 1), bytes(len..len + 1))),
    ) {
        let before = [&rest[..], &old].concat();
        let after = [&rest[..], &new].concat();
        let difference = difference(sum(&old), sum(&new));
        let updated = update(recomputed(&before), difference);
        let full = recomputed(&after);
        let (updated_number, full_number) = (u16::from_ne_bytes(updated), u16::from_ne_bytes(full));
        prop_assert!(same(updated_number, full_number), "{updated:?} for {full:?}");
        // No header sums up to zero: there is always a version, a length or a protocol. Without that, the two zeros are
        // told apart by what can't be known from a checksum alone.
        if sum(&before) != 0 && sum(&after) != 0 {
            prop_assert_eq!(updated, full);
            let udp = update_udp(recomputed(&before), difference);
            prop_assert_eq!(udp, finish_udp(sum(&after)));
            prop_assert_ne!(udp, [0, 0]);
            prop_assert_eq!(update(updated, opposite(difference)), recomputed(&before));
        }
    }

    #[test]
    fn differences_add_up_and_cancel_out(a in any::<u64>(), b in any::<u64>(), c in any::<u64>()) {
        let there = difference(a, b);
        prop_assert!(same(opposite(there), difference(b, a)));
        prop_assert_eq!(opposite(opposite(there)), there);
        prop_assert_eq!(fold(u64::from(there) + u64::from(opposite(there))), 0xffff);
        let by_way_of_b = fold(u64::from(there) + u64::from(difference(b, c)));
        prop_assert!(same(by_way_of_b, difference(a, c)));
        prop_assert!(same(fold(u64::from(fold(a)) + u64::from(there)), fold(b)));
    }

    #[test]
    fn an_update_of_udp_is_never_zero(field in any::<[u8; 2]>(), difference in any::<u16>()) {
        let updated = update_udp(field, difference);
        prop_assert_ne!(updated, [0, 0]);
        let plain = update(field, difference);
        prop_assert_eq!(updated, if plain == [0, 0] { [0xff, 0xff] } else { plain });
    }
}
