//! Who is asked for the names of backends.

use super::part::{Part, Problems};
use crate::config::{Place, Problem, schema};
use std::net::{IpAddr, SocketAddr};
use toml::Spanned;

const PORT: u16 = 53;

/// Reads them; none: those of the system. Those that something is wrong with are left out.
pub(super) fn read(file: &schema::File, problems: &mut Problems<'_>) -> Vec<SocketAddr> {
    let Some(spanned) = &file.resolver else { return Vec::new() };
    let mut part = problems.part(Place::Resolver, Some(spanned.span()));
    let written = &spanned.get_ref().nameservers;
    if written.is_empty() {
        part.report_here(Problem::NoNameservers);
    }
    written.iter().filter_map(|written| nameserver(written, &mut part)).collect()
}

fn nameserver(written: &Spanned<String>, part: &mut Part<'_, '_>) -> Option<SocketAddr> {
    let value = written.get_ref();
    let with_port = value.parse::<SocketAddr>().ok();
    let found = with_port.or_else(|| value.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, PORT)));
    let found = found.filter(|found| found.port() > 0 && !found.ip().is_unspecified() && !found.ip().is_multicast());
    if found.is_none() {
        part.report(written, Problem::NotANameserver { value: value.clone() });
    }
    found
}
