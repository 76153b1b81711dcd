//! TTLs of what another server said a while ago.

use super::{find::Found, question::Question};
use crate::{checksum, frame::Frame, tables::answers::MAX_TTLS, verdict::Why, wire::dns::Ttl};

/// The seconds by which an answer has aged, if it is not spent.
#[inline(always)]
pub fn elapsed(found: &Found<'_>, now: u64) -> Result<u32, Why> {
    let (since, spent_at) = found.times();
    if now >= spent_at {
        return Err(Why::DnsSpent);
    }
    Ok(u32::try_from(now.saturating_sub(since)).unwrap_or(u32::MAX))
}

/// Ages the TTLs of records that were copied behind the question. Returns what that adds to their sum as if they started at an even
/// offset.
#[inline(always)]
pub fn age<F: Frame>(frame: &mut F, found: &Found<'_>, question: &Question, elapsed: u32) -> Option<u64> {
    let (count, first) = found.ttls();
    let mut sum = 0;
    for index in 0..usize::from(MAX_TTLS) {
        if index as u32 >= count {
            break;
        }
        let offset = (found.body.get(first + index / 4)? >> (index % 4 * 16)) as u16;
        let ttl: &mut Ttl = frame.view_mut(question.end + usize::from(offset))?;
        let before = ttl.seconds.get();
        let after = before.swap_bytes().saturating_sub(elapsed).swap_bytes();
        ttl.seconds.set(after);
        let difference = checksum::difference(before.into(), after.into());
        sum += u64::from(if offset % 2 == 1 { difference.swap_bytes() } else { difference });
    }
    Some(sum)
}
