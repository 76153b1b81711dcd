//! Services.

use super::{
    Backend, Mode, Service,
    backends::{Reader, WEIGHTS, is_by_name},
    checks::{Checks, Probe},
    part::{Part, Problems},
    slots,
    taken::Taken,
    tunnel,
};
use crate::{
    config::{
        Place, Problem,
        schema::{self, Port, Table},
    },
    model::discovery::Answers,
};
use lb_common::{
    tables::Endpoint,
    wire::transport::{TCP, UDP},
};
use std::{
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
};
use toml::Spanned;

const MINIMA: RangeInclusive<u32> = 1..=1_000_000;
/// The port of an [`Endpoint`] on any.
pub(super) const ANY: u16 = 0;
/// A name may stand for so many backends, as far as a table's size goes by default: it keeps that whatever DNS says later.
const BACKENDS_OF_NAME: usize = 16;
const MODES: [(&str, Mode); 3] = [("dsr", Mode::Dsr), ("nat", Mode::Nat), ("tunnel", Mode::Tunnel)];

/// Reads the services. Those that something is wrong with may be left out.
pub(super) fn read(
    file: &schema::File,
    checks: &Checks,
    dns: &[SocketAddr],
    answers: &Answers,
    problems: &mut Problems<'_>,
) -> Vec<Service> {
    let mut taken = Taken::by(dns);
    let services = file.service.iter().filter_map(|written| {
        let name = written.get_ref().name.as_ref();
        let place = name.map_or(Place::Top, |name| Place::Service(name.get_ref().clone()));
        service(file, written, checks, answers, &mut taken, &mut problems.part(place, Some(written.span())))
    });
    services.collect()
}

/// What a service's backends go by, as far as it is right.
pub(super) struct Front {
    name: String,
    pub(super) address: Option<IpAddr>,
    pub(super) port: Option<u16>,
    pub(super) protocol: Option<u8>,
    pub(super) mode: Option<Mode>,
    pub(super) probe: Option<Probe>,
    /// What asks the agent on a backend besides, if something does.
    pub(super) agent: Option<Option<Probe>>,
}

impl Front {
    pub(super) fn endpoint(&self) -> Option<Endpoint> {
        Some(Endpoint::new(self.address?, self.protocol?, self.port?))
    }
}

fn service(
    file: &schema::File,
    spanned: &Spanned<Table<schema::Service>>,
    checks: &Checks,
    answers: &Answers,
    taken: &mut Taken<'_>,
    part: &mut Part<'_, '_>,
) -> Option<Service> {
    let written = spanned.get_ref();
    let front = front(written, checks, taken, part);
    not_to_service(written, &front, part);
    taken.by_service(&front.name);
    let endpoint = front.endpoint();
    let line = part.line(spanned);
    if let Some(endpoint) = endpoint {
        taken.endpoint(endpoint, line, part);
    }
    let claim = part.choice_or_first("claim", &written.claim, &[("link", true), ("routed", false)]);
    let moves = part.choice_or_first("udp", &written.udp, &[("follow", false), ("move", true)]);
    if let (Some(udp), Some(TCP)) = (&written.udp, front.protocol) {
        part.report(udp, Problem::UdpOfTcp);
    }
    let echo = written.echo.as_ref().is_none_or(|echo| *echo.get_ref());
    if let Some(address) = front.address {
        taken.echo(address, echo, line, part);
    }
    let mut reader = Reader::new(file, &front, answers, taken);
    // Each of them reports what is wrong with it, whether or not one before is right.
    let (backends, is_right) = reader.read(&written.backend, part);
    let questions = reader.into_questions();
    if let (Some(Mode::Tunnel), Some(mode)) = (front.mode, &written.mode) {
        let addresses = backends.iter().filter_map(|(number, backend)| {
            let written = written.backend.get(*number)?.get_ref();
            let place = written.address.as_ref().or(written.host.as_ref()).or(written.srv.as_ref());
            Some((backend.endpoint.ip(), place?))
        });
        tunnel::check(file, mode, addresses, part);
    }
    let backends = is_right.then(|| backends.into_iter().map(|(_, backend)| backend).collect::<Vec<_>>());
    let size = size(written, backends.as_deref(), part);
    let minimum_healthy = minimum(written, backends.as_deref(), part);
    let below = [("healthy", false), ("fail-open", true)];
    let fail_open = part.choice_or_first("below_minimum", &written.below_minimum, &below);
    let (slots, least_slots) = size?;
    Some(Service {
        name: front.name,
        endpoint: endpoint?,
        mode: front.mode?,
        slots,
        least_slots,
        moves: moves?,
        claim: claim?,
        echo,
        minimum_healthy: minimum_healthy?,
        fail_open: fail_open?,
        backends: backends?,
        unresolved: !questions.iter().all(|question| answers.has(question)),
        questions,
        file: written.file.clone(),
    })
}

fn front(written: &schema::Service, checks: &Checks, taken: &mut Taken<'_>, part: &mut Part<'_, '_>) -> Front {
    let name = part.required("name", &written.name, "name = \"...\"");
    if let Some(name) = name {
        taken.name(name, part);
    }
    let address = part.required("address", &written.address, "address = \"...\", where clients connect to");
    let port = part.required("port", &written.port, "port = ..., where clients connect to, or port = \"any\"");
    let port = port.and_then(|port| port_of_service(port, part));
    let protocol = part.choice_or_first("protocol", &written.protocol, &[("tcp", TCP), ("udp", UDP)]);
    let mode = part.required("mode", &written.mode, "mode = \"dsr\", mode = \"nat\" or mode = \"tunnel\"");
    Front {
        name: name.map(|name| name.get_ref().clone()).unwrap_or_default(),
        address: address.and_then(|address| part.address_on_network("address", address)),
        port,
        protocol,
        mode: mode.and_then(|mode| part.choice("mode", mode, &MODES)),
        probe: probe(written, port, protocol, checks, part),
        agent: match &written.agent {
            Some(name) => checks.named_agent(name, part).map(Some),
            None => Some(None),
        },
    }
}

/// Nothing is sent to a NAT backend at the service's address.
fn not_to_service(written: &schema::Service, front: &Front, part: &mut Part<'_, '_>) {
    if let (Some(check), Some(Mode::Nat), Some(true)) =
        (&written.check, front.mode, front.probe.as_ref().map(Probe::is_to_service))
    {
        part.report(
            check,
            Problem::ProbeOfService { check: check.get_ref().clone(), user: "a backend in mode \"nat\"" },
        );
    }
}

fn port_of_service(written: &Spanned<Port>, part: &mut Part<'_, '_>) -> Option<u16> {
    match written.get_ref() {
        Port::Word(word) if word == "any" => Some(ANY),
        Port::Word(word) => {
            part.report(written, Problem::UnknownPort { word: word.clone() });
            None
        }
        Port::Number(number) => part.port_number("port", written, *number),
    }
}

/// What is probed for the backends: where a service has no TCP port of its own, it takes a check that has one.
fn probe(
    written: &schema::Service,
    port: Option<u16>,
    protocol: Option<u8>,
    checks: &Checks,
    part: &mut Part<'_, '_>,
) -> Option<Probe> {
    let portless = match (protocol, port) {
        (Some(UDP), _) => Some("a udp service"),
        (_, Some(ANY)) => Some("a service on any port"),
        _ => None,
    };
    match (&written.check, portless) {
        (Some(check), Some(user)) => {
            let has_udp_port = protocol == Some(UDP) && port.is_some_and(|port| port != ANY);
            checks.named_with_port(check, user, has_udp_port, part)
        }
        (Some(check), None) => checks.named(check, part),
        (None, Some(user)) => {
            part.report_here(Problem::WithoutCheck { user });
            None
        }
        (None, None) => Some(Probe::of_services()),
    }
}

/// The size of the slot table, and the least that it could be; `backends` are there if nothing is wrong with them.
fn size(written: &schema::Service, backends: Option<&[Backend]>, part: &mut Part<'_, '_>) -> Option<(u32, u32)> {
    if written.backend.is_empty() {
        part.report_here(Problem::NoBackends);
        return None;
    }
    let by_name = written.backend.iter().filter(|backend| is_by_name(backend)).count();
    let slots = match &written.slots {
        Some(slots) => written_slots(slots, part)?,
        None => {
            let of_names = by_name.saturating_mul(BACKENDS_OF_NAME);
            let expected = written.backend.len() - by_name + of_names;
            slots::default_size(expected.max(backends.map_or(0, <[Backend]>::len)))
        }
    };
    let Some((weight, total)) = weights(backends.unwrap_or_default()) else {
        if by_name > 0 {
            return Some((slots, 1));
        }
        if backends.is_some() {
            part.report_here(Problem::NoWeight);
        }
        return None;
    };
    let least = slots::least_slots(weight, total);
    let enough = slots::enough_for_one(weight, total);
    if u64::from(slots) < least {
        let size = slots::size_from(least);
        // What DNS says may be more than was expected.
        if let (true, None, Some(size)) = (by_name > 0, &written.slots, size) {
            return Some((size, enough));
        }
        let problem = Problem::TooFewSlots { slots, weight, total, enough: size };
        match &written.slots {
            Some(slots) => part.report(slots, problem),
            None => part.report_here(problem),
        }
    }
    Some((slots, enough))
}

/// The least weight but 0, and the sum of all.
fn weights(backends: &[Backend]) -> Option<(u32, u64)> {
    let weights = || backends.iter().map(|backend| backend.weight).filter(|weight| *weight > 0);
    Some((weights().min()?, weights().map(u64::from).sum()))
}

/// How many backends can be up that are no backups.
fn most_healthy(backends: &[Backend]) -> usize {
    backends.iter().filter(|backend| backend.weight > 0 && backend.tier == 0).count()
}

/// Gives the backend with this number another weight, and says whether the service is right with it.
pub(super) fn set_weight(service: &mut Service, number: usize, weight: i64) -> bool {
    let weight = u32::try_from(weight).ok().filter(|weight| WEIGHTS.contains(weight));
    if let (Some(weight), Some(backend)) = (weight, service.backends.get_mut(number)) {
        backend.weight = weight;
        let Some((least, total)) = weights(&service.backends) else { return false };
        service.least_slots = slots::enough_for_one(least, total);
        u64::from(service.slots) >= slots::least_slots(least, total)
            && service.minimum_healthy as usize <= most_healthy(&service.backends)
    } else {
        false
    }
}

/// How many backends have to be up; `backends` are there if nothing is wrong with them.
fn minimum(written: &schema::Service, backends: Option<&[Backend]>, part: &mut Part<'_, '_>) -> Option<u32> {
    let minimum = part.number_or("minimum_healthy", &written.minimum_healthy, MINIMA, 1)?;
    if written.backend.iter().any(is_by_name) {
        // How many there are is DNS' to say.
        return Some(minimum);
    }
    let Some(backends) = backends.filter(|backends| backends.iter().any(|backend| backend.weight > 0)) else {
        return Some(minimum);
    };
    let most = most_healthy(backends);
    match &written.minimum_healthy {
        _ if most == 0 => part.report_here(Problem::OnlyBackups),
        Some(place) if minimum as usize > most => {
            part.report(place, Problem::MinimumBeyondBackends { minimum, most });
        }
        _ => (),
    }
    Some(minimum)
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

#[cfg(test)]
mod tests {
    use crate::{config::Config, model::intent::Intent};

    fn text(weights: [u32; 3], more: &str) -> String {
        let [first, second, backup] = weights;
        format!(
            "interfaces = [\"lo\"]\nsecret = \"0123456789abcdef\"\n[[service]]\nname = \"web\"\naddress = \"192.0.2.1\"\nport = 80\n\
             mode = \"dsr\"\nslots = 251\n{more}\n\
             [[service.backend]]\naddress = \"10.0.0.1\"\nweight = {first}\n\
             [[service.backend]]\naddress = \"10.0.0.2\"\nweight = {second}\n\
             [[service.backend]]\naddress = \"10.0.0.3\"\nweight = {backup}\nbackup = true\n"
        )
    }

    #[test]
    fn a_weight_is_as_right_as_if_it_were_read() {
        for (more, before) in [("", [1, 1, 1]), ("minimum_healthy = 2", [1, 7, 0]), ("", [0, 1, 1])] {
            let intent = Intent::new(&Config::parse(&text(before, more)).unwrap()).unwrap();
            for number in 0..3 {
                for weight in [0, 1, 2, 100, 124, 125, 65_535, 65_536] {
                    let mut after = before;
                    after[number] = weight;
                    let read = Config::parse(&text(after, more)).ok().and_then(|config| Intent::new(&config).ok());
                    let read = read.map(|intent| intent.services()[0].clone());
                    let backend = format!("10.0.0.{}:80", number + 1).parse().unwrap();
                    assert_eq!(intent.with_weight("web", backend, weight.into()), read, "{before:?} {after:?} {more}");
                }
            }
            assert_eq!(intent.with_weight("web", "10.0.0.1:81".parse().unwrap(), 1), None);
            assert_eq!(intent.with_weight("other", "10.0.0.1:80".parse().unwrap(), 1), None);
            assert_eq!(intent.with_weight("web", "10.0.0.1:80".parse().unwrap(), -1), None);
        }
    }
}
