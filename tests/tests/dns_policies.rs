//! The policies of names as clients of the kernel's answers see them.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    thread,
};
use support::{
    name,
    names::{By, DOMAIN, DnsSite, addresses, answered, found, ipv4, of_kind, wait_for_answer},
};
use tests::{
    Lab, Nginx, needs_root,
    questions::{Question, Response, chi_square},
};

const NAME: &str = "www.example.com";
/// The statistic that chance passes once in a million times, by degrees of freedom.
const CRITICAL: [f64; 16] =
    [0.0, 23.9, 27.6, 30.7, 33.4, 35.9, 38.3, 40.5, 42.7, 44.8, 46.9, 48.9, 50.8, 52.8, 54.6, 56.5];

/// Asserts that chance may have made these counts out of these shares.
fn assert_shares(what: &str, counts: &[u64], shares: &[f64]) {
    let statistic = chi_square(counts, shares);
    assert!(statistic < CRITICAL[counts.len() - 1], "{what}: {counts:?} for {shares:?}: {statistic}");
}

/// How often each of the addresses came first.
fn firsts(responses: &[Response], addresses: &[IpAddr]) -> Vec<u64> {
    let is_first = |response: &&Response, address: &IpAddr| response.addresses.first() == Some(address);
    let count = |address| responses.iter().filter(|response| is_first(response, address)).count() as u64;
    addresses.iter().map(count).collect()
}

/// Asks from both CPUs at once.
fn ask_on_both(site: &DnsSite, server: IpAddr, question: &Question, times: usize) -> [Vec<Response>; 2] {
    thread::scope(|scope| {
        [0, 1]
            .map(|cpu| scope.spawn(move || site.ask_on_cpu(cpu, server, question, times)))
            .map(|asking| asking.join().unwrap())
    })
}

#[test]
fn each_address_comes_first_equally_often() {
    if !needs_root("each_address_comes_first_equally_often") {
        return;
    }
    const ROUNDS: usize = 50;
    let all = addresses(3, 5);
    let site = DnsSite::up(0, |_| name(NAME, &all, ""));
    for (server, kind, qtype) in [(site.servers[0], "A", Question::A), (site.servers[1], "AAAA", Question::AAAA)] {
        let wanted = of_kind(&all, kind);
        let before = site.answered();
        // CPUs take turns each by itself.
        for cpu in [0, 1] {
            let question = Question::new(NAME, qtype);
            let responses = site.ask_on_cpu(cpu, server, &question, ROUNDS * wanted.len());
            let in_order: Vec<IpAddr> = all.iter().copied().filter(|address| wanted.contains(address)).collect();
            assert_eq!(firsts(&responses, &in_order), vec![ROUNDS as u64; wanted.len()]);
            // Each begins with the one after the last one's first.
            let first =
                |response: &Response| in_order.iter().position(|address| *address == response.addresses[0]).unwrap();
            for pair in responses.windows(2) {
                assert_eq!((first(&pair[0]) + 1) % wanted.len(), first(&pair[1]));
                let mut rotated = pair[0].addresses.clone();
                rotated.rotate_left(1);
                assert_eq!(rotated, pair[1].addresses);
            }
        }
        let asked = 2 * (ROUNDS * wanted.len()) as u64;
        assert_eq!(site.answered(), [before[0] + asked, before[1]]);
    }
}

#[test]
fn records_of_other_types_take_turns_as_well() {
    if !needs_root("records_of_other_types_take_turns_as_well") {
        return;
    }
    let site = DnsSite::up(0, |_| {
        "\n[[dns.name]]\nname = \"www.example.com\"\ntxt = [\"one\", \"the second\", \"number three\"]\n".to_owned()
    });
    let responses = site.ask_on_cpu(0, site.servers[0], &Question::new(NAME, Question::TXT), 30);
    let mut firsts = BTreeMap::<Vec<u8>, usize>::new();
    for response in &responses {
        assert_eq!(response.data.iter().collect::<BTreeSet<_>>().len(), 3);
        *firsts.entry(response.data[0].clone()).or_default() += 1;
    }
    assert_eq!(firsts.into_values().collect::<Vec<_>>(), [10, 10, 10]);
}

#[test]
fn weights_are_shares_on_both_cpus() {
    if !needs_root("weights_are_shares_on_both_cpus") {
        return;
    }
    let site = DnsSite::up(0, |_| {
        format!(
            "\n[[dns.name]]\nname = \"{NAME}\"\npolicy = \"weighted\"\naddresses = [\"192.0.2.1\", \
             {{ address = \"192.0.2.2\", weight = 3 }}, {{ address = \"192.0.2.3\", weight = 6 }}, \
             {{ address = \"192.0.2.4\", weight = 0 }}]\n"
        )
    });
    let all = [1, 2, 3, 4].map(ipv4);
    for server in site.servers {
        let question = Question::new(NAME, Question::A);
        for cpu in [0, 1] {
            let responses = site.ask_on_cpu(cpu, server, &question, 2_000);
            // A sequence of ten, begun anywhere: exact.
            assert_eq!(firsts(&responses, &all), [200, 600, 1_200, 0]);
            assert!(responses.iter().all(|response| response.addresses.len() == 1));
            // Interleaved: no address comes much more often in a row than it has to.
            let heavy: Vec<bool> = responses.iter().map(|response| response.addresses == [all[2]]).collect();
            assert!(!heavy.windows(4).any(|four| four.iter().all(|heavy| *heavy)));
        }
        // At once, the CPUs do part of each other's work on a veth, and neither of them sees a sequence of its own.
        let both = ask_on_both(&site, server, &question, 2_000).concat();
        assert_shares("weighted", &firsts(&both, &all[..3]), &[1.0, 3.0, 6.0]);
    }
}

#[test]
fn every_order_of_a_shuffle_is_as_likely() {
    if !needs_root("every_order_of_a_shuffle_is_as_likely") {
        return;
    }
    let all = addresses(3, 6);
    let site = DnsSite::up(0, |_| name(NAME, &all, "policy = \"shuffle\""));
    for (server, kind, qtype) in [(site.servers[0], "A", Question::A), (site.servers[1], "AAAA", Question::AAAA)] {
        let wanted: Vec<IpAddr> = of_kind(&all, kind).into_iter().collect();
        for responses in ask_on_both(&site, server, &Question::new(NAME, qtype), 3_000) {
            for response in &responses {
                assert_eq!(response.addresses.iter().copied().collect::<BTreeSet<_>>().len(), wanted.len());
            }
            assert_shares(kind, &firsts(&responses, &wanted), &vec![1.0; wanted.len()]);
            // What comes first says nothing of what comes first the next time.
            let same = responses.windows(2).filter(|pair| pair[0].addresses[0] == pair[1].addresses[0]).count() as u64;
            let pairs = responses.len() as u64 - 1;
            assert_shares("repeated", &[same, pairs - same], &[1.0, wanted.len() as f64 - 1.0]);
            let orders: BTreeSet<_> = responses.iter().map(|response| &response.addresses).collect();
            assert!(orders.len() > wanted.len(), "{} orders are rotations", orders.len());
        }
    }
}

#[test]
fn a_client_sticks_to_its_address() {
    if !needs_root("a_client_sticks_to_its_address") {
        return;
    }
    const PREFIXES: u8 = 250;
    let of_policy = |lab: &Lab| {
        let addresses: Vec<String> = lab.backends().iter().map(|host| host.ipv4().to_string()).collect();
        format!(
            "\n[[dns.name]]\nname = \"{NAME}\"\ncheck = \"web\"\npolicy = \"sticky\"\naddresses = [{{ address = {:?}, weight = 2 }}, \
             {:?}, {:?}]\n",
            addresses[0], addresses[1], addresses[2]
        )
    };
    let site = DnsSite::up(3, of_policy);
    let all: Vec<IpAddr> = site.lab.backends().iter().map(|host| host.ipv4().into()).collect();
    let mut servers: Vec<_> = site.lab.backends().iter().map(|host| Nginx::start(host, &[80]).unwrap()).collect();
    let question = Question::new(NAME, Question::A);
    let holders = |server: IpAddr| -> Vec<IpAddr> {
        let of_prefix = |prefix| {
            // Both clients of a prefix get the same, again and again.
            let of_client = |host| {
                let asker = site.asker_from(server, prefix, host);
                asker
                    .ask_all(3, 3, |_| question.clone())
                    .unwrap()
                    .into_iter()
                    .map(|response| response.unwrap().addresses)
            };
            let addresses: BTreeSet<_> = [1, 200].into_iter().flat_map(of_client).collect();
            assert_eq!(addresses.len(), 1, "{addresses:?} to prefix {prefix}");
            let addresses = addresses.into_iter().next().unwrap();
            assert_eq!(addresses.len(), 1);
            addresses[0]
        };
        (0..PREFIXES).map(of_prefix).collect()
    };
    // All are up when the table has its final shares.
    let wait_for_members = |members: &[IpAddr]| {
        wait_for_answer(&format!("{members:?} are up"), || {
            let asked: BTreeSet<IpAddr> = (0..PREFIXES)
                .step_by(5)
                .map(|prefix| site.asker_from(site.servers[0], prefix, 9).ask(&question).unwrap())
                .flat_map(|response| response.addresses)
                .collect();
            asked == members.iter().copied().collect()
        });
    };
    wait_for_members(&all);
    let before = site.servers.map(&holders);
    for holders in &before {
        let counts: Vec<u64> =
            all.iter().map(|one| holders.iter().filter(|holder| *holder == one).count() as u64).collect();
        assert_shares("sticky", &counts, &[2.0, 1.0, 1.0]);
    }
    servers[1].stop().unwrap();
    wait_for_members(&[all[0], all[2]]);
    for (before, after) in before.iter().zip(site.servers.map(&holders)) {
        assert!(!after.contains(&all[1]));
        let stayed = before.iter().zip(&after).filter(|(before, _)| **before != all[1]);
        let (others, moved) =
            stayed.fold((0, 0), |(others, moved), (before, after)| (others + 1, moved + usize::from(before != after)));
        println!("{moved} of {others} prefixes moved that did not have to");
        assert!(moved * 100 <= others * 8, "{moved} of {others} moved");
    }
    servers[1].start_again().unwrap();
    wait_for_members(&all);
    assert_eq!(site.servers.map(&holders), before);
}

#[test]
fn failover_answers_the_lowest_tier_that_is_up() {
    if !needs_root("failover_answers_the_lowest_tier_that_is_up") {
        return;
    }
    let site = DnsSite::up(3, |lab| {
        let address = |number: usize| lab.backends()[number].ipv4();
        format!(
            "\n[[dns.name]]\nname = \"{NAME}\"\nttl_seconds = 5\ncheck = \"web\"\npolicy = \"failover\"\nminimum_healthy = 2\n\
             below_minimum = \"nodata\"\naddresses = [\"{}\", \"{}\", {{ address = \"{}\", tier = 2 }}]\n",
            address(0),
            address(1),
            address(2)
        )
    });
    let all: Vec<IpAddr> = site.lab.backends().iter().map(|host| host.ipv4().into()).collect();
    let mut servers: Vec<_> = site.lab.backends().iter().map(|host| Nginx::start(host, &[80]).unwrap()).collect();
    let gives = |expected: &[IpAddr]| {
        let wanted: BTreeSet<_> = expected.iter().copied().collect();
        wait_for_answer(&format!("{expected:?} is the answer"), || {
            found(&site.ask(site.servers[0], NAME, "A", &[]), "A") == wanted
        });
        for server in site.servers {
            let (answer, by) = site.ask_whom(server, NAME, "A", &[]);
            assert_eq!((found(&answer, "A"), by, answer.status.as_str()), (wanted.clone(), By::Kernel, "NOERROR"));
        }
    };
    gives(&all[..2]);
    // One of two is not enough.
    servers[0].stop().unwrap();
    gives(&all[2..]);
    servers[2].stop().unwrap();
    gives(&[]);
    servers[0].start_again().unwrap();
    gives(&all[..2]);
    servers[2].start_again().unwrap();
    servers[1].stop().unwrap();
    gives(&all[2..]);
}

#[test]
fn too_few_that_are_up_are_answered_as_configured() {
    if !needs_root("too_few_that_are_up_are_answered_as_configured") {
        return;
    }
    const FORMS: [(&str, &str); 4] = [
        ("servfail", ""),
        ("nodata", "below_minimum = \"nodata\""),
        ("open", "below_minimum = \"fail-open\""),
        ("fallback", "below_minimum = \"fallback\"\nfallback = [\"192.0.2.98\", \"192.0.2.99\"]"),
    ];
    let site = DnsSite::up(2, |lab| {
        let all: Vec<IpAddr> = lab.backends().iter().map(|host| host.ipv4().into()).collect();
        let of_form = |(form, more): (&str, &str)| {
            name(&format!("{form}.example.com"), &all, &format!("check = \"web\"\nminimum_healthy = 2\n{more}"))
        };
        DOMAIN.to_owned() + &FORMS.map(of_form).concat()
    });
    let all: BTreeSet<IpAddr> = site.lab.backends().iter().map(|host| host.ipv4().into()).collect();
    let mut servers: Vec<_> = site.lab.backends().iter().map(|host| Nginx::start(host, &[80]).unwrap()).collect();
    let below: [(&str, BTreeSet<IpAddr>); 4] = [
        ("SERVFAIL", BTreeSet::new()),
        ("NOERROR", BTreeSet::new()),
        ("NOERROR", all.clone()),
        ("NOERROR", [ipv4(98), ipv4(99)].into()),
    ];
    let gives = |what: &str, expected: &[(&str, BTreeSet<IpAddr>); 4]| {
        for ((form, _), (code, addresses)) in FORMS.iter().zip(expected) {
            let name = format!("{form}.example.com");
            wait_for_answer(&format!("{name} is as it is {what}"), || {
                let answer = site.ask(site.servers[0], &name, "A", &[]);
                answer.status == *code && found(&answer, "A") == *addresses
            });
            for server in site.servers {
                for (more, who) in [("+notcp", By::Kernel), ("+tcp", By::Agent)] {
                    let (answer, by) = site.ask_whom(server, &name, "A", &[more]);
                    let got = (answer.status.as_str(), found(&answer, "A"), by);
                    assert_eq!(got, (*code, addresses.clone(), who), "{what}: {}", answer.text);
                    let is_nodata = *code == "NOERROR" && addresses.is_empty();
                    assert_eq!(answer.authority.len(), usize::from(is_nodata), "{}", answer.text);
                }
            }
        }
    };
    let enough = [(); 4].map(|()| ("NOERROR", all.clone()));
    gives("with all", &enough);
    servers[1].stop().unwrap();
    gives("with one", &below);
    servers[1].start_again().unwrap();
    gives("with all again", &enough);
}

#[test]
fn what_was_never_checked_is_not_up() {
    if !needs_root("what_was_never_checked_is_not_up") {
        return;
    }
    // Nobody is at the second address, and its check waits for a minute.
    let site = DnsSite::up(1, |lab| {
        format!(
            "\n[check.patient]\nport = 80\ninterval_ms = 60000\ntimeout_ms = 60000\n{}{}",
            name("both.example.com", &[lab.backends()[0].ipv4().into()], "check = \"web\"").replace(
                "]\ncheck",
                &format!(", {{ address = \"{}\", check = \"patient\" }}]\ncheck", lab.service_ipv4(9))
            ),
            name("never.example.com", &[lab.service_ipv4(9).into()], "check = \"patient\"")
        )
    });
    let _server = Nginx::start(&site.lab.backends()[0], &[80]).unwrap();
    let known: BTreeSet<IpAddr> = [site.lab.backends()[0].ipv4().into()].into();
    wait_for_answer("the first address is up", || {
        found(&site.ask(site.servers[0], "both.example.com", "A", &[]), "A") == known
    });
    let before = answered(&site.agent.status().unwrap());
    for server in site.servers {
        for (name, code, addresses) in
            [("never.example.com", "SERVFAIL", BTreeSet::new()), ("both.example.com", "NOERROR", known.clone())]
        {
            for more in ["+notcp", "+tcp"] {
                let answer = site.ask(server, name, "A", &[more]);
                assert_eq!((answer.status.as_str(), found(&answer, "A")), (code, addresses.clone()), "{}", answer.text);
            }
        }
    }
    assert_eq!(answered(&site.agent.status().unwrap()), [before[0] + 4, before[1] + 4]);
}
