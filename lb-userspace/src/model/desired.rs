//! What the tables should hold: the operator's intent, folded with how the world is.

use super::{
    actual::BackendKey,
    dns::{names::Names, render, respond::Asked},
    intent::{Intent, Mode, Service, Target},
    reach::{NoHop, Way, reach},
};
use lb_common::tables::{self, Address, Answer, AnswerKey, Backend, DRAINING, Endpoint, MAX_ANSWERS, NAT, Settings};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

/// A backend that the operator takes out of service: the service's endpoint and the backend's.
pub type Drain = (Endpoint, Endpoint);

/// How the world is.
#[derive(Clone, Debug, Default)]
pub struct Conditions {
    /// MAC addresses of the interfaces of the config that exist, by index.
    pub interfaces: BTreeMap<u32, [u8; 6]>,
    /// What is up.
    pub up: BTreeSet<Target>,
    /// Ways to the backends, by address.
    pub ways: BTreeMap<IpAddr, Result<Way, NoHop>>,
    /// What the operator drains.
    pub drains: BTreeSet<Drain>,
    /// Questions that were asked, so that their answers are wanted in the kernel.
    pub asked: BTreeSet<Asked>,
}

/// A backend in a slot table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which one.
    pub key: BackendKey,
    /// Its share.
    pub weight: u32,
}

/// What is at an endpoint.
#[derive(Clone, Debug, PartialEq)]
pub enum Wanted {
    /// DNS questions are answered.
    Dns,
    /// Packets go to backends.
    Balanced {
        /// Size of the slot table.
        slots: u32,
        /// Who is in it; nobody if no backend can take traffic.
        members: Arc<[Member]>,
    },
}

impl Wanted {
    /// Whether it is a DNS address.
    pub const fn is_dns(&self) -> bool {
        matches!(self, Self::Dns)
    }
}

/// What the tables should hold.
#[derive(Clone, Debug)]
pub struct Desired {
    /// What holds for every packet.
    pub settings: Settings,
    /// MAC addresses by interface index.
    pub interfaces: BTreeMap<u32, [u8; 6]>,
    /// Every backend of the config, in a slot table or not.
    pub backends: BTreeMap<BackendKey, Backend>,
    /// Services and DNS addresses.
    pub services: BTreeMap<Endpoint, Wanted>,
    /// Addresses to answer for on the link.
    pub claims: BTreeSet<Address>,
    /// Answers for the kernel.
    pub answers: BTreeMap<AnswerKey, Arc<Answer>>,
}

impl Desired {
    /// Folds an intent with the conditions.
    pub fn new(intent: &Intent, conditions: &Conditions) -> Self {
        let mut desired = Self {
            settings: Settings { layout: tables::LAYOUT, keys: intent.keys(), returns: 0 },
            interfaces: conditions.interfaces.clone(),
            backends: BTreeMap::new(),
            services: BTreeMap::new(),
            claims: BTreeSet::new(),
            answers: BTreeMap::new(),
        };
        for service in intent.services() {
            desired.add_service(service, conditions);
        }
        for address in intent.dns() {
            let endpoint = Endpoint::new(address.ip(), lb_common::wire::transport::UDP, address.port());
            desired.services.insert(endpoint, Wanted::Dns);
        }
        desired.add_answers(intent, conditions);
        desired
    }

    fn add_service(&mut self, service: &Service, conditions: &Conditions) {
        let mut members = Vec::new();
        let mode = match service.mode {
            Mode::Dsr => 0,
            Mode::Nat => NAT,
        };
        self.settings.returns |= u64::from(mode);
        for backend in &service.backends {
            let key = BackendKey::new(service.endpoint, backend.endpoint, service.mode);
            let draining = conditions.drains.contains(&(service.endpoint, backend.endpoint));
            let flags = mode | if draining { DRAINING } else { 0 };
            let entry = Backend::new(backend.endpoint, service.endpoint, flags);
            let hop = reach(conditions, service.mode, backend.endpoint.ip());
            let entry = hop.as_ref().map_or(entry, |hop| entry.via(hop.interface, hop.destination, hop.source));
            self.backends.insert(key, entry);
            if hop.is_ok() && !draining && backend.weight > 0 && conditions.up.contains(&backend.target) {
                members.push(Member { key, weight: backend.weight });
            }
        }
        let wanted = Wanted::Balanced { slots: service.slots, members: members.into() };
        self.services.insert(service.endpoint, wanted);
        if service.claim {
            self.claims.insert(service.endpoint.address);
        }
    }

    fn add_answers(&mut self, intent: &Intent, conditions: &Conditions) {
        let names = names(intent, conditions);
        let answers = conditions.asked.iter().filter_map(|asked| {
            let state = names.get(&asked.wire)?;
            let addresses = state.live(asked.kind);
            let answer = render::answer(&asked.wire, asked.kind, state.ttl_seconds, &addresses)?;
            Some((render::answer_key(&self.settings.keys, &asked.wire, asked.kind)?, Arc::new(answer)))
        });
        // Half of the places stay free, so that every answer can change at once without waiting for room.
        self.answers = answers.take(MAX_ANSWERS as usize / 2).collect();
    }
}

/// The names of the config with their live addresses.
pub fn names(intent: &Intent, conditions: &Conditions) -> Names {
    let mut names = Names::default();
    for name in intent.names() {
        let is_up = |target: &Option<Target>| target.is_none_or(|target| conditions.up.contains(&target));
        names.insert(
            &name.wire,
            name.ttl_seconds,
            name.addresses.iter().map(|(address, target)| (*address, is_up(target))),
        );
    }
    names
}
