//! One set of tables, in the kernel and on the host, and the same frames through both.

use crate::{Host, Interface};
use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    programs::{TestRun as _, TestRunOptions},
};
use lb_common::{
    host::{Buffer, HostTables},
    path::steer,
    tables::{
        CLEAN, DEFAULT_BACKENDS, DEFAULT_SERVICES, Endpoint, FlowKey, FlowTable, Region, Route, Service, Slot,
        address_words,
        answers::{CACHED, Pick},
    },
    verdict::{Verdict, Why},
    wire::ethernet,
};
use lb_userspace::{
    config::Config,
    kernel::{
        load::{load, program},
        maps::Maps,
    },
    model::{
        actual::Actual,
        desired::{self, Conditions, Desired, Draining},
        dns::rendered::{Body, Question, Rendered},
        host,
        intent::Intent,
        op::Op,
        plan::plan,
        reach::{Hop, Way},
    },
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Duration,
};

const CONFIG: &str = include_str!("../fixture.toml");
/// The interface that a test run's frames come in by: loopback.
const LOOPBACK: u32 = 1;
const LOOPBACK_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Room of a test run's frame: a page less the headroom (256) and what the kernel keeps behind the frame (320).
const FRAME_ROOM: usize = 4096 - 256 - 320;
const HEADROOM: usize = 192;
/// The backend of this service is up in no table: its slots name an id that nobody has.
pub const BROKEN_SERVICE: &str = "192.0.2.66";
/// A client whose neighbour entry is complete.
pub const KNOWN_CLIENTS: [&str; 2] = ["10.78.1.10", "fd78:1::10"];
/// A client on the link whose neighbour entry is not there yet.
pub const UNKNOWN_CLIENTS: [&str; 2] = ["10.78.1.77", "fd78:1::77"];
/// The balancer's own addresses.
pub const OWN_ADDRESSES: [&str; 2] = ["10.78.1.1", "fd78:1::1"];

/// What a program did with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Left to the kernel's stack.
    Pass,
    /// Sent back out of the interface it came in by.
    Transmit,
    /// Sent out of another one.
    Redirect,
    /// Dropped.
    Drop,
}

/// What came of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the program did.
    pub action: Action,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// The counters that moved, and by how much.
    pub counts: BTreeMap<Why, u64>,
    /// Packets and bytes sent to backends, by id.
    pub traffic: BTreeMap<u32, (u64, u64)>,
}

/// Tracked flows: where each is, and whether it is ending.
pub type Flows = BTreeMap<(FlowTable, FlowKey), (u32, bool)>;

/// The tables in the kernel and on the host.
pub struct Fixture {
    ebpf: Ebpf,
    maps: Maps,
    host: HostTables,
    backends: Vec<u32>,
    ops: Vec<Op>,
}

impl Fixture {
    /// Loads the program in the namespace of a routed lab's balancer, where the replies' routes are, and writes the same tables
    /// to its maps and to the host's. Call it, and everything else, within [`Host::inside`].
    pub fn load(balancer: &Host) -> Result<Self> {
        let eth0 = balancer.interface("eth0").context("the balancer has no eth0")?;
        let eth1 = balancer.interface("eth1").context("the balancer has no eth1")?;
        let intent = intent()?;
        let (ebpf, mut maps) = load(None, intent.limits())?;
        let ops = ops(&intent, eth0, eth1)?;
        ops.iter().try_for_each(|op| maps.apply(op))?;
        let host = on_host(&ops, eth0, eth1)?;
        let backends = host.backends.keys().copied().collect();
        Ok(Self { ebpf, maps, host, backends, ops })
    }

    /// Runs a frame through the program in the kernel.
    pub fn in_kernel(&mut self, frame: &[u8]) -> Result<Outcome> {
        let before = (self.maps.counts()?, self.kernel_traffic()?);
        let mut out = vec![0; 4096];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = program(&mut self.ebpf, "lb")?.test_run(options).context("BPF_PROG_TEST_RUN failed")?;
        let action = match result.return_value {
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Transmit,
            4 => Action::Redirect,
            other => bail!("the program returned {other}"),
        };
        out.truncate(result.data_size_out as usize);
        let after = (self.maps.counts()?, self.kernel_traffic()?);
        Ok(Outcome {
            action,
            frame: out,
            counts: moved(&before.0, &after.0, |after, before| after - before),
            traffic: moved(&before.1, &after.1, |after, before| (after.0 - before.0, after.1 - before.1)),
        })
    }

    fn kernel_traffic(&self) -> Result<BTreeMap<u32, (u64, u64)>> {
        let traffic = |id: &u32| {
            let traffic = self.maps.traffic(*id)?;
            Ok((*id, (traffic.packets, traffic.bytes)))
        };
        self.backends.iter().map(traffic).collect()
    }

    /// Runs a frame through the path on the host.
    pub fn on_host(&mut self, frame: &[u8]) -> Outcome {
        let before = (self.host.counts(), self.host_traffic());
        let mut buffer = Buffer::new(frame, LOOPBACK, HEADROOM, FRAME_ROOM - frame.len());
        let action = match steer(&mut buffer, &self.host) {
            Verdict::Pass(_) => Action::Pass,
            Verdict::Transmit(_) => Action::Transmit,
            Verdict::Redirect(..) => Action::Redirect,
            Verdict::Drop(_) => Action::Drop,
        };
        let after = (self.host.counts(), self.host_traffic());
        Outcome {
            action,
            frame: buffer.bytes().to_vec(),
            counts: moved(&before.0, &after.0, |after, before| after - before),
            traffic: moved(&before.1, &after.1, |after, before| (after.0 - before.0, after.1 - before.1)),
        }
    }

    /// Forgets in the kernel what frames have left there, but for the first fragments of datagrams: flows, and whose turn it is.
    pub fn forget(&mut self) -> Result<()> {
        let [kernel, _] = self.flows()?;
        let flows = kernel.into_keys().collect();
        self.maps.apply(&Op::ForgetFlows { flows })?;
        self.ops.iter().try_for_each(|op| Ok(self.maps.apply(op)?))
    }

    /// The flows that are tracked in the kernel and on the host, each with its backend.
    pub fn flows(&self) -> Result<[Flows; 2]> {
        let mut kernel = Flows::new();
        self.maps.for_each_flow(|table, key, flow| _ = kernel.insert((table, *key), (flow.backend, flow.closing)))?;
        let host = self.host.flows().into_iter();
        Ok([kernel, host.map(|(table, key, flow)| ((table, key), (flow.backend, flow.closing))).collect()])
    }

    fn host_traffic(&self) -> BTreeMap<u32, (u64, u64)> {
        self.host.traffic().into_iter().map(|(id, traffic)| (id, (traffic.packets, traffic.bytes))).collect()
    }
}

/// The routes of a routed lab's balancer.
fn add_routes(tables: &mut HostTables, eth0: &Interface, eth1: &Interface) -> Result<()> {
    for interface in [eth0, eth1] {
        tables.links.extend([(interface.ipv4.into(), 24), (interface.ipv6.into(), 64)]);
        // For this machine, or for all on the link.
        let [a, b, c, _] = interface.ipv4.octets();
        let network = Ipv6Addr::from_bits(interface.ipv6.to_bits() >> 64 << 64);
        let broadcast = [0, 255].map(|last| IpAddr::from([a, b, c, last]));
        for address in [interface.ipv4.into(), interface.ipv6.into(), network.into()].into_iter().chain(broadcast) {
            tables.routes.insert(address_words(address), Route::NotForwarded);
        }
    }
    for address in KNOWN_CLIENTS {
        let client = [2, 0, 0, 0, 0, 0x10];
        let route = Route::Via { interface: eth0.index, ethernet: ethernet::addresses(client, eth0.mac) };
        tables.routes.insert(address_words(address.parse()?), route);
    }
    Ok(())
}

fn moved<K: Copy + Ord, V: Copy + Default + PartialEq>(
    before: &BTreeMap<K, V>,
    after: &BTreeMap<K, V>,
    difference: impl Fn(V, V) -> V,
) -> BTreeMap<K, V> {
    let moved =
        after.iter().map(|(key, value)| (*key, difference(*value, before.get(key).copied().unwrap_or_default())));
    moved.filter(|(_, difference)| *difference != V::default()).collect()
}

/// What the kernel needs so that replies to the known clients have a way: complete neighbour entries.
pub fn neighbors(balancer: &Host) -> Result<()> {
    let add = |address| format!("neigh replace {address} lladdr 02:00:00:00:00:10 dev eth0 nud permanent");
    balancer.ip(&KNOWN_CLIENTS.map(add))
}

/// The tables on the host alone, as a lab's balancer would have them.
pub fn tables() -> Result<HostTables> {
    let interface = |index: u8| Interface {
        name: format!("eth{}", index - 2),
        index: index.into(),
        mac: [2, 0, 0, 0, 0, index],
        ipv4: [10, 78, index - 1, 1].into(),
        ipv6: [0xfd78, (index - 1).into(), 0, 0, 0, 0, 0, 1].into(),
    };
    let (eth0, eth1) = (interface(2), interface(3));
    on_host(&ops(&intent()?, &eth0, &eth1)?, &eth0, &eth1)
}

fn on_host(ops: &[Op], eth0: &Interface, eth1: &Interface) -> Result<HostTables> {
    let mut tables = HostTables::default();
    tables.seconds = 1_000_000;
    tables.mtu = Some(1500);
    ops.iter().for_each(|op| host::apply(&mut tables, op));
    add_routes(&mut tables, eth0, eth1)?;
    Ok(tables)
}

fn intent() -> Result<Intent> {
    Ok(Intent::new(&Config::parse(CONFIG)?)?)
}

/// The steps that make the fixture's tables from nothing.
fn ops(intent: &Intent, eth0: &Interface, eth1: &Interface) -> Result<Vec<Op>> {
    let mut conditions = Conditions::default();
    conditions.interfaces.insert(LOOPBACK, LOOPBACK_MAC);
    conditions.interfaces.insert(eth0.index, eth0.mac);
    conditions.interfaces.insert(eth1.index, eth1.mac);
    for service in intent.services() {
        for backend in &service.backends {
            let address = backend.endpoint.ip();
            let (interface, source) = if is_near(address) { (LOOPBACK, LOOPBACK_MAC) } else { (eth1.index, eth1.mac) };
            let number = number(address);
            let hop = Hop { interface, destination: [2, 0, 0, 0, 1, number], source, mtu: 1500 };
            conditions.ways.insert(address, Ok(Way { hop, gateway: None }));
            if service.name != "down4" {
                conditions.up.insert(backend.target);
            }
        }
    }
    let mut actual = Actual::new(intent.limits());
    let mut answers = Desired::default();
    let mut ops = Vec::new();
    // One service's windows are over when those of others are opened.
    for (now, drained) in [(0, ""), (1, "closed"), (1_000, "open")] {
        let services =
            intent.services().iter().filter(|service| !drained.is_empty() && service.name.starts_with(drained));
        for service in services {
            let drained = service.backends.iter().filter(|backend| backend.endpoint.ip().to_string().ends_with('9'));
            conditions
                .drains
                .extend(drained.map(|backend| ((service.endpoint, backend.endpoint), Draining::default())));
        }
        let now = Duration::from_secs(now);
        let mut desired = Desired::new(intent, &conditions, now);
        desired.keep_answers(answers);
        desired.answers.replace(desired::names(intent, &conditions).all());
        desired.answers.put(&spent(), &cached(0, 1));
        let steps = plan(&desired, &actual, now)?;
        steps.iter().for_each(|op| actual.record(op));
        ops.extend(steps);
        answers = desired;
    }

    // What no plan would do: a service whose slots lead to nobody.
    let region = actual.regions.first_free(251).context("the slot space is full")?;
    let slots: Arc<[Slot]> = vec![Slot { current: DEFAULT_BACKENDS - 1, previous: CLEAN }; 251].into();
    ops.push(Op::WriteTable { region, slots: Arc::clone(&slots) });
    let mut settings = actual.settings.context("no settings")?;
    settings.known.add(&address_words(BROKEN_SERVICE.parse()?));
    ops.push(Op::PutSettings(settings.into()));
    ops.push(broken_service(region, slots)?);
    Ok(ops)
}

/// What has outlived its TTL.
fn spent() -> Question {
    Question { wire: b"\x05spent\x07example\x03com\0".as_slice().into(), kind: 0x1_0001 }
}

/// An address of a name that is asked for, with a TTL that is aged.
fn cached(since: u64, spent_at: u64) -> Rendered {
    let records = b"\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04\xc6\x33\x64\x09".to_vec();
    let body = Body {
        class: CACHED,
        flags: 0x8080,
        counts: [1, 0, 0],
        records,
        ttls: vec![6],
        since,
        spent_at,
        ..Body::default()
    };
    Rendered { pick: Pick::Only, slots: Vec::new(), bodies: vec![body] }
}

fn broken_service(region: Region, slots: Arc<[Slot]>) -> Result<Op> {
    let endpoint = Endpoint::new(BROKEN_SERVICE.parse()?, 6, 80);
    let id = DEFAULT_SERVICES - 1;
    let service = Service { region: region.word(), flags: 0, id };
    Ok(Op::PutService { id, endpoint, service, slots, reached: None })
}

/// The last byte of an address.
fn number(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(address) => address.octets().last().copied().unwrap_or_default(),
        IpAddr::V6(address) => address.octets().last().copied().unwrap_or_default(),
    }
}

fn is_near(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.octets().get(2) == Some(&9),
        IpAddr::V6(address) => address.segments().get(1) == Some(&9),
    }
}

/// Keeps this thread on the first CPU: turns are counted by CPU, and the host has but one.
pub fn stay_on_one_cpu() -> Result<()> {
    stay_on_cpu(0)
}

/// Keeps this thread on a CPU.
pub fn stay_on_cpu(number: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(number)?;
    sched_setaffinity(Pid::from_raw(0), &cpus).with_context(|| format!("cannot stay on CPU {number}"))
}
