//! What a target's agent says of it (HAProxy's agent-check).

use super::{
    dial::{Dial, Dialed},
    outcome::Outcome,
};
use crate::model::{health::Failure, intent::AgentCheck, load::Said};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// More than this is no line of an agent.
const LONGEST: usize = 512;

/// Connects and reads one line.
pub async fn probe(dial: &Dial<'_>, agent: &AgentCheck) -> Outcome {
    match line(dial, agent).await {
        Ok(line) => match Said::read(&String::from_utf8_lossy(&line)) {
            Some(said) => Outcome { said: Some(said), ..Outcome::from(Ok(())).with_output(&line) },
            None => Outcome::from(Failure::Protocol).with_output(&line),
        },
        Err(outcome) => outcome,
    }
}

/// Up to the end of the first line, or of the connection.
async fn line(dial: &Dial<'_>, agent: &AgentCheck) -> Result<Vec<u8>, Outcome> {
    let Dialed { socket: mut stream, led: _led } = dial.connect().await?;
    if let Some(send) = &agent.send {
        stream.write_all(send.as_bytes()).await?;
    }
    let mut line = Vec::with_capacity(LONGEST);
    while line.len() < LONGEST && !line.contains(&b'\n') {
        if stream.read_buf(&mut line).await? == 0 {
            break;
        }
    }
    Ok(line)
}
