//! Frames in tunnels, at least one for every way out of the decapsulator, made by a foreign packet builder.

use super::{BACKENDS, BALANCERS};
use anyhow::{Result, bail};
use etherparse::{IpHeaders, IpNumber, Ipv4Header, Ipv6Header, PacketBuilder, VlanId};
use std::net::IpAddr;

/// A frame with a name that says what it tries.
#[derive(Clone)]
pub struct Named {
    /// What it tries.
    pub name: String,
    /// Its bytes.
    pub frame: Vec<u8>,
    /// Offset of the outer header.
    pub outer: usize,
}

/// Length of Ethernet's header without a tag.
const ETHERNET: usize = 14;
/// Length of a VLAN tag.
const TAG: usize = 4;
/// Next header, and likewise below: destination options (RFC 8200 section 4.6).
const OPTIONS: u8 = 60;
/// A fragment (RFC 8200 section 4.5).
const FRAGMENT: u8 = 44;
/// No tunnel.
const UDP: u8 = 17;
/// Congestion notifications, outer and inner: what stays, what changes, and what is dropped.
const MARKS: [[u8; 2]; 5] = [[0, 0], [2, 2], [3, 2], [1, 2], [3, 0]];

/// One family's addresses.
#[derive(Clone, Copy)]
struct Side {
    family: &'static str,
    /// Outer protocol number of a packet of this family.
    protocol: u8,
    backend: &'static str,
    balancer: &'static str,
    client: &'static str,
    service: &'static str,
}

fn sides() -> [Side; 2] {
    let ([backend4, backend6], [balancer4, balancer6]) = (BACKENDS, BALANCERS);
    [
        Side {
            family: "IPv4",
            protocol: 4,
            backend: backend4,
            balancer: balancer4,
            client: "198.51.100.7",
            service: "192.0.2.10",
        },
        Side {
            family: "IPv6",
            protocol: 41,
            backend: backend6,
            balancer: balancer6,
            client: "2001:db8:c::7",
            service: "2001:db8::10",
        },
    ]
}

/// All frames.
pub fn all() -> Result<Vec<Named>> {
    let [four, six] = sides();
    let mut all = Vec::new();
    // Outside, inside, and the family that is not inside.
    for (outer, inner, other) in [(four, four, six), (four, six, four), (six, four, six), (six, six, four)] {
        let mix = format!("{} in {}", inner.family, outer.family);
        for tags in 0..=2 {
            for [outside, inside] in MARKS {
                let frame =
                    frame(outer.balancer, outer.backend, tags, outside, inner.protocol, &packet(inner, inside)?)?;
                let name = format!("{mix}, {tags} tags, marks {outside} and {inside}");
                all.push(Named { name, frame, outer: ETHERNET + TAG * tags });
            }
        }
        let mut add = |name: &str, frame| all.push(Named { name: format!("{mix}, {name}"), frame, outer: ETHERNET });
        let whole = packet(inner, 0)?;
        let plain = |from, to, protocol, packet: &[u8]| frame(from, to, 0, 0, protocol, packet);
        let tunnel = |protocol, packet: &[u8]| plain(outer.balancer, outer.backend, protocol, packet);
        add("to another address", plain(outer.balancer, outer.client, inner.protocol, &whole)?);
        add("from another source", plain(outer.client, outer.backend, inner.protocol, &whole)?);
        add("padded", [tunnel(inner.protocol, &whole)?, vec![0; 30]].concat());
        add("cut short inside", tunnel(inner.protocol, whole.split_at(whole.len() - 5).0)?);
        add("of another version inside", tunnel(inner.protocol, &packet(other, 0)?)?);
        let behind = [&[inner.protocol, 0, 0, 1, 0, 0, 0, 7][..], &whole].concat();
        add("behind options", tunnel(OPTIONS, &behind)?);
        add("in a fragment", tunnel(FRAGMENT, &behind)?);
        add("in no tunnel", tunnel(UDP, &whole)?);
        let mut strange = tunnel(inner.protocol, &whole)?;
        strange.iter_mut().skip(ETHERNET).take(1).for_each(|first| *first ^= 3);
        add("with options or of another class outside", strange);
    }
    Ok(all)
}

/// What is inside.
fn packet(side: Side, mark: u8) -> Result<Vec<u8>> {
    let mut packet = Vec::new();
    let builder = PacketBuilder::ip(header(side.client, side.service, 0x28 | mark)?);
    builder.tcp(40_001, 443, 1_000, 64_240).write(&mut packet, b"hello")?;
    Ok(packet)
}

fn frame(from: &str, to: &str, tags: usize, mark: u8, protocol: u8, packet: &[u8]) -> Result<Vec<u8>> {
    let link = PacketBuilder::ethernet2([2, 0, 0, 0, 0, 0x10], [2, 0, 0, 0, 0, 1]);
    let header = header(from, to, 0xb8 | mark)?;
    let (near, far) = (VlanId::try_new(3_077)?, VlanId::try_new(100)?);
    let outer = ETHERNET + TAG * tags;
    let place = outer + if matches!(header, IpHeaders::Ipv4(..)) { 9 } else { 6 };
    let builder = match tags {
        0 => link.ip(header),
        1 => link.single_vlan(near).ip(header),
        _ => link.double_vlan(far, near).ip(header),
    };
    let mut frame = Vec::new();
    // The builder wants to know more of extension headers than is known here.
    builder.write(&mut frame, IpNumber::ARIS, packet)?;
    frame.iter_mut().skip(place).take(1).for_each(|number| *number = protocol);
    repair(&mut frame, outer);
    Ok(frame)
}

fn header(from: &str, to: &str, class: u8) -> Result<IpHeaders> {
    Ok(match (from.parse()?, to.parse()?) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let mut header = Ipv4Header::new(0, 64, IpNumber::UDP, from.octets(), to.octets())?;
            header.dscp = (class >> 2).try_into()?;
            header.ecn = (class & 3).try_into()?;
            IpHeaders::Ipv4(header, Default::default())
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let (source, destination) = (from.octets(), to.octets());
            let header =
                Ipv6Header { traffic_class: class, hop_limit: 64, source, destination, ..Ipv6Header::default() };
            IpHeaders::Ipv6(header, Default::default())
        }
        (from, to) => bail!("{from} and {to} are of different families"),
    })
}

/// Makes the checksum of an outer IPv4 header right, if there is one, so that what is behind it matters.
pub fn repair(frame: &mut [u8], outer: usize) {
    let header = frame.get(outer..).and_then(|header| Ipv4Header::from_slice(header).ok());
    if let Some((header, _)) = header
        && let Some(field) = frame.get_mut(outer + 10..outer + 12)
    {
        field.copy_from_slice(&header.calc_header_checksum().to_be_bytes());
    }
}
