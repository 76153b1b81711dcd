//! What configs mean, and what is said of wrong ones: the very words, since an operator has nothing else.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of a test")]

use lb_common::{
    hash::Keys,
    tables::{Endpoint, MAX_BACKENDS, MAX_INTERFACES, MAX_SERVICES},
    wire::transport::{TCP, UDP},
};
use lb_userspace::{
    config::{Config, ConfigErrors, DEFAULT_PINS, DEFAULT_SOCKET},
    model::intent::{Attach, Backend, Check, Intent, Mode, Name, Service, Target},
};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

const FULL: &str = include_str!("config/full.toml");

fn intent(text: &str) -> Result<Intent, ConfigErrors> {
    Intent::new(&Config::parse(text)?)
}

fn errors(text: &str) -> String {
    match intent(text) {
        Ok(_) => panic!("this is right:\n{text}"),
        Err(errors) => errors.to_string(),
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config").join(name)
}

/// What is said when one line of the full config, and all like it, is another.
#[track_caller]
fn says(line: &str, instead: &str, expected: &str) {
    assert!(FULL.lines().any(|other| other == line), "no line is {line}");
    let lines: Vec<_> = FULL.lines().map(|other| if other == line { instead } else { other }).collect();
    assert_eq!(errors(&lines.join("\n")), expected);
}

fn check(interval: u64, timeout: u64, rise: u32, fall: u32) -> Check {
    Check { interval: Duration::from_millis(interval), timeout: Duration::from_millis(timeout), rise, fall }
}

fn backend(address: &str, protocol: u8, port: u16, weight: u32, probed: u16, check: Check) -> Backend {
    let address: IpAddr = address.parse().unwrap();
    let target = Target { address: SocketAddr::new(address, probed), check };
    Backend { endpoint: Endpoint::new(address, protocol, port), weight, target }
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
            claim: false,
            backends: vec![
                backend("10.0.0.11", TCP, 8_080, 10, 8_080, own),
                backend("10.0.0.12", TCP, 80, 1, 80, own),
            ],
        },
        Service {
            name: "quic".into(),
            endpoint: Endpoint::new("2001:db8::10".parse().unwrap(), UDP, 443),
            mode: Mode::Dsr,
            slots: 251,
            claim: true,
            backends: vec![
                backend("fd00::11", UDP, 443, 0, 8_081, web),
                backend("fd00::12", UDP, 443, 1, 8_081, web),
            ],
        },
    ];
    assert_eq!(intent.services(), services);
    let listens: [SocketAddr; 2] = ["192.0.2.53:5353".parse().unwrap(), "[2001:db8::53]:5353".parse().unwrap()];
    assert_eq!(intent.dns(), listens);
    let address = |text: &str| -> IpAddr { text.parse().unwrap() };
    let target = |text: &str| Target { address: SocketAddr::new(address(text), 8_081), check: web };
    let addresses = ["10.0.0.11", "2001:db8::11"].map(|text| (address(text), Some(target(text))));
    let names = [
        Name {
            name: "www.example.com".into(),
            wire: b"\x03www\x07example\x03com\0".into(),
            ttl_seconds: 5,
            addresses: addresses.into(),
        },
        Name {
            name: "_srv.x-1.example".into(),
            wire: b"\x04_srv\x03x-1\x07example\0".into(),
            ttl_seconds: 30,
            addresses: vec![(address("10.0.0.13"), None)],
        },
    ];
    assert_eq!(intent.names(), names);
    let backends = services.iter().flat_map(|service| &service.backends).map(|backend| backend.target);
    let targets: BTreeSet<Target> = backends.chain(["10.0.0.11", "2001:db8::11"].map(target)).collect();
    assert_eq!(intent.targets(), targets);
}

#[test]
fn what_is_left_out_has_a_default() {
    let intent = Intent::new(&Config::read(&fixture("least.toml")).unwrap()).unwrap();
    assert_eq!(intent.attach(), Attach::Native);
    assert_eq!(intent.socket(), Path::new(DEFAULT_SOCKET));
    assert_eq!(intent.pins(), Path::new(DEFAULT_PINS));
    assert!(intent.dns().is_empty() && intent.names().is_empty());
    let [service] = intent.services() else { panic!("{:?}", intent.services()) };
    assert_eq!((service.slots, service.claim, service.endpoint.protocol()), (251, true, TCP));
    assert_eq!(service.backends, [backend("10.0.0.11", TCP, 80, 1, 80, check(1_000, 500, 2, 3))]);
}

#[test]
fn who_shares_a_target_shares_its_probe() {
    let text = FULL.replace("port = 8080", "port = 8081").replace("check = \"own\"", "check = \"web\"");
    let intent = intent(&text).unwrap();
    // The backend 10.0.0.11 and the address of the name.
    assert_eq!(intent.targets().len(), 5);
}

#[test]
fn readme_and_fixtures_are_right() {
    let readme = include_str!("../../README.md");
    let start = readme.find("interfaces = [").unwrap();
    let (example, _) = readme.get(start..).unwrap().split_once("```").unwrap();
    intent(example).unwrap();
    intent(include_str!("../../tests/fixture.toml")).unwrap();
}

#[test]
fn keys_come_from_the_secret_alone() {
    // Recorded: other keys would give every flow another backend.
    let recorded = Keys { flow: [0, 0, 0], multiplier: 1, name: 0 };
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

#[test]
fn all_that_is_wrong_is_said_at_once_by_line() {
    let text = FULL
        .replace("secret = \"0123456789abcdef\"\n", "\n")
        .replace("listen = [\"192.0.2.53\"", "listen = [\"192.0.2.\"")
        .replace("weight = 10", "weight = -1")
        .replace("rise = 1", "rise = 0");
    let expected = "\
config: no `secret`; write secret = \"...\" or secret_file = \"...\" with the output of `openssl rand -hex 16`
config:13: check `web`: rise 0 is out of range; write 1 to 1000
config:32: service `web`: weight -1 is out of range; write 0 to 65535
config:56: dns: listen address `192.0.2.` is not an IP address; write one such as 192.0.2.10 or 2001:db8::10";
    assert_eq!(errors(&text), expected);
}

#[test]
fn errors_of_a_file_have_its_name() {
    let path = fixture("missing.toml");
    let error = Config::read(&path).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("{}: cannot read the config: No such file or directory (os error 2)", path.display())
    );
}

mod text {
    use super::*;

    #[test]
    fn what_is_no_toml() {
        says("attach = \"generic\"", "attach = generic", "config:3: not TOML: string values must be quoted, expected literal string");
        says("[check.own]", "[check.own", "config:16: not TOML: unclosed table, expected `]`");
        says("[check.own]", "[check.web]", "config:16: not TOML: duplicate key");
    }

    #[test]
    fn unknown_keys() {
        says(
            "attach = \"generic\"",
            "attack = \"generic\"",
            "config:3: unknown key `attack`; the keys here are `interfaces`, `attach`, `secret`, `secret_file`, `socket`, `pins`, \
             `check`, `service`, `dns`",
        );
        says(
            "weight = 10",
            "wait = 10",
            "config:32: unknown key `wait`; the keys here are `address`, `port`, `weight`",
        );
    }

    #[test]
    fn values_of_another_type() {
        says("port = 80", "port = \"80\"", "config:22: string \"80\" where a whole number belongs");
        says("port = 80", "port = 80.5", "config:22: floating point `80.5` where a whole number belongs");
        says("name = \"web\"", "name = 7", "config:20: integer `7` where a string in quotes belongs");
        says(
            "interfaces = [\"eth0\", \"eth1\"]",
            "interfaces = \"eth0\"",
            "config:2: string \"eth0\" where a list in brackets, [...] or [[...]], belongs",
        );
        says("[check.own]", "[[check.own]]", "config:16: a list where a table belongs");
        assert_eq!(errors("[service]"), "config:1: a table where a list in brackets, [...] or [[...]], belongs");
        assert_eq!(errors("secret = 7"), "config:1: another value where a string in quotes belongs");
    }
}

mod whole {
    use super::*;

    const NO_SECRET: &str = "no `secret`; write secret = \"...\" or secret_file = \"...\" with the output of `openssl rand -hex 16`";

    #[test]
    fn an_empty_config() {
        let expected = format!(
            "config: nothing to do; write a [[service]], or [dns] with a [[dns.name]]\n\
             config: no interface; write interfaces = [\"eth0\"] with the names that `ip link` shows\n\
             config: {NO_SECRET}"
        );
        assert_eq!(errors(""), expected);
    }

    #[test]
    fn interfaces() {
        let line = "interfaces = [\"eth0\", \"eth1\"]";
        says(line, "interfaces = []", "config: no interface; write interfaces = [\"eth0\"] with the names that `ip link` shows");
        says(line, "interfaces = [\"eth0\",\n\"eth0\"]", "config:3: interface `eth0` is there twice; write it once");
        for name in ["", "sixteen-bytes-xx", "eth 0", "a/b", "a:b", ".", ".."] {
            let expected = format!(
                "config:2: `{name}` is not the name of an interface; write 1 to 15 bytes without spaces, `/` and `:`, as `ip link` \
                 shows it"
            );
            says(line, &format!("interfaces = [\"{name}\"]"), &expected);
        }
    }

    #[test]
    fn how_it_is_attached() {
        says(
            "attach = \"generic\"",
            "attach = \"skb\"",
            "config:3: attach `skb` is unknown; write \"native\" or \"generic\"",
        );
    }

    #[test]
    fn secrets() {
        let line = "secret = \"0123456789abcdef\"";
        says(line, "", &format!("config: {NO_SECRET}"));
        says(
            line,
            "secret = \"0123456789abcde\"",
            "config:4: the secret has 15 characters, 16 are the least; write the output of `openssl rand -hex 16`",
        );
        let file = fixture("secret");
        says(
            line,
            &format!("{line}\nsecret_file = {file:?}"),
            "config:5: both `secret` and `secret_file`; write one of them",
        );
        says(
            line,
            "secret_file = \"/nowhere/secret\"",
            "config:4: cannot read secret_file /nowhere/secret: No such file or directory (os error 2); make it with `openssl rand \
             -hex 16 > /nowhere/secret`",
        );
        says(
            line,
            "secret_file = \"/dev/null\"",
            "config:4: the secret has 0 characters, 16 are the least; write the output of `openssl rand -hex 16`",
        );
    }

    #[test]
    fn relative_paths() {
        says(
            "socket = \"/run/lb-two.sock\"",
            "socket = \"lb.sock\"",
            "config:5: socket `lb.sock` is not an absolute path; begin it with `/`",
        );
        says("pins = \"/sys/fs/bpf/lb-two\"", "pins = \"lb\"", "config:6: pins `lb` is not an absolute path; begin it with `/`");
    }

    #[test]
    fn more_than_the_maps_hold() {
        let interfaces: Vec<_> = (0..=MAX_INTERFACES).map(|number| format!("eth{number}")).collect();
        says(
            "interfaces = [\"eth0\", \"eth1\"]",
            &format!("interfaces = {interfaces:?}"),
            "config: 65 interfaces are more than the maps hold; write at most 64",
        );
        let mut services = String::from(FULL);
        for number in 3..MAX_SERVICES {
            let _ = write!(
                services,
                "[[service]]\nname = \"s{number}\"\naddress = \"2001:db8:1::{number:x}\"\nport = 80\nmode = \"dsr\"\n\
                 [[service.backend]]\naddress = \"fd00::1\"\n"
            );
        }
        let expected = format!("config: {} services and DNS addresses are more than the maps hold; write at most 4096", MAX_SERVICES + 1);
        assert_eq!(errors(&services), expected);
        let mut backends = String::from("interfaces = [\"lo\"]\nsecret = \"0123456789abcdef\"\n");
        for service in 0..64 {
            let _ = writeln!(
                backends,
                "[[service]]\nname = \"s{service}\"\naddress = \"2001:db8::{service:x}:1\"\nport = 80\nmode = \"dsr\""
            );
            for number in 0..=MAX_BACKENDS / 64 {
                let _ = writeln!(backends, "[[service.backend]]\naddress = \"fd00::{number:x}:1\"");
            }
        }
        let expected = format!("config: {} backends are more than the maps hold; write at most 16384", MAX_BACKENDS + 64);
        assert_eq!(errors(&backends), expected);
    }
}

mod checks {
    use super::*;

    #[test]
    fn numbers_out_of_range() {
        says("rise = 1", "rise = 0", "config:13: check `web`: rise 0 is out of range; write 1 to 1000");
        says("fall = 4", "fall = 0", "config:14: check `web`: fall 0 is out of range; write 1 to 1000");
        says("timeout_ms = 300", "timeout_ms = 0", "config:12: check `web`: timeout_ms 0 is out of range; write 1 to 86400000");
        says("interval_ms = 400", "interval_ms = 0", "config:17: check `own`: interval_ms 0 is out of range; write 1 to 86400000");
        says("port = 8081", "port = 65536", "config:10: check `web`: port 65536 is not a port; write 1 to 65535");
    }

    #[test]
    fn a_timeout_longer_than_the_interval() {
        says(
            "timeout_ms = 300",
            "timeout_ms = 2001",
            "config:12: check `web`: timeout_ms 2001 is longer than interval_ms 2000; write 2000 or less",
        );
    }

    #[test]
    fn unknown_ones() {
        says("kind = \"tcp\"", "kind = \"http\"", "config:9: check `web`: kind `http` is unknown; write \"tcp\"");
        says(
            "check = \"own\"",
            "check = \"wep\"",
            "config:27: service `web`: there is no check `wep`; those that are there are `own`, `web`",
        );
        let without = FULL.replace("check = \"web\"", "").replace("check = \"own\"", "check = \"wep\"");
        let (start, rest) = (without.find("[check.web]").unwrap(), without.find("[[service]]").unwrap());
        let without = without.replace(&without[start..rest], "").replace("protocol = \"udp\"", "");
        assert_eq!(errors(&without), "config:16: service `web`: there is no check `wep`; write one, [check.<name>]");
    }

    #[test]
    fn one_without_a_port_where_it_takes_one() {
        says(
            "port = 8081",
            "",
            "config:42: service `quic`: check `web` has no port, and a udp service needs one to connect to; write `port` in [check.web]\n\
             config:63: name `WWW.Example.com.`: check `web` has no port, and a name needs one to connect to; write `port` in [check.web]",
        );
        let text = FULL.replacen("mode = \"dsr\"\ncheck = \"web\"", "mode = \"dsr\"", 1);
        assert_eq!(
            errors(&text),
            "config:36: service `quic`: a udp service has no check of its own; write check = \"...\", the name of a check with a TCP \
             port that tells of it"
        );
    }
}

mod services {
    use super::*;

    #[test]
    fn missing_keys() {
        says("name = \"web\"", "", "config:19: no `name`; write name = \"...\"");
        says(
            "address = \"192.0.2.10\"",
            "",
            "config:19: service `web`: no `address`; write address = \"...\", where clients connect to",
        );
        says("port = 80", "", "config:19: service `web`: no `port`; write port = ..., where clients connect to");
        says("mode = \"nat\"", "", "config:19: service `web`: no `mode`; write mode = \"dsr\" or mode = \"nat\"");
        says(
            "address = \"10.0.0.12\"",
            "",
            "config:34: service `web`: no `address`; write the backend's address = \"...\"",
        );
    }

    #[test]
    fn names() {
        for name in ["", "a b", "naïve", "a/b"] {
            let expected = format!(
                "config:20: service `{name}`: `{name}` is not a name for a service; write letters, digits, `-`, `_` and `.`"
            );
            says("name = \"web\"", &format!("name = \"{name}\""), &expected);
        }
        says(
            "name = \"quic\"",
            "name = \"web\"",
            "config:38: service `web`: another service, at line 20, has this name; write another one",
        );
    }

    #[test]
    fn words() {
        says("mode = \"nat\"", "mode = \"snat\"", "config:24: service `web`: mode `snat` is unknown; write \"dsr\" or \"nat\"");
        says(
            "protocol = \"tcp\"",
            "protocol = \"sctp\"",
            "config:23: service `web`: protocol `sctp` is unknown; write \"tcp\" or \"udp\"",
        );
        says(
            "claim = \"routed\"",
            "claim = \"bgp\"",
            "config:26: service `web`: claim `bgp` is unknown; write \"link\" or \"routed\"",
        );
    }

    #[test]
    fn addresses() {
        for (address, problem) in [
            ("192.0.2", "`192.0.2` is not an IP address; write one such as 192.0.2.10 or 2001:db8::10"),
            ("192.0.2.10:80", "`192.0.2.10:80` is not an IP address; write one such as 192.0.2.10 or 2001:db8::10"),
            ("0.0.0.0", "0.0.0.0 is the unspecified address; write the address of one machine"),
            ("224.0.0.1", "224.0.0.1 is a multicast address; write the address of one machine"),
            ("127.0.0.1", "127.0.0.1 is a loopback address; write the address of one machine"),
            ("255.255.255.255", "255.255.255.255 is the broadcast address; write the address of one machine"),
        ] {
            let expected = format!("config:21: service `web`: address {problem}");
            says("address = \"192.0.2.10\"", &format!("address = \"{address}\""), &expected);
            let expected = format!("config:30: service `web`: backend address {problem}");
            says("address = \"10.0.0.11\"", &format!("address = \"{address}\""), &expected);
        }
        for (address, problem) in [
            ("::", ":: is the unspecified address; write the address of one machine"),
            ("ff02::1", "ff02::1 is a multicast address; write the address of one machine"),
            ("::1", "::1 is a loopback address; write the address of one machine"),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.1 is an IPv4 address in IPv6 form; write it in IPv4 form"),
            ("fe80::1", "fe80::1 is a link-local address; write a global or unique local one"),
        ] {
            let expected = format!("config:39: service `quic`: address {problem}");
            says("address = \"2001:db8::10\"", &format!("address = \"{address}\""), &expected);
        }
    }

    #[test]
    fn ports() {
        says("port = 80", "port = 0", "config:22: service `web`: port 0 is not a port; write 1 to 65535");
        says("port = 8080", "port = 0", "config:31: service `web`: backend port 0 is not a port; write 1 to 65535");
        says("port = 8080", "port = -1", "config:31: service `web`: backend port -1 is not a port; write 1 to 65535");
        says(
            "mode = \"nat\"",
            "mode = \"dsr\"",
            "config:31: service `web`: backend port 8080 is not the service's port 80, and dsr rewrites no ports; write 80, or mode = \
             \"nat\"",
        );
    }

    #[test]
    fn one_endpoint_twice() {
        let text = FULL.replace("[dns]", "[[service]]\nname = \"more\"\naddress = \"192.0.2.10\"\nport = 80\nmode = \"dsr\"\n\
             [[service.backend]]\naddress = \"10.0.0.14\"\n[dns]");
        assert_eq!(
            errors(&text),
            "config:53: service `more`: service `web`, at line 19, has the same address, port and protocol; change one of them, or \
             merge the services"
        );
        let other_protocol = text.replace("mode = \"dsr\"\n[[", "mode = \"dsr\"\nprotocol = \"udp\"\ncheck = \"web\"\n[[");
        intent(&other_protocol).unwrap();
    }

    #[test]
    fn one_where_dns_is() {
        let text = FULL.replace("192.0.2.53", "192.0.2.10").replace("port = 5353", "port = 80");
        assert_eq!(
            errors(&text),
            "config:19: service `web`: DNS questions are answered at 192.0.2.10 port 80; write another address or port"
        );
    }

    #[test]
    fn weights() {
        says("weight = 10", "weight = 65536", "config:32: service `web`: weight 65536 is out of range; write 0 to 65535");
        says(
            "address = \"fd00::12\"",
            "address = \"fd00::12\"\nweight = 0",
            "config:36: service `quic`: every backend has weight 0, so none takes traffic; write a weight of 1 or more for one",
        );
    }

    #[test]
    fn no_backend() {
        let text = "interfaces = [\"lo\"]\nsecret = \"0123456789abcdef\"\n[[service]]\nname = \"web\"\naddress = \"192.0.2.1\"\n\
             port = 80\nmode = \"nat\"\n";
        assert_eq!(
            errors(text),
            "config:3: service `web`: no backend; write a [[service.backend]] with its address"
        );
    }

    #[test]
    fn slots() {
        says("slots = 1009", "slots = 250", "config:25: service `web`: slots 250 is out of range; write 251 to 65537");
        says("slots = 1009", "slots = 65538", "config:25: service `web`: slots 65538 is out of range; write 251 to 65537");
        says("slots = 1009", "slots = 1000", "config:25: service `web`: slots 1000 is not a prime; write 1009");
        says(
            "weight = 10",
            "weight = 504",
            "config:25: service `web`: 1009 slots are too few for a backend with weight 1 of 505, which needs a share of at least 2; \
             write slots = 1013 or more, or weights that differ less",
        );
        let text = FULL.replace("slots = 1009\n", "").replace("weight = 10", "weight = 40000");
        assert_eq!(
            errors(&text),
            "config:19: service `web`: 251 slots are too few for a backend with weight 1 of 40001, which needs a share of at least \
             2; write weights that differ less, or fewer backends"
        );
        // Exactly a share of two.
        intent(&FULL.replace("slots = 1009", "slots = 1013").replace("weight = 10", "weight = 505")).unwrap();
    }

    #[test]
    fn backends_of_another_family() {
        says(
            "address = \"fd00::11\"",
            "address = \"10.0.0.21\"",
            "config:45: service `quic`: backend 10.0.0.21 is IPv4, the service's address IPv6; write backends of the service's family",
        );
    }

    #[test]
    fn one_backend_twice() {
        says(
            "address = \"10.0.0.12\"",
            "address = \"10.0.0.11\"\nport = 8080",
            "config:34: service `web`: backend 10.0.0.11 port 8080 is there twice, first at line 29; write it once, with the sum of the \
             weights",
        );
    }

    #[test]
    fn one_nat_backend_behind_two_services() {
        let more = "[[service]]\nname = \"more\"\naddress = \"192.0.2.11\"\nport = 80\nmode = \"nat\"\n[[service.backend]]\n\
             address = \"10.0.0.11\"\nport = 8080\n[dns]";
        let text = FULL.replace("[dns]", more);
        assert_eq!(
            errors(&text),
            "config:58: service `more`: backend 10.0.0.11 port 8080 is also behind service `web`, at line 29, and nat could not tell \
             their replies apart; give it another port or address in one of them"
        );
        intent(&text.replace("port = 8080\n[dns]", "port = 8081\n[dns]")).unwrap();
        intent(&text.replace("port = 80\nmode = \"nat\"", "port = 8080\nmode = \"dsr\"")).unwrap();
    }
}

mod dns {
    use super::*;

    #[test]
    fn where_questions_are_answered() {
        let line = "listen = [\"192.0.2.53\", \"2001:db8::53\"]";
        says(line, "", "config:54: dns: no address to answer at; write listen = [\"192.0.2.53\"] with addresses of this machine");
        says(
            line,
            "listen = [\"::1\",\n\"0:0::1\"]",
            "config:56: dns: listen address ::1 is there twice; write it once",
        );
        says(
            line,
            "listen = [\"0.0.0.0\"]",
            "config:55: dns: listen address 0.0.0.0 is the unspecified address; write the address of one machine",
        );
        says("port = 5353", "port = 0", "config:56: dns: port 0 is not a port; write 1 to 65535");
    }

    #[test]
    fn names() {
        let label = "a".repeat(64);
        let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(62)].join(".");
        for (name, problem) in [
            ("", "the name is empty; write one such as www.example.com".to_owned()),
            (".", "the name is empty; write one such as www.example.com".into()),
            ("*.example", "wildcards are not supported; write each name".into()),
            ("a..example", "an empty label, two dots in a row or one at the start; write names such as www.example.com".into()),
            (".example", "an empty label, two dots in a row or one at the start; write names such as www.example.com".into()),
            ("a.example..", "an empty label, two dots in a row or one at the start; write names such as www.example.com".into()),
            ("a b.example", "` ` cannot be in a name; write letters, digits, `-` and `_`, and international names as xn--...".into()),
            ("bücher.example", "`ü` cannot be in a name; write letters, digits, `-` and `_`, and international names as xn--...".into()),
            (&label, format!("label `{label}` has 64 bytes, 63 are the most; write a shorter one")),
            (&long, "the name has 256 bytes on the wire, 255 are the most; write a shorter one".into()),
        ] {
            says("name = \"_srv.x-1.example\"", &format!("name = \"{name}\""), &format!("config:66: name `{name}`: {problem}"));
        }
        let longest = &long[..long.len() - 1];
        let intent = intent(&FULL.replace("_srv.x-1.example", longest)).unwrap();
        assert_eq!(intent.names()[1].wire.len(), 255);
    }

    #[test]
    fn a_missing_name() {
        says("name = \"_srv.x-1.example\"", "", "config:65: dns: no `name`; write name = \"www.example.com\"");
    }

    #[test]
    fn one_name_twice() {
        says(
            "name = \"_srv.x-1.example\"",
            "name = \"www.example.COM\"",
            "config:66: name `www.example.COM`: the name is there twice, first at line 59; write it once, with all its addresses",
        );
    }

    #[test]
    fn times_to_live() {
        for seconds in ["-1", "86401"] {
            let expected =
                format!("config:60: name `WWW.Example.com.`: ttl_seconds {seconds} is out of range; write 0 to 86400");
            says("ttl_seconds = 5", &format!("ttl_seconds = {seconds}"), &expected);
        }
    }

    #[test]
    fn addresses() {
        let line = "addresses = [\"10.0.0.13\"]";
        says(line, "", "config:65: name `_srv.x-1.example`: no address; write addresses = [\"192.0.2.10\"]");
        says(
            line,
            "addresses = [\"fd00::1\",\n\"fd00:0::1\"]",
            "config:68: name `_srv.x-1.example`: address fd00::1 is there twice; write it once",
        );
        says(
            line,
            "addresses = [\"here\"]",
            "config:67: name `_srv.x-1.example`: address `here` is not an IP address; write one such as 192.0.2.10 or 2001:db8::10",
        );
        let addresses: Vec<_> = (1..=17).flat_map(|number| [format!("10.0.0.{number}"), format!("fd00::{number}")]).collect();
        says(
            line,
            &format!("addresses = {addresses:?}"),
            "config:65: name `_srv.x-1.example`: 17 IPv4 addresses do not fit in one answer; write at most 16\n\
             config:65: name `_srv.x-1.example`: 17 IPv6 addresses do not fit in one answer; write at most 16",
        );
        let addresses = &addresses[..32];
        intent(&FULL.replace(line, &format!("addresses = {addresses:?}"))).unwrap();
    }

    #[test]
    fn an_unknown_check() {
        says(
            "addresses = [\"10.0.0.13\"]",
            "addresses = [\"10.0.0.13\"]\ncheck = \"wep\"",
            "config:68: name `_srv.x-1.example`: there is no check `wep`; those that are there are `own`, `web`",
        );
    }
}
