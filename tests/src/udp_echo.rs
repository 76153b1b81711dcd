//! Numbered datagrams that come back with the name of who sent them back: what a change does to flows that have neither
//! handshake nor retransmission shows by the number.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdUdpSocket},
    os::fd::AsFd,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use tokio::{net::UdpSocket, task::JoinSet, time};

use crate::{
    Host,
    belongings::lock,
    task::{Stop, Task},
    wait_until,
};

/// How many datagrams of one flow are on their way at most. Few, so that what waits for a busy machine always fits into
/// the sockets' buffers.
const WINDOW: usize = 2;
/// Between two datagrams of a flow: tens of flows leave a machine with two cores time for the rest of a test.
const INTERVAL: Duration = Duration::from_millis(10);
/// After this a datagram is lost. Longer than any machine is busy, so that slow is not taken for lost.
const PATIENCE: Duration = Duration::from_secs(3);
/// For flows to get on.
const PROGRESS: Duration = Duration::from_secs(20);
/// Bytes that sockets may hold, more than the kernel gives by itself.
pub(crate) const BUFFER: usize = 8 << 20;
/// What a datagram may have at most.
const LONGEST: usize = 65_536;

/// A server that sends every datagram back, its name in a line before it, from the address that was asked.
#[derive(Debug)]
pub struct UdpEcho {
    host: Host,
    addresses: Vec<SocketAddr>,
    seen: Arc<Mutex<BTreeMap<SocketAddr, u64>>>,
    task: Option<Task<()>>,
}

impl UdpEcho {
    /// Starts one with the host's role as its name, at addresses of the host.
    pub fn start(host: &Host, addresses: &[SocketAddr]) -> Result<Self> {
        let mut server = Self { host: host.clone(), addresses: addresses.to_vec(), seen: Arc::default(), task: None };
        server.start_again()?;
        Ok(server)
    }

    /// Ends it, and closes its sockets.
    pub fn stop(&mut self) {
        self.task = None;
    }

    /// Starts it after [`UdpEcho::stop`], with the same addresses and log.
    pub fn start_again(&mut self) -> Result<()> {
        if self.task.is_some() {
            bail!("the echo in {} is running already", self.host.namespace());
        }
        let open = |address: &SocketAddr| -> Result<StdUdpSocket> {
            let socket = StdUdpSocket::bind(address).with_context(|| format!("listening at {address}"))?;
            setsockopt(&socket.as_fd(), RcvBufForce, &BUFFER)?;
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        let sockets: Result<Vec<_>> = self.host.inside(|| self.addresses.iter().map(open).collect())?;
        let sockets = sockets.with_context(|| format!("starting an echo in {}", self.host.namespace()))?;
        let (name, seen) = (format!("{}\n", self.host.role()), Arc::clone(&self.seen));
        let work = move |mut stop: Stop| async move {
            let mut servers = JoinSet::new();
            for socket in sockets {
                let (name, seen) = (name.clone(), Arc::clone(&seen));
                servers.spawn(async move {
                    if let Err(error) = send_back(socket, &name, &seen).await {
                        eprintln!("an echo ended: {error}");
                    }
                });
            }
            stop.requested().await;
        };
        self.task = Some(Task::start("udp-echo", work)?);
        Ok(())
    }

    /// The host that it runs on.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Who has sent datagrams, and how many.
    #[must_use]
    pub fn seen(&self) -> BTreeMap<SocketAddr, u64> {
        lock(&self.seen).clone()
    }
}

async fn send_back(socket: StdUdpSocket, name: &str, seen: &Mutex<BTreeMap<SocketAddr, u64>>) -> io::Result<()> {
    let socket = UdpSocket::from_std(socket)?;
    let mut buffer = vec![0; LONGEST];
    loop {
        // Errors are about what was sent to clients that are gone.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        *lock(seen).entry(client).or_default() += 1;
        let request = buffer.get(..length).unwrap_or_default();
        let _ = socket.send_to(&[name.as_bytes(), request].concat(), client).await;
    }
}

/// Flows of numbered datagrams, each from a socket of its own, that go on until they are stopped.
#[derive(Debug)]
pub struct UdpFlows {
    service: SocketAddr,
    echoed: Arc<[AtomicU64]>,
    task: Task<Vec<UdpFlow>>,
}

impl UdpFlows {
    /// Starts `flows` flows from `client` to `service`, of datagrams with `size` bytes, and waits until each had its
    /// first answer.
    pub fn start(client: &Host, service: SocketAddr, flows: usize, size: usize) -> Result<Self> {
        let flows = Self::begin(client, service, flows, size, u64::MAX)?;
        flows.wait_for_more(1)?;
        Ok(flows)
    }

    fn begin(client: &Host, service: SocketAddr, flows: usize, size: usize, count: u64) -> Result<Self> {
        let sockets: Result<Vec<_>> = client.inside(|| (0..flows).map(|_| connected(service)).collect())?;
        let sockets =
            sockets.with_context(|| format!("opening {flows} flows from {} to {service}", client.namespace()))?;
        let echoed: Arc<[AtomicU64]> = sockets.iter().map(|_| AtomicU64::new(0)).collect();
        let counters = Arc::clone(&echoed);
        let work = move |stop: Stop| async move {
            let mut flows = JoinSet::new();
            for (index, (socket, local)) in sockets.into_iter().enumerate() {
                let (stop, counters) = (stop.clone(), Arc::clone(&counters));
                flows.spawn(async move {
                    let counter = counters.get(index);
                    let mut flow = UdpFlow { local, sent: 0, answers: BTreeMap::new(), errors: Vec::new() };
                    if let Err(error) = flow.run(socket, size, count, stop, counter).await {
                        flow.errors.push(error.to_string());
                    }
                    (index, flow)
                });
            }
            let mut done = flows.join_all().await;
            done.sort_by_key(|(index, _)| *index);
            done.into_iter().map(|(_, flow)| flow).collect()
        };
        Ok(Self { service, echoed, task: Task::start("udp-flows", work)? })
    }

    /// Waits until each flow has had `more` answers from now on.
    pub fn wait_for_more(&self, more: u64) -> Result<()> {
        let count = || self.echoed.iter().map(|count| count.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let goal: Vec<_> = count().iter().map(|count| count + more).collect();
        let what = format!("each of {} flows to {} had {more} more answers", goal.len(), self.service);
        wait_until(PROGRESS, &what, || count().iter().zip(&goal).all(|(count, goal)| count >= goal).then_some(()))
            .with_context(|| format!("answers so far: {:?}", count()))
    }

    /// Stops sending, waits for what is on its way, and gives what happened.
    pub fn stop(self) -> Result<UdpReport> {
        Ok(UdpReport { flows: self.task.finish()? })
    }
}

/// Sends `count` datagrams of `size` bytes in each of `flows` flows and gives what came of them.
pub fn udp_exchange(client: &Host, service: SocketAddr, flows: usize, count: u64, size: usize) -> Result<UdpReport> {
    Ok(UdpReport { flows: UdpFlows::begin(client, service, flows, size, count)?.task.wait()? })
}

/// A socket that takes datagrams from `service` alone, with its address.
fn connected(service: SocketAddr) -> Result<(StdUdpSocket, SocketAddr)> {
    let any = match service {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = StdUdpSocket::bind(any)?;
    setsockopt(&socket.as_fd(), RcvBufForce, &BUFFER)?;
    socket.connect(service)?;
    socket.set_nonblocking(true)?;
    let local = socket.local_addr()?;
    Ok((socket, local))
}

/// One flow of numbered datagrams.
#[derive(Clone, Debug)]
pub struct UdpFlow {
    /// The client's address and port.
    pub local: SocketAddr,
    /// How many were sent: the numbers below this.
    pub sent: u64,
    /// Who answered which number, as often as answers came.
    pub answers: BTreeMap<u64, Vec<String>>,
    /// What else happened, such as that nobody was there.
    pub errors: Vec<String>,
}

impl UdpFlow {
    async fn run(
        &mut self,
        socket: StdUdpSocket,
        size: usize,
        count: u64,
        mut stop: Stop,
        echoed: Option<&AtomicU64>,
    ) -> io::Result<()> {
        let socket = UdpSocket::from_std(socket)?;
        let mut buffer = vec![0; LONGEST];
        let mut ticks = time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
        let mut waiting: BTreeMap<u64, Instant> = BTreeMap::new();
        let mut ending = false;
        while !ending || !waiting.is_empty() {
            tokio::select! {
                () = stop.requested(), if !ending => ending = true,
                _ = ticks.tick() => {
                    waiting.retain(|_, sent| sent.elapsed() < PATIENCE);
                    if !ending && waiting.len() < WINDOW {
                        match socket.send(&request(self.sent, size)).await {
                            Ok(_) => {
                                waiting.insert(self.sent, Instant::now());
                                self.sent += 1;
                            }
                            // An ICMP error about an earlier one, which is told only once.
                            Err(error) => self.errors.push(error.kind().to_string()),
                        }
                        ending |= self.sent >= count;
                    }
                }
                received = socket.recv(&mut buffer) => match received {
                    Ok(length) => match answer(buffer.get(..length).unwrap_or_default(), size) {
                        Some((number, name)) => {
                            waiting.remove(&number);
                            let names = self.answers.entry(number).or_default();
                            names.push(name);
                            if let Some(echoed) = echoed.filter(|_| names.len() == 1) {
                                echoed.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                        None => self.errors.push(format!("{length} bytes that were never sent")),
                    },
                    Err(error) => self.errors.push(error.kind().to_string()),
                },
            }
        }
        Ok(())
    }

    /// Who answered, in the order of the numbers, each once for as long as nobody else did.
    #[must_use]
    pub fn servers(&self) -> Vec<&str> {
        let mut names: Vec<_> = self.answers.values().flatten().map(String::as_str).collect();
        names.dedup();
        names
    }

    /// The numbers that were not answered.
    #[must_use]
    pub fn lost(&self) -> Vec<u64> {
        (0..self.sent).filter(|number| !self.answers.contains_key(number)).collect()
    }
}

/// What came of flows of numbered datagrams.
#[derive(Clone, Debug)]
pub struct UdpReport {
    /// The flows.
    pub flows: Vec<UdpFlow>,
}

impl UdpReport {
    /// How many datagrams were sent.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.flows.iter().map(|flow| flow.sent).sum()
    }

    /// How many of them were answered.
    #[must_use]
    pub fn echoed(&self) -> usize {
        self.flows.iter().map(|flow| flow.answers.len()).sum()
    }

    /// The numbers that were not answered, by flow.
    #[must_use]
    pub fn lost(&self) -> BTreeMap<SocketAddr, Vec<u64>> {
        let lost = self.flows.iter().map(|flow| (flow.local, flow.lost()));
        lost.filter(|(_, numbers)| !numbers.is_empty()).collect()
    }

    /// The numbers that were answered more than once, by flow.
    #[must_use]
    pub fn duplicated(&self) -> BTreeMap<SocketAddr, Vec<u64>> {
        let twice =
            |flow: &UdpFlow| flow.answers.iter().filter(|(_, names)| names.len() > 1).map(|(n, _)| *n).collect();
        let twice = self.flows.iter().map(|flow| (flow.local, twice(flow)));
        twice.filter(|(_, numbers): &(_, Vec<u64>)| !numbers.is_empty()).collect()
    }

    /// What else happened, by flow.
    #[must_use]
    pub fn errors(&self) -> BTreeMap<SocketAddr, Vec<String>> {
        let errors = self.flows.iter().map(|flow| (flow.local, flow.errors.clone()));
        errors.filter(|(_, errors)| !errors.is_empty()).collect()
    }

    /// All who answered.
    #[must_use]
    pub fn servers(&self) -> BTreeSet<&str> {
        self.flows.iter().flat_map(UdpFlow::servers).collect()
    }
}

/// The datagram with this number.
fn request(number: u64, size: usize) -> Vec<u8> {
    let mut request = format!("{number}\n").into_bytes();
    request.extend((0..=u8::MAX).cycle().take(size.saturating_sub(request.len())));
    request
}

/// Number and name of an answer, if it is one to a datagram of this size.
fn answer(bytes: &[u8], size: usize) -> Option<(u64, String)> {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (name, sent) = (parts.next()?, parts.next()?);
    let number = sent.split(|byte| *byte == b'\n').next()?;
    let number = std::str::from_utf8(number).ok()?.parse().ok()?;
    (request(number, size) == sent).then(|| (number, String::from_utf8_lossy(name).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_the_request_behind_a_name() {
        for size in [0, 5, 4000] {
            let echoed = [b"backend-1\n".as_slice(), &request(12_345, size)].concat();
            assert_eq!(answer(&echoed, size), Some((12_345, "backend-1".into())));
            assert_eq!(answer(&echoed, size + 10), None);
        }
        assert_eq!(answer(b"", 0), None);
    }

    #[test]
    fn a_report_tells_what_was_lost_and_doubled_and_by_whom() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let answers =
            [(0, names(&["a"])), (1, names(&["a", "a"])), (3, names(&["b"])), (4, names(&["a"]))].into_iter().collect();
        let local = "10.77.0.10:4000".parse().unwrap();
        let flow = UdpFlow { local, sent: 6, answers, errors: Vec::new() };
        assert_eq!(flow.servers(), ["a", "b", "a"]);
        let report = UdpReport { flows: vec![flow] };
        assert_eq!((report.sent(), report.echoed()), (6, 4));
        assert_eq!(report.lost(), [(local, vec![2, 5])].into());
        assert_eq!(report.duplicated(), [(local, vec![1])].into());
        assert_eq!(report.errors(), BTreeMap::new());
        assert_eq!(report.servers(), ["a", "b"].into());
    }
}
