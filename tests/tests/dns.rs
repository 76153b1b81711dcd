//! DNS end to end: dig asks, the kernel answers, and the agent where the kernel does not.
//!
//! Every question comes from a real socket over veth, where a packet has next to no room behind it.
#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
};
use support::{TURN, count, dns, head, name, wait_for};
use tests::{Agent, DigAnswer, Lab, Layout, Nginx, dig, fixture::stay_on_one_cpu, needs_root, wait_until};

const NAME: &str = "www.example.com";
/// Bytes that a packet on veth can always grow by in front: the kernel keeps 256 and needs some of them itself.
const HEADROOM: usize = 192;

/// A lab, its agent, and where it answers: over IPv4 and over IPv6.
struct Site {
    lab: Lab,
    agent: Agent,
    servers: [IpAddr; 2],
}

/// Who answered a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Kernel,
    Agent,
}

impl Site {
    fn up(backends: u8, names: impl FnOnce(&Lab) -> String) -> Self {
        let lab = Lab::blueprint(Layout::Bridged).backends(backends).up().unwrap();
        let config = head(&lab) + "port = 80\n" + &dns(&lab) + &names(&lab);
        let agent = Agent::start(lab.balancer(), &config).unwrap();
        let servers = [lab.balancer().ipv4().into(), lab.balancer().ipv6().into()];
        Self { lab, agent, servers }
    }

    fn ask(&self, server: IpAddr, name: &str, kind: &str, more: &[&str]) -> DigAnswer {
        dig(self.lab.client(), server, name, kind, more).unwrap()
    }

    /// Questions answered by the kernel and by the agent so far.
    fn answered(&self) -> [u64; 2] {
        let status = self.agent.status().unwrap();
        let agent = status["dns"]["agent"]["queries"].as_u64().unwrap();
        [count(&status, "dns", "answered_by_kernel"), agent]
    }

    /// Asks, and finds out who answered.
    fn ask_whom(&self, server: IpAddr, name: &str, kind: &str, more: &[&str]) -> (DigAnswer, By) {
        let before = self.answered();
        let answer = self.ask(server, name, kind, more);
        let after = self.answered();
        let by = match [after[0] - before[0], after[1] - before[1]] {
            [1, 0] => By::Kernel,
            [0, 1] => By::Agent,
            other => panic!("{other:?} answers to one question: {}", answer.text),
        };
        (answer, by)
    }

    /// Has answers put into the kernel, until it holds this many.
    fn warm_up(&self, questions: &[(&str, &str)], held: u64) {
        for (name, kind) in questions {
            self.ask(self.servers[0], name, kind, &[]);
        }
        wait_for(&self.agent, &format!("{held} answers are in the kernel"), |status| {
            count(status, "dns", "answers_in_kernel") == held
        });
    }
}

fn ipv4(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, number).into()
}

fn ipv6(number: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number).into()
}

/// So many addresses of each family.
fn addresses(ipv4s: u8, ipv6s: u16) -> Vec<IpAddr> {
    (1..=ipv4s).map(ipv4).chain((1..=ipv6s).map(ipv6)).collect()
}

/// The addresses of one type, as a set.
fn found(answer: &DigAnswer, kind: &str) -> BTreeSet<IpAddr> {
    let data = answer.data(kind);
    let found: BTreeSet<_> = data.iter().map(|data| data.parse().unwrap()).collect();
    assert_eq!(found.len(), answer.answers.len(), "{}", answer.text);
    found
}

fn of_kind(addresses: &[IpAddr], kind: &str) -> BTreeSet<IpAddr> {
    let wanted = addresses.iter().filter(|address| address.is_ipv4() == (kind == "A"));
    wanted.copied().collect()
}

#[test]
fn the_agent_answers_first_and_the_kernel_from_then_on() {
    if !needs_root("the_agent_answers_first_and_the_kernel_from_then_on") {
        return;
    }
    let all = addresses(3, 2);
    let site = Site::up(1, |_| name(NAME, &all, ""));
    let [over_ipv4, over_ipv6] = site.servers;
    assert_eq!(site.answered(), [0, 0]);
    for (kind, first, held) in [("A", over_ipv4, 1), ("AAAA", over_ipv6, 2)] {
        let (answer, by) = site.ask_whom(first, NAME, kind, &[]);
        assert_eq!((found(&answer, kind), by), (of_kind(&all, kind), By::Agent));
        site.warm_up(&[], held);
        for server in [over_ipv4, over_ipv6, over_ipv4] {
            let (answer, by) = site.ask_whom(server, NAME, kind, &[]);
            assert_eq!((found(&answer, kind), by), (of_kind(&all, kind), By::Kernel));
        }
    }
}

#[test]
fn both_answer_alike() {
    if !needs_root("both_answer_alike") {
        return;
    }
    let all = addresses(3, 2);
    let site = Site::up(1, |_| name(NAME, &all, ""));
    site.warm_up(&[(NAME, "A"), (NAME, "AAAA")], 2);
    let variants: [(&str, &[&str], bool); 9] = [
        (NAME, &["+noedns"], false),
        (NAME, &["+edns=0", "+nocookie"], true),
        (NAME, &["+cookie"], true),
        (NAME, &["+dnssec"], true),
        (NAME, &["+bufsize=4096"], true),
        (NAME, &["+bufsize=100"], true),
        (NAME, &["+norecurse", "+noadflag"], true),
        (NAME, &["+cdflag"], true),
        ("wWw.eXaMpLe.CoM", &[], true),
    ];
    for expected in [By::Kernel, By::Agent] {
        if expected == By::Agent {
            // Now every question passes to the agent.
            site.agent.lb(["detach"]).unwrap();
        }
        for server in site.servers {
            for (name, more, has_edns) in variants {
                for kind in ["A", "AAAA"] {
                    let (answer, by) = site.ask_whom(server, name, kind, more);
                    let text = &answer.text;
                    assert_eq!(by, expected, "{more:?} {text}");
                    assert_eq!(answer.status, "NOERROR", "{text}");
                    assert_eq!(found(&answer, kind), of_kind(&all, kind), "{text}");
                    assert!(answer.answers.iter().all(|record| record.ttl == 5), "{text}");
                    // The case of the question is kept, and what repeats it shows it.
                    assert!(text.contains(&format!("\n;{name}.\t")), "{text}");
                    assert!(answer.answers.iter().all(|record| record.name == format!("{name}.")), "{text}");
                    assert!(answer.has_flag("qr") && answer.has_flag("aa"), "{text}");
                    assert!(!answer.has_flag("ra") && !answer.has_flag("tc") && !answer.has_flag("ad"), "{text}");
                    assert_eq!(answer.has_flag("rd"), !more.contains(&"+norecurse"), "{text}");
                    assert_eq!(answer.has_flag("cd"), more.contains(&"+cdflag"), "{text}");
                    assert_eq!((answer.authority.len(), answer.additional.len()), (0, 0), "{text}");
                    assert_eq!(!answer.edns.is_empty(), has_edns, "{text}");
                    if has_edns {
                        let flags = if more.contains(&"+dnssec") { "do" } else { "" };
                        let expected = format!(
                            "EDNS: version: 0, flags:{}{flags}; udp: 1232",
                            if flags.is_empty() { "" } else { " " }
                        );
                        assert_eq!(answer.edns[0], expected, "{text}");
                    }
                }
            }
        }
    }
}

#[test]
fn each_address_comes_first_equally_often() {
    if !needs_root("each_address_comes_first_equally_often") {
        return;
    }
    const ROUNDS: usize = 6;
    let all = addresses(3, 4);
    let site = Site::up(1, |_| name(NAME, &all, ""));
    site.warm_up(&[(NAME, "A"), (NAME, "AAAA")], 2);
    for (server, kind) in [(site.servers[0], "A"), (site.servers[1], "AAAA")] {
        let wanted = of_kind(&all, kind);
        let before = site.answered();
        // CPUs take turns each by itself, and a packet over veth stays on the CPU of its sender.
        let answers = thread::scope(|scope| {
            let asking = scope.spawn(|| {
                stay_on_one_cpu().unwrap();
                let ask = |_| site.ask(server, NAME, kind, &[]);
                (0..ROUNDS * wanted.len()).map(ask).collect::<Vec<_>>()
            });
            asking.join().unwrap()
        });
        assert_eq!(site.answered(), [before[0] + answers.len() as u64, before[1]]);
        let mut firsts = BTreeMap::<IpAddr, usize>::new();
        for answer in &answers {
            assert_eq!(found(answer, kind), wanted, "{}", answer.text);
            *firsts.entry(answer.data(kind)[0].parse().unwrap()).or_default() += 1;
        }
        assert_eq!(firsts, wanted.iter().map(|address| (*address, ROUNDS)).collect());
    }
}

#[test]
fn one_to_sixteen_addresses_arrive() {
    if !needs_root("one_to_sixteen_addresses_arrive") {
        return;
    }
    let named: Vec<_> =
        (1..=16).map(|number| (format!("n{number}.example.com"), addresses(number, number.into()))).collect();
    let site = Site::up(1, |_| named.iter().map(|(owner, addresses)| name(owner, addresses, "")).collect());
    let questions = || named.iter().flat_map(|(name, addresses)| [(name, addresses, "A"), (name, addresses, "AAAA")]);
    for (name, addresses, kind) in questions() {
        let (answer, by) = site.ask_whom(site.servers[0], name, kind, &[]);
        assert_eq!((found(&answer, kind), by), (of_kind(addresses, kind), By::Agent));
    }
    site.warm_up(&[], 32);
    let mut without_room = 0;
    for (server, edns) in [(site.servers[0], "+noedns"), (site.servers[1], "+nocookie")] {
        for (name, addresses, kind) in questions() {
            let (answer, by) = site.ask_whom(server, name, kind, &[edns]);
            assert_eq!(found(&answer, kind), of_kind(addresses, kind), "{}", answer.text);
            // Of a packet of a socket, the headroom is all that it can surely grow by.
            let growth = answer.answers.len() * if kind == "A" { 16 } else { 28 };
            assert!(by == By::Kernel || growth > HEADROOM, "{growth} bytes more were too many: {}", answer.text);
            without_room += u64::from(by == By::Agent);
        }
    }
    println!("64 questions, {without_room} of them without room for the kernel's answer");
    assert_eq!(count(&site.agent.status().unwrap(), "packets", "no_room"), without_room);
}

#[test]
fn what_is_too_large_goes_over_tcp() {
    if !needs_root("what_is_too_large_goes_over_tcp") {
        return;
    }
    const LONG: &str = "a-name-so-long-that-sixteen-records-behind-it-leave-no-room.example.com";
    let all = addresses(1, 16);
    let site = Site::up(1, |_| name(LONG, &all, ""));
    site.warm_up(&[(LONG, "AAAA")], 1);
    for server in site.servers {
        let (answer, by) = site.ask_whom(server, LONG, "AAAA", &["+noedns", "+ignore"]);
        assert_eq!(by, By::Agent);
        assert!(answer.has_flag("tc") && answer.status == "NOERROR" && answer.bytes <= 512, "{}", answer.text);
        // dig asks again over TCP by itself.
        let answer = site.ask(server, LONG, "AAAA", &["+noedns"]);
        assert!(!answer.has_flag("tc"), "{}", answer.text);
        assert_eq!(found(&answer, "AAAA"), of_kind(&all, "AAAA"));
        // A client that takes more gets it over UDP, from whom depends on the room behind its question.
        let answer = site.ask(server, LONG, "AAAA", &["+ignore"]);
        assert!(!answer.has_flag("tc"), "{}", answer.text);
        assert_eq!(found(&answer, "AAAA"), of_kind(&all, "AAAA"));
    }
}

#[test]
fn what_the_kernel_does_not_answer_the_agent_does() {
    if !needs_root("what_the_kernel_does_not_answer_the_agent_does") {
        return;
    }
    let all = addresses(3, 2);
    let only_ipv4 = "v4.example.com";
    let site = Site::up(1, |_| name(NAME, &all, "") + &name(only_ipv4, &addresses(2, 0), ""));
    site.warm_up(&[(NAME, "A"), (NAME, "AAAA")], 2);
    for server in site.servers {
        // Asked twice, since the first question must not put into the kernel what is not an answer.
        for _ in 0..2 {
            let ask = |name: &str, kind: &str, more: &[&str]| {
                let (answer, by) = site.ask_whom(server, name, kind, more);
                assert_eq!(by, By::Agent, "{}", answer.text);
                answer
            };
            for unknown in ["absent.example.com", "example.com", "www.example.com.example.com", "com", "."] {
                let answer = ask(unknown, "A", &[]);
                assert_eq!((answer.status.as_str(), answer.answers.len()), ("REFUSED", 0), "{}", answer.text);
            }
            for (name, kind) in [(NAME, "MX"), (NAME, "TXT"), (only_ipv4, "AAAA")] {
                let answer = ask(name, kind, &[]);
                assert_eq!((answer.status.as_str(), answer.answers.len()), ("NOERROR", 0), "{}", answer.text);
                assert!(answer.has_flag("aa"), "{}", answer.text);
            }
            for kind in ["A", "AAAA"] {
                for more in ["+noedns", "+edns=0"] {
                    let answer = ask(NAME, kind, &["+tcp", more]);
                    assert_eq!(answer.status, "NOERROR", "{}", answer.text);
                    assert_eq!(found(&answer, kind), of_kind(&all, kind));
                }
            }
            let answer = ask(NAME, "A", &["+edns=1", "+noednsnegotiation"]);
            assert_eq!((answer.status.as_str(), answer.answers.len()), ("BADVERS", 0), "{}", answer.text);
        }
    }
    assert_eq!(count(&site.agent.status().unwrap(), "dns", "answers_in_kernel"), 2);
}

#[test]
fn a_dead_server_is_gone_from_the_answers() {
    if !needs_root("a_dead_server_is_gone_from_the_answers") {
        return;
    }
    // The last address is nobody's, and never up.
    let of_servers = |lab: &Lab| -> Vec<IpAddr> {
        let hosts = lab.backends().iter();
        hosts.flat_map(|host| [IpAddr::from(host.ipv4()), host.ipv6().into()]).collect()
    };
    let site = Site::up(3, |lab| {
        let with_nobody = [of_servers(lab), vec![lab.service_ipv4(9).into()]].concat();
        name(NAME, &with_nobody, "check = \"web\"")
    });
    let all = of_servers(&site.lab);
    let start = |host| Nginx::start(host, &[80]).unwrap();
    let mut servers: Vec<_> = site.lab.backends().iter().map(start).collect();

    // Over TCP the agent answers, over UDP the kernel, once it has the answer; both must not differ for long.
    let wait_until_both_give = |expected: &[IpAddr]| {
        for kind in ["A", "AAAA"] {
            for server in site.servers {
                for more in ["+tcp", "+notcp"] {
                    let what = format!("{kind} {more} gives {expected:?}");
                    let gives = || {
                        let answer = site.ask(server, NAME, kind, &[more]);
                        (found(&answer, kind) == of_kind(expected, kind)).then_some(())
                    };
                    wait_until(TURN, &what, gives).unwrap();
                }
            }
        }
    };
    // What has turned stays so, and it is the kernel that says it.
    let all_say = |expected: &[IpAddr]| {
        site.warm_up(&[], 2);
        for server in site.servers {
            for kind in ["A", "AAAA"] {
                for (more, who) in [("+notcp", By::Kernel), ("+tcp", By::Agent)] {
                    for _ in 0..3 {
                        let (answer, by) = site.ask_whom(server, NAME, kind, &[more]);
                        assert_eq!((found(&answer, kind), by), (of_kind(expected, kind), who), "{}", answer.text);
                    }
                }
            }
        }
    };

    wait_until_both_give(&all);
    all_say(&all);
    servers[1].stop().unwrap();
    let without: Vec<_> = [&all[..2], &all[4..]].concat();
    wait_until_both_give(&without);
    all_say(&without);
    // Without any server, the answer is neither an old one nor that there are no addresses.
    servers[0].stop().unwrap();
    servers[2].stop().unwrap();
    for server in site.servers {
        for kind in ["A", "AAAA"] {
            for more in ["+tcp", "+notcp"] {
                wait_until(TURN, &format!("{kind} {more} fails"), || {
                    let answer = site.ask(server, NAME, kind, &[more]);
                    (answer.status == "SERVFAIL" && answer.answers.is_empty()).then_some(())
                })
                .unwrap();
            }
        }
    }
    assert_eq!(count(&site.agent.status().unwrap(), "dns", "answers_in_kernel"), 0);
    for server in &mut servers {
        server.start_again().unwrap();
    }
    wait_until_both_give(&all);
    all_say(&all);
}
