//! One edit of the config's document, and what it is in words.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// A table of the config as JSON: keys and values as in the config.
pub type Written = Map<String, Value>;

/// One edit of the config's document. A backend is told by its address and port; port 0: it has none, since the service is on any.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "edit", rename_all = "snake_case")]
pub enum Edit {
    /// Writes another `[[service]]`.
    AddService {
        /// Its keys.
        service: Written,
    },
    /// Takes a service out, with its backends.
    RemoveService {
        /// Its name.
        service: String,
    },
    /// Writes another `[[service.backend]]`.
    AddBackend {
        /// The service's name.
        service: String,
        /// The backend's keys.
        backend: Written,
    },
    /// Takes a backend out; flows that it has stay until they end.
    RemoveBackend {
        /// The service's name.
        service: String,
        /// The backend.
        backend: SocketAddr,
    },
    /// Gives a backend another weight.
    SetWeight {
        /// The service's name.
        service: String,
        /// The backend.
        backend: SocketAddr,
        /// The weight.
        weight: i64,
    },
    /// Drains or disables a backend, or takes that back.
    SetState {
        /// The service's name.
        service: String,
        /// The backend.
        backend: SocketAddr,
        /// What it does from now on.
        state: BackendState,
        /// After so many seconds a drained backend's flows are given up; default what the config says.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        drain_seconds: Option<u32>,
    },
    /// Has all services of an address answer ARP and neighbour solicitations for it, or none.
    SetClaim {
        /// The address.
        address: IpAddr,
        /// Whether they answer.
        claim: bool,
    },
}

/// What the operator has a backend do, whatever its health.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// It takes flows.
    #[default]
    Active,
    /// It takes no new flows.
    Drain,
    /// It takes no traffic at all: flows that it has move to others.
    Disabled,
}

impl BackendState {
    /// All of them, each as it is written in the config.
    pub const WORDS: [(&str, Self); 3] =
        [("active", Self::Active), ("drain", Self::Drain), ("disabled", Self::Disabled)];

    /// As it is written in the config.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Drain => "drain",
            Self::Disabled => "disabled",
        }
    }
}

impl Edit {
    /// The service that it is about, if it is about one alone.
    pub fn service(&self) -> Option<&str> {
        match self {
            Self::AddService { service } => service.get("name").and_then(Value::as_str),
            Self::RemoveService { service }
            | Self::AddBackend { service, .. }
            | Self::RemoveBackend { service, .. }
            | Self::SetWeight { service, .. }
            | Self::SetState { service, .. } => Some(service),
            Self::SetClaim { .. } => None,
        }
    }

    /// Whether it puts a backend back to what it does usually.
    pub(super) fn takes_back(&self) -> bool {
        matches!(self, Self::SetState { state: BackendState::Active, .. })
    }

    /// Whether an earlier edit is of no use once this one is done.
    pub(super) fn supersedes(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::RemoveService { service }, earlier) => earlier.service() == Some(service),
            (
                Self::RemoveBackend { service, backend },
                Self::SetWeight { service: other, backend: same, .. }
                | Self::SetState { service: other, backend: same, .. },
            ) => service == other && backend == same,
            (Self::RemoveBackend { service, backend }, Self::AddBackend { service: other, backend: written }) => {
                service == other && written_address(written) == Some(backend.ip()) && {
                    let port = written.get("port").and_then(Value::as_i64);
                    // Without a port of its own it is at the service's, and then the address alone tells it.
                    port.is_some_and(|port| port == i64::from(backend.port()))
                }
            }
            (Self::SetWeight { service, backend, .. }, Self::SetWeight { service: other, backend: same, .. })
            | (Self::SetState { service, backend, .. }, Self::SetState { service: other, backend: same, .. }) => {
                service == other && backend == same
            }
            (Self::SetClaim { address, .. }, Self::SetClaim { address: same, .. }) => address == same,
            _ => false,
        }
    }
}

/// The address that a written backend or service has.
pub(super) fn written_address(written: &Written) -> Option<IpAddr> {
    written.get("address")?.as_str()?.parse().ok()
}

/// An address as commands take it: without a port for any.
pub fn as_in_commands(address: SocketAddr) -> String {
    if address.port() == 0 { address.ip().to_string() } else { address.to_string() }
}

impl fmt::Display for Edit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = self.service().unwrap_or("(without a name)");
        match self {
            Self::AddService { .. } => write!(formatter, "add service {service}"),
            Self::RemoveService { .. } => write!(formatter, "remove service {service}"),
            Self::AddBackend { backend, .. } => {
                let address = backend.get("address").and_then(Value::as_str).unwrap_or("(without an address)");
                write!(formatter, "add backend {address}")?;
                if let Some(port) = backend.get("port") {
                    write!(formatter, " port {port}")?;
                }
                write!(formatter, " to service {service}")
            }
            Self::RemoveBackend { backend, .. } => {
                write!(formatter, "remove backend {} from service {service}", as_in_commands(*backend))
            }
            Self::SetWeight { backend, weight, .. } => {
                write!(formatter, "weight {weight} for backend {} of service {service}", as_in_commands(*backend))
            }
            Self::SetState { backend, state, drain_seconds, .. } => {
                let verb = match state {
                    BackendState::Active => "activate",
                    BackendState::Drain => "drain",
                    BackendState::Disabled => "disable",
                };
                write!(formatter, "{verb} backend {} of service {service}", as_in_commands(*backend))?;
                drain_seconds.map_or(Ok(()), |seconds| write!(formatter, " for {seconds} s"))
            }
            Self::SetClaim { address, claim: true } => write!(formatter, "claim {address}"),
            Self::SetClaim { address, claim: false } => write!(formatter, "release {address}"),
        }
    }
}
