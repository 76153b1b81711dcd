//! What names with policies and other records mean, and what is wrong with them.

use super::{errors, intent};
use lb_common::tables::answers::{COOKIES, LEASED, LIMITED, Lapse};
use lb_userspace::model::{
    dns::data::Data,
    intent::{Below, Policy, RateLimit},
};
use std::time::Duration;

const NAMES: &str = include_str!("names.toml");

/// What is said when one line is another.
#[track_caller]
fn says(line: &str, instead: &str, expected: &str) {
    assert!(NAMES.lines().any(|other| other == line), "no line is {line}");
    let lines: Vec<_> = NAMES.lines().map(|other| if other == line { instead } else { other }).collect();
    assert_eq!(errors(&lines.join("\n")), expected);
}

#[test]
fn every_key_has_its_meaning() {
    let intent = intent(NAMES).unwrap();
    let answering = intent.answering();
    assert_eq!((answering.lease, answering.lapse), (Some(Duration::from_secs(10)), Lapse::Fail));
    let limit = RateLimit { responses_per_second: 100, burst: 300, slip: 3, misses_per_second: 50 };
    assert_eq!((answering.limit, answering.prefixes), (Some(limit), [32, 48]));
    // In the order of memory, as RFC 9018 appendix A has its secrets.
    let bytes: Vec<u8> = answering.cookie_secrets.as_flattened().iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(bytes[..4], [0xe5, 0xe9, 0x73, 0xe5]);
    assert_eq!(bytes[16..], (0..16).collect::<Vec<u8>>());
    let settings = answering.settings();
    assert_eq!(settings.features, COOKIES | LIMITED | LEASED | 1 << 32);
    assert_eq!((settings.answer_rate, settings.miss_rate), (100 | 300 << 32, 50 | 100 << 32));
    assert_eq!(settings.slip_and_prefixes, 3 | 32 << 8 | 48 << 16);

    let [weighted, failover, alias] = intent.names() else { panic!("{:?}", intent.names()) };
    assert_eq!((weighted.policy, weighted.minimum_healthy), (Policy::Weighted, 2));
    assert_eq!(weighted.below_minimum, Below::Fallback(vec!["192.0.2.99".parse().unwrap()]));
    let addresses =
        weighted.addresses.iter().map(|one| (one.weight, one.tier, one.target.as_ref().unwrap().address.to_string()));
    assert_eq!(addresses.collect::<Vec<_>>(), [(1, 1, "192.0.2.1:80".into()), (3, 1, "192.0.2.2:81".into())]);
    assert_eq!((failover.policy, &failover.below_minimum), (Policy::Failover, &Below::FailOpen));
    assert_eq!(failover.addresses.iter().map(|one| one.tier).collect::<Vec<_>>(), [1, 2]);
    let name = |label: &str| [&[label.len() as u8], label.as_bytes(), b"\x07example\x03com\0"].concat();
    let data = [Data::mx(10, &name("mail")), Data::txt(&["v=spf1 -all"]), Data::srv(10, 60, 5060, &name("sip"))];
    assert_eq!(failover.data, data);
    assert_eq!(alias.data, [Data::cname(&name("weighted"))]);
    let [domain] = &intent.zone().domains().collect::<Vec<_>>()[..] else { panic!("one domain") };
    assert_eq!((&*domain.wire, domain.negative_ttl_seconds), (&b"\x07example\x03com\0"[..], 5));
    assert_eq!(domain.soa, Data::soa(&name("ns1"), b"\x05admin\x07example\x03net\0", 2_026_112_101, 5));
    assert_eq!(intent.targets().len(), 2);
}

#[test]
fn defaults() {
    let text = NAMES.lines().filter(|line| {
        let keys = [
            "lease",
            "lapse",
            "cookie",
            "contact",
            "negative",
            "serial",
            "burst",
            "slip",
            "misses",
            "responses",
            "ipv",
        ];
        !keys.iter().any(|key| line.starts_with(key))
    });
    let text: Vec<_> = text.collect();
    let read = intent(&text.join("\n")).unwrap();
    let answering = read.answering();
    assert_eq!((answering.lease, answering.lapse), (Some(Duration::from_secs(60)), Lapse::Pass));
    let limit = RateLimit { responses_per_second: 500, burst: 1_000, slip: 2, misses_per_second: 200 };
    assert_eq!((answering.limit, answering.prefixes), (Some(limit), [24, 56]));
    let [current, before] = answering.cookie_secrets;
    assert!(current == before && current != [0, 0]);
    let other = intent(&text.join("\n").replace("0123456789abcdef", "0123456789abcdeg")).unwrap();
    assert_ne!(other.answering().cookie_secrets, answering.cookie_secrets, "they depend on the secret");
    let domain = read.zone().domains().next().unwrap();
    assert_eq!(domain.negative_ttl_seconds, 60);
    assert!(domain.soa.bytes.windows(11).any(|bytes| bytes == b"\x0ahostmaster"));
    let without = intent(&text.join("\n").replace("[dns.limit]", "")).unwrap();
    assert_eq!((without.answering().limit, without.answering().prefixes), (None, [24, 56]));
    let ever = intent(&NAMES.replace("lease_seconds = 10", "lease_seconds = 0")).unwrap().answering();
    assert_eq!((ever.lease, ever.settings().features & LEASED), (None, 0));
}

#[test]
fn what_holds_for_all_questions() {
    says(
        "lease_seconds = 10",
        "lease_seconds = 86401",
        "config:8: dns: lease_seconds 86401 is out of range; write 0 to 86400",
    );
    says(
        "lapse = \"servfail\"",
        "lapse = \"drop\"",
        "config:9: dns: lapse `drop` is unknown; write \"pass\" or \"servfail\"",
    );
    for secret in ["e5e973e5a6b2a43f48e7dc849e37bfc", "+5e973e5a6b2a43f48e7dc849e37bfcf", ""] {
        says(
            "cookie_secret = \"e5e973e5a6b2a43f48e7dc849e37bfcf\"",
            &format!("cookie_secret = \"{secret}\""),
            "config:10: dns: cookie_secret is not 32 hexadecimal digits; write the output of `openssl rand -hex 16`",
        );
    }
    says("burst = 300", "burst = 0", "config:15: dns.limit: burst 0 is out of range; write 1 to 2000000");
    says(
        "ipv6_prefix = 48",
        "ipv6_prefix = 65",
        "config:19: dns.limit: ipv6_prefix 65 is out of range; write 16 to 64",
    );
    says(
        "responses_per_second = 100",
        "responses = 100",
        "config:14: unknown key `responses`; the keys here are `responses_per_second`, `burst`, `slip`, `misses_per_second`, \
         `ipv4_prefix`, `ipv6_prefix`",
    );
    let errors = errors(&NAMES.replace("cookie_secret_before = \"00", "cookie_secret_before = \"0x"));
    assert!(!errors.contains("0x0102"), "secrets are never shown: {errors}");
}

#[test]
fn domains() {
    says("name = \"Example.com\"", "", "config:21: dns: no `name`; write name = \"example.com\"");
    says(
        "primary = \"ns1.example.com\"",
        "",
        "config:21: domain `Example.com`: no `primary`; write primary = \"ns1.example.com\"",
    );
    says(
        "contact = \"admin.example.net\"",
        "contact = \"admin@example.net\"",
        "config:24: domain `Example.com`: `@` cannot be in a name; write letters, digits, `-` and `_`, and international names as xn--...",
    );
    says(
        "serial = 2026112101",
        "[[dns.domain]]\nname = \"example.COM.\"\nprimary = \"a\"",
        "config:27: domain `example.COM.`: the domain is there twice, first at line 22; write it once",
    );
}

#[test]
fn policies() {
    let weighted = "addresses = [\"192.0.2.1\", { address = \"192.0.2.2\", weight = 3, check = \"other\" }]";
    let place = "config:35: name `weighted.example.com`:";
    for (instead, problem) in [
        ("addresses = [{ weight = 3 }]", "no `address`; write address = \"192.0.2.10\""),
        (
            "addresses = [\"192.0.2.1\", { address = \"192.0.2.2\", check = \"x\" }]",
            "there is no check `x`; those that are there are `other`, `web`",
        ),
        (
            "addresses = [\"192.0.2.1\", { address = \"192.0.2.2\", weight = 65536 }]",
            "weight 65536 is out of range; write 0 to 65535",
        ),
        (
            "addresses = [\"192.0.2.1\", { address = \"192.0.2.2\", tier = 2 }]",
            "`tier` means something only with policy = \"failover\"; write that, or leave it out",
        ),
        (
            "addresses = [\"192.0.2.1\", { address = \"192.0.2.1\" }, \"192.0.2.3\"]",
            "address 192.0.2.1 is there twice; write it once",
        ),
    ] {
        says(weighted, instead, &format!("{place} {problem}"));
    }
    says(weighted, "addresses = [1]", "config:35: integer `1` where an address in quotes or a table belongs");
    says(
        weighted,
        "addresses = [{ address = \"192.0.2.1\", weight = 0 }, { address = \"192.0.2.2\", weight = 0 }]",
        "config:28: name `weighted.example.com`: every IPv4 address has weight 0, so none would be answered; write a weight of 1 or more for one",
    );
    let at = |line: u32, problem: &str| format!("config:{line}: name `weighted.example.com`: {problem}");
    says(
        "policy = \"weighted\"",
        "policy = \"shuffle\"",
        &at(35, "`weight` means something only with policy = \"weighted\" or \"sticky\"; write that, or leave it out"),
    );
    says(
        "policy = \"weighted\"",
        "policy = \"random\"",
        &at(
            31,
            "policy `random` is unknown; write \"round-robin\", \"shuffle\", \"weighted\", \"sticky\" or \"failover\"",
        ),
    );
    says(
        "minimum_healthy = 2",
        "minimum_healthy = 3",
        &at(32, "minimum_healthy 3 is more than there are addresses of one family; write at most 2"),
    );
    says(
        "fallback = [\"192.0.2.99\"]",
        "",
        &at(28, "no `fallback`; write fallback = [\"192.0.2.99\"], what is answered below the minimum"),
    );
    says(
        "below_minimum = \"fallback\"",
        "",
        &at(34, "`fallback` means something only with below_minimum = \"fallback\"; write that, or leave it out"),
    );
    says(
        "below_minimum = \"fallback\"",
        "below_minimum = \"refused\"",
        &at(33, "below_minimum `refused` is unknown; write \"servfail\", \"nodata\", \"fail-open\" or \"fallback\""),
    );
}

#[test]
fn other_records() {
    let at = |line: u32, problem: &str| format!("config:{line}: name `failover.example.com`: {problem}");
    says(
        "mx = [\"10 mail.example.com\"]",
        "mx = [\"mail.example.com\"]",
        &at(42, "MX `mail.example.com` can't be read; write one such as `10 mail.example.com`"),
    );
    says(
        "mx = [\"10 mail.example.com\"]",
        "mx = [\"10 mail..com\"]",
        &at(42, "an empty label, two dots in a row or one at the start; write names such as www.example.com"),
    );
    says("txt = [\"v=spf1 -all\"]", "txt = [\"a\", \"a\"]", &at(43, "TXT `a` is there twice; write it once"));
    says(
        "srv = [\"10 60 5060 sip.example.com\"]",
        "srv = [\"10 60 65536 sip.example.com\"]",
        &at(44, "SRV `10 60 65536 sip.example.com` can't be read; write one such as `10 60 5060 sip.example.com`"),
    );
    let texts: Vec<String> = (0..3).map(|number| format!("{number}{}", "x".repeat(30_000))).collect();
    says(
        "txt = [\"v=spf1 -all\"]",
        &format!("txt = {texts:?}"),
        &at(37, "the TXT records have 90393 bytes together, 65225 fit in one answer; write fewer"),
    );
    says(
        "cname = \"weighted.example.com\"",
        "cname = \"weighted.example.com\"\ntxt = [\"x\"]\nmx = [\"1 x\"]",
        "config:48: name `alias.example.com`: a name with `cname` stands for another one and has nothing else; leave out `mx`, `txt`",
    );
    says(
        "cname = \"weighted.example.com\"",
        "cname = \"weighted.example.com\"\npolicy = \"sticky\"\ncheck = \"web\"",
        "config:46: name `alias.example.com`: `check` is about addresses, of which there are none; leave it out\n\
         config:46: name `alias.example.com`: `policy` is about addresses, of which there are none; leave it out",
    );
}
