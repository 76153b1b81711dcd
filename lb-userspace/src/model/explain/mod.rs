//! What the path does with a packet, told without sending one: the real [`steer`] runs on a copy of what it asks for.
//!
//! The tables are far too large to be copied whole. So a run notes what it asked for; that is read, and the packet goes its way once
//! more, until it asks for nothing new. What a run writes (flows, turns, tokens) stays in its own copy.

mod frame;
mod message;
mod question;
mod record;
mod told;

pub use question::{Ask, Protocol};
pub use record::Key;
pub use told::{Explanation, Reply, Told};

use super::intent::Service;
use lb_common::{
    host::{Buffer, HostTables},
    path::steer,
    tables::NOBODY,
    verdict::Verdict,
};
use record::{Recorder, Step};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};
use thiserror::Error;

/// A path has a few look-ups, each of which can lead to another: about ten. More than this and the tables change all the time.
const RUNS: usize = 64;
/// Room for a reply on both sides of a frame, more than any needs.
const ROOM: usize = 2_048;
/// Nobody's index: what leaves does so by an interface that is named, whichever the packet came in by.
const NO_INTERFACE: u32 = 0;

/// Why nothing can be explained.
#[derive(Debug, Error)]
pub enum ExplainError<E> {
    /// No such packet can be made.
    #[error(transparent)]
    Ask(#[from] question::AskError),
    /// The tables can't be read.
    #[error(transparent)]
    Read(E),
    /// It does not come to an end.
    #[error("the tables change faster than they can be read; try again")]
    Restless,
}

/// What names are taken from.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The services of the config.
    pub services: &'a [Service],
    /// Where DNS questions are answered.
    pub dns: &'a [SocketAddr],
    /// Interfaces by their indexes.
    pub interfaces: &'a BTreeMap<u32, String>,
}

/// The last run of the path.
struct Run {
    steps: Vec<Step>,
    verdict: Verdict,
    frame: Buffer,
    /// What it was run on.
    tables: HostTables,
}

/// Finds out what the path does with a packet. `now` is the time of its clock; `read` puts what a key stands for into the tables.
pub fn explain<E>(
    ask: &Ask,
    now: Duration,
    names: &Names<'_>,
    mut read: impl FnMut(&Key, &mut HostTables) -> Result<(), E>,
) -> Result<Explanation, ExplainError<E>> {
    let asked = ask.asked(names.dns)?;
    let bytes = frame::frame(&asked);
    let mut tables = HostTables::default();
    (tables.seconds, tables.nanoseconds) = (now.as_secs(), now.subsec_nanos().into());
    let mut known = BTreeSet::new();
    for _ in 0..RUNS {
        let mut run = run(&bytes, &tables);
        let keys = run.steps.iter().filter_map(Step::key).filter(|key| !known.contains(key));
        let new: BTreeSet<Key> = keys.collect();
        for key in &new {
            read(key, &mut tables).map_err(ExplainError::Read)?;
        }
        if new.is_empty() {
            // Not asked for, but named.
            let backends = run.steps.iter().flat_map(Step::backends).filter(|id| *id < NOBODY).map(Key::Backend);
            let leaves_by = match run.verdict {
                Verdict::Redirect(_, index) => Some(Key::Interface(index)),
                _ => None,
            };
            for key in backends.chain(leaves_by).collect::<BTreeSet<_>>().difference(&known) {
                read(key, &mut run.tables).map_err(ExplainError::Read)?;
            }
            return Ok(told::tell(&asked, &run, names));
        }
        known.extend(new);
    }
    Err(ExplainError::Restless)
}

fn run(bytes: &[u8], tables: &HostTables) -> Run {
    let mut frame = Buffer::new(bytes, NO_INTERFACE, ROOM, ROOM);
    let tables = tables.clone();
    let recorder = Recorder::new(&tables);
    let verdict = steer(&mut frame, &recorder);
    Run { steps: recorder.steps(), verdict, frame, tables }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        answers::image::{Image, with_generation},
        dns::rendered::{Body, Question, Rendered},
    };
    use lb_common::{
        hash::Keys,
        path::answer::name_hash,
        tables::{
            Backend, CLOSED, DNS, Endpoint, FlowKey, FlowTable, Interface, Known, LAYOUT, Region, Service, Settings,
            Slot, Tables as _, Tracked,
            answers::{Bucket, DnsSettings, Entry, Leads, Pick, question_hash},
        },
        wire::transport::{TCP, UDP},
    };
    use std::convert::Infallible;

    const KEYS: Keys = Keys { flow: [1, 2, 3], multiplier: 5, name: 7 };
    const ETH: u32 = 3;

    fn endpoint(address: &str, protocol: u8) -> Endpoint {
        let address: SocketAddr = address.parse().unwrap();
        Endpoint::new(address.ip(), protocol, address.port())
    }

    /// What the kernel holds: a service whose one slot has changed, and a DNS address with one answer.
    fn kernel() -> HostTables {
        let mut tables = HostTables::default();
        tables.settings = Some(Settings { layout: LAYOUT, keys: KEYS, features: 0, known: Known::ALL });
        let service = endpoint("192.0.2.10:80", TCP);
        tables.service_ids.insert(service, 4);
        tables.services.insert(4, Service { region: Region { first: 9, slots: 1 }.word(), flags: 0, id: 4 });
        tables.slots.insert(9, Slot { current: 1, previous: CLOSED });
        for (id, own) in [(1, "10.0.0.1:80"), (2, "10.0.0.2:80")] {
            let backend =
                Backend::new(endpoint(own, TCP), service, 0).via(ETH, [2, 0, 0, 0, 0, id as u8], [4; 6], 1500);
            tables.backends.insert(id, backend);
        }
        tables.interfaces.insert(ETH, Interface { mac: [4; 6], zero: [0; 2] });

        let dns = endpoint("192.0.2.53:53", UDP);
        tables.service_ids.insert(dns, 5);
        tables.services.insert(5, Service { region: Region { first: 0, slots: 1 }.word(), flags: DNS, id: 5 });
        tables.dns = Some(DnsSettings { features: 0, ..bytemuck::Zeroable::zeroed() });
        let wire = message::wire("www.example.com").unwrap();
        let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, 1];
        let body =
            Body { flags: 0x8400, counts: [1, 0, 0], records: record.into(), spent_at: u64::MAX, ..Body::default() };
        let rendered = Rendered { pick: Pick::Only, slots: vec![], bodies: vec![body] };
        let question = Question { wire: wire.as_slice().into(), kind: 0x1_0001 };
        let image = Image::new(&question, &rendered).unwrap();
        tables.answers.write(1, &with_generation(image.bodies().next().unwrap(), 7));
        let hash = question_hash(name_hash(&KEYS, &message::name_words(&wire)).unwrap(), 0x1_0001);
        let leads = Leads { block: 1, slots: 0, pick: Pick::Only, dnssec: 3, generation: 7 };
        let bucket: Bucket =
            [Entry { question: hash, leads: leads.word() }, Entry::default(), Entry::default(), Entry::default()];
        tables.answers.write(0, &bytemuck::cast::<_, [u64; 8]>(bucket));
        tables
    }

    /// As the kernel's maps are read: one thing at a time. What was read is kept.
    fn look(kernel: &HostTables, ask: &str, read: &mut Vec<Key>) -> Explanation {
        let interfaces = [(ETH, "eth0".to_owned())].into();
        let names = Names { services: &[], dns: &["192.0.2.53:53".parse().unwrap()], interfaces: &interfaces };
        let copy = |key: &Key, tables: &mut HostTables| {
            read.push(*key);
            match *key {
                Key::Settings => tables.settings = kernel.settings,
                Key::Service(endpoint) => {
                    tables.service_ids.extend(kernel.service_ids.get(&endpoint).map(|id| (endpoint, *id)));
                    tables.services.extend(kernel.service(&endpoint).map(|service| (service.id, *service)));
                }
                Key::Slot(index) => tables.slots.extend(kernel.slot(index).map(|slot| (index, slot))),
                Key::Backend(id) => tables.backends.extend(kernel.backend(id).map(|backend| (id, *backend))),
                Key::Flow(table, key) => {
                    let word = kernel.with_flow(table, &key, |word| word.get());
                    word.into_iter().for_each(|word| tables.track(table, &key, Tracked::from_word(word)));
                }
                Key::Interface(index) => tables.interfaces.extend(kernel.interface(index).map(|found| (index, *found))),
                Key::Dns => tables.dns = kernel.dns,
                Key::Bucket(block) => {
                    let words: Option<[u64; 8]> = kernel.bucket(block).map(|bucket| bytemuck::cast(*bucket));
                    words.into_iter().for_each(|words| tables.answers.write(block, &words));
                }
                Key::Body(block) => kernel.body(block).into_iter().for_each(|body| tables.answers.write(block, body)),
                _ => (),
            }
            Ok::<_, Infallible>(())
        };
        explain(&serde_json::from_str(ask).unwrap(), Duration::from_secs(1_000), &names, copy).unwrap()
    }

    const FLOW: &str = r#"{"what":"flow","client":"198.51.100.1:40000","service":"192.0.2.10:80","protocol":"tcp"}"#;
    const QUESTION: &str =
        r#"{"what":"dns","name":"WWW.example.com","kind":1,"client":"198.51.100.1:40000","size":1232}"#;

    #[test]
    fn a_flow_is_followed_to_where_it_is_tracked() {
        let kernel = kernel();
        let mut read = Vec::new();
        let explanation = look(&kernel, FLOW, &mut read);
        assert_eq!((explanation.verdict.as_str(), explanation.why.as_str()), ("redirect", "forwarded_dsr"));
        assert_eq!(explanation.backend, Some("10.0.0.1:80".parse().unwrap()));
        assert_eq!(
            (explanation.interface.as_deref(), explanation.receiver.as_deref()),
            (Some("eth0"), Some("02:00:00:00:00:01"))
        );
        assert_eq!(explanation.notes, Vec::<String>::new());
        let only_once: BTreeSet<_> = read.iter().collect();
        assert_eq!(only_once.len(), read.len());

        let key = FlowKey::new(&endpoint("198.51.100.1:40000", TCP), &endpoint("192.0.2.10:80", TCP), 4);
        kernel.track(FlowTable::Established, &key, Tracked { backend: 2, seen: 990, closing: false });
        let explanation = look(&kernel, FLOW, &mut Vec::new());
        assert_eq!(explanation.backend, Some("10.0.0.2:80".parse().unwrap()));
        let flow = explanation.steps.iter().find(|step| step.what == "flow").unwrap();
        assert_eq!(flow.found, "tracked at 10.0.0.2:80, last seen 10 s ago");
        assert_eq!((kernel.flows().len(), kernel.counts().len(), kernel.traffic().len()), (1, 0, 0));
    }

    #[test]
    fn tables_that_contradict_each_other_are_shown() {
        let mut kernel = kernel();
        kernel.slots.insert(9, Slot::clean(77));
        let explanation = look(&kernel, FLOW, &mut Vec::new());
        assert_eq!((explanation.verdict.as_str(), explanation.why.as_str()), ("pass", "inconsistent"));
        let slot = explanation.steps.iter().find(|step| step.what == "slot").unwrap();
        assert_eq!(slot.found, "0: backend 77, which does not exist");

        let other = endpoint("192.0.2.99:80", TCP);
        kernel.backends.insert(77, Backend::new(endpoint("10.0.0.9:80", TCP), other, 0).via(8, [2; 6], [4; 6], 1500));
        let explanation = look(&kernel, FLOW, &mut Vec::new());
        assert_eq!(explanation.backend, Some("10.0.0.9:80".parse().unwrap()));
        let [of_another, no_program] = explanation.notes.as_slice() else { unreachable!("{explanation:?}") };
        assert!(of_another.contains("192.0.2.99:80 tcp, not of 192.0.2.10:80 tcp"), "{of_another}");
        assert!(no_program.contains("interface number 8"), "{no_program}");
    }

    #[test]
    fn a_question_is_answered_as_the_kernel_would() {
        let mut kernel = kernel();
        let explanation = look(&kernel, QUESTION, &mut Vec::new());
        assert_eq!((explanation.verdict.as_str(), explanation.why.as_str()), ("transmit", "answered"));
        let reply = explanation.reply.unwrap();
        assert_eq!(
            (reply.status.as_str(), reply.flags.as_slice()),
            ("NOERROR", ["aa", "rd"].map(String::from).as_slice())
        );
        assert_eq!(reply.answers, ["WWW.example.com. 30 IN A 192.0.2.1"]);
        assert_eq!(explanation.notes, Vec::<String>::new());

        let head: u64 =
            bytemuck::pod_read_unaligned(bytemuck::bytes_of(kernel.body(1).unwrap()).first_chunk::<8>().unwrap());
        kernel.answers.write(1, &[head ^ 1 << 32]);
        let explanation = look(&kernel, QUESTION, &mut Vec::new());
        assert_eq!((explanation.verdict.as_str(), explanation.why.as_str()), ("pass", "dns_miss"));
        assert_eq!(explanation.notes, ["what leads to the body names its generation 7, and it has 6"]);
    }
}
