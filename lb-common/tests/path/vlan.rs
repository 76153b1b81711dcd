//! VLAN tags: whatever the path does with a frame, it does behind tags as well, and the tags stay.

use crate::{
    echo,
    support::{
        DRIVER, LAN, Room, SIDES, Side, V4, V6, WAN, WAN_MAC,
        datagram::Datagram,
        frames::{Arp, Neighbor, Transport},
        messages::{A, Name, Question, question_frame, reply_frame},
        outcome,
        shapes::tags,
        steered,
        tables::{Build, TTL, dsr, empty, route_via, tunnel},
    },
    too_long,
    tunnel::wrapped,
};
use etherparse::PacketBuilder;
use lb_common::{
    host::HostTables,
    tables::{Backend, ECHO, ON_LINK},
    verdict::{Verdict, Why},
};
use std::net::IpAddr;

/// A frame behind tags.
fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    [&frame[..12], tags.as_flattened(), &frame[12..]].concat()
}

/// The same comes of a frame with and without tags.
fn same_behind_tags(frame: &[u8], sent: &[u8], verdict: Verdict, tables: &HostTables) {
    for tags in tags() {
        let got = steered(&tagged(frame, &tags), tables);
        assert_eq!(got, (verdict, tagged(sent, &tags)), "behind {tags:x?}");
    }
}

/// What etherparse takes for tags are tags.
#[test]
fn a_packet_behind_tags_is_the_one_that_etherparse_builds() {
    let tables = empty().with_service(V4.service(), 6, &[dsr(&V4, 6, LAN)]);
    let ([IpAddr::V4(client), IpAddr::V4(service)], payload) = ([V4.client, V4.service], [0x55; 32]) else {
        panic!("not IPv4")
    };
    let mut frames = vec![Vec::new(), Vec::new()];
    let link = || PacketBuilder::ethernet2(crate::support::ROUTER_MAC, WAN_MAC);
    let single = link().single_vlan(7_u16.try_into().unwrap()).ipv4(client.octets(), service.octets(), 57);
    single.tcp(40_000, 443, 1, 1).write(&mut frames[0], &payload).unwrap();
    let double = link().double_vlan(7_u16.try_into().unwrap(), 4_094_u16.try_into().unwrap());
    let double = double.ipv4(client.octets(), service.octets(), 57);
    double.tcp(40_000, 443, 1, 1).write(&mut frames[1], &payload).unwrap();
    for frame in frames {
        let (verdict, sent) = steered(&frame, &tables);
        assert_eq!((verdict, &sent[12..]), (Verdict::Redirect(Why::ForwardedDsr, LAN), &frame[12..]));
    }
}

#[test]
fn neighbours_are_answered_behind_tags() {
    let tables = empty().with_address(V4.service, ON_LINK).with_address(V6.service, ON_LINK);
    let asked = Arp::request(V4.client, V4.service);
    let reply = Arp {
        receiver: asked.sender_mac,
        sender: WAN_MAC,
        operation: 2,
        sender_mac: WAN_MAC,
        sender_address: asked.target_address,
        target_mac: asked.sender_mac,
        target_address: asked.sender_address,
        ..asked.clone()
    };
    same_behind_tags(&asked.bytes(), &reply.bytes(), Verdict::Transmit(Why::ArpAnswered), &tables);
    for asked in [
        Neighbor::solicitation(V6.client, V6.service).with_source_link_layer(),
        Neighbor::solicitation(V6.client, V6.service),
        Neighbor::solicitation([0_u16; 8].into(), V6.service),
    ] {
        let sent = asked.advertisement(WAN_MAC).bytes();
        same_behind_tags(&asked.bytes(), &sent, Verdict::Transmit(Why::NeighborAnswered), &tables);
    }
    let foreign = Arp::request(V4.client, V4.host).bytes();
    same_behind_tags(&foreign, &foreign, Verdict::Pass(Why::ArpNotOurs), &tables);
    let foreign = Neighbor::solicitation(V6.client, V6.host).bytes();
    same_behind_tags(&foreign, &foreign, Verdict::Pass(Why::NeighborNotOurs), &tables);
}

fn question(side: &Side) -> (Question, Vec<IpAddr>, HostTables) {
    let name = Name::of("www.example.com");
    let records: Vec<IpAddr> = (1..=3).map(|last| [203, 0, 113, last].into()).collect();
    let tables = empty().with_dns(side.dns()).with_answer(&name, &records);
    (Question::plain(&name, A).with_edns(1232), records, tables)
}

#[test]
fn questions_are_answered_behind_tags() {
    for side in SIDES {
        let (question, records, tables) = question(&side);
        let asked = question_frame(side.client(), side.dns(), question.bytes());
        let sent = reply_frame(&asked, question.reply(&records, TTL)).bytes();
        for tags in tags() {
            let got = steered(&tagged(&asked.bytes(), &tags), &tables.clone());
            assert_eq!(got, (Verdict::Transmit(Why::Answered), tagged(&sent, &tags)));
        }
    }
}

#[test]
fn echo_requests_are_answered_behind_tags() {
    for side in SIDES {
        let tables = empty().with_address(side.service, ECHO);
        let request = echo::request(&side, b"data");
        let sent = echo::reply(&request).bytes();
        same_behind_tags(&request.bytes(), &sent, Verdict::Transmit(Why::EchoAnswered), &tables);
    }
}

#[test]
fn senders_of_what_is_too_long_are_told_behind_tags() {
    for side in SIDES {
        let backend = Backend { mtu: 1_300, ..dsr(&side, 6, LAN) };
        let tables = empty().with_service(side.service(), 6, &[backend]);
        let asked = Datagram::to_service(&side, Transport::Tcp).with_payload(&[0x5a; 1_300]);
        let sent = too_long::told(&asked, 1_300).bytes();
        same_behind_tags(&asked.bytes(), &sent, Verdict::Transmit(Why::TooLongAnswered), &tables);
    }
}

/// Tags are no part of what a link's MTU limits.
#[test]
fn a_packet_that_just_fits_does_so_behind_tags() {
    for side in SIDES {
        let asked = Datagram::to_service(&side, Transport::Tcp).with_payload(&[0x5a; 1_300]);
        let mtu = asked.packet().len() as u16;
        let tables = empty().with_service(side.service(), 6, &[Backend { mtu, ..dsr(&side, 6, LAN) }]);
        let sent = asked.delivered(LAN).bytes();
        same_behind_tags(&asked.bytes(), &sent, Verdict::Redirect(Why::ForwardedDsr, LAN), &tables);
    }
}

/// Three tags, and others than those of VLANs, stay unread.
#[test]
fn a_third_tag_is_not_taken_off() {
    let tables = empty().with_service(V4.service(), 6, &[dsr(&V4, 6, LAN)]);
    let packet = Datagram::to_service(&V4, Transport::Tcp).bytes();
    for tags in [
        vec![[0x81, 0, 0, 1]; 3],
        vec![[0x88, 0xa8, 0, 1], [0x81, 0, 0, 1], [0x88, 0xa8, 0, 1]],
        vec![[0x91, 0, 0, 1]],
        vec![[0x81, 0, 0, 1], [0x91, 0, 0, 1]],
        vec![[0x88, 0x47, 0, 1]],
        vec![[0x81, 0, 0, 1]; 5],
    ] {
        let frame = tagged(&packet, &tags);
        assert_eq!(steered(&frame, &tables), (Verdict::Pass(Why::NotIp), frame), "{tags:x?}");
    }
}

/// The word of a second tag is only one if the first one says so.
#[test]
fn what_looks_like_a_second_tag_of_an_untagged_frame_is_none() {
    // IPv4's version and class are where a first tag's control would be, and 0x8100 is its total length.
    let tables = empty().with_service(V4.service(), 17, &[Backend { mtu: u16::MAX, ..dsr(&V4, 17, LAN) }]);
    let packet = Datagram::to_service(&V4, Transport::Udp).with_payload(&vec![0; 0x8100 - 28]);
    assert_eq!(packet.bytes()[16..18], [0x81, 0x00]);
    let sent = packet.delivered(LAN).bytes();
    assert_eq!(steered(&packet.bytes(), &tables), (Verdict::Redirect(Why::ForwardedDsr, LAN), sent));
}

/// Frames of 14 to 21 bytes lost their tag, or their first bytes.
#[test]
fn a_frame_that_ends_within_or_right_behind_its_tags_keeps_them() {
    let packet = Datagram::to_service(&V4, Transport::Tcp).bytes();
    for tags in tags() {
        let frame = tagged(&packet, &tags);
        for length in 0..40 {
            for room in [DRIVER, Room { head: 0, tail: 0 }] {
                let got = outcome(&frame[..length], WAN, room, &empty());
                assert_eq!((got.verdict, got.frame), (Verdict::Pass(Why::Truncated), frame[..length].to_vec()));
            }
        }
    }
}

/// What grew into the room that the tags had left could not get them back, and passed half-rewritten.
#[test]
fn a_frame_without_room_for_its_tags_passes_as_it_came() {
    for side in SIDES {
        let long = Datagram::to_service(&side, Transport::Tcp).with_payload(&[0x5a; 1_300]);
        let told = too_long::told(&long, 1_300);
        let near = Backend { mtu: 1_300, ..dsr(&side, 6, LAN) };
        let short = Datagram::to_service(&side, Transport::Tcp);
        let (question, records, dns) = question(&side);
        let asked = question_frame(side.client(), side.dns(), question.bytes());
        let reply = reply_frame(&asked, question.reply(&records, TTL)).bytes();
        let growth = reply.len() - asked.bytes().len();
        let cases = [
            (long.bytes(), told.bytes(), if side.client.is_ipv4() { 28 } else { 48 }, Why::TooLongAnswered, near),
            (
                short.bytes(),
                wrapped(&short, V4.tunnel, V4.backend, WAN),
                20,
                Why::ForwardedTunnel,
                tunnel(&side, &V4, 6, WAN),
            ),
            (
                short.bytes(),
                wrapped(&short, V6.tunnel, V6.backend, WAN),
                40,
                Why::ForwardedTunnel,
                tunnel(&side, &V6, 6, WAN),
            ),
        ];
        let mut all: Vec<_> = cases
            .map(|(came, sent, need, why, backend)| {
                (came, sent, need, why, empty().with_service(side.service(), 6, &[backend]))
            })
            .into();
        all.push((asked.bytes(), reply, growth, Why::Answered, dns.with_route(side.client, route_via(WAN))));
        for (came, sent, need, why, tables) in all {
            for tags in tags() {
                for head in 0..need + 12 {
                    let frame = tagged(&came, &tags);
                    let got = outcome(&frame, WAN, Room { head, tail: 0 }, &tables.clone());
                    let expected = if head < need {
                        (Verdict::Pass(Why::NoRoom), frame)
                    } else {
                        (Verdict::Transmit(why), tagged(&sent, &tags))
                    };
                    assert_eq!((got.verdict, got.frame), expected, "{head} bytes of room for {why:?} behind {tags:x?}");
                }
            }
        }
    }
}
