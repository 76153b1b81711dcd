//! Histories of a balancer with flows: whatever the operator and the servers do, a flow that goes on stays with its backend for as
//! long as that lives.

use crate::{
    path::packet,
    world::{ADOPT, IDLE, Server, World, config, own, service},
};
use lb_common::tables::{DOWN, Endpoint};
use lb_userspace::model::intent::Mode;
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

const SERVICES: u8 = 2;
const SERVERS: u8 = 5;

/// Something that happens.
#[derive(Clone, Debug)]
enum Event {
    /// The config is another one.
    Reload { modes: [&'static str; 2], weights: Vec<Option<u32>> },
    /// A server fails or comes back.
    Health { service: u8, number: u8, up: bool },
    /// The operator drains a backend, for good or for some seconds, or takes that back.
    Drain { service: u8, number: u8, limit: Option<Option<u64>> },
    /// Clients open connections.
    Connect { service: u8, count: u16 },
    /// Some of them end without a word.
    End { some: prop::sample::Index },
    /// Seconds pass, and packets come.
    Time { seconds: u64 },
    /// The agent sweeps.
    Sweep,
    /// A plan stops midway; the agent goes on with the next event.
    Fail { after: usize },
    /// The agent is killed and comes back.
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let weight = prop_oneof![1 => Just(None), 3 => (0_u32..4).prop_map(Some)];
    let weights = prop::collection::vec(weight, usize::from(SERVICES * SERVERS));
    let backend = || (0..SERVICES, 1..=SERVERS);
    let mode = || prop::sample::select(vec!["dsr", "nat", "tunnel"]);
    prop_oneof![
        4 => ([mode(), mode()], weights).prop_map(|(modes, weights)| Event::Reload { modes, weights }),
        4 => (backend(), any::<bool>()).prop_map(|((service, number), up)| Event::Health { service, number, up }),
        3 => (backend(), prop::option::of(prop::option::of(1_u64..90)))
            .prop_map(|((service, number), limit)| Event::Drain { service, number, limit }),
        4 => (0..SERVICES, 1_u16..40).prop_map(|(service, count)| Event::Connect { service, count }),
        2 => any::<prop::sample::Index>().prop_map(|some| Event::End { some }),
        6 => (1..ADOPT).prop_map(|seconds| Event::Time { seconds }),
        4 => Just(Event::Sweep),
        1 => (0_usize..12).prop_map(|after| Event::Fail { after }),
        1 => Just(Event::Restart),
    ]
}

/// A flow: the backend that it must stay with, unless that has ended, and when it was last seen.
#[derive(Clone, Copy, Debug)]
struct Flow {
    backend: Option<u32>,
    server: Option<Endpoint>,
    seen: u64,
}

struct History {
    world: World,
    servers: Vec<Server>,
    flows: BTreeMap<(u8, Endpoint), Flow>,
    clients: u16,
    /// Servers that have failed.
    down: BTreeSet<Endpoint>,
}

impl History {
    fn new() -> Self {
        let servers: Vec<Server> = (0..SERVICES)
            .flat_map(|service| (1..=3).map(move |number| Server { service, number, weight: 1 }))
            .collect();
        let mut world = World::new(&config(&["dsr", "nat"], &servers, ""));
        servers.iter().for_each(|server| world.set_up(own(server.service, server.number), true));
        world.settle(usize::MAX);
        Self { world, servers, flows: BTreeMap::new(), clients: 0, down: BTreeSet::new() }
    }

    fn happens(&mut self, event: &Event) {
        match event {
            Event::Reload { modes, weights } => self.reload(*modes, weights),
            Event::Health { service, number, up } => self.set_up(own(*service, *number), *up),
            Event::Drain { service: of, number, limit } => {
                let is_there = self.servers.iter().any(|server| (server.service, server.number) == (*of, *number));
                if is_there {
                    self.world.set_drained(service(*of), own(*of, *number), *limit);
                }
            }
            Event::Connect { service, count } => self.connect(*service, *count),
            Event::End { some } => {
                let gone = some.index(self.flows.len() + 1);
                self.flows = std::mem::take(&mut self.flows).into_iter().skip(gone / 2).collect();
            }
            Event::Time { seconds } => self.time(*seconds),
            Event::Sweep => self.world.sweep(),
            Event::Fail { after } => {
                self.settle(*after);
                return;
            }
            Event::Restart => {
                self.world.restart();
                let entries = self.world.actual.backends.iter().map(|(_, entry)| entry);
                self.down.extend(entries.filter(|entry| entry.flags & DOWN != 0).map(|entry| entry.own));
            }
        }
        self.settle(usize::MAX);
    }

    fn set_up(&mut self, own: Endpoint, up: bool) {
        self.world.set_up(own, up);
        if up {
            self.down.remove(&own);
        } else {
            self.down.insert(own);
        }
    }

    fn settle(&mut self, steps: usize) {
        self.let_go();
        self.world.settle(steps);
    }

    /// Flows may go elsewhere if their server has failed, or if they have been given up.
    fn let_go(&mut self) {
        let (now, conditions) = (self.world.now(), &self.world.conditions);
        let is_over = |deadline: Option<Duration>| deadline.is_some_and(|deadline| deadline <= now);
        let drained = conditions.drains.iter().filter(|(_, drain)| is_over(drain.deadline)).map(|((_, own), _)| *own);
        let leaving = conditions.leaving.iter().filter(|(_, one)| is_over(one.deadline)).map(|(key, _)| key.own);
        let over: BTreeSet<Endpoint> = drained.chain(leaving).chain(self.down.iter().copied()).collect();
        for flow in self.flows.values_mut().filter(|flow| flow.server.is_some_and(|server| over.contains(&server))) {
            (flow.backend, flow.server) = (None, None);
        }
    }

    fn reload(&mut self, modes: [&str; 2], weights: &[Option<u32>]) {
        let before = self.servers.clone();
        let places = (0..SERVICES).flat_map(|service| (1..=SERVERS).map(move |number| (service, number)));
        let servers = places
            .zip(weights)
            .filter_map(|((service, number), weight)| Some(Server { service, number, weight: (*weight)? }));
        self.servers = servers.collect();
        for service in 0..SERVICES {
            let mut of_service = self.servers.iter_mut().filter(|server| server.service == service).peekable();
            // A service without any weight is no right config.
            if let Some(first) = of_service.peek_mut() {
                first.weight = first.weight.max(1);
            }
        }
        if self.servers.is_empty() {
            self.servers = before.clone();
        }
        self.world.reload(&config(&modes, &self.servers, ""));
        for server in self.servers.clone().iter().filter(|server| !before.contains(server)) {
            self.set_up(own(server.service, server.number), true);
        }
        // A service that goes takes its flows with it.
        let servers = &self.servers;
        self.flows.retain(|(service, _), _| servers.iter().any(|server| server.service == *service));
    }

    fn connect(&mut self, of: u8, count: u16) {
        for _ in 0..count {
            self.clients += 1;
            let client = Endpoint::new([10, 200, 0, of].into(), 6, self.clients);
            let backend = packet(&self.world.tables, &client, &service(of), true);
            if backend.is_some() {
                let server = self.world.server(backend);
                self.flows.insert((of, client), Flow { backend, server, seen: self.world.tables.seconds });
            }
        }
    }

    /// Each flow is seen before it would have been silent for as long as a window is open.
    fn time(&mut self, seconds: u64) {
        for _ in 0..seconds {
            self.world.tables.seconds += 1;
            let now = self.world.tables.seconds;
            // The agent wakes when a window or a drain ends.
            if self.world.actual.first_end().is_some_and(|end| end <= self.world.now())
                || self.world.conditions.drains.values().any(|drain| drain.deadline == Some(self.world.now()))
            {
                self.settle(usize::MAX);
            }
            let (flows, world) = (&mut self.flows, &self.world);
            for ((of, client), flow) in flows {
                // Some are seen often, some just often enough.
                let often = 1 + u64::from(client.port()) % (ADOPT - 1);
                if now - flow.seen >= often {
                    let backend = packet(&world.tables, client, &service(*of), false);
                    if flow.backend.is_some() {
                        assert_eq!(backend, flow.backend, "a flow of service {of} is moved");
                    }
                    *flow = Flow { backend, server: world.server(backend), seen: now };
                }
            }
        }
    }

    /// When all is quiet for long enough, nothing is tracked, changed or leaving any more.
    fn calm_down(&mut self) {
        self.flows.clear();
        self.settle(usize::MAX);
        self.world.tables.seconds += ADOPT + IDLE + 130;
        self.settle(usize::MAX);
        self.world.sweep();
        self.settle(usize::MAX);
        self.world.sweep();
        assert_eq!(self.world.changed(), 0, "a slot is not clean");
        assert_eq!(self.world.tables.flows(), [], "a flow is not forgotten");
        assert!(self.world.conditions.leaving.is_empty(), "a backend is still leaving");
        let keys: Vec<_> =
            self.world.actual.backends.iter().map(|(_, backend)| (backend.service, backend.own)).collect();
        assert_eq!(keys.len(), self.servers.len(), "a backend is left over");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_flow_of_a_live_backend_is_moved(events in prop::collection::vec(event(), 1..40)) {
        let mut history = History::new();
        history.happens(&Event::Connect { service: 0, count: 40 });
        history.happens(&Event::Connect { service: 1, count: 40 });
        for event in &events {
            history.happens(event);
        }
        history.happens(&Event::Time { seconds: ADOPT - 1 });
        history.calm_down();
    }
}

/// Long connections are worth a slot's history for as long as they last.
#[test]
fn a_removed_backend_goes_with_its_last_flow() {
    let servers = |numbers: &[u8]| -> Vec<Server> {
        numbers.iter().map(|number| Server { service: 0, number: *number, weight: 1 }).collect()
    };
    let mut history = History::new();
    history.servers = servers(&[1, 2, 3]);
    history.connect(0, 60);
    let on_first: Vec<_> = {
        let first = history.world.actual.backends.iter().find(|(_, backend)| backend.own == own(0, 1)).unwrap().0;
        history.flows.iter().filter(|(_, flow)| flow.backend == Some(first)).map(|(key, _)| *key).collect()
    };
    assert!(on_first.len() > 5);
    history.world.reload(&config(&["dsr", "nat"], &servers(&[2, 3]), ""));
    history.settle(usize::MAX);
    assert_eq!(history.world.conditions.leaving.len(), 1);
    for _ in 0..20 {
        history.time(ADOPT - 1);
        history.world.sweep();
        history.settle(usize::MAX);
    }
    assert_eq!(
        history.world.counts.of.values().sum::<u64>(),
        on_first.len() as u64,
        "only what contradicts is tracked"
    );
    assert_eq!(history.world.conditions.leaving.len(), 1);
    // One that is new goes elsewhere, and all but one of the old ones end.
    let last = on_first[0];
    history.flows.retain(|key, _| !on_first.contains(key) || *key == last);
    history.time(ADOPT - 1);
    history.time(ADOPT - 1);
    history.time(ADOPT - 1);
    history.world.sweep();
    history.settle(usize::MAX);
    assert_eq!((history.world.changed(), history.world.conditions.leaving.len()), (1, 1));
    history.flows.clear();
    history.world.tables.seconds += IDLE + 1;
    history.world.sweep();
    history.settle(usize::MAX);
    assert_eq!((history.world.changed(), history.world.conditions.leaving.len()), (0, 0));
    assert!(history.world.actual.backends.iter().all(|(_, backend)| backend.own != own(0, 1)));
}

/// A server that leaves may be put into service again under the same id, another forward mode is another backend.
#[test]
fn another_forward_mode_leaves_the_flows_to_the_one_before() {
    let mut history = History::new();
    history.connect(0, 30);
    history.world.reload(&config(&["tunnel", "nat"], &history.servers, ""));
    history.settle(usize::MAX);
    let modes = history.world.conditions.leaving.keys().map(|key| key.mode);
    assert_eq!(modes.collect::<Vec<_>>(), [Mode::Dsr; 3]);
    history.servers.iter().for_each(|server| history.world.set_up(own(server.service, server.number), true));
    history.time(2 * ADOPT);
    history.calm_down();
}

/// Replies are told by where they come from, so that an endpoint is never behind two services, not even for a moment.
#[test]
fn a_nat_backend_goes_to_another_service_after_it_has_left_the_first() {
    let text = |backends: [&str; 2]| {
        let mut text = String::from("interfaces = [\"lo\"]\nsecret = \"0123456789abcdef\"\n[check.web]\nport = 80\n");
        for (number, (backends, port)) in backends.iter().zip(["80", "\"any\""]).enumerate() {
            text += &format!(
                "[[service]]\nname = \"s{number}\"\naddress = \"192.0.2.{number}\"\nport = {port}\nmode = \"nat\"\n\
                 check = \"web\"\nslots = 251\n"
            );
            for backend in backends.split(' ') {
                text += &format!("[[service.backend]]\naddress = \"10.0.0.{backend}\"\n");
            }
        }
        text
    };
    let mut world = World::new(&text(["1 2", "3"]));
    for backends in [["1 2", "3"], ["2", "3 1"], ["2 1", "3"], ["3", "1 2"], ["1 2", "3"]] {
        world.reload(&text(backends));
        let targets = world.intent.targets();
        world.conditions.up.extend(targets);
        world.settle(usize::MAX);
        let there: Vec<_> = world.actual.returns.keys().map(Endpoint::ip).collect();
        assert_eq!(there.len(), 3, "{there:?}");
    }
}
