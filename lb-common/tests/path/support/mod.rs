//! Frames from a foreign hand, tables to steer them by, and what came of it.

pub mod datagram;
pub mod frames;
pub mod messages;
pub mod reader;
pub mod shapes;
pub mod sound;
pub mod tables;

use lb_common::{
    host::{Buffer, HostTables},
    path::steer,
    tables::Traffic,
    verdict::{Verdict, Why},
};
use proptest::test_runner::Config;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

/// Toward the clients.
pub const WAN: u32 = 2;
/// Toward the backends.
pub const LAN: u32 = 3;

pub type Mac = [u8; 6];
/// The balancer's own, by interface.
pub const WAN_MAC: Mac = [0x02, 0, 0, 0, 0, 0x02];
pub const LAN_MAC: Mac = [0x02, 0, 0, 0, 0, 0x03];
/// The clients' side of the link.
pub const ROUTER_MAC: Mac = [0x02, 0xc1, 0x1e, 0x47, 0x00, 0x01];
pub const BACKEND_MAC: Mac = [0x02, 0xba, 0xce, 0x4d, 0x00, 0x15];
pub const BROADCAST: Mac = [0xff; 6];

/// One family's addresses.
#[derive(Clone, Copy, Debug)]
pub struct Side {
    pub client: IpAddr,
    pub service: IpAddr,
    pub backend: IpAddr,
    pub dns: IpAddr,
    pub host: IpAddr,
    /// Between the clients and the balancer, or behind it: who has something to say about a packet.
    pub router: IpAddr,
    /// What tunnels come from.
    pub tunnel: IpAddr,
}

pub const V4: Side = Side {
    client: IpAddr::V4(Ipv4Addr::new(198, 51, 100, 7)),
    service: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 10)),
    backend: IpAddr::V4(Ipv4Addr::new(10, 0, 3, 21)),
    dns: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 53)),
    host: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    router: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 99)),
    tunnel: IpAddr::V4(Ipv4Addr::new(10, 99, 0, 7)),
};
pub const V6: Side = Side {
    client: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 7)),
    service: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10)),
    backend: IpAddr::V6(Ipv6Addr::new(0xfd00, 0xdb8, 3, 0, 0x211, 0x22ff, 0xfe33, 0x4455)),
    dns: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53)),
    host: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
    router: IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 0x99)),
    tunnel: IpAddr::V6(Ipv6Addr::new(0xfd99, 0, 0, 0, 0x1234, 0x5678, 0x9abc, 7)),
};
pub const SIDES: [Side; 2] = [V4, V6];

impl Side {
    pub fn client(&self) -> SocketAddr {
        SocketAddr::new(self.client, 40_000)
    }

    pub fn service(&self) -> SocketAddr {
        SocketAddr::new(self.service, 443)
    }

    /// Another port than the service's: mapping is the harder case.
    pub fn backend(&self) -> SocketAddr {
        SocketAddr::new(self.backend, 8_443)
    }

    pub fn dns(&self) -> SocketAddr {
        SocketAddr::new(self.dns, 53)
    }

    pub fn host(&self) -> SocketAddr {
        SocketAddr::new(self.host, 22)
    }
}

/// Room of a frame that a driver received: XDP's headroom and the rest of the page.
pub const DRIVER: Room = Room { head: 192, tail: 2_048 };

/// How much a frame can grow.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub head: usize,
    pub tail: usize,
}

/// What came of a frame, all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub verdict: Verdict,
    pub frame: Vec<u8>,
    pub counts: BTreeMap<Why, u64>,
    pub traffic: BTreeMap<u32, Traffic>,
}

/// Steers one frame. What was counted before in these tables is not told apart, so that tables serve for one outcome.
pub fn outcome(frame: &[u8], interface: u32, room: Room, tables: &HostTables) -> Outcome {
    let mut buffer = Buffer::new(frame, interface, room.head, room.tail);
    let verdict = steer(&mut buffer, tables);
    Outcome { verdict, frame: buffer.bytes().to_vec(), counts: tables.counts(), traffic: tables.traffic() }
}

/// Steers a frame that came in by [`WAN`] with room to grow; only the verdict and the frame matter.
pub fn steered(frame: &[u8], tables: &HostTables) -> (Verdict, Vec<u8>) {
    let outcome = outcome(frame, WAN, DRIVER, tables);
    (outcome.verdict, outcome.frame)
}

/// A bounded run whose failures print their smallest input; a real find becomes a named test, not a file of seeds.
pub fn cases(cases: u32) -> Config {
    Config { cases, failure_persistence: None, ..Config::default() }
}

/// SplitMix64 (Steele et al., 2014): numbers without a pattern that are the same in every run.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }
}
