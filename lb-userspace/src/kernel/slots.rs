//! The slot space: chunks of slots, each an array that is created when it is needed and mapped into memory.

use super::{error::KernelError, maps::on, memory::Memory, plain::Plain};
use aya::maps::{Array, ArrayOfMaps, IterableMap as _, Map, MapData};
use lb_common::tables::{CHUNK_BITS, CHUNK_SLOTS, Region, Slot};
use std::{
    collections::btree_map::{BTreeMap, Entry},
    path::PathBuf,
};

/// `BPF_F_MMAPABLE` of the kernel's `uapi/linux/bpf.h`.
const MMAPABLE: u32 = 1 << 10;

type Chunk = Array<MapData, Plain<Slot>>;

/// The slot space.
pub(super) struct SlotSpace {
    slots: ArrayOfMaps<MapData, Chunk>,
    chunks: BTreeMap<u32, Memory>,
    pins: Option<PathBuf>,
}

impl SlotSpace {
    /// The space of this map; its chunks are pinned in the folder of its pins, if it has one.
    pub(super) fn new(slots: ArrayOfMaps<MapData, Chunk>, pins: Option<PathBuf>) -> Self {
        Self { slots, chunks: BTreeMap::new(), pins }
    }

    /// Stores slots from the start of a region on.
    pub(super) fn write(&mut self, region: Region, slots: &[Slot]) -> Result<(), KernelError> {
        let (mut index, mut slots) = (region.first, slots);
        while !slots.is_empty() {
            let place = index & (CHUNK_SLOTS - 1);
            let fits = slots.len().min((CHUNK_SLOTS - place) as usize);
            let (here, rest) = slots.split_at(fits);
            let chunk = self.chunk(index >> CHUNK_BITS)?;
            (place as usize..).zip(here).for_each(|(place, slot)| chunk.store(place, bytemuck::cast(*slot)));
            (index, slots) = (index + fits as u32, rest);
        }
        Ok(())
    }

    /// Stores single slots of a region, each by its number in it.
    pub(super) fn store(&mut self, region: Region, slots: &[(u32, Slot)]) -> Result<(), KernelError> {
        for (number, slot) in slots {
            let index = region.first + number;
            self.chunk(index >> CHUNK_BITS)?.store(place(index), bytemuck::cast(*slot));
        }
        Ok(())
    }

    /// Reads the slots of a region.
    pub(super) fn read(&mut self, region: Region) -> Result<Vec<Slot>, KernelError> {
        let mut slots = Vec::with_capacity(region.slots as usize);
        for index in region.first..region.first + region.slots {
            slots.extend(self.chunk(index >> CHUNK_BITS)?.load(place(index)).map(bytemuck::cast::<u64, Slot>));
        }
        Ok(slots)
    }

    /// Reads a slot, wherever its index comes from: unlike [`SlotSpace::read`] it makes no chunk.
    pub(super) fn look(&self, index: u32) -> Option<Slot> {
        self.chunks.get(&(index >> CHUNK_BITS))?.load(place(index)).map(bytemuck::cast)
    }

    /// A chunk, created if it is missing.
    fn chunk(&mut self, index: u32) -> Result<&Memory, KernelError> {
        let chunk = match self.chunks.entry(index) {
            Entry::Occupied(entry) => return Ok(entry.into_mut()),
            Entry::Vacant(entry) => entry,
        };
        let pin = self.pins.as_ref().map(|pins| pins.join(format!("SLOTS-{index}")));
        let array: Chunk = pinned("SLOTS", pin, CHUNK_SLOTS)?;
        on("SLOTS", "add a chunk", self.slots.set(index, &array, 0))?;
        Ok(chunk.insert(Memory::map("SLOTS", &array)?))
    }
}

/// A chunk of the map of maps `map`: the array that is pinned there, or a new one with so many elements.
///
/// Each has a pin of its own: a map is opened by its id only with CAP_SYS_ADMIN, which the agent does not keep.
pub(super) fn pinned<T: bytemuck::Pod>(
    map: &'static str,
    pin: Option<PathBuf>,
    length: u32,
) -> Result<Array<MapData, Plain<T>>, KernelError> {
    if let Some(pin) = pin.as_ref().filter(|pin| pin.exists()) {
        let data = on(map, "open a chunk", MapData::from_pin(pin))?;
        return on(map, "open a chunk", Map::Array(data).try_into());
    }
    let array = on(map, "create a chunk", Array::create(length, MMAPABLE))?;
    if let Some(path) = pin {
        array.map().pin(&path).map_err(|source| KernelError::PinChunk { map, path, source })?;
    }
    Ok(array)
}

/// A slot's place in its chunk.
const fn place(index: u32) -> usize {
    (index & (CHUNK_SLOTS - 1)) as usize
}
