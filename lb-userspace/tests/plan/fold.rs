//! What intent and conditions are folded to.

use crate::world::{Server, World, config, own, service};
use lb_common::tables::{ANY_PORT, DOWN, DRAINING, ECHO, Endpoint, MOVES, ON_LINK, RETURNS, TUNNEL4};
use lb_userspace::model::{
    backends::BackendKey,
    desired::{Balanced, Desired, Draining, Wanted},
    intent::Mode,
    leaving::{Leaving, leaving},
    load::Load,
    pool::Pool,
    reach::{Hop, Narrow, NoHop, narrow},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

fn servers(service: u8, numbers: &[u8]) -> Vec<Server> {
    numbers.iter().map(|number| Server { service, number: *number, weight: 2 }).collect()
}

/// A world in which all of these are up and in the tables.
fn world(modes: &[&str], servers: &[Server], more: impl Fn(String) -> String) -> World {
    let mut world = World::new(&more(config(modes, servers, "")));
    servers.iter().for_each(|server| world.set_up(own(server.service, server.number), true));
    world.settle(usize::MAX);
    world
}

fn fold(world: &World) -> Desired {
    Desired::new(&world.intent, &world.conditions, world.now())
}

fn balanced(desired: &Desired, at: Endpoint) -> &Arc<Balanced> {
    match &desired.services[&at] {
        Wanted::Balanced(balanced) => balanced,
        Wanted::Dns => panic!("{at:?} is a DNS address"),
    }
}

/// Flags and weights of the first service.
fn shares(world: &World) -> Vec<(u16, u32)> {
    let desired = fold(world);
    balanced(&desired, service(0)).backends.iter().map(|share| (share.backend.flags & !1, share.weight)).collect()
}

#[test]
fn who_is_up_and_reached_takes_flows() {
    let mut world = world(&["dsr"], &servers(0, &[1, 2, 3]), |text| text);
    assert_eq!(shares(&world), [(0, 2); 3]);
    world.set_up(own(0, 1), false);
    world.conditions.ways.insert(own(0, 2).ip(), Err(NoHop::NoRoute));
    let router = "10.0.0.254".parse().unwrap();
    if let Some(Ok(way)) = world.conditions.ways.get_mut(&own(0, 3).ip()) {
        way.gateway = Some(router);
    }
    assert_eq!(shares(&world), [(DOWN, 0), (DOWN, 0), (DOWN, 0)], "dsr needs it on the link");
    let text = config(&["tunnel"], &servers(0, &[1, 2, 3]), "");
    world.reload(&text);
    if let Some(Ok(way)) = world.conditions.ways.get_mut(&own(0, 3).ip()) {
        way.gateway = Some(router);
    }
    world.set_up(own(0, 3), true);
    let shares = shares(&world);
    assert_eq!(shares[..3], [(DOWN | TUNNEL4, 0), (TUNNEL4, 2), (TUNNEL4, 2)], "a tunnel goes through a router");
    let desired = fold(&world);
    let through = balanced(&desired, service(0)).backends[2].backend;
    assert_eq!((through.mtu, through.source_mask), (1_480, 0x0000_ffff_u32.to_be()));
}

#[test]
fn a_drain_has_an_end() {
    let mut world = world(&["dsr"], &servers(0, &[1, 2]), |text| text);
    let draining = Draining { since: world.now(), deadline: Some(world.now() + Duration::from_secs(5)) };
    world.conditions.drains.insert((service(0), own(0, 1)), draining);
    assert_eq!(shares(&world), [(DRAINING, 0), (0, 2)]);
    world.tables.seconds += 5;
    assert_eq!(shares(&world), [(DRAINING | DOWN, 0), (0, 2)]);
    world.conditions.drains.clear();
    assert_eq!(shares(&world), [(0, 2); 2]);
}

#[test]
fn what_is_asked_for_is_undecided() {
    let mut world = world(&["dsr"], &servers(0, &[1, 2]), |text| text);
    let undecided = |world: &World| balanced(&fold(world), service(0)).undecided;
    assert!(!undecided(&world));
    let asked = NoHop::Asked { address: own(0, 1).ip(), interface: "lo".into(), index: 1 };
    world.conditions.ways.insert(own(0, 1).ip(), Err(asked));
    assert!(undecided(&world));
    // Not for who is down anyway.
    world.set_up(own(0, 1), false);
    assert!(!undecided(&world));
    world.conditions.undecided.extend(world.intent.targets());
    assert!(undecided(&world));
}

/// Whom the first service's slots lead to; 0: nobody.
fn led_to(world: &World) -> BTreeSet<u8> {
    let table = world.actual.services[&service(0)].table.as_ref().unwrap();
    let number = |id: u32| {
        let backend = world.actual.backends.entry(id)?;
        (1..=9).find(|number| own(0, *number) == backend.own)
    };
    table.slots().iter().map(|slot| number(slot.current).unwrap_or_default()).collect()
}

#[test]
fn who_leaves_serves_until_it_is_known_who_comes() {
    let mut world = world(&["dsr"], &servers(0, &[1, 2]), |text| text);
    let come = |world: &mut World, numbers: &[u8]| {
        world.reload(&config(&["dsr"], &servers(0, numbers), ""));
        let targets = world.intent.targets().into_iter();
        let new: Vec<_> = targets.filter(|target| !world.conditions.up.contains(target)).collect();
        world.conditions.undecided.extend(new);
        world.settle(usize::MAX);
    };
    assert_eq!(led_to(&world), [1, 2].into());
    come(&mut world, &[3, 4]);
    assert_eq!(led_to(&world), [1, 2].into());
    world.set_up(own(0, 1), false);
    world.settle(usize::MAX);
    assert_eq!(led_to(&world), [0, 2].into(), "not who fails");
    world.set_up(own(0, 3), true);
    world.settle(usize::MAX);
    assert_eq!(led_to(&world), [3].into(), "the first one to come takes all");
    world.set_up(own(0, 4), true);
    world.conditions.undecided.clear();
    world.settle(usize::MAX);
    assert_eq!(led_to(&world), [3, 4].into());
    // It is not who is there and taken out of service.
    world.set_drained(service(0), own(0, 3), Some(None));
    come(&mut world, &[3, 5]);
    assert_eq!(led_to(&world), [0, 4].into());
    // Those who come turn out to be down.
    world.conditions.undecided.clear();
    world.settle(usize::MAX);
    assert_eq!(led_to(&world), [0].into());
}

#[test]
fn what_services_need_of_every_packet() {
    let features =
        |modes: &[&str], more: fn(String) -> String| fold(&world(modes, &servers(0, &[1]), more)).settings.features;
    assert_eq!(features(&["dsr"], |text| text), 0);
    assert_eq!(features(&["nat"], |text| text), RETURNS);
    let any =
        |text: String| text.replace("port = 80\n", "port = \"any\"\ncheck = \"web\"\n") + "[check.web]\nport = 80\n";
    assert_eq!(features(&["dsr"], any), ANY_PORT);
    assert_eq!(features(&["nat"], any), RETURNS | ANY_PORT);
    // For as long as one is leaving.
    let mut world = world(&["nat"], &servers(0, &[1]), |text| text);
    world.reload(&config(&["dsr"], &servers(0, &[1]), ""));
    assert_eq!(fold(&world).settings.features, RETURNS);
    world.conditions.leaving.clear();
    assert_eq!(fold(&world).settings.features, 0);
}

#[test]
fn what_is_answered_for_an_address() {
    let answers = |more: fn(String) -> String| {
        let desired = fold(&world(&["dsr"], &servers(0, &[1]), more));
        desired.addresses.get(&service(0).address).copied()
    };
    assert_eq!(answers(|text| text), Some(ON_LINK | ECHO));
    assert_eq!(answers(|text| text.replace("slots = 251", "echo = false")), Some(ON_LINK));
    assert_eq!(answers(|text| text.replace("slots = 251", "claim = \"routed\"")), Some(ECHO));
    assert_eq!(answers(|text| text.replace("slots = 251", "claim = \"routed\"\necho = false")), None);
    let udp = "protocol = \"udp\"\nudp = \"move\"\ncheck = \"web\"\n[check.web]\nport = 80\n[[service.backend]]";
    let moves = world(&["dsr"], &servers(0, &[1]), |text| text.replace("[[service.backend]]", udp));
    let at = Endpoint::new(service(0).ip(), 17, 80);
    assert_eq!(balanced(&fold(&moves), at).flags, MOVES);
}

#[test]
fn folding_a_part_anew_gives_the_same_as_folding_all() {
    let both: Vec<Server> = [servers(0, &[1, 2]), servers(1, &[1, 2])].concat();
    let mut world = world(&["dsr", "nat"], &both, |text| text);
    let mut desired = fold(&world);
    let [first, second] = [service(0), service(1)].map(|at| Arc::clone(balanced(&desired, at)));
    world.set_up(own(0, 1), false);
    let touched = world.intent.services().iter().filter(|one| one.endpoint == service(0));
    desired.refresh(&world.intent, &world.conditions, world.now(), touched);
    assert_eq!(desired.services, fold(&world).services);
    assert!(!Arc::ptr_eq(balanced(&desired, service(0)), &first));
    assert!(Arc::ptr_eq(balanced(&desired, service(1)), &second));
    // What is equal is shared, and then need not be compared.
    let mut again = fold(&world);
    again.share(&desired);
    assert!(Arc::ptr_eq(balanced(&desired, service(0)), balanced(&again, service(0))));
}

#[test]
fn who_leaves_and_who_is_gone_at_once() {
    let both: Vec<Server> = [servers(0, &[1, 2]), servers(1, &[1, 2])].concat();
    let start = |modes: &[&str]| world(modes, &both, |text| text);
    let leaving = |world: &mut World, text: &str| -> Vec<Endpoint> {
        world.reload(text);
        world.conditions.leaving.keys().map(|key| key.own).collect()
    };
    let without = [servers(0, &[2]), servers(1, &[1, 2])].concat();
    assert_eq!(leaving(&mut start(&["dsr", "nat"]), &config(&["dsr", "nat"], &without, "")), [own(0, 1)]);
    // With its service.
    assert_eq!(leaving(&mut start(&["dsr", "nat"]), &config(&["dsr", "nat"], &servers(1, &[1, 2]), "")), []);
    // One that has failed has no flows.
    let mut failed = start(&["dsr", "nat"]);
    failed.set_up(own(0, 1), false);
    failed.settle(usize::MAX);
    assert_eq!(leaving(&mut failed, &config(&["dsr", "nat"], &without, "")), []);
    // In another forward mode, both do.
    let mut modes = leaving(&mut start(&["dsr", "nat"]), &config(&["nat", "nat"], &both, ""));
    modes.sort_unstable();
    let mut expected = [own(0, 1), own(0, 2)];
    expected.sort_unstable();
    assert_eq!(modes, expected);

    // Another service's NAT backend takes the endpoint.
    let taken = config(&["nat", "nat"], &without, "").replace("10.0.1.1\"", "10.0.0.1\"");
    assert_eq!(leaving(&mut start(&["nat", "nat"]), &taken), [own(1, 1)]);
    let any = |text: String| {
        let (first, second) = text.split_at(text.rfind("[[service]]").unwrap());
        format!("{first}{}[check.web]\nport = 80\n", second.replace("port = 80", "port = \"any\"\ncheck = \"web\""))
    };
    assert_eq!(leaving(&mut start(&["nat", "nat"]), &any(taken)), []);
    // By dsr nobody minds.
    let shared = config(&["dsr", "nat"], &without, "").replace("10.0.1.1\"", "10.0.0.1\"");
    assert!(leaving(&mut start(&["dsr", "nat"]), &shared).contains(&own(0, 1)));
}

#[test]
fn deadlines_of_who_leaves() {
    let both = servers(0, &[1, 2]);
    let limited = |text: String| text.replace("[tracking]\n", "[tracking]\ndrain_seconds = 7\n");
    let mut world = world(&["dsr"], &both, limited);
    world.tables.seconds = 100;
    let deadline = Some(Duration::from_secs(103));
    let draining = Draining { since: world.now(), deadline };
    world.conditions.drains.insert((service(0), own(0, 1)), draining);
    world.settle(usize::MAX);
    world.reload(&limited(config(&["nat"], &both, "")));
    let key = |number| BackendKey { service: service(0), own: own(0, number), mode: Mode::Dsr };
    let deadlines = |world: &World| [1, 2].map(|number| world.conditions.leaving[&key(number)].deadline);
    assert_eq!(deadlines(&world), [deadline, Some(Duration::from_secs(107))]);
    // A further reload does not prolong it.
    world.tables.seconds = 102;
    world.reload(&limited(config(&["tunnel"], &both, "")));
    assert_eq!(deadlines(&world), [deadline, Some(Duration::from_secs(107))]);
    world.tables.seconds = 103;
    let flags: BTreeMap<_, _> = balanced(&fold(&world), service(0))
        .backends
        .iter()
        .filter(|share| share.leaving)
        .map(|share| ((&share.backend).into(), share.backend.flags & DOWN))
        .collect();
    assert_eq!(flags, BTreeMap::from([(key(1), DOWN), (key(2), 0)]));
    // After a restart nothing is known of either but that it is there.
    let conditions = Default::default();
    let found = leaving(&world.actual, &world.intent, &conditions, &BTreeMap::new(), world.now());
    let fresh = Leaving { target: None, deadline: Some(Duration::from_secs(110)) };
    assert_eq!(found, BTreeMap::from([(key(1), fresh.clone()), (key(2), fresh)]));
}

#[test]
fn narrow_ways() {
    let hop = |mtu| Hop { interface: 1, destination: [0; 6], source: [0; 6], mtu };
    let [ipv4, ipv6] = ["10.0.0.1", "fd00::1"].map(|text| text.parse().unwrap());
    for (mode, address, least) in
        [(Mode::Dsr, ipv4, 1_280), (Mode::Nat, ipv6, 1_280), (Mode::Tunnel, ipv4, 1_300), (Mode::Tunnel, ipv6, 1_320)]
    {
        assert_eq!(narrow(mode, address, &hop(least)), None);
        let mtu = least - 1;
        assert_eq!(narrow(mode, address, &hop(mtu)), Some(Narrow { mtu, least }));
    }
}

/// Flags and weights of a service with `more`, and what of its backends takes flows, when these are up.
fn pooled(more: &str, backup: u8, up: &[u8]) -> (Pool, Vec<(bool, u32)>) {
    let own_backup = format!("address = \"10.0.0.{backup}\"\nweight = 2\n");
    let text = config(&["dsr"], &servers(0, &[1, 2, 3]), "")
        .replace("slots = 251\n", &format!("slots = 251\n{more}\n"))
        .replace(&own_backup, &format!("{own_backup}backup = true\n"));
    let mut world = World::new(&text);
    up.iter().for_each(|number| world.set_up(own(0, *number), true));
    let desired = fold(&world);
    let balanced = balanced(&desired, service(0));
    (balanced.pool, balanced.backends.iter().map(|share| (share.backend.flags & DOWN != 0, share.weight)).collect())
}

#[test]
fn backups_and_fail_open() {
    let is_down = true;
    assert_eq!(pooled("", 3, &[1, 3]), (Pool::Main, vec![(!is_down, 2), (is_down, 0), (!is_down, 0)]));
    assert_eq!(pooled("", 3, &[3]), (Pool::WithBackups, vec![(is_down, 0), (is_down, 0), (!is_down, 2)]));
    let two = "minimum_healthy = 2";
    assert_eq!(pooled(two, 3, &[1, 3]), (Pool::WithBackups, vec![(!is_down, 2), (is_down, 0), (!is_down, 2)]));
    assert_eq!(pooled(two, 9, &[1]), (Pool::BelowMinimum, vec![(!is_down, 2), (is_down, 0), (is_down, 0)]));
    // Who is held for up in spite of its check is not marked as failed either: its flows stay.
    let open = "minimum_healthy = 2\nbelow_minimum = \"fail-open\"";
    assert_eq!(pooled(open, 9, &[1]), (Pool::FailOpen, vec![(!is_down, 2); 3]));
    assert_eq!(pooled(open, 9, &[1, 2]), (Pool::Main, vec![(!is_down, 2), (!is_down, 2), (is_down, 0)]));
}

#[test]
fn loads_are_parts_of_weights() {
    let mut world = world(&["dsr"], &servers(0, &[1, 2, 3]), |text| text);
    let target = |world: &World, number: usize| world.intent.services()[0].backends[number].target.clone();
    let set = |world: &mut World, number, load| {
        let target = target(world, number);
        world.conditions.loads.insert(target, load);
    };
    set(&mut world, 0, Load { per_mille: 100, ..Load::default() });
    // As fine as weights can be: a tenth of the others'.
    assert_eq!(shares(&world), [(0, 6_554), (0, 65_535), (0, 65_535)]);
    set(&mut world, 1, Load { drains: true, ..Load::default() });
    assert_eq!(shares(&world), [(0, 6_554), (0, 0), (0, 65_535)], "it keeps its flows");
    set(&mut world, 2, Load { down: true, ..Load::default() });
    assert_eq!(shares(&world), [(0, 65_535), (0, 0), (DOWN, 0)].map(|(flags, weight)| (flags, weight.min(6_554))));
    set(&mut world, 0, Load { per_mille: 0, ..Load::default() });
    assert_eq!(shares(&world), [(0, 0), (0, 0), (DOWN, 0)]);
    world.conditions.loads.clear();
    assert_eq!(shares(&world), [(0, 2); 3]);
}
