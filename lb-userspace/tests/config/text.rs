//! What is no TOML, or no config in TOML.

use super::{errors, says};

#[test]
fn what_is_no_toml() {
    says(
        "attach = \"generic\"",
        "attach = generic",
        "config:3: not TOML: string values must be quoted, expected literal string",
    );
    says("[check.own]", "[check.own", "config:16: not TOML: unclosed table, expected `]`");
    says("[check.own]", "[check.web]", "config:16: not TOML: duplicate key");
}

#[test]
fn unknown_keys() {
    says(
        "attach = \"generic\"",
        "attack = \"generic\"",
        "config:3: unknown key `attack`; the keys here are `interfaces`, `attach`, `secret`, `secret_file`, `socket`, `pins`, \
         `state`, `api`, `check`, `service`, `dns`, `tunnel`, `tracking`, `limits`, `resolver`",
    );
    says(
        "weight = 10",
        "wait = 10",
        "config:32: unknown key `wait`; the keys here are `address`, `port`, `weight`, `state`, \
         `drain_seconds`, `backup`, `host`, `srv`",
    );
}

#[test]
fn values_of_another_type() {
    says("slots = 1009", "slots = \"1009\"", "config:25: string \"1009\" where a whole number belongs");
    says("slots = 1009", "slots = 10.5", "config:25: floating point `10.5` where a whole number belongs");
    says("port = 80", "port = 80.5", "config:22: floating point `80.5` where a port number or \"any\" belongs");
    says("echo = false", "echo = \"no\"", "config:74: string \"no\" where true or false belongs");
    says("name = \"web\"", "name = 7", "config:20: integer `7` where a string in quotes belongs");
    says(
        "interfaces = [\"eth0\", \"eth1\"]",
        "interfaces = \"eth0\"",
        "config:2: string \"eth0\" where a list in brackets, [...] or [[...]], belongs",
    );
    says("[check.own]", "[[check.own]]", "config:16: a list where a table belongs");
    says("[dns]", "[[dns]]", "config:53: a list where a table belongs");
    assert_eq!(errors("[service]"), "config:1: a table where a list in brackets, [...] or [[...]], belongs");
    assert_eq!(errors("secret = 7"), "config:1: another value where a string in quotes belongs");
}
