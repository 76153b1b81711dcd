//! DNS questions by sockets of our own: as fast as tests need them, from any address, with any EDNS options, and counted.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};

use crate::{Host, fixture::stay_on_cpu, udp_echo::BUFFER};

/// After this a question is unanswered. Longer than any machine is busy, so that slow is not taken for lost.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longer than any response here.
const LONGEST: usize = 4_096;
const HEADER: usize = 12;
const OPT: u16 = 41;
const COOKIE: u16 = 10;
/// RFC 7830: bytes that mean nothing.
const PADDING: u16 = 12;

/// A question, to be made into a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Labels with dots between them.
    pub name: String,
    /// QTYPE.
    pub kind: u16,
    /// The size that an OPT record says, if there is to be one.
    pub size: Option<u16>,
    /// The data of a COOKIE option, if there is to be one.
    pub cookie: Vec<u8>,
    /// The length of an option that is ignored, if there is to be one.
    pub padding: Option<u16>,
}

impl Question {
    /// QTYPE of IPv4 addresses.
    pub const A: u16 = 1;
    /// QTYPE of text.
    pub const TXT: u16 = 16;
    /// QTYPE of IPv6 addresses.
    pub const AAAA: u16 = 28;

    /// A plain one.
    #[must_use]
    pub fn new(name: &str, kind: u16) -> Self {
        Self { name: name.to_owned(), kind, size: None, cookie: Vec::new(), padding: None }
    }

    /// With an OPT record.
    #[must_use]
    pub fn edns(mut self, size: u16) -> Self {
        self.size = Some(size);
        self
    }

    /// With an OPT record that has a COOKIE option.
    #[must_use]
    pub fn cookie(self, cookie: &[u8]) -> Self {
        Self { size: Some(self.size.unwrap_or(1_232)), cookie: cookie.to_vec(), ..self }
    }

    /// With an OPT record that has an option of so many bytes to be ignored.
    #[must_use]
    pub fn padding(self, length: u16) -> Self {
        Self { size: Some(self.size.unwrap_or(1_232)), padding: Some(length), ..self }
    }

    /// The message, with its id.
    #[must_use]
    pub fn message(&self, id: u16) -> Vec<u8> {
        let mut message = [id, 0x0100, 1, 0, 0, u16::from(self.size.is_some())].map(u16::to_be_bytes).concat();
        for label in self.name.split('.').filter(|label| !label.is_empty()) {
            message.push(u8::try_from(label.len()).unwrap_or(u8::MAX));
            message.extend(label.bytes());
        }
        message.push(0);
        message.extend([self.kind, 1].map(u16::to_be_bytes).concat());
        if let Some(size) = self.size {
            let option = |code: u16, data: &[u8]| -> Vec<u8> {
                let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
                [&code.to_be_bytes(), &length.to_be_bytes(), data].concat()
            };
            let mut options = Vec::new();
            if !self.cookie.is_empty() {
                options.extend(option(COOKIE, &self.cookie));
            }
            if let Some(length) = self.padding {
                options.extend(option(PADDING, &vec![0; length.into()]));
            }
            message.push(0);
            message.extend(
                [OPT, size, 0, 0, u16::try_from(options.len()).unwrap_or(u16::MAX)].map(u16::to_be_bytes).concat(),
            );
            message.extend(options);
        }
        message
    }
}

/// What a response says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// The id.
    pub id: u16,
    /// The flags with the response code.
    pub flags: u16,
    /// The addresses of the answer section, in order.
    pub addresses: Vec<IpAddr>,
    /// The data of the other records there, in order.
    pub data: Vec<Vec<u8>>,
    /// The data of the COOKIE option.
    pub cookie: Vec<u8>,
    /// The size of the message.
    pub bytes: usize,
}

impl Response {
    /// The response code in the header.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.flags & 0xf
    }

    /// Whether the client is to ask by TCP.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.flags & 0x0200 != 0
    }

    /// Reads a message; `None` if it is no response, or is not all there.
    #[must_use]
    pub fn read(message: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u16::from_be_bytes(message.get(at..at + 2)?.try_into().ok()?));
        let mut response = Self { id: number(0)?, flags: number(2)?, bytes: message.len(), ..Self::default() };
        if response.flags & 0x8000 == 0 {
            return None;
        }
        let counts = [number(4)?, number(6)?, number(8)?, number(10)?];
        let [questions, answers, authorities, additionals] = counts.map(usize::from);
        let mut at = HEADER;
        for _ in 0..questions {
            at = behind_name(message, at)? + 4;
        }
        for record in 0..answers + authorities + additionals {
            at = behind_name(message, at)?;
            let (kind, length) = (number(at)?, usize::from(number(at + 8)?));
            let data = message.get(at + 10..at + 10 + length)?;
            at += 10 + length;
            if record >= answers {
                if kind == OPT {
                    response.cookie = cookie_in(data).unwrap_or_default();
                }
            } else if let (Question::A, Ok(ipv4)) = (kind, <[u8; 4]>::try_from(data)) {
                response.addresses.push(Ipv4Addr::from(ipv4).into());
            } else if let (Question::AAAA, Ok(ipv6)) = (kind, <[u8; 16]>::try_from(data)) {
                response.addresses.push(Ipv6Addr::from(ipv6).into());
            } else {
                response.data.push(data.to_vec());
            }
        }
        (at == message.len()).then_some(response)
    }
}

fn behind_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length if length >= 0xc0 => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    }
}

fn cookie_in(mut options: &[u8]) -> Option<Vec<u8>> {
    while let [code, kind, high, low, rest @ ..] = options {
        let (data, behind) = rest.split_at_checked(usize::from(u16::from_be_bytes([*high, *low])))?;
        if u16::from_be_bytes([*code, *kind]) == COOKIE {
            return Some(data.to_vec());
        }
        options = behind;
    }
    None
}

/// Has every address of these two prefixes be `client`'s, and the way to them known at `balancer`: clients of many prefixes.
pub fn add_clients(client: &Host, balancer: &Host) -> Result<()> {
    // IPv6 takes such an address for the host's own, but not for one to send from.
    client.set([("ipv6/ip_nonlocal_bind", "1")])?;
    client.ip(&[format!("route add local {CLIENTS4} dev lo"), format!("route add local {CLIENTS6} dev lo")])?;
    balancer.ip(&[
        format!("route add {CLIENTS4} via {}", client.ipv4()),
        format!("route add {CLIENTS6} via {}", client.ipv6()),
    ])
}

const CLIENTS4: &str = "10.200.0.0/16";
const CLIENTS6: &str = "fd00:200::/32";

/// A client in a prefix of its own (/24 or /48), of those of [`add_clients`].
#[must_use]
pub fn client_address(server: IpAddr, prefix: u8, host: u8) -> IpAddr {
    if server.is_ipv4() {
        Ipv4Addr::new(10, 200, prefix, host).into()
    } else {
        Ipv6Addr::new(0xfd00, 0x200, prefix.into(), 0, 0, 0, 0, host.into()).into()
    }
}

/// Any port of an address of the host's, or of any.
fn from_any_port(from: Option<IpAddr>, server: IpAddr) -> SocketAddr {
    let any = || if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(from.unwrap_or_else(any), 0)
}

/// Opens a socket that takes datagrams from `server` alone.
fn connected(host: &Host, from: SocketAddr, server: IpAddr) -> Result<UdpSocket> {
    let opened = host.inside(|| -> Result<_> {
        let socket = UdpSocket::bind(from)?;
        setsockopt(&socket.as_fd(), RcvBufForce, &BUFFER)?;
        socket.connect((server, 53))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(socket)
    });
    opened?.with_context(|| format!("opening a socket from {from} to {server}"))
}

/// A client that asks one server.
#[derive(Debug)]
pub struct Asker(UdpSocket);

impl Asker {
    /// In a host, from any of its addresses or from one.
    pub fn open(host: &Host, from: Option<IpAddr>, server: IpAddr) -> Result<Self> {
        Self::open_at(host, from_any_port(from, server), server)
    }

    /// In a host, at an address and port.
    pub fn open_at(host: &Host, from: SocketAddr, server: IpAddr) -> Result<Self> {
        Ok(Self(connected(host, from, server)?))
    }

    /// Asks once; no response is an error.
    pub fn ask(&self, question: &Question) -> Result<Response> {
        let mut responses = self.ask_all(1, 1, |_| question.clone())?;
        responses.pop().flatten().with_context(|| format!("{question:?} had no response"))
    }

    /// Asks so many questions, `window` of them at once, and gives their responses in the same order; `None` for what was not
    /// answered.
    pub fn ask_all(
        &self,
        count: usize,
        window: usize,
        question: impl Fn(usize) -> Question,
    ) -> Result<Vec<Option<Response>>> {
        let mut responses = vec![None; count];
        let mut first = 0;
        while first < count {
            let end = (first + window).min(count);
            for number in first..end {
                self.0.send(&question(number).message(number as u16))?;
            }
            let mut left = end - first;
            while left > 0 {
                let Some(response) = self.receive()? else { break };
                // What comes late is of an earlier window.
                let number = first + usize::from(response.id.wrapping_sub(first as u16));
                if let Some(place) = responses.get_mut(number).filter(|place| number < end && place.is_none()) {
                    *place = Some(response);
                    left -= 1;
                }
            }
            first = end;
        }
        Ok(responses)
    }

    /// Sends a message as it is.
    pub fn send(&self, message: &[u8]) -> Result<()> {
        self.0.send(message)?;
        Ok(())
    }

    /// The next response, or `None` when none comes any more.
    pub fn receive(&self) -> Result<Option<Response>> {
        let mut buffer = [0; LONGEST];
        match self.0.recv(&mut buffer) {
            Ok(length) => {
                let message = buffer.get(..length).unwrap_or_default();
                let response = Response::read(message).with_context(|| format!("{message:02x?} is no response"))?;
                Ok(Some(response))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
            Err(error) => Err(error).context("receiving a response"),
        }
    }
}

/// Questions that go on until they are stopped, each when the one before it was answered.
#[derive(Debug)]
pub struct Asking {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<Vec<Asked>>>>,
}

/// A question of an [`Asking`].
#[derive(Clone, Debug)]
pub struct Asked {
    /// When it was sent.
    pub at: Instant,
    /// What came, if anything did.
    pub response: Option<Response>,
}

impl Asking {
    /// Begins.
    pub fn start(asker: Asker, question: impl Fn(u64) -> Question + Send + 'static) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stopped, counter) = (Arc::clone(&stop), Arc::clone(&answered));
        let thread = thread::spawn(move || {
            let mut all = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                let number = all.len() as u64;
                let at = Instant::now();
                let response = asker.ask_all(1, 1, |_| question(number))?.pop().flatten();
                counter.fetch_add(response.is_some().into(), Ordering::SeqCst);
                all.push(Asked { at, response });
            }
            Ok(all)
        });
        Self { stop, answered, thread: Some(thread) }
    }

    /// How many were answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// Whether it goes on.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Ends, and gives all of it.
    pub fn stop(mut self) -> Result<Vec<Asked>> {
        self.stop.store(true, Ordering::SeqCst);
        let thread = self.thread.take().context("stopped already")?;
        thread.join().map_err(|_| anyhow!("asking panicked"))?
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // What a panic had to say has been said by its thread.
            let _ = thread.join();
        }
    }
}

/// A veth has places for 256 frames and drops what finds none, whosever it is, before any program sees it. A flood that leaves it no
/// time would test the veth.
const BURST: u64 = 64;
/// Long enough for the receiver to take a burst.
const PAUSE: Duration = Duration::from_micros(150);

/// Messages sent in bursts by one CPU, whatever comes back.
#[derive(Debug)]
pub struct Flood {
    stop: Arc<AtomicBool>,
    total: Arc<FloodTotal>,
    threads: Vec<JoinHandle<Result<()>>>,
}

/// What a [`Flood`] has sent and received so far.
#[derive(Debug, Default)]
struct FloodTotal {
    sent: AtomicU64,
    sent_bytes: AtomicU64,
    received: AtomicU64,
    received_bytes: AtomicU64,
}

/// What a [`Flood`] has sent and received at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FloodCounts {
    /// Questions.
    pub sent: u64,
    /// Bytes of their messages.
    pub sent_bytes: u64,
    /// Responses.
    pub received: u64,
    /// Bytes of theirs.
    pub received_bytes: u64,
}

impl Flood {
    /// Begins, on one CPU: the sender of a veth also does the work of its receiver. `change` makes the next message out of
    /// the last one, given its number.
    pub fn start(
        host: &Host,
        from: Option<IpAddr>,
        server: IpAddr,
        cpu: usize,
        message: Vec<u8>,
        change: impl Fn(&mut [u8], u64) + Send + 'static,
    ) -> Result<Self> {
        let socket = connected(host, from_any_port(from, server), server)?;
        let receiver = socket.try_clone()?;
        let (stop, total) = (Arc::new(AtomicBool::new(false)), Arc::new(FloodTotal::default()));
        let (stopped, counts) = (Arc::clone(&stop), Arc::clone(&total));
        let sending = thread::spawn(move || {
            stay_on_cpu(cpu)?;
            let mut message = message;
            while !stopped.load(Ordering::Relaxed) {
                let sent = counts.sent.load(Ordering::Relaxed);
                if sent % BURST == BURST - 1 {
                    thread::sleep(PAUSE);
                }
                change(&mut message, sent);
                // A full queue is no reason to stop.
                if socket.send(&message).is_ok() {
                    counts.sent.fetch_add(1, Ordering::Relaxed);
                    counts.sent_bytes.fetch_add(message.len() as u64, Ordering::Relaxed);
                }
            }
            Ok(())
        });
        let (stopped, counts) = (Arc::clone(&stop), Arc::clone(&total));
        let receiving = thread::spawn(move || {
            receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
            let mut buffer = [0; LONGEST];
            loop {
                match receiver.recv(&mut buffer) {
                    Ok(length) => {
                        counts.received.fetch_add(1, Ordering::Relaxed);
                        counts.received_bytes.fetch_add(length as u64, Ordering::Relaxed);
                    }
                    Err(_) if stopped.load(Ordering::Relaxed) => return Ok(()),
                    Err(_) => {}
                }
            }
        });
        Ok(Self { stop, total, threads: vec![sending, receiving] })
    }

    /// What it has come to so far.
    #[must_use]
    pub fn counts(&self) -> FloodCounts {
        let FloodTotal { sent, sent_bytes, received, received_bytes } = &*self.total;
        let [sent, sent_bytes, received, received_bytes] =
            [sent, sent_bytes, received, received_bytes].map(|count| count.load(Ordering::Relaxed));
        FloodCounts { sent, sent_bytes, received, received_bytes }
    }

    /// Ends, and gives what it came to.
    pub fn stop(mut self) -> Result<FloodCounts> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if thread.join().map_err(|_| anyhow!("a flood panicked"))?.is_err() {
                bail!("a flood could not be sent");
            }
        }
        Ok(self.counts())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // What a panic had to say has been said by its thread.
            let _ = thread.join();
        }
    }
}

/// Pearson's statistic of these counts for these shares.
#[must_use]
pub fn chi_square(counts: &[u64], shares: &[f64]) -> f64 {
    let (total, all): (u64, f64) = (counts.iter().sum(), shares.iter().sum());
    let term = |(count, share): (&u64, &f64)| {
        let expected = total as f64 * share / all;
        (*count as f64 - expected).powi(2) / expected
    };
    counts.iter().zip(shares).map(term).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_a_message() {
        let message = Question::new("a.example", Question::A).cookie(b"12345678").message(7);
        let name: &[u8] = b"\x01a\x07example\0\0\x01\0\x01";
        let opt: &[u8] = b"\0\0\x29\x04\xd0\0\0\0\0\0\x0c\0\x0a\0\x0812345678";
        assert_eq!(message, [b"\0\x07\x01\0\0\x01\0\0\0\0\0\x01", name, opt].concat());
    }

    #[test]
    fn a_response_is_read() {
        let mut message = Question::new("a.example", Question::A).cookie(b"12345678").message(7);
        message[2] |= 0x82;
        message[7] = 1;
        let record = b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\xc0\0\x02\x01";
        message.splice(27..27, *record);
        let response = Response::read(&message).unwrap();
        assert_eq!((response.id, response.is_truncated(), response.code()), (7, true, 0));
        assert_eq!(response.addresses, [IpAddr::from([192, 0, 2, 1])]);
        assert_eq!(response.cookie, b"12345678");
        assert_eq!(Response::read(&message[..40]), None);
    }

    #[test]
    fn what_is_as_expected_has_no_chi_square() {
        assert!(chi_square(&[30, 60], &[1.0, 2.0]) < 1e-9);
        assert!((chi_square(&[40, 60], &[1.0, 1.0]) - 4.0).abs() < 1e-9);
    }
}
