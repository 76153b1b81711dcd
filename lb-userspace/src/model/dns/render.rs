//! Answers as the kernel sends them, and back.

use super::respond::Asked;
use bytemuck::Zeroable;
use lb_common::{
    checksum,
    hash::Keys,
    path::answer::name_hash,
    tables::{Answer, AnswerKey, MAX_RECORDS, NAME_WORDS},
    wire::dns::{A, AAAA, IN},
};
use std::net::IpAddr;

/// Where the kernel looks for the answer to this question; `wire` is the name with its root label.
pub fn answer_key(keys: &Keys, wire: &[u8], kind: u16) -> Option<AnswerKey> {
    Some(AnswerKey { name: name_hash(keys, &name_words(wire)?)?, kind: kind_word(kind) })
}

/// The answer to this question, never spent. `None` without addresses, with more than [`MAX_RECORDS`], with one of the wrong
/// family, or for a name that is none.
pub fn answer(wire: &[u8], kind: u16, ttl_seconds: u32, addresses: &[IpAddr]) -> Option<Answer> {
    // The path points to the question for a record's owner; for the root, one byte, hickory does not.
    if addresses.is_empty() || addresses.len() > MAX_RECORDS || wire.len() < 2 {
        return None;
    }
    let mut answer = Answer {
        name: name_words(wire)?,
        kind: kind_word(kind),
        spent_at: u64::MAX,
        ttl_seconds,
        count: addresses.len() as u32,
        ..Answer::zeroed()
    };
    for (cell, address) in answer.records.iter_mut().zip(addresses) {
        *cell = record(kind, *address)?;
    }
    answer.sum = answer.records.as_flattened().iter().fold(0, |sum, word| checksum::add(sum, *word));
    Some(answer)
}

/// The question that an answer of the kernel belongs to.
pub fn asked(answer: &Answer) -> Option<Asked> {
    let name: &[u8] = bytemuck::cast_slice(&answer.name);
    let end = name.iter().position(|byte| *byte == 0)?;
    let kind = answer.kind as u16;
    let is_known = matches!(kind, A | AAAA) && answer.kind == kind_word(kind);
    is_known.then_some(Asked { wire: name.get(..=end)?.to_vec(), kind })
}

/// The addresses in an answer of the kernel.
pub fn addresses(answer: &Answer) -> Vec<IpAddr> {
    let records = answer.records.iter().take(answer.count as usize);
    let addresses = records.filter_map(|cell| {
        let (_, data) = bytemuck::cast_slice::<_, u8>(cell).split_at_checked(FIXED)?;
        match answer.kind as u16 {
            A => data.first_chunk::<4>().copied().map(IpAddr::from),
            AAAA => data.first_chunk::<16>().copied().map(IpAddr::from),
            _ => None,
        }
    });
    addresses.collect()
}

/// Bytes of a record before its data: owner, type, class, TTL and length.
const FIXED: usize = 12;

/// A record with its TTL zero. Its owner is a pointer to the question, which is always right behind the header.
fn record(kind: u16, address: IpAddr) -> Option<[u64; 4]> {
    let (own, data) = match address {
        IpAddr::V4(address) => (A, address.octets().to_vec()),
        IpAddr::V6(address) => (AAAA, address.octets().to_vec()),
    };
    let length = data.len() as u16;
    let parts = [&[0xc0, 12][..], &kind.to_be_bytes(), &IN.to_be_bytes(), &[0; 4], &length.to_be_bytes(), &data];
    let mut cell = [0; 4];
    fill(&mut cell, &parts.concat());
    (own == kind).then_some(cell)
}

fn kind_word(kind: u16) -> u64 {
    u64::from(kind) | u64::from(IN) << 16
}

/// A name as its words in lower case. A zero byte within a label would end the name for the path.
fn name_words(wire: &[u8]) -> Option<[u64; NAME_WORDS]> {
    let (last, labels) = wire.split_last()?;
    if *last != 0 || labels.contains(&0) || wire.len() > NAME_WORDS * 8 - 1 {
        return None;
    }
    let mut words = [0; NAME_WORDS];
    fill(&mut words, &wire.to_ascii_lowercase());
    Some(words)
}

/// Copies bytes into words, in the order of memory.
fn fill(words: &mut [u64], bytes: &[u8]) {
    let to: &mut [u8] = bytemuck::cast_slice_mut(words);
    to.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::path::answer::lower_case;

    const KEYS: Keys = Keys { flow: [1, 2, 3], multiplier: 5, name: 0x1234_5678_9abc_def0 };
    const NAME: &[u8] = b"\x03www\x07example\x03com\0";

    fn all(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn bytes(answer: &Answer, cell: usize) -> &[u8] {
        bytemuck::cast_slice(&answer.records[cell])
    }

    #[test]
    fn records_are_rendered_to_the_byte() {
        let four = answer(NAME, A, 300, &all(&["192.0.2.1", "192.0.2.2"])).unwrap();
        assert_eq!(bytes(&four, 0)[..16], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 1]);
        assert_eq!(bytes(&four, 1)[..16], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 192, 0, 2, 2]);
        assert_eq!((four.count, four.ttl_seconds, four.spent_at, four.kind), (2, 300, u64::MAX, 0x1_0001));
        assert!((2..MAX_RECORDS).all(|cell| bytes(&four, cell) == [0; 32]) && bytes(&four, 0)[16..] == [0; 16]);
        let six = answer(NAME, AAAA, 300, &all(&["2001:db8::1"])).unwrap();
        assert_eq!(bytes(&six, 0)[..14], [0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 0, 0, 16, 0x20, 0x01]);
        assert_eq!((bytes(&six, 0)[27], &bytes(&six, 0)[28..]), (1, &[0; 4][..]));
    }

    #[test]
    fn the_sum_is_that_of_the_records() {
        let four = answer(NAME, A, 300, &all(&["192.0.2.1", "255.255.255.255"])).unwrap();
        let words = (0..2)
            .flat_map(|cell| bytes(&four, cell).chunks(2))
            .map(|word| u64::from(word[0]) | u64::from(word[1]) << 8);
        assert_eq!(checksum::fold(four.sum), checksum::fold(words.sum()));
    }

    #[test]
    fn what_was_rendered_is_read_back() {
        let most: Vec<_> =
            (0..MAX_RECORDS as u16).map(|number| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, number])).collect();
        for (kind, list) in [(A, all(&["192.0.2.1", "0.0.0.0", "192.0.2.3"])), (AAAA, all(&["::"])), (AAAA, most)] {
            let rendered = answer(b"\x03WwW\0", kind, 1, &list).unwrap();
            assert_eq!(addresses(&rendered), list);
            assert_eq!(asked(&rendered), Some(Asked { wire: b"\x03www\0".to_vec(), kind }));
        }
        let zero = Answer::zeroed();
        assert_eq!((asked(&zero), addresses(&zero)), (None, vec![]));
        let other_class = Answer { kind: 0x3_0001, ..answer(NAME, A, 1, &all(&["192.0.2.1"])).unwrap() };
        assert_eq!(asked(&other_class), None);
    }

    #[test]
    fn what_the_kernel_could_not_send_is_not_rendered() {
        let one = all(&["192.0.2.1"]);
        assert!(answer(NAME, A, 1, &one).is_some());
        assert_eq!(answer(NAME, A, 1, &[]), None);
        assert_eq!(answer(NAME, AAAA, 1, &one), None);
        assert_eq!(answer(NAME, A, 1, &all(&["192.0.2.1", "2001:db8::1"])), None);
        assert_eq!(answer(NAME, 15, 1, &one), None);
        assert!(answer(NAME, A, 1, &one.repeat(MAX_RECORDS)).is_some());
        assert_eq!(answer(NAME, A, 1, &one.repeat(MAX_RECORDS + 1)), None);
        let long = |length: u8| [&[length][..], &[b'x'; 251], &[0]].concat();
        assert!(answer(&[&[1, b'a'][..], &long(1)].concat(), A, 1, &one).is_some(), "255 bytes");
        assert_eq!(answer(&[&[2, b'a', b'a'][..], &long(1)].concat(), A, 1, &one), None, "256 bytes");
        for wire in [&b""[..], b"\0", b"\x03www", b"\x03w\0w\0"] {
            assert_eq!(answer(wire, A, 1, &one), None, "{wire:?}");
        }
    }

    #[test]
    fn a_key_depends_on_name_and_type_but_not_on_case() {
        let key = |wire: &[u8], kind| answer_key(&KEYS, wire, kind).unwrap();
        assert_eq!(key(NAME, A), key(&NAME.to_ascii_uppercase(), A));
        assert_ne!(key(NAME, A), key(NAME, AAAA));
        assert_ne!(key(NAME, A), key(b"\x03wwx\x07example\x03com\0", A));
        assert_ne!(key(NAME, A), answer_key(&Keys { name: 1, ..KEYS }, NAME, A).unwrap());
        assert_eq!(answer_key(&KEYS, b"\x03www", A), None);
        // Both fold the same bytes.
        let folded = |byte: u8| lower_case(u64::from(byte)) as u8;
        assert!((0..=255).all(|byte: u8| folded(byte) == byte.to_ascii_lowercase()));
    }
}
