//! From a question to the body of its answer.

use super::{Asked, edns::Edns, pick, question::Question};
use crate::{
    hash,
    tables::{
        Region, Scratch, Tables,
        answers::{AnswerSlot, BODY_WORDS, HEAD_WORDS, Leads},
    },
    verdict::Why,
};
use core::hint::black_box;

/// A body, and what is sent of it.
#[derive(Clone, Copy)]
pub struct Found<'t> {
    /// All of it.
    pub body: &'t [u64; BODY_WORDS],
    /// Its first word, as it was when the name was compared.
    pub first: u64,
    /// The word that led to it, for the turn.
    pub leads: Leads,
    /// A number by chance or by the client, where the pick is one of these.
    pub draw: u64,
}

/// The bits of a body's first word that are compared: type, class, generation and the name's length.
const COMPARED: u64 = !(0xff << 56);

/// Finds it.
#[inline(always)]
pub fn find<'t, T: Tables>(
    asked: &Asked<'t, T>,
    scratch: &Scratch,
    question: &Question,
    edns: &Edns,
) -> Result<Found<'t>, Why> {
    let leads = leads(asked, question, edns).ok_or(Why::DnsMiss)?;
    let draw = pick::draw(asked, &leads, question);
    let (block, generation) = if leads.slots == 0 {
        (leads.block, leads.generation)
    } else {
        let number = pick::slot(asked, &leads, question, draw);
        let AnswerSlot { block, generation } =
            asked.tables.answer_slot(leads.block, number).ok_or(Why::Inconsistent)?;
        (block, generation)
    };
    let body = asked.tables.body(block).ok_or(Why::Inconsistent)?;
    let [first, ..] = body;
    let first = asked.tables.once(first);
    let expected = u64::from(question.kind) | u64::from(generation) << 32 | (question.name_length as u64 & 0xff) << 48;
    if first & COMPARED != expected || !same_name(scratch, body, question.name_length) {
        return Err(Why::DnsMiss);
    }
    Ok(Found { body, first, leads, draw })
}

/// Where the index leads for this question.
#[inline(always)]
fn leads<T: Tables>(asked: &Asked<'_, T>, question: &Question, edns: &Edns) -> Option<Leads> {
    let Region { first, slots: buckets } = Region::from_word(asked.region);
    if buckets == 0 {
        return None;
    }
    let dnssec = if edns.wants_dnssec { 2 } else { 1 };
    let in_bucket = |half: u64| {
        let bucket = asked.tables.bucket(first.wrapping_add(hash::slot(half as u32, buckets)))?;
        for entry in bucket {
            if entry.question == question.hash {
                let leads = Leads::from_word(asked.tables.once(&entry.leads));
                if leads.generation != 0 && leads.dnssec & dnssec != 0 {
                    return Some(leads);
                }
            }
        }
        None
    };
    in_bucket(question.hash).or_else(|| in_bucket(question.hash >> 32))
}

/// Whether a body's name is the question's. Both are filled up with zeros to a whole word.
#[inline(always)]
fn same_name(scratch: &Scratch, body: &[u64; BODY_WORDS], length: usize) -> bool {
    // Counted in words, so that a way out of this loop tells the verifier nothing about the length itself.
    let words = black_box(length.div_ceil(8));
    let mut difference = 0;
    for (index, (asked, stored)) in scratch.name.iter().zip(body.iter().skip(HEAD_WORDS)).enumerate() {
        if index >= words {
            break;
        }
        difference |= asked ^ stored;
    }
    difference == 0
}

// The words of a `BodyHead`: narrower loads cost as much, and shifts are nearly free.
impl Found<'_> {
    /// See [`crate::tables::answers::BodyHead::class`].
    #[inline(always)]
    pub const fn class(&self) -> u8 {
        (self.first >> 56) as u8
    }

    /// Flags, and the counts of answers and authorities (bits 16 to 47) and additional records.
    #[inline(always)]
    pub const fn header(&self) -> u64 {
        let [_, header, ..] = self.body;
        *header
    }

    /// Flags of the message.
    #[inline(always)]
    pub const fn flags(&self) -> u16 {
        self.header() as u16
    }

    /// Bytes of records.
    #[inline(always)]
    pub const fn length(&self) -> usize {
        let [_, _, lengths, ..] = self.body;
        (*lengths & 0xffff) as usize
    }

    /// Where the first record is, in bytes.
    #[inline(always)]
    pub const fn records(&self) -> usize {
        let [_, _, lengths, ..] = self.body;
        (*lengths >> 16 & 0xffff) as usize * 8
    }

    /// Bytes from one record to the next.
    #[inline(always)]
    pub const fn stride(&self) -> usize {
        let [_, _, lengths, ..] = self.body;
        (*lengths >> 32 & 0xffff) as usize
    }

    /// How many records are rotated.
    #[inline(always)]
    pub const fn turns(&self) -> u32 {
        let [_, _, lengths, ..] = self.body;
        (*lengths >> 48) as u32
    }

    /// Sum of the records.
    #[inline(always)]
    pub const fn sum(&self) -> u64 {
        let [_, _, _, sums, ..] = self.body;
        *sums & 0xffff_ffff
    }

    /// Number of TTLs that are aged, and the word where their offsets begin.
    #[inline(always)]
    pub const fn ttls(&self) -> (u32, usize) {
        let [_, _, _, sums, ..] = self.body;
        ((*sums >> 32) as u32 & 0xffff, (*sums >> 48) as usize)
    }

    /// From which second on they are aged, and in which the first is spent.
    #[inline(always)]
    pub const fn times(&self) -> (u64, u64) {
        let [_, _, _, _, since, spent_at, ..] = self.body;
        (*since, *spent_at)
    }
}
