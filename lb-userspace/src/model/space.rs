//! Who holds which ids and which stretch of the slot space. What is given back is free only after a grace period.

use lb_common::tables::{CHUNK_SLOTS, MAX_CHUNKS, Region};
use std::collections::BTreeMap;

/// Ids from zero up to a limit.
#[derive(Clone, Debug)]
pub struct Ids {
    limit: u32,
    /// All below are taken.
    first_free: u32,
    /// One bit for each id: a million ids are cheap to copy.
    taken: Vec<u64>,
    retired: Vec<u32>,
}

impl Ids {
    /// Ids below `limit`.
    pub fn new(limit: u32) -> Self {
        Self { limit, first_free: 0, taken: Vec::new(), retired: Vec::new() }
    }

    /// How many there are.
    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// The lowest free id.
    pub fn lowest_free(&self) -> Option<u32> {
        (self.first_free < self.limit).then_some(self.first_free)
    }

    /// Takes an id.
    pub fn take(&mut self, id: u32) {
        let (word, bit) = place(id);
        if word >= self.taken.len() {
            self.taken.resize(word + 1, 0);
        }
        if let Some(taken) = self.taken.get_mut(word) {
            *taken |= bit;
        }
        if id == self.first_free {
            self.first_free = self.free_from(id);
        }
    }

    fn free_from(&self, id: u32) -> u32 {
        let (first, bit) = place(id);
        for (index, word) in self.taken.iter().enumerate().skip(first) {
            let below = if index == first { bit - 1 } else { 0 };
            let free = !(word | below);
            if free != 0 {
                return index as u32 * u64::BITS + free.trailing_zeros();
            }
        }
        id.max(self.taken.len() as u32 * u64::BITS)
    }

    /// Gives an id back, to be free after a grace period.
    pub fn retire(&mut self, id: u32) {
        self.retired.push(id);
    }

    /// Gives back an id that nothing can lead to any more: it is free at once.
    pub fn release(&mut self, id: u32) {
        let (word, bit) = place(id);
        if let Some(taken) = self.taken.get_mut(word) {
            *taken &= !bit;
            self.first_free = self.first_free.min(id);
        }
    }

    /// A grace period is over.
    pub fn grace(&mut self) {
        for id in std::mem::take(&mut self.retired) {
            self.release(id);
        }
    }

    /// Whether something waits for a grace period.
    pub fn waits(&self) -> bool {
        !self.retired.is_empty()
    }
}

fn place(id: u32) -> (usize, u64) {
    ((id / u64::BITS) as usize, 1 << (id % u64::BITS))
}

/// Stretches of the slot space.
#[derive(Clone, Debug)]
pub struct Regions {
    /// Free stretches, each with its length: no two of them meet.
    free: BTreeMap<u32, u32>,
    retired: Vec<Region>,
}

impl Default for Regions {
    fn default() -> Self {
        Self::of(MAX_CHUNKS * CHUNK_SLOTS)
    }
}

impl Regions {
    /// A space of this length, all of it free.
    pub fn of(length: u32) -> Self {
        let free = if length > 0 { BTreeMap::from([(0, length)]) } else { BTreeMap::new() };
        Self { free, retired: Vec::new() }
    }

    /// The first free stretch of this many slots.
    pub fn first_free(&self, slots: u32) -> Option<Region> {
        let (first, _) = self.free.iter().find(|(_, length)| **length >= slots)?;
        Some(Region { first: *first, slots })
    }

    /// Takes a stretch, if it is free.
    pub fn take(&mut self, region: Region) {
        let Region { first, slots } = region;
        let found = self.free.range(..=first).next_back().map(|(start, length)| (*start, *length));
        let Some((start, length)) = found.filter(|(start, length)| slots > 0 && first + slots <= start + length) else {
            return;
        };
        self.free.remove(&start);
        for (start, end) in [(start, first), (first + slots, start + length)] {
            if start < end {
                self.free.insert(start, end - start);
            }
        }
    }

    /// Gives a stretch back, to be free after a grace period.
    pub fn retire(&mut self, region: Region) {
        if region.slots != 0 {
            self.retired.push(region);
        }
    }

    /// Gives back a stretch that nothing can lead to any more: it is free at once.
    pub fn release(&mut self, region: Region) {
        let Region { mut first, slots: mut length } = region;
        if let Some(behind) = self.free.remove(&(first + length)) {
            length += behind;
        }
        let before = self.free.range(..first).next_back().map(|(start, length)| (*start, *length));
        if let Some((start, before)) = before.filter(|(start, before)| start + before == first) {
            (first, length) = (start, before + length);
        }
        self.free.insert(first, length);
    }

    /// A grace period is over.
    pub fn grace(&mut self) {
        for region in std::mem::take(&mut self.retired) {
            self.release(region);
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
    use std::collections::BTreeSet;

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
    fn an_id_that_nothing_leads_to_is_free_at_once() {
        let mut ids = Ids::new(200);
        (0..200).for_each(|id| ids.take(id));
        ids.release(130);
        assert_eq!(ids.lowest_free(), Some(130));
        ids.take(130);
        assert_eq!(ids.lowest_free(), None);
    }

    #[test]
    fn a_full_slot_space_says_so() {
        let mut regions = Regions::default();
        let mut held = Vec::new();
        while let Some(region) = regions.first_free(65_537) {
            regions.take(region);
            held.push(region);
        }
        assert!(held.len() >= 512);
        for region in held.iter().rev() {
            assert_eq!(regions.first_free(MAX_CHUNKS * CHUNK_SLOTS), None);
            regions.retire(*region);
            regions.grace();
        }
        // The pieces have become one again.
        assert_eq!(regions.first_free(MAX_CHUNKS * CHUNK_SLOTS).map(|region| region.first), Some(0));
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
