//! Whether an address answers echo requests.
//!
//! All probes of a family share one socket, and a reply is known by what it repeats: a word that nobody else knows.

use super::outcome::Outcome;
use crate::model::health::Failure;
use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    io,
    net::{IpAddr, SocketAddr, UdpSocket as StdSocket},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{net::UdpSocket, sync::oneshot};

/// Type, code, checksum, identifier, sequence number (RFC 792, RFC 4443 section 4.1), and the word.
const LENGTH: usize = 16;
const REQUEST: u8 = 8;
const REQUEST6: u8 = 128;

/// Who waits for which word.
type Waiting = Mutex<HashMap<u64, oneshot::Sender<()>>>;

/// Echo requests of both families.
#[derive(Debug, Default)]
pub struct Echoes {
    ipv4: Option<Family>,
    ipv6: Option<Family>,
    chance: RandomState,
    count: AtomicU64,
}

/// One family. Nothing is read before the first probe: what comes until then fills a small buffer of the kernel, and no more.
#[derive(Debug)]
struct Family {
    socket: StdSocket,
    started: OnceLock<Option<Arc<UdpSocket>>>,
    waiting: Arc<Waiting>,
}

impl Echoes {
    /// By these sockets, if there are any.
    pub fn new(ipv4: Option<StdSocket>, ipv6: Option<StdSocket>) -> Self {
        let family = |socket| Family { socket, started: OnceLock::new(), waiting: Arc::default() };
        Self { ipv4: ipv4.map(family), ipv6: ipv6.map(family), ..Self::default() }
    }

    /// Sends a request, and waits for the reply.
    pub async fn probe(&self, address: IpAddr) -> Outcome {
        let family = if address.is_ipv4() { &self.ipv4 } else { &self.ipv6 };
        let Some((family, socket)) = family.as_ref().and_then(|family| Some((family, family.socket()?))) else {
            return Outcome::from(Failure::Other(libc::EPERM)).with_output(b"no socket for echo requests");
        };
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let word = self.chance.hash_one(number);
        let (reply, replied) = oneshot::channel();
        let _place = Place::take(&family.waiting, word, reply);
        match socket.send_to(&request(address.is_ipv4(), number, word), SocketAddr::new(address, 0)).await {
            Ok(_) => match replied.await {
                Ok(()) => Ok(()).into(),
                Err(_) => Failure::Closed.into(),
            },
            Err(error) => error.into(),
        }
    }
}

impl Family {
    fn socket(&self) -> Option<Arc<UdpSocket>> {
        let start = || {
            let socket = Arc::new(UdpSocket::from_std(self.socket.try_clone().ok()?).ok()?);
            tokio::spawn(receive(Arc::clone(&socket), Arc::clone(&self.waiting)));
            Some(socket)
        };
        self.started.get_or_init(start).clone()
    }
}

/// Someone who waits; no longer when it is dropped.
struct Place<'a>(&'a Waiting, u64);

impl<'a> Place<'a> {
    fn take(waiting: &'a Waiting, word: u64, reply: oneshot::Sender<()>) -> Self {
        waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(word, reply);
        Self(waiting, word)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.1);
    }
}

async fn receive(socket: Arc<UdpSocket>, waiting: Arc<Waiting>) -> io::Result<()> {
    let mut packet = [0; 256];
    loop {
        let length = match socket.recv_from(&mut packet).await {
            Ok((length, _)) => length,
            // Of an error that came for one of the requests.
            Err(_) => continue,
        };
        if let Some(word) = packet.get(..length).and_then(word_of)
            && let Some(reply) = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&word)
        {
            let _ = reply.send(());
        }
    }
}

/// The last word of a packet: IPv4 sockets have the IP header before the reply.
fn word_of(packet: &[u8]) -> Option<u64> {
    packet.last_chunk().map(|word| u64::from_be_bytes(*word))
}

fn request(ipv4: bool, number: u64, word: u64) -> [u8; LENGTH] {
    let kind = if ipv4 { REQUEST } else { REQUEST6 };
    let head = u64::from(kind) << 56 | number & 0xffff_ffff;
    let whole = u128::from(head) << 64 | u128::from(word);
    // The kernel writes that of ICMPv6, which covers addresses.
    let sum = if ipv4 { checksum_of(whole) } else { 0 };
    (whole | u128::from(sum) << 96).to_be_bytes()
}

/// RFC 1071.
fn checksum_of(words: u128) -> u16 {
    let sum: u32 = (0..8).map(|word| (words >> (16 * word)) as u16).map(u32::from).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !((folded & 0xffff) + (folded >> 16)) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_one() {
        let packet = request(true, 0x0001_0203, 0x0102_0304_0506_0708);
        let icmp = etherparse::Icmpv4Slice::from_slice(&packet).unwrap();
        let etherparse::Icmpv4Type::EchoRequest(echo) = icmp.icmp_type() else { panic!("{packet:?}") };
        assert_eq!((echo.id, echo.seq), (1, 0x0203));
        let header = icmp.header();
        assert_eq!(header.checksum, header.icmp_type.calc_checksum(icmp.payload()));
        assert_eq!(word_of(&packet), Some(0x0102_0304_0506_0708));
        assert_eq!(request(false, 0, 0)[..8], [128, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(word_of(&[1; 7]), None);
    }

    #[tokio::test]
    async fn without_a_socket_it_is_said() {
        let outcome = Echoes::default().probe([127, 0, 0, 1].into()).await;
        assert_eq!(outcome.result, Err(Failure::Other(libc::EPERM)));
    }
}
