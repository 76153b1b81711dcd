//! What the agent's DNS sockets count.

use crate::model::dns::respond::{Response, Transport};
use hickory_proto::op::ResponseCode;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// The response codes that there are, with their names (RFC 6895 section 2.3).
const CODES: [(ResponseCode, &str); 7] = [
    (ResponseCode::NoError, "NOERROR"),
    (ResponseCode::FormErr, "FORMERR"),
    (ResponseCode::ServFail, "SERVFAIL"),
    (ResponseCode::NXDomain, "NXDOMAIN"),
    (ResponseCode::NotImp, "NOTIMP"),
    (ResponseCode::Refused, "REFUSED"),
    (ResponseCode::BADVERS, "BADVERS"),
];

/// Counters that all sockets share.
#[derive(Debug, Default)]
pub struct Counts {
    queries: AtomicU64,
    over_tcp: AtomicU64,
    malformed: AtomicU64,
    truncated: AtomicU64,
    answers: [AtomicU64; CODES.len()],
}

impl Counts {
    /// Counts a message and the response to it, if it got one.
    pub(super) fn add(&self, transport: Transport, response: Option<&Response>) {
        self.queries.fetch_add(1, Relaxed);
        if transport == Transport::Tcp {
            self.over_tcp.fetch_add(1, Relaxed);
        }
        let Some(response) = response else {
            self.malformed.fetch_add(1, Relaxed);
            return;
        };
        if response.is_truncated {
            self.truncated.fetch_add(1, Relaxed);
        }
        let of_code = self.answers.iter().zip(CODES).find(|(_, (code, _))| *code == response.code);
        if let Some((answers, _)) = of_code {
            answers.fetch_add(1, Relaxed);
        }
    }

    /// The numbers right now.
    pub fn snapshot(&self) -> CountsSnapshot {
        CountsSnapshot {
            queries: self.queries.load(Relaxed),
            over_tcp: self.over_tcp.load(Relaxed),
            malformed: self.malformed.load(Relaxed),
            truncated: self.truncated.load(Relaxed),
            answers: CODES
                .iter()
                .zip(&self.answers)
                .map(|((_, name), count)| ((*name).into(), count.load(Relaxed)))
                .collect(),
        }
    }
}

/// [`Counts`] at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountsSnapshot {
    /// Messages that came in.
    pub queries: u64,
    /// Those of them that came by TCP.
    pub over_tcp: u64,
    /// Those of them that got no reply: shorter than a header, or responses themselves.
    pub malformed: u64,
    /// Responses that told the client to ask again by TCP.
    pub truncated: u64,
    /// Responses by their code.
    pub answers: BTreeMap<String, u64>,
}
