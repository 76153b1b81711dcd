//! The kernel's reply to a question and the agent's are the same bytes, and what the kernel leaves to the agent it leaves
//! untouched.
//!
//! Questions are written by hickory-proto, frames by etherparse, which also checks the replies' frames: neither knows the
//! path.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test a panic is the report; the settings of clippy cover only functions marked as tests"
)]

use bytemuck::Zeroable as _;
use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use hickory_proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{DNSClass, Name, RData, RecordType, rdata::opt::EdnsOption},
};
use lb_common::{
    hash::Keys,
    host::{Buffer, HostTables},
    path::steer,
    tables::{Answer, DNS, Endpoint, Known, MAX_RECORDS, Service, Settings, Tables as _},
    verdict::{Verdict, Why},
    wire::transport::UDP,
};
use lb_userspace::model::dns::{
    names::Names,
    render,
    respond::{Asked, Response, Transport, respond},
};
use proptest::{prelude::*, sample::select};
use std::net::{IpAddr, SocketAddr};

const KEYS: Keys = Keys { flow: [1, 2, 3], multiplier: 5, name: 0x0123_4567_89ab_cdef };
const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
const ANSWERED: Verdict = Verdict::Transmit(Why::Answered);
/// XDP's headroom and the rest of a page.
const ROOM: [usize; 2] = [192, 2_048];
const PLACE: u32 = 7;

/// A name with one set of addresses, as the agent and as the kernel know it.
struct World {
    names: Names,
    tables: HostTables,
}

impl World {
    fn new(wire: &[u8], kind: u16, ttl_seconds: u32, addresses: &[IpAddr], dns: SocketAddr) -> Self {
        let mut names = Names::default();
        names.insert(wire, ttl_seconds, addresses.iter().map(|address| (*address, true)));
        let mut tables = HostTables::default();
        tables.settings = Some(Settings { keys: KEYS, known: Known::ALL, ..Settings::zeroed() });
        tables.service_ids.insert(Endpoint::new(dns.ip(), UDP, dns.port()), 0);
        tables.services.insert(0, Service { region: 0, flags: DNS, id: 0 });
        tables.answer_places.insert(render::answer_key(&KEYS, wire, kind).unwrap(), PLACE);
        tables.answers.insert(PLACE, render::answer(wire, kind, ttl_seconds, addresses).unwrap());
        Self { names, tables }
    }

    /// The usual one: three A records for `www.example.com.`.
    fn usual() -> Self {
        Self::new(b"\x03www\x07example\x03com\0", 1, 300, &addresses(1, 3), ends(true).1)
    }

    fn answer(&mut self) -> &mut Answer {
        self.tables.answers.get_mut(&PLACE).unwrap()
    }

    fn respond(&self, query: &[u8], turn: usize) -> Response {
        respond(query, Transport::Udp, &self.names, turn).unwrap()
    }

    fn steer(&self, frame: &[u8], [head, tail]: [usize; 2]) -> (Verdict, Vec<u8>) {
        let mut buffer = Buffer::new(frame, 2, head, tail);
        let verdict = steer(&mut buffer, &self.tables);
        (verdict, buffer.bytes().to_vec())
    }
}

/// The client and the DNS address.
fn ends(is_v4: bool) -> (SocketAddr, SocketAddr) {
    let ends =
        if is_v4 { ["198.51.100.7:40000", "192.0.2.53:53"] } else { ["[2001:db8:c::7]:40000", "[2001:db8::53]:53"] };
    let [client, dns] = ends.map(|text| text.parse().unwrap());
    (client, dns)
}

fn addresses(kind: u16, count: usize) -> Vec<IpAddr> {
    let address = |number: u8| match kind {
        1 => IpAddr::from([203, 0, 113 + number, 255 - number]),
        _ => IpAddr::from(std::array::from_fn::<u8, 16, _>(|byte| number << 4 | byte as u8)),
    };
    (0..count as u8).map(address).collect()
}

fn frame(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let link = PacketBuilder::ethernet2(CLIENT_MAC, OWN_MAC);
    let ip = match (from.ip(), to.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => link.ipv4(from.octets(), to.octets(), 57),
        (IpAddr::V6(from), IpAddr::V6(to)) => link.ipv6(from.octets(), to.octets(), 57),
        _ => panic!("two families in one packet"),
    };
    let mut frame = Vec::new();
    ip.udp(from.port(), to.port()).write(&mut frame, payload).unwrap();
    frame
}

/// The message in a reply, after its addresses, ports and checksums were found right.
fn message(reply: &[u8], client: SocketAddr, dns: SocketAddr) -> Vec<u8> {
    let packet = SlicedPacket::from_ethernet(reply).unwrap();
    assert_eq!((&reply[..6], &reply[6..12]), (&CLIENT_MAC[..], &OWN_MAC[..]));
    let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("not UDP") };
    let header = udp.to_header();
    let (source, destination, checksum): (IpAddr, IpAddr, _) = match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => {
            let ip = ip.header().to_header();
            assert_eq!(ip.header_checksum, ip.calc_header_checksum());
            (ip.source.into(), ip.destination.into(), header.calc_checksum_ipv4(&ip, udp.payload()))
        }
        NetSlice::Ipv6(ip) => {
            let ip = ip.header().to_header();
            (ip.source.into(), ip.destination.into(), header.calc_checksum_ipv6(&ip, udp.payload()))
        }
        NetSlice::Arp(_) => panic!("not IP"),
    };
    assert_eq!(header.checksum, checksum.unwrap());
    assert_eq!(SocketAddr::new(source, header.source_port), dns);
    assert_eq!(SocketAddr::new(destination, header.destination_port), client);
    udp.payload().to_vec()
}

/// A question, its set of addresses, and how it travels.
#[derive(Clone, Debug)]
struct Case {
    labels: Vec<String>,
    kind: u16,
    count: usize,
    ttl_seconds: u32,
    /// Letters in upper case, as bits.
    upper: [u64; 4],
    id: u16,
    bits: [bool; 3],
    /// Payload size, DO and the length of an option that nobody knows.
    edns: Option<(u16, bool, Option<usize>)>,
    turn: usize,
    is_v4: bool,
    client_port: u16,
    room: [usize; 2],
    padding: usize,
}

impl Case {
    fn wire(&self) -> Vec<u8> {
        let labels = self.labels.iter().flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat());
        labels.chain([0]).collect()
    }

    fn query(&self) -> Vec<u8> {
        let mut left = 0..;
        let mixed = self.labels.iter().map(|label| {
            let fold = |byte: u8| {
                let at: usize = left.next().unwrap();
                if self.upper[at / 64] >> (at % 64) & 1 == 1 { byte.to_ascii_uppercase() } else { byte }
            };
            label.bytes().map(fold).collect::<Vec<u8>>()
        });
        let mixed: Vec<Vec<u8>> = mixed.collect();
        let name = Name::from_labels(mixed.iter().map(Vec::as_slice)).unwrap();
        let mut query = plain(name, RecordType::from(self.kind));
        query.metadata.id = self.id;
        let bits = [
            &mut query.metadata.recursion_desired,
            &mut query.metadata.checking_disabled,
            &mut query.metadata.authentic_data,
        ];
        bits.into_iter().zip(self.bits).for_each(|(bit, is_set)| *bit = is_set);
        query.edns = self.edns.map(|(size, dnssec_ok, option)| {
            let mut edns = Edns::new();
            edns.set_max_payload(size).set_dnssec_ok(dnssec_ok);
            edns.options_mut()
                .options
                .extend(option.map(|length| (65_001.into(), EdnsOption::Unknown(65_001, vec![9; length]))));
            edns
        });
        query.to_vec().unwrap()
    }
}

fn plain(name: Name, kind: RecordType) -> Message {
    let mut query = Message::query();
    query.add_query(Query::query(name, kind));
    query
}

prop_compose! {
    fn case()(
        // The longest of them has 255 bytes on the wire, as many as a name can have.
        labels in prop_oneof![
            8 => prop::collection::vec("[a-z0-9_-]{1,20}", 1..7),
            1 => prop::collection::vec("[a-z0-9_-]{61}", 4),
            1 => prop::collection::vec("[a-z0-9_-]", 120..=127),
        ],
        kind in select(vec![1_u16, 28]),
        count in 1..=MAX_RECORDS,
        ttl_seconds in prop_oneof![0..100_u32, any::<u32>()],
        upper in prop_oneof![Just([0; 4]), any::<[u64; 4]>()],
        id in any::<u16>(),
        bits in any::<[bool; 3]>(),
        edns in prop::option::of((prop_oneof![400..1_400_u16, any::<u16>()], any::<bool>(), prop::option::of(0..40_usize))),
        turn in 0..40_usize,
        is_v4 in any::<bool>(),
        client_port in 1..=u16::MAX,
        room in select(vec![ROOM, [0, 2_048], [1_400, 0]]),
        padding in 0..20_usize,
    ) -> Case {
        Case { labels, kind, count, ttl_seconds, upper, id, bits, edns, turn, is_v4, client_port, room, padding }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_500) })]

    #[test]
    fn kernel_and_agent_answer_alike(case in case()) {
        let (mut client, dns) = ends(case.is_v4);
        client.set_port(case.client_port);
        let (wire, query) = (case.wire(), case.query());
        let world = World::new(&wire, case.kind, case.ttl_seconds, &addresses(case.kind, case.count), dns);
        for _ in 0..case.turn {
            world.tables.turn(PLACE);
        }
        let agent = world.respond(&query, case.turn);
        prop_assert_eq!(agent.asked, Some(Asked { wire, kind: case.kind }));
        let mut asked = frame(client, dns, &query);
        asked.resize(asked.len() + case.padding, 0);
        let (verdict, reply) = world.steer(&asked, case.room);
        if agent.is_truncated {
            prop_assert_eq!((verdict, reply), (Verdict::Pass(Why::DnsTooLarge), asked));
        } else {
            prop_assert_eq!((verdict, message(&reply, client, dns)), (ANSWERED, agent.bytes));
        }
    }
}

fn www() -> Message {
    let mut query = plain(Name::from_ascii("wWw.Example.com.").unwrap(), RecordType::A);
    query.metadata.id = 0xc0de;
    query
}

#[test]
fn whatever_the_kernel_passes_is_untouched_and_the_agent_answers_it() {
    let edit = |change: &dyn Fn(&mut Message)| {
        let mut query = www();
        change(&mut query);
        query.to_vec().unwrap()
    };
    let opt = |version| {
        let mut edns = Edns::new();
        edns.set_version(version);
        edns
    };
    let two_opts = {
        let mut bytes = edit(&|query| query.edns = Some(opt(0)));
        bytes.extend(bytes[bytes.len() - 11..].to_vec());
        bytes[11] = 2;
        bytes
    };
    let plain = edit(&|_| {});
    let cases = [
        ("EDNS version 1", Why::DnsNotPlain, ResponseCode::BADVERS, edit(&|query| query.edns = Some(opt(1)))),
        ("two OPT records", Why::DnsNotPlain, ResponseCode::FormErr, two_opts),
        ("two questions", Why::DnsNotPlain, ResponseCode::FormErr, edit(&|query| query.queries.extend(www().queries))),
        ("no question", Why::DnsNotPlain, ResponseCode::FormErr, edit(&|query| query.queries.clear())),
        ("TC", Why::DnsNotPlain, ResponseCode::NoError, edit(&|query| query.metadata.truncation = true)),
        ("NOTIFY", Why::DnsNotPlain, ResponseCode::NotImp, edit(&|query| query.metadata.op_code = OpCode::Notify)),
        ("bytes behind", Why::DnsNotPlain, ResponseCode::NoError, [&plain[..], &[0]].concat()),
        ("a byte less", Why::DnsNotPlain, ResponseCode::FormErr, plain[..plain.len() - 1].to_vec()),
        ("type TXT", Why::DnsMiss, ResponseCode::NoError, edit(&|query| query.queries[0].query_type = RecordType::TXT)),
        (
            "type AAAA",
            Why::DnsMiss,
            ResponseCode::NoError,
            edit(&|query| query.queries[0].query_type = RecordType::AAAA),
        ),
        ("type ANY", Why::DnsMiss, ResponseCode::NoError, edit(&|query| query.queries[0].query_type = RecordType::ANY)),
        ("class CH", Why::DnsMiss, ResponseCode::Refused, edit(&|query| query.queries[0].query_class = DNSClass::CH)),
        (
            "another name",
            Why::DnsMiss,
            ResponseCode::Refused,
            edit(&|query| query.queries[0].name = Name::from_ascii("ww.example.com.").unwrap()),
        ),
    ];
    for (what, why, code, query) in cases {
        let world = World::usual();
        let (client, dns) = ends(true);
        let asked = frame(client, dns, &query);
        assert_eq!(world.steer(&asked, ROOM), (Verdict::Pass(why), asked), "{what}");
        assert_eq!(world.respond(&query, 0).code, code, "{what}");
    }
}

#[test]
fn what_the_tables_or_the_frame_do_not_allow_is_untouched_too() {
    let query = www().to_vec().unwrap();
    let (client, dns) = ends(true);
    let asked = frame(client, dns, &query);
    let passes = |world: &World, room, why| assert_eq!(world.steer(&asked, room), (Verdict::Pass(why), asked.clone()));
    let mut world = World::usual();
    passes(&world, [0, 0], Why::NoRoom);
    passes(&world, [47, 47], Why::NoRoom);
    world.tables.answer_places.clear();
    passes(&world, ROOM, Why::DnsMiss);
    // The same key, by chance, for another name.
    let mut world = World::usual();
    world.answer().name[0] ^= 0x0100;
    passes(&world, ROOM, Why::DnsMiss);
    let mut world = World::usual();
    world.answer().spent_at = 1_000;
    world.tables.seconds = 1_000;
    passes(&world, ROOM, Why::DnsSpent);
}

#[test]
fn a_reply_that_grows_in_front_is_the_one_that_grows_behind() {
    for is_v4 in [true, false] {
        let (client, dns) = ends(is_v4);
        for count in 1..=MAX_RECORDS {
            let wire = b"\x01x\0";
            let query = plain(Name::from_ascii("x.").unwrap(), RecordType::A).to_vec().unwrap();
            let grown = count * 16;
            let replies = [[0, grown], [grown, 0], [grown, grown - 1], [512, 512]].map(|room| {
                let world = World::new(wire, 1, 60, &addresses(1, count), dns);
                assert_eq!(
                    world.steer(&frame(client, dns, &query), [grown - 1, grown - 1]).0,
                    Verdict::Pass(Why::NoRoom)
                );
                let (verdict, reply) = world.steer(&frame(client, dns, &query), room);
                assert_eq!((verdict, message(&reply, client, dns)), (ANSWERED, world.respond(&query, 0).bytes));
                reply
            });
            assert!(replies.iter().all(|reply| *reply == replies[0]));
        }
    }
}

#[test]
fn a_reply_shrinks_what_the_client_sent_along() {
    let mut query = www();
    let mut edns = Edns::new();
    edns.options_mut().insert(EdnsOption::Unknown(65_001, vec![7; 400]));
    query.edns = Some(edns);
    let query = query.to_vec().unwrap();
    let (client, dns) = ends(false);
    let world = World::new(b"\x03www\x07example\x03com\0", 1, 300, &addresses(1, 3), dns);
    let (verdict, reply) = world.steer(&frame(client, dns, &query), [0, 0]);
    assert_eq!((verdict, message(&reply, client, dns)), (ANSWERED, world.respond(&query, 0).bytes));
}

#[test]
fn ttls_count_down_to_the_second_in_which_the_answer_is_spent() {
    let (client, dns) = ends(true);
    let query = www().to_vec().unwrap();
    for (kind, record_type) in [(1, RecordType::A), (28, RecordType::AAAA)] {
        let mut query = www();
        query.queries[0].query_type = record_type;
        let query = query.to_vec().unwrap();
        for (left, expected) in [(u64::MAX - 1_000, 300), (301, 300), (300, 300), (299, 299), (2, 2), (1, 1)] {
            let mut world = World::new(b"\x03www\x07example\x03com\0", kind, 300, &addresses(kind, 3), dns);
            world.tables.seconds = 1_000;
            world.answer().spent_at = 1_000 + left;
            let (verdict, reply) = world.steer(&frame(client, dns, &query), ROOM);
            let reply = Message::from_vec(&message(&reply, client, dns)).unwrap();
            assert_eq!((verdict, reply.answers.len()), (ANSWERED, 3));
            assert!(reply.answers.iter().all(|record| record.ttl == expected), "{left} seconds left");
            assert!(reply.answers.iter().all(|record| matches!(record.data, RData::A(_) | RData::AAAA(_))));
        }
    }
    let mut world = World::usual();
    (world.answer().spent_at, world.tables.seconds) = (1_000, u64::MAX);
    assert_eq!(world.steer(&frame(client, dns, &query), ROOM).0, Verdict::Pass(Why::DnsSpent), "spent for long");
}
