//! Tables as an agent would fill them, and no more than the test at hand needs.

use super::{
    BACKEND_MAC, LAN, LAN_MAC, ROUTER_MAC, Side, WAN, WAN_MAC,
    messages::{A, AAAA, IN, Name, record},
};
use lb_common::{
    hash::Keys,
    host::HostTables,
    path::{answer::name_hash, tunnel::Sources},
    tables::{
        ANY_PORT, Answer, AnswerKey, Backend, DNS, Endpoint, Interface, Known, LAYOUT, MAX_RECORDS, NAME_WORDS, NAT,
        RETURNS, Region, Route, Service, Settings, Slot, address_words,
    },
    wire::ethernet,
};
use std::net::{IpAddr, SocketAddr};

/// Slots of every service's table.
pub const SLOTS: u32 = 251;
/// Seconds on the clock.
pub const NOW: u64 = 1_000_000;
/// The longest packet of every link.
pub const MTU: u16 = 1_500;
/// TTL of every answer, if its time lasts.
pub const TTL: u32 = 300;

pub const KEYS: Keys = Keys {
    flow: [0x0f1e_2d3c_4b5a_6978, 0x8796_a5b4_c3d2_e1f0, 0x1357_9bdf_0246_8ace],
    multiplier: 0xd1b5_4a32_d192_ed03,
    name: 0xa076_1d64_78bd_642f,
};

/// Both protocols' numbers.
pub const PROTOCOLS: [u8; 2] = [6, 17];

/// Tables of a balancer with two interfaces and nothing else.
pub fn empty() -> HostTables {
    let mut tables = HostTables::default();
    tables.settings = Some(Settings { layout: LAYOUT, keys: KEYS, features: 0, known: Known::ALL });
    for interface in [WAN, LAN] {
        tables.interfaces.insert(interface, Interface { mac: mac_of(interface), zero: [0; 2] });
    }
    tables.seconds = NOW;
    tables
}

pub fn endpoint(at: SocketAddr, protocol: u8) -> Endpoint {
    Endpoint::new(at.ip(), protocol, at.port())
}

/// What a test says of its tables.
pub trait Build: Sized {
    /// A service with a table of [`SLOTS`] slots, dealt to these backends in turn; without backends, no table. On port 0: on all
    /// ports.
    fn with_service(self, at: SocketAddr, protocol: u8, backends: &[Backend]) -> Self;
    /// Both protocols of a DNS address.
    fn with_dns(self, at: SocketAddr) -> Self;
    /// An answer of these addresses, all of one family, that is never spent.
    fn with_answer(self, name: &Name, records: &[IpAddr]) -> Self;
    /// An address that something is answered for: [`ON_LINK`](lb_common::tables::ON_LINK), [`ECHO`](lb_common::tables::ECHO).
    fn with_address(self, address: IpAddr, answers: u64) -> Self;
    /// Where replies to this address go.
    fn with_route(self, to: IpAddr, route: Route) -> Self;
    /// The only answer, to be changed.
    fn only_answer(&mut self) -> &mut Answer;
}

impl Build for HostTables {
    fn with_service(mut self, at: SocketAddr, protocol: u8, backends: &[Backend]) -> Self {
        let id = self.services.len() as u32;
        let first = self.slots.len() as u32;
        let ids: Vec<u32> = backends.iter().map(|backend| self.add(*backend)).collect();
        let slots = if ids.is_empty() { 0 } else { SLOTS };
        for index in 0..slots {
            let backend = ids[index as usize % ids.len()];
            self.slots.insert(first + index, Slot::clean(backend));
        }
        if at.port() == 0 {
            self.settings.as_mut().unwrap().features |= ANY_PORT;
        }
        self.service_ids.insert(endpoint(at, protocol), id);
        self.services.insert(id, Service { region: Region { first, slots }.word(), flags: 0, id });
        self
    }

    fn with_dns(mut self, at: SocketAddr) -> Self {
        let id = self.services.len() as u32;
        for protocol in PROTOCOLS {
            self.service_ids.insert(endpoint(at, protocol), id);
        }
        self.services.insert(id, Service { region: 0, flags: DNS, id });
        self
    }

    fn with_answer(mut self, name: &Name, records: &[IpAddr]) -> Self {
        let place = self.answers.len() as u32;
        let answer = answer(name, records);
        let key = AnswerKey { name: name_hash(&KEYS, &answer.name).unwrap(), kind: answer.kind };
        assert_eq!(self.answer_places.insert(key, place), None, "two names of a test share a hash");
        self.answers.insert(place, answer);
        self
    }

    fn with_address(mut self, address: IpAddr, answers: u64) -> Self {
        self.addresses.insert(address_words(address), answers);
        self
    }

    fn with_route(mut self, to: IpAddr, route: Route) -> Self {
        self.routes.insert(address_words(to), route);
        self
    }

    fn only_answer(&mut self) -> &mut Answer {
        assert_eq!(self.answers.len(), 1);
        self.answers.values_mut().next().unwrap()
    }
}

trait Add {
    /// Takes an id, and lets replies be found if the backend is behind NAT.
    fn add(&mut self, backend: Backend) -> u32;
}

impl Add for HostTables {
    fn add(&mut self, backend: Backend) -> u32 {
        let id = 100 + self.backends.len() as u32;
        self.backends.insert(id, backend);
        if backend.flags & NAT != 0 {
            self.returns.insert(backend.own, id);
            self.settings.as_mut().unwrap().features |= RETURNS;
        }
        id
    }
}

/// The id of the first backend.
pub const FIRST: u32 = 100;

/// A backend that keeps the service's address, on this interface.
pub fn dsr(side: &Side, protocol: u8, interface: u32) -> Backend {
    let own = Endpoint::new(side.backend, protocol, side.service().port());
    via(Backend::new(own, endpoint(side.service(), protocol), 0), interface)
}

/// A backend that is rewritten to, on this interface.
pub fn nat(side: &Side, protocol: u8, interface: u32) -> Backend {
    via(Backend::new(endpoint(side.backend(), protocol), endpoint(side.service(), protocol), NAT), interface)
}

/// A backend at the address of `to`, of either family, that is sent the packets of a service at that of `from` by a tunnel, which
/// has one source.
pub fn tunnel(from: &Side, to: &Side, protocol: u8, interface: u32) -> Backend {
    let prefix = if to.tunnel.is_ipv4() { 32 } else { 128 };
    tunnel_from(Sources::new(to.tunnel, prefix), from, to, protocol, interface)
}

/// The same from many sources.
pub fn tunnel_from(sources: Sources, from: &Side, to: &Side, protocol: u8, interface: u32) -> Backend {
    let own = Endpoint::new(to.backend, protocol, from.service().port());
    via(Backend::new(own, endpoint(from.service(), protocol), 0), interface).through(sources)
}

fn via(backend: Backend, interface: u32) -> Backend {
    backend.via(interface, BACKEND_MAC, mac_of(interface), MTU)
}

pub fn mac_of(interface: u32) -> super::Mac {
    if interface == WAN { WAN_MAC } else { LAN_MAC }
}

/// Replies to clients leave by this interface.
pub fn route_via(interface: u32) -> Route {
    Route::Via { interface, ethernet: ethernet::addresses(ROUTER_MAC, mac_of(interface)) }
}

/// A rendered answer.
pub fn answer(name: &Name, records: &[IpAddr]) -> Answer {
    assert!(records.len() <= MAX_RECORDS);
    let kind = if records[0].is_ipv4() { A } else { AAAA };
    let mut answer = Answer {
        name: words(&name.in_lower_case().0),
        kind: u64::from(kind) | u64::from(IN) << 16,
        spent_at: u64::MAX,
        ttl_seconds: TTL,
        count: records.len() as u32,
        sum: 0,
        records: [[0; 4]; MAX_RECORDS],
    };
    for (cell, address) in answer.records.iter_mut().zip(records) {
        let record = record(*address, 0);
        *cell = words(&record);
        // Records have even lengths.
        answer.sum += record.chunks_exact(2).map(|pair| u64::from(u16::from_ne_bytes([pair[0], pair[1]]))).sum::<u64>();
    }
    answer
}

/// Bytes as words in the order of memory, filled up with zeros.
pub fn words<const WORDS: usize>(bytes: &[u8]) -> [u64; WORDS] {
    assert!(bytes.len() <= WORDS * 8);
    std::array::from_fn(|index| {
        let byte = |at: usize| bytes.get(index * 8 + at).copied().unwrap_or_default();
        u64::from_ne_bytes(std::array::from_fn(byte))
    })
}

/// A name's words, filled up with something else than zeros.
pub fn words_of_name(name: &[u8], filler: u8) -> [u64; NAME_WORDS] {
    let mut bytes = name.to_vec();
    bytes.resize(NAME_WORDS * 8, filler);
    words(&bytes)
}
