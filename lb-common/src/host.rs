//! Frames and tables in memory: what tests, fuzzers and user space run the path on.

use crate::{
    frame::{Frame, Header, OFFSET_MAX},
    tables::{
        Address, Backend, Endpoint, FlowKey, FlowTable, Fragment, FragmentKey, Interface, NAME_WORDS, Route, Scratch,
        ScratchWork, Service, Settings, Slot, Tables, Tracked, Traffic,
        answers::{
            ANSWER_CHUNK_BITS, ANSWER_CHUNK_WORDS, AnswerSlot, BLOCK_WORDS, BODY_WORDS, Bucket, DnsSettings,
            LIMIT_BUCKETS, SHOWN, SHOWN_WORDS, TURNS,
        },
    },
    verdict::Why,
    wire::ethernet::Ethernet,
};
use bytemuck::Zeroable;
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    net::IpAddr,
    vec,
    vec::Vec,
};

/// What the room of a [`Buffer`] is filled with.
const ROOM: u8 = 0x5a;

/// A frame in memory with room on both sides, as a driver leaves it.
#[derive(Clone, Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    reserved: usize,
    interface: u32,
}

impl Buffer {
    /// A frame that came in by `interface`, with room to grow by `head` bytes in front and `tail` behind.
    pub fn new(frame: &[u8], interface: u32, head: usize, tail: usize) -> Self {
        // Not zeros, as in a driver's memory: what grows has to be written.
        let mut bytes = vec![ROOM; head];
        bytes.extend_from_slice(frame);
        bytes.resize(head + frame.len() + tail, ROOM);
        Self { bytes, start: head, end: head + frame.len(), reserved: 0, interface }
    }

    /// The bytes of the frame.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.end).unwrap_or_default()
    }

    /// The start after growing in front.
    fn start_before(&self, by: usize) -> Option<usize> {
        let start = self.start.checked_sub(by)?;
        (start >= self.reserved).then_some(start)
    }
}

impl Frame for Buffer {
    fn len(&self) -> usize {
        self.end - self.start
    }

    fn interface(&self) -> u32 {
        self.interface
    }

    fn head<T: Header>(&self) -> Option<&T> {
        self.view(0)
    }

    fn head_mut<T: Header>(&mut self) -> Option<&mut T> {
        self.view_mut(0)
    }

    fn view<T: Header>(&self, offset: usize) -> Option<&T> {
        let offset = Some(offset).filter(|offset| *offset <= OFFSET_MAX)?;
        T::ref_from_prefix(self.bytes().get(offset..)?).ok().map(|(header, _)| header)
    }

    fn view_mut<T: Header>(&mut self, offset: usize) -> Option<&mut T> {
        let offset = Some(offset).filter(|offset| *offset <= OFFSET_MAX)?;
        T::mut_from_prefix(self.bytes_mut().get_mut(offset..)?).ok().map(|(header, _)| header)
    }

    fn load<const WORDS: usize>(&self, offset: usize, words: &mut [u64; WORDS]) -> Option<()> {
        let from = self.bytes().get(offset..).filter(|from| !from.is_empty())?;
        let to: &mut [u8] = bytemuck::cast_slice_mut(words);
        to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        Some(())
    }

    fn last_word(&self, offset: usize) -> Option<u64> {
        let bytes = self.bytes().get(offset..).filter(|_| offset <= OFFSET_MAX && self.len() >= 8)?;
        if !(1..8).contains(&bytes.len()) {
            return None;
        }
        let mut word = [0xff; 8];
        word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        Some(u64::from_ne_bytes(word))
    }

    fn store(&mut self, offset: usize, body: &[u64; BODY_WORDS], from: usize, length: usize) -> Option<()> {
        if length == 0 {
            return Some(());
        }
        let end = Some(offset + length).filter(|_| length >= 8 && offset <= OFFSET_MAX)?;
        let to = self.bytes_mut().get_mut(offset..end)?;
        to.copy_from_slice(bytemuck::bytes_of(body).get(from..from + length)?);
        Some(())
    }

    fn shrink_front(&mut self, by: usize) -> Option<()> {
        // The kernel leaves at least an Ethernet header.
        if by + Ethernet::LEN > self.len() {
            return None;
        }
        self.start += by;
        Some(())
    }

    fn grow_front(&mut self, by: usize) -> Option<()> {
        self.start = self.start_before(by)?;
        Some(())
    }

    fn reserve_front(&mut self, bytes: usize) {
        self.reserved = bytes;
    }

    fn resize(&mut self, len: usize, keep: usize) -> Option<()> {
        if self.start + len <= self.bytes.len() {
            self.end = self.start + len;
            return Some(());
        }
        let start = self.start_before(len.checked_sub(self.len())?)?;
        self.bytes.copy_within(self.start..self.start + keep, start);
        self.start = start;
        Some(())
    }
}

/// The answer space in memory.
#[derive(Clone, Debug, Default)]
pub struct AnswerChunks(BTreeMap<u32, Vec<u64>>);

impl AnswerChunks {
    /// Writes words from this block on; they do not cross the end of a chunk unless they are an index or a slot table.
    pub fn write(&mut self, block: u32, words: &[u64]) {
        for (index, word) in (u64::from(block) * u64::from(BLOCK_WORDS)..).zip(words) {
            let chunk = self.0.entry((index >> ANSWER_CHUNK_BITS) as u32);
            let chunk = chunk.or_insert_with(|| vec![0; ANSWER_CHUNK_WORDS as usize + BODY_WORDS]);
            chunk.get_mut(index as usize & (ANSWER_CHUNK_WORDS as usize - 1)).into_iter().for_each(|to| *to = *word);
        }
    }

    fn words<const N: usize>(&self, block: u32) -> Option<&[u64; N]> {
        self.words_from(u64::from(block) * u64::from(BLOCK_WORDS))
    }

    fn words_from<const N: usize>(&self, index: u64) -> Option<&[u64; N]> {
        let chunk = self.0.get(&((index >> ANSWER_CHUNK_BITS) as u32))?;
        chunk.get(index as usize & (ANSWER_CHUNK_WORDS as usize - 1)..)?.first_chunk()
    }
}

/// Tables in memory, and what was counted.
#[derive(Clone, Debug, Default)]
pub struct HostTables {
    /// See [`Tables::settings`].
    pub settings: Option<Settings>,
    /// See [`Tables::interface`].
    pub interfaces: BTreeMap<u32, Interface>,
    /// See [`Tables::answers_for`].
    pub addresses: BTreeMap<Address, u64>,
    /// Ids of the services, by endpoint.
    pub service_ids: BTreeMap<Endpoint, u32>,
    /// Services, by id.
    pub services: BTreeMap<u32, Service>,
    /// Slots, by index in the whole slot space.
    pub slots: BTreeMap<u32, Slot>,
    /// Backends, by id.
    pub backends: BTreeMap<u32, Backend>,
    /// Ids of the NAT backends, by own endpoint.
    pub returns: BTreeMap<Endpoint, u32>,
    /// Routes of replies, by the address of the client.
    pub routes: BTreeMap<Address, Route>,
    /// The longest packet that a route takes, if there is a limit.
    pub mtu: Option<u16>,
    /// Prefixes on a link, each with its length in bits: without a route of its own, an address in one is left to the kernel.
    pub links: Vec<(IpAddr, u32)>,
    /// See [`Tables::dns`].
    pub dns: Option<DnsSettings>,
    /// The answer space, by the number of the chunk.
    pub answers: AnswerChunks,
    /// The clock.
    pub seconds: u64,
    /// Nanoseconds of the clock beyond its seconds.
    pub nanoseconds: u64,
    /// Which of the words that are read by [`Tables::once`] from now on is another than what is here, as if it was stored a moment before:
    /// the first is 1; 0: none.
    pub replaced: Cell<u32>,
    flows: RefCell<BTreeMap<(FlowTable, FlowKey), Cell<u64>>>,
    fragments: RefCell<BTreeMap<FragmentKey, Fragment>>,
    turns: RefCell<BTreeMap<u32, Cell<u32>>>,
    tokens: RefCell<BTreeMap<u32, Cell<u64>>>,
    shown: RefCell<BTreeMap<u32, [Cell<u64>; SHOWN_WORDS]>>,
    samples: RefCell<BTreeMap<u64, u64>>,
    traffic: RefCell<BTreeMap<u32, Traffic>>,
    counts: RefCell<BTreeMap<Why, u64>>,
    lent: Cell<bool>,
}

impl HostTables {
    /// Packets by the way they left.
    pub fn counts(&self) -> BTreeMap<Why, u64> {
        self.counts.borrow().clone()
    }

    /// All flows that are tracked.
    pub fn flows(&self) -> Vec<(FlowTable, FlowKey, Tracked)> {
        let flows = self.flows.borrow();
        flows.iter().map(|((table, key), word)| (*table, *key, Tracked::from_word(word.get()))).collect()
    }

    /// How often each question was answered.
    pub fn samples(&self) -> BTreeMap<u64, u64> {
        self.samples.borrow().clone()
    }

    /// What went to each backend.
    pub fn traffic(&self) -> BTreeMap<u32, Traffic> {
        self.traffic.borrow().clone()
    }
}

impl Tables for HostTables {
    fn settings(&self) -> Option<&Settings> {
        self.settings.as_ref()
    }

    fn interface(&self, index: u32) -> Option<&Interface> {
        self.interfaces.get(&index)
    }

    fn answers_for(&self, address: &Address) -> u64 {
        self.addresses.get(address).copied().unwrap_or_default()
    }

    fn service(&self, endpoint: &Endpoint) -> Option<&Service> {
        self.services.get(self.service_ids.get(endpoint)?)
    }

    fn slot(&self, index: u32) -> Option<Slot> {
        self.slots.get(&index).copied()
    }

    fn with_flow<R>(&self, table: FlowTable, key: &FlowKey, work: impl FnOnce(&Cell<u64>) -> R) -> Option<R> {
        self.flows.borrow().get(&(table, *key)).map(work)
    }

    fn track(&self, table: FlowTable, key: &FlowKey, flow: Tracked) {
        self.flows.borrow_mut().insert((table, *key), Cell::new(flow.word()));
    }

    fn forget(&self, table: FlowTable, key: &FlowKey) {
        self.flows.borrow_mut().remove(&(table, *key));
    }

    fn fragment(&self, key: &FragmentKey) -> Option<Fragment> {
        self.fragments.borrow().get(key).copied()
    }

    fn remember(&self, key: &FragmentKey, fragment: Fragment) {
        self.fragments.borrow_mut().insert(*key, fragment);
    }

    fn backend(&self, id: u32) -> Option<&Backend> {
        self.backends.get(&id)
    }

    fn returning(&self, own: &Endpoint) -> Option<u32> {
        self.returns.get(own).copied()
    }

    fn route(&self, _interface: u32, _from: &Endpoint, to: &Endpoint, length: u16) -> Route {
        let on_link = |(prefix, bits): &(IpAddr, u32)| starts_with(to.ip(), *prefix, *bits);
        match self.routes.get(&to.address) {
            Some(Route::Via { .. }) if self.mtu.is_some_and(|mtu| length > mtu) => {
                Route::TooLong { mtu: self.mtu.unwrap_or_default() }
            }
            Some(route) => *route,
            None if self.links.iter().any(on_link) => Route::Stack,
            None => Route::NotForwarded,
        }
    }

    fn dns(&self) -> Option<&DnsSettings> {
        self.dns.as_ref()
    }

    fn bucket(&self, block: u32) -> Option<&Bucket> {
        Some(bytemuck::cast_ref(self.answers.words::<{ BLOCK_WORDS as usize }>(block)?))
    }

    fn answer_slot(&self, block: u32, number: u32) -> Option<AnswerSlot> {
        let [word] = self.answers.words_from(u64::from(block) * u64::from(BLOCK_WORDS) + u64::from(number))?;
        Some(AnswerSlot::from_word(*word))
    }

    fn body(&self, block: u32) -> Option<&[u64; BODY_WORDS]> {
        self.answers.words(block)
    }

    fn with_turn<R>(&self, row: u32, work: impl FnOnce(&Cell<u32>) -> R) -> Option<R> {
        (row < TURNS).then(|| work(self.turns.borrow_mut().entry(row).or_default()))
    }

    fn with_tokens<R>(&self, bucket: u32, work: impl FnOnce(&Cell<u64>) -> R) -> Option<R> {
        (bucket < 2 * LIMIT_BUCKETS).then(|| work(self.tokens.borrow_mut().entry(bucket).or_default()))
    }

    fn with_shown<R>(&self, row: u32, work: impl FnOnce(&[Cell<u64>; SHOWN_WORDS]) -> R) -> Option<R> {
        (row < SHOWN).then(|| work(self.shown.borrow_mut().entry(row).or_default()))
    }

    fn sample(&self, question: u64) {
        *self.samples.borrow_mut().entry(question).or_default() += 1;
    }

    fn once(&self, word: &u64) -> u64 {
        let left = self.replaced.get();
        self.replaced.set(left.saturating_sub(1));
        if left == 1 { !*word } else { *word }
    }

    fn seconds(&self) -> u64 {
        self.seconds
    }

    fn nanoseconds(&self) -> u64 {
        self.seconds.wrapping_mul(1_000_000_000).wrapping_add(self.nanoseconds)
    }

    fn with_scratch<W: ScratchWork>(&self, work: W) -> Option<W::Output> {
        if self.lent.replace(true) {
            return None;
        }
        // Not zeros: what the path does not load must not matter.
        let mut scratch = Scratch { name: [0x5a5a_5a5a_5a5a_5a5a; NAME_WORDS], ..Scratch::zeroed() };
        let result = work.run(&mut scratch);
        self.lent.set(false);
        Some(result)
    }

    fn forwarded(&self, backend: u32, bytes: u64) {
        let mut traffic = self.traffic.borrow_mut();
        let traffic = traffic.entry(backend).or_default();
        traffic.packets += 1;
        traffic.bytes += bytes;
    }

    fn count(&self, why: Why) {
        *self.counts.borrow_mut().entry(why).or_default() += 1;
    }
}

fn starts_with(address: IpAddr, prefix: IpAddr, bits: u32) -> bool {
    let same = match (address, prefix) {
        (IpAddr::V4(address), IpAddr::V4(prefix)) => (address.to_bits() ^ prefix.to_bits()).leading_zeros(),
        (IpAddr::V6(address), IpAddr::V6(prefix)) => (address.to_bits() ^ prefix.to_bits()).leading_zeros(),
        _ => return false,
    };
    same >= bits
}
