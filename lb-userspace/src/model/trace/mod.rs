//! What a trace tells of the frames that were sampled.

mod packet;
mod request;

pub use packet::Packet;
pub use request::{TraceRequest, Wanted};

use super::intent::Service;
use lb_common::{
    tables::{Endpoint, IN_USE},
    trace::{ACTIONS, Sample},
    verdict::Why,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    net::SocketAddr,
    time::Duration,
};

/// What packets to a DNS address are to.
pub const DNS: &str = "dns";

/// A line of a trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Line {
    /// A frame.
    Event(Box<Event>),
    /// Frames that should have been told, and were not: more came than can be sampled or sent.
    Lost {
        /// How many.
        events: u64,
    },
}

/// A frame, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it came, in nanoseconds since 1970.
    pub unix_nanoseconds: u64,
    /// The interface that it came in by.
    pub interface: String,
    /// `pass`, `transmit`, `redirect` or `drop`.
    pub verdict: String,
    /// The reason's name, as in `lb status`.
    pub why: String,
    /// The service that it is to, or comes from; `dns` for a DNS address.
    pub service: Option<String>,
    /// The backend that it went to, or comes from.
    pub backend: Option<SocketAddr>,
    /// What its headers say.
    #[serde(flatten)]
    pub packet: Packet,
    /// Its length on the link, without a checksum of the link's.
    pub length: u32,
    /// Its beginning in hexadecimal, if that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame: Option<String>,
}

impl Event {
    /// The frame's beginning, if it was asked for.
    #[must_use]
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let digits = self.frame.as_ref()?.as_bytes();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        digits.chunks(2).map(byte).collect()
    }
}

/// A backend as samples name it.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// Where it is.
    pub own: Endpoint,
    /// The service that it is of.
    pub service: Endpoint,
}

/// Where names and backends are found.
pub struct Names<'a> {
    services: HashMap<Endpoint, &'a str>,
    dns: &'a [SocketAddr],
    interfaces: &'a BTreeMap<u32, String>,
}

impl<'a> Names<'a> {
    /// Those of a config.
    #[must_use]
    pub fn new(services: &'a [Service], dns: &'a [SocketAddr], interfaces: &'a BTreeMap<u32, String>) -> Self {
        let services = services.iter().map(|service| (service.endpoint, service.name.as_str())).collect();
        Self { services, dns, interfaces }
    }

    fn service(&self, endpoint: &Endpoint) -> Option<&'a str> {
        let name = self.services.get(endpoint).or_else(|| self.services.get(&endpoint.without_port()));
        let is_dns = || self.dns.contains(&SocketAddr::new(endpoint.ip(), endpoint.port()));
        name.copied().or_else(|| is_dns().then_some(DNS))
    }
}

/// Who knows of backends what the tables hold.
pub trait Backends {
    /// The backend with this id.
    fn by_id(&mut self, id: u32) -> Option<Known>;

    /// The backend that sends from here.
    fn by_own(&mut self, own: &Endpoint) -> Option<Known>;
}

/// Tells a sample. `wall_offset` is what the wall clock is ahead of the monotonic one.
pub fn event(sample: &Sample, wall_offset: Duration, names: &Names<'_>, backends: &mut impl Backends) -> Event {
    let head: &[u8] = bytemuck::cast_slice(&sample.head);
    let head = head.get(..sample.length as usize).unwrap_or(head);
    let packet = Packet::read(head);
    let why = Why::ALL.get(sample.why as usize);
    let known = match why {
        Some(Why::Returned | Why::ReturnedByStack | Why::ErrorReturned | Why::ReturnNotForwarded) => {
            packet.source_endpoint().and_then(|own| backends.by_own(&own))
        }
        _ => backends.by_id(sample.backend),
    };
    let service = packet.destination_endpoint().and_then(|endpoint| names.service(&endpoint));
    let service = service.or_else(|| known.and_then(|known| names.service(&known.service)));
    let time = Duration::from_nanos(sample.nanoseconds) + wall_offset;
    let interface = names.interfaces.get(&sample.interface).cloned();
    Event {
        unix_nanoseconds: time.as_nanos().try_into().unwrap_or(u64::MAX),
        interface: interface.unwrap_or_else(|| format!("number {}", sample.interface)),
        verdict: (*ACTIONS.get(sample.action as usize).unwrap_or(&"unknown")).into(),
        why: why.map_or("unknown", |why| why.name()).into(),
        service: service.map(Into::into),
        backend: known.map(|known| SocketAddr::new(known.own.ip(), known.own.port())),
        packet,
        length: sample.length,
        frame: Some(hexadecimal(head)),
    }
}

/// A backend of the tables, if its place is in use.
#[must_use]
pub fn known(backend: &lb_common::tables::Backend) -> Option<Known> {
    (backend.flags & IN_USE != 0).then_some(Known { own: backend.own, service: backend.service })
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
