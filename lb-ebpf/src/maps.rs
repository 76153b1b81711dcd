//! Every map, and the tables that the path sees in them.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{
        BPF_F_MMAPABLE, BPF_FIB_LKUP_RET_FRAG_NEEDED, BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS,
        bpf_fib_lookup as FibLookup,
    },
    btf_maps,
    helpers::{generated::bpf_fib_lookup, generated::bpf_ktime_get_coarse_ns},
    macros::{btf_map, map},
    maps::{Array, DevMapHash, HashMap, LruHashMap, PerCpuArray, ProgramArray},
    programs::XdpContext,
};
use core::{cell::Cell, marker::PhantomData};
use lb_common::{
    tables::{
        Address, Backend, CHUNK_BITS, CHUNK_SLOTS, DEFAULT_BACKENDS, DEFAULT_FLOWS, DEFAULT_SERVICES, Endpoint,
        FAMILY_4, FlowKey, FlowTable, Fragment, FragmentKey, Interface, MAX_CHUNKS, MAX_FRAGMENTS, MAX_HALF_OPEN,
        MAX_INTERFACES, Route, Scratch, ScratchWork, Service, Settings, Slot, Tables, Tracked, Traffic,
        answers::{
            ANSWER_CHUNK_BITS, ANSWER_CHUNK_WORDS, AnswerSlot, BLOCK_WORDS, BODY_WORDS, Bucket, DnsSettings,
            LIMIT_BUCKETS, MAX_ANSWER_CHUNKS, SAMPLE_EVERY, SAMPLES, SHOWN, SHOWN_WORDS, TURNS,
        },
    },
    verdict::{REASONS, Verdict, Why},
};

/// The program for rare frames.
#[map]
pub static PROGRAMS: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
static SETTINGS: Array<Settings> = Array::with_max_entries(1, 0);
#[map]
static INTERFACES: HashMap<u32, Interface> = HashMap::with_max_entries(MAX_INTERFACES, 0);
/// Where frames may be redirected to, by interface index.
#[map]
pub static DEVICES: DevMapHash = DevMapHash::with_max_entries(MAX_INTERFACES, 0);
/// Addresses of services, with what is answered for them.
#[map]
static ADDRESSES: HashMap<Address, u64> = HashMap::with_max_entries(DEFAULT_SERVICES, 0);
/// Ids, not services: an element of a hash map may be reused while a program still reads it.
#[map]
static SERVICE_IDS: HashMap<Endpoint, u32> = HashMap::with_max_entries(DEFAULT_SERVICES, 0);
/// Mapped into the agent, which swaps a service's region with one store.
#[map]
static SERVICES: Array<Service> = Array::with_max_entries(DEFAULT_SERVICES, BPF_F_MMAPABLE);
/// Of words, as which the agent stores slots: Linux 6.1 refuses the agent's chunks, which come without a type, if the type here
/// is a structure (`timer_off` in its `bpf_map_meta_equal`).
type Chunk = btf_maps::Array<u64, { CHUNK_SLOTS as usize }, { BPF_F_MMAPABLE as usize }>;
/// The slot space, in chunks that the agent creates as it needs them.
#[btf_map]
static SLOTS: btf_maps::ArrayOfMaps<Chunk, { MAX_CHUNKS as usize }> = btf_maps::ArrayOfMaps::new();
/// Mapped into the agent, which stores whole words.
#[map]
static BACKENDS: Array<Backend> = Array::with_max_entries(DEFAULT_BACKENDS, BPF_F_MMAPABLE);
#[map]
static RETURNS: HashMap<Endpoint, u32> = HashMap::with_max_entries(DEFAULT_BACKENDS, 0);
#[map]
static FLOWS: LruHashMap<FlowKey, u64> = LruHashMap::with_max_entries(DEFAULT_FLOWS, 0);
/// Apart from the others: a flood of packets that begin flows pushes out nothing but its like.
#[map]
static HALF_OPEN: LruHashMap<FlowKey, u64> = LruHashMap::with_max_entries(MAX_HALF_OPEN, 0);
/// Not pinned: no datagram outlives a change of the program.
#[map]
static FRAGMENTS: LruHashMap<FragmentKey, Fragment> = LruHashMap::with_max_entries(MAX_FRAGMENTS, 0);
/// Mapped into the agent, which stores whole words.
#[map]
static DNS: Array<DnsSettings> = Array::with_max_entries(1, BPF_F_MMAPABLE);
/// One value as long as the chunk, so that what lies across blocks can be read.
type AnswerChunk = btf_maps::Array<[u64; CHUNK_WORDS], 1, { BPF_F_MMAPABLE as usize }>;
const CHUNK_WORDS: usize = ANSWER_CHUNK_WORDS as usize + BODY_WORDS;
/// The answer space, in chunks that the agent creates as it needs them.
#[btf_map]
static ANSWERS: btf_maps::ArrayOfMaps<AnswerChunk, { MAX_ANSWER_CHUNKS as usize }> = btf_maps::ArrayOfMaps::new();
#[map]
static TURN: PerCpuArray<u32> = PerCpuArray::with_max_entries(TURNS, 0);
/// Tokens of clients' prefixes: for answers, then for misses.
#[map]
static TOKENS: Array<u64> = Array::with_max_entries(2 * LIMIT_BUCKETS, 0);
/// Not pinned: what is not known is found out anew.
#[map]
static SHOWN_COOKIES: PerCpuArray<[u64; SHOWN_WORDS]> = PerCpuArray::with_max_entries(SHOWN, 0);
#[map]
static SAMPLE: PerCpuArray<u64> = PerCpuArray::with_max_entries(SAMPLES, 0);
#[map]
static SAMPLED: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);
#[map]
static TRAFFIC: PerCpuArray<Traffic> = PerCpuArray::with_max_entries(DEFAULT_BACKENDS, 0);
#[map]
static COUNTS: PerCpuArray<u64> = PerCpuArray::with_max_entries(REASONS, 0);
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Who watches what becomes of frames.
pub trait Watch {
    /// The frame goes to this backend.
    fn forwarded(backend: u32);

    /// This is what happens to it.
    fn decided(verdict: Verdict);
}

/// Nobody does, which costs nothing.
pub struct Nobody;

impl Watch for Nobody {
    #[inline(always)]
    fn forwarded(_: u32) {}

    #[inline(always)]
    fn decided(_: Verdict) {}
}

/// The maps, seen while one frame is handled.
pub struct Maps<'c, O> {
    context: &'c XdpContext,
    watch: PhantomData<O>,
}

impl<'c, O> Maps<'c, O> {
    /// For the frame of this context.
    #[inline(always)]
    pub fn new(context: &'c XdpContext) -> Self {
        Self { context, watch: PhantomData }
    }
}

impl<O: Watch> Tables for Maps<'_, O> {
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        SETTINGS.get(0)
    }

    #[inline(always)]
    fn interface(&self, index: u32) -> Option<&Interface> {
        // SAFETY: the agent removes an element only with the interface, and a stale MAC address is a valid value.
        unsafe { INTERFACES.get(index) }
    }

    #[inline(always)]
    fn answers_for(&self, address: &Address) -> u64 {
        // SAFETY: any value is valid; one that is no longer right is a moment old.
        unsafe { ADDRESSES.get(apart(*address)) }.copied().unwrap_or_default()
    }

    #[inline(always)]
    fn service(&self, endpoint: &Endpoint) -> Option<&Service> {
        // SAFETY: any value is valid. The agent lets a grace period pass between a removal and the next insertion, and changes no
        // value, so that it is the right one.
        let id = unsafe { SERVICE_IDS.get(apart(*endpoint)) }?;
        SERVICES.get(*id)
    }

    #[inline(always)]
    fn slot(&self, index: u32) -> Option<Slot> {
        let word: &u64 = SLOTS.get_value(index >> CHUNK_BITS, &(index & (CHUNK_SLOTS - 1)))?;
        // SAFETY: a valid reference. The agent stores a slot as one word, so it is read as one, and once.
        let word = unsafe { core::ptr::from_ref(word).read_volatile() };
        Some(Slot { current: word as u32, previous: (word >> 32) as u32 })
    }

    #[inline(always)]
    fn with_flow<R>(&self, table: FlowTable, key: &FlowKey, work: impl FnOnce(&Cell<u64>) -> R) -> Option<R> {
        let word = match table {
            FlowTable::Established => FLOWS.get_ptr_mut(apart(*key)),
            FlowTable::HalfOpen => HALF_OPEN.get_ptr_mut(apart(*key)),
        }?;
        // SAFETY: a word of a map, aligned to 8 bytes, which everybody reads and writes as a whole; a `Cell` does not assume that
        // it stays as it is.
        Some(work(unsafe { &*word.cast::<Cell<u64>>() }))
    }

    #[inline(always)]
    fn track(&self, table: FlowTable, key: &FlowKey, flow: Tracked) {
        // A table that is full makes room. It fails only if other CPUs hold all that could go: the flow is then not tracked.
        let _ = match table {
            FlowTable::Established => FLOWS.insert(apart(*key), flow.word(), 0),
            FlowTable::HalfOpen => HALF_OPEN.insert(apart(*key), flow.word(), 0),
        };
    }

    #[inline(always)]
    fn forget(&self, table: FlowTable, key: &FlowKey) {
        // Another CPU may have been faster.
        let _ = match table {
            FlowTable::Established => FLOWS.remove(apart(*key)),
            FlowTable::HalfOpen => HALF_OPEN.remove(apart(*key)),
        };
    }

    #[inline(always)]
    fn fragment(&self, key: &FragmentKey) -> Option<Fragment> {
        // SAFETY: any value is valid; the path compares what it leads to.
        unsafe { FRAGMENTS.get(key) }.copied()
    }

    #[inline(always)]
    fn remember(&self, key: &FragmentKey, fragment: Fragment) {
        // As for `track`: the rest of the datagram is then not known.
        let _ = FRAGMENTS.insert(key, fragment, 0);
    }

    #[inline(always)]
    fn backend(&self, id: u32) -> Option<&Backend> {
        BACKENDS.get(id)
    }

    #[inline(always)]
    fn returning(&self, own: &Endpoint) -> Option<u32> {
        // SAFETY: any value is valid; the path compares what it leads to.
        unsafe { RETURNS.get(apart(*own)) }.copied()
    }

    #[inline(always)]
    fn route(&self, interface: u32, from: &Endpoint, to: &Endpoint, length: u16) -> Route {
        // SAFETY: a struct of integers and arrays of them, for which zeros are valid.
        let mut lookup: FibLookup = unsafe { core::mem::zeroed() };
        lookup.l4_protocol = to.protocol();
        lookup.ifindex = interface;
        lookup.__bindgen_anon_1.tot_len = length;
        if (to.tail >> 24) as u8 == FAMILY_4 {
            lookup.family = AF_INET;
            lookup.__bindgen_anon_3.ipv4_src = from.address[0] as u32;
            lookup.__bindgen_anon_4.ipv4_dst = to.address[0] as u32;
        } else {
            lookup.family = AF_INET6;
            lookup.__bindgen_anon_3.ipv6_src = words(from.address);
            lookup.__bindgen_anon_4.ipv6_dst = words(to.address);
        }
        // SAFETY: the context is this program's, and the length is that of the struct.
        let result = unsafe { bpf_fib_lookup(self.context.as_ptr(), &mut lookup, size_of::<FibLookup>() as i32, 0) };
        match result as u32 {
            BPF_FIB_LKUP_RET_SUCCESS if DEVICES.get_ifindex(lookup.ifindex).is_some() => {
                Route::Via { interface: lookup.ifindex, ethernet: addresses(&lookup) }
            }
            BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => Route::Stack,
            // SAFETY: any bytes are a `u16`; the kernel has put the MTU here.
            BPF_FIB_LKUP_RET_FRAG_NEEDED => Route::TooLong { mtu: unsafe { lookup.__bindgen_anon_1.mtu_result } },
            _ => Route::NotForwarded,
        }
    }

    #[inline(always)]
    fn dns(&self) -> Option<&DnsSettings> {
        DNS.get(0)
    }

    #[inline(always)]
    fn bucket(&self, block: u32) -> Option<&Bucket> {
        answer_words(block, 0)
    }

    #[inline(always)]
    fn answer_slot(&self, block: u32, number: u32) -> Option<AnswerSlot> {
        let word: &u64 = answer_words(block, number)?;
        // SAFETY: a valid reference. The agent stores a slot as one word, so it is read as one, and once.
        Some(AnswerSlot::from_word(unsafe { core::ptr::from_ref(word).read_volatile() }))
    }

    #[inline(always)]
    fn body(&self, block: u32) -> Option<&[u64; BODY_WORDS]> {
        answer_words(block, 0)
    }

    #[inline(always)]
    fn with_turn<R>(&self, row: u32, work: impl FnOnce(&Cell<u32>) -> R) -> Option<R> {
        let turn = TURN.get_ptr_mut(row)?;
        // SAFETY: this CPU's own element; no other program run on it interrupts this one.
        Some(work(unsafe { &*turn.cast::<Cell<u32>>() }))
    }

    #[inline(always)]
    fn with_tokens<R>(&self, bucket: u32, work: impl FnOnce(&Cell<u64>) -> R) -> Option<R> {
        let tokens = TOKENS.get_ptr_mut(bucket)?;
        // SAFETY: a word, aligned to 8 bytes, which every CPU reads and writes as a whole.
        Some(work(unsafe { &*tokens.cast::<Cell<u64>>() }))
    }

    #[inline(always)]
    fn with_shown<R>(&self, row: u32, work: impl FnOnce(&[Cell<u64>; SHOWN_WORDS]) -> R) -> Option<R> {
        let shown = SHOWN_COOKIES.get_ptr_mut(row)?;
        // SAFETY: this CPU's own element; no other program run on it interrupts this one.
        Some(work(unsafe { &*shown.cast::<[Cell<u64>; SHOWN_WORDS]>() }))
    }

    #[inline(always)]
    fn sample(&self, question: u64) {
        let Some(count) = SAMPLED.get_ptr_mut(0) else { return };
        // SAFETY: this CPU's own element.
        let count = unsafe {
            *count = (*count).wrapping_add(1);
            *count
        };
        if count % SAMPLE_EVERY != 0 {
            return;
        }
        let Some(sample) = SAMPLE.get_ptr_mut(count / SAMPLE_EVERY % SAMPLES) else { return };
        // SAFETY: this CPU's own element.
        unsafe { *sample = question };
    }

    #[inline(always)]
    fn once(&self, word: &u64) -> u64 {
        // SAFETY: a valid reference.
        unsafe { core::ptr::from_ref(word).read_volatile() }
    }

    #[inline(always)]
    fn seconds(&self) -> u64 {
        // SAFETY: the helper takes nothing. The coarse clock costs 12 ns instead of 38, and seconds is all that TTLs know.
        unsafe { bpf_ktime_get_coarse_ns() / 1_000_000_000 }
    }

    #[inline(always)]
    fn nanoseconds(&self) -> u64 {
        // SAFETY: as for the seconds. It moves on by a few milliseconds at a time.
        unsafe { bpf_ktime_get_coarse_ns() }
    }

    #[inline(always)]
    fn with_scratch<W: ScratchWork>(&self, work: W) -> Option<W::Output> {
        let scratch = SCRATCH.get_ptr_mut(0)?;
        // SAFETY: this CPU's own element; no other program run on it interrupts this one, and the path asks once a packet.
        Some(work.run(unsafe { &mut *scratch }))
    }

    #[inline(always)]
    fn forwarded(&self, backend: u32, bytes: u64) {
        O::forwarded(backend);
        let Some(traffic) = TRAFFIC.get_ptr_mut(backend) else { return };
        // SAFETY: this CPU's own element.
        unsafe {
            (*traffic).packets += 1;
            (*traffic).bytes += bytes;
        }
    }

    #[inline(always)]
    fn count(&self, why: Why) {
        let Some(count) = COUNTS.get_ptr_mut(why as u32) else { return };
        // SAFETY: this CPU's own element.
        unsafe { *count += 1 };
    }
}

/// What lies in the answer space from a word of a block on.
#[inline(always)]
fn answer_words<T>(block: u32, word: u32) -> Option<&'static T> {
    let index = u64::from(block) * u64::from(BLOCK_WORDS) + u64::from(word);
    let chunk: &[u64; CHUNK_WORDS] = ANSWERS.get_value((index >> ANSWER_CHUNK_BITS) as u32, &0)?;
    #[expect(clippy::indexing_slicing, reason = "the mask keeps it below the length, which LLVM sees")]
    let words = &chunk[(index & u64::from(ANSWER_CHUNK_WORDS - 1)) as usize];
    // SAFETY: behind the last word that can be named lie as many as the longest `T` has. Whatever they hold is a `T`.
    Some(unsafe { &*core::ptr::from_ref(words).cast() })
}

/// A key that a helper is given the address of: a copy, as the struct that it is part of would have to be in memory as a whole.
#[inline(always)]
const fn apart<K>(key: K) -> K {
    key
}

/// The Ethernet addresses that a lookup found.
#[inline(always)]
fn addresses(lookup: &FibLookup) -> [u64; 2] {
    let [a, b, c] = halves(&lookup.dmac);
    let [d, e, f] = halves(&lookup.smac);
    [a | b << 16 | c << 32 | d << 48, e | f << 16]
}

/// A MAC address by halves of a word. It lies on the stack, where the verifier allows no misaligned load; LLVM, told that
/// misaligned loads are fine for packets, would make one of anything that is not volatile.
#[inline(always)]
fn halves(mac: &[u8; 6]) -> [u64; 3] {
    let half = mac.as_ptr().cast::<u16>();
    // SAFETY: both MAC addresses of the struct have even offsets, and the struct is aligned to 4 bytes.
    unsafe { [half.read_volatile().into(), half.add(1).read_volatile().into(), half.add(2).read_volatile().into()] }
}

/// An IPv6 address as the kernel's struct has it.
#[inline(always)]
fn words(address: Address) -> [u32; 4] {
    let [first, second] = address;
    [first as u32, (first >> 32) as u32, second as u32, (second >> 32) as u32]
}
