//! Taking services and backends away, so that nothing that may still lead to them leads to something else.

use super::Draft;
use crate::model::{desired::Wanted, op::Op};
use lb_common::tables::{Backend, Endpoint, NAT};

/// What is taken away.
#[derive(Default)]
pub(super) struct Removal {
    /// Services, with their ids.
    services: Vec<(Endpoint, u32)>,
    /// Ids of services that an earlier plan has removed, but whose flows it has not forgotten.
    departed: Vec<u32>,
    /// Backends that no slot leads to any more.
    backends: Vec<(u32, Backend)>,
}

impl Removal {
    /// DNS addresses that become services, and services that become DNS addresses.
    pub(super) fn of_other_kind(draft: &Draft<'_>) -> Self {
        let is_other = |wanted: Option<&Wanted>, dns| wanted.is_some_and(|wanted| wanted.is_dns() != dns);
        Self::of(draft, is_other)
    }

    /// Services that are not wanted, and what was left of others.
    pub(super) fn of_services(draft: &Draft<'_>) -> Self {
        Self::of(draft, |wanted, _| wanted.is_none()).with_departed(draft).with_lost(draft)
    }

    /// Backends of services that go on.
    pub(super) fn of_backends(draft: &Draft<'_>) -> Self {
        Self { backends: draft.unwanted.clone(), ..Self::default() }
    }

    /// All that is not wanted.
    pub(super) fn of_all(draft: &Draft<'_>) -> Self {
        let mut all = Self::of_services(draft);
        all.backends.extend_from_slice(&draft.unwanted);
        all
    }

    /// Services by what is wanted in their place and whether they are DNS addresses, each with its backends.
    fn of(draft: &Draft<'_>, chosen: impl Fn(Option<&Wanted>, bool) -> bool) -> Self {
        let mut removal = Self::default();
        for (endpoint, service) in &draft.actual.services {
            if chosen(draft.desired.services.get(endpoint), service.is_dns()) {
                removal.services.push((*endpoint, service.id));
                let backends = draft.actual.backends.of(endpoint).map(|(id, backend)| (id, *backend));
                removal.backends.extend(backends);
            }
        }
        removal
    }

    fn with_departed(self, draft: &Draft<'_>) -> Self {
        Self { departed: draft.actual.departed.iter().copied().collect(), ..self }
    }

    /// Backends whose service is gone already, as a plan that stopped midway has left them.
    fn with_lost(mut self, draft: &Draft<'_>) -> Self {
        let (services, desired) = (&draft.actual.services, &draft.desired.services);
        for (endpoint, _) in draft.actual.backends.services() {
            let is_wanted = matches!(desired.get(endpoint), Some(Wanted::Balanced(_)));
            let is_there = services.get(endpoint).is_some_and(|service| !service.is_dns());
            if !is_there && !is_wanted {
                self.backends.extend(draft.actual.backends.of(endpoint).map(|(id, backend)| (id, *backend)));
            }
        }
        self
    }

    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty() && self.departed.is_empty() && self.backends.is_empty()
    }
}

impl Draft<'_> {
    /// Takes away what leads somewhere, then, after a grace period, what is known of it, and then it itself.
    pub(super) fn remove(&mut self, removal: Removal) {
        if removal.is_empty() {
            return;
        }
        let Removal { services, mut departed, backends } = removal;
        for (endpoint, id) in services {
            self.push(Op::RemoveService { id, endpoint });
            departed.push(id);
            if let Some(table) = self.actual.services.get(&endpoint).and_then(|service| service.table.as_ref()) {
                self.room.retire_region(table.region());
            }
        }
        for (id, Backend { own, flags, .. }) in &backends {
            let is_its = self.actual.returns.get(own) == Some(id) && !self.returned.contains(own);
            if flags & NAT != 0 && is_its {
                self.push(Op::RemoveReturn { own: *own });
            }
        }
        self.push(Op::Grace);
        let ids = backends.iter().map(|(id, _)| *id).collect();
        self.push(Op::Forget { services: departed.into(), backends: ids });
        for (id, _) in backends {
            self.push(Op::RemoveBackend { id });
        }
    }
}
