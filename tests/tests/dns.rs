//! DNS end to end, what clients see: dig, kdig, drill and plain sockets ask, the kernel answers, and the agent where the kernel does
//! not.
//!
//! Every question comes from a real socket over veth, where a packet has next to no room behind it.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use std::net::IpAddr;
use support::{
    count, name,
    names::{By, DOMAIN, DnsSite, HEADROOM, addresses, answered, dns_config, found, of_kind},
};
use tests::{
    DigAnswer, Host, Lab, Layout, dig, drill, kdig, needs_root,
    questions::{Asker, Question},
};

const NAME: &str = "www.example.com";

/// A name of every kind that there is.
const EVERYTHING: &str = r#"
[[dns.name]]
name = "turn.example.com"
ttl_seconds = 5
addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1", "2001:db8::2"]

[[dns.name]]
name = "shuffle.example.com"
policy = "shuffle"
addresses = ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::1"]

[[dns.name]]
name = "weighted.example.com"
policy = "weighted"
addresses = ["192.0.2.1", { address = "192.0.2.2", weight = 3 }, "2001:db8::1"]

[[dns.name]]
name = "sticky.example.com"
policy = "sticky"
addresses = ["192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"]

[[dns.name]]
name = "failover.example.com"
policy = "failover"
addresses = ["192.0.2.1", "192.0.2.2", { address = "192.0.2.3", tier = 2 }]

[[dns.name]]
name = "alias.example.com"
cname = "turn.example.com"

[[dns.name]]
name = "example.com"
mx = ["10 mail.example.com", "20 mail.example.net"]
txt = ["v=spf1 mx -all", "another one"]

[[dns.name]]
name = "_sip._udp.example.com"
srv = ["10 60 5060 sip.example.com"]
"#;

/// What a question to [`EVERYTHING`] is answered: the code, how many records, and of which data.
const ANSWERS: [(&str, &str, &str, usize, &[&str]); 18] = [
    ("turn.example.com", "A", "NOERROR", 3, &["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
    ("TURN.Example.Com", "AAAA", "NOERROR", 2, &["2001:db8::1", "2001:db8::2"]),
    ("shuffle.example.com", "A", "NOERROR", 3, &["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
    ("shuffle.example.com", "AAAA", "NOERROR", 1, &["2001:db8::1"]),
    ("weighted.example.com", "A", "NOERROR", 1, &["192.0.2.1", "192.0.2.2"]),
    ("weighted.example.com", "AAAA", "NOERROR", 1, &["2001:db8::1"]),
    ("sticky.example.com", "A", "NOERROR", 1, &["192.0.2.1", "192.0.2.2"]),
    ("sticky.example.com", "AAAA", "NOERROR", 1, &["2001:db8::1", "2001:db8::2"]),
    ("failover.example.com", "A", "NOERROR", 2, &["192.0.2.1", "192.0.2.2"]),
    ("alias.example.com", "CNAME", "NOERROR", 1, &["turn.example.com."]),
    ("alias.example.com", "A", "NOERROR", 1, &["turn.example.com."]),
    ("example.com", "MX", "NOERROR", 2, &["10 mail.example.com.", "20 mail.example.net."]),
    ("example.com", "TXT", "NOERROR", 2, &["\"v=spf1 mx -all\"", "\"another one\""]),
    ("_sip._udp.example.com", "SRV", "NOERROR", 1, &["10 60 5060 sip.example.com."]),
    ("example.com", "SOA", "NOERROR", 1, &["ns1.example.com. hostmaster.example.com. 1 "]),
    // Negative answers come to the kernel when they are asked for again.
    ("failover.example.com", "AAAA", "NOERROR", 0, &[]),
    ("turn.example.com", "TXT", "NOERROR", 0, &[]),
    ("absent.example.com", "A", "NXDOMAIN", 0, &[]),
];

type Program = fn(&Host, IpAddr, &str, &str, &[&str]) -> anyhow::Result<DigAnswer>;

/// The programs with how they are told to use EDNS, and not to.
const PROGRAMS: [(Program, &[&[&str]]); 3] = [
    (dig, &[&["+noedns"], &["+edns=0", "+nocookie"], &["+cookie"], &["+dnssec"]]),
    (kdig, &[&["+noedns"], &["+edns"], &["+cookie"], &["+dnssec"]]),
    (drill, &[&[], &["-b", "1232"], &["-D"]]),
];

fn every_client_is_answered(tag: Option<u16>) {
    let lab = Lab::blueprint(Layout::Bridged).backends(0);
    let lab = tag.map_or(lab, |id| lab.tagged(id)).up().unwrap();
    let config = dns_config(&lab, "") + DOMAIN + EVERYTHING;
    let site = DnsSite::start(lab, config);
    let ask_all = |program: Program, server, more: &[&str]| {
        for (name, kind, code, records, expected) in ANSWERS {
            let answer = program(site.client(), server, name, kind, more).unwrap();
            let text = &answer.text;
            assert_eq!((answer.status.as_str(), answer.answers.len()), (code, records), "{text}");
            let known = |data: &str| expected.iter().any(|expected| data.starts_with(expected));
            assert!(answer.answers.iter().all(|record| known(&record.data)), "{text}");
            let mut data: Vec<&str> = answer.answers.iter().map(|record| record.data.as_str()).collect();
            data.dedup();
            assert_eq!(data.len(), records, "a record came twice: {text}");
            assert!(answer.has_flag("qr") && answer.has_flag("aa") && !answer.has_flag("tc"), "{text}");
            // A negative answer says for how long it holds.
            let authorities: Vec<_> = answer.authority.iter().map(|record| record.kind.as_str()).collect();
            assert_eq!(authorities, if records == 0 { vec!["SOA"] } else { vec![] }, "{text}");
        }
    };
    // What is not there is asked for twice before the kernel has it.
    for _ in 0..2 {
        ask_all(dig, site.servers[0], &[]);
    }
    support::wait_for(&site.agent, "three negative answers are in the kernel", |status| {
        count(status, "dns", "negatives_in_kernel") == 3
    });
    for (program, forms) in PROGRAMS {
        for form in forms {
            for server in site.servers {
                let before = site.answered();
                ask_all(program, server, form);
                assert_eq!(site.answered(), [before[0] + ANSWERS.len() as u64, before[1]], "{form:?}");
            }
        }
    }
    for server in site.servers {
        let before = site.answered();
        ask_all(dig, server, &["+tcp"]);
        assert_eq!(site.answered(), [before[0], before[1] + ANSWERS.len() as u64]);
    }
}

#[test]
fn every_client_gets_every_answer_from_the_kernel() {
    if needs_root("every_client_gets_every_answer_from_the_kernel") {
        every_client_is_answered(None);
    }
}

#[test]
fn every_client_behind_a_vlan_tag_gets_every_answer_from_the_kernel() {
    if needs_root("every_client_behind_a_vlan_tag_gets_every_answer_from_the_kernel") {
        every_client_is_answered(Some(7));
    }
}

#[test]
fn sockets_are_answered_at_any_case_and_size() {
    if !needs_root("sockets_are_answered_at_any_case_and_size") {
        return;
    }
    let all = addresses(3, 2);
    let site = DnsSite::up(0, |_| name(NAME, &all, ""));
    for server in site.servers {
        let asker = site.asker(server);
        let before = site.answered();
        let mut asked = 0;
        for (kind, wanted) in [(Question::A, of_kind(&all, "A")), (Question::AAAA, of_kind(&all, "AAAA"))] {
            for name in [NAME, "WWW.EXAMPLE.COM", "wWw.ExAmPlE.cOm"] {
                for size in [None, Some(0), Some(512), Some(1_232), Some(4_096), Some(u16::MAX)] {
                    let question = Question { size, ..Question::new(name, kind) };
                    for question in [question.clone(), question.clone().cookie(b"01234567")] {
                        let response = asker.ask(&question).unwrap();
                        assert_eq!(response.flags, 0x8500, "{question:?}");
                        assert_eq!(response.addresses.len(), wanted.len());
                        assert!(response.addresses.iter().all(|address| wanted.contains(address)));
                        assert_eq!(response.cookie.len(), if question.cookie.is_empty() { 0 } else { 24 });
                        asked += 1;
                    }
                }
            }
        }
        assert_eq!(site.answered(), [before[0] + asked, before[1]]);
    }
}

#[test]
fn both_answer_alike() {
    if !needs_root("both_answer_alike") {
        return;
    }
    let all = addresses(3, 2);
    let site = DnsSite::up(0, |_| name(NAME, &all, ""));
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
                        let flags = if more.contains(&"+dnssec") { " do" } else { "" };
                        assert_eq!(answer.edns[0], format!("EDNS: version: 0, flags:{flags}; udp: 1232"), "{text}");
                    }
                }
            }
        }
    }
}

#[test]
fn one_to_sixteen_addresses_arrive() {
    if !needs_root("one_to_sixteen_addresses_arrive") {
        return;
    }
    let named: Vec<_> =
        (1..=16).map(|number| (format!("n{number}.example.com"), addresses(number, number.into()))).collect();
    let site = DnsSite::up(0, |_| named.iter().map(|(owner, addresses)| name(owner, addresses, "")).collect());
    let questions = || named.iter().flat_map(|(name, addresses)| [(name, addresses, "A"), (name, addresses, "AAAA")]);
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
fn what_the_kernel_does_not_answer_the_agent_does() {
    if !needs_root("what_the_kernel_does_not_answer_the_agent_does") {
        return;
    }
    let all = addresses(3, 2);
    let site = DnsSite::up(0, |_| name(NAME, &all, ""));
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
            for kind in ["A", "AAAA"] {
                for more in ["+noedns", "+edns=0"] {
                    let answer = ask(NAME, kind, &["+tcp", more]);
                    assert_eq!(answer.status, "NOERROR", "{}", answer.text);
                    assert_eq!(found(&answer, kind), of_kind(&all, kind));
                }
            }
            let answer = ask(NAME, "ANY", &["+notcp"]);
            assert_eq!(found(&answer, "A"), of_kind(&all, "A"));
            let answer = ask(NAME, "A", &["+nsid"]);
            assert_eq!(found(&answer, "A"), of_kind(&all, "A"));
            let answer = ask(NAME, "A", &["+edns=1", "+noednsnegotiation"]);
            assert_eq!((answer.status.as_str(), answer.answers.len()), ("BADVERS", 0), "{}", answer.text);
        }
    }
    assert_eq!(count(&site.agent.status().unwrap(), "dns", "answers_in_kernel"), 2);
}

#[test]
fn what_is_no_question_is_answered_as_it_should_be() {
    if !needs_root("what_is_no_question_is_answered_as_it_should_be") {
        return;
    }
    let site = DnsSite::up(0, |_| name(NAME, &addresses(2, 0), ""));
    let good = Question::new(NAME, Question::A).message(7);
    let changed = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut message = good.clone();
        change(&mut message);
        message
    };
    // With the code that comes back; what gets no response must not start one that never ends.
    let messages: [(&str, Vec<u8>, Option<u16>); 8] = [
        ("a response", changed(&|message| message[2] |= 0x80), None),
        ("less than a header", good[..11].to_vec(), None),
        ("two questions", changed(&|message| message[5] = 2), Some(1)),
        ("half a name", good[..20].to_vec(), Some(1)),
        ("an unknown opcode", changed(&|message| message[2] |= 0x28), Some(4)),
        ("a name that points to itself", changed(&|message| drop(message.splice(12..14, [0xc0, 12]))), Some(1)),
        ("a cookie of nine bytes", Question::new(NAME, Question::A).cookie(b"123456789").message(7), Some(1)),
        ("a question", good.clone(), Some(0)),
    ];
    for server in site.servers {
        let asker = site.asker(server);
        for (what, message, code) in &messages {
            let before = answered(&site.agent.status().unwrap());
            asker.send(message).unwrap();
            if let Some(code) = code {
                let response = asker.receive().unwrap().unwrap_or_else(|| panic!("{what}: no response"));
                assert_eq!((response.id, response.code()), (7, *code), "{what}: {response:?}");
            } else {
                // It came to the agent, which says nothing; what follows shows that nothing came back.
                support::wait_for(&site.agent, what, |status| answered(status)[1] == before[1] + 1);
            }
        }
        assert_eq!(asker.ask(&Question::new(NAME, Question::A)).unwrap().addresses.len(), 2);
    }
}

#[test]
fn two_servers_never_talk_to_each_other() {
    if !needs_root("two_servers_never_talk_to_each_other") {
        return;
    }
    let site = DnsSite::up(0, |_| name(NAME, &addresses(2, 0), ""));
    // A question from port 53 is the agent's to answer.
    for server in site.servers {
        let any: IpAddr = if server.is_ipv4() { [0, 0, 0, 0].into() } else { [0; 16].into() };
        let asker = Asker::open_at(site.client(), (any, 53).into(), server).unwrap();
        let before = site.agent.status().unwrap();
        assert_eq!(asker.ask(&Question::new(NAME, Question::A)).unwrap().addresses.len(), 2);
        let after = site.agent.status().unwrap();
        assert_eq!(count(&after, "packets", "dns_port"), count(&before, "packets", "dns_port") + 1);
        assert_eq!(answered(&after)[0], answered(&before)[0]);
    }
}
