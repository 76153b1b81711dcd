//! iperf3: as much as a path takes, and what of it was sent again.
//!
//! Its control connection and its data have to reach the same server, so a service for it has one backend.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{Host, wait_until};

const READY: Duration = Duration::from_secs(10);

/// How much is sent.
#[derive(Clone, Copy, Debug)]
pub enum Amount {
    /// For so long.
    Seconds(u32),
    /// So many bytes.
    Bytes(u64),
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Bytes that the sender handed to its kernel.
    pub sent: u64,
    /// Bytes that the receiver had got when all was sent, which may be fewer.
    pub received: u64,
    /// Segments that the sender's kernel sent again.
    pub retransmitted: u64,
}

/// Sends by TCP from `client` to `address`, behind which `server` is, or the other way round if `back`.
///
/// The server is one for this transfer: between two, iperf3 does not listen for a moment.
pub fn iperf(client: &Host, server: &Host, address: SocketAddr, amount: Amount, back: bool) -> Result<Transfer> {
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let listening = server.spawn(["iperf3", "--server", "--one-off", "--forceflush", "--port", &port])?;
    // A connection to find out would be taken for the client.
    wait_until(READY, "iperf3 listened", || match listening.ended() {
        Ok(None) => listening.log().contains("Server listening").then_some(Ok(())),
        Ok(Some(status)) => Some(Err(anyhow::anyhow!("{listening} ended ({status}): {}", listening.log()))),
        Err(error) => Some(Err(error)),
    })??;
    let (unit, number) = match amount {
        Amount::Seconds(seconds) => ("--time", seconds.to_string()),
        Amount::Bytes(bytes) => ("--bytes", bytes.to_string()),
    };
    let line = ["iperf3", "--client", &ip, "--port", &port, unit, &number, "--connect-timeout", "5000", "--json"];
    // What is wrong is told in JSON as well, whatever the exit status.
    let output = client.attempt(line.iter().chain(if back { &["--reverse"][..] } else { &[] }));
    listening.kill()?;
    transfer(&output?.stdout).with_context(|| format!("iperf3 from {} to {address}", client.namespace()))
}

fn transfer(json: &str) -> Result<Transfer> {
    let report: Value = serde_json::from_str(json).with_context(|| format!("reading {json:?}"))?;
    if let Some(error) = report.get("error") {
        bail!("{error}");
    }
    let number = |pointer: &str| {
        let number = report.pointer(pointer).and_then(Value::as_u64);
        number.with_context(|| format!("there is no {pointer} in {json}"))
    };
    Ok(Transfer {
        sent: number("/end/sum_sent/bytes")?,
        received: number("/end/sum_received/bytes")?,
        retransmitted: number("/end/sum_sent/retransmits")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_becomes_a_transfer() {
        let json =
            r#"{"end": {"sum_sent": {"bytes": 1000, "retransmits": 2}, "sum_received": {"bytes": 990, "seconds": 1}}}"#;
        assert_eq!(transfer(json).unwrap(), Transfer { sent: 1000, received: 990, retransmitted: 2 });
        let error = transfer(r#"{"end": {}, "error": "unable to connect"}"#).unwrap_err();
        assert_eq!(error.to_string(), "\"unable to connect\"");
    }
}
