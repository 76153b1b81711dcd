//! What the kernel is to answer, and what of it has changed since when: of a million answers, a change of health concerns a few.

use super::image::{Image, Unfit, hash};
use crate::model::dns::rendered::{Question, Rendered};
use lb_common::hash::Keys;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// Up to where the changes of [`Answers`] have been followed.
#[derive(Clone, Debug)]
pub struct Reached {
    lineage: Arc<()>,
    number: u64,
}

impl PartialEq for Reached {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.lineage, &other.lineage) && self.number == other.number
    }
}

/// What the kernel is to answer, by the hash of the question.
#[derive(Debug)]
pub struct Answers {
    /// Tells these from others, whose changes have other numbers.
    lineage: Arc<()>,
    keys: Keys,
    all: HashMap<u64, Wanted>,
    /// Questions by the number of their last change.
    changes: BTreeMap<u64, u64>,
    next: u64,
    /// What was taken away, and may have come back.
    gone: Vec<u64>,
    count: usize,
    cached: usize,
    refused: HashMap<Question, Refused>,
}

#[derive(Clone, Debug)]
struct Wanted {
    /// None: it was taken away.
    image: Option<Image>,
    changed: u64,
}

/// Why an answer is the agent's alone, whatever room there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The kernel can't hold it.
    Unfit(Unfit),
    /// Another question has the same hash.
    Collision,
}

/// A copy goes its own way: its changes are not those of the original.
impl Clone for Answers {
    fn clone(&self) -> Self {
        let Self { lineage: _, keys, all, changes, next, gone, count, cached, refused } = self;
        let (all, changes, gone, refused) = (all.clone(), changes.clone(), gone.clone(), refused.clone());
        let lineage = Arc::default();
        Self { lineage, keys: *keys, all, changes, next: *next, gone, count: *count, cached: *cached, refused }
    }
}

impl Answers {
    /// None, to be found with these keys.
    pub fn new(keys: Keys) -> Self {
        Self {
            lineage: Arc::default(),
            keys,
            all: HashMap::new(),
            changes: BTreeMap::new(),
            next: 0,
            gone: Vec::new(),
            count: 0,
            cached: 0,
            refused: HashMap::new(),
        }
    }

    /// The keys of the hashes.
    pub const fn keys(&self) -> &Keys {
        &self.keys
    }

    /// How many there are.
    pub const fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How many of them have an end.
    pub const fn cached(&self) -> usize {
        self.cached
    }

    /// What is the agent's alone.
    pub fn refused(&self) -> impl ExactSizeIterator<Item = (&Question, &Refused)> {
        self.refused.iter()
    }

    /// The hash of a question, if it has one.
    pub fn hash(&self, question: &Question) -> Option<u64> {
        hash(&self.keys, question)
    }

    /// The answer to the question with this hash.
    pub fn get(&self, hash: u64) -> Option<&Image> {
        self.all.get(&hash)?.image.as_ref()
    }

    /// All answers, by the hashes of their questions.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Image)> {
        self.all.iter().filter_map(|(hash, wanted)| Some((*hash, wanted.image.as_ref()?)))
    }

    /// Wants an answer to a question, in place of an earlier one. One with an end never takes the place of one without.
    pub fn put(&mut self, question: &Question, rendered: &Rendered) {
        let image = match self.image(question, rendered) {
            Ok((hash, image)) => (hash, image),
            Err(refused) => {
                self.remove(question);
                self.refused.insert(question.clone(), refused);
                return;
            }
        };
        let (hash, image) = image;
        let known = self.get(hash);
        if known == Some(&image) {
            return;
        }
        if known.is_some_and(|known| !known.is_cached()) && image.is_cached() {
            return;
        }
        if !self.refused.is_empty() {
            self.refused.remove(question);
        }
        self.change(hash, Some(image));
    }

    fn image(&self, question: &Question, rendered: &Rendered) -> Result<(u64, Image), Refused> {
        let hash = self.hash(question).ok_or(Refused::Unfit(Unfit::Name))?;
        let image = Image::new(question, rendered).map_err(Refused::Unfit)?;
        let is_other = |known: &Image| known.question().as_ref() != Some(question);
        match self.get(hash).filter(|known| is_other(known)) {
            // Whatever has an end gives way.
            Some(known) if !known.is_cached() || image.is_cached() => Err(Refused::Collision),
            _ => Ok((hash, image)),
        }
    }

    /// Wants no answer to a question any more.
    pub fn remove(&mut self, question: &Question) {
        self.refused.remove(question);
        let Some(hash) = self.hash(question) else { return };
        if self.get(hash).is_some_and(|known| known.question().as_ref() == Some(question)) {
            self.change(hash, None);
        }
    }

    /// Wants these answers, which have no end, and no others.
    pub fn replace(&mut self, all: impl Iterator<Item = (Question, Rendered)>) {
        self.refused.clear();
        let mut stay = HashSet::new();
        for (question, rendered) in all {
            if let Some(hash) = self.hash(&question) {
                // One that only has the same hash is no longer wanted, or is told of when its turn comes.
                let other = self.get(hash).is_some_and(|known| known.question().as_ref() != Some(&question));
                if other && stay.insert(hash) {
                    self.change(hash, None);
                }
                stay.insert(hash);
            }
            self.put(&question, &rendered);
        }
        let gone: Vec<u64> = self.iter().map(|(hash, _)| hash).filter(|hash| !stay.contains(hash)).collect();
        gone.into_iter().for_each(|hash| self.change(hash, None));
    }

    /// Has an answer written anew though it is the same.
    pub fn touch(&mut self, question: &Question) -> bool {
        let found = self.hash(question).and_then(|hash| Some((hash, self.get(hash)?.question()?)));
        let Some((hash, _)) = found.filter(|(_, found)| found == question) else { return false };
        let image = self.get(hash).cloned();
        self.change(hash, image);
        true
    }

    fn change(&mut self, hash: u64, image: Option<Image>) {
        let counts = |image: &Option<Image>| {
            (usize::from(image.is_some()), usize::from(image.as_ref().is_some_and(Image::is_cached)))
        };
        if image.is_none() {
            self.gone.push(hash);
        }
        let (one, cached) = counts(&image);
        (self.count, self.cached) = (self.count + one, self.cached + cached);
        if let Some(before) = self.all.insert(hash, Wanted { image, changed: self.next }) {
            self.changes.remove(&before.changed);
            let (one, cached) = counts(&before.image);
            (self.count, self.cached) = (self.count - one, self.cached - cached);
        }
        self.changes.insert(self.next, hash);
        self.next += 1;
    }

    /// The questions that have changed since, each with the number to go on from; none if what was reached is of others than these.
    pub fn changes(&self, reached: Option<&Reached>) -> Option<impl Iterator<Item = (Reached, u64)>> {
        let reached = reached.filter(|reached| Arc::ptr_eq(&reached.lineage, &self.lineage))?;
        let after = |number: u64| Reached { lineage: Arc::clone(&self.lineage), number: number + 1 };
        Some(self.changes.range(reached.number..).map(move |(number, hash)| (after(*number), *hash)))
    }

    /// Where the changes begin.
    pub fn start(&self) -> Reached {
        Reached { lineage: Arc::clone(&self.lineage), number: 0 }
    }

    /// Whether all changes have been followed.
    pub fn is_reached(&self, reached: Option<&Reached>) -> bool {
        self.changes(reached).is_some_and(|mut changes| changes.next().is_none())
    }

    /// Forgets what was taken away, as far as that has been followed.
    pub fn forget(&mut self, reached: Option<&Reached>) {
        let Some(reached) = reached.filter(|reached| Arc::ptr_eq(&reached.lineage, &self.lineage)) else { return };
        for hash in std::mem::take(&mut self.gone) {
            let Some(Wanted { image: None, changed }) = self.all.get(&hash) else { continue };
            if *changed < reached.number {
                self.changes.remove(changed);
                self.all.remove(&hash);
            } else {
                self.gone.push(hash);
            }
        }
    }
}
