//! The frame that a client's packet comes in.

use super::question::{Asked, Payload};
use lb_common::{
    checksum,
    frame::Frame as _,
    host::Buffer,
    tables::Endpoint,
    wire::{
        ethernet::{self, Ethernet},
        ipv4::{self, Ipv4, Network4},
        ipv6::{self, Ipv6, Network6, Words},
        transport::{Ports, TCP, Tcp, Udp},
    },
};

/// Hops that Linux gives its packets.
const HOPS: u8 = 64;
/// TCP's header without options: 5 words of 4 bytes.
const TCP_WORDS: u8 = 5 << 4;

/// The whole frame. Its addresses on the link are zeros: the path looks at neither.
pub fn frame(asked: &Asked) -> Vec<u8> {
    let Asked { from, to, payload } = asked;
    let payload_at = Ethernet::LEN + if from.ip().is_ipv4() { Ipv4::LEN } else { Ipv6::LEN };
    let (head, data): (usize, &[u8]) = match payload {
        Payload::Tcp(_) => (Tcp::LEN, &[]),
        Payload::Empty => (Udp::LEN, &[]),
        Payload::Dns(question) => (Udp::LEN, &question.message),
    };
    let mut bytes = vec![0; payload_at + head];
    bytes.extend_from_slice(data);
    let length = bytes.len() - payload_at;
    let mut frame = Buffer::new(&bytes, 0, 0, 0);
    if from.ip().is_ipv4() {
        put_ipv4(&mut frame, from, to, length);
    } else {
        put_ipv6(&mut frame, from, to, length);
    }
    put_transport(&mut frame, payload_at, asked, length);
    frame.bytes().to_vec()
}

fn put_ipv4(frame: &mut Buffer, from: &Endpoint, to: &Endpoint, length: usize) {
    let ([source, _], [destination, _]) = (from.address, to.address);
    let mut ip = Ipv4 {
        version_length: ipv4::NO_OPTIONS,
        traffic_class: 0,
        total_length: ((Ipv4::LEN + length) as u16).into(),
        identification: 0.into(),
        fragment: ipv4::DONT_FRAGMENT.into(),
        time_to_live: HOPS,
        protocol: from.protocol(),
        checksum: [0; 2],
        source: (source as u32).into(),
        destination: (destination as u32).into(),
    };
    let mut put = |ip: Ipv4| {
        if let Some(head) = frame.head_mut::<Network4>() {
            (head.ethertype, head.ip) = (ethernet::IPV4.into(), ip);
        }
        sum(frame.bytes().get(Ethernet::LEN..Ethernet::LEN + Ipv4::LEN))
    };
    ip.checksum = checksum::finish(put(ip));
    put(ip);
}

fn put_ipv6(frame: &mut Buffer, from: &Endpoint, to: &Endpoint, length: usize) {
    let words = |[first, second]: [u64; 2]| Words { first: first.into(), second: second.into() };
    if let Some(head) = frame.head_mut::<Network6>() {
        head.ethertype = ethernet::IPV6.into();
        head.ip = Ipv6 {
            version_class_flow: ipv6::PLAIN.into(),
            payload_length: (length as u16).into(),
            next_header: from.protocol(),
            hop_limit: HOPS,
            source: words(from.address),
            destination: words(to.address),
        };
    }
}

/// Both have their checksum in what they sum up, and the pseudo header of either family has the same sum (RFC 8200 section 8.1).
fn put_transport(frame: &mut Buffer, at: usize, asked: &Asked, length: usize) {
    let Asked { from, to, payload } = asked;
    let ports = Ports { source: from.port_bytes(), destination: to.port_bytes() };
    let mut put = |field: [u8; 2]| {
        if let Payload::Tcp(flags) = payload {
            if let Some(tcp) = frame.view_mut::<Tcp>(at) {
                let state = [0, 0, 0, 1, 0, 0, 0, 0, TCP_WORDS, *flags, 0xff, 0xff];
                *tcp = Tcp { ports, state, checksum: field, urgent: 0.into() };
            }
        } else if let Some(udp) = frame.view_mut::<Udp>(at) {
            *udp = Udp { ports, length: (length as u16).into(), checksum: field };
        }
        let pseudo = u64::from(u16::from(from.protocol()).to_be()) + u64::from((length as u16).to_be());
        sum(frame.bytes().get(at..)) + from.address_sum() + to.address_sum() + pseudo
    };
    let whole = put([0; 2]);
    put(if from.protocol() == TCP { checksum::finish(whole) } else { checksum::finish_udp(whole) });
}

fn sum(bytes: Option<&[u8]>) -> u64 {
    let word = |bytes: &[u8]| {
        let mut word = [0; 8];
        word.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
        u64::from_ne_bytes(word)
    };
    bytes.unwrap_or_default().chunks(8).map(word).fold(0, checksum::add)
}

#[cfg(test)]
mod tests {
    use super::{super::question::Ask, *};
    use etherparse::{SlicedPacket, TransportSlice};

    fn asks() -> Vec<Ask> {
        let parse = |text: &str| serde_json::from_str::<Ask>(text).unwrap();
        vec![
            parse(
                r#"{"what":"flow","client":"198.51.100.1:40000","service":"192.0.2.10:80","protocol":"tcp","begins":true}"#,
            ),
            parse(r#"{"what":"flow","client":"[2001:db8::1]:40000","service":"[2001:db8::2]:80","protocol":"tcp"}"#),
            parse(r#"{"what":"flow","client":"[2001:db8::1]:40000","service":"[2001:db8::2]:80","protocol":"udp"}"#),
            parse(
                r#"{"what":"dns","name":"www.example.com","kind":1,"client":"198.51.100.1:40000","server":"192.0.2.53:53","size":1232}"#,
            ),
            parse(
                r#"{"what":"dns","name":"a.example.","kind":28,"client":"[2001:db8::1]:40001","server":"[2001:db8::53]:53","dnssec":true}"#,
            ),
        ]
    }

    #[test]
    fn frames_are_what_a_foreign_parser_takes_them_for() {
        for ask in asks() {
            let asked = ask.asked(&[]).unwrap();
            let bytes = frame(&asked);
            let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
            let (source, destination, expected, found) = match (packet.net.unwrap(), packet.transport.unwrap()) {
                (etherparse::NetSlice::Ipv4(ip), transport) => {
                    let header = ip.header().to_header();
                    assert_eq!(header.header_checksum, header.calc_header_checksum());
                    let (ports, expected, found) = match transport {
                        TransportSlice::Tcp(tcp) => {
                            let found = tcp.checksum();
                            assert_eq!((tcp.syn(), tcp.ack()), (true, false));
                            let expected = tcp.calc_checksum_ipv4(ip.header().source(), ip.header().destination());
                            ((tcp.source_port(), tcp.destination_port()), expected.unwrap(), found)
                        }
                        TransportSlice::Udp(udp) => {
                            let header = udp.to_header();
                            let expected = header.calc_checksum_ipv4(&header_of(&ip), udp.payload());
                            ((udp.source_port(), udp.destination_port()), expected.unwrap(), udp.checksum())
                        }
                        _ => unreachable!(),
                    };
                    let from = std::net::SocketAddr::new(ip.header().source_addr().into(), ports.0);
                    let to = std::net::SocketAddr::new(ip.header().destination_addr().into(), ports.1);
                    (from, to, expected, found)
                }
                (etherparse::NetSlice::Ipv6(ip), transport) => {
                    let (source, destination) = (ip.header().source(), ip.header().destination());
                    let (ports, expected, found) = match transport {
                        TransportSlice::Tcp(tcp) => {
                            assert_eq!((tcp.syn(), tcp.ack()), (false, true));
                            let expected = tcp.calc_checksum_ipv6(source, destination);
                            ((tcp.source_port(), tcp.destination_port()), expected.unwrap(), tcp.checksum())
                        }
                        TransportSlice::Udp(udp) => {
                            let header = ip.header().to_header();
                            let expected = udp.to_header().calc_checksum_ipv6(&header, udp.payload());
                            ((udp.source_port(), udp.destination_port()), expected.unwrap(), udp.checksum())
                        }
                        _ => unreachable!(),
                    };
                    let from = std::net::SocketAddr::new(ip.header().source_addr().into(), ports.0);
                    let to = std::net::SocketAddr::new(ip.header().destination_addr().into(), ports.1);
                    (from, to, expected, found)
                }
                _ => unreachable!(),
            };
            assert_eq!(found, expected, "{ask:?}");
            assert_eq!((source.ip(), source.port()), (asked.from.ip(), asked.from.port()));
            assert_eq!((destination.ip(), destination.port()), (asked.to.ip(), asked.to.port()));
        }
    }

    fn header_of(ip: &etherparse::Ipv4Slice<'_>) -> etherparse::Ipv4Header {
        ip.header().to_header()
    }
}
