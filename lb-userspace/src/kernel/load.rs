//! From the embedded object to loaded programs and maps, pinned or not.

use super::{OBJECT, error::KernelError, maps::Maps};
use crate::model::intent::Limits;
use aya::{
    Ebpf, EbpfError, EbpfLoader, VerifierLogLevel,
    maps::{Array, Map, MapData, MapError},
    programs::{ProgramError, Xdp},
};
use lb_common::tables::{LAYOUT, Settings};
use nix::{
    fcntl::{Flock, FlockArg},
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

/// Where bpffs belongs.
const BPFFS: &str = "/sys/fs/bpf";
/// What is attached to interfaces, and what it hands rare frames to.
pub const PROGRAMS: [&str; 2] = ["lb", "lb_rare"];
/// Maps that outlive the agent.
const PINNED: [&str; 19] = [
    "PROGRAMS",
    "TRACED_PROGRAMS",
    "SETTINGS",
    "INTERFACES",
    "DEVICES",
    "ADDRESSES",
    "SERVICE_IDS",
    "SERVICES",
    "SLOTS",
    "BACKENDS",
    "RETURNS",
    "FLOWS",
    "HALF_OPEN",
    "DNS",
    "ANSWERS",
    "TURN",
    "TOKENS",
    "TRAFFIC",
    "COUNTS",
];

/// The folder of pins, held by this process alone.
#[derive(Debug)]
pub struct Pins {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Pins {
    /// Takes hold of a folder on bpffs, made (and bpffs mounted in its usual place) where it is missing.
    pub fn hold(path: &Path) -> Result<Self, KernelError> {
        let pins = |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => KernelError::NoPrivileges,
            _ => KernelError::Pins { path: path.into(), source },
        };
        if path.starts_with(BPFFS) && !is_bpffs(Path::new(BPFFS)) {
            mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), None::<&str>)
                .map_err(|errno| KernelError::MountBpffs { path: BPFFS.into(), source: errno.into() })?;
        }
        fs::create_dir_all(path).map_err(pins)?;
        if !is_bpffs(path) {
            return Err(KernelError::NotBpffs { path: path.into() });
        }
        fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(pins)?;
        let folder = File::open(path).map_err(pins)?;
        let lock = Flock::lock(folder, FlockArg::LockExclusiveNonblock)
            .map_err(|_| KernelError::PinsInUse { path: path.into() })?;
        // Who held it last may have removed it since it was opened here.
        let held = lock.metadata().map_err(pins)?;
        if !fs::metadata(path).is_ok_and(|named| named.ino() == held.ino()) {
            return Err(KernelError::PinsInUse { path: path.into() });
        }
        Ok(Self { path: path.into(), _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the maps, if there are any, and the folder.
    pub fn remove(self) -> Result<(), KernelError> {
        let pins = |source| KernelError::Pins { path: self.path.clone(), source };
        for entry in fs::read_dir(&self.path).map_err(pins)? {
            fs::remove_file(entry.map_err(pins)?.path()).map_err(pins)?;
        }
        fs::remove_dir(&self.path).map_err(pins)
    }

    /// Refuses maps of another layout.
    fn check_layout(&self) -> Result<(), KernelError> {
        let settings = self.path.join("SETTINGS");
        if !settings.exists() {
            return Ok(());
        }
        let failed = |source| KernelError::Map { map: "SETTINGS", action: "read it", source };
        let data = MapData::from_pin(settings).map_err(failed)?;
        // Of another layout only the first word is known to be there.
        let size = data.info().map_err(failed)?.value_size() as usize;
        let found = if size == size_of::<Settings>() {
            let map = Array::<_, super::plain::Plain<Settings>>::try_from(Map::Array(data)).map_err(failed)?;
            map.get(&0, 0).map_err(failed)?.0.layout
        } else {
            0
        };
        // Zero is what a map holds before anything is written: an agent that died between the two.
        if found == LAYOUT || (found == 0 && size == size_of::<Settings>()) {
            return Ok(());
        }
        Err(KernelError::Layout { path: self.path.clone(), found, expected: LAYOUT })
    }

    /// Refuses maps of other sizes.
    fn check_sizes(&self, limits: Limits) -> Result<(), KernelError> {
        for (map, what, wanted) in sizes(limits) {
            let pin = self.path.join(map);
            if !pin.exists() {
                continue;
            }
            let failed = |source| KernelError::Map { map, action: "read its size", source };
            let found = MapData::from_pin(pin).and_then(|data| data.info()).map_err(failed)?.max_entries();
            if found != wanted {
                return Err(KernelError::Limit { path: self.path.clone(), what, found, wanted });
            }
        }
        Ok(())
    }
}

/// The maps whose sizes the config says: by which key, and what.
fn sizes(limits: Limits) -> [(&'static str, &'static str, u32); 7] {
    let Limits { services, backends, flows, .. } = limits;
    [
        ("ADDRESSES", "services", services),
        ("SERVICE_IDS", "services", services),
        ("SERVICES", "services", services),
        ("BACKENDS", "backends", backends),
        ("RETURNS", "backends", backends),
        ("TRAFFIC", "backends", backends),
        ("FLOWS", "flows", flows),
    ]
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}

/// Loads the object: with pins, its maps are those that are pinned there already, or become them.
pub fn load(pins: Option<&Pins>, limits: Limits) -> Result<(Ebpf, Maps), KernelError> {
    let mut loader = EbpfLoader::new();
    for (map, _, size) in sizes(limits) {
        loader.map_max_entries(map, size);
    }
    if let Some(pins) = pins {
        pins.check_layout()?;
        pins.check_sizes(limits)?;
        for name in PINNED {
            loader.map_pin_path(name, pins.path.join(name));
        }
    }
    let mut ebpf = verified(&mut loader, OBJECT, &PROGRAMS)?;
    let mut maps = Maps::take(&mut ebpf, limits, pins.map(Pins::path))?;
    maps.put_rare(program(&mut ebpf, "lb_rare")?.fd().map_err(not_verified)?)?;
    Ok((ebpf, maps))
}

/// Loads an object and its programs.
pub(super) fn verified(loader: &mut EbpfLoader, object: &[u8], programs: &[&'static str]) -> Result<Ebpf, KernelError> {
    // A program that is refused is loaded once more for the log. Statistics would be its last lines, which are to say why.
    loader.verifier_log_level(VerifierLogLevel::DEBUG);
    let mut ebpf = loader.load(object).map_err(refused)?;
    for name in programs {
        program(&mut ebpf, name)?.load().map_err(not_verified)?;
    }
    Ok(ebpf)
}

/// The XDP program with this name.
pub fn program<'e>(ebpf: &'e mut Ebpf, name: &'static str) -> Result<&'e mut Xdp, KernelError> {
    let program = ebpf.program_mut(name).ok_or(KernelError::Missing { name })?;
    program.try_into().map_err(|_| KernelError::Missing { name })
}

fn refused(error: EbpfError) -> KernelError {
    if let EbpfError::MapError(MapError::CreateError { io_error, .. }) = &error
        && io_error.kind() == io::ErrorKind::PermissionDenied
    {
        return KernelError::NoPrivileges;
    }
    KernelError::Load(Box::new(error))
}

pub(super) fn not_verified(error: ProgramError) -> KernelError {
    if let ProgramError::LoadError { io_error, verifier_log } = &error {
        if io_error.kind() == io::ErrorKind::PermissionDenied && verifier_log.to_string().is_empty() {
            return KernelError::NoPrivileges;
        }
        let log = verifier_log.to_string();
        let tail: Vec<&str> = log.lines().rev().take(3).collect();
        let tail = tail.into_iter().rev().collect::<Vec<_>>().join(" / ");
        return KernelError::Verifier { tail, source: Box::new(error) };
    }
    KernelError::Load(Box::new(error.into()))
}
