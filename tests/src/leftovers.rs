//! Removing what bears a lab's prefix, and finding the prefixes of labs whose process has died.

use std::{
    collections::BTreeSet,
    env,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result};
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::{
        signal::{Signal, kill},
        statfs::{BPF_FS_MAGIC, statfs},
    },
    unistd::Pid,
};

use crate::belongings::{bpf_folder, folder};

/// Where `ip netns` keeps namespaces.
pub(crate) const NAMESPACES: &str = "/run/netns";
/// Where bpffs belongs.
pub(crate) const BPF_FS: &str = "/sys/fs/bpf";
/// The file in a lab's folder that says that it is to outlive its process.
pub(crate) const KEPT: &str = "kept";

/// Removes what is left of kept labs whose process has ended.
pub fn remove_kept() -> Result<()> {
    remove_dead(is_kept)
}

/// Removes what is left of labs whose process died without doing so, kept ones excepted.
pub(crate) fn remove_leftovers() -> Result<()> {
    remove_dead(|prefix| !is_kept(prefix))
}

fn is_kept(prefix: &str) -> bool {
    folder(prefix).join(KEPT).exists()
}

fn remove_dead(wanted: impl Fn(&str) -> bool) -> Result<()> {
    let mut prefixes = BTreeSet::new();
    for parent in [Path::new(NAMESPACES), &env::temp_dir(), Path::new(BPF_FS)] {
        let names = file_names(parent)?;
        prefixes.extend(names.iter().filter_map(|name| dead_prefix(name)).map(str::to_owned));
    }
    prefixes.iter().filter(|prefix| wanted(prefix)).try_for_each(|prefix| remove(prefix))
}

/// The `lb-<pid>-<serial>` that `name` begins with, if that process is not alive.
fn dead_prefix(name: &str) -> Option<&str> {
    let mut parts = name.splitn(4, '-');
    let (lb, pid, serial) = (parts.next()?, parts.next()?, parts.next()?);
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let ours = lb == "lb" && is_number(pid) && is_number(serial);
    if !ours || Path::new("/proc").join(pid).exists() {
        return None;
    }
    name.get(..lb.len() + 1 + pid.len() + 1 + serial.len())
}

/// Removes the namespaces of `prefix` with all that runs in them, and its folders.
///
/// Goes on after an error and returns the first; what is missing is no error.
pub(crate) fn remove(prefix: &str) -> Result<()> {
    let owned = format!("{prefix}-");
    let namespaces: Vec<PathBuf> = file_names(Path::new(NAMESPACES))?
        .iter()
        .filter(|name| name.starts_with(&owned))
        .map(|name| Path::new(NAMESPACES).join(name))
        .collect();
    let mut result = end_processes_inside(&namespaces);
    for namespace in &namespaces {
        result = result.and(remove_namespace(namespace));
    }
    for folder in [bpf_folder(prefix), folder(prefix)] {
        let removed = present(fs::remove_dir_all(&folder));
        result = result.and(removed.with_context(|| format!("removing {}", folder.display())));
    }
    result
}

fn remove_namespace(path: &Path) -> Result<()> {
    // Not mounted is what an interrupted `ip netns add` leaves.
    let _ = umount2(path, MntFlags::MNT_DETACH);
    present(fs::remove_file(path)).with_context(|| format!("removing {}", path.display()))
}

/// Kills what still runs in the namespaces: children of children, and all children of a lab whose
/// process was killed. A lab's namespaces are known to nobody else.
fn end_processes_inside(namespaces: &[PathBuf]) -> Result<()> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let inside: Vec<_> = namespaces.iter().filter_map(|path| identity(path)).collect();
    if inside.is_empty() {
        return Ok(());
    }
    for name in file_names(Path::new("/proc"))? {
        let Ok(pid) = name.parse::<i32>() else {
            continue;
        };
        let network = Path::new("/proc").join(&name).join("ns/net");
        // A process that has ended meanwhile has no namespace.
        let is_inside = identity(&network).is_some_and(|found| inside.contains(&found));
        if is_inside && u32::try_from(pid) != Ok(process::id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
    Ok(())
}

/// Mounts bpffs where it belongs, if it is not.
pub(crate) fn mount_bpf_fs() -> Result<()> {
    let is_mounted = || statfs(BPF_FS).map(|found| found.filesystem_type() == BPF_FS_MAGIC);
    if is_mounted().with_context(|| format!("looking at {BPF_FS}"))? {
        return Ok(());
    }
    // Of two processes that come here together only one may mount: a second mount would hide what is
    // pinned in the first.
    let lock = File::open(BPF_FS).with_context(|| format!("opening {BPF_FS}"))?;
    lock.lock().with_context(|| format!("locking {BPF_FS}"))?;
    if is_mounted()? {
        return Ok(());
    }
    mount(Some("bpf"), BPF_FS, Some("bpf"), MsFlags::empty(), None::<&str>)
        .with_context(|| format!("mounting bpffs at {BPF_FS}"))
}

/// The names in a folder; none if it does not exist.
fn file_names(folder: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.with_context(|| format!("listing {}", folder.display()))?,
    };
    // Other programs may name their files as they like; ours are text.
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect())
}

/// Takes away what another removal has taken away already.
fn present(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_dead_processes_are_leftovers() {
        // Above the largest pid_max there is.
        assert_eq!(dead_prefix("lb-99999999-3-backend-1"), Some("lb-99999999-3"));
        assert_eq!(dead_prefix("lb-99999999-3"), Some("lb-99999999-3"));
        assert_eq!(dead_prefix(&format!("lb-{}-0-client", process::id())), None);
        for foreign in ["lb-1", "lb--3", "lb-x-3", "lb-99999999-x", "klb-99999999-3", "lb"] {
            assert_eq!(dead_prefix(foreign), None, "{foreign}");
        }
    }
}
