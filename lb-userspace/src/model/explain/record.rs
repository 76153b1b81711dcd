//! Tables that note what they are asked for.

use lb_common::{
    host::HostTables,
    tables::{
        Address, Backend, CLOSED, Endpoint, FlowKey, FlowTable, Fragment, FragmentKey, Interface, Route, ScratchWork,
        Service, Settings, Slot, Tables, Tracked,
        answers::{AnswerSlot, BODY_WORDS, Bucket, DnsSettings, SHOWN_WORDS},
    },
    verdict::Why,
};
use std::cell::{Cell, RefCell};

/// What the tables can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// See [`Tables::settings`].
    Settings,
    /// See [`Tables::interface`]; one that frames can't leave by counts as none.
    Interface(u32),
    /// See [`Tables::answers_for`].
    Address(Address),
    /// See [`Tables::service`].
    Service(Endpoint),
    /// See [`Tables::slot`].
    Slot(u32),
    /// See [`Tables::with_flow`].
    Flow(FlowTable, FlowKey),
    /// See [`Tables::backend`].
    Backend(u32),
    /// See [`Tables::returning`].
    Returning(Endpoint),
    /// See [`Tables::dns`].
    Dns,
    /// See [`Tables::bucket`].
    Bucket(u32),
    /// See [`Tables::answer_slot`].
    AnswerSlot(u32, u32),
    /// See [`Tables::body`].
    Body(u32),
    /// See [`Tables::with_turn`].
    Turn(u32),
    /// See [`Tables::with_tokens`].
    Tokens(u32),
}

/// A look-up with what it found, or a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// What holds for every packet.
    Settings(Option<Box<Settings>>),
    /// An interface.
    Interface(u32),
    /// An address on the link.
    Address(Address),
    /// A service.
    Service(Endpoint, Option<Service>),
    /// A slot.
    Slot(u32, Option<Slot>),
    /// A flow as it was.
    Flow(FlowTable, FlowKey, Option<Tracked>),
    /// A flow would be tracked.
    Track(FlowTable, Tracked),
    /// A backend.
    Backend(u32, Option<Backend>),
    /// The backend that a reply comes from.
    Returning(Endpoint, Option<u32>),
    /// The kernel's routing would be asked.
    Route(Endpoint),
    /// What holds for every question.
    Dns(Option<DnsSettings>),
    /// A bucket of the index.
    Bucket(u32, Option<Bucket>),
    /// A slot of a table of answers.
    AnswerSlot(u32, u32, Option<AnswerSlot>),
    /// A body.
    Body(u32, Option<Box<[u64; BODY_WORDS]>>),
    /// A sequence of turns, after it went on.
    Turn(u32, u32),
    /// A bucket of tokens, before and after.
    Tokens(u32, u64, u64),
    /// A packet would be counted for a backend.
    Forwarded(u32),
}

impl Step {
    /// What was asked for, if it was.
    pub const fn key(&self) -> Option<Key> {
        Some(match self {
            Self::Settings(_) => Key::Settings,
            Self::Interface(index) => Key::Interface(*index),
            Self::Address(address) => Key::Address(*address),
            Self::Service(endpoint, _) => Key::Service(*endpoint),
            Self::Slot(index, _) => Key::Slot(*index),
            Self::Flow(table, key, _) => Key::Flow(*table, *key),
            Self::Backend(id, _) => Key::Backend(*id),
            Self::Returning(own, _) => Key::Returning(*own),
            Self::Dns(_) => Key::Dns,
            Self::Bucket(block, _) => Key::Bucket(*block),
            Self::AnswerSlot(block, number, _) => Key::AnswerSlot(*block, *number),
            Self::Body(block, _) => Key::Body(*block),
            Self::Turn(row, ..) => Key::Turn(*row),
            Self::Tokens(bucket, ..) => Key::Tokens(*bucket),
            Self::Track(..) | Self::Route(_) | Self::Forwarded(_) => return None,
        })
    }

    /// Ids of the backends that it names.
    pub fn backends(&self) -> Vec<u32> {
        match self {
            Self::Slot(_, Some(Slot { current, previous })) if *previous < CLOSED => vec![*current, *previous],
            Self::Slot(_, Some(Slot { current, .. })) => vec![*current],
            Self::Flow(_, _, Some(flow)) | Self::Track(_, flow) => vec![flow.backend],
            Self::Returning(_, Some(id)) => vec![*id],
            _ => Vec::new(),
        }
    }
}

/// Tables that note what they are asked for, in order.
pub struct Recorder<'t> {
    tables: &'t HostTables,
    steps: RefCell<Vec<Step>>,
}

impl<'t> Recorder<'t> {
    /// In front of these.
    pub const fn new(tables: &'t HostTables) -> Self {
        Self { tables, steps: RefCell::new(Vec::new()) }
    }

    /// What was noted.
    pub fn steps(self) -> Vec<Step> {
        self.steps.into_inner()
    }

    fn note(&self, step: Step) {
        self.steps.borrow_mut().push(step);
    }
}

impl Tables for Recorder<'_> {
    fn settings(&self) -> Option<&Settings> {
        let found = self.tables.settings();
        self.note(Step::Settings(found.copied().map(Box::new)));
        found
    }

    fn interface(&self, index: u32) -> Option<&Interface> {
        self.note(Step::Interface(index));
        self.tables.interface(index)
    }

    fn answers_for(&self, address: &Address) -> u64 {
        self.note(Step::Address(*address));
        self.tables.answers_for(address)
    }

    fn service(&self, endpoint: &Endpoint) -> Option<&Service> {
        let found = self.tables.service(endpoint);
        self.note(Step::Service(*endpoint, found.copied()));
        found
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        let found = self.tables.slot(index);
        self.note(Step::Slot(index, found));
        found
    }

    fn with_flow<R>(&self, table: FlowTable, key: &FlowKey, work: impl FnOnce(&Cell<u64>) -> R) -> Option<R> {
        let result = self.tables.with_flow(table, key, |word| {
            self.note(Step::Flow(table, *key, Some(Tracked::from_word(word.get()))));
            work(word)
        });
        if result.is_none() {
            self.note(Step::Flow(table, *key, None));
        }
        result
    }

    fn track(&self, table: FlowTable, key: &FlowKey, flow: Tracked) {
        self.note(Step::Track(table, flow));
        self.tables.track(table, key, flow);
    }

    fn forget(&self, table: FlowTable, key: &FlowKey) {
        self.tables.forget(table, key);
    }

    // A packet that is asked about is whole.
    fn fragment(&self, key: &FragmentKey) -> Option<Fragment> {
        self.tables.fragment(key)
    }

    fn remember(&self, key: &FragmentKey, fragment: Fragment) {
        self.tables.remember(key, fragment);
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        let found = self.tables.backend(id);
        self.note(Step::Backend(id, found.copied()));
        found
    }

    fn returning(&self, own: &Endpoint) -> Option<u32> {
        let found = self.tables.returning(own);
        self.note(Step::Returning(*own, found));
        found
    }

    fn route(&self, _: u32, _: &Endpoint, to: &Endpoint, _: u16) -> Route {
        self.note(Step::Route(*to));
        Route::Stack
    }

    fn dns(&self) -> Option<&DnsSettings> {
        let found = self.tables.dns();
        self.note(Step::Dns(found.copied()));
        found
    }

    fn bucket(&self, block: u32) -> Option<&Bucket> {
        let found = self.tables.bucket(block);
        self.note(Step::Bucket(block, found.copied()));
        found
    }

    fn answer_slot(&self, block: u32, number: u32) -> Option<AnswerSlot> {
        let found = self.tables.answer_slot(block, number);
        self.note(Step::AnswerSlot(block, number, found));
        found
    }

    fn body(&self, block: u32) -> Option<&[u64; BODY_WORDS]> {
        let found = self.tables.body(block);
        self.note(Step::Body(block, found.copied().map(Box::new)));
        found
    }

    fn once(&self, word: &u64) -> u64 {
        self.tables.once(word)
    }

    fn with_turn<R>(&self, row: u32, work: impl FnOnce(&Cell<u32>) -> R) -> Option<R> {
        self.tables.with_turn(row, |word| {
            let result = work(word);
            self.note(Step::Turn(row, word.get()));
            result
        })
    }

    fn with_tokens<R>(&self, bucket: u32, work: impl FnOnce(&Cell<u64>) -> R) -> Option<R> {
        self.tables.with_tokens(bucket, |word| {
            let before = word.get();
            let result = work(word);
            self.note(Step::Tokens(bucket, before, word.get()));
            result
        })
    }

    /// Changes no way: what is not known is found out anew.
    fn with_shown<R>(&self, row: u32, work: impl FnOnce(&[Cell<u64>; SHOWN_WORDS]) -> R) -> Option<R> {
        self.tables.with_shown(row, work)
    }

    fn sample(&self, question: u64) {
        self.tables.sample(question);
    }

    fn seconds(&self) -> u64 {
        self.tables.seconds()
    }

    fn nanoseconds(&self) -> u64 {
        self.tables.nanoseconds()
    }

    fn with_scratch<W: ScratchWork>(&self, work: W) -> Option<W::Output> {
        self.tables.with_scratch(work)
    }

    fn forwarded(&self, backend: u32, bytes: u64) {
        self.note(Step::Forwarded(backend));
        self.tables.forwarded(backend, bytes);
    }

    fn count(&self, why: Why) {
        self.tables.count(why);
    }
}
