//! One machine of a lab: a namespace, its interfaces, and ways to run things in it.

use std::{
    ffi::OsStr,
    fmt::{self, Write as _},
    fs::{self, File},
    io::Write as _,
    net::{Ipv4Addr, Ipv6Addr},
    panic,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns};

use crate::{
    belongings::Belongings,
    leftovers::NAMESPACES,
    process::{Line, Output, Running, tail},
};

/// An Ethernet interface of a host.
#[derive(Clone, Debug)]
pub struct Interface {
    /// Its name in the host's namespace.
    pub name: String,
    /// Its index; no other interface of the lab has the same.
    pub index: u32,
    /// Its hardware address.
    pub mac: [u8; 6],
    /// Its address in a /24.
    pub ipv4: Ipv4Addr,
    /// Its address in a /64.
    pub ipv6: Ipv6Addr,
}

impl Interface {
    /// The hardware address as `ip` and `tcpdump` write it.
    #[must_use]
    pub fn mac_text(&self) -> String {
        self.mac.map(|byte| format!("{byte:02x}")).join(":")
    }
}

/// A client, balancer, backend, or the segment that connects them. Clones are the same machine.
#[derive(Clone)]
pub struct Host {
    role: String,
    namespace: String,
    interfaces: Vec<Interface>,
    belongings: Arc<Belongings>,
}

impl Host {
    pub(crate) fn new(role: &str, interfaces: Vec<Interface>, belongings: &Arc<Belongings>) -> Self {
        Self {
            role: role.to_owned(),
            namespace: belongings.namespace(role),
            interfaces,
            belongings: Arc::clone(belongings),
        }
    }

    /// `client`, `balancer`, `backend-0` …, `segment`.
    #[must_use]
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The namespace's name, as `ip netns` lists it.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Its Ethernet interfaces, `eth0` first; the segment, which has ports only, has none here.
    #[must_use]
    pub fn interfaces(&self) -> &[Interface] {
        &self.interfaces
    }

    /// The interface called `name`.
    #[must_use]
    pub fn interface(&self, name: &str) -> Option<&Interface> {
        self.interfaces.iter().find(|interface| interface.name == name)
    }

    /// The IPv4 address of `eth0`; the segment has none and says 0.0.0.0.
    #[must_use]
    pub fn ipv4(&self) -> Ipv4Addr {
        self.interfaces.first().map_or(Ipv4Addr::UNSPECIFIED, |interface| interface.ipv4)
    }

    /// The IPv6 address of `eth0`; the segment has none and says `::`.
    #[must_use]
    pub fn ipv6(&self) -> Ipv6Addr {
        self.interfaces.first().map_or(Ipv6Addr::UNSPECIFIED, |interface| interface.ipv6)
    }

    pub(crate) fn belongings(&self) -> &Belongings {
        &self.belongings
    }

    /// A command that will run `program` in the namespace.
    ///
    /// By `nsenter`, since `ip netns exec` and `ip -netns` put a fresh sysfs over the one that bpffs
    /// is mounted in.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.namespace_path().display())).arg("--").arg(program);
        command
    }

    /// Runs a program with its arguments to its end; an exit status other than 0 is an error.
    pub fn run<I>(&self, line: I) -> Result<Output>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        self.run_with_input(line, "")
    }

    /// Runs a program with its arguments to its end, whatever the exit status.
    pub fn attempt<I>(&self, line: I) -> Result<Output>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        let line = Line::new(line);
        self.finish(&line, "")
    }

    /// As [`Host::run`], with a text on the standard input.
    pub fn run_with_input<I>(&self, line: I, input: &str) -> Result<Output>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        let line = Line::new(line);
        let output = self.finish(&line, input)?;
        if !output.status.success() {
            bail!("{}: {}{}", self.doing(&line), output.status, tail(&output.stderr));
        }
        Ok(output)
    }

    /// Starts a program with its arguments that goes on until it ends, is killed, or the lab goes.
    pub fn spawn<I>(&self, line: I) -> Result<Running>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        let line = Line::new(line);
        self.spawn_command(line.command(|program| self.command(program)), &self.doing(&line))
    }

    /// Starts a command made by [`Host::command`], likewise; `what` names it in errors.
    pub fn spawn_command(&self, command: Command, what: &str) -> Result<Running> {
        let log = self.belongings.unique_path(&self.role, ".log");
        self.belongings.spawn(command, what.to_owned(), log)
    }

    /// Does `work` in the namespace, on a thread of its own: sockets that it makes belong to the
    /// namespace for good and may be returned. A panic in it is passed on.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        let path = self.namespace_path();
        let namespace = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        let worked = thread::scope(|scope| {
            scope
                .spawn(|| -> Result<T> {
                    setns(&namespace, CloneFlags::CLONE_NEWNET)
                        .with_context(|| format!("entering {}", self.namespace))?;
                    Ok(work())
                })
                .join()
        });
        worked.unwrap_or_else(|payload| panic::resume_unwind(payload))
    }

    /// Writes settings below `/proc/sys/net`, in order.
    pub fn set<'a>(&self, settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<()> {
        let settings: Vec<_> = settings.into_iter().collect();
        self.inside(|| {
            settings.iter().try_for_each(|(key, value)| {
                let path = Path::new("/proc/sys/net").join(key);
                fs::write(&path, value)
                    .with_context(|| format!("setting {} to {value} in {}", path.display(), self.namespace))
            })
        })?
    }

    /// Runs lines of `ip` in one process: a lab takes tens of them.
    pub fn ip(&self, lines: &[String]) -> Result<()> {
        let mut numbered = String::new();
        for (line, number) in lines.iter().zip(1..) {
            writeln!(numbered, "    {number}: {line}")?;
        }
        self.run_with_input(["ip", "-batch", "-"], &(lines.join("\n") + "\n"))
            .with_context(|| format!("configuring with\n{numbered}"))?;
        Ok(())
    }

    /// Takes the program that passes everything off `interface`, to make room for another.
    ///
    /// That other program must be there before frames by XDP_TX or XDP_REDIRECT arrive again.
    pub fn remove_pass(&self, interface: &str) -> Result<()> {
        self.run(["ip", "link", "set", interface, "xdpdrv", "off"]).map(drop)
    }

    fn namespace_path(&self) -> PathBuf {
        Path::new(NAMESPACES).join(&self.namespace)
    }

    fn doing(&self, line: &Line) -> String {
        format!("`{line}` in {}", self.namespace)
    }

    fn finish(&self, line: &Line, input: &str) -> Result<Output> {
        let mut child = line
            .command(|program| self.command(program))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", self.doing(line)))?;
        if let Some(mut stdin) = child.stdin.take() {
            // A program that ends without reading says why by its exit status.
            let _ = stdin.write_all(input.as_bytes());
        }
        let output = child.wait_with_output().with_context(|| format!("running {}", self.doing(line)))?;
        Ok(Output {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.namespace)
    }
}
