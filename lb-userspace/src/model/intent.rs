//! What the config means: validated, with every default filled in. Nothing downstream validates again.
//!
//! [`Intent::new`] is the only way to one. It says all that is wrong with a config at once.

mod checks;
mod names;
mod part;
mod services;
mod slots;
mod whole;

use crate::config::{Config, ConfigErrors};
use lb_common::{hash::Keys, tables::Endpoint};
use std::{
    collections::BTreeSet,
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

/// What the config means.
#[derive(Clone)]
pub struct Intent {
    interfaces: Vec<String>,
    attach: Attach,
    socket: PathBuf,
    pins: PathBuf,
    keys: Keys,
    services: Vec<Service>,
    names: Vec<Name>,
    dns: Vec<SocketAddr>,
}

impl Intent {
    /// From a config.
    pub fn new(config: &Config) -> Result<Self, ConfigErrors> {
        whole::intent(config)
    }

    /// Names of the interfaces that the program is attached to; at least one.
    pub fn interfaces(&self) -> &[String] {
        &self.interfaces
    }

    /// How it is attached.
    pub fn attach(&self) -> Attach {
        self.attach
    }

    /// Where the agent answers its commands; absolute.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where maps and links are pinned; absolute.
    pub fn pins(&self) -> &Path {
        &self.pins
    }

    /// Keys of the hashes, expanded from the secret.
    pub fn keys(&self) -> Keys {
        self.keys
    }

    /// The services as they are written; no two have the same name or endpoint.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The names in DNS as they are written; no two are the same.
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    /// Where DNS questions are answered.
    pub fn dns(&self) -> &[SocketAddr] {
        &self.dns
    }

    /// Everything that is probed.
    pub fn targets(&self) -> BTreeSet<Target> {
        let backends = self.services.iter().flat_map(|service| &service.backends).map(|backend| backend.target);
        let addresses = self.names.iter().flat_map(|name| &name.addresses).filter_map(|(_, target)| *target);
        backends.chain(addresses).collect()
    }
}

/// Without the keys: who knows them can aim at a slot.
impl fmt::Debug for Intent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { interfaces, attach, socket, pins, keys: _, services, names, dns } = self;
        let mut shown = formatter.debug_struct("Intent");
        shown.field("interfaces", interfaces).field("attach", attach).field("socket", socket).field("pins", pins);
        shown.field("services", services).field("names", names).field("dns", dns).finish_non_exhaustive()
    }
}

/// How the program is attached to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attach {
    /// In the driver.
    Native,
    /// In the kernel's stack, for drivers without XDP.
    Generic,
}

/// An address, port and protocol that clients connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Where clients connect to.
    pub endpoint: Endpoint,
    /// How packets reach its backends.
    pub mode: Mode,
    /// Size of its slot table: a prime, large enough that every backend with a weight has an exact share of 2 slots or more.
    pub slots: u32,
    /// Whether the balancer answers for the address on the link.
    pub claim: bool,
    /// Its backends as they are written; no two have the same endpoint, at least one has a weight.
    pub backends: Vec<Backend>,
}

/// How packets reach a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only the MAC address changes.
    Dsr,
    /// Address and port are rewritten, and restored in the replies.
    Nat,
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Dsr => "dsr",
            Self::Nat => "nat",
        })
    }
}

/// A server behind a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Where it is: of the service's family and protocol, and in mode `dsr` of its port.
    pub endpoint: Endpoint,
    /// Its share in proportion to the others'; 0: it takes no traffic.
    pub weight: u32,
    /// What is probed for it.
    pub target: Target,
}

/// What is probed, and how. What shares a target shares one probe and one health.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// Where to connect to.
    pub address: SocketAddr,
    /// How often, and what its results lead to.
    pub check: Check,
}

/// How a target is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Check {
    /// From one probe to the next.
    pub interval: Duration,
    /// After this an answer no longer counts; not longer than the interval.
    pub timeout: Duration,
    /// Successes in a row that bring the target up; at least one.
    pub rise: u32,
    /// Failures in a row that take it down; at least one.
    pub fall: u32,
}

/// A name in DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    /// In lower case, without a dot at the end.
    pub name: String,
    /// As on the wire, in lower case, the root label included.
    pub wire: Vec<u8>,
    /// For how long resolvers may keep an answer.
    pub ttl_seconds: u32,
    /// Its addresses, each with what is probed for it; what has no target counts as up. At most
    /// [`lb_common::tables::MAX_RECORDS`] of each family.
    pub addresses: Vec<(IpAddr, Option<Target>)>,
}
