//! Headers at their limits: what is not all there, lies about its length or is chained too far passes by name, untouched.

use crate::support::{
    LAN, SIDES, Side, V4, V6,
    datagram::{Body, Datagram, Extension},
    frames::{Transport, padded},
    sound::{repair, sound},
    steered,
    tables::{Build, dsr, empty, nat},
};
use lb_common::{
    frame::OFFSET_MAX,
    host::HostTables,
    verdict::{Verdict, Why},
};

const TRANSPORTS: [Transport; 2] = [Transport::Tcp, Transport::Udp];
const FORWARDED: Verdict = Verdict::Redirect(Why::ForwardedNat, LAN);

/// Services of both transports and families, all behind NAT.
fn tables() -> HostTables {
    let both = |tables: HostTables, side: &Side| {
        [6, 17].iter().fold(tables, |tables, protocol| {
            tables.with_service(side.service(), *protocol, &[nat(side, *protocol, LAN)])
        })
    };
    SIDES.iter().fold(empty(), both)
}

/// A frame passes, for this reason.
fn passes(why: Why, frame: &[u8], what: &str) {
    assert_eq!(steered(frame, &tables()), (Verdict::Pass(why), frame.to_vec()), "{what}");
}

/// A packet of every byte between its header and this many bytes of padding.
fn with_length(packet: &Datagram, length: u16) -> Vec<u8> {
    let mut frame = packet.bytes();
    let field = if packet.from.is_ipv4() { 16 } else { 18 };
    frame[field..field + 2].copy_from_slice(&length.to_be_bytes());
    repair(&mut frame);
    frame
}

#[test]
fn a_packet_that_says_to_be_shorter_than_its_headers_passes() {
    for (transport, header) in [(Transport::Tcp, 20), (Transport::Udp, 8)] {
        let four = Datagram::to_service(&V4, transport);
        for length in 0..20 + header {
            passes(Why::Truncated, &with_length(&four, length), &format!("{transport:?} in {length} bytes"));
        }
        assert_eq!(steered(&with_length(&four, 20 + header), &tables()).0, FORWARDED);
        let options = four.with_options(&[148, 4, 0, 0]);
        for length in 0..24 + header {
            passes(Why::Truncated, &with_length(&options, length), &format!("{transport:?} in {length} bytes"));
        }
        assert_eq!(steered(&with_length(&options, 24 + header), &tables()).0, FORWARDED);
        let six = Datagram::to_service(&V6, transport);
        for length in 0..header {
            passes(Why::Truncated, &with_length(&six, length), &format!("{transport:?} in {length} bytes"));
        }
        assert_eq!(steered(&with_length(&six, header), &tables()).0, FORWARDED);
        let extended = six.with_extensions(&[Extension::destination_options(2)]);
        for length in 0..16 + header {
            passes(Why::Truncated, &with_length(&extended, length), &format!("{transport:?} in {length} bytes"));
        }
        assert_eq!(steered(&with_length(&extended, 16 + header), &tables()).0, FORWARDED);
    }
}

#[test]
fn a_packet_longer_than_its_frame_passes() {
    for side in SIDES {
        for transport in TRANSPORTS {
            let packet = Datagram::to_service(&side, transport);
            let whole = packet.bytes();
            for length in 0..whole.len() {
                passes(Why::Truncated, &whole[..length], &format!("{length} of {} bytes", whole.len()));
            }
            let length = packet.packet().len() as u16 - if side.client.is_ipv4() { 0 } else { 40 };
            for length in [length + 1, length + 20, 0x7fff, u16::MAX] {
                passes(Why::Truncated, &with_length(&packet, length), &format!("{length} bytes"));
            }
        }
    }
}

#[test]
fn an_ipv4_header_of_an_impossible_length_passes() {
    for transport in TRANSPORTS {
        let frame = Datagram::to_service(&V4, transport).bytes();
        for first in (0x40..0x45).chain([0x00, 0x05, 0x15, 0x35, 0x55, 0x65, 0xf5]) {
            let mut frame = frame.clone();
            frame[14] = first;
            passes(Why::Ipv4Header, &frame, &format!("{first:#x}"));
        }
    }
    // A header that takes more than there is: with all of its options, no port is left.
    for length in [20, 24, 40, 59, 60, 67] {
        let mut frame = with_length(&Datagram::to_service(&V4, Transport::Udp), length);
        frame[14] = 0x4f;
        passes(Why::Truncated, &padded(frame, 200), &format!("60 bytes of header in {length}"));
    }
}

/// Options are carried, whatever they say: it is for the receiver to read them.
#[test]
fn options_that_make_no_sense_are_carried() {
    for options in [&[148, 0, 0, 0][..], &[7, 255, 4, 0], &[0, 1, 2, 3], &[0xff; 40]] {
        let packet = Datagram::to_service(&V4, Transport::Tcp).with_options(options);
        let sent = packet.translated(V4.backend(), LAN).bytes();
        assert_eq!(steered(&packet.bytes(), &tables()), (FORWARDED, sent));
    }
}

#[test]
fn tcp_options_that_make_no_sense_are_carried() {
    for side in SIDES {
        for options in [&[8, 0, 0, 0][..], &[0; 4], &[2, 0, 0, 0], &[254, 255, 1, 1], &[1; 40]] {
            let mut packet = Datagram::to_service(&side, Transport::Tcp);
            let Body::Tcp { options: place, .. } = &mut packet.body else { panic!("not TCP") };
            *place = options.to_vec();
            let sent = packet.translated(side.backend(), LAN).bytes();
            assert_eq!(steered(&packet.bytes(), &tables()), (FORWARDED, sent));
        }
        // A header length of TCP that is none, and one that is longer than the packet.
        for length in [0x00, 0x40, 0xf0] {
            let packet = Datagram::to_service(&side, Transport::Tcp).with_payload(&[]);
            let mut frame = packet.bytes();
            let at = frame.len() - packet.packet().len() + if side.client.is_ipv4() { 20 } else { 40 } + 12;
            frame[at] = length;
            repair(&mut frame);
            let (verdict, sent) = steered(&frame, &tables());
            assert_eq!((verdict, sound(&sent), sent[at]), (FORWARDED, Some(true), length));
        }
    }
}

/// UDP's own length counts for nothing but DNS: the receiver compares it.
#[test]
fn a_wrong_length_of_udp_is_carried() {
    for side in SIDES {
        for length in [0, 7, 8, 9, u16::MAX] {
            let mut frame = Datagram::to_service(&side, Transport::Udp).bytes();
            let at = if side.client.is_ipv4() { 38 } else { 58 };
            frame[at..at + 2].copy_from_slice(&u16::to_be_bytes(length));
            let (verdict, sent) = steered(&frame, &tables());
            assert_eq!((verdict, &sent[at..at + 2]), (FORWARDED, &length.to_be_bytes()[..]));
        }
    }
}

/// RFC 2675: a payload length of zero, and the length in a hop-by-hop option.
#[test]
fn a_jumbogram_passes() {
    let jumbo = Extension { number: 0, rest: vec![0, 0xc2, 4, 0, 1, 0, 0] };
    for extensions in [vec![], vec![jumbo]] {
        let packet = Datagram::to_service(&V6, Transport::Udp).with_extensions(&extensions);
        passes(Why::Truncated, &with_length(&packet, 0), "a jumbogram");
    }
    let nothing = Datagram::asked(V6.client, V6.service, Body::Other { protocol: 59, bytes: Vec::new() });
    passes(Why::OtherProtocol, &nothing.bytes(), "a packet of nothing");
}

#[test]
fn four_extension_headers_are_walked_past_and_a_fifth_is_not() {
    let kinds = [
        Extension::hop_by_hop(),
        Extension::destination_options(1),
        Extension::routing(0),
        Extension::fragment(9, 0, false),
    ];
    for transport in TRANSPORTS {
        for extension in &kinds {
            for count in 1..=4 {
                let packet = Datagram::to_service(&V6, transport).with_extensions(&vec![extension.clone(); count]);
                let sent = packet.translated(V6.backend(), LAN).bytes();
                assert_eq!(steered(&packet.bytes(), &tables()), (FORWARDED, sent), "{count} of {extension:?}");
            }
            for count in [5, 6, 20] {
                let packet = Datagram::to_service(&V6, transport).with_extensions(&vec![extension.clone(); count]);
                passes(Why::Ipv6Extensions, &packet.bytes(), &format!("{count} of {extension:?}"));
            }
        }
    }
}

/// RFC 8200 section 4.4: with segments left, its destination is not where it ends.
#[test]
fn a_routing_header_with_segments_left_passes() {
    for left in 1..=u8::MAX {
        let packet = Datagram::to_service(&V6, Transport::Udp).with_extensions(&[Extension::routing(left)]);
        passes(Why::Ipv6Extensions, &packet.bytes(), &format!("{left} segments left"));
    }
    // Of an unknown type, but at its end: to be ignored.
    let mut unknown = Extension::routing(0);
    unknown.rest[1] = 253;
    let packet = Datagram::to_service(&V6, Transport::Udp).with_extensions(&[unknown]);
    let sent = packet.translated(V6.backend(), LAN).bytes();
    assert_eq!(steered(&packet.bytes(), &tables()), (FORWARDED, sent));
}

/// What is encrypted has no ports, and what is authenticated must not be rewritten.
#[test]
fn authenticated_and_encrypted_packets_pass() {
    for side in SIDES {
        for protocol in [50, 51] {
            let tcp = Datagram::to_service(&side, Transport::Tcp).packet();
            let header = [&[6, 4, 0, 0][..], &[0x55; 20], &tcp[tcp.len() - 60..]].concat();
            let packet = Datagram::asked(side.client, side.service, Body::Other { protocol, bytes: header });
            passes(Why::OtherProtocol, &packet.bytes(), "in front");
            if !side.client.is_ipv4() {
                let packet = packet.with_extensions(&[Extension::hop_by_hop(), Extension::destination_options(1)]);
                passes(Why::OtherProtocol, &packet.bytes(), "behind extension headers");
            }
        }
    }
}

/// A header's length may not lead beyond the packet, though the frame has bytes there that look like ports of ours.
#[test]
fn an_extension_header_that_ends_behind_its_packet_passes() {
    let packet = Datagram::to_service(&V6, Transport::Tcp).with_extensions(&[Extension::destination_options(1)]);
    let whole = packet.bytes();
    let tcp = Datagram::to_service(&V6, Transport::Tcp).bytes()[54..].to_vec();
    for words in 5..=u8::MAX {
        let mut frame = whole.clone();
        frame[55] = words;
        // A whole segment to the service where the header ends.
        let end = 54 + 8 * (1 + usize::from(words));
        frame.resize(frame.len().max(end), 0);
        frame.splice(end.., tcp.iter().copied());
        passes(Why::Truncated, &frame, &format!("{words} words"));
    }
}

#[test]
fn an_extension_header_cut_short_passes() {
    let extensions = [Extension::hop_by_hop(), Extension::destination_options(2)];
    let packet = Datagram::to_service(&V6, Transport::Tcp).with_extensions(&extensions);
    let frame = packet.bytes();
    for length in 54..54 + 24 + 20 {
        // The packet says that it ends there, and does.
        let mut short = frame[..length].to_vec();
        short[18..20].copy_from_slice(&(length as u16 - 54).to_be_bytes());
        passes(Why::Truncated, &short, &format!("{length} bytes"));
    }
}

/// The kernel bounds a computed offset, and the host has to come to the same end.
#[test]
fn a_header_further_than_the_kernel_looks_is_not_found() {
    let filler =
        |words: u8| Extension { number: 60, rest: [&[words - 1][..], &vec![0; usize::from(words) * 8 - 2]].concat() };
    for transport in TRANSPORTS {
        for last in 1..=16 {
            let extensions = [filler(120), filler(120), filler(last), filler(1)];
            let packet = Datagram::to_service(&V6, transport).with_extensions(&extensions).with_payload(&[]);
            let at = 54 + 8 * (241 + usize::from(last));
            let mut tables = tables();
            tables.backends.values_mut().for_each(|backend| backend.mtu = 4_000);
            let (verdict, sent) = steered(&packet.bytes(), &tables);
            if at <= OFFSET_MAX {
                assert_eq!((verdict, sent), (FORWARDED, packet.translated(V6.backend(), LAN).bytes()), "at {at}");
            } else {
                assert_eq!((verdict, sent), (Verdict::Pass(Why::Truncated), packet.bytes()), "at {at}");
            }
        }
    }
}

/// Padding of the shortest frames must not be taken for QUIC, options or a longer packet; nor may more matter than the first tags.
#[test]
fn bytes_behind_a_packet_do_not_matter() {
    for side in SIDES {
        for transport in TRANSPORTS {
            let tables =
                empty().with_service(side.service(), transport.number(), &[dsr(&side, transport.number(), LAN)]);
            let packet = Datagram::to_service(&side, transport).with_payload(&[]);
            for filler in [0, 0xff, 0xc0, 0x45] {
                let mut frame = packet.bytes();
                frame.resize(frame.len() + 33, filler);
                let (verdict, sent) = steered(&frame, &tables);
                assert_eq!(verdict, Verdict::Redirect(Why::ForwardedDsr, LAN));
                assert_eq!(sent[12..], frame[12..]);
            }
        }
    }
}
