//! As [`crate::mutations`], of frames in tunnels.

use super::frames::{Named, repair};
use crate::{mutations::change, numbers::Numbers};

/// An endless row of them.
pub struct Mutations {
    bases: Vec<Named>,
    numbers: Numbers,
    round: usize,
}

impl Mutations {
    /// Of each base in turn.
    #[must_use]
    pub fn of(bases: Vec<Named>) -> Self {
        Self { bases, numbers: Numbers::new(1), round: 0 }
    }
}

impl Iterator for Mutations {
    type Item = Named;

    /// The next, under the name of its base.
    fn next(&mut self) -> Option<Named> {
        let mut named = self.bases.get(self.round % self.bases.len().max(1))?.clone();
        self.round += 1;
        mutate(&mut named.frame, named.outer, &mut self.numbers);
        Some(named)
    }
}

fn mutate(frame: &mut Vec<u8>, outer: usize, numbers: &mut Numbers) {
    match numbers.below(10) {
        0 | 1 => (),
        2..=5 => {
            for _ in 0..=numbers.below(2) {
                let offset = numbers.below(frame.len());
                change(frame, offset, |byte| byte ^ 1 << numbers.below(8));
            }
        }
        6 | 7 => {
            let offset = outer + numbers.below(60);
            change(frame, offset, |_| numbers.number() as u8);
        }
        // The kernel takes no frame shorter than an Ethernet header.
        8 => frame.truncate(14 + numbers.below(frame.len() - 13)),
        _ => frame.extend((0..=numbers.below(40)).map(|_| numbers.number() as u8)),
    }
    // A wrong outer checksum would keep all that is behind it from being looked at.
    if numbers.below(4) != 0 {
        repair(frame, outer);
    }
}
