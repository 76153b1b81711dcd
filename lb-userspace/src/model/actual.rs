//! What the tables hold, as far as planning needs it.

use super::{
    desired::Member,
    intent::Mode,
    op::Op,
    space::{Ids, Regions},
};
use lb_common::tables::{
    Address, Answer, AnswerKey, Backend, Endpoint, MAX_ANSWERS, MAX_BACKENDS, MAX_SERVICES, NAT, Region, Settings,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Tells a backend: the service it is behind, and its own endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendKey {
    /// The service's endpoint.
    pub service: Endpoint,
    /// The backend's own.
    pub own: Endpoint,
    /// Whether it is reached by NAT. Another forward mode is another backend: no packet may see half a change.
    pub nat: bool,
}

impl BackendKey {
    /// Of a backend behind a service in this mode.
    pub fn new(service: Endpoint, own: Endpoint, mode: Mode) -> Self {
        Self { service, own, nat: mode == Mode::Nat }
    }
}

impl From<&Backend> for BackendKey {
    fn from(backend: &Backend) -> Self {
        Self { service: backend.service, own: backend.own, nat: backend.flags & NAT != 0 }
    }
}

/// A service as the tables have it.
#[derive(Clone, Debug, PartialEq)]
pub struct ActualService {
    /// Its id.
    pub id: u32,
    /// Whether it is a DNS address.
    pub dns: bool,
    /// Where its slot table is.
    pub region: Region,
    /// What the table was made from; unknown when it was found in the kernel.
    pub members: Option<Arc<[Member]>>,
}

impl ActualService {
    /// Whether its table is the one for these.
    pub fn has(&self, slots: u32, members: &Arc<[Member]>) -> bool {
        let slots = if members.is_empty() { 0 } else { slots };
        self.region.slots == slots && (slots == 0 || self.members.as_ref() == Some(members))
    }
}

/// What the tables hold: the mirror that [`Op`]s are recorded in as they are done.
#[derive(Clone, Debug)]
pub struct Actual {
    /// See [`Op::PutSettings`].
    pub settings: Option<Settings>,
    /// MAC addresses by interface index.
    pub interfaces: BTreeMap<u32, [u8; 6]>,
    /// Backends with their ids.
    pub backends: BTreeMap<BackendKey, (u32, Backend)>,
    /// Ids of NAT backends by own endpoint.
    pub returns: BTreeMap<Endpoint, u32>,
    /// Services and DNS addresses.
    pub services: BTreeMap<Endpoint, ActualService>,
    /// Addresses answered for on the link.
    pub claims: BTreeSet<Address>,
    /// Answers with their places.
    pub answers: BTreeMap<AnswerKey, (u32, Arc<Answer>)>,
    /// Who holds which backend id.
    pub backend_ids: Ids,
    /// Who holds which service id.
    pub service_ids: Ids,
    /// Who holds which place for an answer.
    pub places: Ids,
    /// Who holds which stretch of the slot space.
    pub regions: Regions,
}

impl Default for Actual {
    fn default() -> Self {
        Self {
            settings: None,
            interfaces: BTreeMap::new(),
            backends: BTreeMap::new(),
            returns: BTreeMap::new(),
            services: BTreeMap::new(),
            claims: BTreeSet::new(),
            answers: BTreeMap::new(),
            backend_ids: Ids::new(MAX_BACKENDS),
            service_ids: Ids::new(MAX_SERVICES),
            places: Ids::new(MAX_ANSWERS),
            regions: Regions::default(),
        }
    }
}

impl Actual {
    /// Records a step that was done.
    pub fn record(&mut self, op: &Op) {
        match op {
            Op::PutSettings(settings) => self.settings = Some(*settings),
            Op::PutInterface { index, mac } => {
                self.interfaces.insert(*index, *mac);
            }
            Op::RemoveInterface { index } => {
                self.interfaces.remove(index);
            }
            Op::PutBackend { id, backend } => {
                self.backend_ids.take(*id);
                self.backends.insert(backend.into(), (*id, *backend));
            }
            Op::RemoveBackend { id } => {
                self.backend_ids.retire(*id);
                self.backends.retain(|_, (other, _)| other != id);
            }
            Op::PutReturn { own, id } => {
                self.returns.insert(*own, *id);
            }
            Op::RemoveReturn { own } => {
                self.returns.remove(own);
            }
            Op::WriteTable { region, .. } => self.regions.take(*region),
            Op::PutService { id, endpoint, service, members } => {
                self.service_ids.take(*id);
                let region = Region::from_word(service.region);
                self.regions.take(region);
                let members = Some(Arc::clone(members));
                let service = ActualService { id: *id, dns: service.dns != 0, region, members };
                self.services.insert(*endpoint, service);
            }
            Op::SwapTable { endpoint, region, members, .. } => {
                if let Some(service) = self.services.get_mut(endpoint) {
                    self.regions.retire(service.region);
                    service.region = *region;
                    service.members = Some(Arc::clone(members));
                }
            }
            Op::RemoveService { id, endpoint } => {
                self.service_ids.retire(*id);
                if let Some(service) = self.services.remove(endpoint) {
                    self.regions.retire(service.region);
                }
            }
            Op::Claim { address } => {
                self.claims.insert(*address);
            }
            Op::Unclaim { address } => {
                self.claims.remove(address);
            }
            Op::PutAnswer { key, place, answer } => {
                self.places.take(*place);
                if let Some((old, _)) = self.answers.insert(*key, (*place, Arc::clone(answer))) {
                    self.places.retire(old);
                }
            }
            Op::RemoveAnswer { key } => {
                if let Some((place, _)) = self.answers.remove(key) {
                    self.places.retire(place);
                }
            }
            Op::Grace => {
                self.backend_ids.grace();
                self.service_ids.grace();
                self.places.grace();
                self.regions.grace();
            }
        }
    }

    /// Whether something was taken away that a program run may still see.
    pub fn waits(&self) -> bool {
        self.backend_ids.waits() || self.service_ids.waits() || self.places.waits() || self.regions.waits()
    }
}
