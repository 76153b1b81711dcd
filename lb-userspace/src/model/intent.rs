//! What the config means: validated, with every default filled in. Nothing downstream validates again.
//!
//! [`Intent::new`] is the only way to one. It says all that is wrong with a config at once.

mod api;
mod backends;
mod checks;
mod dns;
mod limits;
mod names;
mod part;
mod records;
mod resolver;
mod services;
mod slots;
mod taken;
mod text;
mod tracking;
mod tunnel;
mod whole;

pub use super::target::{AgentCheck, Authorities, Check, Damping, Datagram, Http, Kind, Lookup, Target, Tls};

use super::backends::BackendKey;
use super::discovery::{Answers, Question};
use super::dns::{
    data::{CNAME, Data},
    zone::Zone,
};
use crate::{
    changes::edit::BackendState,
    config::{Config, ConfigErrors, Watched},
};
use lb_common::{
    hash::Keys,
    path::tunnel::Sources,
    tables::{
        self, Endpoint,
        answers::{COOKIES, DnsSettings, LEASED, LIMITED, Lapse},
    },
    wire::dns::{A, AAAA},
};
use std::{
    collections::BTreeSet,
    fmt, iter,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// What the config means.
#[derive(Clone)]
pub struct Intent {
    interfaces: Vec<String>,
    attach: Attach,
    socket: PathBuf,
    pins: PathBuf,
    state: Option<PathBuf>,
    api: Option<Api>,
    keys: Keys,
    services: Vec<Service>,
    zone: Arc<Zone>,
    dns: Vec<SocketAddr>,
    answering: Answering,
    tunnel: Tunnel,
    tracking: Tracking,
    limits: Limits,
    watched: Vec<Watched>,
    nameservers: Vec<SocketAddr>,
    questions: BTreeSet<Question>,
}

impl Intent {
    /// From a config. Backends that it has by name are not among what it means.
    pub fn new(config: &Config) -> Result<Self, ConfigErrors> {
        Self::with(config, &Answers::default())
    }

    /// From a config and what is known of the names in it.
    pub fn with(config: &Config, answers: &Answers) -> Result<Self, ConfigErrors> {
        whole::intent(config, answers)
    }

    /// Names of the interfaces that the program is attached to; at least one.
    pub fn interfaces(&self) -> &[String] {
        &self.interfaces
    }

    /// How it is attached.
    pub fn attach(&self) -> Attach {
        self.attach
    }

    /// Where the agent answers its commands; absolute.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where maps and links are pinned; absolute.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Where what outlives the agent is kept, if the config says so; absolute.
    pub fn state(&self) -> Option<&Path> {
        self.state.as_deref()
    }

    /// Where the API is answered over TCP, if it is.
    pub fn api(&self) -> Option<&Api> {
        self.api.as_ref()
    }

    /// Keys of the hashes, expanded from the secret.
    pub fn keys(&self) -> Keys {
        self.keys
    }

    /// The services as they are written; no two have the same name or endpoint.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// A backend of the service with this name.
    pub fn backend(&self, service: &str, address: SocketAddr) -> Option<&Backend> {
        let service = self.services.iter().find(|known| known.name == service)?;
        service.backends.iter().find(|backend| backend.is_at(address))
    }

    /// A service whose backend does something else, whatever its health; none if it is not there.
    pub fn with_state(
        &self,
        service: &str,
        address: SocketAddr,
        state: BackendState,
        drain: Option<Duration>,
    ) -> Option<Service> {
        let mut service = self.services.iter().find(|known| known.name == service)?.clone();
        let backend = service.backends.iter_mut().find(|backend| backend.is_at(address))?;
        (backend.state, backend.drain) = (state, drain);
        Some(service)
    }

    /// A service whose backend has another weight; none if it is not there, or something would be wrong with that.
    pub fn with_weight(&self, service: &str, address: SocketAddr, weight: i64) -> Option<Service> {
        let mut service = self.services.iter().find(|known| known.name == service)?.clone();
        let number = service.backends.iter().position(|backend| backend.is_at(address))?;
        services::set_weight(&mut service, number, weight).then_some(service)
    }

    /// Has this service in place of the one at its endpoint.
    pub fn replace(&mut self, service: Service) {
        if let Some(known) = self.services.iter_mut().find(|known| known.endpoint == service.endpoint) {
            *known = service;
        }
    }

    /// The names in DNS that are written in the config itself, as they are written.
    pub fn names(&self) -> &[Name] {
        self.zone.names()
    }

    /// All names in DNS.
    pub fn zone(&self) -> &Arc<Zone> {
        &self.zone
    }

    /// Where DNS questions are answered.
    pub fn dns(&self) -> &[SocketAddr] {
        &self.dns
    }

    /// What holds for all questions.
    pub fn answering(&self) -> Answering {
        self.answering
    }

    /// Where tunnels to backends come from.
    pub fn tunnel(&self) -> Tunnel {
        self.tunnel
    }

    /// For how long flows are known.
    pub fn tracking(&self) -> Tracking {
        self.tracking
    }

    /// The files that the config is read anew for when they have changed.
    pub fn watched(&self) -> &[Watched] {
        &self.watched
    }

    /// What is to be asked of DNS for it: the names of backends, and with the answers those that they lead to.
    pub fn questions(&self) -> &BTreeSet<Question> {
        &self.questions
    }

    /// Who is asked; none: those of the system.
    pub fn nameservers(&self) -> &[SocketAddr] {
        &self.nameservers
    }

    /// Sizes of the maps.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Everything that is probed.
    pub fn targets(&self) -> BTreeSet<Target> {
        let backends = self.services.iter().flat_map(|service| &service.backends).flat_map(Backend::targets);
        backends.chain(self.zone.targets()).cloned().collect()
    }
}

/// Without keys and secrets: who knows them can aim at a slot, or make cookies. And without names: they may be many.
impl fmt::Debug for Intent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            interfaces,
            attach,
            socket,
            pins,
            state: _,
            api: _,
            keys: _,
            services,
            zone: _,
            dns,
            answering: _,
            tunnel,
            tracking,
            limits,
            watched: _,
            nameservers: _,
            questions: _,
        } = self;
        let mut shown = formatter.debug_struct("Intent");
        shown.field("interfaces", interfaces).field("attach", attach).field("socket", socket).field("pins", pins);
        shown.field("services", services).field("dns", dns).field("tunnel", tunnel);
        shown.field("tracking", tracking).field("limits", limits).finish_non_exhaustive()
    }
}

/// Where the API is answered over TCP, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// The addresses; at least one, and without TLS all on the loopback.
    pub listen: Vec<SocketAddr>,
    /// The file that the token is in.
    pub token: PathBuf,
    /// The files of certificate and key.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// How the program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// In the driver.
    Native,
    /// In the kernel's stack, for drivers without XDP.
    Generic,
}

/// An address, port and protocol that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Where clients connect to; port 0: all ports that no other service has.
    pub endpoint: Endpoint,
    /// How packets reach its backends.
    pub mode: Mode,
    /// Size of its slot table: a prime, large enough that every backend with a weight has an exact share of 2 slots or more.
    pub slots: u32,
    /// In a table with fewer slots some backend could be without any.
    pub least_slots: u32,
    /// Whether a UDP packet of a flow that is not tracked begins one, whoever had its slot before a change.
    pub moves: bool,
    /// Whether the balancer answers for the address on the link.
    pub claim: bool,
    /// Whether it answers echo requests to the address; the same for all services there.
    pub echo: bool,
    /// How many backends other than backups have to be up, at least one.
    pub minimum_healthy: u32,
    /// Whether all take flows, up or not, if with the backups there are fewer.
    pub fail_open: bool,
    /// Its backends as they are written; no two have the same endpoint, at least one that is no backup has a weight, unless some are
    /// written by name.
    pub backends: Vec<Backend>,
    /// What is asked of DNS for its backends.
    pub questions: BTreeSet<Question>,
    /// Whether something of that is not known.
    pub unresolved: bool,
    /// The file that lists more of its backends.
    pub file: Option<PathBuf>,
}

/// How packets reach a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// Only the MAC address changes.
    Dsr,
    /// Address and port are rewritten, and restored in the replies.
    Nat,
    /// Packets travel behind an outer IP header.
    Tunnel,
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Dsr => "dsr",
            Self::Nat => "nat",
            Self::Tunnel => "tunnel",
        })
    }
}

/// A server behind a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it is: of the service's protocol, of its port unless the mode is `nat`, and of its family unless the
    /// mode is `tunnel`. Port 0: packets arrive at the port that they were sent to.
    pub endpoint: Endpoint,
    /// Its share in proportion to the others'; 0: it takes no traffic.
    pub weight: u32,
    /// What is probed for it.
    pub target: Target,
    /// What it does, whatever its health.
    pub state: BackendState,
    /// After this its flows are given up if it is drained; none: as for all ([`Tracking::drain`]).
    pub drain: Option<Duration>,
    /// The agent on it that is asked besides.
    pub agent: Option<Target>,
    /// 0, or a backup's: it takes flows only if too few of the lower tiers are up.
    pub tier: u32,
    /// Where it comes from, if the config itself does not have it.
    pub origin: Option<Arc<Origin>>,
}

/// Where a backend comes from that is not written in the config itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// DNS.
    Name {
        /// The question whose answer has its address.
        host: Question,
        /// The question whose answer has the host.
        srv: Option<Question>,
    },
    /// The file of its service.
    File,
}

impl Origin {
    /// The questions that lead to it.
    pub fn questions(&self) -> impl Iterator<Item = &Question> {
        let (host, srv) = match self {
            Self::Name { host, srv } => (Some(host), srv.as_ref()),
            Self::File => (None, None),
        };
        srv.into_iter().chain(host)
    }
}

impl Backend {
    /// All that is probed for it.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        iter::once(&self.target).chain(&self.agent)
    }

    fn is_at(&self, address: SocketAddr) -> bool {
        (self.endpoint.ip(), self.endpoint.port()) == (address.ip(), address.port())
    }
}

/// Where tunnels to backends come from; what is missing is not needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tunnel {
    /// For backends with an IPv4 address.
    pub ipv4: Option<Sources>,
    /// For backends with an IPv6 address.
    pub ipv6: Option<Sources>,
}

impl Tunnel {
    /// For a backend at this address.
    pub const fn sources(&self, backend: IpAddr) -> Option<Sources> {
        if backend.is_ipv4() { self.ipv4 } else { self.ipv6 }
    }
}

/// For how long flows are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracking {
    /// After a change of a slot, a flow that is not known yet belongs to who had the slot before.
    pub adopt: Duration,
    /// A TCP flow that is silent for longer is over.
    pub tcp_idle: Duration,
    /// A UDP flow that is silent for longer is over.
    pub udp_idle: Duration,
    /// After this the flows of a backend that is drained or removed are given up.
    pub drain: Option<Duration>,
}

/// Sizes of the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Services and DNS addresses.
    pub services: u32,
    /// Backends, counted once for each service that they are behind.
    pub backends: u32,
    /// Tracked flows.
    pub flows: u32,
    /// Memory for DNS answers, in megabytes.
    pub answers_megabytes: u32,
}

/// For how many seconds the flows of a backend that is drained or removed may go on, if not for ever.
pub const DRAIN_SECONDS: RangeInclusive<u32> = 1..=604_800;

/// Memory for DNS answers, unless the config says otherwise.
const DEFAULT_ANSWERS_MEGABYTES: u32 = 512;

impl Default for Limits {
    fn default() -> Self {
        Self {
            services: tables::DEFAULT_SERVICES,
            backends: tables::DEFAULT_BACKENDS,
            flows: tables::DEFAULT_FLOWS,
            answers_megabytes: DEFAULT_ANSWERS_MEGABYTES,
        }
    }
}

/// A name in DNS that is written in the config itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// In lower case, without a dot at the end.
    pub name: String,
    /// As on the wire, in lower case, the root label included.
    pub wire: Arc<[u8]>,
    /// For how long resolvers may keep an answer.
    pub ttl_seconds: u32,
    /// Its addresses; no two are the same.
    pub addresses: Vec<Address>,
    /// How they are answered.
    pub policy: Policy,
    /// How many of a family have to be up.
    pub minimum_healthy: u32,
    /// What is answered if fewer are.
    pub below_minimum: Below,
    /// Its other records; a CNAME is alone.
    pub data: Vec<Data>,
}

impl Name {
    /// The record that says what other name it stands for.
    pub fn cname(&self) -> Option<&Data> {
        self.data.iter().find(|data| data.kind == CNAME)
    }

    /// The types of its records.
    pub fn kinds(&self) -> BTreeSet<u16> {
        let addresses = [A, AAAA].into_iter().filter(|kind| self.addresses.iter().any(|address| address.is_of(*kind)));
        addresses.chain(self.data.iter().map(|data| data.kind)).collect()
    }
}

/// An address of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// It itself.
    pub address: IpAddr,
    /// Its share in proportion to the others'; 0: it is not answered.
    pub weight: u32,
    /// It is answered if in no lower tier enough are up.
    pub tier: u32,
    /// What is probed for it; without, it counts as up.
    pub target: Option<Target>,
}

impl Address {
    /// Whether records of this type hold it.
    pub const fn is_of(&self, kind: u16) -> bool {
        kind == if self.address.is_ipv4() { A } else { AAAA }
    }
}

/// How the addresses of a name are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// All, each in its turn first.
    RoundRobin,
    /// All, in an order by chance.
    Shuffle,
    /// One, as often as its weight says.
    Weighted,
    /// One, the same for all clients of a prefix.
    Sticky,
    /// Those of the lowest tier in which enough are up.
    Failover,
}

/// What is answered if fewer addresses of a family are up than have to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Below {
    /// That it can't be said now.
    ServFail,
    /// That there is none.
    NoData,
    /// As if all were up.
    FailOpen,
    /// These.
    Fallback(Vec<IpAddr>),
}

/// What holds for all questions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Answering {
    /// For how long answers of the config are sent without an agent; none: for ever.
    pub lease: Option<Duration>,
    /// What becomes of them afterwards.
    pub lapse: Lapse,
    /// The secret of server cookies, and the one before it.
    pub cookie_secrets: [[u64; 2]; 2],
    /// How many answers a client gets.
    pub limit: Option<RateLimit>,
    /// Bits of the prefix by which clients are told apart: IPv4, IPv6.
    pub prefixes: [u8; 2],
}

impl Answering {
    /// What the path is told of it; when the lease ends and what time it is are the agent's.
    pub fn settings(&self) -> DnsSettings {
        let RateLimit { responses_per_second, burst, slip, misses_per_second } = self.limit.unwrap_or_default();
        let [ipv4, ipv6] = self.prefixes;
        let feature = |feature, is_on| if is_on { feature } else { 0 };
        DnsSettings {
            features: COOKIES
                | feature(LIMITED, self.limit.is_some())
                | feature(LEASED, self.lease.is_some())
                | (self.lapse as u64) << 32,
            lease_until: 0,
            wall_offset: 0,
            cookie_secrets: self.cookie_secrets,
            answer_rate: u64::from(responses_per_second) | u64::from(burst) << 32,
            miss_rate: u64::from(misses_per_second) | u64::from(misses_per_second) << 33,
            slip_and_prefixes: u64::from(slip) | u64::from(ipv4) << 8 | u64::from(ipv6) << 16,
        }
    }
}

/// How much the clients of one prefix get.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RateLimit {
    /// Answers in a second; 0: any number.
    pub responses_per_second: u32,
    /// As many at once after a silence.
    pub burst: u32,
    /// Of so many answers that are too many one is sent, truncated; 0: none.
    pub slip: u32,
    /// Questions handed to the agent in a second, and twice as many at once; 0: any number.
    pub misses_per_second: u32,
}
