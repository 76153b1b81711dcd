//! DNS messages, written byte by byte from RFC 1035 and RFC 6891: questions, and the replies that they deserve.

use super::frames::{FlowFrame, Transport};
use std::net::{IpAddr, SocketAddr};

pub const A: u16 = 1;
pub const AAAA: u16 = 28;
pub const IN: u16 = 1;
pub const RECURSION_DESIRED: u16 = 0x0100;
pub const CHECKING_DISABLED: u16 = 0x0010;

/// A name as on the wire: labels with their lengths, up to the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub Vec<u8>);

impl Name {
    pub fn of(text: &str) -> Self {
        Self::from_labels(text.split('.').filter(|label| !label.is_empty()).map(str::as_bytes))
    }

    pub fn from_labels<'a>(labels: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut wire = Vec::new();
        for label in labels {
            assert!((1..=63).contains(&label.len()), "a label has 1 to 63 bytes");
            wire.push(label.len() as u8);
            wire.extend(label);
        }
        wire.push(0);
        Self(wire)
    }

    /// A name that takes `length` bytes on the wire: 1, or 3 to 255. Its labels are as long as they can be.
    pub fn of_length(length: usize) -> Self {
        let mut labels = Vec::new();
        let mut left = length - 1;
        while left > 0 {
            // A label of one byte needs two, so one byte must never be left over.
            let label = match left {
                65 => 62,
                left => (left - 1).min(63),
            };
            labels.push(vec![b'x'; label]);
            left -= label + 1;
        }
        Self::from_labels(labels.iter().map(Vec::as_slice))
    }

    pub fn length(&self) -> usize {
        self.0.len()
    }

    /// The same with every second letter in upper case (lengths are never letters).
    pub fn in_mixed_case(&self) -> Self {
        let mixed = |(index, byte): (usize, &u8)| {
            if index % 2 == 0 { byte.to_ascii_uppercase() } else { *byte }
        };
        Self(self.0.iter().enumerate().map(mixed).collect())
    }

    pub fn in_lower_case(&self) -> Self {
        Self(self.0.to_ascii_lowercase())
    }
}

/// An OPT record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edns {
    pub payload_size: u16,
    /// Extended response code, version and flags.
    pub extended: u32,
    pub options: Vec<u8>,
}

impl Edns {
    pub fn of_size(payload_size: u16) -> Self {
        Self { payload_size, extended: 0, options: Vec::new() }
    }

    fn write(&self, message: &mut Vec<u8>) {
        message.extend([0, 0, 41]);
        message.extend(self.payload_size.to_be_bytes());
        message.extend(self.extended.to_be_bytes());
        message.extend((self.options.len() as u16).to_be_bytes());
        message.extend(&self.options);
    }
}

/// A message with one question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    pub id: u16,
    pub flags: u16,
    pub name: Name,
    pub kind: u16,
    pub class: u16,
    pub edns: Option<Edns>,
}

impl Question {
    pub fn plain(name: &Name, kind: u16) -> Self {
        Self { id: 0xc0de, flags: RECURSION_DESIRED, name: name.clone(), kind, class: IN, edns: None }
    }

    pub fn with_edns(mut self, payload_size: u16) -> Self {
        self.edns = Some(Edns::of_size(payload_size));
        self
    }

    fn start(&self, flags: u16, answers: u16) -> Vec<u8> {
        let mut message = Vec::new();
        for word in [self.id, flags, 1, answers, 0, u16::from(self.edns.is_some())] {
            message.extend(word.to_be_bytes());
        }
        message.extend(&self.name.0);
        message.extend(self.kind.to_be_bytes());
        message.extend(self.class.to_be_bytes());
        message
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut message = self.start(self.flags, 0);
        if let Some(edns) = &self.edns {
            edns.write(&mut message);
        }
        message
    }

    /// The reply: the question as it was asked, records in this order, and EDNS if the client used it (RFC 6891 section 6.1.1).
    pub fn reply(&self, records: &[IpAddr], ttl_seconds: u32) -> Vec<u8> {
        let flags = 0x8400 | self.flags & (RECURSION_DESIRED | CHECKING_DISABLED);
        let mut message = self.start(flags, records.len() as u16);
        for address in records {
            message.extend(record(*address, ttl_seconds));
        }
        if let Some(edns) = &self.edns {
            let reply = Edns { payload_size: 1232, extended: edns.extended & 0x8000, options: Vec::new() };
            reply.write(&mut message);
        }
        message
    }

    /// A reply of the question alone, with these flags and those that are repeated.
    pub fn bare(&self, flags: u16) -> Vec<u8> {
        let mut message = self.start(flags | self.flags & (RECURSION_DESIRED | CHECKING_DISABLED), 0);
        if let Some(edns) = &self.edns {
            Edns { payload_size: 1232, extended: edns.extended & 0x8000, options: Vec::new() }.write(&mut message);
        }
        message
    }

    /// Reads a message that is exactly one question, by the book and not by words.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u16::from_be_bytes([*message.get(at)?, *message.get(at + 1)?]));
        if (word(4)?, word(6)?, word(8)?) != (1, 0, 0) {
            return None;
        }
        let mut at = 12;
        while *message.get(at)? != 0 {
            at += 1 + usize::from(*message.get(at)?);
        }
        let name = Name(message[12..=at].to_vec());
        let (kind, class) = (word(at + 1)?, word(at + 3)?);
        let rest = &message[at + 5..];
        let edns = match (word(10)?, rest) {
            (0, []) => None,
            (1, [0, 0, 41, a, b, c, d, e, f, g, h, options @ ..])
                if usize::from(u16::from_be_bytes([*g, *h])) == options.len() =>
            {
                let extended = u32::from_be_bytes([*c, *d, *e, *f]);
                Some(Edns { payload_size: u16::from_be_bytes([*a, *b]), extended, options: options.to_vec() })
            }
            _ => return None,
        };
        Some(Self { id: word(0)?, flags: word(2)?, name, kind, class, edns })
    }
}

/// A record whose owner is the question's name (RFC 1035 section 4.1.4).
pub fn record(address: IpAddr, ttl_seconds: u32) -> Vec<u8> {
    let (kind, data) = match address {
        IpAddr::V4(address) => (A, address.octets().to_vec()),
        IpAddr::V6(address) => (AAAA, address.octets().to_vec()),
    };
    let mut record = vec![0xc0, 12];
    record.extend(kind.to_be_bytes());
    record.extend(IN.to_be_bytes());
    record.extend(ttl_seconds.to_be_bytes());
    record.extend((data.len() as u16).to_be_bytes());
    record.extend(data);
    record
}

/// A message on its way to a DNS address.
pub fn question_frame(from: SocketAddr, to: SocketAddr, message: Vec<u8>) -> FlowFrame {
    FlowFrame { payload: message, ..FlowFrame::asked(from, to, Transport::Udp) }
}

/// The reply to a question that came in such a frame, in a header of its own.
pub fn reply_frame(asked: &FlowFrame, message: Vec<u8>) -> FlowFrame {
    FlowFrame {
        receiver: asked.sender,
        sender: asked.receiver,
        from: asked.to,
        to: asked.from,
        hops: 64,
        transport: Transport::Udp,
        payload: message,
        mark: 0,
        class: 0,
    }
}
