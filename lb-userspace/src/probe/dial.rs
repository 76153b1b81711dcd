//! Sockets of probes.

use super::{
    detour::{Detour, Led},
    outcome::Outcome,
};
use crate::model::{backends::BackendKey, intent::Target};
use lb_common::wire::transport::{TCP, UDP};
use socket2::SockRef;
use std::{net::SocketAddr, sync::Arc};
use tokio::net::{TcpSocket, TcpStream, UdpSocket};

/// Where a probe goes, and by which way.
pub struct Dial<'a> {
    /// Where to.
    pub address: SocketAddr,
    detour: Option<(&'a Arc<Detour>, BackendKey)>,
}

/// A socket.
pub struct Dialed<S> {
    /// It itself.
    pub socket: S,
    /// Keeps its packets on their way.
    pub led: Option<Led>,
}

impl<'a> Dial<'a> {
    /// To a target. Without a detour those that need one can't be reached; the agent does not start without.
    pub fn new(target: &Target, detour: Option<&'a Arc<Detour>>) -> Option<Self> {
        let detour = match &target.via {
            Some(key) => Some((detour?, *key)),
            None => None,
        };
        Some(Self { address: target.address, detour })
    }

    /// Opens a connection that ends with a reset, so that probing leaves no sockets in TIME-WAIT behind.
    pub async fn connect(&self) -> Result<Dialed<TcpStream>, Outcome> {
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_zero_linger()?;
        let mut led = None;
        if let Some((detour, key)) = &self.detour {
            let source = detour.source(self.address, key).await?;
            SockRef::from(&socket).set_mark(detour.mark())?;
            socket.bind(source)?;
            led = Some(detour.lead(socket.local_addr()?, TCP, key));
        }
        let stream = socket.connect(self.address).await?;
        stream.set_nodelay(true)?;
        Ok(Dialed { socket: stream, led })
    }

    /// Opens a socket that hears only from the target, and of what ICMP says about it.
    pub async fn datagrams(&self) -> Result<Dialed<UdpSocket>, Outcome> {
        let any: SocketAddr = if self.address.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
        let Some((detour, key)) = &self.detour else {
            let socket = UdpSocket::bind(any).await?;
            socket.connect(self.address).await?;
            return Ok(Dialed { socket, led: None });
        };
        let socket = UdpSocket::bind(detour.source(self.address, key).await?).await?;
        SockRef::from(&socket).set_mark(detour.mark())?;
        let led = detour.lead(socket.local_addr()?, UDP, key);
        socket.connect(self.address).await?;
        Ok(Dialed { socket, led: Some(led) })
    }
}
