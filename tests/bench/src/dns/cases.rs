//! What is asked, and what has to come back.

use crate::questions::{DIGITS, digits};
use anyhow::{Result, ensure};

/// The zone of all names.
pub const ZONE: &str = "bench.test";
/// A zone of its own, so that a server's module for weighted answers costs the others nothing.
pub const WEIGHTED_ZONE: &str = "weighted.test";
/// The addresses of the names with four.
pub const ADDRESSES: [&str; 4] = ["198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4"];
/// The message of the largest answer: what goes unfragmented everywhere (DNS flag day 2020).
pub const LARGEST: usize = 1_232;
/// The names with a number, in most cases.
pub const SOME_NAMES: u32 = 10_000;
const MANY_NAMES: u32 = 1_000_000;
/// Responses a second that are allowed to a client's prefix where that is limited.
pub const LIMIT: u32 = 500;
/// Of 4 Mi clients in 100.64.0.0/10 (RFC 6598), none sends so many questions that it would be limited.
const CLIENTS: u32 = 1 << 22;
/// See [`CLIENTS`].
pub const FIRST_CLIENT: u32 = 0x6440_0000;

/// How the servers are set up. For each they are started anew, as all but the plain one may cost something with every answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setup {
    /// The least.
    Plain,
    /// With DNS cookies, where the server has them.
    Cookies,
    /// With a limit to the responses to a client's prefix.
    Limits,
    /// With a million names.
    Million,
}

impl Setup {
    /// All of them, in order.
    pub const ALL: [Self; 4] = [Self::Plain, Self::Cookies, Self::Limits, Self::Million];

    /// How many names with a number there are.
    pub const fn names(self) -> u32 {
        if matches!(self, Self::Million) { MANY_NAMES } else { SOME_NAMES }
    }
}

/// What is asked for: names by their first labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Four A records, rotated by who rotates.
    Hot,
    /// One of four addresses, by weight.
    Weighted,
    /// One of four addresses, always the same for a client.
    Sticky,
    /// One address of one of many names.
    Numbered,
    /// A name that is not there.
    Absent,
    /// TXT, so much that the message has [`LARGEST`] bytes.
    Largest,
}

/// What is measured with each subject.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is called.
    pub name: &'static str,
    /// How the servers are set up.
    pub setup: Setup,
    /// What is asked for.
    pub asked: Asked,
    /// Whether over IPv6.
    pub ipv6: bool,
    /// Whether questions have a client's cookie (RFC 7873).
    pub cookie: bool,
    /// How many clients ask.
    pub clients: u32,
}

impl Case {
    const fn new(name: &'static str, setup: Setup, asked: Asked) -> Self {
        Self { name, setup, asked, ipv6: false, cookie: false, clients: 1 }
    }

    /// The case that others are compared with.
    pub const HOT: Self = Self::new("hot name, 4 A", Setup::Plain, Asked::Hot);

    /// All cases.
    pub fn all() -> Vec<Self> {
        use Setup::{Cookies, Limits, Million, Plain};
        vec![
            Self::HOT,
            Self { ipv6: true, ..Self::new("hot name, IPv6", Plain, Asked::Hot) },
            Self::new("weighted", Plain, Asked::Weighted),
            Self::new("sticky", Plain, Asked::Sticky),
            Self::new("10,000 names", Plain, Asked::Numbered),
            Self::new("NXDOMAIN", Plain, Asked::Absent),
            Self::new("1,232 bytes", Plain, Asked::Largest),
            Self { cookie: true, ..Self::new("EDNS with cookie", Cookies, Asked::Hot) },
            Self { clients: CLIENTS, ..Self::new("random sources, rate limit on", Limits, Asked::Hot) },
            Self::new("1,000,000 names", Million, Asked::Numbered),
        ]
    }

    /// How many names are asked for.
    pub const fn names(&self) -> u32 {
        if matches!(self.asked, Asked::Numbered) { self.setup.names() } else { 1 }
    }

    /// RCODE and number of answers of a right response.
    pub const fn expected(&self) -> (u16, u16) {
        match self.asked {
            Asked::Hot => (0, 4),
            Asked::Absent => (3, 0),
            Asked::Weighted | Asked::Sticky | Asked::Numbered | Asked::Largest => (0, 1),
        }
    }

    /// The message that asks, with id 0 and number 0.
    pub fn message(&self) -> Result<Vec<u8>> {
        let has_opt = self.cookie || self.asked == Asked::Largest;
        // One question; recursion is desired, as by clients that ask a cache.
        let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, has_opt.into()];
        message.extend(wire(&self.asked.name())?);
        message.extend([0, if self.asked == Asked::Largest { TXT } else { A }, 0, 1]);
        if has_opt {
            let cookie: &[u8] = if self.cookie { &COOKIE } else { &[] };
            let size = u16::try_from(LARGEST)?.to_be_bytes();
            let length = u16::try_from(cookie.len())?.to_be_bytes();
            message.extend([&[0, 0, 41], &size[..], &[0; 4], &length, cookie].concat());
        }
        Ok(message)
    }

    /// How long the message is without OPT.
    pub fn question_end(&self) -> Result<usize> {
        Ok(12 + wire(&self.asked.name())?.len() + 4)
    }
}

const A: u8 = 1;
const TXT: u8 = 16;
/// Option 10 with 8 bytes.
const COOKIE: [u8; 12] = [0, 10, 0, 8, 0x24, 0x64, 0xc4, 0xab, 0xcf, 0x10, 0xc9, 0x57];

impl Asked {
    /// The name; of those with a number, number 0.
    pub fn name(self) -> String {
        match self {
            Self::Hot => format!("www.{ZONE}"),
            Self::Weighted => format!("www.{WEIGHTED_ZONE}"),
            Self::Sticky => format!("sticky.{ZONE}"),
            Self::Numbered => numbered(0),
            Self::Absent => format!("absent.{ZONE}"),
            Self::Largest => format!("largest.{ZONE}"),
        }
    }
}

/// A name with a number. Its digits begin at an even place of the message.
pub fn numbered(number: u32) -> String {
    let digits = digits(number).map(char::from);
    format!("n{}.{ZONE}", String::from_iter(digits))
}

/// Where the number is in a message.
pub const NUMBER_PLACE: usize = 12 + 2;
const _: () = assert!(NUMBER_PLACE.is_multiple_of(2) && DIGITS == 8);

/// The strings of the TXT record that makes the message as large as it is to be, with an OPT record without options.
pub fn largest_strings() -> Result<Vec<usize>> {
    const OPT: usize = 11;
    const RECORD: usize = 12;
    let question = 12 + wire(&Asked::Largest.name())?.len() + 4;
    let mut left = LARGEST - question - RECORD - OPT;
    let mut lengths = Vec::new();
    while left > 0 {
        let length = (left - 1).min(255);
        lengths.push(length);
        left -= length + 1;
    }
    Ok(lengths)
}

/// A name as it is on the wire.
pub fn wire(name: &str) -> Result<Vec<u8>> {
    let mut wire = Vec::new();
    for label in name.split('.') {
        ensure!((1..64).contains(&label.len()), "{name:?} is no name");
        wire.push(u8::try_from(label.len())?);
        wire.extend(label.bytes());
    }
    wire.push(0);
    Ok(wire)
}
