//! The reply: question as asked, records, OPT, and headers with whole checksums.

use super::{
    Asked, age,
    edns::Edns,
    find::Found,
    message::Message,
    pick,
    question::{ONE_QUESTION, Question},
};
use crate::{
    checksum,
    dns::cookie::{self, Cookie},
    frame::Frame,
    tables::Tables,
    verdict::{Verdict, Why},
    wire::{
        dns::{CHECKING_DISABLED, COOKIE, CookieOption, OPT, Opt, OptWords, PAYLOAD_SIZE, RECURSION_DESIRED, RESPONSE},
        ethernet::Ethernet,
        transport::{Ports, UDP},
    },
};

/// Bytes of the option with a cookie.
pub const COOKIE_LENGTH: usize = CookieOption::LEN;
/// RA: said of the server, and so in a refusal too.
pub const AVAILABLE: u16 = 0x0080;

/// What is sent.
pub struct Reply<'t> {
    /// Flags of the message, but those that are the question's; without [`RESPONSE`] where there is no body.
    pub flags: u16,
    /// The records; none: the question alone goes back.
    pub found: Option<Found<'t>>,
    /// By how many seconds they have aged.
    pub elapsed: u32,
    /// The cookie for the client.
    pub cookie: Option<Cookie>,
    /// What is counted.
    pub why: Why,
}

impl Reply<'_> {
    /// The question alone.
    #[inline(always)]
    pub const fn bare(flags: u16, why: Why) -> Self {
        Self { flags, found: None, elapsed: 0, cookie: None, why }
    }
}

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

/// Writes it over the question.
#[inline(always)]
pub fn write<M: Message, F: Frame, T: Tables>(
    frame: &mut F,
    asked: &Asked<'_, T>,
    question: &Question,
    edns: &Edns,
    reply: &Reply<'_>,
) -> Result<Verdict, Why> {
    let length = reply.found.as_ref().map_or(0, Found::length);
    let opt_at = question.end + length;
    let options_length = if reply.cookie.is_some() { COOKIE_LENGTH } else { 0 };
    let end = opt_at + edns.reply_length() + options_length;
    frame.resize(end, question.end).ok_or(Why::NoRoom)?;

    // From here on nothing fails but by a contradiction between a length and its frame.
    let (mut sum, mut counts, mut additionals) = (question.kind_sum, 0, 0);
    if let Some(found) = &reply.found {
        let turn = pick::record(asked, found, question);
        let from = found.records() + turn as usize * found.stride();
        frame.store(question.end, found.body, from, length).ok_or(Why::Inconsistent)?;
        let [first, ..] = found.body;
        if asked.tables.once(first) != found.first {
            return Ok(Verdict::Drop(Why::DnsReplaced));
        }
        sum += found.sum();
        if found.ttls().0 != 0 {
            sum += age::age(frame, found, question, reply.elapsed).ok_or(Why::Inconsistent)?;
        }
        let header = found.header();
        (counts, additionals) = (header & 0xffff_ffff_0000, (header >> 48) as u16);
        asked.tables.sample(question.hash);
    }
    if edns.is_used {
        let opt = write_opt(frame, opt_at, edns, reply).ok_or(Why::Inconsistent)?;
        sum += if length % 2 == 1 { u64::from(checksum::fold(opt).swap_bytes()) } else { opt };
        additionals = additionals.wrapping_add(1);
    }
    // What follows the name starts at an odd offset if the name's length is odd: its bytes change places in the sum.
    let sum = if question.name_length % 2 == 1 { u64::from(checksum::fold(sum).swap_bytes()) } else { sum };

    let head: &mut M = frame.head_mut().ok_or(Why::Inconsistent)?;
    let udp_length = (end - Ethernet::LEN - M::NETWORK) as u16;
    head.ethernet().turn_around();
    let addresses = head.turn_around(udp_length);
    let flags = RESPONSE | reply.flags | question.flags & (RECURSION_DESIRED | CHECKING_DISABLED);
    // Behind the flags comes the number of questions, which a body does not have.
    let middle = in_wire_order(u64::from(flags) | counts << 16) | ONE_QUESTION;
    let additionals = additionals.swap_bytes();
    let dns = head.dns_mut();
    dns.middle.set(middle);
    dns.additionals.set(additionals);
    let udp = head.udp_mut();
    udp.ports = Ports { source: asked.packet.to.port_bytes(), destination: asked.packet.from.port_bytes() };
    udp.length.set(udp_length);
    let whole = checksum::add(sum + question.name_sum + addresses, middle)
        + u64::from(question.id)
        + u64::from(additionals)
        + u64::from(u16::from(UDP).to_be())
        + u64::from(udp_length.to_be()) * 2
        + (asked.packet.from.tail & 0xffff)
        + (asked.packet.to.tail & 0xffff);
    udp.checksum = checksum::finish_udp(whole);
    Ok(Verdict::Transmit(reply.why))
}

/// Four numbers of 16 bits, each with its bytes swapped.
#[inline(always)]
const fn in_wire_order(word: u64) -> u64 {
    (word & 0x00ff_00ff_00ff_00ff) << 8 | word >> 8 & 0x00ff_00ff_00ff_00ff
}

/// Writes the OPT record. Returns its sum as if it started at an even offset.
#[inline(always)]
fn write_opt<F: Frame>(frame: &mut F, at: usize, edns: &Edns, reply: &Reply<'_>) -> Option<u64> {
    let first = OPT_FIRST | if edns.wants_dnssec { OPT_DNSSEC_OK } else { 0 };
    let mut sum = checksum::add(0, first);
    let mut options_length = 0;
    if let Some(Cookie { client, stamp, hash }) = reply.cookie {
        let option: &mut CookieOption = frame.view_mut(at + Opt::LEN)?;
        option.head.set(COOKIE_HEAD);
        option.client.set(client);
        option.stamp.set(stamp);
        option.hash.set(hash);
        let words = [client, stamp, hash].iter().fold(COOKIE_HEAD.into(), |sum, word| checksum::add(sum, *word));
        options_length = COOKIE_LENGTH as u8;
        // The option starts at an odd offset.
        sum += u64::from(options_length) + u64::from(checksum::fold(words).swap_bytes());
    }
    let opt: &mut OptWords = frame.view_mut(at)?;
    opt.first.set(first);
    opt.middle.set(0);
    opt.last = options_length;
    Some(sum)
}
