//! ICMP: errors reach who they are for, echo requests are answered, and what is too long for a tunnel or a link is sent anew in
//! pieces that fit.
#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, PacketBuilder, TcpHeader};
use socket2::{Domain, Socket, Type};
use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};
use support::{
    TURN, count,
    farm::{Farm, Kind, Mode, backend_ip, exchange_a_long_line, service_ips},
    service, status_of, url, wait_for,
};
use tests::{
    Amount, FrameSocket, Host, Lab, Layout, LineServer, Nginx, UdpEcho, curl_with, iperf, needs_program, needs_root,
    protocol_counters, served_in_total, wait_until,
};

const SOON: Duration = Duration::from_secs(5);
/// Long enough for an answer on an idle path, short enough to wait for one that must not come.
const NEVER: Duration = Duration::from_millis(300);

fn any(service: SocketAddr) -> SocketAddr {
    let ip: IpAddr = if service.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    SocketAddr::new(ip, 0)
}

/// A datagram to a port at which nobody is: the client is told so.
fn tells_that_nobody_is_there(mode: Mode) {
    let mut farm = Farm::up(mode, 2, &[0, 1], "");
    for echo in &mut farm.echoes {
        echo.stop();
    }
    for service in farm.services(Kind::Echo) {
        for _ in 0..8 {
            let told = farm.lab.client().inside(|| {
                let socket = UdpSocket::bind(any(service)).unwrap();
                socket.connect(service).unwrap();
                socket.set_read_timeout(Some(SOON)).unwrap();
                socket.send(b"is anybody there?").unwrap();
                socket.recv(&mut [0; 100]).unwrap_err().kind()
            });
            assert_eq!(told.unwrap(), ErrorKind::ConnectionRefused, "{service}");
        }
    }
    let status = farm.agent.status().unwrap();
    // Without NAT the backend tells the client itself.
    let translated = if mode == Mode::Nat { 16 } else { 0 };
    assert_eq!(count(&status, "packets", "error_returned"), translated, "{status:#}");
}

#[test]
fn a_closed_port_is_told_by_nat() {
    if needs_root("a_closed_port_is_told_by_nat") {
        tells_that_nobody_is_there(Mode::Nat);
    }
}

#[test]
fn a_closed_port_is_told_by_tunnel() {
    if needs_root("a_closed_port_is_told_by_tunnel") {
        tells_that_nobody_is_there(Mode::Tunnel6);
    }
}

/// How many errors of this kind a host's kernel has got, of both families.
fn errors_got(host: &Host, kind: &str) -> u64 {
    let counters = protocol_counters(host).unwrap();
    counters[&format!("Icmp In{kind}s")] + counters[&format!("Icmp6In{kind}s")]
}

/// Answers that die on the way: the router's error comes to the service's address, and is for the backend that answered.
fn brings_errors_to_their_owner(mode: Mode) {
    const FLOWS: u16 = 12;
    let mut farm = Farm::in_layout(mode, Layout::Distant, 3, &[0, 1, 2], "");
    for echo in &mut farm.echoes {
        echo.stop();
    }
    // What comes back through the balancer uses a hop up there.
    let hops = if mode == Mode::Nat { 2 } else { 1 };
    let mut answered = [0; 3];
    for service in farm.services(Kind::Echo) {
        let listen = |(number, host): (usize, &Host)| {
            let ip = if mode == Mode::Nat { farm.backend(Kind::Echo, service, number).ip() } else { service.ip() };
            host.inside(|| {
                let socket = Socket::new(Domain::for_address(service), Type::DGRAM, None).unwrap();
                if service.is_ipv4() {
                    socket.set_ttl_v4(hops).unwrap();
                } else {
                    socket.set_unicast_hops_v6(hops).unwrap();
                }
                let local = SocketAddr::new(ip, service.port()).into();
                // A child that another test starts holds the last socket as well until it has become another program.
                wait_until(SOON, "the port was free", || socket.bind(&local).ok()).unwrap();
                socket.set_nonblocking(true).unwrap();
                UdpSocket::from(socket)
            })
            .unwrap()
        };
        let servers: Vec<_> = farm.lab.backends().iter().enumerate().map(listen).collect();
        let sockets: Vec<_> =
            farm.lab.client().inside(|| (0..FLOWS).map(|_| UdpSocket::bind(any(service)).unwrap()).collect()).unwrap();
        for client in &sockets {
            client.send_to(b"question", service).unwrap();
            let (number, from) = wait_until(SOON, "a backend had the question", || {
                servers.iter().enumerate().find_map(|(number, server)| {
                    let (_, from) = server.recv_from(&mut [0; 100]).ok()?;
                    Some((number, from))
                })
            })
            .unwrap();
            servers[number].send_to(b"answer", from).unwrap();
            answered[number] += 1;
        }
        wait_until(SOON, "all backends had their errors", || {
            let got: Vec<_> = farm.lab.backends().iter().map(|host| errors_got(host, "TimeExcd")).collect();
            (got == answered).then_some(())
        })
        .unwrap_or_else(|error| {
            let got: Vec<_> = farm.lab.backends().iter().map(|host| errors_got(host, "TimeExcd")).collect();
            panic!("{error:#}: {answered:?} answers, {got:?} errors to {service}");
        });
    }
    assert!(answered.iter().all(|answers| *answers > 0), "{answered:?}");
    let status = farm.agent.status().unwrap();
    assert_eq!(count(&status, "packets", "error_forwarded"), 2 * u64::from(FLOWS), "{status:#}");
}

#[test]
fn time_exceeded_reaches_the_owner_by_dsr() {
    if needs_root("time_exceeded_reaches_the_owner_by_dsr") {
        brings_errors_to_their_owner(Mode::Dsr);
    }
}

#[test]
fn time_exceeded_reaches_the_owner_by_nat() {
    if needs_root("time_exceeded_reaches_the_owner_by_nat") {
        brings_errors_to_their_owner(Mode::Nat);
    }
}

#[test]
fn time_exceeded_reaches_the_owner_by_tunnel() {
    if needs_root("time_exceeded_reaches_the_owner_by_tunnel") {
        brings_errors_to_their_owner(Mode::Tunnel4);
    }
}

/// Pages that are longer than what a link of the client's side takes in one packet.
fn downloads_over_a_narrow_link(mode: Mode) {
    const PAGES: usize = 8;
    let farm = Farm::in_layout(mode, Layout::Distant, 2, &[0, 1], "");
    let (client, router) = (farm.lab.client(), farm.lab.router().unwrap());
    let narrow = [client.ipv4().to_string(), client.ipv6().to_string()];
    router.ip(&narrow.map(|client| format!("route add {client} dev eth0 mtu lock 1400"))).unwrap();
    for service in farm.services(Kind::Web) {
        let replies = curl_with(client, &format!("{}large", url(service)), PAGES, &[]).unwrap();
        for reply in &replies {
            assert_eq!((reply.status, &reply.error, reply.body.len()), (Some(200), &None, Nginx::LARGE), "{service}");
        }
    }
    // Who served pages was told, in each family for itself.
    for (served, server) in served_in_total(&farm.web, 2 * PAGES).unwrap().iter().zip(&farm.web) {
        let counters = protocol_counters(server.host()).unwrap();
        for (ipv4, counter) in [(true, "Icmp InDestUnreachs"), (false, "Icmp6InPktTooBigs")] {
            let pages = served.iter().filter(|request| request.remote.is_ipv4() == ipv4).count();
            assert_eq!(counters[counter] > 0, pages > 0, "{server:?}: {pages} pages, {counter} {}", counters[counter]);
        }
    }
    let status = farm.agent.status().unwrap();
    assert!(count(&status, "packets", "error_forwarded") >= 2, "{status:#}");
}

#[test]
fn downloads_over_a_narrow_link_by_dsr() {
    if needs_root("downloads_over_a_narrow_link_by_dsr") {
        downloads_over_a_narrow_link(Mode::Dsr);
    }
}

#[test]
fn downloads_over_a_narrow_link_by_nat() {
    if needs_root("downloads_over_a_narrow_link_by_nat") {
        downloads_over_a_narrow_link(Mode::Nat);
    }
}

#[test]
fn downloads_over_a_narrow_link_by_tunnel() {
    if needs_root("downloads_over_a_narrow_link_by_tunnel") {
        downloads_over_a_narrow_link(Mode::Tunnel6);
    }
}

/// The same where the narrow link is the balancer's own: it tells the backends itself.
#[test]
fn downloads_over_a_narrow_link_of_the_balancer() {
    if !needs_root("downloads_over_a_narrow_link_of_the_balancer") {
        return;
    }
    let farm = Farm::up(Mode::Nat, 2, &[0, 1], "");
    let client = farm.lab.client();
    let narrow = [client.ipv4().to_string(), client.ipv6().to_string()];
    farm.lab.balancer().ip(&narrow.map(|client| format!("route add {client} dev eth0 mtu lock 1400"))).unwrap();
    for service in farm.services(Kind::Web) {
        let replies = curl_with(client, &format!("{}large", url(service)), 8, &[]).unwrap();
        for reply in &replies {
            assert_eq!((reply.status, &reply.error, reply.body.len()), (Some(200), &None, Nginx::LARGE), "{service}");
        }
    }
    let status = farm.agent.status().unwrap();
    assert!(count(&status, "packets", "too_long_answered") >= 2, "{status:#}");
}

/// A link to the backends that takes less than the clients': the clients are told.
#[test]
fn uploads_over_a_narrow_link_to_the_backends() {
    if !needs_root("uploads_over_a_narrow_link_to_the_backends") {
        return;
    }
    let farm = Farm::up(Mode::Nat, 1, &[0], "");
    let (balancer, backend) = (farm.lab.balancer(), &farm.lab.backends()[0]);
    let gateway = balancer.interfaces().last().unwrap();
    // While it runs. The backends offer to take more than they can, as they would if the link were not their own.
    balancer.ip(&["link set eth1 mtu 1400".into()]).unwrap();
    let offer = |gateway: IpAddr, size: u16| format!("route change default via {gateway} advmss {size}");
    let offers = [offer(gateway.ipv4.into(), 1460), offer(gateway.ipv6.into(), 1440)];
    backend.ip(&[vec!["link set eth0 mtu 1400".into()], offers.into()].concat()).unwrap();
    for service in farm.services(Kind::Lines) {
        let told = || count(&farm.agent.status().unwrap(), "packets", "too_long_answered");
        let before = told();
        exchange_a_long_line(farm.lab.client(), service, 1_000_000);
        assert!((1..100).contains(&(told() - before)), "{service}: {before} {}", told());
    }
}

/// Segments that fill the client's link have no room for an outer header: the client is told what has.
fn uploads_through_a_tunnel(name: &str, mode: Mode, layout: Layout) {
    const PORT: u16 = 5201;
    const BYTES: u64 = 3_000_000;
    if !needs_root(name) || !needs_program(name, "iperf3") {
        return;
    }
    let lab = Lab::blueprint(layout).backends(1).up().unwrap();
    let bulk = service_ips(&lab).map(|ip| SocketAddr::new(ip, PORT));
    let mut more = String::new();
    for (name, address) in ["bulk4", "bulk6"].iter().zip(bulk) {
        let own = SocketAddr::new(backend_ip(&lab, mode, address.ip(), 0), PORT);
        more += &service(name, "tcp", address, mode.name(), &[(own, 1)]);
    }
    let farm = Farm::in_lab(mode, lab, &[0], &more);
    wait_for(&farm.agent, "the backend serves in bulk", |status| {
        bulk.iter().all(|service| status_of(status, *service)["backends"][0]["serving"] == true)
    });
    for (bulk, lines) in bulk.into_iter().zip(farm.services(Kind::Lines)) {
        let told = || count(&farm.agent.status().unwrap(), "packets", "too_long_answered");
        let before = told();
        exchange_a_long_line(farm.lab.client(), lines, 1_000_000);
        for back in [false, true] {
            let transfer = iperf(farm.lab.client(), &farm.lab.backends()[0], bulk, Amount::Bytes(BYTES), back).unwrap();
            // iperf ends when all is sent, which is not when all has arrived.
            assert!(transfer.sent >= BYTES && transfer.received > 0, "{bulk}: {transfer:?}");
        }
        // Once is enough for the client to know; more segments were on their way before.
        let told = told() - before;
        assert!((1..100).contains(&told), "{bulk}: told {told} times");
    }
    let status = farm.agent.status().unwrap();
    assert_eq!(count(&status, "packets", "too_long"), 0, "{status:#}");
}

#[test]
fn uploads_through_tunnels_over_ipv4() {
    uploads_through_a_tunnel("uploads_through_tunnels_over_ipv4", Mode::Tunnel4, Layout::Bridged);
}

#[test]
fn uploads_through_tunnels_over_ipv4_out_of_another_interface() {
    let name = "uploads_through_tunnels_over_ipv4_out_of_another_interface";
    uploads_through_a_tunnel(name, Mode::Tunnel4, Layout::Routed);
}

#[test]
fn uploads_through_tunnels_over_ipv6() {
    uploads_through_a_tunnel("uploads_through_tunnels_over_ipv6", Mode::Tunnel6, Layout::Distant);
}

#[test]
fn echo_requests_are_answered() {
    if !needs_root("echo_requests_are_answered") {
        return;
    }
    for layout in [Layout::Bridged, Layout::Distant] {
        let farm = Farm::in_layout(Mode::Dsr, layout, 1, &[0], "");
        let client = farm.lab.client();
        let own = [farm.lab.balancer().ipv4().into(), farm.lab.balancer().ipv6().into()];
        let services = service_ips(&farm.lab);
        let ping_all = |ips: [IpAddr; 2]| {
            for ip in ips {
                // Within a frame, as full as it gets, and in fragments.
                for size in [0, 56, 1400, 4000, 20_000] {
                    client.ping(ip, size, SOON).unwrap_or_else(|error| panic!("{size} bytes: {error:#}"));
                }
            }
        };
        ping_all(services);
        let answered = count(&farm.agent.status().unwrap(), "packets", "echo_answered");
        assert!(answered >= 10, "{answered}");
        // The balancer's kernel answers for itself.
        ping_all(own);
        assert_eq!(count(&farm.agent.status().unwrap(), "packets", "echo_answered"), answered);

        let silent = farm.config(&[0]).replace("check = \"web\"\n", "check = \"web\"\necho = false\n");
        farm.agent.reload(&silent).unwrap();
        wait_until(TURN, "the service was silent", || client.ping(services[0], 56, NEVER).err()).unwrap();
        client.ping(services[1], 56, NEVER).unwrap_err();
        ping_all(own);
        farm.agent.reload(&farm.config(&[0])).unwrap();
        wait_until(TURN, "the service answered again", || client.ping(services[0], 56, NEVER).ok()).unwrap();
        ping_all(services);
    }
}

/// Frames to an IPv4 address, of a TCP connection's begin and of a datagram, each with options and in fragments.
fn unusual_frames(client: &Host, balancer: &Host, to: Ipv4Addr, port: u16) -> Vec<Vec<u8>> {
    const NO_OPERATION: u8 = 1;
    let (near, far) = (client.interfaces()[0].mac, balancer.interfaces()[0].mac);
    let from = client.ipv4();
    let mut frames = Vec::new();
    let options = Ipv4Options::try_from([NO_OPERATION; 4].as_slice()).unwrap();
    let mut syn = TcpHeader::new(port, 7000, 1, 64_240);
    syn.syn = true;
    // So that the first fragment has the whole header but for its options: a shorter one looks like an attack (RFC 1858).
    syn.set_options_raw(&[NO_OPERATION; 16]).unwrap();
    let segment = |syn: &TcpHeader| {
        let mut syn = syn.clone();
        syn.checksum = syn.calc_checksum_ipv4_raw(from.octets(), to.octets(), &[]).unwrap();
        syn.to_bytes().to_vec()
    };
    let mut datagram = Vec::new();
    let udp = PacketBuilder::ethernet2(near, far).ipv4(from.octets(), to.octets(), 64).udp(port, 7000);
    udp.write(&mut datagram, b"0\n0123456789").unwrap();
    let datagram = datagram.split_off(34);
    let mut other_syn = syn.clone();
    other_syn.source_port += 1;
    let mut frame = |protocol, options: Option<&Ipv4Options>, offset: usize, more: bool, payload: &[u8]| {
        let mut ip =
            Ipv4Header::new(payload.len().try_into().unwrap(), 64, protocol, from.octets(), to.octets()).unwrap();
        if let Some(options) = options {
            ip.options = options.clone();
        }
        ip.identification = port + u16::from(protocol == IpNumber::TCP);
        ip.fragment_offset = IpFragOffset::try_new((offset / 8).try_into().unwrap()).unwrap();
        ip.more_fragments = more;
        ip.set_payload_len(payload.len()).unwrap();
        ip.header_checksum = ip.calc_header_checksum();
        let ethernet = [&far[..], &near, &[0x08, 0x00]].concat();
        frames.push([ethernet.as_slice(), &ip.to_bytes(), payload].concat());
    };
    for (protocol, whole, parted) in
        [(IpNumber::TCP, segment(&syn), segment(&other_syn)), (IpNumber::UDP, datagram.clone(), datagram)]
    {
        frame(protocol, Some(&options), 0, false, &whole);
        let cut = if protocol == IpNumber::TCP { 24 } else { 16 };
        frame(protocol, None, 0, true, &parted[..cut]);
        frame(protocol, None, cut, false, &parted[cut..]);
    }
    frames
}

#[test]
fn options_and_fragments_reach_the_balancer_and_services() {
    if !needs_root("options_and_fragments_reach_the_balancer_and_services") {
        return;
    }
    const CLIENT_PORT: u16 = 4000;
    let farm = Farm::up(Mode::Nat, 1, &[0], "");
    let (client, balancer, backend) = (farm.lab.client(), farm.lab.balancer(), &farm.lab.backends()[0]);
    // What manages a machine comes to its own addresses, at ports that services may have as well.
    let own = SocketAddr::new(balancer.ipv4().into(), Kind::Echo.port());
    let echo = UdpEcho::start(balancer, &[own]).unwrap();
    let _lines = LineServer::start(balancer, Kind::Lines.port()).unwrap();
    let wire = FrameSocket::open(client, client.interfaces()[0].index, balancer.ipv4().into()).unwrap();
    let from = SocketAddr::new(client.ipv4().into(), CLIENT_PORT);
    // The client's kernel knows nothing of a connection and resets it, which the other one counts.
    let resets = |host: &Host| protocol_counters(host).unwrap()["Tcp AttemptFails"];
    let IpAddr::V4(service) = service_ips(&farm.lab)[0] else { panic!("no IPv4") };
    for (to, host, server) in [(balancer.ipv4(), balancer, &echo), (service, backend, &farm.echoes[0])] {
        let before = resets(host);
        for frame in unusual_frames(client, balancer, to, CLIENT_PORT) {
            wire.send(&frame).unwrap();
        }
        wait_until(SOON, &format!("{to} had both datagrams"), || (server.seen().get(&from) == Some(&2)).then_some(()))
            .unwrap();
        wait_until(SOON, &format!("{to} had both connections"), || (resets(host) - before == 2).then_some(())).unwrap();
    }
}
