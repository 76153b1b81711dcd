//! Replies over many questions: every length, count, size and turn.

use crate::support::{
    Room, SIDES, Side, V4, V6, WAN,
    frames::{FlowFrame, padded},
    messages::{A, AAAA, Edns, Name, Question, question_frame, reply_frame},
    outcome,
    sound::sound,
    steered,
    tables::{Answer, Build, NOW, TTL, empty},
};
use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use lb_common::{
    host::HostTables,
    tables::answers::{CACHED, HEAD_WORDS, Pick},
    verdict::{Verdict, Why},
};
use std::{collections::BTreeSet, net::IpAddr};

/// Records of the largest sets here.
const MAX_RECORDS: usize = 16;
const TRUNCATED: Verdict = Verdict::Transmit(Why::DnsTruncated);
const ANSWERED: Verdict = Verdict::Transmit(Why::Answered);

fn records(kind: u16, count: usize) -> Vec<IpAddr> {
    // Bytes that all differ, so that a record in the wrong place or with another's tail shows.
    let record = |index: u8| match kind {
        A => [203, 0, 113 + index, 255 - index].into(),
        _ => std::array::from_fn::<u8, 16, _>(|byte| index << 4 | byte as u8).into(),
    };
    (0..count as u8).map(record).collect()
}

fn tables(side: &Side, name: &Name, records: &[IpAddr]) -> HostTables {
    empty().with_dns(side.dns()).with_answer(name, records)
}

fn frame(side: &Side, question: &Question) -> FlowFrame {
    question_frame(side.client(), side.dns(), question.bytes())
}

fn rotated(records: &[IpAddr], by: usize) -> Vec<IpAddr> {
    let mut records = records.to_vec();
    records.rotate_left(by);
    records
}

/// The message of a reply, after etherparse has parsed the frame and its own sums agree.
fn message(reply: &[u8]) -> Vec<u8> {
    let packet = SlicedPacket::from_ethernet(reply).unwrap();
    let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("not UDP") };
    let header = udp.to_header();
    let expected = match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header().to_header();
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            header.calc_checksum_ipv4(&ip, udp.payload())
        }
        NetSlice::Ipv6(ip) => header.calc_checksum_ipv6(&ip.header().to_header(), udp.payload()),
        NetSlice::Arp(_) => panic!("not IP"),
    };
    assert_eq!(header.checksum, expected.unwrap());
    udp.payload().to_vec()
}

#[test]
fn each_record_comes_first_once_and_the_order_is_a_rotation() {
    for kind in [A, AAAA] {
        for count in 1..=MAX_RECORDS {
            let name = Name::of("example.com");
            let records = records(kind, count);
            let tables = tables(&V4, &name, &records);
            let question = Question::plain(&name, kind).with_edns(1232);
            for turn in 0..3 * count {
                let (verdict, reply) = steered(&frame(&V4, &question).bytes(), &tables);
                let expected = question.reply(&rotated(&records, turn % count), TTL);
                assert_eq!((verdict, message(&reply)), (ANSWERED, expected), "question {turn} of {count} records");
            }
        }
    }
}

#[test]
fn names_take_turns_of_their_own() {
    let names = [Name::of("one.example.com"), Name::of("two.example.com")];
    let records = records(A, 5);
    let tables = names.iter().fold(empty().with_dns(V4.dns()), |tables, name| tables.with_answer(name, &records));
    for turn in 0..7 {
        for name in &names {
            let question = Question::plain(name, A);
            let (_, reply) = steered(&frame(&V4, &question).bytes(), &tables);
            assert_eq!(message(&reply), question.reply(&rotated(&records, turn % 5), TTL));
        }
    }
}

#[test]
fn a_question_that_gets_no_reply_takes_no_turn() {
    let name = Name::of("example.com");
    let records = records(A, 3);
    let tables = tables(&V4, &name, &records);
    let question = Question::plain(&name, A);
    let asked = frame(&V4, &question).bytes();
    let none = Room { head: 0, tail: 0 };
    assert_eq!(outcome(&asked, WAN, none, &tables).verdict, Verdict::Pass(Why::NoRoom));
    let (_, reply) = steered(&asked, &tables);
    assert_eq!(message(&reply), question.reply(&records, TTL), "the first record comes first");
}

/// At even and odd offsets, and in every byte.
#[test]
fn ttls_are_less_by_what_has_passed() {
    let name = Name::of("example.com");
    for count in [1, 2, 3, 16] {
        for elapsed in [0, 1, 255, 256, 65_535, 65_536, 299] {
            for shift in 0..2 {
                let ttl = 0x0001_0203_u32.wrapping_add(elapsed);
                let data: Vec<u8> = (0..4 + shift).collect();
                let record = |ttl: u32| {
                    let mut record = vec![0xc0, 12, 0, 16, 0, 1];
                    record.extend(ttl.to_be_bytes());
                    record.extend((data.len() as u16).to_be_bytes());
                    record.extend(&data);
                    record
                };
                let length = record(0).len() as u16;
                let answer = Answer {
                    class: CACHED,
                    flags: 0x8080,
                    counts: [count, 0, 0],
                    records: record(ttl).repeat(count.into()),
                    ttls: (0..count).map(|index| index * length + 6).collect(),
                    since: NOW - u64::from(elapsed),
                    spent_at: NOW + 1,
                    ..Answer::default()
                };
                let tables = empty().with_dns(V4.dns()).with_body(&name, 16, Pick::Only, &answer);
                let question = Question::plain(&name, 16).with_edns(1232);
                let (verdict, reply) = steered(&frame(&V4, &question).bytes(), &tables);
                assert_eq!(verdict, Verdict::Transmit(Why::AnsweredCached));
                let message = message(&reply);
                let records = &message[question.bytes().len() - 11..message.len() - 11];
                assert_eq!(records, record(ttl - elapsed).repeat(count.into()), "{count} records, {elapsed} s");
            }
        }
    }
}

/// Every count and length on the wire, and so every parity, every word that a name can end in and every size up to the largest.
#[test]
fn replies_of_every_shape_are_those_built_by_another_hand() {
    let mut large = 0;
    for length in (1..=255).filter(|length| *length != 2) {
        // All counts at the lengths around a word's end, and elsewhere one that changes with the length.
        let counts = if (16..=33).contains(&length) { 1..=MAX_RECORDS } else { length % 16 + 1..=length % 16 + 1 };
        let name = Name::of_length(length);
        for count in counts {
            for kind in [A, AAAA] {
                let records = records(kind, count);
                let side = if (length + count) % 2 == 0 { V4 } else { V6 };
                let tables = tables(&side, &name, &records);
                let plain = Question::plain(&name, kind);
                for question in [plain.clone(), plain.with_edns(1232)] {
                    let asked = frame(&side, &question);
                    let sent = reply_frame(&asked, question.reply(&records, TTL)).bytes();
                    let (verdict, reply) = steered(&asked.bytes(), &tables.clone());
                    if question.edns.is_none() && question.reply(&records, TTL).len() > 512 {
                        let sent = reply_frame(&asked, question.bare(0x8600)).bytes();
                        assert_eq!((verdict, reply), (TRUNCATED, sent));
                        large += 1;
                    } else {
                        assert_eq!((verdict, &reply), (ANSWERED, &sent), "{length} bytes, {count} of type {kind}");
                        assert_eq!(sound(&reply), Some(true));
                    }
                }
            }
        }
    }
    assert!(large > 20, "the limit was met in only {large} replies");
}

#[test]
fn a_reply_without_edns_has_at_most_512_bytes() {
    for side in SIDES {
        let records = records(A, 16);
        for (length, size, fits) in [(239, 511, true), (240, 512, true), (241, 513, false), (255, 527, false)] {
            let name = Name::of_length(length);
            let question = Question::plain(&name, A);
            assert_eq!(question.reply(&records, TTL).len(), size);
            let (verdict, _) = steered(&frame(&side, &question).bytes(), &tables(&side, &name, &records));
            let expected = if fits { ANSWERED } else { TRUNCATED };
            assert_eq!(verdict, expected, "{size} bytes");
        }
    }
}

#[test]
fn a_reply_with_edns_has_at_most_the_size_that_the_client_takes() {
    for side in SIDES {
        let records = records(AAAA, 16);
        // (length of the name, size of the reply, size that the client takes)
        for (length, size, taken, fits) in [
            (41, 516, 516, true),
            (41, 516, 515, false),
            (41, 516, 517, true),
            (41, 516, 512, false),
            (41, 516, 0, false),
            // A size below 512 counts as 512 (RFC 6891 section 6.2.3).
            (37, 512, 512, true),
            (37, 512, 511, true),
            (37, 512, 0, true),
            (38, 513, 511, false),
            (255, 730, 730, true),
            (255, 730, 729, false),
            (255, 730, 1_231, true),
            (255, 730, 1_232, true),
            (255, 730, 1_233, true),
            (255, 730, 65_535, true),
        ] {
            let name = Name::of_length(length);
            let question = Question::plain(&name, AAAA).with_edns(taken);
            assert_eq!(question.reply(&records, TTL).len(), size);
            let (verdict, _) = steered(&frame(&side, &question).bytes(), &tables(&side, &name, &records));
            let expected = if fits { ANSWERED } else { TRUNCATED };
            assert_eq!(verdict, expected, "{size} bytes for a client that takes {taken}");
        }
    }
}

/// So the cap of 1,232 bytes never decides; that it is offered is part of every reply with EDNS.
#[test]
fn the_largest_answer_fits_what_ipv6_carries_everywhere() {
    let name = Name::of_length(255);
    let question = Question::plain(&name, AAAA).with_edns(65_535);
    assert!(question.reply(&records(AAAA, MAX_RECORDS), TTL).len() <= 1_232);
}

#[test]
fn padding_behind_the_packet_is_no_part_of_the_question() {
    for side in SIDES {
        for name in ["", "a", "ab", "a.example.com"].map(Name::of) {
            let records = records(A, 2);
            for question in [Question::plain(&name, A), Question::plain(&name, A).with_edns(512)] {
                let asked = frame(&side, &question);
                let sent = reply_frame(&asked, question.reply(&records, TTL)).bytes();
                let bytes = asked.bytes();
                // The shortest frame of a wire, and trailers of all sizes, some longer than the reply.
                for to in [60, bytes.len() + 1, bytes.len() + 4, bytes.len() + 31, sent.len(), sent.len() + 1, 400] {
                    for filler in [0, 0xff] {
                        let mut frame = padded(bytes.clone(), to);
                        frame[bytes.len()..].fill(filler);
                        let (verdict, reply) = steered(&frame, &tables(&side, &name, &records));
                        assert_eq!((verdict, &reply), (ANSWERED, &sent), "{} bytes padded to {to}", bytes.len());
                    }
                }
            }
        }
    }
}

#[test]
fn bytes_behind_the_question_but_inside_the_packet_are_for_the_agent() {
    for side in SIDES {
        let name = Name::of("example.com");
        for question in [Question::plain(&name, A), Question::plain(&name, A).with_edns(512)] {
            for more in 1..=24 {
                for filler in [0, 0xff] {
                    let message = [question.bytes(), vec![filler; more]].concat();
                    let asked = question_frame(side.client(), side.dns(), message).bytes();
                    let (verdict, frame) = steered(&asked, &tables(&side, &name, &records(A, 2)));
                    assert!(matches!(verdict, Verdict::Pass(Why::DnsTrailing)), "{verdict:?}");
                    assert_eq!(frame, asked);
                }
            }
        }
    }
}

/// The scratch keeps the last question's name; a frame that ends within a name must not be completed from it.
#[test]
fn a_name_cut_short_is_not_completed_by_an_earlier_question() {
    for side in SIDES {
        let name = Name::of("www.example.com");
        let question = Question::plain(&name, A).bytes();
        for end in 12..question.len() {
            let asked = question_frame(side.client(), side.dns(), question[..end].to_vec()).bytes();
            let (verdict, frame) = steered(&asked, &tables(&side, &name, &records(A, 1)));
            assert_eq!((verdict, frame), (Verdict::Pass(Why::DnsName), asked), "cut at {end}");
        }
    }
}

#[test]
fn a_name_of_256_bytes_is_none() {
    let longest = Name::of_length(255);
    let mut labels = longest.0.clone();
    labels.pop();
    labels.extend([1, 0]);
    for wire in [labels.clone(), [&labels[..], &[0, 0, 0]].concat(), vec![b'x'; 300]] {
        let question = Question { name: Name(wire), ..Question::plain(&longest, A) };
        let asked = frame(&V4, &question).bytes();
        let (verdict, frame) = steered(&asked, &tables(&V4, &longest, &records(A, 1)));
        assert_eq!((verdict, frame), (Verdict::Pass(Why::DnsName), asked));
    }
}

/// Two names may share a hash, so that every byte has to be compared, those in the last word too.
#[test]
fn a_stored_name_that_differs_in_one_byte_is_not_believed() {
    for length in [1, 3, 7, 8, 9, 16, 17, 64, 255] {
        let name = Name::of_length(length);
        let asked = frame(&V4, &Question::plain(&name, A)).bytes();
        for byte in 0..length {
            let mut tables = tables(&V4, &name, &records(A, 1));
            tables.change(|body| body[HEAD_WORDS + byte / 8] ^= 1 << (byte % 8 * 8));
            let (verdict, frame) = steered(&asked, &tables);
            assert_eq!((verdict, &frame), (Verdict::Pass(Why::DnsMiss), &asked), "byte {byte} of {length}");
        }
    }
}

/// A compression pointer, or a label type that nobody uses, is not what is stored, whatever follows.
#[test]
fn names_with_pointers_are_never_answered() {
    let name = Name::of("www.example.com");
    for first in [0x40, 0x80, 0xc0, 0xff] {
        for second in [12, 0] {
            let wire = [&[first, second][..], &name.0].concat();
            let question = Question { name: Name(wire), ..Question::plain(&name, A) };
            let asked = frame(&V4, &question).bytes();
            let (verdict, frame) = steered(&asked, &tables(&V4, &name, &records(A, 1)));
            assert!(matches!(verdict, Verdict::Pass(Why::DnsMiss | Why::DnsName | Why::DnsTrailing)), "{verdict:?}");
            assert_eq!(frame, asked);
        }
    }
}

#[test]
fn an_edns_option_of_any_length_is_skipped_and_not_repeated() {
    let name = Name::of("example.com");
    let records = records(AAAA, 4);
    for length in [0, 1, 8, 40, 500, 1_200] {
        let mut options = vec![0, 12];
        options.extend((length as u16).to_be_bytes());
        options.extend(vec![0; length]);
        let edns = Edns { options, ..Edns::of_size(1232) };
        let question = Question { edns: Some(edns), ..Question::plain(&name, AAAA) };
        let asked = frame(&V6, &question);
        let (verdict, reply) = steered(&asked.bytes(), &tables(&V6, &name, &records));
        let sent = reply_frame(&asked, question.reply(&records, TTL)).bytes();
        assert_eq!((verdict, reply), (ANSWERED, sent), "{length} bytes");
    }
}

/// All values of a checksum's last word pass by, so that a carry lost or an unwritten 0xffff would show.
#[test]
fn a_reply_has_the_checksum_of_its_id_whatever_it_is() {
    let name = Name::of("example.com");
    let records = records(A, 1);
    let tables = tables(&V4, &name, &records);
    let mut met = BTreeSet::new();
    // The reply whose sum is 0xffff, found by what its checksum is for an id of zero.
    let zero = Question { id: 0, ..Question::plain(&name, A) };
    let missing = reply_frame(&frame(&V4, &zero), zero.reply(&records, TTL)).checksum();
    for id in [missing, missing.wrapping_add(1), missing.wrapping_sub(1), 0, 1, 0x8000, 0xffff] {
        let question = Question { id, ..Question::plain(&name, A) };
        let asked = frame(&V4, &question);
        let sent = reply_frame(&asked, question.reply(&records, TTL));
        let (verdict, reply) = steered(&asked.bytes(), &tables);
        assert_eq!((verdict, reply), (ANSWERED, sent.bytes()), "id {id:#x}");
        met.insert(sent.checksum());
    }
    assert!(met.contains(&0xffff), "the zero that UDP writes as 0xffff");
}
