//! What a right config means.

use super::{FULL, fixture, intent};
use lb_common::{
    hash::Keys,
    path::tunnel::Sources,
    tables::Endpoint,
    wire::transport::{TCP, UDP},
};
use lb_userspace::{
    changes::edit::BackendState,
    config::{Config, DEFAULT_PINS, DEFAULT_SOCKET},
    model::intent::{
        Address, Attach, Backend, Below, Check, Intent, Limits, Mode, Name, Policy, Service, Target, Tracking, Tunnel,
    },
};
use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

fn check(interval: u64, timeout: u64, rise: u32, fall: u32) -> Arc<Check> {
    let [interval, timeout] = [interval, timeout].map(Duration::from_millis);
    Arc::new(Check { interval, timeout, rise, fall, ..Check::default() })
}

fn backend(address: &str, protocol: u8, port: u16, weight: u32, probed: u16, check: &Arc<Check>) -> Backend {
    let address: IpAddr = address.parse().unwrap();
    let target = Target { address: SocketAddr::new(address, probed), check: Arc::clone(check), via: None };
    Backend {
        endpoint: Endpoint::new(address, protocol, port),
        weight,
        target,
        agent: None,
        tier: 0,
        origin: None,
        state: BackendState::Active,
        drain: None,
    }
}

#[test]
fn every_key_has_its_meaning() {
    let intent = intent(FULL).unwrap();
    let web = check(2_000, 300, 1, 4);
    // A timeout is never longer than the interval by default.
    let own = check(400, 400, 2, 3);
    assert_eq!(intent.interfaces(), ["eth0", "eth1"]);
    assert_eq!(intent.attach(), Attach::Generic);
    assert_eq!(intent.socket(), Path::new("/run/lb-two.sock"));
    assert_eq!(intent.pins(), Path::new("/sys/fs/bpf/lb-two"));
    let services = [
        Service {
            name: "web".into(),
            endpoint: Endpoint::new("192.0.2.10".parse().unwrap(), TCP, 80),
            mode: Mode::Nat,
            slots: 1_009,
            least_slots: 11,
            moves: false,
            claim: false,
            echo: true,
            minimum_healthy: 1,
            fail_open: false,
            backends: vec![
                backend("10.0.0.11", TCP, 8_080, 10, 8_080, &own),
                backend("10.0.0.12", TCP, 80, 1, 80, &own),
            ],
            questions: BTreeSet::new(),
            unresolved: false,
            file: None,
        },
        Service {
            name: "quic".into(),
            endpoint: Endpoint::new("2001:db8::10".parse().unwrap(), UDP, 443),
            mode: Mode::Dsr,
            slots: 251,
            least_slots: 1,
            moves: false,
            claim: true,
            echo: true,
            minimum_healthy: 1,
            fail_open: false,
            backends: vec![
                backend("fd00::11", UDP, 443, 0, 8_081, &web),
                backend("fd00::12", UDP, 443, 1, 8_081, &web),
            ],
            questions: BTreeSet::new(),
            unresolved: false,
            file: None,
        },
        Service {
            name: "all".into(),
            endpoint: Endpoint::new("192.0.2.30".parse().unwrap(), UDP, 0),
            mode: Mode::Tunnel,
            slots: 251,
            least_slots: 2,
            moves: true,
            claim: true,
            echo: false,
            minimum_healthy: 1,
            fail_open: false,
            backends: vec![backend("10.0.0.31", UDP, 0, 1, 8_081, &web), backend("fd00::32", UDP, 0, 1, 8_081, &web)],
            questions: BTreeSet::new(),
            unresolved: false,
            file: None,
        },
    ];
    assert_eq!(intent.services(), services);
    let listens: [SocketAddr; 2] = ["192.0.2.53:5353".parse().unwrap(), "[2001:db8::53]:5353".parse().unwrap()];
    assert_eq!(intent.dns(), listens);
    let address = |text: &str| -> IpAddr { text.parse().unwrap() };
    let target =
        |text: &str| Target { address: SocketAddr::new(address(text), 8_081), check: Arc::clone(&web), via: None };
    let plain = |text: &str, target| Address { address: address(text), weight: 1, tier: 1, target };
    let name = |name: &str, wire: &[u8], ttl_seconds, addresses: &[Address]| Name {
        name: name.into(),
        wire: wire.into(),
        ttl_seconds,
        addresses: addresses.into(),
        policy: Policy::RoundRobin,
        minimum_healthy: 1,
        below_minimum: Below::ServFail,
        data: Vec::new(),
    };
    let addresses = ["10.0.0.11", "2001:db8::11"].map(|text| plain(text, Some(target(text))));
    let names = [
        name("www.example.com", b"\x03www\x07example\x03com\0", 5, &addresses),
        name("_srv.x-1.example", b"\x04_srv\x03x-1\x07example\0", 30, &[plain("10.0.0.13", None)]),
    ];
    assert_eq!(intent.names(), names);
    let backends = services.iter().flat_map(|service| &service.backends).map(|backend| backend.target.clone());
    let targets: BTreeSet<Target> = backends.chain(["10.0.0.11", "2001:db8::11"].map(target)).collect();
    assert_eq!(intent.targets(), targets);
    let sources = |text: &str, prefix| Some(Sources::new(address(text), prefix));
    let tunnel = Tunnel { ipv4: sources("10.99.0.0", 16), ipv6: sources("fd99::", 64) };
    assert_eq!(intent.tunnel(), tunnel);
    assert_eq!(intent.limits(), Limits { services: 32, backends: 64, flows: 2_048, answers_megabytes: 64 });
    let seconds = Duration::from_secs;
    let tracking =
        Tracking { adopt: seconds(60), tcp_idle: seconds(600), udp_idle: seconds(30), drain: Some(seconds(3_600)) };
    assert_eq!(intent.tracking(), tracking);
}

#[test]
fn what_is_left_out_has_a_default() {
    let intent = Intent::new(&Config::read(&fixture("least.toml")).unwrap()).unwrap();
    assert_eq!(intent.attach(), Attach::Native);
    assert_eq!(intent.socket(), Path::new(DEFAULT_SOCKET));
    assert_eq!(intent.pins(), Path::new(DEFAULT_PINS));
    assert!(intent.dns().is_empty() && intent.names().is_empty());
    assert_eq!(intent.tunnel(), Tunnel::default());
    let limits = Limits { services: 4_096, backends: 16_384, flows: 131_072, answers_megabytes: 512 };
    assert_eq!(intent.limits(), limits);
    let seconds = Duration::from_secs;
    let tracking = Tracking { adopt: seconds(300), tcp_idle: seconds(7_440), udp_idle: seconds(300), drain: None };
    assert_eq!(intent.tracking(), tracking);
    let [service] = intent.services() else { panic!("{:?}", intent.services()) };
    assert_eq!((service.slots, service.claim, service.endpoint.protocol()), (251, true, TCP));
    assert_eq!((service.echo, service.moves), (true, false));
    assert_eq!(service.backends, [backend("10.0.0.11", TCP, 80, 1, 80, &check(1_000, 500, 2, 3))]);
}

#[test]
fn who_shares_a_target_shares_its_probe() {
    let text = FULL.replace("port = 8080", "port = 8081").replace("check = \"own\"", "check = \"web\"");
    let intent = intent(&text).unwrap();
    // The backend 10.0.0.11 and the address of the name.
    assert_eq!(intent.targets().len(), 7);
}

#[test]
fn readme_and_fixtures_are_right() {
    let readme = include_str!("../../../README.md");
    let start = readme.find("interfaces = [").unwrap();
    let (example, _) = readme.get(start..).unwrap().split_once("```").unwrap();
    intent(example).unwrap();
    let start = readme.find("[check.site]").unwrap();
    let (checks, _) = readme.get(start..).unwrap().split_once("```").unwrap();
    intent(&format!("{example}\n{checks}")).unwrap();
    let start = readme.find("[[dns.domain]]").unwrap();
    let (names, _) = readme.get(start..).unwrap().split_once("```").unwrap();
    // The file that it names is not there.
    let names = names
        .replace("[[dns.records]]", "")
        .lines()
        .filter(|line| !line.starts_with("file"))
        .collect::<Vec<_>>()
        .join("\n");
    intent(&format!("{example}\n{names}")).unwrap();
    intent(include_str!("../../../tests/fixture.toml")).unwrap();
}

#[test]
fn keys_come_from_the_secret_alone() {
    // Recorded: other keys would give every flow another backend.
    let recorded = Keys {
        flow: [15_954_982_952_446_363_445, 6_286_406_679_393_843_898, 11_185_271_268_571_040_609],
        multiplier: 10_131_159_854_801_434_529,
        name: 6_104_774_246_701_732_679,
    };
    assert_eq!(intent(FULL).unwrap().keys(), recorded);
    let changed = FULL.replace("eth1", "eth2").replace("slots = 1009", "slots = 2003");
    assert_eq!(intent(&changed).unwrap().keys(), recorded);
    let of_file = Intent::new(&Config::read(&fixture("least.toml")).unwrap()).unwrap().keys();
    let inline = FULL.replace("0123456789abcdef", "fedcba9876543210");
    assert_eq!(intent(&inline).unwrap().keys(), of_file);
    assert_ne!(of_file, recorded);
}

#[test]
fn the_secret_is_never_shown() {
    let config = Config::parse(FULL).unwrap();
    let intent = Intent::new(&config).unwrap();
    let keys = intent.keys();
    let shown = format!("{config:?} {config:#?} {intent:?}");
    assert!(!shown.contains("0123456789abcdef"));
    for word in keys.flow.into_iter().chain([keys.multiplier, keys.name]) {
        assert!(!shown.contains(&word.to_string()) && !shown.contains(&format!("{word:x}")));
    }
    let secret = "secret = \"0123456789abcdef\"";
    for instead in [
        "secret = 1234567890123456",
        "secret = [\"1234567890123456\"]",
        "secret = 1234567890123456abc",
        "secret = abc1234567890123456",
        "secret = \"1234567890123456",
        "secret = \"1234567890123456\\q\"",
        "secret = \"1234567890123456\"abc",
        "secret = \"1234567890123456\" \"abc\"",
        "secret \"1234567890123456\"",
        "secret: 1234567890123456",
        "secret = 1234567890123456.5",
        "secret = { a = \"1234567890123456\" }",
        "secret = \"123456789012345\"",
    ] {
        let errors = Config::parse(&FULL.replace(secret, instead)).and_then(|config| Intent::new(&config)).unwrap_err();
        let shown = format!("{errors} {errors:?}");
        assert!(!shown.contains("12345"), "{shown}");
        assert!(errors.to_string().starts_with("config:4: ") || instead.ends_with("3456"), "{shown}");
    }
}
