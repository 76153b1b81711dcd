//! Services and their backends.

use super::{
    Backend, Mode, Service,
    checks::{Checks, Probe},
    part::{Part, Problems},
    slots,
};
use crate::config::{
    Place, Problem,
    schema::{self, Table},
};
use lb_common::{
    tables::Endpoint,
    wire::transport::{TCP, UDP},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};
use toml::Spanned;

/// Greater differences than these would fit no slot table.
const WEIGHTS: RangeInclusive<u32> = 0..=65_535;
const DEFAULT_WEIGHT: u32 = 1;

/// Reads the services. Those that something is wrong with may be left out.
pub(super) fn read(
    file: &schema::File,
    checks: &Checks,
    dns: &[SocketAddr],
    problems: &mut Problems<'_>,
) -> Vec<Service> {
    let mut taken = Taken { dns, names: BTreeMap::new(), endpoints: BTreeMap::new(), nat_backends: BTreeMap::new() };
    let services = file.service.iter().filter_map(|written| {
        let name = written.get_ref().name.as_ref();
        let place = name.map_or(Place::Top, |name| Place::Service(name.get_ref().clone()));
        service(written, checks, &mut taken, &mut problems.part(place, Some(written.span())))
    });
    services.collect()
}

/// What is taken by DNS and by the services so far: by which one, and at which line.
struct Taken<'a> {
    dns: &'a [SocketAddr],
    names: BTreeMap<String, usize>,
    endpoints: BTreeMap<Endpoint, (String, usize)>,
    nat_backends: BTreeMap<Endpoint, (String, usize)>,
}

/// What a service's backends go by, as far as it is right.
struct Front {
    name: String,
    address: Option<IpAddr>,
    port: Option<u16>,
    protocol: Option<u8>,
    mode: Option<Mode>,
    probe: Option<Probe>,
}

impl Front {
    fn endpoint(&self) -> Option<Endpoint> {
        Some(Endpoint::new(self.address?, self.protocol?, self.port?))
    }
}

fn service(
    spanned: &Spanned<Table<schema::Service>>,
    checks: &Checks,
    taken: &mut Taken<'_>,
    part: &mut Part<'_, '_>,
) -> Option<Service> {
    let written = spanned.get_ref();
    let front = front(written, checks, taken, part);
    let endpoint = front.endpoint();
    if let Some(endpoint) = endpoint {
        take_endpoint(endpoint, &front, part.line(spanned), taken, part);
    }
    let claim = part.choice_or_first("claim", &written.claim, &[("link", true), ("routed", false)]);
    let mut own = BTreeMap::new();
    let backends = written.backend.iter().map(|written| backend(written, &front, &mut own, taken, part));
    // Each of them reports what is wrong with it, whether or not one before is right.
    let backends: Vec<_> = backends.collect();
    let backends: Option<Vec<_>> = backends.into_iter().collect();
    let slots = slots(written, backends.as_deref(), part);
    Some(Service {
        name: front.name,
        endpoint: endpoint?,
        mode: front.mode?,
        slots: slots?,
        claim: claim?,
        backends: backends?,
    })
}

fn front(written: &schema::Service, checks: &Checks, taken: &mut Taken<'_>, part: &mut Part<'_, '_>) -> Front {
    let name = part.required("name", &written.name, "name = \"...\"");
    if let Some(name) = name {
        take_name(name, taken, part);
    }
    let address = part.required("address", &written.address, "address = \"...\", where clients connect to");
    let port = part.required("port", &written.port, "port = ..., where clients connect to");
    let protocol = part.choice_or_first("protocol", &written.protocol, &[("tcp", TCP), ("udp", UDP)]);
    let mode = part.required("mode", &written.mode, "mode = \"dsr\" or mode = \"nat\"");
    Front {
        name: name.map(|name| name.get_ref().clone()).unwrap_or_default(),
        address: address.and_then(|address| part.address_on_network("address", address)),
        port: port.and_then(|port| part.port("port", port)),
        protocol,
        mode: mode.and_then(|mode| part.choice("mode", mode, &[("dsr", Mode::Dsr), ("nat", Mode::Nat)])),
        probe: match &written.check {
            Some(check) if protocol == Some(UDP) => checks.named_with_port(check, "a udp service", part),
            Some(check) => checks.named(check, part),
            None if protocol == Some(UDP) => {
                part.report_here(Problem::UdpWithoutCheck);
                None
            }
            None => Some(Probe::of_services()),
        },
    }
}

fn take_name(written: &Spanned<String>, taken: &mut Taken<'_>, part: &mut Part<'_, '_>) {
    let name = written.get_ref();
    // Names are typed in commands, and stand in logs and metrics.
    let odd = |character: char| !character.is_ascii_alphanumeric() && !"-_.".contains(character);
    if name.is_empty() || name.contains(odd) {
        part.report(written, Problem::ServiceName { name: name.clone() });
    } else if let Some(line) = taken.names.get(name) {
        part.report(written, Problem::DuplicateServiceName { line: *line });
    } else {
        taken.names.insert(name.clone(), part.line(written));
    }
}

fn take_endpoint(endpoint: Endpoint, front: &Front, line: usize, taken: &mut Taken<'_>, part: &mut Part<'_, '_>) {
    let (address, port) = (endpoint.ip(), endpoint.port());
    // Whatever the protocol: what does not fit in UDP is asked again over TCP.
    if taken.dns.contains(&SocketAddr::new(address, port)) {
        part.report_here(Problem::ServiceAtDns { address, port });
    }
    if let Some((other, line)) = taken.endpoints.get(&endpoint) {
        part.report_here(Problem::DuplicateService { other: other.clone(), line: *line });
    } else {
        taken.endpoints.insert(endpoint, (front.name.clone(), line));
    }
}

fn backend(
    spanned: &Spanned<Table<schema::Backend>>,
    front: &Front,
    own: &mut BTreeMap<(IpAddr, u16), usize>,
    taken: &mut Taken<'_>,
    part: &mut Part<'_, '_>,
) -> Option<Backend> {
    let written = spanned.get_ref();
    let weight = part.number_or("weight", &written.weight, WEIGHTS, DEFAULT_WEIGHT);
    let port = match &written.port {
        Some(port) => backend_port(port, front, part),
        None => front.port,
    };
    let Some(address_at) = &written.address else {
        part.report(spanned, Problem::Missing { key: "address", cure: "the backend's address = \"...\"" });
        return None;
    };
    let address = part.address_on_network("backend address", address_at)?;
    if let Some(service) = front.address.filter(|service| service.is_ipv4() != address.is_ipv4()) {
        part.report(address_at, Problem::OtherFamily { backend: address, service });
    }
    let port = port?;
    let line = part.line(spanned);
    if let Some(line) = own.insert((address, port), line) {
        part.report(spanned, Problem::DuplicateBackend { address, port, line });
        return None;
    }
    let endpoint = Endpoint::new(address, front.protocol?, port);
    if front.mode == Some(Mode::Nat) {
        if let Some((other, line)) = taken.nat_backends.get(&endpoint).cloned() {
            part.report(spanned, Problem::SharedNatBackend { address, port, other, line });
        }
        taken.nat_backends.insert(endpoint, (front.name.clone(), line));
    }
    Some(Backend { endpoint, weight: weight?, target: front.probe?.target(address, port) })
}

fn backend_port(written: &Spanned<i64>, front: &Front, part: &mut Part<'_, '_>) -> Option<u16> {
    let backend = part.port("backend port", written)?;
    if let (Some(Mode::Dsr), Some(service)) = (front.mode, front.port)
        && backend != service
    {
        part.report(written, Problem::DsrPort { backend, service });
    }
    Some(backend)
}

/// The size of the slot table; `backends` are there if nothing is wrong with them.
fn slots(written: &schema::Service, backends: Option<&[Backend]>, part: &mut Part<'_, '_>) -> Option<u32> {
    if written.backend.is_empty() {
        part.report_here(Problem::NoBackends);
        return None;
    }
    let slots = match &written.slots {
        Some(slots) => written_slots(slots, part)?,
        None => slots::default_size(written.backend.len()),
    };
    let weights = || backends.into_iter().flatten().map(|backend| backend.weight).filter(|weight| *weight > 0);
    let total = weights().map(u64::from).sum();
    let Some(weight) = weights().min() else {
        if backends.is_some() {
            part.report_here(Problem::NoWeight);
        }
        return None;
    };
    let least = slots::least_slots(weight, total);
    if u64::from(slots) < least {
        let problem = Problem::TooFewSlots { slots, weight, total, enough: slots::size_from(least) };
        match &written.slots {
            Some(slots) => part.report(slots, problem),
            None => part.report_here(problem),
        }
    }
    Some(slots)
}

fn written_slots(written: &Spanned<i64>, part: &mut Part<'_, '_>) -> Option<u32> {
    let slots = part.number("slots", written, slots::SIZES)?;
    if !slots::is_prime(slots) {
        let prime = slots::size_from(slots.into()).unwrap_or(*slots::SIZES.end());
        part.report(written, Problem::SlotsNotPrime { slots, prime });
        return None;
    }
    Some(slots)
}
