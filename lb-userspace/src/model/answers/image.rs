//! Answers as they lie in the answer space, but for where: that is known when they are put there.

use crate::model::dns::rendered::{Body, Question, Rendered};
use lb_common::{
    checksum,
    hash::Keys,
    path::answer::name_hash,
    tables::{
        NAME_WORDS,
        answers::{BODY_WORDS, BodyHead, HEAD_WORDS, MAX_TTLS, Pick, question_hash},
    },
    wire::dns::{A, AAAA},
};
use std::{borrow::Cow, net::IpAddr, sync::Arc};
use thiserror::Error;

/// Why the kernel can't hold an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// The name is none, or has a zero byte within a label, which for the path would end it.
    #[error("no such name can be asked for")]
    Name,
    /// A body is longer than any place for one, or has too many TTLs to age, or there are too many bodies.
    #[error("it is too long")]
    Long,
}

/// Hash of a question, by which it is found.
pub fn hash(keys: &Keys, question: &Question) -> Option<u64> {
    let (last, labels) = question.wire.split_last()?;
    if *last != 0 || labels.contains(&0) || question.wire.len() > NAME_WORDS * 8 - 1 {
        return None;
    }
    let mut words = [0; NAME_WORDS];
    fill(&mut words, &question.wire);
    Some(question_hash(name_hash(keys, &words)?, question.kind))
}

/// An answer with all its bodies, in one piece: a million of them are held.
///
/// The number of bodies (bits 0 to 15) and of slots (16 to 31) and the [`Pick`] (32 and 33) are the first word. The slots follow,
/// four to a word, then the bodies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image(Arc<[u64]>);

impl Image {
    /// Of the answer to this question.
    pub fn new(question: &Question, rendered: &Rendered) -> Result<Self, Unfit> {
        let rendered = unrolled(question, rendered);
        let Rendered { pick, slots, bodies } = &*rendered;
        let count = |length: usize| u16::try_from(length).map(u64::from).map_err(|_| Unfit::Long);
        let mut words = vec![count(bodies.len())? | count(slots.len())? << 16 | (*pick as u64) << 32];
        words.extend(slots.chunks(4).map(|four| four.iter().rev().fold(0, |word, slot| word << 16 | u64::from(*slot))));
        for body in bodies {
            words.extend(body_words(question, body)?);
        }
        Ok(Self(words.into()))
    }

    fn head(&self) -> u64 {
        self.0.first().copied().unwrap_or_default()
    }

    /// How one of its bodies is chosen.
    pub fn pick(&self) -> Pick {
        match self.head() >> 32 & 3 {
            0 => Pick::Only,
            1 => Pick::Turn,
            2 => Pick::Random,
            _ => Pick::Client,
        }
    }

    fn slot_count(&self) -> usize {
        usize::from((self.head() >> 16) as u16)
    }

    /// Which body each slot leads to; none if there is but one body.
    pub fn slots(&self) -> impl ExactSizeIterator<Item = usize> {
        (0..self.slot_count()).map(|slot| {
            let word = self.0.get(1 + slot / 4).copied().unwrap_or_default();
            usize::from((word >> (slot % 4 * 16)) as u16)
        })
    }

    /// The bodies, without generations.
    pub fn bodies(&self) -> impl Iterator<Item = &[u64]> {
        let mut rest = self.0.get(1 + self.slot_count().div_ceil(4)..).unwrap_or_default();
        std::iter::from_fn(move || {
            let (body, behind) = rest.split_at_checked(body_length(&head_of(rest)?))?;
            rest = behind;
            Some(body)
        })
    }

    /// The question that it answers.
    pub fn question(&self) -> Option<Question> {
        question_of(self.bodies().next()?)
    }

    /// Whether it has an end: what is not ours, or what is not said of a name.
    pub fn is_cached(&self) -> bool {
        self.bodies().next().and_then(head_of).is_some_and(|head| head.spent_at != u64::MAX)
    }

    /// The second in which it ends; `u64::MAX`: it does not.
    pub fn spent_at(&self) -> u64 {
        self.bodies().next().and_then(head_of).map_or(u64::MAX, |head| head.spent_at)
    }
}

/// What a body begins with.
pub fn head_of(words: &[u64]) -> Option<BodyHead> {
    let words: &[u64; HEAD_WORDS] = words.first_chunk()?;
    Some(bytemuck::cast(*words))
}

/// The same body with this generation.
pub fn with_generation(body: &[u64], generation: u16) -> Vec<u64> {
    let mut words = body.to_vec();
    if let (Some(head), Some(first)) = (head_of(body), words.first_chunk_mut::<HEAD_WORDS>()) {
        *first = bytemuck::cast(BodyHead { generation, ..head });
    }
    words
}

/// The question that a body answers.
pub fn question_of(words: &[u64]) -> Option<Question> {
    let head = head_of(words)?;
    let name: &[u8] = bytemuck::cast_slice(words.get(HEAD_WORDS..)?);
    Some(Question { wire: name.get(..head.name_length.into())?.into(), kind: head.kind })
}

/// The records of a body, each once.
pub fn records_of(words: &[u64]) -> Option<&[u8]> {
    let head = head_of(words)?;
    bytemuck::cast_slice(words.get(head.records.into()..)?).get(..head.length.into())
}

/// The addresses in records.
pub fn addresses_of(mut records: &[u8]) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    while let Some((kind, data, rest)) = record(records) {
        addresses.extend(match kind {
            A => <[u8; 4]>::try_from(data).ok().map(IpAddr::from),
            AAAA => <[u8; 16]>::try_from(data).ok().map(IpAddr::from),
            _ => None,
        });
        records = rest;
    }
    addresses
}

/// Type and data of the first record, and what follows it.
fn record(records: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let mut rest = records;
    // The owner: labels, and at last an empty one or a pointer.
    loop {
        let (length, behind) = rest.split_first()?;
        rest = behind.get(usize::from(if *length >= POINTER { 1 } else { *length })..)?;
        if *length == 0 || *length >= POINTER {
            break;
        }
    }
    let (fixed, rest) = rest.split_first_chunk::<10>()?;
    let [kind @ .., _, _, _, _, _, _, _, _] = fixed;
    let [.., high, low] = fixed;
    let (data, rest) = rest.split_at_checked(u16::from_be_bytes([*high, *low]).into())?;
    Some((u16::from_be_bytes(*kind), data, rest))
}

/// The first byte of what points to an earlier name (RFC 1035 section 4.1.4).
const POINTER: u8 = 0xc0;

/// Words of a body with this head.
pub fn body_length(head: &BodyHead) -> usize {
    usize::from(head.ttls_at) + usize::from(head.ttls).div_ceil(4)
}

/// The rotated records of a body once more but the last, so that the path rotates them by where it starts to copy: how long one of
/// them is. None if they are not alike, or not rotated.
fn stride(body: &Body) -> Option<usize> {
    let turns = usize::from(body.turns);
    let stride = body.records.len().checked_div(turns)?;
    (turns > 1 && stride * turns == body.records.len()).then_some(stride)
}

/// As [`stride`], if the path can do it: at even offsets, for no odd one would leave the sum as it is, and in a body of a length
/// that there is.
fn rotated_by_path(question: &Question, body: &Body) -> Option<usize> {
    let stride = stride(body).filter(|stride| stride.is_multiple_of(2) && body.ttls.is_empty())?;
    let bytes = body.records.len() * 2 - stride;
    (records_at(question) + bytes.div_ceil(8) <= BODY_WORDS).then_some(stride)
}

fn records_at(question: &Question) -> usize {
    HEAD_WORDS + question.wire.len().div_ceil(8)
}

/// With a body for each turn where the path can't rotate, as far as there are slots for them.
fn unrolled<'a>(question: &Question, rendered: &'a Rendered) -> Cow<'a, Rendered> {
    let is_unrolled = |body: &Body| stride(body).is_some() && rotated_by_path(question, body).is_none();
    let turns = rendered.bodies.iter().map(|body| usize::from(body.turns).max(1)).max().unwrap_or(1);
    let slots = rendered.slots.len().max(1) * turns;
    if !rendered.bodies.iter().any(is_unrolled) || u16::try_from(slots).is_err() {
        return Cow::Borrowed(rendered);
    }
    let bodies = rendered.bodies.iter().flat_map(|body| (0..turns).map(|turn| turned(body, turn)));
    let old: &[u16] = if rendered.slots.is_empty() { &[0] } else { &rendered.slots };
    let slots = old.iter().flat_map(|slot| (0..turns).map(move |turn| (usize::from(*slot) * turns + turn) as u16));
    let pick = if rendered.pick == Pick::Only { Pick::Turn } else { rendered.pick };
    Cow::Owned(Rendered { pick, slots: slots.collect(), bodies: bodies.collect() })
}

fn turned(body: &Body, turn: usize) -> Body {
    let by = stride(body).map_or(0, |stride| stride * (turn % usize::from(body.turns).max(1)));
    let mut records = body.records.clone();
    records.rotate_left(by.min(body.records.len()));
    let length = body.records.len();
    let ttls = body.ttls.iter().map(|at| ((usize::from(*at) + length - by) % length) as u16);
    Body { turns: 0, ttls: ttls.collect(), records, ..body.clone() }
}

fn body_words(question: &Question, body: &Body) -> Result<Vec<u64>, Unfit> {
    let records = records_at(question);
    let stride = rotated_by_path(question, body).unwrap_or_default();
    let twice = if stride > 0 { body.records.len() - stride } else { 0 };
    let ttls_at = records + (body.records.len() + twice).div_ceil(8);
    let mut words = vec![0; ttls_at + body.ttls.len().div_ceil(4)];
    if words.len() > BODY_WORDS || body.ttls.len() > MAX_TTLS.into() {
        return Err(Unfit::Long);
    }
    let [answers, authorities, additionals] = body.counts;
    let head = BodyHead {
        kind: question.kind,
        generation: 0,
        name_length: u8::try_from(question.wire.len()).map_err(|_| Unfit::Name)?,
        class: body.class,
        flags: body.flags,
        answers,
        authorities,
        additionals,
        length: body.records.len() as u16,
        records: records as u16,
        stride: stride as u16,
        turns: if stride > 0 { body.turns } else { 0 },
        sum: u32::from(checksum::fold(sum(&body.records))),
        ttls: body.ttls.len() as u16,
        ttls_at: ttls_at as u16,
        since: body.since,
        spent_at: body.spent_at,
    };
    let mut put = |from: usize, bytes: &[u8]| words.get_mut(from..).into_iter().for_each(|words| fill(words, bytes));
    put(0, bytemuck::bytes_of(&head));
    put(HEAD_WORDS, &question.wire);
    let again = body.records.get(..twice).unwrap_or_default();
    put(records, &[&body.records, again].concat());
    put(ttls_at, bytemuck::cast_slice(&body.ttls));
    Ok(words)
}

fn sum(bytes: &[u8]) -> u64 {
    let word = |bytes: &[u8]| {
        let mut word = [0];
        fill(&mut word, bytes);
        word.into_iter().fold(0, checksum::add)
    };
    bytes.chunks(8).map(word).sum()
}

/// Copies bytes into words, in the order of memory.
fn fill(words: &mut [u64], bytes: &[u8]) {
    let to: &mut [u8] = bytemuck::cast_slice_mut(words);
    to.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &[u8] = b"\x03www\x07example\x03com\0";

    fn question() -> Question {
        Question { wire: NAME.into(), kind: 0x1_0001 }
    }

    fn body(lengths: &[usize]) -> Body {
        let records: Vec<u8> =
            (1..).zip(lengths).flat_map(|(number, length)| std::iter::repeat_n(number, *length)).collect();
        Body { records, turns: lengths.len() as u16, spent_at: u64::MAX, ..Body::default() }
    }

    fn rendered(body: Body) -> Rendered {
        Rendered { pick: Pick::Turn, slots: vec![], bodies: vec![body] }
    }

    #[test]
    fn rotated_records_follow_once_more_but_the_last() {
        let image = Image::new(&question(), &rendered(body(&[16, 16, 16]))).unwrap();
        assert_eq!((image.slots().len(), image.pick(), image.bodies().count()), (0, Pick::Turn, 1));
        assert_eq!(image.question(), Some(question()));
        let words = image.bodies().next().unwrap();
        let head = head_of(words).unwrap();
        assert_eq!((head.length, head.stride, head.turns, head.records), (48, 16, 3, HEAD_WORDS as u16 + 3));
        assert_eq!(words.len(), HEAD_WORDS + 3 + 10);
        let all: &[u8] = bytemuck::cast_slice(&words[usize::from(head.records)..]);
        assert_eq!([all[0], all[16], all[32], all[48], all[64]], [1, 2, 3, 1, 2]);
        assert_eq!(head_of(&with_generation(words, 7)), Some(BodyHead { generation: 7, ..head }));
        assert_eq!(records_of(words).map(<[u8]>::len), Some(48));
    }

    #[test]
    fn what_the_path_cannot_rotate_is_there_in_every_order() {
        for length in [15, 400] {
            let image = Image::new(&question(), &rendered(body(&[length; 3]))).unwrap();
            assert_eq!(image.slots().collect::<Vec<_>>(), [0, 1, 2]);
            let firsts: Vec<u8> = image.bodies().map(|words| records_of(words).unwrap()[0]).collect();
            assert_eq!(firsts, [1, 2, 3]);
            assert!(image.bodies().all(|words| head_of(words).unwrap().turns == 0));
        }
        let shuffled =
            Rendered { pick: Pick::Random, slots: vec![1, 0], bodies: vec![body(&[15, 15]), body(&[15, 15])] };
        let image = Image::new(&question(), &shuffled).unwrap();
        assert_eq!((image.slots().collect::<Vec<_>>(), image.pick()), (vec![2, 3, 0, 1], Pick::Random));
    }

    #[test]
    fn what_is_too_long_does_not_fit() {
        assert_eq!(Image::new(&question(), &rendered(body(&[1_500]))), Err(Unfit::Long));
        assert!(Image::new(&question(), &rendered(body(&[1_400]))).is_ok());
        let ttls = Body { ttls: vec![4; 33], ..body(&[40]) };
        assert_eq!(Image::new(&question(), &rendered(ttls)), Err(Unfit::Long));
    }

    #[test]
    fn addresses_are_found_among_records() {
        let records = [
            &b"\xc0\x0c\0\x01\0\x01\0\0\0\x1e\0\x04\xc0\0\x02\x01"[..],
            b"\x01a\x02bc\0\0\x10\0\x01\0\0\0\x1e\0\x02\x01x",
            b"\x01a\xc0\x0c\0\x1c\0\x01\0\0\0\x1e\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01",
        ];
        let expected: Vec<IpAddr> = ["192.0.2.1", "2001:db8::1"].map(|text| text.parse().unwrap()).into();
        assert_eq!(addresses_of(&records.concat()), expected);
        assert_eq!(addresses_of(&records.concat()[..40]), expected[..1]);
    }

    #[test]
    fn a_name_that_nobody_can_ask_for_has_no_hash() {
        let keys = Keys { flow: [1, 2, 3], multiplier: 5, name: 7 };
        let hash = |wire: &[u8], kind| hash(&keys, &Question { wire: wire.into(), kind });
        assert!(hash(NAME, 1).is_some() && hash(b"\0", 1).is_some());
        assert_ne!(hash(NAME, 1), hash(NAME, 2));
        for wire in [&b""[..], b"\x03www", b"\x03w\0w\0", &[b'x'; 256]] {
            assert_eq!(hash(wire, 1), None, "{wire:?}");
        }
    }
}
