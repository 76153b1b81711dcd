//! What `lb explain` tells.

use super::Agent;
use crate::{
    api::Refusal,
    kernel::flows,
    model::explain::{Ask, Explanation, Names, explain},
};
use anyhow::Error;
use std::collections::BTreeMap;

impl Agent {
    /// What the path does with a packet, by what the maps hold.
    pub(super) fn explain(&self, ask: &Ask) -> Result<Explanation, Refusal> {
        let interfaces: BTreeMap<u32, String> =
            self.attached.iter().map(|(name, index)| (*index, name.clone())).collect();
        let names = Names { services: self.intent.services(), dns: self.intent.dns(), interfaces: &interfaces };
        let failed = |error: Error| Refusal::failed(&error);
        let now = flows::clock().map_err(|error| failed(error.into()))?;
        let read = |key: &_, tables: &mut _| self.maps.look(key, tables);
        explain(ask, now, &names, read).map_err(|error| failed(error.into()))
    }
}
