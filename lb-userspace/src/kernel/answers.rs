//! The answer space, mapped into memory, and what holds for every question.

use super::{
    error::KernelError,
    maps::{cpus, on, take},
    memory::Memory,
    plain::Plain,
    slots::pinned,
};
use crate::model::{
    actual::Actual,
    answers::{
        image::{body_length, head_of, question_of, records_of},
        index::{Index, Place},
        pages::{CHUNK_BYTES, PAGE_BLOCKS, Run},
        placed::Put,
    },
    dns::rendered::Question,
};
use aya::{
    Ebpf,
    maps::{Array, ArrayOfMaps, MapData, PerCpuArray, PerCpuValues},
};
use bytemuck::Zeroable as _;
use lb_common::{
    hash::name_step,
    tables::{
        Region,
        answers::{
            ANSWER_CHUNK_BITS, ANSWER_CHUNK_WORDS, AnswerSlot, BLOCK_WORDS, BODY_WORDS, DnsSettings, HEAD_WORDS, Leads,
            SAMPLES, TURNS,
        },
    },
};
use std::{
    collections::{
        btree_map::{BTreeMap, Entry},
        btree_set::BTreeSet,
    },
    path::{Path, PathBuf},
};

/// Words of a chunk's only value: behind the last body may be looked as far as behind any.
const CHUNK_WORDS: usize = ANSWER_CHUNK_WORDS as usize + BODY_WORDS;
const SETTINGS_WORDS: usize = size_of::<DnsSettings>() / 8;

type Chunk = Array<MapData, Plain<[u64; CHUNK_WORDS]>>;

/// The maps that answers are in.
pub(super) struct AnswerMaps {
    settings: Memory,
    answers: ArrayOfMaps<MapData, Chunk>,
    chunks: BTreeMap<u32, Memory>,
    samples: PerCpuArray<MapData, u64>,
    turns: PerCpuArray<MapData, u32>,
    tokens: Array<MapData, u64>,
    pins: Option<PathBuf>,
}

impl AnswerMaps {
    /// Takes the maps out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf, pins: Option<&Path>) -> Result<Self, KernelError> {
        let mut turns: PerCpuArray<MapData, u32> = take(ebpf, "TURN")?;
        stagger(&mut turns)?;
        Ok(Self {
            settings: Memory::of::<DnsSettings>(ebpf, "DNS")?,
            answers: take(ebpf, "ANSWERS")?,
            chunks: BTreeMap::new(),
            samples: take(ebpf, "SAMPLE")?,
            turns,
            tokens: take(ebpf, "TOKENS")?,
            pins: pins.map(Into::into),
        })
    }

    /// Writes what holds for every question, as far as it is another than before.
    pub(super) fn put_settings(&self, settings: &DnsSettings) {
        let words: [u64; SETTINGS_WORDS] = bytemuck::cast(*settings);
        for (index, word) in words.into_iter().enumerate() {
            if self.settings.load(index) != Some(word) {
                self.settings.store(index, word);
            }
        }
    }

    /// Writes an index that nothing leads to yet.
    pub(super) fn write_index(&mut self, index: &Index) -> Result<(), KernelError> {
        for (block, bucket) in (index.run().block..).zip(index.all()) {
            self.write(block, &bytemuck::cast::<_, [u64; BLOCK_WORDS as usize]>(bucket))?;
        }
        Ok(())
    }

    /// Writes an answer and then its entry: the question, and at last where it leads.
    pub(super) fn put(&mut self, put: &Put) -> Result<(), KernelError> {
        for (block, words) in &put.words {
            self.write(*block, words)?;
        }
        let word = put.place.word(put.index);
        if self.load(word)? != put.entry.question {
            self.store(word, put.entry.question)?;
        }
        self.store(word + 1, put.entry.leads)
    }

    /// Frees an entry.
    pub(super) fn remove(&mut self, index: u32, place: Place) -> Result<(), KernelError> {
        self.store(place.word(index) + 1, 0)
    }

    /// Finds out what an earlier agent has left, and where.
    pub(super) fn read(&mut self, actual: &mut Actual) -> Result<(), KernelError> {
        let settings: Vec<u64> = (0..SETTINGS_WORDS).filter_map(|index| self.settings.load(index)).collect();
        let settings: DnsSettings = bytemuck::pod_read_unaligned(bytemuck::cast_slice(&settings));
        actual.dns = (settings != DnsSettings::zeroed()).then_some(settings);
        let mut pages = BTreeSet::new();
        self.for_each(&indexes(actual), |block, words| {
            let blocks = words.len().max(1).div_ceil(BLOCK_WORDS as usize) as u32;
            pages.extend(block / PAGE_BLOCKS..=(block + blocks - 1) / PAGE_BLOCKS);
        })?;
        actual.answers.found(pages.into_iter().map(|page| Run { block: page * PAGE_BLOCKS, blocks: PAGE_BLOCKS }));
        Ok(())
    }

    /// Looks at the bodies that these DNS addresses lead to: their questions and records.
    pub(super) fn for_each_body(
        &mut self,
        actual: &Actual,
        mut look: impl FnMut(&Question, &[u8]),
    ) -> Result<(), KernelError> {
        self.for_each(&indexes(actual), |_, words| {
            if let (Some(question), Some(records)) = (question_of(words), records_of(words)) {
                look(&question, records);
            }
        })
    }

    /// Looks at all that these indexes lead to, and at themselves, each with its block.
    fn for_each(&mut self, indexes: &[Region], mut look: impl FnMut(u32, &[u64])) -> Result<(), KernelError> {
        for index in indexes {
            for block in index.first..index.first + index.slots {
                let words = self.words(block, BLOCK_WORDS as usize)?;
                look(block, &words);
                for leads in words.iter().skip(1).step_by(2).filter(|leads| **leads != 0) {
                    self.look_at(Leads::from_word(*leads), &mut look)?;
                }
            }
        }
        Ok(())
    }

    fn look_at(&mut self, leads: Leads, look: &mut impl FnMut(u32, &[u64])) -> Result<(), KernelError> {
        let mut bodies = BTreeSet::from([leads.block]);
        if leads.slots > 0 {
            let words = self.words(leads.block, leads.slots.into())?;
            look(leads.block, &words);
            bodies = words.into_iter().map(|word| AnswerSlot::from_word(word).block).collect();
        }
        for block in bodies {
            let head = head_of(&self.words(block, HEAD_WORDS)?);
            let length = head.map_or(0, |head| body_length(&head)).min(BODY_WORDS);
            let words = self.words(block, length)?;
            look(block, &words);
        }
        Ok(())
    }

    /// Questions that were sampled on all CPUs, by their hashes.
    pub(super) fn samples(&self) -> Result<BTreeMap<u64, u64>, KernelError> {
        let mut samples = BTreeMap::new();
        for number in 0..SAMPLES {
            let values = on("SAMPLE", "read it", self.samples.get(&number, 0))?;
            for question in values.iter().filter(|question| **question != 0) {
                *samples.entry(*question).or_default() += 1;
            }
        }
        Ok(samples)
    }

    /// Bytes of memory that the chunks have.
    pub(super) fn bytes(&self) -> u64 {
        self.chunks.len() as u64 * CHUNK_BYTES
    }

    fn write(&mut self, block: u32, words: &[u64]) -> Result<(), KernelError> {
        let mut first = u64::from(block) * u64::from(BLOCK_WORDS);
        let mut words = words;
        while !words.is_empty() {
            let at = place(first);
            let (here, rest) = words.split_at(words.len().min(ANSWER_CHUNK_WORDS as usize - at));
            let chunk = self.chunk((first >> ANSWER_CHUNK_BITS) as u32)?;
            (at..).zip(here).for_each(|(index, word)| chunk.store(index, *word));
            (first, words) = (first + here.len() as u64, rest);
        }
        Ok(())
    }

    /// So many words, from this block on.
    pub(super) fn words(&mut self, block: u32, count: usize) -> Result<Vec<u64>, KernelError> {
        let first = u64::from(block) * u64::from(BLOCK_WORDS);
        (first..first + count as u64).map(|word| self.load(word)).collect()
    }

    fn store(&mut self, word: u64, value: u64) -> Result<(), KernelError> {
        self.chunk((word >> ANSWER_CHUNK_BITS) as u32)?.store(place(word), value);
        Ok(())
    }

    fn load(&mut self, word: u64) -> Result<u64, KernelError> {
        Ok(self.chunk((word >> ANSWER_CHUNK_BITS) as u32)?.load(place(word)).unwrap_or_default())
    }

    /// What holds for every question.
    pub(super) fn look_at_settings(&self) -> Option<DnsSettings> {
        let mut words = [0; SETTINGS_WORDS];
        for (index, word) in words.iter_mut().enumerate() {
            *word = self.settings.load(index)?;
        }
        Some(bytemuck::cast(words))
    }

    /// The words from this one on, `count` or those that are left of its chunk; none if there is no such chunk. Unlike
    /// [`AnswerMaps::words`] it makes none, wherever the place comes from.
    pub(super) fn look(&self, word: u64, count: usize) -> Option<Vec<u64>> {
        let chunk = self.chunks.get(&u32::try_from(word >> ANSWER_CHUNK_BITS).ok()?)?;
        let end = (place(word) + count).min(ANSWER_CHUNK_WORDS as usize);
        (place(word)..end).map(|index| chunk.load(index)).collect()
    }

    /// A row of the sequences of turns, on the first CPU.
    pub(super) fn look_at_turn(&self, row: u32) -> Result<Option<u32>, KernelError> {
        Ok(on("TURN", "read it", self.turns.get(&row, 0))?.first().copied())
    }

    /// A bucket of tokens.
    pub(super) fn look_at_tokens(&self, bucket: u32) -> Result<u64, KernelError> {
        on("TOKENS", "read it", self.tokens.get(&bucket, 0))
    }

    /// A chunk, created if it is missing.
    fn chunk(&mut self, index: u32) -> Result<&Memory, KernelError> {
        let chunk = match self.chunks.entry(index) {
            Entry::Occupied(entry) => return Ok(entry.into_mut()),
            Entry::Vacant(entry) => entry,
        };
        let pin = self.pins.as_ref().map(|pins| pins.join(format!("ANSWERS-{index}")));
        let array: Chunk = pinned("ANSWERS", pin, 1)?;
        on("ANSWERS", "add a chunk", self.answers.set(index, &array, 0))?;
        Ok(chunk.insert(Memory::map("ANSWERS", &array)?))
    }
}

/// A word's place in its chunk.
const fn place(word: u64) -> usize {
    word as usize & (ANSWER_CHUNK_WORDS as usize - 1)
}

/// The indexes that DNS addresses look into.
fn indexes(actual: &Actual) -> Vec<Region> {
    let indexes: BTreeSet<Region> = actual.services.values().map(|service| service.index).collect();
    indexes.into_iter().filter(|index| index.slots > 0).collect()
}

/// Has each CPU begin elsewhere, unless it has begun: clients on several CPUs would all be told the same address first.
fn stagger(turns: &mut PerCpuArray<MapData, u32>) -> Result<(), KernelError> {
    let cpus = cpus("TURN")? as u32;
    let begun = on("TURN", "read it", turns.get(&0, 0))?.iter().any(|turn| *turn != 0);
    if cpus < 2 || begun {
        return Ok(());
    }
    for row in 0..TURNS {
        let first: Vec<u32> = (1..=cpus).map(|cpu| name_step(row.into(), cpu.into()) as u32).collect();
        let first = PerCpuValues::try_from(first);
        let first = first.map_err(|source| KernelError::Memory { map: "TURN", action: "write it", source })?;
        on("TURN", "write it", turns.set(row, first, 0))?;
    }
    Ok(())
}
