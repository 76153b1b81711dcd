//! From where a packet goes to the service that it is for.

use super::parse::Flow;
use crate::tables::{Service, Tables};

/// The service at the packet's destination.
#[inline(always)]
pub fn service<'t, T: Tables>(tables: &'t T, flow: &Flow) -> Option<&'t Service> {
    tables.service(&flow.to)
}
