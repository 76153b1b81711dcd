//! What has to hold after every single step.

use lb_common::{
    host::HostTables,
    tables::{Backend, DNS, DOWN, IN_USE, NAT, NOBODY, Region, Slot},
};
use lb_userspace::model::{actual::Actual, backends::BackendKey, host, op::Op};
use std::collections::{BTreeMap, BTreeSet};

/// Slots of the table of the service with this id, and the backends that they lead to.
pub fn slots(tables: &HostTables, id: u32) -> (Region, Vec<Slot>, BTreeMap<u32, Backend>) {
    let service = tables.services.get(&id).expect("an id leads to its service");
    assert_eq!(service.id, id, "a service knows its id");
    let is_dns = service.flags & DNS != 0;
    let region = if is_dns { Region { first: 0, slots: 0 } } else { Region::from_word(service.region) };
    let slots: Vec<Slot> = (region.first..region.first + region.slots)
        .map(|index| *tables.slots.get(&index).expect("a slot is written"))
        .collect();
    let ids: BTreeSet<u32> =
        slots.iter().flat_map(|slot| [Some(slot.current).filter(|id| *id != NOBODY), slot.open()]).flatten().collect();
    let backend = |id: u32| (id, *tables.backends.get(&id).expect("a slot leads to a backend"));
    (region, slots, ids.into_iter().map(backend).collect())
}

/// What a packet could have looked at since the last grace period.
#[derive(Default)]
pub struct Seen {
    regions: BTreeSet<Region>,
    backends: BTreeMap<u32, BackendKey>,
    services: BTreeSet<u32>,
}

impl Seen {
    /// Does a step, and checks all that has to hold before and after it.
    pub fn step(&mut self, tables: &mut HostTables, actual: &mut Actual, op: &Op) {
        self.check(tables, op);
        host::apply(tables, op);
        actual.record(op);
        if *op == Op::Grace {
            *self = Self::default();
        }
        check_safe(tables);
        check_mirror(tables, actual);
        self.look(tables);
    }

    fn look(&mut self, tables: &HostTables) {
        for id in tables.service_ids.values() {
            let (region, _, backends) = slots(tables, *id);
            self.regions.extend((region.slots > 0).then_some(region));
            self.backends.extend(backends.iter().map(|(id, backend)| (*id, BackendKey::from(backend))));
            self.services.insert(*id);
        }
        for id in tables.returns.values() {
            self.backends.insert(*id, tables.backends.get(id).expect("a way back leads to a backend").into());
        }
        // A tracked flow leads to its backend as well.
        for (_, _, flow) in tables.flows() {
            if let Some(backend) = tables.backends.get(&flow.backend) {
                self.backends.insert(flow.backend, backend.into());
            }
        }
    }

    /// Nothing that a packet may still look at becomes something else.
    fn check(&self, tables: &HostTables, op: &Op) {
        match op {
            Op::WriteTable { region, .. } => {
                for seen in &self.regions {
                    let apart = region.first + region.slots <= seen.first || seen.first + seen.slots <= region.first;
                    assert!(apart, "{region:?} is written while {seen:?} may be read");
                }
            }
            Op::PutBackend { id, backend } => {
                let seen = self.backends.get(id);
                assert!(seen.is_none_or(|seen| *seen == backend.into()), "backend {id} becomes another one");
                let known = tables.backends.get(id);
                assert!(known.is_none_or(|known| BackendKey::from(known) == backend.into()), "backend {id} is in use");
                if known.is_none() {
                    let flows = tables.flows();
                    assert!(flows.iter().all(|(_, _, flow)| flow.backend != *id), "flows of an earlier backend {id}");
                }
            }
            Op::RemoveBackend { id } => {
                for service in tables.service_ids.values() {
                    let (_, slots, _) = slots(tables, *service);
                    assert!(slots.iter().all(|slot| slot.current != *id && slot.previous != *id), "{id} is led to");
                }
                assert!(tables.returns.values().all(|other| other != id), "backend {id} is still led to");
                assert!(tables.flows().iter().all(|(_, _, flow)| flow.backend != *id), "backend {id} still has flows");
            }
            Op::PutService { id, .. } => {
                assert!(!self.services.contains(id), "service {id} becomes another one");
                assert!(tables.flows().iter().all(|(_, key, _)| key.service() != *id), "flows of an earlier service");
            }
            Op::Forget { services, backends } => {
                assert!(services.iter().all(|id| !self.services.contains(id)), "a packet may find a forgotten service");
                for id in backends.iter() {
                    let names = |service: &u32| slots(tables, *service).1.iter().any(|slot| slot.current == *id);
                    assert!(!tables.service_ids.values().any(names), "a packet may begin a flow with backend {id}");
                    let backend = tables.backends.get(id).expect("it is still there");
                    let service = tables.service_ids.get(&backend.service).and_then(|id| tables.services.get(id));
                    let is_found = service.is_some_and(|service| service.flags & DNS == 0);
                    assert!(!is_found || backend.flags & DOWN != 0, "a flow may stay with backend {id}");
                }
            }
            _ => (),
        }
    }
}

/// Every packet finds its way in these tables.
fn check_safe(tables: &HostTables) {
    for (endpoint, id) in &tables.service_ids {
        assert!(tables.settings.expect("settings").known.may_have(&endpoint.address), "its packets pass as nobody's");
        let (_, _, backends) = slots(tables, *id);
        for backend in backends.values() {
            assert_eq!(backend.service, *endpoint, "a slot leads to another service's backend");
            assert!(backend.flags & IN_USE != 0, "a slot leads to nobody's entry");
            if backend.flags & NAT != 0 {
                let returning = tables.returns.get(&backend.own).expect("there is a way back");
                assert_eq!(tables.backends.get(returning), Some(backend));
                assert_ne!(tables.settings.expect("settings").features, 0, "nobody looks for replies");
            }
        }
    }
    for (own, id) in &tables.returns {
        assert_eq!(tables.backends.get(id).expect("a way back leads to a backend").own, *own);
    }
}

/// What is recorded is what is there.
fn check_mirror(tables: &HostTables, actual: &Actual) {
    assert!(
        tables
            .service_ids
            .iter()
            .map(|(endpoint, id)| (*endpoint, *id))
            .eq(actual.services.iter().map(|(endpoint, service)| (*endpoint, service.id)))
    );
    for service in actual.services.values() {
        let (region, slots, _) = slots(tables, service.id);
        let known = service.table.as_ref().map(|table| (table.region(), table.slots()));
        assert_eq!(known, (region.slots > 0).then_some((region, slots.as_slice())));
        assert_eq!(tables.services.get(&service.id).expect("service").flags, service.flags);
    }
    assert!(
        actual
            .backends
            .iter()
            .map(|(id, backend)| (id, *backend))
            .eq(tables.backends.iter().map(|(id, backend)| (*id, *backend)))
    );
}
