//! What `lb status` tells: the agent writes it, the command reads it.

use crate::{
    dns::listen::CountsSnapshot,
    model::{certificate::Certificate, health::State, pool::Pool},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

/// The state of everything.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Version of the agent.
    pub version: String,
    /// Seconds since it was started.
    pub uptime_seconds: u64,
    /// Bytes of memory of the agent itself, without the maps.
    pub memory_bytes: u64,
    /// Configs that were read since it was started.
    pub reloads: ReloadsStatus,
    /// Changes made by command.
    pub changes: ChangesStatus,
    /// The interfaces of the config.
    pub interfaces: Vec<InterfaceStatus>,
    /// The services of the config.
    pub services: Vec<ServiceStatus>,
    /// Flows that are tracked, as of the last sweep.
    pub tracked_flows: u64,
    /// DNS.
    pub dns: DnsStatus,
    /// Packets by the way they left, over all interfaces since the maps were made.
    pub packets: BTreeMap<String, u64>,
}

/// Configs that were read since the agent was started.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ReloadsStatus {
    /// Those that were taken up.
    pub applied: u64,
    /// Those that were refused.
    pub refused: u64,
}

/// How many changes were made by command.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct ChangesStatus {
    /// All of them.
    pub made: usize,
    /// Those that no longer apply.
    pub stale: usize,
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
    /// Its address and port; port 0: any.
    pub address: SocketAddr,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The forward mode.
    pub mode: String,
    /// Size of its slot table.
    pub slots: u32,
    /// How many of them have changed, so that flows of theirs are tracked.
    pub changed_slots: usize,
    /// Which of its backends take flows.
    pub pool: Pool,
    /// How many of them have to be up, backups excepted.
    pub minimum_healthy: u32,
    /// Packets sent to its backends.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
    /// Its backends; those that are no longer in the config but still have flows come last.
    pub backends: Vec<BackendStatus>,
    /// What DNS is asked for its backends.
    pub names: Vec<NameStatus>,
    /// The file that lists backends of it, if there is one.
    pub backends_file: Option<FileStatus>,
}

/// A watched file of backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileStatus {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it, so that what it has listed before holds.
    pub error: Option<String>,
}

/// A question to DNS whose answer is backends.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NameStatus {
    /// The name.
    pub name: String,
    /// The type: `A`, `AAAA` or `SRV`.
    pub kind: String,
    /// The records in use: addresses, or priority, weight, port and host.
    pub records: Vec<String>,
    /// How many seconds ago DNS has answered last, if ever.
    pub resolved_seconds: Option<u64>,
    /// Why the last try has failed, or its answer can't be used.
    pub error: Option<String>,
}

/// What `lb health` tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HealthReport {
    /// What is checked.
    pub targets: Vec<TargetStatus>,
}

/// What is checked, and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TargetStatus {
    /// Where to; port 0: the check has no ports.
    pub address: SocketAddr,
    /// The backend that packets to it are sent to, if it is a service's.
    pub via: Option<IpAddr>,
    /// What is done.
    pub check: String,
    /// The services and DNS names that go by it.
    pub used_by: Vec<String>,
    /// Up or down.
    pub health: State,
    /// Seconds since that last changed, if it did.
    pub since_seconds: Option<u64>,
    /// How much of its weight it takes.
    pub weight_percent: u32,
    /// What holds of what its agent has said, if it is asked.
    pub says: Option<String>,
    /// For how many seconds more it is held down, because it has turned too often.
    pub held_seconds: Option<u64>,
    /// Results in a row that speak against its state.
    pub contradicted: u32,
    /// Milliseconds since the last probe has ended.
    pub last_ago_ms: Option<u64>,
    /// How long that took.
    pub last_took_ms: Option<u64>,
    /// What it failed with, if it did.
    pub last_failure: Option<String>,
    /// What was answered, or what else there is to say: one short line.
    pub last_output: Option<String>,
    /// The certificate that was shown last.
    pub certificate: Option<Certificate>,
    /// The names whose answers it is from, if it is a backend by name.
    pub names: Vec<NameStatus>,
    /// The files that list it, if it is a backend of one.
    pub files: Vec<FileStatus>,
    /// Its last turns, the latest first.
    pub turns: Vec<TurnStatus>,
}

/// A turn of a target.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TurnStatus {
    /// When, in seconds since 1970.
    pub unix_seconds: u64,
    /// How many seconds ago that was.
    pub ago_seconds: u64,
    /// Whether it is up since.
    pub up: bool,
    /// Why it is down since.
    pub reason: Option<String>,
    /// What the probe was answered that decided it.
    pub output: Option<String>,
    /// How long that probe took.
    pub took_ms: u64,
    /// How long the turn took, from the first probe that spoke for it.
    pub after_ms: u64,
}

/// A backend of a service.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its address and port; port 0: any.
    pub address: SocketAddr,
    /// The host that it is an address of, if it is written so.
    pub host: Option<String>,
    /// The name whose SRV records have the host, if they do.
    pub srv: Option<String>,
    /// The file that lists it, if one does.
    pub file: Option<PathBuf>,
    /// Its configured weight.
    pub weight: u32,
    /// What its check says.
    pub health: State,
    /// Seconds since that last changed, if it did.
    pub since_seconds: Option<u64>,
    /// What its last probe failed with, if it did.
    pub last_failure: Option<String>,
    /// What that probe was answered: one short line.
    pub last_output: Option<String>,
    /// The certificate that it has shown last.
    pub certificate: Option<Certificate>,
    /// What holds of what its agent has said, if it is asked.
    pub agent_says: Option<String>,
    /// How much of its weight it takes, by slow start and by what its agent says.
    pub weight_percent: u32,
    /// Whether it is a backup.
    pub backup: bool,
    /// Whether the operator drains it.
    pub draining: bool,
    /// Whether the operator has it take no traffic at all.
    pub disabled: bool,
    /// For how many seconds the operator, or an agent before this one, has drained it.
    pub draining_seconds: Option<u64>,
    /// In how many seconds the flows that are left are given up, if they are.
    pub drain_left_seconds: Option<u64>,
    /// Whether it is drained and has no flows left.
    pub drained: bool,
    /// Whether it is no longer in the config and only there for its flows.
    pub leaving: bool,
    /// Flows that are tracked to it, as of the last sweep. Flows of slots that have not changed are not tracked.
    pub flows: u64,
    /// Why it has no next hop, if it has none.
    pub no_next_hop: Option<String>,
    /// What its way is too narrow for, if it is.
    pub narrow: Option<String>,
    /// Whether it is in the slot table.
    pub serving: bool,
    /// Packets sent to it.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

impl BackendStatus {
    /// What it does, in a word.
    pub fn state(&self) -> String {
        match self {
            Self { leaving: true, .. } => "leaving".into(),
            Self { drained: true, .. } => "drained".into(),
            Self { draining: true, .. } => "draining".into(),
            Self { disabled: true, .. } => "disabled".into(),
            Self { backup: true, serving: false, health: State::Up, .. } => "backup".into(),
            _ => self.health.to_string(),
        }
    }

    /// How it came to be one, if it is not written in the config itself.
    pub fn found_by(&self) -> Option<String> {
        let host = self.host.as_ref().map(|host| {
            let srv = self.srv.iter().map(|srv| format!(", by {srv}")).collect::<String>();
            format!("host {host}{srv}")
        });
        host.or_else(|| Some(format!("file {}", self.file.as_ref()?.display())))
    }
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
    /// Those of them that say that there is no such name or record, and are there because they are asked for.
    pub negatives_in_kernel: usize,
    /// Bytes that they and their index take.
    pub answer_bytes: u64,
    /// Bytes of memory of the maps that they are in.
    pub answer_memory: u64,
    /// Answers that the kernel should hold and does not: for want of room, or too long.
    pub left_to_agent: usize,
    /// Questions that the kernel answered.
    pub answered_by_kernel: u64,
    /// What came to the agent.
    pub agent: CountsSnapshot,
}

/// Answers that the kernel holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnswerList {
    /// How many there are.
    pub total: usize,
    /// The first of them.
    pub answers: Vec<AnswerStatus>,
}

/// An answer that the kernel holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnswerStatus {
    /// The name.
    pub name: String,
    /// The type.
    pub kind: String,
    /// `authoritative`; `negative` if it is there because it was asked for.
    pub class: String,
    /// How one is chosen of several: `only`, `turn`, `random`, `client`.
    pub pick: String,
    /// Rendered bodies.
    pub bodies: usize,
    /// Slots that lead to them.
    pub slots: usize,
    /// Bytes that they take.
    pub bytes: u64,
    /// Seconds until it is no longer answered with; none: it is for ever.
    pub ends_in_seconds: Option<u64>,
}

/// An answer with what the maps hold of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnswerDetail {
    /// The answer.
    pub answer: AnswerStatus,
    /// Its bodies.
    pub bodies: Vec<AnswerBody>,
}

/// A rendered body as the maps hold it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AnswerBody {
    /// Where it is.
    pub block: u32,
    /// Its generation.
    pub generation: u16,
    /// The response code.
    pub code: String,
    /// How many records it has.
    pub records: u32,
    /// How many of them are rotated.
    pub rotated: u16,
    /// The records on the wire, in hexadecimal digits.
    pub data: String,
    /// The map holds what was written.
    pub is_as_written: bool,
}

/// A name that is asked for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TopName {
    /// The name.
    pub name: String,
    /// The type.
    pub kind: String,
    /// How often it was sampled.
    pub samples: u64,
    /// Its part of all samples.
    pub share: f64,
}
