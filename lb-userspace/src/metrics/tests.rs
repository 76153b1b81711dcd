use super::*;
use crate::model::pool::Pool;
use crate::status::{ChangesStatus, DnsStatus, FileStatus, InterfaceStatus, NameStatus, ReloadsStatus, ServiceStatus};
use lb_common::verdict::Why;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const TABLE: &str = include_str!("../../../METRICS.md");
const DASHBOARD: &str = include_str!("../../grafana/lb.json");

fn backend(address: &str, health: State) -> BackendStatus {
    BackendStatus {
        address: address.parse().unwrap(),
        host: None,
        srv: None,
        file: None,
        weight: 2,
        health,
        since_seconds: None,
        last_failure: None,
        last_output: None,
        certificate: None,
        agent_says: None,
        weight_percent: 100,
        backup: false,
        draining: false,
        disabled: false,
        draining_seconds: None,
        drain_left_seconds: None,
        drained: false,
        leaving: false,
        flows: 3,
        no_next_hop: None,
        narrow: None,
        serving: true,
        packets: 5,
        bytes: 700,
    }
}

/// A status in which everything is.
pub fn status() -> Status {
    let backends = vec![backend("10.0.0.1:80", State::Up), backend("[fd00::1]:80", State::Unknown)];
    let service = ServiceStatus {
        name: "web".into(),
        address: "192.0.2.10:80".parse().unwrap(),
        protocol: "tcp".into(),
        mode: "dsr".into(),
        slots: 1_009,
        changed_slots: 1,
        pool: Pool::Main,
        minimum_healthy: 1,
        packets: 10,
        bytes: 1_400,
        backends,
        names: vec![NameStatus {
            name: "api.example.com".into(),
            kind: "A".into(),
            records: vec!["10.0.0.1".into()],
            resolved_seconds: Some(1),
            error: None,
        }],
        backends_file: Some(FileStatus { path: "/etc/lb/web.json".into(), error: None }),
    };
    let dns = DnsStatus {
        listen: Vec::new(),
        names: 1,
        answers_in_kernel: 2,
        negatives_in_kernel: 1,
        answer_bytes: 64,
        answer_memory: 4_096,
        left_to_agent: 0,
        answered_by_kernel: 9,
        agent: crate::dns::listen::Counts::default().snapshot(),
    };
    Status {
        version: "0.1.0".into(),
        uptime_seconds: 60,
        memory_bytes: 1 << 20,
        reloads: ReloadsStatus { applied: 2, refused: 1 },
        changes: ChangesStatus { made: 1, stale: 0 },
        interfaces: vec![InterfaceStatus { name: "eth\"0\\".into(), index: Some(2) }],
        services: vec![service],
        tracked_flows: 4,
        dns,
        packets: Why::ALL.iter().map(|why| (why.name().into(), 1)).collect(),
    }
}

/// Samples of the text, each with its metric's name, its labels and its value.
fn samples(text: &str) -> Vec<(String, BTreeSet<String>, u64)> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (front, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = front.split_once('{').unwrap_or((front, ""));
        let labels =
            labels.trim_end_matches('}').split("\",").filter_map(|label| Some(label.split_once('=')?.0.into()));
        (name.into(), labels.collect(), value.parse().unwrap())
    };
    lines.map(sample).collect()
}

#[test]
fn what_is_written_is_what_the_table_says() {
    let text = text(&status());
    let known: BTreeMap<&str, BTreeSet<String>> = METRICS
        .iter()
        .map(|metric| (metric.name, metric.labels.iter().map(|label| (*label).into()).collect()))
        .collect();
    let samples = samples(&text);
    for (name, labels, _) in &samples {
        assert_eq!(known.get(name.as_str()), Some(labels), "{name}");
    }
    let written: BTreeSet<&str> = samples.iter().map(|(name, _, _)| name.as_str()).collect();
    assert_eq!(written, known.into_keys().collect());
    for metric in METRICS {
        for (head, rest) in [("HELP", metric.help), ("TYPE", metric.kind.word())] {
            assert_eq!(text.matches(&format!("# {head} {} {rest}\n", metric.name)).count(), 1, "{}", metric.name);
        }
    }
    for line in [
        "lb_interface_attached{interface=\"eth\\\"0\\\\\"} 1\n",
        "lb_backend_bytes_total{service=\"web\",backend=\"[fd00::1]:80\"} 700\n",
        "lb_backend_up{service=\"web\",backend=\"10.0.0.1:80\"} 1\n",
        "lb_packets_total{why=\"forwarded_dsr\"} 1\n",
        "lb_service_info{service=\"web\",address=\"192.0.2.10:80\",protocol=\"tcp\",mode=\"dsr\"} 1\n",
    ] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    // What was not checked yet is neither up nor down.
    assert!(!text.contains("lb_backend_up{service=\"web\",backend=\"[fd00::1]:80\"}"));
}

/// <https://prometheus.io/docs/practices/naming/>
#[test]
fn names_and_units_are_as_prometheus_has_them() {
    let mut names = BTreeSet::new();
    for Metric { name, kind, labels, help, .. } in METRICS {
        assert!(names.insert(name), "{name} is there twice");
        assert!(
            name.starts_with("lb_") && name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_'),
            "{name}"
        );
        assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
        for unit in ["milli", "_ms", "kilo", "mega", "minute", "percent", "_kb", "_mb"] {
            assert!(!name.contains(unit), "{name} is not in a base unit");
        }
        assert!(help.ends_with('.') && !help.contains('\n') && !help.contains('\\'), "{help}");
        assert!(labels.iter().all(|label| label.chars().all(|letter| letter.is_ascii_lowercase())), "{labels:?}");
    }
}

#[test]
fn the_table_for_people_is_the_same() {
    let expected = METRICS.iter().map(|Metric { name, kind, labels, help, .. }| {
        let labels: Vec<_> = labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{name}` | {} | {} | {help} |", kind.word(), labels.join(", "))
    });
    let rows: Vec<_> = TABLE.lines().filter(|line| line.starts_with("| `lb_")).collect();
    assert_eq!(rows, expected.collect::<Vec<_>>());
}

/// Every string below a key.
fn strings<'v>(value: &'v Value, key: &str, found: &mut Vec<&'v str>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                match value {
                    Value::String(text) if name == key => found.push(text),
                    value => strings(value, key, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|value| strings(value, key, found)),
        _ => (),
    }
}

#[test]
fn the_dashboard_asks_for_nothing_else() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut queries = Vec::new();
    for key in ["expr", "query"] {
        strings(&dashboard, key, &mut queries);
    }
    assert!(queries.len() >= 10, "{queries:?}");
    let (mut names, mut labels) = (BTreeSet::new(), BTreeSet::new());
    for Metric { name, labels: own, .. } in METRICS {
        names.insert(*name);
        labels.extend(own.iter().copied());
    }
    let mut asked = BTreeSet::new();
    for query in queries {
        let words = query.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        asked.extend(words.filter(|word| word.starts_with("lb_")));
        for by in query.split("by (").skip(1) {
            let list = by.split(')').next().unwrap();
            assert!(
                list.split(',').all(|label| labels.contains(label.trim()) || label.trim() == "instance"),
                "{query}"
            );
        }
        for legend in query.split("{{").skip(1) {
            assert!(labels.contains(legend.split("}}").next().unwrap().trim()), "{query}");
        }
    }
    assert!(asked.len() >= 10 && asked.is_subset(&names), "{:?}", asked.difference(&names));
}
