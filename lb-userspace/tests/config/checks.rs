//! What is wrong with health checks.

use super::{FULL, errors, fixture, intent, says};
use lb_userspace::{
    config::Config,
    model::intent::{AgentCheck, Authorities, Check, Damping, Datagram, Http, Intent, Kind, Lookup, Tls},
};
use std::time::Duration;

#[test]
fn numbers_out_of_range() {
    says("rise = 1", "rise = 0", "config:13: check `web`: rise 0 is out of range; write 1 to 1000");
    says("fall = 4", "fall = 0", "config:14: check `web`: fall 0 is out of range; write 1 to 1000");
    says(
        "timeout_ms = 300",
        "timeout_ms = 0",
        "config:12: check `web`: timeout_ms 0 is out of range; write 1 to 86400000",
    );
    says(
        "interval_ms = 400",
        "interval_ms = 0",
        "config:17: check `own`: interval_ms 0 is out of range; write 1 to 86400000",
    );
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
    says(
        "kind = \"tcp\"",
        "kind = \"ftp\"",
        "config:9: check `web`: kind `ftp` is unknown; write \"tcp\", \"http\", \"https\", \"dns\", \"udp\", \"icmp\" or \"agent\"",
    );
    says(
        "check = \"own\"",
        "check = \"wep\"",
        "config:27: service `web`: there is no check `wep`; those that are there are `own`, `web`",
    );
    let without = FULL.replace("check = \"web\"", "").replace("check = \"own\"", "check = \"wep\"");
    let (start, rest) = (without.find("[check.web]").unwrap(), without.find("[[service]]").unwrap());
    let without = without.replace(&without[start..rest], "").replace("protocol = \"udp\"", "");
    let without = without.replace("port = \"any\"", "port = 443").replace("udp = \"move\"", "");
    assert_eq!(errors(&without), "config:16: service `web`: there is no check `wep`; write one, [check.<name>]");
}

#[test]
fn one_without_a_port_where_it_takes_one() {
    says(
        "port = 8081",
        "",
        "config:43: service `quic`: check `web` has no port, and a udp service needs one to connect to; write `port` in [check.web]\n\
         config:61: name `WWW.Example.com.`: check `web` has no port, and a name needs one to connect to; write `port` in [check.web]\n\
         config:75: service `all`: check `web` has no port, and a udp service needs one to connect to; write `port` in [check.web]",
    );
    let text = FULL.replacen("mode = \"dsr\"\ncheck = \"web\"", "mode = \"dsr\"", 1);
    assert_eq!(
        errors(&text),
        "config:37: service `quic`: a udp service has no check of its own; write check = \"...\", the name of a check with a TCP \
         port that tells of it"
    );
}

const START: &str = "interfaces = [\"eth0\"]\nsecret = \"0123456789abcdef\"\n[[service]]\nname = \"s\"\naddress = \"192.0.2.1\"\n\
                     port = 80\nmode = \"dsr\"\ncheck = \"c\"\n[[service.backend]]\naddress = \"10.0.0.1\"\n[check.c]\n";

/// What a check means that is written like this; its first line is the 12th.
#[track_caller]
fn check(text: &str) -> Check {
    let intent = intent(&format!("{START}{text}")).unwrap_or_else(|errors| panic!("{errors}"));
    let target = intent.targets().into_iter().next().unwrap();
    (*target.check).clone()
}

#[track_caller]
fn wrong(text: &str, expected: &str) {
    let expected = expected.lines().map(|line| format!("config:{line}")).collect::<Vec<_>>().join("\n");
    assert_eq!(errors(&format!("{START}{text}")), expected);
}

fn page() -> Http {
    Http { tls: None, head: false, path: "/".into(), host: None, status: vec![(200, 399)], body: None }
}

#[test]
fn pages() {
    assert_eq!(check("kind = \"http\"").kind, Kind::Http(page()));
    let text = "kind = \"http\"\npath = \"/up?a=%20\"\nhost = \"www.example.com:8080\"\nstatus = \"200, 204,300-399\"\nbody = \"fine\"";
    let expected = Http {
        path: "/up?a=%20".into(),
        host: Some("www.example.com:8080".into()),
        status: vec![(200, 200), (204, 204), (300, 399)],
        body: Some("fine".into()),
        ..page()
    };
    assert_eq!(check(text).kind, Kind::Http(expected));
    assert_eq!(check("kind = \"http\"\nmethod = \"HEAD\"").kind, Kind::Http(Http { head: true, ..page() }));
    wrong(
        "kind = \"http\"\nmethod = \"PUT\"\npath = \"up\"",
        "13: check `c`: method `PUT` is unknown; write \"GET\" or \"HEAD\"\n\
         14: check `c`: path `up` is none of a page; begin it with `/`, and write what is not a letter or digit as in %20",
    );
    wrong(
        "kind = \"http\"\npath = \"/a b\"",
        "13: check `c`: path `/a b` is none of a page; begin it with `/`, and write what is not a letter or digit as in %20",
    );
    for status in ["", "99", "600", "399-200", "2xx", "200-", "200,"] {
        let expected = format!(
            "13: check `c`: status `{status}` is no range of statuses; write one such as \"200-399\" or \"200,301-302\""
        );
        wrong(&format!("kind = \"http\"\nstatus = \"{status}\""), &expected);
    }
    wrong(
        "kind = \"http\"\nmethod = \"HEAD\"\nbody = \"x\"",
        "14: check `c`: `body` is never in an answer to HEAD; write method = \"GET\", or leave `body` out",
    );
    wrong("kind = \"http\"\nbody = \"\"", "13: check `c`: `body` is empty; leave it out");
    wrong(
        "kind = \"http\"\nhost = \"a b\"",
        "13: check `c`: host `a b` is not the name of a host; write one such as www.example.com",
    );
}

#[test]
fn pages_by_tls() {
    let page = |tls| Kind::Http(Http { tls: Some(tls), ..page() });
    let tls = |name: Option<&str>, authorities| Tls { name: name.map(Into::into), authorities };
    assert_eq!(check("kind = \"https\"").kind, page(tls(None, Authorities::System)));
    assert_eq!(check("kind = \"https\"\nverify = false").kind, page(tls(None, Authorities::Anyone)));
    let by_name = check("kind = \"https\"\nserver_name = \"a.example\"\nverify = false");
    assert_eq!(by_name.kind, page(tls(Some("a.example"), Authorities::Anyone)));
    let Kind::Http(by_host) = check("kind = \"https\"\nhost = \"b.example:444\"").kind else { panic!() };
    assert_eq!(by_host.tls, Some(tls(Some("b.example"), Authorities::System)));
    let Kind::Http(by_address) = check("kind = \"https\"\nhost = \"[2001:db8::1]:444\"").kind else { panic!() };
    assert_eq!(by_address.tls, Some(tls(Some("2001:db8::1"), Authorities::System)));
    wrong(
        "kind = \"https\"\nserver_name = \"a b\"",
        "13: check `c`: server_name `a b` is not the name of a host; write one such as www.example.com",
    );
}

#[test]
fn authorities_of_a_file() {
    let text = format!("{START}kind = \"https\"\nca_file = \"authority.pem\"\n");
    let folder = std::env::temp_dir().join(format!("lb-authority-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let authority = params.self_signed(&key).unwrap();
    std::fs::write(folder.join("lb.toml"), &text).unwrap();
    let read = || Intent::new(&Config::read(&folder.join("lb.toml"))?);
    let place = format!("{}:13: ", folder.join("lb.toml").display());
    let missing = read().unwrap_err().to_string();
    std::fs::write(folder.join("authority.pem"), "nothing").unwrap();
    let empty = read().unwrap_err().to_string();
    std::fs::write(folder.join("authority.pem"), authority.pem()).unwrap();
    let right = read().unwrap();
    std::fs::remove_dir_all(&folder).unwrap();

    let missing_path = folder.join("authority.pem");
    assert_eq!(
        missing,
        format!(
            "{place}cannot read ca_file {}: No such file or directory (os error 2); write the path of a PEM file, from the \
             config's folder",
            missing_path.display()
        )
    );
    assert_eq!(
        empty,
        format!(
            "{place}check `c`: the file has no certificates that can be read; write a PEM file with those of the authorities"
        )
    );
    let Kind::Http(Http { tls: Some(tls), .. }) = &right.services()[0].backends[0].target.check.kind else { panic!() };
    assert_eq!(tls.authorities, Authorities::These([authority.der().to_vec()].into()));
    let known = fixture("secret").display().to_string();
    wrong(
        &format!("kind = \"https\"\nverify = false\nca_file = \"{known}\""),
        "14: check `c`: `ca_file` means nothing with verify = false; leave one of them out",
    );
}

#[test]
fn questions() {
    let lookup = Lookup { name: "www.example.com".into(), kind: 1, code: 0, address: None };
    assert_eq!(check("kind = \"dns\"\nname = \"WWW.example.com.\"").kind, Kind::Dns(lookup.clone()));
    let text = "kind = \"dns\"\nname = \"www.example.com\"\ntype = \"AAAA\"\naddress = \"2001:db8::1\"";
    let expected = Lookup { kind: 28, address: Some("2001:db8::1".parse().unwrap()), ..lookup.clone() };
    assert_eq!(check(text).kind, Kind::Dns(expected));
    let text = "kind = \"dns\"\nname = \"www.example.com\"\ntype = \"SOA\"\nrcode = \"NXDOMAIN\"";
    assert_eq!(check(text).kind, Kind::Dns(Lookup { kind: 6, code: 3, ..lookup }));
    wrong("kind = \"dns\"", "11: check `c`: no `name`; write name = \"www.example.com\", which is asked for");
    wrong(
        "kind = \"dns\"\nname = \"a..b\"",
        "13: check `c`: an empty label, two dots in a row or one at the start; write names such as www.example.com",
    );
    wrong(
        "kind = \"dns\"\nname = \"a\"\naddress = \"::1\"",
        "14: check `c`: ::1 is never in the answer that is expected; write its type, A or AAAA, and rcode = \"NOERROR\"",
    );
}

#[test]
fn datagrams() {
    let datagram = |send: &[u8], expect: Option<&[u8]>| {
        Kind::Udp(Datagram { send: send.into(), expect: expect.map(<[u8]>::to_vec) })
    };
    assert_eq!(check("kind = \"udp\"").kind, datagram(b"", None));
    let text = "kind = \"udp\"\nsend = \"ping\\n\"\nexpect = \"hex:00fF\"";
    assert_eq!(check(text).kind, datagram(b"ping\n", Some(&[0, 255])));
    wrong("kind = \"udp\"\nexpect = \"\"", "13: check `c`: `expect` is empty; leave it out");
    for digits in ["", "0", "0g"] {
        let expected = format!(
            "13: check `c`: send `hex:{digits}` is not `hex:` and pairs of hexadecimal digits; write one such as \"hex:00ff\""
        );
        wrong(&format!("kind = \"udp\"\nsend = \"hex:{digits}\""), &expected);
    }
    wrong(
        &format!("kind = \"udp\"\nsend = \"{}\"", "x".repeat(1_201)),
        "13: check `c`: `send` has 1201 bytes; write at most 1200, which fit a datagram on every link",
    );
}

#[test]
fn checks_that_go_to_the_service_address() {
    let right = intent(&format!("{START}probe = \"service\"\nport = 8081")).unwrap();
    let targets = right.targets();
    let target = targets.first().unwrap();
    assert_eq!(target.address, "192.0.2.1:8081".parse().unwrap());
    assert_eq!(target.via.unwrap().own.ip(), "10.0.0.1".parse::<std::net::IpAddr>().unwrap());
    let none = "goes to a service's address (probe = \"service\"), at which";
    let cure = "gets nothing; write the name of another check";
    let nat = format!("{}probe = \"service\"", START.replace("\"dsr\"", "\"nat\""));
    assert_eq!(errors(&nat), format!("config:8: service `s`: check `c` {none} a backend in mode \"nat\" {cure}"));
    wrong(
        "probe = \"service\"\nport = 80\n[dns]\nlisten = [\"::1\"]\n[[dns.name]]\nname = \"a\"\naddresses = [\"10.0.0.1\"]\ncheck = \"c\"",
        &format!("19: name `a`: check `c` {none} a name {cure}"),
    );
    wrong(
        "kind = \"icmp\"\nprobe = \"service\"",
        "13: check `c`: probe = \"service\" means nothing with this kind; leave it out, or write another kind",
    );
    wrong("probe = \"x\"", "12: check `c`: probe `x` is unknown; write \"backend\" or \"service\"");
}

#[test]
fn echoes_have_no_port() {
    let intent = intent(&format!("{START}kind = \"icmp\"")).unwrap();
    let target = &intent.services()[0].backends[0].target;
    assert_eq!((target.address, &target.check.kind), ("10.0.0.1:0".parse().unwrap(), &Kind::Icmp));
    wrong("kind = \"icmp\"\nport = 7", "13: check `c`: `port` means nothing with kind = \"icmp\"; leave it out");
}

#[test]
fn agents() {
    let agent = AgentCheck { send: None, floor: 10, step: 5 };
    assert_eq!(check("kind = \"agent\"\nport = 9").kind, Kind::Agent(agent));
    let text = "kind = \"agent\"\nport = 9\nsend = \"web\\n\"\nweight_floor_percent = 0\nweight_step_percent = 20";
    assert_eq!(check(text).kind, Kind::Agent(AgentCheck { send: Some("web\n".into()), floor: 0, step: 20 }));
    wrong("kind = \"agent\"", "11: check `c`: no `port`; write port = ..., where the agent answers");
    wrong(
        "kind = \"agent\"\nport = 9\nweight_floor_percent = 101",
        "14: check `c`: weight_floor_percent 101 is out of range; write 0 to 100",
    );
}

#[test]
fn an_agent_besides() {
    let both = START.replace("check = \"c\"", "agent = \"c\"");
    let with = |text: &str| intent(&format!("{both}{text}"));
    let right = with("kind = \"agent\"\nport = 9").unwrap();
    let backend = &right.services()[0].backends[0];
    assert_eq!((*backend.target.check).clone(), Check::default());
    assert_eq!(backend.agent.as_ref().unwrap().address, "10.0.0.1:9".parse().unwrap());
    assert_eq!(right.targets().len(), 2);
    assert_eq!(
        with("kind = \"tcp\"").unwrap_err().to_string(),
        "config:8: service `s`: check `c` asks no agent; write the name of a check with kind = \"agent\""
    );
}

#[test]
fn keys_of_other_kinds() {
    wrong(
        "path = \"/\"\nca_file = \"/dev/null\"\nname = \"x\"\nsend = \"x\"\nweight_step_percent = 1",
        "12: check `c`: `path` means something only with kind = \"http\" or \"https\"; write that, or leave it out\n\
         13: check `c`: `ca_file` means something only with kind = \"https\"; write that, or leave it out\n\
         14: check `c`: `name` means something only with kind = \"dns\"; write that, or leave it out\n\
         15: check `c`: `send` means something only with kind = \"udp\" or \"agent\"; write that, or leave it out\n\
         16: check `c`: `weight_step_percent` means something only with kind = \"agent\"; write that, or leave it out",
    );
}

#[test]
fn when_and_how_often() {
    let text = "jitter_percent = 0\nslow_start_seconds = 30\nflap_turns = 4\nflap_hold_seconds = 700";
    let [window, hold] = [60, 700].map(Duration::from_secs);
    let expected = Check {
        jitter: 0,
        slow_start: Duration::from_secs(30),
        damping: Some(Damping { turns: 4, window, hold, most: hold }),
        ..Check::default()
    };
    assert_eq!(check(text), expected);
    assert_eq!(check(""), Check::default());
    wrong("jitter_percent = 51", "12: check `c`: jitter_percent 51 is out of range; write 0 to 50");
    wrong(
        "flap_window_seconds = 5",
        "12: check `c`: `flap_window_seconds` means something only with `flap_turns`; write flap_turns = 4, or leave it out",
    );
}

#[test]
fn checks_over_udp_take_the_port_of_a_udp_service() {
    let udp = START.replace("mode = \"dsr\"", "mode = \"dsr\"\nprotocol = \"udp\"");
    let right = intent(&format!("{udp}kind = \"dns\"\nname = \"a\"")).unwrap();
    assert_eq!(right.services()[0].backends[0].target.address, "10.0.0.1:80".parse().unwrap());
    assert!(intent(&format!("{udp}kind = \"icmp\"")).is_ok());
    assert_eq!(
        errors(&format!("{udp}kind = \"http\"")),
        "config:9: service `s`: check `c` has no port, and a udp service needs one to connect to; write `port` in [check.c]"
    );
}
