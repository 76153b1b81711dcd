//! The whole config: its parts one by one, and what is about no single one of them.

use super::{
    Attach, Intent, Limits, Service, api,
    checks::Checks,
    dns, limits,
    part::{Part, Problems},
    resolver, services, tracking, tunnel,
};
use crate::model::discovery::Answers;
use crate::{
    changes::state::DEFAULT_STATE,
    config::{
        Config, ConfigErrors, DEFAULT_PINS, DEFAULT_SOCKET, Place, Problem,
        schema::{File, Secret, Written},
    },
};
use lb_common::{
    hash::Keys,
    tables::{CHUNK_SLOTS, MAX_CHUNKS, MAX_INTERFACES},
};
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Bytes of the longest name of an interface: the kernel's `IFNAMSIZ` less the zero at the end.
const LONGEST_INTERFACE: usize = 15;
/// 16 characters of `openssl rand -hex` are 64 bits: too many to be guessed by trying.
const SHORTEST_SECRET: usize = 16;

/// Reads the whole config.
pub(super) fn intent(config: &Config, answers: &Answers) -> Result<Intent, ConfigErrors> {
    let file = config.file();
    let mut problems = Problems::none(config.source());
    let checks = Checks::read(config, &mut problems);
    let secret = secret(config, &mut problems.part(Place::Top, None));
    let keys = secret.map(keys);
    let dns = dns::read(config, &checks, secret, keys, &mut problems);
    let services = services::read(file, &checks, &dns.listens, answers, &mut problems);
    let (tunnel, tracking) = (tunnel::read(file, &mut problems), tracking::read(file, &mut problems));
    let limits = limits::read(file, &mut problems);
    let api = api::read(config, &mut problems);
    let nameservers = resolver::read(file, &mut problems);
    let mut top = problems.part(Place::Top, None);
    bound(file, &services, limits, &mut top);
    bound_slots(&services, &mut top);
    let interfaces = interfaces(file, &mut top);
    let attach =
        top.choice_or_first("attach", &file.attach, &[("native", Attach::Native), ("generic", Attach::Generic)]);
    let socket = path("socket", &file.socket, DEFAULT_SOCKET, &mut top);
    let pins = path("pins", &file.pins, DEFAULT_PINS, &mut top);
    if let Some(written) = file.pins.as_ref().filter(|written| written.get_ref().contains('.')) {
        top.report(written, Problem::DottedPins { path: written.get_ref().clone() });
    }
    let state = file.state.as_ref().map(|_| path("state", &file.state, DEFAULT_STATE, &mut top));
    let questions = services.iter().flat_map(|service| &service.questions).cloned().collect();
    let intent = move || {
        Some(Intent {
            interfaces,
            attach: attach?,
            socket: socket?,
            pins: pins?,
            state: state.map_or(Some(None), |state| state.map(Some))?,
            api: api?,
            keys: keys?,
            services,
            zone: dns.zone,
            dns: dns.listens,
            answering: dns.answering?,
            tunnel,
            tracking,
            limits,
            watched: config.watched().to_vec(),
            nameservers,
            questions,
        })
    };
    problems.unless(intent())
}

/// What there is has to be something, and fit the maps.
fn bound(file: &File, services: &[Service], limits: Limits, part: &mut Part<'_, '_>) {
    let interfaces = file.interfaces.len();
    if interfaces > MAX_INTERFACES as usize {
        part.report_here(Problem::TooMany { what: "interfaces", count: interfaces, most: MAX_INTERFACES });
    }
    let listens = file.dns.as_ref().map_or(0, |dns| dns.get_ref().listen.len());
    let written: usize = file.service.iter().map(|service| service.get_ref().backend.len()).sum();
    // A name may stand for several.
    let backends = written.max(services.iter().map(|service| service.backends.len()).sum());
    let all = [
        ("services and DNS addresses", file.service.len() + listens, "services", limits.services),
        ("backends", backends, "backends", limits.backends),
    ];
    for (what, count, key, limit) in all {
        if count > limit as usize {
            part.report_here(Problem::BeyondLimit { what, count, key, limit });
        }
    }
    if file.service.is_empty() && file.dns.is_none() {
        part.report_here(Problem::NothingToDo);
    }
}

/// The slot space has to hold all tables, and beside them a new version of any one.
fn bound_slots(services: &[Service], part: &mut Part<'_, '_>) {
    let slots = || services.iter().map(|service| u64::from(service.slots));
    let most = u64::from(MAX_CHUNKS * CHUNK_SLOTS) - slots().max().unwrap_or_default();
    let count = slots().sum();
    if count > most {
        part.report_here(Problem::TooManySlots { count, most });
    }
}

fn interfaces(file: &File, part: &mut Part<'_, '_>) -> Vec<String> {
    let mut seen = BTreeSet::new();
    for written in &file.interfaces {
        let name = written.get_ref();
        // As in the kernel's `dev_valid_name`.
        let odd = name.contains(|character: char| character.is_whitespace() || character == '/' || character == ':');
        if name.is_empty() || name.len() > LONGEST_INTERFACE || odd || name == "." || name == ".." {
            part.report(written, Problem::InterfaceName { name: name.clone() });
        } else if !seen.insert(name) {
            part.report(written, Problem::DuplicateInterface { name: name.clone() });
        }
    }
    if file.interfaces.is_empty() {
        part.report_here(Problem::NoInterfaces);
    }
    file.interfaces.iter().map(|written| written.get_ref().clone()).collect()
}

fn path(what: &'static str, written: &Written<String>, default: &str, part: &mut Part<'_, '_>) -> Option<PathBuf> {
    let Some(written) = written else {
        return Some(default.into());
    };
    let path = Path::new(written.get_ref());
    if !path.is_absolute() {
        part.report(written, Problem::RelativePath { what, path: written.get_ref().clone() });
        return None;
    }
    Some(path.into())
}

fn secret<'c>(config: &'c Config, part: &mut Part<'_, '_>) -> Option<&'c Secret> {
    let File { secret, secret_file, .. } = config.file();
    let (secret, length_problem_at) = match (secret, secret_file) {
        (Some(_), Some(second)) => {
            part.report(second, Problem::TwoSecrets);
            return None;
        }
        (Some(secret), None) => (secret.get_ref(), secret.span()),
        (None, Some(file)) => (config.secret_of_file()?, file.span()),
        (None, None) => {
            part.report_here(Problem::NoSecret);
            return None;
        }
    };
    let length = secret.bytes().len();
    if length < SHORTEST_SECRET {
        part.report_at(Some(length_problem_at), Problem::ShortSecret { length });
        return None;
    }
    Some(secret)
}

/// Every word of the keys is a hash of its number and the secret, so that none tells of another.
fn keys(secret: &Secret) -> Keys {
    let word = |number: u8| {
        let digest =
            Sha256::new().chain_update(b"lb keys").chain_update([number]).chain_update(secret.bytes()).finalize();
        digest.iter().take(8).rfold(0, |word, byte| word << 8 | u64::from(*byte))
    };
    // An even multiplier would throw away bits of what it multiplies.
    Keys { flow: [word(0), word(1), word(2)], multiplier: word(3) | 1, name: word(4) }
}
