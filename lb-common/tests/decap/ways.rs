//! Every way out of the decapsulator, by example: verdict, bytes, and the one counter that moved.

use crate::frames::{Four, MIXES, Outcome, Six, Tunneled, other, outcome, tables};
use lb_common::decap::{
    host::HostTables,
    verdict::{REASONS, Verdict, Why},
};
use std::collections::BTreeSet;

/// A frame, the tables that it meets, and what comes of it.
pub struct Row {
    name: String,
    pub frame: Vec<u8>,
    tables: HostTables,
    pub verdict: Verdict,
    /// The frame afterwards; `None` if no byte may change.
    after: Option<Vec<u8>>,
}

impl Row {
    fn passes(why: Why, name: impl Into<String>, frame: Vec<u8>) -> Self {
        Self { name: name.into(), frame, tables: tables(&[]), verdict: Verdict::Pass(why), after: None }
    }

    fn becomes(after: Vec<u8>, why: Why, name: impl Into<String>, frame: Vec<u8>) -> Self {
        Self { after: Some(after), ..Self::passes(why, name, frame) }
    }

    fn with(self, tables: HostTables) -> Self {
        Self { tables, ..self }
    }
}

#[test]
fn every_way_out_leaves_the_expected_frame_and_moves_only_its_counter() {
    let mut names = BTreeSet::new();
    for row in rows() {
        let expected = Outcome::expected(row.verdict, row.after.unwrap_or_else(|| row.frame.clone()));
        assert_eq!(outcome(&row.frame, &row.tables), expected, "{}: {:02x?}", row.name, row.frame);
        assert!(names.insert(row.name.clone()), "two rows are named {:?}", row.name);
    }
}

#[test]
fn every_way_out_has_a_row() {
    let shown: BTreeSet<Why> = rows().iter().map(|row| row.verdict.why()).collect();
    let missing: Vec<_> = Why::ALL.iter().filter(|why| !shown.contains(why)).collect();
    assert!(missing.is_empty(), "no row shows {missing:?}");
}

#[test]
fn reasons_are_numbered_as_listed_and_have_a_name_and_a_help() {
    assert_eq!(REASONS as usize, Why::ALL.len());
    let mut names = BTreeSet::new();
    for (index, why) in Why::ALL.iter().enumerate() {
        assert_eq!(*why as usize, index);
        assert!(names.insert(why.name()), "two reasons are named {}", why.name());
        assert!(why.name().bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'));
        assert!(why.help().trim_end().ends_with('.'), "{} has no sentence", why.name());
    }
}

pub fn rows() -> Vec<Row> {
    [taken_out(), dropped(), not_for_us(), outer_headers(), inner_packets(), contradictions()]
        .into_iter()
        .flatten()
        .collect()
}

fn taken_out() -> Vec<Row> {
    let mut rows = Vec::new();
    for (outer, inner, why) in MIXES {
        for tags in 0..=2 {
            let packet = Tunneled::new(outer, inner).tagged(tags);
            let name = format!("{inner:?} in {outer:?} behind {tags} tags");
            rows.push(Row::becomes(packet.taken_out(0), why, name, packet.bytes()));
        }

        // A link pads to 60 bytes, and whoever sends may pad within the outer packet.
        let least = Tunneled { payload: Vec::new(), ..Tunneled::new(outer, inner) };
        let behind = [0; 9];
        let padded = |frame: Vec<u8>| [&frame[..], &behind].concat();
        let name = format!("{inner:?} in {outer:?}, padded");
        rows.push(Row::becomes(padded(least.taken_out(0)), why, name, padded(least.bytes())));
        let name = format!("{inner:?} in {outer:?}, shorter than the outer packet");
        let longer = least.around(&[&least.packet()[..], &behind].concat());
        rows.push(Row::becomes(padded(least.taken_out(0)), why, name, longer));

        let packet = Tunneled::new(outer, inner).marked(3, 2);
        let name = format!("{inner:?} in {outer:?}, marked on the way");
        rows.push(Row::becomes(packet.taken_out(3), why, name, packet.bytes()));

        let packet = Tunneled::new(outer, inner);
        let sources = tables(&[("203.0.113.0", 24), ("10.0.0.0", 14), ("fd00:1::", 32)]);
        let name = format!("{inner:?} in {outer:?} from one of the sources");
        rows.push(Row::becomes(packet.taken_out(0), why, name, packet.bytes()).with(sources));
    }

    // IEEE 802.1ad says service tag outside; who stacks two customer tags is understood as well.
    let packet = Tunneled::new(Four, Four).tagged(2);
    for (outside, inside) in [([0x81, 0x00], [0x81, 0x00]), ([0x81, 0x00], [0x88, 0xa8]), ([0x88, 0xa8], [0x88, 0xa8])]
    {
        let tags = |mut frame: Vec<u8>| {
            frame[12..14].copy_from_slice(&outside);
            frame[16..18].copy_from_slice(&inside);
            frame
        };
        let name = format!("behind tags {outside:02x?} and {inside:02x?}");
        rows.push(Row::becomes(tags(packet.taken_out(0)), Why::Ipv4InIpv4, name, tags(packet.bytes())));
    }

    // What is inside need not be as plain as what is outside.
    let packet = Tunneled::new(Four, Four);
    let strange = |at: usize, bytes: &[u8]| {
        let mut inside = packet.packet();
        inside[at..at + bytes.len()].copy_from_slice(bytes);
        let link = packet.taken_out(0)[..14].to_vec();
        ([link, inside.clone()].concat(), packet.around(&inside))
    };
    for (name, at, bytes) in [
        ("an inner fragment", 6, &[0x20, 0xb9][..]),
        ("an inner header with options", 0, &[0x4f]),
        ("an inner checksum that the stack refuses", 10, &[0, 0]),
        ("an inner packet with a packet in it", 9, &[4]),
        ("an inner packet without hops", 8, &[0]),
    ] {
        let (after, frame) = strange(at, bytes);
        rows.push(Row::becomes(after, Why::Ipv4InIpv4, name, frame));
    }
    rows
}

fn dropped() -> Vec<Row> {
    let row = |(outer, inner, _)| {
        let frame = Tunneled::new(outer, inner).marked(3, 0).bytes();
        let row = Row::passes(Why::DroppedForCongestion, format!("{inner:?} in {outer:?} that met congestion"), frame);
        Row { verdict: Verdict::Drop(Why::DroppedForCongestion), ..row }
    };
    MIXES.map(row).into()
}

fn not_for_us() -> Vec<Row> {
    let mut rows = Vec::new();
    for (outer, inner, _) in MIXES {
        let packet = Tunneled::new(outer, inner);
        let elsewhere = Tunneled { to: outer.service(), ..packet.clone() };
        let name = format!("{inner:?} in {outer:?} to another address");
        rows.push(Row::passes(Why::OtherDestination, name, elsewhere.bytes()));
        let name = format!("{inner:?} in {outer:?} where no tunnel ends");
        let mut nowhere = tables(&[]);
        nowhere.addresses.clear();
        rows.push(Row::passes(Why::OtherDestination, name, packet.bytes()).with(nowhere));
        // The last has the words of 10.0.1.1, and is of the other family.
        let sources =
            tables(&[("10.0.1.2", 32), ("10.0.1.0", 32), ("fd00:1::2", 128), ("fe00::", 8), ("a00:101::", 32)]);
        let name = format!("{inner:?} in {outer:?} from another source");
        rows.push(Row::passes(Why::OtherSource, name, packet.bytes()).with(sources));
    }
    for family in [Four, Six] {
        let packet = Tunneled::new(family, family);
        for protocol in [0, 1, 6, 17, 43, 44, 47, 58, 59, 60, 255] {
            // Zeros follow: a hop-by-hop header behind a header of options, and so on.
            let frame = packet.with_protocol(protocol, &[0; 64]);
            rows.push(Row::passes(Why::NotTunneled, format!("protocol {protocol} over {family:?}"), frame));
        }
        for tags in 1..=2 {
            let frame = packet.clone().tagged(tags).with_protocol(6, &[0; 64]);
            rows.push(Row::passes(Why::NotTunneled, format!("TCP over {family:?} behind {tags} tags"), frame));
        }
    }
    rows.push(Row::passes(Why::NotIp, "ARP", other(0x0806, &[0; 46])));
    rows.push(Row::passes(Why::NotIp, "an LLDP frame", other(0x88cc, &[0; 46])));
    let tagged = Tunneled::new(Four, Four).tagged(2).bytes();
    let thrice = [&tagged[..12], &[0x88, 0xa8, 0, 1], &tagged[12..]].concat();
    rows.push(Row::passes(Why::NotIp, "three tags", thrice));
    rows
}

fn outer_headers() -> Vec<Row> {
    let mut rows = Vec::new();
    for (outer, inner, _) in MIXES {
        let packet = Tunneled::new(outer, inner);
        let whole = packet.bytes();
        let name = |what: &str| format!("{inner:?} in {outer:?}: {what}");
        let link = packet.link();
        let cut = whole[..whole.len() - 1].to_vec();
        rows.push(Row::passes(Why::Truncated, name("a byte short of its outer length"), cut));
        let edited = |at: usize, bytes: &[u8]| {
            let mut frame = whole.clone();
            frame[link + at..link + at + bytes.len()].copy_from_slice(bytes);
            frame
        };
        if outer == Six {
            rows.push(Row::passes(Why::NotIp, name("the outer version 5"), edited(0, &[0x5b])));
            // Destination options with a tunnel encapsulation limit (RFC 2473 section 4.1.1), as ip6tnl writes them; then the
            // others that may come before a packet.
            for header in [60, 0, 43] {
                let next = if inner == Four { 4 } else { 41 };
                let options = [&[next, 0, 4, 1, 4, 1, 1, 0][..], &packet.packet()].concat();
                let frame = packet.with_protocol(header, &options);
                rows.push(Row::passes(Why::Ipv6Extensions, name(&format!("extension header {header}")), frame));
            }
            let next = if inner == Four { 4 } else { 41 };
            for (what, offset) in [("the first fragment", [0, 1]), ("a fragment", [5, 0xc8])] {
                let fragment = [&[next, 0, offset[0], offset[1], 0, 0, 0, 7][..], &packet.packet()].concat();
                let frame = packet.with_protocol(44, &fragment);
                rows.push(Row::passes(Why::Fragment, name(what), frame));
            }
            for header in [0, 43, 44, 60] {
                let frame = packet.with_protocol(header, &[]);
                rows.push(Row::passes(Why::Truncated, name(&format!("nothing behind header {header}")), frame));
            }
            continue;
        }
        rows.push(Row::passes(Why::Ipv4Options, name("outer options"), edited(0, &[0x46])));
        rows.push(Row::passes(Why::Ipv4Options, name("the outer version 6"), edited(0, &[0x65])));
        rows.push(Row::passes(Why::Ipv4Checksum, name("a wrong outer checksum"), edited(8, &[1])));
        for (what, flags) in
            [("the first fragment", [0x20, 0]), ("a middle fragment", [0x20, 185]), ("the last", [0, 185])]
        {
            let frame = packet.edited(|frame| frame[link + 6..link + 8].copy_from_slice(&flags));
            rows.push(Row::passes(Why::Fragment, name(what), frame));
        }
        for length in [0, 19, 0xffff] {
            let frame = packet.edited(|frame| frame[link + 2..link + 4].copy_from_slice(&u16::to_be_bytes(length)));
            rows.push(Row::passes(Why::Truncated, name(&format!("an outer length of {length}")), frame));
        }
    }
    rows
}

fn inner_packets() -> Vec<Row> {
    let mut rows = Vec::new();
    for (outer, inner, _) in MIXES {
        let packet = Tunneled::new(outer, inner);
        let name = |what: &str| format!("{inner:?} in {outer:?}: {what}");
        let whole = packet.packet();
        let edited = |at: usize, bytes: &[u8]| {
            let mut inside = whole.clone();
            inside[at..at + bytes.len()].copy_from_slice(bytes);
            packet.around(&inside)
        };
        for version in 0..16_u8 {
            if version != if inner == Four { 4 } else { 6 } {
                let frame = edited(0, &[version << 4 | 5]);
                rows.push(Row::passes(Why::InnerVersion, name(&format!("the inner version {version}")), frame));
            }
        }
        let frame = [packet.around(&[]), vec![0; 26]].concat();
        rows.push(Row::passes(Why::InnerLength, name("nothing inside but padding behind"), frame));
        for length in [0, 1, inner.header() - 1, whole.len() - 1] {
            let frame = packet.around(&whole[..length]);
            rows.push(Row::passes(Why::InnerLength, name(&format!("{length} bytes inside")), frame.clone()));
            // Padding does not count, whatever is in it.
            let frame = [&frame[..], &whole[length..]].concat();
            rows.push(Row::passes(Why::InnerLength, name(&format!("{length} bytes inside and padding")), frame));
        }
        if inner == Six {
            let longer = (whole.len() - 40 + 1) as u16;
            let frame = edited(4, &longer.to_be_bytes());
            rows.push(Row::passes(Why::InnerLength, name("an inner length of a byte more"), frame));
            continue;
        }
        for words in 0..5 {
            let frame = edited(0, &[0x40 | words]);
            rows.push(Row::passes(Why::InnerLength, name(&format!("an inner header of {words} words")), frame));
        }
        for length in [0, 19, whole.len() + 1, 0xffff] {
            let frame = edited(2, &(length as u16).to_be_bytes());
            rows.push(Row::passes(Why::InnerLength, name(&format!("an inner length of {length}")), frame));
        }
        let mut long = whole.clone();
        (long[0], long[2], long[3]) = (0x4f, 0, 59);
        rows.push(Row::passes(Why::InnerLength, name("options past the inner end"), packet.around(&long)));
    }
    rows
}

fn contradictions() -> Vec<Row> {
    let mut without = tables(&[]);
    without.settings = None;
    let frame = Tunneled::new(Four, Six).bytes();
    vec![Row::passes(Why::Inconsistent, "no settings", frame).with(without)]
}
