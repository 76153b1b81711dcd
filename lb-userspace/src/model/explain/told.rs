//! An explanation in an operator's words.

use super::{
    Names, Run, message,
    question::{Asked, Payload},
    record::Step,
};
use lb_common::{
    frame::Frame as _,
    path::answer::name_hash,
    tables::{
        ANY_PORT, Backend, CLEAN, CLOSED, DNS, DOWN, DRAINING, Endpoint, FlowTable, IN_USE, NAT, NOBODY, RETURNS,
        Region, Service, Settings, Slot, TUNNEL4, TUNNEL6, Tracked,
        answers::{Bucket, CACHED, COOKIES, DnsSettings, LEASED, LIMITED, Leads, NEGATIVE, Pick, question_hash},
    },
    verdict::Verdict,
    wire::{
        dns::IN,
        ethernet::{self, Addresses, Ethernet},
        ipv4::Ipv4,
        ipv6::Ipv6,
        transport::{SYN, TCP, Udp},
    },
};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// What the path does with a packet, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The packet.
    pub packet: String,
    /// What the path looked up, in order, and what it found there.
    pub steps: Vec<Told>,
    /// `pass`, `transmit`, `redirect` or `drop`.
    pub verdict: String,
    /// The reason's name, as in `lb status`.
    pub why: String,
    /// The reason as a sentence.
    pub help: String,
    /// The backend that it is sent to.
    pub backend: Option<SocketAddr>,
    /// The interface that it leaves by; none: that by which it came in.
    pub interface: Option<String>,
    /// The MAC address that it is sent to.
    pub receiver: Option<String>,
    /// What a DNS client gets.
    pub reply: Option<Reply>,
    /// What else is to be known.
    pub notes: Vec<String>,
}

/// One thing that the path looked up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// What kind of thing.
    pub what: String,
    /// What was found there.
    pub found: String,
}

/// A DNS reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// The response code.
    pub status: String,
    /// Its flags.
    pub flags: Vec<String>,
    /// Records of the answer.
    pub answers: Vec<String>,
    /// Records of the authority section.
    pub authorities: Vec<String>,
    /// Additional records without OPT.
    pub additionals: Vec<String>,
    /// Bytes of the message.
    pub bytes: usize,
}

/// Tells what a run has shown.
pub fn tell(asked: &Asked, run: &Run, names: &Names<'_>) -> Explanation {
    let teller = Teller { asked, run, names };
    let (mut steps, mut notes) = (Vec::new(), Vec::new());
    for step in &run.steps {
        teller.step(step, &mut steps, &mut notes);
    }
    if let Verdict::Redirect(_, index) = run.verdict
        && !run.tables.interfaces.contains_key(&index)
    {
        let name = teller.interface(index);
        notes.push(format!(
            "frames can't leave by interface {name}, which has no program: this one passes, inconsistent"
        ));
    }
    // Who had a slot is looked up once to see whether it is up, and again to be sent to.
    steps.dedup();
    notes.dedup();
    let why = run.verdict.why();
    let forwarded = run.steps.iter().rev().find_map(|step| match step {
        Step::Forwarded(id) => run.tables.backends.get(id),
        _ => None,
    });
    let (verdict, interface) = match run.verdict {
        Verdict::Pass(_) => ("pass", None),
        Verdict::Transmit(_) => ("transmit", None),
        Verdict::Redirect(_, index) => ("redirect", Some(teller.interface(index))),
        Verdict::Drop(_) => ("drop", None),
    };
    let leaves = matches!(run.verdict, Verdict::Transmit(_) | Verdict::Redirect(..));
    Explanation {
        packet: teller.packet(),
        steps,
        verdict: verdict.into(),
        why: why.name().into(),
        help: why.help().trim().into(),
        backend: forwarded.map(|backend| address(&backend.own)),
        interface,
        receiver: forwarded.filter(|_| leaves).and_then(|_| teller.receiver()),
        reply: teller.reply().filter(|_| matches!(run.verdict, Verdict::Transmit(_))),
        notes,
    }
}

struct Teller<'a> {
    asked: &'a Asked,
    run: &'a Run,
    names: &'a Names<'a>,
}

impl Teller<'_> {
    fn packet(&self) -> String {
        let Asked { from, to, payload } = self.asked;
        let (from, to) = (address(from), address(to));
        match payload {
            Payload::Tcp(flags) => {
                let what = if flags & SYN != 0 { "which begins a connection" } else { "of a connection that is there" };
                format!("TCP from {from} to {to}, {what}")
            }
            Payload::Empty => format!("UDP from {from} to {to}"),
            Payload::Dns(question) => {
                format!("a question for {} from {from} to {to}", message::asked(&question.wire, question.kind))
            }
        }
    }

    fn step(&self, step: &Step, steps: &mut Vec<Told>, notes: &mut Vec<String>) {
        let mut told = |what: &str, found: String| steps.push(Told { what: what.into(), found });
        match step {
            Step::Settings(settings) => told("settings", self.settings(settings.as_deref())),
            Step::Service(endpoint, found) => told("service", self.service(endpoint, found.as_ref(), notes)),
            Step::Slot(index, found) => told("slot", self.slot(*index, *found)),
            Step::Flow(table, _, found) => told(table_name(*table), self.flow(*found)),
            Step::Track(table, flow) => {
                told(table_name(*table), format!("would be tracked from now on at {}", self.backend(flow.backend)));
            }
            Step::Backend(id, found) => told("backend", self.backend_found(*id, found.as_ref(), notes)),
            Step::Returning(own, found) => told(
                "nat backend",
                match found {
                    Some(id) => format!("{} is {}", address(own), self.backend(*id)),
                    None => format!("{} is none's", address(own)),
                },
            ),
            Step::Route(to) => {
                told("route", format!("to {}: the kernel's, not asked here", to.ip()));
                notes.push(
                    "a NAT backend's reply goes where the kernel's routing says, which is left out here: to the client, to this machine or \
                     to the kernel's stack"
                        .into(),
                );
            }
            Step::Dns(found) => told("dns", self.dns(found.as_ref())),
            Step::Bucket(block, found) => told("index", self.bucket(*block, found.as_ref())),
            Step::AnswerSlot(block, number, found) => told(
                "answer slot",
                match found {
                    Some(slot) => format!("{number} of the table at block {block}: the body at block {}", slot.block),
                    None => format!("{number} of the table at block {block} is beyond the answer space"),
                },
            ),
            Step::Body(block, found) => {
                let Some(body) = found.as_deref().and_then(message::Body::read) else {
                    return told("body", format!("at block {block}: beyond the answer space"));
                };
                told("body", self.body(*block, &body));
                self.compare(&body, notes);
                steps.extend(body.records.into_iter().map(|found| Told { what: "record".into(), found }));
            }
            Step::Turn(_, after) => told("turn", self.turn(*after)),
            Step::Tokens(_, before, after) => told("tokens", tokens(*before, *after)),
            Step::Interface(_) | Step::Address(_) | Step::Forwarded(_) => (),
        }
    }

    fn settings(&self, settings: Option<&Settings>) -> String {
        let Some(settings) = settings else { return "none: nothing has been written yet".into() };
        let to = &self.asked.to;
        let known = if settings.known.may_have(&to.address) {
            format!("{} may be a service's", to.ip())
        } else {
            format!("{} is no service's, so that none is looked up", to.ip())
        };
        let mut features = Vec::new();
        features.extend((settings.features & RETURNS != 0).then_some("NAT backends"));
        features.extend((settings.features & ANY_PORT != 0).then_some("services on any port"));
        if features.is_empty() { known } else { format!("{known}; there are {}", features.join(" and ")) }
    }

    fn service(&self, endpoint: &Endpoint, found: Option<&Service>, notes: &mut Vec<String>) -> String {
        let place = place(endpoint);
        let Some(service) = found else { return format!("none at {place}") };
        let name = self.service_name(endpoint);
        let id = self.run.tables.service_ids.get(endpoint).copied().unwrap_or(service.id);
        if id != service.id {
            notes.push(format!("the entry of {place} leads to service {id}, which says that it is {}", service.id));
        }
        let Region { first, slots } = Region::from_word(service.region);
        if service.flags & DNS != 0 {
            return match slots {
                0 => format!("{name} at {place}, without answers in the kernel"),
                _ => format!("{name} at {place}, index of {slots} bucket(s) from block {first}"),
            };
        }
        match slots {
            0 => format!("{name} at {place}, without a slot table: no backend serves"),
            _ => format!("{name} at {place}, {slots} slots from {first}"),
        }
    }

    fn service_name(&self, endpoint: &Endpoint) -> String {
        let named = self.names.services.iter().find(|service| service.endpoint == *endpoint);
        let is_dns = || self.names.dns.contains(&address(endpoint));
        match named {
            Some(service) => service.name.clone(),
            None if is_dns() => "a DNS address".into(),
            None => "a service that is not in the config".into(),
        }
    }

    fn slot(&self, index: u32, found: Option<Slot>) -> String {
        let first = self.run.steps.iter().rev().find_map(|step| match step {
            Step::Service(_, Some(service)) => Some(Region::from_word(service.region)),
            _ => None,
        });
        let number = first.map_or(index, |region| index.wrapping_sub(region.first));
        let Some(Slot { current, previous }) = found else { return format!("{number} is beyond the slot space") };
        let current = self.backend(current);
        match previous {
            CLEAN => format!("{number}: {current}"),
            CLOSED => format!("{number}: {current}; has changed, tracked flows may be elsewhere"),
            previous => {
                let previous = self.backend(previous);
                format!("{number}: {current} for new flows; has just changed, other flows belong to {previous}")
            }
        }
    }

    fn flow(&self, found: Option<Tracked>) -> String {
        let Some(Tracked { backend, seen, closing }) = found else { return "not tracked here".into() };
        let ago = (self.run.tables.seconds as u32 & 0x7fff_ffff).wrapping_sub(seen) & 0x7fff_ffff;
        let closing = if closing { ", which its client has ended" } else { "" };
        format!("tracked at {}, last seen {ago} s ago{closing}", self.backend(backend))
    }

    /// A backend, by an id that leads to it.
    fn backend(&self, id: u32) -> String {
        match self.run.tables.backends.get(&id) {
            Some(backend) if backend.flags & IN_USE != 0 => address(&backend.own).to_string(),
            _ if id == NOBODY => "no backend".into(),
            _ => format!("backend {id}, which does not exist"),
        }
    }

    fn backend_found(&self, id: u32, found: Option<&Backend>, notes: &mut Vec<String>) -> String {
        let Some(backend) = found.filter(|backend| backend.flags & IN_USE != 0) else { return self.backend(id) };
        if address(&backend.own).ip() != self.asked.from.ip() && !serves(backend, &self.asked.to) {
            notes.push(format!(
                "{} is a backend of {} at {}, not of {}",
                address(&backend.own),
                self.service_name(&backend.service),
                place(&backend.service),
                place(&self.asked.to)
            ));
        }
        let mode = match backend.flags & (NAT | TUNNEL4 | TUNNEL6) {
            0 => "dsr",
            NAT => "nat",
            _ => "tunnel",
        };
        let state = match backend.flags {
            flags if flags & DOWN != 0 => ", down",
            flags if flags & DRAINING != 0 => ", draining",
            _ => "",
        };
        format!("{} ({mode}{state}), by interface {}", address(&backend.own), self.interface(backend.interface))
    }

    fn interface(&self, index: u32) -> String {
        self.names.interfaces.get(&index).cloned().unwrap_or_else(|| format!("number {index}"))
    }

    fn dns(&self, found: Option<&DnsSettings>) -> String {
        let Some(dns) = found else { return "no settings".into() };
        let mut parts = Vec::new();
        if dns.features & LEASED != 0 {
            parts.push(match dns.lease_until.checked_sub(self.run.tables.seconds) {
                Some(left) => format!("lease for another {left} s"),
                None => "the agent's lease is over".into(),
            });
        }
        parts.extend((dns.features & COOKIES != 0).then(|| "cookies".into()));
        parts.extend((dns.features & LIMITED != 0).then(|| "limited rates".into()));
        if parts.is_empty() { "neither lease, cookies nor limits".into() } else { parts.join(", ") }
    }

    fn bucket(&self, block: u32, found: Option<&Bucket>) -> String {
        let Some(bucket) = found else { return format!("bucket at block {block}: beyond the answer space") };
        let taken = bucket.iter().filter(|entry| entry.leads != 0).count();
        let Some(Leads { block: to, slots, pick, dnssec, generation }) = self.leads(bucket) else {
            return format!("bucket at block {block}: not this question ({taken} of {} places taken)", bucket.len());
        };
        let which = match dnssec {
            1 => ", for questions without DO",
            2 => ", for questions with DO",
            _ => "",
        };
        let pick = match pick {
            Pick::Only => "always the same",
            Pick::Turn => "in turn",
            Pick::Random => "by chance",
            Pick::Client => "by the client's prefix",
        };
        match slots {
            0 => format!("bucket at block {block}: the body at block {to}, generation {generation}, {pick}{which}"),
            _ => format!("bucket at block {block}: one of {slots} slots from block {to} on, {pick}{which}"),
        }
    }

    /// Where a bucket leads for the question.
    fn leads(&self, bucket: &Bucket) -> Option<Leads> {
        let Payload::Dns(question) = &self.asked.payload else { return None };
        let settings = self.run.tables.settings.as_ref()?;
        let name = name_hash(&settings.keys, &message::name_words(&question.wire))?;
        let hash = question_hash(name, u32::from(question.kind) | u32::from(IN) << 16);
        let wanted = if question.dnssec { 2 } else { 1 };
        let of_question = bucket.iter().filter(|entry| entry.question == hash && entry.leads != 0);
        of_question.map(|entry| Leads::from_word(entry.leads)).find(|leads| leads.dnssec & wanted != 0)
    }

    /// A sequence is of each CPU; this is the first one's.
    fn turn(&self, after: u32) -> String {
        let mut buckets = self.run.steps.iter().rev().filter_map(|step| match step {
            Step::Bucket(_, Some(bucket)) => self.leads(bucket),
            _ => None,
        });
        match buckets.next().map(|leads| leads.pick) {
            Some(Pick::Turn) => {
                format!("number {} on the first CPU; others count by themselves", (after & 0xffff).saturating_sub(1))
            }
            _ => "drawn on the first CPU; others draw by themselves".into(),
        }
    }

    fn body(&self, block: u32, body: &message::Body) -> String {
        let message::Body { head, question, records } = body;
        let kind = match head.class {
            class if class & CACHED != 0 => match head.spent_at.checked_sub(self.run.tables.seconds) {
                Some(left) => format!("another server's, for another {left} s"),
                None => "another server's, spent".into(),
            },
            class if class & NEGATIVE != 0 => "that there is nothing".into(),
            _ => "ours".into(),
        };
        let rotated = if head.turns > 1 { format!(", {} of them rotated", head.turns) } else { String::new() };
        let (generation, count) = (head.generation, records.len());
        format!("at block {block}: {question}, generation {generation}, {kind}, {count} record(s){rotated}")
    }

    /// Says how a body is not the one that is led to.
    fn compare(&self, body: &message::Body, notes: &mut Vec<String>) {
        let Payload::Dns(question) = &self.asked.payload else { return };
        let asked = message::asked(&question.wire.to_ascii_lowercase(), question.kind);
        if body.question != asked {
            notes.push(format!("the body is for {}, not for {asked}", body.question));
        }
        let generation = self.run.steps.iter().rev().find_map(|step| match step {
            Step::AnswerSlot(_, _, Some(slot)) => Some(slot.generation),
            Step::Bucket(_, Some(bucket)) => self.leads(bucket).map(|leads| leads.generation),
            _ => None,
        });
        if let Some(generation) = generation.filter(|generation| *generation != body.head.generation) {
            let found = body.head.generation;
            notes.push(format!("what leads to the body names its generation {generation}, and it has {found}"));
        }
    }

    fn receiver(&self) -> Option<String> {
        let words = self.run.frame.head::<Addresses>()?.get();
        let bytes = ethernet::parts(words).0;
        Some(bytes.map(|byte| format!("{byte:02x}")).join(":"))
    }

    fn reply(&self) -> Option<Reply> {
        let Payload::Dns(_) = self.asked.payload else { return None };
        let network = if self.asked.from.ip().is_ipv4() { Ipv4::LEN } else { Ipv6::LEN };
        self.run.frame.bytes().get(Ethernet::LEN + network + Udp::LEN..).map(message::reply)
    }
}

/// Whether packets to `to` can be this backend's.
fn serves(backend: &Backend, to: &Endpoint) -> bool {
    backend.service == *to || backend.service == to.without_port()
}

const fn table_name(table: FlowTable) -> &'static str {
    match table {
        FlowTable::Established => "flow",
        FlowTable::HalfOpen => "new flow",
    }
}

fn address(endpoint: &Endpoint) -> SocketAddr {
    SocketAddr::new(endpoint.ip(), endpoint.port())
}

/// An endpoint with its protocol.
fn place(endpoint: &Endpoint) -> String {
    let protocol = if endpoint.protocol() == TCP { "tcp" } else { "udp" };
    match endpoint.port() {
        0 => format!("{} {protocol}, any port", endpoint.ip()),
        _ => format!("{} {protocol}", address(endpoint)),
    }
}

fn tokens(before: u64, after: u64) -> String {
    /// What a token is in a bucket.
    const TOKEN: u64 = 1_000_000_000 >> 20;
    let left = (after >> 32) / TOKEN;
    if before == 0 { format!("full before; {left} would be left") } else { format!("{left} would be left") }
}
