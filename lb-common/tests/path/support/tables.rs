//! Tables as an agent would fill them, and no more than the test at hand needs.

use super::{
    BACKEND_MAC, LAN, LAN_MAC, ROUTER_MAC, Side, WAN, WAN_MAC,
    messages::{A, AAAA, IN, Name, record},
};
use lb_common::{
    checksum,
    hash::{self, Keys},
    host::HostTables,
    path::{answer::name_hash, tunnel::Sources},
    tables::{
        ANY_PORT, Backend, DNS, Endpoint, Interface, Known, LAYOUT, NAME_WORDS, NAT, RETURNS, Region, Route, Service,
        Settings, Slot, Tables as _, address_words,
        answers::{
            AnswerSlot, BODY_WORDS, BodyHead, Bucket, DnsSettings, Entry, HEAD_WORDS, Leads, Pick, question_hash,
        },
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

/// Buckets of the index, which is where the answer space begins.
pub const BUCKETS: u32 = 256;
/// Blocks between one answer and the next: one body or slot table each.
const APART: u32 = 64;

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
    /// An answer of these addresses, all of one family, that take turns.
    fn with_answer(self, name: &Name, records: &[IpAddr]) -> Self;
    /// An answer of any kind, to questions with and without the DO bit.
    fn with_body(self, name: &Name, kind: u16, pick: Pick, body: &Answer) -> Self;
    /// Several answers, of which each slot leads to one.
    fn with_slots(self, name: &Name, kind: u16, pick: Pick, bodies: &[Answer], slots: &[usize]) -> Self;
    /// Changes the first body.
    fn change(&mut self, change: impl FnOnce(&mut [u64; BODY_WORDS]));
    /// What holds for every question.
    fn dns_settings(&mut self) -> &mut DnsSettings;
    /// An address that something is answered for: [`ON_LINK`](lb_common::tables::ON_LINK), [`ECHO`](lb_common::tables::ECHO).
    fn with_address(self, address: IpAddr, answers: u64) -> Self;
    /// Where replies to this address go.
    fn with_route(self, to: IpAddr, route: Route) -> Self;
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
        let region = Region { first: 0, slots: BUCKETS }.word();
        self.services.insert(id, Service { region, flags: DNS, id });
        self.answers.write(0, &[0]);
        self.dns.get_or_insert(DNS_SETTINGS);
        self
    }

    fn with_answer(self, name: &Name, records: &[IpAddr]) -> Self {
        let kind = if records[0].is_ipv4() { A } else { AAAA };
        self.with_body(name, kind, Pick::Turn, &Answer::of(records))
    }

    fn with_body(mut self, name: &Name, kind: u16, pick: Pick, body: &Answer) -> Self {
        let block = self.place(&body.words(name, kind));
        self.enter(name, kind, Leads { block, slots: 0, pick, dnssec: 3, generation: GENERATION });
        self
    }

    fn with_slots(mut self, name: &Name, kind: u16, pick: Pick, bodies: &[Answer], slots: &[usize]) -> Self {
        let blocks: Vec<u32> = bodies.iter().map(|body| self.place(&body.words(name, kind))).collect();
        let slot = |index: &usize| AnswerSlot { block: blocks[*index], generation: GENERATION }.word();
        let words: Vec<u64> = slots.iter().map(slot).collect();
        let block = self.place(&words);
        self.enter(name, kind, Leads { block, slots: slots.len() as u16, pick, dnssec: 3, generation: 1 });
        self
    }

    fn change(&mut self, change: impl FnOnce(&mut [u64; BODY_WORDS])) {
        let mut body = *self.body(BUCKETS).unwrap();
        change(&mut body);
        self.answers.write(BUCKETS, &body);
    }

    fn dns_settings(&mut self) -> &mut DnsSettings {
        self.dns.as_mut().unwrap()
    }

    fn with_address(mut self, address: IpAddr, answers: u64) -> Self {
        self.addresses.insert(address_words(address), answers);
        self
    }

    fn with_route(mut self, to: IpAddr, route: Route) -> Self {
        self.routes.insert(address_words(to), route);
        self
    }
}

trait Place {
    /// Writes words where nothing is, and says where.
    fn place(&mut self, words: &[u64]) -> u32;
    /// Has the index lead there.
    fn enter(&mut self, name: &Name, kind: u16, leads: Leads);
}

impl Place for HostTables {
    fn place(&mut self, words: &[u64]) -> u32 {
        let is_free = |block: &u32| self.body(*block).is_none_or(|body| body[0] == 0);
        let block = (BUCKETS..).step_by(APART as usize).find(is_free).unwrap();
        self.answers.write(block, words);
        block
    }

    fn enter(&mut self, name: &Name, kind: u16, leads: Leads) {
        let name = name_hash(&KEYS, &words(&name.in_lower_case().0)).unwrap();
        let question = question_hash(name, u32::from(kind) | u32::from(IN) << 16);
        let block = hash::slot(question as u32, BUCKETS);
        let mut bucket: Bucket = self.bucket(block).copied().unwrap_or_default();
        let free = bucket.iter_mut().find(|entry| entry.leads == 0).unwrap();
        *free = Entry { question, leads: leads.word() };
        self.answers.write(block, bytemuck::cast_slice(&bucket));
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

/// The generation of all bodies.
pub const GENERATION: u16 = 7;

/// No limits, no cookies and no lease.
pub const DNS_SETTINGS: DnsSettings = DnsSettings {
    features: 0,
    lease_until: 0,
    wall_offset: 0,
    cookie_secrets: [[0; 2]; 2],
    answer_rate: 0,
    miss_rate: 0,
    slip_and_prefixes: 2 | 24 << 8 | 56 << 16,
};

/// A rendered answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub class: u8,
    pub flags: u16,
    /// Answers, authorities and additional records.
    pub counts: [u16; 3],
    pub records: Vec<u8>,
    pub stride: u16,
    pub turns: u16,
    pub ttls: Vec<u16>,
    pub since: u64,
    pub spent_at: u64,
}

impl Answer {
    /// Addresses that are rotated.
    pub fn of(addresses: &[IpAddr]) -> Self {
        let records: Vec<Vec<u8>> = addresses.iter().map(|address| record(*address, TTL)).collect();
        Self {
            flags: 0x8400,
            counts: [records.len() as u16, 0, 0],
            stride: records[0].len() as u16,
            turns: records.len() as u16,
            records: records.concat(),
            spent_at: u64::MAX,
            ..Self::default()
        }
    }

    fn words(&self, name: &Name, kind: u16) -> Vec<u64> {
        let name = name.in_lower_case().0;
        let mut sums = [0_u32; 2];
        self.records.iter().enumerate().for_each(|(index, byte)| sums[index % 2] += u32::from(*byte));
        let mut records = self.records.clone();
        if self.turns > 1 {
            let again = usize::from(self.stride) * (usize::from(self.turns) - 1);
            records.extend(&self.records[..again]);
        }
        let records_at = HEAD_WORDS + name.len().div_ceil(8);
        let ttls_at = records_at + records.len().div_ceil(8);
        let ttls: Vec<u8> = self.ttls.iter().flat_map(|offset| offset.to_le_bytes()).collect();
        let [answers, authorities, additionals] = self.counts;
        let head = BodyHead {
            kind: u32::from(kind) | u32::from(IN) << 16,
            generation: GENERATION,
            name_length: name.len() as u8,
            class: self.class,
            flags: self.flags,
            answers,
            authorities,
            additionals,
            length: self.records.len() as u16,
            records: records_at as u16,
            stride: self.stride,
            turns: self.turns,
            sum: u32::from(checksum::fold(u64::from(sums[0]) + (u64::from(sums[1]) << 8))),
            ttls: self.ttls.len() as u16,
            ttls_at: ttls_at as u16,
            since: self.since,
            spent_at: self.spent_at,
        };
        let mut words: Vec<u64> = bytemuck::cast_slice(&[head]).to_vec();
        [name, records, ttls].iter().for_each(|bytes| words.extend(padded_words(bytes)));
        assert!(words.len() <= BODY_WORDS, "{} words", words.len());
        words
    }
}

fn padded_words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    })
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
