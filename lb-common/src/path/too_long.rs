//! Tells the sender of a packet that is longer than what its receiver can be sent (RFC 1191, RFC 8201).
//!
//! IPv4 packets that may be fragmented are answered as well where the path has to send them on: it can't fragment, and senders
//! heed the message.

use super::parse::{Kind, Packet};
use crate::{
    checksum,
    frame::Frame,
    tables::FAMILY_4,
    verdict::{Verdict, Why},
    wire::{
        ethernet::{IPV4, IPV6, turned_around},
        icmp::{
            FRAGMENTATION_NEEDED, IcmpFrame4, IcmpFrame6, PACKET_TOO_BIG, QUOTE4, QUOTE6, Quoted4, Quoted6,
            UNREACHABLE4,
        },
        ipv4::{self, Ipv4, Network4},
        ipv6::{self, Ipv6},
        transport::{ICMP, ICMPV6},
    },
};

/// Hops of a message.
const HOPS: u8 = 64;

/// Whether only the sender can make this packet shorter.
#[inline(always)]
pub fn may_not_be_fragmented<F: Frame>(frame: &F, packet: &Packet) -> bool {
    if packet.family != FAMILY_4 {
        return true;
    }
    frame.head::<Network4>().is_some_and(|head| head.ip.fragment.get() & ipv4::DONT_FRAGMENT != 0)
}

/// Tells the sender the length that can be sent on. The message comes from where the packet went to, an address that the sender's
/// firewall knows.
#[inline(always)]
pub fn answer<F: Frame>(frame: &mut F, packet: &Packet, mtu: u16) -> Result<Verdict, Why> {
    // Never about another message or about a fragment but the first (RFC 1122 section 3.2.2, RFC 4443 section 2.4 (e)).
    if packet.kind != Kind::Flow {
        return Err(Why::TooLong);
    }
    if packet.family == FAMILY_4 { answer4(frame, packet, mtu) } else { answer6(frame, packet, mtu) }
}

#[inline(always)]
fn answer4<F: Frame>(frame: &mut F, packet: &Packet, mtu: u16) -> Result<Verdict, Why> {
    // What is too long for a link is longer than this, unless the link is a strange one; the frame may be padded.
    let quoted: &Quoted4 = frame.head().filter(|_| usize::from(packet.length) >= QUOTE4).ok_or(Why::TooLong)?;
    let ethernet = turned_around(quoted.ethernet.get());
    let quote = quoted.packet.iter().fold(u64::from(quoted.last.get()), |sum, word| checksum::add(sum, word.get()));
    // Growing first: without room the frame passes as it came.
    frame.grow_front(IcmpFrame4::LEN - 14).ok_or(Why::NoRoom)?;
    frame.resize(IcmpFrame4::LEN + QUOTE4, IcmpFrame4::LEN + QUOTE4).ok_or(Why::NoRoom)?;
    let message: &mut IcmpFrame4 = frame.head_mut().ok_or(Why::NoRoom)?;
    message.ethernet.set(ethernet);
    message.ethertype.set(IPV4);
    let ([from, _], [to, _]) = (packet.from.address, packet.to.address);
    let ip = &mut message.ip;
    ip.version_length = ipv4::NO_OPTIONS;
    ip.traffic_class = 0;
    ip.total_length.set((QUOTE4 + 28) as u16);
    ip.identification.set(0);
    ip.fragment.set(ipv4::DONT_FRAGMENT);
    ip.time_to_live = HOPS;
    ip.protocol = ICMP;
    ip.source.set(to as u32);
    ip.destination.set(from as u32);
    let constant = u64::from(u16::from_ne_bytes([ipv4::NO_OPTIONS, 0]))
        + u64::from(((QUOTE4 + 28) as u16).to_be())
        + u64::from(ipv4::DONT_FRAGMENT.to_be())
        + u64::from(u16::from_ne_bytes([HOPS, ICMP]));
    ip.checksum = checksum::finish(checksum::add(checksum::add(constant, to), from));
    let icmp = &mut message.icmp;
    (icmp.kind, icmp.code) = (UNREACHABLE4, FRAGMENTATION_NEEDED);
    icmp.rest.set(u32::from(mtu));
    let head = u64::from(u16::from_ne_bytes([UNREACHABLE4, FRAGMENTATION_NEEDED])) + u64::from(mtu.to_be());
    icmp.checksum = checksum::finish(checksum::add(quote, head));
    Ok(Verdict::Transmit(Why::TooLongAnswered))
}

#[inline(always)]
fn answer6<F: Frame>(frame: &mut F, packet: &Packet, mtu: u16) -> Result<Verdict, Why> {
    let quoted: &Quoted6 = frame.head().filter(|_| usize::from(packet.length) >= QUOTE6).ok_or(Why::TooLong)?;
    let ethernet = turned_around(quoted.ethernet.get());
    let quote = quoted.packet.iter().fold(0, |sum, word| checksum::add(sum, word.get()));
    frame.grow_front(IcmpFrame6::LEN - 14).ok_or(Why::NoRoom)?;
    frame.resize(IcmpFrame6::LEN + QUOTE6, IcmpFrame6::LEN + QUOTE6).ok_or(Why::NoRoom)?;
    let message: &mut IcmpFrame6 = frame.head_mut().ok_or(Why::NoRoom)?;
    message.ethernet.set(ethernet);
    message.ethertype.set(IPV6);
    let length = (QUOTE6 + 8) as u16;
    let ip = &mut message.ip;
    ip.version_class_flow.set(ipv6::PLAIN);
    ip.payload_length.set(length);
    ip.next_header = ICMPV6;
    ip.hop_limit = HOPS;
    ip.source.set(packet.to.address);
    ip.destination.set(packet.from.address);
    let icmp = &mut message.icmp;
    (icmp.kind, icmp.code) = (PACKET_TOO_BIG, 0);
    icmp.rest.set(u32::from(mtu));
    let head = u64::from(u16::from_ne_bytes([PACKET_TOO_BIG, 0]))
        + u64::from(mtu.to_be())
        + u64::from(length.to_be())
        + u64::from(u16::from(ICMPV6).to_be());
    let sum = checksum::add(quote, head) + packet.from.address_sum() + packet.to.address_sum();
    icmp.checksum = checksum::finish(sum);
    Ok(Verdict::Transmit(Why::TooLongAnswered))
}

const _: () = assert!(IcmpFrame4::LEN - 14 == Ipv4::LEN + 8 && IcmpFrame6::LEN - 14 == Ipv6::LEN + 8);
