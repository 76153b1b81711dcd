//! Answers through plans: between any two stores, a client that asks gets the answer of before or that of after, whole, and none
//! only where one of them is none. What may still be read is not written.

use crate::{readable, world::limits};
use bytemuck::Zeroable as _;
use lb_common::{
    frame::Frame as _,
    hash::Keys,
    host::{Buffer, HostTables},
    path::steer,
    tables::{
        Endpoint, Region, Settings, Tables as _,
        answers::{BLOCK_WORDS, DnsSettings, Entry, Pick},
    },
    verdict::{Verdict, Why},
};
use lb_userspace::model::{
    actual::Actual,
    answers::{pages::Run, wanted::Answers},
    desired::{Desired, Wanted},
    dns::rendered::{Body, Question, Rendered},
    host,
    intent::Limits,
    op::Op,
    plan::plan,
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

const KEYS: Keys = Keys { flow: [1, 2, 3], multiplier: 5, name: 0x1234_5678_9abc_def1 };
const CLASS_IN: u32 = 1 << 16;

pub fn question(number: u64) -> Question {
    let label = format!("{number}");
    let wire = [&[label.len() as u8][..], label.as_bytes(), b"\x07example\0"].concat();
    Question { wire: wire.into(), kind: CLASS_IN | 1 }
}

/// An answer of one shape of several, with its version in every address.
pub fn rendered(version: u8, shape: u8) -> Rendered {
    let record = |number: u8| [&b"\xc0\x0c\0\x01\0\x01\0\0\0\x1e\0\x04"[..], &[10, version, shape, number]].concat();
    let body = |numbers: std::ops::Range<u8>, turns| Body {
        flags: 0x8400,
        counts: [numbers.len() as u16, 0, 0],
        records: numbers.flat_map(record).collect(),
        turns,
        spent_at: u64::MAX,
        ..Body::default()
    };
    let only = |body| Rendered { pick: Pick::Only, slots: vec![], bodies: vec![body] };
    match shape {
        0 => only(body(0..1, 0)),
        1 => Rendered { pick: Pick::Turn, ..only(body(0..4, 4)) },
        2 => only(body(0..25, 0)),
        3 => Rendered {
            pick: Pick::Turn,
            slots: (0..17).map(|slot| slot % 3).collect(),
            bodies: (0..3).map(|number| body(number..number + 1, 0)).collect(),
        },
        // Too long to be rotated by the path.
        4 => Rendered { pick: Pick::Random, ..only(body(0..50, 50)) },
        _ => Rendered {
            pick: Pick::Client,
            slots: (0..251).map(|slot| slot % 7).collect(),
            bodies: (0..7).map(|number| body(number..number + 1, 0)).collect(),
        },
    }
}

fn address(number: u8) -> Endpoint {
    Endpoint::new([192, 0, 2, number].into(), 17, 53)
}

/// Asks at this address: the addresses of the answer.
fn ask(tables: &HostTables, to: Endpoint, question: &Question) -> Option<Vec<[u8; 4]>> {
    let message = [
        &[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1][..],
        &question.wire,
        &(question.kind as u16).to_be_bytes(),
        &[0, 1],
        &[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0],
    ]
    .concat();
    let udp = (message.len() as u16 + 8).to_be_bytes();
    let ip = (message.len() as u16 + 28).to_be_bytes();
    let std::net::IpAddr::V4(to) = to.ip() else { panic!("IPv4") };
    let frame = [
        &[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0][..],
        &ip,
        &[0, 0, 0, 0, 64, 17, 0, 0, 198, 51, 100, 7],
        &to.octets(),
        &[0x30, 0x39, 0, 53],
        &udp,
        &[0, 0],
        &message,
    ]
    .concat();
    let mut buffer = Buffer::new(&frame, 1, 256, 2_048);
    match steer(&mut buffer, tables) {
        Verdict::Pass(Why::DnsMiss) => return None,
        Verdict::Transmit(Why::Answered | Why::AnsweredNegative) => (),
        verdict => panic!("{verdict:?}"),
    }
    let reply = &buffer.bytes()[42..];
    assert_eq!(buffer.len(), buffer.bytes().len());
    let count = usize::from(u16::from_be_bytes([reply[6], reply[7]]));
    let records = &reply[16 + question.wire.len()..][..count * 16];
    Some(records.chunks(16).map(|record| record[12..].try_into().unwrap()).collect())
}

/// Which version that is; all of one answer are of one, and each address is there once.
fn version(answer: Option<Vec<[u8; 4]>>) -> Option<(u8, u8)> {
    let answer = answer?;
    let versions: BTreeSet<_> = answer.iter().map(|[_, version, shape, _]| (*version, *shape)).collect();
    assert!(versions.len() <= 1, "a mixture: {answer:?}");
    let numbers: BTreeSet<_> = answer.iter().map(|[.., number]| *number).collect();
    assert_eq!(numbers.len(), answer.len(), "an address is twice in an answer");
    let version = versions.into_iter().next().unwrap_or((0, 0));
    let expected = match version.1 {
        1 => 4,
        2 => 25,
        4 => 50,
        _ => usize::from(!answer.is_empty()),
    };
    assert_eq!(answer.len(), expected);
    Some(version)
}

struct World {
    tables: HostTables,
    actual: Actual,
    desired: Desired,
    /// What was answered before and is to be answered now.
    before: BTreeMap<u64, (u8, u8)>,
    after: BTreeMap<u64, (u8, u8)>,
    /// What could be read since the last grace period.
    seen: BTreeSet<Run>,
    /// All answers of some question may be missing: the kernel has no room for them.
    may_be_left: bool,
}

impl World {
    fn new(limits: Limits) -> Self {
        let dns = Some(DnsSettings { lease_until: u64::MAX, ..DnsSettings::zeroed() });
        let mut settings = Settings { layout: 1, keys: KEYS, ..Settings::zeroed() };
        [1, 2].iter().for_each(|number| settings.known.add(&address(*number).address));
        let mut desired = Desired { settings, dns, answers: Answers::new(KEYS), ..Desired::default() };
        desired.services.insert(address(1), Wanted::Dns);
        Self {
            tables: HostTables::default(),
            actual: Actual::new(limits),
            desired,
            before: BTreeMap::new(),
            after: BTreeMap::new(),
            seen: BTreeSet::new(),
            may_be_left: false,
        }
    }

    fn put(&mut self, number: u64, version: u8, shape: u8) {
        self.desired.answers.put(&question(number), &rendered(version, shape));
        self.after.insert(number, (version, shape));
    }

    fn remove(&mut self, number: u64) {
        self.desired.answers.remove(&question(number));
        self.after.remove(&number);
    }

    /// Asks for everything at every address.
    fn look(&self) {
        for (endpoint, id) in &self.tables.service_ids {
            // One that has just come has had nothing before.
            let has_index = Region::from_word(self.tables.services[id].region).slots > 0;
            for number in 0..12 {
                let (before, after) = (self.before.get(&number).copied(), self.after.get(&number).copied());
                match version(ask(&self.tables, *endpoint, &question(number))) {
                    None => assert!(
                        before.is_none() || after.is_none() || !has_index || self.may_be_left,
                        "{number} is not answered at {endpoint:?}"
                    ),
                    found => assert!(found == before || found == after, "{number}: {found:?} {before:?} {after:?}"),
                }
            }
        }
    }

    /// Does a step store by store.
    fn step(&mut self, op: &Op) {
        match op {
            Op::PutAnswer(put) => {
                for (block, words) in &put.words {
                    self.check_free(Run { block: *block, blocks: (words.len() as u32).div_ceil(BLOCK_WORDS) });
                    for end in [words.len() / 2, words.len()] {
                        self.tables.answers.write(*block, &words[..end]);
                        self.look();
                    }
                }
                let block = put.index + put.place.bucket;
                let mut bucket = self.tables.bucket(block).copied().unwrap();
                let entry = &mut bucket[put.place.number as usize];
                assert!(entry.leads == 0 || entry.question == put.entry.question, "an entry becomes another's");
                *entry = Entry { question: put.entry.question, leads: entry.leads };
                self.tables.answers.write(block, &bytemuck::cast::<_, [u64; 8]>(bucket));
                self.look();
            }
            Op::WriteIndex { index, .. } => self.check_free(index.run()),
            _ => (),
        }
        host::apply(&mut self.tables, op);
        self.actual.record(op);
        if *op == Op::Grace {
            self.seen.clear();
        }
        self.look();
        self.seen.extend(readable::behind_indexes(&self.tables));
    }

    /// Nobody can be reading there.
    fn check_free(&self, run: Run) {
        for seen in &self.seen {
            let apart = run.block + run.blocks <= seen.block || seen.block + seen.blocks <= run.block;
            assert!(apart, "{run:?} is written while {seen:?} may be read");
        }
    }

    /// Plans and does the steps, at most so many; whether it was all.
    fn settle(&mut self, mut most: usize) -> bool {
        loop {
            let ops = plan(&self.desired, &self.actual, Duration::ZERO).unwrap();
            if ops.is_empty() {
                return true;
            }
            for op in &ops {
                if most == 0 {
                    return false;
                }
                most -= 1;
                self.step(op);
            }
        }
    }

    /// Everything is as it is wanted, at every address.
    fn check_done(&mut self) {
        self.before = self.after.clone();
        self.look();
        assert!(self.tables.service_ids.keys().eq(self.desired.services.keys()));
        let answers = self.actual.answers.held.len();
        assert_eq!(answers + self.actual.answers.left.len(), self.after.len());
        self.desired.answers.forget(self.actual.answers.reached.as_ref());
        assert_eq!(self.desired.answers.len(), self.after.len());
        for endpoint in self.desired.services.keys() {
            let found = (0..12).filter(|number| ask(&self.tables, *endpoint, &question(*number)).is_some());
            assert_eq!(found.count(), answers);
        }
        // What is held is what is taken, with the index.
        let held = self.actual.answers.held.values().flat_map(|held| held.runs.all());
        let index = self.actual.answers.index.as_ref().map(|index| index.run());
        let blocks: u64 = held.chain(&index).map(|run| u64::from(run.blocks)).sum();
        assert_eq!(self.actual.answers.room.pages.taken(), blocks);
    }

    /// Another agent finds these tables.
    fn restart(&mut self) {
        let mut actual = Actual::new(Limits::default());
        actual.settings = self.tables.settings;
        actual.dns = self.tables.dns;
        for (endpoint, id) in &self.tables.service_ids {
            let service = &self.tables.services[id];
            actual.service_ids.take(*id);
            let service =
                lb_userspace::model::actual::ActualService::new(*id, service, &[].into(), None, Duration::MAX);
            actual.services.insert(*endpoint, service);
            actual.note_service(endpoint);
        }
        actual.answers.found(readable::pages(&self.tables));
        self.actual = actual;
        self.desired.answers = self.desired.answers.clone();
    }
}

#[derive(Clone, Debug)]
enum Change {
    Put(u64, u8),
    Remove(u64),
    Addresses(u8),
    Restart,
    Replace(Vec<(u64, u8)>),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        8 => (0_u64..12, 0_u8..6).prop_map(|(number, shape)| Change::Put(number, shape)),
        4 => (0_u64..12).prop_map(Change::Remove),
        1 => (0_u8..4).prop_map(Change::Addresses),
        1 => Just(Change::Restart),
        1 => prop::collection::vec((0_u64..12, 0_u8..6), 0..8).prop_map(Change::Replace),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_reader_gets_the_old_answer_or_the_new_one(
        rounds in prop::collection::vec((prop::collection::vec(change(), 1..6), 0_usize..12), 1..8)
    ) {
        let mut world = World::new(limits());
        let mut number = 0_u8;
        for (changes, most) in rounds {
            for change in changes {
                number = number.wrapping_add(1);
                match change {
                    Change::Put(question, shape) => world.put(question, number, shape),
                    Change::Remove(question) => world.remove(question),
                    Change::Addresses(which) => {
                        for bit in 0..2 {
                            if which >> bit & 1 == 1 {
                                world.desired.services.insert(address(bit + 1), Wanted::Dns);
                            } else {
                                world.desired.services.remove(&address(bit + 1));
                            }
                        }
                    }
                    Change::Restart => world.restart(),
                    Change::Replace(all) => {
                        let all: BTreeMap<u64, (u8, u8)> = all.into_iter().map(|(question, shape)| (question, (number, shape))).collect();
                        let answers = all.iter().map(|(one, (version, shape))| (question(*one), rendered(*version, *shape)));
                        world.desired.answers.replace(answers);
                        world.after = all;
                    }
                }
            }
            // The first attempt stops somewhere, as if a step had failed.
            if !world.settle(most) {
                world.settle(usize::MAX);
            }
            if world.desired.services.is_empty() {
                world.desired.services.insert(address(1), Wanted::Dns);
                world.settle(usize::MAX);
            }
            world.check_done();
        }
    }
}

#[test]
fn what_has_no_room_is_left_to_the_agent_and_put_when_there_is() {
    let mut world = World::new(Limits { answers_megabytes: 1, ..limits() });
    world.may_be_left = true;
    let large = |number: u64| {
        let records = [&b"\xc0\x0c\0\x10\0\x01\0\0\0\x1e\x04\x00"[..], &[b'x'; 1_024]].concat();
        let body = Body { flags: 0x8400, counts: [1, 0, 0], records, spent_at: u64::MAX, ..Body::default() };
        (question(number), Rendered { pick: Pick::Only, slots: vec![], bodies: vec![body] })
    };
    // One chunk of 512 KiB has room for 63 pages of five such bodies beside the index; a negative answer is in the way.
    let mut negative = rendered(0, 0);
    negative.bodies[0].spent_at = 1_000;
    world.desired.answers.put(&question(999), &negative);
    let settle = |world: &mut World| {
        for op in plan(&world.desired, &world.actual, Duration::ZERO).unwrap() {
            host::apply(&mut world.tables, &op);
            world.actual.record(&op);
        }
    };
    settle(&mut world);
    assert_eq!((world.actual.answers.held.len(), world.actual.answers.cached.len()), (1, 1));
    for number in 100..500 {
        let (question, rendered) = large(number);
        world.desired.answers.put(&question, &rendered);
    }
    settle(&mut world);
    let placed = &world.actual.answers;
    assert_eq!((placed.held.len(), placed.left.len(), placed.cached.len()), (310, 90, 0));
    assert_eq!(plan(&world.desired, &world.actual, Duration::ZERO).unwrap(), vec![]);

    let held: Vec<Question> = placed.held.values().filter_map(|held| held.image.question()).take(10).collect();
    held.iter().for_each(|question| world.desired.answers.remove(question));
    (0..3).for_each(|_| settle(&mut world));
    let placed = &world.actual.answers;
    assert_eq!((placed.held.len(), placed.left.len()), (310, 80));
    assert_eq!(plan(&world.desired, &world.actual, Duration::ZERO).unwrap(), vec![]);
}

#[test]
fn a_change_among_many_takes_a_few_steps() {
    let mut world = World::new(limits());
    let count = 40_000;
    for number in 0..count {
        world.desired.answers.put(&question(number), &rendered(1, 0));
    }
    let mut plans = 0;
    loop {
        let ops = plan(&world.desired, &world.actual, Duration::ZERO).unwrap();
        if ops.is_empty() {
            break;
        }
        plans += 1;
        for op in &ops {
            host::apply(&mut world.tables, op);
            world.actual.record(op);
        }
    }
    assert!(plans <= 4, "{plans}");
    assert_eq!((world.actual.answers.held.len() as u64, world.actual.answers.left.len()), (count, 0));
    world.desired.answers.put(&question(7), &rendered(2, 0));
    let ops = plan(&world.desired, &world.actual, Duration::ZERO).unwrap();
    assert!(matches!(ops.as_slice(), [Op::PutAnswer(_), Op::FollowAnswers { .. }, Op::Grace]), "{ops:?}");
    for number in [0, 77, count - 1] {
        assert_eq!(version(ask(&world.tables, address(1), &question(number))), Some((1, 0)));
    }
    // Equal again, under other keys: all are made anew beside the old.
    let mut other = Answers::new(Keys { name: 99, ..KEYS });
    (0..count).for_each(|number| other.put(&question(number), &rendered(3, 0)));
    world.desired.answers = other;
    world.desired.settings.keys.name = 99;
    while let ops @ [_, ..] = plan(&world.desired, &world.actual, Duration::ZERO).unwrap().as_slice() {
        for op in ops {
            host::apply(&mut world.tables, op);
            world.actual.record(op);
        }
    }
    assert_eq!(version(ask(&world.tables, address(1), &question(7))), Some((3, 0)));
}

#[test]
fn an_index_grows_under_its_readers() {
    let mut world = World::new(limits());
    world.desired.services.insert(address(2), Wanted::Dns);
    (0..12).for_each(|number| world.put(number, 1, 1));
    assert!(world.settle(usize::MAX));
    world.check_done();
    let first = world.actual.answers.index.as_ref().unwrap().region();
    for number in 12..400 {
        world.desired.answers.put(&question(number), &rendered(1, 0));
    }
    world.put(3, 2, 3);
    assert!(world.settle(usize::MAX));
    let second = world.actual.answers.index.as_ref().unwrap().region();
    assert!(second.slots > first.slots, "{first:?} {second:?}");
    assert_eq!(world.actual.answers.held.len(), 400);
    assert_eq!(version(ask(&world.tables, address(2), &question(3))), Some((2, 3)));
}
