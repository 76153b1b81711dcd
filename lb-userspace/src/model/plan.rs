//! The steps from what the tables hold to what they should hold.
//!
//! Every prefix of a plan is safe for traffic: what something leads to is written before it, and taken away after it. No flow of a
//! live backend is moved, as far as the slots' history tells (see [`super::tracking`]).

mod answers;
mod removal;
mod room;
mod service;

use super::{
    actual::Actual,
    desired::{Desired, Wanted},
    op::Op,
};
use answers::Answering;
use lb_common::tables::{Backend, Endpoint, Settings};
use removal::Removal;
use room::Room;
use std::{collections::BTreeSet, time::Duration};
use thiserror::Error;

/// Why there is no plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Full {
    /// All ids of backends are taken.
    #[error("no room for another backend: {limit} are the most; write more in [limits] backends")]
    Backends {
        /// How many there are.
        limit: u32,
    },
    /// All ids of services are taken.
    #[error(
        "no room for another service: {limit} are the most, DNS addresses included; write more in [limits] services"
    )]
    Services {
        /// How many there are.
        limit: u32,
    },
    /// No stretch of the slot space is long enough.
    #[error("no room for a table of {slots} slots: use fewer or smaller tables")]
    Slots {
        /// Slots of the table.
        slots: u32,
    },
}

/// The steps from `actual` to `desired` at `now`; none if there is nothing to do. What has not changed costs next to nothing.
///
/// What is new is written before what is old is taken away, if there is room for both. Else this only makes room, and another
/// plan goes on from there: services that are no longer wanted go first, then backends that are in the tables for their flows.
pub fn plan(desired: &Desired, actual: &Actual, now: Duration) -> Result<Vec<Op>, Full> {
    let draft = || Draft::new(desired, actual, now);
    draft().complete().or_else(|full| {
        let ways = [Draft::without_old_services, Draft::without_leaving_backends];
        ways.into_iter().map(|way| way(draft())).find(|ops| !ops.is_empty()).ok_or(full)
    })
}

struct Draft<'a> {
    desired: &'a Desired,
    actual: &'a Actual,
    now: Duration,
    ops: Vec<Op>,
    room: Room<'a>,
    answering: Answering,
    /// Own endpoints of NAT backends whose replies these steps have led from others to them.
    returned: BTreeSet<Endpoint>,
    /// Backends of services that go on which are wanted no longer. No slot leads to them after these steps.
    unwanted: Vec<(u32, Backend)>,
}

impl<'a> Draft<'a> {
    fn new(desired: &'a Desired, actual: &'a Actual, now: Duration) -> Self {
        let (room, answering) = (Room::of(actual), Answering::of(desired, actual));
        let (ops, returned, unwanted) = (Vec::new(), BTreeSet::new(), Vec::new());
        Self { desired, actual, now, ops, room, answering, returned, unwanted }
    }

    fn complete(mut self) -> Result<Vec<Op>, Full> {
        self.put_settings();
        self.put_dns_settings();
        self.put_interfaces();
        self.remove(Removal::of_other_kind(&self));
        self.put_services()?;
        self.put_addresses();
        self.remove_addresses();
        self.remove(Removal::of_all(&self));
        self.remove_interfaces();
        self.put_final_settings();
        // Last: what is wrong with them is nothing to the others.
        self.put_answers();
        self.grace_if_needed();
        Ok(self.ops)
    }

    /// Only removes services that are not wanted, if there are any.
    fn without_old_services(mut self) -> Vec<Op> {
        let removal = Removal::of_services(&self);
        if !removal.is_empty() {
            self.remove_addresses();
            self.remove(removal);
            self.grace_if_needed();
        }
        self.ops
    }

    /// Only removes the backends that are in the tables for their flows, if there are any.
    fn without_leaving_backends(mut self) -> Vec<Op> {
        self.give_up_leaving();
        self.remove(Removal::of_backends(&self));
        self.grace_if_needed();
        self.ops
    }

    fn push(&mut self, op: Op) {
        self.room.record(&op);
        self.ops.push(op);
    }

    fn grace_if_needed(&mut self) {
        if self.room.waits() {
            self.push(Op::Grace);
        }
    }

    /// Finds room. If there is none, what was given back by this very plan may be used after a grace period.
    fn find_room<T>(&mut self, find: impl Fn(&Room<'_>) -> Option<T>) -> Option<T> {
        if let Some(room) = find(&self.room) {
            return Some(room);
        }
        self.grace_if_needed();
        find(&self.room)
    }

    fn put_settings(&mut self) {
        let settings = self.settings_of_both();
        if self.actual.settings != Some(settings) {
            self.push(Op::PutSettings(settings.into()));
        }
    }

    fn put_dns_settings(&mut self) {
        if let Some(dns) = self.desired.dns.filter(|dns| self.actual.dns != Some(*dns)) {
            self.push(Op::PutDns(dns));
        }
    }

    /// What is not needed any more costs no packet anything.
    fn put_final_settings(&mut self) {
        if self.settings_of_both() != self.desired.settings {
            self.push(Op::PutSettings(self.desired.settings.into()));
        }
    }

    /// What is looked for is looked for as long as there may be any.
    fn settings_of_both(&self) -> Settings {
        let mut settings = self.desired.settings;
        if let Some(actual) = self.actual.settings {
            settings.features |= actual.features;
            settings.known.join(&actual.known);
        }
        settings
    }

    fn put_interfaces(&mut self) {
        for (index, mac) in &self.desired.interfaces {
            if self.actual.interfaces.get(index) != Some(mac) {
                self.push(Op::PutInterface { index: *index, mac: *mac });
            }
        }
    }

    fn remove_interfaces(&mut self) {
        for index in self.actual.interfaces.keys().filter(|index| !self.desired.interfaces.contains_key(index)) {
            self.push(Op::RemoveInterface { index: *index });
        }
    }

    fn put_services(&mut self) -> Result<(), Full> {
        for (endpoint, wanted) in &self.desired.services {
            match wanted {
                Wanted::Dns => self.put_dns(endpoint)?,
                Wanted::Balanced(balanced) => self.put_balanced(endpoint, balanced)?,
            }
        }
        Ok(())
    }

    /// An address is answered for when what is there is in the tables.
    fn put_addresses(&mut self) {
        for (address, answers) in &self.desired.addresses {
            if self.actual.addresses.get(address) != Some(answers) {
                self.push(Op::PutAddress { address: *address, answers: *answers });
            }
        }
    }

    fn remove_addresses(&mut self) {
        for address in self.actual.addresses.keys().filter(|key| !self.desired.addresses.contains_key(*key)) {
            self.push(Op::RemoveAddress { address: *address });
        }
    }
}
