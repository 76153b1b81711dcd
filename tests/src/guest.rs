//! Another kernel on this machine: booted in an emulator with what a program needs to run in it, and nothing else.
//!
//! The processor is emulated too, so that it works where there is no virtualization, or one that is broken.

mod initramfs;

use crate::{process::Running, skip::find_program};
use anyhow::{Context as _, Result, anyhow, bail};
use initramfs::Initramfs;
use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// What this machine makes a guest with.
const MAKERS: [&str; 4] = ["qemu-system-x86_64", "ldd", "setpriv", "strip"];
/// What a guest has of this machine: a shell, and what a lab is made with.
const TOOLS: [&str; 4] = ["busybox", "ip", "nsenter", "ethtool"];
/// Modules of what a lab is made of, each after those it needs. What a kernel has built in has no file.
const MODULES: [&str; 4] = ["llc", "stp", "bridge", "veth"];
/// A guest is done in seconds; this is for a machine that does ten other things.
const DEADLINE: Duration = Duration::from_secs(180);
/// Where the program is in the guest.
const PROGRAM: &str = "/check";
/// Before the exit status of the program: the console is all that is left of a guest.
const ENDED: &str = "the program has ended with";

/// How the guest's first process begins, a script. Modules and the program follow.
const INIT: &str = "#!/bin/busybox sh
export PATH=/bin
busybox mount -t proc none /proc
busybox mount -t sysfs none /sys
busybox mount -t bpf none /sys/fs/bpf
busybox mount -t devtmpfs none /dev
busybox ln -s /run /var/run
busybox ip link set lo up
";

/// The programs of this machine without which there are no guests; to be asked for by [`crate::needs_program`].
pub fn programs() -> impl Iterator<Item = &'static str> {
    MAKERS.into_iter().chain(TOOLS)
}

/// A kernel's package, unpacked.
#[derive(Debug)]
pub struct Kernel {
    image: PathBuf,
    modules: Vec<PathBuf>,
}

impl Kernel {
    /// Finds what is needed in the folder that the package is unpacked in.
    pub fn find(tree: &Path) -> Result<Self> {
        let files = files_below(tree)?;
        let named = |start: String| {
            let matches = |file: &&PathBuf| name(file).is_some_and(|name| name.starts_with(&start));
            files.iter().find(matches).cloned()
        };
        let image = named("vmlinuz-".into()).with_context(|| format!("{} has no kernel", tree.display()))?;
        let modules = MODULES.iter().filter_map(|module| named(format!("{module}.ko"))).collect();
        Ok(Self { image, modules })
    }

    /// Boots, runs the program as root, and returns what came to the console when it has succeeded.
    ///
    /// # Errors
    /// When the program fails, or the guest hangs; the end of what came to the console is in the error.
    pub fn run(&self, program: &Path) -> Result<String> {
        let folder = tempfile::Builder::new().prefix("lb-guest-").tempdir()?;
        let initramfs = folder.path().join("initramfs");
        fs::write(&initramfs, self.initramfs(program, folder.path())?).context("writing the initramfs")?;
        let guest = Running::start(self.command(&initramfs), "a guest".into(), folder.path().join("console"))?;
        let ended = guest.wait(DEADLINE);
        guest.kill()?;
        let console = guest.log();
        ended.map_err(|error| anyhow!("{error:#}{}", guest.log_tail()))?;
        if !console.contains(&format!("{ENDED} 0")) {
            bail!("no success in the guest{}", guest.log_tail());
        }
        Ok(console)
    }

    fn command(&self, initramfs: &Path) -> Command {
        // Nothing of the guest outlives the test, however that ends.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "qemu-system-x86_64", "-nodefaults", "-no-reboot"]);
        command.args(["-display", "none", "-serial", "stdio", "-machine", "q35", "-smp", "2", "-m", "1024"]);
        command.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
        // A kernel that panics restarts, which ends the emulator.
        command.args(["-append", "console=ttyS0 quiet panic=-1"]);
        command.arg("-kernel").arg(&self.image).arg("-initrd").arg(initramfs);
        command
    }

    fn initramfs(&self, program: &Path, work: &Path) -> Result<Vec<u8>> {
        let mut initramfs = Initramfs::default();
        for folder in ["/proc", "/sys", "/dev", "/run", "/tmp", "/var"] {
            initramfs.folder(folder.as_ref());
        }
        let mut init = INIT.to_owned();
        for module in &self.modules {
            let path = Path::new("/modules").join(name(module).unwrap_or_default());
            initramfs.file(&path, 0o644, &fs::read(module)?);
            let path = path.display().to_string();
            let plain = path.strip_suffix(".xz");
            if plain.is_some() {
                init += &format!("busybox unxz {path}\n");
            }
            init += &format!("busybox insmod {}\n", plain.unwrap_or(&path));
        }
        init += &format!("{PROGRAM}\necho {ENDED} $?\nbusybox poweroff -f\n");
        initramfs.file("/init".as_ref(), 0o755, init.as_bytes());
        for tool in TOOLS {
            let file = find_program(tool).with_context(|| format!("{tool} is not installed"))?;
            initramfs.program(&Path::new("/bin").join(tool), &file)?;
        }
        initramfs.program(PROGRAM.as_ref(), &stripped(program, work)?)?;
        Ok(initramfs.end())
    }
}

/// A copy without what is only for debuggers, which is nine tenths of it.
fn stripped(program: &Path, folder: &Path) -> Result<PathBuf> {
    let copy = folder.join("stripped");
    let status = Command::new("strip").arg("-o").arg(&copy).arg(program).status().context("running strip")?;
    if !status.success() {
        bail!("strip of {} failed: {status}", program.display());
    }
    Ok(copy)
}

fn name(file: &Path) -> Option<&str> {
    file.file_name().and_then(OsStr::to_str)
}

fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("listing {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(files_below(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}
