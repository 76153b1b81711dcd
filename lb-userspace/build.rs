//! Builds the BPF objects from `lb-ebpf`, for the agent and the command to embed as `OUT_DIR/<program>.bpf.o`.

#[path = "../lb-ebpf/object.rs"]
mod object;

use std::process::ExitCode;

fn main() -> ExitCode {
    // The balancer's programs, the decapsulator, and what proves that frames pass.
    object::build("bpf", &["lb-ebpf", "lb-decap", "lb-seen"])
}
