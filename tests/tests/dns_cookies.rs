//! DNS cookies beside another server with the same secret, as behind one address of many servers (RFC 9018).
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use std::net::IpAddr;
use support::{
    name,
    names::{DnsSite, addresses, wait_for_answer},
};
use tests::{
    Agent, Knot, kdig, needs_program, needs_root,
    questions::{Asker, Question},
};

const NAME: &str = "example.com";
const SECRET: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";
/// In the header; the rest of BADCOOKIE (23) is in the OPT record.
const BADCOOKIE: u16 = 23 & 0xf;

fn site(secrets: &str) -> DnsSite {
    DnsSite::up_with(1, secrets, |_| name(NAME, &addresses(1, 1), ""))
}

/// Knot's addresses, beside those of the site.
fn knot_at(site: &DnsSite) -> [IpAddr; 2] {
    let host = site.lab.backends().first().unwrap();
    [host.ipv4().into(), host.ipv6().into()]
}

fn question() -> Question {
    Question::new(NAME, Question::A)
}

fn cookie_of(asker: &Asker, client: &[u8; 8]) -> Vec<u8> {
    let cookie = asker.ask(&question().cookie(client)).unwrap().cookie;
    assert_eq!((cookie.len(), cookie.get(..8)), (24, Some(&client[..])));
    cookie
}

/// The server gives this cookie back, although one that it made now would be another.
fn is_accepted(asker: &Asker, cookie: &[u8]) -> bool {
    let client: &[u8; 8] = cookie.get(..8).unwrap().try_into().unwrap();
    wait_for_answer("a second has passed", || cookie_of(asker, client).get(12..16) != cookie.get(12..16));
    let response = asker.ask(&question().cookie(cookie)).unwrap();
    assert_eq!((response.code(), response.addresses.len()), (0, 1));
    response.cookie == cookie
}

#[test]
fn cookies_of_kernel_agent_and_knot_are_one_anothers() {
    const TEST: &str = "cookies_of_kernel_agent_and_knot_are_one_anothers";
    if !needs_root(TEST) || !needs_program(TEST, "knotd") || !needs_program(TEST, "kdig") {
        return;
    }
    let site = site(&format!("cookie_secret = \"{SECRET}\""));
    let knot = Knot::start(site.lab.backends().first().unwrap(), NAME, SECRET).unwrap();
    for by_kernel in [true, false] {
        if !by_kernel {
            site.agent.lb(["detach"]).unwrap();
        }
        for (server, knot_at) in site.servers.into_iter().zip(knot_at(&site)) {
            let (ours, knots) = (site.asker(server), Asker::open(site.client(), None, knot_at).unwrap());
            let before = site.answered();
            let cookie = cookie_of(&ours, b"client 1");
            let [kernel, agent] = site.answered();
            assert_eq!([kernel - before[0], agent - before[1]], if by_kernel { [1, 0] } else { [0, 1] });

            // Ours at Knot, which refuses what it does not know.
            let mut forged = cookie.clone();
            *forged.last_mut().unwrap() ^= 1;
            assert_eq!(knots.ask(&question().cookie(&forged)).unwrap().code(), BADCOOKIE, "{}", knot.log());
            let response = knots.ask(&question().cookie(&cookie)).unwrap();
            assert_eq!((response.code(), response.addresses.len()), (0, 1), "{response:?} {}", knot.log());
            let digits: String = cookie.iter().map(|byte| format!("{byte:02x}")).collect();
            let option = format!("+cookie={digits}");
            for server in [server, knot_at] {
                let answer = kdig(site.client(), server, NAME, "A", &[&option, "+nobadcookie"]).unwrap();
                assert_eq!((answer.status.as_str(), answer.answers.len()), ("NOERROR", 1), "{}", answer.text);
            }

            // Knot's here, given back as it is.
            let cookie = cookie_of(&knots, b"client 2");
            assert!(is_accepted(&ours, &cookie));
            let mut forged = cookie;
            *forged.last_mut().unwrap() ^= 1;
            assert!(!is_accepted(&ours, &forged));
        }
    }
}

#[test]
fn cookies_of_the_secret_before_are_accepted_and_replaced() {
    if !needs_root("cookies_of_the_secret_before_are_accepted_and_replaced") {
        return;
    }
    // One answer, and then no more for a long time, but for who has a cookie.
    let limit = "\n[dns.limit]\nresponses_per_second = 1\nburst = 1\nslip = 0\n";
    let first = site(&format!("cookie_secret = \"{SECRET}\"{limit}"));
    let askers = first.servers.map(|server| first.asker(server));
    let cookies = askers.each_ref().map(|asker| cookie_of(asker, b"client 1"));
    first.agent.terminate().unwrap();
    let renewed = "cookie_secret = \"445536bcd2513298075a5d379663c962\"\ncookie_secret_before = ";
    let config = first.config.replace("cookie_secret = ", renewed);
    let _agent = Agent::start(first.lab.balancer(), &config).unwrap();
    for (asker, cookie) in askers.iter().zip(&cookies) {
        let mut last = cookie.clone();
        for _ in 0..50 {
            let response = asker.ask(&question().cookie(cookie)).unwrap();
            assert_eq!(response.addresses.len(), 1);
            last = response.cookie;
        }
        assert_ne!(last, *cookie, "a cookie of the old secret is replaced");
        let response = asker.ask(&question().cookie(&last)).unwrap();
        assert_eq!(response.cookie, last, "one of the new secret is kept");
    }
}
