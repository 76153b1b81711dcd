//! DNS messages of an explanation: what is asked, and what is in a body or a reply, as text.

use super::told::Reply;
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Record, RecordType},
};
use lb_common::{
    tables::{
        NAME_WORDS,
        answers::{BODY_WORDS, BodyHead, HEAD_WORDS},
    },
    wire::dns::{AUTHORITATIVE, CHECKING_DISABLED, DNSSEC_OK, IN, OPT, RECURSION_DESIRED, TRUNCATED},
};

/// Bytes of the longest label and of the longest name (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;
const LONGEST_NAME: usize = 255;

/// A name as on the wire. Whatever can be asked for is one, also what no config has.
pub fn wire(name: &str) -> Option<Vec<u8>> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let mut wire = Vec::new();
    for label in name.split('.').filter(|_| !name.is_empty()) {
        let length = u8::try_from(label.len()).ok().filter(|_| (1..=LONGEST_LABEL).contains(&label.len()))?;
        wire.push(length);
        wire.extend_from_slice(label.as_bytes());
    }
    wire.push(0);
    (wire.len() <= LONGEST_NAME).then_some(wire)
}

/// The name with this form on the wire, in lower case and filled up with zeros, as the path hashes it.
pub fn name_words(wire: &[u8]) -> [u64; NAME_WORDS] {
    let mut words = [0; NAME_WORDS];
    let to: &mut [u8] = bytemuck::cast_slice_mut(&mut words);
    to.iter_mut().zip(wire).for_each(|(to, from)| *to = from.to_ascii_lowercase());
    words
}

/// A question of class IN as a stub resolver sends it; with EDNS if it says a size or wants DNSSEC records.
pub fn query(wire: &[u8], kind: u16, dnssec: bool, size: Option<u16>) -> Vec<u8> {
    let size = size.or_else(|| dnssec.then_some(lb_common::wire::dns::PAYLOAD_SIZE));
    let mut message = header(RECURSION_DESIRED, [1, 0, 0, u16::from(size.is_some())]);
    message.extend_from_slice(wire);
    message.extend([kind, IN].map(u16::to_be_bytes).concat());
    if let Some(size) = size {
        message.push(0);
        message.extend([OPT, size].map(u16::to_be_bytes).concat());
        message.extend(if dnssec { DNSSEC_OK } else { 0 }.to_be_bytes());
        message.extend([0, 0]);
    }
    message
}

fn header(flags: u16, counts: [u16; 4]) -> Vec<u8> {
    let [questions, answers, authorities, additionals] = counts;
    [0, flags, questions, answers, authorities, additionals].map(u16::to_be_bytes).concat()
}

/// A question as an operator writes it.
pub fn asked(wire: &[u8], kind: u16) -> String {
    format!("{} {}", name_text(wire), RecordType::from(kind))
}

fn name_text(wire: &[u8]) -> String {
    let mut rest = wire;
    let mut labels = Vec::new();
    while let Some((length, behind)) = rest.split_first() {
        let Some((label, behind)) = behind.split_at_checked((*length).into()) else { break };
        if label.is_empty() {
            break;
        }
        labels.push(label.escape_ascii().to_string());
        rest = behind;
    }
    if labels.is_empty() { ".".into() } else { labels.join(".") }
}

/// A body as it lies in the answer space.
pub struct Body {
    /// Its head.
    pub head: BodyHead,
    /// The question that it is for.
    pub question: String,
    /// Its records, or that they are none.
    pub records: Vec<String>,
}

impl Body {
    /// From the words of the largest body.
    pub fn read(words: &[u64; BODY_WORDS]) -> Option<Self> {
        let first: &[u64; HEAD_WORDS] = words.first_chunk()?;
        let head: BodyHead = bytemuck::cast(*first);
        let bytes: &[u8] = bytemuck::cast_slice(words);
        let name = bytes.get(HEAD_WORDS * 8..)?.get(..head.name_length.into()).unwrap_or_default();
        let at = usize::from(head.records) * 8;
        let records = bytes.get(at..at + usize::from(head.length));
        let counts = [1, head.answers, head.authorities, head.additionals];
        let mut message = header(head.flags, counts);
        message.extend_from_slice(name);
        message.extend([head.kind as u16, (head.kind >> 16) as u16].map(u16::to_be_bytes).concat());
        message.extend_from_slice(records.unwrap_or_default());
        let records = match Message::from_vec(&message) {
            Ok(message) => texts(message.answers.iter().chain(&message.authorities).chain(&message.additionals)),
            Err(error) => vec![format!("records that can't be read: {error}")],
        };
        Some(Self { head, question: asked(name, head.kind as u16), records })
    }
}

fn texts<'a>(records: impl Iterator<Item = &'a Record>) -> Vec<String> {
    records.map(ToString::to_string).collect()
}

/// A reply in a frame's payload, from UDP's header on.
pub fn reply(message: &[u8]) -> Reply {
    let flags = message.get(2..4).and_then(|flags| Some(u16::from_be_bytes(*flags.first_chunk()?))).unwrap_or_default();
    let names = [
        (AUTHORITATIVE, "aa"),
        (TRUNCATED, "tc"),
        (RECURSION_DESIRED, "rd"),
        (0x0080, "ra"),
        (CHECKING_DISABLED, "cd"),
    ];
    let flags: Vec<String> = names.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| (*name).into()).collect();
    match Message::from_vec(message) {
        Ok(parsed) => Reply {
            status: status(parsed.metadata.response_code),
            flags,
            answers: texts(parsed.answers.iter()),
            authorities: texts(parsed.authorities.iter()),
            additionals: texts(parsed.additionals.iter()),
            bytes: message.len(),
        },
        Err(error) => Reply {
            status: format!("cannot be read: {error}"),
            flags,
            answers: Vec::new(),
            authorities: Vec::new(),
            additionals: Vec::new(),
            bytes: message.len(),
        },
    }
}

fn status(code: ResponseCode) -> String {
    match code {
        ResponseCode::NoError => "NOERROR".into(),
        ResponseCode::FormErr => "FORMERR".into(),
        ResponseCode::ServFail => "SERVFAIL".into(),
        ResponseCode::NXDomain => "NXDOMAIN".into(),
        other => other.to_string(),
    }
}
