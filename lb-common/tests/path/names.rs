//! Names of questions: folded eight bytes at a time here, byte by byte in what they are compared with.

use crate::support::{
    Numbers, cases,
    messages::Name,
    tables::{KEYS, words, words_of_name},
};
use lb_common::{
    hash::Keys,
    path::answer::{lower_case, name_hash},
    tables::NAME_WORDS,
};
use proptest::prelude::*;

fn hash(name: &Name) -> Option<u64> {
    name_hash(&KEYS, &words(&name.0))
}

/// The longest name (RFC 1035 section 3.1).
const LONGEST: usize = 255;

#[test]
fn every_byte_is_folded_as_ascii_in_every_lane() {
    let mut numbers = Numbers(1);
    for byte in 0..=u8::MAX {
        for lane in 0..8 {
            // The neighbours must neither matter nor be harmed: extremes for carries, and anything.
            for around in [0, u64::MAX, 0x4141_4141_4141_4141, 0x7a7a_7a7a_7a7a_7a7a, numbers.next()] {
                let mut bytes = around.to_le_bytes();
                bytes[lane] = byte;
                let folded = bytes.map(|byte| byte.to_ascii_lowercase());
                assert_eq!(lower_case(u64::from_le_bytes(bytes)).to_le_bytes(), folded, "{bytes:?}");
            }
        }
    }
}

/// A name cut into labels at random that takes a given length on the wire.
fn cut(length: usize, seed: u64) -> Name {
    let mut numbers = Numbers(seed);
    let mut labels = Vec::new();
    let mut left = length - 1;
    while left > 0 {
        let longest = (left - 1).min(63);
        let mut label = 1 + numbers.next() as usize % longest;
        if left - label - 1 == 1 {
            // One byte is no label: give it to this one, or take one from it.
            label = if label == longest { label - 1 } else { label + 1 };
        }
        // Any byte may stand in a label (RFC 2181 section 11) but zero, which `lb` refuses in its names.
        labels.push((0..label).map(|_| 1 + (numbers.next() % 255) as u8).collect::<Vec<u8>>());
        left -= label + 1;
    }
    let name = Name::from_labels(labels.iter().map(Vec::as_slice));
    assert_eq!(name.length(), length);
    name
}

#[test]
fn names_of_every_length_have_a_hash_that_ignores_case_and_what_follows() {
    let mut hashes = std::collections::BTreeSet::new();
    for length in (1..=LONGEST).filter(|length| *length != 2) {
        let name = cut(length, length as u64);
        let hash = hash(&name).unwrap();
        let upper = name.0.to_ascii_uppercase();
        for variant in [&upper, &name.in_lower_case().0, &name.in_mixed_case().0] {
            for filler in [0, 1, b'Q', 0xff] {
                assert_eq!(name_hash(&KEYS, &words_of_name(variant, filler)), Some(hash), "{name:?}");
            }
        }
        assert!(hashes.insert(hash), "another name has the hash of {name:?}");
    }
}

#[test]
fn a_name_ends_within_255_bytes_or_has_no_hash() {
    let endless = |last_zero: Option<usize>| {
        let mut bytes = vec![b'x'; NAME_WORDS * 8];
        last_zero.into_iter().for_each(|at| bytes[at] = 0);
        name_hash(&KEYS, &words(&bytes))
    };
    assert_eq!(endless(None), None);
    assert_eq!(endless(Some(255)), None, "256 bytes");
    assert!(endless(Some(254)).is_some(), "255 bytes");
    assert!(endless(Some(0)).is_some(), "the root");
}

#[test]
fn unrelated_names_have_hashes_of_their_own() {
    let mut hashes = std::collections::BTreeSet::new();
    let names = (0..5_000).flat_map(|index| {
        ["example.com", "example.org", "internal"].map(|zone| Name::of(&format!("host-{index}.{zone}")))
    });
    for name in names {
        assert!(hashes.insert(hash(&name).unwrap()), "another name has the hash of {name:?}");
    }
}

#[test]
fn labels_are_part_of_a_name() {
    let names = ["abc.def", "abcdef", "ab.cdef", "abc.d.ef", "a.b.c.d.e.f", "def.abc", "abc", ""].map(Name::of);
    for (index, name) in names.iter().enumerate() {
        for other in &names[index + 1..] {
            assert_ne!(hash(name), hash(other), "{name:?} and {other:?}");
        }
    }
}

#[test]
fn a_key_changes_every_hash() {
    let other = Keys { name: KEYS.name ^ 1, ..KEYS };
    for length in (1..=LONGEST).filter(|length| *length != 2) {
        let name = words(&Name::of_length(length).0);
        assert_ne!(name_hash(&KEYS, &name), name_hash(&other, &name));
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_word_is_folded_as_its_bytes_are(word in any::<[u8; 8]>()) {
        let folded = word.map(|byte| byte.to_ascii_lowercase());
        prop_assert_eq!(lower_case(u64::from_le_bytes(word)).to_le_bytes(), folded);
    }

    #[test]
    fn case_variants_have_one_hash_and_other_names_another(
        length in 3..=LONGEST,
        seed in any::<u64>(),
        flips in prop::collection::vec(any::<prop::sample::Index>(), 1..8),
    ) {
        let name = cut(length, seed);
        let mut other = name.0.clone();
        for flip in &flips {
            let byte = flip.get(&name.0);
            let at = flip.index(name.length());
            // The bit that tells the cases of a letter apart.
            other[at] = byte ^ 0x20;
        }
        let same = other.eq_ignore_ascii_case(&name.0);
        let end = other.iter().position(|byte| *byte == 0);
        prop_assume!(end.is_some());
        prop_assert_eq!(name_hash(&KEYS, &words(&other)) == hash(&name), same);
    }
}
