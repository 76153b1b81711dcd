//! To the same question the kernel's reply is the agent's, byte for byte but for what was chosen by turn or by chance.
//!
//! A config becomes tables by the same plan as in the agent, and the path runs on them; what it passes is the agent's to answer.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "outside functions marked as tests clippy does not know a test"
)]

use etherparse::{NetSlice, PacketBuilder, SlicedPacket, TransportSlice};
use hickory_proto::op::Message;
use lb_common::{
    host::{Buffer, HostTables},
    path::steer,
    verdict::{Verdict, Why},
};
use lb_userspace::{
    config::Config,
    model::{
        actual::Actual,
        desired::{Conditions, Desired},
        dns::{
            names::Names,
            rendered::Question,
            respond::{Client, Response, Transport, respond},
        },
        host,
        intent::Intent,
        plan::plan,
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs,
    net::{IpAddr, SocketAddr},
    path::Path,
    time::Duration,
};

const CLIENT_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OWN_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// The path's clock, and what it is ahead of 1970.
const SECOND: u64 = 1_000;
const WALL: u64 = 1_700_000_000;
/// Whatever a choice is between, it has come round by then.
const TURNS: u32 = 600;

/// Names of every kind, as the agent and as the kernel know them.
struct World {
    names: Names,
    tables: HostTables,
    desired: Desired,
    /// Those that there are, and some that there are not.
    known: Vec<String>,
    cookies: BTreeMap<IpAddr, Vec<u8>>,
}

impl World {
    fn new(test: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("answer-{test}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("names.txt"), records()).unwrap();
        fs::write(folder.join("lb.toml"), config()).unwrap();
        let intent =
            Intent::new(&Config::read(&folder.join("lb.toml")).unwrap()).unwrap_or_else(|errors| panic!("{errors}"));
        fs::remove_dir_all(&folder).unwrap();
        let is_up = |address: IpAddr| !address.to_string().ends_with('9');
        let up: BTreeSet<_> = intent.targets().into_iter().filter(|target| is_up(target.address.ip())).collect();
        let conditions = Conditions { up, ..Conditions::default() };
        let names = Names::new(intent.zone(), &conditions.up);
        let mut desired = Desired::new(&intent, &conditions, Duration::ZERO);
        // With the keys of the config.
        desired.keep_answers(Desired::default());
        desired.answers.replace(names.all());
        let named = intent.names().iter().map(|name| name.name.clone());
        let stored = ["one", "several", "texts", "alias", "large", "host-7", "host-40"]
            .map(|name| format!("{name}.stored.example"));
        let known: Vec<String> =
            named.chain(stored).chain(["example.com", "deep.example.com"].map(Into::into)).collect();
        // Some of what is not there has been asked for before.
        for (number, name) in known.iter().enumerate() {
            for kind in [1, 2, 5, 6, 15, 16, 28, 33, 65, 255].into_iter().filter(|kind| (number + kind) % 8 > 0) {
                let question = Question { wire: wire(name).into(), kind: kind as u32 | 1 << 16 };
                desired.answers.put(&question, &names.answer(&question.wire, question.kind).unwrap());
            }
        }
        for kind in [1, 28] {
            let absent = Question { wire: wire("absent.example.com").into(), kind: kind | 1 << 16 };
            desired.answers.put(&absent, &names.answer(&absent.wire, absent.kind).unwrap());
        }

        let (mut tables, mut actual) = (HostTables::default(), Actual::new(intent.limits()));
        loop {
            let ops = plan(&desired, &actual, Duration::ZERO).unwrap();
            if ops.is_empty() {
                break;
            }
            for op in &ops {
                host::apply(&mut tables, op);
                actual.record(op);
            }
        }
        let dns = tables.dns.as_mut().unwrap();
        (dns.lease_until, dns.wall_offset) = (SECOND + 60, WALL);
        tables.seconds = SECOND;
        Self { names, tables, desired, known, cookies: BTreeMap::new() }
    }

    fn respond(&self, query: &[u8], address: IpAddr, turn: u32) -> Option<Response> {
        let client = Client { address, transport: Transport::Udp, second: (SECOND + WALL) as u32 };
        respond(query, client, &self.names, turn)
    }

    /// The agent's reply with the choice that the path made.
    fn same(&self, query: &[u8], address: IpAddr, reply: &[u8]) -> Option<Response> {
        (0..TURNS).filter_map(|turn| self.respond(query, address, turn)).find(|response| response.bytes == reply)
    }
}

fn config() -> String {
    let check = "check = \"web\"\n";
    let four = "addresses = [\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.9\", \"10.0.0.4\", \"fd00::1\", \"fd00::2\"]\n";
    let weighted = "addresses = [{ address = \"10.0.0.1\", weight = 5 }, { address = \"10.0.0.2\", weight = 2 }, \
        { address = \"10.0.0.9\", weight = 3 }, { address = \"fd00::1\", weight = 65535 }, { address = \"fd00::2\", weight = 1000 }]\n";
    let tiers = "addresses = [{ address = \"10.0.0.9\" }, { address = \"10.0.1.1\", tier = 2 }, { address = \"10.0.1.2\", tier = 2 }]\n";
    let sixteen: Vec<_> =
        (1..=16).flat_map(|number| [format!("10.0.2.{number}"), format!("fd00:2::{number}")]).collect();
    let longest = [63, 63, 63, 61].map(|length| "x".repeat(length)).join(".");
    let long = "y".repeat(900);
    let names = [
        ("www.example.com", format!("ttl_seconds = 5\n{check}{four}")),
        ("shuffled.example.com", format!("policy = \"shuffle\"\n{check}{four}")),
        ("weighted.example.com", format!("policy = \"weighted\"\n{check}{weighted}")),
        ("sticky.example.com", format!("policy = \"sticky\"\n{check}{weighted}")),
        ("failover.example.com", format!("policy = \"failover\"\n{check}{tiers}")),
        ("all.example.com", format!("addresses = {sixteen:?}\n")),
        ("down.example.com", format!("{check}addresses = [\"10.0.0.9\", \"fd00::9\"]\n")),
        ("down-nodata.example.com", format!("{check}below_minimum = \"nodata\"\naddresses = [\"10.0.0.9\"]\n")),
        (
            "down-open.example.com",
            format!("{check}below_minimum = \"fail-open\"\naddresses = [\"10.0.0.9\", \"10.0.0.19\"]\n"),
        ),
        (
            "down-fallback.example.com",
            format!(
                "{check}below_minimum = \"fallback\"\nfallback = [\"10.9.9.1\", \"10.9.9.2\"]\naddresses = [\"10.0.0.9\"]\n"
            ),
        ),
        ("alias.example.com", "cname = \"www.example.com\"\n".into()),
        (
            "a.deep.example.com",
            "mx = [\"10 mail.example.com\", \"20 mx.example.net\"]\ntxt = [\"one\", \"another\"]\n".into(),
        ),
        ("_sip._udp.example.com", "srv = [\"1 2 5060 sip.example.com\", \"2 2 5060 pis.example.com\"]\n".into()),
        ("long.example.com", format!("txt = [\"{long}\"]\n")),
        ("too-long.example.com", format!("txt = [\"{long}\", \"{long}z\"]\n")),
        ("elsewhere.example.net", "addresses = [\"10.0.0.1\"]\n".into()),
        (&longest, "addresses = [\"10.0.0.1\", \"10.0.0.2\"]\n".into()),
        ("x", "addresses = [\"10.0.0.1\"]\n".into()),
    ];
    let mut text = String::from(
        "interfaces = [\"eth0\"]\nsecret = \"0123456789abcdef\"\n[check.web]\nport = 80\n[dns]\n\
         listen = [\"192.0.2.53\", \"2001:db8::53\"]\n\
         [[dns.domain]]\nname = \"example.com\"\nprimary = \"ns1.example.com\"\nserial = 7\n\
         [[dns.domain]]\nname = \"stored.example\"\nprimary = \"ns1.example.net\"\n[[dns.records]]\nfile = \"names.txt\"\n",
    );
    for (name, rest) in names {
        write!(text, "[[dns.name]]\nname = \"{name}\"\n{rest}").unwrap();
    }
    text
}

fn records() -> String {
    let mut text = String::from(
        "one.stored.example 60 A 10.1.0.1\nalias.stored.example 60 CNAME one.stored.example\n\
         texts.stored.example 60 TXT \"a\"\ntexts.stored.example 60 TXT \"bb\" \"cc\"\n",
    );
    for number in 0..50 {
        writeln!(text, "host-{number}.stored.example 300 AAAA fd00:1::{number}").unwrap();
        writeln!(text, "large.stored.example 300 AAAA fd00:1::{number}").unwrap();
    }
    for number in 0..5 {
        writeln!(text, "several.stored.example 5 A 10.1.1.{number}").unwrap();
    }
    text
}

fn wire(name: &str) -> Vec<u8> {
    name.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).chain([0]).collect()
}

/// Numbers by chance, the same in each run (SplitMix64).
struct Dice(u64);

impl Dice {
    fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, end: usize) -> usize {
        (self.number() % end as u64) as usize
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())].clone()
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.number() as u8).collect()
    }
}

fn name(dice: &mut Dice, world: &World) -> Vec<u8> {
    let absent = ["absent.example.com", "www.stored.example", "other.example.org", "com", "a.www.example.com"];
    let mut name = match dice.below(20) {
        0 => wire(dice.of(&absent)),
        1 => wire(&format!("{}.example.com", dice.below(1_000))),
        2 if dice.one_in(8) => vec![0],
        _ => wire(&dice.of(&world.known)),
    };
    if dice.one_in(2) {
        let upper = dice.number();
        for (at, byte) in name.iter_mut().enumerate() {
            if upper >> (at % 64) & 1 == 1 {
                *byte = byte.to_ascii_uppercase();
            }
        }
    }
    name
}

fn option(code: u16, data: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
}

fn options(dice: &mut Dice, world: &World, client: IpAddr) -> Vec<u8> {
    let known = world.cookies.get(&client).cloned();
    let mut options = match dice.below(10) {
        0..4 => Vec::new(),
        4 => option(10, &dice.bytes(8)),
        5 => option(10, &known.unwrap_or_else(|| dice.bytes(24))),
        6 => {
            // One of ours with a byte that is none.
            let mut cookie = known.unwrap_or_else(|| dice.bytes(24));
            let at = dice.below(cookie.len());
            cookie[at] ^= 1 << dice.below(8);
            option(10, &cookie)
        }
        7 if dice.one_in(3) => {
            let length = dice.below(45);
            option(10, &dice.bytes(length))
        }
        8 => option(65_001, &[9; 5]),
        _ if dice.one_in(4) => vec![0, 8, 0xff, 0xff],
        _ if dice.one_in(4) => option(3, &[]),
        _ => option(65_001, &[]),
    };
    for _ in 0..dice.below(4).saturating_sub(1) {
        let length = dice.below(12);
        options.extend(option(65_002, &dice.bytes(length)));
    }
    options
}

fn query(dice: &mut Dice, world: &World, client: IpAddr) -> Vec<u8> {
    let kinds = [1_u16, 1, 1, 1, 1, 28, 28, 28, 5, 15, 16, 33, 6, 255, 65, 251, 252, 2];
    let kind = if dice.one_in(20) { dice.number() as u16 } else { dice.of(&kinds) };
    let class = if dice.one_in(25) { dice.of(&[0_u16, 3, 254, 255]) } else { 1 };
    let mut flags = dice.number() as u16 & 0x01f0;
    let mut counts = [1_u16, 0, 0, 0];
    if dice.one_in(30) {
        flags |= dice.of(&[0x8000, 0x0800, 0x2800, 0x0200, 0x0400, 0x000f]);
    }
    let mut message = [name(dice, world), kind.to_be_bytes().into(), class.to_be_bytes().into()].concat();
    for _ in 0..if dice.one_in(3) { 0 } else { 1 + usize::from(dice.one_in(60)) } {
        counts[3] += 1;
        let size = if dice.one_in(3) { dice.number() as u16 } else { dice.of(&[512, 1232, 1400, 4096]) };
        let version = if dice.one_in(40) { 1_u32 << 16 } else { 0 };
        let extended = version | if dice.one_in(3) { 0x8000 } else { 0 } | dice.of(&[0, 0, 0x0100_0000, 0x7fff]);
        let options = options(dice, world, client);
        message.extend([0, 0, 41]);
        message.extend(size.to_be_bytes());
        message.extend(extended.to_be_bytes());
        message.extend((options.len() as u16).to_be_bytes());
        message.extend(options);
    }
    if dice.one_in(50) {
        counts[dice.below(4)] ^= 1;
    }
    if dice.one_in(60) {
        let length = 1 + dice.below(20);
        message.extend(dice.bytes(length));
    }
    if dice.one_in(60) {
        message.truncate(dice.below(message.len() + 1));
    }
    if dice.one_in(60) && !message.is_empty() {
        let at = dice.below(message.len());
        message[at] = dice.number() as u8;
    }
    let header = [dice.number() as u16, flags].into_iter().chain(counts).flat_map(u16::to_be_bytes);
    header.collect::<Vec<u8>>().into_iter().chain(message).collect()
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

/// The question of a query that the path passed as a miss.
fn question(query: &[u8]) -> Option<Question> {
    let end = 12 + query.get(12..)?.iter().position(|byte| *byte == 0)? + 1;
    let wire = query.get(12..end)?.to_ascii_lowercase().into();
    let [a, b, c, d] = *query.get(end..end + 4)?.first_chunk()?;
    Some(Question { wire, kind: u32::from_be_bytes([c, d, a, b]) })
}

#[test]
fn kernel_and_agent_answer_alike() {
    let mut world = World::new("alike");
    let mut dice = Dice(1);
    let (mut asked, mut whys) = (0, BTreeMap::<Why, usize>::new());
    for _ in 0..70_000 {
        let is_v4 = dice.one_in(2);
        let number = dice.below(200) as u16;
        let client: IpAddr = if is_v4 {
            [198, 51, (number / 100) as u8, number as u8].into()
        } else {
            [0x2001, 0xdb8, number % 7, number, 0, 0, 0, 7].into()
        };
        let port = if dice.one_in(200) { dice.of(&[0, 53]) } else { 1_024 + dice.below(60_000) as u16 };
        let client = SocketAddr::new(client, port);
        let dns: SocketAddr = if is_v4 { "192.0.2.53:53" } else { "[2001:db8::53]:53" }.parse().unwrap();
        let query = query(&mut dice, &world, client.ip());
        let sent = frame(client, dns, &query);
        let [head, tail] = dice.of(&[[192, 2_048], [0, 2_048], [1_400, 0]]);
        let mut buffer = Buffer::new(&sent, 2, head, tail);
        let verdict = steer(&mut buffer, &world.tables);
        asked += 1;
        match verdict {
            Verdict::Transmit(why) => {
                *whys.entry(why).or_default() += 1;
                let reply = message(buffer.bytes(), client, dns);
                let own = world.respond(&query, client.ip(), 0).unwrap();
                let Some(response) = world.same(&query, client.ip(), &reply) else {
                    panic!("{why:?} {client}\nquery  {query:x?}\nkernel {reply:x?}\nagent  {own:x?}");
                };
                let parsed = Message::from_vec(&reply).unwrap();
                assert_eq!(parsed.metadata.truncation, response.is_truncated);
                // The cookie comes last.
                if let Some((_, cookie)) = reply
                    .split_last_chunk::<24>()
                    .filter(|_| parsed.edns.is_some_and(|edns| !edns.options().options.is_empty()))
                {
                    world.cookies.insert(client.ip(), cookie.to_vec());
                }
            }
            Verdict::Pass(why) => {
                *whys.entry(why).or_default() += 1;
                assert_eq!(buffer.bytes(), sent, "{why:?}");
                if why == Why::DnsMiss {
                    let wanted = question(&query).and_then(|question| world.desired.answers.hash(&question));
                    assert!(wanted.and_then(|hash| world.desired.answers.get(hash)).is_none(), "a miss: {query:x?}");
                }
                if let Some(response) = world.respond(&query, client.ip(), 0) {
                    Message::from_vec(&response.bytes).unwrap();
                    assert!(response.bytes.len() <= 1_232);
                }
            }
            other => panic!("{other:?}: {query:x?}"),
        }
    }
    let hits: usize =
        [Why::Answered, Why::AnsweredNegative, Why::DnsTruncated].iter().filter_map(|why| whys.get(why)).sum();
    assert!(hits * 2 >= asked, "{hits} of {asked}: {whys:?}");
    for why in [
        Why::Answered,
        Why::AnsweredNegative,
        Why::DnsTruncated,
        Why::DnsMiss,
        Why::DnsOption,
        Why::DnsVersion,
        Why::DnsCounts,
        Why::DnsTrailing,
        Why::DnsOpcode,
        Why::DnsResponse,
        Why::DnsPort,
        Why::DnsName,
    ] {
        assert!(whys.contains_key(&why), "{why:?} never came: {whys:?}");
    }
}

#[test]
fn what_is_said_of_a_name_is_what_the_kernel_sends_in_turn() {
    let world = World::new("turns");
    let (client, dns): (SocketAddr, SocketAddr) =
        ("198.51.100.7:4000".parse().unwrap(), "192.0.2.53:53".parse().unwrap());
    // Live addresses in the order of the config, each in its turn first, and weights in their sequence.
    for (name, expected) in [
        ("www.example.com", &[vec![1, 2, 4], vec![2, 4, 1], vec![4, 1, 2]][..]),
        ("weighted.example.com", &[1, 1, 2, 1, 1, 2, 1].map(|last| vec![last])),
        ("failover.example.com", &[vec![1, 2], vec![2, 1]]),
    ] {
        let query = [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0][..], &wire(name), &[0, 1, 0, 1]].concat();
        let ask = || {
            let mut buffer = Buffer::new(&frame(client, dns, &query), 2, 192, 2_048);
            assert_eq!(steer(&mut buffer, &world.tables), Verdict::Transmit(Why::Answered));
            let reply = message(buffer.bytes(), client, dns);
            reply[query.len()..].chunks(16).map(|record| record[15]).collect::<Vec<_>>()
        };
        let got: Vec<_> = (0..expected.len()).map(|_| ask()).collect();
        let turns = (0..expected.len()).map(|turn| [&expected[turn..], &expected[..turn]].concat());
        assert!(turns.into_iter().any(|turned| turned == got), "{name}: {got:?}");
        assert_eq!((0..expected.len()).map(|_| ask()).collect::<Vec<_>>(), got, "and so on");
    }
}
