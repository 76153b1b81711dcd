//! Cookies that were found right before: a client shows the same one for half an hour, and to hash it anew for each question is a
//! fifth of the whole path.

use super::Asked;
use crate::{
    dns::cookie::Cookie,
    tables::{
        Tables,
        answers::{SHOWN, SHOWN_WORDS},
    },
};
use core::cell::Cell;

/// Whether this very cookie was found to be made for the client with this secret.
#[inline(always)]
pub fn is_known<T: Tables>(asked: &Asked<'_, T>, secret: &[u64; 2], cookie: &Cookie) -> bool {
    let shown = words(asked, secret, cookie);
    let is_same = |row: &[Cell<u64>; SHOWN_WORDS]| {
        row.iter().zip(shown).fold(0, |difference, (known, word)| difference | known.get() ^ word) == 0
    };
    asked.tables.with_shown(row(cookie), is_same).unwrap_or(false)
}

/// Remembers that it was.
#[inline(always)]
pub fn remember<T: Tables>(asked: &Asked<'_, T>, secret: &[u64; 2], cookie: &Cookie) {
    let shown = words(asked, secret, cookie);
    let store = |row: &[Cell<u64>; SHOWN_WORDS]| row.iter().zip(shown).for_each(|(known, word)| known.set(word));
    let _ = asked.tables.with_shown(row(cookie), store);
}

/// A cookie's row. Whoever wants to push out another's has to have one that is right.
#[inline(always)]
const fn row(cookie: &Cookie) -> u32 {
    cookie.hash as u32 & (SHOWN - 1)
}

/// All that its hash is made from, and the hash.
#[inline(always)]
fn words<T: Tables>(asked: &Asked<'_, T>, secret: &[u64; 2], cookie: &Cookie) -> [u64; SHOWN_WORDS] {
    let [first, second] = asked.packet.from.address;
    let [key0, key1] = *secret;
    let Cookie { client, stamp, hash } = *cookie;
    [first, second, asked.packet.family.into(), client, stamp, hash, key0, key1]
}
