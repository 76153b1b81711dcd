//! Programs on interfaces. Their links are pinned, so that the data path outlives the agent, and a new agent's program
//! replaces the old one on its link in one step.

use super::{error::KernelError, load::Pins};
use crate::model::intent::Attach;
use aya::programs::{
    ProgramError, Xdp, XdpMode,
    links::{FdLink, LinkError, PinnedLink},
    xdp::XdpLink,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// What a link's pin is called, before the interface's name.
const PREFIX: &str = "link-";
/// What the further pin of a link is called that waits for its confirmation: when it was made, an agent was to take it off again.
const MARK: &str = "unconfirmed-";
/// Stands for a dot in a pin's name, which bpffs does not allow. No interface has this in its name.
const DOT: &str = ":";

/// Puts the program on an interface, in place of an older one of ours.
pub fn attach(program: &mut Xdp, pins: &Pins, name: &str, index: u32, mode: Attach) -> Result<(), KernelError> {
    let path = link_path(pins.path(), name);
    if path.exists() && replace(program, &path, name)? {
        return Ok(());
    }
    let (flags, mode_name) = match mode {
        Attach::Native => (XdpMode::Driver, "native"),
        Attach::Generic => (XdpMode::Skb, "generic"),
    };
    let id = program.attach_to_if_index(index, flags).map_err(|error| match errno(&error) {
        Some(libc::EBUSY | libc::EEXIST) => KernelError::Occupied { name: name.into() },
        Some(libc::EPERM) => KernelError::NoPrivileges,
        _ => KernelError::Attach { name: name.into(), mode: mode_name, source: Box::new(error) },
    })?;
    let no_link = || KernelError::NoLink { name: name.into() };
    let link = program.take_link(id).map_err(|_| no_link())?;
    let link = FdLink::try_from(link).map_err(|_| no_link())?;
    link.pin(&path).map_err(|source| KernelError::PinLink { name: name.into(), source })?;
    Ok(())
}

/// Replaces the program on a pinned link. Says whether the link still had its interface.
fn replace(program: &mut Xdp, path: &Path, name: &str) -> Result<bool, KernelError> {
    let failed = |source| KernelError::OpenLink { name: name.into(), source };
    let link = FdLink::from(PinnedLink::from_pin(path).map_err(failed)?);
    let link = XdpLink::try_from(link).map_err(failed)?;
    match program.attach_to_link(link) {
        Ok(id) => {
            // The pin holds the link; this process need not.
            drop(program.take_link(id));
            Ok(true)
        }
        // The interface is gone, or another one has its name now.
        Err(error) if errno(&error) == Some(libc::ENOLINK) => {
            fs::remove_file(path).map_err(|source| KernelError::Detach { name: name.into(), source })?;
            Ok(false)
        }
        Err(source) => Err(KernelError::Attach { name: name.into(), mode: "its present", source: Box::new(source) }),
    }
}

/// Takes the program off an interface. Says whether it was there.
pub fn detach(pins: &Path, name: &str) -> Result<bool, KernelError> {
    let path = link_path(pins, name);
    confirm(pins, name)?;
    match PinnedLink::from_pin(&path) {
        Ok(link) => {
            // The last reference goes with the pin and this link, and with it the program.
            let link = link.unpin().map_err(|source| KernelError::Detach { name: name.into(), source })?;
            drop(link);
            Ok(true)
        }
        Err(LinkError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(KernelError::OpenLink { name: name.into(), source }),
    }
}

/// Marks an interface's link as one that is to go if nobody confirms it.
pub fn mark_unconfirmed(pins: &Path, name: &str) -> Result<(), KernelError> {
    let failed = |source| KernelError::OpenLink { name: name.into(), source };
    let link = FdLink::from(PinnedLink::from_pin(link_path(pins, name)).map_err(failed)?);
    let mark = pin_path(pins, MARK, name);
    link.pin(mark).map(drop).map_err(|source| KernelError::PinLink { name: name.into(), source })
}

/// Takes the mark off, if there is one.
pub fn confirm(pins: &Path, name: &str) -> Result<(), KernelError> {
    match fs::remove_file(pin_path(pins, MARK, name)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(KernelError::Detach { name: name.into(), source })
        }
        _ => Ok(()),
    }
}

/// Names of the interfaces whose link waits for its confirmation.
pub fn unconfirmed(pins: &Path) -> Vec<String> {
    named(pins, MARK)
}

/// Id of the program on an interface's pinned link.
pub(super) fn program_id(pins: &Path, name: &str) -> Result<u32, KernelError> {
    let failed = |source| KernelError::OpenLink { name: name.into(), source };
    let link = FdLink::from(PinnedLink::from_pin(link_path(pins, name)).map_err(failed)?);
    Ok(link.info().map_err(failed)?.program_id())
}

/// Names of the interfaces that have a pinned link.
pub fn attached(pins: &Path) -> Vec<String> {
    named(pins, PREFIX)
}

/// Names of the interfaces that have a pin with this prefix.
fn named(pins: &Path, prefix: &str) -> Vec<String> {
    let Ok(entries) = fs::read_dir(pins) else { return Vec::new() };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.filter_map(|name| Some(name.strip_prefix(prefix)?.replace(DOT, "."))).collect();
    names.sort();
    names
}

fn link_path(pins: &Path, name: &str) -> PathBuf {
    pin_path(pins, PREFIX, name)
}

/// Where something of an interface's own is pinned.
pub(super) fn pin_path(pins: &Path, prefix: &str, name: &str) -> PathBuf {
    pins.join(format!("{prefix}{}", name.replace('.', DOT)))
}

fn errno(error: &ProgramError) -> Option<i32> {
    match error {
        ProgramError::SyscallError(error) => error.io_error.raw_os_error(),
        _ => None,
    }
}
