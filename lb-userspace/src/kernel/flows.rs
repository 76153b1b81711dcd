//! The flow tables: looking at all that is tracked, and forgetting what need not be.

use super::{batch, error::KernelError, plain::Plain};
use aya::maps::{HashMap, IterableMap as _, MapData};
use lb_common::tables::{FlowKey, FlowTable, Tracked};
use std::{collections::HashSet, io, time::Duration};

type Flows = HashMap<MapData, Plain<FlowKey>, u64>;

/// The flow tables.
pub(super) struct FlowMaps {
    pub established: Flows,
    pub half_open: Flows,
}

impl FlowMaps {
    fn map(&self, table: FlowTable) -> (&'static str, &MapData) {
        match table {
            FlowTable::Established => ("FLOWS", self.established.map()),
            FlowTable::HalfOpen => ("HALF_OPEN", self.half_open.map()),
        }
    }

    /// Looks at all that is tracked. A flow on its way from one table to the other is seen in the second, if not in both.
    pub(super) fn for_each(&self, mut look: impl FnMut(FlowTable, &FlowKey, Tracked)) -> Result<(), KernelError> {
        for table in [FlowTable::HalfOpen, FlowTable::Established] {
            let (name, map) = self.map(table);
            batch::for_each(name, map, |key, word| look(table, key, Tracked::from_word(word)))?;
        }
        Ok(())
    }

    /// Forgets these flows.
    pub(super) fn forget(&self, flows: &[(FlowTable, FlowKey)]) -> Result<(), KernelError> {
        for table in [FlowTable::HalfOpen, FlowTable::Established] {
            let of_table = flows.iter().filter(|(other, _)| *other == table);
            let mut keys: Vec<FlowKey> = of_table.map(|(_, key)| *key).collect();
            let (name, map) = self.map(table);
            batch::remove(name, map, &mut keys)?;
        }
        Ok(())
    }

    /// Forgets the flows of these services and backends.
    pub(super) fn forget_of(&self, services: &[u32], backends: &[u32]) -> Result<(), KernelError> {
        let (services, backends): (HashSet<_>, HashSet<_>) = (services.iter().collect(), backends.iter().collect());
        self.forget_if(|key, flow| services.contains(&key.service()) || backends.contains(&flow.backend))
    }

    /// Forgets the flows that `which` says.
    pub(super) fn forget_if(&self, which: impl Fn(&FlowKey, Tracked) -> bool) -> Result<(), KernelError> {
        let mut flows = Vec::new();
        self.for_each(|table, key, flow| {
            if which(key, flow) {
                flows.push((table, *key));
            }
        })?;
        self.forget(&flows)
    }
}

/// Seconds of the clock that the path has ([`lb_common::tables::Tables::seconds`]).
pub fn seconds() -> Result<u64, KernelError> {
    Ok(clock()?.as_secs())
}

/// The clock that the path has.
pub fn clock() -> Result<Duration, KernelError> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the time is this function's own.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &mut time) };
    if result != 0 {
        return Err(KernelError::Clock(io::Error::last_os_error()));
    }
    Ok(Duration::new(time.tv_sec.cast_unsigned(), time.tv_nsec as u32))
}
