//! Every way out of the path, by example: verdict, bytes, and the exact set of counters that moved.

use crate::support::{
    BACKEND_MAC, BROADCAST, DRIVER, LAN, LAN_MAC, Outcome, ROUTER_MAC, Room, SIDES, Side, V4, V6, WAN, WAN_MAC,
    datagram::{Body, Datagram, Extension},
    frames::{Arp, FlowFrame, Neighbor, Transport, other, padded},
    messages::{A, AAAA, Edns, Name, Question, question_frame, reply_frame},
    outcome,
    tables::{Answer, Build, FIRST, NOW, TTL, dsr, empty, mac_of, nat, route_via, tunnel},
};
use etherparse::{IcmpEchoHeader, Icmpv6Type};
use lb_common::{
    host::HostTables,
    tables::{
        Backend, ECHO, FRAGMENT_SECONDS, Fragment, FragmentKey, IN_USE, ON_LINK, Route, Scratch, ScratchWork,
        Tables as _, Traffic, address_words,
        answers::{CACHED, COOKIES, HEAD_WORDS, LEASED, LIMITED, Lapse, NEGATIVE, Pick},
    },
    verdict::{REASONS, Verdict, Why},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
};

/// A frame, the tables it meets, and all that comes of it.
pub struct Row {
    pub name: String,
    tables: HostTables,
    pub frame: Vec<u8>,
    interface: u32,
    room: Room,
    pub verdict: Verdict,
    /// The frame afterwards; `None` if no byte may change.
    sent: Option<Vec<u8>>,
    /// The backend that it was counted for.
    through: Option<u32>,
}

impl Row {
    /// A frame that the path must leave alone.
    fn passes(why: Why, name: impl Into<String>, frame: Vec<u8>, tables: HostTables) -> Self {
        let (name, verdict) = (name.into(), Verdict::Pass(why));
        Self { name, tables, frame, interface: WAN, room: DRIVER, verdict, sent: None, through: None }
    }

    /// A frame that is another one afterwards.
    fn becomes(sent: Vec<u8>, verdict: Verdict, name: impl Into<String>, frame: Vec<u8>, tables: HostTables) -> Self {
        Self { verdict, sent: Some(sent), ..Self::passes(verdict.why(), name, frame, tables) }
    }

    fn on(self, interface: u32) -> Self {
        Self { interface, ..self }
    }

    fn through(self, backend: u32) -> Self {
        Self { through: Some(backend), ..self }
    }

    fn without_room(self) -> Self {
        Self { room: Room { head: 0, tail: 0 }, ..self }
    }

    fn expected(&self) -> Outcome {
        let frame = self.sent.as_ref().unwrap_or(&self.frame).clone();
        let bytes = self.frame.len() as u64;
        Outcome {
            verdict: self.verdict,
            frame,
            counts: BTreeMap::from([(self.verdict.why(), 1)]),
            traffic: self.through.map(|id| (id, Traffic { packets: 1, bytes })).into_iter().collect(),
        }
    }
}

#[test]
fn every_way_out_leaves_the_expected_frame_and_moves_only_its_counters() {
    let mut wrong = Vec::new();
    for row in rows() {
        let expected = row.expected();
        let outcome = outcome(&row.frame, row.interface, row.room, &row.tables);
        if outcome != expected {
            wrong.push(format!("{}\n  asked {}\n{}{}", row.name, hex(&row.frame), shown(&expected), shown(&outcome)));
        }
    }
    assert!(wrong.is_empty(), "frame in, what should come of it, what came of it:\n{}", wrong.join("\n"));
}

fn shown(outcome: &Outcome) -> String {
    let Outcome { verdict, frame, counts, traffic } = outcome;
    format!("  {verdict:?} {counts:?} {traffic:?}\n        {}\n", hex(frame))
}

#[test]
fn every_way_out_has_a_row() {
    let shown: BTreeSet<Why> = rows().iter().map(|row| row.verdict.why()).collect();
    // Of `DnsReplaced` there is none: tables in memory don't change while a packet is on its way.
    let missing: Vec<_> = Why::ALL.iter().filter(|why| !shown.contains(why) && **why != Why::DnsReplaced).collect();
    assert!(missing.is_empty(), "no row shows {missing:?}");
}

#[test]
fn rows_have_names_of_their_own() {
    let mut names = BTreeSet::new();
    for row in rows() {
        assert!(names.insert(row.name.clone()), "two rows are named {:?}", row.name);
    }
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

/// Only a table that lends its scratch twice can bring this about, so it is no row.
#[test]
fn a_scratch_that_is_lent_already_is_a_contradiction() {
    let tables = with_answer();
    let frame = question_frame(V4.client(), V4.dns(), question(A).bytes()).bytes();
    struct Within<'a>(&'a [u8], &'a HostTables);
    impl ScratchWork for Within<'_> {
        type Output = Outcome;
        fn run(self, _: &mut Scratch) -> Outcome {
            outcome(self.0, WAN, DRIVER, self.1)
        }
    }
    let outcome = tables.with_scratch(Within(&frame, &tables)).unwrap();
    assert_eq!((outcome.verdict, outcome.frame), (Verdict::Pass(Why::Inconsistent), frame));
}

pub fn rows() -> Vec<Row> {
    [
        forwarded_dsr(),
        forwarded_nat(),
        returned(),
        hops(),
        not_forwarded(),
        unreadable(),
        tunnels(),
        fragments(),
        errors(),
        too_long(),
        echoes(),
        arp(),
        neighbors(),
        dns(),
        dns_left_to_the_agent(),
        contradictions(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Udp];

/// Both families with both transports.
fn kinds() -> impl Iterator<Item = (Side, Transport)> {
    SIDES.into_iter().flat_map(|side| TRANSPORTS.map(|transport| (side, transport)))
}

fn title(side: &Side, transport: Transport, what: &str) -> String {
    let family = if side.client.is_ipv4() { "IPv4" } else { "IPv6" };
    format!("{transport:?} over {family} {what}")
}

/// A name for the way out toward a backend.
fn leaving(why: Why, interface: u32) -> Verdict {
    if interface == WAN { Verdict::Transmit(why) } else { Verdict::Redirect(why, interface) }
}

fn forwarded_dsr() -> Vec<Row> {
    let mut rows = Vec::new();
    for (side, transport) in kinds() {
        for interface in [WAN, LAN] {
            let protocol = transport.number();
            let tables = empty().with_service(side.service(), protocol, &[dsr(&side, protocol, interface)]);
            let asked = FlowFrame::to_service(&side, transport);
            let sent = FlowFrame { receiver: BACKEND_MAC, sender: mac_of(interface), ..asked.clone() };
            assert_eq!(asked.bytes()[12..], sent.bytes()[12..], "only the MAC addresses differ");
            let name = title(&side, transport, &format!("to a DSR backend on interface {interface}"));
            let verdict = leaving(Why::ForwardedDsr, interface);
            rows.push(Row::becomes(sent.bytes(), verdict, name, asked.bytes(), tables.clone()).through(FIRST));

            let last_hop = |frame: &FlowFrame| FlowFrame { hops: 1, ..frame.clone() }.bytes();
            let name = title(&side, transport, &format!("with its last hop to a DSR backend on interface {interface}"));
            rows.push(Row::becomes(last_hop(&sent), verdict, name, last_hop(&asked), tables).through(FIRST));
        }
    }

    let tables = empty().with_service(V4.service(), 17, &[dsr(&V4, 17, LAN)]);
    let asked = FlowFrame { payload: Vec::new(), ..FlowFrame::to_service(&V4, Transport::Udp) };
    let sent = FlowFrame { receiver: BACKEND_MAC, sender: LAN_MAC, ..asked.clone() };
    let verdict = Verdict::Redirect(Why::ForwardedDsr, LAN);
    let name = "the shortest UDP packet, in a frame without padding";
    rows.push(Row::becomes(sent.bytes(), verdict, name, asked.bytes(), tables.clone()).through(FIRST));
    let name = "the shortest UDP packet, padded to the shortest frame";
    rows.push(Row::becomes(padded(sent.bytes(), 60), verdict, name, padded(asked.bytes(), 60), tables).through(FIRST));
    rows
}

fn nat_tables(side: &Side, interface: u32) -> HostTables {
    [6, 17].iter().fold(empty(), |tables, protocol| {
        tables.with_service(side.service(), *protocol, &[nat(side, *protocol, interface)])
    })
}

/// The id of the NAT backend of a protocol in [`nat_tables`].
fn nat_id(transport: Transport) -> u32 {
    if transport == Transport::Tcp { FIRST } else { FIRST + 1 }
}

/// A frame to the service as the NAT backend gets it.
fn rewritten(asked: &FlowFrame, side: &Side, interface: u32) -> FlowFrame {
    FlowFrame {
        receiver: BACKEND_MAC,
        sender: mac_of(interface),
        to: side.backend(),
        hops: asked.hops - 1,
        ..asked.clone()
    }
}

fn forwarded_nat() -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: String, side: &Side, asked: &FlowFrame, sent: &FlowFrame, interface| {
        let verdict = leaving(Why::ForwardedNat, interface);
        let row = Row::becomes(sent.bytes(), verdict, name, asked.bytes(), nat_tables(side, interface));
        rows.push(row.through(nat_id(asked.transport)));
    };
    for (side, transport) in kinds() {
        for interface in [WAN, LAN] {
            let asked = FlowFrame::to_service(&side, transport);
            let sent = rewritten(&asked, &side, interface);
            let name = title(&side, transport, &format!("to a NAT backend on interface {interface}"));
            row(name, &side, &asked, &sent, interface);
        }
        let asked = FlowFrame { hops: 2, ..FlowFrame::to_service(&side, transport) };
        let sent = rewritten(&asked, &side, LAN);
        row(title(&side, transport, "with its last hop but one to a NAT backend"), &side, &asked, &sent, LAN);

        let sent = rewritten(&asked, &side, LAN).with_sum_of_ones();
        let zero = if transport == Transport::Tcp { 0 } else { 0xffff };
        assert_eq!(sent.checksum(), zero, "UDP has another way to write a checksum of zero");
        let asked = FlowFrame { payload: sent.payload.clone(), ..asked };
        row(title(&side, transport, "whose checksum becomes zero for a NAT backend"), &side, &asked, &sent, LAN);

        let asked = FlowFrame::to_service(&side, transport).with_sum_of_ones();
        let sent = rewritten(&asked, &side, LAN);
        row(title(&side, transport, "whose checksum was zero to a NAT backend"), &side, &asked, &sent, LAN);
    }
    let asked = FlowFrame::to_service(&V4, Transport::UdpWithoutChecksum);
    let sent = rewritten(&asked, &V4, LAN);
    row("UDP without a checksum stays without one for a NAT backend".into(), &V4, &asked, &sent, LAN);

    // The header's own checksum can be made zero by the identification, which nothing else depends on.
    let header = |frame: &FlowFrame| u16::from_be_bytes([frame.bytes()[24], frame.bytes()[25]]);
    let asked = FlowFrame { mark: 0, ..FlowFrame::to_service(&V4, Transport::Tcp) };
    let mark = header(&rewritten(&asked, &V4, LAN));
    let asked = FlowFrame { mark, ..asked };
    let sent = rewritten(&asked, &V4, LAN);
    assert_eq!(header(&sent), 0);
    row("an IPv4 header whose checksum becomes zero".into(), &V4, &asked, &sent, LAN);
    let asked = FlowFrame { mark: 0, ..asked };
    let asked = FlowFrame { mark: header(&asked), ..asked };
    assert_eq!(header(&asked), 0);
    row("an IPv4 header whose checksum was zero".into(), &V4, &asked, &rewritten(&asked, &V4, LAN), LAN);
    rows
}

/// A reply as the NAT backend sends it.
fn replied(side: &Side, transport: Transport) -> FlowFrame {
    FlowFrame { receiver: LAN_MAC, sender: BACKEND_MAC, ..FlowFrame::asked(side.backend(), side.client(), transport) }
}

/// A reply as the client gets it.
fn restored(reply: &FlowFrame, side: &Side, interface: u32) -> FlowFrame {
    FlowFrame {
        receiver: ROUTER_MAC,
        sender: mac_of(interface),
        from: side.service(),
        hops: reply.hops - 1,
        ..reply.clone()
    }
}

fn returned() -> Vec<Row> {
    let mut rows = Vec::new();
    for (side, transport) in kinds() {
        let reply = replied(&side, transport);
        let tables = |route| nat_tables(&side, LAN).with_route(side.client, route);
        for interface in [LAN, WAN] {
            let sent = restored(&reply, &side, interface);
            let verdict = match interface {
                LAN => Verdict::Transmit(Why::Returned),
                _ => Verdict::Redirect(Why::Returned, WAN),
            };
            let name = title(&side, transport, &format!("back to the client by interface {interface}"));
            rows.push(Row::becomes(sent.bytes(), verdict, name, reply.bytes(), tables(route_via(interface))).on(LAN));

            let sent = sent.with_sum_of_ones();
            let reply = FlowFrame { payload: sent.payload.clone(), ..reply.clone() };
            let name = title(&side, transport, &format!("whose checksum becomes zero by interface {interface}"));
            rows.push(Row::becomes(sent.bytes(), verdict, name, reply.bytes(), tables(route_via(interface))).on(LAN));
        }
        // The kernel takes the hop when it forwards, and puts its own MAC addresses on.
        for hops in [57, 1] {
            let reply = FlowFrame { hops, ..reply.clone() };
            let sent = FlowFrame { from: side.service(), ..reply.clone() };
            let verdict = Verdict::Pass(Why::ReturnedByStack);
            let name = title(&side, transport, &format!("with {hops} hops left to the kernel to send to the client"));
            rows.push(Row::becomes(sent.bytes(), verdict, name, reply.bytes(), tables(Route::Stack)).on(LAN));
        }
        let name = title(&side, transport, "from a NAT backend to this machine, such as the answer to a probe");
        let to_host = FlowFrame { to: side.host(), ..reply.clone() };
        rows.push(Row::passes(Why::ReturnNotForwarded, name, to_host.bytes(), tables(route_via(WAN))).on(LAN));
    }
    let reply = replied(&V4, Transport::UdpWithoutChecksum);
    for (route, verdict, sent) in [
        (route_via(WAN), Verdict::Redirect(Why::Returned, WAN), restored(&reply, &V4, WAN)),
        (Route::Stack, Verdict::Pass(Why::ReturnedByStack), FlowFrame { from: V4.service(), ..reply.clone() }),
    ] {
        let tables = nat_tables(&V4, LAN).with_route(V4.client, route);
        let name = format!("UDP without a checksum stays without one on its way back: {verdict:?}");
        rows.push(Row::becomes(sent.bytes(), verdict, name, reply.bytes(), tables).on(LAN));
    }
    // A backend may be a client of another service, and then it is its address that is known by.
    let other = SocketAddr::new(V4.service, 80);
    let tables = nat_tables(&V4, LAN).with_service(other, 6, &[dsr(&V4, 6, WAN)]).with_route(V4.service, Route::Stack);
    let asked = FlowFrame { to: other, ..replied(&V4, Transport::Tcp) };
    let sent = FlowFrame { receiver: BACKEND_MAC, sender: WAN_MAC, ..asked.clone() };
    let verdict = Verdict::Redirect(Why::ForwardedDsr, WAN);
    let name = "a NAT backend that is a client of another service";
    rows.push(Row::becomes(sent.bytes(), verdict, name, asked.bytes(), tables).on(LAN).through(FIRST + 2));
    rows
}

fn hops() -> Vec<Row> {
    let mut rows = Vec::new();
    for (side, transport) in kinds() {
        for hops in [0, 1] {
            let asked = FlowFrame { hops, ..FlowFrame::to_service(&side, transport) };
            let name = title(&side, transport, &format!("to a NAT backend with {hops} hops"));
            rows.push(Row::passes(Why::HopsExceeded, name, asked.bytes(), nat_tables(&side, LAN)));
            let reply = FlowFrame { hops, ..replied(&side, transport) };
            let tables = nat_tables(&side, LAN).with_route(side.client, route_via(WAN));
            let name = title(&side, transport, &format!("back from a NAT backend with {hops} hops"));
            rows.push(Row::passes(Why::HopsExceeded, name, reply.bytes(), tables).on(LAN));
        }
        let reply = FlowFrame { hops: 0, ..replied(&side, transport) };
        let tables = nat_tables(&side, LAN).with_route(side.client, Route::Stack);
        let name = title(&side, transport, "back from a NAT backend by the kernel without any hop");
        rows.push(Row::passes(Why::HopsExceeded, name, reply.bytes(), tables).on(LAN));
    }
    rows
}

fn not_forwarded() -> Vec<Row> {
    let mut rows = Vec::new();
    for (side, transport) in kinds() {
        let protocol = transport.number();
        let asked = FlowFrame::to_service(&side, transport);
        let tables = empty().with_service(side.service(), protocol, &[]);
        let name = title(&side, transport, "to a service without a table");
        rows.push(Row::passes(Why::NoBackend, name, asked.bytes(), tables));

        let service = || empty().with_service(side.service(), protocol, &[dsr(&side, protocol, LAN)]);
        let to_host = FlowFrame { to: side.host(), ..asked.clone() };
        let name = title(&side, transport, "to this machine");
        rows.push(Row::passes(Why::NoService, name, to_host.bytes(), service()));
        let name = title(&side, transport, "to this machine, with replies to look for");
        rows.push(Row::passes(Why::NoService, name, to_host.bytes(), nat_tables(&side, LAN)));

        let mut other_port = asked.clone();
        other_port.to.set_port(444);
        let name = title(&side, transport, "to another port of a service's address");
        rows.push(Row::passes(Why::NoService, name, other_port.bytes(), service()));

        let other_protocol = if transport == Transport::Tcp { Transport::Udp } else { Transport::Tcp };
        let asked = FlowFrame { transport: other_protocol, ..asked };
        let name = title(&side, other_protocol, "to a service of the other transport");
        rows.push(Row::passes(Why::NoService, name, asked.bytes(), service()));

        let mut other_port = replied(&side, transport);
        other_port.from.set_port(22);
        let tables = nat_tables(&side, LAN).with_route(side.client, route_via(WAN));
        let name = title(&side, transport, "from another port of a NAT backend's address");
        rows.push(Row::passes(Why::NoService, name, other_port.bytes(), tables.clone()).on(LAN));

        // The table of returns is not asked while the settings say that nobody is behind NAT.
        let mut tables = tables;
        tables.settings.as_mut().unwrap().features = 0;
        let name = title(&side, transport, "from a NAT backend, with returns turned off");
        rows.push(Row::passes(Why::NoService, name, replied(&side, transport).bytes(), tables).on(LAN));
    }
    rows
}

/// What the path can't read or doesn't want to: all tables that could take it are there.
fn unreadable() -> Vec<Row> {
    let tables = || {
        let tables = [(V4, 6), (V4, 17), (V6, 6), (V6, 17)].iter().fold(empty(), |tables, (side, protocol)| {
            tables.with_service(side.service(), *protocol, &[dsr(side, *protocol, LAN)])
        });
        tables.with_address(V4.service, ON_LINK | ECHO).with_address(V6.service, ON_LINK | ECHO)
    };
    let mut rows = Vec::new();
    let mut row = |why, name: &str, frame| rows.push(Row::passes(why, name, frame, tables()));

    let tcp4 = FlowFrame::to_service(&V4, Transport::Tcp).bytes();
    let tcp6 = FlowFrame::to_service(&V6, Transport::Tcp).bytes();
    let with = |frame: &[u8], at: usize, bytes: &[u8]| {
        let mut frame = frame.to_vec();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };

    row(Why::Truncated, "no bytes at all", Vec::new());
    row(Why::Truncated, "one byte less than an Ethernet header", tcp4[..13].to_vec());
    row(Why::Truncated, "IPv4 without its last port", tcp4[..37].to_vec());
    row(Why::Truncated, "IPv4 without the last byte that its header promises", tcp4[..tcp4.len() - 1].to_vec());
    row(Why::Truncated, "IPv6 without its last port", tcp6[..57].to_vec());
    row(Why::Truncated, "IPv6 without the last byte that its header promises", tcp6[..tcp6.len() - 1].to_vec());
    row(Why::Truncated, "IPv4 too short for a TCP header", with(&tcp4, 16, &39_u16.to_be_bytes()));
    row(Why::Truncated, "IPv6 too short for a TCP header", with(&tcp6, 18, &19_u16.to_be_bytes()));
    row(Why::Truncated, "IPv6 of no length, a jumbogram without its option", with(&tcp6, 18, &[0, 0]));
    row(Why::Truncated, "IPv6 of the greatest length", with(&tcp6, 18, &[0xff, 0xff]));
    let udp4 = FlowFrame::to_service(&V4, Transport::Udp).bytes();
    let udp6 = FlowFrame::to_service(&V6, Transport::Udp).bytes();
    row(Why::Truncated, "IPv4 too short for a UDP header", with(&udp4, 16, &27_u16.to_be_bytes()));
    row(Why::Truncated, "IPv4 of a length less than its own header", with(&udp4, 16, &[0, 0]));
    row(Why::Truncated, "IPv6 too short for a UDP header", with(&udp6, 18, &7_u16.to_be_bytes()));
    let arp = Arp::request(V4.client, V4.service).bytes();
    row(Why::Truncated, "ARP without its last byte", arp[..41].to_vec());

    for (name, ethertype) in [
        ("LLDP", 0x88cc_u16),
        ("a length instead of an EtherType", 0x0040),
        ("a session of PPPoE", 0x8864),
        ("a tag of a third kind", 0x9100),
    ] {
        row(Why::NotIp, name, with(&tcp4, 12, &ethertype.to_be_bytes()));
    }
    row(Why::NotIp, "an EtherType of nobody", with(&tcp4[..22], 12, &[0x12, 0x34]));
    let tags = vec![[0x88, 0xa8, 0, 1], [0x81, 0, 0, 2], [0x81, 0, 0, 3]];
    let three = Datagram { tags, ..Datagram::to_service(&V4, Transport::Tcp) };
    row(Why::NotIp, "a packet to the service behind three VLAN tags", three.bytes());

    row(Why::Ipv4Header, "an IPv4 header shorter than any is", with(&tcp4, 14, &[0x44]));
    row(Why::Ipv4Header, "another version behind the EtherType of IPv4", with(&tcp4, 14, &[0x65]));
    row(Why::NotIp, "another version behind the EtherType of IPv6", with(&tcp6, 14, &[0x45]));
    row(Why::NotIp, "no version behind the EtherType of IPv6", with(&udp6, 14, &[0x00]));

    let extended =
        |extensions: &[Extension]| Datagram::to_service(&V6, Transport::Tcp).with_extensions(extensions).bytes();
    let five = vec![Extension::destination_options(1); 5];
    row(Why::Ipv6Extensions, "five extension headers", extended(&five));
    row(Why::Ipv6Extensions, "a routing header that is not at its end", extended(&[Extension::routing(1)]));

    for (side, name, protocol) in [
        (V4, "GRE", 47),
        (V4, "SCTP over IPv4", 132),
        (V4, "ICMPv6 over IPv4", 58),
        (V6, "ICMP over IPv6", 1),
        (V6, "SCTP over IPv6", 132),
        (V6, "an encrypted IPv6 packet", 50),
        (V6, "an authenticated IPv6 packet", 51),
        (V6, "an IPv6 packet without a payload protocol", 59),
    ] {
        row(Why::OtherProtocol, name, other(&side, protocol));
    }
    for (side, name, kind) in [
        (V4, "a timestamp request", 13),
        (V4, "an echo reply", 0),
        (V4, "an error without what it is about", 3),
        (V6, "an echo reply over IPv6", 129),
        (V6, "an error without what it is about over IPv6", 1),
    ] {
        let body = Body::Icmp { kind, code: 0, rest: [0; 4], payload: vec![0; 8] };
        row(Why::IcmpNotOurs, name, Datagram::asked(side.client, side.service, body).bytes());
    }
    rows
}

/// All four mixes of families.
fn tunnels() -> Vec<Row> {
    let mut rows = Vec::new();
    for (inner, outer) in [(V4, V4), (V4, V6), (V6, V4), (V6, V6)] {
        for interface in [WAN, LAN] {
            let asked = Datagram::to_service(&inner, Transport::Tcp);
            let tables = empty().with_service(inner.service(), 6, &[tunnel(&inner, &outer, 6, interface)]);
            let sent = crate::tunnel::wrapped(&asked, outer.tunnel, outer.backend, interface);
            let name = format!("to {} through a tunnel to {} on interface {interface}", inner.service, outer.backend);
            let verdict = leaving(Why::ForwardedTunnel, interface);
            rows.push(Row::becomes(sent, verdict, name, asked.bytes(), tables).through(FIRST));
        }
    }
    let asked = Datagram::to_service(&V4, Transport::Tcp);
    let tables = empty().with_service(V4.service(), 6, &[tunnel(&V4, &V6, 6, LAN)]);
    let name = "to a tunnel in a frame that can't grow";
    rows.push(Row::passes(Why::NoRoom, name, asked.bytes(), tables).without_room());
    rows
}

/// The rest of a datagram whose first fragment has been seen.
fn fragments() -> Vec<Row> {
    const IDENTIFICATION: u32 = 0xcafe;
    let mut rows = Vec::new();
    for side in SIDES {
        let family = if side.client.is_ipv4() { "IPv4" } else { "IPv6" };
        let tail = if side.client.is_ipv4() { 17 << 32 | 4 << 40 } else { 6 << 40 } | u64::from(IDENTIFICATION);
        let remember = |tables: &HostTables, packet: &Datagram, fragment| {
            let key = FragmentKey { from: address_words(packet.from), to: address_words(packet.to), tail };
            tables.remember(&key, fragment);
        };
        let rest = |packet: &Datagram| packet.fragments(IDENTIFICATION, &[8]).remove(1);
        let asked = Datagram::to_service(&side, Transport::Udp);
        let seen = Fragment { backend: FIRST + 1, back: 0, seen: NOW };

        let tables = nat_tables(&side, LAN);
        remember(&tables, &asked, seen);
        let sent = rest(&asked.translated(side.backend(), LAN));
        let verdict = leaving(Why::FragmentForwarded, LAN);
        let name = format!("the rest of a datagram over {family}");
        rows.push(Row::becomes(sent, verdict, name, rest(&asked), tables).through(FIRST + 1));

        let reply = Datagram::reply(&side, Transport::Udp);
        let tables = nat_tables(&side, LAN).with_route(side.client, route_via(WAN));
        remember(&tables, &reply, Fragment { back: 1, ..seen });
        let sent = rest(&reply.restored(side.service(), WAN));
        let verdict = Verdict::Redirect(Why::Returned, WAN);
        let name = format!("the rest of a reply over {family}");
        rows.push(Row::becomes(sent, verdict, name, rest(&reply), tables).on(LAN));

        let name = format!("the rest of a datagram whose first fragment was not seen over {family}");
        rows.push(Row::passes(Why::FragmentUnknown, name, rest(&asked), nat_tables(&side, LAN)));
        let tables = nat_tables(&side, LAN);
        remember(&tables, &asked, Fragment { seen: NOW - FRAGMENT_SECONDS - 1, ..seen });
        let name = format!("the rest of a datagram whose first fragment was seen long ago over {family}");
        rows.push(Row::passes(Why::FragmentUnknown, name, rest(&asked), tables));
    }
    rows
}

/// An ICMP error "destination unreachable" about a packet, which it repeats as a whole.
fn unreachable(from: IpAddr, about: &Datagram) -> Datagram {
    Datagram::error(from, about, if from.is_ipv4() { 3 } else { 1 }, 1, usize::MAX)
}

/// ICMP errors, in both directions: a router's about what a NAT backend sent, and the backend's own about what it was sent.
fn errors() -> Vec<Row> {
    let mut rows = Vec::new();
    for (side, transport) in kinds() {
        let reply = Datagram::reply(&side, transport);
        let error = unreachable(side.router, &reply.clone().with_source(side.service()));
        let sent = Datagram { hops: 56, ..unreachable(side.router, &reply) }.delivered(LAN);
        let verdict = leaving(Why::ErrorForwarded, LAN);
        let name = title(&side, transport, "that a NAT backend sent and a router has an error about");
        let row = Row::becomes(sent.bytes(), verdict, name, error.bytes(), nat_tables(&side, LAN));
        rows.push(row.through(nat_id(transport)));

        let asked = Datagram::to_service(&side, transport);
        let error = unreachable(side.backend, &asked.clone().with_destination(side.backend()));
        let sent = unreachable(side.service, &asked);
        let sent = Datagram { receiver: ROUTER_MAC, sender: WAN_MAC, hops: 56, ..sent };
        let tables = nat_tables(&side, LAN).with_route(side.client, route_via(WAN));
        let verdict = Verdict::Redirect(Why::ErrorReturned, WAN);
        let name = title(&side, transport, "that a NAT backend was sent and has an error about");
        rows.push(Row::becomes(sent.bytes(), verdict, name, error.bytes(), tables.clone()).on(LAN));

        let about = asked.with_destination(side.host());
        let name = title(&side, transport, "that this machine did not send and that has an error");
        rows.push(Row::passes(Why::IcmpNotOurs, name, unreachable(side.router, &about).bytes(), tables).on(LAN));
    }
    rows
}

/// Packets longer than what their backend can be sent.
fn too_long() -> Vec<Row> {
    let mut rows = Vec::new();
    for (side, transport) in kinds() {
        let protocol = transport.number();
        let tables = |mtu| {
            let backend = Backend { mtu, ..dsr(&side, protocol, LAN) };
            empty().with_service(side.service(), protocol, &[backend])
        };
        let asked = Datagram::to_service(&side, transport).with_payload(&[0x5a; 1_373]);
        let length = asked.packet().len() as u16;
        let sent = crate::too_long::told(&asked, length - 1);
        let verdict = Verdict::Transmit(Why::TooLongAnswered);
        let name = title(&side, transport, "a byte too long for its backend");
        rows.push(Row::becomes(sent.bytes(), verdict, name, asked.bytes(), tables(length - 1)));
        let name = title(&side, transport, "a byte too long for its backend in a frame that can't grow");
        rows.push(Row::passes(Why::NoRoom, name, asked.bytes(), tables(length - 1)).without_room());
        let verdict = leaving(Why::ForwardedDsr, LAN);
        let name = title(&side, transport, "as long as its backend takes");
        let sent = asked.delivered(LAN);
        rows.push(Row::becomes(sent.bytes(), verdict, name, asked.bytes(), tables(length)).through(FIRST));

        let about = asked.with_source(side.service()).with_destination(side.client());
        let error = unreachable(side.router, &about);
        let name = title(&side, transport, "with an error about it that is too long for its backend");
        rows.push(Row::passes(Why::TooLong, name, error.bytes(), tables(1_280)));
    }
    rows
}

/// Requests to a service's address.
fn echoes() -> Vec<Row> {
    let mut rows = Vec::new();
    for side in SIDES {
        let family = if side.client.is_ipv4() { "IPv4" } else { "IPv6" };
        let asked = crate::echo::request(&side, b"abcdefghijklm");
        let tables = |answers| empty().with_address(side.service, answers);
        let verdict = Verdict::Transmit(Why::EchoAnswered);
        let name = format!("an echo request over {family}");
        rows.push(Row::becomes(crate::echo::reply(&asked).bytes(), verdict, name, asked.bytes(), tables(ECHO)));
        let mut zeros = crate::echo::request(&side, &[0; 8]);
        if let Body::Icmp { rest, .. } = &mut zeros.body {
            *rest = [0; 4];
        }
        let name = format!("an echo request over {family} whose reply is nothing but zeros");
        rows.push(Row::becomes(crate::echo::reply(&zeros).bytes(), verdict, name, zeros.bytes(), tables(ECHO)));
        let name = format!("an echo request over {family} to an address that answers none");
        rows.push(Row::passes(Why::IcmpNotOurs, name, asked.bytes(), tables(ON_LINK)));
        let foreign = Datagram { to: side.host, ..asked };
        let name = format!("an echo request over {family} to this machine");
        rows.push(Row::passes(Why::IcmpNotOurs, name, foreign.bytes(), tables(ECHO)));
    }
    rows
}

fn arp() -> Vec<Row> {
    let tables = || empty().with_address(V4.service, ON_LINK).with_address(V6.service, ON_LINK);
    let mut rows = Vec::new();
    let asked = Arp::request(V4.client, V4.service);
    let reply = |asked: &Arp, interface| Arp {
        receiver: asked.sender_mac,
        sender: mac_of(interface),
        operation: 2,
        sender_mac: mac_of(interface),
        sender_address: asked.target_address,
        target_mac: asked.sender_mac,
        target_address: asked.sender_address,
        ..asked.clone()
    };
    let mut answered = |name: &str, asked: &Arp, interface, to| {
        let (frame, sent) = (padded(asked.bytes(), to), padded(reply(asked, interface).bytes(), to));
        let verdict = Verdict::Transmit(Why::ArpAnswered);
        rows.push(Row::becomes(sent, verdict, name, frame, tables()).on(interface));
    };
    answered("who has the service's address?", &asked, WAN, 42);
    answered("who has the service's address, on the other interface?", &asked, LAN, 42);
    answered("who has the service's address, in the shortest frame on a wire?", &asked, WAN, 60);
    let unicast = Arp { receiver: WAN_MAC, target_mac: WAN_MAC, ..asked.clone() };
    answered("does it still have the service's address?", &unicast, WAN, 42);
    let probe = Arp::request([0, 0, 0, 0].into(), V4.service);
    answered("a probe before the address is used (RFC 5227 section 2.1.1)", &probe, WAN, 42);
    let relayed = Arp { sender: [2, 2, 2, 2, 2, 2], ..asked.clone() };
    answered("a request that another machine's bridge sent", &relayed, WAN, 42);

    let mut ignored = |name: &str, asked: &Arp| {
        rows.push(Row::passes(Why::ArpNotOurs, name, asked.bytes(), tables()));
    };
    ignored("who has this machine's address?", &Arp::request(V4.client, V4.host));
    ignored("somebody announces the service's address", &Arp::request(V4.service, V4.service));
    let announcement = Arp { operation: 2, target_mac: BROADCAST, ..Arp::request(V4.service, V4.service) };
    ignored("somebody announces the service's address by a reply", &announcement);
    ignored("a reply that names the service's address", &Arp { operation: 2, ..asked.clone() });
    ignored("a question of reverse ARP", &Arp { operation: 3, ..asked.clone() });
    ignored("ARP of another hardware", &Arp { hardware: 6, ..asked.clone() });
    ignored("ARP of another protocol", &Arp { protocol: 0x86dd, ..asked.clone() });
    for (name, at) in [("ARP with longer MAC addresses", 18), ("ARP with longer addresses", 19)] {
        let mut frame = padded(asked.bytes(), 80);
        frame[at] = 8;
        rows.push(Row::passes(Why::ArpNotOurs, name, frame, tables()));
    }
    rows
}

fn neighbors() -> Vec<Row> {
    let tables = || empty().with_address(V4.service, ON_LINK).with_address(V6.service, ON_LINK);
    let nobody: IpAddr = [0_u16; 8].into();
    let asked = Neighbor::solicitation(V6.client, V6.service);
    let mut rows = Vec::new();
    let mut answered = |name: &str, asked: &Neighbor, interface| {
        let sent = asked.advertisement(mac_of(interface)).bytes();
        let verdict = Verdict::Transmit(Why::NeighborAnswered);
        rows.push(Row::becomes(sent, verdict, name, asked.bytes(), tables()).on(interface));
    };
    let with_option = asked.clone().with_source_link_layer();
    answered("a solicitation with the asker's MAC address", &with_option, WAN);
    answered("a solicitation on the other interface", &with_option, LAN);
    answered("a solicitation without options", &asked, WAN);
    let unicast = Neighbor { receiver: WAN_MAC, to: asked.target, ..with_option.clone() };
    answered("a solicitation to the address itself: is it still there?", &unicast, WAN);
    let mut nonce = with_option.clone();
    nonce.options.extend([14, 1, 1, 2, 3, 4, 5, 6]);
    answered("a solicitation with a nonce as well (RFC 3971 section 5.3.2)", &nonce, WAN);
    let first =
        Neighbor { options: [nonce.options[8..].to_vec(), with_option.options.clone()].concat(), ..asked.clone() };
    answered("a solicitation with a nonce in front", &first, WAN);
    answered("a node about to use the address", &Neighbor::solicitation(nobody, V6.service), WAN);
    let mut nonce = Neighbor::solicitation(nobody, V6.service);
    nonce.options.extend([14, 1, 1, 2, 3, 4, 5, 6]);
    answered("a node about to use the address, with a nonce (RFC 7527)", &nonce, WAN);

    // The room of the one option replaces the other, so that no frame has to grow for it.
    let sent = with_option.advertisement(WAN_MAC).bytes();
    let verdict = Verdict::Transmit(Why::NeighborAnswered);
    let name = "a solicitation with the asker's MAC address, in a frame that can't grow";
    rows.push(Row::becomes(sent, verdict, name, with_option.bytes(), tables()).without_room());
    let name = "a solicitation without options in a frame that can't grow";
    rows.push(Row::passes(Why::NoRoom, name, asked.bytes(), tables()).without_room());

    let mut ignored = |why, name: &str, frame| rows.push(Row::passes(why, name, frame, tables()));
    let not_ours = Neighbor::solicitation(V6.client, V6.host).with_source_link_layer();
    ignored(Why::NeighborNotOurs, "a solicitation for this machine's address", not_ours.bytes());
    let routed = Neighbor { hops: 254, ..with_option.clone() };
    ignored(Why::NeighborNotOurs, "a solicitation that a router let through", routed.bytes());
    // The frame is long enough, but the packet ends before the target (RFC 4861 section 7.1.1).
    for (length, why) in [(0_u16, Why::Truncated), (8, Why::NeighborNotOurs), (23, Why::NeighborNotOurs)] {
        let mut short = with_option.bytes();
        short[18..20].copy_from_slice(&length.to_be_bytes());
        let name = format!("a solicitation of {length} bytes, too few for a target");
        ignored(why, &name, short);
    }
    // It ended with its header, and was called truncated.
    let body = Body::Icmp { kind: 135, code: 0, rest: [0; 4], payload: vec![0x20, 0x01] };
    let short = Datagram { hops: 255, ..Datagram::asked(V6.client, V6.service, body) };
    ignored(Why::NeighborNotOurs, "a solicitation that ends before its target", short.bytes());
    let advertisement = with_option.advertisement(ROUTER_MAC);
    ignored(Why::IcmpNotOurs, "an advertisement that claims the service's address", advertisement.bytes());
    let mut code = with_option.bytes();
    code[55] = 1;
    ignored(Why::IcmpNotOurs, "a solicitation of an unknown code", code);
    ignored(Why::Truncated, "a solicitation without the last byte of its target", asked.bytes()[..77].to_vec());
    let echo = Neighbor { kind: Icmpv6Type::EchoRequest(IcmpEchoHeader { id: 1, seq: 2 }), ..with_option.clone() };
    ignored(Why::IcmpNotOurs, "an echo request to an address that is only on the link", echo.bytes());
    let router = Neighbor { kind: Icmpv6Type::RouterSolicitation, ..with_option };
    ignored(Why::IcmpNotOurs, "a router solicitation", router.bytes());
    rows
}

pub fn name() -> Name {
    Name::of("www.example.com")
}

fn question(kind: u16) -> Question {
    Question::plain(&name(), kind)
}

pub fn records(kind: u16) -> Vec<IpAddr> {
    match kind {
        A => (1..=3).map(|last| [203, 0, 113, last].into()).collect(),
        _ => (1..=3).map(|last| [0x2001, 0xdb8, 0xf00d, 0, 0, 0, 0xff, last].into()).collect(),
    }
}

/// The DNS addresses of both families, and one answer of IPv4 addresses.
fn with_answer() -> HostTables {
    empty().with_dns(V4.dns()).with_dns(V6.dns()).with_answer(&name(), &records(A))
}

fn dns() -> Vec<Row> {
    let mut rows = Vec::new();
    for side in SIDES {
        let family = if side.client.is_ipv4() { "IPv4" } else { "IPv6" };
        for kind in [A, AAAA] {
            let tables = || with_answer().with_answer(&name(), &records(AAAA));
            let mut row = |name: &str, question: &Question| {
                let asked = question_frame(side.client(), side.dns(), question.bytes());
                let sent = reply_frame(&asked, question.reply(&records(kind), TTL));
                let name = format!("{name} over {family}, type {kind}");
                let verdict = Verdict::Transmit(Why::Answered);
                rows.push(Row::becomes(sent.bytes(), verdict, name, asked.bytes(), tables()));
            };
            row("a plain question", &question(kind));
            row("a question that wants no recursion", &Question { flags: 0, ..question(kind) });
            row("a question that wants no checking", &Question { flags: 0x0110, ..question(kind) });
            row("a question with what a resolver ignores", &Question { flags: 0x04ef, ..question(kind) });
            row("a question in mixed case", &Question { name: name().in_mixed_case(), ..question(kind) });
            row("a question with EDNS", &question(kind).with_edns(4096));
            row("a question with EDNS of the least size", &question(kind).with_edns(0));
            let dnssec = Edns { extended: 0x8000, ..Edns::of_size(1232) };
            row("a question that takes DNSSEC", &Question { edns: Some(dnssec), ..question(kind) });
            let cookie = Edns { options: vec![0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8], ..Edns::of_size(1232) };
            row("a question with an EDNS option", &Question { edns: Some(cookie), ..question(kind) });
            let extended = Edns { extended: 0x7f00_7fff, ..Edns::of_size(1232) };
            row("a question with EDNS flags of the future", &Question { edns: Some(extended), ..question(kind) });
        }
        let question = question(A);
        let asked = question_frame(side.client(), side.dns(), question.bytes());
        let sent = reply_frame(&asked, question.reply(&records(A), TTL));
        let name = format!("a plain question over {family} in a padded frame that can't grow but by its padding");
        let frame = padded(asked.bytes(), sent.bytes().len());
        let verdict = Verdict::Transmit(Why::Answered);
        rows.push(Row::becomes(sent.bytes(), verdict, name, frame, with_answer()).without_room());
        let name = format!("a plain question over {family} with nothing but headroom");
        let mut row = Row::becomes(sent.bytes(), verdict, name, asked.bytes(), with_answer());
        row.room.tail = 0;
        rows.push(row);
    }
    rows.extend(SIDES.iter().flat_map(dns_otherwise));
    let question = question(A);
    let asked = FlowFrame {
        transport: Transport::UdpWithoutChecksum,
        ..question_frame(V4.client(), V4.dns(), question.bytes())
    };
    let sent = reply_frame(&asked, question.reply(&records(A), TTL));
    let verdict = Verdict::Transmit(Why::Answered);
    let name = "a question without a checksum gets a reply with one";
    rows.push(Row::becomes(sent.bytes(), verdict, name, asked.bytes(), with_answer()));
    rows
}

/// Replies without records, or with others than an authority's, and none at all.
fn dns_otherwise(side: &Side) -> Vec<Row> {
    let family = if side.client.is_ipv4() { "IPv4" } else { "IPv6" };
    let name = name();
    let mut rows = Vec::new();
    let mut row = |verdict: Verdict, question: &Question, message: Option<Vec<u8>>, tables: HostTables| {
        let asked = question_frame(side.client(), side.dns(), question.bytes());
        let sent = message.map_or_else(|| asked.clone(), |message| reply_frame(&asked, message));
        let what = format!("{} over {family}", verdict.why().name());
        rows.push(Row::becomes(sent.bytes(), verdict, what, asked.bytes(), tables));
    };
    let sent = Verdict::Transmit;
    let plain = question(A);

    let many: Vec<IpAddr> = (1..=16).map(|last| [0x2001, 0xdb8, 0xf00d, 0, 0, 0, 0, last].into()).collect();
    let tables = empty().with_dns(side.dns()).with_answer(&Name::of_length(49), &many);
    let large = Question::plain(&Name::of_length(49), AAAA);
    assert_eq!(large.reply(&many, TTL).len(), 513);
    row(sent(Why::DnsTruncated), &large, Some(large.bare(0x8600)), tables);

    let negative = Answer { class: NEGATIVE, flags: 0x8403, spent_at: u64::MAX, ..Answer::default() };
    let tables = || empty().with_dns(side.dns());
    let absent = tables().with_body(&name, A, Pick::Only, &negative);
    row(sent(Why::AnsweredNegative), &plain, Some(plain.bare(0x8403)), absent);

    let mut cached = Answer { class: CACHED, ttls: vec![6], since: NOW - 10, ..Answer::of(&records(A)[..1]) };
    cached.spent_at = NOW + 1;
    let tables_of = tables().with_body(&name, A, Pick::Only, &cached);
    row(sent(Why::AnsweredCached), &plain, Some(plain.reply(&records(A)[..1], TTL - 10)), tables_of);

    let mut lapsed = with_answer();
    lapsed.dns_settings().features = LEASED | (Lapse::Fail as u64) << 32;
    lapsed.dns_settings().lease_until = NOW - 1;
    row(sent(Why::DnsLapseRefused), &plain, Some(plain.bare(0x8002)), lapsed);

    let mut cookies = with_answer();
    cookies.dns_settings().features = COOKIES;
    let edns = Edns { options: vec![0, 10, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9], ..Edns::of_size(1232) };
    let odd = Question { edns: Some(edns), ..question(A) };
    row(Verdict::Pass(Why::DnsOption), &odd, None, cookies);

    // Nothing is left after the first answer of a second; the first that is limited slips.
    let mut limited = with_answer();
    limited.dns_settings().features = LIMITED;
    limited.dns_settings().answer_rate = 1;
    row(sent(Why::DnsSlipped), &plain, Some(plain.bare(0x8200)), limited.clone());
    limited.dns_settings().slip_and_prefixes &= !0xff;
    row(Verdict::Drop(Why::DnsLimited), &plain, None, limited.clone());
    limited.dns_settings().miss_rate = 1;
    row(Verdict::Drop(Why::DnsMissLimited), &question(AAAA), None, limited);
    rows
}

fn dns_left_to_the_agent() -> Vec<Row> {
    let mut rows = Vec::new();
    for side in SIDES {
        let family = if side.client.is_ipv4() { "IPv4" } else { "IPv6" };
        let frame = |message: Vec<u8>| question_frame(side.client(), side.dns(), message).bytes();
        let mut row = |why, name: &str, frame: Vec<u8>, tables: HostTables| {
            rows.push(Row::passes(why, format!("{name} over {family}"), frame, tables));
        };
        let mut left = |why, name: &str, message: Vec<u8>| row(why, name, frame(message), with_answer());
        let plain = question(A).bytes();
        let edns = question(A).with_edns(1232).bytes();
        let with = |message: &[u8], at: usize, bytes: &[u8]| {
            let mut message = message.to_vec();
            message[at..at + bytes.len()].copy_from_slice(bytes);
            message
        };
        for (why, name, flags) in [
            (Why::DnsResponse, "a response", 0x8000_u16),
            (Why::DnsOpcode, "an inverse query", 0x0800),
            (Why::DnsOpcode, "a notification", 0x2000),
            (Why::DnsOpcode, "an opcode of the future", 0x4000),
            (Why::DnsOpcode, "a truncated question", 0x0200),
        ] {
            left(why, name, with(&plain, 2, &flags.to_be_bytes()));
        }
        for (why, name, at, count) in [
            (Why::DnsCounts, "no question", 4, 0_u16),
            (Why::DnsCounts, "two questions", 4, 2),
            (Why::DnsCounts, "257 questions", 4, 257),
            (Why::DnsCounts, "an answer in the question", 6, 1),
            (Why::DnsCounts, "an authority in the question", 8, 1),
            (Why::DnsCounts, "256 additional records", 10, 256),
            (Why::DnsTrailing, "one additional record that isn't there", 10, 1),
        ] {
            left(why, name, with(&plain, at, &count.to_be_bytes()));
        }
        left(Why::DnsNotPlain, "no message", Vec::new());
        left(Why::DnsNotPlain, "a message without the last byte of its header", plain[..11].to_vec());
        left(Why::DnsName, "a header alone", plain[..12].to_vec());
        left(Why::DnsName, "a name that ends with the message", plain[..plain.len() - 4].to_vec());
        left(Why::DnsName, "a name without an end", plain[..plain.len() - 5].to_vec());
        left(Why::DnsName, "a question without a class", plain[..plain.len() - 2].to_vec());
        left(Why::DnsTrailing, "a byte after the question", [&plain[..], &[0]].concat());
        left(Why::DnsTrailing, "a byte after EDNS", [&edns[..], &[0]].concat());
        left(Why::DnsTrailing, "EDNS without its last byte", edns[..edns.len() - 1].to_vec());
        left(Why::DnsTrailing, "EDNS that isn't announced", with(&edns, 10, &[0, 0]));
        left(
            Why::DnsCounts,
            "two additional records",
            with(&[&edns[..], &edns[edns.len() - 11..]].concat(), 10, &[0, 2]),
        );
        let opt = plain.len();
        left(Why::DnsTrailing, "EDNS of another name", with(&edns, opt, &[1]));
        left(Why::DnsTrailing, "a signature instead of EDNS", with(&edns, opt + 1, &250_u16.to_be_bytes()));
        left(Why::DnsVersion, "EDNS of version 1", with(&edns, opt + 6, &[1]));
        left(Why::DnsTrailing, "EDNS with options that aren't there", with(&edns, opt + 9, &[0, 4]));
        left(Why::DnsTrailing, "EDNS with more options than it says", [&edns[..], &[0, 10, 0, 0]].concat());

        let mut shorter = frame(plain.clone());
        let udp = shorter.len() - plain.len() - 8;
        shorter[udp + 5] -= 1;
        row(Why::DnsNotPlain, "a UDP length less than the packet's", shorter, with_answer());
        let mut longer = frame(plain);
        longer[udp + 5] += 1;
        row(Why::DnsNotPlain, "a UDP length greater than the packet's", longer, with_answer());
        let tcp =
            FlowFrame { transport: Transport::Tcp, ..FlowFrame::asked(side.client(), side.dns(), Transport::Tcp) };
        row(Why::DnsTcp, "a question by TCP", tcp.bytes(), with_answer());
        let udp = Body::udp([side.client().port(), 53], &question(A).bytes());
        let udp = Datagram::asked(side.client, side.dns, udp);
        let odd = match side.client {
            IpAddr::V4(_) => udp.clone().with_options(&[148, 4, 0, 0]),
            IpAddr::V6(_) => udp.clone().with_extensions(&[Extension::hop_by_hop()]),
        };
        row(Why::DnsNotPlain, "a question behind options", odd.bytes(), with_answer());
        let fragment = udp.fragments(7, &[24]).remove(0);
        row(Why::DnsNotPlain, "the first fragment of a question", fragment, with_answer());

        let mut miss = |name: &str, question: Question| row(Why::DnsMiss, name, frame(question.bytes()), with_answer());
        miss("another type", question(AAAA));
        miss("another class", Question { class: 3, ..question(A) });
        miss("the parent of a name", Question { name: Name::of("example.com"), ..question(A) });
        miss("a child of a name", Question { name: Name::of("a.www.example.com"), ..question(A) });
        miss("a name with other labels of the same letters", Question { name: odd_labels(), ..question(A) });
        miss("the root", Question { name: Name::of(""), ..question(A) });

        // The hash found something, but the whole name and kind decide.
        let mut tables = with_answer();
        tables.change(|body| body[HEAD_WORDS] ^= 1);
        row(Why::DnsMiss, "a name that only shares its hash", frame(question(A).bytes()), tables);
        let mut tables = with_answer();
        tables.change(|body| body[0] ^= 1 << 16);
        row(Why::DnsMiss, "a class that only shares its place", frame(question(A).bytes()), tables);
        let mut tables = with_answer();
        tables.change(|body| body[0] ^= 1 << 32);
        row(Why::DnsMiss, "a body of another generation", frame(question(A).bytes()), tables);
        let mut tables = with_answer();
        tables.services.values_mut().for_each(|service| service.region = 0);
        row(Why::DnsMiss, "an address without an index", frame(question(A).bytes()), tables);
        for port in [0, 53] {
            let from = SocketAddr::new(side.client, port);
            let asked = question_frame(from, side.dns(), question(A).bytes()).bytes();
            row(Why::DnsPort, &format!("a question from port {port}"), asked, with_answer());
        }
        let option = |options: &[u8]| {
            let edns = Edns { options: options.to_vec(), ..Edns::of_size(1232) };
            frame(Question { edns: Some(edns), ..question(A) }.bytes())
        };
        row(Why::DnsOption, "a question for the server's id", option(&[0, 3, 0, 0]), with_answer());
        row(Why::DnsOption, "half of an option", option(&[0, 12, 0]), with_answer());
        row(Why::DnsOption, "an option longer than the record", option(&[0, 12, 0, 1]), with_answer());
        row(Why::DnsOption, "nine options", option(&[0, 12, 0, 0].repeat(9)), with_answer());
        let mut tables = with_answer();
        tables.dns_settings().features = LEASED;
        tables.dns_settings().lease_until = NOW - 1;
        row(Why::DnsLapsed, "a question after the lease", frame(question(A).bytes()), tables);

        for (name, spent_at) in [("an answer spent this second", NOW), ("an answer spent long ago", 0)] {
            let mut tables = with_answer();
            tables.change(|body| {
                body[0] |= u64::from(CACHED) << 56;
                body[5] = spent_at;
            });
            row(Why::DnsSpent, name, frame(question(A).bytes()), tables);
        }

        let full = frame(question(A).bytes());
        rows.push(
            Row::passes(Why::NoRoom, format!("an answer without room over {family}"), full, with_answer())
                .without_room(),
        );
    }
    rows
}

/// `www.example.com` cut into labels elsewhere.
fn odd_labels() -> Name {
    Name::from_labels([&b"www\x07example"[..], b"com"].into_iter())
}

fn contradictions() -> Vec<Row> {
    let mut rows = Vec::new();
    for side in SIDES {
        let family = if side.client.is_ipv4() { "IPv4" } else { "IPv6" };
        let mut row = |why, name: &str, frame: &[u8], mut tables: HostTables, spoil: &dyn Fn(&mut HostTables)| {
            spoil(&mut tables);
            rows.push(Row::passes(why, format!("{name} ({family})"), frame.to_vec(), tables));
        };
        let asked = FlowFrame::to_service(&side, Transport::Tcp).bytes();
        let service = || empty().with_service(side.service(), 6, &[dsr(&side, 6, LAN)]);
        row(Why::Inconsistent, "no settings", &asked, service(), &|tables| tables.settings = None);
        row(Why::Inconsistent, "no slot", &asked, service(), &|tables| tables.slots.clear());
        row(Why::Inconsistent, "no backend", &asked, service(), &|tables| tables.backends.clear());
        let unused =
            |tables: &mut HostTables| tables.backends.values_mut().for_each(|backend| backend.flags &= !IN_USE);
        row(Why::Inconsistent, "a slot that names a backend not in use", &asked, service(), &unused);
        row(Why::NoService, "an id that leads to no service", &asked, service(), &|tables| tables.services.clear());

        let tables = nat_tables(&side, LAN).with_route(side.client, route_via(WAN));
        let reply = replied(&side, Transport::Tcp).bytes();
        // An entry may lead to a backend that is not there any more, as an element of a hash map is reused at once.
        row(Why::NoService, "a return to a backend not in use", &reply, tables.clone(), &unused);
        row(Why::NoService, "a return without its backend", &reply, tables, &|tables| tables.backends.clear());

        let solicited = match side.client {
            IpAddr::V4(_) => Arp::request(side.client, side.service).bytes(),
            IpAddr::V6(_) => Neighbor::solicitation(side.client, side.service).with_source_link_layer().bytes(),
        };
        let claim = empty().with_address(side.service, ON_LINK);
        let name = "an address claimed on an interface that isn't there";
        row(Why::Inconsistent, name, &solicited, claim, &|tables| tables.interfaces.clear());

        let asked = question_frame(side.client(), side.dns(), question(A).bytes()).bytes();
        row(Why::Inconsistent, "no settings of DNS", &asked, with_answer(), &|tables| tables.dns = None);
    }
    rows
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
