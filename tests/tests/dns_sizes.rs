//! Questions and answers of every size over veth, where a packet hardly grows at its end: each is answered, by whoever can.

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use std::fmt::Write as _;
use support::{
    count, name,
    names::{By, DnsSite, addresses, answered, found, of_kind},
};
use tests::{needs_root, questions::Question};

/// Bytes of names on the wire.
const NAMES: [usize; 9] = [9, 17, 33, 64, 100, 129, 190, 254, 255];
/// Bytes of data; the last ones fill a response of 1,232 bytes, or are one too many for it.
const DATA: [usize; 12] = [2, 40, 100, 150, 170, 190, 230, 300, 450, 600, 800, 1_000];
/// What kernel and agent send at most.
const LARGEST: usize = 1_232;
const HEADER: usize = 12;
/// Type and class behind a name.
const KIND: usize = 4;
/// A record without its data, its name shortened.
const RECORD: usize = 12;
const OPT: usize = 11;

/// A name of so many bytes on the wire.
fn name_of(length: usize, number: usize) -> String {
    let mut left = length - 1;
    let mut labels = Vec::new();
    while left > 0 {
        // No label is left without a letter.
        let label = left.min(64) - usize::from(left == 65);
        let stem = if labels.is_empty() { format!("n{number}") } else { String::new() };
        labels.push(format!("{stem:a<width$}", width = label - 1));
        left -= label;
    }
    labels.join(".")
}

/// A text whose data has so many bytes on the wire, or one less: a piece of 255 has one before it.
fn text_of(data: usize) -> String {
    ('a'..='z').cycle().take(data - data.div_ceil(256)).collect()
}

fn data_length(text: &str) -> usize {
    text.len() + text.len().div_ceil(255)
}

#[test]
fn every_length_of_name_and_answer_arrives() {
    if !needs_root("every_length_of_name_and_answer_arrives") {
        return;
    }
    let mut names: Vec<(String, String)> = Vec::new();
    let mut config = String::new();
    for length in NAMES {
        let most = LARGEST - HEADER - length - KIND - RECORD - OPT;
        let around = [512 - HEADER - length.min(480) - KIND - RECORD, most - 1, most, most + 2];
        for data in DATA.iter().copied().chain(around).filter(|data| *data > 1) {
            let (name, text) = (name_of(length, names.len()), text_of(data));
            assert_eq!(name.len() + 2, length);
            write!(config, "\n[[dns.name]]\nname = \"{name}\"\ntxt = [\"{text}\"]\n").unwrap();
            names.push((name, text));
        }
    }
    let site = DnsSite::up(0, |_| config);
    let forms: [&dyn Fn(Question) -> Question; 6] = [
        &|question| question,
        &|question| question.edns(LARGEST as u16),
        &|question| question.edns(4_096).cookie(b"01234567"),
        &|question| question.padding(40),
        &|question| question.padding(200),
        &|question| question.padding(700),
    ];
    let before = answered(&site.agent.status().unwrap());
    let (mut asked, mut truncated) = (0, 0);
    for server in site.servers {
        let asker = site.asker(server);
        for form in forms {
            for (name, text) in &names {
                let question = form(Question::new(name, Question::TXT));
                let response = asker.ask(&question).unwrap();
                let opt = match (question.size, question.cookie.len()) {
                    (None, _) => 0,
                    (Some(_), 0) => OPT,
                    (Some(_), _) => OPT + 4 + 24,
                };
                let whole = HEADER + name.len() + 2 + KIND + RECORD + data_length(text) + opt;
                let limit = question.size.map_or(512, |size| usize::from(size).min(LARGEST));
                assert_eq!(response.is_truncated(), whole > limit, "{whole} bytes: {question:?} {response:?}");
                asked += 1;
                if whole > limit {
                    truncated += 1;
                    assert!(response.data.is_empty() && response.bytes <= limit, "{question:?} {response:?}");
                } else {
                    let pieces: Vec<u8> =
                        text.as_bytes().chunks(255).flat_map(|piece| [&[piece.len() as u8], piece].concat()).collect();
                    assert!(response.data == [pieces], "{question:?} {response:?}");
                    assert_eq!(response.bytes, whole);
                }
            }
        }
    }
    let status = site.agent.status().unwrap();
    let after = answered(&status);
    let [kernel, agent] = [after[0] - before[0], after[1] - before[1]];
    println!("{asked} questions: {kernel} answered by the kernel, {agent} by the agent; {truncated} were sent to TCP");
    assert_eq!(kernel + agent, asked);
    // All that the agent got had an answer in the kernel, but no room for it, or is larger than what the kernel ever sends.
    assert_eq!(count(&status, "packets", "no_room") + count(&status, "packets", "dns_miss"), agent);
    assert!(kernel > asked / 3, "{kernel} of {asked}");

    for (name, text) in names.iter().step_by(5) {
        // dig asks again by TCP by itself.
        for server in site.servers {
            let answer = site.ask(server, name, "TXT", &["+noedns"]);
            assert!(!answer.has_flag("tc"), "{}", answer.text);
            let data: String = answer.data("TXT").concat().split(['"', ' ']).collect();
            assert_eq!(data, *text);
        }
    }
}

#[test]
fn what_is_too_large_goes_over_tcp() {
    if !needs_root("what_is_too_large_goes_over_tcp") {
        return;
    }
    const LONG: &str = "a-name-so-long-that-sixteen-records-behind-it-leave-no-room.example.com";
    let all = addresses(1, 16);
    let site = DnsSite::up(0, |_| name(LONG, &all, ""));
    for server in site.servers {
        for (more, bytes) in [(&["+noedns", "+ignore"][..], 512), (&["+bufsize=512", "+ignore"], 512)] {
            let (answer, by) = site.ask_whom(server, LONG, "AAAA", more);
            assert_eq!(by, By::Kernel);
            assert!(answer.has_flag("tc") && answer.has_flag("aa") && answer.status == "NOERROR", "{}", answer.text);
            assert!(answer.bytes <= bytes && answer.answers.is_empty(), "{}", answer.text);
        }
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
