//! From a query to its response.
//!
//! To a question that the kernel answers too, the response is the same bytes: both are put together from the same [`Rendered`].

use super::{
    names::Names,
    query::{BrokenOptions, ClientEdns, Query},
    rendered::{self, Body, Rendered},
};
use bytemuck::Zeroable as _;
use hickory_proto::op::ResponseCode;
use lb_common::{
    dns::{
        client,
        cookie::{self, Cookie},
    },
    hash::{self, Keys},
    tables::{
        Endpoint, FAMILY_4, FAMILY_6,
        answers::{DnsSettings, Pick},
    },
    wire::{
        dns::{
            CHECKING_DISABLED, COOKIE, DNSSEC_OK, DnsHeader, OPT, PAYLOAD_SIZE, PLAIN_SIZE, RECURSION_DESIRED, RESPONSE,
        },
        transport::UDP,
    },
};
use std::{fmt, net::IpAddr};

/// How a query came; it decides how large its response may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As large as the client takes.
    Udp,
    /// As large as a message can be.
    Tcp,
}

/// Who asks, how and when.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Its address.
    pub address: IpAddr,
    /// How its query came.
    pub transport: Transport,
    /// The second since 1970, modulo 2^32.
    pub second: u32,
}

/// What all answers of a config depend on. Whoever knows it can make cookies, and aim at a slot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// What the clients' hash is keyed by.
    pub keys: Keys,
    /// The secrets of cookies, and what counts as one client.
    pub settings: DnsSettings,
}

impl Default for Server {
    fn default() -> Self {
        Self { keys: Keys::zeroed(), settings: DnsSettings::zeroed() }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Server")
    }
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
    let server = names.zone().server();
    let sent = query.edns.filter(|edns| edns.version == 0).map_or(Ok(None), |edns| edns.cookie());
    let cookie = sent.ok().flatten().map(|sent| checked(server, &client, sent));
    let mut reply = Reply { query: &query, transport: client.transport, cookie, code: ResponseCode::NoError };
    if let Err(code) = fault(&query, sent) {
        reply.code = code;
        return Some(reply.bare());
    }
    let Some(question) = &query.question else {
        return Some(reply.bare());
    };
    let Some(rendered) = names.answer(&question.wire, question.kind) else {
        reply.code = ResponseCode::Refused;
        return Some(reply.bare());
    };
    let (body, first) = choose(&rendered, server, &client, turn)?;
    reply.code = ResponseCode::from(0, (body.flags & CODE) as u8);
    let asked = Asked { wire: question.wire.as_slice().into(), kind: question.kind };
    Some(Response { asked: Some(asked), ..reply.write(body, first) })
}

/// TC.
const TRUNCATED: u16 = 0x0200;
/// What is asked for; zero: a question.
const OPCODE: u16 = 0x7800;
/// The response code, in flags.
const CODE: u16 = 0x000f;

/// What is wrong with a query, whatever it asks for. A question may be missing.
fn fault(query: &Query<'_>, cookie: Result<Option<&[u8]>, BrokenOptions>) -> Result<(), ResponseCode> {
    if query.flags & OPCODE != 0 {
        return Err(ResponseCode::NotImp);
    }
    let (true, Ok(cookie)) = (query.is_sound, cookie) else { return Err(ResponseCode::FormErr) };
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return Err(ResponseCode::BADVERS);
    }
    // Any number of questions but one is a format error (RFC 9619 section 4), except that a client may ask for a cookie by none at
    // all (RFC 7873 section 5.4).
    let is_for_cookie = query.questions == 0 && cookie.is_some();
    if query.question.is_some() || is_for_cookie { Ok(()) } else { Err(ResponseCode::FormErr) }
}

/// The cookie that a client gets for its own, which is 8 bytes long or more.
fn checked(server: &Server, client: &Client, sent: &[u8]) -> Cookie {
    let mut words = sent.chunks_exact(8).map(|word| word.iter().rfold(0, |all, byte| all << 8 | u64::from(*byte)));
    let own = words.next().unwrap_or_default();
    let ours = words.next().zip(words.next()).map(|(stamp, hash)| [stamp, hash]);
    let ours = ours.filter(|_| sent.len() == usize::from(cookie::LENGTH));
    let endpoint = Endpoint::new(client.address, UDP, 0);
    let secrets = &server.settings.cookie_secrets;
    cookie::check(secrets, &endpoint.address, family(client.address), client.second, own, ours, false).reply
}

const fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { FAMILY_4 } else { FAMILY_6 }
}

/// One of the bodies, and with which of its records it begins.
fn choose<'r>(rendered: &'r Rendered, server: &Server, client: &Client, turn: u32) -> Option<(&'r Body, u32)> {
    let slots = rendered.slots.len() as u32;
    if slots == 0 {
        let body = rendered.bodies.first()?;
        return Some((body, turn.checked_rem(body.turns.into()).unwrap_or_default()));
    }
    let number = match rendered.pick {
        Pick::Client => {
            let address = Endpoint::new(client.address, UDP, 0).address;
            hash::slot(client::hash(&server.keys, &server.settings, &address, family(client.address)), slots)
        }
        _ => turn % slots,
    };
    let body = rendered.bodies.get(usize::from(*rendered.slots.get(number as usize)?))?;
    let first = match rendered.pick {
        // What chose the order must not choose the first record too, or not all pairs would come.
        Pick::Random => (turn / slots).checked_rem(body.turns.into()).unwrap_or_default(),
        _ => 0,
    };
    Some((body, first))
}

/// What a response is made of, beside its records.
struct Reply<'q> {
    query: &'q Query<'q>,
    transport: Transport,
    cookie: Option<Cookie>,
    code: ResponseCode,
}

impl Reply<'_> {
    /// Without an answer.
    fn bare(&self) -> Response {
        let flags = self.query.flags & OPCODE | u16::from(self.code) & CODE;
        self.write(&Body { flags, ..Body::default() }, 0)
    }

    fn write(&self, body: &Body, first: u32) -> Response {
        let query = self.query;
        let limit = match self.transport {
            Transport::Tcp => usize::from(u16::MAX),
            Transport::Udp => query.edns.map_or(PLAIN_SIZE, |edns| edns.payload_size.min(PAYLOAD_SIZE.into())),
        };
        let question = query.question.as_ref().map_or(&[][..], |question| question.asked);
        let opt = query.edns.map_or_else(Vec::new, |client| self.opt(&client));
        let is_truncated = DnsHeader::LEN + question.len() + body.records.len() + opt.len() > limit;
        let (counts, records, truncated) =
            if is_truncated { ([0; 3], &[][..], TRUNCATED) } else { (body.counts, &body.records[..], 0) };
        let flags = RESPONSE | body.flags | truncated | query.flags & (RECURSION_DESIRED | CHECKING_DISABLED);
        let [answers, authorities, additionals] = counts;
        let additionals = additionals + u16::from(query.edns.is_some());
        let mut bytes = Vec::with_capacity(DnsHeader::LEN + question.len() + records.len() + opt.len());
        for word in [query.id, flags, u16::from(query.question.is_some()), answers, authorities, additionals] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(question);
        let (end, start) = records.split_at_checked(turned(body, first)).unwrap_or((records, &[]));
        bytes.extend(start);
        bytes.extend(end);
        bytes.extend(opt);
        Response { bytes, code: self.code, is_truncated, asked: None }
    }

    /// DO is repeated (RFC 3225 section 3).
    fn opt(&self, client: &ClientEdns<'_>) -> Vec<u8> {
        let upper = u32::from(u16::from(self.code) >> 4) << 24;
        let extended = upper | if client.dnssec_ok { DNSSEC_OK } else { 0 };
        let mut opt = vec![0];
        for word in [OPT, PAYLOAD_SIZE] {
            opt.extend(word.to_be_bytes());
        }
        opt.extend(extended.to_be_bytes());
        let Some(Cookie { client, stamp, hash }) = self.cookie else {
            opt.extend([0; 2]);
            return opt;
        };
        for word in [COOKIE_OPTION, COOKIE, cookie::LENGTH] {
            opt.extend(word.to_be_bytes());
        }
        // In the order of memory.
        opt.extend([client, stamp, hash].map(u64::to_le_bytes).as_flattened());
        opt
    }
}

/// Bytes of an option with a cookie.
const COOKIE_OPTION: u16 = 4 + cookie::LENGTH;

/// Where in a body's records the one lies that it begins with.
fn turned(body: &Body, first: u32) -> usize {
    let stride = body.records.len().checked_div(body.turns.into()).unwrap_or_default();
    stride * first as usize
}

#[cfg(test)]
mod tests;
