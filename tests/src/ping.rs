//! Echo requests.

use std::{
    io::{ErrorKind, Read},
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::Host;

/// Type, code, checksum, identifier, sequence: of these the kernel fills in checksum and identifier.
const HEADER: usize = 8;
const ECHO_IPV4: u8 = 8;
const ECHO_IPV6: u8 = 128;

impl Host {
    /// Sends one echo request with `size` bytes of data; gives the time until the reply, which must
    /// bring the same data back.
    pub fn ping(&self, address: IpAddr, size: usize, deadline: Duration) -> Result<Duration> {
        self.inside(|| echo(address, size, deadline))?
            .with_context(|| format!("pinging {address} from {}", self.namespace()))
    }
}

fn echo(address: IpAddr, size: usize, deadline: Duration) -> Result<Duration> {
    let (domain, protocol, kind) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, ECHO_IPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, ECHO_IPV6),
    };
    let mut socket = Socket::new(domain, Type::DGRAM, Some(protocol)).context("making a socket")?;
    socket.set_read_timeout(Some(deadline))?;
    socket.connect(&SocketAddr::new(address, 0).into())?;

    let data: Vec<u8> = (0..=u8::MAX).cycle().take(size).collect();
    let request = [&[kind, 0, 0, 0, 0, 0, 0, 1], data.as_slice()].concat();
    let start = Instant::now();
    socket.send(&request).context("sending the request")?;

    let mut reply = vec![0; request.len() + 1];
    let length = match socket.read(&mut reply) {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            bail!("no reply in {deadline:?}")
        }
        other => other.context("receiving the reply")?,
    };
    if reply.get(HEADER..length) != Some(data.as_slice()) {
        bail!("the reply differs: {length} bytes, not the data of the request");
    }
    Ok(start.elapsed())
}
