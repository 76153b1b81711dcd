//! The kernel's side of the tables: loading, attaching, maps, counters, netlink. The only module with unsafe code.

pub mod announce;
mod answers;
pub mod attach;
mod batch;
pub mod decap;
pub mod detour;
pub mod echo;
pub mod error;
pub mod features;
pub mod flows;
pub mod load;
pub mod log;
mod look;
pub mod maps;
mod memory;
pub mod netlink;
mod plain;
pub mod privileges;
pub mod proof;
mod read;
mod rules;
mod slots;
pub mod trace;

pub use error::KernelError;

/// The BPF object of the balancer, built from `lb-ebpf` together with this crate.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-ebpf.bpf.o"));

/// The BPF object of the program that proves that frames pass, likewise.
pub static SEEN_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-seen.bpf.o"));

/// The BPF object of the decapsulator, likewise.
pub static DECAP_OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-decap.bpf.o"));
