//! What the tables should hold: the operator's intent, folded with how the world is.

use super::{
    answers::wanted::Answers,
    backends::BackendKey,
    dns::names::Names,
    intent::{self, Intent, Mode, Service, Target, Tunnel},
    leaving::Leaving,
    load::{Load, WHOLE},
    pool::{self, Candidate, Pool},
    reach::{Hop, NoHop, Way, reach},
};
use crate::changes::edit::BackendState;
use bytemuck::Zeroable as _;
use lb_common::{
    hash::Keys,
    tables::{
        self, ANY_PORT, Address, Backend, DOWN, DRAINING, ECHO, Endpoint, MOVES, NAT, ON_LINK, RETURNS, Settings,
        TUNNEL4, TUNNEL6, answers::DnsSettings,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

/// A backend that the operator takes out of service: the service's endpoint and the backend's.
pub type Drain = (Endpoint, Endpoint);

/// Since when, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Draining {
    /// When it was taken out of service.
    pub since: Duration,
    /// When its flows are given up.
    pub deadline: Option<Duration>,
}

/// How the world is. Neighbours are looked up together: with a million backends, trees are four times as fast as hashes.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// MAC addresses of the interfaces of the config that exist, by index.
    pub interfaces: BTreeMap<u32, [u8; 6]>,
    /// What is up.
    pub up: BTreeSet<Target>,
    /// What has been probed for so short a time that nothing is known of it yet. A service whose backends are among it gets no
    /// first table: each backend that comes up a moment later would have to take flows over from those before.
    pub undecided: HashSet<Target>,
    /// How much of their weight targets take which do not take it whole.
    pub loads: BTreeMap<Target, Load>,
    /// Ways to the backends, by address.
    pub ways: BTreeMap<IpAddr, Result<Way, NoHop>>,
    /// What the operator drains.
    pub drains: BTreeMap<Drain, Draining>,
    /// What is in the tables for its flows only.
    pub leaving: BTreeMap<BackendKey, Leaving>,
}

impl Conditions {
    /// How much of its weight a backend takes.
    pub fn load(&self, backend: &intent::Backend) -> Load {
        let known = backend.targets().filter_map(|target| self.loads.get(target));
        known.fold(Load::default(), |all, load| all.and(*load))
    }
}

/// What is at an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// DNS questions are answered.
    Dns,
    /// Packets go to backends.
    Balanced(Arc<Balanced>),
}

impl Wanted {
    /// Whether it is a DNS address.
    pub const fn is_dns(&self) -> bool {
        matches!(self, Self::Dns)
    }

    /// See [`tables::Service::flags`].
    pub fn flags(&self) -> u32 {
        match self {
            Self::Dns => tables::DNS,
            Self::Balanced(balanced) => balanced.flags,
        }
    }
}

/// A service whose packets go to backends.
#[derive(Clone, Debug, PartialEq)]
pub struct Balanced {
    /// See [`tables::Service::flags`].
    pub flags: u32,
    /// Size of its slot table, when one is made.
    pub slots: u32,
    /// A table in use with fewer slots has to be made anew.
    pub least_slots: u32,
    /// Whether it gets no table yet, if it has none.
    pub undecided: bool,
    /// Whether nobody takes flows only because it is not known yet who will. Then new flows go on to those who had them and are
    /// leaving, as when all addresses of a name are others at once.
    pub waits: bool,
    /// Which of its backends take flows.
    pub pool: Pool,
    /// Its backends, with a share of the slots or without; no two have the same key.
    pub backends: Vec<Share>,
}

/// A backend and its share of the slots.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share {
    /// What the tables hold of it.
    pub backend: Backend,
    /// Its share in proportion to the others'; 0: it takes no new flows.
    pub weight: u32,
    /// It is there for its flows only: once it is out of the tables, it does not come back.
    pub leaving: bool,
}

impl Balanced {
    /// Who takes new flows, by weight.
    pub fn members(&self) -> impl Iterator<Item = &Share> {
        self.backends.iter().filter(|share| share.weight > 0)
    }

    /// Whether a table that was made for the one is right for the other: the same backends have the same shares.
    pub fn has_members_of(&self, other: &Self) -> bool {
        if self.waits != other.waits {
            return false;
        }
        let member = |share: &Share| (BackendKey::from(&share.backend), share.weight);
        self.members().map(member).eq(other.members().map(member))
    }
}

/// What the tables should hold.
#[derive(Clone, Debug)]
pub struct Desired {
    /// What holds for every packet.
    pub settings: Settings,
    /// MAC addresses by interface index.
    pub interfaces: BTreeMap<u32, [u8; 6]>,
    /// Services and DNS addresses.
    pub services: BTreeMap<Endpoint, Wanted>,
    /// Addresses to answer for, and what: [`ON_LINK`], [`ECHO`].
    pub addresses: BTreeMap<Address, u64>,
    /// What holds for every question, if any are answered.
    pub dns: Option<DnsSettings>,
    /// What the kernel answers.
    pub answers: Answers,
    /// How long an adoption window is open.
    pub adopt: Duration,
}

/// Nothing.
impl Default for Desired {
    fn default() -> Self {
        Self {
            settings: Settings::zeroed(),
            interfaces: BTreeMap::new(),
            services: BTreeMap::new(),
            addresses: BTreeMap::new(),
            dns: None,
            answers: Answers::new(Keys::zeroed()),
            adopt: Duration::ZERO,
        }
    }
}

impl Desired {
    /// Folds an intent with the conditions at `now`.
    pub fn new(intent: &Intent, conditions: &Conditions, now: Duration) -> Self {
        let settings = Settings { layout: tables::LAYOUT, keys: intent.keys(), ..Settings::zeroed() };
        let answers = Answers::new(settings.keys);
        let mut desired = Self { settings, answers, adopt: intent.tracking().adopt, ..Self::default() };
        desired.dns = (!intent.dns().is_empty()).then(|| intent.answering().settings());
        for address in intent.dns() {
            let endpoint = Endpoint::new(address.ip(), lb_common::wire::transport::UDP, address.port());
            desired.settings.known.add(&endpoint.address);
            desired.services.insert(endpoint, Wanted::Dns);
        }
        for service in intent.services() {
            desired.settings.known.add(&service.endpoint.address);
            let answers = if service.claim { ON_LINK } else { 0 } | if service.echo { ECHO } else { 0 };
            if answers != 0 {
                *desired.addresses.entry(service.endpoint.address).or_default() |= answers;
            }
        }
        desired.refresh(intent, conditions, now, intent.services().iter());
        desired
    }

    /// Folds anew what the conditions have changed of the same intent: some of its services, and what is about none of them.
    pub fn refresh<'i>(
        &mut self,
        intent: &Intent,
        conditions: &Conditions,
        now: Duration,
        services: impl Iterator<Item = &'i Service>,
    ) {
        self.interfaces.clone_from(&conditions.interfaces);
        self.settings.features = intent.services().iter().fold(0, |all, service| all | features(service));
        if conditions.leaving.keys().any(|key| key.mode == Mode::Nat) {
            self.settings.features |= RETURNS;
        }
        for service in services {
            let balanced = balanced(service, intent.tunnel(), conditions, now);
            match self.services.get(&service.endpoint) {
                Some(Wanted::Balanced(known)) if **known == balanced => (),
                _ => _ = self.services.insert(service.endpoint, Wanted::Balanced(Arc::new(balanced))),
            }
        }
    }

    /// Goes on from the answers of an earlier one, if they are found by the same keys.
    pub fn keep_answers(&mut self, earlier: Self) {
        let keys = self.settings.keys;
        self.answers = if *earlier.answers.keys() == keys { earlier.answers } else { Answers::new(keys) };
    }

    /// Shares with an earlier one what is equal: what is the same thing need not be compared again.
    pub fn share(&mut self, earlier: &Self) {
        for (endpoint, wanted) in &mut self.services {
            if let Some(known) = earlier.services.get(endpoint).filter(|known| *known == wanted) {
                *wanted = known.clone();
            }
        }
    }
}

/// What a service needs of every packet.
fn features(service: &Service) -> u64 {
    let returns = if service.mode == Mode::Nat { RETURNS } else { 0 };
    returns | if service.endpoint.port() == 0 { ANY_PORT } else { 0 }
}

fn balanced(service: &Service, tunnel: Tunnel, conditions: &Conditions, now: Duration) -> Balanced {
    let seen: Vec<Seen> = service.backends.iter().map(|one| Seen::new(service, one, conditions, now)).collect();
    let undecided = seen.iter().any(|one| one.waits);
    let candidates: Vec<Candidate> = seen.iter().map(|one| one.candidate).collect();
    let deepest = pool::deepest(&candidates, service.minimum_healthy);
    let pool = pool::pool(&candidates, service.minimum_healthy, service.fail_open, undecided);
    let all_whole = seen.iter().all(|one| one.per_mille == WHOLE);
    let most = seen.iter().map(Seen::weight).max().unwrap_or_default().max(1);
    let mut backends = Vec::with_capacity(service.backends.len());
    for seen in &seen {
        let intent::Backend { endpoint, weight, .. } = seen.backend;
        let takes_flows = pool.takes(&seen.candidate, deepest);
        let key = BackendKey { service: service.endpoint, own: *endpoint, mode: service.mode };
        let up = !seen.given_up && (seen.up || takes_flows);
        let backend = backend(&key, tunnel, &seen.hop, up);
        let draining = if seen.drained { DRAINING } else { 0 };
        let backend = Backend { flags: backend.flags | draining, ..backend };
        // Parts of weights are told apart as finely as weights can be.
        let share = if all_whole { *weight } else { (seen.weight() * MOST_WEIGHT).div_ceil(most) as u32 };
        backends.push(Share { backend, weight: if takes_flows { share } else { 0 }, leaving: false });
    }
    for (key, leaving) in leaving_of(conditions, service.endpoint) {
        let hop = reach(conditions, key.mode, key.own.ip());
        let backend = backend(key, tunnel, &hop, leaving.is_up(conditions, now));
        backends.push(Share { backend, weight: 0, leaving: true });
    }
    let waits = (undecided || service.unresolved) && backends.iter().all(|share| share.weight == 0);
    Balanced {
        flags: if service.moves { MOVES } else { 0 },
        slots: service.slots,
        least_slots: service.least_slots,
        undecided,
        waits,
        pool,
        backends,
    }
}

/// The greatest weight that the slot tables tell apart from its neighbours.
const MOST_WEIGHT: u64 = 65_535;

/// A backend under the conditions of now.
struct Seen<'a> {
    backend: &'a intent::Backend,
    candidate: Candidate,
    /// How it is reached.
    hop: Result<Hop, NoHop>,
    /// Its check says so, and it has not said itself that it is down.
    up: bool,
    /// By the operator.
    drained: bool,
    /// Its flows are given up.
    given_up: bool,
    /// Something about it is not known yet.
    waits: bool,
    /// The part of its weight that it takes.
    per_mille: u32,
}

impl<'a> Seen<'a> {
    fn new(service: &Service, backend: &'a intent::Backend, conditions: &Conditions, now: Duration) -> Self {
        let intent::Backend { endpoint, weight, target, tier, state, .. } = backend;
        let is_disabled = *state == BackendState::Disabled;
        let drain = conditions.drains.get(&(service.endpoint, *endpoint));
        let drained = drain.is_some();
        let given_up = drain.and_then(|drain| drain.deadline).is_some_and(|deadline| deadline <= now);
        let load = conditions.load(backend);
        let up = !is_disabled && conditions.up.contains(target) && !load.down;
        let hop = reach(conditions, service.mode, endpoint.ip());
        let has_weight = *weight > 0 && load.per_mille > 0;
        let able = !is_disabled && !drained && !load.drains && !load.down && has_weight && hop.is_ok();
        let asked = matches!(hop, Err(NoHop::Asked { .. }));
        let unknown = backend.targets().any(|target| conditions.undecided.contains(target));
        let waits = (unknown || up && asked) && !is_disabled && !drained && has_weight;
        let candidate = Candidate { able, up, tier: *tier };
        Self { backend, candidate, hop, up, drained, given_up, waits, per_mille: load.per_mille }
    }

    /// In thousandths.
    fn weight(&self) -> u64 {
        u64::from(self.backend.weight) * u64::from(self.per_mille)
    }
}

/// What the tables hold of a backend.
fn backend(key: &BackendKey, tunnel: Tunnel, hop: &Result<Hop, NoHop>, up: bool) -> Backend {
    let address = key.own.ip();
    let flags = match key.mode {
        Mode::Dsr => 0,
        Mode::Nat => NAT,
        Mode::Tunnel if address.is_ipv4() => TUNNEL4,
        Mode::Tunnel => TUNNEL6,
    };
    let entry = |down| Backend::new(key.own, key.service, flags | if down { DOWN } else { 0 });
    let Ok(hop) = hop else { return entry(true) };
    let entry = entry(!up).via(hop.interface, hop.destination, hop.source, hop.mtu);
    match tunnel.sources(address).filter(|_| key.mode == Mode::Tunnel) {
        Some(sources) => entry.through(sources),
        None => entry,
    }
}

/// What the tables hold of a backend that is up, if there is a way to it.
pub fn entry(key: &BackendKey, tunnel: Tunnel, conditions: &Conditions) -> Option<Backend> {
    let hop = reach(conditions, key.mode, key.own.ip());
    hop.is_ok().then(|| backend(key, tunnel, &hop, true))
}

fn leaving_of(conditions: &Conditions, service: Endpoint) -> impl Iterator<Item = (&BackendKey, &Leaving)> {
    let first = BackendKey { service, own: Endpoint::zeroed(), mode: Mode::Dsr };
    conditions.leaving.range(first..).take_while(move |(key, _)| key.service == service)
}

/// The names of the config with what is up.
pub fn names(intent: &Intent, conditions: &Conditions) -> Names {
    Names::new(intent.zone(), &conditions.up)
}
