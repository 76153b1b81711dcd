//! What lies in the answer space right now.

use super::{
    image::Image,
    index::{Index, Place},
    pages::{Pages, Run},
    wanted::Reached,
};
use lb_common::tables::answers::Entry;
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// The runs of one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runs {
    /// Of its only body.
    One(Run),
    /// Of its bodies, and of its slots if it has any.
    Many(Arc<[Run]>),
}

impl Runs {
    /// Each of them.
    pub fn all(&self) -> &[Run] {
        match self {
            Self::One(run) => std::slice::from_ref(run),
            Self::Many(runs) => runs,
        }
    }
}

impl From<Vec<Run>> for Runs {
    fn from(runs: Vec<Run>) -> Self {
        match *runs {
            [run] => Self::One(run),
            _ => Self::Many(runs.into()),
        }
    }
}

/// An answer that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The answer.
    pub image: Image,
    /// Where it is.
    pub runs: Runs,
}

/// An answer that is put into the space: what is written first, and then the entry that leads to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Its entry's place in the index.
    pub place: Place,
    /// Block of the index.
    pub index: u32,
    /// Its entry.
    pub entry: Entry,
    /// What is written first, and to which block: bodies, then slots.
    pub words: Vec<(u32, Vec<u64>)>,
    /// What is held then.
    pub held: Held,
}

/// Who holds which blocks, and what waits to be free.
#[derive(Clone, Debug)]
pub struct Room {
    /// The blocks.
    pub pages: Pages,
    /// What nothing in the current index leads to.
    retired: Vec<Run>,
    /// All DNS addresses look into the current index, or into none. While one does not, nothing becomes free: what an earlier index leads
    /// to is not known.
    pub is_swapped: bool,
}

impl Room {
    /// Gives room back, to be free after a grace period.
    pub fn retire(&mut self, runs: &[Run]) {
        self.retired.extend_from_slice(runs);
    }

    /// A grace period is over.
    pub fn grace(&mut self) {
        if self.is_swapped {
            for run in std::mem::take(&mut self.retired) {
                self.pages.release(run);
            }
        }
    }

    /// Whether a grace period would make something free.
    pub fn waits(&self) -> bool {
        self.is_swapped && !self.retired.is_empty()
    }
}

/// What lies in the answer space.
#[derive(Clone, Debug)]
pub struct Placed {
    /// The index that entries are written to.
    pub index: Option<Index>,
    /// It has all that was wanted once, so that DNS addresses may look into it.
    pub is_built: bool,
    /// Up to where the wanted answers have been followed.
    pub reached: Option<Reached>,
    /// Answers by the hashes of their questions.
    pub held: HashMap<u64, Held>,
    /// Those of them that have an end.
    pub cached: BTreeSet<u64>,
    /// Those that there was no room for.
    pub left: BTreeSet<u64>,
    /// The blocks.
    pub room: Room,
}

impl Placed {
    /// Nothing, in a space of so much memory.
    pub fn new(megabytes: u32) -> Self {
        let pages = Pages::new(u64::from(megabytes) << 20);
        Self {
            index: None,
            is_built: false,
            reached: None,
            held: HashMap::new(),
            cached: BTreeSet::new(),
            left: BTreeSet::new(),
            room: Room { pages, retired: Vec::new(), is_swapped: true },
        }
    }

    /// Takes note of what an earlier agent has left. It stays until no DNS address leads to it any more.
    pub fn found(&mut self, runs: impl Iterator<Item = Run>) {
        for run in runs {
            self.room.pages.take(run);
            self.room.retire(&[run]);
        }
    }

    /// Another index takes the place of the one that entries were written to; with `afresh` that has nothing of the one before.
    pub fn write_index(&mut self, index: &Index, afresh: bool) {
        self.room.pages.take(index.run());
        if let Some(before) = self.index.replace(index.clone()) {
            self.room.retire(&[before.run()]);
        }
        if afresh {
            self.is_built = false;
            self.reached = None;
            for (_, held) in self.held.drain() {
                self.room.retire(held.runs.all());
            }
            self.cached.clear();
            self.left.clear();
        }
    }

    /// An answer is there.
    pub fn put(&mut self, put: &Put) {
        let question = put.entry.question;
        put.held.runs.all().iter().for_each(|run| self.room.pages.take(*run));
        if let Some(index) = &mut self.index {
            index.set(put.place, put.entry);
        }
        if put.held.image.is_cached() {
            self.cached.insert(question);
        } else {
            self.cached.remove(&question);
        }
        self.left.remove(&question);
        if let Some(before) = self.held.insert(question, put.held.clone()) {
            self.room.retire(before.runs.all());
        }
    }

    /// An answer is no longer there.
    pub fn remove(&mut self, question: u64, place: Place) {
        if let Some(index) = &mut self.index {
            index.set(place, Entry::default());
        }
        self.cached.remove(&question);
        if let Some(before) = self.held.remove(&question) {
            self.room.retire(before.runs.all());
        }
    }
}
