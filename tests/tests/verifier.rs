//! The kernel's verifier accepts the program, and does not have to work much harder for it than it did.
//!
//! `UPDATE=1 cargo test -p tests --test verifier` records the number of instructions anew, for review.

use lb_userspace::kernel::load::{load, program};
use std::{collections::BTreeMap, env, fs, path::Path};
use tests::{needs_root, skip};

/// Instructions that the verifier followed, by the kernel's version.
const RECORD: &str = "golden/verifier.toml";
/// Growth that is let pass, in percent: compilers differ a little.
const TOLERANCE: u32 = 10;
/// The kernel gives up after this many.
const LIMIT: u32 = 1_000_000;

#[test]
fn the_verifier_accepts_the_program_with_no_more_work_than_recorded() {
    const NAME: &str = "the_verifier_accepts_the_program_with_no_more_work_than_recorded";
    if !needs_root(NAME) {
        return;
    }
    let (mut ebpf, _maps) = load(None).unwrap();
    let info = program(&mut ebpf, "lb").unwrap().info().unwrap();
    let count = info.verified_instruction_count().unwrap();
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let version = release.split('.').take(2).collect::<Vec<_>>().join(".");
    println!("Linux {version}: {count} instructions followed, {} bytes of machine code", info.size_jitted());
    assert!(count < LIMIT / 4, "{count} instructions are too close to the kernel's limit of {LIMIT}");

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(RECORD);
    let mut record: BTreeMap<String, u32> = toml::from_str(&fs::read_to_string(&path).unwrap_or_default()).unwrap();
    if env::var_os("UPDATE").is_some() {
        record.insert(version, count);
        fs::write(&path, toml::to_string(&record).unwrap()).unwrap();
        return;
    }
    let Some(recorded) = record.get(&version) else {
        return skip(NAME, &format!("{RECORD} has no number for Linux {version}"));
    };
    let most = recorded + recorded * TOLERANCE / 100;
    assert!(count <= most, "{count} instructions, recorded {recorded}: find what grew, or record it with UPDATE=1");
}
