//! Builds the measuring programs from `lb-ebpf`, as `OUT_DIR/lb-bench.bpf.o` and `OUT_DIR/lb-dns-bench.bpf.o`.

#[path = "../../lb-ebpf/object.rs"]
mod object;

use std::process::ExitCode;

fn main() -> ExitCode {
    object::build("bench", &["lb-bench", "lb-dns-bench"])
}
