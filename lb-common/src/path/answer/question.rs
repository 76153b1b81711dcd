//! From a message to its one question.

use super::{Asked, message::Message};
use crate::{
    checksum,
    frame::Frame,
    hash::{Keys, name_step},
    tables::{NAME_WORDS, ReplyParts, Scratch, Tables, answers::question_hash},
    verdict::Why,
    wire::{
        dns::{DnsHeader, DnsStart, NOT_PLAIN, NameWord, PORT, QuestionEnd, RESPONSE},
        ethernet::Ethernet,
    },
};
use core::hint::black_box;

/// A question, as far as it is not in the scratch.
pub struct Question {
    /// What finds its answer.
    pub hash: u64,
    /// Type, and class (bits 16 to 31).
    pub kind: u32,
    /// Length of the name with its root label.
    pub name_length: usize,
    /// Sum of the name for a checksum.
    pub name_sum: u64,
    /// Sum of type and class.
    pub kind_sum: u64,
    /// Where it ends in the frame.
    pub end: usize,
    /// Bytes of the message up to there.
    pub size: usize,
    /// Flags of the header.
    pub flags: u16,
    /// The message's id, in the order of the wire.
    pub id: u16,
    /// Whether something follows it.
    pub has_additional: bool,
}

/// One question and no records, as in [`DnsStart::middle`].
pub const ONE_QUESTION: u64 = 1 << 24;
/// [`NOT_PLAIN`], and all counts.
const FIXED: u64 = !0xffff | NOT_PLAIN.swap_bytes() as u64;

/// Reads the question; its name goes into the scratch, in lower case.
#[inline(always)]
pub fn read<M: Message, F: Frame>(
    frame: &mut F,
    asked: &Asked<'_, impl Tables>,
    scratch: &mut Scratch,
) -> Result<Question, Why> {
    let packet = asked.packet;
    let query: &M = frame.head().ok_or(Why::DnsNotPlain)?;
    // Apart from the test before: Linux 6.1 does not see through both as one.
    if !black_box(packet.plain)
        || usize::from(((query.udp() >> 32) as u16).swap_bytes()) != usize::from(packet.length).wrapping_sub(M::NETWORK)
    {
        return Err(Why::DnsNotPlain);
    }
    let port = packet.from.tail as u16;
    if port == 0 || port == PORT.to_be() {
        return Err(Why::DnsPort);
    }
    let DnsStart { id, middle, additionals } = query.dns();
    let (id, middle, additionals) = (id.get(), middle.get(), additionals.get());
    let flags = (middle as u16).swap_bytes();
    if middle & FIXED != ONE_QUESTION || additionals & !1_u16.to_be() != 0 {
        return Err(match flags {
            flags if flags & RESPONSE != 0 => Why::DnsResponse,
            flags if flags & NOT_PLAIN != 0 => Why::DnsOpcode,
            _ => Why::DnsCounts,
        });
    }
    let (name_length, hash, name_sum) =
        read_name(&asked.settings.keys, scratch, |index| word(&*frame, M::QUESTION + index * 8)).ok_or(Why::DnsName)?;
    frame.forget();
    let end = M::QUESTION + name_length + QuestionEnd::LEN;
    if end > Ethernet::LEN + usize::from(packet.length) {
        return Err(Why::DnsName);
    }
    let QuestionEnd { word } = frame.view(M::QUESTION + name_length).ok_or(Why::DnsName)?;
    let word = word.get();
    let kind = (word & 0x00ff_00ff) << 8 | word >> 8 & 0x00ff_00ff;
    Ok(Question {
        hash: question_hash(hash, kind),
        kind,
        name_length,
        name_sum,
        kind_sum: word.into(),
        end,
        size: DnsHeader::LEN + name_length + QuestionEnd::LEN,
        flags,
        id,
        has_additional: additionals != 0,
    })
}

/// Eight bytes of a name, and whether they are the frame's last.
#[inline(always)]
fn word<F: Frame>(frame: &F, offset: usize) -> Option<(u64, bool)> {
    match frame.view::<NameWord>(offset) {
        Some(word) => Some((word.word.get(), false)),
        None => Some((frame.last_word(offset)?, true)),
    }
}

/// Folds a name to lower case, puts it into the scratch, filled up with zeros, and returns its length with the root label, its
/// hash and its sum; or nothing if it has no end. `word` says what the name's words are, and which is the last that there is.
///
/// Eight bytes at a time. Labels need no walk: a stored name has no zero byte within a label, so equal bytes up to the first
/// zero are equal labels; and a label's length is at most 63, below every letter, so folding leaves it alone.
#[inline(always)]
fn read_name(
    keys: &Keys,
    scratch: &mut Scratch,
    word: impl Fn(usize) -> Option<(u64, bool)>,
) -> Option<(usize, u64, u64)> {
    let (mut hash, mut sum) = (keys.name, 0);
    let mut end = None;
    for (index, folded) in scratch.name.iter_mut().enumerate() {
        let (word, is_last) = word(index)?;
        let zeros = zero_bytes(word);
        if zeros != 0 || is_last {
            let raw = word & up_to_first(zeros);
            *folded = lower_case(raw);
            sum = checksum::add(sum, raw);
            hash = name_step(hash, *folded);
            end = Some(index * 8 + first(zeros) + 1).filter(|_| zeros != 0);
            break;
        }
        *folded = lower_case(word);
        sum = checksum::add(sum, word);
        hash = name_step(hash, *folded);
    }
    let length = scratch.forget(end? as u64) as usize;
    if length > NAME_WORDS * 8 - 1 { None } else { Some((length, hash, scratch.forget(sum))) }
}

/// Hash of a name: what finds its answers. `name` is on the wire's form, filled up with zeros, in lower case or not.
pub fn name_hash(keys: &Keys, name: &[u64; NAME_WORDS]) -> Option<u64> {
    let mut scratch = Scratch { name: *name, reply: ReplyParts::default(), forgotten: 0 };
    let (_, hash, _) = read_name(keys, &mut scratch, |index| name.get(index).map(|word| (*word, false)))?;
    Some(hash)
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
