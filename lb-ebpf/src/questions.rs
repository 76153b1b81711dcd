//! What the programs that ask questions (`dns_bench.rs`) and their side on the host tell each other.
//!
//! All words of packets are as they lie in memory, so that nobody swaps bytes; sums are those of RFC 1071, which are the same
//! either way.

use bytemuck::{Pod, Zeroable};

/// Bytes of the longest question's frame.
pub const QUESTION_BYTES: usize = 256;
/// Where the UDP header is in a frame of IPv4, and of IPv6.
pub const UDP4: u64 = 34;
/// See [`UDP4`].
pub const UDP6: u64 = 54;
/// Clients' ports: [`FIRST_PORT`] and those that follow.
pub const PORTS: u64 = 60_000;
/// The first of them.
pub const FIRST_PORT: u64 = 2_048;
const _: () = assert!(FIRST_PORT + PORTS < 1 << 16);
/// Bytes of a name that are its number, see [`digits`].
pub const DIGITS: usize = 8;

/// Odd, with its bits well mixed: multiples of it seem to follow no order.
pub const SCATTER: u64 = 0x9e37_79b9_7f4a_7c15;

/// What is asked and what has come back.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Questions {
    /// A frame with zeros for the client's port, the message's id, the checksum of UDP, and what else differs.
    pub template: [u8; QUESTION_BYTES],
    /// Its length.
    pub length: u64,
    /// Where its UDP header is: [`UDP4`], [`UDP6`].
    pub udp: u64,
    /// Where the number of its name is, at an even distance from the UDP header; 0: nowhere, all questions ask for one name.
    pub number: u64,
    /// How many names there are.
    pub names: u64,
    /// 1: one name after the other. 0: hither and thither, each equally often.
    pub in_turn: u64,
    /// With IPv4, how many addresses clients have, less one: a mask. 0: that of the template.
    pub clients: u64,
    /// The first of them.
    pub first_client: u64,
    /// Sum of what the checksum of UDP covers in the template.
    pub sum: u64,
    /// Sum of the IPv4 header in the template.
    pub sum4: u64,
    /// Which interface the questions leave by.
    pub interface: u64,
    /// How many questions may be without an answer; 0: questions are sent at a rate.
    pub window: u64,
    /// Questions a second.
    pub rate: u64,
    /// When they began, by the kernel's monotonic clock.
    pub started: u64,
    /// RCODE, and number of answers (bits 16 to 31), of a right response.
    pub expected: u64,
    /// Whether responses are taken; else everything passes.
    pub taken: u64,
    /// Whether it is measured how long they take.
    pub timed: u64,
    /// Questions sent.
    pub sent: u64,
    /// Questions of a full window whose answers nobody waits for any more.
    pub given_up: u64,
    /// How many responses there were at [`Self::moved_at`], the last time that the window was full and there were new ones.
    pub moved: u64,
    /// See [`Self::moved`].
    pub moved_at: u64,
    /// Right responses.
    pub answered: u64,
    /// Responses with TC.
    pub truncated: u64,
    /// Other responses.
    pub wrong: u64,
}

/// Sends the same answers to all questions: what `floor` does.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Constant {
    /// Where the UDP header is: [`UDP4`], [`UDP6`].
    pub udp: u64,
    /// Where the answers begin, the end of the question.
    pub at: u64,
    /// By how many bytes the frame grows.
    pub growth: u64,
    /// The length of IPv4's packet or of IPv6's payload.
    pub network_length: u64,
    /// What the sum of IPv4's header grows by.
    pub network_sum: u64,
    /// The length of UDP's datagram.
    pub datagram_length: u64,
    /// What the sum of UDP's datagram grows by.
    pub datagram_sum: u64,
    /// The header's flags.
    pub flags: u64,
    /// Its four counts.
    pub counts: u64,
    /// The answers.
    pub records: [u64; RECORD_WORDS],
}

/// Words of four A records.
pub const RECORD_WORDS: usize = 8;

/// A response that was kept to be looked at.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct Sample {
    /// The frame's length; 0: none was kept.
    pub length: u64,
    /// The frame.
    pub bytes: [u8; SAMPLE_BYTES],
}

/// Bytes of the longest frame that can be kept.
pub const SAMPLE_BYTES: usize = 1_536;
/// How many are kept.
pub const SAMPLES: u32 = 16;
/// The first response and, from it on, each of as many is kept.
pub const SAMPLED: u64 = 1_024;

/// Rows of the table of times, see [`row`].
pub const ROWS: u32 = 1_024;

/// The row that a time in nanoseconds is counted in: each power of two has 16.
#[inline(always)]
pub const fn row(nanoseconds: u64) -> u64 {
    if nanoseconds < 16 {
        return nanoseconds;
    }
    let exponent = 63 - nanoseconds.leading_zeros() as u64;
    (exponent - 3) * 16 + (nanoseconds >> (exponent - 4) & 15)
}

/// A number below 2³² in eight letters, `a` to `p`: text that needs no choice between digits and letters.
#[inline(always)]
pub const fn digits(number: u32) -> [u8; DIGITS] {
    let mut word = number as u64;
    word = (word | word << 16) & 0x0000_ffff_0000_ffff;
    word = (word | word << 8) & 0x00ff_00ff_00ff_00ff;
    word = (word | word << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    (word + 0x6161_6161_6161_6161).to_be_bytes()
}
