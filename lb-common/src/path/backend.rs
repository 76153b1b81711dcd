//! From an id, which a slot or a reply's sender leads to, to the backend.

use crate::{
    tables::{Backend, DOWN, IN_USE, NOBODY, Tables},
    verdict::Why,
};

/// The backend with this id.
#[inline(always)]
pub fn backend<T: Tables>(tables: &T, id: u32) -> Result<&Backend, Why> {
    match tables.backend(id) {
        Some(backend) if backend.flags & IN_USE != 0 => Ok(backend),
        None if id == NOBODY => Err(Why::NoBackend),
        _ => Err(Why::Inconsistent),
    }
}

/// Whether a flow can stay at the backend with this id.
#[inline(always)]
pub fn is_live<T: Tables>(tables: &T, id: u32) -> bool {
    tables.backend(id).is_some_and(|backend| backend.flags & (IN_USE | DOWN) == IN_USE)
}
