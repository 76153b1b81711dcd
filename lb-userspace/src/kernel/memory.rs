//! An array map's memory, mapped into this process, so that a word of it is swapped with one store.

use super::{error::KernelError, plain::Plain};
use aya::{
    Ebpf,
    maps::{Array, IterableMap as _, MapData},
};
use std::{
    borrow::Borrow,
    io,
    os::fd::{AsFd as _, AsRawFd as _},
    ptr::NonNull,
    sync::atomic::{AtomicU64, Ordering},
};

/// The words of an array map, which lives as long as the mapping.
#[derive(Debug)]
pub struct Memory {
    words: NonNull<AtomicU64>,
    length: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is only accessed by atomic operations.
unsafe impl Send for Memory {}

impl Memory {
    /// Maps an array of a loaded object, which keeps it: programs that are loaded later name it by its descriptor.
    pub fn of<T: bytemuck::Pod>(ebpf: &Ebpf, name: &'static str) -> Result<Self, KernelError> {
        let map = ebpf.map(name).ok_or(KernelError::Missing { name })?;
        let array: Array<_, Plain<T>> =
            map.try_into().map_err(|source| KernelError::Map { map: name, action: "use it", source })?;
        Self::map(name, &array)
    }

    /// Maps an array whose elements are whole words.
    pub fn map<T: bytemuck::Pod>(
        name: &'static str,
        array: &Array<impl Borrow<MapData>, Plain<T>>,
    ) -> Result<Self, KernelError> {
        const { assert!(size_of::<T>().is_multiple_of(8)) };
        let length = array.len() as usize * (size_of::<T>() / 8);
        let fd = array.map().fd().as_fd().as_raw_fd();
        // SAFETY: a new mapping at an address of the kernel's choice; the file is an array of at least this size.
        let address = unsafe {
            libc::mmap(std::ptr::null_mut(), length * 8, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, fd, 0)
        };
        let words = NonNull::new(address.cast()).filter(|_| address != libc::MAP_FAILED);
        let error =
            || KernelError::Memory { map: name, action: "map it into memory", source: io::Error::last_os_error() };
        Ok(Self { words: words.ok_or_else(error)?, length })
    }

    /// Stores a word; whatever was stored before it is seen by who sees the word.
    pub fn store(&self, index: usize, word: u64) {
        if let Some(place) = self.words().get(index) {
            place.store(word, Ordering::Release);
        }
    }

    /// Reads a word.
    pub fn load(&self, index: usize) -> Option<u64> {
        Some(self.words().get(index)?.load(Ordering::Acquire))
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping has this length, is aligned to a page and lives as long as `self`; the kernel's program and this
        // process only ever access it by whole words.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.length) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `map`, and nothing borrows from it any more.
        unsafe { libc::munmap(self.words.as_ptr().cast(), self.length * 8) };
    }
}
