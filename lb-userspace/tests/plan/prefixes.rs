//! From any state to any other, with DNS addresses, answers and interfaces: every prefix of the plan is safe.

use crate::{answers, checks, world::limits};
use bytemuck::Zeroable;
use lb_common::{
    host::HostTables,
    tables::{Backend, DNS, DOWN, ECHO, Endpoint, MOVES, NAT, NOBODY, ON_LINK, RETURNS, Settings, Slot},
};
use lb_userspace::model::{
    actual::Actual,
    backends::{BackendKey, is_live},
    desired::{Balanced, Desired, Share, Wanted},
    host,
    intent::Limits,
    op::Op,
    plan::{Full, plan},
    pool::Pool,
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

const TCP: u8 = 6;
const SLOTS: u32 = 251;

fn endpoint(net: u8, number: u8, port: u16) -> Endpoint {
    Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, net, 0, number)), TCP, port)
}

/// What is at an endpoint in one state.
#[derive(Clone, Debug)]
enum Choice {
    Absent,
    Dns,
    Balanced { nat: bool, moves: bool, weights: Vec<(u32, bool)>, hop: u8 },
}

fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![
        1 => Just(Choice::Absent),
        1 => Just(Choice::Dns),
        6 => (any::<bool>(), any::<bool>(), prop::collection::vec((0_u32..4, any::<bool>()), 0..5), 0_u8..3)
            .prop_map(|(nat, moves, weights, hop)| Choice::Balanced { nat, moves, weights, hop }),
    ]
}

fn empty() -> Desired {
    let settings = Settings { layout: 1, ..Settings::zeroed() };
    Desired { settings, adopt: Duration::from_secs(10), ..Desired::default() }
}

/// Wants something at an endpoint.
fn put(desired: &mut Desired, endpoint: Endpoint, wanted: Wanted) {
    desired.settings.known.add(&endpoint.address);
    desired.services.insert(endpoint, wanted);
}

fn balanced(backends: Vec<Share>) -> Balanced {
    Balanced { flags: 0, slots: SLOTS, least_slots: 1, undecided: false, waits: false, pool: Pool::Main, backends }
}

/// Each weight goes with whether the backend is up.
fn add_service(desired: &mut Desired, number: u8, nat: bool, weights: &[(u32, bool)], hop: u8) {
    let service = endpoint(0, number, 80);
    let share = |(index, (weight, up)): (u8, &(u32, bool))| {
        // One backend endpoint belongs to one service where there is NAT.
        let own = endpoint(number, index, 8080);
        let flags = if nat { NAT } else { 0 } | if *up { 0 } else { DOWN };
        let backend = Backend::new(own, service, flags).via(1, [hop; 6], [1; 6], 1_500);
        Share { backend, weight: if *up { *weight } else { 0 }, leaving: false }
    };
    let backends = (1..).zip(weights).map(share).collect();
    if nat && !weights.is_empty() {
        desired.settings.features |= RETURNS;
    }
    desired.addresses.insert(service.address, ON_LINK | if hop > 0 { ECHO } else { 0 });
    put(desired, service, Wanted::Balanced(Arc::new(balanced(backends))));
}

fn desired() -> impl Strategy<Value = Desired> {
    let interfaces = prop::collection::btree_map(1_u32..4, any::<[u8; 6]>(), 1..3);
    let parts = (prop::collection::vec(choice(), 4), prop::collection::vec(0_u32..3, 4), interfaces);
    parts.prop_map(|(choices, versions, interfaces)| {
        let mut desired = Desired { interfaces, ..empty() };
        for (number, choice) in (1..).zip(choices) {
            match choice {
                Choice::Absent => (),
                Choice::Dns => {
                    put(&mut desired, endpoint(0, number, 80), Wanted::Dns);
                }
                Choice::Balanced { nat, moves, weights, hop } => {
                    add_service(&mut desired, number, nat, &weights, hop);
                    if let Some(Wanted::Balanced(balanced)) = desired.services.get_mut(&endpoint(0, number, 80)) {
                        Arc::make_mut(balanced).flags = if moves { MOVES } else { 0 };
                    }
                }
            }
        }
        for (name, version) in (0..).zip(versions) {
            if version > 0 {
                desired.answers.put(&answers::question(name), &answers::rendered(version as u8, 1));
            }
        }
        desired
    })
}

fn check_equal(tables: &HostTables, desired: &Desired) {
    assert_eq!(tables.settings, Some(desired.settings));
    let interfaces: BTreeMap<_, _> = tables.interfaces.iter().map(|(index, one)| (*index, one.mac)).collect();
    assert_eq!(interfaces, desired.interfaces);
    assert_eq!(tables.addresses, desired.addresses);
    let balanced: Vec<&Balanced> = desired
        .services
        .values()
        .filter_map(|wanted| match wanted {
            Wanted::Dns => None,
            Wanted::Balanced(balanced) => Some(&**balanced),
        })
        .collect();
    let wanted = balanced.iter().flat_map(|balanced| &balanced.backends).map(|share| share.backend);
    let wanted: BTreeMap<BackendKey, Backend> = wanted.map(|backend| ((&backend).into(), backend)).collect();
    assert_eq!(tables.backends.len(), wanted.len());
    let backends: BTreeMap<BackendKey, Backend> = tables.backends.values().map(|one| (one.into(), *one)).collect();
    assert_eq!(backends, wanted);
    let nat: BTreeSet<_> = wanted.values().filter(|backend| backend.flags & NAT != 0).map(|one| one.own).collect();
    assert_eq!(tables.returns.keys().copied().collect::<BTreeSet<_>>(), nat);
    assert!(tables.service_ids.keys().eq(desired.services.keys()), "the services are those that are wanted");
    for (id, wanted) in tables.service_ids.values().zip(desired.services.values()) {
        let (region, slots, backends) = checks::slots(tables, *id);
        let service = tables.services.get(id).expect("service");
        assert_eq!(service.flags, wanted.flags());
        let Wanted::Balanced(balanced) = wanted else {
            assert_eq!((service.flags, region.slots), (DNS, 0));
            continue;
        };
        let found: BTreeSet<_> =
            slots.iter().filter_map(|slot| backends.get(&slot.current)).map(BackendKey::from).collect();
        let members: BTreeSet<_> = balanced.members().map(|share| BackendKey::from(&share.backend)).collect();
        assert_eq!(found, members);
        // A table that was made stays, though nobody is in it.
        assert!(region.slots == SLOTS || region.slots == 0 && members.is_empty());
        let nobody = slots.iter().filter(|slot| slot.current == NOBODY).count();
        assert_eq!(nobody, if members.is_empty() { region.slots as usize } else { 0 });
        for previous in slots.iter().filter_map(|slot| slot.open()) {
            assert!(is_live(tables.backends.get(&previous).unwrap()), "flows are left to one that has failed");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_leads_to_what_is_desired_and_every_prefix_is_safe(
        states in prop::collection::vec((desired(), any::<prop::sample::Index>(), 0_u64..15), 1..5)
    ) {
        let (mut tables, mut actual) = (HostTables::default(), Actual::new(limits()));
        let (mut seen, mut now) = (checks::Seen::default(), Duration::ZERO);
        for (desired, stop, pause) in states {
            // The first attempt stops somewhere, as if a step had failed.
            let ops = plan(&desired, &actual, now).unwrap();
            let done = if ops.is_empty() { 0 } else { stop.index(ops.len()) };
            ops.iter().take(done).for_each(|op| seen.step(&mut tables, &mut actual, op));
            // The second goes on from there, and a third has nothing to do.
            for op in plan(&desired, &actual, now).unwrap() {
                seen.step(&mut tables, &mut actual, &op);
            }
            check_equal(&tables, &desired);
            prop_assert_eq!(plan(&desired, &actual, now).unwrap(), vec![]);
            now += Duration::from_secs(pause);
        }
    }
}

fn settle(desired: &Desired, actual: &mut Actual, now: Duration) -> Vec<Op> {
    let mut all = Vec::new();
    loop {
        let ops = plan(desired, actual, now).unwrap();
        if ops.is_empty() {
            return all;
        }
        ops.iter().for_each(|op| actual.record(op));
        all.extend(ops);
    }
}

const START: Duration = Duration::ZERO;

#[test]
fn a_table_found_after_a_restart_stays_as_it_is() {
    let mut desired = empty();
    add_service(&mut desired, 1, false, &[(1, true), (2, true)], 1);
    let mut actual = Actual::new(limits());
    settle(&desired, &mut actual, START);
    // The kernel does not know what a table was made from.
    actual.services.values_mut().for_each(|service| service.reached = None);
    let ops = settle(&desired, &mut actual, START);
    assert!(matches!(ops.as_slice(), [Op::StoreSlots { slots, .. }] if slots.is_empty()), "{ops:?}");
}

#[test]
fn a_service_that_has_lost_all_its_backends_keeps_its_table() {
    let mut desired = empty();
    add_service(&mut desired, 1, false, &[(1, true)], 1);
    let mut actual = Actual::new(limits());
    settle(&desired, &mut actual, START);

    add_service(&mut desired, 1, false, &[(1, false)], 1);
    let ops = settle(&desired, &mut actual, START);
    let [Op::PutBackend { .. }, Op::StoreSlots { slots, .. }] = ops.as_slice() else { panic!("{ops:?}") };
    assert_eq!(slots.len(), SLOTS as usize);
    assert!(slots.iter().all(|(_, slot)| *slot == Slot::clean(NOBODY)), "a failed backend has no flows");
}

#[test]
fn a_first_table_waits_until_it_is_known_who_is_up() {
    let share = |number, weight| {
        let flags = if weight > 0 { 0 } else { DOWN };
        Share { backend: Backend::new(endpoint(1, number, 80), endpoint(0, 1, 80), flags), weight, leaving: false }
    };
    let mut desired = empty();
    let mut want = |balanced: Balanced| {
        put(&mut desired, endpoint(0, 1, 80), Wanted::Balanced(Arc::new(balanced)));
        desired.clone()
    };
    let mut actual = Actual::new(limits());
    let first = want(Balanced { undecided: true, ..balanced(vec![share(1, 1), share(2, 0)]) });
    settle(&first, &mut actual, START);
    assert_eq!(actual.services.values().next().unwrap().table, None);
    settle(&want(balanced(vec![share(1, 1), share(2, 1)])), &mut actual, START);
    assert_eq!(actual.changed_slots(), 0, "nobody has had a flow yet");
    // One that is there does not wait.
    let more = Balanced { undecided: true, ..balanced(vec![share(1, 1), share(2, 1), share(3, 1)]) };
    settle(&want(more), &mut actual, START);
    assert!(actual.changed_slots() > 50);
}

#[test]
fn a_table_keeps_its_size_until_somebody_would_get_no_slot() {
    let service = endpoint(0, 1, 80);
    let share = |number, weight| {
        let backend = Backend::new(endpoint(1, number, 80), service, 0);
        Share { backend, weight, leaving: false }
    };
    let mut desired = empty();
    let mut want = |slots, least_slots, weight| {
        let shares = vec![share(1, 1), share(2, weight)];
        let balanced = Balanced { slots, least_slots, ..balanced(shares) };
        put(&mut desired, service, Wanted::Balanced(Arc::new(balanced)));
        desired.clone()
    };
    let mut actual = Actual::new(limits());
    settle(&want(251, 2, 1), &mut actual, START);
    settle(&want(1_009, 2, 1), &mut actual, START);
    let slots = |actual: &Actual| actual.services[&service].table.as_ref().unwrap().slots().len();
    assert_eq!(slots(&actual), 251);
    let ops = settle(&want(1_009, 301, 300), &mut actual, START);
    assert!(ops.iter().any(|op| matches!(op, Op::SwapTable { .. })), "{ops:?}");
    assert_eq!((slots(&actual), actual.changed_slots()), (1_009, 1_009), "tracked flows are still looked for");
}

#[test]
fn what_fits_only_without_the_old_replaces_it() {
    let limits = Limits { services: 64, ..limits() };
    let half = limits.services / 2 + 1;
    let services = |net: u8| {
        let mut desired = empty();
        for number in 0..half {
            let [_, _, high, low] = number.to_be_bytes();
            let service = Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, net, high, low)), TCP, 80);
            put(&mut desired, service, Wanted::Dns);
            desired.addresses.insert(service.address, ON_LINK);
        }
        desired
    };
    let (mut tables, mut actual) = (HostTables::default(), Actual::new(limits));
    for desired in [services(1), services(2)] {
        for op in settle(&desired, &mut actual.clone(), START) {
            host::apply(&mut tables, &op);
            actual.record(&op);
            let most = limits.services as usize;
            assert!(actual.addresses.len() <= most && actual.services.len() <= most);
        }
        assert!(tables.service_ids.keys().eq(desired.services.keys()), "the services are those that are wanted");
    }
}

#[test]
fn backends_that_are_leaving_make_room() {
    let limits = Limits { backends: 16, ..limits() };
    let service = endpoint(0, 1, 80);
    let want = |numbers: std::ops::Range<u8>, leaving: std::ops::Range<u8>| {
        let share = |number, weight, leaving| {
            let backend = Backend::new(endpoint(1, number, 80), service, 0);
            Share { backend, weight, leaving }
        };
        let backends =
            numbers.map(|number| share(number, 1, false)).chain(leaving.map(|number| share(number, 0, true)));
        let mut desired = empty();
        put(&mut desired, service, Wanted::Balanced(Arc::new(balanced(backends.collect()))));
        desired
    };
    let (mut tables, mut actual, mut seen) = (HostTables::default(), Actual::new(limits), checks::Seen::default());
    for desired in [want(0..10, 0..0), want(6..16, 0..6), want(10..26, 6..10)] {
        for op in settle(&desired, &mut actual.clone(), START) {
            seen.step(&mut tables, &mut actual, &op);
        }
    }
    let own: BTreeSet<_> = tables.backends.values().map(|backend| backend.own).collect();
    assert_eq!(own, (10..26).map(|number| endpoint(1, number, 80)).collect());
    let full = plan(&want(10..27, 0..0), &actual, START);
    assert_eq!(full, Err(Full::Backends { limit: 16 }));
}
