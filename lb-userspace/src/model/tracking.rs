//! How a slot turns from one backend to another without moving the flows that it has.
//!
//! A slot that turns away from a live backend opens its adoption window: flows that the path has not tracked belong to who had the
//! slot before. When the window closes, they belong to who has it now, and tracked ones stay where they are. A slot is clean
//! again when no tracked flow contradicts it, which [`super::flows`] finds out.

use lb_common::tables::{CLOSED, NOBODY, Region, Slot};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// What a slot becomes when `next` (or [`NOBODY`]) is to take new flows. `over`: its adoption window, if it has one, has lasted
/// long enough. `failed` tells whether a backend has failed, whose flows are nobody's.
pub fn turn(slot: Slot, next: u32, over: bool, failed: impl Fn(u32) -> bool) -> Slot {
    let slot = match slot.open() {
        Some(previous) if over || failed(previous) => Slot { previous: CLOSED, ..slot },
        _ => slot,
    };
    if next == slot.current {
        return slot;
    }
    match slot.open() {
        // All flows that began since are tracked; those that are not never left.
        Some(previous) if previous == next => Slot { current: next, previous: CLOSED },
        Some(_) => Slot { current: next, ..slot },
        None if slot.current == NOBODY || failed(slot.current) => Slot { current: next, ..slot },
        None => Slot { current: next, previous: slot.current },
    }
}

/// A service's slot table, as it is in the slot space.
#[derive(Clone, Debug, PartialEq)]
pub struct Table {
    region: Region,
    slots: Arc<[Slot]>,
    /// When the adoption windows that are open end, by the slot's number in the table.
    open: BTreeMap<u32, Duration>,
    first_end: Option<Duration>,
    closed: u32,
}

impl Table {
    /// A table at its place. The windows that are open end at `deadline`.
    pub fn new(region: Region, slots: Arc<[Slot]>, deadline: Duration) -> Self {
        let open = (0..).zip(&*slots).filter(|(_, slot)| slot.open().is_some());
        let open: BTreeMap<u32, Duration> = open.map(|(number, _)| (number, deadline)).collect();
        let closed = slots.iter().filter(|slot| slot.previous == CLOSED).count() as u32;
        Self { region, first_end: (!open.is_empty()).then_some(deadline), slots, open, closed }
    }

    /// Its place.
    pub fn region(&self) -> Region {
        self.region
    }

    /// Its slots.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// How many slots have a history.
    pub fn changed(&self) -> usize {
        self.open.len() + self.closed as usize
    }

    /// When the first adoption window ends.
    pub fn first_end(&self) -> Option<Duration> {
        self.first_end
    }

    /// Whether a slot leads to this backend, be it for new flows or for those from before.
    pub fn names(&self, id: u32) -> bool {
        self.slots.iter().any(|slot| slot.current == id || slot.previous == id)
    }

    /// Stores some slots. Those that open their windows close them at `deadline`.
    pub fn store(&mut self, slots: &[(u32, Slot)], deadline: Duration) {
        if slots.is_empty() {
            return;
        }
        let table = Arc::make_mut(&mut self.slots);
        for (number, slot) in slots {
            let Some(place) = table.get_mut(*number as usize) else { continue };
            let before = std::mem::replace(place, *slot);
            self.closed = self.closed + u32::from(slot.previous == CLOSED) - u32::from(before.previous == CLOSED);
            match slot.open() {
                None => _ = self.open.remove(number),
                // A further change in an open window does not prolong it.
                Some(previous) if before.open() == Some(previous) => (),
                Some(_) => _ = self.open.insert(*number, deadline),
            }
        }
        self.first_end = self.open.values().min().copied();
    }

    /// The slots that change when each of them is to lead new flows to what `next` says, at `now`.
    pub fn turned(
        &self,
        now: Duration,
        next: impl Fn(u32, Slot) -> u32,
        failed: impl Fn(u32) -> bool,
    ) -> Vec<(u32, Slot)> {
        let turned = (0..).zip(&*self.slots).map(|(number, slot)| {
            let over = slot.open().is_some() && self.open.get(&number).is_none_or(|end| *end <= now);
            (number, *slot, turn(*slot, next(number, *slot), over, &failed))
        });
        turned.filter(|(_, before, after)| before != after).map(|(number, _, after)| (number, after)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::tables::CLEAN;
    use proptest::prelude::*;

    const A: u32 = 1;
    const B: u32 = 2;
    const C: u32 = 3;

    fn slot(current: u32, previous: u32) -> Slot {
        Slot { current, previous }
    }

    /// Before, next, over, who has failed; after.
    type Row = (Slot, u32, bool, &'static [u32], Slot);

    #[test]
    fn every_row_of_the_table() {
        let rows: &[Row] = &[
            // Nothing to do.
            (slot(A, CLEAN), A, false, &[], slot(A, CLEAN)),
            (slot(A, CLOSED), A, false, &[], slot(A, CLOSED)),
            (slot(A, B), A, false, &[], slot(A, B)),
            (slot(NOBODY, CLEAN), NOBODY, false, &[], slot(NOBODY, CLEAN)),
            // Away from a live backend: the window opens.
            (slot(A, CLEAN), B, false, &[], slot(B, A)),
            (slot(A, CLOSED), B, false, &[], slot(B, A)),
            (slot(A, CLEAN), NOBODY, false, &[], slot(NOBODY, A)),
            (slot(A, CLOSED), NOBODY, false, &[], slot(NOBODY, A)),
            // Away from one that has failed, or from nobody: there is nothing to adopt.
            (slot(A, CLEAN), B, false, &[A], slot(B, CLEAN)),
            (slot(A, CLOSED), B, false, &[A], slot(B, CLOSED)),
            (slot(A, CLEAN), NOBODY, false, &[A], slot(NOBODY, CLEAN)),
            (slot(NOBODY, CLEAN), B, false, &[], slot(B, CLEAN)),
            (slot(NOBODY, CLOSED), B, false, &[], slot(B, CLOSED)),
            // A further change within the window: who had the slot before stays.
            (slot(A, B), C, false, &[], slot(C, B)),
            (slot(A, B), C, false, &[A], slot(C, B)),
            (slot(A, B), NOBODY, false, &[], slot(NOBODY, B)),
            // Back within the window.
            (slot(A, B), B, false, &[], slot(B, CLOSED)),
            (slot(A, B), B, false, &[A], slot(B, CLOSED)),
            // Who had the slot before has failed.
            (slot(A, B), A, false, &[B], slot(A, CLOSED)),
            (slot(NOBODY, B), NOBODY, false, &[B], slot(NOBODY, CLOSED)),
            (slot(A, B), C, false, &[B], slot(C, A)),
            (slot(A, B), C, false, &[A, B], slot(C, CLOSED)),
            // The window is over.
            (slot(A, B), A, true, &[], slot(A, CLOSED)),
            (slot(A, B), C, true, &[], slot(C, A)),
            (slot(A, B), C, true, &[A], slot(C, CLOSED)),
            (slot(A, B), B, true, &[], slot(B, A)),
        ];
        for (before, next, over, failed, after) in rows {
            let found = turn(*before, *next, *over, |id| failed.contains(&id));
            assert_eq!(found, *after, "{before:?} next {next} over {over} failed {failed:?}");
        }
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_window_that_is_open_is_not_prolonged() {
        let region = Region { first: 0, slots: 2 };
        let mut table = Table::new(region, vec![slot(A, CLEAN), slot(A, CLEAN)].into(), seconds(0));
        assert_eq!((table.changed(), table.first_end()), (0, None));
        table.store(&[(0, slot(B, A))], seconds(10));
        table.store(&[(0, slot(C, A)), (1, slot(C, A))], seconds(20));
        assert_eq!((table.changed(), table.first_end()), (2, Some(seconds(10))));
        let stays = |_: u32, slot: Slot| slot.current;
        assert_eq!(table.turned(seconds(9), stays, |_| false), []);
        assert_eq!(table.turned(seconds(10), stays, |_| false), [(0, slot(C, CLOSED))]);
        table.store(&[(0, slot(C, CLOSED))], seconds(99));
        assert_eq!((table.changed(), table.first_end()), (2, Some(seconds(20))));
        table.store(&[(0, slot(C, CLEAN)), (1, slot(C, CLEAN))], seconds(99));
        assert_eq!((table.changed(), table.first_end()), (0, None));
        assert!(table.names(C) && !table.names(A));
    }

    proptest! {
        /// What is counted along the way is what is there.
        #[test]
        fn counts_are_those_of_the_slots(steps in prop::collection::vec((0_u32..5, 0_u32..4, 0_u32..6, 0_u64..50), 0..60)) {
            let region = Region { first: 0, slots: 5 };
            let mut table = Table::new(region, vec![Slot::clean(NOBODY); 5].into(), seconds(0));
            for (number, current, previous, deadline) in steps {
                let previous = [A, B, C, CLEAN, CLOSED, CLOSED][previous as usize];
                table.store(&[(number, slot(current, previous))], seconds(deadline));
                let changed = table.slots().iter().filter(|slot| slot.previous != CLEAN).count();
                prop_assert_eq!(table.changed(), changed);
                let open = table.slots().iter().any(|slot| slot.open().is_some());
                prop_assert_eq!(table.first_end().is_some(), open);
                let again = Table::new(region, table.slots().into(), seconds(0));
                prop_assert_eq!(again.changed(), changed);
            }
        }
    }
}
