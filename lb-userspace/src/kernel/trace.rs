//! Samples of frames with what became of them: for as long as there is a trace, programs that take them stand in the place of those
//! that don't.
//!
//! They are the same path, compiled once more, on the same maps, so that what is told of a frame is what was done with it. Without a
//! trace no frame comes to them, and the path has nothing in it that would ask. The kernel sees them when the first trace begins: should
//! it refuse them, there are no traces, and that is all.

use super::{
    error::KernelError,
    load,
    maps::{on, take},
    plain::Plain,
};
use aya::{
    Ebpf,
    maps::{Array, MapData, PerCpuArray, ProgramArray, RingBuf},
    programs::ProgramError,
};
use lb_common::trace::{Sample, Sampling, Tracing};
use nix::time::{ClockId, clock_gettime};
use std::{
    io,
    time::{Duration, SystemTime},
};

/// What is attached to interfaces, and what it hands rare frames to.
pub const PROGRAMS: [&str; 2] = ["lb_traced", "lb_traced_rare"];
/// Where the program for rare frames is among those that can be called.
const RARE: u32 = 0;
/// For how long samples are taken after the agent last said so. By the clock's whole seconds, one of which is mostly gone.
const LEASE: u64 = 4;
const SAMPLING: &str = "SAMPLING";
const TRACED_PROGRAMS: &str = "TRACED_PROGRAMS";

/// Has the kernel verify the programs of a loaded object, unless it has done so.
pub fn load_programs(ebpf: &mut Ebpf) -> Result<(), KernelError> {
    for name in PROGRAMS {
        match load::program(ebpf, name)?.load() {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => (),
            Err(error) => return Err(load::not_verified(error)),
        }
    }
    Ok(())
}

/// What traces need of the kernel.
pub struct Tracer {
    rare: ProgramArray<MapData>,
    tracing: Array<MapData, Plain<Tracing>>,
    sampling: PerCpuArray<MapData, Plain<Sampling>>,
    taken: RingBuf<MapData>,
}

impl Tracer {
    /// Takes its maps out of the loaded object.
    pub fn take(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self {
            rare: take(ebpf, TRACED_PROGRAMS)?,
            tracing: take(ebpf, "TRACING")?,
            sampling: take(ebpf, SAMPLING)?,
            taken: take(ebpf, "TAKEN")?,
        })
    }

    /// Loads the programs, and has rare frames handed to the one that takes samples of them, before the other is attached.
    pub fn begin(&mut self, ebpf: &mut Ebpf) -> Result<(), KernelError> {
        load_programs(ebpf)?;
        let [_, rare] = PROGRAMS;
        let rare = load::program(ebpf, rare)?.fd().map_err(load::not_verified)?;
        on(TRACED_PROGRAMS, "put the program for rare frames into it", self.rare.set(RARE, rare, 0))
    }

    /// Lets go of it when no interface has the other one any more, also if an agent before this one has left it.
    pub fn end(&mut self) -> Result<(), KernelError> {
        match self.rare.clear_index(&RARE) {
            // There was none.
            Err(aya::maps::MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => on(TRACED_PROGRAMS, "take the program for rare frames out of it", result),
        }
    }

    /// Has one of so many frames sampled, from now on for a few seconds.
    pub fn renew(&mut self, every: u64) -> Result<(), KernelError> {
        let until_seconds = clock(ClockId::CLOCK_MONOTONIC_COARSE)?.as_secs() + LEASE;
        on("TRACING", "write it", self.tracing.set(0, Plain(Tracing { until_seconds, every }), 0))
    }

    /// How many samples all CPUs together have missed since the object was loaded.
    pub fn missed(&self) -> Result<u64, KernelError> {
        let values = on(SAMPLING, "read it", self.sampling.get(&0, 0))?;
        Ok(values.iter().map(|sampling| sampling.0.missed).sum())
    }

    /// The samples that wait.
    pub fn taken(&mut self) -> Vec<Sample> {
        let mut samples = Vec::new();
        while let Some(item) = self.taken.next() {
            samples.extend(bytemuck::try_pod_read_unaligned::<Sample>(&item));
        }
        samples
    }
}

/// What is to be added to a sample's time for that of the wall clock, both since their beginnings.
pub fn wall_offset() -> Result<Duration, KernelError> {
    let monotonic = clock(ClockId::CLOCK_MONOTONIC)?;
    let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(wall.saturating_sub(monotonic))
}

fn clock(id: ClockId) -> Result<Duration, KernelError> {
    Ok(clock_gettime(id).map_err(|errno| KernelError::Clock(errno.into()))?.into())
}
