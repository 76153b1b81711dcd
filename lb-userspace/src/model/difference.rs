//! What a change comes to, in plain words: what the config has otherwise, and what the steps do to the data path.

use super::{
    actual::{Actual, ActualService},
    answers::image::Image,
    intent::{Backend, Intent, Service},
    op::Op,
};
use crate::changes::edit::as_in_commands;
use lb_common::{
    tables::{Address, DNS, ECHO, Endpoint, ON_LINK},
    wire::transport::TCP,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Display,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

/// What two configs have otherwise of services and their backends.
pub fn of_intents(before: &Intent, after: &Intent) -> Vec<String> {
    let old: BTreeMap<Endpoint, &Service> =
        before.services().iter().map(|service| (service.endpoint, service)).collect();
    let new: BTreeSet<Endpoint> = after.services().iter().map(|service| service.endpoint).collect();
    let mut lines = Vec::new();
    for service in before.services().iter().filter(|service| !new.contains(&service.endpoint)) {
        lines.push(format!("service {} ({}): removed", service.name, place(service)));
    }
    for service in after.services() {
        match old.get(&service.endpoint) {
            None => {
                let Service { name, mode, backends, .. } = service;
                lines.push(format!(
                    "service {name} ({}): added, {mode}, {} backend(s)",
                    place(service),
                    backends.len()
                ));
            }
            Some(known) => of_services(known, service, &mut lines),
        }
    }
    let mut times = |what, before: &dyn Display, after: &dyn Display| {
        let (before, after) = (before.to_string(), after.to_string());
        if before != after {
            lines.push(format!("{what}: {before} -> {after}"));
        }
    };
    let (old, new) = (before.tracking(), after.tracking());
    times("tracking: adopt_seconds", &old.adopt.as_secs(), &new.adopt.as_secs());
    times("tracking: tcp_idle_seconds", &old.tcp_idle.as_secs(), &new.tcp_idle.as_secs());
    times("tracking: udp_idle_seconds", &old.udp_idle.as_secs(), &new.udp_idle.as_secs());
    let seconds = |drain: Option<Duration>| drain.map_or_else(|| "never".into(), |drain| drain.as_secs().to_string());
    times("tracking: drain_seconds", &seconds(old.drain), &seconds(new.drain));
    if before.keys() != after.keys() {
        lines.push("secret: another one; flows of all services may move".into());
    }
    lines
}

fn of_services(before: &Service, after: &Service, lines: &mut Vec<String>) {
    let name = &after.name;
    let mut changed = |what: &str, before: String, after: String| {
        if before != after {
            lines.push(format!("service {name}: {what} {before} -> {after}"));
        }
    };
    changed("name", before.name.clone(), after.name.clone());
    changed("mode", before.mode.to_string(), after.mode.to_string());
    changed("slots", before.slots.to_string(), after.slots.to_string());
    let (link, routed) = ("link", "routed");
    let claim = |service: &Service| if service.claim { link } else { routed }.to_owned();
    changed("claim", claim(before), claim(after));
    changed("echo", before.echo.to_string(), after.echo.to_string());
    let old: BTreeMap<Endpoint, &Backend> = before.backends.iter().map(|backend| (backend.endpoint, backend)).collect();
    let new: BTreeSet<Endpoint> = after.backends.iter().map(|backend| backend.endpoint).collect();
    for backend in before.backends.iter().filter(|backend| !new.contains(&backend.endpoint)) {
        let address = address(&backend.endpoint);
        lines.push(format!(
            "service {name}: backend {address}: removed; it takes no new flows, and goes with its last one"
        ));
    }
    for backend in &after.backends {
        let address = address(&backend.endpoint);
        let Some(known) = old.get(&backend.endpoint) else {
            lines.push(format!("service {name}: backend {address}: added with weight {}", backend.weight));
            continue;
        };
        let mut changed = |what: &str, before: String, after: String| {
            if before != after {
                lines.push(format!("service {name}: backend {address}: {what} {before} -> {after}"));
            }
        };
        changed("weight", known.weight.to_string(), backend.weight.to_string());
        changed("state", known.state.word().into(), backend.state.word().into());
        if known.target != backend.target {
            lines.push(format!("service {name}: backend {address}: checked in another way"));
        }
    }
}

/// What steps do to the data path.
pub fn of_steps(
    before: &Actual,
    steps: &[Op],
    intents: (&Intent, &Intent),
    interfaces: &BTreeMap<u32, String>,
) -> Vec<String> {
    let services = [intents.0, intents.1].into_iter().flat_map(Intent::services);
    let services: BTreeMap<Endpoint, &str> =
        services.map(|service| (service.endpoint, service.name.as_str())).collect();
    let ips: BTreeMap<Address, IpAddr> = services.keys().map(|endpoint| (endpoint.address, endpoint.ip())).collect();
    let ip = |address: &Address| ips.get(address).map_or_else(|| "of a service".into(), ToString::to_string);
    let name =
        |endpoint: &Endpoint| services.get(endpoint).map_or_else(|| address(endpoint), |name| (*name).to_owned());
    let interface = |index: &u32| interfaces.get(index).cloned().unwrap_or_else(|| format!("number {index}"));
    let mut turned: BTreeMap<Endpoint, usize> = BTreeMap::new();
    let mut lines = Vec::new();
    for step in steps {
        match step {
            Op::PutInterface { index, .. } => lines.push(format!("interface {}: added", interface(index))),
            Op::RemoveInterface { index } => lines.push(format!("interface {}: removed", interface(index))),
            Op::PutService { endpoint, service, .. } if service.flags & DNS != 0 => {
                lines.push(format!("dns: questions are answered at {}", address(endpoint)));
            }
            Op::RemoveService { endpoint, .. } if before.services.get(endpoint).is_some_and(ActualService::is_dns) => {
                lines.push(format!("dns: questions are no longer answered at {}", address(endpoint)));
            }
            Op::StoreSlots { endpoint, slots, .. } => *turned.entry(*endpoint).or_default() += slots.len(),
            Op::SwapTable { endpoint, region, .. } => {
                let slots = region.slots;
                lines.push(format!(
                    "service {}: its table is made anew with {slots} slots; flows may move",
                    name(endpoint)
                ));
            }
            Op::PutAddress { address, answers } => {
                let what = [(ON_LINK, "ARP and neighbour solicitations"), (ECHO, "echo requests")];
                let what: Vec<_> =
                    what.into_iter().filter(|(bit, _)| answers & bit != 0).map(|(_, what)| what).collect();
                lines.push(format!("address {}: {} are answered", ip(address), what.join(" and ")));
            }
            Op::RemoveAddress { address } => lines.push(format!("address {}: no longer answered for", ip(address))),
            _ => (),
        }
    }
    for (endpoint, count) in turned.into_iter().filter(|(_, count)| *count > 0) {
        let of = before.services.get(&endpoint).and_then(|service| service.table.as_ref());
        let of = of.map_or_else(String::new, |table| format!(" of {}", table.region().slots));
        lines.push(format!("service {}: {count}{of} slots turn to other backends; no flow moves", name(&endpoint)));
    }
    lines
}

/// Which answers of the config become others; `question` says what one is about.
pub fn of_answers(before: &Actual, after: &Actual, question: impl Fn(&Image) -> Option<String>) -> Vec<String> {
    let of_config = |actual: &Actual| -> BTreeMap<u64, Image> {
        let held = actual.answers.held.iter().filter(|(_, held)| !held.image.is_cached());
        held.map(|(hash, held)| (*hash, held.image.clone())).collect()
    };
    let (before, after) = (of_config(before), of_config(after));
    let mut lines: Vec<String> = Vec::new();
    let mut tell = |image: &Image, what: &str| lines.extend(question(image).map(|name| format!("name {name}: {what}")));
    for (hash, image) in &after {
        match before.get(hash) {
            None => tell(image, "added"),
            Some(known) if known != image => tell(image, "another answer"),
            Some(_) => (),
        }
    }
    before.iter().filter(|(hash, _)| !after.contains_key(hash)).for_each(|(_, image)| tell(image, "removed"));
    lines.sort_unstable();
    lines
}

/// Whether a step is about answers, or nothing but a pause.
pub fn is_of_answers(step: &Op) -> bool {
    matches!(
        step,
        Op::WriteIndex { .. }
            | Op::SwapIndex { .. }
            | Op::PutAnswer(_)
            | Op::RemoveAnswer { .. }
            | Op::LeaveAnswer { .. }
            | Op::FollowAnswers { .. }
            | Op::Grace
    )
}

fn place(service: &Service) -> String {
    let protocol = if service.endpoint.protocol() == TCP { "tcp" } else { "udp" };
    format!("{protocol} {}", address(&service.endpoint))
}

fn address(endpoint: &Endpoint) -> String {
    as_in_commands(SocketAddr::new(endpoint.ip(), endpoint.port()))
}
