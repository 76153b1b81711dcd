//! One service: its backends, its slots, and then itself.

use super::{Draft, Full};
use crate::model::{
    actual::ActualService,
    backends::{BackendKey, is_live},
    desired::{Balanced, Share, Wanted},
    maglev,
    op::Op,
    tracking::Table,
};
use lb_common::tables::{self, Backend, CLEAN, CLOSED, DOWN, Endpoint, NAT, NOBODY, Region, Service, Slot};
use std::{collections::BTreeSet, sync::Arc};

/// The place of no table.
const NO_TABLE: Region = Region { first: 0, slots: 0 };

/// What is wanted of a service, with the ids that its backends have.
struct Turn<'a> {
    endpoint: &'a Endpoint,
    balanced: &'a Arc<Balanced>,
    members: Vec<maglev::Member>,
    /// Ids of backends whose flows can stay.
    live: BTreeSet<u32>,
    /// Ids of those that are there for these only.
    leaving: BTreeSet<u32>,
}

impl<'a> Draft<'a> {
    pub(super) fn put_dns(&mut self, endpoint: &Endpoint) -> Result<(), Full> {
        match self.known(endpoint, true) {
            Some(_) => Ok(()),
            None => {
                let index = self.built_index();
                let id = self.put_service(endpoint, tables::DNS, index, [].into(), None)?;
                self.dns_came(*endpoint, id, index);
                Ok(())
            }
        }
    }

    pub(super) fn put_balanced(&mut self, endpoint: &Endpoint, balanced: &Arc<Balanced>) -> Result<(), Full> {
        let known = self.known(endpoint, false);
        if known.is_some_and(|known| self.is_reached(endpoint, balanced, known)) {
            return Ok(());
        }
        let balanced = &self.without_held(balanced);
        let turn = self.put_backends(endpoint, balanced)?;
        let Some(known) = known else {
            let (region, slots) = self.first_table(&turn)?;
            return self.put_service(endpoint, balanced.flags, region, slots, Some(balanced)).map(|_| ());
        };
        if known.flags != balanced.flags {
            self.push(Op::SetFlags { id: known.id, endpoint: *endpoint, flags: balanced.flags });
        }
        match &known.table {
            Some(table) if table.region().slots >= balanced.least_slots || turn.members.is_empty() => {
                self.store_slots(&turn, known, table);
                Ok(())
            }
            Some(table) => {
                // Flows that are not tracked move with the size, whatever is done; the others need not.
                let (region, slots) = self.write_table(&turn, CLOSED)?;
                self.swap_table(&turn, known, region, slots);
                self.room.retire_region(table.region());
                Ok(())
            }
            None => {
                let (region, slots) = self.first_table(&turn)?;
                if region == NO_TABLE {
                    self.store_nothing(&turn, known);
                } else {
                    self.swap_table(&turn, known, region, slots);
                }
                Ok(())
            }
        }
    }

    /// Turns the slots of services that have backends for their flows only to those that are there anyway. Then nothing leads to
    /// the former.
    pub(super) fn give_up_leaving(&mut self) {
        for (endpoint, wanted) in &self.desired.services {
            let (Wanted::Balanced(balanced), Some(known)) = (wanted, self.known(endpoint, false)) else { continue };
            let mut turn = Turn::new(endpoint, balanced);
            let mut stay = BTreeSet::new();
            for share in balanced.backends.iter().filter(|share| !share.leaving) {
                if let Some((id, backend)) = self.actual.backends.get(&(&share.backend).into()) {
                    stay.insert(id);
                    turn.add(id, backend, if is_live(backend) { share.weight } else { 0 });
                }
            }
            let before = self.unwanted.len();
            self.put_down_all_but(endpoint, &stay);
            if let Some(table) = known.table.as_ref().filter(|_| self.unwanted.len() > before) {
                let slots = turn.slots(table, true, self.now);
                self.push_slots(&turn, table, slots, false);
            }
        }
    }

    /// The service at this endpoint, if it is of this kind. One of the other kind is taken away before.
    fn known(&self, endpoint: &Endpoint, dns: bool) -> Option<&'a ActualService> {
        self.actual.services.get(endpoint).filter(|known| known.is_dns() == dns)
    }

    fn is_reached(&self, endpoint: &Endpoint, balanced: &Arc<Balanced>, known: &ActualService) -> bool {
        let window_ends = known.table.as_ref().and_then(Table::first_end).is_some_and(|end| end <= self.now);
        let all_there = self.actual.backends.count(endpoint) == balanced.backends.len();
        !window_ends && all_there && is_same(known, balanced)
    }

    fn put_backends<'b>(&mut self, endpoint: &'b Endpoint, balanced: &'b Arc<Balanced>) -> Result<Turn<'b>, Full> {
        let mut turn = Turn::new(endpoint, balanced);
        let mut stay = BTreeSet::new();
        for share in &balanced.backends {
            let key = BackendKey::from(&share.backend);
            let known = self.actual.backends.get(&key);
            let id = match known {
                Some((id, _)) => id,
                None if share.leaving => continue,
                None => {
                    let limit = self.room.backend_ids.limit();
                    self.find_room(|room| room.backend_ids.lowest_free()).ok_or(Full::Backends { limit })?
                }
            };
            if known.is_none_or(|(_, known)| *known != share.backend) {
                self.push(Op::PutBackend { id, backend: share.backend });
            }
            if share.backend.flags & NAT != 0 {
                self.put_return(key.own, id);
            }
            stay.insert(id);
            turn.add(id, &share.backend, share.weight);
            if share.leaving {
                turn.leaving.insert(id);
            }
        }
        if self.actual.backends.count(endpoint) > 0 {
            self.put_down_all_but(endpoint, &stay);
        }
        Ok(turn)
    }

    /// The same without NAT backends at whose endpoints are others: nobody could tell the replies apart. Those others are wanted no
    /// longer and go with this plan; the next one goes on from there.
    fn without_held(&self, balanced: &Arc<Balanced>) -> Arc<Balanced> {
        let is_held = |share: &Share| {
            share.backend.flags & NAT != 0 && self.is_held_by_another(&BackendKey::from(&share.backend))
        };
        if !balanced.backends.iter().any(is_held) {
            return Arc::clone(balanced);
        }
        let backends = balanced.backends.iter().filter(|share| !is_held(share)).copied().collect();
        Arc::new(Balanced { backends, ..(**balanced).clone() })
    }

    /// Whether replies from this NAT backend would be taken for another one's.
    fn is_held_by_another(&self, key: &BackendKey) -> bool {
        let first = key.own.without_port();
        let last = Endpoint { tail: first.tail | u64::from(u16::MAX), ..first };
        self.actual.returns.range(first..=last).any(|(own, id)| {
            let is_same = *own == key.own || own.port() == 0 || key.own.port() == 0;
            let holder = self.actual.backends.entry(*id).filter(|_| is_same);
            holder.is_some_and(|holder| BackendKey::from(holder) != *key)
        })
    }

    fn put_return(&mut self, own: Endpoint, id: u32) {
        let known = self.actual.returns.get(&own);
        if known != Some(&id) {
            self.push(Op::PutReturn { own, id });
        }
        if known.is_some_and(|known| *known != id) {
            self.returned.insert(own);
        }
    }

    /// What is not wanted fails first: then no flow stays with it.
    fn put_down_all_but(&mut self, endpoint: &Endpoint, stay: &BTreeSet<u32>) {
        for (id, backend) in self.actual.backends.of(endpoint).filter(|(id, _)| !stay.contains(id)) {
            if is_live(backend) {
                self.push(Op::PutBackend { id, backend: Backend { flags: backend.flags | DOWN, ..*backend } });
            }
            self.unwanted.push((id, *backend));
        }
    }

    /// The first table of a service, when it is known who is in it.
    fn first_table(&mut self, turn: &Turn<'_>) -> Result<(Region, Arc<[Slot]>), Full> {
        if turn.balanced.undecided || turn.members.is_empty() {
            return Ok((NO_TABLE, [].into()));
        }
        self.write_table(turn, CLEAN)
    }

    fn write_table(&mut self, turn: &Turn<'_>, previous: u32) -> Result<(Region, Arc<[Slot]>), Full> {
        let slots = turn.balanced.slots;
        let region = self.find_room(|room| room.regions.first_free(slots)).ok_or(Full::Slots { slots })?;
        let table = maglev::table(slots, &turn.members);
        let slots: Arc<[Slot]> = table.into_iter().map(|current| Slot { current, previous }).collect();
        self.push(Op::WriteTable { region, slots: Arc::clone(&slots) });
        Ok((region, slots))
    }

    fn put_service(
        &mut self,
        endpoint: &Endpoint,
        flags: u32,
        region: Region,
        slots: Arc<[Slot]>,
        reached: Option<&Arc<Balanced>>,
    ) -> Result<u32, Full> {
        let limit = self.room.service_ids.limit();
        let id = self.find_room(|room| room.service_ids.lowest_free()).ok_or(Full::Services { limit })?;
        let service = Service { region: region.word(), flags, id };
        self.push(Op::PutService { id, endpoint: *endpoint, service, slots, reached: reached.cloned() });
        Ok(id)
    }

    fn swap_table(&mut self, turn: &Turn<'_>, known: &ActualService, region: Region, slots: Arc<[Slot]>) {
        let reached = Some(Arc::clone(turn.balanced));
        self.push(Op::SwapTable { id: known.id, endpoint: *turn.endpoint, region, slots, reached });
    }

    fn store_slots(&mut self, turn: &Turn<'_>, known: &ActualService, table: &Table) {
        let same_members = known.reached.as_ref().is_some_and(|reached| reached.has_members_of(turn.balanced));
        let slots = turn.slots(table, !same_members, self.now);
        if !slots.is_empty() || !is_same(known, turn.balanced) {
            self.push_slots(turn, table, slots, true);
        }
    }

    fn push_slots(&mut self, turn: &Turn<'_>, table: &Table, slots: Vec<(u32, Slot)>, reached: bool) {
        self.push(Op::StoreSlots {
            endpoint: *turn.endpoint,
            region: table.region(),
            slots: slots.into(),
            deadline: self.now + self.desired.adopt,
            reached: reached.then(|| Arc::clone(turn.balanced)),
        });
    }

    /// Says that a service without a table is as it is wanted.
    fn store_nothing(&mut self, turn: &Turn<'_>, known: &ActualService) {
        if !is_same(known, turn.balanced) {
            self.push(Op::StoreSlots {
                endpoint: *turn.endpoint,
                region: NO_TABLE,
                slots: [].into(),
                deadline: self.now,
                reached: Some(Arc::clone(turn.balanced)),
            });
        }
    }
}

impl<'b> Turn<'b> {
    fn new(endpoint: &'b Endpoint, balanced: &'b Arc<Balanced>) -> Self {
        Self { endpoint, balanced, members: Vec::new(), live: BTreeSet::new(), leaving: BTreeSet::new() }
    }

    fn add(&mut self, id: u32, backend: &Backend, weight: u32) {
        if is_live(backend) {
            self.live.insert(id);
        }
        if weight > 0 {
            let Endpoint { address: [first, second], tail } = backend.own;
            self.members.push(maglev::Member { id, key: [first, second, tail], weight });
        }
    }

    /// The slots of a table that change; `dealt`: who has which may be another than before.
    fn slots(&self, table: &Table, dealt: bool, now: std::time::Duration) -> Vec<(u32, Slot)> {
        let failed = |id: u32| !self.live.contains(&id);
        if self.balanced.waits {
            let stays = |id: u32| self.leaving.contains(&id) && self.live.contains(&id);
            return table.turned(now, |_, slot| if stays(slot.current) { slot.current } else { NOBODY }, failed);
        }
        if !dealt {
            return table.turned(now, |_, slot| slot.current, failed);
        }
        let next = maglev::table(table.region().slots, &self.members);
        table.turned(now, |number, _| next.get(number as usize).copied().unwrap_or(NOBODY), failed)
    }
}

fn is_same(known: &ActualService, balanced: &Arc<Balanced>) -> bool {
    known.reached.as_ref().is_some_and(|reached| Arc::ptr_eq(reached, balanced) || reached == balanced)
}
