//! Whether a TCP connection can be opened.

use crate::model::health::Failure;
use std::{io, net::SocketAddr, time::Duration};
use tokio::{net::TcpSocket, time::timeout};

/// Opens a connection and resets it, so that probing leaves no sockets in TIME-WAIT behind.
pub async fn probe(address: SocketAddr, limit: Duration) -> Result<(), Failure> {
    match timeout(limit, connect(address)).await {
        Ok(result) => result.map_err(failure),
        Err(_) => Err(Failure::TimedOut),
    }
}

async fn connect(address: SocketAddr) -> io::Result<()> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_zero_linger()?;
    socket.connect(address).await.map(drop)
}

fn failure(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Refused,
        io::ErrorKind::TimedOut => Failure::TimedOut,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Failure::Unreachable,
        _ => Failure::Other(error.raw_os_error().unwrap_or_default()),
    }
}
