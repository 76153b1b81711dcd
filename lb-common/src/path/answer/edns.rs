//! What follows the question: nothing, or one OPT record and no more.

use super::{message::Message, question::Question};
use crate::{
    dns::cookie,
    frame::Frame,
    path::parse::Packet,
    tables::Scratch,
    verdict::Why,
    wire::{
        dns::{
            COOKIE, ClientCookie, CookieOption, DNSSEC_OK, EDNS_VERSION, NSID, OPT, Opt, OptionHead, PAYLOAD_SIZE,
            PLAIN_SIZE,
        },
        ethernet::Ethernet,
    },
};

/// Options that are looked at; clients send one or two.
const OPTIONS: usize = 8;

/// What the client said by EDNS.
#[derive(Clone, Copy)]
pub struct Edns {
    /// The largest response that it takes, in bytes.
    pub limit: usize,
    /// Whether it used EDNS at all.
    pub is_used: bool,
    /// Whether it wants DNSSEC's records.
    pub wants_dnssec: bool,
    /// Bytes of its options.
    pub options_length: u16,
    /// Its first COOKIE option; others don't count (RFC 7873 section 5.2).
    pub cookie: Option<Sent>,
}

/// A COOKIE option.
#[derive(Clone, Copy)]
pub struct Sent {
    /// Where it is in the frame.
    pub at: usize,
    /// Bytes of its data.
    pub length: u16,
}

impl Edns {
    /// Bytes of the reply's OPT record without options.
    #[inline(always)]
    pub const fn reply_length(&self) -> usize {
        if self.is_used { Opt::LEN } else { 0 }
    }
}

/// Reads it.
#[inline(always)]
pub fn read<M: Message, F: Frame>(
    frame: &F,
    packet: &Packet,
    question: &Question,
    scratch: &mut Scratch,
) -> Result<Edns, Why> {
    let end = Ethernet::LEN + usize::from(packet.length);
    let mut edns = Edns { limit: PLAIN_SIZE, is_used: false, wants_dnssec: false, options_length: 0, cookie: None };
    if !question.has_additional {
        return if question.end == end { Ok(edns) } else { Err(Why::DnsTrailing) };
    }
    let opt: &Opt = frame.view(question.end).ok_or(Why::DnsTrailing)?;
    let (extended, length) = (opt.extended.get(), opt.options_length.get());
    if opt.name != 0 || opt.kind.get() != OPT || question.end + Opt::LEN + usize::from(length) != end {
        return Err(Why::DnsTrailing);
    }
    if extended & EDNS_VERSION != 0 {
        return Err(Why::DnsVersion);
    }
    // A size below 512 counts as 512 (RFC 6891 section 6.2.3).
    edns.limit = usize::from(opt.payload_size.get().clamp(PLAIN_SIZE as u16, PAYLOAD_SIZE));
    (edns.is_used, edns.wants_dnssec, edns.options_length) = (true, extended & DNSSEC_OK != 0, length);
    if length != 0 {
        let (at, length) = options(frame, question.end + Opt::LEN, end)?;
        if at != 0 {
            edns.cookie = Some(Sent { at: scratch.forget(at as u64) as usize, length });
        }
    }
    Ok(edns)
}

/// Walks through the options. Where the first COOKIE option is, or zero, and how long it is.
#[inline(always)]
fn options<F: Frame>(frame: &F, mut at: usize, end: usize) -> Result<(usize, u16), Why> {
    let mut cookie = (0, 0);
    for _ in 0..OPTIONS {
        let option: &OptionHead = frame.view(at).ok_or(Why::DnsOption)?;
        let (code, length) = (option.code.get(), option.length.get());
        if code == NSID {
            return Err(Why::DnsOption);
        }
        if code == COOKIE && cookie.0 == 0 {
            cookie = (at, length);
        }
        at += OptionHead::LEN + usize::from(length);
        if at >= end {
            break;
        }
    }
    if at == end { Ok(cookie) } else { Err(Why::DnsOption) }
}

/// The client's cookie, and the server's where it is one of ours by its length.
#[inline(always)]
pub fn cookie<F: Frame>(frame: &F, sent: Sent) -> Result<(u64, Option<[u64; 2]>), Why> {
    if sent.length == cookie::LENGTH {
        let CookieOption { client, stamp, hash, .. } = frame.view(sent.at).ok_or(Why::DnsOption)?;
        Ok((client.get(), Some([stamp.get(), hash.get()])))
    } else {
        let ClientCookie { client, .. } = frame.view(sent.at).ok_or(Why::DnsOption)?;
        Ok((client.get(), None))
    }
}
