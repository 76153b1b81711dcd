//! What is probed, and how.

use super::backends::BackendKey;
use std::{
    fmt,
    hash::{Hash, Hasher},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// What is probed, and how. What shares a target shares one probe and one health.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Where to; port 0 where the check has no ports.
    pub address: SocketAddr,
    /// How, how often, and what its results lead to.
    pub check: Arc<Check>,
    /// The backend to which its packets are sent in the way of traffic, if the address is a service's.
    pub via: Option<BackendKey>,
}

/// By the address alone, or the backend's: few have two checks.
impl Hash for Target {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address.hash(state);
        if let Some(key) = &self.via {
            key.own.hash(state);
        }
    }
}

/// How a target is checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Check {
    /// From one probe to the next.
    pub interval: Duration,
    /// After this an answer no longer counts; not longer than the interval.
    pub timeout: Duration,
    /// Successes in a row that bring the target up; at least one.
    pub rise: u32,
    /// Failures in a row that take it down; at least one.
    pub fall: u32,
    /// Percent of the interval by which one is longer or shorter by chance.
    pub jitter: u32,
    /// For how long the weight rises after the target has come back; zero: it is whole at once.
    pub slow_start: Duration,
    /// What holds it down if it turns too often.
    pub damping: Option<Damping>,
    /// Whether it goes to the service's address in the way of traffic, not to the backend's own.
    pub to_service: bool,
    /// What is done.
    pub kind: Kind,
}

/// What services have without any check of their own.
impl Default for Check {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
            timeout: Duration::from_millis(500),
            rise: 2,
            fall: 3,
            jitter: 10,
            slow_start: Duration::ZERO,
            damping: None,
            to_service: false,
            kind: Kind::Tcp,
        }
    }
}

/// A target that goes down too often is held down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Damping {
    /// So many turns to down...
    pub turns: u32,
    /// ...within this are too many.
    pub window: Duration,
    /// For how long it is held down the first time; twice as long each further time.
    pub hold: Duration,
    /// Never longer than this.
    pub most: Duration,
}

/// What is done to see whether a target works.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A TCP connection is opened.
    Tcp,
    /// A page is asked for.
    Http(Http),
    /// A DNS question is asked.
    Dns(Lookup),
    /// A datagram is sent.
    Udp(Datagram),
    /// An echo request is sent.
    Icmp,
    /// The target's agent is asked how it is (HAProxy's agent-check).
    Agent(AgentCheck),
}

/// A page that is asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Http {
    /// How, if by HTTPS.
    pub tls: Option<Tls>,
    /// Only its header is asked for.
    pub head: bool,
    /// Path and query.
    pub path: String,
    /// The header `Host`; default the address.
    pub host: Option<String>,
    /// First and last of the statuses that are right.
    pub status: Vec<(u16, u16)>,
    /// What has to be in the page.
    pub body: Option<String>,
}

/// How a server is known by TLS.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tls {
    /// The name that it is asked for and that its certificate should cover; default its address.
    pub name: Option<String>,
    /// Who has to have signed the certificate.
    pub authorities: Authorities,
}

/// Who has to have signed a certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Authorities {
    /// One whom the system trusts.
    System,
    /// One of these, in DER.
    These(Arc<[Vec<u8>]>),
    /// Anyone.
    Anyone,
}

/// A DNS question, and what has to be answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lookup {
    /// The name.
    pub name: String,
    /// The type.
    pub kind: u16,
    /// The response code.
    pub code: u16,
    /// An address that has to be among the answers.
    pub address: Option<IpAddr>,
}

/// A datagram, and what has to be answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Datagram {
    /// What is sent.
    pub send: Vec<u8>,
    /// What the answer has to begin with; without, silence is as good as any answer.
    pub expect: Option<Vec<u8>>,
}

/// How an agent is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AgentCheck {
    /// What is sent first.
    pub send: Option<String>,
    /// Percent: it lowers the weight no further.
    pub floor: u32,
    /// Percent: smaller changes change nothing.
    pub step: u32,
}

impl Kind {
    /// Whether it takes no port.
    pub const fn is_portless(&self) -> bool {
        matches!(self, Self::Icmp)
    }

    /// Whether it is done over UDP.
    pub const fn is_udp(&self) -> bool {
        matches!(self, Self::Dns(_) | Self::Udp(_))
    }
}

/// In the config's words.
impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => formatter.write_str("tcp"),
            Self::Http(http) => {
                let (kind, method) =
                    (if http.tls.is_some() { "https" } else { "http" }, if http.head { "HEAD" } else { "GET" });
                write!(formatter, "{kind} {method} {}", http.path)
            }
            Self::Dns(lookup) => write!(formatter, "dns {}", lookup.name),
            Self::Udp(_) => formatter.write_str("udp"),
            Self::Icmp => formatter.write_str("icmp"),
            Self::Agent(_) => formatter.write_str("agent"),
        }
    }
}
