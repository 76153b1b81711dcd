//! What a trace is asked for.

use super::{DNS, Event};
use crate::model::prefix::{Prefix, PrefixError};
use lb_common::verdict::Why;
use serde::{Deserialize, Serialize};
use std::num::NonZeroU64;
use thiserror::Error;

/// The longest that a trace lasts, unless it has no end: a day.
const MOST_SECONDS: u64 = 86_400;
/// The rarest samples.
const MOST_EVERY: u64 = 1_000_000;

/// Which frames are to be told, and how many.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TraceRequest {
    /// Only those to this service, or from it; `dns` for the DNS addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// Only those that come from this prefix or go there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Only those with this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// One of so many frames of a CPU, before the others are left out; default every one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub every: Option<NonZeroU64>,
    /// End after so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub count: Option<NonZeroU64>,
    /// End after so many seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds: Option<NonZeroU64>,
    /// With the beginnings of the frames.
    pub frames: bool,
}

/// What of a request makes no sense.
#[derive(Debug, Error)]
pub enum TraceError {
    #[error("there is no service `{name}`; the config has: {known}")]
    Service { name: String, known: String },
    #[error("client: {0}")]
    Client(#[from] PrefixError),
    #[error("there is no reason `{name}`; there are: {known}")]
    Why { name: String, known: String },
    #[error("`{what}` is at most {most}")]
    TooMuch { what: &'static str, most: u64 },
}

/// Which frames are told.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    service: Option<String>,
    client: Option<Prefix>,
    why: Option<Why>,
    frames: bool,
}

impl Wanted {
    /// What a request asks for, of these services.
    pub fn new<'s>(
        request: &TraceRequest,
        services: impl Iterator<Item = &'s str> + Clone,
    ) -> Result<Self, TraceError> {
        if let Some(name) = &request.service
            && name != DNS
            && !services.clone().any(|service| service == name)
        {
            let known: Vec<_> = services.chain([DNS]).collect();
            return Err(TraceError::Service { name: name.clone(), known: known.join(", ") });
        }
        let why = request.why.as_ref().map(|name| {
            let known = || Why::ALL.iter().map(|why| why.name()).collect::<Vec<_>>().join(", ");
            let why = Why::ALL.iter().copied().find(|why| why.name() == name);
            why.ok_or_else(|| TraceError::Why { name: name.clone(), known: known() })
        });
        for (what, number, most) in [("seconds", request.seconds, MOST_SECONDS), ("every", request.every, MOST_EVERY)] {
            if number.is_some_and(|number| number.get() > most) {
                return Err(TraceError::TooMuch { what, most });
            }
        }
        Ok(Self {
            service: request.service.clone(),
            client: request.client.as_ref().map(|client| client.parse()).transpose()?,
            why: why.transpose()?,
            frames: request.frames,
        })
    }

    /// Whether a frame is to be told.
    #[must_use]
    pub fn holds(&self, event: &Event) -> bool {
        let ends = [event.packet.source, event.packet.destination];
        let service = self.service.as_ref().is_none_or(|service| event.service.as_ref() == Some(service));
        let client = self.client.is_none_or(|client| ends.iter().flatten().any(|end| client.contains(*end)));
        service && client && self.why.is_none_or(|why| why.name() == event.why)
    }

    /// An event as it was asked for.
    #[must_use]
    pub fn told(&self, event: &Event) -> Event {
        let frame = if self.frames { event.frame.clone() } else { None };
        Event { frame, ..event.clone() }
    }
}
