use super::*;
use proptest::prelude::*;

const HOST: &str = "api-server-01.internal.example.com";

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn question() -> Question {
    Question::new(HOST, Kind::A)
}

fn addresses(last: &[u8]) -> Records {
    Records::Addresses(last.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect())
}

fn found(last: &[u8], ttl: u64) -> Outcome {
    Ok(Found { records: addresses(last), ttl: seconds(ttl) })
}

fn discovery() -> Discovery {
    let mut discovery = Discovery::default();
    discovery.want(&BTreeSet::from([question()]));
    discovery
}

fn listed(discovery: &Discovery) -> Vec<String> {
    discovery.answers().addresses(HOST, Kind::A).map(|address| address.to_string()).collect()
}

#[test]
fn a_name_is_asked_at_once_and_again_by_its_ttl() {
    let mut discovery = discovery();
    assert!(discovery.is_new());
    assert_eq!(discovery.due(seconds(0)), [question()]);
    assert_eq!(discovery.due(seconds(5)), [], "somebody is at it");
    let new = discovery.on(seconds(5), 1, &question(), found(&[1], 60)).unwrap();
    assert!(listed(&discovery).is_empty(), "who makes the intent has not said that it is right");
    discovery.take(&question(), new);
    assert!(!discovery.is_new());
    assert_eq!(listed(&discovery), ["10.0.0.1"]);
    assert_eq!(discovery.due(seconds(64)), []);
    assert_eq!(discovery.due(seconds(65)), [question()]);
    assert_eq!(discovery.on(seconds(65), 2, &question(), found(&[1], 60)), None, "nothing is new");
    assert_eq!(discovery.known(&question()).unwrap().heard, Some(2));
}

#[test]
fn ttls_are_bounded() {
    for (ttl, asked) in [(0, 1), (1, 1), (3_600, 3_600), (604_800, 3_600)] {
        let mut discovery = discovery();
        discovery.due(seconds(0));
        discovery.on(seconds(0), 0, &question(), found(&[1], ttl));
        assert_eq!(discovery.due(seconds(asked) - Duration::from_millis(1)), [], "{ttl}");
        assert_eq!(discovery.due(seconds(asked)), [question()], "{ttl}");
    }
}

#[test]
fn a_failure_leaves_the_last_answer_and_is_told() {
    let mut discovery = discovery();
    discovery.due(seconds(0));
    let new = discovery.on(seconds(0), 7, &question(), found(&[1, 2], 5)).unwrap();
    discovery.take(&question(), new);
    let mut now = seconds(5);
    for pause in [1, 2, 4, 8, 16, 30, 30, 30] {
        assert_eq!(discovery.due(now), [question()]);
        assert_eq!(discovery.on(now, 9, &question(), Err("no answer".into())), None);
        assert_eq!(discovery.due(now + seconds(pause) - Duration::from_millis(1)), []);
        now += seconds(pause);
    }
    assert_eq!(listed(&discovery), ["10.0.0.1", "10.0.0.2"]);
    let known = discovery.known(&question()).unwrap();
    assert_eq!((known.heard, known.error), (Some(7), Some("no answer")));
    discovery.due(now);
    let new = discovery.on(now, 10, &question(), found(&[2], 5)).unwrap();
    discovery.take(&question(), new);
    assert_eq!(listed(&discovery), ["10.0.0.2"]);
    assert_eq!(discovery.known(&question()).unwrap().error, None);
}

#[test]
fn a_refused_answer_leaves_the_one_before() {
    let mut discovery = discovery();
    discovery.due(seconds(0));
    let new = discovery.on(seconds(0), 0, &question(), found(&[1], 5)).unwrap();
    discovery.take(&question(), new);
    discovery.due(seconds(5));
    assert_eq!(discovery.on(seconds(5), 1, &question(), found(&[9], 5)), Some(addresses(&[9])));
    discovery.refuse(&question(), "shared".into());
    assert_eq!(listed(&discovery), ["10.0.0.1"]);
    // It is tried again as long as it is answered.
    discovery.due(seconds(10));
    assert_eq!(discovery.on(seconds(10), 1, &question(), found(&[9], 5)), Some(addresses(&[9])));
}

#[test]
fn what_is_kept_is_known_to_a_later_agent() {
    let mut before = discovery();
    before.due(seconds(0));
    let new = before.on(seconds(0), 42, &question(), found(&[1], 600)).unwrap();
    before.take(&question(), new);
    let text = serde_json::to_string(&before.kept()).unwrap();
    let mut after = Discovery::inherited(serde_json::from_str(&text).unwrap());
    after.want(&BTreeSet::from([question()]));
    assert_eq!(listed(&after), ["10.0.0.1"]);
    assert_eq!(after.known(&question()).unwrap().heard, Some(42));
    assert!(!after.is_new(), "there is no need to wait for DNS");
    assert_eq!(after.due(seconds(0)), [question()], "it may be another one by now");
}

#[test]
fn what_is_no_longer_in_the_config_is_forgotten() {
    let mut discovery = discovery();
    discovery.due(seconds(0));
    let new = discovery.on(seconds(0), 0, &question(), found(&[1], 5)).unwrap();
    discovery.take(&question(), new);
    discovery.want(&BTreeSet::new());
    assert!(listed(&discovery).is_empty() && discovery.kept().is_empty() && discovery.due(seconds(9)).is_empty());
    assert_eq!(discovery.on(seconds(9), 0, &question(), found(&[1], 5)), None);
}

#[test]
fn a_family_may_go_as_long_as_the_other_is_there() {
    let [ipv4, ipv6] = [Kind::A, Kind::Aaaa].map(|kind| Question::new(HOST, kind));
    let one = |text: &str| Records::Addresses(BTreeSet::from([text.parse().unwrap()]));
    let none = Records::Addresses(BTreeSet::new());
    let mut discovery = Discovery::default();
    discovery.want(&BTreeSet::from([ipv4.clone(), ipv6.clone()]));
    let mut told = |question: &Question, records: &Records| {
        let outcome = Ok(Found { records: records.clone(), ttl: seconds(5) });
        let new = discovery.on(seconds(0), 1, question, outcome);
        if let Some(new) = &new {
            discovery.take(question, new.clone());
        }
        (new, discovery.known(question).unwrap().error.map(str::to_owned))
    };
    let no_a = Some(String::from("the name has no A record"));
    assert_eq!(told(&ipv4, &none), (None, no_a.clone()), "nothing is known of the other yet");
    assert_eq!(told(&ipv6, &one("fd00::1")), (Some(one("fd00::1")), None));
    assert_eq!(told(&ipv4, &none), (Some(none.clone()), None));
    assert_eq!(told(&ipv4, &one("10.0.0.1")), (Some(one("10.0.0.1")), None));
    assert_eq!(told(&ipv6, &none), (Some(none.clone()), None));
    assert_eq!(told(&ipv4, &none), (None, no_a), "the last one stays");
    assert_eq!(listed(&discovery), ["10.0.0.1"]);
}

proptest! {
    /// Whatever DNS does: what is in use is the last good answer, and a question is asked again after 1 s at least and 1 h at most.
    #[test]
    fn the_last_good_answer_is_in_use(
        outcomes in prop::collection::vec(prop::option::of((1_u8..4, 0_u64..100_000)), 1..40),
    ) {
        let mut discovery = discovery();
        let mut now = Duration::ZERO;
        let mut last = None;
        for outcome in outcomes {
            prop_assert_eq!(discovery.due(now), [question()]);
            let told = match outcome {
                Some((address, ttl)) => {
                    last = Some(address);
                    found(&[address], ttl)
                }
                None => Err("no answer".into()),
            };
            if let Some(new) = discovery.on(now, 0, &question(), told) {
                discovery.take(&question(), new);
            }
            let expected: Vec<String> = last.iter().map(|last| format!("10.0.0.{last}")).collect();
            prop_assert_eq!(listed(&discovery), expected);
            prop_assert!(discovery.due(now + HOLDS[0] - Duration::from_millis(1)).is_empty());
            let asked = (1..=3_600).map(|after| now + seconds(after)).find(|at| !discovery.clone().due(*at).is_empty());
            prop_assert!(asked.is_some());
            now = asked.unwrap();
        }
    }
}
