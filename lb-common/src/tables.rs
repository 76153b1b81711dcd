//! Map keys and values, and the seam between the path and where its tables live.
//!
//! `Pod` proves that no layout has padding; what would be padding is a field named `zero`. Fields that the path reads
//! together are whole words: LLVM moves anything smaller byte by byte on BPF.

pub mod answers;

use crate::{hash::Keys, verdict::Why, wire::ethernet};
use answers::{AnswerSlot, BODY_WORDS, Bucket, DnsSettings, SHOWN_WORDS};
use bytemuck::{Pod, Zeroable};
use core::{cell::Cell, hint::black_box, net::IpAddr};

/// Version of all layouts below and of what they mean. Pinned maps of another one are not touched.
pub const LAYOUT: u64 = 3;

/// Services and DNS addresses, unless the config wants another number.
pub const DEFAULT_SERVICES: u32 = 4_096;
/// Backends, counted once for every service that they are behind, unless the config wants another number.
pub const DEFAULT_BACKENDS: u32 = 16_384;
/// Tracked flows, unless the config wants another number.
pub const DEFAULT_FLOWS: u32 = 131_072;
/// Flows of which one packet was seen: what a flood can push out.
pub const MAX_HALF_OPEN: u32 = 16_384;
/// Datagrams whose first fragment is remembered.
pub const MAX_FRAGMENTS: u32 = 8_192;
/// For how long the rest of a datagram follows its first fragment: as long as Linux waits for it (`ipfrag_time`).
pub const FRAGMENT_SECONDS: u64 = 30;
/// Interfaces that the program is attached to.
pub const MAX_INTERFACES: u32 = 64;
/// Addresses in one answer: 16 AAAA records and a short name fit 512 bytes.
pub const MAX_RECORDS: usize = 16;
/// Slots in a chunk of the slot space: 512 KiB.
pub const CHUNK_SLOTS: u32 = 1 << CHUNK_BITS;
/// The bits of a slot's index that lie within its chunk.
pub const CHUNK_BITS: u32 = 16;
/// Chunks, created as they are needed: room for 512 tables of the largest size.
pub const MAX_CHUNKS: u32 = 516;
/// Words of a DNS name on the wire: at most 255 bytes (RFC 1035 section 3.1).
pub const NAME_WORDS: usize = 32;

/// Family of an [`Endpoint`].
pub const FAMILY_4: u8 = 4;
/// Family of an [`Endpoint`].
pub const FAMILY_6: u8 = 6;

/// An IP address as two words in the order of the wire; IPv4 in the first four bytes.
pub type Address = [u64; 2];

/// An address, a protocol and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct Endpoint {
    /// The address.
    pub address: Address,
    /// Port as on the wire, protocol number (bits 16 to 23) and family (bits 24 to 31).
    pub tail: u64,
}

impl Endpoint {
    /// From the parts; `protocol` is the IP protocol number.
    pub fn new(address: IpAddr, protocol: u8, port: u16) -> Self {
        let (address, family) = (address_words(address), if address.is_ipv4() { FAMILY_4 } else { FAMILY_6 });
        Self { address, tail: Self::tail(port.to_be_bytes(), protocol, family) }
    }

    /// The last word.
    #[inline(always)]
    pub(crate) const fn tail(port: [u8; 2], protocol: u8, family: u8) -> u64 {
        u16::from_ne_bytes(port) as u64 | (protocol as u64) << 16 | (family as u64) << 24
    }

    /// The same address and protocol without a port: what a service on all ports is found by.
    #[inline(always)]
    pub const fn without_port(&self) -> Self {
        Self { address: self.address, tail: self.tail & !0xffff }
    }

    /// The port as on the wire.
    #[inline(always)]
    pub const fn port_bytes(&self) -> [u8; 2] {
        (self.tail as u16).to_ne_bytes()
    }

    /// The port.
    pub const fn port(&self) -> u16 {
        u16::from_be_bytes(self.port_bytes())
    }

    /// The IP protocol number.
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        (self.tail >> 16) as u8
    }

    /// The address.
    pub fn ip(&self) -> IpAddr {
        let [first, second] = self.address;
        if (self.tail >> 24) as u8 == FAMILY_4 {
            IpAddr::from((first as u32).to_ne_bytes())
        } else {
            IpAddr::from(bytemuck::cast::<_, [u8; 16]>([first, second]))
        }
    }

    /// Sum of the address for a checksum.
    #[inline(always)]
    pub const fn address_sum(&self) -> u64 {
        let [first, second] = self.address;
        crate::checksum::add(crate::checksum::add(0, first), second)
    }

    /// Sum of address and port for a checksum.
    #[inline(always)]
    pub const fn sum(&self) -> u64 {
        self.address_sum() + (self.tail & 0xffff)
    }
}

/// The words of an address.
pub fn address_words(address: IpAddr) -> Address {
    match address {
        IpAddr::V4(address) => [u64::from(u32::from_ne_bytes(address.octets())), 0],
        IpAddr::V6(address) => bytemuck::cast(address.octets()),
    }
}

/// What holds for every packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Settings {
    /// [`LAYOUT`] of who wrote the maps.
    pub layout: u64,
    /// Keys of the hashes.
    pub keys: Keys,
    /// What some service needs and all packets would pay for: [`RETURNS`], [`ANY_PORT`].
    pub features: u64,
    /// Which addresses may be a service's.
    pub known: Known,
}

/// A set of addresses that takes some for members which are not: a bit for each hash (Bloom, 1970). Most packets on a machine are
/// no service's; one load tells them, where a hash map takes three times as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Known([u64; KNOWN_WORDS]);

/// Words of [`Known`]: of a hundred addresses, 2.5 % of the others are taken for one.
const KNOWN_WORDS: usize = 64;

impl Known {
    /// Any address.
    pub const ALL: Self = Self([u64::MAX; KNOWN_WORDS]);

    #[inline(always)]
    const fn place(address: &Address) -> (usize, u64) {
        let [first, second] = *address;
        let hash = (first ^ second.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((hash >> 58) as usize, 1 << (hash >> 52 & 63))
    }

    /// Adds an address.
    pub fn add(&mut self, address: &Address) {
        let (word, bit) = Self::place(address);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    /// Adds what another set has.
    pub fn join(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own |= other);
    }

    /// Whether the address may be a member; if not, it is none.
    #[inline(always)]
    pub fn may_have(&self, address: &Address) -> bool {
        let (word, bit) = Self::place(address);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }
}

/// A backend is behind NAT, so that replies have to be looked for.
pub const RETURNS: u64 = 1;
/// A service is on all ports of its address.
pub const ANY_PORT: u64 = 2;

/// An interface that the program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Interface {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Padding.
    pub zero: [u8; 2],
}

/// The path answers for this address on the link: ARP requests and neighbour solicitations.
pub const ON_LINK: u64 = 1;
/// The path answers echo requests to this address.
pub const ECHO: u64 = 2;

/// A service, or an address that DNS questions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Service {
    /// Where its slot table is, or with [`DNS`] the index of its answers, in blocks: read once, swapped as one word. See [`Region`].
    pub region: u64,
    /// [`DNS`], [`MOVES`].
    pub flags: u32,
    /// Its own id, by which its flows are told from others'.
    pub id: u32,
}

/// A DNS address, without a slot table.
pub const DNS: u32 = 1;
/// A UDP packet of a flow that is not tracked begins one (`udp = "move"`); else it belongs to who had the slot before a change,
/// unless it says that it begins a QUIC connection (`udp = "follow"`).
pub const MOVES: u32 = 2;

/// A slot table's place: index of its first slot and number of slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Region {
    /// Index of the first slot.
    pub first: u32,
    /// Number of slots; zero if the service has no table.
    pub slots: u32,
}

impl Region {
    /// As the word of [`Service::region`].
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.first as u64 | (self.slots as u64) << 32
    }

    /// From that word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { first: word as u32, slots: (word >> 32) as u32 }
    }
}

/// One slot of a table: one word, read and written as a whole.
///
/// | `previous` | flows that are not tracked | flow table |
/// |---|---|---|
/// | [`CLEAN`] | go to `current` | not touched |
/// | a backend | begin at `current`, else belong to `previous`; tracked from then on | asked first |
/// | [`CLOSED`] | go to `current` | asked first |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Slot {
    /// Id of the backend that new flows go to, or [`NOBODY`].
    pub current: u32,
    /// Id of the backend that had the slot before it changed, for as long as its adoption window is open; or [`CLEAN`] or
    /// [`CLOSED`].
    pub previous: u32,
}

/// [`Slot::current`]: no backend takes new flows.
pub const NOBODY: u32 = u32::MAX;
/// [`Slot::previous`]: no flow of the slot is anywhere but at `current`.
pub const CLEAN: u32 = u32::MAX;
/// [`Slot::previous`]: the adoption window is over, but tracked flows may be elsewhere.
pub const CLOSED: u32 = u32::MAX - 1;

impl Slot {
    /// A slot without history.
    pub const fn clean(current: u32) -> Self {
        Self { current, previous: CLEAN }
    }

    /// The backend that untracked flows belong to while the adoption window is open.
    pub const fn open(self) -> Option<u32> {
        if self.previous < CLOSED { Some(self.previous) } else { None }
    }
}

/// Tells a flow of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct FlowKey {
    /// The client's address.
    pub address: Address,
    /// The client's port and the port that it sends to, as on the wire, and [`Service::id`] (bits 32 to 63).
    pub tail: u64,
}

impl FlowKey {
    /// Of a flow from `from` to `to`, which is the service with this id.
    #[inline(always)]
    pub const fn new(from: &Endpoint, to: &Endpoint, service: u32) -> Self {
        let ports = from.tail & 0xffff | (to.tail & 0xffff) << 16;
        Self { address: from.address, tail: ports | (service as u64) << 32 }
    }

    /// The service's id.
    pub const fn service(&self) -> u32 {
        (self.tail >> 32) as u32
    }

    /// What the flow is hashed by, see [`crate::hash::flow`]: client address and both ports. The service's address is left out,
    /// since each service has a table of its own.
    #[inline(always)]
    pub const fn words(&self) -> [u64; 3] {
        let [first, second] = self.address;
        [first, second, self.tail & 0xffff_ffff]
    }
}

/// What is known of a tracked flow: one word in a flow table, so that the agent never reads half of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracked {
    /// Id of its backend.
    pub backend: u32,
    /// The second (of [`Tables::seconds`]) of its last packet.
    pub seen: u32,
    /// The client has sent its FIN or a reset.
    pub closing: bool,
}

impl Tracked {
    const CLOSING: u64 = 1 << 63;

    /// As a word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.backend as u64 | (self.seen as u64 & 0x7fff_ffff) << 32 | if self.closing { Self::CLOSING } else { 0 }
    }

    /// From that word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { backend: word as u32, seen: (word >> 32) as u32 & 0x7fff_ffff, closing: word & Self::CLOSING != 0 }
    }
}

/// The two tables of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FlowTable {
    /// Flows that sent a packet after the one that began them, and adopted ones.
    Established,
    /// Flows of which only the packet that began them was seen.
    HalfOpen,
}

/// Tells a datagram that came in fragments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct FragmentKey {
    /// Where it comes from.
    pub from: Address,
    /// Where it goes to.
    pub to: Address,
    /// Identification (bits 0 to 31), protocol number in IPv4 (32 to 39), family (40 to 47).
    pub tail: u64,
}

/// Where the first fragment of a datagram went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Fragment {
    /// Id of the backend; [`NOBODY`] for an echo request, whose rest is sent back as well.
    pub backend: u32,
    /// Not zero: a reply of the backend.
    pub back: u32,
    /// The second (of [`Tables::seconds`]) of its first fragment.
    pub seen: u64,
}

/// A backend behind one service. Its endpoints never change while its id is in use. Its next hop may, word by word: for the
/// moment between two stores a packet can leave with a new receiver by an old interface, and is lost like any packet on a way
/// that has just changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Backend {
    /// What its packets start with, as on the wire: receiver and sender on the link ([`ethernet::addresses`]), and for a tunnel
    /// EtherType and outer IP header with all that is the same for every packet.
    pub header: [u64; HEADER_WORDS],
    /// Index of the interface toward it.
    pub interface: u32,
    /// [`IN_USE`], [`NAT`], [`TUNNEL4`], [`TUNNEL6`], [`DRAINING`], [`DOWN`].
    pub flags: u16,
    /// The longest packet that it can be sent, in bytes from the IP header on and without an outer one.
    pub mtu: u16,
    /// Its own address and port; port 0: any.
    pub own: Endpoint,
    /// The service's; port 0: any.
    pub service: Endpoint,
    /// What the change of the address adds to IPv4's checksum, [`crate::checksum::difference`].
    pub address_difference: u16,
    /// What the change of address and port adds to the transport's checksum.
    pub endpoint_difference: u16,
    /// Bits of the outer source's last four bytes (as a word in the order of the wire) that vary by flow.
    pub source_mask: u32,
    /// Sum of the outer IPv4 header in [`Backend::header`].
    pub outer_sum: u32,
    /// Padding.
    pub zero: u32,
}

/// Words of [`Backend::header`]: Ethernet and IPv6, 54 bytes.
pub const HEADER_WORDS: usize = 7;

/// The id of this [`Backend`] is taken.
pub const IN_USE: u16 = 1;
/// Forward mode `nat`: address and port are rewritten; without this and a tunnel: `dsr`.
pub const NAT: u16 = 2;
/// Takes no new flows by the operator's wish; kept here so that a restarted agent knows.
pub const DRAINING: u16 = 4;
/// It has failed: a flow that is tracked to it goes to the slot's current backend.
pub const DOWN: u16 = 8;
/// Forward mode `tunnel`, over IPv4.
pub const TUNNEL4: u16 = 16;
/// Forward mode `tunnel`, over IPv6.
pub const TUNNEL6: u16 = 32;

impl Backend {
    /// A backend whose next hop is not yet known.
    pub fn new(own: Endpoint, service: Endpoint, flags: u16) -> Self {
        use crate::checksum::difference;
        Self {
            flags: flags | IN_USE,
            mtu: u16::MAX,
            address_difference: difference(service.address_sum(), own.address_sum()),
            endpoint_difference: difference(service.sum(), own.sum()),
            own,
            service,
            ..Self::zeroed()
        }
    }

    /// The same with a next hop whose link takes packets of `mtu` bytes.
    pub fn via(self, interface: u32, destination: [u8; 6], source: [u8; 6], mtu: u16) -> Self {
        let [first, rest] = ethernet::addresses(destination, source);
        Self { interface, header: [first, rest, 0, 0, 0, 0, 0], mtu, ..self }
    }

    /// The Ethernet addresses, as [`ethernet::addresses`] renders them.
    #[inline(always)]
    pub const fn ethernet(&self) -> [u64; 2] {
        let [first, rest, ..] = self.header;
        [first, rest & 0xffff_ffff]
    }
}

/// What went to one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Traffic {
    /// Packets.
    pub packets: u64,
    /// Bytes of their frames.
    pub bytes: u64,
}

/// Room for the name of a question, one a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Scratch {
    /// The name, folded as it is read.
    pub name: [u64; NAME_WORDS],
    /// What its reply is made from.
    pub reply: ReplyParts,
    /// See [`Scratch::forget`].
    pub forgotten: u64,
}

impl Scratch {
    /// The same number, of which the kernel's verifier knows nothing: it would follow the rest of the path once for every range
    /// that a number which an address is made of can be in. What is read from memory that it does not track is just unknown.
    #[inline(always)]
    pub fn forget(&mut self, number: u64) -> u64 {
        self.forgotten = number;
        black_box(self).forgotten
    }
}

/// What a reply is made from, beside the body that it is copied from. Kept in memory, so that the kernel's verifier forgets by which of
/// many ways it was decided: it would follow the rest of the path once for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct ReplyParts {
    /// Flags of the message but those that are the question's.
    pub flags: u64,
    /// What is counted: a [`Why`] by its number.
    pub why: u64,
    /// Seconds by which the body's TTLs have aged.
    pub elapsed: u64,
    /// The body's first word, as it was when the name was compared.
    pub first: u64,
    /// The word that led to the body.
    pub leads: u64,
    /// A number by chance, or by the client.
    pub draw: u64,
    /// Bytes of the OPT record without its options.
    pub opt_length: u64,
    /// The first word of the OPT record.
    pub opt: u64,
    /// Bytes of options, all of them the client's cookie and ours: see [`crate::dns::cookie::Cookie`].
    pub options_length: u64,
    /// The cookie.
    pub cookie: [u64; 3],
    /// Whether the client's cookie has shown that it is at its address.
    pub is_valid: u64,
}

/// What is done with a [`Scratch`]. Not a closure, which can't be said to be inline: all that one refers to would have to be in
/// memory, for every packet.
pub trait ScratchWork {
    /// What comes of it.
    type Output;
    /// Does it.
    fn run(self, scratch: &mut Scratch) -> Self::Output;
}

/// How a reply of a backend leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// By this interface, with these [`ethernet::addresses`].
    Via {
        /// Index of the interface.
        interface: u32,
        /// Receiver and sender on the link.
        ethernet: [u64; 2],
    },
    /// It is longer than what can be sent there.
    TooLong {
        /// Bytes that can be, from the IP header on.
        mtu: u16,
    },
    /// The kernel has to forward it: the neighbour is not known yet, or the interface can't be redirected to.
    Stack,
    /// It is for this machine, or has no way out.
    NotForwarded,
}

/// What the path looks things up in. Everything takes `&self`: counters are the implementation's own business.
pub trait Tables {
    /// What holds for every packet.
    fn settings(&self) -> Option<&Settings>;
    /// The interface with this index.
    fn interface(&self, index: u32) -> Option<&Interface>;
    /// What the path answers for this address: [`ON_LINK`], [`ECHO`].
    fn answers_for(&self, address: &Address) -> u64;
    /// The service at this endpoint.
    fn service(&self, endpoint: &Endpoint) -> Option<&Service>;
    /// The slot with this index in the whole slot space, read as one word.
    fn slot(&self, index: u32) -> Option<Slot>;
    /// Lends the word of a tracked flow ([`Tracked`]) to `work`.
    fn with_flow<R>(&self, table: FlowTable, key: &FlowKey, work: impl FnOnce(&Cell<u64>) -> R) -> Option<R>;
    /// Tracks a flow, in place of what was known of it. A table that is full forgets a flow that was not seen for long.
    fn track(&self, table: FlowTable, key: &FlowKey, flow: Tracked);
    /// Forgets a flow.
    fn forget(&self, table: FlowTable, key: &FlowKey);
    /// Where the first fragment of this datagram went.
    fn fragment(&self, key: &FragmentKey) -> Option<Fragment>;
    /// Remembers where the first fragment of a datagram went.
    fn remember(&self, key: &FragmentKey, fragment: Fragment);
    /// The backend with this id.
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// Id of the NAT backend with this own endpoint.
    fn returning(&self, own: &Endpoint) -> Option<u32>;
    /// Where a packet of `length` bytes (from the IP header on) that came in by `interface` goes.
    fn route(&self, interface: u32, from: &Endpoint, to: &Endpoint, length: u16) -> Route;
    /// What holds for every question.
    fn dns(&self) -> Option<&DnsSettings>;
    /// A bucket of the index, by its block.
    fn bucket(&self, block: u32) -> Option<&Bucket>;
    /// A slot of the table of answers at this block.
    fn answer_slot(&self, block: u32, number: u32) -> Option<AnswerSlot>;
    /// The body at this block, and what lies behind it.
    fn body(&self, block: u32) -> Option<&[u64; BODY_WORDS]>;
    /// Reads a word of the tables that the agent may be storing, just once.
    fn once(&self, word: &u64) -> u64;
    /// Lends a sequence of this CPU to `work`.
    fn with_turn<R>(&self, row: u32, work: impl FnOnce(&Cell<u32>) -> R) -> Option<R>;
    /// Lends a bucket of tokens to `work`.
    fn with_tokens<R>(&self, bucket: u32, work: impl FnOnce(&Cell<u64>) -> R) -> Option<R>;
    /// Lends a row of this CPU's right cookies ([`SHOWN_WORDS`]) to `work`.
    fn with_shown<R>(&self, row: u32, work: impl FnOnce(&[Cell<u64>; SHOWN_WORDS]) -> R) -> Option<R>;
    /// Notes that a question was answered.
    fn sample(&self, question: u64);
    /// Seconds of a clock that only goes forward.
    fn seconds(&self) -> u64;
    /// Nanoseconds of the same clock.
    fn nanoseconds(&self) -> u64;
    /// Lends this CPU's scratch to `work`, which must not ask for it again.
    fn with_scratch<W: ScratchWork>(&self, work: W) -> Option<W::Output>;
    /// Counts a packet sent to a backend.
    fn forwarded(&self, backend: u32, bytes: u64);
    /// Counts the way out of a packet.
    fn count(&self, why: Why);
}
