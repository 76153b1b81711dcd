//! The way of probes to service addresses: the one that clients' packets take.
//!
//! Sockets of such probes have a mark, by which the kernel routes their packets to a device of ours. Each is then put through
//! [`steer`] with tables in which the service has one backend, so the frame that leaves is the very one that the packet path would
//! send to that backend. What the backend answers comes to this machine by itself: its sender is the service's address.

use super::outcome::Outcome;
use crate::{
    kernel::detour::{FrameSender, Tun},
    model::{backends::BackendKey, health::Failure},
};
use bytemuck::Zeroable as _;
use lb_common::{
    hash::Keys,
    host::{Buffer, HostTables},
    path::steer,
    tables::{Backend, Endpoint, LAYOUT, Region, Service, Settings, Slot},
    verdict::Verdict,
    wire::ethernet,
};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, UdpSocket as StdSocket},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::watch, time::sleep};

/// The device's packets have room for an outer header.
const ROOM: usize = 128;
const LONGEST: usize = 2_048;
/// For so long after its end a probe's packets still go their way: the reset of its connection, above all.
const LINGER: Duration = Duration::from_secs(5);
/// The only slot of the tables that packets are put through, its service and its backend.
const ONE: u32 = 1;

/// What the tables would hold of backends that probes go to in the way of traffic.
pub type Entries = HashMap<BackendKey, Backend>;

/// The way.
#[derive(Debug)]
pub struct Detour {
    mark: u32,
    entries: watch::Sender<Arc<Entries>>,
    flows: Mutex<Flows>,
}

/// Which backend a probe's packets go to, by its end of the connection. A port may be used again before it is forgotten.
#[derive(Debug, Default)]
struct Flows {
    of: HashMap<Endpoint, (BackendKey, u64)>,
    count: u64,
}

impl Detour {
    /// Takes what comes from the device, whose packets have this mark, until the agent ends.
    pub fn start(tun: Tun, mark: u32, sender: FrameSender) -> Arc<Self> {
        let detour = Arc::new(Self { mark, entries: watch::Sender::default(), flows: Mutex::default() });
        tokio::spawn(Arc::clone(&detour).carry(tun, sender));
        detour
    }

    /// The mark of the packets.
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// Says how backends are reached now.
    pub fn know(&self, entries: Entries) {
        self.entries.send_replace(Arc::new(entries));
    }

    /// Gives a socket that is not bound yet to a backend: the address to bind it to is returned. Waits until it is known how the
    /// backend is reached.
    pub async fn source(&self, to: SocketAddr, key: &BackendKey) -> Result<SocketAddr, Outcome> {
        let mut entries = self.entries.subscribe();
        if entries.wait_for(|entries| entries.contains_key(key)).await.is_err() {
            return Err(Failure::Unreachable.into());
        }
        own_address(to).map_err(Outcome::from)
    }

    /// From now on, and until a while after what is returned is dropped, what is sent from here goes to the backend.
    pub fn lead(self: &Arc<Self>, from: SocketAddr, protocol: u8, key: &BackendKey) -> Led {
        let from = Endpoint::new(from.ip(), protocol, from.port());
        let mut flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
        flows.count += 1;
        let number = flows.count;
        flows.of.insert(from, (*key, number));
        Led { detour: Arc::clone(self), from, number }
    }

    async fn carry(self: Arc<Self>, tun: Tun, sender: FrameSender) -> io::Result<()> {
        let mut packet = [0; LONGEST];
        loop {
            let length = tun.read(&mut packet).await?;
            let packet = packet.get(..length).unwrap_or_default();
            if let Some((interface, frame)) = self.frame(packet)
                && let Err(error) = sender.send(interface, &frame)
            {
                tracing::debug!(interface, %error, "a probe was not sent");
            }
        }
    }

    /// The frame that the packet path makes of a packet, and the interface that it leaves by.
    fn frame(&self, packet: &[u8]) -> Option<(u32, Vec<u8>)> {
        let kind = match packet.first()? >> 4 {
            4 => ethernet::IPV4,
            6 => ethernet::IPV6,
            _ => return None,
        };
        let mut frame = vec![0; 12];
        frame.extend(kind.to_be_bytes());
        frame.extend(packet);
        let mut buffer = Buffer::new(&frame, 0, ROOM, 0);
        let (from, to) = ends(packet)?;
        let key = {
            let flows = self.flows.lock().unwrap_or_else(PoisonError::into_inner);
            flows.of.get(&from)?.0
        };
        let backend = *self.entries.borrow().get(&key)?;
        match steer(&mut buffer, &tables(to, backend)) {
            Verdict::Redirect(_, interface) => Some((interface, buffer.bytes().to_vec())),
            verdict => {
                tracing::debug!(why = verdict.why().name(), "a probe was not sent");
                None
            }
        }
    }
}

/// Sender and receiver of a packet as this machine sends it: without IPv6 extension headers.
fn ends(packet: &[u8]) -> Option<(Endpoint, Endpoint)> {
    let at = |from: usize, length: usize| packet.get(from..)?.get(..length);
    let first = *packet.first()?;
    let (protocol, addresses, header): (u8, [IpAddr; 2], usize) = if first >> 4 == 4 {
        let address = |from| Some(IpAddr::from(<[u8; 4]>::try_from(at(from, 4)?).ok()?));
        (*packet.get(9)?, [address(12)?, address(16)?], usize::from(first & 0xf) * 4)
    } else {
        let address = |from| Some(IpAddr::from(<[u8; 16]>::try_from(at(from, 16)?).ok()?));
        (*packet.get(6)?, [address(8)?, address(24)?], 40)
    };
    let port = |from| Some(u16::from_be_bytes(at(from, 2)?.try_into().ok()?));
    let [from, to] = addresses;
    Some((Endpoint::new(from, protocol, port(header)?), Endpoint::new(to, protocol, port(header + 2)?)))
}

/// Tables in which a service has one backend.
fn tables(service: Endpoint, backend: Backend) -> HostTables {
    let keys = Keys { multiplier: 1, ..Keys::zeroed() };
    let mut settings = Settings { layout: LAYOUT, keys, ..Settings::zeroed() };
    settings.known.add(&service.address);
    let region = Region { first: 0, slots: ONE }.word();
    let mut tables = HostTables::default();
    tables.settings = Some(settings);
    tables.service_ids = [(service, ONE)].into();
    tables.services = [(ONE, Service { region, flags: 0, id: ONE })].into();
    tables.slots = [(0, Slot::clean(ONE))].into();
    tables.backends = [(ONE, backend)].into();
    tables
}

/// The address that this machine has toward another; nothing is sent.
fn own_address(to: SocketAddr) -> io::Result<SocketAddr> {
    let any: SocketAddr = if to.is_ipv4() { ([0; 4], 0).into() } else { ([0; 16], 0).into() };
    let socket = StdSocket::bind(any)?;
    socket.connect(to)?;
    Ok(SocketAddr::new(socket.local_addr()?.ip(), 0))
}

/// A probe's end of a connection that is led to a backend.
#[derive(Debug)]
pub struct Led {
    detour: Arc<Detour>,
    from: Endpoint,
    number: u64,
}

impl Drop for Led {
    fn drop(&mut self) {
        let (detour, from, number) = (Arc::clone(&self.detour), self.from, self.number);
        let forget = async move {
            sleep(LINGER).await;
            let mut flows = detour.flows.lock().unwrap_or_else(PoisonError::into_inner);
            if flows.of.get(&from).is_some_and(|(_, known)| *known == number) {
                flows.of.remove(&from);
            }
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(forget);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::intent::Mode;
    use etherparse::{NetSlice, PacketBuilder, SlicedPacket};
    use lb_common::{
        path::tunnel::Sources,
        wire::transport::{TCP, UDP},
    };

    fn key(service: &str, own: &str, protocol: u8, mode: Mode) -> BackendKey {
        let endpoint = |text: &str| Endpoint::new(text.parse().unwrap(), protocol, 80);
        BackendKey { service: endpoint(service), own: endpoint(own), mode }
    }

    fn detour(key: BackendKey, backend: Backend) -> Arc<Detour> {
        let detour = Detour { mark: 1, entries: watch::Sender::default(), flows: Mutex::default() };
        detour.know([(key, backend)].into());
        Arc::new(detour)
    }

    const MACS: [[u8; 6]; 2] = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]];

    #[tokio::test]
    async fn a_frame_is_that_of_the_packet_path() {
        let key = key("192.0.2.10", "10.0.0.21", TCP, Mode::Dsr);
        let [own, server] = MACS;
        let detour = detour(key, Backend::new(key.own, key.service, 0).via(7, server, own, 1_500));
        let mut packet = Vec::new();
        let builder = PacketBuilder::ipv4([10, 0, 0, 1], [192, 0, 2, 10], 64).tcp(40_000, 80, 1, 1_024).syn();
        builder.write(&mut packet, &[]).unwrap();
        assert_eq!(detour.frame(&packet), None, "nobody has said where it goes");
        let led = detour.lead("10.0.0.1:40000".parse().unwrap(), TCP, &key);
        let (interface, frame) = detour.frame(&packet).unwrap();
        assert_eq!((interface, &frame[..6], &frame[6..12]), (7, &server[..], &own[..]));
        assert_eq!(frame[14..], packet);
        // What comes late still goes its way.
        drop(led);
        assert!(detour.frame(&packet).is_some());
        detour.know(Entries::new());
        assert_eq!(detour.frame(&packet), None, "there is no way any more");
        for length in 0..packet.len() {
            let _ = detour.frame(&packet[..length]);
        }
    }

    #[tokio::test]
    async fn a_tunnel_has_its_outer_header() {
        let key = key("2001:db8::10", "10.0.0.21", UDP, Mode::Tunnel);
        let [own, server] = MACS;
        let backend = Backend::new(key.own, key.service, 0).via(7, server, own, 1_500);
        let sources = Sources::new("10.99.0.0".parse().unwrap(), 16);
        let detour = detour(key, backend.through(sources));
        let mut packet = Vec::new();
        let from: std::net::Ipv6Addr = "fd00::1".parse().unwrap();
        let to: std::net::Ipv6Addr = "2001:db8::10".parse().unwrap();
        PacketBuilder::ipv6(from.octets(), to.octets(), 64).udp(40_000, 80).write(&mut packet, b"hello").unwrap();
        let _led = detour.lead("[fd00::1]:40000".parse().unwrap(), UDP, &key);
        let (_, frame) = detour.frame(&packet).unwrap();
        let Some(NetSlice::Ipv4(outer)) = SlicedPacket::from_ethernet(&frame).unwrap().net else { panic!("{frame:?}") };
        assert_eq!(outer.header().destination(), [10, 0, 0, 21]);
        assert_eq!((outer.header().source()[..2].to_vec(), outer.header().protocol().0), (vec![10, 99], 41));
        assert_eq!(frame[34..], packet);
    }
}
