//! The agent's life under a real load, by the losses: what goes on loses no datagram, sends no segment twice, drops no frame, and is
//! never seen by a second backend, whatever becomes of the agent.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};
use support::{
    TURN,
    farm::{Farm, Kind, Load, Mode, Requests},
    wait_for,
};
use tests::{Agent, Counters, lb_binary, needs_program, needs_root, wait_until};

/// Connections and flows of datagrams of a load, in each family.
const FLOWS: usize = 10;
/// Answers that every flow has to have had before a change counts as survived.
const ENOUGH: u64 = 10;

/// A farm under load, and what it had lost before.
struct Loaded {
    farm: Farm,
    load: Load,
    requests: Requests,
    before: Counters,
}

impl Loaded {
    fn start(farm: Farm) -> Self {
        let before = farm.losses();
        let load = Load::start(&farm, FLOWS);
        let requests = Requests::start(&farm);
        Self { farm, load, requests, before }
    }

    /// Asserts that nothing was lost, and that every flow is still with its backend.
    fn assert_nothing_lost(self) {
        self.load.wait_for_more(ENOUGH);
        self.requests.assert_undisturbed();
        assert_eq!(self.farm.losses().moved_since(&self.before, &[]), BTreeMap::new());
        assert_eq!(self.farm.moved(), BTreeMap::new());
        self.load.stop().assert_undisturbed();
    }
}

/// How often a running agent has said something.
fn said(agent: &Agent, what: &str) -> usize {
    agent.running().log().matches(what).count()
}

#[test]
fn a_hundred_reloads_lose_nothing() {
    if !needs_root("a_hundred_reloads_lose_nothing") {
        return;
    }
    let loaded = Loaded::start(Farm::up(Mode::Dsr, 3, &[0, 1, 2], ""));
    let farm = &loaded.farm;
    let configs = [&[0, 1][..], &[0, 1, 2]].map(|members| farm.config(members));
    let wrong = farm.config(&[0]).replace("weight = 1", "wieght = 1");
    for (number, config) in (1..=100).zip(configs.iter().cycle()) {
        farm.agent.reload(config).unwrap();
        wait_until(TURN, "the reload", || (said(&farm.agent, " reloaded config=") == number).then_some(())).unwrap();
        if number % 10 == 0 {
            farm.agent.reload(&wrong).unwrap();
            let refused = || (said(&farm.agent, "not reloaded, nothing is changed") == number / 10).then_some(());
            wait_until(TURN, "the refusal", refused).unwrap();
        }
    }
    farm.wait_until_serving(&[0, 1, 2]);
    loaded.assert_nothing_lost();
}

#[test]
fn twenty_deaths_lose_nothing() {
    if !needs_root("twenty_deaths_lose_nothing") {
        return;
    }
    let mut loaded = Loaded::start(Farm::up(Mode::Nat, 3, &[0, 1, 2], ""));
    let config = loaded.farm.config(&[0, 1, 2]);
    for number in 0..20 {
        // Some die while they start: what is half done has to do.
        if number % 4 == 3 {
            let path = loaded.farm.agent.config().display().to_string();
            let line = [lb_binary().unwrap().display().to_string(), "run".into(), "--config".into(), path];
            loaded.farm.agent.kill().unwrap();
            let begun = loaded.farm.lab.balancer().spawn(line).unwrap();
            wait_until(TURN, "it has begun to start", || {
                let maps = fs::read_to_string(format!("/proc/{}/maps", begun.pid())).unwrap_or_default();
                maps.contains("bpf-map").then_some(())
            })
            .unwrap();
            begun.kill().unwrap();
        } else {
            loaded.farm.agent.kill().unwrap();
        }
        loaded.farm.agent = Agent::start(loaded.farm.lab.balancer(), &config).unwrap();
    }
    loaded.farm.wait_until_serving(&[0, 1, 2]);
    loaded.assert_nothing_lost();
}

/// Id of the program on the balancer's `eth0`.
fn program(farm: &Farm) -> u64 {
    let line = ["ip", "-json", "link", "show", "dev", "eth0"];
    let links: serde_json::Value = serde_json::from_str(&farm.lab.balancer().run(line).unwrap().stdout).unwrap();
    links.pointer("/0/xdp/prog/id").unwrap().as_u64().unwrap()
}

#[test]
fn an_upgrade_in_a_drain_and_a_proof_lose_nothing() {
    if !needs_root("an_upgrade_in_a_drain_and_a_proof_lose_nothing") {
        return;
    }
    let mut loaded = Loaded::start(Farm::up(Mode::Dsr, 3, &[0, 1, 2], ""));
    let config = loaded.farm.config(&[0, 1, 2]);
    loaded.farm.backend_command("drain", 1, &[]);
    let status = loaded.farm.wait_until_serving(&[0, 2]);
    for (kind, service) in loaded.farm.all_services() {
        assert_eq!(loaded.farm.backend_status(&status, kind, service, 1)["draining"], true, "{status:#}");
    }
    let before = program(&loaded.farm);
    // Another file, as a package brings it, and the way that a service goes: an orderly end, then a start.
    let newer = loaded.farm.lab.folder().join("lb-newer");
    fs::copy(lb_binary().unwrap(), &newer).unwrap();
    assert_eq!(loaded.farm.agent.terminate().unwrap().code(), Some(0));
    loaded.farm.agent = Agent::start_binary(loaded.farm.lab.balancer(), &newer, &config).unwrap();
    let after = program(&loaded.farm);
    assert_ne!(after, before);
    let status = loaded.farm.wait_until_serving(&[0, 2]);
    for (kind, service) in loaded.farm.all_services() {
        assert_eq!(loaded.farm.backend_status(&status, kind, service, 1)["draining"], true, "{status:#}");
    }
    // A proof stands before the program for a moment, and hands everything on.
    for _ in 0..10 {
        let said = loaded.farm.agent.lb(["attach"]).unwrap().stdout;
        assert!(said.contains("eth0: frames pass, native"), "{said}");
    }
    assert_eq!(program(&loaded.farm), after);
    loaded.farm.agent.kill().unwrap();
    loaded.farm.agent = Agent::start(loaded.farm.lab.balancer(), &config).unwrap();
    loaded.farm.backend_command("undrain", 1, &[]);
    loaded.farm.wait_until_serving(&[0, 1, 2]);
    loaded.assert_nothing_lost();
}

#[test]
fn a_flapping_backend_disturbs_only_its_own_flows() {
    if !needs_root("a_flapping_backend_disturbs_only_its_own_flows") {
        return;
    }
    let mut farm = Farm::up(Mode::Nat, 3, &[0, 1, 2], "\n[tracking]\nadopt_seconds = 1\n");
    let load = Load::start(&farm, FLOWS);
    let owners = farm.owners();
    let others: BTreeSet<_> =
        owners.iter().filter(|(_, names)| !names.contains("backend-0")).map(|(flow, _)| *flow).collect();
    assert!(others.len() > FLOWS && others.len() < owners.len(), "{owners:?}");
    let before = farm.losses();
    for _ in 0..4 {
        farm.web.first_mut().unwrap().stop().unwrap();
        farm.wait_until_serving(&[1, 2]);
        farm.web.first_mut().unwrap().start_again().unwrap();
        farm.wait_until_serving(&[0, 1, 2]);
    }
    load.wait_for_more_datagrams(ENOUGH);
    let moved = farm.moved();
    assert!(moved.keys().all(|flow| !others.contains(flow)), "{moved:?}");
    // Answers of the flapping backend's servers that nobody takes any more are its own.
    assert_eq!(farm.losses().moved_since(&before, &["backend-0 Tcp"]), BTreeMap::new());
    let report = load.stop();
    for connection in report.lines.iter().flat_map(|lines| &lines.connections) {
        if !connection.names.contains_key("backend-0") {
            assert!(connection.broken.is_none() && connection.names.len() == 1, "{connection:?}");
        }
    }
    for flow in report.echoes.iter().flat_map(|echoes| &echoes.flows) {
        if others.contains(&(Kind::Echo, flow.local)) {
            assert_eq!((flow.lost(), flow.servers().len()), (Vec::new(), 1), "{flow:?}");
        }
    }
}

/// A library that puts the wall clock forward by the seconds that a file says; every other clock stays as it is.
const CLOCK: &str = "
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    int result = syscall(SYS_clock_gettime, clock, time);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) {
        char text[32] = {0};
        int file = open(getenv(\"LB_TEST_CLOCK\"), O_RDONLY | O_CLOEXEC);
        if (file >= 0) {
            if (read(file, text, sizeof text - 1) > 0) time->tv_sec += atol(text);
            close(file);
        }
    }
    return result;
}
";

#[test]
fn jumps_of_the_wall_clock_change_nothing() {
    const NAME: &str = "jumps_of_the_wall_clock_change_nothing";
    if !needs_root(NAME) || !needs_program(NAME, "cc") {
        return;
    }
    let mut farm = Farm::up(Mode::Dsr, 3, &[0, 1, 2], "");
    let (offset, library) = (farm.lab.folder().join("clock"), farm.lab.folder().join("clock.so"));
    let set = |seconds: i64| {
        // By renaming, so that nobody reads a part.
        let new = offset.with_extension("new");
        fs::write(&new, seconds.to_string()).unwrap();
        fs::rename(&new, &offset).unwrap();
    };
    set(0);
    compile(CLOCK, &library);
    farm.agent.kill().unwrap();
    let variables = [format!("LD_PRELOAD={}", library.display()), format!("LB_TEST_CLOCK={}", offset.display())];
    let [preload, file] = &variables;
    let words = ["env", preload, file];
    farm.agent = Agent::start_by(farm.lab.balancer(), &words, &farm.config(&[0, 1, 2])).unwrap();
    farm.wait_until_serving(&[0, 1, 2]);
    let loaded = Loaded::start(farm);
    let farm = &loaded.farm;
    // By a clock that is put forward its time would be over at once, by one that is put back never.
    farm.backend_command("drain", 1, &["--for", "600"]);
    farm.wait_until_serving(&[0, 2]);
    let mut years = BTreeSet::new();
    for (number, days) in (1..).zip([0, 400, -400, 8_000, 0]) {
        set(days * 86_400);
        farm.agent.reload(&farm.config(&[0, 1, 2])).unwrap();
        wait_until(TURN, "the reload", || (said(&farm.agent, " reloaded config=") == number).then_some(())).unwrap();
        let log = farm.agent.running().log();
        let line = log.lines().rfind(|line| line.contains(" reloaded")).unwrap();
        years.insert(line.split('-').next().unwrap().to_owned());
        loaded.load.wait_for_more(ENOUGH);
        let status = farm.agent.status().unwrap();
        assert!(status["uptime_seconds"].as_u64().unwrap() < 300, "{status:#}");
        for (kind, service) in farm.all_services() {
            let left = &farm.backend_status(&status, kind, service, 1)["drain_left_seconds"];
            assert!((300..=600).contains(&left.as_u64().unwrap()), "{status:#}");
        }
    }
    // The agent has seen the jumps: they are in its log.
    assert!(years.len() >= 4, "{years:?}");
    // Checks go on by their interval.
    wait_for(&farm.agent, "all are up", |status| {
        farm.all_services().into_iter().all(|(kind, service)| {
            (0..3).all(|number| farm.backend_status(status, kind, service, number)["health"] == "up")
        })
    });
    farm.backend_command("undrain", 1, &[]);
    farm.wait_until_serving(&[0, 1, 2]);
    loaded.assert_nothing_lost();
}

fn compile(text: &str, library: &Path) {
    let source = library.with_extension("c");
    fs::write(&source, text).unwrap();
    let output = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(library).arg(&source).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
