//! What is taken by DNS and by the services so far: by which one, and at which line.

use super::part::Part;
use crate::config::Problem;
use lb_common::tables::Endpoint;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::{IpAddr, SocketAddr},
};
use toml::Spanned;

/// Where a backend is: address, protocol and port. Ordered as an operator would, unlike the words of an [`Endpoint`].
type Place = (IpAddr, u8, u16);

/// A service, by its number, and the line where it, or what is meant of it, stands.
type By = (usize, usize);

/// What is taken. Of backends there may be a million: neighbours are looked up together, which trees are better at than hashes.
pub(super) struct Taken<'a> {
    dns: &'a [SocketAddr],
    dns_addresses: HashSet<IpAddr>,
    /// Names of the services, by their numbers.
    services: Vec<String>,
    names: HashMap<String, usize>,
    endpoints: HashMap<Endpoint, By>,
    /// NAT backends.
    returns: BTreeMap<Place, By>,
    /// Addresses and protocols of NAT backends.
    return_addresses: BTreeMap<Place, By>,
    echoes: HashMap<IpAddr, (bool, By)>,
}

impl<'a> Taken<'a> {
    /// Nothing yet but by DNS.
    pub(super) fn by(dns: &'a [SocketAddr]) -> Self {
        Self {
            dns,
            dns_addresses: dns.iter().map(SocketAddr::ip).collect(),
            services: Vec::new(),
            names: HashMap::new(),
            endpoints: HashMap::new(),
            returns: BTreeMap::new(),
            return_addresses: BTreeMap::new(),
            echoes: HashMap::new(),
        }
    }

    /// The next service, by whom things are taken from now on.
    pub(super) fn by_service(&mut self, name: &str) {
        self.services.push(name.into());
    }

    fn taker(&self) -> usize {
        self.services.len().saturating_sub(1)
    }

    fn name_of(&self, service: usize) -> String {
        self.services.get(service).cloned().unwrap_or_default()
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

    /// Where the service is.
    pub(super) fn endpoint(&mut self, endpoint: Endpoint, line: usize, part: &mut Part<'_, '_>) {
        let (address, port) = (endpoint.ip(), endpoint.port());
        // Whatever the protocol: what does not fit in UDP is asked again over TCP.
        if port == 0 && self.dns_addresses.contains(&address) {
            part.report_here(Problem::AnyPortAtDns { address });
        }
        if self.dns.contains(&SocketAddr::new(address, port)) {
            part.report_here(Problem::ServiceAtDns { address, port });
        }
        if let Some((other, line)) = self.endpoints.get(&endpoint) {
            part.report_here(Problem::DuplicateService { other: self.name_of(*other), line: *line });
        } else {
            self.endpoints.insert(endpoint, (self.taker(), line));
        }
    }

    /// Whether echo requests to an address are answered.
    pub(super) fn echo(&mut self, address: IpAddr, echo: bool, line: usize, part: &mut Part<'_, '_>) {
        match self.echoes.get(&address) {
            Some((known, _)) if *known == echo => (),
            Some((known, (other, line))) => {
                part.report_here(Problem::OtherEcho { other: self.name_of(*other), line: *line, echo: *known });
            }
            None => _ = self.echoes.insert(address, (echo, (self.taker(), line))),
        }
    }

    /// A NAT backend of the service.
    pub(super) fn nat_backend<T>(&mut self, own: Endpoint, written: &Spanned<T>, part: &mut Part<'_, '_>) {
        let (address, port) = (own.ip(), own.port());
        let (place, any) = ((address, own.protocol(), port), (address, own.protocol(), 0));
        let by = (self.taker(), part.line(written));
        if let Some((other, line)) = self.returns.insert(place, by) {
            let other = self.name_of(other);
            part.report(written, Problem::SharedNatBackend { address, port, other, line });
        } else {
            // One on any port has all ports of the address.
            let others = if port == 0 { &self.return_addresses } else { &self.returns };
            if let Some((other, line)) = others.get(&any).copied() {
                part.report(written, Problem::SharedNatAddress { address, other: self.name_of(other), line });
            }
        }
        self.return_addresses.entry(any).or_insert(by);
    }
}
