//! One set of tables, in the kernel and on the host, and the same frames through both.

use crate::{Host, Interface};
use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf,
    maps::{Map, MapData, MapInfo, PerCpuArray, PerCpuValues},
    programs::{TestRun as _, TestRunOptions},
    util::nr_cpus,
};
use lb_common::{
    host::{Buffer, HostTables},
    path::steer,
    tables::{
        CLEAN, DEFAULT_BACKENDS, DEFAULT_SERVICES, Endpoint, FlowKey, FlowTable, Region, Route, Service, Slot,
        Tables as _, address_words,
        answers::{BodyHead, CACHED, DnsSettings, LIMITED, Lapse, Pick, TURNS},
    },
    verdict::{Verdict, Why},
    wire::ethernet,
};
use lb_userspace::{
    config::Config,
    kernel::{
        load::{load, program},
        maps::Maps,
        trace::{self, Tracer},
    },
    model::{
        actual::Actual,
        answers::placed::Put,
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
    time::{ClockId, clock_gettime},
    unistd::Pid,
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    thread::sleep,
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
/// The second since 1970 that DNS cookies are made in.
pub const WALL_CLOCK: u32 = 1_700_000_000;
/// The secret of DNS cookies, as in the config.
pub const COOKIE_SECRET: [u8; 16] = 0xe5e9_73e5_a6b2_a43f_48e7_dc84_9e37_bfcf_u128.to_be_bytes();
/// Seconds by which what ages has aged.
const AGE: u64 = 5;
const WWW: &[u8] = b"\x03www\x07example\x03com\0";
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
    /// The program that frames are run through.
    program: &'static str,
    maps: Maps,
    host: HostTables,
    backends: Vec<u32>,
    ops: Vec<Op>,
    turns: PerCpuArray<MapData, u32>,
    moment: Moment,
}

/// What holds for DNS when a frame comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The agent lives, and rates are not limited.
    Usual,
    /// No client has a token for an answer left, and none is told so.
    Limited,
    /// Likewise, but each is told to ask by TCP.
    Slipping,
    /// No client has a token left for what is handed to the agent.
    MissLimited,
    /// Each has a few tokens, and gets one more each second.
    Counting,
    /// The agent is long gone: its questions pass to its sockets.
    Lapsed,
    /// The agent is long gone: SERVFAIL.
    Refusing,
}

impl Moment {
    fn settings(self, dns: DnsSettings, now: Duration) -> DnsSettings {
        let lease_until = if matches!(self, Self::Lapsed | Self::Refusing) { 1 } else { u64::MAX };
        let dns = DnsSettings { lease_until, wall_offset: WALL_CLOCK.wrapping_sub(now.as_secs() as u32).into(), ..dns };
        let limited = |answers: Option<u32>, misses: Option<u32>, slip: u64| {
            // One a second, and so many at the most; or as many as come.
            let rate = |most: Option<u32>| most.map_or(0, |most| 1 | u64::from(most) << 32);
            let (features, slip_and_prefixes) = (dns.features | LIMITED, slip | 24 << 8 | 56 << 16);
            DnsSettings { features, answer_rate: rate(answers), miss_rate: rate(misses), slip_and_prefixes, ..dns }
        };
        match self {
            Self::Usual | Self::Lapsed => dns,
            Self::Refusing => DnsSettings { features: dns.features | (Lapse::Fail as u64) << 32, ..dns },
            Self::Limited => limited(Some(0), None, 0),
            Self::Slipping => limited(Some(0), None, 1),
            Self::MissLimited => limited(None, Some(0), 0),
            Self::Counting => limited(Some(20), Some(20), 3),
        }
    }
}

impl Fixture {
    /// Loads the program in the namespace of a routed lab's balancer, where the replies' routes are, and writes the same tables
    /// to its maps and to the host's. Call it, and everything else, within [`Host::inside`].
    pub fn load(balancer: &Host) -> Result<Self> {
        let eth0 = balancer.interface("eth0").context("the balancer has no eth0")?;
        let eth1 = balancer.interface("eth1").context("the balancer has no eth1")?;
        let intent = intent()?;
        let (mut ebpf, mut maps) = load(None, intent.limits())?;
        let ops = ops(&intent, eth0, eth1)?;
        ops.iter().try_for_each(|op| maps.apply(op))?;
        let host = on_host(&ops, eth0, eth1)?;
        let backends = host.backends.keys().copied().collect();
        let turns = turns(&mut ebpf)?;
        let mut fixture = Self { ebpf, program: "lb", maps, host, backends, ops, turns, moment: Moment::Usual };
        fixture.forget()?;
        Ok(fixture)
    }

    /// From now on, frames are run through the program that takes samples.
    pub fn trace(&mut self) -> Result<Tracer> {
        let mut tracer = Tracer::take(&mut self.ebpf)?;
        tracer.begin(&mut self.ebpf)?;
        [self.program, _] = trace::PROGRAMS;
        Ok(tracer)
    }

    /// Runs a frame through both, each at the same moment of its clock: what came of it in the kernel, and on the host.
    pub fn in_both(&mut self, frame: &[u8]) -> Result<[Outcome; 2]> {
        let before = clock()?;
        let kernel = self.in_kernel(frame)?;
        let after = clock()?;
        let earlier = (before != after).then(|| self.host.clone());
        let mut host = self.on_host_at(before, frame);
        if let Some(earlier) = earlier.filter(|_| host != kernel) {
            // The kernel may have read its clock when it had moved on.
            self.host = earlier;
            host = self.on_host_at(after, frame);
        }
        Ok([kernel, host])
    }

    /// Has both go on as if it were this moment for DNS.
    pub fn go_to(&mut self, moment: Moment) -> Result<()> {
        self.moment = moment;
        self.put_dns(clock()?)
    }

    fn put_dns(&mut self, now: Duration) -> Result<()> {
        let settings = self.ops.iter().rev().find_map(|op| if let Op::PutDns(dns) = op { Some(*dns) } else { None });
        let op = Op::PutDns(self.moment.settings(settings.context("the fixture has no DNS")?, now));
        self.maps.apply(&op)?;
        host::apply(&mut self.host, &op);
        Ok(())
    }

    /// Runs a frame through the program in the kernel.
    pub fn in_kernel(&mut self, frame: &[u8]) -> Result<Outcome> {
        let before = (self.maps.counts()?, self.kernel_traffic()?);
        let mut out = vec![0; 4096];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = program(&mut self.ebpf, self.program)?.test_run(options).context("BPF_PROG_TEST_RUN failed")?;
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

    fn on_host_at(&mut self, now: Duration, frame: &[u8]) -> Outcome {
        (self.host.seconds, self.host.nanoseconds) = (now.as_secs(), now.subsec_nanos().into());
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

    /// Forgets what frames have left, but for the first fragments of datagrams: flows, and whose turn it is. What ages is as old as
    /// when the fixture was new.
    pub fn forget(&mut self) -> Result<()> {
        let now = early_in_a_second()?;
        let [kernel, host] = self.flows()?;
        let flows = |flows: Flows| Op::ForgetFlows { flows: flows.into_keys().collect() };
        self.maps.apply(&flows(kernel))?;
        host::apply(&mut self.host, &flows(host));
        for op in &self.ops {
            let op = at(op, now.as_secs());
            self.maps.apply(&op)?;
            host::apply(&mut self.host, &op);
        }
        let none = || PerCpuValues::try_from(vec![0; nr_cpus().map_err(|(_, error)| error)?]);
        for row in 0..TURNS {
            self.turns.set(row, none()?, 0)?;
            self.host.with_turn(row, |turn| turn.set(0));
        }
        self.put_dns(now)
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

/// The clock that the program reads.
fn clock() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE)?.into())
}

/// The clock, when its second is not about to end: what is compared with a recording has no time to age.
fn early_in_a_second() -> Result<Duration> {
    loop {
        let now = clock()?;
        if now.subsec_millis() < 900 {
            return Ok(now);
        }
        sleep(Duration::from_millis(10));
    }
}

/// A step as it is at this second: what ages has aged by [`AGE`] seconds.
fn at(op: &Op, seconds: u64) -> Op {
    let Op::PutAnswer(put) = op else { return op.clone() };
    let mut put = Put::clone(put);
    for (_, words) in put.words.iter_mut().filter(|_| put.held.image.is_cached()) {
        if let Some(since) = words.get_mut(std::mem::offset_of!(BodyHead, since) / 8) {
            *since = seconds.saturating_sub(AGE);
        }
    }
    Op::PutAnswer(put.into())
}

/// The sequences of turns in the kernel, which the agent itself never writes again.
fn turns(ebpf: &mut Ebpf) -> Result<PerCpuArray<MapData, u32>> {
    let ids = program(ebpf, "lb")?.info()?.map_ids()?.context("the kernel does not name the maps of a program")?;
    for id in ids {
        if MapInfo::from_id(id)?.name_as_str() == Some("TURN") {
            return Ok(Map::from_map_data(MapData::from_id(id)?)?.try_into()?);
        }
    }
    bail!("the program has no turns")
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
    let now = tables.seconds;
    ops.iter().for_each(|op| host::apply(&mut tables, &at(op, now)));
    tables.dns = tables.dns.map(|dns| Moment::Usual.settings(dns, Duration::from_secs(now)));
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
                conditions.up.insert(backend.target.clone());
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
        let names = desired::names(intent, &conditions);
        desired.answers.replace(names.all());
        desired.answers.put(&question(b"\x05spent\x07example\x03com\0"), &cached(1));
        desired.answers.put(&question(b"\x06cached\x07example\x03com\0"), &cached(u64::MAX - 1));
        for absent in [question(b"\x06absent\x07example\x03com\0"), Question { kind: 0x1_000f, ..question(WWW) }] {
            let rendered = names.answer(&absent.wire, absent.kind).context("the names do not say what is absent")?;
            desired.answers.put(&absent, &rendered);
        }
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

/// For an address of this name.
fn question(wire: &[u8]) -> Question {
    Question { wire: wire.into(), kind: 0x1_0001 }
}

/// Two addresses of a name that is asked for, with TTLs that are aged, one of them at an odd offset.
fn cached(spent_at: u64) -> Rendered {
    let first = b"\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04\xc6\x33\x64\x09";
    let second = b"\x01x\xc0\x0c\0\x10\0\x01\0\0\x0e\x11\0\x02\x01y";
    let records = [first.as_slice(), second, first].concat();
    let ttls = vec![6, 16 + 8, 16 + 16 + 6];
    let body = Body { class: CACHED, flags: 0x8080, counts: [2, 0, 1], records, ttls, spent_at, ..Body::default() };
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
