//! What an agent takes over from an earlier one: what it held for up and asked for, and whose flows are still there.

use super::{Agent, health::Record};
use crate::model::{
    backends::{BackendKey, is_live},
    leaving::leaving,
    reach::{Hop, Way},
};
use lb_common::{tables::Backend, wire::ethernet};
use std::collections::BTreeMap;

impl Agent {
    pub(super) fn inherit(&mut self) {
        for service in self.intent.services() {
            for backend in &service.backends {
                let key = BackendKey { service: service.endpoint, own: backend.endpoint, mode: service.mode };
                let Some((_, entry)) = self.actual.backends.get(&key) else { continue };
                if is_live(entry) {
                    self.health.insert(backend.target.clone(), Record::inherited_up());
                    self.conditions.ways.insert(key.own.ip(), Ok(way(entry)));
                }
            }
        }
        self.note_drains();
        let leaving = leaving(&self.actual, &self.intent, &self.conditions, &BTreeMap::new(), self.now());
        for key in leaving.keys() {
            if let Some((_, entry)) = self.actual.backends.get(key) {
                self.conditions.ways.insert(key.own.ip(), Ok(way(entry)));
            }
        }
        self.conditions.leaving = leaving;
        self.conditions.up = self.health.keys().cloned().collect();
    }
}

/// The way that the tables know, for as long as the kernel has forgotten the neighbour.
fn way(entry: &Backend) -> Way {
    let (destination, source) = ethernet::parts(entry.ethernet());
    let mtu = entry.mtu.saturating_add(entry.overhead());
    Way { hop: Hop { interface: entry.interface, destination, source, mtu }, gateway: None }
}
