//! An agent without sockets and its tables in memory: what it does to the model, in the same order.

use super::{
    checks::{self, Seen},
    path::packet,
    plan_ops::{ADOPT, Packets, SERVERS, SERVICES, Server, address_of},
    readable,
};
use lb_common::{
    host::HostTables,
    tables::{
        DRAINING, Endpoint, MOVES, Region,
        answers::{NEGATIVE, Pick},
    },
    wire::transport::UDP,
};
use lb_userspace::{
    config::Config,
    model::{
        actual::{Actual, ActualService},
        backends::{BackendKey, is_live},
        desired::{Conditions, Desired, Draining, Wanted, names},
        dns::rendered::{Body, Question, Rendered},
        flows::has_flows,
        host,
        intent::{Intent, Limits, Target},
        leaving::leaving,
        op::Op,
        reach::{Hop, NoHop, Way},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

/// The interface that is always there, and the one that comes and goes.
const INTERFACES: [u32; 2] = [1, 2];
const MAC: [u8; 6] = [2; 6];
/// Slots of the smallest table that a config can ask for.
const LEAST_OF_CONFIGS: u32 = 251;
/// Class IN, as in the kind of a question.
const CLASS_IN: u32 = 1 << 16;
/// For how long the kernel is told that there is no answer.
const NEGATIVE_SECONDS: u64 = 300;

/// Everything.
pub struct World {
    pub actual: Actual,
    pub tables: HostTables,
    /// Steps that were done, and packets that found a backend.
    pub steps: usize,
    pub served: usize,
    intent: Option<Intent>,
    conditions: Conditions,
    down: BTreeSet<IpAddr>,
    /// What was desired last, with its answers.
    last: Desired,
    /// All answers are to be found anew.
    renewed: bool,
    /// Questions that have come to the agent.
    asked: Vec<Question>,
    seen: Seen,
    /// Where each flow has been served, by service and client.
    homes: BTreeMap<(Endpoint, Endpoint), Home>,
}

/// Where a flow has been served, and when last.
struct Home {
    id: u32,
    backend: BackendKey,
    /// The table that its slot was in.
    region: Region,
    seen: u64,
}

impl World {
    /// Without a config, and nothing in the tables.
    pub fn new(seen: Seen) -> Self {
        let mut tables = HostTables::default();
        tables.seconds = 1_000;
        let mut conditions = Conditions::default();
        conditions.interfaces.insert(INTERFACES[0], MAC);
        Self {
            actual: Actual::new(limits()),
            tables,
            steps: 0,
            served: 0,
            intent: None,
            conditions,
            down: BTreeSet::new(),
            last: Desired::default(),
            renewed: true,
            asked: Vec::new(),
            seen,
            homes: BTreeMap::new(),
        }
    }

    pub fn now(&self) -> Duration {
        Duration::from_secs(self.tables.seconds)
    }

    /// What the tables should hold; unknown before the first config. Slot tables are much smaller than the smallest that a config
    /// can ask for: the laws look at every slot after every step.
    pub fn desired(&mut self) -> Option<Desired> {
        let intent = self.intent.as_ref()?;
        let mut desired = Desired::new(intent, &self.conditions, self.now());
        desired.keep_answers(std::mem::take(&mut self.last));
        if std::mem::take(&mut self.renewed) {
            desired.answers.replace(names(intent, &self.conditions).all());
        }
        for question in self.asked.drain(..) {
            desired.answers.put(&question, &negative(self.tables.seconds));
        }
        for wanted in desired.services.values_mut() {
            if let Wanted::Balanced(balanced) = wanted {
                let balanced = Arc::make_mut(balanced);
                let slots = if balanced.least_slots > LEAST_OF_CONFIGS { 31 } else { 13 };
                (balanced.slots, balanced.least_slots) = (slots, slots);
                balanced.backends.iter_mut().for_each(|share| share.weight = share.weight.min(4));
            }
        }
        Some(desired)
    }

    /// What is desired is what the next plan goes on from.
    pub fn keep(&mut self, desired: Desired) {
        self.last = desired;
    }

    pub fn step(&mut self, op: &Op) {
        self.steps += 1;
        self.seen.step(&mut self.tables, &mut self.actual, op);
    }

    /// A config that is wrong changes nothing.
    pub fn reload(&mut self, config: &str) {
        let config = Config::parse(config).expect("a config that can be read");
        let Ok(intent) = Intent::new(&config) else { return };
        let before = self.intent.replace(intent);
        let targets = before.iter().flat_map(backends).collect();
        self.note_leaving(&targets);
        if let Some(intent) = &self.intent {
            let there: BTreeSet<_> = backends(intent).map(|(key, _)| (key.service, key.own)).collect();
            self.conditions.drains.retain(|drain, _| there.contains(drain));
            for (key, _) in backends(intent) {
                self.conditions.ways.entry(key.own.ip()).or_insert_with(|| Ok(way(0)));
            }
        }
        self.note_health();
    }

    fn note_leaving(&mut self, targets: &BTreeMap<BackendKey, Target>) {
        if let Some(intent) = &self.intent {
            self.conditions.leaving = leaving(&self.actual, intent, &self.conditions, targets, self.now());
        }
    }

    fn note_health(&mut self) {
        let leaving = self.conditions.leaving.values().filter_map(|leaving| leaving.target.clone());
        let known = self.intent.iter().flat_map(Intent::targets).chain(leaving);
        self.conditions.up = known.filter(|target| !self.down.contains(&target.address.ip())).collect();
        self.renewed = true;
    }

    pub fn set_up(&mut self, server: Server, up: bool) {
        for address in addresses(server) {
            if up {
                self.down.remove(&address);
            } else {
                self.down.insert(address);
            }
        }
        self.note_health();
    }

    pub fn set_way(&mut self, server: Server, number: u8) {
        let interface = String::from("lo");
        for address in addresses(server) {
            let way = match number % 8 {
                0 => Err(NoHop::NoRoute),
                1 => Err(NoHop::Asked { address, interface: interface.clone(), index: INTERFACES[0] }),
                number => Ok(way(number)),
            };
            self.conditions.ways.insert(address, way);
        }
    }

    pub fn set_interface(&mut self, there: bool) {
        if there {
            self.conditions.interfaces.insert(INTERFACES[1], MAC);
        } else {
            self.conditions.interfaces.remove(&INTERFACES[1]);
        }
    }

    pub fn set_drained(&mut self, server: Server, seconds: u8) {
        let now = self.now();
        let addresses = addresses(server);
        let backends = self.intent.iter().flat_map(backends).map(|(key, _)| (key.service, key.own));
        for drain in backends.filter(|(_, own)| addresses.contains(&own.ip())) {
            let deadline = match seconds {
                254 => {
                    self.conditions.drains.remove(&drain);
                    continue;
                }
                255 => None,
                seconds => Some(now + Duration::from_secs(seconds.into())),
            };
            self.conditions.drains.insert(drain, Draining { since: now, deadline });
        }
    }

    /// Questions to which there is no answer, for so long that the kernel is told.
    pub fn ask(&mut self) {
        for name in self.intent.iter().flat_map(Intent::names) {
            self.asked.extend([15, 16].map(|kind| Question { wire: name.wire.clone(), kind: CLASS_IN | kind }));
        }
    }

    pub fn pass(&mut self, seconds: u64) {
        self.tables.seconds += seconds;
    }

    /// Sweeps, and lets go who has no flows any more.
    pub fn sweep(&mut self) {
        let Some(intent) = &self.intent else { return };
        let waited = self.actual.waits();
        let counts = host::sweep(&mut self.tables, &mut self.actual, intent.tracking());
        let actual = &self.actual;
        self.conditions.leaving.retain(|key, _| has_flows(actual, &counts, key));
        if waited && !self.actual.waits() {
            // It has had a grace period.
            self.seen = Seen::default();
        }
    }

    /// Packets of some clients; those that are new, or are to, begin a flow.
    pub fn packets(&mut self, packets: Packets) {
        let Packets { service, first, count, begin } = packets;
        let balanced = self.actual.services.iter().filter(|(_, service)| !service.is_dns());
        let services: Vec<Endpoint> = balanced.map(|(endpoint, _)| *endpoint).collect();
        let Some(service) = services.get(usize::from(service) % services.len().max(1)) else { return };
        for client in 0..count % 16 {
            let client = Endpoint::new([10, 200, 0, first.wrapping_add(client)].into(), service.protocol(), 40_000);
            self.packet(service, client, begin % 2 == 1);
        }
    }

    fn packet(&mut self, endpoint: &Endpoint, client: Endpoint, begin: bool) {
        let Some(service) = self.tables.service_ids.get(endpoint).and_then(|id| self.tables.services.get(id)) else {
            return;
        };
        let (moves, now) = (service.flags & MOVES != 0, self.tables.seconds);
        let region = Region::from_word(service.region);
        let flow = (*endpoint, client);
        let is_udp = endpoint.protocol() == UDP;
        let begins = moves || !is_udp && (begin || !self.homes.contains_key(&flow));
        let served = packet(&self.tables, &client, endpoint, begins);
        // A window is open for so long; another size of the table moves who is not tracked.
        let home = self.homes.remove(&flow).filter(|home| !begins && now - home.seen < ADOPT && home.region == region);
        if let Some(home) = home {
            assert_eq!(served, Some(home.id), "a flow of {} left the live backend {:?}", endpoint.ip(), home.backend);
        }
        let backend = served.and_then(|id| Some((id, self.tables.backends.get(&id)?)));
        if let Some((id, backend)) = backend {
            assert_eq!(backend.service, *endpoint, "a packet went to another service's backend");
            self.served += 1;
            self.homes.insert(flow, Home { id, backend: backend.into(), region, seen: now });
        }
    }

    /// Who was served by a backend that has failed or gone, or by a service that has gone, may be anywhere.
    pub fn note_losses(&mut self) {
        let actual = &self.actual;
        self.homes.retain(|(service, _), home| {
            let entry = actual.backends.entry(home.id);
            let is_same = entry.is_some_and(|entry| is_live(entry) && BackendKey::from(entry) == home.backend);
            is_same && actual.services.contains_key(service)
        });
    }

    /// Another agent comes: it knows the tables and nothing else.
    pub fn restart(&mut self) {
        let Some(intent) = &self.intent else { return };
        let mut actual = Actual::new(limits());
        actual.settings = self.tables.settings;
        actual.interfaces = self.tables.interfaces.iter().map(|(index, one)| (*index, one.mac)).collect();
        for (id, backend) in &self.tables.backends {
            actual.record(&Op::PutBackend { id: *id, backend: *backend });
        }
        actual.returns = self.tables.returns.iter().map(|(own, id)| (*own, *id)).collect();
        actual.addresses = self.tables.addresses.clone();
        actual.dns = self.tables.dns;
        for (endpoint, id) in &self.tables.service_ids {
            let (_, slots, _) = checks::slots(&self.tables, *id);
            let service = &self.tables.services[id];
            let deadline = self.now() + intent.tracking().adopt;
            actual.service_ids.take(*id);
            let service = ActualService::new(*id, service, &slots.into(), None, deadline);
            actual.services.insert(*endpoint, service);
            actual.note_service(endpoint);
        }
        actual.answers.found(readable::pages(&self.tables));
        self.last = Desired::default();
        let leads = |service: u32, backend: u32| {
            actual.services.values().any(|known| known.id == service) && actual.backends.entry(backend).is_some()
        };
        let gone = self.tables.flows().into_iter().filter(|(_, key, flow)| !leads(key.service(), flow.backend));
        let gone: Vec<_> = gone.map(|(table, key, _)| (table, key)).collect();
        host::apply(&mut self.tables, &Op::ForgetFlows { flows: gone.into() });
        let deadline = intent.tracking().drain.map(|drain| self.now() + drain);
        let draining = Draining { since: self.now(), deadline };
        let entries = backends(intent).filter_map(|(key, _)| Some((key, *actual.backends.get(&key)?.1)));
        let drained = entries.filter(|(_, entry)| entry.flags & DRAINING != 0);
        self.conditions.drains = drained.map(|(key, _)| ((key.service, key.own), draining)).collect();
        self.actual = actual;
        // A process that starts is a grace period: no program run that saw something before goes on for so long.
        self.seen = Seen::default();
        self.conditions.leaving = BTreeMap::new();
        self.note_leaving(&BTreeMap::new());
        self.note_health();
    }
}

fn backends(intent: &Intent) -> impl Iterator<Item = (BackendKey, Target)> {
    intent.services().iter().flat_map(|service| {
        service.backends.iter().map(|backend| {
            let key = BackendKey { service: service.endpoint, own: backend.endpoint, mode: service.mode };
            (key, backend.target.clone())
        })
    })
}

/// A server's addresses, see `plan_ops`.
fn addresses(server: Server) -> [IpAddr; 2] {
    let (net, server) = (usize::from(server.service) % SERVICES, usize::from(server.number) % SERVERS);
    [false, true].map(|six| address_of(net, server, six).parse().expect("an address"))
}

/// An answer that there is nothing of this type, for so long.
fn negative(seconds: u64) -> Rendered {
    let body = Body {
        class: NEGATIVE,
        flags: 0x8400,
        since: seconds,
        spent_at: seconds + NEGATIVE_SECONDS,
        ..Body::default()
    };
    Rendered { pick: Pick::Only, slots: Vec::new(), bodies: vec![body] }
}

fn way(number: u8) -> Way {
    let interface = INTERFACES[usize::from(number == 2)];
    let mtu = if number == 3 { 1_280 } else { 1_500 };
    Way { hop: Hop { interface, destination: [4, 0, 0, 0, 0, number], source: MAC, mtu }, gateway: None }
}

fn limits() -> Limits {
    Limits { services: 16, backends: 16, ..Limits::default() }
}
