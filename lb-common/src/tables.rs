//! Map keys and values, and the seam between the path and where its tables live.
//!
//! `Pod` proves that no layout has padding; what would be padding is a field named `zero`. Fields that the path reads
//! together are whole words: LLVM moves anything smaller byte by byte on BPF.

use crate::{hash::Keys, verdict::Why, wire::ethernet};
use bytemuck::{Pod, Zeroable};
use core::net::IpAddr;

/// Version of all layouts below and of what they mean. Pinned maps of another one are not touched.
pub const LAYOUT: u64 = 1;

/// Services and DNS addresses.
pub const MAX_SERVICES: u32 = 4_096;
/// Backends, counted once for every service that they are behind.
pub const MAX_BACKENDS: u32 = 16_384;
/// Interfaces that the program is attached to.
pub const MAX_INTERFACES: u32 = 64;
/// Addresses answered for on the link.
pub const MAX_CLAIMS: u32 = 4_096;
/// Places for answers to DNS questions: twice as many as there may be answers.
pub const MAX_ANSWERS: u32 = 8_192;
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
    /// Not zero if a backend is behind NAT, so that replies have to be looked for.
    pub returns: u64,
}

/// An interface that the program is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Interface {
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Padding.
    pub zero: [u8; 2],
}

/// A service, or an address that DNS questions come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Service {
    /// Where its slot table is: read once, swapped as one word. See [`Region`].
    pub region: u64,
    /// Not zero: a DNS address, without a slot table.
    pub dns: u64,
}

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

/// One slot of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Slot {
    /// Id of the backend that serves it.
    pub backend: u32,
    /// Padding: an array's elements are 8 bytes apart anyway.
    pub zero: u32,
}

/// A backend behind one service. Its endpoints never change while its id is in use. Its next hop may, word by word: for the
/// moment between two stores a packet can leave with a new receiver by an old interface, and is lost like any packet on a way
/// that has just changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Backend {
    /// Ethernet addresses of the next hop and of the interface, rendered by [`ethernet::addresses`].
    pub ethernet: [u64; 2],
    /// Index of the interface toward it.
    pub interface: u32,
    /// [`IN_USE`], [`NAT`], [`DRAINING`].
    pub flags: u32,
    /// Its own address and port.
    pub own: Endpoint,
    /// The service's.
    pub service: Endpoint,
    /// What the change of the address adds to IPv4's checksum, [`crate::checksum::difference`].
    pub address_difference: u16,
    /// What the change of address and port adds to the transport's checksum.
    pub endpoint_difference: u16,
    /// Padding.
    pub zero: u32,
}

/// The id of this [`Backend`] is taken.
pub const IN_USE: u32 = 1;
/// Forward mode `nat`: address and port are rewritten; otherwise `dsr`.
pub const NAT: u32 = 2;
/// Takes no new flows by the operator's wish; kept here so that a restarted agent knows.
pub const DRAINING: u32 = 4;

impl Backend {
    /// A backend whose next hop is not yet known.
    pub fn new(own: Endpoint, service: Endpoint, flags: u32) -> Self {
        use crate::checksum::difference;
        Self {
            flags: flags | IN_USE,
            address_difference: difference(service.address_sum(), own.address_sum()),
            endpoint_difference: difference(service.sum(), own.sum()),
            own,
            service,
            ..Self::zeroed()
        }
    }

    /// The same with a next hop.
    pub fn via(self, interface: u32, destination: [u8; 6], source: [u8; 6]) -> Self {
        Self { interface, ethernet: ethernet::addresses(destination, source), ..self }
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

/// Finds an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
#[repr(C)]
pub struct AnswerKey {
    /// [`crate::path::answer::name_hash`] of the folded name.
    pub name: u64,
    /// Type, and class (bits 16 to 31).
    pub kind: u64,
}

/// A rendered answer: one set of addresses, rotated as it is sent.
///
/// A body is never changed while a key leads to it, and reused only after a grace period: a packet sees one answer or
/// another, never a mixture. The whole name and kind are compared before it is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Answer {
    /// The name as on the wire, in lower case, filled up with zeros.
    pub name: [u64; NAME_WORDS],
    /// As in [`AnswerKey::kind`].
    pub kind: u64,
    /// The second (of [`Tables::seconds`]) in which a cached answer is spent; `u64::MAX` for what never is.
    pub spent_at: u64,
    /// TTL of the records, in seconds: never more is sent.
    pub ttl_seconds: u32,
    /// How many records there are, 1 to [`MAX_RECORDS`].
    pub count: u32,
    /// Sum of all records with their TTLs zero; the order does not change it.
    pub sum: u64,
    /// Each record as on the wire with its TTL zero, in a cell of 32 bytes.
    pub records: [[u64; 4]; MAX_RECORDS],
}

/// Room for the name of a question, one a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Scratch {
    /// The name, folded as it is read.
    pub name: [u64; NAME_WORDS],
    /// Its length in bytes.
    pub length: u64,
    /// Its hash.
    pub hash: u64,
    /// Its sum for a checksum, before folding to lower case.
    pub sum: u64,
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
    /// Whether the link is answered for this address.
    fn claims(&self, address: &Address) -> bool;
    /// The service at this endpoint.
    fn service(&self, endpoint: &Endpoint) -> Option<&Service>;
    /// The slot with this index in the whole slot space.
    fn slot(&self, index: u32) -> Option<&Slot>;
    /// The backend with this id.
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// Id of the NAT backend with this own endpoint.
    fn returning(&self, own: &Endpoint) -> Option<u32>;
    /// Where a packet of `length` bytes (from the IP header on) that came in by `interface` goes.
    fn route(&self, interface: u32, from: &Endpoint, to: &Endpoint, length: u16) -> Route;
    /// The answer for this key, and its place.
    fn answer(&self, key: &AnswerKey) -> Option<(u32, &Answer)>;
    /// How often this CPU was asked for the answer at this place.
    fn turn(&self, place: u32) -> u32;
    /// Seconds of a clock that only goes forward.
    fn seconds(&self) -> u64;
    /// Lends this CPU's scratch to `work`, which must not ask for it again.
    fn with_scratch<R>(&self, work: impl FnOnce(&mut Scratch) -> R) -> Option<R>;
    /// Counts a packet sent to a backend.
    fn forwarded(&self, backend: u32, bytes: u64);
    /// Counts the way out of a packet.
    fn count(&self, why: Why);
}
