//! What is tried on a kernel that is booted for it: every program loads, and does with frames what the host does.
//!
//! `tests/tests/kernels.rs` starts it as the only program of a guest; the last line that it writes is the report.
#![forbid(unsafe_code)]

use anyhow::{Result, ensure};
use serde_json::json;
use std::{fs, process::ExitCode};
use tests::{
    Lab, Layout, decap,
    fixture::{self, Fixture},
    followed::followed,
    frames,
    mutations::Mutations,
};

/// Frames changed at random, beside those that are written by hand. An emulated processor takes two milliseconds each.
const MUTATIONS: usize = 2_000;

fn main() -> ExitCode {
    match check() {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{}", brief(&format!("{error:?}")));
            ExitCode::FAILURE
        }
    }
}

/// The first line, and the last ones. A refusal comes with the verifier's whole log, for which an emulated console takes
/// minutes.
fn brief(text: &str) -> String {
    const LAST: usize = 30;
    let lines: Vec<_> = text.lines().collect();
    let (first, rest) = lines.split_first().unwrap_or((&"", &[]));
    let last = rest.get(rest.len().saturating_sub(LAST)..).unwrap_or_default();
    format!("{first}\n{}", last.join("\n"))
}

fn check() -> Result<serde_json::Value> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let followed = followed()?;
    let frames = compare_frames()? + compare_tunnels()?;
    Ok(json!({ "release": release.trim(), "followed": followed, "frames": frames }))
}

/// As [`compare_frames`], with the decapsulator.
fn compare_tunnels() -> Result<usize> {
    let mut fixture = decap::Fixture::load()?;
    let mutations = decap::mutations::Mutations::of(decap::frames::all()?).take(MUTATIONS);
    let mut count = 0;
    for named in decap::frames::all()?.into_iter().chain(mutations) {
        let (kernel, host) = (fixture.in_kernel(&named.frame)?, fixture.on_host(&named.frame));
        ensure!(
            kernel == host,
            "{} of {:02x?}: the kernel's {kernel:02x?}, the host's {host:02x?}",
            named.name,
            named.frame
        );
        count += 1;
    }
    Ok(count)
}

/// Runs all frames in the kernel and on the host, and returns how many.
fn compare_frames() -> Result<usize> {
    let lab = Lab::blueprint(Layout::Routed).backends(1).up()?;
    fixture::neighbors(lab.balancer())?;
    lab.balancer().inside(|| {
        fixture::stay_on_one_cpu()?;
        let mut fixture = Fixture::load(lab.balancer())?;
        let mut count = 0;
        for named in frames::all()?.into_iter().chain(Mutations::of(frames::all()?).take(MUTATIONS)) {
            fixture.go_to(named.moment)?;
            let [kernel, host] = fixture.in_both(&named.frame)?;
            ensure!(
                kernel == host,
                "{} of {:02x?}: the kernel's {kernel:02x?}, the host's {host:02x?}",
                named.name,
                named.frame
            );
            count += 1;
        }
        // The programs of traces do the same. Theirs is the kernel's side alone: what they tell is tested elsewhere.
        let _tracer = fixture.trace()?;
        for named in frames::all()? {
            fixture.go_to(named.moment)?;
            let [kernel, host] = fixture.in_both(&named.frame)?;
            ensure!(kernel == host, "{} in a trace: the kernel's {kernel:02x?}, the host's {host:02x?}", named.name);
            count += 1;
        }
        Ok(count)
    })?
}
