//! `lb explain` end to end: what it says is what happens, and what it reads is what the kernel's maps hold.
#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use aya::maps::{Array, Map, MapData};
use lb_common::tables::{
    CLEAN,
    answers::{ANSWER_CHUNK_WORDS, BLOCK_WORDS, BODY_WORDS},
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    thread,
};
use support::{Site, dns, failures, head, name, serving, url, wait_for};
use tests::{Agent, Lab, Layout, curl_with, dig, needs_root};

/// The first of the clients' ports.
const PORT: u16 = 41_000;
const NAME: &str = "www.example.com";

fn explain(agent: &Agent, arguments: &[&str]) -> Value {
    let output = agent.lb(["explain"].iter().chain(arguments).chain(&["--json"])).unwrap();
    serde_json::from_str(&output.stdout).unwrap()
}

/// A flow from the client's port to a service; `more` as for the command.
fn explain_flow(agent: &Agent, lab: &Lab, service: SocketAddr, port: u16, more: &[&str]) -> Value {
    let (client, service) = (client(lab, service, port).to_string(), service.to_string());
    explain(agent, &[&["flow", &client, &service], more].concat())
}

fn client(lab: &Lab, service: SocketAddr, port: u16) -> SocketAddr {
    let ip: IpAddr = if service.is_ipv4() { lab.client().ipv4().into() } else { lab.client().ipv6().into() };
    SocketAddr::new(ip, port)
}

/// What was found where the path looked up something of this kind.
fn found<'e>(explanation: &'e Value, what: &str) -> Vec<&'e str> {
    let steps = explanation["steps"].as_array().unwrap().iter().filter(|step| step["what"] == what);
    steps.map(|step| step["found"].as_str().unwrap()).collect()
}

/// The number that follows some words.
fn number_after(text: &str, words: &str) -> u32 {
    let behind = text.split_once(words).unwrap_or_else(|| panic!("no {words:?} in {text:?}")).1;
    let digits: String = behind.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap()
}

/// Who answers a request from this port.
fn served_by(site: &Site, service: SocketAddr, port: u16) -> String {
    let port = port.to_string();
    let replies = curl_with(site.lab.client(), &url(service), 1, &["--local-port", &port]).unwrap();
    assert_eq!(failures(&replies), Vec::<&tests::Reply>::new());
    replies[0].body.trim().to_owned()
}

/// The name of the server at a backend's address.
fn server(site: &Site, service: SocketAddr, explanation: &Value) -> String {
    let backend: SocketAddr = explanation["backend"].as_str().unwrap().parse().unwrap();
    let number = site.backends(service).iter().position(|known| *known == backend).unwrap();
    site.lab.backends()[number].role().to_owned()
}

fn what_is_explained_happens(mode: &str, why: &str) {
    let site = Site::up(Layout::Bridged, mode, &[1, 1, 1]);
    // A port that has just been used over one family is not free for the other.
    for (service, first) in site.services().into_iter().zip([PORT, PORT + 100]) {
        let mut servers = BTreeSet::new();
        for port in first..first + 12 {
            let explanation = explain_flow(&site.agent, &site.lab, service, port, &[]);
            assert_eq!((&explanation["verdict"], &explanation["why"]), (&"redirect".into(), &why.into()));
            assert_eq!(explanation["notes"], Value::Array(vec![]), "{explanation:#}");
            let server = server(&site, service, &explanation);
            assert_eq!(served_by(&site, service, port), server, "{explanation:#}");
            servers.insert(server);
        }
        assert!(servers.len() > 1, "{servers:?}");
    }
}

#[test]
fn a_flow_goes_where_explain_says_by_dsr() {
    if needs_root("a_flow_goes_where_explain_says_by_dsr") {
        what_is_explained_happens("dsr", "forwarded_dsr");
    }
}

#[test]
fn a_flow_goes_where_explain_says_by_nat() {
    if needs_root("a_flow_goes_where_explain_says_by_nat") {
        what_is_explained_happens("nat", "forwarded_nat");
    }
}

#[test]
fn a_drained_slot_is_explained() {
    if !needs_root("a_drained_slot_is_explained") {
        return;
    }
    let site = Site::up(Layout::Bridged, "dsr", &[1, 1]);
    let service = site.services()[0];
    let backends = site.backends(service);
    let flow = |port, more: &[&str]| explain_flow(&site.agent, &site.lab, service, port, more);
    let of_first = |port: &u16| flow(*port, &[])["backend"] == backends[0].to_string();
    let port = (PORT..).find(of_first).unwrap();
    site.agent.lb(["backend", "drain", support::SERVICES[0], &backends[0].to_string()]).unwrap();
    wait_for(&site.agent, "the other one serves", |status| serving(status, service) == [backends[1]].into());
    let (before, counted) = (flow(port, &["--ack"]), site.agent.status().unwrap()["tracked_flows"].clone());
    for (more, backend) in [("--syn", backends[1]), ("--ack", backends[0])] {
        let explanation = flow(port, &[more]);
        assert_eq!(explanation["backend"], backend.to_string(), "{explanation:#}");
        let slot = found(&explanation, "slot").concat();
        let expected =
            format!("{} for new flows; has just changed, other flows belong to {}", backends[1], backends[0]);
        assert!(slot.ends_with(&expected), "{slot}");
    }
    // What it would track, it does not.
    assert_eq!(flow(port, &["--ack"]), before);
    assert_eq!(site.agent.status().unwrap()["tracked_flows"], counted);
    // A connection that is there is found.
    assert_eq!(served_by(&site, service, port), site.lab.backends()[1].role());
    let tracked = flow(port, &["--ack"]);
    assert_eq!(tracked["backend"], backends[1].to_string(), "{tracked:#}");
    let expected = format!("tracked at {}", backends[1]);
    assert!(found(&tracked, "flow")[0].starts_with(&expected), "{tracked:#}");
}

#[test]
fn what_is_no_service_is_said() {
    if !needs_root("what_is_no_service_is_said") {
        return;
    }
    let site = Site::up(Layout::Bridged, "dsr", &[1]);
    for service in site.services() {
        for (to, more) in [(SocketAddr::new(service.ip(), 81), &[][..]), (service, &["--protocol", "udp"][..])] {
            let explanation = explain_flow(&site.agent, &site.lab, to, PORT, more);
            assert_eq!((&explanation["verdict"], &explanation["why"]), (&"pass".into(), &"no_service".into()));
            assert!(found(&explanation, "service")[0].starts_with("none at "), "{explanation:#}");
            assert_eq!(explanation["backend"], Value::Null);
        }
    }
    let [ipv4, ipv6] = site.services().map(|service| service.to_string());
    for (line, code, said) in [
        (["explain", "flow", &ipv4, &ipv6].as_slice(), 1, "not of one family"),
        (&["explain", "flow", "192.0.2.1", &ipv4], 2, "invalid socket address"),
        (&["explain", "flow", &ipv4, &ipv4, "--syn", "--ack"], 2, "cannot be used with"),
        (&["explain", "dns", NAME, "--from", "192.0.2.1"], 1, "no DNS address"),
        (&["explain", "dns", NAME, "NONE", "--from", "192.0.2.1"], 2, "no such type"),
        (&["explain", "dns", "a..b", "--from", "192.0.2.1", "--to", "192.0.2.2"], 1, "is no DNS name"),
    ] {
        let output = site.agent.attempt_lb(line).unwrap();
        assert_eq!(output.status.code(), Some(code), "{line:?}: {}", output.stderr);
        assert!(output.stderr.contains(said), "{line:?}: {}", output.stderr);
    }
    let text = site.agent.lb(["explain", "flow", "192.0.2.1:40000", &ipv4]).unwrap().stdout;
    assert!(text.contains("forwarded_dsr") && text.contains("leaves by    interface "), "{text}");
}

fn slots(pins: &Path) -> Array<MapData, u64> {
    Array::try_from(Map::Array(MapData::from_pin(pins.join("SLOTS-0")).unwrap())).unwrap()
}

#[test]
fn a_slot_that_was_overwritten_is_shown() {
    if !needs_root("a_slot_that_was_overwritten_is_shown") {
        return;
    }
    let site = Site::up(Layout::Bridged, "nat", &[1, 1]);
    let service = site.services()[0];
    let flow = |port| explain_flow(&site.agent, &site.lab, service, port, &[]);
    let index = |explanation: &Value| {
        let [first, slot] = ["service", "slot"].map(|what| found(explanation, what)[0].to_owned());
        number_after(&first, " slots from ") + number_after(&slot, "")
    };
    let (port, before) = (PORT, flow(PORT));
    let other = (PORT..).map(flow).find(|other| other["backend"] != before["backend"]).unwrap();
    let mut slots = slots(&site.lab.pins());
    let word = slots.get(&index(&other), 0).unwrap();
    slots.set(index(&before), word, 0).unwrap();
    let after = flow(port);
    assert_eq!(after["backend"], other["backend"], "{after:#}");
    assert_eq!(served_by(&site, service, port), server(&site, service, &after));

    slots.set(index(&before), u64::from(CLEAN) << 32 | 12_345, 0).unwrap();
    let after = flow(port);
    assert_eq!((&after["verdict"], &after["why"]), (&"pass".into(), &"inconsistent".into()), "{after:#}");
    assert!(found(&after, "slot")[0].ends_with("backend 12345, which does not exist"), "{after:#}");
}

#[test]
fn a_question_is_explained() {
    if !needs_root("a_question_is_explained") {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).backends(1).up().unwrap();
    let addresses: Vec<IpAddr> = (1..=3).map(|number| Ipv4Addr::new(192, 0, 2, number).into()).collect();
    let config = head(&lab) + &dns(&lab) + &name(NAME, &addresses, "");
    let agent = Agent::start(lab.balancer(), &config).unwrap();
    wait_for(&agent, "there are answers in the kernel", |status| {
        status["dns"]["answers_in_kernel"].as_u64().is_some_and(|count| count > 0)
    });
    let clients: [IpAddr; 2] = [lab.client().ipv4().into(), lab.client().ipv6().into()];
    for from in clients.map(|client| client.to_string()) {
        for more in [&[][..], &["--size", "0"], &["--dnssec"]] {
            let explanation = explain(&agent, &[&["dns", "WWW.example.com", "--from", &from], more].concat());
            assert_eq!((&explanation["verdict"], &explanation["why"]), (&"transmit".into(), &"answered".into()));
            let reply = &explanation["reply"];
            assert_eq!(reply["status"], "NOERROR", "{explanation:#}");
            let answers = reply["answers"].as_array().unwrap().iter().map(|record| record.as_str().unwrap());
            let data: BTreeSet<IpAddr> =
                answers.map(|record| record.rsplit(' ').next().unwrap().parse().unwrap()).collect();
            assert_eq!(data, addresses.iter().copied().collect(), "{explanation:#}");
            assert_eq!(found(&explanation, "record").len(), 3, "{explanation:#}");
        }
        let explanation = explain(&agent, &["dns", "nobody.example.net", "TYPE65", "--from", &from]);
        assert_eq!((&explanation["verdict"], &explanation["why"]), (&"pass".into(), &"dns_miss".into()));
        assert!(found(&explanation, "index")[0].contains("not this question"), "{explanation:#}");
        assert_eq!(explanation["reply"], Value::Null);
    }
    // Nothing of all that was counted.
    assert_eq!(agent.status().unwrap()["dns"]["answered_by_kernel"], 0);

    let from = clients[0].to_string();
    let ask = || explain(&agent, &["dns", NAME, "--from", &from]);
    let block = number_after(found(&ask(), "body")[0], "at block ");
    let pin = lab.pins().join("ANSWERS-0");
    change_word(&pin, (block * BLOCK_WORDS) as usize, |word| word ^ 1 << 32);
    let explanation = ask();
    assert_eq!((&explanation["verdict"], &explanation["why"]), (&"pass".into(), &"dns_miss".into()));
    assert!(explanation["notes"][0].as_str().unwrap().contains("names its generation"), "{explanation:#}");
    // The agent answers instead.
    let before = agent.status().unwrap()["dns"]["agent"]["queries"].as_u64().unwrap();
    let answer = dig(lab.client(), lab.balancer().ipv4().into(), NAME, "A", &[]).unwrap();
    assert_eq!(answer.answers.len(), 3, "{}", answer.text);
    assert_eq!(agent.status().unwrap()["dns"]["agent"]["queries"], before + 1);
}

/// Changes a word of a chunk of the answer space.
fn change_word(pin: &Path, index: usize, change: impl FnOnce(u64) -> u64 + Send) {
    const WORDS: usize = ANSWER_CHUNK_WORDS as usize + BODY_WORDS;
    let work = || {
        let data = Map::Array(MapData::from_pin(pin).unwrap());
        let mut chunk = Array::<_, [u64; WORDS]>::try_from(data).unwrap();
        let mut words = chunk.get(&0, 0).unwrap();
        words[index] = change(words[index]);
        chunk.set(0, words, 0).unwrap();
    };
    // Half a megabyte at a time is more than a test's stack has for several.
    thread::scope(|scope| {
        thread::Builder::new().stack_size(16 << 20).spawn_scoped(scope, work).unwrap().join().unwrap();
    });
}
