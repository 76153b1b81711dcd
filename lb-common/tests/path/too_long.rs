//! Packets longer than what their receiver can be sent: the message is built from scratch, to its last bit.

use crate::support::{
    DRIVER, LAN, SIDES, Side, V4, V6, WAN,
    datagram::{Body, Datagram},
    frames::{Transport, padded},
    outcome,
    shapes::shapes,
    sound::sound,
    steered,
    tables::{Build, dsr, empty, nat, route_via, tunnel},
};
use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice, icmpv4::DestUnreachableHeader};
use lb_common::{
    host::HostTables,
    tables::{Backend, Route},
    verdict::{Verdict, Why},
};

use std::net::IpAddr;

const TOLD: Verdict = Verdict::Transmit(Why::TooLongAnswered);
const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Udp];

/// What the sender of a packet is told.
pub fn told(packet: &Datagram, mtu: u16) -> Datagram {
    let four = packet.from.is_ipv4();
    let (kind, code, repeated) = if four { (3, 4, 548) } else { (2, 0, 1_232) };
    let [high, low] = mtu.to_be_bytes();
    let mut payload = packet.packet();
    payload.truncate(repeated);
    Datagram {
        receiver: packet.sender,
        sender: packet.receiver,
        tags: packet.tags.clone(),
        hops: 64,
        class: 0,
        mark: 0,
        dont_fragment: four,
        ..Datagram::asked(packet.to, packet.from, Body::Icmp { kind, code, rest: [0, 0, high, low], payload })
    }
}

/// A service with one backend that takes packets of so many bytes.
fn tables(side: &Side, protocol: u8, backend: Backend, mtu: u16) -> HostTables {
    empty().with_service(side.service(), protocol, &[Backend { mtu, ..backend }])
}

fn long(side: &Side, transport: Transport) -> Datagram {
    let payload: Vec<u8> = (0..1_400).map(|index| (index * 11) as u8).collect();
    Datagram::to_service(side, transport).with_payload(&payload)
}

#[test]
fn the_sender_of_a_packet_of_any_shape_is_told_in_every_mode() {
    for side in SIDES {
        for transport in TRANSPORTS {
            let protocol = transport.number();
            let backends = [dsr, nat].map(|backend| backend(&side, protocol, LAN));
            let tunnels = [tunnel(&side, &V4, protocol, LAN), tunnel(&side, &V6, protocol, LAN)];
            for backend in backends.into_iter().chain(tunnels) {
                for packet in shapes(&long(&side, transport)) {
                    let mtu = packet.packet().len() as u16 - 1;
                    let tables = tables(&side, protocol, backend, mtu);
                    let sent = told(&packet, mtu).bytes();
                    assert!(sound(&sent).is_some());
                    assert_eq!(steered(&packet.bytes(), &tables), (TOLD, sent), "{packet:?}");
                    assert!(tables.traffic().is_empty(), "it went to no backend");
                    let got = outcome(&packet.bytes(), LAN, DRIVER, &tables);
                    assert_eq!(got.verdict, TOLD, "by the interface that it came in by");
                }
            }
        }
    }
}

/// The message by another reader: type, MTU, addresses, and its checksum.
#[test]
fn the_message_is_what_etherparse_reads() {
    for side in SIDES {
        for mtu in [552, 1_280, 1_281, 1_399, 1_400] {
            let packet = long(&side, Transport::Tcp);
            let (_, sent) = steered(&packet.bytes(), &tables(&side, 6, dsr(&side, 6, LAN), mtu));
            let read = SlicedPacket::from_ethernet(&sent).unwrap();
            let repeated = match (read.net.unwrap(), read.transport.unwrap()) {
                (NetSlice::Ipv4(ip), TransportSlice::Icmpv4(message)) => {
                    let header = ip.header().to_header();
                    assert_eq!(header.header_checksum, header.calc_header_checksum());
                    assert_eq!([header.source, header.destination].map(IpAddr::from), [packet.to, packet.from]);
                    let unreachable = DestUnreachableHeader::FragmentationNeeded { next_hop_mtu: mtu };
                    assert_eq!(message.icmp_type(), Icmpv4Type::DestinationUnreachable(unreachable));
                    let checksum = message.icmp_type().calc_checksum(message.payload());
                    assert_eq!(message.checksum(), checksum);
                    assert_eq!(sent.len() - 14, 576, "what every host takes");
                    message.payload().to_vec()
                }
                (NetSlice::Ipv6(ip), TransportSlice::Icmpv6(message)) => {
                    let header = ip.header().to_header();
                    assert_eq!([header.source, header.destination].map(IpAddr::from), [packet.to, packet.from]);
                    assert_eq!(message.icmp_type(), Icmpv6Type::PacketTooBig { mtu: mtu.into() });
                    assert!(message.is_checksum_valid(header.source, header.destination));
                    assert_eq!(sent.len() - 14, 1_280, "the smallest MTU");
                    message.payload().to_vec()
                }
                other => panic!("{other:?}"),
            };
            assert_eq!(repeated, packet.packet()[..repeated.len()]);
        }
    }
}

#[test]
fn a_packet_is_too_long_from_one_byte_more_than_the_mtu_on() {
    for side in SIDES {
        let packet = long(&side, Transport::Udp);
        let length = packet.packet().len() as u16;
        for (mtu, told) in [(length - 1, true), (length, false), (length + 1, false), (u16::MAX, false)] {
            for backend in [dsr(&side, 17, LAN), nat(&side, 17, LAN), tunnel(&side, &V4, 17, LAN)] {
                let (verdict, _) = steered(&packet.bytes(), &tables(&side, 17, backend, mtu));
                assert_eq!(verdict == TOLD, told, "{length} bytes for {mtu}");
                // Padding is no part of it.
                let frame = padded(packet.bytes(), packet.bytes().len() + 9);
                assert_eq!(steered(&frame, &tables(&side, 17, backend, mtu)).0 == TOLD, told);
            }
        }
    }
}

/// A tunnel's header is counted before: what its link takes, less the header.
#[test]
fn a_tunnel_takes_packets_that_fit_behind_its_header() {
    for side in SIDES {
        for (outer, overhead) in [(V4, 20), (V6, 40)] {
            let backend = tunnel(&side, &outer, 6, LAN);
            assert_eq!((backend.mtu, backend.overhead()), (1_500 - overhead, overhead));
            let packet = Datagram::to_service(&side, Transport::Tcp);
            let rest = packet.clone().with_payload(&[]).packet().len();
            for length in [1_500 - overhead, 1_501 - overhead] {
                let packet = packet.clone().with_payload(&vec![0x5a; usize::from(length) - rest]);
                let (verdict, sent) = steered(&packet.bytes(), &tables(&side, 6, backend, backend.mtu));
                if length <= 1_500 - overhead {
                    assert_eq!(verdict, Verdict::Redirect(Why::ForwardedTunnel, LAN));
                    assert_eq!(sent.len(), 14 + 1_500, "as long as the link takes");
                } else {
                    assert_eq!((verdict, sent), (TOLD, told(&packet, 1_500 - overhead).bytes()));
                }
            }
        }
    }
}

/// Whether it may be fragmented or not: the path can't, and senders heed the message.
#[test]
fn a_packet_to_a_backend_that_may_be_fragmented_is_answered_too() {
    let packet = Datagram { dont_fragment: false, ..long(&V4, Transport::Udp) };
    let sent = told(&packet, 1_300).bytes();
    assert_eq!(steered(&packet.bytes(), &tables(&V4, 17, dsr(&V4, 17, LAN), 1_300)), (TOLD, sent));
    // The first fragment of a datagram is repeated as it is.
    for side in SIDES {
        let frame = long(&side, Transport::Udp).fragments(7, &[1_352]).remove(0);
        let packet = long(&side, Transport::Udp);
        let (verdict, sent) = steered(&frame, &tables(&side, 17, dsr(&side, 17, LAN), 1_300));
        let message =
            Datagram { body: with_repeated(&told(&packet, 1_300).body, &frame[14..]), ..told(&packet, 1_300) };
        assert_eq!((verdict, sent), (TOLD, message.bytes()));
    }
}

/// A message about another packet, of which as much is repeated.
fn with_repeated(message: &Body, packet: &[u8]) -> Body {
    let Body::Icmp { kind, code, rest, payload } = message else { panic!("not ICMP") };
    Body::Icmp { kind: *kind, code: *code, rest: *rest, payload: packet[..payload.len()].to_vec() }
}

/// RFC 1122 section 3.2.2 and RFC 4443 section 2.4 (e).
#[test]
fn no_message_is_sent_about_a_message() {
    for side in SIDES {
        let tables = tables(&side, 6, dsr(&side, 6, LAN), 1_000);
        let about = Datagram::reply(&side, Transport::Tcp).with_payload(&[0x5a; 1_200]).with_source(side.service());
        for kind in if side.client.is_ipv4() { [3, 11, 12] } else { [1, 2, 4] } {
            let frame = Datagram::error(side.router, &about, kind, 0, 1_200).bytes();
            assert_eq!(steered(&frame, &tables), (Verdict::Pass(Why::TooLong), frame));
        }
    }
}

/// A link that takes less than the message repeats is a strange one: the kernel has a word with the sender.
#[test]
fn a_packet_shorter_than_what_a_message_repeats_passes() {
    for (side, least) in [(V4, 548), (V6, 1_232)] {
        let header = Datagram::to_service(&side, Transport::Udp).with_payload(&[]).packet().len();
        for length in [header + 1, 300, least - 1, least, least + 1] {
            let packet = Datagram::to_service(&side, Transport::Udp).with_payload(&vec![0x5a; length - header]);
            let tables = tables(&side, 17, dsr(&side, 17, LAN), length as u16 - 1);
            let (verdict, sent) = steered(&packet.bytes(), &tables);
            if length < least {
                assert_eq!((verdict, sent), (Verdict::Pass(Why::TooLong), packet.bytes()), "{length} bytes");
            } else {
                assert_eq!((verdict, sent), (TOLD, told(&packet, length as u16 - 1).bytes()), "{length} bytes");
            }
        }
    }
}

/// The message would repeat bytes that were never part of the packet.
#[test]
fn what_pads_a_frame_is_not_repeated() {
    for side in SIDES {
        let packet = Datagram::to_service(&side, Transport::Udp).with_payload(&[0x5a; 300]);
        let frame = padded(packet.bytes(), 1_500);
        let tables = tables(&side, 17, dsr(&side, 17, LAN), 300);
        assert_eq!(steered(&frame, &tables), (Verdict::Pass(Why::TooLong), frame));
    }
}

fn reply(side: &Side, transport: Transport) -> Datagram {
    Datagram::reply(side, transport).with_payload(&[0x5a; 1_400])
}

#[test]
fn a_backend_is_told_of_a_reply_that_may_not_be_fragmented() {
    for side in SIDES {
        for transport in TRANSPORTS {
            let backend = nat(&side, transport.number(), LAN);
            let tables = tables(&side, transport.number(), backend, 1_500);
            let tables = tables.with_route(side.client, Route::TooLong { mtu: 1_300 });
            for reply in shapes(&reply(&side, transport)) {
                let got = outcome(&reply.bytes(), LAN, DRIVER, &tables);
                assert_eq!((got.verdict, got.frame), (TOLD, told(&reply, 1_300).bytes()), "{reply:?}");
            }
        }
    }
}

/// What may be fragmented, the kernel fragments: from the service's address, and it takes the hop.
#[test]
fn a_reply_that_may_be_fragmented_is_left_to_the_kernel() {
    let tables = tables(&V4, 17, nat(&V4, 17, LAN), 1_500).with_route(V4.client, Route::TooLong { mtu: 1_300 });
    for reply in shapes(&Datagram { dont_fragment: false, ..reply(&V4, Transport::Udp) }) {
        let sent = reply.clone().with_source(V4.service()).bytes();
        let got = outcome(&reply.bytes(), LAN, DRIVER, &tables);
        assert_eq!((got.verdict, got.frame), (Verdict::Pass(Why::ReturnedByStack), sent));
    }
}

/// An error about a packet that a backend was sent, and the rest of its reply: no message about either.
#[test]
fn no_message_is_sent_about_a_message_or_a_fragment_on_its_way_back() {
    for side in SIDES {
        let tables = tables(&side, 17, nat(&side, 17, LAN), 1_500);
        let short = tables.clone().with_route(side.client, Route::TooLong { mtu: 500 });
        let about = Datagram::to_service(&side, Transport::Udp).with_destination(side.backend());
        let about = about.with_payload(&[0x5a; 600]);
        let error = Datagram::error(side.router, &about, if side.client.is_ipv4() { 3 } else { 1 }, 1, 520).bytes();
        assert_eq!(steered(&error, &short), (Verdict::Pass(Why::TooLong), error));

        let tables = tables.with_route(side.client, route_via(WAN));
        let frames = reply(&side, Transport::Udp).fragments(7, &[64]);
        assert_eq!(outcome(&frames[0], LAN, DRIVER, &tables).verdict, Verdict::Redirect(Why::Returned, WAN));
        let tables = tables.with_route(side.client, Route::TooLong { mtu: 1_300 });
        let (verdict, sent) = steered(&frames[1], &tables);
        if side.client.is_ipv4() {
            let restored = reply(&side, Transport::Udp).with_source(side.service()).fragments(7, &[64]).remove(1);
            assert_eq!((verdict, sent), (Verdict::Pass(Why::ReturnedByStack), restored));
        } else {
            assert_eq!((verdict, &sent), (Verdict::Pass(Why::TooLong), &frames[1]), "a fragment can't be cut again");
        }
    }
}
