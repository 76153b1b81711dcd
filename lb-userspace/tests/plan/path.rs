//! The path's rule for one packet, as the specification of slots tells it and without a frame.

use lb_common::{
    hash,
    host::HostTables,
    tables::{CLEAN, DOWN, Endpoint, FlowKey, FlowTable, IN_USE, NOBODY, Region, Tables as _, Tracked},
};

/// The backend that a packet goes to. `begins`: it begins a flow, and would begin one anew.
pub fn packet(tables: &HostTables, from: &Endpoint, to: &Endpoint, begins: bool) -> Option<u32> {
    let service = tables.service(to)?;
    let region = Region::from_word(service.region);
    if region.slots == 0 {
        return None;
    }
    let key = FlowKey::new(from, to, service.id);
    let keys = tables.settings?.keys;
    let slot = tables.slot(region.first + hash::slot(hash::flow(&keys, key.words()), region.slots))?;
    let somebody = |id: u32| Some(id).filter(|id| *id != NOBODY);
    if slot.previous == CLEAN {
        return somebody(slot.current);
    }
    let is_live = |id: u32| tables.backends.get(&id).is_some_and(|backend| backend.flags & (IN_USE | DOWN) == IN_USE);
    let seen = tables.seconds as u32;
    for table in [FlowTable::Established, FlowTable::HalfOpen] {
        let known = tables.with_flow(table, &key, |word| Tracked::from_word(word.get()));
        let Some(known) = known else { continue };
        tables.forget(table, &key);
        let backend = somebody(if is_live(known.backend) { known.backend } else { slot.current })?;
        let table = if begins { table } else { FlowTable::Established };
        tables.track(table, &key, Tracked { backend, seen, closing: false });
        return Some(backend);
    }
    let Some(previous) = slot.open() else { return somebody(slot.current) };
    let (table, backend) = match begins {
        true => (FlowTable::HalfOpen, slot.current),
        false if is_live(previous) => (FlowTable::Established, previous),
        false => return somebody(slot.current),
    };
    tables.track(table, &key, Tracked { backend: somebody(backend)?, seen, closing: false });
    Some(backend)
}
