//! The measuring programs, loaded, with the tables that they work on.

use crate::{
    control::Control,
    tables::{Link, Tables},
};
use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{MapData, PerCpuArray, PerCpuValues},
    programs::{TestRun as _, TestRunOptions, TestRunResult, Xdp},
    util::nr_cpus,
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-bench.bpf.o"));
const CONTROL_WORDS: usize = size_of::<Control>() / 8;

/// The programs and the maps by which they are told what to do.
pub struct Programs {
    ebpf: Ebpf,
    control: PerCpuArray<MapData, [u64; CONTROL_WORDS]>,
    received: PerCpuArray<MapData, u64>,
}

/// The programs and their tables.
pub struct Object {
    /// The programs.
    pub programs: Programs,
    /// What the path looks things up in.
    pub tables: Tables,
}

impl Object {
    /// Loads the programs and writes the tables, see [`Tables::write`].
    pub fn load(near: Link, far: Link, others: &[Link]) -> Result<Self> {
        let mut programs = Programs::load(&mut EbpfLoader::new())?;
        let tables = Tables::write(&mut programs.ebpf, near, far, others)?;
        Ok(Self { programs, tables })
    }
}

impl Programs {
    /// Loads them, with tables that are the loader's if it knows any.
    pub fn load(loader: &mut EbpfLoader<'_>) -> Result<Self> {
        let mut ebpf = loader.load(OBJECT).context("cannot load the measuring programs")?;
        for (name, program) in ebpf.programs_mut() {
            let program: &mut Xdp = program.try_into()?;
            let name = name.to_owned();
            program.load().with_context(|| format!("cannot load {name}"))?;
        }
        let control = ebpf.take_map("CONTROL").context("no map CONTROL")?.try_into()?;
        let received = ebpf.take_map("RECEIVED").context("no map RECEIVED")?.try_into()?;
        Ok(Self { ebpf, control, received })
    }

    /// The program with this name.
    pub fn program(&self, name: &str) -> Result<&Xdp> {
        Ok(self.ebpf.program(name).with_context(|| format!("no program {name}"))?.try_into()?)
    }

    /// The same, to attach it.
    pub fn program_mut(&mut self, name: &str) -> Result<&mut Xdp> {
        Ok(self.ebpf.program_mut(name).with_context(|| format!("no program {name}"))?.try_into()?)
    }

    /// Runs a program.
    pub fn run(&self, name: &str, options: TestRunOptions<'_>) -> Result<TestRunResult> {
        self.program(name)?.test_run(options).context("BPF_PROG_TEST_RUN failed")
    }

    /// Tells the programs what to do; each CPU is told by its number.
    pub fn set_control(&mut self, of_cpu: impl Fn(usize) -> Control) -> Result<()> {
        let words = (0..cpus()?).map(|cpu| bytemuck::cast(of_cpu(cpu))).collect::<Vec<_>>();
        self.control.set(0, PerCpuValues::try_from(words)?, 0).context("cannot write CONTROL")
    }

    /// Reads what the programs on a CPU have left there.
    pub fn control(&self, cpu: usize) -> Result<Control> {
        let values = self.control.get(&0, 0).context("cannot read CONTROL")?;
        Ok(bytemuck::cast(*values.get(cpu).with_context(|| format!("there is no CPU {cpu}"))?))
    }

    /// Live frames that have arrived, on all CPUs.
    pub fn received(&self) -> Result<u64> {
        Ok(self.received.get(&0, 0).context("cannot read RECEIVED")?.iter().sum())
    }
}

fn cpus() -> Result<usize> {
    nr_cpus().map_err(|(_, error)| error).context("cannot count the CPUs")
}
