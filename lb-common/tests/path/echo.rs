//! Echo requests, and the replies that they deserve.

use crate::support::{
    DRIVER, LAN, SIDES, Side, V4, V6, WAN, cases,
    datagram::{Body, Datagram},
    frames::padded,
    outcome,
    shapes::shapes,
    sound::{repair, sound},
    steered,
    tables::{Build, empty},
};
use lb_common::{
    host::HostTables,
    tables::{ECHO, ON_LINK},
    verdict::{Verdict, Why},
};
use proptest::prelude::*;

const ANSWERED: Verdict = Verdict::Transmit(Why::EchoAnswered);

fn tables(side: &Side) -> HostTables {
    empty().with_address(side.service, ECHO | ON_LINK)
}

/// From the client to the service's address.
pub fn request(side: &Side, payload: &[u8]) -> Datagram {
    let kind = if side.client.is_ipv4() { 8 } else { 128 };
    let body = Body::Icmp { kind, code: 0, rest: [0x12, 0x34, 0, 7], payload: payload.to_vec() };
    Datagram::asked(side.client, side.service, body)
}

/// RFC 792 and RFC 4443 section 4.2: identifier, sequence number and data come back.
pub fn reply(request: &Datagram) -> Datagram {
    let mut body = request.body.clone();
    if let Body::Icmp { kind, .. } = &mut body {
        *kind = if *kind == 8 { 0 } else { 129 };
    }
    Datagram {
        receiver: request.sender,
        sender: request.receiver,
        from: request.to,
        to: request.from,
        hops: 64,
        body,
        ..request.clone()
    }
}

#[test]
fn a_request_of_any_length_is_answered() {
    for side in SIDES {
        let data: Vec<u8> = (0..1_400).map(|index| (index * 7) as u8).collect();
        for length in (0..=66).chain([255, 256, 1_399, 1_400]) {
            let request = request(&side, &data[..length]);
            let sent = reply(&request).bytes();
            assert_eq!(sound(&sent), Some(true));
            assert_eq!(steered(&request.bytes(), &tables(&side)), (ANSWERED, sent), "{length} bytes");
        }
    }
}

#[test]
fn a_request_of_any_shape_is_answered_by_the_interface_that_it_came_in_by() {
    for side in SIDES {
        for request in shapes(&request(&side, b"an odd number of bytes: 27!")) {
            let sent = reply(&request).bytes();
            for interface in [WAN, LAN] {
                let got = outcome(&request.bytes(), interface, DRIVER, &tables(&side));
                assert_eq!((got.verdict, &got.frame), (ANSWERED, &sent), "{request:?}");
            }
            let (verdict, got) = steered(&padded(request.bytes(), 200), &tables(&side));
            assert_eq!((verdict, got), (ANSWERED, padded(sent, 200)), "what pads a frame stays behind it");
        }
    }
}

/// Hops begin anew, and no hop is taken of a packet that has arrived.
#[test]
fn a_request_is_answered_whatever_hops_it_has_left() {
    for side in SIDES {
        for hops in 0..=u8::MAX {
            let request = Datagram { hops, ..request(&side, b"") };
            assert_eq!(steered(&request.bytes(), &tables(&side)), (ANSWERED, reply(&request).bytes()));
        }
    }
}

#[test]
fn only_requests_to_addresses_that_answer_them_are_answered() {
    for side in SIDES {
        let ours = request(&side, b"data");
        let ignored = |packet: &Datagram, tables: &HostTables, what: &str| {
            let frame = packet.bytes();
            assert_eq!(steered(&frame, tables), (Verdict::Pass(Why::IcmpNotOurs), frame), "{what}");
        };
        ignored(&ours, &empty(), "an address of nobody");
        ignored(&ours, &empty().with_address(side.service, ON_LINK), "an address that is only on the link");
        ignored(&Datagram { to: side.host, ..ours.clone() }, &tables(&side), "this machine");
        ignored(&Datagram { from: side.service, to: side.client, ..ours.clone() }, &tables(&side), "from the address");
        let other = |kind: u8, code: u8| {
            let body = Body::Icmp { kind, code, rest: [0x12, 0x34, 0, 7], payload: b"data".to_vec() };
            Datagram { body, ..ours.clone() }
        };
        let asks = if side.client.is_ipv4() { 8 } else { 128 };
        for code in 1..=u8::MAX {
            ignored(&other(asks, code), &tables(&side), "an unknown code");
        }
        // A neighbour solicitation is something else.
        for kind in (0..=u8::MAX).filter(|kind| ![asks, 135].contains(kind)) {
            ignored(&other(kind, 0), &tables(&side), &format!("type {kind}"));
        }
    }
    // Each family has a protocol of its own for it.
    for (side, protocol, kind) in [(V4, 58, 128), (V4, 58, 8), (V6, 1, 8), (V6, 1, 128)] {
        let body = Body::Other { protocol, bytes: [&[kind, 0, 0, 0, 0x12, 0x34, 0, 7][..], b"data"].concat() };
        let frame = Datagram::asked(side.client, side.service, body).bytes();
        assert_eq!(steered(&frame, &tables(&side)), (Verdict::Pass(Why::OtherProtocol), frame));
    }
}

#[test]
fn a_wrong_checksum_stays_wrong() {
    for side in SIDES {
        let mut frame = request(&side, b"data").bytes();
        let last = frame.len() - 1;
        frame[last] ^= 1;
        let (verdict, sent) = steered(&frame, &tables(&side));
        assert_eq!((verdict, sound(&sent)), (ANSWERED, Some(false)), "the sender must find out");
    }
}

/// A message of nothing but zeros sums up to zero, for which 0xffff is the only checksum that holds; it was sent with 0.
#[test]
fn a_reply_of_nothing_but_zeros_has_a_checksum_that_holds() {
    for side in SIDES {
        for length in [0, 1, 2, 56] {
            let mut request = request(&side, &vec![0; length]);
            let Body::Icmp { rest, .. } = &mut request.body else { panic!("not ICMP") };
            *rest = [0; 4];
            let (verdict, sent) = steered(&request.bytes(), &tables(&side));
            assert_eq!((verdict, sound(&sent)), (ANSWERED, Some(true)), "{length} bytes");
        }
    }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn a_reply_is_the_request_with_another_type(
        six in any::<bool>(),
        rest in any::<[u8; 4]>(),
        data in prop::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(0xff)], 0..40),
    ) {
        let side = if six { V6 } else { V4 };
        let mut request = request(&side, &data);
        if let Body::Icmp { rest: place, .. } = &mut request.body {
            *place = rest;
        }
        let (verdict, sent) = steered(&request.bytes(), &tables(&side));
        prop_assert_eq!((verdict, sound(&sent)), (ANSWERED, Some(true)));
        let mut sent = sent;
        // The two zeros of a checksum are one.
        repair(&mut sent);
        prop_assert_eq!(sent, reply(&request).bytes());
    }
}
