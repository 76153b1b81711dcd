//! What is wrong with health checks.

use super::{FULL, errors, says};

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
    says("kind = \"tcp\"", "kind = \"http\"", "config:9: check `web`: kind `http` is unknown; write \"tcp\"");
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
