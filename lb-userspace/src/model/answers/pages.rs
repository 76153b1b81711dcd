//! Who holds which blocks of the answer space.
//!
//! The space is dealt in pages of 8 KiB, which lie within a chunk. A page is cut into cells of one size, so that room of any size is
//! found again when what was there is gone; what is longer than the longest cell has pages of its own.

use crate::model::space::Regions;
use lb_common::tables::{
    Region,
    answers::{ANSWER_CHUNK_BLOCKS, ANSWER_CHUNK_WORDS, BODY_BLOCKS, BODY_WORDS, Leads, MAX_ANSWER_CHUNKS},
};
use std::collections::BTreeSet;

/// Blocks of a page: 64 of the smallest cells, a bit each.
pub const PAGE_BLOCKS: u32 = 128;
/// Bytes of memory of a chunk.
pub const CHUNK_BYTES: u64 = (ANSWER_CHUNK_WORDS as u64 * 8 + BODY_WORDS as u64 * 8).next_multiple_of(4_096);
const CHUNK_PAGES: u32 = ANSWER_CHUNK_BLOCKS / PAGE_BLOCKS;

/// Blocks that lie one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// The first.
    pub block: u32,
    /// How many.
    pub blocks: u32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Page {
    /// A bit for each cell that is free.
    free: u64,
    /// Blocks of a cell; 0: the page has none.
    cell: u8,
    /// Of the last body that was put here.
    generation: u16,
}

impl Page {
    fn cells(cell: u32) -> u64 {
        u64::MAX >> (u64::BITS - PAGE_BLOCKS / cell)
    }
}

/// The blocks of the space.
#[derive(Clone, Debug)]
pub struct Pages {
    free: Regions,
    /// Up to the last that was ever in use.
    pages: Vec<Page>,
    /// Pages with free cells, by the size of these.
    partial: [BTreeSet<u32>; BODY_BLOCKS.len()],
    blocks: u64,
}

impl Pages {
    /// A space of so many bytes of memory at most.
    pub fn new(bytes: u64) -> Self {
        let chunks = (bytes / CHUNK_BYTES).min(MAX_ANSWER_CHUNKS.into()) as u32;
        let free = Regions::of(chunks * CHUNK_PAGES);
        Self { free, pages: Vec::new(), partial: Default::default(), blocks: 0 }
    }

    /// Blocks that are taken.
    pub fn taken(&self) -> u64 {
        self.blocks
    }

    /// The first free room for so many blocks.
    pub fn first_free(&self, blocks: u32) -> Option<Run> {
        let Some((class, cell)) = class(blocks) else {
            let region = self.free.first_free(blocks.div_ceil(PAGE_BLOCKS))?;
            return Some(Run { block: region.first * PAGE_BLOCKS, blocks: region.slots * PAGE_BLOCKS });
        };
        let partial = self.partial.get(class).and_then(BTreeSet::first);
        let (page, cells) = match partial {
            Some(page) => (*page, self.page(*page).free.trailing_zeros()),
            None => (self.free.first_free(1)?.first, 0),
        };
        Some(Run { block: page * PAGE_BLOCKS + cells * cell, blocks: cell })
    }

    /// The generation of the next body that is put into this room: another one than that of the last.
    pub fn next_generation(&self, run: Run) -> u16 {
        self.page(run.block / PAGE_BLOCKS).generation % (Leads::GENERATIONS - 1) + 1
    }

    /// Takes room that is free.
    pub fn take(&mut self, run: Run) {
        let (first, generation) = (run.block / PAGE_BLOCKS, self.next_generation(run));
        self.blocks += u64::from(run.blocks);
        let Some((class, cell)) = class(run.blocks) else {
            return self.free.take(pages_of(run));
        };
        let (is_new, is_full) = self.change(first, |page| {
            page.generation = generation;
            let is_new = page.cell == 0;
            if is_new {
                (page.cell, page.free) = (cell as u8, Page::cells(cell));
            }
            page.free &= !bit(run.block, cell);
            (is_new, page.free == 0)
        });
        if is_new {
            self.free.take(Region { first, slots: 1 });
        }
        if let Some(partial) = self.partial.get_mut(class) {
            if is_full {
                partial.remove(&first)
            } else {
                partial.insert(first)
            };
        }
    }

    /// Gives room back, which is free at once.
    pub fn release(&mut self, run: Run) {
        let first = run.block / PAGE_BLOCKS;
        self.blocks = self.blocks.saturating_sub(run.blocks.into());
        let Some((class, cell)) = class(run.blocks) else {
            return self.free.release(pages_of(run));
        };
        let is_empty = self.change(first, |page| {
            page.free |= bit(run.block, cell);
            let is_empty = page.free == Page::cells(cell);
            if is_empty {
                page.cell = 0;
            }
            is_empty
        });
        if is_empty {
            self.free.release(Region { first, slots: 1 });
        }
        if let Some(partial) = self.partial.get_mut(class) {
            if is_empty {
                partial.remove(&first)
            } else {
                partial.insert(first)
            };
        }
    }

    /// Gives room back that was taken last and not used.
    pub fn give_back(&mut self, run: Run) {
        self.release(run);
        self.change(run.block / PAGE_BLOCKS, |page| page.generation = page.generation.saturating_sub(1));
    }

    fn page(&self, page: u32) -> Page {
        self.pages.get(page as usize).copied().unwrap_or_default()
    }

    fn change<R: Default>(&mut self, page: u32, change: impl FnOnce(&mut Page) -> R) -> R {
        let index = page as usize;
        if index >= self.pages.len() {
            self.pages.resize(index + 1, Page::default());
        }
        self.pages.get_mut(index).map(change).unwrap_or_default()
    }
}

/// The smallest cell for so many blocks, and its number among the sizes.
fn class(blocks: u32) -> Option<(usize, u32)> {
    BODY_BLOCKS.iter().copied().enumerate().find(|(_, cell)| blocks <= *cell)
}

fn pages_of(run: Run) -> Region {
    Region { first: run.block / PAGE_BLOCKS, slots: run.blocks.div_ceil(PAGE_BLOCKS) }
}

fn bit(block: u32, cell: u32) -> u64 {
    1 << (block % PAGE_BLOCKS / cell)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_two_runs_overlap_and_nothing_crosses_a_chunk(
            steps in prop::collection::vec((any::<bool>(), 1_u32..200, any::<prop::sample::Index>()), 1..400)
        ) {
            let mut pages = Pages::new(4 * CHUNK_BYTES);
            let mut held: Vec<(Run, u16)> = Vec::new();
            for (take, blocks, which) in steps {
                if take || held.is_empty() {
                    let blocks = if blocks > 160 { blocks } else { blocks % 24 + 1 };
                    let Some(run) = pages.first_free(blocks) else { continue };
                    prop_assert!(run.blocks >= blocks);
                    let end = run.block + run.blocks;
                    if blocks <= 24 {
                        prop_assert_eq!(run.block / ANSWER_CHUNK_BLOCKS, (end - 1) / ANSWER_CHUNK_BLOCKS);
                    }
                    for (other, _) in &held {
                        prop_assert!(end <= other.block || other.block + other.blocks <= run.block);
                    }
                    let generation = pages.next_generation(run);
                    prop_assert!((1..Leads::GENERATIONS).contains(&generation));
                    pages.take(run);
                    held.push((run, generation));
                } else {
                    let (run, generation) = held.swap_remove(which.index(held.len()));
                    prop_assert!(run.blocks > 24 || pages.next_generation(run) != generation);
                    pages.release(run);
                }
            }
            held.iter().for_each(|(run, _)| pages.release(*run));
            prop_assert_eq!(pages.taken(), 0);
            let all = pages.first_free(4 * ANSWER_CHUNK_BLOCKS);
            prop_assert_eq!(all, Some(Run { block: 0, blocks: 4 * ANSWER_CHUNK_BLOCKS }));
        }
    }

    #[test]
    fn a_full_space_has_no_room() {
        let mut pages = Pages::new(CHUNK_BYTES);
        let mut count = 0;
        while let Some(run) = pages.first_free(2) {
            pages.take(run);
            count += 1;
        }
        assert_eq!(count, ANSWER_CHUNK_BLOCKS / 2);
        assert_eq!(Pages::new(CHUNK_BYTES - 1).first_free(1), None);
    }
}
