//! Any frames on the host's path: see `tests::fuzzing::frame`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tests::fuzzing::frame::Input;

fuzz_target!(|input: Input| {
    let _ = input.run();
});
