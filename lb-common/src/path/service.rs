//! From an endpoint to the service that is there.

use crate::tables::{ANY_PORT, Endpoint, Service, Settings, Tables};

/// The service at this endpoint: the one on its port, else the one on all ports.
#[inline(always)]
pub fn service<'t, T: Tables>(tables: &'t T, settings: &Settings, endpoint: &Endpoint) -> Option<&'t Service> {
    if !settings.known.may_have(&endpoint.address) {
        return None;
    }
    match tables.service(endpoint) {
        None if settings.features & ANY_PORT != 0 => tables.service(&endpoint.without_port()),
        service => service,
    }
}
