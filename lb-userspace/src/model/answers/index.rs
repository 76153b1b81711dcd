//! The index of the answer space: which entry is a question's.
//!
//! An entry is in one of two buckets and never moves, so that no reader misses it on its way. At most half of the places are in use,
//! so that both buckets of a question are almost never full; then a larger index is made.

use super::pages::{PAGE_BLOCKS, Run};
use lb_common::{
    hash::slot,
    tables::{
        Region,
        answers::{BLOCK_WORDS, Bucket, Entry},
    },
};
use std::{collections::HashMap, sync::Arc};

/// Places in a bucket.
const PLACES: u32 = size_of::<Bucket>() as u32 / size_of::<Entry>() as u32;

/// A place of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of its bucket.
    pub bucket: u32,
    /// Its number in it.
    pub number: u32,
}

impl Place {
    /// The word of the space that its entry begins with, in an index at this block.
    pub const fn word(self, block: u32) -> u64 {
        (block as u64 + self.bucket as u64) * BLOCK_WORDS as u64 + self.number as u64 * 2
    }
}

/// An index. A copy costs next to nothing.
#[derive(Clone, Debug)]
pub struct Index {
    /// Where it is.
    run: Run,
    buckets: Arc<Vec<Bucket>>,
    /// Buckets that are others than those above, while these are shared.
    changed: HashMap<u32, Bucket>,
    filled: u32,
}

/// The same places hold the same.
impl PartialEq for Index {
    fn eq(&self, other: &Self) -> bool {
        self.run == other.run && self.all().eq(other.all())
    }
}

impl Index {
    /// Blocks of an index for so many questions.
    pub fn blocks_for(questions: usize) -> u32 {
        let buckets = (questions as u32).saturating_mul(2).div_ceil(PLACES).max(1);
        buckets.next_multiple_of(PAGE_BLOCKS)
    }

    /// An empty one at this place.
    pub fn new(run: Run) -> Self {
        let buckets = Arc::new(vec![Bucket::default(); run.blocks as usize]);
        Self { run, buckets, changed: HashMap::new(), filled: 0 }
    }

    /// Where it is.
    pub const fn run(&self) -> Run {
        self.run
    }

    /// As the region of a DNS address.
    pub const fn region(&self) -> Region {
        Region { first: self.run.block, slots: self.run.blocks }
    }

    /// How many questions it has.
    pub const fn filled(&self) -> u32 {
        self.filled
    }

    /// Whether one more may be put into it.
    pub const fn has_room(&self) -> bool {
        self.filled as u64 * 2 < self.run.blocks as u64 * PLACES as u64
    }

    /// Its buckets.
    pub fn all(&self) -> impl Iterator<Item = Bucket> {
        (0..self.run.blocks).map(|bucket| self.bucket(bucket))
    }

    /// Its entries in use.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.all().flatten().filter(|entry| entry.leads != 0)
    }

    fn bucket(&self, bucket: u32) -> Bucket {
        let changed = self.changed.get(&bucket).filter(|_| !self.changed.is_empty());
        changed.or_else(|| self.buckets.get(bucket as usize)).copied().unwrap_or_default()
    }

    /// The places that the path looks into for a question, in its order.
    fn places(&self, question: u64) -> impl Iterator<Item = (Place, Entry)> {
        let halves = [question as u32, (question >> 32) as u32];
        halves.into_iter().flat_map(|half| {
            let bucket = slot(half, self.run.blocks);
            (0..).zip(self.bucket(bucket)).map(move |(number, entry)| (Place { bucket, number }, entry))
        })
    }

    /// The place and the entry of a question.
    pub fn find(&self, question: u64) -> Option<(Place, Entry)> {
        self.places(question).find(|(_, entry)| entry.question == question && entry.leads != 0)
    }

    /// A free place for a question: in the emptier one of its buckets.
    pub fn free_place(&self, question: u64) -> Option<Place> {
        let free = |half: u32| {
            let bucket = slot(half, self.run.blocks);
            let entries = self.bucket(bucket);
            let count = entries.iter().filter(|entry| entry.leads == 0).count();
            let number = entries.iter().position(|entry| entry.leads == 0)? as u32;
            Some((Place { bucket, number }, count))
        };
        let (first, second) = (free(question as u32), free((question >> 32) as u32));
        match (first, second) {
            (Some((_, few)), Some((place, more))) if more > few => Some(place),
            (Some((place, _)), _) | (None, Some((place, _))) => Some(place),
            (None, None) => None,
        }
    }

    /// Writes an entry.
    pub fn set(&mut self, place: Place, entry: Entry) {
        let Place { bucket, number } = place;
        let mut written = self.bucket(bucket);
        let Some(before) = written.get_mut(number as usize) else { return };
        let was_free = before.leads == 0;
        *before = entry;
        match (was_free, entry.leads == 0) {
            (true, false) => self.filled += 1,
            (false, true) => self.filled -= 1,
            _ => (),
        }
        self.changed.insert(bucket, written);
        // Not shared any more, as is usual for what is recorded: the buckets themselves are written.
        if let Some(buckets) = Arc::get_mut(&mut self.buckets) {
            for (bucket, written) in self.changed.drain() {
                buckets.get_mut(bucket as usize).into_iter().for_each(|bucket| *bucket = written);
            }
        }
    }

    /// All entries of this one in one at this place, if they have room there.
    pub fn grown(&self, run: Run) -> Option<Self> {
        let mut grown = Self::new(run);
        for entry in self.entries() {
            grown.set(grown.free_place(entry.question)?, entry);
        }
        Some(grown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::hash::name_step;

    #[test]
    fn half_of_the_places_can_be_filled() {
        let run = Run { block: 128, blocks: Index::blocks_for(100_000) };
        let mut index = Index::new(run);
        let mut question = 1;
        while index.has_room() {
            question = name_step(question, 12_345);
            let place = index.free_place(question).unwrap();
            index.set(place, Entry { question, leads: question | 1 });
            assert_eq!(index.find(question).map(|(found, _)| found), Some(place));
        }
        assert!(index.filled() >= 100_000);
        let grown = index.grown(Run { block: 0, blocks: run.blocks * 2 }).unwrap();
        assert_eq!(grown.filled(), index.filled());
        assert!(index.entries().all(|entry| grown.find(entry.question).map(|(_, found)| found) == Some(entry)));
    }

    #[test]
    fn a_copy_goes_its_own_way() {
        let mut index = Index::new(Run { block: 0, blocks: 128 });
        let place = index.free_place(7).unwrap();
        let mut copy = index.clone();
        copy.set(place, Entry { question: 7, leads: 1 });
        assert_eq!((index.find(7), copy.find(7).is_some()), (None, true));
        index.set(place, Entry { question: 7, leads: 2 });
        assert_eq!(copy.find(7).unwrap().1.leads, 1);
        drop(copy);
        index.set(place, Entry { question: 7, leads: 3 });
        assert_eq!(index.find(7).unwrap().1.leads, 3);
        assert!(index.changed.is_empty());
        index.set(place, Entry::default());
        assert_eq!((index.filled(), index.find(7)), (0, None));
    }
}
