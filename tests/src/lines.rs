//! Long-lived TCP connections over which numbered lines go to and fro: what a change does to a connection shows by its end,
//! or by another name in an answer.
//!
//! One line of a connection is on its way at a time, so that a retransmission tells of a loss and not of a slow machine: a
//! sender with more segments out probes for losses after a few milliseconds (RFC 8985 section 7).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv6Addr, SocketAddr, TcpListener as StdTcpListener, TcpStream as StdTcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpSocket, TcpStream},
    task::JoinSet,
    time,
};

use crate::{
    Host,
    belongings::lock,
    task::{Stop, Task},
    wait_until,
};

/// Between an answer and the next line: tens of connections leave a machine with two cores time for the rest of a test.
const INTERVAL: Duration = Duration::from_millis(10);
/// After this without an answer a connection counts as broken. Longer than the way to a dead backend takes to be changed,
/// so that its end is told by the one who has the connection next.
const PATIENCE: Duration = Duration::from_secs(15);
/// For connections to get on.
const PROGRESS: Duration = Duration::from_secs(20);

/// A server that answers every line with its name before it.
#[derive(Debug)]
pub struct LineServer {
    host: Host,
    port: u16,
    seen: Arc<Mutex<BTreeMap<SocketAddr, u64>>>,
    task: Option<Task<()>>,
}

impl LineServer {
    /// Starts one with the host's role as its name, which takes connections in both families when this returns.
    pub fn start(host: &Host, port: u16) -> Result<Self> {
        let mut server = Self { host: host.clone(), port, seen: Arc::default(), task: None };
        server.start_again()?;
        Ok(server)
    }

    /// Ends it at once, with its connections.
    pub fn stop(&mut self) {
        self.task = None;
    }

    /// Starts it after [`LineServer::stop`], with the same port and log.
    pub fn start_again(&mut self) -> Result<()> {
        if self.task.is_some() {
            bail!("the lines in {} are being answered already", self.host.namespace());
        }
        // Both families, unless the machine was told otherwise (`net.ipv6.bindv6only`).
        let open = || -> io::Result<StdTcpListener> {
            let listener = StdTcpListener::bind((Ipv6Addr::UNSPECIFIED, self.port))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let listener = self
            .host
            .inside(open)?
            .with_context(|| format!("listening at port {} in {}", self.port, self.host.namespace()))?;
        let (name, seen) = (self.host.role().to_owned(), Arc::clone(&self.seen));
        let work = move |mut stop: Stop| async move {
            tokio::select! {
                () = stop.requested() => {}
                Err(error) = accept(listener, &name, &seen) => eprintln!("lines are no longer answered: {error}"),
            }
        };
        self.task = Some(Task::start("lines", work)?);
        Ok(())
    }

    /// The host that it runs on.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Who has sent lines, and how many.
    #[must_use]
    pub fn seen(&self) -> BTreeMap<SocketAddr, u64> {
        lock(&self.seen).clone()
    }
}

async fn accept(listener: StdTcpListener, name: &str, seen: &Arc<Mutex<BTreeMap<SocketAddr, u64>>>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        let (stream, client) = listener.accept().await?;
        let client = SocketAddr::new(client.ip().to_canonical(), client.port());
        let (name, seen) = (name.to_owned(), Arc::clone(seen));
        // An error is the connection's end, which is the client's to tell.
        tokio::spawn(async move { answer_lines(stream, client, &name, &seen).await });
    }
}

async fn answer_lines(
    mut stream: TcpStream,
    client: SocketAddr,
    name: &str,
    seen: &Mutex<BTreeMap<SocketAddr, u64>>,
) -> io::Result<()> {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    while let Some(line) = lines.next_line().await? {
        *lock(seen).entry(client).or_default() += 1;
        write.write_all(format!("{name} {line}\n").as_bytes()).await?;
    }
    Ok(())
}

/// Connections over which numbered lines go until they are stopped.
#[derive(Debug)]
pub struct Lines {
    service: SocketAddr,
    answered: Arc<[AtomicU64]>,
    broken: Arc<AtomicUsize>,
    task: Task<Vec<Connection>>,
}

impl Lines {
    /// Starts `count` connections from `client` to `service` and waits until each had its first answer.
    pub fn start(client: &Host, service: SocketAddr, count: usize) -> Result<Self> {
        let open = || -> Result<StdTcpStream> {
            let socket = Socket::new(Domain::for_address(service), Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            Ok(StdTcpStream::from(socket))
        };
        let sockets: Result<Vec<_>> = client.inside(|| (0..count).map(|_| open()).collect())?;
        let sockets = sockets.with_context(|| format!("opening {count} connections in {}", client.namespace()))?;
        let answered: Arc<[AtomicU64]> = sockets.iter().map(|_| AtomicU64::new(0)).collect();
        let broken = Arc::new(AtomicUsize::new(0));
        let (counters, ended) = (Arc::clone(&answered), Arc::clone(&broken));
        let work = move |stop: Stop| async move {
            let mut connections = JoinSet::new();
            for (index, socket) in sockets.into_iter().enumerate() {
                let (stop, counters, ended) = (stop.clone(), Arc::clone(&counters), Arc::clone(&ended));
                connections.spawn(async move {
                    let mut connection = Connection { local: None, lines: 0, names: BTreeMap::new(), broken: None };
                    let counter = counters.get(index);
                    if let Err(error) = connection.run(socket, service, stop, counter).await {
                        connection.broken = Some(error.to_string());
                        ended.fetch_add(1, Ordering::Relaxed);
                    }
                    (index, connection)
                });
            }
            let mut done = connections.join_all().await;
            done.sort_by_key(|(index, _)| *index);
            done.into_iter().map(|(_, connection)| connection).collect()
        };
        let lines = Self { service, answered, broken, task: Task::start("lines-client", work)? };
        lines.wait_for_more(1)?;
        Ok(lines)
    }

    /// Waits until each connection has had `more` answers from now on.
    pub fn wait_for_more(&self, more: u64) -> Result<()> {
        let count = || self.answered.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let goal: Vec<_> = count().iter().map(|count| count + more).collect();
        let what = format!("each of {} connections to {} had {more} more answers", goal.len(), self.service);
        wait_until(PROGRESS, &what, || count().iter().zip(&goal).all(|(count, goal)| count >= goal).then_some(()))
            .with_context(|| format!("answers so far: {:?}", count()))
    }

    /// How many connections have ended before they were to.
    #[must_use]
    pub fn broken(&self) -> usize {
        self.broken.load(Ordering::Relaxed)
    }

    /// Closes the connections after their last answers, and gives what happened.
    pub fn stop(self) -> Result<LinesReport> {
        Ok(LinesReport { connections: self.task.finish()? })
    }
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// The client's address and port, if it was connected.
    pub local: Option<SocketAddr>,
    /// How many lines were answered.
    pub lines: u64,
    /// The names in the answers, and how many have them.
    pub names: BTreeMap<String, u64>,
    /// Why it ended before it was to.
    pub broken: Option<String>,
}

impl Connection {
    async fn run(
        &mut self,
        socket: StdTcpStream,
        service: SocketAddr,
        mut stop: Stop,
        answered: Option<&AtomicU64>,
    ) -> io::Result<()> {
        let too_late = |_| io::Error::from(io::ErrorKind::TimedOut);
        let connecting = TcpSocket::from_std_stream(socket).connect(service);
        let mut stream = time::timeout(PATIENCE, connecting).await.map_err(too_late)??;
        self.local = Some(stream.local_addr()?);
        let (read, mut write) = stream.split();
        let mut answers = BufReader::new(read).lines();
        let mut pause = time::interval(INTERVAL);
        pause.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.requested() => return Ok(()),
                _ = pause.tick() => {}
            }
            let number = self.lines;
            write.write_all(format!("{number}\n").as_bytes()).await?;
            let answer = time::timeout(PATIENCE, answers.next_line()).await.map_err(too_late)??;
            let answer = answer.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            let name = answer.strip_suffix(&format!(" {number}"));
            let name = name.ok_or_else(|| io::Error::other(format!("{answer:?} is no answer to {number}")))?;
            *self.names.entry(name.to_owned()).or_default() += 1;
            self.lines += 1;
            if let Some(answered) = answered {
                answered.store(self.lines, Ordering::Relaxed);
            }
        }
    }
}

/// What came of connections with numbered lines.
#[derive(Clone, Debug)]
pub struct LinesReport {
    /// The connections.
    pub connections: Vec<Connection>,
}

impl LinesReport {
    /// Those that ended before they were to.
    #[must_use]
    pub fn broken(&self) -> Vec<&Connection> {
        self.connections.iter().filter(|connection| connection.broken.is_some()).collect()
    }

    /// All who answered.
    #[must_use]
    pub fn servers(&self) -> BTreeSet<&str> {
        self.connections.iter().flat_map(|connection| connection.names.keys()).map(String::as_str).collect()
    }
}
