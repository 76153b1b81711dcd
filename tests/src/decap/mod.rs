//! One decapsulator, in the kernel and on the host, and the same frames through both.

pub mod frames;
pub mod mutations;

use anyhow::{Context as _, Result};
use aya::programs::{TestRun as _, TestRunOptions};
use lb_common::{
    decap::{
        decapsulate,
        host::HostTables,
        tables::{Settings, Source, endpoint},
        verdict::{Verdict, Why},
    },
    host::Buffer,
};
use lb_userspace::kernel::decap::Decapsulator;
use std::{collections::BTreeMap, net::IpAddr};

/// The backend's own addresses, at which tunnels end.
pub const BACKENDS: [&str; 2] = ["10.0.3.21", "fd00:3::21"];
/// Who may send through tunnels, within prefixes of 16 and 48 bits.
pub const BALANCERS: [&str; 2] = ["10.0.1.1", "fd00:1::1"];

/// The interface that a test run's frames come in by: loopback.
const LOOPBACK: u32 = 1;
/// What an XDP program returns, by `enum xdp_action` of the kernel's `uapi/linux/bpf.h`.
const DROP: u32 = 1;
const PASS: u32 = 2;

/// What came of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// What the program returned.
    pub action: u32,
    /// The frame afterwards.
    pub frame: Vec<u8>,
    /// The counters that moved, and by how much.
    pub counts: BTreeMap<Why, u64>,
}

/// The program with its maps, and the tables on the host.
pub struct Fixture {
    decapsulator: Decapsulator,
    host: HostTables,
}

impl Fixture {
    /// Loads the program; root is all that it needs.
    pub fn load() -> Result<Self> {
        let mut addresses = Vec::<IpAddr>::new();
        for backend in BACKENDS {
            addresses.push(backend.parse()?);
        }
        let [balancer4, balancer6] = BALANCERS;
        // What is between them and before them is not to be taken for the end of the list.
        let elsewhere = Source::new(IpAddr::from([203, 0, 113, 0]), 24);
        let sources = [elsewhere, Source::new(balancer4.parse()?, 16), elsewhere, Source::new(balancer6.parse()?, 48)];
        let settings = Settings::new(&sources).context("too many sources")?;
        let mut host = HostTables::default();
        host.settings = Some(settings);
        host.addresses.extend(addresses.iter().map(|address| endpoint(*address)));
        Ok(Self { decapsulator: Decapsulator::load(&settings, addresses)?, host })
    }

    /// Runs a frame through the program in the kernel.
    pub fn in_kernel(&mut self, frame: &[u8]) -> Result<Outcome> {
        let before = self.decapsulator.counts()?;
        let mut out = vec![0; 4096];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = self.decapsulator.program()?.test_run(options).context("BPF_PROG_TEST_RUN failed")?;
        out.truncate(result.data_size_out as usize);
        let counts = moved(self.decapsulator.counts()?, &before);
        Ok(Outcome { action: result.return_value, frame: out, counts })
    }

    /// Runs a frame through the decapsulator on the host.
    pub fn on_host(&self, frame: &[u8]) -> Outcome {
        let before = self.host.counts();
        let mut buffer = Buffer::new(frame, LOOPBACK, 0, 0);
        let action = match decapsulate(&mut buffer, &self.host) {
            Verdict::Pass(_) => PASS,
            Verdict::Drop(_) => DROP,
        };
        Outcome { action, frame: buffer.bytes().to_vec(), counts: moved(self.host.counts(), &before) }
    }
}

fn moved(mut counts: BTreeMap<Why, u64>, before: &BTreeMap<Why, u64>) -> BTreeMap<Why, u64> {
    counts.retain(|why, count| {
        *count -= before.get(why).copied().unwrap_or_default();
        *count != 0
    });
    counts
}
