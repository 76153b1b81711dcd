//! A DNS question turned into its answer, in place.
//!
//! What is handled: one plain question (RFC 1035) with or without EDNS version 0 (RFC 6891). Everything else, and every
//! question without an answer in the tables, passes to the agent, as often as its clients may have that.

mod age;
mod body;
mod edns;
mod find;
mod limit;
mod message;
mod pick;
mod question;
mod reply;
mod shown;

pub use question::{lower_case, name_hash};

use super::parse::Packet;
use crate::{
    dns::{
        client,
        cookie::{self, Cookie},
    },
    frame::Frame,
    tables::{
        FAMILY_4, Scratch, ScratchWork, Service, Settings, Tables,
        answers::{CACHED, COOKIES, DnsSettings, LEASED, LIMITED, Lapse, NEGATIVE},
    },
    verdict::{Verdict, Why},
    wire::{
        dns::{AVAILABLE, DnsFrame4, DnsFrame6, SERVFAIL, TRUNCATED},
        transport::UDP,
    },
};
use body::{Body, Fields as _};
use core::hint::black_box;
use edns::Edns;
use message::Message;
use question::Question;

/// Answers a question that came to a DNS address.
#[inline(always)]
pub fn answer<F: Frame, T: Tables>(
    frame: &mut F,
    tables: &T,
    settings: &Settings,
    service: &Service,
    packet: &Packet,
) -> Result<Verdict, Why> {
    if packet.protocol != UDP {
        return Err(Why::DnsTcp);
    }
    let dns = tables.dns().ok_or(Why::Inconsistent)?;
    let asked = Asked { tables, settings, dns, region: tables.once(&service.region), packet };
    tables.with_scratch(Answering { frame, asked }).unwrap_or(Err(Why::Inconsistent))
}

/// What a question is answered from.
struct Asked<'a, T> {
    tables: &'a T,
    settings: &'a Settings,
    dns: &'a DnsSettings,
    /// The index, as a word of [`crate::tables::Region`].
    region: u64,
    packet: &'a Packet,
}

impl<T: Tables> Asked<'_, T> {
    /// What the client is taken for.
    #[inline(always)]
    fn client(&self) -> u32 {
        client::hash(&self.settings.keys, self.dns, &self.packet.from.address, self.packet.family)
    }
}

struct Answering<'a, F, T> {
    frame: &'a mut F,
    asked: Asked<'a, T>,
}

impl<F: Frame, T: Tables> ScratchWork for Answering<'_, F, T> {
    type Output = Result<Verdict, Why>;

    #[inline(always)]
    fn run(self, scratch: &mut Scratch) -> Self::Output {
        let Self { frame, asked } = self;
        scratch.reply.is_valid = 0;
        let result = match asked.packet.family {
            FAMILY_4 => answer_over::<DnsFrame4, F, T>(frame, &asked, scratch),
            _ => answer_over::<DnsFrame6, F, T>(frame, &asked, scratch),
        };
        match result {
            Err(_)
                if asked.dns.features & LIMITED != 0 && !shows_its_address(scratch) && !limit::takes_miss(&asked) =>
            {
                Ok(Verdict::Drop(Why::DnsMissLimited))
            }
            result => result,
        }
    }
}

#[inline(always)]
fn answer_over<M: Message, F: Frame, T: Tables>(
    frame: &mut F,
    asked: &Asked<'_, T>,
    scratch: &mut Scratch,
) -> Result<Verdict, Why> {
    let question = question::read::<M, F>(frame, asked, scratch)?;
    let edns = edns::read::<M, F>(frame, asked.packet, &question, scratch)?;
    let clock = if asked.dns.features == 0 { 0 } else { asked.tables.nanoseconds() };
    scratch.reply.opt_length = edns.reply_length() as u64;
    scratch.reply.opt = reply::opt(&edns);
    scratch.reply.options_length = 0;
    if let Some(checked) = cookie_of(frame, asked, scratch, &edns, clock)? {
        scratch.reply.is_valid = checked.is_valid.into();
        let Cookie { client, stamp, hash } = checked.reply;
        scratch.reply.cookie = [client, stamp, hash];
        scratch.reply.options_length = reply::COOKIE_LENGTH as u64;
    }
    let mut body = decide(asked, scratch, &question, &edns, clock)?;
    if asked.dns.features & LIMITED != 0 && !shows_its_address(scratch) && !limit::takes_answer(asked, clock) {
        if !limit::slips(asked) {
            return Ok(Verdict::Drop(Why::DnsLimited));
        }
        body = bare(scratch, TRUNCATED, Why::DnsSlipped);
        // No longer than the question.
        if usize::from(edns.options_length) < reply::COOKIE_LENGTH {
            scratch.reply.options_length = 0;
        }
    }
    reply::write::<M, F, T>(frame, asked, &question, body, scratch)
}

/// Whether the client has shown by a cookie that it is at its address.
#[inline(always)]
fn shows_its_address(scratch: &Scratch) -> bool {
    black_box(scratch).reply.is_valid != 0
}

/// The question alone goes back.
#[inline(always)]
fn bare<'t>(scratch: &mut Scratch, flags: u16, why: Why) -> Option<&'t Body> {
    (scratch.reply.flags, scratch.reply.why) = (flags.into(), why as u64);
    None
}

/// What the client's cookie is worth, if it sent one and cookies are something to us.
#[inline(always)]
fn cookie_of<F: Frame, T: Tables>(
    frame: &F,
    asked: &Asked<'_, T>,
    scratch: &mut Scratch,
    edns: &Edns,
    clock: u64,
) -> Result<Option<cookie::Checked>, Why> {
    let Some(sent) = edns.cookie.filter(|_| asked.dns.features & COOKIES != 0) else { return Ok(None) };
    if !cookie::is_length(sent.length) {
        return Err(Why::DnsOption);
    }
    let (client, server) = edns::cookie(frame, sent)?;
    let DnsSettings { cookie_secrets: [[key0, key1], before], wall_offset, .. } = asked.dns;
    // What is remembered names the very secret that it was checked by.
    let current = [asked.tables.once(key0), asked.tables.once(key1)];
    let now = (clock / 1_000_000_000).wrapping_add(*wall_offset) as u32;
    let address = &asked.packet.from.address;
    let sent = server.map(|[stamp, hash]| Cookie { client, stamp, hash });
    let is_known = scratch.forget(sent.is_some_and(|sent| shown::is_known(asked, &current, &sent)).into()) != 0;
    let checked = cookie::check(&[current, *before], address, asked.packet.family, now, client, server, is_known);
    // Only one that is made with the current secret, and not too old, is sent back.
    if checked.is_valid && !is_known && sent == Some(checked.reply) {
        shown::remember(asked, &current, &checked.reply);
    }
    Ok(Some(checked))
}

/// Finds the answer. Notes what is sent, and returns the body that it is copied from, if there is one.
#[inline(always)]
fn decide<'t, T: Tables>(
    asked: &Asked<'t, T>,
    scratch: &mut Scratch,
    question: &Question,
    edns: &Edns,
    clock: u64,
) -> Result<Option<&'t Body>, Why> {
    let body = find::find(asked, scratch, question, edns)?;
    let (class, flags) = (body::class(scratch.reply.first), body.flags());
    scratch.reply.elapsed = 0;
    if class & CACHED != 0 {
        let now = if clock == 0 { asked.tables.seconds() } else { clock / 1_000_000_000 };
        scratch.reply.elapsed = age::elapsed(body, now)?.into();
    } else if asked.dns.features & LEASED != 0 && limit::is_over(asked.dns.lease_until, clock) {
        return if asked.dns.features >> 32 & 3 == Lapse::Fail as u64 {
            Ok(bare(scratch, flags & AVAILABLE | SERVFAIL, Why::DnsLapseRefused))
        } else {
            Err(Why::DnsLapsed)
        };
    }
    let opt_length = (scratch.reply.opt_length + scratch.reply.options_length) as usize;
    if question.size + body.length() + opt_length > edns.limit {
        return Ok(bare(scratch, flags | TRUNCATED, Why::DnsTruncated));
    }
    let why = if class & CACHED != 0 {
        Why::AnsweredCached
    } else if class & NEGATIVE != 0 {
        Why::AnsweredNegative
    } else {
        Why::Answered
    };
    (scratch.reply.flags, scratch.reply.why) = (flags.into(), why as u64);
    Ok(Some(body))
}
