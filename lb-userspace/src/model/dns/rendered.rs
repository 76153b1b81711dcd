//! Answers as they are rendered: what the agent sends, and what the kernel gets.

use lb_common::tables::answers::Pick;
use std::sync::Arc;

/// A question that has an answer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    /// The name on the wire with its root label, in lower case.
    pub wire: Arc<[u8]>,
    /// Type, and class (bits 16 to 31).
    pub kind: u32,
}

/// The answer to a question, or several to choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// How one is chosen.
    pub pick: Pick,
    /// Which body each slot leads to; none with [`Pick::Only`], nor if there is but one body, which [`Body::turns`] then rotates.
    pub slots: Vec<u16>,
    /// The bodies; at least one.
    pub bodies: Vec<Body>,
}

/// One rendered answer: the message behind the question without OPT, and what its header says of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    /// See [`lb_common::tables::answers::BodyHead::class`].
    pub class: u8,
    /// Flags of the header: QR, AA, RA, AD, RCODE.
    pub flags: u16,
    /// ANCOUNT, NSCOUNT, and ARCOUNT without OPT.
    pub counts: [u16; 3],
    /// All records. Owners that are the question's name point to offset 12 of the message.
    pub records: Vec<u8>,
    /// How many of the records, from the first one on, are equally long and sent in rotation; 0 or 1: none.
    pub turns: u16,
    /// Offsets in `records` of the TTLs that are aged, from the second `since` on; none for an authoritative answer.
    pub ttls: Vec<u16>,
    /// See [`lb_common::tables::answers::BodyHead::since`].
    pub since: u64,
    /// See [`lb_common::tables::answers::BodyHead::spent_at`].
    pub spent_at: u64,
}
