//! The proof that frames reach a program on an interface.
//!
//! That the kernel took a program says nothing of the frames: a driver may have other queues for them, and a cable may be out. So
//! a program stands before the balancer's for a moment, on the very link, and notes whether one came. Frames are handed on
//! meanwhile: who is served notices nothing.

use super::{
    SEEN_OBJECT, attach,
    error::KernelError,
    load::{self, Pins},
};
use crate::model::intent::Attach;
use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, Map, MapData, MapError, ProgramArray},
    programs::ProgramFd,
};
use std::{
    fs,
    path::{Path, PathBuf},
};

const PROGRAM: &str = "lb_seen";
const SEEN: &str = "SEEN";
/// Pinned for as long as a proof takes: the kernel empties an array of programs that no process and no pin holds, and an agent may
/// die at any time.
const BEHIND: &str = "BEHIND";

/// Loads the object, its array of programs pinned here if anywhere.
pub fn load(pin: Option<&Path>) -> Result<Ebpf, KernelError> {
    let mut loader = EbpfLoader::new();
    if let Some(pin) = pin {
        loader.map_pin_path(BEHIND, pin);
    }
    load::verified(&mut loader, SEEN_OBJECT, &[PROGRAM])
}

/// The program that notes frames, and what it has noted.
pub struct Proof {
    ebpf: Ebpf,
    seen: HashMap<MapData, u32, u64>,
    pin: PathBuf,
}

impl Proof {
    /// Loads it; frames are handed on to the program `behind`.
    pub fn load(pins: &Pins, behind: &ProgramFd) -> Result<Self, KernelError> {
        let pin = pins.path().join(BEHIND);
        let mut ebpf = load(Some(&pin))?;
        let mut take = |name| ebpf.take_map(name).ok_or(KernelError::Missing { name });
        let on = |map, action| move |source: MapError| KernelError::Map { map, action, source };
        let (seen, array): (Map, Map) = (take(SEEN)?, take(BEHIND)?);
        let seen = HashMap::try_from(seen).map_err(on(SEEN, "open it"))?;
        let mut array = ProgramArray::try_from(array).map_err(on(BEHIND, "open it"))?;
        array.set(0, behind, 0).map_err(on(BEHIND, "put the program into it"))?;
        Ok(Self { ebpf, seen, pin })
    }

    /// Stands before what is on an interface, which is attached already.
    pub fn begin(&mut self, pins: &Pins, name: &str, index: u32, mode: Attach) -> Result<(), KernelError> {
        let failed = |source| KernelError::Map { map: SEEN, action: "put an interface into it", source };
        self.seen.insert(index, 0, 0).map_err(failed)?;
        attach::attach(load::program(&mut self.ebpf, PROGRAM)?, pins, name, index, mode)
    }

    /// Whether a frame has come by an interface since.
    pub fn has_seen(&self, index: u32) -> bool {
        self.seen.get(&index, 0).is_ok_and(|seen| seen != 0)
    }
}

/// Removes what an agent has left that died in a proof, once no interface has the program any more.
pub fn remove_leftover(pins: &Pins) {
    let _ = fs::remove_file(pins.path().join(BEHIND));
}

impl Drop for Proof {
    fn drop(&mut self) {
        // What is left behind does no harm: the next agent removes it, and so does `lb detach`.
        let _ = fs::remove_file(&self.pin);
    }
}
