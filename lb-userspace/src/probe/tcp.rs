//! Whether a TCP connection can be opened.

use super::outcome::{Outcome, connect};
use std::net::SocketAddr;

/// Opens a connection and ends it.
pub async fn probe(address: SocketAddr) -> Outcome {
    connect(address).await.map_or_else(Outcome::from, |_| Ok(()).into())
}
