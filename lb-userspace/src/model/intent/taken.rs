//! What is taken by DNS and by the services so far: by which one, and at which line.

use super::part::Part;
use crate::config::Problem;
use lb_common::tables::Endpoint;
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
};
use toml::Spanned;

/// A service's name, and the line where it, or what is meant of it, stands.
type By = (String, usize);

/// What is taken.
pub(super) struct Taken<'a> {
    dns: &'a [SocketAddr],
    names: BTreeMap<String, usize>,
    endpoints: BTreeMap<Endpoint, By>,
    /// NAT backends.
    returns: BTreeMap<Endpoint, By>,
    /// Addresses and protocols of NAT backends.
    return_addresses: BTreeMap<Endpoint, By>,
    echoes: BTreeMap<IpAddr, (bool, By)>,
}

impl<'a> Taken<'a> {
    /// Nothing yet but by DNS.
    pub(super) fn by(dns: &'a [SocketAddr]) -> Self {
        Self {
            dns,
            names: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            returns: BTreeMap::new(),
            return_addresses: BTreeMap::new(),
            echoes: BTreeMap::new(),
        }
    }

    /// A service's name.
    pub(super) fn name(&mut self, written: &Spanned<String>, part: &mut Part<'_, '_>) {
        let name = written.get_ref();
        // Names are typed in commands, and stand in logs and metrics.
        let odd = |character: char| !character.is_ascii_alphanumeric() && !"-_.".contains(character);
        if name.is_empty() || name.contains(odd) {
            part.report(written, Problem::ServiceName { name: name.clone() });
        } else if let Some(line) = self.names.get(name) {
            part.report(written, Problem::DuplicateServiceName { line: *line });
        } else {
            self.names.insert(name.clone(), part.line(written));
        }
    }

    /// Where the service at this line is.
    pub(super) fn endpoint(&mut self, endpoint: Endpoint, name: &str, line: usize, part: &mut Part<'_, '_>) {
        let (address, port) = (endpoint.ip(), endpoint.port());
        // Whatever the protocol: what does not fit in UDP is asked again over TCP.
        if port == 0 && self.dns.iter().any(|dns| dns.ip() == address) {
            part.report_here(Problem::AnyPortAtDns { address });
        }
        if self.dns.contains(&SocketAddr::new(address, port)) {
            part.report_here(Problem::ServiceAtDns { address, port });
        }
        if let Some((other, line)) = self.endpoints.get(&endpoint) {
            part.report_here(Problem::DuplicateService { other: other.clone(), line: *line });
        } else {
            self.endpoints.insert(endpoint, (name.into(), line));
        }
    }

    /// Whether echo requests to an address are answered.
    pub(super) fn echo(&mut self, address: IpAddr, echo: bool, name: &str, line: usize, part: &mut Part<'_, '_>) {
        match self.echoes.get(&address) {
            Some((known, _)) if *known == echo => (),
            Some((known, (other, line))) => {
                part.report_here(Problem::OtherEcho { other: other.clone(), line: *line, echo: *known });
            }
            None => {
                self.echoes.insert(address, (echo, (name.into(), line)));
            }
        }
    }

    /// A NAT backend of the service with this name.
    pub(super) fn nat_backend<T>(&mut self, own: Endpoint, name: &str, written: &Spanned<T>, part: &mut Part<'_, '_>) {
        let (address, port, any) = (own.ip(), own.port(), own.without_port());
        let by = || (name.into(), part.line(written));
        let (own_by, any_by) = (by(), by());
        if let Some((other, line)) = self.returns.insert(own, own_by) {
            part.report(written, Problem::SharedNatBackend { address, port, other, line });
        } else if port != 0
            && let Some((other, line)) = self.returns.get(&any).cloned()
        {
            part.report(written, Problem::SharedNatAddress { address, other, line });
        } else if port == 0
            && let Some((other, line)) = self.return_addresses.get(&any).cloned()
        {
            part.report(written, Problem::SharedNatAddress { address, other, line });
        }
        self.return_addresses.entry(any).or_insert(any_by);
    }
}
