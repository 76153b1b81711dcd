//! The sockets around [`crate::model::dns`].

mod connection;
pub mod counts;
pub mod listen;
pub mod resolve;
