//! What is wrong with DNS.

use super::{FULL, intent, says};

#[test]
fn where_questions_are_answered() {
    let line = "listen = [\"192.0.2.53\", \"2001:db8::53\"]";
    says(
        line,
        "",
        "config:53: dns: no address to answer at; write listen = [\"192.0.2.53\"] with addresses of this machine",
    );
    says(line, "listen = [\"::1\",\n\"0:0::1\"]", "config:55: dns: listen address ::1 is there twice; write it once");
    says(
        line,
        "listen = [\"0.0.0.0\"]",
        "config:54: dns: listen address 0.0.0.0 is the unspecified address; write the address of one machine",
    );
    says("port = 5353", "port = 0", "config:55: dns: port 0 is not a port; write 1 to 65535");
}

#[test]
fn names() {
    let label = "a".repeat(64);
    let long = ["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(62)].join(".");
    for (name, problem) in [
        ("", "the name is empty; write one such as www.example.com".to_owned()),
        (".", "the name is empty; write one such as www.example.com".into()),
        ("*.example", "wildcards are not supported; write each name".into()),
        (
            "a..example",
            "an empty label, two dots in a row or one at the start; write names such as www.example.com".into(),
        ),
        (
            ".example",
            "an empty label, two dots in a row or one at the start; write names such as www.example.com".into(),
        ),
        (
            "a.example..",
            "an empty label, two dots in a row or one at the start; write names such as www.example.com".into(),
        ),
        (
            "a b.example",
            "` ` cannot be in a name; write letters, digits, `-` and `_`, and international names as xn--...".into(),
        ),
        (
            "bücher.example",
            "`ü` cannot be in a name; write letters, digits, `-` and `_`, and international names as xn--...".into(),
        ),
        (&label, format!("label `{label}` has 64 bytes, 63 are the most; write a shorter one")),
        (&long, "the name has 256 bytes on the wire, 255 are the most; write a shorter one".into()),
    ] {
        says(
            "name = \"_srv.x-1.example\"",
            &format!("name = \"{name}\""),
            &format!("config:64: name `{name}`: {problem}"),
        );
    }
    let longest = &long[..long.len() - 1];
    let intent = intent(&FULL.replace("_srv.x-1.example", longest)).unwrap();
    assert_eq!(intent.names()[1].wire.len(), 255);
}

#[test]
fn a_missing_name() {
    says("name = \"_srv.x-1.example\"", "", "config:63: dns: no `name`; write name = \"www.example.com\"");
}

#[test]
fn one_name_twice() {
    says(
        "name = \"_srv.x-1.example\"",
        "name = \"www.example.COM\"",
        "config:64: name `www.example.COM`: the name is there twice, first at line 58; write it once, with all its addresses",
    );
}

#[test]
fn times_to_live() {
    for seconds in ["-1", "86401"] {
        let expected =
            format!("config:59: name `WWW.Example.com.`: ttl_seconds {seconds} is out of range; write 0 to 86400");
        says("ttl_seconds = 5", &format!("ttl_seconds = {seconds}"), &expected);
    }
}

#[test]
fn addresses() {
    let line = "addresses = [\"10.0.0.13\"]";
    says(
        line,
        "",
        "config:63: name `_srv.x-1.example`: no record; write addresses = [\"192.0.2.10\"], or `cname`, `mx`, `txt` or `srv`",
    );
    says(
        line,
        "addresses = [\"fd00::1\",\n\"fd00:0::1\"]",
        "config:66: name `_srv.x-1.example`: address fd00::1 is there twice; write it once",
    );
    says(
        line,
        "addresses = [\"here\"]",
        "config:65: name `_srv.x-1.example`: address `here` is not an IP address; write one such as 192.0.2.10 or 2001:db8::10",
    );
    let addresses: Vec<_> =
        (1..=17).flat_map(|number| [format!("10.0.0.{number}"), format!("fd00::{number}")]).collect();
    says(
        line,
        &format!("addresses = {addresses:?}"),
        "config:63: name `_srv.x-1.example`: 17 IPv4 addresses are more than one answer takes; write at most 16\n\
         config:63: name `_srv.x-1.example`: 17 IPv6 addresses are more than one answer takes; write at most 16",
    );
    let addresses = &addresses[..32];
    intent(&FULL.replace(line, &format!("addresses = {addresses:?}"))).unwrap();
}

#[test]
fn an_unknown_check() {
    says(
        "addresses = [\"10.0.0.13\"]",
        "addresses = [\"10.0.0.13\"]\ncheck = \"wep\"",
        "config:66: name `_srv.x-1.example`: there is no check `wep`; those that are there are `own`, `web`",
    );
}
