//! Balancing end to end: real clients and servers, both forward modes, both families, both layouts.
//!
//! Which backend serves which flow is not left to statistics: the same path, run on the host with the tables that the
//! config means, has to have picked it.
#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use anyhow::Result;
use etherparse::PacketBuilder;
use lb_common::{
    host::{Buffer, HostTables},
    path::steer,
};
use lb_userspace::{
    config::Config,
    model::{
        actual::Actual,
        desired::{Conditions, Desired},
        host,
        intent::Intent,
        op::Op,
        plan::plan,
        reach::{Hop, Way},
    },
};
use socket2::{Domain, Socket, Type};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read, Write},
    net::{IpAddr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    thread,
    time::Duration,
};
use support::{
    SERVICES, Site, TURN, backend_of, count, failures, head, lab, service, service_addresses, serving, status_of, url,
    wait_for,
};
use tests::{Host, Lab, Layout, Nginx, Reply, curl, curl_many, needs_root, served_in_total, wait_until};

/// For an answer that is on its way.
const SOON: Duration = Duration::from_secs(5);
const TCP: u8 = 6;
const UDP: u8 = 17;

/// The path on the host, with the tables that a config means when all backends are up.
struct Oracle {
    tables: HostTables,
    backends: BTreeMap<u32, SocketAddr>,
    interface: u32,
}

impl Oracle {
    /// `change` has the last word on how the world is.
    fn new(site: &Site, change: impl FnOnce(&mut Conditions)) -> Self {
        Self::of(&site.lab, &site.config, change)
    }

    fn of(lab: &Lab, config: &str, change: impl FnOnce(&mut Conditions)) -> Self {
        let intent = Intent::new(&Config::parse(config).unwrap()).unwrap();
        let mut conditions = Conditions::default();
        let interfaces = lab.balancer().interfaces();
        for interface in interfaces {
            conditions.interfaces.insert(interface.index, interface.mac);
        }
        let near = interfaces.last().unwrap();
        for backend in intent.services().iter().flat_map(|service| &service.backends) {
            let ip = backend.endpoint.ip();
            let host = lab.backends().iter().find(|host| has(host, ip)).unwrap();
            let destination = host.interfaces()[0].mac;
            let hop = Hop { interface: near.index, destination, source: near.mac, mtu: 1500 };
            conditions.ways.insert(ip, Ok(Way { hop, gateway: None }));
            conditions.up.insert(backend.target.clone());
        }
        change(&mut conditions);

        let mut tables = HostTables::default();
        let mut backends = BTreeMap::new();
        for op in
            plan(&Desired::new(&intent, &conditions, Duration::ZERO), &Actual::new(intent.limits()), Duration::ZERO)
                .unwrap()
        {
            host::apply(&mut tables, &op);
            if let Op::PutBackend { id, backend } = op {
                backends.insert(id, SocketAddr::new(backend.own.ip(), backend.own.port()));
            }
        }
        Self { tables, backends, interface: interfaces[0].index }
    }

    /// Which backend a flow's first packet goes to.
    fn backend(&self, protocol: u8, from: SocketAddr, to: SocketAddr) -> SocketAddr {
        let packet = PacketBuilder::ethernet2([2; 6], [4; 6]);
        let packet = match (from.ip(), to.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => packet.ipv4(from.octets(), to.octets(), 64),
            (IpAddr::V6(from), IpAddr::V6(to)) => packet.ipv6(from.octets(), to.octets(), 64),
            other => panic!("{other:?} are of different families"),
        };
        let mut frame = Vec::new();
        if protocol == TCP {
            let packet = packet.tcp(from.port(), to.port(), 1, 64_240).syn();
            packet.write(&mut frame, &[]).unwrap();
        } else {
            let packet = packet.udp(from.port(), to.port());
            packet.write(&mut frame, b"data").unwrap();
        }
        let tables = self.tables.clone();
        let _ = steer(&mut Buffer::new(&frame, self.interface, 0, 0), &tables);
        let traffic = tables.traffic();
        let (id, _) = traffic.first_key_value().unwrap_or_else(|| panic!("{from} to {to} is not forwarded"));
        self.backends[id]
    }
}

fn has(host: &Host, ip: IpAddr) -> bool {
    let mut interfaces = host.interfaces().iter();
    interfaces.any(|interface| ip == IpAddr::from(interface.ipv4) || ip == IpAddr::from(interface.ipv6))
}

/// The address of a host's first interface in the family of another address.
fn address_like(host: &Host, other: SocketAddr) -> IpAddr {
    if other.is_ipv4() { host.ipv4().into() } else { host.ipv6().into() }
}

/// The role of the host that a backend's address is of.
fn role(lab: &Lab, backend: SocketAddr) -> &str {
    lab.backends().iter().find(|host| has(host, backend.ip())).unwrap().role()
}

/// Asserts that every reply is from the backend that the oracle names for its port.
fn served_as_predicted(site: &Site, oracle: &Oracle, service: SocketAddr, replies: &[Reply]) {
    let client = address_like(site.lab.client(), service);
    for reply in replies {
        let from = SocketAddr::new(client, reply.local_port.unwrap());
        let expected = role(&site.lab, oracle.backend(TCP, from, service));
        assert_eq!(reply.body.trim(), expected, "{from} to {service}");
    }
}

/// Asserts that each share is what the weights say, give or take chance.
fn shares_follow_weights(replies: &[Reply], weights: &[u32]) {
    let (total, requests) = (f64::from(weights.iter().sum::<u32>()), replies.len() as f64);
    for (number, weight) in weights.iter().enumerate() {
        let name = format!("backend-{number}");
        let served = replies.iter().filter(|reply| reply.body.trim() == name).count();
        let share = f64::from(*weight) / total;
        // Five standard deviations of a binomial distribution: one failure by chance in two million runs.
        let chance = 5.0 * (requests * share * (1.0 - share)).sqrt();
        let off = (served as f64 - share * requests).abs();
        assert!(off <= chance, "{name} of weight {weight} served {served} of {requests}");
    }
}

/// One request from a port of the caller's choice; gives the body.
fn ask_from(client: &Host, port: u16, service: SocketAddr) -> String {
    let asked = client.inside(|| -> Result<String> {
        let socket = Socket::new(Domain::for_address(service), Type::STREAM, None)?;
        // Closing resets the connection, so that it leaves nothing behind that keeps the port.
        socket.set_linger(Some(Duration::ZERO))?;
        let any: IpAddr = if service.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let local = SocketAddr::new(any, port).into();
        // A child that another test starts holds the last socket as well until it has become another program.
        wait_until(SOON, &format!("port {port} was free"), || socket.bind(&local).ok())?;
        socket.connect_timeout(&service.into(), SOON)?;
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(SOON))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    });
    let text = asked.unwrap().unwrap_or_else(|error| panic!("from port {port} to {service}: {error:#}"));
    text.rsplit_once("\r\n\r\n").unwrap().1.to_owned()
}

/// What every combination of mode and layout has to do.
fn balances(mode: &str, layout: Layout) {
    const WEIGHTS: [u32; 3] = [1, 2, 3];
    const REQUESTS: usize = 150;
    let site = Site::up(layout, mode, &WEIGHTS);
    let oracle = Oracle::new(&site, |_| ());

    for service in site.services() {
        let replies = site.requests(service, REQUESTS);
        served_as_predicted(&site, &oracle, service, &replies);
        shares_follow_weights(&replies, &WEIGHTS);

        for port in [20_001, 20_002, 20_003] {
            let bodies: BTreeSet<_> = (0..4).map(|_| ask_from(site.lab.client(), port, service)).collect();
            assert_eq!(bodies.len(), 1, "port {port} to {service} was served by {bodies:?}");
        }
    }

    // The servers have seen the same: the client's own address, and the one that the mode shows them.
    let total = 2 * (REQUESTS + 3 * 4);
    let served = served_in_total(&site.servers, total).unwrap();
    assert_eq!(served.iter().map(Vec::len).sum::<usize>(), total);
    for (requests, server) in served.iter().zip(&site.servers) {
        for request in requests {
            let service = site.services()[usize::from(request.remote.is_ipv6())];
            assert_eq!(request.remote.ip(), address_like(site.lab.client(), service));
            let backend = oracle.backend(TCP, request.remote, service);
            assert!(has(server.host(), backend.ip()), "{request:?} is not for {backend}");
            assert_eq!(request.local, if mode == "nat" { backend } else { service });
        }
    }

    // The last packets are still on their way when curl has ended.
    let forwarded = format!("forwarded_{mode}");
    let status = wait_for(&site.agent, "backends and ways out count the same packets", |status| {
        let services = site.services().into_iter();
        let packets = services.flat_map(|service| status_of(status, service)["backends"].as_array().unwrap());
        let sum: u64 = packets.map(|backend| backend["packets"].as_u64().unwrap()).sum();
        sum == count(status, "packets", &forwarded)
    });
    for service in site.services() {
        for backend in site.backends(service) {
            let backend = backend_of(&status, service, backend);
            assert_eq!(backend["health"], "up", "{backend:#}");
            // A request takes the client four packets at least: SYN, request, FIN, and an acknowledgement.
            let packets = backend["packets"].as_u64().unwrap();
            assert!(packets >= 4, "{backend:#}");
            assert!(backend["bytes"].as_u64().unwrap() >= packets * 54, "{backend:#}");
        }
    }
    let packets = |name: &str| count(&status, "packets", name);
    assert!(packets(&forwarded) >= 4 * total as u64);
    assert_eq!(packets(if mode == "nat" { "forwarded_dsr" } else { "forwarded_nat" }), 0);
    assert_eq!(packets("inconsistent"), 0);
    assert_eq!(packets("no_backend"), 0);
    if mode == "nat" {
        assert!(packets("returned") + packets("returned_by_stack") >= 3 * total as u64, "{status:#}");
        // Only what the kernel has to resolve the client's neighbour entry for, once in each family.
        assert!(packets("returned") > 100 * packets("returned_by_stack"), "{status:#}");
        // Answers to probes come from the same endpoints as replies, and yet they arrive: one for each backend and
        // check, of which two that fail would take it down.
        let status = wait_for(&site.agent, "three rounds of probes have been answered", |status| {
            count(status, "packets", "return_not_forwarded") >= 3 * 2 * WEIGHTS.len() as u64
        });
        for service in site.services() {
            assert_eq!(serving(&status, service).len(), WEIGHTS.len());
        }
    } else {
        assert_eq!(packets("returned") + packets("returned_by_stack"), 0, "{status:#}");
    }

    if layout == Layout::Bridged {
        assert!(packets("arp_answered") > 0 && packets("neighbor_answered") > 0, "{status:#}");
        let mac = site.lab.balancer().interfaces()[0].mac_text();
        for service in site.services() {
            let line = ["ip", "neighbour", "show", &service.ip().to_string()];
            let entry = site.lab.client().run(line).unwrap().stdout;
            assert!(entry.contains(&format!("lladdr {mac}")), "{service}: {entry}");
        }
    }
}

#[test]
fn dsr_out_of_the_same_interface() {
    if needs_root("dsr_out_of_the_same_interface") {
        balances("dsr", Layout::Bridged);
    }
}

#[test]
fn dsr_out_of_another_interface() {
    if needs_root("dsr_out_of_another_interface") {
        balances("dsr", Layout::Routed);
    }
}

#[test]
fn nat_out_of_the_same_interface() {
    if needs_root("nat_out_of_the_same_interface") {
        balances("nat", Layout::Bridged);
    }
}

#[test]
fn nat_out_of_another_interface() {
    if needs_root("nat_out_of_another_interface") {
        balances("nat", Layout::Routed);
    }
}

/// A client's socket, connected: it takes datagrams from the service's address alone.
fn datagram_client(client: &Host, service: SocketAddr) -> UdpSocket {
    let socket = client.inside(|| -> std::io::Result<_> {
        let any: IpAddr = if service.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = UdpSocket::bind(SocketAddr::new(any, 0))?;
        socket.set_read_timeout(Some(SOON))?;
        socket.connect(service)?;
        Ok(socket)
    });
    socket.unwrap().unwrap()
}

/// Datagrams to a service are answered by the backend that the oracle names.
fn balances_datagrams(mode: &str, layout: Layout) {
    let lab = lab(layout, mode, 3);
    let addresses = service_addresses(&lab).map(|address| SocketAddr::new(address.ip(), 5353));
    let port = if mode == "nat" { 5300 } else { 5353 };
    let near = |host: &Host, service: SocketAddr| -> IpAddr {
        let interface = host.interfaces().last().unwrap();
        if service.is_ipv4() { interface.ipv4.into() } else { interface.ipv6.into() }
    };
    // Probes are by TCP, so they go to nginx.
    let mut config = head(&lab) + "port = 80\n";
    for (name, address) in ["udp4", "udp6"].iter().zip(addresses) {
        let backends = lab.backends().iter();
        let backends: Vec<_> = backends.map(|host| (SocketAddr::new(near(host, address), port), 1)).collect();
        config += &service(name, "udp", address, mode, &backends);
    }
    let site = Site::start(lab, config);
    let oracle = Oracle::new(&site, |_| ());

    for service in addresses {
        let listen = |host: &Host| {
            let local = if mode == "nat" { near(host, service) } else { service.ip() };
            let socket = host.inside(|| UdpSocket::bind(SocketAddr::new(local, port)).unwrap()).unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        };
        let servers: Vec<_> = site.lab.backends().iter().map(listen).collect();
        let mut asked = BTreeSet::new();
        for number in 0..30 {
            let client = datagram_client(site.lab.client(), service);
            let from = SocketAddr::new(address_like(site.lab.client(), service), client.local_addr().unwrap().port());
            let question = format!("question {number}");
            client.send(question.as_bytes()).unwrap();
            let received = wait_until(SOON, &format!("a backend received {question:?} from {from}"), || {
                servers.iter().enumerate().find_map(|(index, server)| {
                    let mut data = [0; 100];
                    let (length, peer) = server.recv_from(&mut data).ok()?;
                    Some((index, peer, String::from_utf8_lossy(&data[..length]).into_owned()))
                })
            });
            let (index, peer, data) = received.unwrap();
            assert_eq!((peer, data), (from, question));
            let backend = oracle.backend(UDP, from, service);
            assert!(has(&site.lab.backends()[index], backend.ip()), "{from} came to backend {index}, not to {backend}");
            servers[index].send_to(format!("answer {number}").as_bytes(), from).unwrap();
            let mut data = [0; 100];
            let length = client.recv(&mut data).unwrap();
            assert_eq!(data[..length], *format!("answer {number}").as_bytes());
            asked.insert(index);
        }
        assert_eq!(asked.len(), 3, "30 flows to {service} reached the backends {asked:?} only");
    }
}

#[test]
fn datagrams_by_nat() {
    if needs_root("datagrams_by_nat") {
        balances_datagrams("nat", Layout::Routed);
    }
}

#[test]
fn datagrams_by_dsr() {
    if needs_root("datagrams_by_dsr") {
        balances_datagrams("dsr", Layout::Bridged);
    }
}

/// A megabyte to the server and back, in segments as full as the link takes.
fn carries_much(mode: &str, layout: Layout) {
    const PORT: u16 = 7000;
    let lab = lab(layout, mode, 1);
    let backend = lab.backends()[0].clone();
    let addresses = service_addresses(&lab).map(|address| SocketAddr::new(address.ip(), PORT));
    let near = backend.interfaces().last().unwrap().clone();
    let mut config = head(&lab);
    for (name, (address, own)) in SERVICES.iter().zip(addresses.iter().zip([near.ipv4.into(), near.ipv6.into()])) {
        config += &service(name, "tcp", *address, mode, &[(SocketAddr::new(own, PORT), 1)]);
    }
    let any = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), PORT);
    let listener = backend.inside(|| TcpListener::bind(any).unwrap()).unwrap();
    listener.set_nonblocking(true).unwrap();
    let site = Site::start(lab, config);

    let sent: Vec<u8> = (0..1_000_000_u32).map(|number| (number % 251) as u8).collect();
    for service in addresses {
        let ip = address_like(site.lab.client(), service);
        let client = site.lab.client().inside(|| TcpStream::connect_timeout(&service, SOON).unwrap()).unwrap();
        // Probes are accepted as well.
        let accepted = wait_until(SOON, "the connection was accepted", || {
            let (stream, peer) = listener.accept().ok()?;
            (peer.ip().to_canonical() == ip).then_some(stream)
        });
        let mut server = accepted.unwrap();
        server.set_nonblocking(false).unwrap();
        let received = thread::scope(|scope| {
            scope.spawn(|| {
                let mut data = Vec::new();
                server.read_to_end(&mut data).unwrap();
                server.write_all(&data).unwrap();
                server.shutdown(Shutdown::Write).unwrap();
            });
            let mut client = &client;
            client.set_read_timeout(Some(SOON)).unwrap();
            client.write_all(&sent).unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            let mut data = Vec::new();
            client.read_to_end(&mut data).unwrap();
            data
        });
        assert_eq!(received.len(), sent.len(), "{service}");
        assert!(received == sent, "{service}: what came back differs");
    }
}

#[test]
fn much_data_by_nat() {
    if needs_root("much_data_by_nat") {
        carries_much("nat", Layout::Routed);
    }
}

#[test]
fn much_data_by_dsr() {
    if needs_root("much_data_by_dsr") {
        carries_much("dsr", Layout::Bridged);
    }
}

#[test]
fn what_is_not_ours_is_untouched() {
    if !needs_root("what_is_not_ours_is_untouched") {
        return;
    }
    let site = Site::up(Layout::Routed, "nat", &[1, 1]);
    let (lab, client, balancer) = (&site.lab, site.lab.client(), site.lab.balancer());
    // The service's port on the balancer's own addresses, and another.
    let own = Nginx::start(balancer, &[80, 2222]).unwrap();
    let backend = Nginx::start(&lab.backends()[0], &[2222]).unwrap();
    let before = site.agent.status().unwrap();
    for interface in balancer.interfaces() {
        for ip in [IpAddr::from(interface.ipv4), interface.ipv6.into()] {
            for from in [client, &lab.backends()[1]] {
                from.ping(ip, 56, SOON).unwrap();
                // Longer than a frame: fragments.
                from.ping(ip, 4000, SOON).unwrap();
                for port in [80, 2222] {
                    let reply = curl(from, &url(SocketAddr::new(ip, port))).unwrap();
                    assert_eq!(
                        (reply.status, reply.body.trim()),
                        (Some(200), "balancer"),
                        "{from:?} to {ip}: {reply:?}"
                    );
                }
            }
        }
    }
    // Between client and backend the balancer is a router.
    let interface = &lab.backends()[0].interfaces()[0];
    for ip in [IpAddr::from(interface.ipv4), interface.ipv6.into()] {
        client.ping(ip, 4000, SOON).unwrap();
        let replies = curl_many(client, &url(SocketAddr::new(ip, 2222)), 5).unwrap();
        assert_eq!(failures(&replies), Vec::<&Reply>::new());
        // The backend's endpoint itself, from the balancer: what a probe does, with an answer.
        let reply = curl(balancer, &url(SocketAddr::new(ip, 8080))).unwrap();
        assert_eq!((reply.status, reply.body.trim()), (Some(200), "backend-0"), "{reply:?}");
    }
    // Nobody is on the service's addresses but at its port.
    for service in site.services() {
        let reply = curl(client, &url(SocketAddr::new(service.ip(), 2222))).unwrap();
        assert_eq!(reply.status, None, "{reply:?}");
    }
    assert_eq!(served_in_total([&own], 16).unwrap()[0].len(), 16);
    assert_eq!(served_in_total([&backend], 10).unwrap()[0].len(), 10);

    let after = site.agent.status().unwrap();
    let moved = |name: &str| count(&after, "packets", name) - count(&before, "packets", name);
    assert_eq!((moved("forwarded_nat"), moved("returned"), moved("returned_by_stack")), (0, 0, 0), "{after:#}");
    for name in ["no_service", "fragment_unknown", "icmp_not_ours"] {
        assert!(moved(name) > 0, "{name}: {after:#}");
    }
}

#[test]
fn a_backend_of_weight_0_gets_nothing() {
    if !needs_root("a_backend_of_weight_0_gets_nothing") {
        return;
    }
    let site = Site::up(Layout::Bridged, "dsr", &[1, 0, 1]);
    let oracle = Oracle::new(&site, |_| ());
    for service in site.services() {
        let idle = site.backends(service)[1];
        let status = wait_for(&site.agent, "the backend of weight 0 is up", |status| {
            backend_of(status, service, idle)["health"] == "up"
        });
        assert_eq!(serving(&status, service).len(), 2);
        let replies = site.requests(service, 100);
        served_as_predicted(&site, &oracle, service, &replies);
        let status = site.agent.status().unwrap();
        assert_eq!(backend_of(&status, service, idle)["packets"], 0);
    }
    assert_eq!(site.servers[1].served().unwrap(), []);
}

#[test]
fn a_drained_backend_gets_no_new_flows() {
    if !needs_root("a_drained_backend_gets_no_new_flows") {
        return;
    }
    let site = Site::up(Layout::Routed, "nat", &[1, 1, 1]);
    let everyone = Oracle::new(&site, |_| ());
    for (name, service) in SERVICES.iter().zip(site.services()) {
        let backends = site.backends(service);
        let drained = backends[1];
        let change = |verb: &str| {
            let output = site.agent.lb(["backend", verb, name, &drained.to_string()]).unwrap();
            (output.stdout, site.agent.status().unwrap())
        };

        let (said, status) = change("drain");
        assert_eq!(said, format!("service {name}: backend {drained} is draining\n"));
        assert_eq!(backend_of(&status, service, drained)["draining"], true);
        // Probes of a drained backend go on.
        assert_eq!(backend_of(&status, service, drained)["health"], "up");
        assert_eq!(serving(&status, service), [backends[0], backends[2]].into());
        let text = site.agent.lb(["status"]).unwrap().stdout;
        let line = text.lines().find(|line| line.contains(&drained.to_string())).unwrap();
        assert!(line.contains("draining"), "{text}");

        let without = Oracle::new(&site, |conditions| {
            conditions.up.retain(|target| target.address != drained);
        });
        let replies = site.requests(service, 100);
        served_as_predicted(&site, &without, service, &replies);
        assert!(replies.iter().all(|reply| reply.body != "backend-1\n"));

        let (said, status) = change("undrain");
        assert_eq!(said, format!("service {name}: backend {drained} is taking new flows\n"));
        assert_eq!(backend_of(&status, service, drained)["draining"], false);
        assert_eq!(serving(&status, service), backends.into_iter().collect());
        let replies = site.requests(service, 100);
        served_as_predicted(&site, &everyone, service, &replies);
        assert!(replies.iter().any(|reply| reply.body == "backend-1\n"));
    }
}

#[test]
fn a_drain_of_what_is_not_there_is_refused() {
    if !needs_root("a_drain_of_what_is_not_there_is_refused") {
        return;
    }
    let site = Site::up(Layout::Bridged, "dsr", &[1]);
    let backend = site.backends(site.services()[0])[0];
    let refused = |service: &str, backend: &str| {
        let output = site.agent.attempt_lb(["backend", "drain", service, backend]).unwrap();
        (output.status.code(), output.stderr)
    };
    let (code, said) = refused("web5", &backend.to_string());
    assert_eq!(
        (code, said.as_str()),
        (Some(1), "lb: nothing was changed: there is no service `web5`; the config has: web4, web6\n")
    );
    let (code, said) = refused("web4", "10.77.0.99:80");
    assert_eq!(code, Some(1));
    assert_eq!(
        said,
        format!("lb: nothing was changed: service `web4` has no backend 10.77.0.99:80; it has: {backend}\n")
    );
    // Without a port, as those of a service at all ports are written.
    let (code, said) = refused("web4", "10.77.0.99");
    assert_eq!(code, Some(1));
    assert_eq!(said, format!("lb: nothing was changed: service `web4` has no backend 10.77.0.99; it has: {backend}\n"));
    let (code, _) = refused("web4", "10.77.0.300");
    assert_eq!(code, Some(2));
}

/// A server that dies leaves once its check has turned, and comes back by itself.
fn leaves_and_comes_back(mode: &str, layout: Layout) {
    let mut site = Site::up(layout, mode, &[1, 2, 1]);
    let everyone = Oracle::new(&site, |_| ());
    let services = site.services();
    let victims = services.map(|service| site.backends(service)[1]);

    site.servers[1].stop().unwrap();
    let status = wait_for(&site.agent, "the dead backend is out of both tables", |status| {
        let mut pairs = services.into_iter().zip(victims);
        pairs.all(|(service, victim)| !serving(status, service).contains(&victim))
    });
    for (service, victim) in services.into_iter().zip(victims) {
        assert_eq!(backend_of(&status, service, victim)["health"], "down");
        let without = Oracle::new(&site, |conditions| conditions.up.retain(|target| target.address != victim));
        let replies = site.requests(service, 100);
        served_as_predicted(&site, &without, service, &replies);
    }
    assert!(site.agent.running().log().contains("down"), "{}", site.agent.running().log());

    site.servers[1].start_again().unwrap();
    wait_for(&site.agent, "the backend is back in both tables", |status| {
        let mut pairs = services.into_iter().zip(victims);
        pairs.all(|(service, victim)| serving(status, service).contains(&victim))
    });
    for service in services {
        let replies = site.requests(service, 100);
        served_as_predicted(&site, &everyone, service, &replies);
    }
}

#[test]
fn a_dead_backend_leaves_and_comes_back_by_dsr() {
    if needs_root("a_dead_backend_leaves_and_comes_back_by_dsr") {
        leaves_and_comes_back("dsr", Layout::Bridged);
    }
}

#[test]
fn a_dead_backend_leaves_and_comes_back_by_nat() {
    if needs_root("a_dead_backend_leaves_and_comes_back_by_nat") {
        leaves_and_comes_back("nat", Layout::Routed);
    }
}

#[test]
fn a_backend_whose_mac_address_changes_is_found_again() {
    if !needs_root("a_backend_whose_mac_address_changes_is_found_again") {
        return;
    }
    let site = Site::up(Layout::Bridged, "dsr", &[1]);
    let backend = &site.lab.backends()[0];
    // As a machine that takes over an address does, it tells so.
    backend.set([("ipv4/conf/eth0/arp_notify", "1"), ("ipv6/conf/eth0/ndisc_notify", "1")]).unwrap();
    for service in site.services() {
        site.requests(service, 5);
    }
    backend.ip(&["link set eth0 address 02:00:00:00:77:77".into()]).unwrap();
    for service in site.services() {
        let answers = || curl(site.lab.client(), &url(service)).unwrap().status == Some(200);
        wait_until(TURN, &format!("{service} is served again"), || answers().then_some(())).unwrap();
        site.requests(service, 20);
    }
}
