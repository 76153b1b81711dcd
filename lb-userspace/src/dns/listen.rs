//! UDP and TCP sockets on the DNS addresses, each bound to one of them, so that a reply leaves from the address asked.

pub use super::counts::{Counts, CountsSnapshot};

use super::connection;
use crate::model::dns::{
    names::Names,
    respond::{Asked, Client, Transport, respond},
};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::{
    future::{Future, poll_fn},
    io,
    net::{self, IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use thiserror::Error;
use tokio::{
    net::{TcpListener, UdpSocket},
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::sleep,
};

/// Connections at once; the next ones wait until one of these ends, at the latest when it has been idle for [`IDLE`].
const CONNECTIONS: usize = 256;
/// How long a client may take for its next question, or to take a reply. RFC 7766 section 6.2.3 advises a few seconds.
const IDLE: Duration = Duration::from_secs(10);
/// Connections that the kernel completes before they are accepted.
const BACKLOG: i32 = 128;
/// The largest datagram.
const DATAGRAM: usize = 65_535;
/// Rest after an error of a socket, such as no free descriptors, so that one that stays does not keep a CPU busy.
const REST: Duration = Duration::from_millis(50);

/// Why an address can't be listened on.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "each variant's message says what it is")]
pub enum ListenError {
    #[error(
        "cannot listen on {address} ({transport}): the port is in use; `ss -ln{letter}p 'sport = :{port}'` shows by whom",
        letter = if *transport == "tcp" { 't' } else { 'u' },
        port = address.port()
    )]
    InUse { address: SocketAddr, transport: &'static str },
    #[error(
        "cannot listen on {address} ({transport}): this machine does not have the address, or not yet; add it to an \
         interface: `ip address add {}/{} dev <interface>`",
        address.ip(),
        if address.is_ipv4() { 32 } else { 128 }
    )]
    NotLocal { address: SocketAddr, transport: &'static str },
    #[error(
        "cannot listen on {address} ({transport}): not allowed; ports below 1024 need root or the capability \
         CAP_NET_BIND_SERVICE"
    )]
    NotAllowed { address: SocketAddr, transport: &'static str },
    #[error("cannot listen on {address} ({transport})")]
    Other { address: SocketAddr, transport: &'static str, source: io::Error },
}

impl ListenError {
    fn new(address: SocketAddr, transport: &'static str, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::InUse { address, transport },
            io::ErrorKind::AddrNotAvailable => Self::NotLocal { address, transport },
            io::ErrorKind::PermissionDenied => Self::NotAllowed { address, transport },
            _ => Self::Other { address, transport, source },
        }
    }
}

/// Bound sockets. They are closed when this, or the future of [`Listener::run`], is dropped.
#[derive(Debug)]
pub struct Listener {
    udp: Vec<net::UdpSocket>,
    tcp: Vec<net::TcpListener>,
}

impl Listener {
    /// Binds one UDP and one TCP socket for each address, or none at all.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, ListenError> {
        let mut listener = Self { udp: Vec::new(), tcp: Vec::new() };
        for address in addresses {
            let udp = bind_udp(*address).map_err(|error| ListenError::new(*address, "udp", error))?;
            let tcp = bind_tcp(*address).map_err(|error| ListenError::new(*address, "tcp", error))?;
            listener.udp.push(udp.into());
            listener.tcp.push(tcp.into());
        }
        Ok(listener)
    }

    /// Answers what comes in until it is dropped; notes in `asked` what the kernel could answer next time, as far as there
    /// is room.
    pub async fn run(self, names: watch::Receiver<Arc<Names>>, asked: mpsc::Sender<Asked>, counts: Arc<Counts>) {
        let answerer = Answerer { names, asked, counts, turns: Arc::default() };
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let mut loops: Vec<Loop> = Vec::new();
        for socket in self.udp {
            loops.push(Box::pin(serve_udp(socket, answerer.clone())));
        }
        for listener in self.tcp {
            loops.push(Box::pin(serve_tcp(listener, answerer.clone(), Arc::clone(&places))));
        }
        together(loops).await;
    }
}

fn bind_udp(address: SocketAddr) -> io::Result<Socket> {
    let socket = open(address, Type::DGRAM, Protocol::UDP)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket)
}

fn bind_tcp(address: SocketAddr) -> io::Result<Socket> {
    let socket = open(address, Type::STREAM, Protocol::TCP)?;
    // For TCP it only allows for connections of an earlier agent; for UDP it would hide that somebody else listens.
    socket.set_reuse_address(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

fn open(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

type Loop = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Runs all loops for ever, in this very task: a task of its own for each would be dropped only some time after this one,
/// and whoever waits for the end of this one in order to bind again would find the ports in use.
async fn together(mut loops: Vec<Loop>) {
    poll_fn(|context| {
        loops.retain_mut(|each| each.as_mut().poll(context).is_pending());
        // A busy socket uses up what the runtime grants a task at once. Another one is the first next time.
        if !loops.is_empty() {
            loops.rotate_left(1);
        }
        Poll::Pending
    })
    .await
}

/// What every socket needs for an answer.
#[derive(Clone)]
pub(super) struct Answerer {
    names: watch::Receiver<Arc<Names>>,
    asked: mpsc::Sender<Asked>,
    counts: Arc<Counts>,
    turns: Arc<AtomicU64>,
}

impl Answerer {
    /// The reply to a message, if it deserves one.
    pub(super) fn answer(&self, message: &[u8], address: IpAddr, transport: Transport) -> Option<Vec<u8>> {
        // Before 1970 no client has a cookie of ours.
        let second = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() as u32;
        let client = Client { address, transport, second };
        let names = Arc::clone(&self.names.borrow());
        let response = respond(message, client, &names, self.turn());
        self.counts.add(transport, response.as_ref());
        let response = response?;
        if let Some(asked) = response.asked {
            // Without room the note is lost: the next such question makes it again. Answering never waits.
            self.asked.try_send(asked).ok();
        }
        Some(response.bytes)
    }

    /// Multiples of the golden ratio: evenly spread whichever of them a name gets. A bare counter would not be, as clients
    /// ask for A and AAAA in turns and so would always see the same one of two addresses first.
    fn turn(&self) -> u32 {
        let count = self.turns.fetch_add(1, Relaxed);
        (count.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
    }
}

async fn serve_udp(socket: net::UdpSocket, answerer: Answerer) {
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => socket,
        Err(error) => return tracing::error!(%error, "cannot serve DNS by UDP"),
    };
    let mut datagram = vec![0; DATAGRAM];
    loop {
        let (length, client) = match socket.recv_from(&mut datagram).await {
            Ok(received) => received,
            Err(error) => {
                tracing::warn!(%error, "cannot receive DNS queries");
                sleep(REST).await;
                continue;
            }
        };
        let query = datagram.get(..length).unwrap_or_default();
        let Some(reply) = answerer.answer(query, client.ip(), Transport::Udp) else {
            continue;
        };
        if let Err(error) = socket.send_to(&reply, client).await {
            tracing::debug!(%client, %error, "cannot send a DNS response");
        }
    }
}

async fn serve_tcp(listener: net::TcpListener, answerer: Answerer, places: Arc<Semaphore>) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot serve DNS by TCP"),
    };
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let (stream, client) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "cannot accept a DNS connection");
                sleep(REST).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let answerer = answerer.clone();
        connections.spawn(async move {
            let _place = place;
            connection::serve(stream, client.ip(), &answerer, IDLE).await
        });
    }
}

#[cfg(test)]
mod tests;
