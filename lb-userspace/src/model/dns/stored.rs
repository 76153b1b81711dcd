//! Names and their records in the least memory: made once, then only read.
//!
//! All lie one behind the other in one run of bytes, found by a table of their places: about 30 bytes for a name with one address
//! beside those of the name and the address themselves.

use super::data::View;
use std::hash::{DefaultHasher, Hasher as _};

/// The names.
#[derive(Debug, Default)]
pub struct Stored {
    /// Of each name its length (1 byte), itself, the number of its sets (1), and the sets: type (2), TTL (4), number of records (2), and
    /// each record behind its length (2).
    bytes: Vec<u8>,
    /// Places in `bytes` plus one, 0: none; by the name's hash, or the next free one.
    table: Vec<u32>,
    names: usize,
}

/// Records of one name and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<'a> {
    /// Their type.
    pub kind: u16,
    /// For how long resolvers may keep them.
    pub ttl_seconds: u32,
    /// What they say; at least one.
    pub data: Vec<View<'a>>,
}

impl Stored {
    /// Puts a name behind the others; it must not be there yet. `wire` is in lower case.
    pub fn push(&mut self, wire: &[u8], sets: &[Set<'_>]) {
        let place = self.bytes.len() as u32;
        self.bytes.push(wire.len() as u8);
        self.bytes.extend(wire);
        self.bytes.push(sets.len() as u8);
        for set in sets {
            self.bytes.extend(set.kind.to_be_bytes());
            self.bytes.extend(set.ttl_seconds.to_be_bytes());
            self.bytes.extend((set.data.len() as u16).to_be_bytes());
            for data in &set.data {
                self.bytes.extend((data.bytes.len() as u16).to_be_bytes());
                self.bytes.extend(data.bytes);
            }
        }
        self.names += 1;
        if self.table.len() < self.names * 2 {
            self.grow();
        } else {
            self.note(place);
        }
    }

    /// Gives back room that was meant for more.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to_fit();
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.names
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.names == 0
    }

    /// The sets of a name, in the order in which they were put in.
    pub fn get(&self, wire: &[u8]) -> Option<Vec<Set<'_>>> {
        for slot in self.slots(wire) {
            let place = self.table.get(slot)?.checked_sub(1)?;
            let mut reader = Reader(self.bytes.get(place as usize..)?);
            if reader.name()? == wire {
                return reader.sets();
            }
        }
        None
    }

    /// Whether the name is there.
    pub fn contains(&self, wire: &[u8]) -> bool {
        self.get(wire).is_some()
    }

    /// All names with their sets, as they were put in.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Vec<Set<'_>>)> {
        let mut reader = Reader(&self.bytes);
        std::iter::from_fn(move || Some((reader.name()?, reader.sets()?)))
    }

    fn grow(&mut self) {
        let places: Vec<u32> = {
            let mut reader = Reader(&self.bytes);
            let place = |reader: &Reader<'_>| (self.bytes.len() - reader.0.len()) as u32;
            std::iter::from_fn(|| {
                let at = place(&reader);
                reader.name()?;
                reader.sets()?;
                Some(at)
            })
            .collect()
        };
        self.table = vec![0; (self.names * 4).next_power_of_two()];
        for place in places {
            self.note(place);
        }
    }

    fn note(&mut self, place: u32) {
        let Some(wire) = self.bytes.get(place as usize..).and_then(|bytes| Reader(bytes).name()) else { return };
        let slot = self.slots(wire).find(|slot| self.table.get(*slot) == Some(&0));
        if let Some(slot) = slot.and_then(|slot| self.table.get_mut(slot)) {
            *slot = place + 1;
        }
    }

    /// Where a name may be noted, one place after the other.
    fn slots(&self, wire: &[u8]) -> impl Iterator<Item = usize> + use<> {
        // Whoever chooses questions can't choose the names that are here, so nobody can make this slow.
        let mut hasher = DefaultHasher::new();
        hasher.write(wire);
        let (first, size) = (hasher.finish() as usize, self.table.len());
        (0..size).map(move |step| first.wrapping_add(step) & (size - 1))
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<usize> {
        self.take(1)?.first().copied().map(usize::from)
    }

    fn word(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().copied().map(u16::from_be_bytes)
    }

    fn name(&mut self) -> Option<&'a [u8]> {
        let length = self.byte()?;
        self.take(length)
    }

    fn sets(&mut self) -> Option<Vec<Set<'a>>> {
        let count = self.byte()?;
        (0..count).map(|_| self.set()).collect()
    }

    fn set(&mut self) -> Option<Set<'a>> {
        let kind = self.word()?;
        let ttl_seconds = self.take(4)?.first_chunk().copied().map(u32::from_be_bytes)?;
        let count = self.word()?;
        let data = (0..count).map(|_| {
            let length = self.word()?;
            Some(View { kind, bytes: self.take(length.into())? })
        });
        Some(Set { kind, ttl_seconds, data: data.collect::<Option<_>>()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_put_in_is_found(
            names in prop::collection::btree_map(
                prop::collection::vec(any::<u8>(), 1..20),
                prop::collection::vec((any::<u16>(), any::<u32>(), prop::collection::vec(prop::collection::vec(any::<u8>(), 0..30), 1..4)), 0..4),
                0..200,
            ),
            other in prop::collection::vec(any::<u8>(), 1..3),
        ) {
            let sets = |written: &'_ [(u16, u32, Vec<Vec<u8>>)]| -> Vec<(u16, u32, Vec<Vec<u8>>)> { written.to_vec() };
            let mut stored = Stored::default();
            for (wire, written) in &names {
                let sets: Vec<_> = written
                    .iter()
                    .map(|(kind, ttl_seconds, data)| Set {
                        kind: *kind,
                        ttl_seconds: *ttl_seconds,
                        data: data.iter().map(|bytes| View { kind: *kind, bytes }).collect(),
                    })
                    .collect();
                stored.push(wire, &sets);
            }
            stored.shrink();
            let own = |read: Vec<Set<'_>>| -> Vec<_> {
                read.into_iter()
                    .map(|set| (set.kind, set.ttl_seconds, set.data.into_iter().map(|data| data.bytes.to_vec()).collect()))
                    .collect()
            };
            prop_assert_eq!(stored.len(), names.len());
            for (wire, written) in &names {
                prop_assert_eq!(stored.get(wire).map(own), Some(sets(written)));
            }
            prop_assert_eq!(stored.contains(&other), names.contains_key(&other));
            let all: Vec<_> = stored.iter().map(|(wire, sets)| (wire.to_vec(), own(sets))).collect();
            prop_assert_eq!(all, names.into_iter().collect::<Vec<_>>());
        }
    }
}
