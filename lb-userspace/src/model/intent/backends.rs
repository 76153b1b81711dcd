//! The backends of a service: those that are written with their address, and those that DNS knows by a name.
//!
//! What DNS says makes no config wrong by itself: what no backend can be is passed over. Only what it says together with another
//! part of the config may be a contradiction, such as one NAT backend behind two services.

use super::{
    Backend, BackendKey, DRAIN_SECONDS, Mode, Origin,
    part::{Part, unusable_on_network},
    services::{ANY, Front},
    taken::Taken,
    text,
};
use crate::{
    changes::edit::BackendState,
    config::{
        Problem,
        schema::{self, Table},
    },
    model::discovery::{Answers, Kind, Question, Server},
};
use lb_common::tables::Endpoint;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    ops::RangeInclusive,
    sync::Arc,
    time::Duration,
};
use toml::Spanned;

/// Greater differences than these would fit no slot table.
pub(super) const WEIGHTS: RangeInclusive<u32> = 0..=65_535;
const DEFAULT_WEIGHT: u32 = 1;
/// What the greatest weight of SRV records becomes: they go to 65,535, which would take tables of that many slots.
const MOST_SHARE: u32 = 100;

type Written = Spanned<Table<schema::Backend>>;

/// Reads the backends of one service.
pub(super) struct Reader<'r, 't> {
    front: &'r Front,
    answers: &'r Answers,
    /// The types of addresses that a backend can have.
    kinds: Vec<Kind>,
    taken: &'r mut Taken<'t>,
    own: HashMap<(IpAddr, u16), usize>,
    questions: BTreeSet<Question>,
    of_file: Arc<Origin>,
}

/// What holds for a backend wherever it is.
#[derive(Clone, Copy)]
struct Common {
    weight: u32,
    port: u16,
    tier: u32,
    state: BackendState,
    drain: Option<Duration>,
}

/// Whether DNS is asked for it.
pub(super) fn is_by_name(written: &Written) -> bool {
    let written = written.get_ref();
    written.host.is_some() || written.srv.is_some()
}

impl<'r, 't> Reader<'r, 't> {
    /// For a service.
    pub(super) fn new(file: &schema::File, front: &'r Front, answers: &'r Answers, taken: &'r mut Taken<'t>) -> Self {
        let tunnel = file.tunnel.as_ref().map(|tunnel| tunnel.get_ref());
        let can_be =
            |is_ipv4: bool| match front.mode {
                Some(Mode::Tunnel) => tunnel.is_some_and(|tunnel| {
                    if is_ipv4 { tunnel.source_ipv4.is_some() } else { tunnel.source_ipv6.is_some() }
                }),
                _ => front.address.is_some_and(|address| address.is_ipv4() == is_ipv4),
            };
        let kinds = [true, false].into_iter().filter(|is_ipv4| can_be(*is_ipv4)).map(Kind::of_family).collect();
        let (questions, of_file) = (BTreeSet::new(), Arc::new(Origin::File));
        Self { front, answers, kinds, taken, own: HashMap::new(), questions, of_file }
    }

    /// What the entries stand for, each backend with the number of its entry, and whether nothing is wrong with any. Addresses that are
    /// written come before those of names, so that a name that leads to one of them adds nothing.
    pub(super) fn read(&mut self, written: &[Written], part: &mut Part<'_, '_>) -> (Vec<(usize, Backend)>, bool) {
        self.own.reserve(written.len());
        let mut read = Vec::with_capacity(written.len());
        let mut is_right = true;
        let mut names = Vec::new();
        for (number, one) in written.iter().enumerate() {
            if is_by_name(one) {
                names.push((number, one));
            } else if let Some(backend) = self.by_address(one, part) {
                read.push((number, backend));
            } else {
                is_right = false;
            }
        }
        for (number, one) in names {
            let backends = self.by_name(one, part);
            is_right &= backends.is_some();
            read.extend(backends.into_iter().flatten().map(|backend| (number, backend)));
        }
        read.sort_by_key(|(number, _)| *number);
        (read, is_right)
    }

    /// What is to be asked of DNS for those that were read.
    pub(super) fn into_questions(self) -> BTreeSet<Question> {
        self.questions
    }

    fn by_address(&mut self, spanned: &Written, part: &mut Part<'_, '_>) -> Option<Backend> {
        let written = spanned.get_ref();
        let weight = part.number_or("weight", &written.weight, WEIGHTS, DEFAULT_WEIGHT);
        let port = match &written.port {
            Some(port) => port_of_backend(port, self.front, part),
            None => self.front.port,
        };
        let Some(address_at) = &written.address else {
            let cure = "the backend's address = \"...\", or host = \"...\" with a name that DNS knows";
            part.report(spanned, Problem::Missing { key: "address", cure });
            return None;
        };
        let address = part.address_on_network("backend address", address_at)?;
        let other_family = self.front.address.filter(|service| service.is_ipv4() != address.is_ipv4());
        if let Some(service) = other_family.filter(|_| self.front.mode != Some(Mode::Tunnel)) {
            part.report(address_at, Problem::OtherFamily { backend: address, service });
        }
        let port = port?;
        if let Some(line) = self.own.insert((address, port), part.line(spanned)) {
            part.report(spanned, Problem::DuplicateBackend { address, port, line });
            return None;
        }
        let common = common(written, weight, Some(port), part);
        let origin = written.is_of_file.then(|| Arc::clone(&self.of_file));
        self.backend(spanned, address, common, origin, part)
    }

    fn by_name(&mut self, spanned: &Written, part: &mut Part<'_, '_>) -> Option<Vec<Backend>> {
        let written = spanned.get_ref();
        let places = [("address", &written.address), ("host", &written.host), ("srv", &written.srv)];
        let mut there = places.into_iter().filter_map(|(key, place)| Some((key, place.as_ref()?)));
        let (Some((key, place)), second) = (there.next(), there.next()) else { return None };
        if let Some((other, at)) = second {
            part.report(at, Problem::TwoPlaces { one: key, other });
            return None;
        }
        let value = place.get_ref();
        if value.parse::<IpAddr>().is_ok() {
            part.report(place, Problem::AddressAsHost { value: value.clone() });
            return None;
        }
        text::name_in(place, part)?;
        if self.kinds.is_empty() && self.front.mode == Some(Mode::Tunnel) {
            part.report(place, Problem::NoTunnel { key: "source_ipv4", example: "10.99.0.0/16" });
            return None;
        }
        if written.srv.is_some() { self.by_srv(spanned, value, part) } else { self.by_host(spanned, value, part) }
    }

    fn by_host(&mut self, spanned: &Written, host: &str, part: &mut Part<'_, '_>) -> Option<Vec<Backend>> {
        let written = spanned.get_ref();
        let weight = part.number_or("weight", &written.weight, WEIGHTS, DEFAULT_WEIGHT);
        let port = match &written.port {
            Some(port) => port_of_backend(port, self.front, part),
            None => self.front.port,
        };
        let common = common(written, weight, port, part)?;
        self.of_host(spanned, host, None, common, part)
    }

    fn by_srv(&mut self, spanned: &Written, name: &str, part: &mut Part<'_, '_>) -> Option<Vec<Backend>> {
        let written = spanned.get_ref();
        for (key, place) in [("port", &written.port), ("weight", &written.weight)] {
            if let Some(place) = place {
                part.report(place, Problem::SaidBySrv { key });
            }
        }
        let common = common(written, Some(DEFAULT_WEIGHT), self.front.port, part)?;
        let srv = Question::new(name, Kind::Srv);
        let answers = self.answers;
        let servers: Vec<&Server> = answers.servers(name).collect();
        self.questions.insert(srv.clone());
        let shares = shares(&servers);
        let mut backends = Vec::new();
        for (server, (tier, weight)) in servers.into_iter().zip(shares) {
            let port = match (self.front.mode, self.front.port) {
                (_, Some(ANY)) => ANY,
                (Some(Mode::Nat), _) => server.port,
                // No other port can be reached.
                (_, Some(port)) if port == server.port => port,
                _ => continue,
            };
            let common = Common { port, weight, tier: common.tier + tier, ..common };
            backends.extend(self.of_host(spanned, &server.host, Some(&srv), common, part)?);
        }
        Some(backends)
    }

    /// A backend for each address of a host.
    fn of_host(
        &mut self,
        spanned: &Written,
        host: &str,
        srv: Option<&Question>,
        common: Common,
        part: &mut Part<'_, '_>,
    ) -> Option<Vec<Backend>> {
        let mut backends = Vec::new();
        for kind in self.kinds.clone() {
            let question = Question::new(host, kind);
            self.questions.insert(question.clone());
            let origin = Arc::new(Origin::Name { host: question, srv: srv.cloned() });
            for address in self.answers.addresses(host, kind) {
                let is_there = self.own.contains_key(&(address, common.port));
                if is_there || unusable_on_network(address).is_some() {
                    continue;
                }
                self.own.insert((address, common.port), part.line(spanned));
                backends.push(self.backend(spanned, address, Some(common), Some(Arc::clone(&origin)), part)?);
            }
        }
        Some(backends)
    }

    fn backend(
        &mut self,
        spanned: &Written,
        address: IpAddr,
        common: Option<Common>,
        origin: Option<Arc<Origin>>,
        part: &mut Part<'_, '_>,
    ) -> Option<Backend> {
        let front = self.front;
        let port = common.map(|common| common.port).or(front.port)?;
        let endpoint = Endpoint::new(address, front.protocol?, port);
        if front.mode == Some(Mode::Nat) {
            self.taken.nat_backend(endpoint, spanned, part);
        }
        let Common { weight, tier, state, drain, .. } = common?;
        let key = BackendKey { service: front.endpoint()?, own: endpoint, mode: front.mode? };
        let target = front.probe.as_ref()?.target_of(&key, port);
        let agent = front.agent.as_ref()?.as_ref().map(|probe| probe.target(address, port));
        Some(Backend { endpoint, weight, target, agent, tier, state, drain, origin })
    }
}

fn common(
    written: &schema::Backend,
    weight: Option<u32>,
    port: Option<u16>,
    part: &mut Part<'_, '_>,
) -> Option<Common> {
    let state = part.choice_or_first("state", &written.state, &BackendState::WORDS);
    let drain = match (&written.drain_seconds, state) {
        (Some(seconds), Some(BackendState::Drain)) => {
            let seconds = part.number("drain_seconds", seconds, DRAIN_SECONDS);
            Some(Duration::from_secs(seconds?.into()))
        }
        (Some(seconds), _) => {
            part.report(seconds, Problem::NotDrained);
            None
        }
        (None, _) => None,
    };
    let tier = u32::from(written.backup.as_ref().is_some_and(|backup| *backup.get_ref()));
    Some(Common { weight: weight?, port: port?, tier, state: state?, drain })
}

fn port_of_backend(written: &Spanned<i64>, front: &Front, part: &mut Part<'_, '_>) -> Option<u16> {
    let backend = part.port("backend port", written)?;
    match (front.mode, front.port) {
        (_, Some(ANY)) => {
            part.report(written, Problem::BackendPortOfAny);
            Some(ANY)
        }
        (Some(mode @ (Mode::Dsr | Mode::Tunnel)), Some(service)) if backend != service => {
            part.report(written, Problem::OtherPort { backend, service, mode });
            Some(backend)
        }
        _ => Some(backend),
    }
}

/// The tier and the weight of each server: priorities are counted from the lowest, and weights are in proportion within a priority.
/// One of weight 0 has a very small share (RFC 2782), unless all have that.
fn shares(servers: &[&Server]) -> Vec<(u32, u32)> {
    let mut weights: BTreeMap<u16, (u32, u32)> = BTreeMap::new();
    for server in servers {
        let weight = u32::from(server.weight);
        let (least, most) = weights.entry(server.priority).or_insert((weight, weight));
        (*least, *most) = ((*least).min(weight), (*most).max(weight));
    }
    let tiers: BTreeMap<u16, u32> = weights.keys().copied().zip(0..).collect();
    let share = |server: &&Server| {
        let (least, most) = weights.get(&server.priority).copied().unwrap_or_default();
        let weight = u32::from(server.weight);
        let share = if most == 0 {
            1
        } else if least > 0 && most <= MOST_SHARE {
            weight
        } else {
            ((weight * MOST_SHARE + most / 2) / most).max(1)
        };
        (tiers.get(&server.priority).copied().unwrap_or_default(), share)
    };
    servers.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn server(priority: u16, weight: u16) -> Server {
        Server { priority, weight, port: 80, host: "api.example.com".into() }
    }

    fn shares_of(servers: &[Server]) -> Vec<(u32, u32)> {
        shares(&servers.iter().collect::<Vec<_>>())
    }

    #[test]
    fn priorities_are_tiers_and_weights_are_in_proportion() {
        assert_eq!(shares_of(&[server(10, 60), server(10, 40), server(20, 1)]), [(0, 60), (0, 40), (1, 1)]);
        assert_eq!(shares_of(&[server(7, 0), server(7, 0)]), [(0, 1), (0, 1)]);
        assert_eq!(shares_of(&[server(0, 0), server(0, 5)]), [(0, 1), (0, 100)]);
        assert_eq!(
            shares_of(&[server(5, 20_000), server(5, 10_000), server(6, 65_535)]),
            [(0, 100), (0, 50), (1, 100)]
        );
        assert_eq!(shares_of(&[]), []);
    }

    proptest! {
        #[test]
        fn shares_fit_a_table_and_keep_the_order(servers in prop::collection::vec((0_u16..4, any::<u16>()), 0..20)) {
            let servers: Vec<_> = servers.into_iter().map(|(priority, weight)| server(priority, weight)).collect();
            let shares = shares_of(&servers);
            for (one, (tier, share)) in servers.iter().zip(&shares) {
                prop_assert!((1..=MOST_SHARE).contains(share));
                for (other, (other_tier, other_share)) in servers.iter().zip(&shares) {
                    prop_assert_eq!(one.priority.cmp(&other.priority), tier.cmp(other_tier));
                    prop_assert!(one.priority != other.priority || one.weight > other.weight || share <= other_share);
                }
            }
        }
    }
}
