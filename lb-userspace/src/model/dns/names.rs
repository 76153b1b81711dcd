//! The names that are answered for, as they stand right now.

use super::{
    data::{CNAME, Data, SOA, View},
    render::{self, NXDOMAIN, SERVFAIL},
    rendered::{Question, Rendered},
    zone::{Found, Zone},
};
use crate::model::intent::{Address, Below, Name, Policy, Target};
use lb_common::wire::dns::{A, AAAA, IN};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

/// QTYPE `*`.
pub const ANY: u16 = 255;
/// QTYPEs of transfers, which are refused.
pub const TRANSFERS: [u16; 2] = [251, 252];
/// What a name that stands for another one is asked for mostly.
const ASKED_OF_CNAMES: [u16; 3] = [A, AAAA, CNAME];

/// All names. What the config says is shared; of the names with policies there is also who is up, and what follows from it, rendered
/// when it is first needed.
#[derive(Clone, Debug, Default)]
pub struct Names {
    zone: Arc<Zone>,
    states: Vec<Arc<State>>,
}

#[derive(Debug)]
struct State {
    /// Of each address.
    up: Vec<bool>,
    /// By type; of a name that stands for another one there are none.
    rendered: OnceLock<Vec<(u16, Rendered)>>,
}

impl Names {
    /// The names of the config, with what is up.
    pub fn new(zone: &Arc<Zone>, up: &BTreeSet<Target>) -> Self {
        let states = zone.names().iter().map(|name| Arc::new(State::new(name, up))).collect();
        Self { zone: Arc::clone(zone), states }
    }

    /// Notes what is up now, where only these targets may have turned. Returns the names whose answers may be others now.
    pub fn refresh(&mut self, up: &BTreeSet<Target>, turned: impl IntoIterator<Item = Target>) -> Vec<Arc<[u8]>> {
        let numbers: BTreeSet<usize> =
            turned.into_iter().flat_map(|target| self.zone.dependents(&target).iter().copied()).collect();
        let mut changed = Vec::new();
        for number in numbers {
            let (Some(name), Some(state)) = (self.zone.names().get(number), self.states.get_mut(number)) else {
                continue;
            };
            let now = State::new(name, up);
            if now.up != state.up {
                *state = Arc::new(now);
                changed.push(Arc::clone(&name.wire));
            }
        }
        changed
    }

    /// What the config says of the names.
    pub fn zone(&self) -> &Arc<Zone> {
        &self.zone
    }

    /// The answer to a question; none if it is not ours to answer. The name is in lower case.
    pub fn answer(&self, wire: &[u8], kind: u32) -> Option<Cow<'_, Rendered>> {
        let (kind, class) = (kind as u16, (kind >> 16) as u16);
        if class != IN || TRANSFERS.contains(&kind) {
            return None;
        }
        let found = self.zone.find(wire)?;
        let domain = self.zone.domain_of(wire);
        let apex = domain.filter(|domain| *domain.wire == *wire);
        let soa = || apex.map(|domain| render::set(wire, domain.negative_ttl_seconds, &[domain.soa.view()]));
        let none = || Cow::Owned(render::negative(wire, domain, 0));
        Some(match found {
            Found::Absent => Cow::Owned(render::negative(wire, domain, NXDOMAIN)),
            _ if kind == SOA && apex.is_some() => soa().map_or_else(none, Cow::Owned),
            Found::Bare if kind == ANY => soa().map_or_else(none, Cow::Owned),
            Found::Bare => none(),
            Found::Stored(sets) => of_kind(&sets, kind, |set| set.kind)
                .map_or_else(none, |set| Cow::Owned(render::set(wire, set.ttl_seconds, &set.data))),
            Found::Named(number, name) => match name.cname() {
                Some(data) => Cow::Owned(render::set(wire, name.ttl_seconds, &[data.view()])),
                None => self.of_number(number, name, kind).map_or_else(none, Cow::Borrowed),
            },
        })
    }

    /// All that is said of a name, but for what it has not.
    pub fn of_name(&self, wire: &Arc<[u8]>) -> Vec<(Question, Rendered)> {
        let is_apex = self.zone.domain_of(wire).is_some_and(|domain| *domain.wire == **wire);
        let mut kinds: BTreeSet<u16> = match self.zone.find(wire) {
            None | Some(Found::Absent | Found::Bare) => BTreeSet::new(),
            Some(Found::Stored(sets)) => sets.iter().flat_map(|set| asked(set.kind)).collect(),
            Some(Found::Named(_, name)) => name.kinds().into_iter().flat_map(asked).collect(),
        };
        kinds.extend(is_apex.then_some(SOA));
        let question = |kind| Question { wire: Arc::clone(wire), kind: u32::from(kind) | u32::from(IN) << 16 };
        let answered = |kind| {
            let question = question(kind);
            let rendered = self.answer(wire, question.kind)?.into_owned();
            Some((question, rendered))
        };
        kinds.into_iter().filter_map(answered).collect()
    }

    /// All that is said of all names, but for what they have not.
    pub fn all(&self) -> impl Iterator<Item = (Question, Rendered)> {
        let named = self.zone.names().iter().map(|name| Arc::clone(&name.wire));
        let stored = self.zone.stored().iter().filter(|(_, sets)| !sets.is_empty()).map(|(wire, _)| wire.into());
        let bare = self.zone.domains().filter(|domain| matches!(self.zone.find(&domain.wire), Some(Found::Bare)));
        let all = named.chain(stored).chain(bare.map(|domain| Arc::clone(&domain.wire)));
        all.flat_map(|wire: Arc<[u8]>| self.of_name(&wire))
    }

    fn of_number(&self, number: usize, name: &Name, kind: u16) -> Option<&Rendered> {
        let state = self.states.get(number)?;
        let domain = || self.zone.domain_of(&name.wire);
        let rendered = state.rendered.get_or_init(|| {
            let rendered =
                |kind| (kind, render_kind(name, kind, &state.up, || render::negative(&name.wire, domain(), 0)));
            name.kinds().into_iter().map(rendered).collect()
        });
        let answered: Vec<_> = rendered.iter().filter(|(_, rendered)| has_records(rendered)).collect();
        match kind {
            ANY => of_kind(&answered, kind, |(kind, _)| *kind)
                .copied()
                .or_else(|| of_kind(rendered, kind, |(kind, _)| *kind)),
            _ => of_kind(rendered, kind, |(kind, _)| *kind),
        }
        .map(|(_, rendered)| rendered)
    }
}

impl State {
    fn new(name: &Name, up: &BTreeSet<Target>) -> Self {
        let is_up = |address: &Address| address.target.as_ref().is_none_or(|target| up.contains(target));
        Self { up: name.addresses.iter().map(is_up).collect(), rendered: OnceLock::new() }
    }
}

/// What is asked for, where there is this.
fn asked(kind: u16) -> Vec<u16> {
    if kind == CNAME { ASKED_OF_CNAMES.into() } else { vec![kind] }
}

/// What answers to a type: what is of the type, or a CNAME; to ANY one set and not all (RFC 8482 section 4.1).
fn of_kind<T>(all: &[T], kind: u16, kind_of: impl Fn(&T) -> u16) -> Option<&T> {
    let rank = |one: &&T| match kind_of(one) {
        A => 0,
        AAAA => 1,
        _ => 2,
    };
    match kind {
        ANY => all.iter().min_by_key(rank),
        _ => all.iter().find(|one| [kind, CNAME].contains(&kind_of(one))),
    }
}

fn has_records(rendered: &Rendered) -> bool {
    rendered.bodies.iter().any(|body| body.counts.first().is_some_and(|count| *count > 0))
}

fn render_kind(name: &Name, kind: u16, up: &[bool], none: impl Fn() -> Rendered) -> Rendered {
    let (wire, ttl_seconds) = (&name.wire, name.ttl_seconds);
    if ![A, AAAA].contains(&kind) {
        let data: Vec<View<'_>> = name.data.iter().filter(|data| data.kind == kind).map(Data::view).collect();
        return render::set(wire, ttl_seconds, &data);
    }
    let pool: Vec<(&Address, bool)> =
        name.addresses.iter().zip(up).filter(|(one, _)| one.is_of(kind)).map(|(one, up)| (one, *up)).collect();
    if let Some(chosen) = chosen(name, &pool) {
        return render::addresses(wire, ttl_seconds, name.policy, &chosen);
    }
    match &name.below_minimum {
        Below::ServFail => render::negative(wire, None, SERVFAIL),
        Below::NoData => none(),
        Below::FailOpen => {
            let all: Vec<_> = pool.iter().map(|(address, _)| (*address, true)).collect();
            chosen(name, &all).map_or_else(none, |chosen| render::addresses(wire, ttl_seconds, name.policy, &chosen))
        }
        Below::Fallback(addresses) => {
            let data: Vec<Data> =
                addresses.iter().map(|address| Data::address(*address)).filter(|data| data.kind == kind).collect();
            let views: Vec<View<'_>> = data.iter().map(Data::view).collect();
            if views.is_empty() { none() } else { render::set(wire, ttl_seconds, &views) }
        }
    }
}

/// Which addresses of one family are answered, if enough of them are up. A tier, or a family, that has fewer than the minimum needs all of
/// its own.
fn chosen<'a>(name: &Name, pool: &[(&'a Address, bool)]) -> Option<Vec<&'a Address>> {
    let mut tiers: BTreeMap<u32, Vec<(&'a Address, bool)>> = BTreeMap::new();
    for (address, up) in pool.iter().filter(|(address, _)| address.weight > 0) {
        let tier = if name.policy == Policy::Failover { address.tier } else { 0 };
        tiers.entry(tier).or_default().push((*address, *up));
    }
    tiers.into_values().find_map(|tier| {
        let enough = (name.minimum_healthy as usize).clamp(1, tier.len());
        let live: Vec<_> = tier.into_iter().filter(|(_, up)| *up).map(|(address, _)| address).collect();
        (live.len() >= enough).then_some(live)
    })
}

#[cfg(test)]
mod tests;
