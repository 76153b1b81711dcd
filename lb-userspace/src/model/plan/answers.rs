//! Answers: what one is is written before its entry leads to it, and taken away after a grace period.

use super::Draft;
use crate::model::{
    actual::Actual,
    answers::{
        image::{Image, with_generation},
        index::{Index, Place},
        pages::Run,
        placed::{Held, Put},
        wanted::Reached,
    },
    desired::{Desired, Wanted},
    op::Op,
};
use lb_common::tables::{
    Endpoint, Region,
    answers::{AnswerSlot, BLOCK_WORDS, Entry, Leads},
};
use std::{collections::BTreeMap, sync::Arc};

/// Answers of one plan. More follow in the next: the words of a million at once would be as much memory again.
const BATCH: usize = 16_384;
/// For questions without the DO bit and with it: there are no signatures yet.
const ANY_DNSSEC: u8 = 3;

/// The region of a DNS address without an index.
const NO_INDEX: Region = Region { first: 0, slots: 0 };

/// What becomes of the answer space while a plan is made.
pub(super) struct Answering {
    index: Option<Index>,
    /// It has all that was wanted once.
    is_built: bool,
    /// DNS addresses that stay, with their ids and the index that they look into.
    dns: BTreeMap<Endpoint, (u32, Region)>,
    /// Answers with an end have made room for others.
    evicted: bool,
}

/// What is written of an answer.
struct Written {
    runs: Vec<Run>,
    words: Vec<(u32, Vec<u64>)>,
    leads: Leads,
}

impl Answering {
    pub(super) fn of(desired: &Desired, actual: &Actual) -> Self {
        let stays = |endpoint: &Endpoint| desired.services.get(endpoint).is_some_and(Wanted::is_dns);
        let dns = actual.services.iter().filter(|(endpoint, service)| service.is_dns() && stays(endpoint));
        Self {
            index: actual.answers.index.clone(),
            is_built: actual.answers.is_built,
            dns: dns.map(|(endpoint, service)| (*endpoint, (service.id, service.index))).collect(),
            evicted: false,
        }
    }

    /// Whether every DNS address looks into the index or into none.
    fn is_swapped(&self) -> bool {
        let region = self.index.as_ref().map(Index::region);
        self.dns.values().all(|(_, looks)| looks.slots == 0 || Some(*looks) == region)
    }
}

impl Draft<'_> {
    /// The index that a DNS address which comes looks into: none before it is built.
    pub(super) fn built_index(&self) -> Region {
        let index = self.answering.index.as_ref().filter(|_| self.answering.is_built);
        index.map_or(NO_INDEX, Index::region)
    }

    /// A DNS address has come, which looks into this index.
    pub(super) fn dns_came(&mut self, endpoint: Endpoint, id: u32, index: Region) {
        self.answering.dns.insert(endpoint, (id, index));
        self.note_swapped();
    }

    fn note_swapped(&mut self) {
        let is_swapped = self.answering.is_swapped();
        if self.room.answers.is_swapped != is_swapped {
            self.room.answers_mut().is_swapped = is_swapped;
        }
    }

    pub(super) fn put_answers(&mut self) {
        if self.answering.dns.is_empty() {
            return;
        }
        let (desired, placed) = (&self.desired.answers, &self.actual.answers);
        let mut reached = placed.reached.clone();
        if self.answering.index.is_none() || desired.changes(reached.as_ref()).is_none() {
            // Of others than those that were wanted before, or found by other keys: made beside them from the beginning.
            if !self.write_first_index() {
                return;
            }
            reached = Some(desired.start());
        } else if self.answering.is_built {
            // As a plan that stopped midway has left them.
            self.swap_index();
        }
        let followed = self.follow(reached.as_ref());
        if followed.is_none() {
            self.retry();
        }
        reached = followed.or(reached);
        let is_all = desired.is_reached(reached.as_ref());
        let is_built = self.answering.is_built || is_all;
        if reached != placed.reached || is_built != placed.is_built {
            self.push(Op::FollowAnswers { reached, is_built });
        }
        self.answering.is_built = is_built;
        if is_built {
            self.swap_index();
        }
    }

    /// Follows what has changed, or the first of it; returns up to where.
    fn follow(&mut self, reached: Option<&Reached>) -> Option<Reached> {
        let desired = self.desired;
        let mut upto = None;
        for (after, question) in desired.answers.changes(reached)?.take(BATCH) {
            upto = Some(after);
            match desired.answers.get(question) {
                Some(image) => self.put_answer(question, image),
                None => self.remove_answer(question),
            }
        }
        upto
    }

    /// Tries those once more that there was no room for.
    fn retry(&mut self) {
        let (desired, actual) = (self.desired, self.actual);
        for question in actual.answers.left.iter().take(BATCH) {
            let Some(image) = desired.answers.get(*question) else { continue };
            if !self.try_put(*question, image, false) {
                break;
            }
        }
    }

    fn find(&self, question: u64) -> Option<Place> {
        Some(self.answering.index.as_ref()?.find(question)?.0)
    }

    fn put_answer(&mut self, question: u64, image: &Image) {
        let is_ours = !image.is_cached();
        // While there is no room for what is ours, there is none for what has an end.
        if (is_ours || self.actual.answers.left.is_empty()) && self.try_put(question, image, is_ours) {
            return;
        }
        self.remove_answer(question);
        if is_ours {
            self.push(Op::LeaveAnswer { question, is_left: true });
        }
    }

    fn remove_answer(&mut self, question: u64) {
        if let Some(place) = self.find(question)
            && let Some(index) = &mut self.answering.index
        {
            index.set(place, Entry::default());
            let index = index.run().block;
            self.retire_held(question);
            self.push(Op::RemoveAnswer { question, place, index });
        }
        if self.actual.answers.left.contains(&question) {
            self.push(Op::LeaveAnswer { question, is_left: false });
        }
    }

    /// Gives back the room of an answer that was there before this plan.
    fn retire_held(&mut self, question: u64) {
        if let Some(held) = self.actual.answers.held.get(&question) {
            self.room.answers_mut().retire(held.runs.all());
        }
    }

    /// Puts an answer into the space if there is room; `makes_room`: at the cost of what waits to be free, and of what has an end.
    fn try_put(&mut self, question: u64, image: &Image, makes_room: bool) -> bool {
        let known = self.find(question);
        if known.is_none() && self.answering.index.as_ref().is_some_and(|index| !index.has_room()) {
            // Without room for a larger one, some buckets still have a place.
            self.grow_index();
        }
        let place = known.or_else(|| self.answering.index.as_ref()?.free_place(question));
        let Some(place) = place else { return false };
        let Some(Written { runs, words, leads }) = self.write(image, makes_room) else { return false };
        let Some(index) = &mut self.answering.index else { return false };
        let entry = Entry { question, leads: leads.word() };
        index.set(place, entry);
        let index = index.run().block;
        if known.is_some() {
            self.retire_held(question);
        }
        let held = Held { image: image.clone(), runs: runs.into() };
        self.push(Op::PutAnswer(Arc::new(Put { place, index, entry, words, held })));
        true
    }

    /// The words of an answer, in room that is taken for them.
    fn write(&mut self, image: &Image, makes_room: bool) -> Option<Written> {
        let mut written = Written { runs: Vec::new(), words: Vec::new(), leads: Leads::from_word(0) };
        if self.try_write(image, makes_room, &mut written).is_none() {
            written.runs.iter().rev().for_each(|run| self.room.answers_mut().pages.give_back(*run));
            return None;
        }
        Some(written)
    }

    fn try_write(&mut self, image: &Image, makes_room: bool, written: &mut Written) -> Option<()> {
        let mut bodies = Vec::new();
        for body in image.bodies() {
            let (run, generation) = self.take_blocks(body.len(), makes_room)?;
            written.runs.push(run);
            written.words.push((run.block, with_generation(body, generation)));
            bodies.push(AnswerSlot { block: run.block, generation });
        }
        let AnswerSlot { block, generation } = *bodies.first()?;
        let pick = image.pick();
        written.leads = Leads { block, slots: 0, pick, dnssec: ANY_DNSSEC, generation };
        let slots: Vec<u64> =
            image.slots().filter_map(|body| bodies.get(body)).copied().map(AnswerSlot::word).collect();
        if !slots.is_empty() {
            let (run, _) = self.take_blocks(slots.len(), makes_room)?;
            written.runs.push(run);
            // Not that of a body: a table is only ever led to by this word.
            written.leads =
                Leads { block: run.block, slots: slots.len() as u16, pick, dnssec: ANY_DNSSEC, generation: 1 };
            written.words.push((run.block, slots));
        }
        Some(())
    }

    /// Takes room for so many words, with the generation of a body that is put there.
    fn take_blocks(&mut self, words: usize, makes_room: bool) -> Option<(Run, u16)> {
        let blocks = (words as u32).div_ceil(BLOCK_WORDS);
        let mut found = self.room.answers.pages.first_free(blocks);
        if found.is_none() && makes_room {
            self.grace_for_answers();
            found = self.room.answers.pages.first_free(blocks);
        }
        if found.is_none() && makes_room && !self.answering.evicted {
            self.evict();
            found = self.room.answers.pages.first_free(blocks);
        }
        let run = found?;
        let room = self.room.answers_mut();
        let generation = room.pages.next_generation(run);
        room.pages.take(run);
        Some((run, generation))
    }

    fn grace_for_answers(&mut self) {
        if self.room.answers.waits() {
            self.push(Op::Grace);
        }
    }

    /// Takes away all that has an end: room is needed for what is ours.
    fn evict(&mut self) {
        self.answering.evicted = true;
        let actual = self.actual;
        for question in &actual.answers.cached {
            let before = actual.answers.index.as_ref().and_then(|index| index.find(*question));
            let now = self.answering.index.as_ref().and_then(|index| index.find(*question));
            // Unless this very plan has put it there.
            if before.is_some() && before.map(|(_, entry)| entry) == now.map(|(_, entry)| entry) {
                self.remove_answer(*question);
            }
        }
        self.grace_for_answers();
    }

    /// An index for all that is wanted, or as large a one as there is room for, with nothing in it.
    fn write_first_index(&mut self) -> bool {
        let mut blocks = Index::blocks_for(self.desired.answers.len());
        let run = loop {
            match self.room.answers.pages.first_free(blocks) {
                Some(run) => break run,
                None if blocks > Index::blocks_for(0) => blocks = (blocks / 2).max(Index::blocks_for(0)),
                None => return false,
            }
        };
        self.write_index(Index::new(run), true);
        true
    }

    /// Makes the index twice as large, if there is room.
    fn grow_index(&mut self) {
        let Some(index) = &self.answering.index else { return };
        let run = self.room.answers.pages.first_free(index.run().blocks * 2);
        if let Some(grown) = run.and_then(|run| index.grown(run)) {
            self.write_index(grown, false);
            if self.answering.is_built {
                self.swap_index();
            }
        }
    }

    fn write_index(&mut self, index: Index, afresh: bool) {
        let actual = self.actual;
        let room = self.room.answers_mut();
        room.pages.take(index.run());
        room.retire(self.answering.index.as_ref().map(Index::run).as_slice());
        if afresh {
            self.answering.is_built = false;
            actual.answers.held.values().for_each(|held| room.retire(held.runs.all()));
        }
        self.push(Op::WriteIndex { index: index.clone(), afresh });
        self.answering.index = Some(index);
        self.note_swapped();
    }

    /// Has every DNS address look into the index.
    fn swap_index(&mut self) {
        let Some(region) = self.answering.index.as_ref().map(Index::region) else { return };
        let behind = self.answering.dns.iter().filter(|(_, (_, looks))| *looks != region);
        for (endpoint, id) in behind.map(|(endpoint, (id, _))| (*endpoint, *id)).collect::<Vec<_>>() {
            self.push(Op::SwapIndex { id, endpoint, region });
            self.answering.dns.insert(endpoint, (id, region));
        }
        self.note_swapped();
    }
}
