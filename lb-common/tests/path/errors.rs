//! ICMP errors: they go to who sent what they are about, with that packet as its sender knows it.

use crate::{
    support::{
        BACKEND_MAC, DRIVER, LAN, ROUTER_MAC, SIDES, Side, V4, V6, WAN, WAN_MAC,
        datagram::{Body, Datagram, Extension},
        frames::{Transport, padded},
        outcome,
        shapes::{headers, shapes},
        sound::{checksums, sound},
        steered,
        tables::{Build, FIRST, MTU, dsr, empty, endpoint, mac_of, nat, route_via, tunnel},
    },
    tunnel::wrapped,
};
use lb_common::{
    host::HostTables,
    tables::{Backend, NAT, Route, Traffic},
    verdict::{Verdict, Why},
};
use std::{collections::BTreeMap, net::SocketAddr};

const FORWARDED: Verdict = Verdict::Redirect(Why::ErrorForwarded, LAN);
const RETURNED: Verdict = Verdict::Redirect(Why::ErrorReturned, WAN);

fn kinds() -> Vec<(Side, Transport)> {
    let mut kinds = vec![(V4, Transport::UdpWithoutChecksum)];
    for side in SIDES {
        kinds.extend([Transport::Tcp, Transport::Udp].map(|transport| (side, transport)));
    }
    kinds
}

/// Types of errors with one of their codes: unreachable, too long, hops exceeded, a header's problem.
fn types(side: &Side) -> &'static [(u8, u8)] {
    if side.client.is_ipv4() {
        &[(3, 1), (3, 3), (3, 4), (11, 0), (11, 1), (12, 0)]
    } else {
        &[(1, 4), (2, 0), (3, 0), (4, 1)]
    }
}

/// All types for the shortest of what they repeat, and one for the rest: types make no difference to the bytes.
fn types_for(side: &Side, about: &Datagram, length: usize) -> &'static [(u8, u8)] {
    let types = types(side);
    if length == header(about) + 8 { types } else { &types[..1] }
}

fn one(side: &Side) -> (u8, u8) {
    types(side)[0]
}

/// A service with a NAT backend, and the way back to its client.
fn translating(side: &Side, transport: Transport) -> HostTables {
    let tables = empty().with_service(side.service(), transport.number(), &[nat(side, transport.number(), LAN)]);
    tables.with_route(side.client, route_via(WAN))
}

/// What the client got from the service, and what its NAT backend sent.
fn replies(side: &Side, transport: Transport) -> (Datagram, Datagram) {
    let sent = Datagram::reply(side, transport);
    (sent.clone().with_source(side.service()), sent)
}

/// What the NAT backend got, and what the client sent.
fn requests(side: &Side, transport: Transport) -> (Datagram, Datagram) {
    let sent = Datagram::to_service(side, transport);
    (sent.clone().with_destination(side.backend()), sent)
}

/// An error as the backend gets it from the balancer, a hop later.
fn delivered(error: Datagram) -> Vec<u8> {
    Datagram { hops: error.hops - 1, ..error.delivered(LAN) }.bytes()
}

/// An error as the client gets it.
fn restored(error: Datagram) -> Vec<u8> {
    Datagram { receiver: ROUTER_MAC, sender: WAN_MAC, hops: error.hops - 1, ..error }.bytes()
}

/// An error that repeats bytes.
fn repeating(from: std::net::IpAddr, to: std::net::IpAddr, (kind, code): (u8, u8), bytes: &[u8]) -> Datagram {
    Datagram::asked(from, to, Body::Icmp { kind, code, rest: [0, 0, 0x05, 0x14], payload: bytes.to_vec() })
}

/// All lengths of a packet that a router may repeat, from 8 bytes behind the headers on, but the one with half a checksum of TCP.
fn lengths(packet: &Datagram) -> impl Iterator<Item = usize> {
    let half = header(packet) + 17;
    let tcp = matches!(packet.body, Body::Tcp { .. });
    (header(packet) + 8..=packet.packet().len()).filter(move |length| !tcp || *length != half)
}

fn header(packet: &Datagram) -> usize {
    let extensions: usize = packet.extensions.iter().map(|extension| 1 + extension.rest.len()).sum();
    packet.options.len() + extensions + if packet.from.is_ipv4() { 20 } else { 40 }
}

#[test]
fn an_error_about_a_services_packet_reaches_its_nat_backend_as_one_about_its_own() {
    for (side, transport) in kinds() {
        let tables = translating(&side, transport);
        let (got, sent) = replies(&side, transport);
        for (got, sent) in headers(&got).iter().zip(&headers(&sent)) {
            for length in lengths(got) {
                for (kind, code) in types_for(&side, got, length) {
                    let error = |about| Datagram::error(side.router, about, *kind, *code, length);
                    let expected = delivered(error(sent));
                    assert!(*checksums(&expected).last().unwrap());
                    assert_eq!(
                        steered(&error(got).bytes(), &tables),
                        (FORWARDED, expected),
                        "{length} bytes of {got:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn an_error_about_a_packet_to_a_nat_backend_reaches_the_client_as_one_about_the_service() {
    for (side, transport) in kinds() {
        let tables = translating(&side, transport);
        let (got, sent) = requests(&side, transport);
        for from in [side.backend, side.router] {
            for (got, sent) in headers(&got).iter().zip(&headers(&sent)) {
                for length in lengths(got) {
                    for (kind, code) in types_for(&side, got, length) {
                        let error = Datagram::error(from, got, *kind, *code, length);
                        // Whoever sent it: the client knows of nobody but the service.
                        let expected = restored(Datagram::error(side.service, sent, *kind, *code, length));
                        let came = outcome(&error.bytes(), LAN, DRIVER, &tables);
                        assert_eq!((came.verdict, came.frame), (RETURNED, expected), "{length} bytes of {got:?}");
                        assert!(came.traffic.is_empty());
                    }
                }
            }
        }
    }
}

#[test]
fn an_error_of_any_shape_is_rewritten() {
    for (side, transport) in kinds() {
        let tables = translating(&side, transport);
        let (kind, code) = one(&side);
        let (got, sent) = replies(&side, transport);
        let errors = [got, sent].map(|about| shapes(&Datagram::error(side.router, &about, kind, code, 60)));
        for (came, expected) in errors[0].iter().zip(&errors[1]) {
            assert_eq!(steered(&came.bytes(), &tables), (FORWARDED, delivered(expected.clone())), "{came:?}");
            let frame = padded(came.bytes(), 300);
            let padding = frame.len() - came.bytes().len();
            let expected = [delivered(expected.clone()), vec![0; padding]].concat();
            assert_eq!(steered(&frame, &tables), (FORWARDED, expected), "what pads a frame stays behind");
        }
        let (got, sent) = requests(&side, transport);
        let came = shapes(&Datagram::error(side.backend, &got, kind, code, 60));
        let expected = shapes(&Datagram::error(side.service, &sent, kind, code, 60));
        for (came, expected) in came.iter().zip(expected) {
            assert_eq!(steered(&came.bytes(), &tables), (Verdict::Transmit(Why::ErrorReturned), restored(expected)));
        }
    }
}

#[test]
fn an_error_reaches_a_backend_that_keeps_the_address_as_it_is() {
    for (side, transport) in kinds() {
        let protocol = transport.number();
        let service = |backend| empty().with_service(side.service(), protocol, &[backend]);
        let near = service(dsr(&side, protocol, LAN));
        let far = SIDES.map(|outer| (outer, service(tunnel(&side, &outer, protocol, LAN))));
        for about in headers(&replies(&side, transport).0) {
            let (shortest, (kind, code)) = (header(&about) + 8, one(&side));
            let mut errors = shapes(&Datagram::error(side.router, &about, kind, code, shortest));
            for (kind, code) in types(&side) {
                errors
                    .extend([shortest, usize::MAX].map(|len| Datagram::error(side.router, &about, *kind, *code, len)));
            }
            for error in errors {
                assert_eq!(steered(&error.bytes(), &near), (FORWARDED, error.delivered(LAN).bytes()));
                for (outer, tables) in &far {
                    let expected = wrapped(&error, outer.tunnel, outer.backend, LAN);
                    assert_eq!(steered(&error.bytes(), tables), (FORWARDED, expected));
                }
            }
        }
    }
}

/// The owner is found by the flow of the packet that the error is about, so that flow and error meet at one backend and by one
/// outer source.
#[test]
fn an_error_goes_where_the_flow_goes() {
    for side in SIDES {
        let backends: Vec<Backend> = (0..7).map(|_| dsr(&side, 6, LAN)).collect();
        let tables = empty().with_service(side.service(), 6, &backends);
        for port in 1_000..1_100 {
            let client = SocketAddr::new(side.client, port);
            let flow = Datagram::to_service(&side, Transport::Tcp).with_source(client);
            let about = Datagram::reply(&side, Transport::Tcp).with_source(side.service()).with_destination(client);
            let error = Datagram::error(side.router, &about, one(&side).0, 1, 60);
            let [one, other] = [flow, error].map(|packet| {
                let before = tables.traffic();
                let (_, _) = steered(&packet.bytes(), &tables);
                let after = tables.traffic();
                after.into_iter().find(|(id, traffic)| before.get(id) != Some(traffic)).unwrap().0
            });
            assert_eq!(one, other);
        }
    }
}

#[test]
fn an_error_is_counted_for_its_backend() {
    for side in SIDES {
        let tables = translating(&side, Transport::Tcp);
        let frame = Datagram::error(side.router, &replies(&side, Transport::Tcp).0, one(&side).0, 1, 60).bytes();
        let got = outcome(&frame, WAN, DRIVER, &tables);
        assert_eq!(got.traffic, BTreeMap::from([(FIRST, Traffic { packets: 1, bytes: frame.len() as u64 })]));
    }
}

/// One byte of a checksum can't be corrected; the message's own checksum counts what is there.
#[test]
fn half_a_checksum_is_left_as_it_is() {
    for side in SIDES {
        let tables = translating(&side, Transport::Tcp);
        let (got, sent) = replies(&side, Transport::Tcp);
        for (got, sent) in headers(&got).iter().zip(&headers(&sent)) {
            let length = header(got) + 17;
            let mut expected = sent.packet()[..length].to_vec();
            expected[length - 1] = got.packet()[length - 1];
            let error = repeating(side.router, got.from, one(&side), &got.packet()[..length]).bytes();
            let expected = delivered(repeating(side.router, sent.from, one(&side), &expected));
            assert_eq!(steered(&error, &tables), (FORWARDED, expected));
        }
    }
}

/// The first fragment of a datagram has its ports, and a checksum that is not that of what is repeated.
#[test]
fn an_error_about_a_first_fragment_is_rewritten() {
    for (side, transport) in kinds() {
        let tables = translating(&side, transport);
        let inner = |about: Datagram| {
            let about = about.with_payload(&[0xa5; 61]);
            let packet = about.fragments(0x4321, &[48]).remove(0)[14..].to_vec();
            (about, packet)
        };
        let ((got, came), (sent, expected)) = {
            let (got, sent) = replies(&side, transport);
            (inner(got), inner(sent))
        };
        let error = repeating(side.router, got.from, one(&side), &came).bytes();
        let expected = delivered(repeating(side.router, sent.from, one(&side), &expected));
        assert_eq!(steered(&error, &tables), (FORWARDED, expected));

        let ((_, came), (sent, expected)) = {
            let (got, sent) = requests(&side, transport);
            (inner(got), inner(sent))
        };
        let error = repeating(side.router, sent.from, one(&side), &came).bytes();
        let expected = restored(repeating(side.service, sent.from, one(&side), &expected));
        assert_eq!(steered(&error, &tables), (Verdict::Transmit(Why::ErrorReturned), expected));
    }
}

/// RFC 4884: what is repeated is filled up with zeros and followed by an extension, which is neither port nor checksum.
#[test]
fn an_error_with_an_extension_is_rewritten() {
    for (side, transport) in kinds() {
        let tables = translating(&side, transport);
        let extended = |about: &Datagram| {
            let mut bytes = about.packet();
            bytes.resize(128, 0);
            bytes.extend([0x20, 0, 0x12, 0x34, 0, 8, 1, 1, 0, 1, 0x21, 0xff]);
            bytes
        };
        let (got, sent) = replies(&side, transport);
        let error = repeating(side.router, got.from, one(&side), &extended(&got)).bytes();
        let expected = delivered(repeating(side.router, sent.from, one(&side), &extended(&sent)));
        assert_eq!(steered(&error, &tables), (FORWARDED, expected));
    }
}

#[test]
fn an_error_about_a_service_on_all_ports_keeps_the_port() {
    for (side, transport) in kinds() {
        let protocol = transport.number();
        let (at, own) = (SocketAddr::new(side.service, 0), SocketAddr::new(side.backend, 0));
        let backend = Backend::new(endpoint(own, protocol), endpoint(at, protocol), NAT);
        let backend = backend.via(LAN, BACKEND_MAC, mac_of(LAN), MTU);
        let tables = empty().with_service(at, protocol, &[backend]).with_route(side.client, route_via(WAN));
        for port in [1, 443, u16::MAX] {
            let got = Datagram::reply(&side, transport).with_source(SocketAddr::new(side.service, port));
            let sent = got.clone().with_source(own);
            for length in lengths(&got) {
                let error = |about| Datagram::error(side.router, about, one(&side).0, 1, length);
                assert_eq!(steered(&error(&got).bytes(), &tables), (FORWARDED, delivered(error(&sent))));
            }
            let sent = Datagram::to_service(&side, transport).with_destination(SocketAddr::new(side.service, port));
            let got = sent.clone().with_destination(own);
            for length in lengths(&got) {
                let error = |from, about| Datagram::error(from, about, one(&side).0, 1, length);
                let came = steered(&error(side.router, &got).bytes(), &tables);
                let expected = restored(error(side.service, &sent));
                assert_eq!(came, (Verdict::Transmit(Why::ErrorReturned), expected));
            }
        }
    }
}

#[test]
fn an_error_on_its_way_back_is_left_to_the_kernel_where_packets_are() {
    for (side, transport) in kinds() {
        let (got, sent) = requests(&side, transport);
        let (kind, code) = one(&side);
        let error = Datagram::error(side.router, &got, kind, code, usize::MAX);
        let by_stack = translating(&side, transport).with_route(side.client, Route::Stack);
        let expected = Datagram::error(side.service, &sent, kind, code, usize::MAX).bytes();
        assert_eq!(steered(&error.bytes(), &by_stack), (Verdict::Pass(Why::ReturnedByStack), expected));
        let to_us = translating(&side, transport).with_route(side.client, Route::NotForwarded);
        assert_eq!(steered(&error.bytes(), &to_us), (Verdict::Pass(Why::ReturnNotForwarded), error.bytes()));
    }
}

#[test]
fn an_error_without_hops_passes_where_a_packet_would() {
    for (side, transport) in kinds() {
        let tables = translating(&side, transport);
        let abouts = [replies(&side, transport).0, requests(&side, transport).0];
        for about in abouts {
            for hops in [0, 1] {
                let error = Datagram { hops, ..Datagram::error(side.router, &about, one(&side).0, 1, 60) };
                assert_eq!(steered(&error.bytes(), &tables), (Verdict::Pass(Why::HopsExceeded), error.bytes()));
            }
            // The hops of the packet that it is about are those of another way.
            let about = Datagram { hops: 0, ..about };
            let error = Datagram::error(side.router, &about, one(&side).0, 1, 60).bytes();
            let (verdict, sent) = steered(&error, &tables);
            assert!(!matches!(verdict, Verdict::Pass(_)), "{verdict:?}");
            assert_eq!(checksums(&error), checksums(&sent));
        }
    }
}

/// A frame passes as what is about nothing of ours.
fn passes(frame: &[u8], tables: &HostTables, what: &str) {
    assert_eq!(steered(frame, tables), (Verdict::Pass(Why::IcmpNotOurs), frame.to_vec()), "{what}");
}

#[test]
fn an_error_that_repeats_too_little_passes() {
    for (side, transport) in kinds() {
        let tables = translating(&side, transport);
        for about in [replies(&side, transport).0, requests(&side, transport).0] {
            for about in headers(&about) {
                for length in 0..header(&about) + 8 {
                    let error = Datagram::error(side.router, &about, one(&side).0, 1, length).bytes();
                    passes(&error, &tables, &format!("{length} bytes of {about:?}"));
                    // What follows the message in its frame is no part of it, though the rest of the packet may stand there.
                    let frame = [&error[..], &about.packet()[length..]].concat();
                    passes(&frame, &tables, &format!("{length} bytes of {about:?} and the rest behind"));
                }
            }
        }
    }
}

#[test]
fn an_error_of_an_unknown_type_passes() {
    for (side, transport) in kinds() {
        let tables = translating(&side, transport);
        let known: Vec<u8> = types(&side).iter().map(|(kind, _)| *kind).collect();
        for about in [replies(&side, transport).0, requests(&side, transport).0] {
            for kind in (0..=u8::MAX).filter(|kind| ![8, 128, 135].contains(kind)) {
                let error = Datagram::error(side.router, &about, kind, 0, usize::MAX).bytes();
                let (verdict, _) = steered(&error, &tables);
                assert_eq!(matches!(verdict, Verdict::Pass(Why::IcmpNotOurs)), !known.contains(&kind), "type {kind}");
            }
        }
    }
}

#[test]
fn an_error_about_what_is_not_ours_passes() {
    for (side, transport) in kinds() {
        let tables = translating(&side, transport).with_dns(side.dns());
        let error = |about: &Datagram| Datagram::error(side.router, about, one(&side).0, 1, usize::MAX).bytes();
        let (got, _) = replies(&side, transport);
        let (request, _) = requests(&side, transport);
        let foreign = SocketAddr::new(side.host, 443);
        passes(&error(&got.clone().with_source(foreign)), &tables, "from this machine");
        passes(&error(&got.clone().with_source(SocketAddr::new(side.service, 444))), &tables, "from another port");
        passes(&error(&got.clone().with_source(side.dns())), &tables, "from a DNS address");
        passes(&error(&request.clone().with_destination(foreign)), &tables, "to somebody else");
        let other = SocketAddr::new(side.backend, 22);
        passes(&error(&request.clone().with_destination(other)), &tables, "to another port of a NAT backend");

        // The service is not on the other transport.
        let transport = if transport == Transport::Tcp { Transport::Udp } else { Transport::Tcp };
        passes(&error(&replies(&side, transport).0), &tables, "from a service of the other transport");
        for protocol in [0, 1, 47, 50, 58, 132] {
            let about = Datagram { body: Body::Other { protocol, bytes: vec![0x55; 40] }, ..got.clone() };
            passes(&error(&about), &tables, &format!("of protocol {protocol}"));
        }
        // About another error, which should never have been sent.
        passes(&error(&Datagram::error(side.service, &request, one(&side).0, 1, 60)), &tables, "about an error");
        let rest = got.clone().with_payload(&[0xa5; 61]).fragments(7, &[48]).remove(1);
        let about = repeating(side.router, side.service, one(&side), &rest[14..]).bytes();
        passes(&about, &tables, "about the rest of a datagram");
        if !side.client.is_ipv4() {
            let five = got.clone().with_extensions(&vec![Extension::destination_options(1); 5]);
            passes(&error(&five), &tables, "behind too many extension headers");
            let routed = got.with_extensions(&[Extension::routing(1)]);
            passes(&error(&routed), &tables, "that is routed on");
        }
    }
}

/// Who did not send a packet has no business with an error about it: it may be forged, or another machine's (RFC 5927 section 4).
#[test]
fn an_error_sent_to_somebody_else_than_the_sender_of_what_it_is_about_passes() {
    for (side, transport) in kinds() {
        let tables = translating(&side, transport).with_route(side.router, route_via(WAN));
        let (got, request) = (replies(&side, transport).0, requests(&side, transport).0);
        for (about, to) in [(&got, side.host), (&got, side.client), (&request, side.service), (&request, side.router)] {
            let error = repeating(side.router, to, one(&side), &about.packet()).bytes();
            passes(&error, &tables, &format!("to {to}"));
        }
    }
}

#[test]
fn an_error_of_the_other_family_inside_passes() {
    for (side, other) in [(V4, V6), (V6, V4)] {
        let tables = translating(&side, Transport::Tcp);
        let tables = tables.with_service(other.service(), 6, &[dsr(&other, 6, LAN)]);
        let about = replies(&other, Transport::Tcp).0.packet();
        passes(&repeating(side.router, side.service, one(&side), &about).bytes(), &tables, "of another family");
    }
}

#[test]
fn an_error_in_fragments_passes() {
    for (side, transport) in kinds() {
        let tables = translating(&side, transport);
        let error = Datagram::error(side.router, &replies(&side, transport).0, one(&side).0, 1, usize::MAX);
        for (frame, why) in error.fragments(7, &[40]).iter().zip([Why::IcmpNotOurs, Why::FragmentUnknown]) {
            assert_eq!(steered(frame, &tables), (Verdict::Pass(why), frame.clone()));
        }
    }
}

#[test]
fn an_error_about_a_service_without_backends_passes() {
    for (side, transport) in kinds() {
        let tables = empty().with_service(side.service(), transport.number(), &[]);
        let error = Datagram::error(side.router, &replies(&side, transport).0, one(&side).0, 1, 60).bytes();
        assert_eq!(steered(&error, &tables), (Verdict::Pass(Why::NoBackend), error));
    }
}

/// The checksum of what an error repeats may be wrong, or that of the error: each stays as wrong as it was.
#[test]
fn wrong_checksums_stay_wrong_in_and_around_an_error() {
    for (side, transport) in kinds() {
        let tables = translating(&side, transport);
        for about in [replies(&side, transport).0, requests(&side, transport).0] {
            let error = Datagram::error(side.router, &about, one(&side).0, 1, usize::MAX).bytes();
            assert_eq!(sound(&error), Some(true));
            let ip = if side.client.is_ipv4() { 34 + 8 } else { 54 + 8 };
            // The inner hop count, the last byte of the payload, and the message's unused word.
            for at in [ip + if side.client.is_ipv4() { 8 } else { 7 }, error.len() - 1, ip - 4] {
                let mut error = error.clone();
                error[at] ^= 1;
                let (verdict, sent) = steered(&error, &tables);
                assert!(!matches!(verdict, Verdict::Pass(_)));
                assert!(checksums(&error).contains(&false));
                assert_eq!(checksums(&sent), checksums(&error));
            }
        }
    }
}
