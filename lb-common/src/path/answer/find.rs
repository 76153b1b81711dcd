//! From a question to the body of its answer.

use super::{Asked, body::Body, edns::Edns, pick, question::Question};
use crate::{
    hash,
    tables::{
        Region, Scratch, Tables,
        answers::{AnswerSlot, HEAD_WORDS, Leads},
    },
    verdict::Why,
};
use core::hint::black_box;

/// The bits of a body's first word that are compared: type, class, generation and the name's length.
const COMPARED: u64 = !(0xff << 56);

/// Finds it; what led to it goes into the scratch.
#[inline(always)]
pub fn find<'t, T: Tables>(
    asked: &Asked<'t, T>,
    scratch: &mut Scratch,
    question: &Question,
    edns: &Edns,
) -> Result<&'t Body, Why> {
    let word = leads(asked, question, edns).ok_or(Why::DnsMiss)?;
    let leads = Leads::from_word(word);
    let draw = pick::draw(asked, &leads, question);
    let (block, generation) = if leads.slots == 0 {
        (leads.block, leads.generation)
    } else {
        let number = scratch.forget(pick::slot(asked, &leads, question, draw).into()) as u32;
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
    (scratch.reply.first, scratch.reply.leads, scratch.reply.draw) = (first, word, draw);
    Ok(body)
}

/// Where the index leads for this question.
#[inline(always)]
fn leads<T: Tables>(asked: &Asked<'_, T>, question: &Question, edns: &Edns) -> Option<u64> {
    let Region { first, slots: buckets } = Region::from_word(asked.region);
    if buckets == 0 {
        return None;
    }
    in_bucket(asked, first.wrapping_add(hash::slot(question.hash as u32, buckets)), question, edns).or_else(|| {
        in_bucket(asked, first.wrapping_add(hash::slot((question.hash >> 32) as u32, buckets)), question, edns)
    })
}

#[inline(always)]
fn in_bucket<T: Tables>(asked: &Asked<'_, T>, block: u32, question: &Question, edns: &Edns) -> Option<u64> {
    let dnssec = if edns.wants_dnssec { 2 } else { 1 };
    for entry in asked.tables.bucket(block)? {
        if entry.question == question.hash {
            let word = asked.tables.once(&entry.leads);
            let leads = Leads::from_word(word);
            if word != 0 && leads.dnssec & dnssec != 0 {
                return Some(word);
            }
        }
    }
    None
}

/// Whether a body's name is the question's. Both are filled up with zeros to a whole word.
#[inline(always)]
fn same_name(scratch: &Scratch, body: &Body, length: usize) -> bool {
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
