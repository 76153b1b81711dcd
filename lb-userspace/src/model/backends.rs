//! The backends in the tables: found by their service, by who they are, and by id.

use super::intent::Mode;
use lb_common::tables::{Backend, DOWN, Endpoint, IN_USE, NAT, TUNNEL4, TUNNEL6};
use std::collections::BTreeMap;

/// Tells a backend: the service it is behind, and its own endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackendKey {
    /// The service's endpoint.
    pub service: Endpoint,
    /// The backend's own.
    pub own: Endpoint,
    /// How packets reach it. Another forward mode is another backend: no packet may see half a change.
    pub mode: Mode,
}

impl From<&Backend> for BackendKey {
    fn from(backend: &Backend) -> Self {
        let mode = match backend.flags {
            flags if flags & NAT != 0 => Mode::Nat,
            flags if flags & (TUNNEL4 | TUNNEL6) != 0 => Mode::Tunnel,
            _ => Mode::Dsr,
        };
        Self { service: backend.service, own: backend.own, mode }
    }
}

/// Whether flows can stay at a backend.
pub const fn is_live(backend: &Backend) -> bool {
    backend.flags & (IN_USE | DOWN) == IN_USE
}

/// Backends with their ids.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Backends {
    by_id: Vec<Option<Backend>>,
    /// By service first: a service's are looked up together.
    ids: BTreeMap<Endpoint, BTreeMap<(Endpoint, Mode), u32>>,
}

impl Backends {
    /// The id of a backend.
    pub fn id(&self, key: &BackendKey) -> Option<u32> {
        self.ids.get(&key.service)?.get(&(key.own, key.mode)).copied()
    }

    /// The backend with an id.
    pub fn entry(&self, id: u32) -> Option<&Backend> {
        self.by_id.get(id as usize)?.as_ref()
    }

    /// A backend with its id.
    pub fn get(&self, key: &BackendKey) -> Option<(u32, &Backend)> {
        let id = self.id(key)?;
        Some((id, self.entry(id)?))
    }

    /// All of them with their ids.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &Backend)> {
        (0..).zip(&self.by_id).filter_map(|(id, backend)| Some((id, backend.as_ref()?)))
    }

    /// Those of a service, with their ids.
    pub fn of(&self, service: &Endpoint) -> impl Iterator<Item = (u32, &Backend)> {
        let ids = self.ids.get(service).into_iter().flat_map(BTreeMap::values);
        ids.filter_map(|id| Some((*id, self.entry(*id)?)))
    }

    /// The services that have any, each with their number.
    pub fn services(&self) -> impl Iterator<Item = (&Endpoint, usize)> {
        self.ids.iter().map(|(service, ids)| (service, ids.len()))
    }

    /// How many a service has.
    pub fn count(&self, service: &Endpoint) -> usize {
        self.ids.get(service).map_or(0, BTreeMap::len)
    }

    /// Writes a backend under an id.
    pub fn put(&mut self, id: u32, backend: Backend) {
        let BackendKey { service, own, mode } = (&backend).into();
        self.ids.entry(service).or_default().insert((own, mode), id);
        let place = id as usize;
        if place >= self.by_id.len() {
            self.by_id.resize(place + 1, None);
        }
        if let Some(place) = self.by_id.get_mut(place) {
            *place = Some(backend);
        }
    }

    /// Removes the backend with an id.
    pub fn remove(&mut self, id: u32) {
        let Some(backend) = self.by_id.get_mut(id as usize).and_then(Option::take) else { return };
        let BackendKey { service, own, mode } = (&backend).into();
        if let Some(ids) = self.ids.get_mut(&service) {
            ids.remove(&(own, mode));
            if ids.is_empty() {
                self.ids.remove(&service);
            }
        }
    }
}
