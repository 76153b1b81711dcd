//! Any history of an agent: see `tests::fuzzing::plan_ops`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tests::fuzzing::plan_ops::Input;

fuzz_target!(|input: Input| {
    let _ = input.run();
});
