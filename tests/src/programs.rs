//! The programs that a lab attaches by itself, as bare instructions.
//!
//! Native XDP on veth delivers frames that XDP_TX or XDP_REDIRECT sends only to a peer that has a program of its own; XDP_PASS
//! is enough, and without it they are lost and counted nowhere (measured on Linux 6.18).
//!
//! On a link with VLAN tags, a program of traffic control puts the tag on what a machine sends, and another takes it off what
//! it gets: the machine's own interface needs neither a VLAN device nor a kernel that has them.
//!
//! All are pinned and attached by `ip` and `tc`, which need no descriptor to stay open: a lab that is kept goes on working
//! after the process that made it.

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
const BPF_PROG_TYPE_SCHED_CLS: u32 = 3;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_FUNC_SKB_VLAN_PUSH: i32 = 18;
const BPF_FUNC_SKB_VLAN_POP: i32 = 19;
const TC_ACT_OK: i32 = 0;
const XDP_PASS: i32 = 2;

/// `struct bpf_insn`.
#[repr(C)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    const EXIT: Self = Self { code: 0x95, registers: 0, offset: 0, immediate: 0 };

    /// Puts a number into a register.
    const fn set(register: u8, immediate: i32) -> Self {
        Self { code: 0xb7, registers: register, offset: 0, immediate }
    }

    /// Calls a function of the kernel; its first argument is that of the program, unless it was set.
    const fn call(function: i32) -> Self {
        Self { code: 0x85, registers: 0, offset: 0, immediate: function }
    }
}

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

/// Pins an XDP program that passes everything at `path`, which must be in a bpffs.
pub(crate) fn pin_pass(path: &Path) -> Result<()> {
    pin(BPF_PROG_TYPE_XDP, &[Instruction::set(0, XDP_PASS), Instruction::EXIT], path)
}

/// Pins a program of traffic control that puts the VLAN tag `id` (IEEE 802.1Q) on every frame.
pub(crate) fn pin_tag(id: u16, path: &Path) -> Result<()> {
    let protocol = 0x8100_u16.to_be();
    let instructions = [
        Instruction::set(2, i32::from(protocol)),
        Instruction::set(3, i32::from(id)),
        Instruction::call(BPF_FUNC_SKB_VLAN_PUSH),
        Instruction::set(0, TC_ACT_OK),
        Instruction::EXIT,
    ];
    pin(BPF_PROG_TYPE_SCHED_CLS, &instructions, path)
}

/// Pins a program of traffic control that takes a VLAN tag off every frame.
pub(crate) fn pin_untag(path: &Path) -> Result<()> {
    let instructions = [Instruction::call(BPF_FUNC_SKB_VLAN_POP), Instruction::set(0, TC_ACT_OK), Instruction::EXIT];
    pin(BPF_PROG_TYPE_SCHED_CLS, &instructions, path)
}

fn pin(kind: u32, instructions: &[Instruction], path: &Path) -> Result<()> {
    let program =
        load(kind, instructions).with_context(|| format!("loading the lab's program for {}", path.display()))?;
    pin_program(&program, path).with_context(|| format!("pinning a program at {}", path.display()))
}

fn load(kind: u32, instructions: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = Load {
        kind,
        instruction_count: u32::try_from(instructions.len()).map_err(io::Error::other)?,
        instructions: instructions.as_ptr() as u64,
        license: c"Dual MIT/GPL".as_ptr() as u64,
    };
    // SAFETY: `Load` is `#[repr(C)]` without padding and laid out as BPF_PROG_LOAD wants it; the addresses in it are of a
    // slice that outlives the call and of a constant, and the count is that of the instructions.
    let descriptor = unsafe { bpf(BPF_PROG_LOAD, &attributes) }?;
    // SAFETY: BPF_PROG_LOAD succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn pin_program(program: &OwnedFd, path: &Path) -> io::Result<()> {
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
