//! From a flow to its slot.

use crate::{
    hash,
    tables::{FlowKey, Region, Service, Settings, Slot, Tables},
    verdict::Why,
};

/// The slot that the flow's hash falls into, and the hash.
#[inline(always)]
pub fn slot<T: Tables>(tables: &T, settings: &Settings, service: &Service, flow: &FlowKey) -> Result<(Slot, u32), Why> {
    let region = Region::from_word(service.region);
    if region.slots == 0 {
        return Err(Why::NoBackend);
    }
    let hash = hash::flow(&settings.keys, flow.words());
    let index = region.first.wrapping_add(hash::slot(hash, region.slots));
    Ok((tables.slot(index).ok_or(Why::Inconsistent)?, hash))
}
