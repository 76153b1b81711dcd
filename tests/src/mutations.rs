//! Frames made of others by small changes: more or less like them, and the same every time.

use crate::frames::Named;
use crate::numbers::Numbers;

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
        // What comes before a frame is tried as well, and so now and then comes before it.
        let each = |Named { name, moment, before, frame }| {
            before.into_iter().chain([frame]).map(move |frame| Named { name, moment, before: Vec::new(), frame })
        };
        let bases: Vec<Named> = bases.into_iter().flat_map(each).collect();
        Self { bases, numbers: Numbers::new(1), round: 0 }
    }
}

impl Iterator for Mutations {
    type Item = Named;

    /// The next, under the name of its base.
    fn next(&mut self) -> Option<Named> {
        let base = self.bases.get(self.round % self.bases.len().max(1))?;
        self.round += 1;
        let frame = mutated(&base.frame, &mut self.numbers);
        Some(Named { name: base.name, moment: base.moment, before: Vec::new(), frame })
    }
}

fn mutated(frame: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut frame = frame.to_vec();
    match numbers.below(10) {
        // As it is, or from another port: the path has to see enough that is right.
        0 | 1 => (),
        2..=4 => {
            let offset = [34, 35, 54, 55].get(numbers.below(4)).copied().unwrap_or_default();
            change(&mut frame, offset, |_| numbers.number() as u8);
        }
        5 | 6 => {
            for _ in 0..=numbers.below(3) {
                let offset = numbers.below(frame.len());
                change(&mut frame, offset, |byte| byte ^ 1 << numbers.below(8));
            }
        }
        7 => {
            let offset = numbers.below(frame.len().min(80));
            change(&mut frame, offset, |_| numbers.number() as u8);
        }
        // The kernel takes no frame shorter than an Ethernet header.
        8 => frame.truncate(14 + numbers.below(frame.len() - 13)),
        _ => frame.extend((0..=numbers.below(40)).map(|_| numbers.number() as u8)),
    }
    frame
}

pub(crate) fn change(frame: &mut [u8], offset: usize, new: impl FnOnce(u8) -> u8) {
    if let Some(byte) = frame.get_mut(offset) {
        *byte = new(*byte);
    }
}
