//! Debian's stock kernels accept every program and do with frames what the host does.
//!
//! `cargo xtask kernels` brings the kernels and runs this; `UPDATE=1 cargo xtask kernels` records the numbers of the
//! verifier anew, for review.
#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "helpers of a test")]

use serde_json::Value;
use std::{fs, path::Path, time::Instant};
use tests::{
    followed::{self, Followed},
    guest::{self, Kernel},
    needs_program, skip,
};

#[test]
fn linux_6_1() {
    check("linux_6_1", "6.1");
}

#[test]
fn linux_6_12() {
    check("linux_6_12", "6.12");
}

fn check(test: &str, version: &str) {
    if !guest::programs().all(|program| needs_program(test, program)) {
        return;
    }
    let kernels = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("kernels");
    let tree = kernels.join(version);
    if !tree.exists() {
        let reason = fs::read_to_string(kernels.join(format!("{version}.missing")));
        return skip(test, &reason.unwrap_or_else(|_| "needs a kernel that `cargo xtask kernels` brings".into()));
    }
    let started = Instant::now();
    let console = Kernel::find(&tree).unwrap().run(env!("CARGO_BIN_EXE_kernel_check").as_ref());
    let console = console.unwrap_or_else(|error| panic!("Linux {version}: {error:#}"));
    let seconds = started.elapsed().as_secs_f32();
    let report: Value = console.lines().rev().find_map(|line| serde_json::from_str(line.trim()).ok()).unwrap();

    let release = report["release"].as_str().unwrap();
    let followed: Followed = serde_json::from_value(report["followed"].clone()).unwrap();
    let frames = report["frames"].as_u64().unwrap();
    println!("Linux {release}: instructions followed {followed:?}, {frames} frames as on the host, {seconds:.1} s");
    assert_eq!(followed::version(release), version, "another kernel than it should be");
    let recorded = followed::compare(version, &followed).unwrap_or_else(|error| panic!("{error:#}"));
    assert!(recorded, "there are no numbers for Linux {version}: record them with UPDATE=1");
}
