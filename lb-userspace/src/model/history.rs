//! What has turned, and why: the last turns of each target, and not more of all together than fit.

use super::{health::Failure, target::Target};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Duration,
};

/// Turns that are kept of one target.
pub const OF_ONE: usize = 16;
/// Turns that are kept of all: a few megabytes.
const OF_ALL: usize = 20_000;

/// A turn of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// When.
    pub at: Duration,
    /// Whether it is up since.
    pub up: bool,
    /// Why it is down since.
    pub reason: Option<Failure>,
    /// What the probe that decided it was answered.
    pub output: Option<Box<str>>,
    /// How long that probe took.
    pub took: Duration,
    /// How long the turn took, from the first probe that spoke for it.
    pub after: Duration,
}

/// The last turns.
#[derive(Debug)]
pub struct History {
    /// In the order in which they came.
    turns: BTreeMap<u64, (Target, Turn)>,
    /// Of each target, in the same order; never empty.
    of: HashMap<Target, VecDeque<u64>>,
    next: u64,
    most: usize,
}

impl Default for History {
    fn default() -> Self {
        Self { turns: BTreeMap::new(), of: HashMap::new(), next: 0, most: OF_ALL }
    }
}

impl History {
    /// Notes a turn.
    pub fn note(&mut self, target: &Target, turn: Turn) {
        let number = self.next;
        self.next += 1;
        let own = self.of.entry(target.clone()).or_default();
        own.push_back(number);
        if own.len() > OF_ONE
            && let Some(oldest) = own.pop_front()
        {
            self.turns.remove(&oldest);
        }
        self.turns.insert(number, (target.clone(), turn));
        if self.turns.len() > self.most
            && let Some((_, (target, _))) = self.turns.pop_first()
            && let Some(own) = self.of.get_mut(&target)
        {
            // The oldest of all is the oldest of its own target.
            own.pop_front();
            if own.is_empty() {
                self.of.remove(&target);
            }
        }
    }

    /// The last turns of a target, the latest first.
    pub fn of(&self, target: &Target) -> impl Iterator<Item = &Turn> {
        let own = self.of.get(target).into_iter().flatten().rev();
        own.filter_map(|number| self.turns.get(number)).map(|(_, turn)| turn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn target(port: u16) -> Target {
        Target { address: ([10, 0, 0, 1], port).into(), check: Arc::default(), via: None }
    }

    fn turn(second: u64) -> Turn {
        let [at, took, after] = [second, 0, 0].map(Duration::from_secs);
        Turn { at, up: second.is_multiple_of(2), reason: None, output: None, took, after }
    }

    proptest! {
        #[test]
        fn it_keeps_the_last(ports in prop::collection::vec(0_u16..5, 0..200), most in 1_usize..60) {
            let mut history = History { most, ..History::default() };
            let mut naive: Vec<(u16, Turn)> = Vec::new();
            for (second, port) in (0..).zip(ports) {
                history.note(&target(port), turn(second));
                naive.push((port, turn(second)));
                if naive.iter().filter(|(other, _)| *other == port).count() > OF_ONE {
                    let oldest = naive.iter().position(|(other, _)| *other == port).unwrap();
                    naive.remove(oldest);
                }
                if naive.len() > most {
                    naive.remove(0);
                }
                for port in 0..5 {
                    let kept: Vec<_> = history.of(&target(port)).cloned().collect();
                    let own = naive.iter().rev().filter(|(other, _)| *other == port);
                    prop_assert_eq!(kept, own.map(|(_, turn)| turn.clone()).collect::<Vec<_>>());
                }
                prop_assert!(history.of.values().all(|own| !own.is_empty()));
            }
        }
    }
}
