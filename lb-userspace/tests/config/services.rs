//! What is wrong with services and backends.

use super::{FULL, errors, intent, says};
use lb_userspace::{
    config::{Config, Watched},
    model::intent::{Intent, Origin},
};

#[test]
fn missing_keys() {
    says("name = \"web\"", "", "config:19: no `name`; write name = \"...\"");
    says(
        "address = \"192.0.2.10\"",
        "",
        "config:19: service `web`: no `address`; write address = \"...\", where clients connect to",
    );
    says(
        "port = 80",
        "",
        "config:19: service `web`: no `port`; write port = ..., where clients connect to, or port = \"any\"",
    );
    says(
        "mode = \"nat\"",
        "",
        "config:19: service `web`: no `mode`; write mode = \"dsr\", mode = \"nat\" or mode = \"tunnel\"",
    );
    says(
        "address = \"10.0.0.12\"",
        "",
        "config:34: service `web`: no `address`; write the backend's address = \"...\", or host = \"...\" with a name that DNS knows",
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
    says(
        "mode = \"nat\"",
        "mode = \"snat\"",
        "config:24: service `web`: mode `snat` is unknown; write \"dsr\", \"nat\" or \"tunnel\"",
    );
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
    says(
        "port = 80",
        "port = \"all\"",
        "config:22: service `web`: port `all` is neither a number nor \"any\"; write 1 to 65535, or \"any\"",
    );
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
    let text = FULL.replace(
        "[dns]",
        "[[service]]\nname = \"more\"\naddress = \"192.0.2.10\"\nport = 80\nmode = \"dsr\"\n\
         [[service.backend]]\naddress = \"10.0.0.14\"\n[dns]",
    );
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
        "config:37: service `quic`: every backend has weight 0, so none takes traffic; write a weight of 1 or more for one",
    );
}

#[test]
fn no_backend() {
    let text = "interfaces = [\"lo\"]\nsecret = \"0123456789abcdef\"\n[[service]]\nname = \"web\"\naddress = \"192.0.2.1\"\n\
         port = 80\nmode = \"nat\"\n";
    assert_eq!(errors(text), "config:3: service `web`: no backend; write a [[service.backend]] with its address");
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
        "config:46: service `quic`: backend 10.0.0.21 is IPv4, the service's address IPv6; write backends of the service's family, or \
         mode = \"tunnel\"",
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

#[test]
fn one_address_with_and_without_echo() {
    let more = "[[service]]\nname = \"more\"\naddress = \"192.0.2.30\"\nport = 80\nmode = \"dsr\"\n[[service.backend]]\n\
         address = \"10.0.0.11\"\n[tunnel]";
    let text = FULL.replace("[tunnel]", more);
    assert_eq!(
        errors(&text),
        "config:83: service `more`: service `all`, at line 67, has the same address and echo = false; write the same in both, since \
         an address is answered for or not"
    );
    intent(&text.replace(
        "mode = \"dsr\"\n[[service.backend]]\naddress = \"10.0.0.11\"\n[tunnel]",
        "mode = \"dsr\"\necho = false\n[[service.backend]]\naddress = \"10.0.0.11\"\n[tunnel]",
    ))
    .unwrap();
}

#[test]
fn what_is_only_for_udp() {
    says(
        "protocol = \"tcp\"",
        "udp = \"follow\"",
        "config:23: service `web`: `udp` is for services with protocol = \"udp\"; leave it out",
    );
    says(
        "udp = \"move\"",
        "udp = \"stay\"",
        "config:73: service `all`: udp `stay` is unknown; write \"follow\" or \"move\"",
    );
}

#[test]
fn any_port() {
    let line = "address = \"10.0.0.31\"";
    says(
        line,
        "address = \"10.0.0.31\"\nport = 443",
        "config:79: service `all`: the service is on any port, and a backend gets its packets at the port that they are sent to; \
         leave `port` out",
    );
    let last = FULL.rfind("check = \"web\"\n\n[[service.backend]]").unwrap();
    let (start, rest) = FULL.split_at(last);
    let without = format!("{start}{}", rest.replacen("check = \"web\"", "", 1));
    let says_without = |user: &str| {
        format!(
            "config:67: service `all`: {user} has no check of its own; write check = \"...\", the name of a check with a TCP port \
             that tells of it"
        )
    };
    assert_eq!(errors(&without), says_without("a udp service"));
    let tcp = without.replace("protocol = \"udp\"\nmode = \"tunnel\"\nudp = \"move\"", "\nmode = \"tunnel\"\n");
    assert_eq!(errors(&tcp), says_without("a service on any port"));
    // At one address there may be others, but not another on any port.
    let more = "[[service]]\nname = \"more\"\naddress = \"192.0.2.30\"\nport = 80\nprotocol = \"udp\"\nmode = \"dsr\"\necho = false\n\
         check = \"web\"\n[[service.backend]]\naddress = \"10.0.0.11\"\n[tunnel]";
    let text = FULL.replace("[tunnel]", more);
    intent(&text).unwrap();
    assert_eq!(
        errors(&text.replace("port = 80\nprotocol = \"udp\"", "port = \"any\"\nprotocol = \"udp\"")),
        "config:83: service `more`: service `all`, at line 67, has the same address, port and protocol; change one of them, or merge \
         the services"
    );
    assert_eq!(
        errors(&FULL.replace("192.0.2.30", "192.0.2.53")),
        "config:67: service `all`: DNS questions are answered at 192.0.2.53; write another address, or a port instead of \"any\""
    );
}

#[test]
fn one_nat_backend_behind_a_service_on_any_port() {
    let more = |port: &str, backend: &str| {
        let more = format!(
            "[[service]]\nname = \"more\"\naddress = \"192.0.2.11\"\nport = {port}\nmode = \"nat\"\ncheck = \"web\"\n\
             [[service.backend]]\naddress = \"{backend}\"\n[dns]"
        );
        FULL.replace("[dns]", &more)
    };
    let shared = |line: usize, backend: &str, other: &str, at: usize| {
        format!(
            "config:{line}: service `{other}`: backend {backend} is also behind service `web`, at line {at}, one of the two services \
             is on any port, and nat could not tell their replies apart; give it another address in one of them"
        )
    };
    assert_eq!(errors(&more("\"any\"", "10.0.0.11")), shared(59, "10.0.0.11", "more", 29));
    // The other way round.
    let text = more("80", "10.0.0.51").replace("port = 80\nprotocol = \"tcp\"", "port = \"any\"\nprotocol = \"tcp\"");
    let text = text.replace("port = 8080\n", "\n").replace("check = \"own\"", "check = \"web\"");
    intent(&text).unwrap();
    assert_eq!(errors(&text.replace("10.0.0.51", "10.0.0.12")), shared(59, "10.0.0.12", "more", 34));
    // In another forward mode, or of another protocol, nothing has to be told apart.
    intent(&more("\"any\"", "10.0.0.11").replace("mode = \"nat\"\ncheck", "mode = \"dsr\"\ncheck")).unwrap();
    intent(&more("\"any\"", "10.0.0.11").replace("mode = \"nat\"\ncheck", "mode = \"nat\"\nprotocol = \"udp\"\ncheck"))
        .unwrap();
}

#[test]
fn ports_of_tunnels() {
    says(
        "mode = \"nat\"",
        "mode = \"tunnel\"",
        "config:31: service `web`: backend port 8080 is not the service's port 80, and tunnel rewrites no ports; write 80, or mode = \
         \"nat\"",
    );
}

const POOLS: &str = "interfaces = [\"eth0\"]\nsecret = \"0123456789abcdef\"\n[[service]]\nname = \"s\"\naddress = \"192.0.2.1\"\n\
                     port = 80\nmode = \"dsr\"\nminimum_healthy = 2\nbelow_minimum = \"fail-open\"\n\
                     [[service.backend]]\naddress = \"10.0.0.1\"\n[[service.backend]]\naddress = \"10.0.0.2\"\n\
                     [[service.backend]]\naddress = \"10.0.0.3\"\nbackup = true\n";

#[test]
fn backups_and_a_minimum() {
    let right = intent(POOLS).unwrap();
    let service = &right.services()[0];
    assert_eq!((service.minimum_healthy, service.fail_open), (2, true));
    assert_eq!(service.backends.iter().map(|backend| backend.tier).collect::<Vec<_>>(), [0, 0, 1]);
    assert_eq!(
        errors(&POOLS.replace("minimum_healthy = 2", "minimum_healthy = 3")),
        "config:8: service `s`: minimum_healthy 3 is more than there are backends with a weight that are no backups; write at most 2"
    );
    assert_eq!(
        errors(&POOLS.replace("minimum_healthy = 2", "minimum_healthy = 0")),
        "config:8: service `s`: minimum_healthy 0 is out of range; write 1 to 1000000"
    );
    assert_eq!(
        errors(&POOLS.replace("fail-open", "fail")),
        "config:9: service `s`: below_minimum `fail` is unknown; write \"healthy\" or \"fail-open\""
    );
    let backups = POOLS.replace("minimum_healthy = 2", "").replace(".1\"\n[", ".1\"\nbackup = true\n[");
    assert_eq!(
        errors(&backups.replace(".2\"\n[", ".2\"\nbackup = true\n[")),
        "config:3: service `s`: every backend that has a weight is a backup; leave `backup` out for one"
    );
}

#[test]
fn backends_from_a_file() {
    let folder = std::env::temp_dir().join(format!("lb-targets-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let config = folder.join("lb.toml");
    let file = folder.join("targets.json");
    let start = POOLS.split("minimum_healthy").next().unwrap();
    let text = format!("{start}backends_file = \"targets.json\"\n[[service.backend]]\naddress = \"10.0.0.1\"\n");
    std::fs::write(&config, text).unwrap();
    let read = || Intent::new(&Config::read(&config)?);
    let with = |targets: &str| {
        std::fs::write(&file, targets).unwrap();
        read()
    };
    let says = |targets: &str| match with(targets) {
        Ok(_) => String::from("nothing"),
        Err(errors) => errors.to_string().replace(&folder.display().to_string(), "F"),
    };
    let missing = read().unwrap_err().to_string().replace(&folder.display().to_string(), "F");
    assert_eq!(
        missing,
        "F/lb.toml:8: cannot read backends_file F/targets.json: No such file or directory (os error 2); write the path of a file, \
         from the config's folder"
    );
    let right = with(
        r#"[{"targets": ["10.0.0.2", "10.0.0.3:80"], "labels": {"weight": "3", "backup": "true", "rack": "7"}}, {"targets": []}]"#,
    );
    let right = right.unwrap();
    let backends = right.services()[0].backends.iter();
    let told: Vec<_> = backends.map(|one| (one.endpoint.ip().to_string(), one.weight, one.tier > 0)).collect();
    let expected = [("10.0.0.1", 1, false), ("10.0.0.2", 3, true), ("10.0.0.3", 3, true)];
    assert_eq!(told, expected.map(|(address, weight, backup)| (address.to_owned(), weight, backup)));
    assert_eq!(right.watched(), [Watched::new(&file, &std::fs::read_to_string(&file).unwrap())]);
    assert_eq!(right.services()[0].file.as_deref(), Some(&*file));
    let origins = right.services()[0].backends.iter().map(|backend| backend.origin.as_deref());
    assert!(origins.eq([None, Some(&Origin::File), Some(&Origin::File)]));
    for (targets, expected) in [
        (
            "[{}]",
            "F/lb.toml:8: backends_file F/targets.json: missing field `targets` at line 1 column 3; write JSON such as [{\"targets\": \
             [\"10.0.0.11:8080\"], \"labels\": {\"weight\": \"2\"}}]",
        ),
        (
            r#"[{"targets": ["www.example.com:80"]}]"#,
            "F/lb.toml:8: backends_file F/targets.json: target `www.example.com:80` is not an IP address with or without a port; write \
             one such as 10.0.0.11:8080",
        ),
        (
            r#"[{"targets": ["10.0.0.2"], "labels": {"weight": "much"}}]"#,
            "F/lb.toml:8: backends_file F/targets.json: label weight `much` can't be read; write \"weight\": \"2\" or \"backup\": \
             \"true\"",
        ),
        (
            r#"[{"targets": ["10.0.0.1"]}]"#,
            "F/lb.toml:8: service `s`: backend 10.0.0.1 port 80 is there twice, first at line 9; write it once, with the sum of the \
             weights",
        ),
        (
            r#"[{"targets": ["10.0.0.2:81"]}]"#,
            "F/lb.toml:8: service `s`: backend port 81 is not the service's port 80, and dsr rewrites no ports; write 80, or mode = \
             \"nat\"",
        ),
    ] {
        assert_eq!(says(targets), expected);
    }
    std::fs::remove_dir_all(&folder).unwrap();
}
