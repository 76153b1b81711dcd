//! Records on the wire (RFC 1035 section 3.2).

use lb_common::wire::dns::{A, AAAA, DnsHeader, IN};
use std::{iter::successors, net::IpAddr};

/// Type CNAME.
pub const CNAME: u16 = 5;
/// Type SOA.
pub const SOA: u16 = 6;
/// Type MX.
pub const MX: u16 = 15;
/// Type TXT.
pub const TXT: u16 = 16;
/// Type SRV (RFC 2782).
pub const SRV: u16 = 33;

/// What a record says, apart from whose and for how long.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Data {
    /// Its type.
    pub kind: u16,
    /// As on the wire, with whole names.
    pub bytes: Vec<u8>,
}

impl Data {
    /// A or AAAA.
    pub fn address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(address) => Self { kind: A, bytes: address.octets().into() },
            IpAddr::V6(address) => Self { kind: AAAA, bytes: address.octets().into() },
        }
    }

    /// CNAME, with the name that this one stands for.
    pub fn cname(name: &[u8]) -> Self {
        Self { kind: CNAME, bytes: name.into() }
    }

    /// MX.
    pub fn mx(preference: u16, exchange: &[u8]) -> Self {
        Self { kind: MX, bytes: [&preference.to_be_bytes(), exchange].concat() }
    }

    /// TXT, of strings that are cut into pieces if they are too long.
    pub fn txt<T: AsRef<[u8]>>(strings: &[T]) -> Self {
        let piece = |piece: &[u8]| [&[piece.len() as u8], piece].concat();
        let bytes: Vec<u8> =
            strings.iter().flat_map(|string| string.as_ref().chunks(LONGEST_PIECE)).flat_map(piece).collect();
        // There is no such record without any string.
        Self { kind: TXT, bytes: if bytes.is_empty() { vec![0] } else { bytes } }
    }

    /// SRV.
    pub fn srv(priority: u16, weight: u16, port: u16, target: &[u8]) -> Self {
        let [a, b, c] = [priority, weight, port].map(u16::to_be_bytes);
        Self { kind: SRV, bytes: [&a[..], &b, &c, target].concat() }
    }

    /// SOA, of who transfers nothing: only the time that negative answers are kept matters (RFC 2308 section 4).
    pub fn soa(primary: &[u8], contact: &[u8], serial: u32, negative_ttl_seconds: u32) -> Self {
        let numbers = [serial, REFRESH, RETRY, EXPIRE, negative_ttl_seconds].map(u32::to_be_bytes);
        Self { kind: SOA, bytes: [primary, contact, numbers.as_flattened()].concat() }
    }

    /// The same, borrowed.
    pub fn view(&self) -> View<'_> {
        View { kind: self.kind, bytes: &self.bytes }
    }
}

/// What RFC 1912 section 2.2 advises.
const REFRESH: u32 = 7_200;
const RETRY: u32 = 900;
const EXPIRE: u32 = 1_209_600;

/// The types that a config can have, with their names.
pub const KINDS: [(u16, &str); 6] =
    [(A, "A"), (AAAA, "AAAA"), (CNAME, "CNAME"), (MX, "MX"), (TXT, "TXT"), (SRV, "SRV")];

/// What a type of [`KINDS`] is called.
pub fn kind_name(kind: u16) -> &'static str {
    KINDS.iter().find(|(other, _)| *other == kind).map_or("?", |(_, name)| name)
}

/// Bytes of the records of the largest set: with the longest question, and OPT with a cookie, the longest message that there is.
pub const LARGEST_SET: usize = 65_535 - DnsHeader::LEN - (255 + 4) - (11 + 28);

/// Bytes that a set's records have, at most.
pub fn set_length<'a>(data: impl Iterator<Item = View<'a>>) -> usize {
    data.map(|view| RECORD + view.bytes.len()).sum()
}

/// Bytes of a record before its data, the owner being a pointer.
const RECORD: usize = 12;

/// Bytes of the longest piece of a TXT record.
const LONGEST_PIECE: usize = 255;

/// A [`Data`] that lies elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct View<'a> {
    /// See [`Data::kind`].
    pub kind: u16,
    /// See [`Data::bytes`].
    pub bytes: &'a [u8],
}

/// A name and all that it lies in: the name itself first, the root last.
pub fn suffixes(wire: &[u8]) -> impl Iterator<Item = &[u8]> {
    successors(Some(wire), |name| {
        let (length, rest) = name.split_first()?;
        rest.get(usize::from(*length)..).filter(|rest| *length > 0 && !rest.is_empty())
    })
}

/// Adds a record of class IN to the records of an answer to `question`, a name in lower case; `owner` is this name, or one that it lies in.
pub fn write_record(records: &mut Vec<u8>, question: &[u8], owner: &[u8], ttl_seconds: u32, data: View<'_>) {
    write_name(records, question, owner);
    for word in [data.kind, IN] {
        records.extend(word.to_be_bytes());
    }
    records.extend(ttl_seconds.to_be_bytes());
    let start = records.len();
    records.extend([0; 2]);
    // Only these types may have their names shortened (RFC 3597 section 4).
    match (data.kind, data.bytes.split_at_checked(2)) {
        (CNAME, _) => write_name(records, question, data.bytes),
        (MX, Some((preference, exchange))) => {
            records.extend(preference);
            write_name(records, question, exchange);
        }
        (SOA, _) => {
            let rest = write_name_of(records, question, data.bytes);
            let rest = write_name_of(records, question, rest);
            records.extend(rest);
        }
        _ => records.extend(data.bytes),
    }
    let length = (records.len() - start - 2) as u16;
    records.iter_mut().skip(start).zip(length.to_be_bytes()).for_each(|(to, byte)| *to = byte);
}

/// Writes the name that begins `bytes`; returns what follows it.
fn write_name_of<'a>(records: &mut Vec<u8>, question: &[u8], bytes: &'a [u8]) -> &'a [u8] {
    let length = name_length(bytes);
    let (name, rest) = bytes.split_at_checked(length).unwrap_or((bytes, &[]));
    write_name(records, question, name);
    rest
}

fn name_length(bytes: &[u8]) -> usize {
    let mut end = 0;
    while let Some(length) = bytes.get(end).filter(|length| **length > 0) {
        end += usize::from(*length) + 1;
    }
    end + 1
}

/// Writes a name, the part that the question's name ends with as a pointer there (RFC 1035 section 4.1.4): the question is always right
/// behind the header.
fn write_name(records: &mut Vec<u8>, question: &[u8], name: &[u8]) {
    // A pointer is longer than the root.
    let shared = suffixes(name).find(|suffix| suffix.len() > 1 && suffixes(question).any(|other| other == *suffix));
    let Some(shared) = shared else {
        return records.extend(name);
    };
    records.extend(name.iter().take(name.len() - shared.len()));
    let pointer = 0xc000 | (DnsHeader::LEN + question.len() - shared.len()) as u16;
    records.extend(pointer.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &[u8] = b"\x03www\x07example\x03com\0";

    fn record(owner: &[u8], data: &Data) -> Vec<u8> {
        let mut records = Vec::new();
        write_record(&mut records, NAME, owner, 300, data.view());
        records
    }

    #[test]
    fn records_to_the_byte() {
        let start = |kind: u8, length: u8| vec![0xc0, 12, 0, kind, 0, 1, 0, 0, 1, 44, 0, length];
        let cases = [
            (Data::address("192.0.2.1".parse().unwrap()), start(1, 4), &[192, 0, 2, 1][..]),
            (Data::cname(b"\x04host\x07example\x03com\0"), start(5, 7), b"\x04host\xc0\x10"),
            (Data::cname(b"\x04host\0"), start(5, 6), b"\x04host\0"),
            (Data::mx(10, b"\x07example\x03com\0"), start(15, 4), b"\x00\x0a\xc0\x10"),
            (Data::srv(1, 2, 3, b"\x03com\0"), start(33, 11), b"\x00\x01\x00\x02\x00\x03\x03com\0"),
            (Data::txt(&["text"]), start(16, 5), b"\x04text"),
            (Data::txt(&[""]), start(16, 1), b"\0"),
        ];
        for (data, start, end) in cases {
            assert_eq!(record(NAME, &data), [&start, end].concat());
        }
    }

    #[test]
    fn an_owner_may_be_what_the_question_lies_in() {
        let data = Data::txt(&[""]);
        assert_eq!(record(b"\x03com\0", &data)[..2], [0xc0, 24]);
        assert_eq!(record(b"\0", &data)[..3], [0, 0, 16]);
    }

    #[test]
    fn names_end_alike_only_by_whole_labels() {
        // Its first label has ten bytes, which look like two labels.
        assert_eq!(record(NAME, &Data::cname(b"\x0aww\x07example\x03com\0"))[10..12], [0, 11 + 2]);
        let labels: Vec<&[u8]> = suffixes(NAME).collect();
        assert_eq!(labels, [NAME, &NAME[4..], &NAME[12..], &NAME[16..]]);
    }

    #[test]
    fn long_text_is_cut_into_pieces() {
        let bytes = Data::txt(&[[b'x'; 300]]).bytes;
        assert_eq!((bytes.len(), bytes[0], bytes[256]), (302, 255, 45));
    }
}
