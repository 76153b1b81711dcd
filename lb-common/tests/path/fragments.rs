//! Datagrams in fragments: the first one finds its way by its ports, the rest follows it. What leaves is the rewritten datagram,
//! cut at the same places.

use crate::{
    echo,
    support::{
        DRIVER, LAN, SIDES, Side, V4, V6, WAN,
        datagram::{Body, Datagram, Extension},
        frames::Transport,
        outcome,
        shapes::tags,
        steered,
        tables::{Build, FIRST, NOW, dsr, empty, endpoint, nat, route_via, tunnel},
    },
    tunnel::wrapped_packet,
};
use lb_common::{
    host::HostTables,
    tables::{Backend, FRAGMENT_SECONDS, IN_USE, NAT, Route, Traffic},
    verdict::{Verdict, Why},
};
use std::{collections::BTreeMap, net::SocketAddr};

const IDENTIFICATION: u32 = 0x1234_cafe;
/// Two cuts: first, middle and last fragment.
const CUTS: [usize; 2] = [32, 48];

/// Datagrams long enough to be cut, in shapes that fragments can have.
fn datagrams(packet: &Datagram) -> Vec<Datagram> {
    let mut datagrams = Vec::new();
    for tags in tags() {
        let tagged = Datagram { tags, ..packet.clone() };
        datagrams.push(tagged.clone());
        if packet.from.is_ipv4() {
            datagrams.push(tagged.with_options(&[148, 4, 0, 0]));
        } else {
            datagrams.push(tagged.clone().with_extensions(&[Extension::hop_by_hop()]));
            datagrams.push(tagged.with_extensions(&[Extension::destination_options(2), Extension::routing(0)]));
        }
    }
    datagrams
}

fn asked(side: &Side, transport: Transport) -> Vec<Datagram> {
    datagrams(&Datagram::to_service(side, transport).with_payload(&[0xa5; 61]))
}

fn kinds() -> Vec<(Side, Transport)> {
    let mut kinds = vec![(V4, Transport::UdpWithoutChecksum)];
    for side in SIDES {
        kinds.extend([Transport::Tcp, Transport::Udp].map(|transport| (side, transport)));
    }
    kinds
}

/// Steers the fragments of a datagram one after the other: the first one leaves for this reason, the rest for that.
fn steered_in_turn(came: &[Vec<u8>], sent: &[Vec<u8>], tables: &HostTables, interface: u32, expected: [Verdict; 2]) {
    assert_eq!(came.len(), sent.len());
    for (index, (came, sent)) in came.iter().zip(sent).enumerate() {
        let got = outcome(came, interface, DRIVER, tables);
        assert_eq!((got.verdict, &got.frame), (expected[index.min(1)], sent), "fragment {index}");
    }
}

fn forwarded(first: Why) -> [Verdict; 2] {
    [first, Why::FragmentForwarded].map(|why| Verdict::Redirect(why, LAN))
}

#[test]
fn the_rest_follows_the_first_fragment_to_a_dsr_backend() {
    for (side, transport) in kinds() {
        let tables = empty().with_service(side.service(), transport.number(), &[dsr(&side, transport.number(), LAN)]);
        for packet in asked(&side, transport) {
            let sent = packet.delivered(LAN).fragments(IDENTIFICATION, &CUTS);
            let came = packet.fragments(IDENTIFICATION, &CUTS);
            steered_in_turn(&came, &sent, &tables, WAN, forwarded(Why::ForwardedDsr));
        }
    }
}

#[test]
fn the_rest_follows_the_first_fragment_to_a_nat_backend() {
    for (side, transport) in kinds() {
        let tables = empty().with_service(side.service(), transport.number(), &[nat(&side, transport.number(), LAN)]);
        for packet in asked(&side, transport) {
            let sent = packet.translated(side.backend(), LAN).fragments(IDENTIFICATION, &CUTS);
            let came = packet.fragments(IDENTIFICATION, &CUTS);
            steered_in_turn(&came, &sent, &tables, WAN, forwarded(Why::ForwardedNat));
            // Without hops left none of them goes on.
            for frame in (Datagram { hops: 1, ..packet.clone() }).fragments(IDENTIFICATION, &CUTS) {
                assert_eq!(steered(&frame, &tables), (Verdict::Pass(Why::HopsExceeded), frame));
            }
        }
    }
}

#[test]
fn the_rest_follows_the_first_fragment_through_a_tunnel() {
    for (side, transport) in kinds() {
        for outer in SIDES {
            let backend = tunnel(&side, &outer, transport.number(), LAN);
            let tables = empty().with_service(side.service(), transport.number(), &[backend]);
            for packet in asked(&side, transport) {
                let came = packet.fragments(IDENTIFICATION, &CUTS);
                let wrapped = |frame: &Vec<u8>| {
                    let inner = &frame[14 + 4 * packet.tags.len()..];
                    wrapped_packet(inner, &packet, outer.tunnel, outer.backend, LAN)
                };
                let sent: Vec<_> = came.iter().map(wrapped).collect();
                steered_in_turn(&came, &sent, &tables, WAN, forwarded(Why::ForwardedTunnel));
            }
        }
    }
}

#[test]
fn the_rest_follows_the_first_fragment_of_a_reply_to_the_client() {
    for (side, transport) in kinds() {
        let tables = empty().with_service(side.service(), transport.number(), &[nat(&side, transport.number(), LAN)]);
        let by_stack = tables.clone().with_route(side.client, Route::Stack);
        let tables = tables.with_route(side.client, route_via(WAN));
        for reply in datagrams(&Datagram::reply(&side, transport).with_payload(&[0xa5; 61])) {
            let came = reply.fragments(IDENTIFICATION, &CUTS);
            let sent = reply.restored(side.service(), WAN).fragments(IDENTIFICATION, &CUTS);
            steered_in_turn(&came, &sent, &tables, LAN, [Verdict::Redirect(Why::Returned, WAN); 2]);
            let sent = reply.clone().with_source(side.service()).fragments(IDENTIFICATION, &CUTS);
            steered_in_turn(&came, &sent, &by_stack, LAN, [Verdict::Pass(Why::ReturnedByStack); 2]);
        }
    }
}

#[test]
fn the_rest_of_an_echo_request_goes_back_too() {
    for side in SIDES {
        let tables = empty().with_address(side.service, lb_common::tables::ECHO);
        for request in datagrams(&echo::request(&side, &[0xa5; 61])) {
            let came = request.fragments(IDENTIFICATION, &CUTS);
            let sent = echo::reply(&request).fragments(IDENTIFICATION, &CUTS);
            steered_in_turn(&came, &sent, &tables, WAN, [Verdict::Transmit(Why::EchoAnswered); 2]);
        }
    }
}

#[test]
fn fragments_are_counted_for_their_backend() {
    for side in SIDES {
        let tables = empty().with_service(side.service(), 17, &[nat(&side, 17, LAN)]);
        let frames = asked(&side, Transport::Udp)[0].fragments(IDENTIFICATION, &CUTS);
        frames.iter().for_each(|frame| drop(steered(frame, &tables)));
        let traffic = Traffic { packets: 3, bytes: frames.iter().map(|frame| frame.len() as u64).sum() };
        assert_eq!(tables.traffic(), BTreeMap::from([(FIRST, traffic)]));
        assert_eq!(tables.counts(), BTreeMap::from([(Why::ForwardedNat, 1), (Why::FragmentForwarded, 2)]));
    }
}

/// What `tables` make of the last fragment of a datagram.
fn last(packet: &Datagram, identification: u32, tables: &HostTables) -> Why {
    let frame = packet.fragments(identification, &CUTS).remove(2);
    let (verdict, sent) = steered(&frame, tables);
    if let Verdict::Pass(_) = verdict {
        assert_eq!(frame, sent, "what passes is untouched");
    }
    verdict.why()
}

fn first(packet: &Datagram, identification: u32, tables: &HostTables) -> Why {
    steered(&packet.fragments(identification, &CUTS)[0], tables).0.why()
}

/// RFC 791 section 3.2 and RFC 8200 section 4.5: addresses and identification, in IPv4 the protocol too.
#[test]
fn a_fragment_follows_only_the_first_one_of_its_own_datagram() {
    for side in SIDES {
        let tables = empty().with_service(side.service(), 17, &[dsr(&side, 17, LAN)]);
        let packet = asked(&side, Transport::Udp).remove(0);
        assert_eq!(last(&packet, IDENTIFICATION, &tables), Why::FragmentUnknown, "before the first one");
        assert_eq!(first(&packet, IDENTIFICATION, &tables), Why::ForwardedDsr);
        assert_eq!(last(&packet, IDENTIFICATION, &tables), Why::FragmentForwarded);
        assert_eq!(last(&packet, IDENTIFICATION ^ 1, &tables), Why::FragmentUnknown, "another datagram");
        let from = packet.clone().with_source(SocketAddr::new(side.router, 0));
        assert_eq!(last(&from, IDENTIFICATION, &tables), Why::FragmentUnknown, "from somebody else");
        let to = packet.clone().with_destination(SocketAddr::new(side.dns, 0));
        assert_eq!(last(&to, IDENTIFICATION, &tables), Why::FragmentUnknown, "to somebody else");
        let back = Datagram { from: packet.to, to: packet.from, ..packet.clone() };
        assert_eq!(last(&back, IDENTIFICATION, &tables), Why::FragmentUnknown, "the other direction");
        let tcp = asked(&side, Transport::Tcp).remove(0);
        let expected = if side.client.is_ipv4() { Why::FragmentUnknown } else { Why::FragmentForwarded };
        assert_eq!(last(&tcp, IDENTIFICATION, &tables), expected, "of another protocol");
    }
    // IPv6 has 32 bits of it.
    let tables = empty().with_service(V6.service(), 17, &[dsr(&V6, 17, LAN)]);
    let packet = asked(&V6, Transport::Udp).remove(0);
    assert_eq!(first(&packet, IDENTIFICATION, &tables), Why::ForwardedDsr);
    assert_eq!(last(&packet, IDENTIFICATION ^ 1 << 31, &tables), Why::FragmentUnknown);
}

/// IPv4 with the words of an IPv6 address: no datagram of one family is of the other.
#[test]
fn families_do_not_share_datagrams() {
    let [four, six] = SIDES.map(|side| empty().with_service(side.service(), 17, &[dsr(&side, 17, LAN)]));
    let [a, b] = SIDES.map(|side| asked(&side, Transport::Udp).remove(0));
    assert_eq!(first(&a, 7, &four), Why::ForwardedDsr);
    let same_words = |address| match address {
        std::net::IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            std::net::IpAddr::from([a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
        }
        address => address,
    };
    let alike = Datagram { from: same_words(a.from), to: same_words(a.to), ..b };
    assert_eq!(last(&alike, 7, &four), Why::FragmentUnknown);
    assert_eq!(last(&alike, 7, &six), Why::FragmentUnknown);
}

#[test]
fn a_datagram_is_forgotten_when_nobody_would_wait_for_its_rest_any_more() {
    for side in SIDES {
        let packet = asked(&side, Transport::Udp).remove(0);
        for (later, expected) in [
            (0, Why::FragmentForwarded),
            (FRAGMENT_SECONDS, Why::FragmentForwarded),
            (FRAGMENT_SECONDS + 1, Why::FragmentUnknown),
            (u64::from(u32::MAX) + 1, Why::FragmentUnknown),
        ] {
            let mut tables = empty().with_service(side.service(), 17, &[dsr(&side, 17, LAN)]);
            assert_eq!(first(&packet, IDENTIFICATION, &tables), Why::ForwardedDsr);
            tables.seconds = NOW + later;
            assert_eq!(last(&packet, IDENTIFICATION, &tables), expected, "{later} s later");
        }
    }
}

/// The latest first fragment counts: identifications come again.
#[test]
fn an_identification_that_comes_again_leads_to_where_the_new_datagram_went() {
    for side in SIDES {
        let tables = empty().with_service(side.service(), 17, &[dsr(&side, 17, LAN)]).with_service(
            SocketAddr::new(side.service, 444),
            17,
            &[nat(&side, 17, LAN)],
        );
        let packet = asked(&side, Transport::Udp).remove(0);
        let other = packet.clone().with_destination(SocketAddr::new(side.service, 444));
        assert_eq!(first(&packet, IDENTIFICATION, &tables), Why::ForwardedDsr);
        assert_eq!(first(&other, IDENTIFICATION, &tables), Why::ForwardedNat);
        assert_eq!(last(&packet, IDENTIFICATION, &tables), Why::FragmentForwarded);
        assert_eq!(tables.traffic()[&(FIRST + 1)].packets, 2);
    }
}

/// The id in a table of fragments may be another backend's by now.
#[test]
fn a_fragment_does_not_follow_to_a_backend_of_another_service() {
    for side in SIDES {
        let packet = asked(&side, Transport::Udp).remove(0);
        let elsewhere = SocketAddr::new(side.host, 443);
        let other = Backend::new(endpoint(side.backend(), 17), endpoint(elsewhere, 17), NAT);
        let changes: [fn(&mut Backend, Backend); 2] =
            [|backend, other| *backend = other, |backend, _| backend.flags &= !IN_USE];
        for change in changes {
            let mut tables = empty().with_service(side.service(), 17, &[nat(&side, 17, LAN)]);
            assert_eq!(first(&packet, IDENTIFICATION, &tables), Why::ForwardedNat);
            change(tables.backends.get_mut(&FIRST).unwrap(), other);
            assert_eq!(last(&packet, IDENTIFICATION, &tables), Why::FragmentUnknown);
        }
        let mut tables = empty().with_service(side.service(), 17, &[nat(&side, 17, LAN)]);
        tables = tables.with_route(side.client, route_via(WAN));
        let reply = Datagram::reply(&side, Transport::Udp).with_payload(&[0xa5; 61]);
        assert_eq!(first(&reply, IDENTIFICATION, &tables), Why::Returned);
        tables.backends.get_mut(&FIRST).unwrap().own = endpoint(SocketAddr::new(side.router, 8_443), 17);
        assert_eq!(last(&reply, IDENTIFICATION, &tables), Why::FragmentUnknown);
    }
}

/// What its first fragment was not sent for, the rest is not either: the kernel puts both together.
#[test]
fn the_rest_passes_where_the_first_fragment_passed() {
    for side in SIDES {
        let tables = empty().with_service(side.service(), 17, &[]).with_dns(side.dns()).with_service(
            SocketAddr::new(side.service, 444),
            17,
            &[nat(&side, 17, LAN)],
        );
        let packet = asked(&side, Transport::Udp).remove(0);
        for (to, why) in
            [(side.service(), Why::NoBackend), (side.dns(), Why::DnsNotPlain), (side.host(), Why::NoService)]
        {
            let packet = packet.clone().with_destination(to);
            assert_eq!(first(&packet, IDENTIFICATION, &tables), why);
            assert_eq!(last(&packet, IDENTIFICATION, &tables), Why::FragmentUnknown);
        }
        // A reply that is for this machine.
        let reply = Datagram::reply(&side, Transport::Udp).with_payload(&[0xa5; 61]);
        assert_eq!(first(&reply, IDENTIFICATION, &tables), Why::ReturnNotForwarded);
        assert_eq!(last(&reply, IDENTIFICATION, &tables), Why::FragmentUnknown);
        // Echo requests to an address that answers none, and errors, of which too little is there.
        let request = echo::request(&side, &[0xa5; 61]);
        assert_eq!(first(&request, IDENTIFICATION, &tables), Why::IcmpNotOurs);
        assert_eq!(last(&request, IDENTIFICATION, &tables), Why::FragmentUnknown);
        let about = reply.with_source(side.service());
        let error = Datagram::error(side.router, &about, if side.client.is_ipv4() { 3 } else { 1 }, 1, usize::MAX);
        assert_eq!(first(&error, IDENTIFICATION, &tables), Why::IcmpNotOurs);
        assert_eq!(last(&error, IDENTIFICATION, &tables), Why::FragmentUnknown);
    }
}

/// RFC 6946: a fragment header on a datagram that is whole says nothing about others, not even those of its identification.
#[test]
fn an_atomic_fragment_is_a_whole_datagram() {
    let tables = empty().with_service(V6.service(), 17, &[nat(&V6, 17, LAN)]);
    let packet = Datagram::to_service(&V6, Transport::Udp).with_payload(&[0xa5; 61]);
    let atomic = packet.clone().with_extensions(&[Extension::fragment(IDENTIFICATION, 0, false)]);
    let sent = atomic.translated(V6.backend(), LAN).bytes();
    assert_eq!(steered(&atomic.bytes(), &tables), (Verdict::Redirect(Why::ForwardedNat, LAN), sent));
    assert_eq!(last(&packet, IDENTIFICATION, &tables), Why::FragmentUnknown);
}

/// Reserved bits of the fragment header are ignored (RFC 8200 section 4.5), and the evil bit of IPv4 is not an offset.
#[test]
fn reserved_bits_make_no_fragment() {
    let tables =
        SIDES.iter().fold(empty(), |tables, side| tables.with_service(side.service(), 17, &[dsr(side, 17, LAN)]));
    let mut atomic = Extension::fragment(IDENTIFICATION, 0, false);
    (atomic.rest[0], atomic.rest[2]) = (0xff, 0x06);
    let packet = Datagram::to_service(&V6, Transport::Udp).with_extensions(&[atomic]);
    let got = steered(&packet.bytes(), &tables);
    assert_eq!(got, (Verdict::Redirect(Why::ForwardedDsr, LAN), packet.delivered(LAN).bytes()));
    let mut evil = Datagram::to_service(&V4, Transport::Udp).bytes();
    evil[20] |= 0x80;
    crate::support::sound::repair(&mut evil);
    assert_eq!(steered(&evil, &tables).0, Verdict::Redirect(Why::ForwardedDsr, LAN));
}

/// A first fragment without a whole transport header finds no way (RFC 1858 section 3), nor does the rest then.
#[test]
fn a_first_fragment_too_short_for_its_ports_passes() {
    for (side, transport) in kinds() {
        let protocol = transport.number();
        let tables = empty().with_service(side.service(), protocol, &[dsr(&side, protocol, LAN)]);
        let packet = Datagram::to_service(&side, transport).with_payload(&[0xa5; 61]);
        let (cut, expected) = match transport {
            Transport::Tcp => (16, Why::Truncated),
            _ => (8, Why::ForwardedDsr),
        };
        let frames = packet.fragments(IDENTIFICATION, &[cut]);
        assert_eq!(steered(&frames[0], &tables).0.why(), expected);
        let rest = if expected == Why::Truncated { Why::FragmentUnknown } else { Why::FragmentForwarded };
        assert_eq!(steered(&frames[1], &tables).0.why(), rest);
        // Of nothing at all.
        let frames = packet.fragments(IDENTIFICATION ^ 1, &[0]);
        assert_eq!(steered(&frames[0], &tables), (Verdict::Pass(Why::Truncated), frames[0].clone()));
    }
}

/// A fragment at offset 8 that overlaps the ports goes where the first one goes: it can't reach another service.
#[test]
fn an_overlapping_fragment_goes_where_the_first_one_goes() {
    for side in SIDES {
        let tables = empty().with_service(side.service(), 6, &[dsr(&side, 6, LAN)]);
        let packet = Datagram::to_service(&side, Transport::Tcp).with_payload(&[0xa5; 61]);
        assert_eq!(first(&packet, IDENTIFICATION, &tables), Why::ForwardedDsr);
        let overlap = packet.fragments(IDENTIFICATION, &[8]).remove(1);
        assert_eq!(steered(&overlap, &tables).0, Verdict::Redirect(Why::FragmentForwarded, LAN));
        assert_eq!(tables.traffic().len(), 1);
    }
}

#[test]
fn a_fragment_without_a_payload_passes() {
    for side in SIDES {
        let tables = empty().with_service(side.service(), 17, &[dsr(&side, 17, LAN)]);
        let packet = asked(&side, Transport::Udp).remove(0);
        assert_eq!(first(&packet, IDENTIFICATION, &tables), Why::ForwardedDsr);
        let nothing = Datagram { body: Body::Other { protocol: 17, bytes: vec![0x55; 16] }, ..packet };
        let mut frame = nothing.fragments(IDENTIFICATION, &[16]).remove(1);
        assert_eq!(steered(&frame, &tables), (Verdict::Pass(Why::Truncated), frame.clone()));
        // Padding is no payload.
        frame.resize(frame.len() + 20, 0);
        assert_eq!(steered(&frame, &tables), (Verdict::Pass(Why::Truncated), frame));
    }
}

/// The rest of a datagram that is too long for its backend: no message may be sent about it (RFC 1122 section 3.2.2).
#[test]
fn the_rest_of_a_datagram_that_is_too_long_passes() {
    for side in SIDES {
        let backend = Backend { mtu: 1_300, ..dsr(&side, 17, LAN) };
        let tables = empty().with_service(side.service(), 17, &[backend]);
        let packet = Datagram::to_service(&side, Transport::Udp).with_payload(&[0xa5; 1_600]);
        let frames = packet.fragments(IDENTIFICATION, &[64]);
        assert_eq!(steered(&frames[0], &tables).0.why(), Why::ForwardedDsr);
        assert_eq!(steered(&frames[1], &tables), (Verdict::Pass(Why::TooLong), frames[1].clone()));
    }
}
