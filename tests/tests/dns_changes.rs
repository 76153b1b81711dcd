//! Names while things change: servers die, the agent is killed, stopped and started, its lease ends; under questions all the time. How many
//! each client asks while a server is dead is 5,000, or what `LB_DNS_QUESTIONS` says.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use std::{
    collections::BTreeSet,
    env,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};
use support::{
    TURN, backend_of, count, name,
    names::{By, DnsSite, addresses, found, of_kind, of_servers, wait_for_answer},
    service, wait_for,
};
use tests::{
    Agent, Nginx, needs_root,
    questions::{Asked, Asking, Question},
    wait_until,
};

const NAME: &str = "www.example.com";

/// Questions of both types over both families, which go on.
fn ask_everything(site: &DnsSite) -> Vec<(Asking, u16)> {
    let kinds = [Question::A, Question::AAAA];
    let all = site.servers.into_iter().flat_map(|server| kinds.map(|kind| (server, kind)));
    let start = |(server, kind)| (Asking::start(site.asker(server), move |_| Question::new(NAME, kind)), kind);
    all.map(start).collect()
}

/// Waits until each of them has had so many answers more.
fn wait_for_more(askings: &[(Asking, u16)], more: u64) {
    let goals: Vec<u64> = askings.iter().map(|(asking, _)| asking.answered() + more).collect();
    // A slow machine answers some thousands in a second.
    wait_until(TURN + Duration::from_millis(more), "questions were answered", || {
        askings.iter().zip(&goals).all(|((asking, _), goal)| asking.answered() >= *goal).then_some(())
    })
    .unwrap();
}

/// Of the questions that were sent from one moment to another.
fn between(asked: &[Asked], from: Instant, to: Instant) -> impl Iterator<Item = &Asked> {
    asked.iter().filter(move |asked| (from..to).contains(&asked.at))
}

#[test]
fn a_dead_server_is_in_no_answer_once_the_agent_has_said_so() {
    if !needs_root("a_dead_server_is_in_no_answer_once_the_agent_has_said_so") {
        return;
    }
    let each: u64 = env::var("LB_DNS_QUESTIONS").map_or(5_000, |count| count.parse().unwrap());
    let site = DnsSite::up(3, |lab| {
        let backends: Vec<_> = lab.backends().iter().map(|host| (SocketAddr::new(host.ipv4().into(), 80), 1)).collect();
        let backends6: Vec<_> =
            lab.backends().iter().map(|host| (SocketAddr::new(host.ipv6().into(), 80), 1)).collect();
        let [ipv4, ipv6] = support::service_addresses(lab);
        // A service with the same check tells what the agent knows of a server.
        name(NAME, &of_servers(lab), "check = \"web\"")
            + &service("web4", "tcp", ipv4, "dsr", &backends)
            + &service("web6", "tcp", ipv6, "dsr", &backends6)
    });
    let mut servers: Vec<_> = site.lab.backends().iter().map(|host| Nginx::start(host, &[80]).unwrap()).collect();
    let wait_for_health = |number: usize, health: &str| {
        let host = &site.lab.backends()[number];
        wait_for(&site.agent, &format!("server {number} is {health}"), |status| {
            let services = support::service_addresses(&site.lab).into_iter();
            services
                .zip([IpAddr::from(host.ipv4()), host.ipv6().into()])
                .all(|(service, backend)| backend_of(status, service, SocketAddr::new(backend, 80))["health"] == health)
        });
    };
    for number in 0..3 {
        wait_for_health(number, "up");
    }
    let before = site.answered();
    let askings = ask_everything(&site);
    let mut dead = Vec::new();
    for number in [1, 0, 2] {
        wait_for_more(&askings, each / 10);
        servers[number].stop().unwrap();
        wait_for_health(number, "down");
        let confirmed = Instant::now();
        wait_for_more(&askings, each);
        let until = Instant::now();
        servers[number].start_again().unwrap();
        wait_for_health(number, "up");
        let back = Instant::now();
        wait_for_more(&askings, each / 10);
        dead.push((number, confirmed, until, back, Instant::now()));
    }
    let (mut questions, mut unanswered) = (0, 0);
    for (asking, kind) in askings {
        let asked = asking.stop().unwrap();
        questions += asked.len() as u64;
        unanswered += asked.iter().filter(|asked| asked.response.is_none()).count() as u64;
        for &(number, confirmed, until, back, end) in &dead {
            let host = &site.lab.backends()[number];
            let address = if kind == Question::A { host.ipv4().into() } else { IpAddr::from(host.ipv6()) };
            let names = |asked: &&Asked| asked.response.iter().any(|one| one.addresses.contains(&address));
            let mut checked = 0;
            for one in between(&asked, confirmed, until) {
                checked += 1;
                assert!(!names(&one), "server {number} is in {one:?}");
                assert!(one.response.iter().all(|response| response.addresses.len() == 2), "{one:?}");
            }
            assert!(checked as u64 >= each, "{checked}");
            assert!(between(&asked, back, end).filter(|one| one.response.is_some()).all(|one| names(&one)));
        }
    }
    let status = site.agent.status().unwrap();
    let [kernel, agent] = support::names::answered(&status);
    println!(
        "{questions} questions, {} answered by the kernel, {} by the agent",
        kernel - before[0],
        agent - before[1]
    );
    // What is dropped is what was being replaced at that very moment.
    assert!(unanswered <= count(&status, "packets", "dns_replaced"), "{unanswered} were not answered: {status:#}");
}

#[test]
fn without_any_server_the_answer_is_neither_old_nor_empty() {
    if !needs_root("without_any_server_the_answer_is_neither_old_nor_empty") {
        return;
    }
    // The last address is nobody's, and never up.
    let site = DnsSite::up(2, |lab| {
        name(NAME, &[of_servers(lab), vec![lab.service_ipv4(9).into()]].concat(), "check = \"web\"")
    });
    let all = of_servers(&site.lab);
    let mut servers: Vec<_> = site.lab.backends().iter().map(|host| Nginx::start(host, &[80]).unwrap()).collect();
    let gives = |code: &str, expected: &[IpAddr]| {
        for kind in ["A", "AAAA"] {
            let wanted = of_kind(expected, kind);
            for server in site.servers {
                wait_for_answer(&format!("{kind} gives {code} {expected:?}"), || {
                    let answer = site.ask(server, NAME, kind, &[]);
                    answer.status == code && found(&answer, kind) == wanted
                });
                // What has turned stays so, and it is the kernel that says it.
                for (more, who) in [("+notcp", By::Kernel), ("+tcp", By::Agent)] {
                    let (answer, by) = site.ask_whom(server, NAME, kind, &[more]);
                    assert_eq!((answer.status.as_str(), found(&answer, kind), by), (code, wanted.clone(), who));
                }
            }
        }
    };
    gives("NOERROR", &all);
    servers[1].stop().unwrap();
    gives("NOERROR", &all[..2]);
    servers[0].stop().unwrap();
    gives("SERVFAIL", &[]);
    for server in &mut servers {
        server.start_again().unwrap();
    }
    gives("NOERROR", &all);
}

#[test]
fn answers_outlive_the_agent_until_its_lease_ends() {
    if !needs_root("answers_outlive_the_agent_until_its_lease_ends") {
        return;
    }
    for lapse in ["pass", "servfail"] {
        let all = addresses(3, 0);
        let site = DnsSite::up_with(0, &format!("lease_seconds = 6\nlapse = \"{lapse}\""), |_| name(NAME, &all, ""));
        let question = Question::new(NAME, Question::A);
        let askers = site.servers.map(|server| site.asker(server));
        site.agent.kill().unwrap();
        for asker in &askers {
            // Far less than the lease.
            for response in asker.ask_all(500, 1, |_| question.clone()).unwrap() {
                assert_eq!(response.unwrap().addresses.len(), 3);
            }
        }
        wait_for_answer("the lease ends", || match askers[0].ask(&question) {
            // Nobody listens any more, which the kernel says by an ICMP error.
            Err(_) => lapse == "pass",
            Ok(response) => response.code() == 2 && lapse == "servfail",
        });
        for asker in &askers {
            let response = asker.ask(&question);
            match lapse {
                "pass" => assert!(response.is_err(), "{response:?}"),
                _ => assert_eq!((response.as_ref().unwrap().code(), response.unwrap().addresses.len()), (2, 0)),
            }
        }
        let agent = Agent::start(site.lab.balancer(), &site.config).unwrap();
        let status = agent.status().unwrap();
        let why = if lapse == "pass" { "dns_lapsed" } else { "dns_lapse_refused" };
        assert!(count(&status, "packets", why) >= 3, "{status:#}");
        for server in site.servers {
            assert_eq!(site.asker(server).ask(&question).unwrap().addresses.len(), 3);
        }
        let after = agent.status().unwrap();
        assert_eq!(count(&after, "dns", "answered_by_kernel"), count(&status, "dns", "answered_by_kernel") + 2);
    }
}

#[test]
fn no_question_is_lost_while_the_agent_is_away() {
    if !needs_root("no_question_is_lost_while_the_agent_is_away") {
        return;
    }
    const SOME: u64 = 500;
    let site = DnsSite::up(2, |lab| name(NAME, &of_servers(lab), "check = \"web\""));
    let _servers: Vec<_> = site.lab.backends().iter().map(|host| Nginx::start(host, &[80]).unwrap()).collect();
    let all = of_servers(&site.lab);
    for kind in ["A", "AAAA"] {
        wait_for_answer("all are up", || {
            found(&site.ask(site.servers[0], NAME, kind, &[]), kind) == of_kind(&all, kind)
        });
    }
    let askings = ask_everything(&site);
    wait_for_more(&askings, SOME);
    site.agent.kill().unwrap();
    wait_for_more(&askings, SOME);
    let agent = Agent::start(site.lab.balancer(), &site.config).unwrap();
    wait_for_more(&askings, SOME);
    agent.terminate().unwrap();
    wait_for_more(&askings, SOME);
    let agent = Agent::start(site.lab.balancer(), &site.config).unwrap();
    wait_for_more(&askings, SOME);
    agent.reload(&(site.config.clone() + &name("new.example.com", &all, ""))).unwrap();
    wait_for_answer("the new name is answered", || {
        site.ask(site.servers[0], "new.example.com", "A", &[]).status == "NOERROR"
    });
    wait_for_more(&askings, SOME);
    for (asking, kind) in askings {
        let wanted: BTreeSet<_> = of_kind(&all, if kind == Question::A { "A" } else { "AAAA" });
        for asked in asking.stop().unwrap() {
            let response = asked.response.unwrap();
            assert_eq!(response.addresses.into_iter().collect::<BTreeSet<_>>(), wanted);
        }
    }
}

#[test]
fn a_reload_is_in_all_answers_once_it_is_in_one() {
    if !needs_root("a_reload_is_in_all_answers_once_it_is_in_one") {
        return;
    }
    let site = DnsSite::up(0, |_| String::new());
    let with = |names: &[&str]| -> String {
        names.iter().fold(site.config.clone(), |config, one| config + &name(one, &addresses(2, 2), ""))
    };
    let gives = |name: &str, code: &str| {
        wait_for_answer(&format!("{name} gives {code}"), || {
            site.ask(site.servers[0], name, "A", &["+notcp"]).status == code
        });
        for server in site.servers {
            for more in ["+notcp", "+tcp"] {
                assert_eq!(site.ask(server, name, "A", &[more]).status, code);
            }
        }
    };
    for _ in 0..3 {
        site.agent.reload(&with(&["one.example.com", "two.example.com"])).unwrap();
        gives("one.example.com", "NOERROR");
        gives("two.example.com", "NOERROR");
        site.agent.reload(&with(&["two.example.com"])).unwrap();
        gives("one.example.com", "REFUSED");
        gives("two.example.com", "NOERROR");
    }
    assert_eq!(count(&site.agent.status().unwrap(), "dns", "answers_in_kernel"), 2);
}
