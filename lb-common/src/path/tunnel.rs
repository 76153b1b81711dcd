//! Tunnels to backends: a packet of either family behind an outer IPv4 (RFC 2003, RFC 4213) or IPv6 header (RFC 2473).

use super::parse::Packet;
use crate::{
    checksum,
    frame::Frame,
    tables::{Backend, FAMILY_4, HEADER_WORDS, TUNNEL4, TUNNEL6},
    verdict::Why,
    wire::{
        ethernet::{IPV4, IPV6},
        ipv4::{DONT_FRAGMENT, Ipv4, NO_OPTIONS},
        ipv6::Ipv6,
        tunnel::{Front4, Front6},
    },
};
use core::net::{IpAddr, Ipv6Addr};

/// Hops of an outer packet.
const HOPS: u8 = 64;
/// Protocol number of IPv4 in an outer header.
pub const IPV4_INSIDE: u8 = 4;
/// Protocol number of IPv6 in an outer header.
pub const IPV6_INSIDE: u8 = 41;
/// Spreads a flow's hash anew: its upper bits have chosen the slot, and a backend's slots have some of them in common.
const SPREAD: u32 = 0x9e37_79b1;

/// The network that outer sources are taken from, so that ECMP and a receiver's queues tell flows apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sources {
    address: IpAddr,
    prefix: u8,
}

impl Sources {
    /// Addresses with this prefix; of those bits that it leaves, the last 32 vary.
    pub const fn new(address: IpAddr, prefix: u8) -> Self {
        Self { address, prefix }
    }

    /// The bits of the last four bytes that vary, in the order of the wire.
    fn mask(self) -> u32 {
        let (bits, prefix) = (if self.address.is_ipv4() { 32 } else { 128 }, u32::from(self.prefix));
        let free = bits - if prefix < bits { prefix } else { bits };
        1_u64.checked_shl(free).map_or(u32::MAX, |bits| (bits - 1) as u32).to_be()
    }
}

impl Backend {
    /// The bytes that an outer header takes.
    #[inline(always)]
    pub const fn overhead(&self) -> u16 {
        match self.flags & (TUNNEL4 | TUNNEL6) {
            TUNNEL4 => Ipv4::LEN as u16,
            TUNNEL6 => Ipv6::LEN as u16,
            _ => 0,
        }
    }

    /// The same behind a tunnel, whose sources are of the family of its own address. Its next hop has to be known: see
    /// [`Backend::via`], whose MTU is what the outer packet may have.
    pub fn through(self, sources: Sources) -> Self {
        let inside = if (self.service.tail >> 24) as u8 == FAMILY_4 { IPV4_INSIDE } else { IPV6_INSIDE };
        let mut header = [0_u8; HEADER_WORDS * 8];
        let (ethernet, outer) = header.split_at_mut(12);
        ethernet.copy_from_slice(bytemuck::cast_slice(&self.ethernet()).split_at(12).0);
        let mut write = |at: usize, bytes: &[u8]| {
            outer.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
        };
        let (flag, sum) = match (self.own.ip(), sources.address) {
            (IpAddr::V4(destination), IpAddr::V4(source)) => {
                write(0, &IPV4.to_be_bytes());
                write(2, &[NO_OPTIONS]);
                write(8, &DONT_FRAGMENT.to_be_bytes());
                write(10, &[HOPS, inside]);
                write(14, &source.octets());
                write(18, &destination.octets());
                let words = outer.iter().skip(2).take(Ipv4::LEN).copied();
                (TUNNEL4, sum_of(words))
            }
            (IpAddr::V6(destination), IpAddr::V6(source)) => {
                write(0, &IPV6.to_be_bytes());
                write(2, &[0x60]);
                write(8, &[inside, HOPS]);
                write(10, &Ipv6Addr::octets(&source));
                write(26, &destination.octets());
                (TUNNEL6, 0)
            }
            // Without a source of its family it can't be sent anything.
            _ => return self,
        };
        let flags = self.flags | flag;
        let wrapped =
            Self { header: bytemuck::cast(header), source_mask: sources.mask(), outer_sum: sum, flags, ..self };
        Self { mtu: self.mtu.saturating_sub(wrapped.overhead()), ..wrapped }
    }
}

fn sum_of(bytes: impl Iterator<Item = u8>) -> u32 {
    bytes.enumerate().fold(0, |sum, (at, byte)| sum + (u32::from(byte) << (8 * (at as u32 % 2))))
}

/// Puts an outer header around a packet. Its sender varies with `hash`.
#[inline(always)]
pub fn wrap<F: Frame>(frame: &mut F, packet: &Packet, backend: &Backend, hash: u32) -> Result<(), Why> {
    let source = hash.wrapping_mul(SPREAD) & backend.source_mask;
    if backend.flags & TUNNEL4 != 0 {
        wrap4(frame, packet, backend, source)
    } else {
        wrap6(frame, packet, backend, source)
    }
}

#[inline(always)]
fn wrap4<F: Frame>(frame: &mut F, packet: &Packet, backend: &Backend, source: u32) -> Result<(), Why> {
    let [a, b, c, d, e, ..] = backend.header;
    // No longer than its backend's MTU.
    let length = u64::from(packet.length.wrapping_add(Ipv4::LEN as u16).to_be());
    // The whole byte: RFC 6040 section 4.1 for the congestion part, RFC 2983 section 3.1 for the rest.
    let class = u64::from(packet.traffic_class);
    let sum = u64::from(backend.outer_sum) + length + (class << 8) + u64::from(source);
    let sum = u64::from(!checksum::fold(sum));
    frame.grow_front(Ipv4::LEN).ok_or(Why::NoRoom)?;
    let front: &mut Front4 = frame.head_mut().ok_or(Why::NoRoom)?;
    let [first, second, third, last] = &mut front.words;
    first.set(a);
    second.set(b | class << 56);
    third.set(c | length);
    last.set(d | sum | u64::from(source) << 16);
    front.end.set(e as u16);
    Ok(())
}

#[inline(always)]
fn wrap6<F: Frame>(frame: &mut F, packet: &Packet, backend: &Backend, source: u32) -> Result<(), Why> {
    let [a, b, c, d, e, f, g] = backend.header;
    let class = u64::from(packet.traffic_class);
    // Who balances by the flow label tells flows apart as well (RFC 6438); its bytes need no order.
    let label = u64::from(source.swap_bytes() ^ source) & 0xffff;
    frame.grow_front(Ipv6::LEN).ok_or(Why::NoRoom)?;
    let front: &mut Front6 = frame.head_mut().ok_or(Why::NoRoom)?;
    let [first, second, third, fourth, fifth, last] = &mut front.words;
    first.set(a);
    second.set(b | (class >> 4) << 48 | (class & 0xf) << 60);
    third.set(c | label | u64::from(packet.length.to_be()) << 16);
    fourth.set(d);
    fifth.set(e | u64::from(source) << 16);
    last.set(f);
    front.end.set(g as u32);
    front.rest.set((g >> 32) as u16);
    Ok(())
}
