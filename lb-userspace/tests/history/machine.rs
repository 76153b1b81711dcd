//! An agent without a kernel: it plans and sweeps as the real one, on tables in memory.

use crate::BACKENDS;
use lb_common::{
    hash,
    host::{Buffer, HostTables},
    path::steer,
    tables::{CLEAN, DOWN, DRAINING, Endpoint, FlowKey, FlowTable, IN_USE, Region, Slot, Tables as _, Tracked},
    verdict::Verdict,
    wire::transport::TCP,
};
use lb_userspace::{
    config::Config,
    model::{
        actual::{Actual, ActualService},
        backends::BackendKey,
        desired::{Conditions, Desired, Draining},
        flows::{Sweep, has_flows},
        host,
        intent::{Intent, Target},
        leaving::leaving,
        op::Op,
        plan::plan,
        reach::{Hop, Way},
    },
};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// The interface of everything.
const INTERFACE: u32 = 2;

pub struct Machine {
    weights: [Option<u32>; BACKENDS],
    up: [bool; BACKENDS],
    intent: Intent,
    conditions: Conditions,
    actual: Actual,
    tables: HostTables,
}

impl Machine {
    pub fn new() -> Self {
        let weights = [Some(1), Some(1), Some(2), None, None, None];
        let intent = intent(&weights);
        let actual = Actual::new(intent.limits());
        let mut conditions = Conditions::default();
        conditions.interfaces.insert(INTERFACE, [2, 0, 0, 0, 0, 1]);
        for number in 0..BACKENDS {
            let hop = Hop {
                interface: INTERFACE,
                destination: [2, 0, 0, 0, 1, number as u8],
                source: [2, 0, 0, 0, 0, 1],
                mtu: 1500,
            };
            conditions.ways.insert(address(number), Ok(Way { hop, gateway: None }));
        }
        let mut machine =
            Self { weights, up: [true; BACKENDS], intent, conditions, actual, tables: HostTables::default() };
        machine.now(1_000);
        machine.note_health();
        machine.settle();
        machine
    }

    pub fn now(&mut self, seconds: u64) {
        self.tables.seconds = seconds;
    }

    fn time(&self) -> Duration {
        Duration::from_secs(self.tables.seconds)
    }

    pub fn settle(&mut self) {
        let desired = Desired::new(&self.intent, &self.conditions, self.time());
        for _ in 0..4 {
            let ops = plan(&desired, &self.actual, self.time()).unwrap();
            if ops.is_empty() {
                return;
            }
            ops.iter().for_each(|op| self.apply(op));
        }
        panic!("a plan leaves something to do");
    }

    fn apply(&mut self, op: &Op) {
        host::apply(&mut self.tables, op);
        self.actual.record(op);
    }

    pub fn reload(&mut self, backend: usize, weight: Option<u32>) {
        let before = self.weights[backend];
        self.weights[backend] = weight;
        // The config wants at least one backend with a weight.
        if self.weights.iter().flatten().all(|weight| *weight == 0) {
            self.weights[backend] = before;
            return;
        }
        let targets = targets(&self.intent);
        self.intent = intent(&self.weights);
        self.conditions.leaving = leaving(&self.actual, &self.intent, &self.conditions, &targets, self.time());
        let intent = &self.intent;
        self.conditions
            .drains
            .retain(|(_, own), _| intent.services()[0].backends.iter().any(|one| one.endpoint == *own));
        self.note_health();
    }

    pub fn drain(&mut self, backend: usize, drain: bool) {
        let key = (service(), own(backend));
        if drain && self.weights[backend].is_some() {
            self.conditions.drains.insert(key, Draining { since: self.time(), deadline: None });
        } else {
            self.conditions.drains.remove(&key);
        }
    }

    pub fn health(&mut self, backend: usize, up: bool) {
        self.up[backend] = up;
        self.note_health();
    }

    fn note_health(&mut self) {
        let leaving = self.conditions.leaving.values().filter_map(|leaving| leaving.target.clone());
        let known = self.intent.targets().into_iter().chain(leaving);
        let up = known
            .filter(|target| (0..BACKENDS).any(|number| self.up[number] && address(number) == target.address.ip()));
        self.conditions.up = up.collect();
    }

    /// As the agent does it every few seconds.
    pub fn sweep(&mut self) {
        let ops = self.look().clean();
        ops.iter().for_each(|op| self.apply(op));
        let (forget, counts) = self.look().end();
        forget.iter().for_each(|op| self.apply(op));
        let actual = &self.actual;
        self.conditions.leaving.retain(|key, _| has_flows(actual, &counts, key));
        self.settle();
    }

    fn look(&self) -> Sweep<'_> {
        let mut sweep = Sweep::new(&self.actual, self.intent.tracking(), self.tables.seconds);
        for (table, key, flow) in self.tables.flows() {
            sweep.look(table, &key, flow);
        }
        sweep
    }

    /// Another agent takes the tables over: it finds what they hold and nothing else.
    pub fn restart(&mut self) {
        let mut actual = Actual::new(self.intent.limits());
        let opened = self.time() + self.intent.tracking().adopt;
        let in_use = self.tables.backends.iter().filter(|(_, backend)| backend.flags & IN_USE != 0);
        for (id, backend) in in_use {
            actual.record(&Op::PutBackend { id: *id, backend: *backend });
        }
        actual.settings = self.tables.settings;
        actual.interfaces = self.actual.interfaces.clone();
        actual.addresses = self.actual.addresses.clone();
        for (endpoint, id) in &self.tables.service_ids {
            let service = self.tables.services[id];
            let region = Region::from_word(service.region);
            actual.service_ids.take(*id);
            let slots = self.slots_of(region).into();
            actual.services.insert(*endpoint, ActualService::new(*id, &service, &slots, None, opened));
            actual.note_service(endpoint);
        }
        let lives = |flags: u16| flags & DOWN == 0;
        self.conditions.drains = actual
            .backends
            .iter()
            .filter(|(_, backend)| backend.flags & DRAINING != 0 && self.is_in_config(backend.own))
            .map(|(_, backend)| ((backend.service, backend.own), Draining::default()))
            .collect();
        let known: Vec<_> = actual.backends.iter().map(|(_, backend)| (backend.own, lives(backend.flags))).collect();
        for (number, up) in self.up.iter().enumerate() {
            if let Some((_, lives)) = known.iter().find(|(endpoint, _)| *endpoint == own(number)) {
                assert!(!lives || *up, "a backend that is down is live in the tables");
            }
        }
        let targets = targets(&self.intent);
        self.conditions.leaving = leaving(&actual, &self.intent, &self.conditions, &targets, self.time());
        self.actual = actual;
        self.note_health();
        self.settle();
    }

    fn is_in_config(&self, endpoint: Endpoint) -> bool {
        self.intent.services()[0].backends.iter().any(|backend| backend.endpoint == endpoint)
    }

    fn slots_of(&self, region: Region) -> Vec<Slot> {
        (region.first..region.first + region.slots).map(|index| self.tables.slots[&index]).collect()
    }

    /// The backend that a frame goes to.
    pub fn serves(&self, frame: &[u8]) -> Option<usize> {
        let mut buffer = Buffer::new(frame, INTERFACE, 64, 0);
        match steer(&mut buffer, &self.tables) {
            Verdict::Transmit(_) => Some(buffer.bytes()[5].into()),
            Verdict::Pass(_) | Verdict::Drop(_) => None,
            Verdict::Redirect(..) => panic!("there is but one interface"),
        }
    }

    /// The backend that new flows in a frame's slot go to.
    pub fn owner(&self, frame: &[u8]) -> Option<usize> {
        let id = self.slot(frame).current;
        let owner = self.tables.backends.get(&id)?;
        (0..BACKENDS).find(|number| own(*number) == owner.own)
    }

    pub fn is_clean(&self, frame: &[u8]) -> bool {
        self.slot(frame).previous == CLEAN
    }

    fn slot(&self, frame: &[u8]) -> Slot {
        let id = self.tables.service_ids[&service()];
        let region = Region::from_word(self.tables.services[&id].region);
        let client = IpAddr::from([frame[26], frame[27], frame[28], frame[29]]);
        let key = FlowKey::new(&Endpoint::new(client, TCP, 40_000), &service(), id);
        let hash = hash::flow(&self.intent.keys(), key.words());
        self.tables.slots[&(region.first + hash::slot(hash, region.slots))]
    }

    pub fn flows(&self) -> Vec<(FlowTable, FlowKey, Tracked)> {
        self.tables.flows()
    }

    /// Clients and backends of the flows in the table that a flood must not reach.
    pub fn established(&self) -> BTreeMap<FlowKey, u32> {
        let flows = self.flows().into_iter().filter(|(table, ..)| *table == FlowTable::Established);
        flows.map(|(_, key, flow)| (key, flow.backend)).collect()
    }

    /// Leaves this many half-open flows; returns the addresses of the clients of the others.
    pub fn push_out_half_open(&self, keep: usize) -> Vec<u32> {
        let mut half_open: Vec<_> =
            self.flows().into_iter().filter(|(table, ..)| *table == FlowTable::HalfOpen).collect();
        half_open.sort_by_key(|(_, _, flow)| flow.seen);
        let out = half_open.len().saturating_sub(keep);
        let gone = half_open.into_iter().take(out).map(|(table, key, _)| {
            self.tables.forget(table, &key);
            u32::from_be(key.address[0] as u32)
        });
        gone.collect()
    }

    pub fn changed_slots(&self) -> usize {
        self.actual.changed_slots()
    }
}

fn address(number: usize) -> IpAddr {
    IpAddr::from([10, 0, 0, number as u8])
}

fn own(number: usize) -> Endpoint {
    Endpoint::new(address(number), TCP, 80)
}

fn service() -> Endpoint {
    Endpoint::new(IpAddr::from([192, 0, 2, 10]), TCP, 80)
}

fn targets(intent: &Intent) -> BTreeMap<BackendKey, Target> {
    let service = &intent.services()[0];
    let target = |backend: &lb_userspace::model::intent::Backend| {
        (BackendKey { service: service.endpoint, own: backend.endpoint, mode: service.mode }, backend.target.clone())
    };
    service.backends.iter().map(target).collect()
}

fn intent(weights: &[Option<u32>; BACKENDS]) -> Intent {
    let mut text = String::from(
        "interfaces = [\"eth0\"]\nsecret = \"only for tests, nobody keeps it\"\n\
         [[service]]\nname = \"web\"\naddress = \"192.0.2.10\"\nport = 80\nmode = \"dsr\"\nslots = 251\n",
    );
    for (number, weight) in weights.iter().enumerate() {
        if let Some(weight) = weight {
            text += &format!("[[service.backend]]\naddress = \"{}\"\nweight = {weight}\n", address(number));
        }
    }
    Intent::new(&Config::parse(&text).unwrap()).unwrap()
}
