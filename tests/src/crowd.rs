//! A host that passes for thousands: every address of a network, behind one socket. Some take connections and never say anything.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener as StdTcpListener},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    Host,
    belongings::lock,
    task::{Stop, Task},
};

/// Connections that wait to be taken: as many as may come at once.
const BACKLOG: i32 = 4_096;
/// Connections of those who say nothing are given up after this.
const SILENCE: Duration = Duration::from_secs(30);

/// When each address was connected to.
type Seen = BTreeMap<Ipv4Addr, Vec<Instant>>;

/// Members of 10.88.0.0/16 at one host.
#[derive(Debug)]
pub struct Crowd {
    host: Host,
    port: u16,
    seen: Arc<Mutex<Seen>>,
    _task: Task<()>,
}

impl Crowd {
    /// Has `host` be all of them from now on, taking connections at a port; `other` reaches them through it. Those that are
    /// [silent](Crowd::silent) say nothing, the others end each connection at once.
    pub fn start(host: &Host, other: &Host, port: u16) -> Result<Self> {
        let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        // One for each connection that is held.
        setrlimit(Resource::RLIMIT_NOFILE, hard.min(soft.max(20_000)), hard)
            .context("raising the limit of open files")?;
        host.ip(&["route add local 10.88.0.0/16 dev lo".into()])?;
        other.ip(&[format!("route add 10.88.0.0/16 via {}", host.ipv4())])?;
        let open = || -> Result<StdTcpListener> {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        };
        let listener = host.inside(open)?.with_context(|| format!("listening in {}", host.namespace()))?;
        let seen = Arc::default();
        let log = Arc::clone(&seen);
        let work = move |mut stop: Stop| async move {
            tokio::select! {
                () = stop.requested() => {}
                Err(error) = accept(listener, &log) => eprintln!("the crowd has gone: {error}"),
            }
        };
        Ok(Self { host: host.clone(), port, seen, _task: Task::start("crowd", work)? })
    }

    /// Where a member that answers is.
    #[must_use]
    pub fn member(&self, number: u16) -> SocketAddr {
        let [high, low] = number.to_be_bytes();
        SocketAddr::from(([10, 88, high & 0x7f, low], self.port))
    }

    /// Where a member that says nothing is.
    #[must_use]
    pub fn silent(&self, number: u16) -> SocketAddr {
        let [high, low] = number.to_be_bytes();
        SocketAddr::from(([10, 88, high | 0x80, low], self.port))
    }

    /// Has nobody hear anything any more, or all hear again.
    pub fn be_deaf(&self, deaf: bool) -> Result<()> {
        let (from, to) = if deaf { ("local", "blackhole") } else { ("blackhole", "local") };
        let route = |verb: &str, kind: &str| format!("route {verb} {kind} 10.88.0.0/16 table local");
        let device = if deaf { "" } else { " dev lo" };
        self.host.ip(&[route("delete", from), format!("{}{device}", route("add", to))])
    }

    /// When each member was connected to since the last time that this was asked.
    #[must_use]
    pub fn take_seen(&self) -> BTreeMap<Ipv4Addr, Vec<Instant>> {
        std::mem::take(&mut *lock(&self.seen))
    }
}

async fn accept(listener: StdTcpListener, seen: &Mutex<Seen>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        let IpAddr::V4(address) = stream.local_addr()?.ip() else { continue };
        lock(seen).entry(address).or_default().push(Instant::now());
        let [_, _, third, _] = address.octets();
        if third & 0x80 != 0 {
            tokio::spawn(timeout(SILENCE, hear_out(stream)));
        }
    }
}

/// Until the other side gives up.
async fn hear_out(mut stream: TcpStream) {
    let mut heard = [0; 512];
    while stream.read(&mut heard).await.is_ok_and(|length| length > 0) {}
}
