//! Answers on the link for service addresses, which no interface of this machine has.

use super::parse::Packet;
use crate::{
    checksum,
    frame::Frame,
    tables::{FAMILY_6, ON_LINK, Tables, address_words},
    verdict::{Verdict, Why},
    wire::{
        arp::{ArpFrame, REPLY, REQUEST},
        ethernet::{Ethernet, IPV4},
        icmp::IcmpFrame6,
        icmpv6::{
            ADVERTISEMENT, HOP_LIMIT, NeighborAdvertisement, NeighborSolicitation, OVERRIDE, SOLICITATION, SOLICITED,
        },
        ipv6::Ipv6,
        transport::ICMPV6,
    },
};
use core::net::{IpAddr, Ipv6Addr};

/// Answers an ARP request for a service address (RFC 826).
#[inline(always)]
pub fn answer_arp<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Why> {
    let interface = frame.interface();
    let arp: &mut ArpFrame = frame.head_mut().ok_or(Why::Truncated)?;
    if (arp.hardware.get(), arp.protocol.get(), arp.hardware_length, arp.protocol_length) != (1, IPV4, 6, 4)
        || arp.operation.get() != REQUEST
    {
        return Err(Why::ArpNotOurs);
    }
    let target = arp.target;
    // An announcement asks for the sender's own address: somebody else claims it, which an answer would not mend.
    if target == arp.sender || tables.answers_for(&[u64::from(u32::from_ne_bytes(target)), 0]) & ON_LINK == 0 {
        return Err(Why::ArpNotOurs);
    }
    let mac = tables.interface(interface).ok_or(Why::Inconsistent)?.mac;
    arp.ethernet.destination = arp.sender_mac;
    arp.ethernet.source = mac;
    arp.operation.set(REPLY);
    arp.target_mac = arp.sender_mac;
    arp.target = arp.sender;
    arp.sender_mac = mac;
    arp.sender = target;
    Ok(Verdict::Transmit(Why::ArpAnswered))
}

/// Where the answer to a solicitation without a source goes: all nodes (RFC 4861 section 7.2.4).
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// Its MAC address (RFC 2464 section 7).
const ALL_NODES_MAC: [u8; 6] = [0x33, 0x33, 0, 0, 0, 1];

/// Whether this ICMP message asks for a neighbour.
#[inline(always)]
pub fn is_solicitation<F: Frame>(frame: &F, packet: &Packet) -> bool {
    let asks = |head: &IcmpFrame6| head.icmp.kind == SOLICITATION && head.icmp.code == 0;
    packet.plain && packet.family == FAMILY_6 && frame.head().is_some_and(asks)
}

/// Answers a neighbour solicitation for a service address (RFC 4861 section 7.2.4). One without a source comes from a node
/// that wants the address for itself (RFC 4862 section 5.4.3) and learns that it is taken.
#[inline(always)]
pub fn answer_solicitation<F: Frame, T: Tables>(frame: &mut F, tables: &T) -> Result<Verdict, Why> {
    let interface = frame.interface();
    let asked: &NeighborSolicitation = frame.head().ok_or(Why::NeighborNotOurs)?;
    let target = asked.target.get();
    let complete = usize::from(asked.ip.payload_length.get()) >= NeighborSolicitation::LEN - Ethernet::LEN - Ipv6::LEN;
    // What a router let through or what ends before its target is not valid (RFC 4861 section 7.1.1).
    if asked.ip.hop_limit != HOP_LIMIT || !complete || tables.answers_for(&target) & ON_LINK == 0 {
        return Err(Why::NeighborNotOurs);
    }
    let mac = tables.interface(interface).ok_or(Why::Inconsistent)?.mac;
    let asker = asked.ip.source.get();
    let nobody = asker == [0, 0];

    // A solicitation mostly has an option with the asker's MAC address, where ours then goes.
    frame.resize(NeighborAdvertisement::LEN, NeighborSolicitation::LEN).ok_or(Why::NoRoom)?;
    let reply: &mut NeighborAdvertisement = frame.head_mut().ok_or(Why::Truncated)?;
    let message = &mut reply.message;
    message.ethernet.destination = if nobody { ALL_NODES_MAC } else { message.ethernet.source };
    message.ethernet.source = mac;
    message.ip.payload_length.set((NeighborAdvertisement::LEN - 14 - Ipv6::LEN) as u16);
    let receiver = if nobody { address_words(IpAddr::V6(ALL_NODES)) } else { asker };
    message.ip.destination.set(receiver);
    message.ip.source.set(target);
    message.kind = ADVERTISEMENT;
    let flags = if nobody { OVERRIDE } else { SOLICITED | OVERRIDE };
    message.flags.set(flags);
    reply.option = 2;
    reply.option_length = 1;
    reply.mac = mac;

    let [a, b, c, d, e, f] = mac;
    let words = [
        target,
        target, // as the source and in the message
        receiver,
        [u64::from(message.ip.payload_length.get().to_be()) + u64::from(u16::from(ICMPV6).to_be()), 0],
        [u64::from(u16::from_ne_bytes([ADVERTISEMENT, 0])), u64::from(flags.to_be())],
        [u64::from_ne_bytes([2, 1, a, b, c, d, e, f]), 0],
    ];
    let sum = words.iter().flatten().fold(0, |sum, word| checksum::add(sum, *word));
    message.checksum = checksum::finish(sum);
    Ok(Verdict::Transmit(Why::NeighborAnswered))
}
