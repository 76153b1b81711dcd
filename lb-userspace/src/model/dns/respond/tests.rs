use super::*;
use crate::model::dns::fixture::{self, wire};
use hickory_proto::{
    op::{Edns, Message, MessageType},
    rr::{DNSClass, RData, Record, rdata::A as DataA, rdata::AAAA as DataAaaa},
};
use lb_common::wire::dns::{A, AAAA};
use proptest::prelude::*;
use std::sync::LazyLock;

const IN: u16 = 1;
const ANY: u16 = 255;

/// A query, written from RFC 1035 and RFC 6891; its parts can be wrong.
#[derive(Clone, Debug)]
struct Sent {
    flags: u16,
    counts: [u16; 4],
    questions: Vec<u8>,
    records: Vec<u8>,
}

impl Sent {
    fn of_class(name: &str, kind: u16, class: u16) -> Self {
        let mut questions = wire(name);
        questions.extend(kind.to_be_bytes());
        questions.extend(class.to_be_bytes());
        Self { flags: 0, counts: [1, 0, 0, 0], questions, records: Vec::new() }
    }

    fn new(name: &str, kind: u16) -> Self {
        Self::of_class(name, kind, IN)
    }

    fn flags(self, flags: u16) -> Self {
        Self { flags, ..self }
    }

    /// With an OPT record of this size, extended word and options.
    fn opt(mut self, size: u16, extended: u32, options: &[u8]) -> Self {
        self.counts[3] += 1;
        self.records.extend([0, 0, 41]);
        self.records.extend(size.to_be_bytes());
        self.records.extend(extended.to_be_bytes());
        self.records.extend((options.len() as u16).to_be_bytes());
        self.records.extend(options);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0xc0, 0xde];
        for word in [self.flags].iter().chain(&self.counts) {
            bytes.extend(word.to_be_bytes());
        }
        [bytes, self.questions.clone(), self.records.clone()].concat()
    }

    /// The response by UDP, and what hickory makes of it.
    fn response(&self, turn: u32) -> (Response, Message) {
        response(&self.bytes(), Transport::Udp, turn)
    }

    fn code(&self) -> ResponseCode {
        self.response(0).0.code
    }
}

fn response(query: &[u8], transport: Transport, turn: u32) -> (Response, Message) {
    let response = respond(query, client(transport), &NAMES, turn).unwrap();
    let message = Message::from_vec(&response.bytes).unwrap();
    assert_eq!((message.metadata.id, message.metadata.message_type), (0xc0de, MessageType::Response));
    // By number: 16 is BADVERS and BADSIG, and hickory can't know which.
    assert_eq!(u16::from(message.metadata.response_code), u16::from(response.code));
    assert_eq!(message.metadata.truncation, response.is_truncated);
    (response, message)
}

fn client(transport: Transport) -> Client {
    Client { address: v4(7), transport, second: 1_000_000 }
}

fn v4(number: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, number])
}

fn v6(number: u16) -> IpAddr {
    IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, number])
}

const SERVER: Server = Server {
    keys: Keys { flow: [1, 2, 3], multiplier: 5, name: 4 },
    settings: DnsSettings {
        features: 0,
        lease_until: 0,
        wall_offset: 0,
        cookie_secrets: [[1, 2], [3, 4]],
        answer_rate: 0,
        miss_rate: 0,
        slip_and_prefixes: 24 << 8 | 56 << 16,
    },
};

static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let all = |count| (0..count).map(|number| (v6(number), true)).collect::<Vec<_>>();
    let names = [
        ("www.example.com", vec![(v4(1), true), (v4(2), false), (v6(1), true), (v4(3), true), (v4(4), true)]),
        ("half.example.com", vec![(v4(1), false), (v6(1), true)]),
        ("four.example.com", vec![(v4(1), true)]),
        ("six.example.com", vec![(v6(1), true)]),
        ("down.example.com", vec![(v4(1), false), (v4(2), false)]),
        ("six-down.example.com", vec![(v6(1), false)]),
        ("none.example.com", vec![]),
        ("many.example.com", all(40).into_iter().chain([(v4(1), true)]).collect()),
        ("more.example.com", all(43)),
        ("most.example.com", all(16)),
        ("endless.example.com", all(5_000)),
        (&longest(), vec![(v4(1), true)]),
    ];
    fixture::names(&names, SERVER)
});

/// 255 bytes on the wire.
fn longest() -> String {
    [63, 63, 63, 61].map(|length| "x".repeat(length)).join(".")
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    let of = |record: &Record| match record.data {
        RData::A(DataA(address)) => IpAddr::V4(address),
        RData::AAAA(DataAaaa(address)) => IpAddr::V6(address),
        _ => panic!("neither A nor AAAA: {record}"),
    };
    message.answers.iter().map(of).collect()
}

#[test]
fn a_reply_to_the_byte() {
    let query = Sent::new("wWw.exAmple.COM", A).flags(0x0110).opt(4096, 0x8000, &[]);
    let (response, _) = query.response(1);
    let mut expected = vec![0xc0, 0xde, 0x85, 0x10, 0, 1, 0, 3, 0, 0, 0, 1];
    expected.extend(b"\x03wWw\x07exAmple\x03COM\0\0\x01\0\x01");
    for number in [3, 4, 1] {
        expected.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 30, 0, 4, 192, 0, 2, number]);
    }
    expected.extend([0, 0, 41, 0x04, 0xd0, 0, 0, 0x80, 0, 0, 0]);
    assert_eq!(response.bytes, expected);
    assert_eq!(response.asked, Some(asked("www.example.com", A)));
}

#[test]
fn no_reply_without_a_whole_header_nor_to_a_response() {
    let query = Sent::new("www.example.com", A);
    for end in 0..12 {
        assert_eq!(respond(&query.bytes()[..end], client(Transport::Udp), &NAMES, 0), None);
    }
    for opcode in 0..16 {
        assert_eq!(
            respond(&query.clone().flags(0x8000 | opcode << 11).bytes(), client(Transport::Tcp), &NAMES, 0),
            None
        );
    }
}

#[test]
fn live_addresses_are_rotated_by_the_turn() {
    for (turn, expected) in [(0, [1, 3, 4]), (1, [3, 4, 1]), (2, [4, 1, 3]), (3, [1, 3, 4]), (u32::MAX, [1, 3, 4])] {
        let (_, message) = Sent::new("www.example.com", A).response(turn);
        assert_eq!(addresses(&message), expected.map(v4), "turn {turn}");
    }
}

#[test]
fn codes_and_records_by_name_and_type() {
    let cases: &[(&str, u16, ResponseCode, &[IpAddr])] = &[
        ("www.example.com", A, ResponseCode::NoError, &[v4(1), v4(3), v4(4)]),
        ("www.example.com", AAAA, ResponseCode::NoError, &[v6(1)]),
        ("www.example.com", 15, ResponseCode::NoError, &[]),
        ("www.example.com", 65, ResponseCode::NoError, &[]),
        ("four.example.com", AAAA, ResponseCode::NoError, &[]),
        ("six.example.com", A, ResponseCode::NoError, &[]),
        ("none.example.com", A, ResponseCode::NoError, &[]),
        ("half.example.com", A, ResponseCode::ServFail, &[]),
        ("half.example.com", AAAA, ResponseCode::NoError, &[v6(1)]),
        ("down.example.com", A, ResponseCode::ServFail, &[]),
        ("down.example.com", AAAA, ResponseCode::NoError, &[]),
        ("down.example.com", 15, ResponseCode::NoError, &[]),
        ("www.example.com", ANY, ResponseCode::NoError, &[v4(1), v4(3), v4(4)]),
        ("half.example.com", ANY, ResponseCode::NoError, &[v6(1)]),
        ("six.example.com", ANY, ResponseCode::NoError, &[v6(1)]),
        ("down.example.com", ANY, ResponseCode::ServFail, &[]),
        ("six-down.example.com", ANY, ResponseCode::ServFail, &[]),
        ("none.example.com", ANY, ResponseCode::NoError, &[]),
    ];
    for (name, kind, code, expected) in cases {
        let (response, message) = Sent::new(name, *kind).response(0);
        assert_eq!((response.code, &addresses(&message)[..]), (*code, *expected), "{name} {kind}");
        assert!(message.metadata.authoritative, "{name} {kind}");
        assert!(message.authorities.is_empty() && message.additionals.is_empty() && message.edns.is_none());
        assert!(message.answers.iter().all(|record| record.ttl == 30 && record.dns_class == DNSClass::IN));
    }
}

#[test]
fn what_is_not_ours_is_refused() {
    let others = ["example.com", "a.www.example.com", "www.example.org", ".", "ww.example.com", "www.example.con"];
    let names = others.iter().map(|name| Sent::new(name, A));
    let classes = [0, 3, 4, 254, 255, 0xffff].iter().map(|class| Sent::of_class("www.example.com", A, *class));
    for query in names.chain(classes) {
        let (response, message) = query.response(0);
        assert_eq!((response.code, response.asked), (ResponseCode::Refused, None));
        assert!(!message.metadata.authoritative && message.answers.is_empty());
        assert_eq!(response.bytes[12..], query.questions, "the question is repeated");
    }
}

#[test]
fn another_opcode_is_not_implemented() {
    for opcode in 1..16_u16 {
        let (response, message) =
            Sent::new("www.example.com", A).flags(opcode << 11 | 0x0100).opt(1232, 0, &[]).response(0);
        assert_eq!(response.code, ResponseCode::NotImp, "{opcode}");
        assert_eq!(response.bytes[2..4], (0x8104 | opcode << 11).to_be_bytes(), "{opcode}");
        assert!(message.edns.is_some());
    }
    // Such as DSO (RFC 8490), whose messages have no sections at all.
    let dso = [0xc0, 0xde, 0x30, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, 9, 9];
    assert_eq!(response(&dso, Transport::Tcp, 0).0.code, ResponseCode::NotImp);
}

#[test]
fn flags_of_the_query_are_copied_or_cleared() {
    // All but QR and the opcode.
    for flags in 0..=0x07ff_u16 {
        let (response, _) = Sent::new("www.example.com", A).flags(flags).response(0);
        assert_eq!(response.bytes[2..4], (0x8400 | flags & 0x0110).to_be_bytes(), "{flags:#x}");
    }
}

#[test]
fn any_number_of_questions_but_one_is_a_format_error() {
    let one = Sent::new("www.example.com", A).opt(1232, 0, &[]);
    let none = Sent { counts: [0, 0, 0, 1], questions: Vec::new(), ..one.clone() };
    let two = Sent { counts: [2, 0, 0, 1], questions: one.questions.repeat(2), ..one.clone() };
    for query in [none, two] {
        let (response, message) = query.response(0);
        assert_eq!((response.code, message.queries.len(), response.asked), (ResponseCode::FormErr, 0, None));
        assert!(message.edns.is_some() && !message.metadata.authoritative);
    }
}

#[test]
fn a_query_cut_anywhere_is_a_format_error() {
    let whole = Sent::new("www.example.com", A).opt(1232, 0, &[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]).bytes();
    for end in 12..whole.len() {
        assert_eq!(response(&whole[..end], Transport::Udp, 0).0.code, ResponseCode::FormErr, "cut at {end}");
    }
    assert_eq!(response(&whole, Transport::Udp, 0).0.code, ResponseCode::NoError);
    let longer = [&whole[..], b"more"].concat();
    assert_eq!(response(&longer, Transport::Udp, 0).0.code, ResponseCode::NoError, "bytes behind the end do no harm");
}

#[test]
fn labels_of_other_kinds_and_pointers_are_format_errors_in_a_question() {
    for start in [0x40, 0x80, 0xc0] {
        let mut query = Sent::new("www.example.com", A);
        query.questions.splice(..1, [start, 0]);
        assert_eq!(query.code(), ResponseCode::FormErr, "{start:#x}");
    }
    // The name goes on in the header, where a zero byte ends it.
    let mut query = Sent::new("www.example.com", A);
    query.questions.splice(16.., [0xc0, 4, 0, 1, 0, 1]);
    assert_eq!(query.code(), ResponseCode::FormErr);
    // 256 bytes.
    let query = Sent::new(&[63, 63, 63, 62].map(|length| "x".repeat(length)).join("."), A);
    assert_eq!(query.code(), ResponseCode::FormErr);
}

#[test]
fn records_of_a_query_are_stepped_over() {
    let mut query = Sent::new("www.example.com", A);
    // A record of each section, the first with a pointer for its owner, the second with data that no such record has.
    query.records.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]);
    query.records.extend([1, b'a', 0, 0, 28, 0, 1, 0, 0, 0, 0, 0, 3, 9, 9, 9]);
    query.counts = [1, 1, 1, 0];
    let (response, message) = query.opt(512, 0, &[]).response(0);
    assert_eq!((response.code, message.answers.len()), (ResponseCode::NoError, 3));
    assert!(message.edns.is_some());
}

#[test]
fn edns_is_repeated_without_options_and_only_if_it_was_used() {
    for options in [&[][..], &[0, 3, 0, 0], &[0xfd, 0xe9, 0, 2, 1, 2]] {
        for extended in [0, 0x8000, 0x7fff, 0xff00_0000] {
            let (response, _) = Sent::new("four.example.com", A).opt(1400, extended, options).response(0);
            let expected = [0, 0, 41, 0x04, 0xd0, 0, 0, if extended == 0x8000 { 0x80 } else { 0 }, 0, 0, 0];
            assert_eq!(response.bytes[response.bytes.len() - 11..], expected);
            assert_eq!(response.bytes[10..12], [0, 1]);
        }
    }
    assert_eq!(Sent::new("four.example.com", A).response(0).1.edns, None);
}

#[test]
fn an_unknown_edns_version_is_told_the_known_one() {
    for name in ["www.example.com", "not.ours.example"] {
        for version in [1_u32, 255] {
            let (response, message) = Sent::new(name, A).opt(1232, version << 16, &[]).response(0);
            assert_eq!((response.code, response.asked), (ResponseCode::BADVERS, None));
            assert_eq!(message.edns.as_ref().map(Edns::version), Some(0));
            assert!(message.answers.is_empty());
        }
    }
}

#[test]
fn a_wrong_opt_record_is_a_format_error() {
    let two = Sent::new("www.example.com", A).opt(1232, 0, &[]).opt(1232, 0, &[]);
    let mut named = Sent::new("www.example.com", A).opt(1232, 0, &[]);
    named.records.splice(..1, [1, b'a', 0]);
    for query in [two, named] {
        let (response, message) = query.response(0);
        assert_eq!(response.code, ResponseCode::FormErr);
        assert!(message.edns.is_some());
    }
    for section in [1, 2] {
        let mut misplaced = Sent::new("www.example.com", A).opt(1232, 0, &[]);
        misplaced.counts.swap(section, 3);
        assert_eq!(misplaced.code(), ResponseCode::FormErr);
    }
}

#[test]
fn every_type_and_class_is_repeated() {
    for word in (0..300).chain((300..=u16::MAX).step_by(97)).chain([u16::MAX]) {
        for query in [Sent::new("www.example.com", word), Sent::of_class("www.example.com", A, word)] {
            let (response, _) = query.response(0);
            assert_eq!(response.bytes[12..12 + query.questions.len()], query.questions);
        }
    }
}

#[test]
fn what_is_too_large_for_the_client_is_truncated() {
    let whole = |query: &Sent| response(&query.bytes(), Transport::Tcp, 0);
    for (name, sizes) in
        [("most.example.com", 0..=560), ("many.example.com", 1140..=1300), ("more.example.com", 1200..=1400)]
    {
        for size in [None].into_iter().chain(sizes.map(Some)) {
            let plain = Sent::new(name, AAAA);
            let query = size.map_or(plain.clone(), |size| plain.opt(size, 0x8000, &[]));
            let limit = size.map_or(512, |size| usize::from(size).clamp(512, 1232));
            let (large, message) = whole(&query);
            assert!(!large.is_truncated && !message.answers.is_empty());
            let (response, message) = query.response(0);
            if large.bytes.len() <= limit {
                assert_eq!(response, large, "{size:?}");
                continue;
            }
            assert!(response.is_truncated && message.metadata.authoritative && message.answers.is_empty());
            assert_eq!((response.code, response.asked), (ResponseCode::NoError, large.asked), "{size:?}");
            let opt = if size.is_some() { 11 } else { 0 };
            assert_eq!(response.bytes.len(), 12 + query.questions.len() + opt);
        }
    }
}

#[test]
fn a_set_larger_than_a_message_is_truncated_even_by_tcp() {
    let query = Sent::new("endless.example.com", AAAA).opt(u16::MAX, 0, &[]).bytes();
    let (response, message) = response(&query, Transport::Tcp, 0);
    assert!(response.is_truncated && message.answers.is_empty() && message.edns.is_some());
}

#[test]
fn the_longest_name_is_answered() {
    let query = Sent::new(&longest(), A);
    assert_eq!(query.questions.len(), 255 + 4);
    assert_eq!(addresses(&query.response(0).1), [v4(1)]);
}

fn asked(name: &str, kind: u16) -> Asked {
    Asked { wire: wire(name).into(), kind: u32::from(kind) | u32::from(IN) << 16 }
}

#[test]
fn what_has_an_answer_is_noted_and_what_the_answer_is_made_of_is_there() {
    for (name, kind) in [
        ("WWW.EXAMPLE.COM", AAAA),
        ("many.example.com", AAAA),
        ("half.example.com", A),
        ("four.example.com", AAAA),
        ("www.example.com", ANY),
        ("www.example.com", 15),
    ] {
        let response = Sent::new(name, kind).opt(1232, 0, &[]).response(0).0;
        assert_eq!(response.asked, Some(asked(&name.to_lowercase(), kind)));
        let Asked { wire, kind } = response.asked.unwrap();
        let rendered = NAMES.answer(&wire, kind).unwrap();
        let own = rendered.bodies.iter().any(|body| response.is_truncated || contains(&response.bytes, &body.records));
        assert!(own, "{name} {kind:#x}");
    }
    for query in [
        Sent::new("not.ours.example", A),
        Sent::of_class("www.example.com", A, 3),
        Sent::new("www.example.com", A).flags(0x2800),
        Sent::new("www.example.com", A).opt(1232, 1 << 16, &[]),
    ] {
        assert_eq!(query.response(0).0.asked, None);
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    part.is_empty() || bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn transfers_are_refused() {
    for kind in [251, 252] {
        assert_eq!(Sent::new("www.example.com", kind).code(), ResponseCode::Refused);
    }
}

const CLIENT_COOKIE: [u8; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

fn cookie_option(cookie: &[u8]) -> Vec<u8> {
    [&[0, 10, 0, cookie.len() as u8], cookie].concat()
}

#[test]
fn who_sends_a_cookie_gets_a_server_cookie() {
    // Options that nobody knows may stand around it; of two cookies the first counts.
    let options = [[0xfd_u8, 0xe9, 0, 1, 9].to_vec(), cookie_option(&CLIENT_COOKIE), cookie_option(&[9; 8])].concat();
    let first = Sent::new("four.example.com", A).opt(1232, 0, &options).response(0).0;
    let (opt, got) = first.bytes[first.bytes.len() - 39..].split_at(15);
    assert_eq!(opt, [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 28, 0, 10, 0, 24]);
    assert_eq!((&got[..8], &got[8..16]), (&CLIENT_COOKIE[..], &[1, 0, 0, 0, 0, 15, 66, 64][..]));
    let again = Sent::new("four.example.com", A).opt(1232, 0, &cookie_option(got)).response(0).0;
    assert_eq!(again.bytes, first.bytes, "a young one is kept");
    let refused = Sent::new("not.ours.example", A).opt(1232, 0, &cookie_option(got)).response(0).0;
    assert_eq!((refused.code, &refused.bytes[refused.bytes.len() - 24..]), (ResponseCode::Refused, got));
    for length in (16..=40).filter(|length| *length != 24) {
        let odd = [&CLIENT_COOKIE[..], &vec![7; length - 8]].concat();
        let reply = Sent::new("four.example.com", A).opt(1232, 0, &cookie_option(&odd)).response(0).0;
        assert_eq!(reply.bytes, first.bytes, "a cookie of {length} bytes is none of ours");
    }
}

#[test]
fn cookies_of_no_length_that_there_is_and_broken_options_are_format_errors() {
    let lengths = (0..50).filter(|length| *length != 8 && !(16..=40).contains(length));
    let cookies = lengths.map(|length| cookie_option(&vec![7; length]));
    for options in cookies.chain([vec![0], vec![0, 8, 0xff, 0xff], vec![0, 8, 0, 1]]) {
        let (response, message) = Sent::new("four.example.com", A).opt(1232, 0x8000, &options).response(0);
        assert_eq!((response.code, response.asked), (ResponseCode::FormErr, None), "{options:?}");
        assert_eq!(message.queries.len(), 1);
        assert_eq!(response.bytes[response.bytes.len() - 11..], [0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0]);
    }
}

#[test]
fn a_cookie_can_be_asked_for_without_a_question() {
    let none = |options: &[u8]| {
        let query = Sent::new("www.example.com", A).opt(1232, 0, options);
        Sent { counts: [0, 0, 0, 1], questions: Vec::new(), ..query }.response(0).0
    };
    let reply = none(&cookie_option(&CLIENT_COOKIE));
    assert_eq!((reply.code, reply.bytes.len()), (ResponseCode::NoError, 12 + 39));
    assert_eq!(none(&[]).code, ResponseCode::FormErr);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    /// Whatever comes, a reply is a sound response to the same id that is not longer than it may be.
    #[test]
    fn changed_bytes_never_break_the_reply(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut bytes = Sent::new("www.example.com", A).opt(1400, 0, &[0, 10, 0, 0]).bytes();
        for (index, byte) in changes {
            let at = index.index(bytes.len());
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(end.index(bytes.len()));
        }
        let reply = respond(&bytes, client(Transport::Udp), &NAMES, 0);
        let deserves_one = bytes.len() >= 12 && bytes[2] & 0x80 == 0;
        prop_assert_eq!(reply.is_some(), deserves_one);
        if let Some(reply) = reply {
            let message = Message::from_vec(&reply.bytes).unwrap();
            prop_assert_eq!(message.metadata.message_type, MessageType::Response);
            prop_assert_eq!(&reply.bytes[..2], &bytes[..2]);
            prop_assert!(reply.bytes.len() <= 1232);
        }
    }
}
