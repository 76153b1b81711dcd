//! The maps of the decapsulator. Each interface has a program with maps of its own, written before it is attached and never
//! after.

use aya_ebpf::{
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use lb_common::{
    decap::{
        tables::{MAX_ADDRESSES, Settings, Tables},
        verdict::{REASONS, Why},
    },
    tables::Endpoint,
};

#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static ADDRESSES: HashMap<Endpoint, u64> = HashMap::with_max_entries(MAX_ADDRESSES, 0);
#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASONS, 0);

/// The maps.
pub struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        SETTINGS.get(0)
    }

    #[inline(always)]
    fn receives(&self, to: &Endpoint) -> bool {
        ADDRESSES.get_ptr(to).is_some()
    }

    #[inline(always)]
    fn count(&self, why: Why) {
        let Some(count) = COUNTS.get_ptr_mut(why as u32) else { return };
        // SAFETY: this CPU's own element; no other program run on it interrupts this one.
        unsafe { *count += 1 };
    }
}
