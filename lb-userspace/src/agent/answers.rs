//! What the kernel answers: the names as they stand, and what is asked again and again.

use super::{Agent, health::Record};
use crate::{
    kernel::flows::seconds,
    model::{
        answers::image::addresses_of,
        desired,
        dns::respond::Asked,
        intent::{Address, Target},
    },
    settle,
};
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// QTYPE `*`: what is said to it goes by the health of several sets.
const ANY: u32 = 255;

impl Agent {
    /// Folds the names with what is up: all of them if they are others, else those that a change concerns.
    pub(super) fn fold_names(&mut self) {
        let turned = self.touched.take_targets();
        if self.renewed {
            let names = desired::names(&self.intent, &self.conditions);
            self.negatives.clear();
            self.desired.answers.replace(names.all());
            self.names.send_replace(Arc::new(names));
            return;
        }
        let mut names = (**self.names.borrow()).clone();
        let changed = names.refresh(&self.conditions.up, turned);
        for wire in &changed {
            for (question, rendered) in names.of_name(wire) {
                self.desired.answers.put(&question, &rendered);
            }
        }
        if !changed.is_empty() {
            self.names.send_replace(Arc::new(names));
        }
    }

    /// Tells the kernel that the agent is there.
    pub(super) fn beat(&mut self) {
        if let Err(error) = self.try_beat() {
            tracing::error!("{error:#}");
        }
    }

    fn try_beat(&mut self) -> anyhow::Result<()> {
        let lease = self.intent.answering().lease;
        let Some(dns) = &mut self.desired.dns else { return Ok(()) };
        let now = seconds()?;
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        dns.lease_until = lease.map_or(u64::MAX, |lease| now + lease.as_secs());
        dns.wall_offset = u64::from(since_1970.wrapping_sub(now) as u32);
        Ok(settle::heartbeat(*dns, &mut self.maps, &mut self.actual)?)
    }

    /// A question came to the agent.
    pub(super) fn asked(&mut self, asked: Asked) {
        let names = Arc::clone(&self.names.borrow());
        if asked.kind & 0xffff == ANY {
            return;
        }
        let (Some(rendered), Ok(now)) = (names.answer(&asked.wire, asked.kind), seconds()) else { return };
        if self.negatives.asked(&asked, &rendered, now, &mut self.desired.answers) {
            self.unsettled = true;
        }
    }

    /// Takes over whom an earlier agent has answered with for up.
    pub(super) fn inherit_answers(&mut self) -> anyhow::Result<()> {
        let mut targets: HashMap<(Arc<[u8]>, IpAddr), Target> = HashMap::new();
        for name in self.intent.names() {
            let of = |address: &Address| Some(((Arc::clone(&name.wire), address.address), address.target.clone()?));
            targets.extend(name.addresses.iter().filter_map(of));
        }
        if targets.is_empty() {
            return Ok(());
        }
        let health = &mut self.health;
        self.maps.for_each_answer(&self.actual, |question, records| {
            for address in addresses_of(records) {
                if let Some(target) = targets.get(&(Arc::clone(&question.wire), address)) {
                    health.entry(target.clone()).or_insert_with(Record::inherited_up);
                }
            }
        })?;
        self.conditions.up.extend(self.health.keys().cloned());
        Ok(())
    }
}
