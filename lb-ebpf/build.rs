//! Tells bpf-linker that this target loads misaligned words.
//!
//! LLVM assumes that BPF cannot, and makes eight byte loads and shifts of every `read_unaligned`. All hosts of `lb` can,
//! and the kernel's verifier allows it; the code halves.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // On the host this package is only an empty library, and its linker does not know the option.
    if std::env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("bpf") {
        println!("cargo::rustc-link-arg-bins=--cpu-features=+allows-misaligned-mem-access");
    }
}
