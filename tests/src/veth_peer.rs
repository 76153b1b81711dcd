//! The XDP program on the far end of a veth that is sent frames by XDP_TX or XDP_REDIRECT.
//!
//! Native XDP on veth delivers such frames only to a peer that has a program of its own; XDP_PASS is
//! enough, and without it they are lost and counted nowhere (measured on Linux 6.18). It is loaded as
//! bare instructions and attached by `ip link set … xdpdrv pinned`, which needs no descriptor to stay
//! open: a lab that is kept goes on working after the process that made it.

use std::{
    ffi::CString,
    io,
    mem::size_of,
    os::{
        fd::{AsRawFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use anyhow::{Context, Result};

// linux/bpf.h
const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_PROG_TYPE_XDP: u32 = 6;

/// `struct bpf_insn`.
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// `r0 = XDP_PASS; exit`
const PASS: [Instruction; 2] = [
    Instruction { code: 0xb7, registers: 0, offset: 0, immediate: 2 },
    Instruction { code: 0x95, registers: 0, offset: 0, immediate: 0 },
];

/// The start of `union bpf_attr` for BPF_PROG_LOAD; the kernel takes what is left out as zero.
#[repr(C)]
struct Load {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
}

/// The start of `union bpf_attr` for BPF_OBJ_PIN.
#[repr(C)]
struct Pin {
    path: u64,
    program: u32,
    flags: u32,
}

/// Loads the program and pins it at `path`, which must be in a bpffs.
pub(crate) fn pin_pass(path: &Path) -> Result<()> {
    let program = load_pass().context("loading an XDP program that passes everything")?;
    pin(&program, path).with_context(|| format!("pinning an XDP program at {}", path.display()))
}

fn load_pass() -> io::Result<OwnedFd> {
    let attributes = Load {
        kind: BPF_PROG_TYPE_XDP,
        instruction_count: PASS.len() as u32,
        instructions: PASS.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
    };
    // SAFETY: `Load` is `#[repr(C)]` without padding and laid out as BPF_PROG_LOAD wants it; both
    // addresses in it are of constants, and the count is that of the instructions.
    let descriptor = unsafe { bpf(BPF_PROG_LOAD, &attributes) }?;
    // SAFETY: BPF_PROG_LOAD succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn pin(program: &OwnedFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let program = u32::try_from(program.as_raw_fd()).map_err(io::Error::other)?;
    let attributes = Pin { path: path.as_ptr() as u64, program, flags: 0 };
    // SAFETY: `Pin` is `#[repr(C)]` without padding and laid out as BPF_OBJ_PIN wants it; the path is
    // a C string that outlives the call.
    unsafe { bpf(BPF_OBJ_PIN, &attributes) }.map(drop)
}

/// bpf(2).
///
/// # Safety
/// `A` must be the start of the union's member for `command`, without padding, and every address in
/// it valid for what the command does with it.
unsafe fn bpf<A>(command: libc::c_int, attributes: &A) -> io::Result<libc::c_int> {
    // SAFETY: the reference is valid for its own size, which is what the kernel is told to read; the
    // caller vouches for the rest.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes as *const A, size_of::<A>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(result).map_err(io::Error::other)
}
