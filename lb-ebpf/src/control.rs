//! What the measuring programs (`bench.rs`) and their side on the host tell each other.

use bytemuck::{Pod, Zeroable};

/// Rounds of one program run. So many that what the kernel does for a run vanishes.
pub const ROUNDS: u32 = 64;
/// Words of the longest frame.
pub const TEMPLATE_WORDS: usize = 192;

/// What a run does, on one CPU.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Control {
    /// The frame that each round begins with.
    pub template: [u64; TEMPLATE_WORDS],
    /// Its length in bytes.
    pub length: u64,
    /// How much of it the path overwrites: [`LINK`], [`TAGGED`], [`HEADERS`], [`ALL`].
    pub restored: u64,
    /// By how many bytes the path moves the front of the frame; less than zero when the frame grows there.
    pub front: i64,
    /// By how many bytes it moves the end; more than zero when the frame grows there.
    pub end: i64,
    /// Where flows differ: [`ONE_FLOW`], [`ADDRESS4`], [`ADDRESS4_TAGGED`], [`ADDRESS6`], [`DATAGRAM4`], [`CLIENT4`], [`NAME4`].
    pub flows: u64,
    /// Number of flows less one, a mask; with [`NAME4`] the number of names.
    pub flow_mask: u64,
    /// What the first flow has there, as a number: an IPv4 address, the last 8 bytes of an IPv6 address, a datagram's identification.
    pub first_flow: u64,
    /// The next round's flow.
    pub next_flow: u64,
    /// Where the frame began and ended before the path and after it, as `probe` found it.
    pub bounds: [u64; 4],
    /// Where `generate` sends its frames: an interface by its index.
    pub interface: u64,
    /// Where `live_redirect` sends frames on to, likewise.
    pub away: u64,
}

/// The Ethernet header.
pub const LINK: u64 = 0;
/// The Ethernet header and a VLAN tag.
pub const TAGGED: u64 = 1;
/// The first 72 bytes, or 64 of a shorter frame.
pub const HEADERS: u64 = 2;
/// The whole frame.
pub const ALL: u64 = 3;

/// All rounds have the template's flow.
pub const ONE_FLOW: u64 = 0;
/// In the sender's IPv4 address.
pub const ADDRESS4: u64 = 1;
/// The same behind a VLAN tag.
pub const ADDRESS4_TAGGED: u64 = 2;
/// In the sender's IPv6 address.
pub const ADDRESS6: u64 = 3;
/// In the identification of an IPv4 datagram.
pub const DATAGRAM4: u64 = 4;
/// In the sender's IPv4 address, hither and thither.
pub const CLIENT4: u64 = 5;
/// In the number of the name that a DNS question over IPv4 asks for, hither and thither.
pub const NAME4: u64 = 6;
/// Where that number is: behind the headers of UDP and of the message, the length of the label and a letter.
pub const NUMBER4: usize = 34 + 8 + 12 + 2;
