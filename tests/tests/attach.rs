//! `lb attach`: that frames pass is seen before it is said, and what is not confirmed is taken off again, whoever dies.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use nix::sys::signal::Signal;
use serde_json::Value;
use std::{thread, time::Duration};
use support::{Site, TURN, failures, has_program, url};
use tests::{Agent, Layout, Reply, Running, curl_many, lb_binary, needs_program, needs_root, wait_until};

/// Longer than a trial of a second with its grace.
const OVER: Duration = Duration::from_millis(2_500);

fn site() -> Site {
    Site::up(Layout::Bridged, "dsr", &[1, 1])
}

/// Begins a trial, from nothing attached, and waits until it is.
fn begin(site: &Site, time: &str) -> Running {
    site.agent.lb(["detach"]).unwrap();
    let (binary, socket) = (lb_binary().unwrap(), site.lab.socket());
    let line = [binary.to_str().unwrap(), "attach", "--confirm", time, "--socket", socket.to_str().unwrap()];
    let command = site.lab.balancer().spawn(line).unwrap();
    wait_until(TURN, "the trial begins", || command.log().contains("taken off again in").then_some(())).unwrap();
    assert!(has_program(&site.lab, "eth0"));
    command
}

fn wait_until_detached(site: &Site) {
    wait_until(TURN, "it is taken off again", || (!has_program(&site.lab, "eth0")).then_some(())).unwrap();
}

#[test]
fn frames_are_seen_before_it_is_said_that_they_pass() {
    if !needs_root("frames_are_seen_before_it_is_said_that_they_pass") {
        return;
    }
    let site = site();
    let [service, _] = site.services();
    // On what is attached already, and on what is not.
    for _ in 0..2 {
        let said = site.agent.lb(["attach"]).unwrap();
        assert!(
            said.stdout.starts_with("attached to 1 interface(s)\neth0: frames pass, native, the first after "),
            "{said:?}"
        );
        // The balancer's end of the cable does all that it has to.
        assert!(!said.stderr.contains("gro on") && said.stderr.contains("tx off"), "{said:?}");
        site.requests(service, 20);
        site.agent.lb(["detach"]).unwrap();
    }

    // Frames that are sent back would never arrive.
    let segment = site.lab.segment();
    segment.run(["ip", "link", "set", "balancer", "xdpdrv", "off"]).unwrap();
    segment.run(["ethtool", "-K", "balancer", "gro", "off"]).unwrap();
    let said = site.agent.lb(["attach"]).unwrap();
    assert!(said.stderr.contains("warning: eth0: what is sent by this veth never arrives"), "{said:?}");
    assert!(said.stderr.contains("gro on"), "{said:?}");
    site.agent.lb(["detach"]).unwrap();

    // The cable is as good as out: its far end is in no bridge.
    segment.ip(&["link set balancer nomaster".into()]).unwrap();
    let said = site.agent.attempt_lb(["attach"]).unwrap();
    assert_eq!((said.status.code(), said.stdout.as_str()), (Some(1), ""), "{said:?}");
    assert!(said.stderr.contains("eth0: no frame reached the program within 2 s, though "), "{said:?}");
    assert!(said.stderr.contains("nothing is attached"), "{said:?}");
    assert!(!has_program(&site.lab, "eth0"));
    let said = site.agent.lb(["attach", "--unproven"]).unwrap();
    assert!(said.stdout.contains("eth0: no frame seen, native"), "{said:?}");
    assert!(has_program(&site.lab, "eth0"));
    // What was attached before is not taken off by a proof that fails.
    let said = site.agent.attempt_lb(["attach"]).unwrap();
    assert!(said.status.code() == Some(1) && said.stderr.contains("it stays attached, as it was"), "{said:?}");
    assert!(has_program(&site.lab, "eth0"));
}

#[test]
fn frames_are_handed_on_when_the_agent_dies_in_a_proof() {
    if !needs_root("frames_are_handed_on_when_the_agent_dies_in_a_proof") {
        return;
    }
    let mut site = site();
    let program = || {
        let line = ["ip", "-json", "link", "show", "dev", "eth0"];
        let links: Value = serde_json::from_str(&site.lab.balancer().run(line).unwrap().stdout).unwrap();
        links[0]["xdp"]["prog"]["id"].clone()
    };
    let before = program();
    // A proof takes its whole time where nobody answers.
    site.lab.segment().ip(&["link set balancer nomaster".into()]).unwrap();
    let (binary, socket) = (lb_binary().unwrap(), site.lab.socket());
    let line = [binary.to_str().unwrap(), "attach", "--socket", socket.to_str().unwrap()];
    let command = site.lab.balancer().spawn(line).unwrap();
    wait_until(TURN, "the proof begins", || (program() != before).then_some(())).unwrap();
    site.agent.kill().unwrap();
    assert_eq!(command.wait(TURN).unwrap().code(), Some(1), "{}", command.log());
    let between = program();
    assert_ne!(between, before);
    site.lab.segment().ip(&["link set balancer master br0".into()]).unwrap();
    // `Site` would ask the agent.
    let replies = curl_many(site.lab.client(), &url(site.services()[0]), 50).unwrap();
    assert_eq!(failures(&replies), Vec::<&Reply>::new());
    assert_eq!(program(), between);
    let leftover = site.lab.pins().join("BEHIND");
    assert!(leftover.exists());
    site.agent = Agent::start(site.lab.balancer(), &site.config).unwrap();
    assert!(!leftover.exists());
    site.requests(site.services()[0], 20);
}

#[test]
fn what_is_confirmed_stays() {
    const NAME: &str = "what_is_confirmed_stays";
    if !needs_root(NAME) || !needs_program(NAME, "script") {
        return;
    }
    let site = site();
    let command = begin(&site, "2s");
    assert_eq!(site.agent.lb(["attach", "--confirmed"]).unwrap().stdout, "confirmed 1 interface(s)\n");
    assert_eq!(command.wait(TURN).unwrap().code(), Some(0), "{}", command.log());
    thread::sleep(OVER);
    assert!(has_program(&site.lab, "eth0"));
    let again = site.agent.attempt_lb(["attach", "--confirmed"]).unwrap();
    assert!(again.status.code() == Some(1) && again.stderr.contains("confirmed already"), "{again:?}");
    let nothing = site.agent.lb(["attach", "--confirm", "1s"]).unwrap().stdout;
    assert!(nothing.ends_with("there is nothing to confirm\n"), "{nothing}");
    thread::sleep(OVER);
    assert!(has_program(&site.lab, "eth0"));

    // Enter, at a terminal.
    site.agent.lb(["detach"]).unwrap();
    let line =
        format!("{} attach --confirm 20s --socket {}", lb_binary().unwrap().display(), site.lab.socket().display());
    let said = site.lab.balancer().run_with_input(["script", "-qec", &line, "/dev/null"], "\n").unwrap();
    assert!(said.stdout.contains("confirmed 1 interface(s)"), "{said:?}");

    // By the pins, when nobody else is left who could.
    let command = begin(&site, "30s");
    site.agent.kill().unwrap();
    let pins = site.lab.pins().display().to_string();
    let said = site.agent.lb(["attach", "--confirmed", "--pins", &pins]).unwrap();
    assert_eq!(said.stdout, "confirmed 1 interface(s)\n");
    assert_eq!(command.wait(TURN).unwrap().code(), Some(0), "{}", command.log());
    let agent = Agent::start(site.lab.balancer(), &site.config).unwrap();
    assert!(has_program(&site.lab, "eth0"), "{}", agent.running().log());
}

#[test]
fn what_is_not_confirmed_goes() {
    if !needs_root("what_is_not_confirmed_goes") {
        return;
    }
    let site = site();
    let command = begin(&site, "1s");
    assert_eq!(command.wait(TURN).unwrap().code(), Some(1));
    assert!(command.log().contains("not confirmed: eth0 taken off again"), "{}", command.log());
    assert!(!has_program(&site.lab, "eth0"));
    let late = site.agent.attempt_lb(["attach", "--confirmed"]).unwrap();
    assert!(late.status.code() == Some(1) && late.stderr.contains("taken off again"), "{late:?}");

    // The command is killed: the agent keeps the deadline.
    let command = begin(&site, "1s");
    command.kill().unwrap();
    wait_until_detached(&site);

    // It is as it was before the first command, and attaches as ever.
    let log = site.agent.running().log();
    assert_eq!(log.matches("not confirmed in time").count(), 2, "{log}");
    site.agent.lb(["attach"]).unwrap();
    site.requests(site.services()[0], 20);
}

#[test]
fn what_is_not_confirmed_goes_also_without_the_agent() {
    if !needs_root("what_is_not_confirmed_goes_also_without_the_agent") {
        return;
    }
    let mut site = site();
    // The command does it, although its terminal is gone.
    let command = begin(&site, "1s");
    command.signal(Signal::SIGHUP).unwrap();
    site.agent.kill().unwrap();
    assert_eq!(command.wait(TURN).unwrap().code(), Some(1), "{}", command.log());
    assert!(!has_program(&site.lab, "eth0"));

    // A hung agent is as good as dead.
    site.agent = Agent::start(site.lab.balancer(), &site.config).unwrap();
    let command = begin(&site, "1s");
    site.agent.running().signal(Signal::SIGSTOP).unwrap();
    assert_eq!(command.wait(TURN).unwrap().code(), Some(1), "{}", command.log());
    assert!(!has_program(&site.lab, "eth0"));
    site.agent.kill().unwrap();

    // Both are killed: the next agent does it.
    site.agent = Agent::start(site.lab.balancer(), &site.config).unwrap();
    let command = begin(&site, "60s");
    command.kill().unwrap();
    site.agent.kill().unwrap();
    assert!(has_program(&site.lab, "eth0"));
    site.agent = Agent::start(site.lab.balancer(), &site.config).unwrap();
    assert!(!has_program(&site.lab, "eth0"), "{}", site.agent.running().log());
    let log = site.agent.running().log();
    assert!(log.contains("eth0 taken off again, and nothing is attached until `lb attach`"), "{log}");
    // A reload does not attach what nobody has confirmed; a command does.
    site.agent.reload(&site.config).unwrap();
    wait_until(TURN, "the reload", || site.agent.running().log().contains(" reloaded").then_some(())).unwrap();
    assert!(!has_program(&site.lab, "eth0"));
    site.agent.lb(["attach"]).unwrap();
    assert!(has_program(&site.lab, "eth0"));
}
