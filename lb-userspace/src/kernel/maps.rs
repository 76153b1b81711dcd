//! The maps: the only place that writes them.

use super::{answers::AnswerMaps, error::KernelError, flows::FlowMaps, memory::Memory, plain::Plain, slots::SlotSpace};
use crate::model::{actual::Actual, dns::rendered::Question, intent::Limits, op::Op};
use aya::{
    Ebpf,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, ProgramArray, xdp::DevMapHash},
    programs::ProgramFd,
    util::nr_cpus,
};
use lb_common::{
    tables::{Address, Backend, DOWN, Endpoint, FlowKey, FlowTable, Interface, Service, Settings, Tracked, Traffic},
    verdict::Why,
};
use std::{collections::BTreeMap, io, path::Path, thread, time::Duration};

/// Where the program for rare frames is among those that can be called.
const RARE: u32 = 0;
/// Words of a [`Service`]: its region, then its flags and its id.
pub(super) const SERVICE_WORDS: usize = size_of::<Service>() / 8;
/// Words of a [`Backend`].
pub(super) const BACKEND_WORDS: usize = size_of::<Backend>() / 8;
/// The word with [`Backend::flags`].
pub(super) const FLAGS_WORD: usize = std::mem::offset_of!(Backend, flags) / 8;

/// Every map that the agent reads or writes.
pub struct Maps {
    pub(super) limits: Limits,
    programs: ProgramArray<MapData>,
    pub(super) settings: Array<MapData, Plain<Settings>>,
    pub(super) interfaces: HashMap<MapData, u32, Plain<Interface>>,
    pub(super) devices: DevMapHash<MapData>,
    pub(super) addresses: HashMap<MapData, Plain<Address>, u64>,
    pub(super) service_ids: HashMap<MapData, Plain<Endpoint>, u32>,
    pub(super) services: Memory,
    pub(super) slots: SlotSpace,
    pub(super) backends: Memory,
    pub(super) returns: HashMap<MapData, Plain<Endpoint>, u32>,
    pub(super) answers: AnswerMaps,
    pub(super) flows: FlowMaps,
    traffic: PerCpuArray<MapData, Plain<Traffic>>,
    counts: PerCpuArray<MapData, u64>,
}

/// Takes a map out of a loaded object.
pub(super) fn take<T>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, KernelError>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(KernelError::Missing { name })?;
    map.try_into().map_err(|source| KernelError::Map { map: name, action: "use it", source })
}

impl Maps {
    /// Takes the maps, which have these sizes, out of a loaded object; chunks of the slot space are pinned where its maps are.
    pub fn take(ebpf: &mut Ebpf, limits: Limits, pins: Option<&Path>) -> Result<Self, KernelError> {
        Ok(Self {
            limits,
            programs: take(ebpf, "PROGRAMS")?,
            settings: take(ebpf, "SETTINGS")?,
            interfaces: take(ebpf, "INTERFACES")?,
            devices: take(ebpf, "DEVICES")?,
            addresses: take(ebpf, "ADDRESSES")?,
            service_ids: take(ebpf, "SERVICE_IDS")?,
            services: Memory::of::<Service>(ebpf, "SERVICES")?,
            slots: SlotSpace::new(take(ebpf, "SLOTS")?, pins.map(Into::into)),
            backends: Memory::of::<Backend>(ebpf, "BACKENDS")?,
            returns: take(ebpf, "RETURNS")?,
            answers: AnswerMaps::take(ebpf, pins)?,
            flows: FlowMaps { established: take(ebpf, "FLOWS")?, half_open: take(ebpf, "HALF_OPEN")? },
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
            Op::PutSettings(settings) => on("SETTINGS", "write it", self.settings.set(0, Plain(**settings), 0)),
            Op::PutInterface { index, mac } => {
                let interface = Plain(Interface { mac: *mac, zero: [0; 2] });
                on("INTERFACES", "add an interface", self.interfaces.insert(index, interface, 0))?;
                self.devices.insert(*index, *index, None, 0).map_err(KernelError::Devices)
            }
            Op::RemoveInterface { index } => self.remove_interface(*index),
            Op::PutBackend { id, backend } => {
                self.store_backend(*id, backend);
                Ok(())
            }
            Op::RemoveBackend { id } => self.remove_backend(*id),
            Op::PutReturn { own, id } => on("RETURNS", "add a backend", self.returns.insert(Plain(*own), id, 0)),
            Op::RemoveReturn { own } => on("RETURNS", "remove a backend", self.returns.remove(&Plain(*own))),
            Op::WriteTable { region, slots } => self.slots.write(*region, slots),
            Op::StoreSlots { region, slots, .. } => self.slots.store(*region, slots),
            Op::PutService { id, endpoint, service, .. } => {
                let words: [u64; SERVICE_WORDS] = bytemuck::cast(*service);
                (*id as usize * SERVICE_WORDS..).zip(words).for_each(|(index, word)| self.services.store(index, word));
                on("SERVICE_IDS", "add a service", self.service_ids.insert(Plain(*endpoint), id, 0))
            }
            Op::SetFlags { id, flags, .. } => {
                let [_, word]: [u64; SERVICE_WORDS] = bytemuck::cast(Service { region: 0, flags: *flags, id: *id });
                self.services.store(*id as usize * SERVICE_WORDS + 1, word);
                Ok(())
            }
            Op::SwapTable { id, region, .. } => {
                self.services.store(*id as usize * SERVICE_WORDS, region.word());
                Ok(())
            }
            Op::RemoveService { endpoint, .. } => {
                on("SERVICE_IDS", "remove a service", self.service_ids.remove(&Plain(*endpoint)))
            }
            Op::PutDns(dns) => {
                self.answers.put_settings(dns);
                Ok(())
            }
            Op::WriteIndex { index, .. } => self.answers.write_index(index),
            Op::SwapIndex { id, region, .. } => {
                self.services.store(*id as usize * SERVICE_WORDS, region.word());
                Ok(())
            }
            Op::PutAnswer(put) => self.answers.put(put),
            Op::RemoveAnswer { place, index, .. } => self.answers.remove(*index, *place),
            Op::LeaveAnswer { .. } | Op::FollowAnswers { .. } => Ok(()),
            Op::PutAddress { address, answers } => {
                on("ADDRESSES", "add an address", self.addresses.insert(Plain(*address), answers, 0))
            }
            Op::RemoveAddress { address } => {
                on("ADDRESSES", "remove an address", self.addresses.remove(&Plain(*address)))
            }
            Op::Forget { services, backends } => self.flows.forget_of(services, backends),
            Op::ForgetFlows { flows } => self.flows.forget(flows),
            Op::Grace => {
                grace_period();
                Ok(())
            }
        }
    }

    /// Looks at all flows that are tracked.
    pub fn for_each_flow(&self, look: impl FnMut(FlowTable, &FlowKey, Tracked)) -> Result<(), KernelError> {
        self.flows.for_each(look)
    }

    fn remove_interface(&mut self, index: u32) -> Result<(), KernelError> {
        match self.devices.remove(index) {
            // The kernel has taken out by itself what no longer exists.
            Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => (),
            removed => on("DEVICES", "remove an interface", removed)?,
        }
        on("INTERFACES", "remove an interface", self.interfaces.remove(&index))
    }

    /// One that is down is so before its next hop changes; one that comes up has its next hop before.
    fn store_backend(&self, id: u32, backend: &Backend) {
        let words: [u64; BACKEND_WORDS] = bytemuck::cast(*backend);
        let first = id as usize * BACKEND_WORDS;
        let flags =
            || words.get(FLAGS_WORD).into_iter().for_each(|word| self.backends.store(first + FLAGS_WORD, *word));
        if backend.flags & DOWN != 0 {
            flags();
        }
        for (index, word) in words.iter().enumerate().filter(|(index, _)| *index != FLAGS_WORD) {
            self.backends.store(first + index, *word);
        }
        flags();
    }

    fn remove_backend(&mut self, id: u32) -> Result<(), KernelError> {
        self.store_backend(id, &bytemuck::Zeroable::zeroed());
        let nothing = PerCpuValues::try_from(vec![Plain(Traffic::default()); cpus("TRAFFIC")?]);
        let nothing = nothing.map_err(|source| KernelError::Memory { map: "TRAFFIC", action: "reset it", source })?;
        on("TRAFFIC", "reset it", self.traffic.set(id, nothing, 0))
    }

    /// Packets by the way they left, over all CPUs.
    pub fn counts(&self) -> Result<BTreeMap<Why, u64>, KernelError> {
        let count = |why: &Why| {
            let values = on("COUNTS", "read it", self.counts.get(&(*why as u32), 0))?;
            Ok((*why, values.iter().sum()))
        };
        Why::ALL.iter().map(count).collect()
    }

    /// Looks at the answers that an earlier agent has left: their questions and records.
    pub fn for_each_answer(&mut self, actual: &Actual, look: impl FnMut(&Question, &[u8])) -> Result<(), KernelError> {
        self.answers.for_each_body(actual, look)
    }

    /// Questions that were sampled, by their hashes, and how often.
    pub fn samples(&self) -> Result<BTreeMap<u64, u64>, KernelError> {
        self.answers.samples()
    }

    /// So many words of the answer space, from this block on.
    pub fn answer_words(&mut self, block: u32, count: usize) -> Result<Vec<u64>, KernelError> {
        self.answers.words(block, count)
    }

    /// Bytes of memory of the answer space.
    pub fn answer_bytes(&self) -> u64 {
        self.answers.bytes()
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
pub(super) fn on<T>(map: &'static str, action: &'static str, result: Result<T, MapError>) -> Result<T, KernelError> {
    result.map_err(|source| KernelError::Map { map, action, source })
}

pub(super) fn cpus(map: &'static str) -> Result<usize, KernelError> {
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
