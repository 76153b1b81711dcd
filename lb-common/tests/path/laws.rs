//! What must be true of any frame and what came of it.

use crate::{
    support::{
        Outcome,
        datagram::{checksum, octets},
        frames::{FlowFrame, Neighbor, Transport},
        messages::{Name, Question, reply_frame},
        outcome,
        reader::{self, Parts, parts, repeated},
        sound::{checksums, sound},
        tables::{TTL, mac_of},
    },
    ways::{name, records},
};
use etherparse::{IpNumber, Ipv4HeaderSlice, Ipv6HeaderSlice, NetSlice, SlicedPacket, TransportSlice};
use lb_common::{
    host::HostTables,
    tables::{Backend, Endpoint, NAT, Route, TUNNEL4, TUNNEL6, Traffic, address_words},
    verdict::{Verdict, Why},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    ops::Range,
};

/// Steers a frame by tables that may have seen others, and holds the laws against what comes of it.
pub fn judged(tables: &HostTables, frame: &[u8], interface: u32, room: crate::support::Room) -> Why {
    let (counts, traffic) = (tables.counts(), tables.traffic());
    let mut outcome = outcome(frame, interface, room, tables);
    // Only what moved; to copy the tables for every frame would take most of the time.
    outcome.counts.retain(|why, count| {
        *count -= counts.get(why).copied().unwrap_or_default();
        *count != 0
    });
    outcome.traffic.retain(|id, to| {
        let before = traffic.get(id).copied().unwrap_or_default();
        *to = Traffic { packets: to.packets - before.packets, bytes: to.bytes - before.bytes };
        *to != Traffic::default()
    });
    judge(tables, frame, interface, &outcome);
    outcome.verdict.why()
}

fn judge(tables: &HostTables, frame: &[u8], interface: u32, outcome: &Outcome) {
    let why = outcome.verdict.why();
    assert_eq!(outcome.counts, BTreeMap::from([(why, 1)]), "one frame leaves in one way");
    if let Verdict::Pass(why) = outcome.verdict
        && why != Why::ReturnedByStack
    {
        assert_eq!(&outcome.frame[..], frame, "what passes is untouched: {why:?}");
        assert!(outcome.traffic.is_empty(), "what passes went to no backend: {why:?}");
        return;
    }
    let sent = &outcome.frame;
    let (tags, frame) = without_tags(frame);
    let (tags_after, sent) = without_tags(sent);
    assert_eq!(tags, tags_after, "a frame leaves by the VLAN that it came in by");
    let (frame, sent) = (&frame[..], &sent[..]);

    let to_backend =
        [Why::ForwardedDsr, Why::ForwardedNat, Why::ForwardedTunnel, Why::FragmentForwarded, Why::ErrorForwarded];
    if to_backend.contains(&why) {
        let [(id, traffic)] = outcome.traffic.iter().collect::<Vec<_>>()[..] else {
            panic!("counted for {:?}", outcome.traffic)
        };
        assert_eq!(*traffic, Traffic { packets: 1, bytes: frame.len() as u64 });
        return forwarded(&tables.backends[id], frame, sent, interface, outcome.verdict);
    }
    assert!(outcome.traffic.is_empty(), "{why:?} went to no backend");
    match why {
        Why::Returned | Why::ReturnedByStack | Why::ErrorReturned => {
            returned(tables, frame, sent, interface, outcome.verdict);
        }
        Why::Answered | Why::ArpAnswered | Why::NeighborAnswered | Why::EchoAnswered | Why::TooLongAnswered => {
            assert_eq!(outcome.verdict, Verdict::Transmit(why));
            match why {
                Why::Answered => answered(frame, sent),
                Why::ArpAnswered => arp_answered(frame, sent, interface),
                Why::NeighborAnswered => neighbor_answered(frame, sent, interface),
                Why::EchoAnswered => echo_answered(frame, sent),
                _ => too_long_answered(tables, frame, sent),
            }
        }
        why => panic!("{why:?} passes"),
    }
}

fn without_tags(frame: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let behind = reader::ethertype(frame);
    (frame[12..behind].to_vec(), [&frame[..12], &frame[behind..]].concat())
}

/// The verdict for an interface, and the addresses on the link.
fn left_for(verdict: Verdict, came_by: u32, interface: u32, ethernet: [u64; 2], sent: &[u8]) {
    let why = verdict.why();
    let expected = if came_by == interface { Verdict::Transmit(why) } else { Verdict::Redirect(why, interface) };
    assert_eq!(verdict, expected);
    let [first, rest] = ethernet;
    let link = [&first.to_le_bytes()[..], &(rest as u32).to_le_bytes()].concat();
    assert_eq!(sent[..12], link);
}

fn forwarded(backend: &Backend, frame: &[u8], sent: &[u8], came_by: u32, verdict: Verdict) {
    let parts = parts(frame).unwrap();
    let length = parts.end - parts.ip;
    assert!(length <= usize::from(backend.mtu), "{length} bytes are longer than {}", backend.mtu);
    left_for(verdict, came_by, backend.interface, backend.ethernet(), sent);
    let mode = match backend.flags & (NAT | TUNNEL4 | TUNNEL6) {
        0 => {
            assert_eq!(sent[12..], frame[12..], "behind the MAC addresses nothing changes");
            Why::ForwardedDsr
        }
        NAT => {
            rewritten(frame, sent, false, &backend.own, 1);
            Why::ForwardedNat
        }
        _ => {
            wrapped(backend, &parts, frame, sent);
            Why::ForwardedTunnel
        }
    };
    let expected = match parts.protocol {
        _ if parts.rest => Why::FragmentForwarded,
        6 | 17 => mode,
        _ => Why::ErrorForwarded,
    };
    assert_eq!(verdict.why(), expected);
}

/// The whole frame but its addresses on the link lies behind an outer header.
fn wrapped(backend: &Backend, inner: &Parts, frame: &[u8], sent: &[u8]) {
    let length = inner.end - inner.ip;
    let class = if inner.four { frame[15] } else { frame[14] << 4 | frame[15] >> 4 };
    let inside = if inner.four { IpNumber::IPV4 } else { IpNumber::IPV6 };
    let outer = match backend.own.ip() {
        IpAddr::V4(destination) => {
            assert_eq!(sent[12..14], [0x08, 0x00]);
            let outer = Ipv4HeaderSlice::from_slice(&sent[14..]).unwrap().to_header();
            assert_eq!(outer.header_checksum, outer.calc_header_checksum());
            assert_eq!((outer.dscp.value() << 2 | outer.ecn.value(), outer.time_to_live), (class, 64));
            assert_eq!((usize::from(outer.total_len), outer.protocol), (20 + length, inside));
            assert!(outer.dont_fragment && !outer.more_fragments && outer.fragment_offset.value() == 0);
            assert_eq!((outer.destination, outer.options.len()), (destination.octets(), 0));
            20
        }
        IpAddr::V6(destination) => {
            assert_eq!(sent[12..14], [0x86, 0xdd]);
            let outer = Ipv6HeaderSlice::from_slice(&sent[14..]).unwrap().to_header();
            assert_eq!((outer.traffic_class, outer.hop_limit), (class, 64));
            assert_eq!((usize::from(outer.payload_length), outer.next_header), (length, inside));
            assert_eq!(outer.destination, destination.octets());
            40
        }
    };
    assert_eq!(sent[14 + outer..], frame[14..], "what is inside stays as it was");
}

/// Between a frame and what it was rewritten to, one end, the hops and the checksums differ. Nothing that a checksum covers changes
/// its sum.
fn rewritten(frame: &[u8], sent: &[u8], source: bool, to: &Endpoint, hops: u8) {
    let parts = parts(frame).unwrap();
    assert_eq!(frame.len(), sent.len());
    assert_eq!(sent[parts.hops], frame[parts.hops] - hops);
    let mut may_differ = vec![0..12, parts.hops..parts.hops + 1];
    if parts.four {
        may_differ.push(24..26);
        let header = parts.ip..parts.payload;
        assert_eq!(sum(frame, &[&header]), sum(sent, &[&header]), "the checksum of the header");
    }
    address_rewritten(&parts, sent, source, to, &mut may_differ);
    let addresses = parts.source[0]..parts.destination[1];
    let payload = parts.payload..parts.end;
    match parts.protocol {
        _ if parts.rest => (),
        6 | 17 => ports_rewritten(&parts, frame, sent, source, to, parts.end, &mut may_differ),
        protocol => {
            let about = repeated(frame, &parts).unwrap();
            let header = about.ip..about.payload;
            if about.four {
                may_differ.push(about.ip + 10..about.ip + 12);
                assert_eq!(sum(frame, &[&header]), sum(sent, &[&header]), "the repeated header's checksum");
            }
            address_rewritten(&about, sent, !source, to, &mut may_differ);
            ports_rewritten(&about, frame, sent, !source, to, parts.end, &mut may_differ);
            may_differ.push(parts.payload + 2..parts.payload + 4);
            // ICMP alone counts no addresses.
            let covered = if protocol == 1 { vec![&payload] } else { vec![&addresses, &payload] };
            assert_eq!(sum(frame, &covered), sum(sent, &covered), "the message's checksum");
        }
    }
    for (at, (before, after)) in frame.iter().zip(sent).enumerate() {
        assert!(before == after || may_differ.iter().any(|range| range.contains(&at)), "byte {at} changed");
    }
    // The same said once more by etherparse: right stays right and wrong stays wrong. Over IPv6 a checksum that is absent is a
    // wrong one, and stays absent even if it then happens to be right.
    let absent =
        |parts: &Parts| parts.protocol == 17 && frame.get(parts.payload + 6..parts.payload + 8) == Some(&[0, 0]);
    if !absent(&parts) && !repeated(frame, &parts).is_some_and(|about| absent(&about)) {
        assert_eq!(checksums(sent), checksums(frame));
    }
}

fn address_rewritten(parts: &Parts, sent: &[u8], source: bool, to: &Endpoint, may_differ: &mut Vec<Range<usize>>) {
    let [start, end] = if source { parts.source } else { parts.destination };
    assert_eq!(sent[start..end], octets(to.ip()));
    may_differ.push(start..end);
}

/// One port of a packet that ends at `end`, or is cut there, and its checksum if that is there.
fn ports_rewritten(
    parts: &Parts,
    frame: &[u8],
    sent: &[u8],
    source: bool,
    to: &Endpoint,
    end: usize,
    may_differ: &mut Vec<Range<usize>>,
) {
    let port = if source { parts.payload } else { parts.payload + 2 };
    if to.port() == 0 {
        assert_eq!(sent[port..port + 2], frame[port..port + 2], "the port stays");
    } else {
        assert_eq!(sent[port..port + 2], to.port_bytes());
        may_differ.push(port..port + 2);
    }
    let field = parts.payload + if parts.protocol == 6 { 16 } else { 6 };
    let absent = field + 2 > end || parts.protocol == 17 && frame[field..field + 2] == [0, 0];
    if absent {
        return;
    }
    may_differ.push(field..field + 2);
    assert!(parts.protocol == 6 || sent[field..field + 2] != [0, 0], "that would say that there is no checksum");
    let (addresses, payload) = (parts.source[0]..parts.destination[1], parts.payload..end);
    let covered = [&addresses, &payload];
    assert_eq!(sum(frame, &covered), sum(sent, &covered), "the transport's checksum");
}

/// One's complement sum, in which 0 and 0xffff are the same.
fn sum(frame: &[u8], covered: &[&Range<usize>]) -> u16 {
    let bytes: Vec<u8> = covered.iter().flat_map(|range| &frame[range.start..range.end]).copied().collect();
    !checksum(&bytes) % 0xffff
}

fn returned(tables: &HostTables, frame: &[u8], sent: &[u8], interface: u32, verdict: Verdict) {
    let packet = parts(frame).unwrap();
    // Who sent it: for an error, who was sent what it is about.
    let about = repeated(frame, &packet).filter(|_| !packet.rest && ![6, 17].contains(&packet.protocol));
    let own = match &about {
        Some(about) => endpoint(about, frame, false),
        None => endpoint(&packet, frame, true),
    };
    let backend = if packet.rest {
        let mut known = tables.backends.values();
        known.find(|backend| backend.flags & NAT != 0 && backend.own.address == own.address).unwrap()
    } else {
        let id = tables.returns.get(&own).or_else(|| tables.returns.get(&own.without_port())).unwrap();
        &tables.backends[id]
    };
    assert_eq!(backend.own.address, own.address);
    assert!(packet.rest || backend.own.protocol() == own.protocol());
    let to = address(frame, packet.destination);
    match tables.routes[&address_words(to)] {
        Route::Via { interface: by, ethernet } => {
            assert_eq!(verdict.why(), if about.is_some() { Why::ErrorReturned } else { Why::Returned });
            left_for(verdict, interface, by, ethernet, sent);
            rewritten(frame, sent, true, &backend.service, 1);
        }
        Route::Stack | Route::TooLong { .. } => {
            assert_eq!(verdict, Verdict::Pass(Why::ReturnedByStack));
            assert_eq!(sent[..12], frame[..12], "the kernel puts its own MAC addresses on");
            rewritten(frame, sent, true, &backend.service, 0);
        }
        Route::NotForwarded => panic!("rewritten for nobody"),
    }
}

fn address(frame: &[u8], [start, end]: [usize; 2]) -> IpAddr {
    match <[u8; 4]>::try_from(&frame[start..end]) {
        Ok(octets) => octets.into(),
        Err(_) => <[u8; 16]>::try_from(&frame[start..end]).unwrap().into(),
    }
}

/// One end of a packet; without ports for the rest of a datagram.
fn endpoint(parts: &Parts, frame: &[u8], source: bool) -> Endpoint {
    let (at, port) = if source { (parts.source, parts.payload) } else { (parts.destination, parts.payload + 2) };
    let port = if parts.rest { 0 } else { u16::from_be_bytes([frame[port], frame[port + 1]]) };
    Endpoint::new(address(frame, at), parts.protocol, port)
}

/// The question as etherparse and a reader of one byte at a time see it has exactly this reply.
fn answered(frame: &[u8], sent: &[u8]) {
    let packet = SlicedPacket::from_ethernet(frame).unwrap();
    assert!(!packet.is_ip_payload_fragmented());
    let Some(TransportSlice::Udp(udp)) = packet.transport else { panic!("not UDP") };
    let [from, to]: [IpAddr; 2] = match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => [ip.header().source_addr().into(), ip.header().destination_addr().into()],
        NetSlice::Ipv6(ip) => [ip.header().source_addr().into(), ip.header().destination_addr().into()],
        NetSlice::Arp(_) => panic!("not IP"),
    };
    let asked = FlowFrame {
        receiver: frame[..6].try_into().unwrap(),
        sender: frame[6..12].try_into().unwrap(),
        ..FlowFrame::asked(
            SocketAddr::new(from, udp.source_port()),
            SocketAddr::new(to, udp.destination_port()),
            Transport::Udp,
        )
    };
    let question = Question::parse(udp.payload()).unwrap();
    assert!([name(), Name::of("")].contains(&question.name.in_lower_case()));
    let records = records(question.kind);
    let possible = (0..records.len()).any(|turn| {
        let mut rotated = records.clone();
        rotated.rotate_left(turn);
        reply_frame(&asked, question.reply(&rotated, TTL)).bytes() == sent
    });
    assert!(possible, "{question:?} has another reply");
}

/// RFC 826: the fields change places, and the address asked for is filled in.
fn arp_answered(frame: &[u8], sent: &[u8], interface: u32) {
    let mac = mac_of(interface);
    let mut expected = frame.to_vec();
    expected[..6].copy_from_slice(&frame[22..28]);
    expected[6..12].copy_from_slice(&mac);
    expected[20..22].copy_from_slice(&[0, 2]);
    expected[22..28].copy_from_slice(&mac);
    expected[28..32].copy_from_slice(&frame[38..42]);
    expected[32..42].copy_from_slice(&frame[22..32]);
    assert_eq!(sent, expected);
}

fn neighbor_answered(frame: &[u8], sent: &[u8], interface: u32) {
    let mut asked = Neighbor::solicitation(address(frame, [22, 38]), address(frame, [62, 78]));
    asked.sender = frame[6..12].try_into().unwrap();
    let mut expected = asked.advertisement(mac_of(interface)).bytes();
    // Class and flow label stay the asker's; no checksum covers them.
    expected[14..18].copy_from_slice(&frame[14..18]);
    assert_eq!(sent, expected);
    assert_eq!(sound(sent), Some(true));
}

/// Both ends change places, the hops begin anew, and a request becomes a reply.
fn echo_answered(frame: &[u8], sent: &[u8]) {
    let parts = parts(frame).unwrap();
    let [source, destination] = [parts.source, parts.destination].map(|[start, end]| start..end);
    let mut expected = frame.to_vec();
    expected[..6].copy_from_slice(&frame[6..12]);
    expected[6..12].copy_from_slice(&frame[..6]);
    expected[source.clone()].copy_from_slice(&frame[destination.clone()]);
    expected[destination].copy_from_slice(&frame[source]);
    expected[parts.hops] = 64;
    let mut fields = Vec::new();
    if parts.four {
        fields.push((parts.ip + 10, parts.ip..parts.payload));
    }
    if !parts.rest {
        expected[parts.payload] = if parts.four { 0 } else { 129 };
        fields.push((parts.payload + 2, parts.payload..parts.end));
    }
    for (field, covered) in fields {
        expected[field..field + 2].copy_from_slice(&sent[field..field + 2]);
        assert_eq!(sum(frame, &[&covered]), sum(sent, &[&covered]), "a checksum");
    }
    assert_eq!(sent, expected);
    if !parts.in_fragments {
        assert_eq!(checksums(frame), checksums(sent));
    }
}

/// The message is the one that RFC 1191 or RFC 8201 describes, with the start of the packet.
fn too_long_answered(tables: &HostTables, frame: &[u8], sent: &[u8]) {
    let parts = parts(frame).unwrap();
    assert!(!parts.rest && [6, 17].contains(&parts.protocol));
    let (message, repeated) = if parts.four { (34, 548) } else { (54, 1_232) };
    assert_eq!(sent.len(), message + 8 + repeated);
    let mtu = u16::from_be_bytes([sent[message + 6], sent[message + 7]]);
    let known = tables.backends.values().any(|backend| backend.mtu == mtu)
        || tables.routes.values().any(|route| *route == Route::TooLong { mtu });
    assert!(known && parts.end - parts.ip > usize::from(mtu), "{mtu} bytes are nobody's");
    let (kind, code) = if parts.four { (3, 4) } else { (2, 0) };
    assert_eq!(sent[..message + 8][..12], [&frame[6..12], &frame[..6]].concat());
    assert_eq!((sent[message], sent[message + 1]), (kind, code));
    assert_eq!(sent[message + 4..message + 6], [0, 0]);
    assert_eq!(sent[message + 8..], frame[14..14 + repeated]);
    let packet = SlicedPacket::from_ethernet(sent).unwrap();
    let addresses: [IpAddr; 2] = match packet.net.unwrap() {
        NetSlice::Ipv4(ip) => [ip.header().source_addr().into(), ip.header().destination_addr().into()],
        NetSlice::Ipv6(ip) => [ip.header().source_addr().into(), ip.header().destination_addr().into()],
        NetSlice::Arp(_) => panic!("not IP"),
    };
    assert_eq!(addresses, [address(frame, parts.destination), address(frame, parts.source)]);
    // What it repeats may be wrong; it is not.
    let checksums = checksums(sent);
    assert!(checksums[checksums.len() - if parts.four { 2 } else { 1 }..].iter().all(|holds| *holds));
}
