//! From a query to its response, with hickory-proto as the codec.
//!
//! To a question that the kernel answers too, the response is the same bytes: the owner of each record points to the
//! question (hickory compresses the same way), and OPT comes last.

use super::{
    names::{NameState, Names},
    query::{ClientEdns, Query, Question},
};
use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode},
    rr::{
        DNSClass, RData, Record, RecordType,
        rdata::{A as DataA, AAAA as DataAaaa},
    },
};
use lb_common::{
    tables::MAX_RECORDS,
    wire::dns::{A, AAAA, PAYLOAD_SIZE, PLAIN_SIZE},
};
use std::net::IpAddr;

/// How a query came; it decides how large its response may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As large as the client takes.
    Udp,
    /// As large as a message can be.
    Tcp,
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

/// A question that was asked and has an answer: in class IN, to one of our names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asked {
    /// The name on the wire, in lower case.
    pub wire: Vec<u8>,
    /// A or AAAA.
    pub kind: u16,
}

/// Answers a query; the addresses are rotated by `turn`. `None` for what deserves no reply: no whole header, or itself a
/// response, which two servers would otherwise send to each other for ever.
pub fn respond(query: &[u8], limit_by_transport: Transport, names: &Names, turn: usize) -> Option<Response> {
    let query = Query::read(query)?;
    if query.header.metadata.message_type == MessageType::Response {
        return None;
    }
    let mut reply = Message::new(query.header.metadata.id, MessageType::Response, query.header.metadata.op_code);
    // Copies RD and CD; RA and AD are zero, and Z hickory never writes.
    reply.metadata = Metadata::response_from_request(&query.header.metadata);
    reply.queries.extend(query.question.as_ref().map(|question| question.asked.clone()));
    reply.edns = query.edns.as_ref().map(own_edns);

    let mut asked = None;
    match find(&query, names) {
        Err(code) => reply.metadata.response_code = code,
        Ok((question, state)) => {
            reply.metadata.authoritative = true;
            let kind = kind_to_answer(question, state);
            let live = state.live(kind);
            if live.is_empty() && state.configured(kind) > 0 {
                // Not "no such record": the client should ask another server, and not remember it for long.
                reply.metadata.response_code = ResponseCode::ServFail;
            }
            asked = for_kernel(question, live.len());
            add_answers(&mut reply, question, state.ttl_seconds, live, turn);
        }
    }

    let limit = match limit_by_transport {
        Transport::Tcp => usize::from(u16::MAX),
        Transport::Udp => query.edns.map_or(PLAIN_SIZE, |edns| edns.payload_size.min(PAYLOAD_SIZE.into())),
    };
    let mut bytes = reply.to_vec().ok()?;
    // hickory stops before the record that would make a message longer than any can be, and sets TC.
    let is_truncated = bytes.len() > limit || bytes.get(2).is_some_and(|flags| flags & TRUNCATED != 0);
    if is_truncated {
        reply.answers.clear();
        reply.metadata.truncation = true;
        bytes = reply.to_vec().ok()?;
    }
    Some(Response { bytes, code: reply.metadata.response_code, is_truncated, asked })
}

/// TC, in the third byte of a message.
const TRUNCATED: u8 = 0x02;

/// The name that was asked for, or what is wrong with the query.
fn find<'a>(query: &'a Query, names: &'a Names) -> Result<(&'a Question, &'a NameState), ResponseCode> {
    if query.header.metadata.op_code != OpCode::Query {
        return Err(ResponseCode::NotImp);
    }
    // Any number of questions but one is a format error (RFC 9619 section 4).
    let question = query.question.as_ref().filter(|_| query.is_sound).ok_or(ResponseCode::FormErr)?;
    if query.edns.is_some_and(|edns| edns.version != 0) {
        return Err(ResponseCode::BADVERS);
    }
    if question.asked.query_class != DNSClass::IN {
        return Err(ResponseCode::Refused);
    }
    Ok((question, names.get(&question.wire).ok_or(ResponseCode::Refused)?))
}

/// The type of the records to answer with: ANY gets one set and not all (RFC 8482 section 4.1).
fn kind_to_answer(question: &Question, state: &NameState) -> u16 {
    match question.asked.query_type {
        RecordType::ANY if !state.a.live.is_empty() => A,
        RecordType::ANY if !state.aaaa.live.is_empty() => AAAA,
        RecordType::ANY if state.a.configured > 0 => A,
        RecordType::ANY => AAAA,
        kind => kind.into(),
    }
}

fn add_answers(reply: &mut Message, question: &Question, ttl_seconds: u32, mut live: Vec<IpAddr>, turn: usize) {
    let turn = turn.checked_rem(live.len()).unwrap_or_default();
    live.rotate_left(turn);
    reply.answers.extend(live.into_iter().map(|address| {
        let data = match address {
            IpAddr::V4(address) => RData::A(DataA(address)),
            IpAddr::V6(address) => RData::AAAA(DataAaaa(address)),
        };
        // The name in the case it was asked in: hickory compresses only what is equal to the byte.
        Record::from_rdata(question.asked.name.clone(), ttl_seconds, data)
    }));
}

fn for_kernel(question: &Question, live: usize) -> Option<Asked> {
    let kind = question.asked.query_type.into();
    let fits = matches!(kind, A | AAAA) && (1..=MAX_RECORDS).contains(&live);
    fits.then(|| Asked { wire: question.wire.clone(), kind })
}

/// DO is repeated (RFC 3225 section 3); options are not answered.
fn own_edns(client: &ClientEdns) -> Edns {
    let mut edns = Edns::new();
    edns.set_max_payload(PAYLOAD_SIZE).set_version(0).set_dnssec_ok(client.dnssec_ok);
    edns
}

#[cfg(test)]
mod tests;
