//! One TCP connection: each message behind its length in two bytes (RFC 1035 section 4.2.2), any number of questions
//! (RFC 7766), answered in their order.

use super::listen::Answerer;
use crate::model::dns::respond::Transport;
use std::{io, net::IpAddr, time::Duration};
use tokio::{net::TcpStream, time::timeout};

/// Serves until the client ends the connection, sends what deserves no reply, or takes longer than `limit` for its next
/// question or for a reply.
pub(super) async fn serve(stream: TcpStream, address: IpAddr, answerer: &Answerer, limit: Duration) -> io::Result<()> {
    // Every reply is written at once, so that waiting to fill a segment would only delay it.
    stream.set_nodelay(true)?;
    let mut message = Vec::new();
    loop {
        // One limit for the whole message: a byte now and then does not keep a connection.
        timeout(limit, read_message(&stream, &mut message)).await??;
        let Some(reply) = answerer.answer(&message, address, Transport::Tcp) else { return Ok(()) };
        // No reply is longer than a message can be.
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes()[..], &reply].concat();
        timeout(limit, write_all(&stream, &framed)).await??;
    }
}

async fn read_message(stream: &TcpStream, message: &mut Vec<u8>) -> io::Result<()> {
    let mut length = [0; 2];
    read_exact(stream, &mut length).await?;
    message.resize(u16::from_be_bytes(length).into(), 0);
    read_exact(stream, message).await
}

async fn read_exact(stream: &TcpStream, mut buffer: &mut [u8]) -> io::Result<()> {
    while !buffer.is_empty() {
        stream.readable().await?;
        match stream.try_read(buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => buffer = buffer.get_mut(read..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
