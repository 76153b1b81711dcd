//! DNS without sockets: what is answered, and what of it the kernel can answer next time.

pub mod names;
mod query;
pub mod rendered;
pub mod respond;
