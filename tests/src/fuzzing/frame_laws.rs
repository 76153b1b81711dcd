//! What must be true of any frame and what came of it.

use super::{
    frame::Place,
    owner,
    reader::{self, Parts, parts},
    sound::checksums,
};
use lb_common::{
    host::{Buffer, HostTables},
    path,
    tables::{Backend, CLEAN, NAT, TUNNEL4, TUNNEL6},
    verdict::{Verdict, Why},
};
use std::net::IpAddr;

/// Steers a frame, and holds the laws against what comes of it.
pub fn steer(tables: &HostTables, place: Place, frame: &[u8]) -> Why {
    let (verdict, sent) = steered(tables, place, frame);
    // What it was told stays true: a flow that has been begun or adopted is where it was.
    if place.is_twice() && !is_told_anew(verdict.why()) {
        assert_eq!((verdict, sent), steered(tables, place, frame), "the same frame leaves in another way");
    }
    verdict.why()
}

fn steered(tables: &HostTables, place: Place, frame: &[u8]) -> (Verdict, Vec<u8>) {
    let (counts, traffic, flows) = (tables.counts(), tables.traffic(), tables.flows());
    let packet = owner::packet(tables, frame);
    let [head, tail] = place.room();
    let mut buffer = Buffer::new(frame, place.interface(), head, tail);
    let verdict = path::steer(&mut buffer, tables);
    let sent = buffer.bytes().to_vec();
    let why = verdict.why();

    let mut moved = tables.counts();
    moved.retain(|why, count| counts.get(why) != Some(count));
    assert!(moved.keys().eq([&why]), "one frame leaves in one way, and not by {moved:?}");
    if packet.as_ref().is_none_or(|packet| packet.slot.previous == CLEAN) {
        assert_eq!(flows, tables.flows(), "a slot without a history touches no flow table");
    }
    let mut to = tables.traffic();
    to.retain(|id, after| traffic.get(id) != Some(after));
    let to: Vec<u32> = to.into_keys().collect();
    if matches!(verdict, Verdict::Pass(_) | Verdict::Drop(_)) && why != Why::ReturnedByStack {
        assert_eq!(sent, frame, "{why:?} leaves it untouched");
        assert!(to.is_empty(), "{why:?} went to {to:?}");
        return (verdict, sent);
    }
    let (tags, plain) = without_tags(frame);
    let (tags_after, sent_plain) = without_tags(&sent);
    assert_eq!(tags, tags_after, "a frame leaves by the VLAN that it came in by");
    let is_to_backend = matches!(
        why,
        Why::ForwardedDsr | Why::ForwardedNat | Why::ForwardedTunnel | Why::FragmentForwarded | Why::ErrorForwarded
    );
    assert_eq!(to.len(), usize::from(is_to_backend), "{why:?} went to {to:?}");
    if let [id] = to[..] {
        if why != Why::FragmentForwarded {
            let packet = packet.expect("what is forwarded is a service's");
            assert_eq!(id, packet.owner, "the packet went to another backend than its slot {:?} says", packet.slot);
        }
        forwarded(&tables.backends[&id], verdict, place.interface(), &plain, &sent_plain);
    } else {
        answered(why, &plain, &sent_plain);
    }
    (verdict, sent)
}

fn without_tags(frame: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let behind = reader::ethertype(frame);
    (frame[12..behind].to_vec(), [&frame[..12], &frame[behind..]].concat())
}

fn forwarded(backend: &Backend, verdict: Verdict, came_by: u32, frame: &[u8], sent: &[u8]) {
    let why = verdict.why();
    let expected = match backend.interface {
        interface if interface == came_by => Verdict::Transmit(why),
        interface => Verdict::Redirect(why, interface),
    };
    assert_eq!(verdict, expected);
    let [first, rest] = backend.ethernet();
    assert_eq!(sent[..8], first.to_le_bytes());
    assert_eq!(sent[8..12], (rest as u32).to_le_bytes());
    let packet = parts(frame).expect("what is forwarded can be read");
    let length = packet.end - packet.ip;
    assert!(length <= usize::from(backend.mtu), "{length} bytes are longer than {}", backend.mtu);
    match backend.flags & (NAT | TUNNEL4 | TUNNEL6) {
        0 => assert_eq!(sent[12..], frame[12..], "behind the MAC addresses nothing changes"),
        NAT => rewritten(frame, sent, &packet),
        _ => wrapped(backend, frame, sent, &packet),
    }
}

/// As many bytes as before, with checksums that are right or wrong as before.
fn rewritten(frame: &[u8], sent: &[u8], packet: &Parts) {
    assert_eq!(frame.len(), sent.len());
    let after = parts(sent).expect("what was rewritten can be read");
    assert_eq!((after.end, after.payload, after.protocol), (packet.end, packet.payload, packet.protocol));
    let no_checksum = packet.protocol == 17 && frame.get(packet.payload + 6..packet.payload + 8) == Some(&[0, 0]);
    if packet.in_fragments || no_checksum {
        if packet.four {
            assert_eq!(checksums(frame)[0], checksums(sent)[0], "the checksum of the IP header");
        }
    } else {
        assert_eq!(checksums(frame), checksums(sent));
    }
}

fn wrapped(backend: &Backend, frame: &[u8], sent: &[u8], inner: &Parts) {
    let outer = parts(sent).expect("an outer header can be read");
    assert_eq!(sent[outer.payload..], frame[14..], "what is inside stays as it was");
    assert_eq!(outer.end - outer.payload, inner.end - inner.ip, "the outer length is that of the packet inside");
    assert_eq!(outer.protocol, if inner.four { 4 } else { 41 });
    let class = |frame: &[u8], four: bool| if four { frame[15] } else { frame[14] << 4 | frame[15] >> 4 };
    assert_eq!(class(sent, outer.four), class(frame, inner.four), "the outer class is that of the packet inside");
    assert_eq!(sent[outer.hops], 64);
    let [start, end] = outer.destination;
    let (octets, header) = match backend.own.ip() {
        IpAddr::V4(address) => (address.octets().to_vec(), 20),
        IpAddr::V6(address) => (address.octets().to_vec(), 40),
    };
    assert_eq!((&sent[start..end], outer.payload), (&octets[..], 14 + header));
    if outer.four {
        assert_eq!(sent[20..22], [0x40, 0], "an outer packet is never in fragments");
        assert!(checksums(sent)[0], "the outer checksum");
    }
}

/// What goes to no backend: replies of backends, and the path's own.
fn answered(why: Why, frame: &[u8], sent: &[u8]) {
    match why {
        Why::Returned | Why::ErrorReturned | Why::ReturnedByStack => {
            rewritten(frame, sent, &parts(frame).expect("what is rewritten can be read"));
        }
        Why::EchoAnswered => {
            let packet = parts(frame).expect("what is answered can be read");
            rewritten(frame, sent, &packet);
            assert_eq!(sent[..12], [&frame[6..12], &frame[..6]].concat(), "it goes back where it came from");
        }
        Why::ArpAnswered => assert_eq!(frame.len(), sent.len()),
        Why::NeighborAnswered | Why::TooLongAnswered => complete(sent),
        why if is_of_dns(why) => {
            question_answered(why, frame, sent);
            complete(sent);
        }
        _ => panic!("{why:?} does not leave"),
    }
}

/// An answer's length and checksums are right.
fn complete(sent: &[u8]) {
    let reply = parts(sent).expect("an answer can be read");
    assert_eq!(reply.end, sent.len(), "an answer ends where it says");
    let checksums = checksums(sent);
    // What a message repeats of a packet may be wrong; its own headers are not.
    let own = if reply.four { 2 } else { 1 };
    assert!(checksums.len() >= own, "an answer has checksums");
    assert!(checksums[checksums.len() - own..].iter().all(|right| *right), "an answer's checksums are right");
}

/// What a client is told of by a message of DNS.
const fn is_of_dns(why: Why) -> bool {
    matches!(
        why,
        Why::Answered
            | Why::AnsweredNegative
            | Why::AnsweredCached
            | Why::DnsTruncated
            | Why::DnsSlipped
            | Why::DnsLapseRefused
    )
}

/// What takes turns, or tokens.
const fn is_told_anew(why: Why) -> bool {
    is_of_dns(why) || matches!(why, Why::DnsLimited | Why::DnsMissLimited)
}

/// The reply to a question is a response, with the same id and question, which goes back where that came from; what does without an
/// answer is no longer than the question with a cookie.
fn question_answered(why: Why, frame: &[u8], sent: &[u8]) {
    const UDP: usize = 8;
    const MESSAGE: usize = 12;
    const COOKIE: usize = 28;
    let (asked, replied) = (parts(frame).expect("a question can be read"), parts(sent).expect("a reply can be read"));
    let [client, server] = [&frame[asked.payload..asked.payload + 2], &frame[asked.payload + 2..asked.payload + 4]];
    assert_eq!(sent[replied.payload..replied.payload + 4], [server, client].concat());
    let (question, reply) = (&frame[asked.payload + UDP..asked.end], &sent[replied.payload + UDP..]);
    assert_eq!((&question[..2], reply[2] & 0x80), (&reply[..2], 0x80), "a response with the id of its question");
    assert_eq!(reply[4..6], [0, 1], "a reply has the question");
    let mut end = MESSAGE;
    while question[end] != 0 {
        end += 1 + usize::from(question[end]);
    }
    end += 5;
    assert_eq!(question[MESSAGE..end], reply[MESSAGE..end], "the question is as it was asked");
    let size =
        if question[11] == 0 { 512 } else { usize::from(question[end + 3]) << 8 | usize::from(question[end + 4]) };
    assert!(reply.len() <= size.clamp(512, 1_232), "a reply of {} bytes is more than the client takes", reply.len());
    if !matches!(why, Why::Answered | Why::AnsweredNegative | Why::AnsweredCached) {
        let most = if why == Why::DnsSlipped { 0 } else { COOKIE };
        assert!(reply.len() <= question.len() + most, "{why:?} says more than was asked");
    }
}
