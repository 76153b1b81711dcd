//! End to end: a client's connections through tunnels to a server that has no tunnel device.

use crate::{Site, count, encapsulator::Encapsulator, says};
use std::net::{IpAddr, SocketAddr};
use tests::{Nginx, curl, curl_many, needs_root};

const REQUESTS: usize = 20;
/// SYN, its acknowledgement's, the request, FIN.
const LEAST_PACKETS: u64 = 4 * REQUESTS as u64;

/// Both services, each through a tunnel over this family.
fn tunnels(site: &Site, over_ipv4: bool) -> [(IpAddr, IpAddr); 2] {
    let backend = site.backend();
    let own: IpAddr = if over_ipv4 { backend.ipv4().into() } else { backend.ipv6().into() };
    site.services().map(|service| (service, own))
}

fn url(service: IpAddr) -> String {
    format!("http://{}/", SocketAddr::new(service, 80))
}

fn served(site: &Site, service: IpAddr) {
    for reply in curl_many(site.lab.client(), &url(service), REQUESTS).unwrap() {
        assert_eq!((reply.status, reply.body.trim()), (Some(200), "backend-0"), "{service}: {reply:?}");
    }
}

/// What every mode of attaching has to do.
fn takes_connections_out(generic: bool) {
    let site = Site::up();
    let _server = Nginx::start(site.backend(), &[80]).unwrap();
    let mode = if generic { &["--generic"][..] } else { &[] };
    says(site.decap(&[&["attach", "eth0"], mode].concat()), 0, "attached to eth0");
    let status = site.status();
    assert_eq!(status["state"], if generic { "generic" } else { "native" });
    let [own4, own6] = [site.backend().ipv4().to_string(), site.backend().ipv6().to_string()];
    assert_eq!(status["addresses"], serde_json::json!([own4, own6]));

    for (over_ipv4, reasons) in [(true, ["ipv4_in_ipv4", "ipv6_in_ipv4"]), (false, ["ipv4_in_ipv6", "ipv6_in_ipv6"])] {
        let _encapsulator = Encapsulator::start(site.lab.client(), &tunnels(&site, over_ipv4));
        for (service, why) in site.services().into_iter().zip(reasons) {
            assert_eq!(count(&site.status(), why), 0);
            served(&site, service);
            let status = site.status();
            assert!(count(&status, why) >= LEAST_PACKETS, "{why}: {status:#}");
        }
    }
    let status = site.status();
    for why in ["truncated", "inner_length", "inner_version", "other_destination", "inconsistent"] {
        assert_eq!(count(&status, why), 0, "{status:#}");
    }
}

#[test]
fn connections_leave_their_tunnels_in_the_driver() {
    if needs_root("connections_leave_their_tunnels_in_the_driver") {
        takes_connections_out(false);
    }
}

#[test]
fn connections_leave_their_tunnels_in_generic_mode() {
    if needs_root("connections_leave_their_tunnels_in_generic_mode") {
        takes_connections_out(true);
    }
}

#[test]
fn other_settings_replace_the_first_without_a_gap() {
    if !needs_root("other_settings_replace_the_first_without_a_gap") {
        return;
    }
    let site = Site::up();
    let _server = Nginx::start(site.backend(), &[80]).unwrap();
    let [service, _] = site.services();
    let _encapsulator = Encapsulator::start(site.lab.client(), &tunnels(&site, true));
    let refused = || assert_eq!(curl(site.lab.client(), &url(service)).unwrap().status, None);

    let client = site.lab.client().ipv4().to_string();
    says(site.decap(&["attach", "eth0", "--source", &client, "--source", "fd77::/64"]), 0, "attached to eth0");
    served(&site, service);
    let first = site.program("eth0").unwrap();
    let status = site.status();
    assert_eq!(status["sources"], serde_json::json!([format!("{client}/32"), "fd77::/64"]));

    // The balancer's prefix alone: packets from elsewhere are left to the stack, which has no use for them.
    says(site.decap(&["attach", "eth0", "--source", "10.77.0.0/29"]), 0, "if they are from 10.77.0.0/29");
    let second = site.program("eth0").unwrap();
    assert_ne!(first, second);
    refused();
    let status = site.status();
    assert!(count(&status, "other_source") > 0 && count(&status, "ipv4_in_ipv4") == 0, "{status:#}");

    says(site.decap(&["attach", "eth0", "--address", "10.77.0.99"]), 0, "packets to 10.77.0.99 leave");
    refused();
    assert!(count(&site.status(), "other_destination") > 0);

    says(site.decap(&["attach", "eth0"]), 0, "attached to eth0");
    served(&site, service);

    says(site.decap(&["detach", "eth0"]), 0, "detached from eth0");
    assert_eq!(site.program("eth0"), None);
    refused();
}
