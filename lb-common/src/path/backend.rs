//! From an id, which a slot or a reply's sender leads to, to the backend.

use crate::{
    tables::{Backend, IN_USE, Tables},
    verdict::Why,
};

/// The backend with this id.
#[inline(always)]
pub fn backend<T: Tables>(tables: &T, id: u32) -> Result<&Backend, Why> {
    let backend = tables.backend(id).ok_or(Why::Inconsistent)?;
    if backend.flags & IN_USE == 0 {
        return Err(Why::Inconsistent);
    }
    Ok(backend)
}
