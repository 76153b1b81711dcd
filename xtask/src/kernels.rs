//! Debian's stock kernels, for the tests that boot them: packages, unpacked in `target/kernels` and never installed.
//!
//! A kernel that cannot be had is no failure. The file `<version>.missing` beside them says why, and the test that would
//! boot it is skipped with that reason.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{
    progress,
    setup::{is_root, run_logged},
    workspace::Workspace,
};

/// The oldest kernel that `lb` is for, and the long-term one after it. `tests/tests/kernels.rs` has a test for each.
const VERSIONS: &[&str] = &["6.1", "6.12"];
/// The file in a kernel's folder that names the package it was.
const PACKAGE: &str = "package";

/// Brings the newest package of each version that apt knows of, unless it is there already.
///
/// # Errors
/// When the folder for them, or the reason of an absence, cannot be written.
pub fn fetch(workspace: &Workspace) -> anyhow::Result<()> {
    let folder = workspace.target.join("kernels");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    for version in VERSIONS {
        let name = format!("Linux {version} to boot");
        let missing = folder.join(format!("{version}.missing"));
        let kernel = Kernel { version, folder: folder.join(version) };
        match kernel.bring() {
            Ok(package) => {
                progress::found(&name, &package);
                remove(&missing)?;
            }
            Err(error) => {
                progress::missing(&name);
                let reason = format!("{error:#}");
                fs::write(&missing, reason.lines().next().unwrap_or_default())
                    .with_context(|| format!("cannot write {}", missing.display()))?;
            }
        }
    }
    Ok(())
}

/// One kernel and where it is unpacked.
struct Kernel {
    version: &'static str,
    folder: PathBuf,
}

impl Kernel {
    /// The package that is there at the end. An older one than there could be is better than none.
    fn bring(&self) -> anyhow::Result<String> {
        let present = fs::read_to_string(self.folder.join(PACKAGE)).ok();
        match self.fetch(present.as_deref()) {
            Ok(package) => Ok(package),
            Err(error) => present.ok_or(error),
        }
    }

    fn fetch(&self, present: Option<&str>) -> anyhow::Result<String> {
        let known = self.newest_package()?;
        if known.is_some() && known.as_deref() == present {
            return Ok(known.unwrap_or_default());
        }
        if let Some(package) = &known
            && self.unpack(package).is_ok()
        {
            return Ok(package.clone());
        }
        // Old lists, or none, do not say what the mirror has.
        if is_root() {
            run_logged(Command::new("apt-get").arg("update")).context("apt cannot update its lists")?;
        }
        let Some(package) = self.newest_package()? else {
            bail!("apt knows of no linux-image-{}.*-cloud-amd64", self.version);
        };
        self.unpack(&package)?;
        Ok(package)
    }

    /// A regular expression for the names of signed images, as apt-cache(8) takes it.
    fn pattern(&self) -> String {
        format!(r"^linux-image-{}\.[^ ]*-cloud-amd64$", self.version.replace('.', r"\."))
    }

    fn newest_package(&self) -> anyhow::Result<Option<String>> {
        let output = Command::new("apt-cache")
            .args(["search", "--names-only", &self.pattern()])
            .output()
            .context("there is no apt here, which has Debian's kernels")?;
        Ok(newest(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Takes the place of what was unpacked before only when all is there.
    fn unpack(&self, package: &str) -> anyhow::Result<()> {
        let parent = self.folder.parent().unwrap_or(&self.folder);
        let work = tempfile::tempdir_in(parent).context("cannot make a folder to unpack in")?;
        let tree = work.path().join("tree");
        progress::installing(&format!("{package}, only unpacked"), || {
            run_logged(Command::new("apt-get").args(["download", package]).current_dir(work.path()))?;
            run_logged(Command::new("dpkg-deb").arg("--extract").arg(archive_in(work.path())?).arg(&tree))
        })
        .with_context(|| format!("cannot download {package}"))?;
        fs::write(tree.join(PACKAGE), package).context("cannot write down which package it was")?;
        remove(&self.folder)?;
        fs::rename(&tree, &self.folder).with_context(|| format!("cannot move it to {}", self.folder.display()))
    }
}

/// The newest of the packages that apt-cache lists, a line each: `name - description`.
fn newest(list: &str) -> Option<String> {
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    names.max_by_key(|name| numbers(name)).map(str::to_owned)
}

/// The numbers in a package's name: the version, then Debian's own.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|character: char| !character.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
}

fn archive_in(folder: &Path) -> anyhow::Result<PathBuf> {
    let files = fs::read_dir(folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut archives = files.filter(|file| file.extension().is_some_and(|ending| ending == "deb"));
    archives.next().context("apt-get has downloaded nothing")
}

/// Removes a file or a folder, if there is one.
fn remove(path: &Path) -> anyhow::Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_is_by_number_and_not_by_letter() {
        let list = "linux-image-6.12.9+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)\n\
                    linux-image-6.12.117+deb12-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)\n\
                    linux-image-6.12.117+deb9-cloud-amd64 - Linux 6.12 for x86-64 cloud (signed)\n";
        assert_eq!(newest(list).unwrap(), "linux-image-6.12.117+deb12-cloud-amd64");
        assert_eq!(newest(""), None);
    }

    #[test]
    fn the_dots_of_a_version_are_dots() {
        let kernel = Kernel { version: "6.1", folder: PathBuf::new() };
        assert_eq!(kernel.pattern(), r"^linux-image-6\.1\.[^ ]*-cloud-amd64$");
    }
}
