//! The decapsulator on a backend's interfaces.
//!
//! There is no agent: each interface has a program with maps of its own, and link and maps are pinned for the commands that
//! come later. Attaching again puts another program with other maps in place of the first in one step.

use super::{
    DECAP_OBJECT, KernelError,
    attach::{self, pin_path},
    load::{Pins, program, verified},
    maps::{on, take},
    plain::Plain,
};
use crate::model::intent::Attach;
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, IterableMap as _, Map, MapData, PerCpuArray},
    programs::Xdp,
};
use lb_common::{
    decap::{
        tables::{LAYOUT, MAX_ADDRESSES, Settings, endpoint},
        verdict::{REASONS, Why},
    },
    tables::Endpoint,
};
use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Where links and maps are pinned if nothing else is said.
pub const DEFAULT_PINS: &str = "/sys/fs/bpf/lb-decap";
/// What the program is called.
pub const PROGRAM: &str = "lb_decap";
/// What an agent pins, and this does not.
const OF_AN_AGENT: &str = "SETTINGS";
/// How long another command is waited for: it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// A loaded program with its maps, on no interface yet.
pub struct Decapsulator {
    ebpf: Ebpf,
    maps: Maps,
}

struct Maps {
    settings: Array<MapData, Plain<Settings>>,
    addresses: HashMap<MapData, Plain<Endpoint>, u64>,
    counts: PerCpuArray<MapData, u64>,
}

/// What a program does and has done.
pub struct Found {
    /// Its id.
    pub program: u32,
    /// Where it takes packets from.
    pub settings: Settings,
    /// Where tunnels end.
    pub addresses: Vec<IpAddr>,
    /// Packets by the way they left, over all CPUs.
    pub counts: BTreeMap<Why, u64>,
}

impl Decapsulator {
    /// Loads a program and fills its maps.
    pub fn load(settings: &Settings, addresses: impl IntoIterator<Item = IpAddr>) -> Result<Self, KernelError> {
        let mut ebpf = verified(&mut EbpfLoader::new(), DECAP_OBJECT, &[PROGRAM])?;
        let mut maps = Maps {
            settings: take(&mut ebpf, "SETTINGS")?,
            addresses: take(&mut ebpf, "ADDRESSES")?,
            counts: take(&mut ebpf, "COUNTS")?,
        };
        on("SETTINGS", "write it", maps.settings.set(0, Plain(*settings), 0))?;
        for address in addresses {
            on("ADDRESSES", "add an address", maps.addresses.insert(Plain(endpoint(address)), 0, 0))?;
        }
        Ok(Self { ebpf, maps })
    }

    /// The program.
    pub fn program(&mut self) -> Result<&mut Xdp, KernelError> {
        program(&mut self.ebpf, PROGRAM)
    }

    /// Packets by the way they left, over all CPUs.
    pub fn counts(&self) -> Result<BTreeMap<Why, u64>, KernelError> {
        self.maps.counts()
    }

    /// Puts the program on an interface, in place of an older one of ours.
    pub fn attach(mut self, pins: &Pins, name: &str, index: u32, mode: Attach) -> Result<(), KernelError> {
        self.maps.pin_new(pins.path(), name)?;
        if let Err(error) = attach::attach(self.program()?, pins, name, index, mode) {
            MAPS.iter().try_for_each(|map| remove(new_path(pins.path(), map, name)))?;
            return Err(error);
        }
        for map in MAPS {
            let path = map_path(pins.path(), map, name);
            let renamed = fs::rename(new_path(pins.path(), map, name), &path);
            renamed.map_err(|source| KernelError::Pins { path, source })?;
        }
        Ok(())
    }
}

/// Takes hold of the folder of pins, after another command that has it now: when a machine comes up, each interface may have
/// one of its own.
pub fn hold(path: &Path) -> Result<Pins, KernelError> {
    if path.join(OF_AN_AGENT).exists() {
        return Err(KernelError::PinsOfAgent { path: path.into(), default: DEFAULT_PINS });
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Pins::hold(path) {
            Err(KernelError::PinsInUse { .. }) if Instant::now() < deadline => thread::sleep(PAUSE),
            held => return held,
        }
    }
}

/// Names of the interfaces that have a pinned link.
pub fn attached(pins: &Path) -> Result<Vec<String>, KernelError> {
    match fs::read_dir(pins) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(KernelError::NoPrivileges),
        _ => Ok(attach::attached(pins)),
    }
}

/// What is on an interface, by its pins.
pub fn read(pins: &Path, name: &str) -> Result<Found, KernelError> {
    let program = attach::program_id(pins, name)?;
    let maps = Maps::open(pins, name)?;
    let settings = on("SETTINGS", "read it", maps.settings.get(&0, 0))?.0;
    if settings.layout != LAYOUT {
        return Err(KernelError::Unreadable { name: name.into() });
    }
    let mut addresses = Vec::new();
    for address in maps.addresses.keys() {
        addresses.push(on("ADDRESSES", "read it", address)?.0.ip());
    }
    addresses.sort();
    Ok(Found { program, settings, addresses, counts: maps.counts()? })
}

/// Takes the program off an interface. Says whether it was there.
pub fn detach(pins: &Path, name: &str) -> Result<bool, KernelError> {
    let was_there = attach::detach(pins, name)?;
    for map in MAPS {
        remove(map_path(pins, map, name))?;
        remove(new_path(pins, map, name))?;
    }
    Ok(was_there)
}

const MAPS: [&str; 3] = ["SETTINGS", "ADDRESSES", "COUNTS"];

impl Maps {
    /// Pins the maps beside those of the program that this one is to replace.
    fn pin_new(&self, pins: &Path, name: &str) -> Result<(), KernelError> {
        let data = [self.settings.map(), self.addresses.map(), self.counts.map()];
        for (map, data) in MAPS.iter().zip(data) {
            let path = new_path(pins, map, name);
            // Of an attach that was killed.
            remove(path.clone())?;
            data.pin(&path).map_err(|source| KernelError::PinMap { path, source })?;
        }
        Ok(())
    }

    /// Opens pinned maps, if they are what this version pins.
    fn open(pins: &Path, name: &str) -> Result<Self, KernelError> {
        let unreadable = || KernelError::Unreadable { name: name.into() };
        let open = |map, value: usize, entries| {
            let data = MapData::from_pin(map_path(pins, map, name)).map_err(|_| unreadable())?;
            let info = data.info().map_err(|_| unreadable())?;
            let same = (info.value_size() as usize, info.max_entries()) == (value, entries);
            if same { Ok(data) } else { Err(unreadable()) }
        };
        let settings = Map::Array(open("SETTINGS", size_of::<Settings>(), 1)?);
        let addresses = Map::HashMap(open("ADDRESSES", size_of::<u64>(), MAX_ADDRESSES)?);
        let counts = Map::PerCpuArray(open("COUNTS", size_of::<u64>(), REASONS)?);
        Ok(Self {
            settings: on("SETTINGS", "use it", settings.try_into())?,
            addresses: on("ADDRESSES", "use it", addresses.try_into())?,
            counts: on("COUNTS", "use it", counts.try_into())?,
        })
    }

    fn counts(&self) -> Result<BTreeMap<Why, u64>, KernelError> {
        let count = |why: &Why| {
            let values = on("COUNTS", "read it", self.counts.get(&(*why as u32), 0))?;
            Ok((*why, values.iter().sum()))
        };
        Why::ALL.iter().map(count).collect()
    }
}

fn map_path(pins: &Path, map: &str, name: &str) -> PathBuf {
    pin_path(pins, &format!("{map}-"), name)
}

fn new_path(pins: &Path, map: &str, name: &str) -> PathBuf {
    pin_path(pins, &format!("new-{map}-"), name)
}

/// Removes a pin that may not be there.
fn remove(path: PathBuf) -> Result<(), KernelError> {
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(KernelError::Pins { path, source }),
        _ => Ok(()),
    }
}
