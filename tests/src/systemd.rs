//! A systemd of its own on a host: it boots this machine's systemd with one service, on a copy of the root file system that goes with it.
//!
//! Namespaces are all it takes: it is the first process of its own, has a group of processes of the kernel's cgroups to itself, and the
//! host's network. Nothing but the service and the journal is started.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, id},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};

use crate::{Host, Output, Running, wait_until};

const SYSTEMD: &str = "/lib/systemd/systemd";
/// For systemd to come up, and for its groups to be empty in the end.
const TIME: Duration = Duration::from_secs(20);
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// Makes the file system and becomes systemd. The arguments: a folder, then pairs of a file and its place. What a package has
/// enabled on this machine is not started.
const BOOT: &str = r#"
set -e
folder=$1; shift
mount --make-rprivate /
mount -t tmpfs tmpfs "$folder"
mkdir "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
cd "$folder/root"
rm -rf etc/systemd/system/* usr/lib/systemd/system/*.wants var/lib/lb
while [ $# -gt 0 ]; do mkdir -p "$(dirname ".$2")"; cp "$1" ".$2"; shift 2; done
cat > etc/systemd/system/only.target <<END
[Unit]
DefaultDependencies=no
Wants=systemd-journald.service lb.service
END
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t bpf bpf sys/fs/bpf
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
mount --bind /dev/null dev/console
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
exec env -i container=lab PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . /lib/systemd/systemd --system --unit=only.target --show-status=no
"#;

/// Whether the first of that can be done.
const OVERLAY: &str = r#"
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
mount -t overlay overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work /mnt/root
"#;

/// It, with the service `lb`.
#[derive(Debug)]
pub struct Systemd {
    host: Host,
    running: Running,
    /// Its process, by this machine's numbers.
    init: u32,
    group: PathBuf,
}

impl Systemd {
    /// Why there can be none here, if so.
    #[must_use]
    pub fn missing() -> Option<&'static str> {
        if !Path::new(SYSTEMD).exists() {
            return Some("needs systemd, which is not installed");
        }
        let Some(groups) = groups() else { return Some("needs a hierarchy of cgroups of version 2") };
        let probe = groups.join(format!("lb-systemd-probe-{}", id()));
        if fs::create_dir(&probe).is_err() {
            return Some("needs to make a cgroup, which is not allowed here");
        }
        let _ = fs::remove_dir(&probe);
        let overlaid = Command::new("unshare").args(["--mount", "sh", "-c", OVERLAY]).output();
        let is_overlaid = overlaid.is_ok_and(|output| output.status.success());
        (!is_overlaid).then_some("needs to lay a file system over this machine's, which can't be done here")
    }

    /// Boots it with these files, each at its place; the service's are among them.
    pub fn boot(host: &Host, files: &[(&Path, &str)]) -> Result<Self> {
        let groups = groups().context("there are no cgroups of version 2")?;
        let group = groups.join(format!("lb-systemd-{}-{}", id(), SERIAL.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&group).with_context(|| format!("making {}", group.display()))?;
        let folder = host.belongings().unique_path(host.role(), "-systemd");
        fs::create_dir(&folder)?;
        // In its group before it has one of its own.
        let enter = r#"echo $$ > "$1/cgroup.procs"; shift; exec "$@""#;
        let front: [&OsStr; 5] = ["sh".as_ref(), "-c".as_ref(), enter.as_ref(), "enter".as_ref(), group.as_os_str()];
        let namespaces = ["--mount", "--pid", "--cgroup", "--uts", "--ipc", "--fork", "--kill-child"];
        let boot: [&OsStr; 5] = ["sh".as_ref(), "-c".as_ref(), BOOT.as_ref(), "boot".as_ref(), folder.as_os_str()];
        let line = front.into_iter().chain(["unshare".as_ref()]).chain(namespaces.map(OsStr::new)).chain(boot);
        let files = files.iter().flat_map(|(file, place)| [file.as_os_str(), place.as_ref()]);
        let running = host.spawn(line.chain(files))?;
        let mut systemd = Self { host: host.clone(), running, init: 0, group };
        systemd.init = wait_until(TIME, "there was a first process", || systemd.child().transpose())??;
        systemd.wait_until_it_is_up()?;
        Ok(systemd)
    }

    fn child(&self) -> Result<Option<u32>> {
        if let Some(status) = self.running.ended()? {
            bail!("{} ended ({status}){}", self.running, self.running.log_tail());
        }
        let path = format!("/proc/{0}/task/{0}/children", self.running.pid());
        Ok(fs::read_to_string(path)?.split_whitespace().next().and_then(|child| child.parse().ok()))
    }

    fn wait_until_it_is_up(&self) -> Result<()> {
        let mut last = String::new();
        let waited = wait_until(TIME, "systemd answered", || {
            let output = self.attempt(["systemctl", "show", "--property", "Version"]);
            match output {
                Ok(output) if output.status.success() => Some(()),
                Ok(output) => {
                    last = output.stderr;
                    None
                }
                Err(error) => {
                    last = error.to_string();
                    None
                }
            }
        });
        waited.map_err(|error| anyhow!("{error:#}: {last}{}", self.running.log_tail()))
    }

    /// Runs a program with its arguments in it, whatever the exit status.
    pub fn attempt<I>(&self, line: I) -> Result<Output>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        let init = self.init.to_string();
        let front = ["nsenter", "--target", &init, "--mount", "--pid", "--root", "--wd", "--"].map(OsStr::new);
        let line: Vec<_> = line.into_iter().collect();
        self.host.attempt(front.into_iter().chain(line.iter().map(AsRef::as_ref)))
    }

    /// The same; an exit status other than 0 is an error.
    pub fn run<I>(&self, line: I) -> Result<String>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        let output = self.attempt(line)?;
        if !output.status.success() {
            bail!("in systemd: {}: {}{}", output.status, output.stdout, output.stderr);
        }
        Ok(output.stdout)
    }

    /// A property of the service.
    pub fn property(&self, name: &str) -> Result<String> {
        let value = self.run(["systemctl", "show", "lb.service", "--value", "--property", name])?;
        Ok(value.trim_end().to_owned())
    }

    /// What the service has written to the journal.
    pub fn journal(&self) -> Result<String> {
        self.run(["journalctl", "--unit", "lb.service", "--no-pager", "--output", "cat"])
    }

    /// The service's process, by this machine's numbers; none if it does not run.
    pub fn main_process(&self) -> Result<Option<u32>> {
        let wanted = self.property("MainPID")?;
        let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.init))?;
        let is_it = |child: &&str| {
            let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
            let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            ids.and_then(|ids| ids.split_whitespace().last()) == Some(&wanted)
        };
        Ok(children.split_whitespace().find(is_it).and_then(|child| child.parse().ok()))
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        // All its processes end with the first one.
        if let Err(error) = self.running.kill() {
            eprintln!("systemd is left behind: {error:#}");
        }
        let removed = wait_until(TIME, "its groups were empty", || remove_groups(&self.group).ok());
        if let Err(error) = removed {
            eprintln!("{} is left behind: {error:#}", self.group.display());
        }
    }
}

/// Where the hierarchy of version 2 is mounted.
fn groups() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let place = fields.next()?;
        (fields.next()? == "cgroup2").then(|| place.into())
    })
}

/// Removes a group with those in it, which takes that they are empty.
fn remove_groups(group: &Path) -> Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_groups(&entry.path())?;
        }
    }
    Ok(fs::remove_dir(group)?)
}
