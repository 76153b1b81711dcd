//! From a flow to its slot.

use super::parse::Flow;
use crate::{
    hash,
    tables::{Region, Service, Settings, Slot, Tables},
    verdict::Why,
};

/// The slot that the flow's hash falls into.
#[inline(always)]
pub fn slot<'t, T: Tables>(
    tables: &'t T,
    settings: &Settings,
    service: &Service,
    flow: &Flow,
) -> Result<&'t Slot, Why> {
    let region = Region::from_word(service.region);
    if region.slots == 0 {
        return Err(Why::NoBackend);
    }
    let index = hash::slot(hash::flow(&settings.keys, words(flow)), region.slots);
    tables.slot(region.first.wrapping_add(index)).ok_or(Why::Inconsistent)
}

/// What a flow is told by: client address and both ports. The service's address is left out, since each service has a table
/// of its own.
#[inline(always)]
fn words(flow: &Flow) -> [u64; 3] {
    let [first, second] = flow.from.address;
    [first, second, flow.from.tail << 32 | flow.to.tail & 0xffff_ffff]
}
