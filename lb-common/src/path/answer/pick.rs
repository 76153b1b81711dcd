//! Which answer of several, and with which record it begins.

use super::{
    Asked,
    body::{Body, Fields as _},
    question::Question,
};
use crate::{
    hash::{self, name_step},
    tables::{
        ReplyParts, Tables,
        answers::{Leads, Pick, TURNS},
    },
};
use core::cell::Cell;

/// What a sequence of chance moves on by: odd, so that all values pass (Weyl, 1916), and far from any pattern.
const STEP: u32 = 0x9e37_79b9;

/// A number that the slot (upper half) or the record (lower half, or the upper one where there are no slots) is chosen by, where it is
/// no turn.
#[inline(always)]
pub fn draw<T: Tables>(asked: &Asked<'_, T>, leads: &Leads, question: &Question) -> u64 {
    match leads.pick {
        Pick::Random => random(asked, question.hash),
        Pick::Client => u64::from(asked.client()) << 32,
        Pick::Only | Pick::Turn => 0,
    }
}

/// The number of the slot.
#[inline(always)]
pub fn slot<T: Tables>(asked: &Asked<'_, T>, leads: &Leads, question: &Question, draw: u64) -> u32 {
    let slots = u32::from(leads.slots);
    match leads.pick {
        Pick::Turn => turn(asked.tables, question.hash, slots),
        _ => hash::slot((draw >> 32) as u32, slots),
    }
}

/// The number of the record that comes first. Slots that take turns, or that clients have, begin with the first record each.
#[inline(always)]
pub fn record<T: Tables>(asked: &Asked<'_, T>, body: &Body, question: &Question, parts: &ReplyParts) -> u32 {
    let turns = body.turns();
    if turns <= 1 {
        return 0;
    }
    let Leads { pick, slots, .. } = Leads::from_word(parts.leads);
    match (pick, slots) {
        (Pick::Turn, 0) => turn(asked.tables, question.hash, turns),
        (Pick::Random, 0) | (Pick::Client, 0) => hash::slot((parts.draw >> 32) as u32, turns),
        (Pick::Random, _) => hash::slot(parts.draw as u32, turns),
        _ => 0,
    }
}

/// The next number below `count`, which is at most 65,535, of this CPU's sequence for `key`.
///
/// Its row holds the number and who it is for. Where two keys share a row each finds the other's number, and begins anew at a place
/// that depends on it: what is no sequence then is at least spread evenly.
#[inline(always)]
pub fn turn<T: Tables>(tables: &T, key: u64, count: u32) -> u32 {
    let step = |row: &Cell<u32>| {
        let word = row.get();
        let owner = (key >> 48) as u32;
        let number = if word >> 16 != owner {
            hash::slot((name_step(key, word.into()) >> 32) as u32, count)
        } else if word & 0xffff >= count {
            0
        } else {
            word & 0xffff
        };
        row.set(owner << 16 | (number + 1));
        number
    };
    tables.with_turn(key as u32 & (TURNS - 1), step).unwrap_or_default()
}

/// The next number of this CPU's sequence of chance. Without the keys it can't be foretold.
#[inline(always)]
fn random<T: Tables>(asked: &Asked<'_, T>, key: u64) -> u64 {
    let step = |row: &Cell<u32>| {
        let word = row.get().wrapping_add(STEP);
        row.set(word);
        word
    };
    let word = asked.tables.with_turn(key as u32 & (TURNS - 1), step).unwrap_or_default();
    name_step(name_step(asked.settings.keys.name ^ key, word.into()), asked.settings.keys.multiplier)
}
