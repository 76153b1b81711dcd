//! Probes: each does one check of one target and returns what came of it.

mod tcp;

use crate::model::{health::Failure, intent::Target};
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::{Semaphore, mpsc},
    task::AbortHandle,
    time::{Instant, MissedTickBehavior, interval_at},
};

/// Probes under way at once: bounds the sockets that probing needs.
pub const CONCURRENT: usize = 512;

/// What came of a probe.
#[derive(Clone, Debug)]
pub struct Probed {
    /// What was probed.
    pub target: Target,
    /// Whether it answered.
    pub result: Result<(), Failure>,
}

/// Probes a target again and again, the first time at once.
pub fn start(target: Target, places: Arc<Semaphore>, results: mpsc::Sender<Probed>) -> AbortHandle {
    let repeat = async move {
        let mut ticks = interval_at(Instant::now(), target.check.interval.max(Duration::from_millis(1)));
        // A probe that took long delays the next one; it does not make two follow each other at once.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let Ok(_place) = places.acquire().await else { return };
            let result = tcp::probe(target.address, target.check.timeout).await;
            if results.send(Probed { target, result }).await.is_err() {
                return;
            }
        }
    };
    tokio::spawn(repeat).abort_handle()
}
