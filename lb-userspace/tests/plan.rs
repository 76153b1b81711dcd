//! A plan leads from any state to any other, and every prefix of it is safe for traffic.
#![expect(clippy::expect_used, reason = "helpers of a test")]

use bytemuck::Zeroable;
use lb_common::{
    host::HostTables,
    tables::{Answer, AnswerKey, Backend, Endpoint, MAX_CLAIMS, MAX_SERVICES, NAT, Region, Settings},
};
use lb_userspace::model::{
    actual::{Actual, BackendKey},
    desired::{Desired, Member, Wanted},
    host,
    op::Op,
    plan::plan,
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
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
    Balanced { nat: bool, weights: Vec<u32>, hop: u8 },
}

fn choice() -> impl Strategy<Value = Choice> {
    prop_oneof![
        1 => Just(Choice::Absent),
        1 => Just(Choice::Dns),
        6 => (any::<bool>(), prop::collection::vec(0_u32..4, 0..5), 0_u8..3)
            .prop_map(|(nat, weights, hop)| Choice::Balanced { nat, weights, hop }),
    ]
}

fn empty() -> Desired {
    Desired {
        settings: Settings { layout: 1, ..Settings::zeroed() },
        interfaces: BTreeMap::new(),
        backends: BTreeMap::new(),
        services: BTreeMap::new(),
        claims: BTreeSet::new(),
        answers: BTreeMap::new(),
    }
}

fn add_service(desired: &mut Desired, number: u8, nat: bool, weights: Vec<u32>, hop: u8) {
    let service = endpoint(0, number, 80);
    let mut members = Vec::new();
    for (index, weight) in (1..).zip(weights) {
        // One backend endpoint belongs to one service where there is NAT.
        let own = endpoint(number, index, 8080);
        let key = BackendKey { service, own, nat };
        let flags = if nat { NAT } else { 0 };
        desired.backends.insert(key, Backend::new(own, service, flags).via(1, [hop; 6], [1; 6]));
        desired.settings.returns |= u64::from(flags);
        if weight > 0 {
            members.push(Member { key, weight });
        }
    }
    desired.claims.insert(service.address);
    desired.services.insert(service, Wanted::Balanced { slots: SLOTS, members: members.into() });
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
                    desired.services.insert(endpoint(0, number, 80), Wanted::Dns);
                }
                Choice::Balanced { nat, weights, hop } => add_service(&mut desired, number, nat, weights, hop),
            }
        }
        for (name, version) in (0..).zip(versions) {
            if version > 0 {
                let answer = Answer { kind: 1, ttl_seconds: version, ..Answer::zeroed() };
                desired.answers.insert(AnswerKey { name, kind: 1 }, Arc::new(answer));
            }
        }
        desired
    })
}

/// Slots of the table of the service with this id.
fn slots(tables: &HostTables, id: u32) -> (Region, Vec<Backend>, BTreeSet<u32>) {
    let service = tables.services.get(&id).expect("an id leads to its service");
    let region = Region::from_word(service.region);
    let slots =
        (region.first..region.first + region.slots).map(|index| tables.slots.get(&index).expect("a slot is written"));
    let ids: BTreeSet<u32> = slots.map(|slot| slot.backend).collect();
    let backends = ids.iter().map(|id| *tables.backends.get(id).expect("a slot leads to a backend")).collect();
    (region, backends, ids)
}

/// What a packet could have looked at since the last grace period.
#[derive(Default)]
struct Seen {
    regions: BTreeSet<Region>,
    backends: BTreeMap<u32, BackendKey>,
    answers: BTreeMap<u32, AnswerKey>,
}

impl Seen {
    fn look(&mut self, tables: &HostTables) {
        for id in tables.service_ids.values() {
            let (region, backends, ids) = slots(tables, *id);
            self.regions.extend((region.slots > 0).then_some(region));
            self.backends.extend(ids.into_iter().zip(backends.iter().map(BackendKey::from)));
        }
        for id in tables.returns.values() {
            self.backends.insert(*id, tables.backends.get(id).expect("a way back leads to a backend").into());
        }
        self.answers.extend(tables.answer_places.iter().map(|(key, place)| (*place, *key)));
    }

    /// Nothing that a packet may still look at becomes something else.
    fn check(&self, op: &Op) {
        match op {
            Op::WriteTable { region, .. } => {
                for seen in &self.regions {
                    let apart = region.first + region.slots <= seen.first || seen.first + seen.slots <= region.first;
                    assert!(apart, "{region:?} is written while {seen:?} may be read");
                }
            }
            Op::PutBackend { id, backend } => {
                let seen = self.backends.get(id);
                assert!(seen.is_none_or(|seen| *seen == BackendKey::from(backend)), "backend {id} becomes another one");
            }
            Op::RemoveBackend { id } => assert!(!self.backends.contains_key(id), "backend {id} is still led to"),
            Op::PutAnswer { place, .. } => assert!(!self.answers.contains_key(place), "answer {place} may be read"),
            _ => (),
        }
    }
}

/// Every packet finds its way in these tables.
fn check_safe(tables: &HostTables) {
    for (endpoint, id) in &tables.service_ids {
        let (_, backends, _) = slots(tables, *id);
        for backend in backends {
            assert_eq!(backend.service, *endpoint, "a slot leads to another service's backend");
            if backend.flags & NAT != 0 {
                let returning = tables.returns.get(&backend.own).expect("there is a way back");
                assert_eq!(tables.backends.get(returning), Some(&backend));
                assert_ne!(tables.settings.expect("settings").returns, 0, "nobody looks for replies");
            }
        }
    }
    for (own, id) in &tables.returns {
        assert_eq!(tables.backends.get(id).expect("a way back leads to a backend").own, *own);
    }
    for place in tables.answer_places.values() {
        assert!(tables.answers.contains_key(place), "a key leads to an answer");
    }
}

fn check_equal(tables: &HostTables, desired: &Desired) {
    assert_eq!(tables.settings, Some(desired.settings));
    let interfaces: BTreeMap<_, _> = tables.interfaces.iter().map(|(index, one)| (*index, one.mac)).collect();
    assert_eq!(interfaces, desired.interfaces);
    assert_eq!(tables.claims.keys().copied().collect::<BTreeSet<_>>(), desired.claims);
    assert_eq!(tables.backends.len(), desired.backends.len());
    let backends: BTreeMap<BackendKey, Backend> = tables.backends.values().map(|one| (one.into(), *one)).collect();
    assert_eq!(backends, desired.backends);
    let nat: BTreeSet<_> = desired.backends.keys().filter(|key| key.nat).map(|key| key.own).collect();
    assert_eq!(tables.returns.keys().copied().collect::<BTreeSet<_>>(), nat);
    assert!(tables.service_ids.keys().eq(desired.services.keys()), "the services are those that are wanted");
    for (id, wanted) in tables.service_ids.values().zip(desired.services.values()) {
        let (region, backends, _) = slots(tables, *id);
        let members: &[Member] = match wanted {
            Wanted::Dns => &[],
            Wanted::Balanced { members, .. } => members,
        };
        assert_eq!(tables.services.get(id).expect("service").dns != 0, wanted.is_dns());
        assert_eq!(region.slots, if members.is_empty() { 0 } else { SLOTS });
        let found: BTreeSet<_> = backends.iter().map(BackendKey::from).collect();
        assert_eq!(found, members.iter().map(|member| member.key).collect::<BTreeSet<_>>());
    }
    let answers: BTreeMap<_, _> =
        tables.answer_places.iter().map(|(key, place)| (*key, *tables.answers.get(place).expect("answer"))).collect();
    assert_eq!(answers, desired.answers.iter().map(|(key, answer)| (*key, **answer)).collect());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_leads_to_what_is_desired_and_every_prefix_is_safe(
        states in prop::collection::vec((desired(), any::<prop::sample::Index>()), 1..5)
    ) {
        let (mut tables, mut actual, mut seen) = (HostTables::default(), Actual::default(), Seen::default());
        let mut step = |tables: &mut HostTables, actual: &mut Actual, op: &Op| {
            seen.check(op);
            host::apply(tables, op);
            actual.record(op);
            if *op == Op::Grace {
                seen = Seen::default();
            }
            check_safe(tables);
            seen.look(tables);
        };
        for (desired, stop) in states {
            // The first attempt stops somewhere, as if a step had failed.
            let ops = plan(&desired, &actual).unwrap();
            let done = if ops.is_empty() { 0 } else { stop.index(ops.len()) };
            for op in ops.iter().take(done) {
                step(&mut tables, &mut actual, op);
            }
            // The second goes on from there, and a third has nothing to do.
            for op in plan(&desired, &actual).unwrap() {
                step(&mut tables, &mut actual, &op);
            }
            check_equal(&tables, &desired);
            prop_assert_eq!(plan(&desired, &actual).unwrap(), vec![]);
        }
    }
}

#[test]
fn a_table_found_after_a_restart_is_written_anew_and_swapped() {
    let mut desired = empty();
    add_service(&mut desired, 1, false, vec![1], 1);
    let mut actual = Actual::default();
    plan(&desired, &actual).unwrap().iter().for_each(|op| actual.record(op));
    assert_eq!(plan(&desired, &actual).unwrap(), vec![]);

    // The kernel does not know what a table was made from.
    actual.services.values_mut().for_each(|service| service.members = None);
    let ops = plan(&desired, &actual).unwrap();
    assert!(matches!(ops.as_slice(), [Op::WriteTable { .. }, Op::SwapTable { .. }, Op::Grace]), "{ops:?}");
}

#[test]
fn a_service_that_has_lost_all_its_backends_keeps_its_place() {
    let mut desired = empty();
    add_service(&mut desired, 1, false, vec![1], 1);
    let mut actual = Actual::default();
    plan(&desired, &actual).unwrap().iter().for_each(|op| actual.record(op));

    add_service(&mut desired, 1, false, vec![0], 1);
    let ops = plan(&desired, &actual).unwrap();
    assert!(matches!(ops.as_slice(), [Op::SwapTable { region, .. }, Op::Grace] if region.slots == 0), "{ops:?}");
}

#[test]
fn what_fits_only_without_the_old_replaces_it() {
    let half = MAX_SERVICES / 2 + 1;
    let services = |net: u8| {
        let mut desired = empty();
        for number in 0..half {
            let [_, _, high, low] = number.to_be_bytes();
            let service = Endpoint::new(IpAddr::V4(Ipv4Addr::new(10, net, high, low)), TCP, 80);
            desired.services.insert(service, Wanted::Dns);
            desired.claims.insert(service.address);
        }
        desired
    };
    let (mut tables, mut actual) = (HostTables::default(), Actual::default());
    for desired in [services(1), services(2)] {
        for op in plan(&desired, &actual).unwrap() {
            host::apply(&mut tables, &op);
            actual.record(&op);
            assert!(actual.claims.len() <= MAX_CLAIMS as usize && actual.services.len() <= MAX_SERVICES as usize);
        }
        assert!(tables.service_ids.keys().eq(desired.services.keys()), "the services are those that are wanted");
    }
}
