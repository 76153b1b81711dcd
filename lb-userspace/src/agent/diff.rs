//! What another config would change, found out by the very steps that it would take.

use super::{Agent, cache::text_of, changes::refused, drain::targets_of};
use crate::{
    api::{Diff, Kind, Refusal, StaleStatus},
    changes::Stale,
    model::{
        answers::image::Image,
        desired::{self, Conditions, Desired},
        difference,
        intent::{Intent, Target},
        leaving::leaving,
        plan::plan,
    },
};
use anyhow::Result;
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::{IpAddr, SocketAddr},
};
use tokio::task::block_in_place;

/// As many plans as settling makes, and more for a great many answers.
const PLANS: usize = 1_000;

impl Agent {
    /// What this text as the config would change. What was not probed before is taken for up.
    pub(super) async fn diff(&self, text: &str) -> Result<Diff, Refusal> {
        let meant = block_in_place(|| self.document.intent(text));
        let (intent, merged) = meant.map_err(|errors| Refusal::new(Kind::Invalid, errors.to_string()))?;
        let (conditions, interfaces) = self.conditions_with(&intent).await.map_err(|error| refused(&error))?;
        let (lines, steps) =
            block_in_place(|| self.difference(&intent, &conditions, &interfaces)).map_err(|error| refused(&error))?;
        let stale = merged.stale.into_iter().map(|Stale { id, reason }| StaleStatus { id, reason: reason.to_string() });
        Ok(Diff { lines, steps, stale: stale.collect() })
    }

    /// How the world would be for another intent, and what its interfaces are called.
    async fn conditions_with(&self, intent: &Intent) -> Result<(Conditions, BTreeMap<u32, String>)> {
        let links = self.links(intent).await?;
        let mut interfaces: BTreeMap<u32, String> =
            self.attached.iter().map(|(name, index)| (*index, name.clone())).collect();
        interfaces.extend(links.iter().map(|(index, link)| (*index, link.name.clone())));
        let backends = intent.services().iter().flat_map(|service| &service.backends);
        let addresses: BTreeSet<IpAddr> = backends.map(|backend| backend.endpoint.ip()).collect();
        let unknown = addresses.into_iter().filter(|address| !self.conditions.ways.contains_key(address)).collect();
        let ways = self.netlink.ways(&unknown).await?;
        let mut conditions = self.conditions.clone();
        conditions.interfaces = links.into_iter().map(|(index, link)| (index, link.mac)).collect();
        conditions.ways.extend(ways);
        conditions.leaving = leaving(&self.actual, intent, &self.conditions, &targets_of(&self.intent), self.now());
        conditions.drains = self.drains_of(intent).into_iter().map(|(key, (draining, _))| (key, draining)).collect();
        conditions.undecided.clear();
        let down: HashSet<SocketAddr> =
            self.health.iter().filter(|(_, record)| !record.health.is_up()).map(|(target, _)| target.address).collect();
        let is_up = |target: &Target| match self.health.get(target) {
            Some(record) => record.health.is_up(),
            None => !down.contains(&target.address),
        };
        conditions.up = intent.targets().into_iter().filter(is_up).collect();
        Ok((conditions, interfaces))
    }

    fn difference(
        &self,
        intent: &Intent,
        conditions: &Conditions,
        interfaces: &BTreeMap<u32, String>,
    ) -> Result<(Vec<String>, usize)> {
        let now = self.now();
        let mut desired = Desired::new(intent, conditions, now);
        desired.share(&self.desired);
        desired.keep_answers(self.desired.clone());
        desired.answers.replace(desired::names(intent, conditions).all());
        if let (Some(dns), Some(known)) = (&mut desired.dns, self.actual.dns) {
            // The lease runs on by itself.
            (dns.lease_until, dns.wall_offset) = (known.lease_until, known.wall_offset);
        }
        let mut actual = self.actual.clone();
        let mut steps = Vec::new();
        for _ in 0..PLANS {
            let ops = plan(&desired, &actual, now)?;
            if ops.is_empty() {
                break;
            }
            ops.iter().for_each(|op| actual.record(op));
            steps.extend(ops);
        }
        let question = |image: &Image| {
            let (name, kind) = text_of(&image.question()?);
            Some(format!("{name} {kind}"))
        };
        let mut lines = difference::of_intents(&self.intent, intent);
        lines.extend(difference::of_steps(&self.actual, &steps, (&self.intent, intent), interfaces));
        // Answers are written beside those before, whether or not they are others.
        let answers = difference::of_answers(&self.actual, &actual, question);
        let count = steps.iter().filter(|step| !difference::is_of_answers(step)).count() + answers.len();
        lines.extend(answers);
        Ok((lines, count))
    }
}
