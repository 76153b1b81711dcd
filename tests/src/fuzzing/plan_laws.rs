//! What must be true of plans: each leads to what is desired in steps that are safe, and then there is nothing left to do.

use super::{checks, world::World};
use lb_common::{
    host::HostTables,
    tables::{Backend, DNS, Endpoint, NAT, NOBODY, Region, Tables as _},
};
use lb_userspace::model::{
    actual::Actual,
    backends::{BackendKey, is_live},
    desired::{Desired, Wanted},
    plan::plan,
};
use std::collections::{BTreeMap, BTreeSet};

/// Plans that follow each other until nothing is left to do, as for the agent.
const PLANS: usize = 4;

/// Makes the tables what they should be, or stops after some steps.
pub fn settle(world: &mut World, steps: usize) {
    let Some(desired) = world.desired() else { return };
    settle_to(world, &desired, steps);
    world.keep(desired);
}

fn settle_to(world: &mut World, desired: &Desired, steps: usize) {
    let mut left = steps;
    for _ in 0..PLANS {
        let ops = plan(desired, &world.actual, world.now()).expect("all that a config may have here fits");
        for op in &ops {
            if left == 0 {
                return world.note_losses();
            }
            left -= 1;
            world.step(op);
        }
        if ops.is_empty() {
            break;
        }
    }
    world.note_losses();
    let more = plan(desired, &world.actual, world.now());
    assert_eq!(more.as_deref(), Ok(&[][..]), "a plan leaves something to do");
    check_reached(&world.tables, &world.actual, desired);
}

fn check_reached(tables: &HostTables, actual: &Actual, desired: &Desired) {
    assert_eq!(tables.settings, Some(desired.settings));
    let interfaces: BTreeMap<u32, [u8; 6]> = tables.interfaces.iter().map(|(index, one)| (*index, one.mac)).collect();
    assert_eq!(interfaces, desired.interfaces);
    assert_eq!(tables.addresses, desired.addresses);
    assert!(tables.service_ids.keys().eq(desired.services.keys()), "the services are those that are wanted");
    let mut wanted = BTreeMap::new();
    for (endpoint, service) in &desired.services {
        check_service(tables, endpoint, service);
        if let Wanted::Balanced(balanced) = service {
            wanted.extend(balanced.backends.iter().map(|share| (BackendKey::from(&share.backend), *share)));
        }
    }
    let found: BTreeMap<BackendKey, Backend> = tables.backends.values().map(|one| (one.into(), *one)).collect();
    assert_eq!(found.len(), tables.backends.len(), "a backend is there twice");
    for (key, entry) in &found {
        assert_eq!(wanted.get(key).map(|share| share.backend), Some(*entry), "nobody wants this backend to be so");
    }
    for (key, share) in &wanted {
        assert!(share.leaving || found.contains_key(key), "{key:?} is missing");
    }
    let nat: BTreeSet<Endpoint> = found.values().filter(|one| one.flags & NAT != 0).map(|one| one.own).collect();
    assert!(tables.returns.keys().eq(&nat), "the ways back are those of the NAT backends");
    check_answers(tables, actual, desired);
}

/// Every DNS address leads to the answers that are wanted, and to no others.
fn check_answers(tables: &HostTables, actual: &Actual, desired: &Desired) {
    let index = actual.answers.index.as_ref();
    let dns = tables.services.values().filter(|service| service.flags & DNS != 0);
    for service in dns {
        // Without a DNS address nobody reads them.
        assert!(tables.dns.is_some() && tables.dns == desired.dns, "{:?} instead of {:?}", tables.dns, desired.dns);
        let index = index.expect("a DNS address has an index");
        assert_eq!(Region::from_word(service.region), index.region());
        let buckets = (0..index.run().blocks).map(|bucket| *tables.bucket(index.run().block + bucket).unwrap());
        let questions: BTreeSet<u64> =
            buckets.flatten().filter(|entry| entry.leads != 0).map(|entry| entry.question).collect();
        assert_eq!(questions, desired.answers.iter().map(|(question, _)| question).collect());
        for (question, image) in desired.answers.iter() {
            assert_eq!(actual.answers.held.get(&question).map(|held| &held.image), Some(image));
        }
    }
}

fn check_service(tables: &HostTables, endpoint: &Endpoint, wanted: &Wanted) {
    let id = tables.service_ids[endpoint];
    let (region, slots, backends) = checks::slots(tables, id);
    assert_eq!(tables.services[&id].flags, wanted.flags());
    let Wanted::Balanced(balanced) = wanted else { return assert_eq!(wanted.flags(), DNS) };
    let members: BTreeSet<_> = balanced.members().map(|share| BackendKey::from(&share.backend)).collect();
    if region.slots == 0 {
        return assert!(members.is_empty() || balanced.undecided, "{} has no table", endpoint.ip());
    }
    assert!(region.slots >= balanced.least_slots || members.is_empty(), "a table is too small");
    let current: BTreeSet<_> = slots.iter().map(|slot| slot.current).collect();
    let found = || current.iter().filter_map(|id| backends.get(id));
    if balanced.waits {
        assert!(members.is_empty(), "who takes flows is not waited for");
        assert!(found().all(is_live), "slots are left to one that has failed");
    } else {
        let found: BTreeSet<_> = found().map(BackendKey::from).collect();
        assert_eq!(found, members, "who has slots is who takes flows");
        assert_eq!(current.contains(&NOBODY), members.is_empty());
    }
    for previous in slots.iter().filter_map(|slot| slot.open()) {
        assert!(is_live(&backends[&previous]), "flows are left to one that has failed");
    }
}
