//! What is free, while steps are made that take some and give some back. Copied only if they do.

use crate::model::{
    actual::Actual,
    answers::placed,
    op::Op,
    space::{Ids, Regions},
};
use lb_common::tables::Region;
use std::{borrow::Cow, ops::Deref};

/// Something that is copied when it is first changed.
pub(super) struct Copied<'a, T: Clone>(Cow<'a, T>);

impl<T: Clone> Deref for Copied<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

/// What is free.
pub(super) struct Room<'a> {
    pub backend_ids: Copied<'a, Ids>,
    pub service_ids: Copied<'a, Ids>,
    pub regions: Copied<'a, Regions>,
    pub answers: Copied<'a, placed::Room>,
}

impl<'a> Room<'a> {
    /// In these tables.
    pub(super) fn of(actual: &'a Actual) -> Self {
        Self {
            backend_ids: Copied(Cow::Borrowed(&actual.backend_ids)),
            service_ids: Copied(Cow::Borrowed(&actual.service_ids)),
            regions: Copied(Cow::Borrowed(&actual.regions)),
            answers: Copied(Cow::Borrowed(&actual.answers.room)),
        }
    }

    /// Takes and frees what a step says by itself.
    pub(super) fn record(&mut self, op: &Op) {
        match op {
            // One that is in use stays as it is.
            Op::PutBackend { id, .. } if self.backend_ids.lowest_free() == Some(*id) => {
                self.backend_ids.0.to_mut().take(*id);
            }
            Op::RemoveBackend { id } => self.backend_ids.0.to_mut().retire(*id),
            Op::WriteTable { region, .. } => self.regions.0.to_mut().take(*region),
            Op::PutService { id, .. } => self.service_ids.0.to_mut().take(*id),
            Op::Forget { services, .. } => {
                services.iter().for_each(|id| self.service_ids.0.to_mut().release(*id));
            }
            Op::Grace => {
                if self.backend_ids.waits() {
                    self.backend_ids.0.to_mut().grace();
                }
                if self.regions.waits() {
                    self.regions.0.to_mut().grace();
                }
                if self.answers.waits() {
                    self.answers.0.to_mut().grace();
                }
            }
            _ => (),
        }
    }

    /// Gives a table's place back.
    pub(super) fn retire_region(&mut self, region: Region) {
        self.regions.0.to_mut().retire(region);
    }

    /// The answer space, to be changed.
    pub(super) fn answers_mut(&mut self) -> &mut placed::Room {
        self.answers.0.to_mut()
    }

    /// Whether something waits for a grace period.
    pub(super) fn waits(&self) -> bool {
        self.backend_ids.waits() || self.regions.waits() || self.answers.waits()
    }
}
