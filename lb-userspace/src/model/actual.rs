//! What the tables hold, as far as planning needs it.

use super::{
    answers::{index::Index, placed::Placed},
    backends::Backends,
    desired::Balanced,
    intent::Limits,
    op::Op,
    space::{Ids, Regions},
    tracking::Table,
};
use lb_common::tables::{Address, DNS, Endpoint, Region, Service, Settings, Slot, answers::DnsSettings};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// A service as the tables have it.
#[derive(Clone, Debug, PartialEq)]
pub struct ActualService {
    /// Its id.
    pub id: u32,
    /// See [`lb_common::tables::Service::flags`].
    pub flags: u32,
    /// Its slot table, if it has one.
    pub table: Option<Table>,
    /// The index that a DNS address looks into; one without slots: none.
    pub index: Region,
    /// What it has been made like; unknown when it was found in the kernel.
    pub reached: Option<Arc<Balanced>>,
}

impl ActualService {
    /// Whether it is a DNS address.
    pub const fn is_dns(&self) -> bool {
        self.flags & DNS != 0
    }

    /// As this word says; its slots are written, and end their windows at `deadline`.
    pub fn new(
        id: u32,
        service: &Service,
        slots: &Arc<[Slot]>,
        reached: Option<Arc<Balanced>>,
        deadline: Duration,
    ) -> Self {
        let (region, none) = (Region::from_word(service.region), Region { first: 0, slots: 0 });
        let (region, index) = if service.flags & DNS == 0 { (region, none) } else { (none, region) };
        Self { id, flags: service.flags, table: Self::has(region, slots, deadline), index, reached }
    }

    fn has(region: Region, slots: &Arc<[Slot]>, deadline: Duration) -> Option<Table> {
        (region.slots > 0).then(|| Table::new(region, Arc::clone(slots), deadline))
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
    pub backends: Backends,
    /// Ids of NAT backends by own endpoint.
    pub returns: BTreeMap<Endpoint, u32>,
    /// Services and DNS addresses.
    pub services: BTreeMap<Endpoint, ActualService>,
    /// Ids of services that are removed, but whose flows are not forgotten yet.
    pub departed: BTreeSet<u32>,
    /// Addresses that are answered for, and what.
    pub addresses: BTreeMap<Address, u64>,
    /// Who holds which backend id.
    pub backend_ids: Ids,
    /// Who holds which service id.
    pub service_ids: Ids,
    /// Who holds which stretch of the slot space.
    pub regions: Regions,
    /// What holds for every question.
    pub dns: Option<DnsSettings>,
    /// Answers.
    pub answers: Placed,
}

impl Actual {
    /// Empty tables of these sizes.
    pub fn new(limits: Limits) -> Self {
        Self {
            settings: None,
            interfaces: BTreeMap::new(),
            backends: Backends::default(),
            returns: BTreeMap::new(),
            services: BTreeMap::new(),
            departed: BTreeSet::new(),
            addresses: BTreeMap::new(),
            backend_ids: Ids::new(limits.backends),
            service_ids: Ids::new(limits.services),
            regions: Regions::default(),
            dns: None,
            answers: Placed::new(limits.answers_megabytes),
        }
    }

    /// Records a step that was done.
    pub fn record(&mut self, op: &Op) {
        match op {
            Op::PutSettings(settings) => self.settings = Some(**settings),
            Op::PutInterface { index, mac } => _ = self.interfaces.insert(*index, *mac),
            Op::RemoveInterface { index } => _ = self.interfaces.remove(index),
            Op::PutBackend { id, backend } => {
                self.backend_ids.take(*id);
                self.backends.put(*id, *backend);
            }
            Op::RemoveBackend { id } => {
                self.backend_ids.retire(*id);
                self.backends.remove(*id);
            }
            Op::PutReturn { own, id } => _ = self.returns.insert(*own, *id),
            Op::RemoveReturn { own } => _ = self.returns.remove(own),
            Op::WriteTable { region, .. } => self.regions.take(*region),
            Op::PutService { id, endpoint, service, slots, reached } => {
                self.service_ids.take(*id);
                let service = ActualService::new(*id, service, slots, reached.clone(), Duration::MAX);
                self.services.insert(*endpoint, service);
                self.note_service(endpoint);
            }
            Op::RemoveService { id, endpoint } => {
                self.departed.insert(*id);
                let removed = self.services.remove(endpoint);
                if removed.as_ref().is_some_and(ActualService::is_dns) {
                    self.note_swapped();
                }
                if let Some(ActualService { table: Some(table), .. }) = removed {
                    self.regions.retire(table.region());
                }
            }
            Op::SetFlags { .. } | Op::SwapTable { .. } | Op::StoreSlots { .. } => self.record_of_service(op),
            Op::PutDns(dns) => self.dns = Some(*dns),
            Op::SwapIndex { .. }
            | Op::WriteIndex { .. }
            | Op::PutAnswer(_)
            | Op::RemoveAnswer { .. }
            | Op::LeaveAnswer { .. }
            | Op::FollowAnswers { .. } => self.record_of_answers(op),
            Op::PutAddress { address, answers } => _ = self.addresses.insert(*address, *answers),
            Op::RemoveAddress { address } => _ = self.addresses.remove(address),
            Op::Forget { services, .. } => {
                for id in services.iter().filter(|id| self.departed.remove(id)) {
                    self.service_ids.release(*id);
                }
            }
            Op::ForgetFlows { .. } => (),
            Op::Grace => {
                self.backend_ids.grace();
                self.regions.grace();
                self.answers.room.grace();
            }
        }
    }

    /// Takes note of a service that is in the tables: whose place its table has.
    pub fn note_service(&mut self, endpoint: &Endpoint) {
        let Some(service) = self.services.get(endpoint) else { return };
        match &service.table {
            Some(table) => self.regions.take(table.region()),
            None if service.is_dns() => self.note_swapped(),
            None => (),
        }
    }

    /// Finds out whether all DNS addresses look into the index that answers are put into.
    fn note_swapped(&mut self) {
        let region = self.answers.index.as_ref().map(Index::region);
        let mut dns = self.services.values().filter(|service| service.is_dns());
        self.answers.room.is_swapped = dns.all(|service| service.index.slots == 0 || Some(service.index) == region);
    }

    fn record_of_answers(&mut self, op: &Op) {
        match op {
            Op::SwapIndex { endpoint, region, .. } => {
                if let Some(service) = self.services.get_mut(endpoint) {
                    service.index = *region;
                }
                self.note_swapped();
            }
            Op::WriteIndex { index, afresh } => {
                self.answers.write_index(index, *afresh);
                self.note_swapped();
            }
            Op::PutAnswer(put) => self.answers.put(put),
            Op::RemoveAnswer { question, place, .. } => self.answers.remove(*question, *place),
            Op::LeaveAnswer { question, is_left: true } => _ = self.answers.left.insert(*question),
            Op::LeaveAnswer { question, is_left: false } => _ = self.answers.left.remove(question),
            Op::FollowAnswers { reached, is_built } => {
                self.answers.reached.clone_from(reached);
                self.answers.is_built = *is_built;
            }
            _ => (),
        }
    }

    /// Records what is done to a service that stays.
    fn record_of_service(&mut self, op: &Op) {
        let (Op::SetFlags { endpoint, .. } | Op::SwapTable { endpoint, .. } | Op::StoreSlots { endpoint, .. }) = op
        else {
            return;
        };
        let Some(service) = self.services.get_mut(endpoint) else { return };
        match op {
            Op::SetFlags { flags, .. } => service.flags = *flags,
            Op::SwapTable { region, slots, reached, .. } => {
                let table = ActualService::has(*region, slots, Duration::MAX);
                if let Some(table) = std::mem::replace(&mut service.table, table) {
                    self.regions.retire(table.region());
                }
                service.reached.clone_from(reached);
            }
            Op::StoreSlots { slots, deadline, reached, .. } => {
                if let Some(table) = &mut service.table {
                    table.store(slots, *deadline);
                }
                if reached.is_some() {
                    service.reached.clone_from(reached);
                }
            }
            _ => (),
        }
    }

    /// Whether something was taken away that a program run may still see.
    pub fn waits(&self) -> bool {
        self.backend_ids.waits() || self.regions.waits() || self.answers.room.waits()
    }

    /// When the first adoption window ends.
    pub fn first_end(&self) -> Option<Duration> {
        self.services.values().filter_map(|service| service.table.as_ref()?.first_end()).min()
    }

    /// How many slots have a history.
    pub fn changed_slots(&self) -> usize {
        self.services.values().filter_map(|service| Some(service.table.as_ref()?.changed())).sum()
    }
}
