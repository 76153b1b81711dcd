//! The reply: question as asked, records, OPT, and headers with whole checksums.

use super::{
    Asked, age,
    body::{Body, Fields},
    edns::Edns,
    message::Message,
    pick,
    question::{ONE_QUESTION, Question},
};
use crate::{
    checksum,
    dns::cookie,
    frame::Frame,
    tables::{ReplyParts, Scratch, Tables},
    verdict::{Verdict, Why},
    wire::{
        dns::{CHECKING_DISABLED, COOKIE, CookieOption, OPT, Opt, OptWords, PAYLOAD_SIZE, RECURSION_DESIRED, RESPONSE},
        ethernet::Ethernet,
        transport::UDP,
    },
};
use core::hint::black_box;

/// Bytes of the option with a cookie.
pub const COOKIE_LENGTH: usize = CookieOption::LEN;
/// OPT's name, type, size and no flags.
const OPT_FIRST: u64 = {
    let ([a, b], [c, d]) = (OPT.to_be_bytes(), PAYLOAD_SIZE.to_be_bytes());
    u64::from_le_bytes([0, a, b, c, d, 0, 0, 0])
};
/// DO, where it is in the same word.
const OPT_DNSSEC_OK: u64 = 0x80 << 56;
/// Code and length of a COOKIE option.
const COOKIE_HEAD: u32 = {
    let ([a, b], [c, d]) = (COOKIE.to_be_bytes(), cookie::LENGTH.to_be_bytes());
    u32::from_le_bytes([a, b, c, d])
};

/// The first word of the OPT record for this client.
#[inline(always)]
pub const fn opt(edns: &Edns) -> u64 {
    OPT_FIRST | if edns.wants_dnssec { OPT_DNSSEC_OK } else { 0 }
}

/// Writes it over the question: without a body the question alone goes back.
#[inline(always)]
pub fn write<M: Message, F: Frame, T: Tables>(
    frame: &mut F,
    asked: &Asked<'_, T>,
    question: &Question,
    body: Option<&Body>,
    scratch: &mut Scratch,
) -> Result<Verdict, Why> {
    let scratch = black_box(scratch);
    let parts = scratch.reply;
    let mut length = body.map_or(0, Fields::length);
    let end = question.end + length + (parts.opt_length + parts.options_length) as usize;
    frame.resize(end, question.end).ok_or(Why::NoRoom)?;

    // From here on nothing fails but by a contradiction between a length and its frame.
    let (mut sum, mut counts, mut additionals) = (question.kind_sum, 0, 0);
    if let Some(body) = body {
        let turn = pick::record(asked, body, question, &parts);
        let from = scratch.forget((body.records() + turn as usize * body.stride()) as u64) as usize;
        frame.store(question.end, body, from, length).ok_or(Why::Inconsistent)?;
        length = scratch.forget(length as u64) as usize;
        let [first, ..] = body;
        if asked.tables.once(first) != parts.first {
            return Ok(Verdict::Drop(Why::DnsReplaced));
        }
        sum += body.sum();
        if body.ttls().0 != 0 {
            sum += age::age(frame, body, question, parts.elapsed as u32).ok_or(Why::Inconsistent)?;
        }
        let header = body.header();
        (counts, additionals) = (header & 0xffff_ffff_0000, (header >> 48) as u16);
        asked.tables.sample(question.hash);
    }
    if parts.opt_length != 0 {
        let opt = write_opt(frame, question.end + length, &parts).ok_or(Why::Inconsistent)?;
        sum += if length % 2 == 1 { u64::from(checksum::fold(opt).swap_bytes()) } else { opt };
        additionals = additionals.wrapping_add(1);
    }
    // What follows the name starts at an odd offset if the name's length is odd: its bytes change places in the sum.
    let sum = if question.name_length % 2 == 1 { u64::from(checksum::fold(sum).swap_bytes()) } else { sum };

    let head: &mut M = frame.head_mut().ok_or(Why::Inconsistent)?;
    let udp_length = (end - Ethernet::LEN - M::NETWORK) as u16;
    let addresses = head.turn_around(udp_length);
    let flags = RESPONSE | parts.flags as u16 | question.flags & (RECURSION_DESIRED | CHECKING_DISABLED);
    // Behind the flags comes the number of questions, which a body does not have.
    let middle = in_wire_order(u64::from(flags) | counts << 16) | ONE_QUESTION;
    let additionals = additionals.swap_bytes();
    let dns = head.dns_mut();
    dns.middle.set(middle);
    dns.additionals.set(additionals);
    let udp_length = u64::from(udp_length.to_be());
    let udp = asked.packet.to.tail & 0xffff | (asked.packet.from.tail & 0xffff) << 16 | udp_length << 32;
    // The pseudo header has the length once more.
    let whole = checksum::add(checksum::add(sum + question.name_sum + addresses, middle), udp)
        + u64::from(question.id)
        + u64::from(additionals)
        + u64::from(u16::from(UDP).to_be())
        + udp_length;
    head.udp_mut().set(udp | u64::from(u16::from_ne_bytes(checksum::finish_udp(whole))) << 48);
    Ok(Verdict::Transmit(sent(parts.why)))
}

/// Four numbers of 16 bits, each with its bytes swapped.
#[inline(always)]
const fn in_wire_order(word: u64) -> u64 {
    (word & 0x00ff_00ff_00ff_00ff) << 8 | word >> 8 & 0x00ff_00ff_00ff_00ff
}

/// What is counted for a reply.
#[inline(always)]
fn sent(why: u64) -> Why {
    for known in [Why::Answered, Why::AnsweredNegative, Why::AnsweredCached, Why::DnsTruncated, Why::DnsSlipped] {
        if why == known as u64 {
            return known;
        }
    }
    Why::DnsLapseRefused
}

/// Writes the OPT record. Returns its sum as if it started at an even offset.
#[inline(always)]
fn write_opt<F: Frame>(frame: &mut F, at: usize, parts: &ReplyParts) -> Option<u64> {
    let mut sum = checksum::add(0, parts.opt);
    if parts.options_length != 0 {
        let [client, stamp, hash] = parts.cookie;
        let option: &mut CookieOption = frame.view_mut(at + Opt::LEN)?;
        option.head.set(COOKIE_HEAD);
        option.client.set(client);
        option.stamp.set(stamp);
        option.hash.set(hash);
        let words = [client, stamp, hash].iter().fold(COOKIE_HEAD.into(), |sum, word| checksum::add(sum, *word));
        // The option starts at an odd offset.
        sum += parts.options_length + u64::from(checksum::fold(words).swap_bytes());
    }
    let opt: &mut OptWords = frame.view_mut(at)?;
    opt.first.set(parts.opt);
    opt.middle.set(0);
    opt.last = parts.options_length as u8;
    Some(sum)
}
