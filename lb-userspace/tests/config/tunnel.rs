//! What is wrong with tunnels.

use super::{FULL, errors, intent, says};

const IPV4: &str = "source_ipv4 = \"10.99.0.0/16\"";
const IPV6: &str = "source_ipv6 = \"fd99::/64\"";

#[test]
fn a_service_without_sources() {
    let without = FULL.replace(&format!("[tunnel]\n{IPV4}\n{IPV6}\n"), "");
    assert_eq!(
        errors(&without),
        "config:72: service `all`: mode \"tunnel\" needs addresses for outer headers to come from; write [tunnel] with source_ipv4 = \
         \"10.99.0.0/16\""
    );
    says(
        IPV4,
        "",
        "config:78: service `all`: tunnel backend 10.0.0.31 needs IPv4 addresses for outer headers to come from; write source_ipv4 = \
         \"10.99.0.0/16\" in [tunnel]",
    );
    says(
        IPV6,
        "",
        "config:81: service `all`: tunnel backend fd00::32 needs IPv6 addresses for outer headers to come from; write source_ipv6 = \
         \"fd99::/64\" in [tunnel]",
    );
    // Who has no such backend needs none.
    intent(&FULL.replace(IPV6, "").replace("fd00::32", "10.0.0.32")).unwrap();
    intent(&without.replace("mode = \"tunnel\"", "mode = \"dsr\"").replace("fd00::32", "10.0.0.32")).unwrap();
}

#[test]
fn networks() {
    for text in ["10.99.0.0", "10.99.0/16", "10.99.0.0/x", "fd99::/64", "10.99.0.0/-1", ""] {
        let expected =
            format!("config:84: tunnel: source_ipv4 `{text}` is not a network; write one such as 10.99.0.0/16");
        says(IPV4, &format!("source_ipv4 = \"{text}\""), &expected);
    }
    says(
        IPV6,
        "source_ipv6 = \"10.99.0.0/16\"",
        "config:85: tunnel: source_ipv6 `10.99.0.0/16` is not a network; write one such as fd99::/64",
    );
    for prefix in [0, 7, 33] {
        let expected = format!("config:84: tunnel: source_ipv4 has a prefix of {prefix} bits; write /8 to /32");
        says(IPV4, &format!("source_ipv4 = \"10.0.0.0/{prefix}\""), &expected);
    }
    for prefix in [0, 7, 129] {
        let expected = format!("config:85: tunnel: source_ipv6 has a prefix of {prefix} bits; write /8 to /128");
        says(IPV6, &format!("source_ipv6 = \"fd00::/{prefix}\""), &expected);
    }
    says(
        IPV4,
        "source_ipv4 = \"10.99.1.0/16\"",
        "config:84: tunnel: source_ipv4 `10.99.1.0/16` has bits behind its prefix; write 10.99.0.0/16",
    );
    says(
        IPV6,
        "source_ipv6 = \"fd99::1/64\"",
        "config:85: tunnel: source_ipv6 `fd99::1/64` has bits behind its prefix; write fd99::/64",
    );
    says(
        IPV4,
        "source_ipv4 = \"127.0.0.0/8\"",
        "config:84: tunnel: source_ipv4 127.0.0.0 is a loopback address; write a network of your own, such as 10.99.0.0/16",
    );
    says(
        IPV6,
        "source_ipv6 = \"fe80::/64\"",
        "config:85: tunnel: source_ipv6 fe80:: is a link-local address; write a network of your own, such as fd99::/64",
    );
    for right in ["10.0.0.0/8", "10.99.0.1/32"] {
        intent(&FULL.replace("10.99.0.0/16", right)).unwrap();
    }
    for right in ["fd00::/8", "fd99::1/128"] {
        intent(&FULL.replace("fd99::/64", right)).unwrap();
    }
}
