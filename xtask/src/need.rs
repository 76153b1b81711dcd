//! What building and testing `lb` needs from a machine: one row a need.
//!
//! A row says how to tell that the need is met and what cures its absence. A new need is a new row.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::bpf_tools;

/// One thing that a machine must have.
#[derive(Debug)]
pub struct Need {
    /// What to call it before the user.
    pub name: &'static str,
    sign: Sign,
    /// How a machine gets it.
    pub cure: Cure,
}

/// How to tell that a need is met.
#[derive(Debug)]
enum Sign {
    /// A program of this name exists.
    Program(&'static str),
    /// A cargo subcommand of this name runs. rustup has a proxy for each, whether or not the component is there.
    Subcommand(&'static str),
    /// A toolchain can build for BPF.
    Toolchain,
    /// A copy of `llvm-objcopy` exists.
    Objcopy,
    /// These files exist, or the linker that is built from them does.
    LinkerOr(&'static [&'static str]),
}

/// How a machine gets what is missing.
#[derive(Debug, Clone, Copy)]
pub enum Cure {
    /// By installing these Debian packages.
    Packages(&'static [&'static str]),
    /// By installing a Rust toolchain with its library sources.
    Toolchain,
    /// By compiling bpf-linker.
    Linker,
    /// By a command that only the owner of the machine's Rust installation can choose to run.
    Advice(&'static str),
}

/// Everything, in the order of checking and reporting.
pub const NEEDS: &[Need] = &[
    Need::new("C compiler", Sign::Program("cc"), Cure::Packages(&["gcc", "libc6-dev"])),
    Need::new("rustfmt", Sign::Subcommand("fmt"), Cure::Advice("rustup component add rustfmt")),
    Need::new("clippy", Sign::Subcommand("clippy"), Cure::Advice("rustup component add clippy")),
    Need::new("Rust toolchain for BPF", Sign::Toolchain, Cure::Toolchain),
    Need::new(
        "LLVM for bpf-linker",
        Sign::LinkerOr(&["/usr/lib/llvm-22/bin/llvm-config", "/usr/lib/llvm-22/lib/libPolly.a", "/usr/include/zstd.h"]),
        Cure::Packages(&["llvm-22-dev", "libpolly-22-dev", "libzstd-dev"]),
    ),
    Need::new("bpf-linker", Sign::Program("bpf-linker"), Cure::Linker),
    Need::new("llvm-objcopy", Sign::Objcopy, Cure::Packages(&["llvm-22"])),
    Need::new("ip", Sign::Program("ip"), Cure::Packages(&["iproute2"])),
    Need::new("nsenter", Sign::Program("nsenter"), Cure::Packages(&["util-linux"])),
    Need::new("sysctl", Sign::Program("sysctl"), Cure::Packages(&["procps"])),
    Need::new("ethtool", Sign::Program("ethtool"), Cure::Packages(&["ethtool"])),
    Need::new("tcpdump", Sign::Program("tcpdump"), Cure::Packages(&["tcpdump"])),
    Need::new("taskset", Sign::Program("taskset"), Cure::Packages(&["util-linux"])),
    Need::new("curl", Sign::Program("curl"), Cure::Packages(&["curl"])),
    // Certificates of tests.
    Need::new("openssl", Sign::Program("openssl"), Cure::Packages(&["openssl"])),
    Need::new("dig", Sign::Program("dig"), Cure::Packages(&["bind9-dnsutils"])),
    Need::new("kdig", Sign::Program("kdig"), Cure::Packages(&["knot-dnsutils"])),
    Need::new("drill", Sign::Program("drill"), Cure::Packages(&["ldnsutils"])),
    // A second server of DNS cookies; the module is for `cargo xtask bench dns`.
    Need::new("knotd", Sign::Program("knotd"), Cure::Packages(&["knot", "knot-module-geoip"])),
    Need::new("iperf3", Sign::Program("iperf3"), Cure::Packages(&["iperf3"])),
    Need::new("nginx", Sign::Program("nginx"), Cure::Packages(&["nginx-light"])),
    Need::new("keepalived", Sign::Program("keepalived"), Cure::Packages(&["keepalived"])),
    // It runs the unit in a test; nothing is started by it here.
    Need::new("systemd", Sign::Program("systemctl"), Cure::Packages(&["systemd"])),
    // What other kernels are booted with, and run in.
    Need::new("qemu", Sign::Program("qemu-system-x86_64"), Cure::Packages(&["qemu-system-x86"])),
    Need::new("busybox", Sign::Program("busybox"), Cure::Packages(&["busybox-static"])),
];

/// What only `cargo xtask bench dns` needs: the other servers that it measures beside `lb`, and the generators of others.
pub const PEERS: &[Need] = &[
    Need::new("kxdpgun", Sign::Program("kxdpgun"), Cure::Packages(&["knot-dnsutils"])),
    Need::new("nsd", Sign::Program("nsd"), Cure::Packages(&["nsd"])),
    Need::new("unbound", Sign::Program("unbound"), Cure::Packages(&["unbound"])),
    Need::new("dnsdist", Sign::Program("dnsdist"), Cure::Packages(&["dnsdist"])),
    Need::new("dnsperf", Sign::Program("dnsperf"), Cure::Packages(&["dnsperf"])),
    Need::new("chrt", Sign::Program("chrt"), Cure::Packages(&["util-linux"])),
];

impl Need {
    const fn new(name: &'static str, sign: Sign, cure: Cure) -> Self {
        Self { name, sign, cure }
    }

    /// Where it was found, when it was.
    pub fn found(&self) -> Option<String> {
        let found = match self.sign {
            Sign::Program(name) => bpf_tools::program(name),
            Sign::Subcommand(name) => {
                return subcommand_runs(name).then(|| format!("cargo {name}"));
            }
            Sign::Toolchain => bpf_tools::toolchain(),
            Sign::Objcopy => bpf_tools::objcopy(),
            Sign::LinkerOr(files) if files.iter().all(|file| Path::new(file).exists()) => {
                return files.first().map(|file| (*file).to_owned());
            }
            Sign::LinkerOr(_) => {
                return bpf_tools::linker().map(|_| "not needed, bpf-linker is there".to_owned());
            }
        };
        found.map(|place| place.display().to_string())
    }
}

fn subcommand_runs(name: &str) -> bool {
    Command::new("cargo")
        .args([name, "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
