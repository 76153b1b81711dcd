//! Backends by name: what they mean with what DNS says, and what is said of wrong ones.

use super::{errors, intent};
use lb_userspace::{
    config::{Config, ConfigErrors},
    model::{
        discovery::{Answers, Kind, Question, Records, Server},
        intent::Intent,
    },
};
use proptest::prelude::*;
use std::net::IpAddr;

const START: &str = "interfaces = [\"eth0\"]\nsecret = \"0123456789abcdef\"\n[[service]]\nname = \"api\"\n\
                     address = \"192.0.2.1\"\nport = 80\nmode = \"nat\"\n";
const HOSTS: &str = "[[service.backend]]\nhost = \"api-server-01.internal.example.com\"\nport = 8001\nweight = 1\n\
                     [[service.backend]]\nhost = \"API-server-02.internal.example.com.\"\nport = 8002\nweight = 2\nbackup = true\n\
                     [[service.backend]]\naddress = \"10.0.0.9\"\n";
const SRV: &str = "[[service.backend]]\nsrv = \"_http._tcp.example.com\"\n";

fn with(text: &str, answers: impl IntoIterator<Item = (Question, Records)>) -> Result<Intent, ConfigErrors> {
    Intent::with(&Config::parse(text)?, &answers.into_iter().collect::<Answers>())
}

fn host(name: &str, addresses: &[&str]) -> (Question, Records) {
    let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let kind = Kind::of_family(addresses.iter().all(IpAddr::is_ipv4));
    (Question::new(&format!("{name}.example.com"), kind), Records::Addresses(addresses.into_iter().collect()))
}

fn server(priority: u16, weight: u16, port: u16, host: &str) -> Server {
    Server { priority, weight, port, host: format!("{host}.example.com") }
}

fn srv(servers: &[Server]) -> (Question, Records) {
    let records = Records::Servers(servers.iter().cloned().collect());
    (Question::new("_http._tcp.example.com", Kind::Srv), records)
}

/// Address and port, weight, tier, and the name of each backend of the only service.
fn backends(intent: &Intent) -> Vec<(String, u32, u32, Option<String>)> {
    let backends = intent.services().iter().flat_map(|service| &service.backends);
    backends
        .map(|backend| {
            let place = format!("{}:{}", backend.endpoint.ip(), backend.endpoint.port());
            let name =
                backend.origin.as_ref().and_then(|origin| origin.questions().last()).map(|host| host.name.clone());
            (place, backend.weight, backend.tier, name)
        })
        .collect()
}

fn places(intent: &Intent) -> Vec<String> {
    backends(intent).into_iter().map(|(place, ..)| place).collect()
}

fn questions(intent: &Intent) -> Vec<String> {
    intent.questions().iter().map(ToString::to_string).collect()
}

#[test]
fn each_address_of_a_host_is_a_backend_with_its_port_and_weight() {
    let text = START.to_owned() + HOSTS;
    let unknown = intent(&text).unwrap();
    assert_eq!(places(&unknown), ["10.0.0.9:80"]);
    let asked = ["api-server-01.internal.example.com A", "api-server-02.internal.example.com A"];
    assert_eq!(questions(&unknown), asked);
    let known = with(
        &text,
        [host("api-server-01.internal", &["10.0.0.1"]), host("api-server-02.internal", &["10.0.0.3", "10.0.0.2"])],
    );
    let known = known.unwrap();
    let second = Some(String::from("api-server-02.internal.example.com"));
    assert_eq!(
        backends(&known),
        [
            ("10.0.0.1:8001".into(), 1, 0, Some("api-server-01.internal.example.com".into())),
            ("10.0.0.2:8002".into(), 2, 1, second.clone()),
            ("10.0.0.3:8002".into(), 2, 1, second),
            ("10.0.0.9:80".into(), 1, 0, None),
        ]
    );
    assert_eq!(questions(&known), asked);
    // A table in use keeps its size, so what DNS says is not in it.
    assert_eq!(known.services()[0].slots, unknown.services()[0].slots);
}

#[test]
fn servers_have_ports_weights_and_tiers() {
    let text = START.to_owned() + SRV;
    assert_eq!(questions(&with(&text, []).unwrap()), ["_http._tcp.example.com SRV"]);
    let records = srv(&[server(10, 1, 8001, "a"), server(10, 3, 8002, "b"), server(20, 0, 8003, "c")]);
    let known = with(&text, [records.clone()]).unwrap();
    assert!(places(&known).is_empty());
    let asked = ["_http._tcp.example.com SRV", "a.example.com A", "b.example.com A", "c.example.com A"];
    assert_eq!(questions(&known), asked);
    let hosts = [host("a", &["10.0.0.1"]), host("b", &["10.0.0.2"]), host("c", &["10.0.0.3", "10.0.0.4"])];
    let told = backends(&with(&text, [records].into_iter().chain(hosts)).unwrap());
    let told: Vec<_> = told.iter().map(|(place, weight, tier, _)| (place.as_str(), *weight, *tier)).collect();
    let expected = [("10.0.0.1:8001", 1, 0), ("10.0.0.2:8002", 3, 0), ("10.0.0.3:8003", 1, 1), ("10.0.0.4:8003", 1, 1)];
    assert_eq!(told, expected);
}

#[test]
fn where_ports_are_not_rewritten_servers_at_others_are_passed_over() {
    let text = START.replace("nat", "dsr") + SRV;
    let records = srv(&[server(1, 1, 80, "a"), server(1, 1, 8080, "b")]);
    let known = with(&text, [records, host("a", &["10.0.0.1"]), host("b", &["10.0.0.2"])]).unwrap();
    assert_eq!(places(&known), ["10.0.0.1:80"]);
}

#[test]
fn the_family_is_the_services() {
    let text = START.replace("192.0.2.1", "2001:db8::1") + "[[service.backend]]\nhost = \"a.example.com\"\n";
    let known = with(&text, [host("a", &["fd00::1"]), host("a", &["10.0.0.1"])]).unwrap();
    assert_eq!(questions(&known), ["a.example.com AAAA"]);
    assert_eq!(places(&known), ["fd00::1:80"]);
    let tunnel = START.replace("nat", "tunnel") + "[[service.backend]]\nhost = \"a.example.com\"\n";
    assert_eq!(
        errors(&tunnel),
        "config:9: service `api`: mode \"tunnel\" needs addresses for outer headers to come from; write [tunnel] with source_ipv4 = \
         \"10.99.0.0/16\""
    );
    let tunnel = tunnel + "[tunnel]\nsource_ipv4 = \"10.99.0.0/16\"\nsource_ipv6 = \"fd99::/64\"\n";
    let known = with(&tunnel, [host("a", &["fd00::1"]), host("a", &["10.0.0.1"])]).unwrap();
    assert_eq!(places(&known), ["10.0.0.1:80", "fd00::1:80"]);
}

#[test]
fn what_no_backend_can_be_and_what_is_there_already_is_passed_over() {
    let text = START.to_owned() + HOSTS + "[[service.backend]]\nhost = \"c.example.com\"\n";
    let all = ["127.0.0.1", "0.0.0.0", "224.0.0.1", "10.0.0.9", "10.0.0.10"];
    assert_eq!(places(&with(&text, [host("c", &all)]).unwrap()), ["10.0.0.9:80", "10.0.0.10:80"]);
}

#[test]
fn what_dns_says_against_another_service_is_told() {
    let other = "[[service]]\nname = \"other\"\naddress = \"192.0.2.2\"\nport = 80\nmode = \"nat\"\n\
                 [[service.backend]]\naddress = \"10.0.0.7\"\n[[service.backend]]\nhost = \"c.example.com\"\n";
    let text = START.to_owned() + "[[service.backend]]\naddress = \"10.0.0.8\"\n" + other;
    assert_eq!(
        with(&text, [host("c", &["10.0.0.8"])]).unwrap_err().to_string(),
        "config:17: service `other`: backend 10.0.0.8 port 80 is also behind service `api`, at line 8, and nat could not tell their \
         replies apart; give it another port or address in one of them"
    );
}

#[test]
fn wrong_ones_are_told_with_place_and_cure() {
    let entry = |entry: &str| errors(&format!("{START}[[service.backend]]\n{entry}\n"));
    for (written, expected) in [
        (
            "weight = 1",
            "8: service `api`: no `address`; write the backend's address = \"...\", or host = \"...\" with a name that DNS knows",
        ),
        ("host = \"a.example\"\nsrv = \"b.example\"", "10: service `api`: both `host` and `srv`; write one of them"),
        (
            "host = \"a.example\"\naddress = \"10.0.0.1\"",
            "9: service `api`: both `address` and `host`; write one of them",
        ),
        ("host = \"10.0.0.1\"", "9: service `api`: host `10.0.0.1` is an address; write address = \"10.0.0.1\""),
        ("host = \"\"", "9: service `api`: the name is empty; write one such as www.example.com"),
        (
            "srv = \"_http tcp.example\"",
            "9: service `api`: ` ` cannot be in a name; write letters, digits, `-` and `_`, and international names as xn--...",
        ),
        (
            "srv = \"_http._tcp.example\"\nport = 80",
            "10: service `api`: `port` is as the SRV records say; leave it out",
        ),
        (
            "srv = \"_http._tcp.example\"\nweight = 2",
            "10: service `api`: `weight` is as the SRV records say; leave it out",
        ),
        ("host = \"a.example\"\nweight = 70000", "10: service `api`: weight 70000 is out of range; write 0 to 65535"),
        ("host = \"a.example\"\nport = 0", "10: service `api`: backend port 0 is not a port; write 1 to 65535"),
    ] {
        assert_eq!(entry(written), format!("config:{}", expected), "{written}");
    }
}

#[test]
fn who_is_asked() {
    let text = |nameservers: &str| format!("{START}{HOSTS}[resolver]\nnameservers = [{nameservers}]\n");
    let known = intent(&text("\"10.0.0.53\", \"10.0.0.54:5353\", \"fd00::53\", \"[fd00::54]:54\"")).unwrap();
    let nameservers = ["10.0.0.53:53", "10.0.0.54:5353", "[fd00::53]:53", "[fd00::54]:54"];
    assert_eq!(known.nameservers(), nameservers.map(|address| address.parse().unwrap()));
    assert!(intent(&(START.to_owned() + HOSTS)).unwrap().nameservers().is_empty());
    assert_eq!(
        errors(&text("\"ns.example.com\"")),
        "config:20: resolver: `ns.example.com` is not the address of a resolver; write one such as 192.0.2.53, 192.0.2.53:5353 or \
         [2001:db8::53]:53"
    );
    assert_eq!(
        errors(&text("")),
        "config:19: resolver: no nameserver; write nameservers = [\"192.0.2.53\"], or leave [resolver] out to ask those of \
         /etc/resolv.conf"
    );
}

proptest! {
    /// Whatever DNS says makes no config wrong, and what is written stays what it is.
    #[test]
    fn dns_makes_no_config_wrong(
        servers in prop::collection::vec((0_u16..4, any::<u16>(), 1_u16..5, 0_usize..3), 0..12),
        addresses in prop::collection::vec(prop::collection::vec(any::<[u8; 4]>(), 0..10), 5),
    ) {
        let text = START.to_owned() + HOSTS + SRV;
        let servers: Vec<_> =
            servers.into_iter().map(|(priority, weight, port, host)| server(priority, weight, port, ["a", "b", "c"][host])).collect();
        let names = ["a", "b", "c", "api-server-01.internal", "api-server-02.internal"];
        let hosts = names.iter().zip(addresses).map(|(name, addresses)| {
            let addresses = addresses.into_iter().map(IpAddr::from).collect();
            (Question::new(&format!("{name}.example.com"), Kind::A), Records::Addresses(addresses))
        });
        let intent = with(&text, [srv(&servers)].into_iter().chain(hosts)).unwrap();
        let places = places(&intent);
        prop_assert!(places.contains(&"10.0.0.9:80".into()));
        let mut unique = places.clone();
        unique.sort_unstable();
        unique.dedup();
        prop_assert_eq!(unique.len(), places.len());
        let (service, total) = (&intent.services()[0], intent.services()[0].backends.iter().map(|one| one.weight).sum::<u32>());
        prop_assert!(service.backends.iter().all(|one| service.slots * one.weight >= 2 * total), "each is sure of a slot");
    }
}
