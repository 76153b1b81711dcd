//! From a slot to the backend that serves it.

use crate::{
    tables::{Backend, IN_USE, Slot, Tables},
    verdict::Why,
};

/// The slot's backend and its id.
#[inline(always)]
pub fn backend<'t, T: Tables>(tables: &'t T, slot: &Slot) -> Result<(u32, &'t Backend), Why> {
    let id = slot.backend;
    let backend = tables.backend(id).ok_or(Why::Inconsistent)?;
    if backend.flags & IN_USE == 0 {
        return Err(Why::Inconsistent);
    }
    Ok((id, backend))
}
