//! What is said of [api], and of what backends do.

use super::{errors, intent};
use std::path::Path;

const HEAD: &str = "interfaces = [\"lo\"]\nsecret = \"0123456789abcdef\"\n[dns]\nlisten = [\"192.0.2.53\"]\n";

fn api(text: &str) -> String {
    format!("{HEAD}[api]\n{text}\n")
}

#[test]
fn where_the_api_is_answered() {
    let both = "listen = [\"127.0.0.1:8080\", \"[::1]:8080\"]\ntoken_file = \"token\"";
    let intent = intent(&api(both)).unwrap();
    let known = intent.api().unwrap();
    assert_eq!(known.listen, ["127.0.0.1:8080".parse().unwrap(), "[::1]:8080".parse().unwrap()]);
    assert_eq!((known.token.as_path(), &known.tls), (Path::new("token"), &None));
    let tls = "listen = [\"192.0.2.1:8443\"]\ntoken_file = \"/etc/token\"\ncertificate = \"c.pem\"\nkey = \"k.pem\"";
    let known = super::intent(&api(tls)).unwrap().api().unwrap().clone();
    assert_eq!(known.tls, Some(("c.pem".into(), "k.pem".into())));
    assert!(super::intent(HEAD).unwrap().api().is_none());
}

#[test]
fn what_is_wrong_with_it() {
    let says = |text: &str, expected: &str| assert_eq!(errors(&api(text)), expected);
    says(
        "",
        "config:5: api: no `listen`; write listen = [\"127.0.0.1:8080\"]\n\
         config:5: api: no `token_file`; write token_file = \"...\", which `openssl rand -hex 32` makes",
    );
    let token = "token_file = \"token\"\n";
    says(
        &format!("{token}listen = [\"127.0.0.1\"]"),
        "config:7: api: `127.0.0.1` is not an address with a port; write one such as 127.0.0.1:8080 or [::1]:8080",
    );
    says(
        &format!("{token}listen = [\"127.0.0.1:80\", \"127.0.0.1:80\"]"),
        "config:7: api: 127.0.0.1:80 is there twice; write it once",
    );
    says(
        &format!("{token}listen = [\"192.0.2.1:80\"]"),
        "config:7: api: 192.0.2.1:80 is no loopback address, and who sees the token has it; write `certificate` and `key`",
    );
    says(
        &format!("{token}listen = [\"127.0.0.1:80\"]\nkey = \"k.pem\""),
        "config:8: api: `certificate` and `key` are needed together; write both",
    );
}

#[test]
fn what_is_wrong_with_what_a_backend_does() {
    let service = "interfaces = [\"lo\"]\nsecret = \"0123456789abcdef\"\n[[service]]\nname = \"web\"\naddress = \"192.0.2.1\"\n\
                   port = 80\nmode = \"dsr\"\n[[service.backend]]\naddress = \"10.0.0.1\"\n";
    let says = |text: &str, expected: &str| assert_eq!(errors(&format!("{service}{text}\n")), expected);
    says(
        "state = \"off\"",
        "config:10: service `web`: state `off` is unknown; write \"active\", \"drain\" or \"disabled\"",
    );
    says(
        "drain_seconds = 5",
        "config:10: service `web`: `drain_seconds` is for backends with state = \"drain\"; write that, or leave it out",
    );
    says(
        "state = \"drain\"\ndrain_seconds = 0",
        "config:11: service `web`: drain_seconds 0 is out of range; write 1 to 604800",
    );
    says("state = 1", "config:10: integer `1` where a string in quotes belongs");
    let relative = errors(&format!("state = \"lib\"\n{HEAD}"));
    assert_eq!(relative, "config:1: state `lib` is not an absolute path; begin it with `/`");
}
