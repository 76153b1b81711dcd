//! How a backend is reached, or why it is not.

use super::{desired::Conditions, intent::Mode};
use std::net::IpAddr;
use thiserror::Error;

/// How to reach a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Index of the interface.
    pub interface: u32,
    /// MAC address of the next hop.
    pub destination: [u8; 6],
    /// MAC address of the interface.
    pub source: [u8; 6],
    /// Bytes of the longest packet that the way takes.
    pub mtu: u16,
}

/// A way to a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Where its packets go.
    pub hop: Hop,
    /// The router between, if there is one.
    pub gateway: Option<IpAddr>,
}

/// Why a backend can't be reached.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NoHop {
    /// The routing table has no way.
    #[error("no route to it; `ip route get` shows the same")]
    NoRoute,
    /// It is this machine.
    #[error("the address is this machine's own")]
    Local,
    /// The neighbour did not answer.
    #[error("{address} does not answer on {interface}; `ip neigh` shows the same")]
    Silent {
        /// The neighbour.
        address: IpAddr,
        /// The interface.
        interface: String,
    },
    /// The neighbour was asked and has not answered yet.
    #[error("waiting for {address} to answer on {interface}")]
    Asked {
        /// The neighbour.
        address: IpAddr,
        /// The interface.
        interface: String,
        /// Its index.
        index: u32,
    },
    /// The way leads over an interface without our program.
    #[error("it is reached by interface number {index} of `ip link`, which is not among the attached `interfaces`")]
    Elsewhere {
        /// Index of the interface.
        index: u32,
    },
    /// `dsr` needs it on the link.
    #[error("it is behind the router {gateway}; mode \"dsr\" needs it on the same link")]
    BehindRouter {
        /// The router.
        gateway: IpAddr,
    },
}

/// Bytes that every link must take as one IPv6 packet (RFC 8200 section 5): a sender need not send shorter ones.
const LEAST_MTU: u16 = 1_280;

/// Why a way is too narrow for some clients, if it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error(
    "its way takes packets of {mtu} bytes, and clients may send what needs {least}; raise the mtu of the interface or the route"
)]
pub struct Narrow {
    /// What it takes.
    pub mtu: u16,
    /// What it should.
    pub least: u16,
}

/// Whether a way to a backend at this address is too narrow.
pub const fn narrow(mode: Mode, address: IpAddr, hop: &Hop) -> Option<Narrow> {
    let overhead = match (mode, address) {
        (Mode::Tunnel, IpAddr::V4(_)) => 20,
        (Mode::Tunnel, IpAddr::V6(_)) => 40,
        (Mode::Dsr | Mode::Nat, _) => 0,
    };
    let (mtu, least) = (hop.mtu, LEAST_MTU + overhead);
    if mtu < least { Some(Narrow { mtu, least }) } else { None }
}

/// The next hop toward a backend at this address, if packets in this forward mode can take it.
pub fn reach(conditions: &Conditions, mode: Mode, address: IpAddr) -> Result<Hop, NoHop> {
    let way = conditions.ways.get(&address).ok_or(NoHop::NoRoute)?.clone()?;
    if let (Mode::Dsr, Some(gateway)) = (mode, way.gateway) {
        return Err(NoHop::BehindRouter { gateway });
    }
    if conditions.interfaces.contains_key(&way.hop.interface) {
        Ok(way.hop)
    } else {
        Err(NoHop::Elsewhere { index: way.hop.interface })
    }
}
