//! The maps: the only place that writes them.

use super::{error::KernelError, memory::Memory, plain::Plain};
use crate::model::{
    actual::{Actual, ActualService},
    op::Op,
};
use aya::{
    Ebpf,
    maps::{
        Array, ArrayOfMaps, HashMap, IterableMap as _, Map, MapData, MapError, PerCpuArray, PerCpuValues, ProgramArray,
        xdp::DevMapHash,
    },
    programs::ProgramFd,
    util::nr_cpus,
};
use lb_common::{
    tables::{
        Address, Answer, AnswerKey, Backend, CHUNK_BITS, CHUNK_SLOTS, Endpoint, IN_USE, Interface, Region, Service,
        Settings, Slot, Traffic,
    },
    verdict::Why,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};

/// `BPF_F_MMAPABLE` of the kernel's `uapi/linux/bpf.h`.
const MMAPABLE: u32 = 1 << 10;
/// Words of a [`Service`], of which the first is its region.
const SERVICE_WORDS: usize = size_of::<Service>() / 8;

/// Where the program for rare frames is among those that can be called.
const RARE: u32 = 0;
/// Words of a [`Backend`].
const BACKEND_WORDS: usize = size_of::<Backend>() / 8;

type Chunk = Array<MapData, Plain<Slot>>;

/// Every map that the agent reads or writes.
pub struct Maps {
    programs: ProgramArray<MapData>,
    settings: Array<MapData, Plain<Settings>>,
    interfaces: HashMap<MapData, u32, Plain<Interface>>,
    devices: DevMapHash<MapData>,
    claims: HashMap<MapData, Plain<Address>, u64>,
    service_ids: HashMap<MapData, Plain<Endpoint>, u32>,
    services: Array<MapData, Plain<Service>>,
    service_words: Memory,
    slots: ArrayOfMaps<MapData, Chunk>,
    chunks: BTreeMap<u32, Memory>,
    pins: Option<PathBuf>,
    backends: Array<MapData, Plain<Backend>>,
    backend_words: Memory,
    returns: HashMap<MapData, Plain<Endpoint>, u32>,
    answer_places: HashMap<MapData, Plain<AnswerKey>, u32>,
    answers: Array<MapData, Plain<Answer>>,
    turns: PerCpuArray<MapData, u32>,
    traffic: PerCpuArray<MapData, Plain<Traffic>>,
    counts: PerCpuArray<MapData, u64>,
}

/// What a restarted agent finds in the maps.
pub struct Found {
    /// The tables.
    pub actual: Actual,
    /// Ids of the backends that are in a slot table.
    pub serving: BTreeSet<u32>,
}

fn take<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, KernelError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(KernelError::Missing { name })?;
    map.try_into().map_err(|source| KernelError::Map { map: name, action: "use it", source })
}

impl Maps {
    /// Takes the maps out of a loaded object; chunks of the slot space are pinned where its maps are.
    pub fn take(ebpf: &mut Ebpf, pins: Option<&Path>) -> Result<Self, KernelError> {
        let services = take(ebpf, "SERVICES")?;
        let backends = take(ebpf, "BACKENDS")?;
        Ok(Self {
            programs: take(ebpf, "PROGRAMS")?,
            settings: take(ebpf, "SETTINGS")?,
            interfaces: take(ebpf, "INTERFACES")?,
            devices: take(ebpf, "DEVICES")?,
            claims: take(ebpf, "CLAIMS")?,
            service_ids: take(ebpf, "SERVICE_IDS")?,
            service_words: Memory::map("SERVICES", &services)?,
            services,
            slots: take(ebpf, "SLOTS")?,
            chunks: BTreeMap::new(),
            pins: pins.map(Into::into),
            backend_words: Memory::map("BACKENDS", &backends)?,
            backends,
            returns: take(ebpf, "RETURNS")?,
            answer_places: take(ebpf, "ANSWER_PLACES")?,
            answers: take(ebpf, "ANSWERS")?,
            turns: take(ebpf, "TURNS")?,
            traffic: take(ebpf, "TRAFFIC")?,
            counts: take(ebpf, "COUNTS")?,
        })
    }

    /// Has rare frames handed to this program. The kernel forgets it when nobody holds the map any more, a pin or this.
    pub fn put_rare(&mut self, program: &ProgramFd) -> Result<(), KernelError> {
        on("PROGRAMS", "put the program for rare frames into it", self.programs.set(RARE, program, 0))
    }

    /// Does one step.
    pub fn apply(&mut self, op: &Op) -> Result<(), KernelError> {
        match op {
            Op::PutSettings(settings) => on("SETTINGS", "write it", self.settings.set(0, Plain(*settings), 0)),
            Op::PutInterface { index, mac } => {
                let interface = Plain(Interface { mac: *mac, zero: [0; 2] });
                on("INTERFACES", "add an interface", self.interfaces.insert(index, interface, 0))?;
                self.devices.insert(*index, *index, None, 0).map_err(KernelError::Devices)
            }
            Op::RemoveInterface { index } => {
                match self.devices.remove(*index) {
                    // The kernel has taken out by itself what no longer exists.
                    Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => (),
                    removed => on("DEVICES", "remove an interface", removed)?,
                }
                on("INTERFACES", "remove an interface", self.interfaces.remove(index))
            }
            Op::PutBackend { id, backend } => {
                self.store_backend(*id, backend);
                Ok(())
            }
            Op::RemoveBackend { id } => self.remove_backend(*id),
            Op::PutReturn { own, id } => on("RETURNS", "add a backend", self.returns.insert(Plain(*own), id, 0)),
            Op::RemoveReturn { own } => on("RETURNS", "remove a backend", self.returns.remove(&Plain(*own))),
            Op::WriteTable { region, slots } => self.write_table(*region, slots),
            Op::PutService { id, endpoint, service, .. } => {
                on("SERVICES", "write a service", self.services.set(*id, Plain(*service), 0))?;
                on("SERVICE_IDS", "add a service", self.service_ids.insert(Plain(*endpoint), id, 0))
            }
            Op::SwapTable { id, region, .. } => {
                self.service_words.store(*id as usize * SERVICE_WORDS, region.word());
                Ok(())
            }
            Op::RemoveService { endpoint, .. } => {
                on("SERVICE_IDS", "remove a service", self.service_ids.remove(&Plain(*endpoint)))
            }
            Op::Claim { address } => on("CLAIMS", "add an address", self.claims.insert(Plain(*address), 0, 0)),
            Op::Unclaim { address } => on("CLAIMS", "remove an address", self.claims.remove(&Plain(*address))),
            Op::PutAnswer { key, place, answer } => self.put_answer(key, *place, answer),
            Op::RemoveAnswer { key } => {
                on("ANSWER_PLACES", "remove an answer", self.answer_places.remove(&Plain(*key)))
            }
            Op::Grace => {
                grace_period();
                Ok(())
            }
        }
    }

    fn store_backend(&self, id: u32, backend: &Backend) {
        let words: [u64; BACKEND_WORDS] = bytemuck::cast(*backend);
        for (index, word) in (id as usize * BACKEND_WORDS..).zip(words) {
            self.backend_words.store(index, word);
        }
    }

    fn remove_backend(&mut self, id: u32) -> Result<(), KernelError> {
        self.store_backend(id, &bytemuck::Zeroable::zeroed());
        let nothing = PerCpuValues::try_from(vec![Plain(Traffic::default()); cpus("TRAFFIC")?]);
        let nothing = nothing.map_err(|source| KernelError::Memory { map: "TRAFFIC", action: "reset it", source })?;
        on("TRAFFIC", "reset it", self.traffic.set(id, nothing, 0))
    }

    fn write_table(&mut self, region: Region, slots: &[u32]) -> Result<(), KernelError> {
        for (index, backend) in (region.first..).zip(slots) {
            let word: u64 = bytemuck::cast(Slot { backend: *backend, zero: 0 });
            self.chunk(index >> CHUNK_BITS)?.store((index & (CHUNK_SLOTS - 1)) as usize, word);
        }
        Ok(())
    }

    /// A chunk of the slot space, created if it is missing.
    fn chunk(&mut self, index: u32) -> Result<&Memory, KernelError> {
        let chunk = match self.chunks.entry(index) {
            std::collections::btree_map::Entry::Occupied(entry) => return Ok(entry.into_mut()),
            std::collections::btree_map::Entry::Vacant(entry) => entry,
        };
        // Each has a pin of its own: a map is opened by its id only with CAP_SYS_ADMIN, which the agent does not keep.
        let pin = self.pins.as_ref().map(|pins| pins.join(format!("SLOTS-{index}")));
        let array = match pin.as_ref().filter(|pin| pin.exists()) {
            Some(pin) => {
                let data = on("SLOTS", "open a chunk", MapData::from_pin(pin))?;
                on("SLOTS", "open a chunk", Chunk::try_from(Map::Array(data)))?
            }
            None => {
                let array = on("SLOTS", "create a chunk", Chunk::create(CHUNK_SLOTS, MMAPABLE))?;
                if let Some(pin) = pin {
                    array.map().pin(&pin).map_err(|source| KernelError::PinChunk { path: pin, source })?;
                }
                array
            }
        };
        on("SLOTS", "add a chunk", self.slots.set(index, &array, 0))?;
        Ok(chunk.insert(Memory::map("SLOTS", &array)?))
    }

    fn put_answer(&mut self, key: &AnswerKey, place: u32, answer: &Arc<Answer>) -> Result<(), KernelError> {
        on("ANSWERS", "write an answer", self.answers.set(place, Plain(**answer), 0))?;
        // CPUs take turns from different starts, or all would begin with the same record.
        let turns = PerCpuValues::try_from((0..cpus("TURNS")? as u32).collect::<Vec<_>>());
        let turns = turns.map_err(|source| KernelError::Memory { map: "TURNS", action: "start it", source })?;
        on("TURNS", "start it", self.turns.set(place, turns, 0))?;
        on("ANSWER_PLACES", "add an answer", self.answer_places.insert(Plain(*key), place, 0))
    }

    /// Reads what the maps hold.
    pub fn read(&mut self) -> Result<Found, KernelError> {
        let mut actual = Actual::default();
        let settings = on("SETTINGS", "read it", self.settings.get(&0, 0))?.0;
        actual.settings = (settings.layout != 0).then_some(settings);
        for entry in self.interfaces.iter() {
            let (index, interface) = on("INTERFACES", "read it", entry)?;
            actual.interfaces.insert(index, interface.0.mac);
        }
        for (id, backend) in (0..).zip(self.backends.iter()) {
            let backend = on("BACKENDS", "read it", backend)?.0;
            if backend.flags & IN_USE != 0 {
                actual.record(&Op::PutBackend { id, backend });
            }
        }
        for entry in self.returns.iter() {
            let (own, id) = on("RETURNS", "read it", entry)?;
            actual.returns.insert(own.0, id);
        }
        for address in self.claims.keys() {
            actual.claims.insert(on("CLAIMS", "read it", address)?.0);
        }
        for entry in self.answer_places.iter() {
            let (key, place) = on("ANSWER_PLACES", "read it", entry)?;
            let answer = on("ANSWERS", "read it", self.answers.get(&place, 0))?.0;
            actual.record(&Op::PutAnswer { key: key.0, place, answer: Arc::new(answer) });
        }
        let serving = self.read_services(&mut actual)?;
        Ok(Found { actual, serving })
    }

    /// Reads the services into `actual`; returns the ids of the backends in their tables.
    fn read_services(&mut self, actual: &mut Actual) -> Result<BTreeSet<u32>, KernelError> {
        let mut serving = BTreeSet::new();
        let ids: Vec<_> = self.service_ids.iter().collect();
        for entry in ids {
            let (endpoint, id) = on("SERVICE_IDS", "read it", entry)?;
            let service = on("SERVICES", "read it", self.services.get(&id, 0))?.0;
            let region = Region::from_word(service.region);
            for index in region.first..region.first + region.slots {
                let word = self.chunk(index >> CHUNK_BITS)?.load((index & (CHUNK_SLOTS - 1)) as usize);
                serving.extend(word.map(|word| bytemuck::cast::<u64, Slot>(word).backend));
            }
            actual.service_ids.take(id);
            actual.regions.take(region);
            // What the table was made from is not in the kernel: it is made anew by the first plan.
            let service = ActualService { id, dns: service.dns != 0, region, members: None };
            actual.services.insert(endpoint.0, service);
        }
        Ok(serving)
    }

    /// Packets by the way they left, over all CPUs.
    pub fn counts(&self) -> Result<BTreeMap<Why, u64>, KernelError> {
        let count = |why: &Why| {
            let values = on("COUNTS", "read it", self.counts.get(&(*why as u32), 0))?;
            Ok((*why, values.iter().sum()))
        };
        Why::ALL.iter().map(count).collect()
    }

    /// What went to a backend, over all CPUs.
    pub fn traffic(&self, id: u32) -> Result<Traffic, KernelError> {
        let values = on("TRAFFIC", "read it", self.traffic.get(&id, 0))?;
        Ok(values.iter().fold(Traffic::default(), |sum, one| Traffic {
            packets: sum.packets + one.0.packets,
            bytes: sum.bytes + one.0.bytes,
        }))
    }
}

/// Names the map and what was tried.
fn on<T>(map: &'static str, action: &'static str, result: Result<T, MapError>) -> Result<T, KernelError> {
    result.map_err(|source| KernelError::Map { map, action, source })
}

fn cpus(map: &'static str) -> Result<usize, KernelError> {
    nr_cpus().map_err(|(_, source)| KernelError::Memory { map, action: "count the CPUs", source })
}

/// Waits until every program run that may still see what was taken away has ended.
///
/// `MEMBARRIER_CMD_GLOBAL` waits for an RCU grace period (membarrier(2)), and XDP programs run in RCU read-side sections.
fn grace_period() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: a system call without pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        // Not there with `nohz_full`. A program run takes microseconds.
        tracing::debug!(error = %io::Error::last_os_error(), "no membarrier; waiting instead");
        thread::sleep(Duration::from_millis(50));
    }
}
