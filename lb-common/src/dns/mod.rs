//! What the path and the agent have to do alike for a DNS client.

pub mod client;
pub mod cookie;
