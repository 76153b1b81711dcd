//! What the servers serve, in the form that each of them reads.

use super::cases::{ADDRESSES, Asked, LIMIT, Setup, WEIGHTED_ZONE, ZONE, largest_strings, numbered};
use anyhow::{Context as _, Result};
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{BufWriter, Write as _},
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};
use tests::Lab;

const TTL_SECONDS: u32 = 86_400;
const COOKIE_SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Files that servers read, all in the lab's folder.
#[derive(Clone)]
pub struct Data {
    /// The folder.
    pub folder: PathBuf,
    /// [`ZONE`] as a zone file (RFC 1035).
    pub zone: PathBuf,
    /// [`WEIGHTED_ZONE`], likewise, without the name with weights.
    pub weighted_zone: PathBuf,
    /// The name with weights, for Knot's module `geoip`.
    pub weights: PathBuf,
    /// All that `lb` does not read in its config, a record a line.
    pub records: PathBuf,
    /// What the data are for.
    pub setup: Setup,
}

impl Data {
    /// Writes them.
    pub fn write(lab: &Lab, setup: Setup) -> Result<Self> {
        let folder = lab.folder();
        let path = |name: &str| folder.join(format!("{setup:?}-{name}"));
        let data = Self {
            zone: path("zone"),
            weighted_zone: path("weighted-zone"),
            weights: path("weights"),
            records: path("records"),
            folder: folder.clone(),
            setup,
        };
        let head = |zone: &str| {
            format!(
                "$ORIGIN {zone}.\n$TTL {TTL_SECONDS}\n@ SOA ns1 host 1 3600 600 86400 300\n@ NS ns1\nns1 A 198.51.100.53\n"
            )
        };
        write(&data.zone, |file| {
            file.write_all(head(ZONE).as_bytes())?;
            for address in ADDRESSES {
                writeln!(file, "www A {address}")?;
            }
            each_other(setup, |name, kind, data| writeln!(file, "{name}. {kind} {data}"))
        })?;
        write(&data.weighted_zone, |file| file.write_all(head(WEIGHTED_ZONE).as_bytes()))?;
        write(&data.weights, |file| {
            writeln!(file, "{}:", Asked::Weighted.name())?;
            ADDRESSES
                .iter()
                .zip(1..)
                .try_for_each(|(address, weight)| writeln!(file, "- weight: {weight}\n  A: {address}"))
        })?;
        write(&data.records, |file| {
            each_other(setup, |name, kind, data| writeln!(file, "{name} {TTL_SECONDS} {kind} {data}"))
        })?;
        Ok(data)
    }

    /// The same files for a server that does nothing but answer.
    pub fn plain(&self) -> Self {
        Self { setup: Setup::Plain, ..self.clone() }
    }

    /// The config of `lb`.
    pub fn lb(&self, lab: &Lab, interface: &str, listen: [IpAddr; 2]) -> Result<String> {
        let [ipv4, ipv6] = listen;
        let limit = match self.setup {
            Setup::Limits => format!("[dns.limit]\nresponses_per_second = {LIMIT}\n"),
            _ => String::new(),
        };
        let mut text = format!(
            "interfaces = [{interface:?}]\nsocket = {:?}\npins = {:?}\nsecret = \"a secret that nobody keeps\"\n\
             [dns]\nlisten = [\"{ipv4}\", \"{ipv6}\"]\ncookie_secret = \"{COOKIE_SECRET}\"\n\
             {limit}[[dns.records]]\nfile = {:?}\n",
            lab.socket(),
            lab.pins(),
            self.records
        );
        for zone in [ZONE, WEIGHTED_ZONE] {
            write!(text, "[[dns.domain]]\nname = \"{zone}\"\nprimary = \"ns1.{zone}\"\ncontact = \"host.{zone}\"\n")?;
        }
        for (asked, policy) in [(Asked::Hot, "round-robin"), (Asked::Weighted, "weighted"), (Asked::Sticky, "sticky")] {
            write!(text, "[[dns.name]]\nname = \"{}\"\npolicy = \"{policy}\"\naddresses = [", asked.name())?;
            for (address, weight) in ADDRESSES.iter().zip(1..) {
                match asked {
                    Asked::Weighted => write!(text, "{{ address = \"{address}\", weight = {weight} }}, ")?,
                    _ => write!(text, "\"{address}\", ")?,
                }
            }
            text.push_str("]\n");
        }
        Ok(text)
    }

    /// The config of Knot, on addresses or by AF_XDP on an interface.
    pub fn knot(&self, folder: &Path, listen: [IpAddr; 2], port: u16, interface: Option<&str>) -> String {
        let [ipv4, ipv6] = listen;
        let folder = folder.display();
        let xdp = interface.map_or(String::new(), |name| format!("xdp:\n  listen: {name}@{port}\n"));
        let global = match self.setup {
            Setup::Limits => format!(
                "mod-rrl:\n  - id: all\n    rate-limit: {LIMIT}\ntemplate:\n  - id: default\n    \
                 global-module: mod-rrl/all\n"
            ),
            Setup::Plain | Setup::Cookies | Setup::Million => String::new(),
        };
        // Without its module Knot refuses the whole config; the zone is then not there, and the case is not measured.
        let (module, zone) = match Self::knows_weights() {
            true => (
                format!(
                    "mod-geoip:\n  - id: weights\n    config-file: {}\n    ttl: 30\n    mode: weighted\n",
                    self.weights.display()
                ),
                format!(
                    "  - domain: {WEIGHTED_ZONE}\n    file: {}\n    zonefile-sync: -1\n    journal-content: none\n    \
                     module: mod-geoip/weights\n",
                    self.weighted_zone.display()
                ),
            ),
            false => (String::new(), String::new()),
        };
        format!(
            "server:\n  rundir: {folder}\n  user: root\n  listen: [{ipv4}@{port}, {ipv6}@{port}]\n  udp-workers: 1\n  \
             tcp-workers: 1\n  background-workers: 1\n{xdp}database:\n  storage: {folder}\n{global}{module}zone:\n  \
             - domain: {ZONE}\n    file: {}\n    zonefile-sync: -1\n    journal-content: none\n{zone}",
            self.zone.display()
        )
    }

    /// Whether Knot's module for weights is installed, a package of its own.
    pub fn knows_weights() -> bool {
        let folders = fs::read_dir("/usr/lib").into_iter().flatten().flatten();
        let mut modules = folders.map(|folder| folder.path().join("knot/modules-3.2/geoip.so"));
        modules.any(|module| module.is_file())
    }

    /// The config of NSD.
    pub fn nsd(&self, folder: &Path, listen: [IpAddr; 2]) -> String {
        let [ipv4, ipv6] = listen;
        let limit = if self.setup == Setup::Limits { LIMIT } else { 0 };
        let cookie = match self.setup {
            Setup::Cookies => format!("  answer-cookie: yes\n  cookie-secret: {COOKIE_SECRET}\n"),
            _ => "  answer-cookie: no\n".to_owned(),
        };
        let folder = folder.display();
        format!(
            "server:\n  ip-address: {ipv4}\n  ip-address: {ipv6}\n  server-count: 1\n  username: \"\"\n  chroot: \"\"\n  \
             zonesdir: \"{folder}\"\n  database: \"\"\n  pidfile: \"{folder}/pid\"\n  xfrdfile: \"{folder}/xfrd\"\n  \
             zonelistfile: \"{folder}/zones\"\n  xfrdir: \"{folder}\"\n  minimal-responses: yes\n  round-robin: yes\n  \
             rrl-ratelimit: {limit}\n  rrl-whitelist-ratelimit: {limit}\n{cookie}remote-control:\n  control-enable: no\n\
             zone:\n  name: {ZONE}\n  zonefile: \"{}\"\n",
            self.zone.display()
        )
    }

    /// The config of Unbound, with a server behind it.
    pub fn unbound(&self, folder: &Path, listen: [IpAddr; 2], behind: (IpAddr, u16)) -> String {
        let [ipv4, ipv6] = listen;
        let limit = if self.setup == Setup::Limits { LIMIT } else { 0 };
        let folder = folder.display();
        format!(
            "server:\n  num-threads: 1\n  interface: {ipv4}\n  interface: {ipv6}\n  access-control: 0.0.0.0/0 allow\n  \
             access-control: ::/0 allow\n  chroot: \"\"\n  username: \"\"\n  directory: \"{folder}\"\n  \
             pidfile: \"{folder}/pid\"\n  use-syslog: no\n  module-config: \"iterator\"\n  do-not-query-localhost: no\n  \
             local-zone: \"test.\" nodefault\n  msg-cache-size: 64m\n  rrset-cache-size: 128m\n  rrset-roundrobin: yes\n  \
             so-reuseport: no\n  ip-ratelimit: {limit}\nremote-control:\n  control-enable: no\n\
             stub-zone:\n  name: {ZONE}\n  stub-addr: {}@{}\n",
            behind.0, behind.1
        )
    }

    /// The config of dnsdist, with a server behind it.
    pub fn dnsdist(&self, listen: [IpAddr; 2], behind: (IpAddr, u16)) -> String {
        let [ipv4, ipv6] = listen;
        let limit = match self.setup {
            Setup::Limits => format!("addAction(MaxQPSIPRule({LIMIT}, 24, 56), DropAction())\n"),
            _ => String::new(),
        };
        format!(
            "setSecurityPollSuffix(\"\")\nsetLocal(\"{ipv4}:53\")\naddLocal(\"[{ipv6}]:53\")\nsetACL({{\"0.0.0.0/0\", \"::/0\"}})\n\
             newServer{{address=\"{}:{}\", checkName=\"{}.\"}}\ngetPool(\"\"):setCache(newPacketCache(200000, {{maxTTL=86400}}))\n{limit}",
            behind.0,
            behind.1,
            Asked::Hot.name()
        )
    }

    /// Questions as dnsperf and kxdpgun read them.
    pub fn questions(folder: &Path) -> Result<PathBuf> {
        let path = folder.join("questions");
        write(&path, |file| writeln!(file, "{} A", Asked::Hot.name()))?;
        Ok(path)
    }
}

/// All records but those of names with a policy: name without its last dot, type and data.
fn each_other(setup: Setup, mut record: impl FnMut(&str, &str, &str) -> std::io::Result<()>) -> std::io::Result<()> {
    let lengths = largest_strings().map_err(std::io::Error::other)?;
    let strings: Vec<_> = lengths.into_iter().map(|length| format!("\"{}\"", "x".repeat(length))).collect();
    record(&Asked::Largest.name(), "TXT", &strings.join(" "))?;
    for number in 0..setup.names() {
        let address = Ipv4Addr::from_bits(0xc612_0000 + number % (1 << 17));
        record(&numbered(number), "A", &address.to_string())?;
    }
    Ok(())
}

fn write(path: &Path, work: impl FnOnce(&mut BufWriter<File>) -> std::io::Result<()>) -> Result<()> {
    let write = || {
        let mut file = BufWriter::new(File::create(path)?);
        work(&mut file)?;
        file.flush()
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}
