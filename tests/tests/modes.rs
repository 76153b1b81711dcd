//! Every mode, in every mix of families: requests, long-lived connections, datagrams in one frame and in fragments, with and
//! without VLAN tags, at one port and at all.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
};
use support::{
    count,
    farm::{Farm, Kind, Load, Mode, exchange_a_long_line},
    url,
};
use tests::{Agent, Lab, Layout, Nginx, Reply, curl_many, needs_root, served_in_total, udp_exchange};

const BACKENDS: [&str; 3] = ["backend-0", "backend-1", "backend-2"];
/// In each family. That one backend of three has none of them is likely enough to happen, that two have none is not.
const FLOWS: usize = 12;

/// What each mode has to do, and that nothing else is done to a packet than what the mode is for.
fn serves(farm: &Farm) {
    let client = farm.lab.client();
    let before = farm.losses();
    let load = Load::start(farm, FLOWS);
    let mut requests = 0;
    for service in farm.services(Kind::Web) {
        let replies = curl_many(client, &url(service), 60).unwrap();
        assert_eq!(support::failures(&replies), Vec::<&Reply>::new());
        let served: BTreeSet<_> = replies.iter().map(|reply| reply.body.trim()).collect();
        assert_eq!(served, BACKENDS.into(), "{service}");
        // Every request is in the log of who answered it, with the client's own address.
        let ip = if service.is_ipv4() { client.ipv4().into() } else { client.ipv6().into() };
        requests += replies.len();
        let logs = served_in_total(&farm.web, requests).unwrap();
        for reply in &replies {
            let from = SocketAddr::new(ip, reply.local_port.unwrap());
            let mut servers = farm.web.iter().zip(&logs).filter(|(_, log)| log.iter().any(|one| one.remote == from));
            assert!(servers.any(|(server, _)| server.host().role() == reply.body.trim()), "{reply:?}");
        }
    }
    load.wait_for_more(20);
    let report = load.stop();
    report.assert_undisturbed();
    assert!(report.line_servers().len() > 1 && report.echo_servers().len() > 1, "{report:?}");
    assert_eq!(farm.moved(), BTreeMap::new());
    assert_eq!(farm.losses().moved_since(&before, &[]), BTreeMap::new());

    let forwarded = format!("forwarded_{}", farm.mode.name());
    let status = farm.agent.status().unwrap();
    for name in ["forwarded_dsr", "forwarded_nat", "forwarded_tunnel"] {
        assert_eq!(count(&status, "packets", name) > 1000, name == forwarded, "{name}: {status:#}");
    }
    for name in ["inconsistent", "no_room", "no_backend", "truncated", "too_long"] {
        assert_eq!(count(&status, "packets", name), 0, "{name}: {status:#}");
    }
}

/// Datagrams that no frame can hold: what follows the first fragment goes where that went.
fn serves_fragments(farm: &Farm) {
    let before = count(&farm.agent.status().unwrap(), "packets", "fragment_forwarded");
    for (service, lines) in farm.services(Kind::Echo).into_iter().zip(farm.services(Kind::Lines)) {
        // By TCP the client finds out what fits, where that is less than its own link has: a datagram would be lost.
        exchange_a_long_line(farm.lab.client(), lines, 200_000);
        let report = udp_exchange(farm.lab.client(), service, FLOWS, 10, 4000).unwrap();
        assert_eq!((report.lost(), report.errors()), (BTreeMap::new(), BTreeMap::new()), "{service}");
        assert!(report.servers().len() > 1, "{service}: {:?}", report.servers());
        for flow in &report.flows {
            assert_eq!(flow.servers().len(), 1, "{}: {:?}", flow.local, flow.servers());
        }
    }
    let after = farm.agent.status().unwrap();
    // Two fragments after the first, at least.
    assert!(count(&after, "packets", "fragment_forwarded") - before >= 2 * 2 * 10 * FLOWS as u64, "{after:#}");
}

fn serves_in(mode: Mode) {
    let farm = Farm::up(mode, 3, &[0, 1, 2], "");
    serves(&farm);
    serves_fragments(&farm);
}

#[test]
fn dsr_serves_everything() {
    if needs_root("dsr_serves_everything") {
        serves_in(Mode::Dsr);
    }
}

#[test]
fn nat_serves_everything() {
    if needs_root("nat_serves_everything") {
        serves_in(Mode::Nat);
    }
}

#[test]
fn tunnels_over_ipv4_serve_everything() {
    if needs_root("tunnels_over_ipv4_serve_everything") {
        serves_in(Mode::Tunnel4);
    }
}

#[test]
fn tunnels_over_ipv6_serve_everything() {
    if needs_root("tunnels_over_ipv6_serve_everything") {
        serves_in(Mode::Tunnel6);
    }
}

#[test]
fn tunnels_to_lb_decap_serve_everything() {
    if needs_root("tunnels_to_lb_decap_serve_everything") {
        serves_in(Mode::Decap);
    }
}

/// The same with a VLAN tag on every frame.
fn serves_tagged(mode: Mode) {
    let blueprint = Lab::blueprint(Layout::Bridged).backends(3).tagged(100);
    let lab = blueprint.route_back_via_balancer(mode == Mode::Nat).up().unwrap();
    let farm = Farm::in_lab(mode, lab, &[0, 1, 2], "");
    serves(&farm);
    serves_fragments(&farm);
    let status = farm.agent.status().unwrap();
    for name in ["arp_answered", "neighbor_answered"] {
        assert!(count(&status, "packets", name) > 0, "{name}: {status:#}");
    }
}

#[test]
fn frames_with_tags_by_dsr() {
    if needs_root("frames_with_tags_by_dsr") {
        serves_tagged(Mode::Dsr);
    }
}

#[test]
fn frames_with_tags_by_nat() {
    if needs_root("frames_with_tags_by_nat") {
        serves_tagged(Mode::Nat);
    }
}

#[test]
fn frames_with_tags_by_tunnel() {
    if needs_root("frames_with_tags_by_tunnel") {
        serves_tagged(Mode::Tunnel4);
    }
}

/// A service at all ports of its address, and another at one of them.
fn serves_any_port(mode: &str, layout: Layout) {
    let lab = support::lab(layout, mode, 3);
    let mut config = support::head(&lab) + "port = 80\n";
    for (name, service) in support::SERVICES.iter().zip(support::service_addresses(&lab)) {
        let ip = service.ip();
        config += &format!(
            "\n[[service]]\nname = \"{name}\"\naddress = \"{ip}\"\nport = \"any\"\nmode = \"{mode}\"\ncheck = \"web\"\n"
        );
        for backend in &lab.backends()[..2] {
            let near = backend.interfaces().last().unwrap();
            let own = if ip.is_ipv4() { near.ipv4.to_string() } else { near.ipv6.to_string() };
            config += &format!("[[service.backend]]\naddress = \"{own}\"\n");
        }
    }
    // nginx of the third host is at other ports, of which one has a service of its own.
    let third = lab.backends()[2].clone();
    for (name, service) in ["one4", "one6"].iter().zip(support::service_addresses(&lab)) {
        let near = third.interfaces().last().unwrap();
        let own = if service.is_ipv4() { near.ipv4.into() } else { near.ipv6.into() };
        let [service, own] = [service.ip(), own].map(|ip| SocketAddr::new(ip, 8080));
        config += &support::service(name, "tcp", service, mode, &[(own, 1)]);
    }
    let servers: Vec<_> = lab.backends().iter().map(|host| Nginx::start(host, &[80, 443, 8080]).unwrap()).collect();
    let agent = Agent::start(lab.balancer(), &config).unwrap();
    support::wait_for(&agent, "all backends serve", |status| {
        let mut services = status["services"].as_array().unwrap().iter();
        services.all(|one| one["backends"].as_array().unwrap().iter().all(|backend| backend["serving"] == true))
    });
    for service in support::service_addresses(&lab) {
        for (port, expected) in [(80, &BACKENDS[..2]), (443, &BACKENDS[..2]), (8080, &BACKENDS[2..])] {
            let replies = curl_many(lab.client(), &url(SocketAddr::new(service.ip(), port)), 40).unwrap();
            assert_eq!(support::failures(&replies), Vec::<&Reply>::new());
            let served: BTreeSet<_> = replies.iter().map(|reply| reply.body.trim()).collect();
            assert_eq!(served, expected.iter().copied().collect(), "{service} at {port}");
        }
    }
    for (number, server) in servers.iter().enumerate() {
        let ports: BTreeSet<_> = server.served().unwrap().iter().map(|one| one.local.port()).collect();
        assert_eq!(ports, if number == 2 { [8080].into() } else { [80, 443].into() }, "{number}");
    }
}

#[test]
fn any_port_by_dsr() {
    if needs_root("any_port_by_dsr") {
        serves_any_port("dsr", Layout::Bridged);
    }
}

#[test]
fn any_port_by_nat() {
    if needs_root("any_port_by_nat") {
        serves_any_port("nat", Layout::Routed);
    }
}
