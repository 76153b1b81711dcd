//! Changes under load: what goes on stays where it is. Connections and flows of datagrams that were there before a drain, an
//! addition, a removal or a restart of the agent lose nothing and stay with their backends; a failure takes its own flows only.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use etherparse::PacketBuilder;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream},
};
use support::{
    TURN, failures,
    farm::{Farm, Kind, Load, LoadReport, Mode, Requests},
    url, wait_for,
};
use tests::{Agent, FrameSocket, Reply, UdpFlows, curl_many, needs_root, wait_until};

/// Connections and flows of datagrams of one load, in each family.
const FLOWS: usize = 10;
/// Answers that every flow has to have had before a change counts as survived.
const ENOUGH: u64 = 20;

/// Asserts that a load ended as it has to when a backend failed: what this one had is broken or elsewhere, the rest is as it was.
fn only_flows_of_the_failed_suffer(report: &LoadReport, failed: &str) {
    for connection in report.lines.iter().flat_map(|lines| &lines.connections) {
        assert_eq!(connection.names.len(), 1, "{connection:?}");
        assert_eq!(connection.broken.is_some(), connection.names.contains_key(failed), "{connection:?}");
    }
    for flow in report.echoes.iter().flat_map(|echoes| &echoes.flows) {
        let servers = flow.servers();
        if servers[0] == failed {
            assert_eq!(servers.len(), 2, "{}: {servers:?}", flow.local);
        } else {
            assert_eq!(servers.len(), 1, "{}: {servers:?}", flow.local);
            assert_eq!((flow.lost(), &flow.errors), (Vec::new(), &Vec::new()), "{}", flow.local);
        }
    }
}

/// A drain, an addition and a failure, one after the other. `window` is how long flows are adopted after a change, if the
/// changes are to follow each other only after that; `victim` is who fails, 0 or the drained backend 1.
fn survives_changes(mode: Mode, window: Option<u32>, victim: usize) {
    let more = window.map_or_else(String::new, |seconds| format!("\n[tracking]\nadopt_seconds = {seconds}\n"));
    let farm = Farm::up(mode, 4, &[0, 1, 2], &more);
    let before = farm.losses();
    let load = Load::start(&farm, FLOWS);
    let requests = Requests::start(&farm);

    farm.backend_command("drain", 1, &[]);
    farm.wait_until_serving(&[0, 2]);
    load.wait_for_more(ENOUGH);
    if window.is_some() {
        farm.wait_for_new_datagrams("none of them went to who is drained", |servers| !servers.contains("backend-1"));
    }
    let drained = Load::start(&farm, FLOWS);
    drained.wait_for_more(ENOUGH);

    farm.agent.reload(&farm.config(&[0, 1, 2, 3])).unwrap();
    farm.wait_until_serving(&[0, 2, 3]);
    if window.is_some() {
        farm.wait_for_new_datagrams("some of them went to who was added", |servers| servers.contains("backend-3"));
    }
    let added = Load::start(&farm, FLOWS);
    for load in [&load, &drained, &added] {
        load.wait_for_more(ENOUGH);
    }

    requests.assert_undisturbed();
    let replies = farm.services(Kind::Web).map(|service| curl_many(farm.lab.client(), &url(service), 40).unwrap());
    let replies: Vec<_> = replies.into_iter().flatten().collect();
    assert_eq!(failures(&replies), Vec::<&Reply>::new());
    let served: BTreeSet<_> = replies.iter().map(|reply| reply.body.trim()).collect();
    assert_eq!(served, ["backend-0", "backend-2", "backend-3"].into());
    assert_eq!(farm.losses().moved_since(&before, &[]), BTreeMap::new());
    assert_eq!(farm.moved(), BTreeMap::new());

    let owners = farm.owners();
    let failed = farm.lab.backends()[victim].role();
    let connections = owners.iter().filter(|((kind, _), names)| *kind == Kind::Lines && names.contains(failed));
    let to_break = connections.count();
    assert!(to_break > 0, "{owners:?}");
    farm.lab.segment().ip(&[format!("link set {failed} down")]).unwrap();
    farm.wait_until_serving(if victim == 0 { &[2, 3] } else { &[0, 2, 3] });
    let loads = [load, drained, added];
    wait_until(TURN, "the connections of the failed backend were broken", || {
        let broken: usize = loads.iter().flat_map(Load::lines).map(|lines| lines.broken()).sum();
        (broken >= to_break).then_some(())
    })
    .unwrap();
    for load in &loads {
        load.wait_for_more_datagrams(ENOUGH);
    }
    for service in farm.services(Kind::Web) {
        let replies = curl_many(farm.lab.client(), &url(service), 20).unwrap();
        assert_eq!(failures(&replies), Vec::<&Reply>::new());
    }

    let reports = loads.map(Load::stop);
    for report in &reports {
        only_flows_of_the_failed_suffer(report, failed);
    }
    let [first, drained, added] = &reports;
    assert!(first.line_servers().is_subset(&["backend-0", "backend-1", "backend-2"].into()), "{first:?}");
    // Not so for datagrams: what says nothing of being the first may be of a flow that was there before the change.
    assert!(drained.line_servers().is_subset(&["backend-0", "backend-2"].into()), "{drained:?}");
    assert!(added.line_servers().is_subset(&["backend-0", "backend-2", "backend-3"].into()), "{added:?}");
}

#[test]
fn flows_survive_changes_by_dsr() {
    if needs_root("flows_survive_changes_by_dsr") {
        survives_changes(Mode::Dsr, None, 0);
    }
}

#[test]
fn flows_survive_changes_by_nat() {
    if needs_root("flows_survive_changes_by_nat") {
        survives_changes(Mode::Nat, Some(1), 1);
    }
}

#[test]
fn flows_survive_changes_by_tunnels_over_ipv4() {
    if needs_root("flows_survive_changes_by_tunnels_over_ipv4") {
        survives_changes(Mode::Tunnel4, Some(1), 0);
    }
}

#[test]
fn flows_survive_changes_by_tunnels_over_ipv6() {
    if needs_root("flows_survive_changes_by_tunnels_over_ipv6") {
        survives_changes(Mode::Tunnel6, None, 1);
    }
}

/// Everything that was there is replaced: all slots change, and the old backends leave the config.
fn survives_a_replacement(mode: Mode) {
    let mut farm = Farm::up(mode, 3, &[0, 1], "");
    let before = farm.losses();
    let load = Load::start(&farm, FLOWS);
    let requests = Requests::start(&farm);
    // In two steps: who has not been found up yet can't take new flows.
    farm.agent.reload(&farm.config(&[0, 1, 2])).unwrap();
    farm.wait_until_serving(&[0, 1, 2]);
    farm.agent.reload(&farm.config(&[2])).unwrap();
    farm.wait_until_serving(&[2]);
    let replaced = Load::start(&farm, FLOWS);
    load.wait_for_more(ENOUGH);
    // Those that leave are known to the next agent as well, which finds them in no config.
    for restart in [false, true] {
        if restart {
            farm.agent.kill().unwrap();
            farm.agent = Agent::start(farm.lab.balancer(), &farm.config(&[2])).unwrap();
            farm.wait_until_serving(&[2]);
        }
        let status = farm.agent.status().unwrap();
        for (kind, service) in farm.all_services() {
            let backends = farm.service_status(&status, kind, service)["backends"].as_array().unwrap();
            let leaving = backends.iter().filter(|backend| backend["leaving"] == true).count();
            assert_eq!(leaving, 2, "{kind:?} {service}: {status:#}");
        }
        load.wait_for_more(ENOUGH);
    }
    requests.assert_undisturbed();
    assert_eq!(farm.losses().moved_since(&before, &[]), BTreeMap::new());
    assert_eq!(farm.moved(), BTreeMap::new());
    let (first, replaced) = (load.stop(), replaced.stop());
    first.assert_undisturbed();
    assert!(first.line_servers().is_subset(&["backend-0", "backend-1"].into()), "{first:?}");
    replaced.assert_undisturbed();
    assert_eq!(replaced.line_servers(), ["backend-2"].into());
}

#[test]
fn flows_survive_the_removal_of_all_backends_by_dsr() {
    if needs_root("flows_survive_the_removal_of_all_backends_by_dsr") {
        survives_a_replacement(Mode::Dsr);
    }
}

#[test]
fn flows_survive_the_removal_of_all_backends_by_nat() {
    if needs_root("flows_survive_the_removal_of_all_backends_by_nat") {
        survives_a_replacement(Mode::Nat);
    }
}

#[test]
fn a_restart_in_an_adoption_window_loses_nothing() {
    if !needs_root("a_restart_in_an_adoption_window_loses_nothing") {
        return;
    }
    let mut farm = Farm::up(Mode::Nat, 3, &[0, 1, 2], "");
    let before = farm.losses();
    let load = Load::start(&farm, FLOWS);
    let requests = Requests::start(&farm);
    farm.backend_command("drain", 1, &[]);
    farm.agent.kill().unwrap();
    // Nobody is there who could change anything, while flows are adopted.
    let alone = Load::start(&farm, FLOWS);
    load.wait_for_more(ENOUGH);
    farm.agent = Agent::start(farm.lab.balancer(), &farm.config(&[0, 1, 2])).unwrap();
    let status = farm.wait_until_serving(&[0, 2]);
    for (kind, service) in farm.all_services() {
        let backend = farm.backend_status(&status, kind, service, 1);
        assert_eq!(backend["draining"], true, "{backend:#}");
    }
    let restarted = Load::start(&farm, FLOWS);
    // The next change meets slots whose windows another agent opened.
    farm.backend_command("undrain", 1, &[]);
    farm.wait_until_serving(&[0, 1, 2]);
    for load in [&load, &alone, &restarted] {
        load.wait_for_more(ENOUGH);
    }
    requests.assert_undisturbed();
    assert_eq!(farm.losses().moved_since(&before, &[]), BTreeMap::new());
    assert_eq!(farm.moved(), BTreeMap::new());
    let [load, alone, restarted] = [load, alone, restarted].map(Load::stop);
    for report in [&load, &alone, &restarted] {
        report.assert_undisturbed();
    }
    for report in [alone, restarted] {
        assert!(report.line_servers().is_subset(&["backend-0", "backend-2"].into()), "{report:?}");
    }
}

#[test]
fn a_restart_with_another_config_loses_nothing() {
    if !needs_root("a_restart_with_another_config_loses_nothing") {
        return;
    }
    let mut farm = Farm::up(Mode::Dsr, 4, &[0, 1, 2], "");
    let before = farm.losses();
    let load = Load::start(&farm, FLOWS);
    let requests = Requests::start(&farm);
    // What a change that is made while nobody is there comes to.
    farm.agent.kill().unwrap();
    farm.agent = Agent::start(farm.lab.balancer(), &farm.config(&[0, 2, 3])).unwrap();
    farm.wait_until_serving(&[0, 2, 3]);
    let restarted = Load::start(&farm, FLOWS);
    for load in [&load, &restarted] {
        load.wait_for_more(ENOUGH);
    }
    requests.assert_undisturbed();
    assert_eq!(farm.losses().moved_since(&before, &[]), BTreeMap::new());
    assert_eq!(farm.moved(), BTreeMap::new());
    load.stop().assert_undisturbed();
    let restarted = restarted.stop();
    restarted.assert_undisturbed();
    assert!(!restarted.line_servers().contains("backend-1"), "{restarted:?}");
}

#[test]
fn a_backend_that_comes_back_takes_no_flow_away() {
    if !needs_root("a_backend_that_comes_back_takes_no_flow_away") {
        return;
    }
    let mut farm = Farm::up(Mode::Nat, 3, &[0, 1, 2], "");
    let load = Load::start(&farm, FLOWS);
    // Its check fails, while its other servers go on: connections that come there again would show.
    farm.web[0].stop().unwrap();
    farm.wait_until_serving(&[1, 2]);
    load.wait_for_more_datagrams(ENOUGH);
    let moved = farm.moved();
    let away = Load::start(&farm, FLOWS);
    let before = farm.losses();
    farm.web[0].start_again().unwrap();
    farm.wait_until_serving(&[0, 1, 2]);
    load.wait_for_more_datagrams(ENOUGH);
    away.wait_for_more(ENOUGH);
    let back = Load::start(&farm, FLOWS);
    back.wait_for_more(ENOUGH);
    // The backend itself has answers that nobody takes any more.
    assert_eq!(farm.losses().moved_since(&before, &["backend-0 Tcp"]), BTreeMap::new());
    assert_eq!(farm.moved(), moved);
    only_flows_of_the_failed_suffer(&load.stop(), "backend-0");
    let away = away.stop();
    away.assert_undisturbed();
    assert!(!away.line_servers().contains("backend-0"), "{away:?}");
    back.stop().assert_undisturbed();
}

/// A backend that is taken out with a deadline keeps its flows until then; then they are others', which do not know them.
fn gives_flows_up_in_the_end(mode: Mode, more: &str, take_out: impl FnOnce(&Farm)) {
    let farm = Farm::up(mode, 3, &[0, 1, 2], more);
    let load = Load::start(&farm, FLOWS);
    let owners = farm.owners();
    let had = |kind| owners.iter().filter(|((of, _), names)| *of == kind && names.contains("backend-1")).count();
    take_out(&farm);
    farm.wait_until_serving(&[0, 2]);
    wait_until(TURN, "the connections of the backend were broken", || {
        let broken: usize = load.lines().iter().map(|lines| lines.broken()).sum();
        (broken >= had(Kind::Lines)).then_some(())
    })
    .unwrap();
    wait_until(TURN, "the backend's datagrams went elsewhere", || {
        let moved = farm.moved();
        (moved.keys().filter(|(kind, _)| *kind == Kind::Echo).count() == had(Kind::Echo)).then_some(())
    })
    .unwrap();
    only_flows_of_the_failed_suffer(&load.stop(), "backend-1");
}

#[test]
fn a_drain_with_a_deadline_gives_flows_up_in_the_end() {
    if needs_root("a_drain_with_a_deadline_gives_flows_up_in_the_end") {
        gives_flows_up_in_the_end(Mode::Dsr, "", |farm| farm.backend_command("drain", 1, &["--for", "2"]));
    }
}

#[test]
fn a_removal_with_a_deadline_gives_flows_up_in_the_end() {
    if needs_root("a_removal_with_a_deadline_gives_flows_up_in_the_end") {
        let more = "\n[tracking]\ndrain_seconds = 2\n";
        gives_flows_up_in_the_end(Mode::Nat, more, |farm| farm.agent.reload(&farm.config(&[0, 2])).unwrap());
    }
}

#[test]
fn what_is_taken_out_goes_with_its_last_flow() {
    if !needs_root("what_is_taken_out_goes_with_its_last_flow") {
        return;
    }
    // Datagrams have no end but silence: the shortest that a config can have.
    let farm = Farm::up(Mode::Nat, 3, &[0, 1, 2], "\n[tracking]\nadopt_seconds = 1\nudp_idle_seconds = 10\n");
    let services = farm.services(Kind::Echo);
    let flows = services.map(|service| UdpFlows::start(farm.lab.client(), service, FLOWS, 100).unwrap());
    // One stays in the config, one leaves it.
    farm.backend_command("drain", 1, &[]);
    farm.agent.reload(&farm.config(&[0, 1])).unwrap();
    farm.wait_until_serving(&[0]);
    for flows in &flows {
        flows.wait_for_more(ENOUGH).unwrap();
    }
    let expected = [1, 2].map(|number| {
        services.map(|service| {
            let seen = farm.echoes[number].seen();
            Value::from(seen.keys().filter(|client| client.is_ipv4() == service.is_ipv4()).count())
        })
    });
    let what = format!("those that are taken out have their flows: {expected:?}");
    wait_for(&farm.agent, &what, |status| {
        let backend = |service, number| farm.backend_status(status, Kind::Echo, service, number);
        expected == [1, 2].map(|number| services.map(|service| backend(service, number)["flows"].clone()))
            && services.iter().all(|service| backend(*service, 2)["leaving"] == true)
    });
    for flows in flows {
        let report = flows.stop().unwrap();
        assert_eq!((report.lost(), report.duplicated()), (BTreeMap::new(), BTreeMap::new()));
    }
    let what = "the drained backend has no flows, the other one is gone, and the slots are as if nothing had been";
    let done = wait_until(2 * TURN, what, || {
        let status = farm.agent.status().unwrap();
        let service_is_done = |(kind, service)| {
            let status = farm.service_status(&status, kind, service);
            status["changed_slots"] == 0 && status["backends"].as_array().unwrap().len() == 2
        };
        let done = status["tracked_flows"] == 0 && farm.all_services().into_iter().all(service_is_done);
        done.then_some(status)
    });
    let status = done.unwrap_or_else(|error| panic!("{error:#}: {:#}", farm.agent.status().unwrap()));
    for (kind, service) in farm.all_services() {
        assert_eq!(farm.backend_status(&status, kind, service, 1)["drained"], true, "{status:#}");
    }
    let text = farm.agent.lb(["status"]).unwrap().stdout;
    assert!(text.contains("drained"), "{text}");
}

/// Sends SYNs from addresses that are nobody's to a service, each twice: an element of the kernel's LRU maps that is seen again
/// is pushed out later than others, and one that was seen more than once not by those that were not.
fn flood(farm: &Farm, service: SocketAddr, count: u32) {
    let (client, balancer) = (farm.lab.client(), farm.lab.balancer());
    let wire = FrameSocket::open(client, client.interfaces()[0].index, balancer.ipv4().into()).unwrap();
    let (from, to) = (client.interfaces()[0].mac, balancer.interfaces()[0].mac);
    let pace = client.inside(|| TcpStream::connect_timeout(&service, TURN).unwrap()).unwrap();
    for number in 0..count {
        // What has come through behind the flood has drained the veths' rings, which would else cost others a datagram.
        if number % 32 == 0 {
            assert_eq!(line_answered(&pace), "backend-2");
        }
        // 65,536 addresses of 198.18.0.0/15 and fd00:bad::/64 (RFC 2544 has the first for tests), and ports.
        let [_, port, high, low] = number.to_be_bytes();
        let packet = PacketBuilder::ethernet2(from, to);
        let packet = match service.ip() {
            IpAddr::V4(service) => packet.ipv4([198, 18, high, low], service.octets(), 64),
            IpAddr::V6(service) => {
                let from = Ipv6Addr::new(0xfd00, 0xbad, 0, 0, 0, 0, 0, u16::from_be_bytes([high, low]));
                packet.ipv6(from.octets(), service.octets(), 64)
            }
        };
        let mut frame = Vec::with_capacity(80);
        packet.tcp(1024 + u16::from(port), service.port(), 1, 64_240).syn().write(&mut frame, &[]).unwrap();
        wire.send(&frame).unwrap();
        wire.send(&frame).unwrap();
    }
}

/// Sends a line and gives who answered it, or why nobody did.
fn line_answered(mut stream: &TcpStream) -> String {
    stream.set_read_timeout(Some(TURN)).unwrap();
    let mut answer = String::new();
    let exchanged = stream.write_all(b"here\n").and_then(|()| BufReader::new(stream).read_line(&mut answer));
    exchanged.map_or_else(|error| error.to_string(), |_| answer.trim_end_matches(" here\n").to_owned())
}

#[test]
fn a_flood_of_syns_during_a_change_pushes_no_flow_out() {
    if !needs_root("a_flood_of_syns_during_a_change_pushes_no_flow_out") {
        return;
    }
    let farm = Farm::up(Mode::Dsr, 3, &[0, 1], "\n[limits]\nflows = 4096\n");
    for backend in farm.lab.backends() {
        // Who floods gets no answers.
        backend.ip(&["route add blackhole 198.18.0.0/15".into(), "route add blackhole fd00:bad::/64".into()]).unwrap();
    }
    let load = Load::start(&farm, FLOWS);
    // All slots change.
    farm.agent.reload(&farm.config(&[2])).unwrap();
    farm.wait_until_serving(&[2]);
    load.wait_for_more(ENOUGH);
    // These have nobody but the flow table to remember where they are: what is not in it belongs to the old backends. They are
    // silent during the flood, since what is used all the time is not what such a table pushes out.
    let begun = farm.services(Kind::Lines).map(|service| {
        let connect = || TcpStream::connect_timeout(&service, TURN).unwrap();
        farm.lab.client().inside(|| (0..20).map(|_| connect()).collect::<Vec<_>>()).unwrap()
    });
    let answers = || begun.iter().flatten().map(line_answered).collect::<Vec<_>>();
    assert_eq!(answers(), vec!["backend-2"; 40]);
    let before = farm.agent.status().unwrap();
    for service in farm.services(Kind::Lines) {
        flood(&farm, service, 50_000);
    }
    assert_eq!(answers(), vec!["backend-2"; 40]);
    load.wait_for_more(ENOUGH);
    let after = farm.agent.status().unwrap();
    let forwarded = |status| support::count(status, "packets", "forwarded_dsr");
    assert!(forwarded(&after) - forwarded(&before) >= 200_000, "{after:#}");
    assert_eq!(farm.moved(), BTreeMap::new());
    let report = load.stop();
    report.assert_undisturbed();
    assert!(report.line_servers().is_subset(&["backend-0", "backend-1"].into()), "{report:?}");
}
