//! Answers echo requests to service addresses, which are on no machine that would (RFC 792, RFC 4443 section 4.2).

use super::{fragment, parse::Packet};
use crate::{
    checksum,
    frame::Frame,
    tables::{ECHO, FAMILY_4, NOBODY, Tables},
    verdict::{Verdict, Why},
    wire::{
        icmp::{ECHO_REPLY4, ECHO_REPLY6, ECHO_REQUEST4, ECHO_REQUEST6, Icmp},
        ipv4::Network4,
        ipv6::Network6,
    },
};

/// Hops of a reply.
const HOPS: u8 = 64;

/// Whether this message asks for an echo.
#[inline(always)]
pub fn is_request<F: Frame>(frame: &F, packet: &Packet) -> bool {
    let asks = if packet.family == FAMILY_4 { ECHO_REQUEST4 } else { ECHO_REQUEST6 };
    frame.view(packet.payload.into()).is_some_and(|icmp: &Icmp| icmp.kind == asks && icmp.code == 0)
}

/// Answers a request.
#[inline(always)]
pub fn answer<F: Frame, T: Tables>(frame: &mut F, tables: &T, packet: &Packet) -> Result<Verdict, Why> {
    if tables.answers_for(&packet.to.address) & ECHO == 0 {
        return Err(Why::IcmpNotOurs);
    }
    let (asks, replies) =
        if packet.family == FAMILY_4 { (ECHO_REQUEST4, ECHO_REPLY4) } else { (ECHO_REQUEST6, ECHO_REPLY6) };
    let icmp: &mut Icmp = frame.view_mut(packet.payload.into()).ok_or(Why::Truncated)?;
    icmp.kind = replies;
    // The type is the first byte of its 16-bit word, which in memory order is the low one. A reply of nothing but zeros sums to the
    // one zero that an update never gives; the other one, which the field then has, is right for both.
    icmp.checksum = checksum::update_udp(icmp.checksum, checksum::difference(asks.into(), replies.into()));
    fragment::remember(tables, packet, NOBODY, false);
    turn_around(frame, packet)
}

/// Sends a packet back to its sender, as it is.
#[inline(always)]
pub fn turn_around<F: Frame>(frame: &mut F, packet: &Packet) -> Result<Verdict, Why> {
    // The addresses of an IP header change places, which no checksum notices.
    if packet.family == FAMILY_4 {
        let head: &mut Network4 = frame.head_mut().ok_or(Why::Truncated)?;
        head.ethernet.turn_around();
        let ip = &mut head.ip;
        let (source, destination) = (ip.source.get(), ip.destination.get());
        ip.source.set(destination);
        ip.destination.set(source);
        let hops = checksum::difference(ip.time_to_live.into(), HOPS.into());
        ip.time_to_live = HOPS;
        ip.checksum = checksum::update(ip.checksum, hops);
    } else {
        let head: &mut Network6 = frame.head_mut().ok_or(Why::Truncated)?;
        head.ethernet.turn_around();
        let ip = &mut head.ip;
        let (source, destination) = (ip.source.get(), ip.destination.get());
        ip.source.set(destination);
        ip.destination.set(source);
        ip.hop_limit = HOPS;
    }
    Ok(Verdict::Transmit(Why::EchoAnswered))
}
