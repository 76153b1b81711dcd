//! Who is measured: how it is started, and which cases it can't be measured with.

use super::{
    asker::Asker,
    cable::{Cable, pin},
    cases::{Asked, Case, Setup},
    data::Data,
};
use anyhow::{Context as _, Result, bail};
use aya::programs::xdp::XdpLinkId;
use std::{
    env, fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    time::Duration,
};
use tests::{Agent, Host, Lab, Running};

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The least that an answer by XDP can be: the same one each time.
    Floor,
    /// `lb run`.
    Lb,
    /// Knot DNS on sockets.
    Knot,
    /// Knot DNS on AF_XDP.
    KnotXdp,
    /// NSD.
    Nsd,
    /// Unbound, which has everything in its cache.
    Unbound,
    /// dnsdist, which has everything in its packet cache.
    Dnsdist,
}

/// How long a server may take to end before it is killed.
const END: Duration = Duration::from_secs(5);
/// Where the server behind a cache listens.
const BEHIND: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::LOCALHOST), 5_300);

impl Subject {
    /// All of them, in the order of the tables.
    pub const ALL: [Self; 7] =
        [Self::Floor, Self::Lb, Self::KnotXdp, Self::Knot, Self::Nsd, Self::Unbound, Self::Dnsdist];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Floor => "floor",
            Self::Lb => "lb",
            Self::Knot => "knot",
            Self::KnotXdp => "knot-xdp",
            Self::Nsd => "nsd",
            Self::Unbound => "unbound",
            Self::Dnsdist => "dnsdist",
        }
    }

    /// Why it is not measured with a case.
    pub const fn unfit(self, case: &Case) -> Option<&'static str> {
        match (self, case.asked, case.setup) {
            (Self::Floor, Asked::Absent | Asked::Largest, _) => Some("answers with four addresses, whatever is asked"),
            (Self::Floor, Asked::Weighted | Asked::Sticky, _) => Some("chooses nothing"),
            (Self::Nsd | Self::Unbound | Self::Dnsdist, Asked::Weighted, _) => Some("has no weights"),
            (Self::Knot | Self::KnotXdp, Asked::Sticky, _) => Some("has no such policy"),
            (Self::Nsd | Self::Unbound | Self::Dnsdist, Asked::Sticky, _) => Some("has no such policy"),
            (Self::Knot | Self::KnotXdp, _, Setup::Cookies) => {
                Some("refuses a client that has no server cookie yet (BADCOOKIE)")
            }
            (Self::Unbound | Self::Dnsdist, _, Setup::Million) => {
                Some("a million questions would have to fill its cache first")
            }
            _ => None,
        }
    }

    /// Whether it has to be asked for a name before it knows it.
    pub const fn is_cache(self) -> bool {
        matches!(self, Self::Unbound | Self::Dnsdist)
    }

    /// RCODE and number of answers of its right responses.
    pub const fn expected(self, case: &Case) -> (u16, u16) {
        if matches!(self, Self::Floor) { (0, 4) } else { case.expected() }
    }
}

/// Where a subject is.
pub struct Place<'a> {
    /// The lab that it is in.
    pub lab: &'a Lab,
    /// Its machine.
    pub host: &'a Host,
    /// The cable to who asks.
    pub cable: &'a Cable,
    /// The CPU of its threads.
    pub cpu: usize,
}

/// A subject that has been started.
pub struct Started {
    /// Whose CPU time counts.
    pub process: Option<Running>,
    /// A server behind it.
    behind: Option<Running>,
    /// The agent, of `lb`.
    pub agent: Option<Agent>,
    /// The program, of the floor.
    link: Option<XdpLinkId>,
}

impl Started {
    /// Ends it. Nothing that it left behind is in the way of the next one.
    pub fn end(self, asker: &mut Asker) -> Result<()> {
        if let Some(agent) = &self.agent {
            agent.lb(["detach"])?;
            agent.terminate()?;
        }
        for process in self.process.iter().chain(&self.behind) {
            if process.ended()?.is_none() && process.terminate(END).is_err() {
                process.kill()?;
            }
        }
        self.link.map_or(Ok(()), |link| asker.detach("floor", link))
    }

    /// Whether its process still runs.
    pub fn check(&self) -> Result<()> {
        if let Some(process) = &self.process
            && let Some(status) = process.ended()?
        {
            let log = process.log();
            let last = log.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing was said");
            bail!("ended ({status}): {last}");
        }
        Ok(())
    }
}

impl Subject {
    /// Starts it. It may take a while until it answers.
    pub fn start(self, asker: &mut Asker, place: &Place<'_>, data: &Data) -> Result<Started> {
        let listen = [false, true].map(|ipv6| place.cable.addresses(ipv6)[0]);
        let folder = data.folder.join(format!("{:?}-{}", data.setup, self.name()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let mut started = Started { process: None, behind: None, agent: None, link: None };
        match self {
            Self::Floor => {
                started.link = Some(asker.attach(place.host, "floor", place.cable.index)?);
            }
            Self::Lb => {
                let agent = Agent::start(place.host, &data.lb(place.lab, &place.cable.name, listen)?)?;
                started.process = Some(agent.running().clone());
                started.agent = Some(agent);
            }
            Self::Knot | Self::KnotXdp => {
                let interface = (self == Self::KnotXdp).then_some(place.cable.name.as_str());
                let text = data.knot(&folder, listen, 53, interface);
                started.process = Some(place.knot(&folder, &text)?);
            }
            Self::Nsd => {
                let config = config(&folder, "nsd.conf", &data.nsd(&folder, listen))?;
                started.process = Some(place.run("nsd", &["-d".as_ref(), "-c".as_ref(), &config])?);
            }
            Self::Unbound => {
                started.behind = Some(place.behind(&folder, data)?);
                let config = config(&folder, "unbound.conf", &data.unbound(&folder, listen, BEHIND))?;
                started.process = Some(place.run("unbound", &["-d".as_ref(), "-c".as_ref(), &config])?);
            }
            Self::Dnsdist => {
                started.behind = Some(place.behind(&folder, data)?);
                let config = config(&folder, "dnsdist.conf", &data.dnsdist(listen, BEHIND))?;
                let words = ["--supervised".as_ref(), "--disable-syslog".as_ref(), "-C".as_ref(), config.as_path()];
                started.process = Some(place.run("dnsdist", &words)?);
            }
        }
        Ok(started)
    }
}

impl Place<'_> {
    /// Knot, with a config.
    fn knot(&self, folder: &Path, text: &str) -> Result<Running> {
        let config = config(folder, "knot.conf", text)?;
        self.run("knotd", &["-c".as_ref(), &config])
    }

    /// The server that a cache gets its answers from.
    fn behind(&self, folder: &Path, data: &Data) -> Result<Running> {
        let folder = folder.join("behind");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let (address, port) = BEHIND;
        let plain = data.plain();
        self.knot(&folder, &plain.knot(&folder, [address, IpAddr::V6(Ipv6Addr::LOCALHOST)], port, None))
    }

    fn run(&self, program: &str, arguments: &[&Path]) -> Result<Running> {
        if !is_installed(program) {
            bail!("{program} is not installed");
        }
        let cpu = self.cpu.to_string();
        let line = ["taskset", "-c", &cpu, program].map(Path::new);
        self.host.spawn(line.into_iter().chain(arguments.iter().copied()))
    }
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let administration = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path).chain(administration).any(|folder| folder.join(program).is_file())
}

fn config(folder: &Path, name: &str, text: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Keeps all threads of a process on a CPU.
pub fn pin_all(process: u32, cpu: usize) -> Result<()> {
    let folder = format!("/proc/{process}/task");
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))? {
        if let Some(thread) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) {
            pin(thread, cpu)?;
        }
    }
    Ok(())
}
