//! What the config says of names, found by name. It is made once for a config; what health changes is in [`super::names`].

use super::{
    data::{Data, suffixes},
    respond::Server,
    stored::{Set, Stored},
};
use crate::model::intent::{Name, Target};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

/// What the config says of names.
#[derive(Debug, Default)]
pub struct Zone {
    names: Vec<Name>,
    by_wire: HashMap<Arc<[u8]>, usize>,
    stored: Stored,
    /// How many of those have no records.
    between: usize,
    domains: HashMap<Vec<u8>, Domain>,
    dependents: BTreeMap<Target, Vec<usize>>,
    server: Server,
}

/// A name that we are the authority for, and for all that lies in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Domain {
    /// Its name in lower case.
    pub wire: Arc<[u8]>,
    /// Its SOA record.
    pub soa: Data,
    /// For how long resolvers may keep that there is no such name, or no such record.
    pub negative_ttl_seconds: u32,
}

/// What there is at a name.
#[derive(Debug)]
pub enum Found<'a> {
    /// A name of the config, by its number.
    Named(usize, &'a Name),
    /// Records of a file; none: only names below it have any.
    Stored(Vec<Set<'a>>),
    /// A domain's own name, of which nothing else is said.
    Bare,
    /// Nothing, which a domain can tell.
    Absent,
}

impl Zone {
    /// From what the config says; no name is twice among `names` and `stored`.
    pub fn new(names: Vec<Name>, mut stored: Stored, domains: Vec<Domain>, server: Server) -> Self {
        let by_wire = names.iter().enumerate().map(|(number, name)| (Arc::clone(&name.wire), number)).collect();
        let mut dependents: BTreeMap<Target, Vec<usize>> = BTreeMap::new();
        for (number, name) in names.iter().enumerate() {
            for target in name.addresses.iter().filter_map(|address| address.target.as_ref()) {
                let numbers = dependents.entry(target.clone()).or_default();
                if numbers.last() != Some(&number) {
                    numbers.push(number);
                }
            }
        }
        let domains: HashMap<_, _> = domains.into_iter().map(|domain| (domain.wire.to_vec(), domain)).collect();
        let between = between(&names, &stored, &domains);
        for name in &between {
            stored.push(name, &[]);
        }
        stored.shrink();
        Self { names, by_wire, stored, between: between.len(), domains, dependents, server }
    }

    /// What all answers depend on.
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// The names that have policies, as they are written.
    pub fn names(&self) -> &[Name] {
        &self.names
    }

    /// The names of files, and those between them and their domains.
    pub fn stored(&self) -> &Stored {
        &self.stored
    }

    /// How many names have records.
    pub fn len(&self) -> usize {
        self.names.len() + self.stored.len() - self.between
    }

    /// Whether no name has any.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What we are the authority for.
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        self.domains.values()
    }

    /// Numbers of the names that a target is about.
    pub fn dependents(&self, target: &Target) -> &[usize] {
        self.dependents.get(target).map(Vec::as_slice).unwrap_or_default()
    }

    /// Everything that is probed for names.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.dependents.keys()
    }

    /// What there is at a name in lower case; nothing if it is not ours to say.
    pub fn find(&self, wire: &[u8]) -> Option<Found<'_>> {
        if let Some((number, name)) =
            self.by_wire.get(wire).and_then(|number| Some((*number, self.names.get(*number)?)))
        {
            return Some(Found::Named(number, name));
        }
        if let Some(sets) = self.stored.get(wire) {
            return Some(Found::Stored(sets));
        }
        let domain = self.domain_of(wire)?;
        Some(if *domain.wire == *wire { Found::Bare } else { Found::Absent })
    }

    /// The domain that a name lies in, the innermost if there are several.
    pub fn domain_of(&self, wire: &[u8]) -> Option<&Domain> {
        if self.domains.is_empty() {
            return None;
        }
        suffixes(wire).find_map(|suffix| self.domains.get(suffix))
    }
}

/// Names between those that there are and the domains that they lie in: they exist, without records (RFC 8020 section 2).
fn between(names: &[Name], stored: &Stored, domains: &HashMap<Vec<u8>, Domain>) -> HashSet<Vec<u8>> {
    let mut between = HashSet::new();
    if domains.is_empty() {
        return between;
    }
    let written: HashSet<&[u8]> = names.iter().map(|name| &*name.wire).collect();
    // Neighbours in a file mostly lie in the same name.
    let mut last = None;
    for wire in stored.iter().map(|(wire, _)| wire).chain(names.iter().map(|name| &*name.wire)) {
        let parent = suffixes(wire).nth(1);
        if parent == last {
            continue;
        }
        last = parent;
        let above: Vec<&[u8]> = suffixes(wire).collect();
        let Some(domain) = above.iter().position(|name| domains.contains_key(*name)) else { continue };
        for name in above.into_iter().take(domain).skip(1) {
            if !stored.contains(name) && !written.contains(name) {
                between.insert(name.to_vec());
            }
        }
    }
    between
}
