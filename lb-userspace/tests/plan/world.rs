//! Tables in memory and an agent without sockets: what it does to the model, in the same order.

use crate::checks::Seen;
use lb_common::{
    host::HostTables,
    tables::{Endpoint, Region},
};
use lb_userspace::{
    config::Config,
    model::{
        actual::{Actual, ActualService},
        backends::{BackendKey, is_live},
        desired::{Conditions, Desired, Draining},
        flows::{FlowCounts, has_flows},
        host,
        intent::{Intent, Limits},
        leaving::leaving,
        op::Op,
        plan::plan,
        reach::{Hop, Way},
    },
};
use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

/// Seconds that an adoption window is open.
pub const ADOPT: u64 = 30;
/// Seconds after which a silent flow is over.
pub const IDLE: u64 = 60;

/// A backend as an operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Server {
    pub service: u8,
    pub number: u8,
    pub weight: u32,
}

/// The text of a config.
pub fn config(modes: &[&str], servers: &[Server], limits: &str) -> String {
    let mut text = format!(
        "interfaces = [\"lo\"]\nsecret = \"0123456789abcdef\"\n[tracking]\nadopt_seconds = {ADOPT}\n\
         tcp_idle_seconds = {IDLE}\n{limits}[tunnel]\nsource_ipv4 = \"10.99.0.0/16\"\n"
    );
    for (service, mode) in modes.iter().enumerate() {
        let mut servers = servers.iter().filter(|server| usize::from(server.service) == service).peekable();
        if servers.peek().is_none() {
            continue;
        }
        let _ = writeln!(
            text,
            "[[service]]\nname = \"s{service}\"\naddress = \"192.0.2.{service}\"\nport = 80\nmode = \"{mode}\"\nslots = 251"
        );
        for Server { number, weight, .. } in servers {
            let _ = writeln!(text, "[[service.backend]]\naddress = \"10.0.{service}.{number}\"\nweight = {weight}");
        }
    }
    text
}

/// Where a service is.
pub fn service(number: u8) -> Endpoint {
    Endpoint::new(format!("192.0.2.{number}").parse().unwrap(), 6, 80)
}

/// Where a backend is.
pub fn own(service: u8, number: u8) -> Endpoint {
    Endpoint::new(format!("10.0.{service}.{number}").parse().unwrap(), 6, 80)
}

/// Everything.
pub struct World {
    pub intent: Intent,
    pub conditions: Conditions,
    pub actual: Actual,
    pub tables: HostTables,
    pub counts: FlowCounts,
    seen: Seen,
}

impl World {
    /// Nothing in the tables yet.
    pub fn new(config: &str) -> Self {
        let intent = intent(config);
        let limits = intent.limits();
        let mut world = Self {
            intent,
            conditions: Conditions::default(),
            actual: Actual::new(limits),
            tables: HostTables::default(),
            counts: FlowCounts::default(),
            seen: Seen::default(),
        };
        world.conditions.interfaces.insert(1, [2; 6]);
        world.find_ways();
        world
    }

    /// Every backend is on the link.
    fn find_ways(&mut self) {
        let backends = self.intent.services().iter().flat_map(|service| &service.backends);
        for backend in backends {
            let address = backend.endpoint.ip();
            let hop = Hop { interface: 1, destination: [4; 6], source: [2; 6], mtu: 1_500 };
            self.conditions.ways.insert(address, Ok(Way { hop, gateway: None }));
        }
    }

    pub fn now(&self) -> Duration {
        Duration::from_secs(self.tables.seconds)
    }

    pub fn reload(&mut self, config: &str) {
        let before = std::mem::replace(&mut self.intent, intent(config));
        let mut targets = BTreeMap::new();
        for service in before.services() {
            for backend in &service.backends {
                let key = BackendKey { service: service.endpoint, own: backend.endpoint, mode: service.mode };
                targets.insert(key, backend.target.clone());
            }
        }
        self.conditions.leaving = leaving(&self.actual, &self.intent, &self.conditions, &targets, self.now());
        let intent = &self.intent;
        let is_there = |service: &Endpoint, own: &Endpoint| {
            let mut services = intent.services().iter().filter(|one| one.endpoint == *service);
            services.any(|one| one.backends.iter().any(|one| one.endpoint == *own))
        };
        self.conditions.drains.retain(|(service, own), _| is_there(service, own));
        self.find_ways();
    }

    pub fn set_up(&mut self, own: Endpoint, up: bool) {
        let services = self.intent.services().iter().flat_map(|service| &service.backends);
        for backend in services.filter(|backend| backend.endpoint == own) {
            if up {
                self.conditions.up.insert(backend.target.clone());
            } else {
                self.conditions.up.remove(&backend.target);
            }
        }
        let leaving = self.conditions.leaving.iter().filter(|(key, _)| key.own == own);
        for target in leaving.filter_map(|(_, leaving)| leaving.target.clone()) {
            if !up {
                self.conditions.up.remove(&target);
            }
        }
    }

    pub fn set_drained(&mut self, service: Endpoint, own: Endpoint, limit: Option<Option<u64>>) {
        let now = self.now();
        match limit {
            Some(limit) => {
                let deadline = limit.map(|limit| now + Duration::from_secs(limit));
                self.conditions.drains.insert((service, own), Draining { since: now, deadline });
            }
            None => _ = self.conditions.drains.remove(&(service, own)),
        }
    }

    /// Makes the tables what they should be, or stops after some steps.
    pub fn settle(&mut self, steps: usize) {
        let desired = Desired::new(&self.intent, &self.conditions, self.now());
        let mut left = steps;
        for _ in 0..4 {
            let ops = plan(&desired, &self.actual, self.now()).unwrap();
            if ops.is_empty() {
                return;
            }
            for op in &ops {
                if left == 0 {
                    return;
                }
                left -= 1;
                self.step(op);
            }
        }
        assert_eq!(plan(&desired, &self.actual, self.now()).unwrap(), [], "there is always more to do");
    }

    fn step(&mut self, op: &Op) {
        self.seen.step(&mut self.tables, &mut self.actual, op);
    }

    /// Sweeps, and lets go who has no flows any more.
    pub fn sweep(&mut self) {
        self.counts = host::sweep(&mut self.tables, &mut self.actual, self.intent.tracking());
        let (actual, counts) = (&self.actual, &self.counts);
        self.conditions.leaving.retain(|key, _| has_flows(actual, counts, key));
    }

    /// Another agent comes: it knows the tables and nothing else.
    pub fn restart(&mut self) {
        let mut actual = Actual::new(self.intent.limits());
        actual.settings = self.tables.settings;
        actual.interfaces = self.tables.interfaces.iter().map(|(index, one)| (*index, one.mac)).collect();
        for (id, backend) in &self.tables.backends {
            actual.record(&Op::PutBackend { id: *id, backend: *backend });
        }
        actual.returns = self.tables.returns.clone();
        actual.addresses = self.tables.addresses.clone();
        for (endpoint, id) in &self.tables.service_ids {
            let service = self.tables.services.get(id).unwrap();
            let region = Region::from_word(service.region);
            let slots =
                (region.first..region.first + region.slots).map(|index| *self.tables.slots.get(&index).unwrap());
            let deadline = self.now() + Duration::from_secs(ADOPT);
            actual.service_ids.take(*id);
            let service = ActualService::new(*id, service, &slots.collect(), None, deadline);
            actual.services.insert(*endpoint, service);
            actual.note_service(endpoint);
        }
        // Flows that lead to nothing.
        let gone: Vec<_> = self
            .tables
            .flows()
            .into_iter()
            .filter(|(_, key, flow)| {
                actual.services.values().all(|service| service.id != key.service())
                    || actual.backends.entry(flow.backend).is_none()
            })
            .map(|(table, key, _)| (table, key))
            .collect();
        host::apply(&mut self.tables, &Op::ForgetFlows { flows: gone.into() });
        self.actual = actual;
        let conditions = Conditions::default();
        self.conditions.leaving = leaving(&self.actual, &self.intent, &conditions, &BTreeMap::new(), self.now());
        for service in self.intent.services() {
            for backend in &service.backends {
                let key = BackendKey { service: service.endpoint, own: backend.endpoint, mode: service.mode };
                let up = self.actual.backends.get(&key).is_some_and(|(_, entry)| is_live(entry));
                let drained = self.conditions.drains.contains_key(&(service.endpoint, backend.endpoint));
                if !up && !drained {
                    self.conditions.up.remove(&backend.target);
                }
            }
        }
    }

    /// Where the backend with this id is.
    pub fn server(&self, id: Option<u32>) -> Option<Endpoint> {
        Some(self.actual.backends.entry(id?)?.own)
    }

    /// Slots with a history.
    pub fn changed(&self) -> usize {
        self.actual.changed_slots()
    }
}

fn intent(config: &str) -> Intent {
    Intent::new(&Config::parse(config).unwrap()).unwrap()
}

/// As many as the config has by default.
pub fn limits() -> Limits {
    Limits::default()
}
