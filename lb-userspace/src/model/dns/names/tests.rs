use super::*;
use crate::model::dns::fixture::{of_config, wire};
use hickory_proto::op::Message;
use lb_common::tables::answers::{NEGATIVE, Pick};

fn kind(kind: u16) -> u32 {
    u32::from(kind) | u32::from(IN) << 16
}

fn answer(names: &Names, name: &str, of: u16) -> Option<Rendered> {
    names.answer(&wire(name), kind(of)).map(Cow::into_owned)
}

/// The code, and the records in words, of each body.
fn texts(names: &Names, name: &str, of: u16) -> Vec<String> {
    let rendered = answer(names, name, of).unwrap();
    let text = |body: &super::super::rendered::Body| {
        let [answers, authorities, additionals] = body.counts;
        let mut bytes = vec![0, 0];
        for word in [body.flags, 1, answers, authorities, additionals] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(wire(name));
        bytes.extend([0, 1, 0, 1]);
        bytes.extend(&body.records);
        let message = Message::from_vec(&bytes).unwrap();
        assert_eq!(body.class == NEGATIVE, message.answers.is_empty());
        let records =
            message.answers.iter().chain(&message.authorities).map(|record| format!("{} {}", record.ttl, record.data));
        let code = u16::from(message.metadata.response_code);
        records.fold(code.to_string(), |text, record| format!("{text}; {record}"))
    };
    rendered.bodies.iter().map(text).collect()
}

const WWW: &str = "[[dns.name]]\nname = \"www.example.com\"\ncheck = \"web\"\naddresses = [\"10.0.0.1\", \"10.0.0.2\", \"10.0.0.3\", \"fd00::1\"]\n";
const DOMAIN: &str =
    "[[dns.domain]]\nname = \"example.com\"\nprimary = \"ns1.example.com\"\nnegative_ttl_seconds = 7\nserial = 9\n";
const SOA_TEXT: &str = "7 ns1.example.com. hostmaster.example.com. 9 7200 900 1209600 7";

#[test]
fn what_is_not_probed_yet_is_not_answered() {
    let names = of_config(WWW, &[]);
    assert_eq!(texts(&names, "www.example.com", A), ["2"]);
    let names = of_config(WWW, &["10.0.0.2", "10.0.0.3"]);
    assert_eq!(texts(&names, "www.example.com", A), ["0; 30 10.0.0.2; 30 10.0.0.3"]);
    assert_eq!(texts(&names, "www.example.com", AAAA), ["2"], "each family by itself");
    assert_eq!(texts(&names, "www.example.com", 15), ["0"]);
    assert_eq!(texts(&names, "www.example.com", ANY), ["0; 30 10.0.0.2; 30 10.0.0.3"]);
    assert_eq!(answer(&names, "example.com", A), None);
    assert_eq!(answer(&names, "a.www.example.com", A), None);
}

#[test]
fn below_the_minimum() {
    let with = |more: &str, up: &[&str]| of_config(&format!("{DOMAIN}{WWW}minimum_healthy = 2\n{more}"), up);
    let one = ["10.0.0.1", "fd00::1"];
    let cases: [(&str, &str, &str); 4] = [
        ("", "2", "2"),
        ("below_minimum = \"nodata\"", &format!("0; {SOA_TEXT}"), &format!("0; {SOA_TEXT}")),
        ("below_minimum = \"fail-open\"", "0; 30 10.0.0.1; 30 10.0.0.2; 30 10.0.0.3", "0; 30 fd00::1"),
        ("below_minimum = \"fallback\"\nfallback = [\"10.9.9.9\"]", "0; 30 10.9.9.9", &format!("0; {SOA_TEXT}")),
    ];
    for (more, four, six) in cases {
        let names = with(more, &one);
        assert_eq!(texts(&names, "www.example.com", A), [four], "{more}");
        assert_eq!(
            texts(&names, "www.example.com", AAAA),
            ["0; 30 fd00::1"],
            "a family with one address needs that one"
        );
        let names = with(more, &["10.0.0.1", "10.0.0.3"]);
        assert_eq!(texts(&names, "www.example.com", A), ["0; 30 10.0.0.1; 30 10.0.0.3"], "{more}");
        assert_eq!(texts(&names, "www.example.com", AAAA), [six], "{more}");
    }
}

#[test]
fn tiers_fail_over() {
    let text = "[[dns.name]]\nname = \"x\"\ncheck = \"web\"\npolicy = \"failover\"\nminimum_healthy = 2\nbelow_minimum = \"fail-open\"\naddresses = [\
        { address = \"10.0.0.1\" }, { address = \"10.0.0.2\" }, { address = \"10.0.1.1\", tier = 2 }, { address = \"10.0.1.2\", tier = 2 }, \
        { address = \"10.0.2.1\", tier = 7 }]\n";
    for (up, expected) in [
        (&["10.0.0.1", "10.0.0.2", "10.0.1.1", "10.0.1.2"][..], "0; 30 10.0.0.1; 30 10.0.0.2"),
        (&["10.0.0.1", "10.0.1.1", "10.0.1.2", "10.0.2.1"], "0; 30 10.0.1.1; 30 10.0.1.2"),
        (&["10.0.0.1", "10.0.1.1", "10.0.2.1"], "0; 30 10.0.2.1"),
        (&["10.0.0.1", "10.0.1.1"], "0; 30 10.0.0.1; 30 10.0.0.2"),
    ] {
        assert_eq!(texts(&of_config(text, up), "x", A), [expected], "{up:?}");
    }
}

#[test]
fn weight_zero_is_not_answered_and_does_not_count() {
    let text = "[[dns.name]]\nname = \"x\"\ncheck = \"web\"\npolicy = \"weighted\"\naddresses = [\
        { address = \"10.0.0.1\", weight = 0 }, { address = \"10.0.0.2\", weight = 3 }, { address = \"10.0.0.3\", weight = 2 }]\n";
    assert_eq!(texts(&of_config(text, &["10.0.0.1"]), "x", A), ["2"]);
    assert_eq!(texts(&of_config(text, &["10.0.0.1", "10.0.0.3"]), "x", A), ["0; 30 10.0.0.3"]);
    let both = of_config(text, &["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
    assert_eq!(texts(&both, "x", A), ["0; 30 10.0.0.2", "0; 30 10.0.0.3"]);
    assert_eq!(answer(&both, "x", A).unwrap().slots.len(), 5);
}

#[test]
fn a_domain_tells_what_there_is_not() {
    let text = format!("{DOMAIN}{WWW}[[dns.name]]\nname = \"a.deep.example.com\"\ntxt = [\"x\"]\n");
    let names = of_config(&text, &["10.0.0.1"]);
    let (none, nothing) = ([format!("0; {SOA_TEXT}")], [format!("3; {SOA_TEXT}")]);
    assert_eq!(texts(&names, "www.example.com", 15), none);
    assert_eq!(texts(&names, "deep.example.com", A), none, "between a name and the domain");
    assert_eq!(texts(&names, "example.com", A), none);
    assert_eq!(texts(&names, "example.com", SOA), none);
    for absent in ["x.example.com", "x.www.example.com", "www.deep.example.com"] {
        assert_eq!(texts(&names, absent, A), nothing, "{absent}");
    }
    assert_eq!(answer(&names, "example.org", A), None);
    assert_eq!(answer(&names, "com", A), None);
    assert_eq!(names.answer(&wire("www.example.com"), u32::from(A) | 3 << 16), None, "another class");
    assert_eq!(names.zone().len(), 2);
}

#[test]
fn other_records() {
    let text = "[[dns.name]]\nname = \"alias.example.com\"\ncname = \"host.example.com\"\n\
        [[dns.name]]\nname = \"example.com\"\nmx = [\"10 a.example.com\", \"20 b.example.com\"]\ntxt = [\"one\", \"the other\"]\n\
        srv = [\"1 2 3 .\"]\naddresses = [\"10.0.0.1\"]\n";
    let names = of_config(text, &[]);
    for of in [A, AAAA, CNAME, 15, 16, 65, ANY] {
        assert_eq!(texts(&names, "alias.example.com", of), ["0; 30 host.example.com."], "{of}");
    }
    assert_eq!(texts(&names, "example.com", 15), ["0; 30 10 a.example.com.; 30 20 b.example.com."]);
    assert_eq!(texts(&names, "example.com", 16), ["0; 30 one; 30 the other", "0; 30 the other; 30 one"]);
    assert_eq!(texts(&names, "example.com", 33), ["0; 30 1 2 3 ."]);
    assert_eq!(texts(&names, "example.com", A), ["0; 30 10.0.0.1"], "without a check it is up");
    let all: Vec<_> = names.all().map(|(question, _)| (question.wire.to_vec(), question.kind as u16)).collect();
    let mut expected = Vec::new();
    expected.extend([A, CNAME, AAAA].map(|of| (wire("alias.example.com"), of)));
    expected.extend([A, 15, 16, AAAA, 33].into_iter().filter(|of| *of != AAAA).map(|of| (wire("example.com"), of)));
    assert_eq!(all, expected);
}

#[test]
fn health_changes_what_depends_on_it_and_nothing_else() {
    let text =
        format!("{WWW}[[dns.name]]\nname = \"other\"\ncheck = \"web\"\naddresses = [\"10.0.0.1\", \"10.0.0.9\"]\n");
    let mut names = of_config(&text, &["10.0.0.1", "10.0.0.9"]);
    let target = |address: &str| {
        names.zone().targets().find(|target| target.address.ip().to_string() == address).unwrap().clone()
    };
    let (one, two, nine) = (target("10.0.0.1"), target("10.0.0.2"), target("10.0.0.9"));
    let before = names.clone();
    assert!(
        names
            .refresh(&BTreeSet::from([one.clone(), nine.clone()]), [one.clone(), two.clone(), nine.clone()])
            .is_empty(),
        "nothing has turned"
    );
    assert_eq!(names.refresh(&BTreeSet::from([one.clone()]), [nine]), [wire("other").into()]);
    assert_eq!(texts(&names, "other", A), ["0; 30 10.0.0.1"]);
    assert_eq!(
        names.refresh(&BTreeSet::from([two.clone()]), [one, two]),
        [wire("www.example.com").into(), wire("other").into()]
    );
    assert_eq!(
        (texts(&names, "other", A), texts(&names, "www.example.com", A)),
        (vec!["2".into()], vec!["0; 30 10.0.0.2".into()])
    );
    assert_eq!(texts(&before, "other", A), ["0; 30 10.0.0.1; 30 10.0.0.9"], "an earlier one stays what it was");
    assert_eq!(answer(&before, "other", A).unwrap().pick, Pick::Turn);
}
