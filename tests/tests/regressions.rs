//! What fuzzing starts from, and what it has found, replayed.
#![expect(clippy::unwrap_used, reason = "tests and their helpers")]

use arbitrary::{Arbitrary, Unstructured};
use std::{fs, path::Path};
use tests::fuzzing::{frame, plan_ops, seeds};

/// What an input of a fuzz target is made of.
fn input<'a, T: Arbitrary<'a>>(bytes: &'a [u8]) -> T {
    T::arbitrary_take_rest(Unstructured::new(bytes)).unwrap()
}

/// Calls `replay` with each input that is kept for a target; nothing was found yet where there is no folder.
fn each_regression(target: &str, replay: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions").join(target);
    if !folder.exists() {
        return;
    }
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        replay(&fs::read(path).unwrap());
    }
}

#[test]
fn frames_that_broke_a_law_hold_them_all() {
    each_regression("frame", |bytes| _ = input::<frame::Input>(bytes).run());
}

#[test]
fn plans_that_broke_a_law_hold_them_all() {
    each_regression("plan_ops", |bytes| _ = input::<plan_ops::Input>(bytes).run());
}

#[test]
fn seeds_are_read_as_they_are_written_and_hold_all_laws() {
    let mut ways = std::collections::BTreeSet::new();
    for (name, bytes) in seeds::frame().unwrap() {
        println!("{name}");
        let input = input::<frame::Input>(&bytes);
        assert_eq!(input.bytes(), bytes);
        ways.extend(input.run());
    }
    println!("{ways:?}");
    assert!(ways.len() > 20, "the seeds reach too little: {ways:?}");
}

/// Any bytes are an input; whether laws hold for many is for the fuzzer to find out.
#[test]
fn plans_hold_the_laws_for_a_few_inputs() {
    let mut numbers = tests::numbers::Numbers::new(1);
    let (mut steps, mut served) = (0, 0);
    for _ in 0..1_000 {
        let bytes: Vec<u8> = (0..200).map(|_| numbers.number() as u8).collect();
        let (done, found) = input::<plan_ops::Input>(&bytes).run();
        steps += done;
        served += found;
    }
    println!("{steps} steps, {served} packets");
    assert!(steps > 10_000 && served > 1_000, "{steps} steps, {served} packets");
}
