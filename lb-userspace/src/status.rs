//! What `lb status` tells: the agent writes it, the command reads it.

use crate::{dns::listen::CountsSnapshot, model::health::State};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, net::SocketAddr};

/// The state of everything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Seconds since it was started.
    pub uptime_seconds: u64,
    /// The interfaces of the config.
    pub interfaces: Vec<InterfaceStatus>,
    /// The services of the config.
    pub services: Vec<ServiceStatus>,
    /// DNS.
    pub dns: DnsStatus,
    /// Packets by the way they left, over all interfaces since the maps were made.
    pub packets: BTreeMap<String, u64>,
}

/// An interface.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InterfaceStatus {
    /// Its name.
    pub name: String,
    /// Its index, if the program is attached.
    pub index: Option<u32>,
}

/// A service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// Its address and port.
    pub address: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The forward mode.
    pub mode: String,
    /// Size of its slot table.
    pub slots: u32,
    /// Packets sent to its backends.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Its backends.
    pub backends: Vec<BackendStatus>,
}

/// A backend of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its address and port.
    pub address: SocketAddr,
    /// Its configured weight.
    pub weight: u32,
    /// What its check says.
    pub health: State,
    /// Seconds since that last changed, if it did.
    pub since_seconds: Option<u64>,
    /// What its last probe failed with, if it did.
    pub last_failure: Option<String>,
    /// Whether the operator drains it.
    pub draining: bool,
    /// Why it has no next hop, if it has none.
    pub no_next_hop: Option<String>,
    /// Whether it is in the slot table.
    pub serving: bool,
    /// Packets sent to it.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// DNS.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DnsStatus {
    /// Where questions are answered.
    pub listen: Vec<SocketAddr>,
    /// Names in the config.
    pub names: usize,
    /// Answers that the kernel holds.
    pub answers_in_kernel: usize,
    /// Questions that the kernel answered.
    pub answered_by_kernel: u64,
    /// What came to the agent.
    pub agent: CountsSnapshot,
}
