use super::*;
use bytemuck::Zeroable as _;
use etherparse::{IpNumber, Ipv6FragmentHeader, PacketBuilder};
use lb_common::{tables::NOBODY, wire::transport::TCP};
use serde_json::json;
use std::net::IpAddr;

const MAC: [u8; 6] = [2; 6];
const CLIENT4: [u8; 4] = [198, 51, 100, 1];
const SERVICE4: [u8; 4] = [192, 0, 2, 10];
const BACKEND4: [u8; 4] = [10, 0, 0, 1];

fn tcp4(from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
    let mut frame = Vec::new();
    let builder = PacketBuilder::ethernet2(MAC, MAC).ipv4(from.0, to.0, 64).tcp(from.1, to.1, 1, 100);
    builder.write(&mut frame, &[]).unwrap();
    frame
}

fn packet(protocol: &str, source: &str, from: Option<u16>, destination: &str, to: Option<u16>) -> Packet {
    let address = |text: &str| text.parse::<IpAddr>().ok();
    Packet {
        protocol: protocol.into(),
        source: address(source),
        source_port: from,
        destination: address(destination),
        destination_port: to,
    }
}

#[test]
fn headers_are_read() {
    let tcp = tcp4((CLIENT4, 40_000), (SERVICE4, 80));
    let expected = packet("tcp", "198.51.100.1", Some(40_000), "192.0.2.10", Some(80));
    assert_eq!(Packet::read(&tcp), expected);
    assert_eq!(expected.ends(), "tcp 198.51.100.1:40000 > 192.0.2.10:80");

    let [one, other]: [[u8; 16]; 2] = ["2001:db8::1", "2001:db8::10"].map(|text| {
        let address: std::net::Ipv6Addr = text.parse().unwrap();
        address.octets()
    });
    let mut tagged = Vec::new();
    let builder = PacketBuilder::ethernet2(MAC, MAC)
        .double_vlan(3.try_into().unwrap(), 4.try_into().unwrap())
        .ipv6(one, other, 64)
        .udp(53_000, 53);
    builder.write(&mut tagged, b"question").unwrap();
    let expected = packet("udp", "2001:db8::1", Some(53_000), "2001:db8::10", Some(53));
    assert_eq!(Packet::read(&tagged), expected);
    assert_eq!(expected.ends(), "udp [2001:db8::1]:53000 > [2001:db8::10]:53");

    let mut ping = Vec::new();
    let builder = PacketBuilder::ethernet2(MAC, MAC).ipv6(one, other, 64).icmpv6_echo_request(1, 2);
    builder.write(&mut ping, &[]).unwrap();
    assert_eq!(Packet::read(&ping), packet("icmpv6", "2001:db8::1", None, "2001:db8::10", None));

    // Fragments: the first has ports, the rest has none.
    for (offset, ports) in [(0_u16, Some((53_000, 53))), (100, None)] {
        let header = Ipv6FragmentHeader::new(IpNumber::UDP, offset.try_into().unwrap(), true, 7);
        let mut frame = tagged[..12].to_vec();
        frame.extend([0x86, 0xdd]);
        frame.extend(&tagged[22..62]);
        frame[14 + 6] = 44;
        frame.extend(header.to_bytes());
        frame.extend(&tagged[62..]);
        let expected =
            packet("udp", "2001:db8::1", ports.map(|(from, _)| from), "2001:db8::10", ports.map(|(_, to)| to));
        assert_eq!(Packet::read(&frame), expected, "{offset}");
    }
    let mut rest = tcp.clone();
    rest[20..22].copy_from_slice(&[0, 1]);
    assert_eq!(Packet::read(&rest), packet("tcp", "198.51.100.1", None, "192.0.2.10", None));

    let mut arp = vec![2; 12];
    arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1, 2, 2, 2, 2, 2, 2, 198, 51, 100, 1, 0, 0, 0, 0, 0, 0, 192, 0, 2, 10]);
    assert_eq!(Packet::read(&arp), packet("arp", "198.51.100.1", None, "192.0.2.10", None));
    assert_eq!(Packet::read(&[0; 14]), packet("ethertype 0x0000", "", None, "", None));
}

#[test]
fn what_is_cut_off_anywhere_is_read_as_far_as_it_goes() {
    let tcp = tcp4((CLIENT4, 40_000), (SERVICE4, 80));
    for length in 0..tcp.len() {
        let packet = Packet::read(&tcp[..length]);
        assert_eq!(packet.destination_port.is_some(), length >= 38, "{length}");
        assert_eq!(packet.source.is_some(), length >= 30, "{length}");
    }
}

struct OneBackend;

impl OneBackend {
    fn known() -> Known {
        let endpoint = |address: [u8; 4]| Endpoint::new(address.into(), TCP, 80);
        Known { own: endpoint(BACKEND4), service: endpoint(SERVICE4) }
    }
}

impl Backends for OneBackend {
    fn by_id(&mut self, id: u32) -> Option<Known> {
        (id == 7).then(Self::known)
    }

    fn by_own(&mut self, own: &Endpoint) -> Option<Known> {
        Some(Self::known()).filter(|known| known.own == *own)
    }
}

fn sample(frame: &[u8], why: Why, backend: u32) -> Sample {
    let mut sample = Sample { why: why as u32, backend, action: 2, interface: 3, ..Sample::zeroed() };
    sample.length = frame.len() as u32;
    sample.nanoseconds = 5;
    let head: &mut [u8] = bytemuck::cast_slice_mut(&mut sample.head);
    // Behind the frame is whatever was there before.
    head.fill(0xee);
    head[..frame.len()].copy_from_slice(frame);
    sample
}

fn told(sample: &Sample) -> Event {
    let interfaces = [(3, "eth0".to_owned())].into();
    let dns = ["192.0.2.53:53".parse().unwrap()];
    let mut names = Names::new(&[], &dns, &interfaces);
    names.services.insert(OneBackend::known().service, "web");
    event(sample, Duration::from_secs(1), &names, &mut OneBackend)
}

#[test]
fn a_sample_is_told() {
    let to = tcp4((CLIENT4, 40_000), (SERVICE4, 80));
    let event = told(&sample(&to, Why::ForwardedNat, 7));
    assert_eq!((event.unix_nanoseconds, event.length), (1_000_000_005, to.len() as u32));
    assert_eq!((event.interface.as_str(), event.verdict.as_str()), ("eth0", "redirect"));
    assert_eq!((event.why.as_str(), event.service.as_deref()), ("forwarded_nat", Some("web")));
    assert_eq!(event.backend, Some("10.0.0.1:80".parse().unwrap()));
    assert_eq!(event.bytes().unwrap(), to);

    let back = tcp4((BACKEND4, 80), (CLIENT4, 40_000));
    let event = told(&sample(&back, Why::Returned, NOBODY));
    assert_eq!((event.service.as_deref(), event.backend), (Some("web"), Some("10.0.0.1:80".parse().unwrap())));

    let dns = tcp4((CLIENT4, 40_000), ([192, 0, 2, 53], 53));
    let event = told(&sample(&dns, Why::DnsTcp, NOBODY));
    assert_eq!((event.service.as_deref(), event.backend), (Some(DNS), None));

    let mut other = sample(&dns, Why::DnsTcp, NOBODY);
    (other.why, other.action, other.interface, other.length) = (9_999, 9, 4, 9_000);
    let event = told(&other);
    assert_eq!(
        (event.why.as_str(), event.verdict.as_str(), event.interface.as_str()),
        ("unknown", "unknown", "number 4")
    );
    assert_eq!(event.bytes().unwrap().len(), 256);
}

#[test]
fn what_is_wanted_is_told_and_nothing_else() {
    let wanted = |request: serde_json::Value| {
        let request: TraceRequest = serde_json::from_value(request).unwrap();
        Wanted::new(&request, ["web", "mail"].into_iter())
    };
    let event = told(&sample(&tcp4((CLIENT4, 40_000), (SERVICE4, 80)), Why::ForwardedDsr, 7));
    for (request, holds) in [
        (json!({}), true),
        (json!({ "service": "web" }), true),
        (json!({ "service": "mail" }), false),
        (json!({ "service": "dns" }), false),
        (json!({ "client": "198.51.100.0/24" }), true),
        (json!({ "client": "192.0.2.10" }), true),
        (json!({ "client": "::/0" }), false),
        (json!({ "why": "forwarded_dsr" }), true),
        (json!({ "why": "no_service" }), false),
        (json!({ "service": "web", "why": "no_service" }), false),
    ] {
        assert_eq!(wanted(request.clone()).unwrap().holds(&event), holds, "{request}");
    }
    for (request, said) in [
        (json!({ "service": "none" }), "there is no service `none`; the config has: web, mail, dns"),
        (json!({ "client": "10.0.0.1/8" }), "client: 10.0.0.1 does not end where the 8 bits do; write 10.0.0.0/8"),
        (json!({ "why": "none" }), "there is no reason `none`; there are: forwarded_dsr, "),
        (json!({ "every": 1_000_001 }), "`every` is at most 1000000"),
        (json!({ "seconds": 86_401 }), "`seconds` is at most 86400"),
    ] {
        let error = wanted(request).unwrap_err().to_string();
        assert!(error.starts_with(said), "{error}");
    }
    assert_eq!(wanted(json!({})).unwrap().told(&event).frame, None);
    assert!(wanted(json!({ "frames": true })).unwrap().told(&event).frame.is_some());
}

#[test]
fn a_line_reads_as_it_is_written() {
    let event = told(&sample(&tcp4((CLIENT4, 40_000), (SERVICE4, 80)), Why::ForwardedDsr, 7));
    for line in [Line::Event(event.into()), Line::Lost { events: 3 }] {
        let text = serde_json::to_string(&line).unwrap();
        assert_eq!(serde_json::from_str::<Line>(&text).unwrap(), line, "{text}");
    }
}
