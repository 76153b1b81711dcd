//! Knot DNS on a host: another server of DNS cookies with the same secret.

use std::{
    fs,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;

use crate::{Host, Running, questions::Question, wait_until};

const READY: Duration = Duration::from_secs(20);

/// A Knot at a host's addresses that answers for a zone, and refuses cookies that it has not given (BADCOOKIE).
#[derive(Debug)]
pub struct Knot(Running);

impl Knot {
    /// Starts one for the zone `name`, in which there is `192.0.2.1`, with the secret of 32 hexadecimal digits.
    pub fn start(host: &Host, name: &str, secret: &str) -> Result<Self> {
        let folder = host.belongings().unique_path(host.role(), "-knot");
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let write = |file: &str, text: String| {
            let path = folder.join(file);
            fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
        };
        write(
            "zone",
            format!(
                "{name}. 30 SOA a.{name}. b.{name}. 1 60 60 60 60\n{name}. 30 NS a.{name}.\n{name}. 30 A 192.0.2.1\n"
            ),
        )?;
        let (ipv4, ipv6, folder_text) = (host.ipv4(), host.ipv6(), folder.display());
        write(
            "knot.conf",
            format!(
                "server:\n  listen: [\"{ipv4}@53\", \"{ipv6}@53\"]\n  rundir: {folder_text}\n\
                 database:\n  storage: {folder_text}\n\
                 log:\n  - target: stderr\n    any: info\n\
                 mod-cookies:\n  - id: same\n    secret: 0x{secret}\n    badcookie-slip: 1\n\
                 template:\n  - id: default\n    storage: {folder_text}\n    global-module: mod-cookies/same\n\
                 zone:\n  - domain: {name}\n    file: zone\n"
            ),
        )?;
        let config = folder.join("knot.conf").display().to_string();
        let running = host.spawn(["knotd", "-c", &config])?;
        host.inside(|| -> Result<()> {
            for address in [IpAddr::from(ipv4), ipv6.into()] {
                let socket = UdpSocket::bind(SocketAddr::new(address, 0))?;
                socket.connect((address, 53))?;
                socket.set_read_timeout(Some(Duration::from_millis(200)))?;
                wait_until(READY, "Knot answered", || {
                    // Before it listens the kernel says that nobody is there.
                    let _ = socket.send(&Question::new(name, Question::A).message(1));
                    socket.recv(&mut [0; 512]).ok()
                })
                .with_context(|| format!("{running} says{}", running.log_tail()))?;
            }
            Ok(())
        })??;
        Ok(Self(running))
    }

    /// What it has written.
    #[must_use]
    pub fn log(&self) -> String {
        self.0.log()
    }
}

/// A Knot at a host's IPv4 address that answers for one zone, whose records come and go, and so does it.
#[derive(Debug)]
pub struct Zone {
    host: Host,
    name: String,
    folder: PathBuf,
    serial: u32,
    running: Option<Running>,
}

impl Zone {
    /// Starts one with records as in a zone's file, whose TTL is one second.
    pub fn start(host: &Host, name: &str, records: &str) -> Result<Self> {
        let folder = host.belongings().unique_path(host.role(), "-zone");
        fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
        let (address, folder_text) = (host.ipv4(), folder.display());
        let config = format!(
            "server:\n  listen: \"{address}@53\"\n  rundir: {folder_text}\ndatabase:\n  storage: {folder_text}\n\
             log:\n  - target: stderr\n    any: info\n\
             template:\n  - id: default\n    storage: {folder_text}\n    journal-content: none\n    zonefile-sync: -1\n\
             zone:\n  - domain: {name}\n    file: zone\n"
        );
        fs::write(folder.join("knot.conf"), config).with_context(|| format!("writing into {}", folder.display()))?;
        let mut zone = Self { host: host.clone(), name: name.into(), folder, serial: 0, running: None };
        zone.write(records)?;
        zone.start_again()?;
        Ok(zone)
    }

    /// Has it answer with other records, in its time.
    pub fn set(&mut self, records: &str) -> Result<()> {
        self.write(records)?;
        self.running.as_ref().map_or(Ok(()), |running| running.signal(Signal::SIGHUP))
    }

    /// Ends it at once.
    pub fn stop(&mut self) -> Result<()> {
        self.running.take().map_or(Ok(()), |running| running.kill())
    }

    /// Starts it after [`Zone::stop`].
    pub fn start_again(&mut self) -> Result<()> {
        let config = self.folder.join("knot.conf").display().to_string();
        let running = self.host.spawn(["knotd", "-c", &config])?;
        let address = self.host.ipv4();
        self.host.inside(|| -> Result<()> {
            let socket = UdpSocket::bind((address, 0))?;
            socket.connect((address, 53))?;
            socket.set_read_timeout(Some(Duration::from_millis(200)))?;
            wait_until(READY, "Knot answered", || {
                let _ = socket.send(&Question::new(&self.name, Question::A).message(1));
                socket.recv(&mut [0; 512]).ok()
            })
            .with_context(|| format!("{running} says{}", running.log_tail()))?;
            Ok(())
        })??;
        self.running = Some(running);
        Ok(())
    }

    fn write(&mut self, records: &str) -> Result<()> {
        self.serial += 1;
        let Self { name, serial, .. } = self;
        let text =
            format!("$TTL 1\n{name}. SOA a.{name}. b.{name}. {serial} 60 60 60 1\n{name}. NS a.{name}.\n{records}");
        let path = self.folder.join("zone");
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
    }
}
