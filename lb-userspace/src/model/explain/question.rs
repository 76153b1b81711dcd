//! What can be asked, and the packet that it is about.

use super::message;
use lb_common::{
    tables::Endpoint,
    wire::transport::{ACK, SYN, TCP, UDP},
};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, SocketAddr};
use thiserror::Error;

/// What can be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// Where does a packet of this flow go?
    Flow {
        /// Who sends it.
        client: SocketAddr,
        /// Where to.
        service: SocketAddr,
        /// By what.
        protocol: Protocol,
        /// A TCP packet that begins a connection, or one of a connection that is there.
        #[serde(default)]
        begins: bool,
    },
    /// What is this question answered with?
    Dns {
        /// The name.
        name: String,
        /// The type's number.
        kind: u16,
        /// Who asks.
        client: SocketAddr,
        /// Whom; default the first DNS address of the client's family.
        server: Option<SocketAddr>,
        /// Whether DNSSEC records are wanted.
        #[serde(default)]
        dnssec: bool,
        /// The largest reply that the client says it takes; none: it does not speak EDNS.
        size: Option<u16>,
    },
}

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// Why there can be no such packet.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AskError {
    /// Both families at once.
    #[error("{from} and {to} are not of one family: a packet is of IPv4 or of IPv6")]
    Families {
        /// Who sends it.
        from: IpAddr,
        /// Where to.
        to: IpAddr,
    },
    /// Nobody answers questions.
    #[error(
        "the config has no DNS address that {from} could ask: add one to `listen` of [dns], or name another with `--to`"
    )]
    NoServer {
        /// Who asks.
        from: IpAddr,
    },
    /// Not a name.
    #[error("`{name}` is no DNS name: labels of at most 63 characters, 255 bytes in all")]
    Name {
        /// What was given.
        name: String,
    },
}

/// A packet that is asked about.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Who sends it.
    pub from: Endpoint,
    /// Where to.
    pub to: Endpoint,
    /// What it carries.
    pub payload: Payload,
}

/// What a packet carries.
#[derive(Clone, Debug)]
pub enum Payload {
    /// TCP's flags, and no data.
    Tcp(u8),
    /// A datagram without data.
    Empty,
    /// A question.
    Dns(Question),
}

/// A DNS question.
#[derive(Clone, Debug)]
pub struct Question {
    /// The name as on the wire, as it was given.
    pub wire: Vec<u8>,
    /// The type's number.
    pub kind: u16,
    /// Whether DNSSEC records are wanted.
    pub dnssec: bool,
    /// The whole message.
    pub message: Vec<u8>,
}

impl Ask {
    /// The packet.
    pub(super) fn asked(&self, dns: &[SocketAddr]) -> Result<Asked, AskError> {
        let (from, to, protocol, payload) = match self {
            Self::Flow { client, service, protocol: Protocol::Tcp, begins } => {
                (*client, *service, TCP, Payload::Tcp(if *begins { SYN } else { ACK }))
            }
            Self::Flow { client, service, protocol: Protocol::Udp, .. } => (*client, *service, UDP, Payload::Empty),
            Self::Dns { name, kind, client, server, dnssec, size } => {
                let of_family = || dns.iter().copied().find(|server| server.is_ipv4() == client.is_ipv4());
                let server = server.or_else(of_family).ok_or(AskError::NoServer { from: client.ip() })?;
                let wire = message::wire(name).ok_or_else(|| AskError::Name { name: name.clone() })?;
                let message = message::query(&wire, *kind, *dnssec, *size);
                (*client, server, UDP, Payload::Dns(Question { wire, kind: *kind, dnssec: *dnssec, message }))
            }
        };
        if from.is_ipv4() != to.is_ipv4() {
            return Err(AskError::Families { from: from.ip(), to: to.ip() });
        }
        let endpoint = |address: SocketAddr| Endpoint::new(address.ip(), protocol, address.port());
        Ok(Asked { from: endpoint(from), to: endpoint(to), payload })
    }
}
