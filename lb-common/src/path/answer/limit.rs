//! How many answers clients get that may not be where they say, how many questions they may hand to the agent, and for how long
//! answers go on without it.

use super::{Asked, pick};
use crate::tables::{
    Tables,
    answers::{LIMIT_BUCKETS, TURNS},
};
use core::cell::Cell;

/// Clock ticks of 2^20 ns (1.05 ms): a shift, where milliseconds would take a division.
const TICK_BITS: u64 = 20;
/// What a token is in a bucket: as many ticks as a second has, so that a bucket gains its rate with each.
const TOKEN: u64 = 1_000_000_000 >> TICK_BITS;
/// Ticks by which the clock of another CPU can be ahead.
const AHEAD: u32 = 1_000;

/// Takes a token for an answer.
#[inline(always)]
pub fn takes_answer<T: Tables>(asked: &Asked<'_, T>, clock: u64) -> bool {
    takes(asked, 0, asked.dns.answer_rate, clock)
}

/// Takes a token for a question that is handed to the agent.
#[inline(always)]
pub fn takes_miss<T: Tables>(asked: &Asked<'_, T>) -> bool {
    takes(asked, LIMIT_BUCKETS, asked.dns.miss_rate, asked.tables.nanoseconds())
}

/// Takes a token of the client's bucket, of those from `first` on. Two CPUs that do so at the same moment may take one token for both.
#[inline(always)]
fn takes<T: Tables>(asked: &Asked<'_, T>, first: u32, rate: u64, clock: u64) -> bool {
    let (gain, most) = (rate & 0xffff_ffff, (rate >> 32) * TOKEN);
    if gain == 0 {
        return true;
    }
    let now = (clock >> TICK_BITS) as u32;
    let take = |bucket: &Cell<u64>| {
        let word = bucket.get();
        let (seen, tokens) = (word as u32, word >> 32);
        let elapsed = now.wrapping_sub(seen);
        let tokens = if word == 0 {
            // Nobody was here before.
            most
        } else if elapsed > u32::MAX - AHEAD {
            tokens
        } else {
            let tokens = tokens + u64::from(elapsed) * gain;
            if tokens > most { most } else { tokens }
        };
        let is_taken = tokens >= TOKEN;
        let left = if is_taken { tokens - TOKEN } else { tokens };
        bucket.set(u64::from(now) | left << 32);
        is_taken
    };
    asked.tables.with_tokens(first + (asked.client() & (LIMIT_BUCKETS - 1)), take).unwrap_or(true)
}

/// Whether it is this answer's turn to be sent truncated, of those beyond the rate.
#[inline(always)]
pub fn slips<T: Tables>(asked: &Asked<'_, T>) -> bool {
    let every = asked.dns.slip_and_prefixes as u32 & 0xff;
    let client = u64::from(asked.client());
    every != 0 && pick::turn(asked.tables, client * u64::from(TURNS) | client, every) == 0
}

/// Whether this second is over.
#[inline(always)]
pub const fn is_over(second: u64, clock: u64) -> bool {
    // Later than any clock gets, and more than the product has room for.
    second < 1 << 33 && clock >= (second + 1) * 1_000_000_000
}
