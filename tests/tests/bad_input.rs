//! What is wrong, missing or in the way: every mistake gets its own words and exit code, and nothing that a wire can
//! carry disturbs the agent or its traffic.
//!
//! Exit codes: 0 done, 1 the answer is no, 2 wrong usage or config, 3 the kernel refused.
#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use aya::maps::{Array, IterableMap as _};
use etherparse::{
    ArpHardwareId, ArpOperation, ArpPacket, EtherType, Ethernet2Header, Icmpv6Header, Icmpv6Type, PacketBuilder,
};
use lb_common::tables::LAYOUT;
use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
};
use support::{
    Site, TURN, backend_of, count, dns, failures, has_program, head, lab, name, service, service_addresses, services,
    serving, url, wait_for,
};
use tests::{Agent, FrameSocket, Host, Lab, Layout, Nginx, Reply, curl_many, dig, lb_binary, needs_root};

/// How a command ended: its exit code, and all that it said.
type Ended = (i32, String);

/// Runs `lb` on the balancer until it ends by itself, with `before` in front of it.
fn lb_behind(lab: &Lab, before: &[&str], arguments: &[&str]) -> Ended {
    let binary = lb_binary().unwrap();
    let line = before.iter().copied().chain([binary.to_str().unwrap()]).chain(arguments.iter().copied());
    let running = lab.balancer().spawn(line).unwrap();
    let status = running.wait(TURN).unwrap_or_else(|error| panic!("{error:#}: {}", running.log()));
    (status.code().unwrap(), running.log())
}

fn lb(lab: &Lab, arguments: &[&str]) -> Ended {
    lb_behind(lab, &[], arguments)
}

/// Runs an agent that must not come up.
fn run(lab: &Lab, config: &str) -> Ended {
    lb(lab, &["run", "--config", &write(lab, config)])
}

/// Writes a config that everybody may read; gives its path.
fn write(lab: &Lab, config: &str) -> String {
    let path = lab.folder().join("lb.toml");
    fs::write(&path, config).unwrap();
    path.display().to_string()
}

fn says((code, text): Ended, expected: i32, said: &str) {
    assert_eq!(code, expected, "{text}");
    assert!(text.contains(said), "{said:?} is not in {text}");
}

/// Puts somebody else's program on an interface of the balancer, or takes it off.
fn put_foreign_program(lab: &Lab, interface: &str, put: bool) {
    let pass = bpf_folder(lab).join("pass").display().to_string();
    let program = if put { vec!["pinned", &pass] } else { vec!["off"] };
    let line = ["ip", "link", "set", "dev", interface, "xdpdrv"];
    lab.balancer().run(line.into_iter().chain(program)).unwrap();
}

fn bpf_folder(lab: &Lab) -> PathBuf {
    lab.pins().parent().unwrap().to_owned()
}

#[test]
fn mistakes_in_the_config_are_told_with_line_and_cure() {
    if !needs_root("mistakes_in_the_config_are_told_with_line_and_cure") {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).backends(2).up().unwrap();
    let right = head(&lab) + &services(&lab, "dsr", &[1, 1]);
    let once = |from: &str, to: &str| {
        assert!(right.contains(from), "{from:?} is not in {right}");
        right.replacen(from, to, 1)
    };
    let and = |name: &str, port| {
        let address = |host: &Host| SocketAddr::new(host.ipv4().into(), port);
        let backend = (address(&lab.backends()[0]), 1);
        let at = SocketAddr::new(service_addresses(&lab)[0].ip(), port);
        right.clone() + &service(name, "tcp", at, "dsr", &[backend])
    };
    // The config, how the line begins that is wrong, and what is said of it.
    let cases = [
        (
            once("weight = 1", "wieght = 1"),
            "wieght",
            "unknown key `wieght`; the keys here are `address`, `port`, `weight`",
        ),
        (
            once("\"10.77.0.200\"", "\"10.77.0.300\""),
            "address = \"10.77.0.300\"",
            "address `10.77.0.300` is not an IP address; write one such as 192.0.2.10",
        ),
        (
            and("twin", 80),
            "[[service]]",
            "service `twin`: service `web4`, at line 12, has the same address, port and protocol; change one of them, \
             or merge the services",
        ),
        (
            and("web4", 81),
            "name = \"web4\"",
            "service `web4`: another service, at line 13, has this name; write another one",
        ),
        (once("port = 80", "port = 0"), "port = 0", "port 0 is not a port; write 1 to 65535"),
        (
            right.replace("weight = 1", "weight = 0"),
            "[[service]]",
            "service `web6`: every backend has weight 0, so none takes traffic; write a weight of 1 or more for one",
        ),
        (
            once("weight = 1", "weight = 1000").replacen("slots = 1009", "slots = 251", 1),
            "slots = 251",
            "251 slots are too few for a backend with weight 1 of 1001, which needs a share of at least 2; \
             write slots = 2003 or more",
        ),
        (once("slots = 1009", "slots = 1000"), "slots = 1000", "slots 1000 is not a prime; write 1009"),
        (
            once("\"10.77.0.21\"", "\"fd77::29\""),
            "address = \"fd77::29\"",
            "backend fd77::29 is IPv6, the service's address IPv4; write backends of the service's family",
        ),
        (
            once("mode = \"dsr\"", "mode = \"drs\""),
            "mode = \"drs\"",
            "mode `drs` is unknown; write \"dsr\", \"nat\" or \"tunnel\"",
        ),
        (
            once("check = \"web\"", "check = \"wbe\""),
            "check = \"wbe\"",
            "there is no check `wbe`; those that are there are `web`",
        ),
        (
            once("timeout_ms = 350", "timeout_ms = 3500"),
            "timeout_ms",
            "check `web`: timeout_ms 3500 is longer than interval_ms 400; write 400 or less",
        ),
        (
            once("\"only for tests in a lab\"", "\"hush\""),
            "secret",
            "the secret has 4 characters, 16 are the least; write the output of `openssl rand -hex 16`",
        ),
        (once("rise = 1", "rise = one"), "rise", "not TOML: "),
        (once("rise = 1", "rise = \"one\""), "rise", "where a whole number belongs"),
    ];
    for (config, start, said) in cases {
        let path = write(&lab, &config);
        for arguments in [&["check", &path][..], &["run", "--config", &path]] {
            let (code, text) = lb(&lab, arguments);
            assert_eq!(code, 2, "{text}");
            // Of two such lines the last is wrong.
            let number =
                1 + config.lines().collect::<Vec<_>>().iter().rposition(|line| line.starts_with(start)).unwrap();
            let place = format!("{path}:{number}: ");
            let told = text.lines().map(|line| line.trim_start_matches("lb: "));
            let told: Vec<_> = told.filter_map(|line| line.strip_prefix(&place)).collect();
            assert!(told.iter().any(|told| told.contains(said)), "{said:?} is not said of line {number} in {text}");
            assert!(!text.contains("only for tests in a lab"), "{text} shows the secret");
        }
    }
    assert!(!lab.pins().exists() && !has_program(&lab, "eth0"));

    let path = write(&lab, &right);
    says(lb(&lab, &["check", &path]), 0, "right: 2 service(s) with 4 backend(s), 0 name(s)");
    says(lb(&lab, &["check", "/nowhere/lb.toml"]), 2, "lb: /nowhere/lb.toml: cannot read the config: No such file");
    says(lb(&lab, &["frobnicate"]), 2, "unrecognized subcommand 'frobnicate'");
    // All that is wrong is told at once.
    let path = write(&lab, &once("slots = 1009", "slots = 1000").replace("mode = \"dsr\"", "mode = \"drs\""));
    let (code, text) = lb(&lab, &["check", &path]);
    assert_eq!((code, text.lines().count()), (2, 3), "{text}");
}

#[test]
fn interfaces_that_cannot_be_had_are_named() {
    if !needs_root("interfaces_that_cannot_be_had_are_named") {
        return;
    }
    let lab = lab(Layout::Routed, "nat", 1);
    let right = head(&lab) + &services(&lab, "nat", &[1]);

    let missing = right.replace("\"eth1\"", "\"eth7\"");
    says(run(&lab, &missing), 3, "lb: interface eth7 does not exist; `ip link` lists those that do");
    assert!(!has_program(&lab, "eth0") && !has_program(&lab, "eth1"));

    put_foreign_program(&lab, "eth1", true);
    says(
        run(&lab, &right),
        3,
        "lb: interface eth1 already has an XDP program: `ip link show dev eth1` shows it, \
         `ip link set dev eth1 xdp off` removes it",
    );
    // What does not come up leaves nothing behind, and what was there is there.
    assert!(!has_program(&lab, "eth0") && has_program(&lab, "eth1"));

    put_foreign_program(&lab, "eth1", false);
    let _server = Nginx::start(&lab.backends()[0], &[8080]).unwrap();
    let agent = Agent::start(lab.balancer(), &right).unwrap();
    let [web4, _] = service_addresses(&lab);
    wait_for(&agent, "the backend serves", |status| serving(status, web4).len() == 1);
    assert_eq!(failures(&curl_many(lab.client(), &url(web4), 10).unwrap()), Vec::<&Reply>::new());
}

#[test]
fn without_privileges_it_says_which_it_needs() {
    if !needs_root("without_privileges_it_says_which_it_needs") {
        return;
    }
    const SAID: &str = "lb: not allowed to load BPF programs: run as root, or with the capabilities \
                        CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON";
    let lab = Lab::blueprint(Layout::Bridged).backends(1).up().unwrap();
    let path = write(&lab, &(head(&lab) + &services(&lab, "dsr", &[1])));
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let run = || lb_behind(&lab, &nobody, &["run", "--config", &path]);
    says(lb_behind(&lab, &nobody, &["check", &path]), 0, "right: 2 service(s)");
    // Where it may not make the folder of its pins, and where it may.
    says(run(), 3, SAID);
    for folder in [bpf_folder(&lab), lab.folder()] {
        fs::set_permissions(folder, fs::Permissions::from_mode(0o777)).unwrap();
    }
    says(run(), 3, SAID);
    assert!(!has_program(&lab, "eth0"));
}

#[test]
fn a_second_agent_keeps_off() {
    if !needs_root("a_second_agent_keeps_off") {
        return;
    }
    let site = Site::up(Layout::Bridged, "dsr", &[1]);
    let (socket, pins) = (site.lab.socket().display().to_string(), site.lab.pins().display().to_string());

    let other_socket = site.config.replace("agent.sock", "other.sock");
    let said =
        format!("lb: another agent uses the pins in {pins}: stop it, or give this one other `pins` and `socket`");
    says(run(&site.lab, &other_socket), 3, &said);

    let other_pins = site.config.replace(&pins, &format!("{pins}-other"));
    let said =
        format!("lb: another agent answers at {socket}: stop it, or give this one another `socket` and other `pins`");
    says(run(&site.lab, &other_pins), 1, &said);

    // A third way to be in the way: the interface is taken.
    let both = other_socket.replace(&pins, &format!("{pins}-other"));
    says(run(&site.lab, &both), 3, "lb: interface eth0 already has an XDP program");

    assert!(site.agent.running().ended().unwrap().is_none());
    for service in site.services() {
        site.requests(service, 20);
    }
}

#[test]
fn pins_that_cannot_be_used_are_refused() {
    if !needs_root("pins_that_cannot_be_used_are_refused") {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).backends(1).up().unwrap();
    let right = head(&lab) + &services(&lab, "dsr", &[1]);
    let pins = lab.pins().display().to_string();
    let elsewhere = lab.folder().join("pins").display().to_string();
    let said = format!("lb: {elsewhere} is not on bpffs; choose `pins` below a mount of it, such as /sys/fs/bpf/lb");
    says(run(&lab, &right.replace(&pins, &elsewhere)), 3, &said);

    // Maps of another version.
    fs::create_dir(&pins).unwrap();
    let settings = Array::<_, u64>::create(1, 0).unwrap();
    settings.map().pin(lab.pins().join("SETTINGS")).unwrap();
    let cure = format!("`lb detach --pins {pins}`");
    let said = format!(
        "lb: the maps in {pins} have layout 0, this program has layout {LAYOUT}: take the data path down with {cure}"
    );
    says(run(&lab, &right), 3, &said);
    let detach = ["detach", "--pins", &pins, "--socket", &lab.socket().display().to_string()];
    says(lb(&lab, &detach), 0, "no agent runs; detached from 0 interface(s)");
    Agent::start(lab.balancer(), &right).unwrap();
}

#[test]
fn a_dns_address_that_is_not_local_is_refused() {
    if !needs_root("a_dns_address_that_is_not_local_is_refused") {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).backends(1).up().unwrap();
    let names = name("www.example.com", &[lab.backends()[0].ipv4().into()], "");
    let right = head(&lab) + &dns(&lab) + &names;
    let wrong = right.replace("\"10.77.0.1\"", "\"10.77.0.77\"");
    assert_ne!(wrong, right);
    says(run(&lab, &wrong), 3, "10.77.0.77");
    assert!(!has_program(&lab, "eth0"));
}

#[test]
fn without_an_agent_commands_say_so() {
    if !needs_root("without_an_agent_commands_say_so") {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).backends(1).up().unwrap();
    let socket = lab.socket().display().to_string();
    let pins = lab.pins().display().to_string();
    let said = format!("no agent answers at {socket}: start one with `lb run`, or name its socket with `--socket`");
    let commands = [
        &["status"][..],
        &["status", "--json"],
        &["backend", "drain", "web4", "10.77.0.21:80"],
        &["backend", "undrain", "web4", "10.77.0.21:80"],
        &["attach"],
        &["detach", "--pins", &pins],
    ];
    for command in commands {
        let ended = lb(&lab, &[command, &["--socket", &socket]].concat());
        says(ended, 1, &said);
    }
}

#[test]
fn a_backend_that_nobody_is_gets_nothing() {
    if !needs_root("a_backend_that_nobody_is_gets_nothing") {
        return;
    }
    let lab = lab(Layout::Bridged, "dsr", 2);
    let mut config = head(&lab);
    let nobody: [SocketAddr; 2] = ["10.77.0.99:80".parse().unwrap(), "[fd77::99]:80".parse().unwrap()];
    let [web4, web6] = service_addresses(&lab);
    for (address, nobody) in [(web4, nobody[0]), (web6, nobody[1])] {
        let own = |host: &Host| {
            if address.is_ipv4() { host.ipv4().into() } else { host.ipv6().into() }
        };
        let backends = lab.backends().iter().map(|host| SocketAddr::new(own(host), 80));
        let backends: Vec<_> = backends.chain([nobody]).map(|backend| (backend, 1)).collect();
        config += &service(
            &format!("web-{}", address.port() + u16::from(address.is_ipv6())),
            "tcp",
            address,
            "dsr",
            &backends,
        );
    }
    let _servers: Vec<_> = lab.backends().iter().map(|host| Nginx::start(host, &[80]).unwrap()).collect();
    let agent = Agent::start(lab.balancer(), &config).unwrap();
    for (service, nobody) in [(web4, nobody[0]), (web6, nobody[1])] {
        let reason = format!("{} does not answer on eth0; `ip neigh` shows the same", nobody.ip());
        let status = wait_for(&agent, "the others serve, and nobody does not", |status| {
            serving(status, service).len() == 2 && backend_of(status, service, nobody)["no_next_hop"] == *reason
        });
        let backend = backend_of(&status, service, nobody);
        assert_eq!((&backend["serving"], &backend["packets"]), (&false.into(), &0.into()), "{backend:#}");
        let text = agent.lb(["status"]).unwrap().stdout;
        assert!(text.contains(&format!("    no next hop: {reason}\n")), "{text}");
        assert_eq!(failures(&curl_many(lab.client(), &url(service), 50).unwrap()), Vec::<&Reply>::new());
    }
}

#[test]
fn a_backend_behind_a_router_is_for_nat_only() {
    if !needs_root("a_backend_behind_a_router_is_for_nat_only") {
        return;
    }
    let lab = lab(Layout::Bridged, "nat", 2);
    // The first host is a router to a server that happens to be itself.
    let router = &lab.backends()[0];
    let far: [IpAddr; 2] = ["10.99.0.5".parse().unwrap(), "fd99::5".parse().unwrap()];
    router.ip(&far.map(|ip| format!("address add {ip} dev lo"))).unwrap();
    let ways: [IpAddr; 2] = [router.ipv4().into(), router.ipv6().into()];
    let route = |(ip, way): (&IpAddr, &IpAddr)| format!("route add {ip} via {way}");
    let routes: Vec<_> = far.iter().zip(&ways).map(route).collect();
    lab.balancer().ip(&routes).unwrap();
    let _server = Nginx::start(router, &[80]).unwrap();

    let addresses = service_addresses(&lab);
    let config = |mode: &str| -> String {
        let pairs = addresses.iter().zip(far);
        let services = pairs.map(|(address, ip)| {
            service(if ip.is_ipv4() { "far4" } else { "far6" }, "tcp", *address, mode, &[(SocketAddr::new(ip, 80), 1)])
        });
        head(&lab) + &services.collect::<String>()
    };
    let agent = Agent::start(lab.balancer(), &config("dsr")).unwrap();
    for (service, (ip, way)) in addresses.into_iter().zip(far.into_iter().zip(ways)) {
        let reason = format!("it is behind the router {way}; mode \"dsr\" needs it on the same link");
        let status = wait_for(&agent, "the backend is up", |status| {
            let backend = backend_of(status, service, SocketAddr::new(ip, 80));
            backend["health"] == "up" && backend["no_next_hop"] == *reason
        });
        assert_eq!(serving(&status, service).len(), 0);
    }
    agent.reload(&config("nat")).unwrap();
    for service in addresses {
        wait_for(&agent, "the backend serves by nat", |status| serving(status, service).len() == 1);
        assert_eq!(failures(&curl_many(lab.client(), &url(service), 20).unwrap()), Vec::<&Reply>::new());
    }
}

/// Frames that come close to what the path handles, from a host that is not there.
fn frames(client: &Host, balancer: &Host, services: [SocketAddr; 2]) -> Vec<Vec<u8>> {
    let (from, to) = (client.interfaces()[0].mac, balancer.interfaces()[0].mac);
    let nobody4 = Ipv4Addr::new(10, 78, 1, 98);
    let nobody6: Ipv6Addr = "fd78:1::98".parse().unwrap();
    // www.example.com A, with EDNS.
    let question =
        b"\x12\x34\x01\0\0\x01\0\0\0\0\0\x01\x03www\x07example\x03com\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0";
    let mut frames = Vec::new();
    let targets = [services[0].ip(), services[1].ip(), balancer.ipv4().into(), balancer.ipv6().into()];
    for target in targets {
        let packet = || match target {
            IpAddr::V4(target) => PacketBuilder::ethernet2(from, to).ipv4(nobody4.octets(), target.octets(), 64),
            IpAddr::V6(target) => PacketBuilder::ethernet2(from, to).ipv6(nobody6.octets(), target.octets(), 64),
        };
        let (mut tcp, mut udp) = (Vec::new(), Vec::new());
        packet().tcp(4000, 80, 1, 64_240).syn().write(&mut tcp, &[]).unwrap();
        packet().udp(4000, 53).write(&mut udp, question).unwrap();
        frames.extend([tcp, udp]);
    }
    let IpAddr::V4(web4) = services[0].ip() else { panic!("no IPv4") };
    let IpAddr::V6(web6) = services[1].ip() else { panic!("no IPv6") };
    let arp = ArpPacket::new(
        ArpHardwareId::ETHERNET,
        EtherType::IPV4,
        ArpOperation::REQUEST,
        &from,
        &nobody4.octets(),
        &[0; 6],
        &web4.octets(),
    );
    let header = Ethernet2Header { source: from, destination: to, ether_type: EtherType::ARP };
    frames.push([&header.to_bytes()[..], &arp.unwrap().to_bytes()].concat());
    let asked = [&web6.octets()[..], &[1, 1], &from].concat();
    let kind = Icmpv6Type::NeighborSolicitation;
    let solicitation = Icmpv6Header::with_checksum(kind, nobody6.octets(), web6.octets(), &asked).unwrap();
    let packet = PacketBuilder::ethernet2(from, to).ipv6(nobody6.octets(), web6.octets(), 255);
    let mut frame = Vec::new();
    packet.icmpv6(solicitation.icmp_type).write(&mut frame, &asked).unwrap();
    frames.push(frame);
    frames
}

#[test]
fn garbage_on_the_wire_disturbs_nobody() {
    if !needs_root("garbage_on_the_wire_disturbs_nobody") {
        return;
    }
    const ETHERNET: usize = 14;
    // Cabled, since the kernel's bridge takes out some of what is wrong itself.
    let lab = lab(Layout::Routed, "nat", 2);
    let names = dns(&lab) + &name("www.example.com", &["192.0.2.1".parse().unwrap()], "");
    let config = head(&lab) + &services(&lab, "nat", &[1, 1]) + &names;
    let site = Site::start(lab, config);
    let (client, balancer) = (site.lab.client(), site.lab.balancer());
    let resolve = || dig(client, balancer.ipv4().into(), "www.example.com", "A", &[]).unwrap();
    resolve();
    wait_for(&site.agent, "the answer is in the kernel", |status| count(status, "dns", "answers_in_kernel") == 1);
    let before = site.agent.status().unwrap();

    let wire = FrameSocket::open(client, client.interfaces()[0].index, balancer.ipv4().into()).unwrap();
    let frames = frames(client, balancer, site.services());
    let mut sent = 0;
    let mut send = |frame: &[u8]| {
        wire.send(frame).unwrap();
        sent += 1;
    };
    for frame in &frames {
        for length in ETHERNET..=frame.len() {
            send(&frame[..length]);
        }
        // Any byte behind the Ethernet addresses, any value: a linear congruential generator (Knuth), so that each run
        // sends the same.
        let mut state = 1_u64;
        let mut random = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        for _ in 0..200 {
            let mut garbled = frame.clone();
            for _ in 0..=random(4) {
                garbled[ETHERNET - 2 + random(frame.len() - ETHERNET + 2)] = random(256) as u8;
            }
            send(&garbled);
        }
    }
    let whole = frames.iter().map(Vec::len).max().unwrap();
    send(&vec![0xff; whole]);

    // Frames are handled in the order that they came in, so the last of the requests says that all have been.
    for service in site.services() {
        site.requests(service, 30);
    }
    assert_eq!(resolve().data("A"), ["192.0.2.1"]);
    assert!(site.agent.running().ended().unwrap().is_none());
    let after = site.agent.status().unwrap();
    let moved = |name: &str| count(&after, "packets", name) - count(&before, "packets", name);
    let total: u64 = before["packets"].as_object().unwrap().keys().map(|name| moved(name)).sum();
    assert!(total >= sent, "{sent} frames were sent, {total} counted: {:#} {:#}", before["packets"], after["packets"]);
    for name in
        ["truncated", "not_ip", "ipv4_header", "fragment_unknown", "other_protocol", "arp_not_ours", "dns_not_plain"]
    {
        assert!(moved(name) > 0, "{name} did not move: {after:#}");
    }
    assert!(moved("arp_answered") > 0 && moved("neighbor_answered") > 0 && moved("answered") > 1, "{after:#}");
    assert_eq!(count(&after, "packets", "inconsistent"), 0);
    for service in site.services() {
        assert_eq!(serving(&after, service), serving(&before, service));
    }
}
