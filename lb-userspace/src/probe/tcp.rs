//! Whether a TCP connection can be opened.

use super::{dial::Dial, outcome::Outcome};

/// Opens a connection and ends it.
pub async fn probe(dial: &Dial<'_>) -> Outcome {
    dial.connect().await.map_or_else(|outcome| outcome, |_| Ok(()).into())
}
