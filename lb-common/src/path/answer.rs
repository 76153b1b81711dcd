//! A DNS question turned into its answer, in place.
//!
//! What is handled: one plain question (RFC 1035) with or without EDNS version 0 (RFC 6891). Everything else, and every
//! question without an answer in the tables, passes to the agent.

use super::parse::Packet;
use crate::{
    checksum,
    frame::Frame,
    hash::{Keys, name_step},
    tables::{FAMILY_4, NAME_WORDS, Scratch, ScratchWork, Settings, Tables},
    verdict::{Verdict, Why},
    wire::{
        dns::{
            A, AUTHORITATIVE, CHECKING_DISABLED, DNSSEC_OK, DnsFrame4, DnsFrame6, DnsHeader, EDNS_VERSION, NOT_PLAIN,
            OPT, Opt, PAYLOAD_SIZE, PLAIN_SIZE, QuestionTail, RECURSION_DESIRED, RESPONSE, RecordA, RecordAaaa,
        },
        ethernet::{Addresses, Ethernet},
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
        transport::{Ports, UDP, Udp},
    },
};
use zerocopy::byteorder::little_endian::{U32 as Le32, U64 as Le64};

/// Hops of a reply.
const HOPS: u8 = 64;

/// Answers a question that came to a DNS address.
#[inline(always)]
pub fn answer<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    settings: &Settings,
    packet: &Packet,
) -> Result<Verdict, Why> {
    if packet.protocol != UDP || !packet.plain {
        return Err(Why::DnsNotPlain);
    }
    tables.with_scratch(Answering { frame, tables, settings, packet }).unwrap_or(Err(Why::Inconsistent))
}

struct Answering<'a, F, T> {
    frame: &'a mut F,
    tables: &'a T,
    settings: &'a Settings,
    packet: &'a Packet,
}

impl<F: Frame, T: Tables> ScratchWork for Answering<'_, F, T> {
    type Output = Result<Verdict, Why>;

    #[inline(always)]
    fn run(self, scratch: &mut Scratch) -> Self::Output {
        let Self { frame, tables, settings, packet } = self;
        match packet.family {
            FAMILY_4 => answer_over::<DnsFrame4, F, T>(frame, tables, settings, packet, scratch),
            _ => answer_over::<DnsFrame6, F, T>(frame, tables, settings, packet, scratch),
        }
    }
}

/// What the two families of DNS messages have in common.
trait Message: crate::frame::Header {
    /// Length of the network's header.
    const NETWORK: usize;
    /// Length up to the question.
    const QUESTION: usize;
    fn ethernet(&mut self) -> &mut Addresses;
    fn udp(&self) -> &Udp;
    fn udp_mut(&mut self) -> &mut Udp;
    fn dns(&self) -> &DnsHeader;
    fn dns_mut(&mut self) -> &mut DnsHeader;
    /// Turns the network's header around for a reply with `length` bytes of UDP; returns the sum of the pseudo header's
    /// addresses.
    fn turn_around(&mut self, length: u16) -> u64;
}

macro_rules! message {
    ($frame:ident, $network:ident, |$ip:ident, $length:ident| $turn:block) => {
        impl Message for $frame {
            const NETWORK: usize = $network::LEN;
            const QUESTION: usize = $frame::LEN;
            #[inline(always)]
            fn ethernet(&mut self) -> &mut Addresses {
                &mut self.ethernet
            }
            #[inline(always)]
            fn udp(&self) -> &Udp {
                &self.udp
            }
            #[inline(always)]
            fn udp_mut(&mut self) -> &mut Udp {
                &mut self.udp
            }
            #[inline(always)]
            fn dns(&self) -> &DnsHeader {
                &self.dns
            }
            #[inline(always)]
            fn dns_mut(&mut self) -> &mut DnsHeader {
                &mut self.dns
            }
            #[inline(always)]
            fn turn_around(&mut self, $length: u16) -> u64 {
                let $ip = &mut self.ip;
                $turn
            }
        }
    };
}
message!(DnsFrame4, Ipv4, |ip, length| {
    let (source, destination) = (ip.destination.get(), ip.source.get());
    let total = length.wrapping_add(Ipv4::LEN as u16);
    ip.traffic_class = 0;
    ip.total_length.set(total);
    // A datagram that is never fragmented needs no identification (RFC 6864 section 4.1).
    ip.identification.set(0);
    ip.fragment.set(ipv4::DONT_FRAGMENT);
    ip.time_to_live = HOPS;
    ip.source.set(source);
    ip.destination.set(destination);
    let addresses = checksum::add(checksum::add(0, u64::from(source)), u64::from(destination));
    let rest = u64::from(u16::from_ne_bytes([ipv4::NO_OPTIONS, 0]))
        + u64::from(total.to_be())
        + u64::from(ipv4::DONT_FRAGMENT.to_be())
        + u64::from(u16::from_ne_bytes([HOPS, UDP]));
    ip.checksum = checksum::finish(addresses + rest);
    addresses
});
message!(DnsFrame6, Ipv6, |ip, length| {
    let (source, destination) = (ip.destination.get(), ip.source.get());
    ip.version_class_flow.set(ipv6::PLAIN);
    ip.payload_length.set(length);
    ip.hop_limit = HOPS;
    ip.source.set(source);
    ip.destination.set(destination);
    let [a, b] = source;
    let [c, d] = destination;
    [a, b, c, d].iter().fold(0, |sum, word| checksum::add(sum, *word))
});

/// What the client said by EDNS.
#[derive(Clone, Copy)]
struct Edns {
    /// The largest response that it takes.
    limit: usize,
    /// The flags to repeat, if it used EDNS.
    reply: Option<u32>,
}

#[inline(always)]
fn answer_over<M: Message, F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    settings: &Settings,
    packet: &Packet,
    scratch: &mut Scratch,
) -> Result<Verdict, Why> {
    let query: &M = frame.head().ok_or(Why::DnsNotPlain)?;
    let end = Ethernet::LEN + usize::from(packet.length);
    if usize::from(query.udp().length.get()) != usize::from(packet.length).wrapping_sub(M::NETWORK) {
        return Err(Why::DnsNotPlain);
    }
    let dns = query.dns();
    let flags = dns.flags.get();
    let additionals = dns.additionals.get();
    if flags & NOT_PLAIN != 0
        || dns.questions.get() != 1
        || dns.answers.get() != 0
        || dns.authorities.get() != 0
        || additionals > 1
    {
        return Err(Why::DnsNotPlain);
    }

    frame.load(M::QUESTION, &mut scratch.name).ok_or(Why::DnsNotPlain)?;
    let length = read_name(&settings.keys, scratch).ok_or(Why::DnsNotPlain)?;
    let question_end = M::QUESTION + length + QuestionTail::LEN;
    let tail: &QuestionTail = frame.view(M::QUESTION + length).ok_or(Why::DnsNotPlain)?;
    let kind = u64::from(tail.kind.get()) | u64::from(tail.class.get()) << 16;
    let tail_sum = u64::from(tail.kind.get().to_be()) + u64::from(tail.class.get().to_be());
    let edns = edns(frame, question_end, end, additionals)?;

    let _ = (edns, tail_sum, kind, tables);
    Err(Why::DnsMiss)
}

/// Reads what follows the question: nothing, or one OPT record and no more.
#[inline(always)]
fn edns<F: Frame>(frame: &F, question_end: usize, end: usize, additionals: u16) -> Result<Edns, Why> {
    if additionals == 0 {
        return if question_end == end { Ok(Edns { limit: PLAIN_SIZE, reply: None }) } else { Err(Why::DnsNotPlain) };
    }
    let opt: &Opt = frame.view(question_end).ok_or(Why::DnsNotPlain)?;
    let extended = opt.extended.get();
    if opt.name != 0
        || opt.kind.get() != OPT
        || extended & EDNS_VERSION != 0
        || question_end + Opt::LEN + usize::from(opt.options_length.get()) != end
    {
        return Err(Why::DnsNotPlain);
    }
    // A size below 512 counts as 512 (RFC 6891 section 6.2.3).
    let limit = usize::from(opt.payload_size.get().clamp(PLAIN_SIZE as u16, PAYLOAD_SIZE));
    Ok(Edns { limit, reply: Some(extended & DNSSEC_OK) })
}

/// Folds the name in `scratch.name` to lower case, fills its last word up with zeros, and notes its hash and sum. Returns its
/// length with the root label, or nothing if it has no end.
///
/// Eight bytes at a time. Labels need no walk: a stored name has no zero byte within a label, so equal bytes up to the first
/// zero are equal labels; and a label's length is at most 63, below every letter, so folding leaves it alone.
#[inline(always)]
fn read_name(keys: &Keys, scratch: &mut Scratch) -> Option<usize> {
    let (mut hash, mut sum) = (keys.name, 0);
    let mut end = None;
    for (index, word) in scratch.name.iter_mut().enumerate() {
        let zeros = zero_bytes(*word);
        let raw = *word & up_to_first(zeros);
        let folded = lower_case(raw);
        sum = checksum::add(sum, raw);
        hash = name_step(hash, folded);
        *word = folded;
        if zeros != 0 {
            end = Some(index * 8 + first(zeros) + 1);
            break;
        }
    }
    scratch.length = end? as u64;
    (scratch.hash, scratch.sum) = (hash, sum);
    // Each way out of the loop has another length, and the verifier would follow all that comes after for each. A value read
    // back from memory that it does not track is just unknown.
    let length = core::hint::black_box(scratch).length as usize;
    if length > NAME_WORDS * 8 - 1 { None } else { Some(length) }
}

/// Hash of a name: what finds its answers. `name` is on the wire's form, filled up with zeros, in lower case or not.
pub fn name_hash(keys: &Keys, name: &[u64; NAME_WORDS]) -> Option<u64> {
    let mut scratch = Scratch { name: *name, length: 0, hash: 0, sum: 0 };
    read_name(keys, &mut scratch).map(|_| scratch.hash)
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Lower case for eight ASCII bytes at once; other bytes are kept.
#[inline(always)]
pub const fn lower_case(word: u64) -> u64 {
    let low = word & !HIGHS;
    let from_a = low + ONES * (0x80 - b'A' as u64);
    let after_z = low + ONES * (0x80 - b'Z' as u64 - 1);
    word | (from_a & !after_z & !word & HIGHS) >> 2
}

/// The high bit of the first zero byte, if there is one; bits above it mean nothing.
#[inline(always)]
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

/// All bytes up to and including the first that is marked, or all of them.
#[inline(always)]
const fn up_to_first(marks: u64) -> u64 {
    let mark = marks & marks.wrapping_neg();
    (mark << 1).wrapping_sub(1)
}

/// Index of the first byte that is marked. By multiplication, since BPF can't count zeros.
#[inline(always)]
const fn first(marks: u64) -> usize {
    let mark = marks & marks.wrapping_neg();
    let below = (mark >> 7).wrapping_sub(1) & ONES;
    (below.wrapping_mul(ONES) >> 56) as usize
}
