//! The steps from what the tables hold to what they should hold.
//!
//! Every prefix of a plan is safe for traffic: what something leads to is written before it, and taken away after it.

use super::{
    actual::Actual,
    desired::{Desired, Member, Wanted},
    maglev,
    op::Op,
};
use lb_common::tables::{Endpoint, Region, Service};
use std::{collections::BTreeSet, sync::Arc};
use thiserror::Error;

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Full {
    /// All ids of backends are taken.
    #[error("no room for another backend: {} are the most", lb_common::tables::MAX_BACKENDS)]
    Backends,
    /// All ids of services are taken.
    #[error("no room for another service: {} are the most, DNS addresses included", lb_common::tables::MAX_SERVICES)]
    Services,
    /// No stretch of the slot space is long enough.
    #[error("no room for a table of {slots} slots: use fewer or smaller tables")]
    Slots {
        /// Slots of the table.
        slots: u32,
    },
    /// All places for answers are taken.
    #[error("no room for another DNS answer in the kernel: {} are the most", lb_common::tables::MAX_ANSWERS)]
    Answers,
}

/// The steps from `actual` to `desired`; none if they are equal.
///
/// What is new is written before what is old is taken away, if there is room for both; else services that are no longer
/// wanted go first.
pub fn plan(desired: &Desired, actual: &Actual) -> Result<Vec<Op>, Full> {
    let draft = || Draft { actual: actual.clone(), ops: Vec::new() };
    draft().complete(desired).or_else(|_| {
        let mut draft = draft();
        draft.make_room(desired);
        draft.complete(desired)
    })
}

/// The place of no table.
const NO_TABLE: Region = Region { first: 0, slots: 0 };

struct Draft {
    actual: Actual,
    ops: Vec<Op>,
}

impl Draft {
    fn push(&mut self, op: Op) {
        self.actual.record(&op);
        self.ops.push(op);
    }

    fn complete(mut self, desired: &Desired) -> Result<Vec<Op>, Full> {
        self.put_settings(desired);
        self.put_interfaces(desired);
        self.put_backends(desired)?;
        self.put_services(desired)?;
        self.put_answers(desired)?;
        self.remove_what_leads(desired);
        if self.actual.waits() || !self.leftovers(desired).is_empty() {
            self.push(Op::Grace);
        }
        self.remove_what_is_led_to(desired);
        Ok(self.ops)
    }

    /// Removes what leads to nothing that is wanted, and the backends of services that are gone with it.
    fn make_room(&mut self, desired: &Desired) {
        self.remove_what_leads(desired);
        self.push(Op::Grace);
        let gone = self.actual.backends.iter().filter(|(key, _)| !desired.services.contains_key(&key.service));
        let gone: Vec<u32> = gone.map(|(_, (id, _))| *id).collect();
        for id in gone {
            self.push(Op::RemoveBackend { id });
        }
        self.push(Op::Grace);
    }

    /// Finds room. If there is none, what was given back by this very plan may be used after a grace period.
    fn room<T>(&mut self, find: impl Fn(&Actual) -> Option<T>) -> Option<T> {
        if let Some(room) = find(&self.actual) {
            return Some(room);
        }
        if self.actual.waits() {
            self.push(Op::Grace);
        }
        find(&self.actual)
    }

    fn put_settings(&mut self, desired: &Desired) {
        let mut settings = desired.settings;
        // Replies are looked for as long as there may be any.
        settings.returns |= self.actual.settings.map_or(0, |actual| actual.returns);
        if self.actual.settings != Some(settings) {
            self.push(Op::PutSettings(settings));
        }
    }

    fn put_interfaces(&mut self, desired: &Desired) {
        for (index, mac) in &desired.interfaces {
            if self.actual.interfaces.get(index) != Some(mac) {
                self.push(Op::PutInterface { index: *index, mac: *mac });
            }
        }
    }

    fn put_backends(&mut self, desired: &Desired) -> Result<(), Full> {
        for (key, backend) in &desired.backends {
            let id = match self.actual.backends.get(key) {
                Some((_, known)) if known == backend => continue,
                Some((id, _)) => *id,
                None => self.room(|actual| actual.backend_ids.lowest_free()).ok_or(Full::Backends)?,
            };
            self.push(Op::PutBackend { id, backend: *backend });
        }
        for key in desired.backends.keys() {
            let Some((id, _)) = self.actual.backends.get(key).copied() else { continue };
            if key.nat && self.actual.returns.get(&key.own) != Some(&id) {
                self.push(Op::PutReturn { own: key.own, id });
            }
        }
        Ok(())
    }

    fn put_services(&mut self, desired: &Desired) -> Result<(), Full> {
        for (endpoint, wanted) in &desired.services {
            if let Some(known) = self.actual.services.get(endpoint).filter(|known| known.dns != wanted.is_dns()) {
                // What was a DNS address becomes a service or the other way round.
                let id = known.id;
                self.push(Op::RemoveService { id, endpoint: *endpoint });
                self.push(Op::Grace);
            }
            let known = self.actual.services.get(endpoint).cloned();
            let (region, members) = match wanted {
                Wanted::Dns if known.is_some() => continue,
                Wanted::Dns => (NO_TABLE, [].into()),
                Wanted::Balanced { slots, members }
                    if known.as_ref().is_some_and(|known| known.has(*slots, members)) =>
                {
                    self.claim(desired, endpoint);
                    continue;
                }
                Wanted::Balanced { slots, members } => (self.write_table(*slots, members)?, Arc::clone(members)),
            };
            match known {
                Some(known) => self.push(Op::SwapTable { id: known.id, endpoint: *endpoint, region, members }),
                None => {
                    let id = self.room(|actual| actual.service_ids.lowest_free()).ok_or(Full::Services)?;
                    let service = Service { region: region.word(), dns: wanted.is_dns().into() };
                    self.push(Op::PutService { id, endpoint: *endpoint, service, members });
                }
            }
            self.claim(desired, endpoint);
        }
        Ok(())
    }

    fn claim(&mut self, desired: &Desired, endpoint: &Endpoint) {
        let address = endpoint.address;
        if desired.claims.contains(&address) && !self.actual.claims.contains(&address) {
            self.push(Op::Claim { address });
        }
    }

    fn write_table(&mut self, slots: u32, members: &[Member]) -> Result<Region, Full> {
        let members: Vec<_> = members.iter().filter_map(|member| self.maglev_member(member)).collect();
        let table = maglev::table(slots, &members);
        if table.is_empty() {
            return Ok(NO_TABLE);
        }
        let region = self.room(|actual| actual.regions.first_free(slots)).ok_or(Full::Slots { slots })?;
        self.push(Op::WriteTable { region, slots: table.into() });
        Ok(region)
    }

    fn maglev_member(&self, member: &Member) -> Option<maglev::Member> {
        let (id, _) = self.actual.backends.get(&member.key)?;
        let Endpoint { address: [first, second], tail } = member.key.own;
        Some(maglev::Member { id: *id, key: [first, second, tail], weight: member.weight })
    }

    fn put_answers(&mut self, desired: &Desired) -> Result<(), Full> {
        for (key, answer) in &desired.answers {
            if self.actual.answers.get(key).is_none_or(|(_, known)| known != answer) {
                let place = self.room(|actual| actual.places.lowest_free()).ok_or(Full::Answers)?;
                self.push(Op::PutAnswer { key: *key, place, answer: Arc::clone(answer) });
            }
        }
        Ok(())
    }

    /// First goes what leads somewhere.
    fn remove_what_leads(&mut self, desired: &Desired) {
        let answers: Vec<_> =
            self.actual.answers.keys().filter(|key| !desired.answers.contains_key(key)).copied().collect();
        for key in answers {
            self.push(Op::RemoveAnswer { key });
        }
        let claims: Vec<_> = self.actual.claims.difference(&desired.claims).copied().collect();
        for address in claims {
            self.push(Op::Unclaim { address });
        }
        let services = self.actual.services.iter().filter(|(endpoint, _)| !desired.services.contains_key(endpoint));
        let services: Vec<_> = services.map(|(endpoint, service)| (*endpoint, service.id)).collect();
        for (endpoint, id) in services {
            self.push(Op::RemoveService { id, endpoint });
        }
        let wanted: BTreeSet<Endpoint> = desired.backends.keys().filter(|key| key.nat).map(|key| key.own).collect();
        let returns: Vec<_> = self.actual.returns.keys().filter(|own| !wanted.contains(own)).copied().collect();
        for own in returns {
            self.push(Op::RemoveReturn { own });
        }
    }

    fn leftovers(&self, desired: &Desired) -> Vec<u32> {
        let unwanted = self.actual.backends.iter().filter(|(key, _)| !desired.backends.contains_key(key));
        unwanted.map(|(_, (id, _))| *id).collect()
    }

    /// Then, after a grace period, what was led to.
    fn remove_what_is_led_to(&mut self, desired: &Desired) {
        let leftovers = self.leftovers(desired);
        for id in &leftovers {
            self.push(Op::RemoveBackend { id: *id });
        }
        let interfaces: Vec<_> =
            self.actual.interfaces.keys().filter(|index| !desired.interfaces.contains_key(index)).copied().collect();
        for index in interfaces {
            self.push(Op::RemoveInterface { index });
        }
        if self.actual.settings != Some(desired.settings) {
            self.push(Op::PutSettings(desired.settings));
        }
        if self.actual.waits() {
            self.push(Op::Grace);
        }
    }
}
