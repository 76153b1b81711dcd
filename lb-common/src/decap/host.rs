//! Tables in memory: what tests run the decapsulator on.

use super::{
    tables::{Settings, Tables},
    verdict::Why,
};
use crate::tables::Endpoint;
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

/// Tables in memory, and what was counted.
#[derive(Clone, Debug, Default)]
pub struct HostTables {
    /// See [`Tables::settings`].
    pub settings: Option<Settings>,
    /// See [`Tables::receives`].
    pub addresses: BTreeSet<Endpoint>,
    counts: RefCell<BTreeMap<Why, u64>>,
}

impl HostTables {
    /// Packets by the way they left.
    pub fn counts(&self) -> BTreeMap<Why, u64> {
        self.counts.borrow().clone()
    }
}

impl Tables for HostTables {
    fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    fn receives(&self, to: &Endpoint) -> bool {
        self.addresses.contains(to)
    }

    fn count(&self, why: Why) {
        *self.counts.borrow_mut().entry(why).or_default() += 1;
    }
}
