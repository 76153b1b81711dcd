//! Which questions without an answer the kernel is told of: those that are asked again and again.
//!
//! Names that nobody has are made up at no cost, so what is asked once is not taken in: it only leaves a mark at the door.

use super::{image::Image, wanted::Answers};
use crate::model::dns::rendered::{Question, Rendered};
use lb_common::{hash::name_step, tables::answers::NEGATIVE};
use std::collections::{BTreeMap, HashMap};

/// The most that are in at once.
pub const MOST: usize = 65_536;
/// For how many seconds one is in: what is still asked then is taken in again.
const STAYS: u64 = 300;
/// Marks after which all are forgotten.
const MARKS: usize = 131_072;
/// Bits for the marks: with four for each, one in five thousand names that were not asked before seems to have been.
const BITS: u64 = 1 << 22;
const BITS_OF_MARK: u64 = 4;

/// The marks of what was asked once.
#[derive(Debug)]
struct Door {
    bits: Vec<u64>,
    marks: usize,
}

impl Default for Door {
    fn default() -> Self {
        Self { bits: vec![0; (BITS / 64) as usize], marks: 0 }
    }
}

impl Door {
    /// Whether it was asked before; if not, it is marked.
    fn opens(&mut self, question: u64) -> bool {
        let mut all = true;
        for number in 0..BITS_OF_MARK {
            let bit = name_step(question, number + 1) % BITS;
            if let Some(word) = self.bits.get_mut((bit / 64) as usize) {
                all &= *word >> (bit % 64) & 1 == 1;
                *word |= 1 << (bit % 64);
            }
        }
        if !all {
            self.marks += 1;
            if self.marks > MARKS {
                *self = Self::default();
            }
        }
        all
    }
}

/// What is in of questions without an answer.
#[derive(Debug, Default)]
pub struct Negatives {
    door: Door,
    /// In the order in which they came in.
    order: BTreeMap<u64, Question>,
    /// Their numbers in this order, by their hashes.
    numbers: HashMap<u64, u64>,
    next: u64,
}

impl Negatives {
    /// A question came to the agent, which answers it so. Returns whether the kernel is to answer it from now on.
    pub fn asked(&mut self, question: &Question, rendered: &Rendered, seconds: u64, answers: &mut Answers) -> bool {
        let is_negative = matches!(&*rendered.bodies, [body] if body.class == NEGATIVE);
        let Some(hash) = answers.hash(question).filter(|_| is_negative) else { return false };
        let is_in = |answers: &Answers| answers.get(hash).is_some_and(|known| known.spent_at() > seconds);
        if is_in(answers) || !self.door.opens(hash) {
            return false;
        }
        let mut rendered = rendered.clone();
        rendered.bodies.iter_mut().for_each(|body| (body.since, body.spent_at) = (seconds, seconds + STAYS));
        answers.put(question, &rendered);
        if !is_in(answers) {
            return false;
        }
        if let Some(before) = self.numbers.insert(hash, self.next) {
            self.order.remove(&before);
        }
        self.order.insert(self.next, question.clone());
        self.next += 1;
        if self.order.len() > MOST
            && let Some((_, first)) = self.order.pop_first()
        {
            self.leave(&first, answers);
        }
        true
    }

    /// Has one leave; whether it was in.
    pub fn flush(&mut self, question: &Question, answers: &mut Answers) -> bool {
        let number = answers.hash(question).and_then(|hash| self.numbers.get(&hash).copied());
        let is_in = number.and_then(|number| self.order.remove(&number)).is_some();
        is_in && self.leave(question, answers)
    }

    fn leave(&mut self, question: &Question, answers: &mut Answers) -> bool {
        let Some(hash) = answers.hash(question) else { return false };
        self.numbers.remove(&hash);
        let is_cached = answers.get(hash).is_some_and(Image::is_cached);
        if is_cached {
            answers.remove(question);
        }
        is_cached
    }

    /// All have left: names are others now.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::dns::rendered::Body;
    use bytemuck::Zeroable as _;
    use lb_common::{hash::Keys, tables::answers::Pick};

    fn question(number: u32) -> Question {
        let [a, b, c, d] = number.to_be_bytes().map(|byte| byte | 1 << 7);
        Question { wire: [5, a, b, c, d, b'x', number as u8 | 1, 0].as_slice().into(), kind: 0x1_0001 }
    }

    fn negative() -> Rendered {
        let body = Body { class: NEGATIVE, spent_at: u64::MAX, ..Body::default() };
        Rendered { pick: Pick::Only, slots: vec![], bodies: vec![body] }
    }

    fn answers() -> Answers {
        Answers::new(Keys { name: 7, ..Keys::zeroed() })
    }

    #[test]
    fn what_is_asked_once_stays_outside() {
        let (mut negatives, mut answers) = (Negatives::default(), answers());
        assert!(!negatives.asked(&question(1), &negative(), 10, &mut answers));
        assert!(negatives.asked(&question(1), &negative(), 10, &mut answers));
        assert!(!negatives.asked(&question(1), &negative(), 11, &mut answers), "it is in");
        assert_eq!((answers.len(), answers.cached()), (1, 1));
        assert!(negatives.asked(&question(1), &negative(), 10 + STAYS, &mut answers), "its time was over");
        assert_eq!((answers.len(), negatives.order.len()), (1, 1));
        let mut positive = negative();
        positive.bodies[0].class = 0;
        assert!((0..3).all(|_| !negatives.asked(&question(2), &positive, 10, &mut answers)));
    }

    #[test]
    fn a_flood_pushes_out_nothing() {
        let (mut negatives, mut answers) = (Negatives::default(), answers());
        for _ in 0..2 {
            negatives.asked(&question(1), &negative(), 10, &mut answers);
        }
        let admitted = (0..400_000_u32)
            .map(|number| number.wrapping_mul(2_654_435_761))
            .filter(|number| negatives.asked(&question(*number), &negative(), 10, &mut answers));
        let admitted = admitted.count();
        assert!(admitted < 4_000, "{admitted}");
        assert!(answers.get(answers.hash(&question(1)).unwrap()).is_some());
    }

    #[test]
    fn the_first_leaves_for_the_last() {
        let (mut negatives, mut answers) = (Negatives::default(), answers());
        let all: Vec<Question> = (0..70_000_u32).map(|number| question(number.wrapping_mul(2_654_435_761))).collect();
        let different: std::collections::HashSet<&Question> = all.iter().collect();
        assert!(different.len() > MOST + 1_000);
        for question in &all {
            for _ in 0..2 {
                negatives.asked(question, &negative(), 10, &mut answers);
            }
        }
        assert_eq!((answers.cached(), negatives.numbers.len()), (MOST, MOST));
        let is_in = |question: &Question| answers.get(answers.hash(question).unwrap()).is_some();
        assert!(!is_in(&all[0]) && is_in(all.last().unwrap()));
        let last = all.last().unwrap();
        assert!(negatives.flush(last, &mut answers) && !negatives.flush(last, &mut answers));
        negatives.clear();
    }
}
