//! `lb dns`: what the kernel holds, what it is asked for, and what is said to who asks for something else.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use serde_json::Value;
use support::{
    count, name,
    names::{By, DOMAIN, DnsSite, addresses},
    wait_for,
};
use tests::{needs_root, questions::Question};

const NAME: &str = "www.example.com";
const ABSENT: &str = "absent.example.com";

fn site() -> DnsSite {
    DnsSite::up(0, |_| {
        let rare = name("rare.example.com", &addresses(1, 0), "policy = \"weighted\"");
        DOMAIN.to_owned() + &name(NAME, &addresses(3, 2), "") + &rare
    })
}

fn json(site: &DnsSite, line: &[&str]) -> Value {
    let output = site.agent.lb([line, &["--json"]].concat()).unwrap();
    serde_json::from_str(&output.stdout).unwrap()
}

/// What the list says of each answer: name, type, class, and how one is chosen.
fn listed(site: &DnsSite) -> Vec<[String; 4]> {
    let list = json(site, &["dns", "cache", "list"]);
    let answers = list["answers"].as_array().unwrap();
    assert_eq!(list["total"], answers.len());
    let text = |answer: &Value, key: &str| answer[key].as_str().unwrap().to_owned();
    let row = |answer| ["name", "kind", "class", "pick"].map(|key| text(answer, key));
    answers.iter().map(row).collect()
}

/// Has an answer that there is no such name come to the kernel.
fn ask_for_what_is_absent(site: &DnsSite) {
    for _ in 0..2 {
        assert_eq!(site.ask(site.servers[0], ABSENT, "A", &[]).status, "NXDOMAIN");
    }
    wait_for(&site.agent, "that there is no such name is in the kernel", |status| {
        count(status, "dns", "negatives_in_kernel") == 1
    });
}

#[test]
fn what_the_kernel_holds_is_listed_and_shown() {
    if !needs_root("what_the_kernel_holds_is_listed_and_shown") {
        return;
    }
    let site = site();
    let of_config = [
        ["example.com", "SOA", "authoritative", "only"],
        ["rare.example.com", "A", "authoritative", "only"],
        [NAME, "A", "authoritative", "turn"],
        [NAME, "AAAA", "authoritative", "turn"],
    ];
    let rows = listed(&site);
    let without_pick = |rows: &[[String; 4]]| -> Vec<String> { rows.iter().map(|row| row[..3].join(" ")).collect() };
    let expected: Vec<String> = of_config.iter().map(|row| row[..3].join(" ")).collect();
    assert_eq!(without_pick(&rows), expected);
    ask_for_what_is_absent(&site);
    let rows = without_pick(&listed(&site));
    assert_eq!(rows.len(), of_config.len() + 1);
    assert!(rows.contains(&format!("{ABSENT} A negative")), "{rows:?}");

    let text = site.agent.lb(["dns", "cache", "list"]).unwrap().stdout;
    assert_eq!(text.lines().count(), 1 + rows.len(), "{text}");
    assert!(rows.iter().all(|row| text.contains(row.split(' ').next().unwrap())), "{text}");

    for name in [NAME, "WWW.Example.COM."] {
        let details = json(&site, &["dns", "cache", "show", name]);
        let details = details.as_array().unwrap();
        assert_eq!(details.len(), 2, "{details:#?}");
        for detail in details {
            let bodies = detail["bodies"].as_array().unwrap();
            assert!(!bodies.is_empty() && bodies.iter().all(|body| body["is_as_written"] == true), "{detail:#}");
            assert!(bodies.iter().all(|body| body["code"] == "NOERROR"), "{detail:#}");
            let data = bodies.iter().map(|body| body["data"].as_str().unwrap()).collect::<String>();
            let address = if detail["answer"]["kind"] == "A" { "c0000201" } else { "20010db8" };
            assert!(data.contains(address), "{detail:#}");
        }
    }
    let details = json(&site, &["dns", "cache", "show", ABSENT]);
    assert_eq!(details[0]["bodies"][0]["code"], "NXDOMAIN", "{details:#}");
    assert!(details[0]["answer"]["ends_in_seconds"].as_u64().unwrap() > 0, "{details:#}");
}

#[test]
fn a_flush_takes_away_what_was_asked_for_and_keeps_the_config() {
    if !needs_root("a_flush_takes_away_what_was_asked_for_and_keeps_the_config") {
        return;
    }
    let site = site();
    let server = site.servers[0];
    ask_for_what_is_absent(&site);
    assert_eq!(site.ask_whom(server, ABSENT, "A", &[]).1, By::Kernel);
    let output = site.agent.lb(["dns", "cache", "flush", ABSENT]).unwrap();
    assert!(output.stdout.starts_with("flushed 1 answer"), "{}", output.stdout);
    let status = site.agent.status().unwrap();
    assert_eq!(count(&status, "dns", "negatives_in_kernel"), 0);
    assert!(!listed(&site).iter().any(|row| row[0] == ABSENT));
    assert_eq!(site.ask_whom(server, ABSENT, "A", &[]).1, By::Agent);

    let generations = |site: &DnsSite| -> Vec<String> {
        site.held(NAME).iter().map(|detail| detail["bodies"][0]["generation"].to_string()).collect()
    };
    let before = generations(&site);
    let output = site.agent.lb(["dns", "cache", "flush", NAME]).unwrap();
    assert!(output.stdout.starts_with("flushed 2 answer"), "{}", output.stdout);
    assert_ne!(generations(&site), before, "they were not written anew");
    for server in site.servers {
        for (kind, records) in [("A", 3), ("AAAA", 2)] {
            let (answer, by) = site.ask_whom(server, NAME, kind, &[]);
            assert_eq!((answer.answers.len(), by), (records, By::Kernel), "{}", answer.text);
        }
    }
}

#[test]
fn the_names_that_are_asked_for_most_come_first() {
    if !needs_root("the_names_that_are_asked_for_most_come_first") {
        return;
    }
    let site = site();
    assert_eq!(json(&site, &["dns", "top"]), Value::Array(vec![]));
    site.ask_on_cpu(0, site.servers[0], &Question::new(NAME, Question::A), 6_400);
    site.ask_on_cpu(0, site.servers[1], &Question::new("rare.example.com", Question::A), 640);
    let top = json(&site, &["dns", "top"]);
    let rows: Vec<_> =
        top.as_array().unwrap().iter().map(|row| (row["name"].as_str().unwrap(), &row["kind"])).collect();
    assert_eq!(rows, [(NAME, &Value::from("A")), ("rare.example.com", &"A".into())], "{top:#}");
    let samples = [0, 1].map(|row: usize| top[row]["samples"].as_u64().unwrap());
    assert!((99..=101).contains(&samples[0]) && (9..=11).contains(&samples[1]), "{top:#}");
    assert!((top[0]["share"].as_f64().unwrap() - 100.0 / 110.0).abs() < 0.02, "{top:#}");
    let text = site.agent.lb(["dns", "top"]).unwrap().stdout;
    assert!(text.lines().nth(1).unwrap().starts_with(NAME), "{text}");
}

#[test]
fn what_is_not_held_or_no_name_is_refused_in_a_sentence() {
    if !needs_root("what_is_not_held_or_no_name_is_refused_in_a_sentence") {
        return;
    }
    let site = site();
    let long = "a".repeat(64);
    for verb in ["show", "flush"] {
        for (name, expected) in [
            ("nobody.example.com", "the kernel holds no answer for `nobody.example.com`"),
            ("a..b", "is no name"),
            (long.as_str(), "is no name"),
            ("", ""),
            ("wíth.example.com", ""),
            ("a b.example.com", ""),
        ] {
            let output = site.agent.attempt_lb(["dns", "cache", verb, name]).unwrap();
            assert_eq!(output.status.code(), Some(1), "{verb} {name:?}: {output:?}");
            assert!(
                output.stderr.contains(expected) && output.stderr.lines().count() == 1,
                "{verb} {name:?}: {output:?}"
            );
            assert_eq!(output.stdout, "");
        }
        for line in [vec!["dns", "cache", verb], vec!["dns", "cache", verb, "a", "b"], vec!["dns", "cache", "--all"]] {
            let output = site.agent.attempt_lb(&line).unwrap();
            assert_eq!(output.status.code(), Some(2), "{line:?}: {output:?}");
        }
    }
    // Nothing of that has changed anything.
    assert_eq!(count(&site.agent.status().unwrap(), "dns", "answers_in_kernel"), 4);
    site.agent.terminate().unwrap();
    for line in [&["dns", "top"][..], &["dns", "cache", "list"], &["dns", "cache", "show", NAME]] {
        let output = site.agent.attempt_lb(line).unwrap();
        assert_ne!(output.status.code(), Some(0));
        assert!(output.stderr.contains("agent"), "{line:?}: {output:?}");
    }
}
