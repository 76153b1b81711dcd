//! Whether a datagram is answered, or at least not refused.

use super::{
    dial::{Dial, Dialed},
    outcome::Outcome,
};
use crate::model::{health::Failure, intent::Datagram};
use std::time::Duration;
use tokio::time::timeout;

/// Sends the datagram. Without an answer to expect, silence until the end of `limit` is right; that a port is unreachable never is.
pub async fn probe(dial: &Dial<'_>, datagram: &Datagram, limit: Duration) -> Outcome {
    // What is silent has to be waited for: a little less than for what has to answer, whose time then is over.
    let limit = if datagram.expect.is_none() { limit * 9 / 10 } else { limit };
    match timeout(limit, exchange(dial, datagram)).await {
        Ok(outcome) => outcome.unwrap_or_else(|outcome| outcome),
        Err(_) if datagram.expect.is_none() => Ok(()).into(),
        Err(_) => Outcome::timed_out(),
    }
}

async fn exchange(dial: &Dial<'_>, datagram: &Datagram) -> Result<Outcome, Outcome> {
    let Dialed { socket, led: _led } = dial.datagrams().await?;
    socket.send(&datagram.send).await?;
    let mut answer = [0; 2_048];
    let length = socket.recv(&mut answer).await?;
    let answer = answer.get(..length).unwrap_or_default();
    let is_right = datagram.expect.as_ref().is_none_or(|expect| answer.starts_with(expect));
    let result = if is_right { Ok(()) } else { Err(Failure::Answer) };
    Ok(Outcome::from(result).with_output(answer))
}
