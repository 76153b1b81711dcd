//! The outer header: who sent it to whom, and what it says of the packet inside.

use super::{link::Link, verdict::Why};
use crate::{
    checksum,
    frame::Frame,
    path::tunnel::{IPV4_INSIDE, IPV6_INSIDE},
    tables::{Address, Endpoint, FAMILY_4, FAMILY_6},
    wire::{
        ethernet::IPV4,
        ipv4::{self, Ipv4},
        ipv6::{FRAGMENT, Ipv6, is_extension},
    },
};
use zerocopy::byteorder::little_endian::U32 as Le32;

/// An outer header.
#[derive(Clone, Copy)]
pub struct Outer {
    /// Where the tunnel begins.
    pub from: Endpoint,
    /// Where it ends.
    pub to: Endpoint,
    /// Its length.
    pub header: usize,
    /// Offset of the packet inside.
    pub start: usize,
    /// Bytes that are inside.
    pub length: usize,
    /// Family of the packet inside.
    pub inner: u8,
    /// Its congestion notification (RFC 3168 section 5).
    pub mark: u8,
}

impl Outer {
    /// The reason of a packet that is taken out.
    #[inline(always)]
    pub const fn why(&self) -> Why {
        match (self.inner, self.header) {
            (FAMILY_4, Ipv4::LEN) => Why::Ipv4InIpv4,
            (_, Ipv4::LEN) => Why::Ipv6InIpv4,
            (FAMILY_4, _) => Why::Ipv4InIpv6,
            _ => Why::Ipv6InIpv6,
        }
    }
}

/// Reads the outer header. Most of what comes is in no tunnel, which is found out first.
#[inline(always)]
pub fn outer<F: Frame>(frame: &F, link: &Link) -> Result<Outer, Why> {
    if link.ethertype == IPV4 { outer4(frame, link) } else { outer6(frame, link) }
}

/// Family of what is inside.
#[inline(always)]
const fn inner(protocol: u8) -> Option<u8> {
    match protocol {
        IPV4_INSIDE => Some(FAMILY_4),
        IPV6_INSIDE => Some(FAMILY_6),
        _ => None,
    }
}

#[inline(always)]
fn outer4<F: Frame>(frame: &F, link: &Link) -> Result<Outer, Why> {
    let ip: &Ipv4 = frame.view(link.length).ok_or(Why::Truncated)?;
    let inner = inner(ip.protocol).ok_or(Why::NotTunneled)?;
    if ip.version_length != ipv4::NO_OPTIONS {
        return Err(Why::Ipv4Options);
    }
    if ip.fragment.get() & ipv4::FRAGMENT_MASK != 0 {
        return Err(Why::Fragment);
    }
    // The stack will not see this header, so nobody else finds out (RFC 1122 section 3.2.1.2).
    if sum(ip) != u16::MAX {
        return Err(Why::Ipv4Checksum);
    }
    let total = usize::from(ip.total_length.get());
    if total < Ipv4::LEN || frame.len() < link.length + total {
        return Err(Why::Truncated);
    }
    Ok(Outer {
        from: endpoint([u64::from(ip.source.get()), 0], FAMILY_4),
        to: endpoint([u64::from(ip.destination.get()), 0], FAMILY_4),
        header: Ipv4::LEN,
        start: link.length + Ipv4::LEN,
        length: total - Ipv4::LEN,
        inner,
        mark: ip.traffic_class & 3,
    })
}

#[inline(always)]
fn outer6<F: Frame>(frame: &F, link: &Link) -> Result<Outer, Why> {
    let ip: &Ipv6 = frame.view(link.length).ok_or(Why::Truncated)?;
    if ip.version_class_flow.get() >> 28 != 6 {
        return Err(Why::NotIp);
    }
    let start = link.length + Ipv6::LEN;
    let inner = match inner(ip.next_header) {
        Some(inner) => inner,
        None => return Err(behind(frame, ip.next_header, start)),
    };
    let length = usize::from(ip.payload_length.get());
    if frame.len() < start + length {
        return Err(Why::Truncated);
    }
    Ok(Outer {
        from: endpoint(ip.source.get(), FAMILY_6),
        to: endpoint(ip.destination.get(), FAMILY_6),
        header: Ipv6::LEN,
        start,
        length,
        inner,
        mark: ((ip.version_class_flow.get() >> 20) & 3) as u8,
    })
}

/// Why an IPv6 packet is not taken out: there is none inside, or extension headers are in front of it.
#[inline(always)]
fn behind<F: Frame>(frame: &F, header: u8, start: usize) -> Why {
    if !is_extension(header) {
        return Why::NotTunneled;
    }
    // Each of them begins with what comes behind it.
    match frame.view::<u8>(start) {
        Some(next) if inner(*next).is_none() => Why::NotTunneled,
        Some(_) if header == FRAGMENT => Why::Fragment,
        Some(_) => Why::Ipv6Extensions,
        None => Why::Truncated,
    }
}

#[inline(always)]
const fn endpoint(address: Address, family: u8) -> Endpoint {
    Endpoint { address, tail: Endpoint::tail([0; 2], 0, family) }
}

/// The sum of an IPv4 header with its checksum: all ones if that is right (RFC 1071 section 1).
#[inline(always)]
fn sum(ip: &Ipv4) -> u16 {
    let words: &[Le32; Ipv4::LEN / 4] = zerocopy::transmute_ref!(ip);
    checksum::fold(words.iter().fold(0, |sum, word| sum + u64::from(word.get())))
}
