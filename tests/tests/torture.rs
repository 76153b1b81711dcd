//! The tables change on one CPU while packets go through the program on another: no packet is sent where it does not belong, and
//! no flow leaves a live backend.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "tests and their helpers")]

use aya::programs::{TestRun as _, TestRunOptions};
use etherparse::PacketBuilder;
use lb_common::{tables::Endpoint, verdict::Why};
use lb_userspace::{
    config::Config,
    kernel::{
        load::{load, program},
        maps::Maps,
    },
    model::{
        actual::Actual,
        backends::BackendKey,
        desired::{Conditions, Desired},
        intent::{Intent, Limits, Target},
        leaving::leaving,
        reach::{Hop, Way},
    },
    settle::{settle, sweep},
};
use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};
use tests::{needs_root, numbers::Numbers, skip};

/// Backends of each service.
const BACKENDS: usize = 4;
/// Clients of each service.
const CLIENTS: usize = 64;
/// Changes that are made.
const CHANGES: usize = 600;
/// Frames come in by loopback and leave by it.
const LOOPBACK: u32 = 1;
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// What `BPF_PROG_TEST_RUN` gives for a frame that leaves by the interface that it came in by, and for one that passes.
const XDP_TX: u32 = 3;
const XDP_PASS: u32 = 2;

/// How often a backend has begun or ended to fail or to go, which is odd meanwhile: a flow that was there before may be elsewhere
/// afterwards.
type Losses = [[AtomicU64; BACKENDS]; 2];

#[test]
fn tables_change_under_traffic() {
    const NAME: &str = "tables_change_under_traffic";
    if !needs_root(NAME) {
        return;
    }
    if thread::available_parallelism().unwrap().get() < 2 {
        return skip(NAME, "it takes two CPUs");
    }
    let (mut ebpf, maps) = load(None, Limits::default()).unwrap();
    let (losses, over, rounds) = (Losses::default(), AtomicBool::new(false), AtomicU64::new(0));
    let mut changer = Changer::new(maps, &losses);
    changer.settle();
    thread::scope(|scope| {
        let traffic = scope.spawn(|| {
            let _end = End(&over);
            let lb = program(&mut ebpf, "lb").unwrap();
            stay_on_cpu(0);
            let mut clients: Vec<Client> = (0..2 * CLIENTS).map(Client::new).collect();
            let mut packets = 0_u64;
            while !over.load(Ordering::SeqCst) {
                for client in &mut clients {
                    client.send(lb, &losses);
                    packets += 1;
                }
                rounds.fetch_add(1, Ordering::SeqCst);
            }
            packets
        });
        let changes = scope.spawn(|| {
            let _end = End(&over);
            stay_on_cpu(1);
            let mut numbers = Numbers::new(1);
            for _ in 0..CHANGES {
                changer.change(&mut numbers);
                // Every flow is seen between two changes, as an adoption window lasts for many.
                let seen = rounds.load(Ordering::SeqCst);
                while rounds.load(Ordering::SeqCst) < seen + 2 && !over.load(Ordering::SeqCst) {
                    thread::yield_now();
                }
            }
            changer.maps
        });
        let packets = traffic.join().unwrap();
        let counts = changes.join().unwrap().counts().unwrap();
        assert!(packets > 10 * CHANGES as u64, "only {packets} packets went through");
        assert_eq!(counts[&Why::Inconsistent], 0);
        assert!(counts[&Why::ForwardedDsr] > packets / 2, "{counts:?}");
        println!("{packets} packets during {CHANGES} changes");
    });
}

/// Ends both sides when one of them does, however it ends.
struct End<'o>(&'o AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A flow that is never silent for long.
struct Client {
    service: usize,
    frames: [Vec<u8>; 2],
    begun: bool,
    /// The backend that serves it, and how often that one had failed before.
    home: Option<(usize, u64)>,
}

impl Client {
    fn new(number: usize) -> Self {
        let service = number % 2;
        let frame = |begins: bool| {
            let to = address(service).to_string().parse::<std::net::Ipv4Addr>().unwrap().octets();
            let builder = PacketBuilder::ethernet2([4; 6], MAC).ipv4([10, 1, 0, number as u8], to, 64);
            let builder = builder.tcp(40_000, 80, 1, 1_000);
            let mut bytes = Vec::new();
            if begins { builder.syn() } else { builder.ack(1) }.write(&mut bytes, &[0; 20]).unwrap();
            bytes
        };
        Self { service, frames: [frame(true), frame(false)], begun: false, home: None }
    }

    fn send(&mut self, lb: &aya::programs::Xdp, losses: &Losses) {
        let losses = |backend: usize| losses[self.service][backend].load(Ordering::SeqCst);
        // Counted before the packet: a loss that comes while it is on its way excuses it.
        let excused = self.home.is_some_and(|(backend, before)| losses(backend) != before || before % 2 == 1);
        let before: [u64; BACKENDS] = std::array::from_fn(losses);
        let frame = &self.frames[usize::from(self.begun)];
        let mut out = vec![0; frame.len()];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = lb.test_run(options).unwrap();
        if result.return_value == XDP_PASS {
            // The service is away; its flows end with it.
            assert_eq!(out, *frame, "a frame that passes is changed");
            (self.home, self.begun) = (None, false);
            return;
        }
        assert_eq!(result.return_value, XDP_TX);
        assert_eq!(out[6..], [&MAC[..], &frame[12..]].concat()[..], "more than the receiver is changed");
        assert_eq!(
            out[..5],
            [2, 0, 0, 1, self.service as u8],
            "a packet of service {} went to another's backend",
            self.service
        );
        let backend = usize::from(out[5]);
        if let Some((home, count)) = self.home.filter(|_| !excused)
            && home != backend
        {
            assert_ne!(
                losses(home),
                count,
                "a flow of service {} went from live backend {home} to {backend}",
                self.service
            );
        }
        self.home = Some((backend, before[backend]));
        self.begun = true;
    }
}

/// An agent whose config and health change all the time.
struct Changer<'l> {
    maps: Maps,
    actual: Actual,
    conditions: Conditions,
    intent: Intent,
    weights: [[u32; BACKENDS]; 2],
    there: [bool; 2],
    up: [[bool; BACKENDS]; 2],
    losses: &'l Losses,
    changes: u64,
}

impl<'l> Changer<'l> {
    fn new(maps: Maps, losses: &'l Losses) -> Self {
        let weights = [[1; BACKENDS]; 2];
        let intent = intent(&weights, [true; 2]);
        let mut conditions = Conditions::default();
        conditions.interfaces.insert(LOOPBACK, MAC);
        for (service, number) in all() {
            let hop = Hop {
                interface: LOOPBACK,
                destination: [2, 0, 0, 1, service as u8, number as u8],
                source: MAC,
                mtu: 1500,
            };
            conditions.ways.insert(backend(service, number), Ok(Way { hop, gateway: None }));
        }
        let actual = Actual::new(intent.limits());
        let (there, up) = ([true; 2], [[true; BACKENDS]; 2]);
        let mut changer = Self { maps, actual, conditions, intent, weights, there, up, losses, changes: 0 };
        changer.note_health();
        changer
    }

    /// A second a change: adoption windows end on the way.
    fn now(&self) -> Duration {
        Duration::from_secs(1_000 + self.changes)
    }

    fn change(&mut self, numbers: &mut Numbers) {
        self.changes += 1;
        let (service, number) = (numbers.below(2), numbers.below(BACKENDS));
        match numbers.below(10) {
            // Its ids and its slots are given to the other one, which comes back by then.
            0 => {
                self.lose(service, 0..BACKENDS);
                self.there[service] = !self.there[service];
                self.there[1 - service] = true;
                self.reload();
                self.lose(service, 0..BACKENDS);
            }
            1..=5 => {
                self.weights[service][number] = numbers.below(4) as u32;
                self.weights[service][(number + 1) % BACKENDS] = 2;
                self.reload();
            }
            6..=7 => {
                self.lose(service, number..number + 1);
                self.up[service][number] = false;
                self.note_health();
                self.settle();
                self.lose(service, number..number + 1);
            }
            8 => _ = sweep(&mut self.maps, &mut self.actual, self.intent.tracking()).unwrap(),
            _ => {
                self.up[service] = [true; BACKENDS];
                self.note_health();
                self.settle();
            }
        }
    }

    /// Counted before and after the change: a packet meanwhile may have seen either.
    fn lose(&self, service: usize, backends: std::ops::Range<usize>) {
        backends.for_each(|number| _ = self.losses[service][number].fetch_add(1, Ordering::SeqCst));
    }

    fn reload(&mut self) {
        let targets = targets(&self.intent);
        self.intent = intent(&self.weights, self.there);
        self.conditions.leaving = leaving(&self.actual, &self.intent, &self.conditions, &targets, self.now());
        self.note_health();
        self.settle();
    }

    fn note_health(&mut self) {
        let leaving = self.conditions.leaving.values().filter_map(|leaving| leaving.target.clone());
        let known = self.intent.targets().into_iter().chain(leaving);
        let is_up = |target: &Target| {
            all().any(|(service, number)| self.up[service][number] && backend(service, number) == target.address.ip())
        };
        self.conditions.up = known.filter(is_up).collect();
    }

    fn settle(&mut self) {
        let now = self.now();
        let desired = Desired::new(&self.intent, &self.conditions, now);
        settle(&desired, &mut self.maps, &mut self.actual, now).unwrap();
    }
}

fn all() -> impl Iterator<Item = (usize, usize)> {
    (0..2).flat_map(|service| (0..BACKENDS).map(move |number| (service, number)))
}

fn address(service: usize) -> IpAddr {
    IpAddr::from([192, 0, 2, 10 + service as u8])
}

fn backend(service: usize, number: usize) -> IpAddr {
    IpAddr::from([10, 0, service as u8, number as u8])
}

fn targets(intent: &Intent) -> BTreeMap<BackendKey, Target> {
    let backends =
        intent.services().iter().flat_map(|service| service.backends.iter().map(move |backend| (service, backend)));
    let target = backends.map(|(service, backend)| {
        let key = |service: Endpoint, own: Endpoint, mode| BackendKey { service, own, mode };
        (key(service.endpoint, backend.endpoint, service.mode), backend.target.clone())
    });
    target.collect()
}

fn intent(weights: &[[u32; BACKENDS]; 2], there: [bool; 2]) -> Intent {
    let mut text = String::from("interfaces = [\"lo\"]\nsecret = \"only for tests, nobody keeps it\"\n");
    text += "[tracking]\nadopt_seconds = 20\n";
    for service in (0..2).filter(|service| there[*service]) {
        text += &format!(
            "[[service]]\nname = \"web{service}\"\naddress = \"{}\"\nport = 80\nmode = \"dsr\"\nslots = 251\n",
            address(service)
        );
        for (number, weight) in weights[service].iter().enumerate() {
            text += &format!("[[service.backend]]\naddress = \"{}\"\nweight = {weight}\n", backend(service, number));
        }
    }
    Intent::new(&Config::parse(&text).unwrap()).unwrap()
}

fn stay_on_cpu(cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu).unwrap();
    sched_setaffinity(Pid::from_raw(0), &cpus).unwrap();
}
