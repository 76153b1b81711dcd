//! Layouts of the answer space: how the path gets from a question to the rendered answer.
//!
//! The space is one row of words in chunks, addressed in blocks of 64 bytes, a cache line each. The agent is its only writer and
//! has it mapped into memory. In it lie
//! - the index: a run of [`Bucket`]s. A [`super::Service`] with [`super::DNS`] names it in [`super::Service::region`], in blocks: a
//!   larger index is written beside the old one and swapped with one store;
//! - bodies: rendered answers, [`BodyHead`] and what follows it;
//! - slot tables of answers, for policies with a choice: one [`Slot`] word after the other.
//!
//! What a word leads to is written before the word and reused only after a grace period. A word carries the generation of the
//! body that it leads to, and the body its own: the path compares them after it has copied the answer, and takes a difference for
//! a miss.

use super::NAME_WORDS;
use bytemuck::{Pod, Zeroable};

/// Words of a block.
pub const BLOCK_WORDS: u32 = 8;
/// Bits of a word's number in the space that lie within its chunk.
pub const ANSWER_CHUNK_BITS: u32 = 16;
/// Words of a chunk of the answer space: 512 KiB.
pub const ANSWER_CHUNK_WORDS: u32 = 1 << ANSWER_CHUNK_BITS;
/// Blocks of a chunk.
pub const ANSWER_CHUNK_BLOCKS: u32 = ANSWER_CHUNK_WORDS / BLOCK_WORDS;
/// Chunks, created as they are needed: 1 GiB.
pub const MAX_ANSWER_CHUNKS: u32 = 2_048;
/// Sizes of bodies, in blocks: 128, 256, 512 and 1,536 bytes.
pub const BODY_BLOCKS: [u32; 4] = [2, 4, 8, 24];
/// Words of the largest body. A chunk is as much longer than [`ANSWER_CHUNK_WORDS`], so that any body can be looked at as if it were the
/// largest.
pub const BODY_WORDS: usize = 192;

/// One place of the index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Entry {
    /// Hash of the question, [`question_hash`].
    pub question: u64,
    /// Where it leads, [`Leads`]; 0: nowhere, the place is free.
    pub leads: u64,
}

/// Places of one block. A question's entry is in one of two buckets: in that of the lower half of its hash or that of the upper half, each
/// by multiplication ([`crate::hash::slot`]). The path looks into the first one first.
pub type Bucket = [Entry; 4];

/// Hash of a question: of its name, [`crate::path::answer::name_hash`], and of its type and class as in [`BodyHead::kind`].
#[inline(always)]
pub const fn question_hash(name: u64, kind: u32) -> u64 {
    crate::hash::name_step(name, kind as u64)
}

/// How an answer is chosen from several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// There is one.
    Only,
    /// One after the other, by a sequence on each CPU.
    Turn,
    /// By chance.
    Random,
    /// By the client's prefix.
    Client,
}

/// Where an entry leads: one word, swapped as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leads {
    /// Block of the body, or of the slot table if there are slots.
    pub block: u32,
    /// Number of slots; 0 with [`Pick::Only`], whose `block` is the body's.
    pub slots: u16,
    /// How the slot is chosen, or with which of its records a body with [`BodyHead::turns`] begins.
    pub pick: Pick,
    /// Which questions it is for: without the DO bit (1), with it (2).
    pub dnssec: u8,
    /// Generation of the body, where it is the only one; never 0.
    pub generation: u16,
}

impl Leads {
    /// Generations are 12 bits wide.
    pub const GENERATIONS: u16 = 1 << 12;

    /// As a word; never 0 as long as the generation is not.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.block as u64
            | (self.slots as u64) << 32
            | (self.pick as u64) << 48
            | (self.dnssec as u64 & 3) << 50
            | (self.generation as u64) << 52
    }

    /// From that word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        let pick = match word >> 48 & 3 {
            0 => Pick::Only,
            1 => Pick::Turn,
            2 => Pick::Random,
            _ => Pick::Client,
        };
        Self {
            block: word as u32,
            slots: (word >> 32) as u16,
            pick,
            dnssec: (word >> 50 & 3) as u8,
            generation: (word >> 52) as u16,
        }
    }
}

/// One slot of a table of answers: the body's block (bits 0 to 31) and generation (32 to 47).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerSlot {
    /// Block of the body.
    pub block: u32,
    /// Its generation.
    pub generation: u16,
}

impl AnswerSlot {
    /// As a word.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.block as u64 | (self.generation as u64) << 32
    }

    /// From that word.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self { block: word as u32, generation: (word >> 32) as u16 }
    }
}

/// What a body begins with. Behind it, each from a whole word on: the name as on the wire, in lower case, filled up with zeros; the
/// records, all that follows the question but OPT, filled up with zeros; for a cached answer the offsets of its TTLs.
///
/// A set of records that are equally long and start at even offsets is rotated by where the path starts to copy: its records but
/// the last follow once more ([`BodyHead::stride`], [`BodyHead::turns`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct BodyHead {
    /// Type, and class (bits 16 to 31) of the question.
    pub kind: u32,
    /// Compared with that of the word that led here.
    pub generation: u16,
    /// Length of the name with its root label.
    pub name_length: u8,
    /// [`NEGATIVE`], [`CACHED`].
    pub class: u8,
    /// The flags of the message's header as rendered: QR, AA, RA, AD and RCODE. RD and CD are the question's.
    pub flags: u16,
    /// ANCOUNT.
    pub answers: u16,
    /// NSCOUNT.
    pub authorities: u16,
    /// ARCOUNT without OPT.
    pub additionals: u16,
    /// Bytes of records in a reply.
    pub length: u16,
    /// Offset of the first record from the body's start, in words.
    pub records: u16,
    /// Bytes from one record to the next, if the records are rotated by the path.
    pub stride: u16,
    /// How many records are rotated; 0 or 1: none.
    pub turns: u16,
    /// Sum of the records as if they started at an even offset: see [`crate::checksum`]. Rotation does not change it.
    pub sum: u32,
    /// How many TTLs of a cached answer are aged, at most [`MAX_TTLS`]; 0 for an authoritative answer.
    pub ttls: u16,
    /// Where their offsets are, in words from the body's start: each a `u16`, from the first record on.
    pub ttls_at: u16,
    /// The second (of [`super::Tables::seconds`]) from which TTLs are aged.
    pub since: u64,
    /// The second in which the first TTL is spent; `u64::MAX` for an authoritative answer, which never is.
    pub spent_at: u64,
}

/// Words of a [`BodyHead`].
pub const HEAD_WORDS: usize = size_of::<BodyHead>() / 8;
/// Words of a name in a body.
pub const BODY_NAME_WORDS: usize = NAME_WORDS;
/// TTLs of one cached answer that the path ages; one with more is the agent's.
pub const MAX_TTLS: u16 = 32;

/// [`BodyHead::class`]: there is no such name, or no record of this type.
pub const NEGATIVE: u8 = 1;
/// [`BodyHead::class`]: another server's, with an end.
pub const CACHED: u8 = 2;

/// What holds for every question. Written by the agent word by word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct DnsSettings {
    /// [`LIMITED`], [`COOKIES`], [`LEASED`], and from bit 32 on a [`Lapse`].
    pub features: u64,
    /// Until this second (of [`super::Tables::seconds`]) authoritative answers are sent; the agent moves it on while it lives.
    pub lease_until: u64,
    /// What to add to [`super::Tables::seconds`] for seconds since 1970, modulo 2^32 (RFC 9018 section 4.3).
    pub wall_offset: u64,
    /// The secret of server cookies, and the one before it, still accepted (RFC 9018 section 5).
    pub cookie_secrets: [[u64; 2]; 2],
    /// Tokens of a prefix's answers: a second's worth (bits 0 to 31) and the most (32 to 63).
    pub answer_rate: u64,
    /// Likewise for questions handed to the agent.
    pub miss_rate: u64,
    /// Of how many limited answers one is sent truncated (bits 0 to 7; 0: none); bits of a client's prefix, IPv4 (8 to 15) and
    /// IPv6 (16 to 23, at most 64).
    pub slip_and_prefixes: u64,
}

/// [`DnsSettings::features`]: rates are limited.
pub const LIMITED: u64 = 1;
/// [`DnsSettings::features`]: clients get server cookies.
pub const COOKIES: u64 = 2;
/// [`DnsSettings::features`]: the lease counts.
pub const LEASED: u64 = 4;

/// What becomes of authoritative answers once the lease is over (bits 32 to 33 of [`DnsSettings::features`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lapse {
    /// Questions pass to the agent's sockets, where nobody is.
    Pass,
    /// SERVFAIL.
    Fail,
}

/// Buckets of tokens for answers; as many follow for misses.
pub const LIMIT_BUCKETS: u32 = 65_536;
/// Sequences for turns, a row on each CPU, chosen by the question's hash.
pub const TURNS: u32 = 4_096;
/// Words of a server cookie that was found right, and of all that it was made from: client's address and family, the cookie's three
/// words ([`crate::dns::cookie::Cookie`]), secret.
pub const SHOWN_WORDS: usize = 8;
/// How many of them a CPU remembers: 256 KiB.
pub const SHOWN: u32 = 4_096;
/// Answers on a CPU of which one is sampled, for the names asked most.
pub const SAMPLE_EVERY: u32 = 64;
/// Samples that a CPU keeps: hashes of questions.
pub const SAMPLES: u32 = 1_024;
