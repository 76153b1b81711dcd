//! Frames that few are: in tunnels' services, tagged, with options or extension headers, in fragments, ICMP, and such that follow
//! others.

use super::{Named, echo, tcp, udp};
use crate::fixture::Moment;
use anyhow::{Context as _, Result};
use etherparse::checksum::Sum16BitWords;

const CLIENT4: &str = "10.78.1.10";
const CLIENT6: &str = "fd78:1::10";
/// A router on the way to the clients.
const ROUTER4: &str = "10.78.1.254";
const ROUTER6: &str = "fd78:1::fe";
/// Lengths of headers.
const ETHERNET: usize = 14;
const IPV4: usize = 20;
const IPV6: usize = 40;

/// All of them.
pub(super) fn all() -> Result<Vec<Named>> {
    let mut all = Vec::new();
    let mut add = |name, before: Vec<Vec<u8>>, frame| all.push(Named { name, moment: Moment::Usual, before, frame });
    let mut one = |name, frame: Result<Vec<u8>>| {
        add(name, Vec::new(), frame.with_context(|| format!("cannot build frame {name}"))?);
        anyhow::Ok(())
    };
    one("tunnel44_tcp", tcp(CLIENT4, 40_001, "192.0.2.20", 80))?;
    one("tunnel44_tcp_other_flow", tcp(CLIENT4, 40_007, "192.0.2.20", 80))?;
    one("tunnel44_marked", tcp(CLIENT4, 40_001, "192.0.2.20", 80).map(|frame| marked4(frame, 0xb9)))?;
    one("tunnel46_tcp", tcp(CLIENT4, 40_001, "192.0.2.21", 80))?;
    one("tunnel66_tcp", tcp(CLIENT6, 40_001, "2001:db8::20", 80))?;
    one("tunnel64_tcp", tcp(CLIENT6, 40_001, "2001:db8::21", 80))?;
    one("tunnel44_tagged", tcp(CLIENT4, 40_001, "192.0.2.20", 80).map(|frame| tagged(&frame, &[10])))?;
    one("tunnel66_tagged_twice", tcp(CLIENT6, 40_001, "2001:db8::20", 80).map(|frame| tagged(&frame, &[10, 20])))?;
    one("tagged_three_times", tcp(CLIENT4, 40_001, "192.0.2.10", 80).map(|frame| tagged(&frame, &[1, 2, 3])))?;
    one("tunnel44_too_long", tcp_of(1_481, "192.0.2.20"))?;
    one("tunnel44_just_fits", tcp_of(1_480, "192.0.2.20"))?;
    one("tunnel64_too_long", udp6_of(1_490, "2001:db8::21", 80).map(as_tcp6))?;
    one("open_move_too_long", udp6_of(1_470, "2001:db8::23", 443))?;
    one("dsr4_too_long", tcp_of(1_600, "192.0.2.10"))?;
    one("return4_too_long", udp("10.78.2.23", 4433, CLIENT4, 40_001, &[7; 1_600]).map(undivided))?;
    one("return4_may_be_fragmented", udp("10.78.2.23", 4433, CLIENT4, 40_001, &[7; 1_600]).map(divisible))?;
    one("any4_tcp", tcp(CLIENT4, 40_001, "192.0.2.22", 25))?;
    one("any4_returns", tcp("10.78.9.35", 25, CLIENT4, 40_001))?;
    one("any6_udp", udp(CLIENT6, 40_001, "2001:db8::22", 12_345, b"hello"))?;
    one("dsr4_options", tcp(CLIENT4, 40_001, "192.0.2.10", 80).map(|frame| with_options(&frame)))?;
    one("nat4_options", tcp(CLIENT4, 40_001, "192.0.2.11", 80).map(|frame| with_options(&frame)))?;
    one("ssh_with_options", tcp(CLIENT4, 40_001, super::OWN_ADDRESSES[0], 22).map(|frame| with_options(&frame)))?;
    one("nat6_extensions", tcp(CLIENT6, 40_001, "2001:db8::11", 80).map(|frame| with_extensions(&frame, &[0, 60])))?;
    one(
        "five_extensions",
        tcp(CLIENT6, 40_001, "2001:db8::11", 80).map(|frame| with_extensions(&frame, &[0, 60, 60, 60, 60])),
    )?;
    one("short_ipv4_header", tcp(CLIENT4, 40_001, "192.0.2.10", 80).map(|frame| super::with_byte(frame, 14, 0x44)))?;
    one("echo_tagged", echo(CLIENT4, "192.0.2.10").map(|frame| tagged(&frame, &[10])))?;
    one("echo_not_wanted", echo(CLIENT6, "2001:db8::22"))?;
    one("echo_to_the_balancer", echo(CLIENT4, super::OWN_ADDRESSES[0]))?;

    for (service, client, about) in [
        ("dsr4", CLIENT4, tcp("192.0.2.10", 80, CLIENT4, 40_001)?),
        ("nat4", CLIENT4, tcp("192.0.2.11", 80, CLIENT4, 40_001)?),
        ("tunnel44", CLIENT4, tcp("192.0.2.20", 80, CLIENT4, 40_001)?),
        ("open", CLIENT4, tcp("192.0.2.23", 80, CLIENT4, 40_001)?),
    ] {
        _ = client;
        one(format!("error4_to_{service}").leak(), Ok(error4(ROUTER4, 3, 4, 1_400, &about, 28)))?;
    }
    let about = tcp("2001:db8::11", 80, CLIENT6, 40_001)?;
    one("error6_to_nat6", Ok(error6(ROUTER6, 2, 1_400, &about, about.len() - ETHERNET)))?;
    let about = tcp("2001:db8::20", 80, CLIENT6, 40_001)?;
    one("error6_to_tunnel66", Ok(error6(ROUTER6, 3, 0, &about, 48)))?;
    let about = udp(CLIENT4, 40_001, "10.78.2.23", 4433, b"hello")?;
    one("error4_back_from_the_backend", Ok(error4("10.78.2.23", 3, 3, 0, &about, about.len() - ETHERNET)))?;
    let about = tcp(CLIENT6, 40_001, "fd78:2::21", 8080)?;
    one("error6_back_from_a_router", Ok(error6("fd78:2::fe", 1, 0, &about, about.len() - ETHERNET)))?;
    let about = udp("198.51.100.7", 53, CLIENT4, 40_001, b"hello")?;
    one("error4_about_others", Ok(error4(ROUTER4, 11, 0, 0, &about, 28)))?;
    let about = tcp_of(1_600, "192.0.2.10")?;
    let back = turned4(about);
    one("error4_too_long", Ok(error4(ROUTER4, 11, 0, 0, &back, back.len() - ETHERNET)))?;

    let open = |port, flags| flags_of(tcp(CLIENT4, port, "192.0.2.23", 80), flags);
    let closed = |port, flags| flags_of(tcp(CLIENT4, port, "192.0.2.24", 80), flags);
    for port in 40_001..40_005 {
        one(format!("open_syn_{port}").leak(), open(port, SYN))?;
        one(format!("open_ack_{port}").leak(), open(port, ACK))?;
        one(format!("closed_ack_{port}").leak(), closed(port, ACK))?;
        one(format!("open_follow_{port}").leak(), udp(CLIENT4, port, "192.0.2.23", 443, b"hello"))?;
        one(format!("open_follow_quic_{port}").leak(), udp(CLIENT4, port, "192.0.2.23", 443, &[0xc3, 0, 0, 0, 1, 8]))?;
        one(format!("open_move_{port}").leak(), udp(CLIENT6, port, "2001:db8::23", 443, b"hello"))?;
    }
    add("open_second_packet", vec![open(40_003, SYN)?], open(40_003, ACK)?);
    add("open_repeated_syn", vec![open(40_003, SYN)?], open(40_003, SYN)?);
    add("open_ends", vec![open(40_003, SYN)?, open(40_003, ACK)?], open(40_003, FIN | ACK)?);
    add("open_begins_anew", vec![open(40_003, ACK)?, open(40_003, RST)?], open(40_003, SYN)?);
    let hello = |port| udp(CLIENT6, port, "2001:db8::23", 443, b"hello");
    add("open_move_second_packet", vec![hello(40_003)?], hello(40_003)?);

    let datagram = |from: &str, from_port, to: &str, to_port| udp(from, from_port, to, to_port, &[5; 1_200]);
    for (name, frame) in [
        ("nat4", datagram(CLIENT4, 40_001, "192.0.2.11", 443)?),
        ("nat4_back", datagram("10.78.2.23", 4433, CLIENT4, 40_001)?),
        ("open_follow", datagram(CLIENT4, 40_001, "192.0.2.23", 443)?),
        ("not_ours", datagram(CLIENT4, 40_001, super::OWN_ADDRESSES[0], 22)?),
    ] {
        let [first, rest] = fragments4(&frame, 600);
        add(format!("{name}_rest_of_a_datagram").leak(), vec![first.clone()], rest);
        add(format!("{name}_first_fragment").leak(), Vec::new(), first);
    }
    for (name, frame) in [
        ("dsr6", datagram(CLIENT6, 40_001, "2001:db8::10", 443)?),
        ("open_move6", datagram(CLIENT6, 40_001, "2001:db8::23", 443)?),
        ("nat6_back", datagram("fd78:2::23", 4433, CLIENT6, 40_001)?),
    ] {
        let [first, rest] = fragments6(&frame, 600);
        add(format!("{name}_rest_of_a_datagram").leak(), vec![first.clone()], rest);
        add(format!("{name}_first_fragment").leak(), Vec::new(), first);
    }
    let [first, rest] = fragments4(&echo(CLIENT4, "192.0.2.10")?, 8);
    add("echo_first_fragment", Vec::new(), first.clone());
    add("echo_rest_of_a_datagram", vec![first], rest);
    Ok(all)
}

const FIN: u8 = 1;
const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// Other flags than SYN. The checksum is not mended: nothing on the way reads it.
fn flags_of(frame: Result<Vec<u8>>, flags: u8) -> Result<Vec<u8>> {
    frame.map(|frame| super::with_byte(frame, ETHERNET + IPV4 + 13, flags))
}

/// A TCP packet of this length from the IP header on.
fn tcp_of(length: usize, to: &str) -> Result<Vec<u8>> {
    let builder = super::network(CLIENT4, to)?.tcp(40_001, 80, 1_000, 64_240).ack(1);
    super::written(|frame| builder.write(frame, &vec![3; length - IPV4 - 20]))
}

/// A UDP packet of this length from the IP header on.
fn udp6_of(length: usize, to: &str, port: u16) -> Result<Vec<u8>> {
    udp(CLIENT6, 40_001, to, port, &vec![3; length - IPV6 - 8])
}

/// As if it were TCP, whose header has its ports in the same place.
fn as_tcp6(frame: Vec<u8>) -> Vec<u8> {
    super::with_byte(frame, ETHERNET + 6, 6)
}

/// With VLAN tags, the outermost first.
pub(super) fn tagged(frame: &[u8], vlans: &[u16]) -> Vec<u8> {
    let (addresses, rest) = frame.split_at(12);
    let tags = vlans.iter().flat_map(|vlan| [[0x81, 0x00], vlan.to_be_bytes()].concat());
    addresses.iter().copied().chain(tags).chain(rest.iter().copied()).collect()
}

/// With another IPv4 header, whose checksum is made right.
fn header4(mut frame: Vec<u8>, change: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let Some(header) = frame.get_mut(ETHERNET..ETHERNET + IPV4) else { return frame };
    change(header);
    if let Some(checksum) = header.get_mut(10..12) {
        checksum.fill(0);
    }
    let sum = sum(header);
    if let Some(checksum) = header.get_mut(10..12) {
        checksum.copy_from_slice(&sum);
    }
    frame
}

fn set(bytes: &mut [u8], offset: usize, value: &[u8]) {
    bytes.iter_mut().skip(offset).zip(value).for_each(|(to, from)| *to = *from);
}

fn marked4(frame: Vec<u8>, class: u8) -> Vec<u8> {
    header4(frame, |header| set(header, 1, &[class]))
}

fn undivided(frame: Vec<u8>) -> Vec<u8> {
    header4(frame, |header| set(header, 6, &[0x40, 0]))
}

fn divisible(frame: Vec<u8>) -> Vec<u8> {
    header4(frame, |header| set(header, 6, &[0, 0]))
}

/// With an option that does nothing: four bytes of no-operation.
pub(super) fn with_options(frame: &[u8]) -> Vec<u8> {
    let (front, payload) = frame.split_at(ETHERNET + IPV4);
    let length = (frame.len() - ETHERNET + 4) as u16;
    let mut frame = [front, &[1; 4], payload].concat();
    set(&mut frame, ETHERNET, &[0x46]);
    set(&mut frame, ETHERNET + 2, &length.to_be_bytes());
    set(&mut frame, ETHERNET + 10, &[0, 0]);
    let sum = frame.get(ETHERNET..ETHERNET + IPV4 + 4).map(sum).unwrap_or_default();
    set(&mut frame, ETHERNET + 10, &sum);
    frame
}

/// With extension headers of these protocols, each of 8 bytes of padding.
pub(super) fn with_extensions(frame: &[u8], protocols: &[u8]) -> Vec<u8> {
    let (front, payload) = frame.split_at(ETHERNET + IPV6);
    let transport = front.get(ETHERNET + 6).copied().unwrap_or_default();
    let next = protocols.iter().skip(1).copied().chain([transport]);
    let headers: Vec<u8> = next.flat_map(|next| [next, 0, 1, 4, 0, 0, 0, 0]).collect();
    let length = (payload.len() + headers.len()) as u16;
    let mut frame = [front, &headers, payload].concat();
    set(&mut frame, ETHERNET + 4, &length.to_be_bytes());
    set(&mut frame, ETHERNET + 6, &protocols.first().copied().unwrap_or(transport).to_be_bytes());
    frame
}

/// The two fragments of a packet, the first with `length` bytes of its payload, a multiple of 8.
fn fragments4(frame: &[u8], length: usize) -> [Vec<u8>; 2] {
    let (front, payload) = frame.split_at(ETHERNET + IPV4);
    let (first, rest) = payload.split_at(length);
    let part = |payload: &[u8], fragment: u16| {
        header4([front, payload].concat(), |header| {
            set(header, 2, &((IPV4 + payload.len()) as u16).to_be_bytes());
            set(header, 4, &0x4321_u16.to_be_bytes());
            set(header, 6, &fragment.to_be_bytes());
        })
    };
    [part(first, 0x2000), part(rest, (length / 8) as u16)]
}

fn fragments6(frame: &[u8], length: usize) -> [Vec<u8>; 2] {
    let (front, payload) = frame.split_at(ETHERNET + IPV6);
    let transport = front.get(ETHERNET + 6).copied().unwrap_or_default();
    let (first, rest) = payload.split_at(length);
    let part = |payload: &[u8], fragment: u16| {
        let [high, low] = fragment.to_be_bytes();
        let mut frame = [front, &[transport, 0, high, low, 1, 2, 3, 4], payload].concat();
        set(&mut frame, ETHERNET + 4, &((8 + payload.len()) as u16).to_be_bytes());
        set(&mut frame, ETHERNET + 6, &[44]);
        frame
    };
    [part(first, 1), part(rest, length as u16)]
}

/// A packet with its ends changed, so that it is one that the service sent.
fn turned4(frame: Vec<u8>) -> Vec<u8> {
    let ends: Vec<u8> = frame.iter().skip(ETHERNET + 12).take(12).copied().collect();
    let (addresses, ports) = ends.split_at(8);
    let turned = |bytes: &[u8]| [bytes.split_at(bytes.len() / 2).1, bytes.split_at(bytes.len() / 2).0].concat();
    let mut frame = frame;
    set(&mut frame, ETHERNET + 12, &turned(addresses));
    set(&mut frame, ETHERNET + 16 + 4, &turned(ports));
    frame
}

/// An ICMP error from `from` about a packet, of which it repeats the first `quoted` bytes.
fn error4(from: &str, kind: u8, code: u8, rest: u32, about: &[u8], quoted: usize) -> Vec<u8> {
    let quote: Vec<u8> = about.iter().skip(ETHERNET).take(quoted).copied().collect();
    let to: Vec<u8> = quote.iter().skip(12).take(4).copied().collect();
    let mut message = [&[kind, code, 0, 0], &rest.to_be_bytes()[..], &quote].concat();
    let sum = sum(&message);
    set(&mut message, 2, &sum);
    let from = from.parse().map_or([0; 4], |from: std::net::Ipv4Addr| from.octets());
    let mut header = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 1, 0, 0];
    set(&mut header, 2, &((IPV4 + message.len()) as u16).to_be_bytes());
    let ethernet = super::ethernet(etherparse::EtherType::IPV4, &[]);
    header4([ethernet, header, from.to_vec(), to, message].concat(), |_| ())
}

/// The same in ICMPv6.
fn error6(from: &str, kind: u8, rest: u32, about: &[u8], quoted: usize) -> Vec<u8> {
    let quote: Vec<u8> = about.iter().skip(ETHERNET).take(quoted).copied().collect();
    let to: Vec<u8> = quote.iter().skip(8).take(16).copied().collect();
    let from = from.parse().map_or([0; 16], |from: std::net::Ipv6Addr| from.octets());
    let mut message = [&[kind, 0, 0, 0], &rest.to_be_bytes()[..], &quote].concat();
    let length = message.len() as u16;
    let pseudo = [&from[..], &to, &u32::from(length).to_be_bytes(), &[0, 0, 0, 58], &message].concat();
    let sum = sum(&pseudo);
    set(&mut message, 2, &sum);
    let mut header = vec![0x60, 0, 0, 0, 0, 0, 58, 64];
    set(&mut header, 4, &length.to_be_bytes());
    [super::ethernet(etherparse::EtherType::IPV6, &[]), header, from.to_vec(), to, message].concat()
}

/// The Internet checksum of bytes, as on the wire.
fn sum(bytes: &[u8]) -> [u8; 2] {
    Sum16BitWords::new().add_slice(bytes).ones_complement().to_ne_bytes()
}
