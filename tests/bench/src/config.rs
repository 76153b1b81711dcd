//! The config that the tables of the path's cases are made from, as text: nothing is measured that an operator could not have.

use std::fmt::Write as _;

/// Slots of each table: as many as there can be.
pub const SLOTS: u32 = 65_537;
/// Backends of each service that are in its table.
pub const BACKENDS: u8 = 8;
/// The name that questions are asked for.
pub const NAME: &str = "www.example.com";
/// Where they are asked.
pub const DNS: &str = "192.0.2.53";
/// The service all of whose slots are changed: it has twice as many backends, of which one half takes over from the other.
pub const CHANGED: &str = "changed";

/// A service of the config.
struct Service {
    name: &'static str,
    address: &'static str,
    port: u16,
    mode: &'static str,
    /// Before the backends' numbers.
    backends: &'static str,
}

/// The backends' addresses begin so.
const NEAR4: &str = "10.78.9.";
const NEAR6: &str = "fd78:9::";
/// Those of the backends that are behind another interface.
pub const FAR4: &str = "10.78.8.";

const fn service(
    name: &'static str,
    address: &'static str,
    port: u16,
    mode: &'static str,
    backends: &'static str,
) -> Service {
    Service { name, address, port, mode, backends }
}

/// At port 443 over UDP, else over TCP.
const SERVICES: [Service; 12] = [
    service("dsr4", "192.0.2.10", 80, "dsr", NEAR4),
    service("dsr6", "2001:db8::10", 80, "dsr", NEAR6),
    service("nat4", "192.0.2.11", 80, "nat", NEAR4),
    service("nat6", "2001:db8::11", 80, "nat", NEAR6),
    service("tunnel44", "192.0.2.20", 80, "tunnel", NEAR4),
    service("tunnel44-udp", "192.0.2.20", 443, "tunnel", NEAR4),
    service("tunnel46", "192.0.2.21", 80, "tunnel", NEAR6),
    service("tunnel66", "2001:db8::20", 80, "tunnel", NEAR6),
    service("tunnel66-udp", "2001:db8::20", 443, "tunnel", NEAR6),
    service("tunnel64", "2001:db8::21", 80, "tunnel", NEAR4),
    service("redirect", "192.0.2.22", 80, "tunnel", FAR4),
    service(CHANGED, "192.0.2.30", 80, "tunnel", NEAR4),
];

/// The text.
pub fn text() -> String {
    let mut text = format!(
        "interfaces = [\"eth0\", \"eth1\"]\nsecret = \"a secret that nobody keeps\"\n[tunnel]\n\
         source_ipv4 = \"10.99.0.0/16\"\nsource_ipv6 = \"fd99::/64\"\n[check.none]\nport = 9\n\
         [dns]\nlisten = [\"{DNS}\"]\nlease_seconds = 0\n[[dns.name]]\nname = \"{NAME}\"\n\
         addresses = [\"198.51.100.1\", \"198.51.100.2\", \"198.51.100.3\", \"198.51.100.4\"]\n"
    );
    for service in SERVICES {
        service.write(&mut text);
    }
    text
}

impl Service {
    fn write(&self, text: &mut String) {
        let Self { name, address, port, mode, backends } = self;
        let protocol = if *port == 443 { "udp" } else { "tcp" };
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "[[service]]\nname = \"{name}\"\naddress = \"{address}\"\nport = {port}\nprotocol = \"{protocol}\"\n\
             mode = \"{mode}\"\ncheck = \"none\"\nslots = {SLOTS}\n"
        );
        let count = if *name == CHANGED { 2 * BACKENDS } else { BACKENDS };
        for number in 1..=count {
            let _ = writeln!(text, "[[service.backend]]\naddress = \"{backends}{number}\"");
            if *mode == "nat" {
                text.push_str("port = 8080\n");
            }
        }
    }
}
