//! Many elements of a hash map with one system call (`BPF_MAP_LOOKUP_BATCH` and its like, Linux 5.6), which aya does not have.

use super::error::KernelError;
use aya::maps::MapData;
use bytemuck::Pod;
use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _},
};

/// Commands of bpf(2).
const LOOKUP_BATCH: libc::c_int = 24;
const DELETE_BATCH: libc::c_int = 27;
/// Elements of one call. A bucket of a hash map has to fit whole, and has a few.
const ELEMENTS: usize = 4_096;

/// What the commands take: the part `batch` of the kernel's `union bpf_attr`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Arguments {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

/// Looks at all elements. One that comes or goes meanwhile may be missed; one that stays is not.
pub(super) fn for_each<K: Pod, V: Pod>(
    name: &'static str,
    map: &MapData,
    mut look: impl FnMut(&K, V),
) -> Result<(), KernelError> {
    let (mut keys, mut values) = (vec![K::zeroed(); ELEMENTS], vec![V::zeroed(); ELEMENTS]);
    // Where the last call stopped: the kernel's own business.
    let (mut from, mut to) = (0_u64, 0_u64);
    let mut first = true;
    loop {
        let mut arguments = Arguments {
            in_batch: if first { 0 } else { address(&mut from) },
            out_batch: address(&mut to),
            keys: address(keys.as_mut_slice()),
            values: address(values.as_mut_slice()),
            count: ELEMENTS as u32,
            map: descriptor(map),
            ..Arguments::default()
        };
        // SAFETY: room for `count` keys and values of the map's sizes, which the types are; both places are as large as a key.
        let result = unsafe { call(LOOKUP_BATCH, &mut arguments) };
        let ended = match result {
            Ok(()) => false,
            // No more than what has been written this time.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(source) => return Err(KernelError::Memory { map: name, action: "read it", source }),
        };
        let count = (arguments.count as usize).min(ELEMENTS);
        keys.iter().zip(&values).take(count).for_each(|(key, value)| look(key, *value));
        if ended {
            return Ok(());
        }
        (from, first) = (to, false);
    }
}

/// Removes elements; one that is no longer there is as good as removed.
pub(super) fn remove<K: Pod>(name: &'static str, map: &MapData, keys: &mut [K]) -> Result<(), KernelError> {
    let mut keys = keys;
    while !keys.is_empty() {
        let mut arguments =
            Arguments { keys: address(keys), count: keys.len() as u32, map: descriptor(map), ..Arguments::default() };
        // SAFETY: `count` keys of the map's size, which the type is.
        let result = unsafe { call(DELETE_BATCH, &mut arguments) };
        let done = match result {
            Ok(()) => return Ok(()),
            // It stops at one that is missing.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => arguments.count as usize + 1,
            Err(source) => return Err(KernelError::Memory { map: name, action: "remove from it", source }),
        };
        keys = keys.get_mut(done..).unwrap_or_default();
    }
    Ok(())
}

fn address<T: ?Sized>(place: &mut T) -> u64 {
    std::ptr::from_mut(place).cast::<u8>().expose_provenance() as u64
}

fn descriptor(map: &MapData) -> u32 {
    map.fd().as_fd().as_raw_fd().cast_unsigned()
}

/// Calls bpf(2).
///
/// # Safety
///
/// The arguments' addresses lead to what the command reads and writes.
unsafe fn call(command: libc::c_int, arguments: &mut Arguments) -> io::Result<()> {
    // SAFETY: the arguments have the layout that these commands take, and the caller has seen to what they lead to.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(arguments), size_of::<Arguments>()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
