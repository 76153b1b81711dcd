//! What is wrong with the config as a whole.

use super::{FULL, errors, fixture, intent, says};
use lb_common::tables::MAX_INTERFACES;
use lb_userspace::config::Config;
use std::fmt::Write as _;

const NO_SECRET: &str =
    "no `secret`; write secret = \"...\" or secret_file = \"...\" with the output of `openssl rand -hex 16`";

#[test]
fn an_empty_config() {
    let expected = format!(
        "config: {NO_SECRET}\n\
         config: nothing to do; write a [[service]], or [dns] with a [[dns.name]]\n\
         config: no interface; write interfaces = [\"eth0\"] with the names that `ip link` shows"
    );
    assert_eq!(errors(""), expected);
}

#[test]
fn interfaces() {
    let line = "interfaces = [\"eth0\", \"eth1\"]";
    says(
        line,
        "interfaces = []",
        "config: no interface; write interfaces = [\"eth0\"] with the names that `ip link` shows",
    );
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
    says(
        "pins = \"/sys/fs/bpf/lb-two\"",
        "pins = \"lb\"",
        "config:6: pins `lb` is not an absolute path; begin it with `/`",
    );
}

#[test]
fn dots_in_the_name_of_the_pins() {
    says(
        "pins = \"/sys/fs/bpf/lb-two\"",
        "pins = \"/sys/fs/bpf/lb.two\"",
        "config:6: pins `/sys/fs/bpf/lb.two` has a dot in it, which bpffs does not allow; choose another name",
    );
}

#[test]
fn more_than_the_maps_hold() {
    let interfaces: Vec<_> = (0..=MAX_INTERFACES).map(|number| format!("eth{number}")).collect();
    says(
        "interfaces = [\"eth0\", \"eth1\"]",
        &format!("interfaces = {interfaces:?}"),
        "config: 65 interfaces are more than the maps hold; write at most 64",
    );
    let mut services = FULL.replace("[tunnel]", "[[service]]\n[tunnel]");
    let mut written = String::new();
    for number in 0..28 {
        let _ = write!(
            written,
            "[[service]]\nname = \"s{number}\"\naddress = \"2001:db8:1::{number:x}\"\nport = 80\nmode = \"dsr\"\n\
             [[service.backend]]\naddress = \"fd00::1\"\n"
        );
    }
    services = services.replace("[[service]]\n[tunnel]", &(written + "[tunnel]"));
    // Three more are there already, and two DNS addresses.
    assert_eq!(
        errors(&services),
        "config: 33 services and DNS addresses are more than the maps hold; write at most 32, or services = 33 in [limits]"
    );
    intent(&services.replace("services = 32", "services = 33")).unwrap();
    let mut backends = String::from("interfaces = [\"lo\"]\nsecret = \"0123456789abcdef\"\n");
    for service in 0..64 {
        let _ = writeln!(
            backends,
            "[[service]]\nname = \"s{service}\"\naddress = \"2001:db8::{service:x}:1\"\nport = 80\nmode = \"dsr\""
        );
        for number in 0..=256 {
            let _ = writeln!(backends, "[[service.backend]]\naddress = \"fd00::{number:x}:1\"");
        }
    }
    assert_eq!(
        errors(&backends),
        "config: 16448 backends are more than the maps hold; write at most 16384, or backends = 16448 in [limits]"
    );
}

#[test]
fn limits() {
    for (line, most) in [("services = 32", 1_000_000), ("backends = 64", 4_000_000), ("flows = 2048", 16_000_000)] {
        let (key, _) = line.split_once(" = ").unwrap();
        let least = if key == "flows" { 1_024 } else { 16 };
        let at = FULL.lines().position(|other| other == line).unwrap() + 1;
        for value in [0, least - 1, most + 1] {
            let expected = format!("config:{at}: limits: {key} {value} is out of range; write {least} to {most}");
            assert!(errors(&FULL.replace(line, &format!("{key} = {value}"))).contains(&expected), "{expected}");
        }
        intent(&FULL.replace(line, &format!("{key} = {most}"))).unwrap();
    }
}

#[test]
fn tracking() {
    for (line, least, most) in [
        ("adopt_seconds = 60", 1, 86_400),
        ("tcp_idle_seconds = 600", 60, 604_800),
        ("udp_idle_seconds = 30", 10, 86_400),
        ("drain_seconds = 3600", 1, 604_800),
    ] {
        let (key, _) = line.split_once(" = ").unwrap();
        let at = FULL.lines().position(|other| other == line).unwrap() + 1;
        for value in [least - 1, most + 1] {
            let expected = format!("config:{at}: tracking: {key} {value} is out of range; write {least} to {most}");
            says(line, &format!("{key} = {value}"), &expected);
        }
        for value in [least, most] {
            intent(&FULL.replace(line, &format!("{key} = {value}"))).unwrap();
        }
    }
}

#[test]
fn more_slots_than_there_are() {
    let mut services = String::from("interfaces = [\"lo\"]\nsecret = \"0123456789abcdef\"\n");
    for number in 1..=515 {
        let _ = write!(
            services,
            "[[service]]\nname = \"s{number}\"\naddress = \"2001:db8:1::{number:x}\"\nport = 80\nmode = \"dsr\"\nslots = 65537\n\
             [[service.backend]]\naddress = \"fd00::1\"\n"
        );
    }
    // 516 chunks of 65,536 slots, less room for the next version of one table.
    let expected =
        "config: all slot tables together have 33751555 slots; write smaller `slots`, at most 33751039 in all";
    assert_eq!(errors(&services), expected);
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
config:54: dns: listen address `192.0.2.` is not an IP address; write one such as 192.0.2.10 or 2001:db8::10";
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
