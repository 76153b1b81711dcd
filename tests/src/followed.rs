//! How far the verifier had to go for each program, and the record of it, by the kernel's version.

use anyhow::{Context as _, Result, bail, ensure};
use aya::programs::ProgramInfo;
use lb_common::decap::tables::Settings;
use lb_userspace::{
    kernel::{
        decap::{self, Decapsulator},
        load::load,
        proof, trace,
    },
    model::intent::Limits,
};
use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

/// Instructions that the verifier followed, by the program's name.
pub type Followed = BTreeMap<String, u32>;

/// Growth that is let pass, in percent: compilers differ a little.
const TOLERANCE: u32 = 10;
/// The kernel gives up after this many.
const LIMIT: u32 = 1_000_000;
/// Several kernels may be recorded at a time.
static RECORDING: Mutex<()> = Mutex::new(());

/// Loads every program of every object, as the agent does.
pub fn followed() -> Result<Followed> {
    let (mut balancer, _maps) = load(None, Limits::default())?;
    trace::load_programs(&mut balancer)?;
    let proof = proof::load(None)?;
    let settings = Settings::new(&[]).context("the settings take no number of sources")?;
    let mut decapsulator = Decapsulator::load(&settings, [])?;
    let programs = balancer.programs().chain(proof.programs());
    let programs = programs.map(|(name, program)| Ok((name.to_owned(), count(&program.info()?)?)));
    let decapsulator = decapsulator.program()?.info()?;
    programs.chain([Ok((decap::PROGRAM.to_owned(), count(&decapsulator)?))]).collect()
}

fn count(program: &ProgramInfo) -> Result<u32> {
    program.verified_instruction_count().context("this kernel does not count verified instructions")
}

/// The version of a kernel, as the record has it, of its release: `6.1` of `6.1.0-56-cloud-amd64`.
#[must_use]
pub fn version(release: &str) -> String {
    release.trim().split('.').take(2).collect::<Vec<_>>().join(".")
}

/// Holds the numbers against the record; with `UPDATE` in the environment they are recorded instead. The answer is no if the
/// record does not know this version.
pub fn compare(version: &str, followed: &Followed) -> Result<bool> {
    for (program, count) in followed {
        ensure!(*count < LIMIT / 2, "{program}: {count} instructions are too close to the kernel's limit of {LIMIT}");
    }
    let _recording = RECORDING.lock().unwrap_or_else(PoisonError::into_inner);
    let path = record();
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let mut versions: BTreeMap<String, Followed> = toml::from_str(&text)?;
    if env::var_os("UPDATE").is_some() {
        versions.insert(version.to_owned(), followed.clone());
        fs::write(&path, toml::to_string(&versions)?).with_context(|| format!("writing {}", path.display()))?;
        return Ok(true);
    }
    let Some(recorded) = versions.get(version) else {
        return Ok(false);
    };
    for (program, count) in followed {
        let Some(recorded) = recorded.get(program) else {
            bail!("there is no number for {program} on Linux {version}: record it with UPDATE=1");
        };
        let most = recorded + recorded * TOLERANCE / 100;
        ensure!(
            *count <= most,
            "{program}: {count} instructions on Linux {version}, recorded {recorded}: find what grew, or record it with UPDATE=1"
        );
    }
    Ok(true)
}

fn record() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/verifier.toml")
}
