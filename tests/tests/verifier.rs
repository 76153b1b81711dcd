//! The kernel's verifier accepts the programs, and does not have to work much harder for them than it did.
//!
//! `UPDATE=1 cargo test -p tests --test verifier` records the number of instructions anew, for review.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use aya::programs::ProgramInfo;
use lb_common::decap::tables::Settings;
use lb_userspace::kernel::{
    decap::Decapsulator,
    load::{load, program},
};
use std::{collections::BTreeMap, env, fs, path::Path, sync::Mutex};
use tests::{needs_root, skip};

/// Instructions that the verifier followed, by the kernel's version and the program's name.
const RECORD: &str = "golden/verifier.toml";
/// Growth that is let pass, in percent: compilers differ a little.
const TOLERANCE: u32 = 10;
/// The kernel gives up after this many.
const LIMIT: u32 = 1_000_000;

#[test]
fn the_verifier_accepts_the_balancer_with_no_more_work_than_recorded() {
    const NAME: &str = "the_verifier_accepts_the_balancer_with_no_more_work_than_recorded";
    if needs_root(NAME) {
        let (mut ebpf, _maps) = load(None).unwrap();
        compare(NAME, "lb", &program(&mut ebpf, "lb").unwrap().info().unwrap());
    }
}

#[test]
fn the_verifier_accepts_the_decapsulator_with_no_more_work_than_recorded() {
    const NAME: &str = "the_verifier_accepts_the_decapsulator_with_no_more_work_than_recorded";
    if needs_root(NAME) {
        let mut decapsulator = Decapsulator::load(&Settings::new(&[]).unwrap(), []).unwrap();
        compare(NAME, "lb_decap", &decapsulator.program().unwrap().info().unwrap());
    }
}

/// Held while the record is read and written.
static RECORDING: Mutex<()> = Mutex::new(());

fn compare(test: &str, program: &str, info: &ProgramInfo) {
    let count = info.verified_instruction_count().unwrap();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let version = release.split('.').take(2).collect::<Vec<_>>().join(".");
    println!("Linux {version}: {program}: {count} instructions followed, {} bytes of machine code", info.size_jitted());
    assert!(count < LIMIT / 4, "{count} instructions are too close to the kernel's limit of {LIMIT}");

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORD);
    let _recording = RECORDING.lock();
    let mut record: BTreeMap<String, BTreeMap<String, u32>> =
        toml::from_str(&fs::read_to_string(&path).unwrap_or_default()).unwrap();
    if env::var_os("UPDATE").is_some() {
        record.entry(version).or_default().insert(program.to_owned(), count);
        fs::write(&path, toml::to_string(&record).unwrap()).unwrap();
        return;
    }
    let Some(recorded) = record.get(&version).and_then(|programs| programs.get(program)) else {
        return skip(test, &format!("{RECORD} has no number for {program} on Linux {version}"));
    };
    let most = recorded + recorded * TOLERANCE / 100;
    assert!(count <= most, "{count} instructions, recorded {recorded}: find what grew, or record it with UPDATE=1");
}
