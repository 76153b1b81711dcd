//! DNS without sockets: what is answered, and what of it the kernel can answer.

pub mod data;
#[cfg(test)]
pub(crate) mod fixture;
pub mod names;
mod query;
mod render;
pub mod rendered;
pub mod respond;
pub mod stored;
pub mod zone;
