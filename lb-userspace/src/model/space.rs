//! Who holds which ids and which stretch of the slot space. What is given back is free only after a grace period.

use lb_common::tables::{CHUNK_SLOTS, MAX_CHUNKS, Region};
use std::collections::{BTreeMap, BTreeSet};

/// Ids from zero up to a limit.
#[derive(Clone, Debug)]
pub struct Ids {
    limit: u32,
    /// All below are taken.
    first_free: u32,
    taken: BTreeSet<u32>,
    retired: Vec<u32>,
}

impl Ids {
    /// Ids below `limit`.
    pub fn new(limit: u32) -> Self {
        Self { limit, first_free: 0, taken: BTreeSet::new(), retired: Vec::new() }
    }

    /// The lowest free id.
    pub fn lowest_free(&self) -> Option<u32> {
        (self.first_free < self.limit).then_some(self.first_free)
    }

    /// Takes an id.
    pub fn take(&mut self, id: u32) {
        self.taken.insert(id);
        while self.taken.contains(&self.first_free) {
            self.first_free += 1;
        }
    }

    /// Gives an id back, to be free after a grace period.
    pub fn retire(&mut self, id: u32) {
        self.retired.push(id);
    }

    /// A grace period is over.
    pub fn grace(&mut self) {
        for id in self.retired.drain(..) {
            self.taken.remove(&id);
            self.first_free = self.first_free.min(id);
        }
    }

    /// Whether something waits for a grace period.
    pub fn waits(&self) -> bool {
        !self.retired.is_empty()
    }
}

/// Stretches of the slot space.
#[derive(Clone, Debug, Default)]
pub struct Regions {
    taken: BTreeMap<u32, u32>,
    retired: Vec<u32>,
}

impl Regions {
    /// The first free stretch of this many slots.
    pub fn first_free(&self, slots: u32) -> Option<Region> {
        let mut first = 0;
        for (taken, length) in &self.taken {
            if taken - first >= slots {
                break;
            }
            first = taken + length;
        }
        (first.checked_add(slots)? <= MAX_CHUNKS * CHUNK_SLOTS).then_some(Region { first, slots })
    }

    /// Takes a stretch.
    pub fn take(&mut self, region: Region) {
        if region.slots != 0 {
            self.taken.insert(region.first, region.slots);
        }
    }

    /// Gives a stretch back, to be free after a grace period.
    pub fn retire(&mut self, region: Region) {
        if region.slots != 0 {
            self.retired.push(region.first);
        }
    }

    /// A grace period is over.
    pub fn grace(&mut self) {
        for first in self.retired.drain(..) {
            self.taken.remove(&first);
        }
    }

    /// Whether something waits for a grace period.
    pub fn waits(&self) -> bool {
        !self.retired.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_id_is_free_again_only_after_a_grace_period() {
        let mut ids = Ids::new(2);
        ids.take(0);
        ids.take(1);
        ids.retire(0);
        assert_eq!(ids.lowest_free(), None);
        ids.grace();
        assert_eq!(ids.lowest_free(), Some(0));
    }

    #[test]
    fn a_full_slot_space_says_so() {
        let mut regions = Regions::default();
        while let Some(region) = regions.first_free(65_537) {
            regions.take(region);
        }
        assert!(regions.taken.len() >= 512);
        assert_eq!(regions.first_free(65_537), None);
    }

    proptest! {
        #[test]
        fn the_lowest_free_id_is_the_lowest(steps in prop::collection::vec((any::<bool>(), 0_u32..20), 1..200)) {
            let mut ids = Ids::new(20);
            let mut held = BTreeSet::new();
            for (take, id) in steps {
                if take {
                    held.insert(id);
                    ids.take(id);
                } else if held.remove(&id) {
                    ids.retire(id);
                    ids.grace();
                }
                prop_assert_eq!(ids.lowest_free(), (0..20).find(|id| !held.contains(id)));
            }
        }

        #[test]
        fn no_two_regions_overlap(steps in prop::collection::vec((any::<bool>(), 1_u32..70_000, any::<prop::sample::Index>()), 1..200)) {
            let mut regions = Regions::default();
            let mut held: Vec<Region> = Vec::new();
            for (take, slots, which) in steps {
                if take || held.is_empty() {
                    if let Some(region) = regions.first_free(slots) {
                        for other in &held {
                            prop_assert!(region.first + region.slots <= other.first || other.first + other.slots <= region.first);
                        }
                        regions.take(region);
                        held.push(region);
                    }
                } else {
                    regions.retire(held.swap_remove(which.index(held.len())));
                    regions.grace();
                }
            }
        }
    }
}
