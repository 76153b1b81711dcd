//! A suite's decapsulator, on the host and, if wanted, in the kernel.

use super::{
    compare::Outcome,
    file::{Action, Vector},
};
use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::{TestRun as _, TestRunOptions};
use etherparse::{LaxNetSlice, LaxSlicedPacket};
use lb_common::{
    decap::{
        decapsulate,
        host::HostTables,
        tables::{Settings, endpoint},
        verdict::Verdict,
    },
    host::Buffer,
};
use lb_userspace::kernel::decap;
use std::net::IpAddr;

/// The interface that frames come in by: loopback, as in a test run of the kernel's.
const INTERFACE: u32 = 1;

/// A decapsulator on the machine that the frames of a suite are for.
pub struct Decapsulator {
    host: HostTables,
    kernel: Option<decap::Decapsulator>,
}

impl Decapsulator {
    /// One with all addresses that these frames go to, which takes packets from anywhere.
    pub fn new(vectors: &[Vector], in_kernel: bool) -> Result<Self> {
        let settings = Settings::new(&[]).context("no sources are too many")?;
        let addresses: Vec<IpAddr> = vectors.iter().filter_map(|vector| destination(&vector.frame)).collect();
        let mut host = HostTables::default();
        host.settings = Some(settings);
        host.addresses.extend(addresses.iter().map(|address| endpoint(*address)));
        let kernel = if in_kernel { Some(decap::Decapsulator::load(&settings, addresses)?) } else { None };
        Ok(Self { host, kernel })
    }

    /// Runs a frame on the host; in the kernel too, if it is there: then both must do the same.
    pub fn run(&mut self, frame: &[u8]) -> Result<Outcome> {
        let mut buffer = Buffer::new(frame, INTERFACE, 0, 0);
        let verdict = decapsulate(&mut buffer, &self.host);
        let action = match verdict {
            Verdict::Pass(_) => Action::Pass,
            Verdict::Drop(_) => Action::Drop,
        };
        let outcome = Outcome { action, frame: buffer.bytes().to_vec(), why: verdict.why().name() };
        if let Some(kernel) = &mut self.kernel {
            let kernel = in_kernel(kernel, frame)?;
            ensure!(kernel == outcome, "the kernel's is {kernel:02x?}, the host's {outcome:02x?}");
        }
        Ok(outcome)
    }
}

fn in_kernel(decapsulator: &mut decap::Decapsulator, frame: &[u8]) -> Result<Outcome> {
    let before = decapsulator.counts()?;
    let mut out = vec![0; 4096];
    let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
    let result = decapsulator.program()?.test_run(options).context("BPF_PROG_TEST_RUN failed")?;
    out.truncate(result.data_size_out as usize);
    let action = match result.return_value {
        1 => Action::Drop,
        2 => Action::Pass,
        other => bail!("the program returned {other}"),
    };
    let after = decapsulator.counts()?;
    let moved = after.iter().find(|(why, count)| before.get(why) != Some(count));
    Ok(Outcome { action, frame: out, why: moved.context("no counter moved")?.0.name() })
}

fn destination(frame: &[u8]) -> Option<IpAddr> {
    match LaxSlicedPacket::from_ethernet(frame).ok()?.net? {
        LaxNetSlice::Ipv4(ip) => Some(ip.header().destination_addr().into()),
        LaxNetSlice::Ipv6(ip) => Some(ip.header().destination_addr().into()),
        LaxNetSlice::Arp(_) => None,
    }
}
