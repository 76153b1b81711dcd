//! The lab's tools do what they say, before there is a balancer in between: what does not work here says nothing about `lb`.
#![expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "clippy knows tests by their attribute, not their helpers"
)]

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};
use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};
use tests::{
    Amount, Counters, Decapsulation, FrameSocket, Host, Lab, Layout, LineServer, Lines, Nginx, UdpEcho, UdpFlows, curl,
    iperf, needs_program, needs_root, skip, udp_exchange, wait_until,
};

const SOON: Duration = Duration::from_secs(5);
const PORT: u16 = 7000;

fn addresses(host: &Host) -> [SocketAddr; 2] {
    let ips: [IpAddr; 2] = [host.ipv4().into(), host.ipv6().into()];
    ips.map(|ip| SocketAddr::new(ip, PORT))
}

#[test]
fn datagrams_come_back_with_numbers_and_names() {
    if !needs_root("datagrams_come_back_with_numbers_and_names") {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).backends(1).up().unwrap();
    let mut server = UdpEcho::start(&lab.backends()[0], &addresses(&lab.backends()[0])).unwrap();
    let before = Counters::read(lab.everyone()).unwrap();
    for address in addresses(&lab.backends()[0]) {
        // The last does not fit a frame, so that client and server send fragments.
        for size in [10, 1400, 4000] {
            let report = udp_exchange(lab.client(), address, 4, 20, size).unwrap();
            assert_eq!((report.flows.len(), report.sent(), report.echoed()), (4, 80, 80), "{report:?}");
            assert!(report.lost().is_empty() && report.duplicated().is_empty(), "{report:?}");
            assert!(report.errors().is_empty(), "{report:?}");
            assert_eq!(report.servers(), ["backend-0"].into());
            let seen = server.seen();
            for flow in &report.flows {
                assert_eq!(seen.get(&flow.local), Some(&20), "{} is not in {seen:?}", flow.local);
            }
        }
    }
    let after = Counters::read(lab.everyone()).unwrap();
    assert_eq!(after.moved_since(&before, &[]), BTreeMap::new());

    // Nobody is there for a while: numbers are missing, and errors say why.
    let [address, _] = addresses(&lab.backends()[0]);
    let flows = UdpFlows::start(lab.client(), address, 2, 100).unwrap();
    flows.wait_for_more(5).unwrap();
    server.stop();
    let report = {
        let refused = udp_exchange(lab.client(), address, 1, 3, 100).unwrap();
        assert!(refused.errors().values().flatten().any(|error| error == "connection refused"), "{refused:?}");
        server.start_again().unwrap();
        flows.wait_for_more(5).unwrap();
        flows.stop().unwrap()
    };
    assert_eq!(report.errors().len(), 2, "{report:?}");
    assert!(!report.lost().is_empty() && report.duplicated().is_empty(), "{report:?}");
}

#[test]
fn lines_are_answered_until_their_connection_ends() {
    if !needs_root("lines_are_answered_until_their_connection_ends") {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).backends(1).up().unwrap();
    let mut server = LineServer::start(&lab.backends()[0], PORT).unwrap();
    let before = Counters::read(lab.everyone()).unwrap();
    for address in addresses(&lab.backends()[0]) {
        let lines = Lines::start(lab.client(), address, 8).unwrap();
        lines.wait_for_more(10).unwrap();
        let report = lines.stop().unwrap();
        assert!(report.broken().is_empty() && report.servers() == ["backend-0"].into(), "{report:?}");
        let seen = server.seen();
        for connection in &report.connections {
            assert!(connection.lines > 10, "{connection:?}");
            assert_eq!(seen.get(&connection.local.unwrap()), Some(&connection.lines), "{seen:?}");
        }
    }
    let after = Counters::read(lab.everyone()).unwrap();
    assert_eq!(after.moved_since(&before, &[]), BTreeMap::new());

    let [address, _] = addresses(&lab.backends()[0]);
    let lines = Lines::start(lab.client(), address, 3).unwrap();
    server.stop();
    wait_until(SOON, "all connections were broken", || (lines.broken() == 3).then_some(())).unwrap();
    let again = || TcpStream::connect_timeout(&address, SOON).map_err(|error| error.kind());
    assert_eq!(lab.client().inside(again).unwrap().unwrap_err(), ErrorKind::ConnectionRefused);
    let report = lines.stop().unwrap();
    assert_eq!(report.broken().len(), 3, "{report:?}");
}

#[test]
fn losses_are_counted() {
    if !needs_root("losses_are_counted") {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).backends(1).up().unwrap();
    let (client, backend) = (lab.client(), &lab.backends()[0]);
    let _server = LineServer::start(backend, PORT).unwrap();
    let [address, _] = addresses(backend);
    let lines = Lines::start(client, address, 1).unwrap();
    let before = Counters::read(lab.everyone()).unwrap();
    lab.segment().ip(&["link set backend-0 down".into()]).unwrap();
    let moved = wait_until(SOON, "the client sent again", || {
        let moved = Counters::read([client]).unwrap().moved_since(&before, &[]);
        (moved.get("client Tcp RetransSegs") > Some(&0)).then_some(moved)
    });
    println!("{:?}", moved.unwrap());
    lab.segment().ip(&["link set backend-0 up".into()]).unwrap();
    lines.wait_for_more(3).unwrap();
    assert!(lines.stop().unwrap().broken().is_empty());
}

#[test]
fn iperf_tells_bytes_and_retransmissions() {
    const NAME: &str = "iperf_tells_bytes_and_retransmissions";
    if !needs_root(NAME) || !needs_program(NAME, "iperf3") {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).backends(1).up().unwrap();
    for address in addresses(&lab.backends()[0]) {
        for back in [false, true] {
            let transfer = iperf(lab.client(), &lab.backends()[0], address, Amount::Bytes(1_000_000), back).unwrap();
            assert!(transfer.sent >= 1_000_000 && transfer.received > 0, "{transfer:?}");
        }
    }
}

/// A datagram behind an outer header is taken out of it and answered as if it had come without.
fn takes_out_of_tunnels(how: fn(&Host) -> anyhow::Result<Decapsulation>) {
    let lab = Lab::blueprint(Layout::Bridged).backends(1).up().unwrap();
    let (client, backend) = (lab.client(), &lab.backends()[0]);
    let services = [lab.service_ipv4(0).into(), lab.service_ipv6(0).into()].map(|ip: IpAddr| SocketAddr::new(ip, PORT));
    for service in services {
        lab.add_service_address(backend, service.ip()).unwrap();
    }
    let server = UdpEcho::start(backend, &services).unwrap();
    let _decapsulation = how(backend).unwrap();
    let wire = FrameSocket::open(client, client.interfaces()[0].index, backend.ipv4().into()).unwrap();
    let (from, to) = (client.interfaces()[0].mac, backend.interfaces()[0].mac);
    for (service, port) in services.into_iter().zip([4000, 4001]) {
        let mut inner = Vec::new();
        let source = match service.ip() {
            IpAddr::V4(service) => {
                let packet = PacketBuilder::ipv4(client.ipv4().octets(), service.octets(), 64).udp(port, PORT);
                packet.write(&mut inner, b"7\n").unwrap();
                SocketAddr::new(client.ipv4().into(), port)
            }
            IpAddr::V6(service) => {
                let packet = PacketBuilder::ipv6(client.ipv6().octets(), service.octets(), 64).udp(port, PORT);
                packet.write(&mut inner, b"7\n").unwrap();
                SocketAddr::new(client.ipv6().into(), port)
            }
        };
        let protocol = if service.is_ipv4() { 4 } else { 41 };
        for (outer, number) in [false, true].into_iter().zip(1..) {
            let packet = PacketBuilder::ethernet2(from, to);
            let mut frame = Vec::new();
            // Sources that are nobody's: they vary by flow.
            if outer {
                let packet = packet.ipv4([10, 99, 3, 4], backend.ipv4().octets(), 64);
                packet.write(&mut frame, protocol.into(), &inner).unwrap();
            } else {
                let source: std::net::Ipv6Addr = "fd99::3:4".parse().unwrap();
                let packet = packet.ipv6(source.octets(), backend.ipv6().octets(), 64);
                packet.write(&mut frame, protocol.into(), &inner).unwrap();
            }
            wire.send(&frame).unwrap();
            wait_until(SOON, &format!("{source} was seen"), || {
                (server.seen().get(&source) == Some(&number)).then_some(())
            })
            .unwrap();
        }
    }
}

#[test]
fn sockets_take_packets_out_of_tunnels() {
    if needs_root("sockets_take_packets_out_of_tunnels") {
        takes_out_of_tunnels(Decapsulation::by_sockets);
    }
}

#[test]
fn devices_take_packets_out_of_tunnels() {
    const NAME: &str = "devices_take_packets_out_of_tunnels";
    if !needs_root(NAME) {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).backends(1).up().unwrap();
    if let Some(reason) = Decapsulation::lacking_devices(&lab.backends()[0]).unwrap() {
        return skip(NAME, &reason);
    }
    drop(lab);
    takes_out_of_tunnels(Decapsulation::by_devices);
}

#[test]
fn every_frame_of_a_tagged_lab_bears_the_tag() {
    if !needs_root("every_frame_of_a_tagged_lab_bears_the_tag") {
        return;
    }
    const ID: u16 = 77;
    let lab = Lab::blueprint(Layout::Bridged).backends(1).tagged(ID).up().unwrap();
    let (client, backend) = (lab.client(), &lab.backends()[0]);
    let capture = lab.folder().join("wire.pcap");
    let path = capture.display().to_string();
    let dump =
        lab.segment().spawn(["tcpdump", "-n", "-i", "backend-0", "-w", &path, "--immediate-mode", "-U"]).unwrap();
    wait_until(SOON, "tcpdump listened", || dump.log().contains("listening on").then_some(())).unwrap();
    let server = Nginx::start(backend, &[PORT]).unwrap();
    let before = Counters::read(lab.everyone()).unwrap();
    for address in addresses(backend) {
        let reply = curl(client, &format!("http://{address}/")).unwrap();
        assert_eq!(reply.status, Some(200), "{reply:?}");
        client.ping(address.ip(), 4000, SOON).unwrap();
    }
    drop(server);
    let after = Counters::read(lab.everyone()).unwrap();
    assert_eq!(after.moved_since(&before, &[]), BTreeMap::new());
    dump.terminate(SOON).unwrap();

    let mut bytes = Vec::new();
    std::fs::File::open(&capture).unwrap().read_to_end(&mut bytes).unwrap();
    // The file's header, then each frame behind one of its own, the length at its place 8 (pcap-savefile(5)).
    let mut rest = &bytes[24..];
    let (mut frames, mut segments) = (0, 0);
    while let Some((header, behind)) = rest.split_at_checked(16) {
        let length = u32::from_le_bytes(header[8..12].try_into().unwrap()) as usize;
        let (frame, behind) = behind.split_at(length);
        rest = behind;
        assert_eq!(frame[12..16], [0x81, 0, 0, ID as u8], "{frame:02x?}");
        frames += 1;
        let packet = SlicedPacket::from_ethernet(frame).unwrap();
        segments += usize::from(matches!(packet.transport, Some(TransportSlice::Tcp(_))));
    }
    assert!(frames > segments && segments > 10, "{frames} frames, {segments} of TCP");
}

#[test]
fn a_distant_client_comes_through_a_router() {
    if !needs_root("a_distant_client_comes_through_a_router") {
        return;
    }
    for via_balancer in [false, true] {
        let lab = Lab::blueprint(Layout::Distant).backends(1).route_back_via_balancer(via_balancer).up().unwrap();
        let (client, backend, router) = (lab.client(), &lab.backends()[0], lab.router().unwrap());
        for address in addresses(backend).into_iter().chain(addresses(lab.balancer())) {
            client.ping(address.ip(), 4000, SOON).unwrap();
        }
        let gateway = if via_balancer { lab.balancer() } else { router };
        let gateway = gateway.interfaces().last().unwrap();
        for (address, gateway) in addresses(client).iter().zip([gateway.ipv4.to_string(), gateway.ipv6.to_string()]) {
            let route = backend.run(["ip", "route", "get", &address.ip().to_string()]).unwrap().stdout;
            assert!(route.contains(&format!("via {gateway} ")), "{route}");
        }
    }
}
