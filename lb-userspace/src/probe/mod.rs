//! Probes: each does one check of one target and returns what came of it.

mod agent;
mod detour;
mod dial;
mod dns;
mod http;
mod icmp;
mod outcome;
mod places;
mod tcp;
mod tls;
mod udp;

#[cfg(test)]
mod tests;

pub use detour::{Detour, Entries};
pub use icmp::Echoes;
pub use outcome::Outcome;

use crate::{
    kernel::detour::FrameSender,
    model::{
        health::Failure,
        intent::{Kind, Target},
        schedule,
    },
};
use dial::Dial;
use places::Places;
use std::{
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tls::Clients;
use tokio::{sync::mpsc, task::AbortHandle, time::sleep};

/// Probes under way at once, of those targets that answer: bounds the sockets that probing needs.
pub const CONCURRENT: usize = 2_048;

/// What came of a probe.
#[derive(Clone, Debug)]
pub struct Probed {
    /// What was probed.
    pub target: Target,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// What takes `CAP_NET_RAW` to open, which the agent gives up before; none where that was not to be had.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For echo requests.
    pub echoes: Echoes,
    /// For the frames of probes to service addresses.
    pub sender: Option<FrameSender>,
}

/// What all probes share.
pub struct Prober {
    places: Places,
    clients: Clients,
    sockets: Sockets,
    detour: OnceLock<Arc<Detour>>,
    results: mpsc::Sender<Probed>,
    not_probed: AtomicU64,
}

impl Prober {
    /// That says what came of its probes to `results`.
    pub fn new(sockets: Sockets, results: mpsc::Sender<Probed>) -> Arc<Self> {
        let (places, clients) = (Places::new(CONCURRENT), Clients::default());
        let (detour, not_probed) = (OnceLock::new(), AtomicU64::new(0));
        Arc::new(Self { places, clients, sockets, detour, results, not_probed })
    }

    /// The way of probes to service addresses, if there is one.
    pub fn detour(&self) -> Option<&Arc<Detour>> {
        self.detour.get()
    }

    /// Another handle of the socket for frames.
    pub fn sender(&self) -> Option<FrameSender> {
        self.sockets.sender.as_ref()?.try_clone().ok()
    }

    /// From now on there is one.
    pub fn set_detour(&self, detour: Arc<Detour>) {
        let _ = self.detour.set(detour);
    }

    /// Probes a target again and again, the first time at once.
    pub fn start(self: &Arc<Self>, target: Target) -> AbortHandle {
        tokio::spawn(Arc::clone(self).repeat(target)).abort_handle()
    }

    async fn repeat(self: Arc<Self>, target: Target) {
        let chance = RandomState::new();
        let mut hangs = false;
        for round in 0_u64.. {
            let Some(place) = self.places.take(hangs).await else { return };
            let began = Instant::now();
            let outcome = self.once(&target).await;
            let took = began.elapsed();
            drop(place);
            hangs = outcome.hangs();
            // What this machine could not do says nothing about the target.
            if let Some(error) = outcome.own_fault() {
                // Where one socket is too many, thousands are.
                let before = self.not_probed.fetch_add(1, Ordering::Relaxed);
                if (before + 1).is_power_of_two() {
                    tracing::warn!(target = %target.address, %error, times = before + 1, "not probed");
                }
            } else if self.results.send(Probed { target: target.clone(), outcome, took }).await.is_err() {
                return;
            }
            // From the start of one probe to that of the next; one that waited for its place delays what follows.
            let pause = schedule::pause(&target.check, round, chance.hash_one(round));
            sleep(pause.saturating_sub(took)).await;
        }
    }

    /// Does the check once.
    async fn once(&self, target: &Target) -> Outcome {
        let limit = target.check.timeout;
        let Some(dial) = &Dial::new(target, self.detour.get()) else { return Failure::Unreachable.into() };
        let done = async {
            match &target.check.kind {
                Kind::Tcp => tcp::probe(dial).await,
                Kind::Http(http) => http::probe(dial, http, &self.clients).await,
                Kind::Dns(lookup) => dns::probe(dial, lookup).await,
                Kind::Udp(datagram) => udp::probe(dial, datagram, limit).await,
                Kind::Icmp => self.sockets.echoes.probe(dial.address.ip()).await,
                Kind::Agent(agent) => agent::probe(dial, agent).await,
            }
        };
        tokio::time::timeout(limit, done).await.unwrap_or_else(|_| Outcome::timed_out())
    }
}
