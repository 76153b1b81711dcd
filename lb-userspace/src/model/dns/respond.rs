//! From a query to its response.
//!
//! To a question that the kernel answers too, the response is the same bytes: both are put together from the same [`Rendered`].

use super::{
    names::Names,
    query::{ClientEdns, Query, Question},
    rendered::{self, Body, Rendered},
};
use hickory_proto::op::ResponseCode;
use lb_common::{
    tables::answers::Pick,
    wire::dns::{
        CHECKING_DISABLED, DNSSEC_OK, DnsHeader, OPT, PAYLOAD_SIZE, PLAIN_SIZE, RECURSION_DESIRED, RESPONSE,
    },
};
use std::{borrow::Cow, net::IpAddr};

/// How a query came; it decides how large its response may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As large as the client takes.
    Udp,
    /// As large as a message can be.
    Tcp,
}

/// Who asks, and how.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// How its query came.
    pub transport: Transport,
}

/// A response to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The message.
    pub bytes: Vec<u8>,
    /// Its response code, with the part that is in the OPT record.
    pub code: ResponseCode,
    /// Whether it says that the client should ask again by TCP.
    pub is_truncated: bool,
    /// What the kernel could answer next time.
    pub asked: Option<Asked>,
}

/// A question that was asked; [`Names::answer`] answers it.
pub type Asked = rendered::Question;

/// Answers a query; `turn` chooses where there is a choice that is not by the client. `None` for what deserves no reply: no whole header,
/// or itself a response, which two servers would otherwise send to each other for ever.
pub fn respond(query: &[u8], client: Client, names: &Names, turn: u32) -> Option<Response> {
    let query = Query::read(query)?;
    if query.flags & RESPONSE != 0 {
        return None;
    }
    Some(match find(&query, names) {
        Ok((question, rendered)) => {
            let (body, first) = choose(&rendered, client.address, turn)?;
            let code = ResponseCode::from(0, (body.flags & CODE) as u8);
            let asked = Asked { wire: question.wire.as_slice().into(), kind: question.kind };
            Response { asked: Some(asked), ..write(&query, client.transport, code, body, first) }
        }
        Err(code) => {
            let flags = RESPONSE | query.flags & OPCODE | u16::from(code) & CODE;
            write(&query, client.transport, code, &Body { flags, ..Body::default() }, 0)
        }
    })
}

/// TC.
const TRUNCATED: u16 = 0x0200;
/// What is asked for; zero: a question.
const OPCODE: u16 = 0x7800;
/// The response code, in flags.
const CODE: u16 = 0x000f;

/// The question and its answers, or what is wrong with the query.
fn find<'q, 'n>(
    query: &'q Query<'_>,
    names: &'n Names,
) -> Result<(&'q Question<'q>, Cow<'n, Rendered>), ResponseCode> {
    if query.flags & OPCODE != 0 {
        return Err(ResponseCode::NotImp);
    }
    let cookie = query.edns.filter(|edns| edns.version == 0).map_or(Ok(None), |edns| edns.cookie());
    let (true, Ok(cookie)) = (query.is_sound, cookie) else { return Err(ResponseCode::FormErr) };
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return Err(ResponseCode::BADVERS);
    }
    let Some(question) = &query.question else {
        // Any number of questions but one is a format error (RFC 9619 section 4), except that a client may ask for a cookie by none
        // at all (RFC 7873 section 5.4).
        let is_for_cookie = query.questions == 0 && cookie.is_some();
        return Err(if is_for_cookie { ResponseCode::NoError } else { ResponseCode::FormErr });
    };
    Ok((question, names.answer(&question.wire, question.kind).ok_or(ResponseCode::Refused)?))
}

/// One of the bodies, and with which of its records it begins.
fn choose(rendered: &Rendered, client: IpAddr, turn: u32) -> Option<(&Body, u32)> {
    let slots = rendered.slots.len() as u32;
    let number = match rendered.pick {
        Pick::Only => 0,
        Pick::Turn | Pick::Random => turn.checked_rem(slots).unwrap_or_default(),
        Pick::Client => { let _ = client; 0 },
    };
    let body = rendered.slots.get(number as usize).copied().unwrap_or_default();
    let body = rendered.bodies.get(usize::from(body))?;
    // What chose the slot must not choose the record too, or not all pairs would come.
    let rest = turn.checked_div(slots).unwrap_or(turn);
    Some((body, rest.checked_rem(body.turns.into()).unwrap_or_default()))
}

fn write(query: &Query<'_>, transport: Transport, code: ResponseCode, body: &Body, first: u32) -> Response {
    let limit = match transport {
        Transport::Tcp => usize::from(u16::MAX),
        Transport::Udp => query.edns.map_or(PLAIN_SIZE, |edns| edns.payload_size.min(PAYLOAD_SIZE.into())),
    };
    let question = query.question.as_ref().map_or(&[][..], |question| question.asked);
    let opt = query.edns.map_or_else(Vec::new, |client| opt(&client, code));
    let is_truncated = DnsHeader::LEN + question.len() + body.records.len() + opt.len() > limit;
    let (counts, records, truncated) =
        if is_truncated { ([0; 3], &[][..], TRUNCATED) } else { (body.counts, &body.records[..], 0) };
    let flags = body.flags | truncated | query.flags & (RECURSION_DESIRED | CHECKING_DISABLED);
    let [answers, authorities, additionals] = counts;
    let mut bytes = Vec::with_capacity(DnsHeader::LEN + question.len() + records.len() + opt.len());
    let additionals = additionals + u16::from(query.edns.is_some());
    for word in [query.id, flags, u16::from(query.question.is_some()), answers, authorities, additionals] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend(question);
    let (end, start) = records.split_at(turned(body, first).min(records.len()));
    bytes.extend(start);
    bytes.extend(end);
    bytes.extend(opt);
    Response { bytes, code, is_truncated, asked: None }
}

/// Where in a body's records the one lies that it begins with.
fn turned(body: &Body, first: u32) -> usize {
    let stride = body.records.len().checked_div(body.turns.into()).unwrap_or_default();
    stride * first as usize
}

/// DO is repeated (RFC 3225 section 3).
fn opt(client: &ClientEdns<'_>, code: ResponseCode) -> Vec<u8> {
    let extended = u32::from(u16::from(code) >> 4) << 24 | if client.dnssec_ok { DNSSEC_OK } else { 0 };
    let options: Vec<u8> = Vec::new();
    let mut opt = vec![0];
    opt.extend(OPT.to_be_bytes());
    opt.extend(PAYLOAD_SIZE.to_be_bytes());
    opt.extend(extended.to_be_bytes());
    opt.extend((options.len() as u16).to_be_bytes());
    opt.extend(options);
    opt
}

#[cfg(test)]
mod tests;
