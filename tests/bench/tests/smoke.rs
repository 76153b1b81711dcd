//! Each case does what it says, which is seen before it is measured, and what is written can be read. How long things take is not
//! looked at.
#![expect(clippy::unwrap_used, reason = "helpers of a test")]

use serde_json::Value;
use std::{collections::BTreeSet, fs, process::Command};
use tests::{needs_program, needs_root};

fn bench(words: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_bench")).args(words).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "bench {words:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[test]
fn every_case_of_the_path_does_what_it_says() {
    if !needs_root("every_case_of_the_path_does_what_it_says") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("path.json");
    let said = bench(&["path", "--runs", "1", "--packets", "64", "--json", file.to_str().unwrap()]);
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["ratio_to_pass"], 1.0);
    let mut names = BTreeSet::new();
    for line in &lines {
        let name = line["case"].as_str().unwrap();
        assert!(names.insert(name), "{name} comes twice");
        assert!(said.contains(name), "{name} is not in the table:\n{said}");
        let [median, least, ratio] = ["ns_median", "ns_min", "ratio_to_pass"].map(|key| line[key].as_f64().unwrap());
        assert!(least > 0.0 && median >= least && ratio > 0.0, "{line}");
    }
    assert!(names.len() > 40, "only {} cases", names.len());
}

#[test]
fn live_frames_arrive() {
    if !needs_root("live_frames_arrive") {
        return;
    }
    let said = bench(&["path", "--runs", "1", "--packets", "64", "--only", "not ours", "--live", "--frames", "6400"]);
    for row in ["drop", "drop, after the path", "transmit, by the path", "redirect, by the path"] {
        assert!(said.lines().any(|line| line.starts_with(row)), "no row {row}:\n{said}");
    }
}

#[test]
fn large_tables_are_written() {
    if !needs_root("large_tables_are_written") {
        return;
    }
    let said = bench(&["load", "--services", "20", "--backends", "30"]);
    assert!(said.contains("5020 slots, 251 a service") && said.contains("from text to tables"), "{said}");
}

#[test]
fn the_agent_is_measured() {
    if !needs_root("the_agent_is_measured") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.json");
    let sizes = "agent --services 20 --backends 5 --targets 30 --connections 200 --deaths 1 --json";
    let said = bench(&sizes.split(' ').chain([file.to_str().unwrap()]).collect::<Vec<_>>());
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let value = |start: &str| {
        let found = lines.iter().find(|line| line["case"].as_str().unwrap().starts_with(start));
        found.unwrap_or_else(|| panic!("no {start} in\n{text}"))["value"].as_f64().unwrap()
    };
    for case in [
        "start with 20 services x 5 backends",
        "memory of the agent with 20 services",
        "a weight in the config to the maps, 10 services",
        "a backend's failure to the maps, 10 services",
        "Maglev: a table of 65537 slots",
        "Maglev: planned, and the changed slots of 65537",
        "a backend refuses checks",
        "TCP checks a second",
        "30 targets every 1000 ms on one core, a third of them hanging: checks",
        "20 services x 10 backends on 1000 machines: `lb backend weight`",
    ] {
        assert!(value(case) > 0.0 && said.contains(case), "{case}: {said}");
    }
    assert_eq!(value("200 idle connections through 10 changes"), 0.0, "{said}");
    let keys = |line: &Value| line.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert!(lines.iter().all(|line| keys(line) == ["case", "unit", "value"].map(str::to_owned).into()), "{text}");
}

#[test]
fn servers_are_measured_side_by_side() {
    let name = "servers_are_measured_side_by_side";
    if !needs_root(name) || !needs_program(name, "knotd") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("dns.json");
    let case = "10,000 names";
    let words = ["dns", "--subjects", "floor,knot", "--only", case, "--runs", "1", "--seconds", "0.2", "--json"];
    let said = bench(&[&words[..], &[file.to_str().unwrap()]].concat());
    let text = fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{text}{said}");
    for (line, subject) in lines.iter().zip(["floor", "knot"]) {
        assert_eq!((&line["case"], &line["subject"]), (&case.into(), &subject.into()));
        assert!(line["own_ns"].is_null() && line["not_run"].is_null(), "{line}");
        assert!(["server", "generator", "CPU share"].contains(&line["limited_by"].as_str().unwrap()), "{line}");
        let number = |key: &str| line[key].as_f64().unwrap();
        assert!(number("cpu_ns") > 0.0 && number("qps") > 0.0 && number("unanswered") < 0.5, "{line}");
        assert!((number("qps_per_core") * number("cpu_ns") / 1e9 - 1.0).abs() < 0.01, "{line}");
    }
}
