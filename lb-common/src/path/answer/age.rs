//! TTLs of what another server said a while ago.

use super::{
    body::{Body, Fields as _},
    question::Question,
};
use crate::{checksum, frame::Frame, tables::answers::MAX_TTLS, verdict::Why, wire::dns::Ttl};

/// The seconds by which an answer has aged, if it is not spent.
#[inline(always)]
pub fn elapsed(body: &Body, now: u64) -> Result<u32, Why> {
    let (since, spent_at) = body.times();
    if now >= spent_at {
        return Err(Why::DnsSpent);
    }
    Ok(u32::try_from(now.saturating_sub(since)).unwrap_or(u32::MAX))
}

/// Ages the TTLs of records that were copied behind the question. Returns what that adds to their sum as if they started at an even
/// offset.
#[inline(always)]
pub fn age<F: Frame>(frame: &mut F, body: &Body, question: &Question, elapsed: u32) -> Option<u64> {
    let (count, first) = body.ttls();
    let mut sum = 0;
    for index in 0..usize::from(MAX_TTLS) {
        if index as u32 >= count {
            break;
        }
        let offset = (body.get(first + index / 4)? >> (index % 4 * 16)) as u16;
        let ttl: &mut Ttl = frame.view_mut(question.end + usize::from(offset))?;
        let before = ttl.seconds.get();
        // No TTL is less than what passed: the answer would be spent.
        let after = before.swap_bytes().wrapping_sub(elapsed).swap_bytes();
        ttl.seconds.set(after);
        // Eight bits up is as good as swapped, once the carries are folded.
        sum += u64::from(checksum::difference(before.into(), after.into())) << (offset % 2 * 8);
    }
    Some(sum)
}
