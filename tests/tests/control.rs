//! Changes by command: made under load, kept over a restart, refused without a trace; another config by `lb diff` and `lb apply`.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    net::{SocketAddr, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};
use support::{
    Site, backend_of, count, dns, head, lab, name, service, service_addresses, serving, transcript::Transcript, url,
    wait_for,
};
use tests::{Agent, Lab, Layout, UdpEcho, UdpFlows, curl, needs_root};

const FLOWS: usize = 20;
const ECHO: &str = "echo";

/// A site of three servers, two of which are behind `web4` and `echo`, which counts every datagram.
struct Control {
    site: Site,
    echoes: Vec<UdpEcho>,
}

impl Control {
    fn up() -> Self {
        Self::with("")
    }

    fn with(top: &str) -> Self {
        let lab = lab(Layout::Bridged, "dsr", 3);
        let echo = echo_address(&lab);
        let echoes = lab.backends().iter().map(|host| UdpEcho::start(host, &[echo]).unwrap()).collect();
        let config = config(&lab, top, &[0, 1]);
        Self { site: Site::start(lab, config), echoes }
    }

    fn lb(&self, arguments: &[&str]) -> String {
        self.site.agent.lb(arguments).unwrap().stdout
    }

    fn web(&self) -> SocketAddr {
        self.site.services()[0]
    }

    fn backend(&self, number: usize) -> SocketAddr {
        SocketAddr::new(self.site.lab.backends()[number].ipv4().into(), 80)
    }

    fn echo_backend(&self, number: usize) -> SocketAddr {
        SocketAddr::new(self.site.lab.backends()[number].ipv4().into(), echo_address(&self.site.lab).port())
    }

    /// Does `work` while datagrams with numbers are sent, none of which may be lost, or go to another server than those before.
    fn undisturbed<T>(&self, work: impl FnOnce() -> T) -> T {
        let flows = UdpFlows::start(self.site.lab.client(), echo_address(&self.site.lab), FLOWS, 100).unwrap();
        flows.wait_for_more(20).unwrap();
        let owners: Vec<BTreeSet<SocketAddr>> = self.owners();
        let done = work();
        flows.wait_for_more(20).unwrap();
        assert_eq!(self.owners(), owners, "flows have moved");
        let report = flows.stop().unwrap();
        assert_eq!((report.lost().len(), report.errors().len()), (0, 0), "{report:?}");
        done
    }

    fn owners(&self) -> Vec<BTreeSet<SocketAddr>> {
        self.echoes.iter().map(|echo| echo.seen().into_keys().collect()).collect()
    }

    fn changes(&self) -> Vec<String> {
        let list: Value = serde_json::from_str(&self.lb(&["changes", "--json"])).unwrap();
        list["changes"].as_array().unwrap().iter().map(|change| change["text"].as_str().unwrap().to_owned()).collect()
    }

    /// As a machine that has lost its power, but for the data path.
    fn restart(&mut self) {
        self.site.agent.kill().unwrap();
        self.site.agent = Agent::start(self.site.lab.balancer(), &self.site.config).unwrap();
    }
}

fn echo_address(lab: &Lab) -> SocketAddr {
    SocketAddr::new(lab.service_ipv4(0).into(), 7)
}

fn config(lab: &Lab, top: &str, members: &[usize]) -> String {
    let [web4, web6] = service_addresses(lab);
    let backends = |port| -> Vec<_> {
        let own = |number: &usize| (SocketAddr::new(lab.backends()[*number].ipv4().into(), port), 1);
        members.iter().map(own).collect()
    };
    format!("# Of the lab.\n{top}")
        + &head(lab)
        + "port = 80   # where nginx is\n"
        + &service("web4", "tcp", web4, "dsr", &backends(80))
        + &service(ECHO, "udp", echo_address(lab), "dsr", &backends(7))
        + &service("web6", "tcp", web6, "dsr", &[(SocketAddr::new(lab.backends()[0].ipv6().into(), 80), 1)])
}

#[test]
fn changes_are_made_under_load_and_survive_a_restart() {
    if !needs_root("changes_are_made_under_load_and_survive_a_restart") {
        return;
    }
    let mut control = Control::up();
    let [first, second, third] = [0, 1, 2].map(|number| control.backend(number).to_string());
    let echo = [0, 1, 2].map(|number| control.echo_backend(number).to_string());
    control.undisturbed(|| {
        let mut transcript = Transcript::of(&control.site.lab);
        let address = format!("{}:8080", control.site.lab.service_ipv4(0));
        let more = control.site.lab.backends()[2].ipv4().to_string();
        for line in [
            &["changes"][..],
            &["backend", "add", "web4", &third, "--weight", "2"],
            &["backend", "add", ECHO, &echo[2]],
            &["backend", "weight", "web4", &first, "3"],
            &["backend", "weight", "web4", &first, "3"],
            &["backend", "drain", ECHO, &echo[1]],
            &["backend", "disable", "web4", &second],
            &["backend", "list", "web4"],
            &[
                "service",
                "add",
                "more",
                &address,
                "--mode",
                "dsr",
                "--check",
                "web",
                "--backend",
                &more,
                "--set",
                "slots=251",
            ],
            &["service", "list"],
            &["changes"],
            &["backend", "weight", "web4", "10.1.1.1:80", "3"],
            &["backend", "weight", "nobody", &first, "3"],
            &["backend", "weight", "web4", &first, "70000"],
            &["backend", "add", "web4", &third],
            &["service", "add", "web4", &address, "--mode", "dsr", "--backend", &more],
            &["service", "add", "wrong", &address, "--mode", "dsr", "--backend", &more, "--set", "slot=251"],
            &["changes", "drop", "77"],
        ] {
            transcript.lb(&control.site.agent, line);
            // What is shown is how it is when the check has run.
            if line.contains(&"--weight") {
                wait_for(&control.site.agent, "the new backend serves", |status| {
                    serving(status, control.web()).contains(&control.backend(2))
                });
            }
        }
        transcript.is("changes");
    });
    let more = SocketAddr::new(control.site.lab.service_ipv4(0).into(), 8080);
    let holds = |control: &Control, status: &Value| {
        let backend = |number: usize| backend_of(status, control.web(), control.backend(number));
        serving(status, control.web()) == [control.backend(0), control.backend(2)].into()
            && backend(0)["weight"] == 3
            && backend(1)["disabled"] == true
            && backend(2)["weight"] == 2
            && backend_of(status, echo_address(&control.site.lab), control.echo_backend(1))["draining"] == true
            && serving(status, more).len() == 1
    };
    wait_for(&control.site.agent, "the changes are in effect", |status| holds(&control, status));
    let before = control.changes();
    assert_eq!(before.len(), 6);

    let mut restarted = control;
    let flows = UdpFlows::start(restarted.site.lab.client(), echo_address(&restarted.site.lab), FLOWS, 100).unwrap();
    flows.wait_for_more(20).unwrap();
    restarted.restart();
    flows.wait_for_more(20).unwrap();
    assert_eq!(flows.stop().unwrap().lost().len(), 0);
    control = restarted;
    wait_for(&control.site.agent, "the changes are in effect again", |status| holds(&control, status));
    assert_eq!(control.changes(), before);
    let body = curl(control.site.lab.client(), &url(more)).unwrap().body;
    assert_eq!(body, "backend-2\n");

    // Taken back one by one, and then all.
    control.undisturbed(|| {
        control.lb(&["backend", "enable", "web4", &second]);
        control.lb(&["backend", "undrain", ECHO, &echo[1]]);
        let change = control.changes().iter().position(|text| text.contains("weight 3")).unwrap();
        let list: Value = serde_json::from_str(&control.lb(&["changes", "--json"])).unwrap();
        control.lb(&["changes", "drop", &list["changes"][change]["id"].to_string()]);
        assert_eq!(control.changes().len(), 3);
        assert_eq!(control.lb(&["changes", "clear"]), "all changes are dropped\n");
        wait_for(&control.site.agent, "it is as the file has it", |status| {
            serving(status, control.web()) == [control.backend(0), control.backend(1)].into()
                && status["services"].as_array().unwrap().len() == 3
        });
    });
    assert_eq!(control.changes(), Vec::<String>::new());
    assert_eq!(control.lb(&["changes", "clear"]), "there are no changes\n");
}

#[test]
fn a_reload_keeps_changes_and_tells_those_that_no_longer_apply() {
    if !needs_root("a_reload_keeps_changes_and_tells_those_that_no_longer_apply") {
        return;
    }
    let control = Control::up();
    let [first, second] = [0, 1].map(|number| control.backend(number).to_string());
    control.lb(&["backend", "weight", "web4", &first, "3"]);
    control.lb(&["backend", "weight", "web4", &second, "4"]);
    control.undisturbed(|| {
        // `web4` loses its second backend, `echo` keeps both.
        let (front, behind) = control.site.config.split_once("name = \"echo\"").unwrap();
        let lost = format!("[[service.backend]]\naddress = \"{}\"\nport = 80\nweight = 1\n", control.backend(1).ip());
        assert!(front.contains(&lost));
        let new = format!("{}name = \"echo\"{behind}", front.replace(&lost, ""));
        fs::write(control.site.agent.config(), new).unwrap();
        let output = control.site.agent.lb(["apply"]).unwrap();
        assert_eq!(output.stdout, "applied\n");
        let said = format!("service `web4` has no backend {second}; it has: {first}\n");
        assert_eq!(output.stderr, format!("lb: change 2 no longer applies: {said}"));
        let status = control.site.agent.status().unwrap();
        assert_eq!(backend_of(&status, control.web(), control.backend(0))["weight"], 3);
        let list = control.lb(&["changes"]);
        assert!(list.ends_with(&format!("\n      no longer applies: {said}")), "{list}");
        assert!(control.site.agent.running().log().contains("change 2 by command"));
    });
    // With the old text it applies again.
    control.site.agent.reload(&control.site.config).unwrap();
    wait_for(&control.site.agent, "both weights are in effect", |status| {
        [(0, 3), (1, 4)].iter().all(|(number, weight)| {
            let backends = support::status_of(status, control.web())["backends"].as_array().unwrap();
            backends
                .iter()
                .any(|one| one["address"] == control.backend(*number).to_string() && one["weight"] == *weight)
        })
    });
    assert!(!control.lb(&["changes"]).contains("no longer"));
}

#[test]
fn an_export_is_a_config_of_its_own() {
    if !needs_root("an_export_is_a_config_of_its_own") {
        return;
    }
    let control = Control::up();
    assert_eq!(control.lb(&["export", "--with-secret"]), control.site.config);
    let first = control.backend(0).to_string();
    control.lb(&["backend", "weight", "web4", &first, "3"]);
    let changed = control.site.config.replacen("weight = 1", "weight = 3", 1);
    assert_eq!(control.lb(&["export", "--with-secret"]), changed);
    let shown = control.lb(&["export"]);
    assert!(
        shown.starts_with("# Left out: secret. `lb export --with-secret` has them too.\n# Of the lab.\n"),
        "{shown}"
    );
    assert!(!shown.contains("only for tests in a lab"));
    // Installed, it says the same as file and changes did, and the changes say nothing more.
    let file = control.site.lab.folder().join("exported.toml");
    fs::write(&file, &changed).unwrap();
    let file = file.display().to_string();
    assert_eq!(control.lb(&["diff", &file]), "nothing would change\n");
    assert_eq!(control.lb(&["apply", &file]), "installed and applied\n");
    control.lb(&["changes", "clear"]);
    let status = control.site.agent.status().unwrap();
    assert_eq!(backend_of(&status, control.web(), control.backend(0))["weight"], 3);
    assert_eq!(control.lb(&["export", "--with-secret"]), changed);
}

#[test]
fn a_config_is_told_apart_installed_and_refused() {
    if !needs_root("a_config_is_told_apart_installed_and_refused") {
        return;
    }
    let control = Control::up();
    let lab = &control.site.lab;
    let file = lab.folder().join("new.toml");
    let new = config(lab, "", &[0, 2])
        + &service("more", "tcp", SocketAddr::new(lab.service_ipv4(1).into(), 80), "dsr", &[(control.backend(1), 1)])
        + &dns(lab)
        + &name("www.example.com", &[control.backend(0).ip()], "");
    fs::write(&file, &new).unwrap();
    let wrong = lab.folder().join("wrong.toml");
    fs::write(&wrong, new.replace("mode = \"dsr\"", "mode = \"dst\"")).unwrap();
    let [file, wrong] = [file, wrong].map(|path| path.display().to_string());
    let installed = control.site.agent.config().to_owned();
    fs::set_permissions(&installed, fs::Permissions::from_mode(0o640)).unwrap();
    let mut transcript = Transcript::of(lab);
    control.undisturbed(|| {
        let before = control.site.agent.status().unwrap();
        transcript.lb(&control.site.agent, &["diff", &file]);
        transcript.lb(&control.site.agent, &["diff", &wrong]);
        transcript.lb(&control.site.agent, &["diff", "LAB/absent.toml"]);
        transcript.lb(&control.site.agent, &["apply", &wrong]);
        let after = control.site.agent.status().unwrap();
        assert_eq!(serving(&after, control.web()), serving(&before, control.web()));
        assert_eq!(fs::read_to_string(&installed).unwrap(), control.site.config);

        transcript.lb(&control.site.agent, &["apply", &file]);
        assert_eq!(fs::read_to_string(&installed).unwrap(), new);
        assert_eq!(fs::metadata(&installed).unwrap().permissions().mode() & 0o777, 0o640);
        wait_for(&control.site.agent, "the new config is in effect", |status| {
            serving(status, control.web()) == [control.backend(0), control.backend(2)].into()
                && status["services"].as_array().unwrap().len() == 4
        });
        transcript.lb(&control.site.agent, &["diff", &file]);
        // What is in the file now is wrong, and stays without effect.
        fs::write(&installed, "interfaces = 7\n").unwrap();
        transcript.lb(&control.site.agent, &["apply"]);
    });
    let told = tests::wait_until(support::TURN, "nothing is left behind", || {
        let names = fs::read_dir(lab.folder()).unwrap().map(|entry| entry.unwrap().file_name());
        names.into_iter().all(|name| !name.to_string_lossy().ends_with(".new")).then_some(())
    });
    told.unwrap();
    // Its own path has a number in it.
    let path = installed.file_name().unwrap().to_string_lossy().into_owned();
    transcript.rename(&path, "lb.toml");
    transcript.is("apply");
}

/// A file system of its own for the agent's state, gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path) -> Self {
        let path = folder.join("disk");
        fs::create_dir(&path).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=64k", "lb-state"]).arg(&path));
        Self(path)
    }

    fn remount(&self, how: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

#[test]
fn a_change_that_cannot_be_kept_is_refused() {
    if !needs_root("a_change_that_cannot_be_kept_is_refused") {
        return;
    }
    let lab = lab(Layout::Bridged, "dsr", 3);
    let disk = SmallDisk::mount(&lab.folder());
    let state = disk.0.join("state");
    let config = config(&lab, &format!("state = {state:?}\n"), &[0, 1]);
    let echo = echo_address(&lab);
    let echoes = lab.backends().iter().map(|host| UdpEcho::start(host, &[echo]).unwrap()).collect();
    let mut control = Control { site: Site::start(lab, config), echoes };
    let (first, third) = (control.backend(0).to_string(), control.backend(2).to_string());
    control.lb(&["backend", "weight", "web4", &first, "3"]);
    let kept = fs::read_to_string(state.join("changes.json")).unwrap();
    control.undisturbed(|| {
        let refused = |why: &str| {
            for line in
                [&["backend", "add", "web4", &third][..], &["backend", "drain", "web4", &first], &["changes", "clear"]]
            {
                let output = control.site.agent.attempt_lb(line).unwrap();
                assert_eq!(output.status.code(), Some(1), "{output:?}");
                let said = format!(
                    "lb: nothing was changed: cannot keep the change in {}: {why}",
                    state.join("changes.json").display()
                );
                assert!(output.stderr.starts_with(&said), "{output:?}");
            }
            assert_eq!(control.changes().len(), 1);
            let status = control.site.agent.status().unwrap();
            assert_eq!(serving(&status, control.web()), [control.backend(0), control.backend(1)].into());
            assert_eq!(backend_of(&status, control.web(), control.backend(0))["weight"], 3);
        };
        let _ = fs::write(disk.0.join("full"), vec![0; 1 << 20]);
        refused("No space left on device");
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "something is left behind");
        fs::remove_file(disk.0.join("full")).unwrap();
        disk.remount("ro");
        refused("Read-only file system");
    });
    assert_eq!(fs::read_to_string(state.join("changes.json")).unwrap(), kept);
    // A restart finds what was kept, also where nothing can be written.
    control.restart();
    wait_for(&control.site.agent, "the change is in effect", |status| {
        backend_of(status, control.web(), control.backend(0))["weight"] == 3
    });
    disk.remount("rw");
    control.lb(&["backend", "add", "web4", &third]);
    wait_for(&control.site.agent, "the new backend serves", |status| serving(status, control.web()).len() == 3);
    // What is no state is told at the start, with the cure.
    control.site.agent.terminate().unwrap();
    fs::write(state.join("changes.json"), "{}").unwrap();
    let error = Agent::start(control.site.lab.balancer(), &control.site.config).unwrap_err().to_string();
    assert!(error.contains("move it away to go on without them") && error.contains("exit status: 2"), "{error}");
    drop(control);
}

#[test]
fn a_drain_keeps_its_deadline_over_a_restart() {
    if !needs_root("a_drain_keeps_its_deadline_over_a_restart") {
        return;
    }
    let mut control = Control::up();
    let second = control.backend(1).to_string();
    control.lb(&["backend", "drain", "web4", &second, "--for", "600"]);
    let left = |control: &Control| {
        let status = control.site.agent.status().unwrap();
        let backend = backend_of(&status, control.web(), control.backend(1)).clone();
        assert_eq!(backend["draining"], true);
        backend["drain_left_seconds"].as_u64().unwrap()
    };
    let before = left(&control);
    tests::wait_until(support::TURN, "a second of it is over", || (left(&control) < before).then_some(())).unwrap();
    control.restart();
    assert!(left(&control) < before, "it begins anew");
    assert!(left(&control) > 500);
}

#[test]
fn an_address_is_claimed_and_released() {
    if !needs_root("an_address_is_claimed_and_released") {
        return;
    }
    let control = Control::up();
    let (client, address) = (control.site.lab.client(), control.web().ip().to_string());
    // The client has to ask anew whose address it is.
    let asks = |counter: &str| {
        let before = count(&control.site.agent.status().unwrap(), "packets", counter);
        client.ip(&[format!("neigh flush to {address}")]).unwrap();
        let sent = client.inside(|| UdpSocket::bind("0.0.0.0:0")?.send_to(b"who are you?", (address.as_str(), 9)));
        assert!(sent.unwrap().is_ok());
        wait_for(&control.site.agent, counter, |status| count(status, "packets", counter) > before);
    };
    asks("arp_answered");
    control.lb(&["vip", "release", &address]);
    asks("arp_not_ours");
    let again = control.lb(&["vip", "release", &address]);
    assert_eq!(again, format!("address {address} is answered for by nobody here already\n"));
    control.lb(&["vip", "claim", &address]);
    asks("arp_answered");
    // Who knows another one for it is told, unasked.
    client.set([("ipv4/neigh/eth0/locktime", "0")]).unwrap();
    for address in control.site.services().map(|service| service.ip()) {
        let other = format!("neigh replace {address} lladdr 02:00:00:00:00:99 dev eth0 nud stale");
        client.ip(&[other]).unwrap();
        control.lb(&["vip", "claim", &address.to_string()]);
        let mac = control.site.lab.balancer().interfaces()[0].mac_text();
        let known = || client.run(["ip", "neigh", "show", &address.to_string()]).unwrap().stdout;
        tests::wait_until(support::TURN, "the neighbour is known", || known().contains(&mac).then_some(())).unwrap();
    }
    let unknown = control.site.agent.attempt_lb(["vip", "claim", "10.1.1.1"]).unwrap();
    assert_eq!(unknown.status.code(), Some(1));
    assert!(unknown.stderr.contains("no service is at 10.1.1.1"), "{unknown:?}");
    control.site.requests(control.web(), 10);
}

#[test]
fn rates_are_shown_once_again_and_again_and_on_the_whole_terminal() {
    if !needs_root("rates_are_shown_once_again_and_again_and_on_the_whole_terminal") {
        return;
    }
    let control = Control::up();
    control.undisturbed(|| {
        let rates: Value = serde_json::from_str(&control.lb(&["stats", "--json"])).unwrap();
        let echo = rates["services"].as_array().unwrap().iter().find(|one| one["service"] == ECHO).unwrap();
        assert!(echo["packets"].as_f64().unwrap() > 0.0 && echo["bytes"].as_f64().unwrap() > 0.0, "{rates:#}");
        assert!(rates["packets"]["forwarded_dsr"].as_f64().unwrap() > 0.0, "{rates:#}");
        let text = control.lb(&["stats"]);
        assert!(text.contains("service echo") && text.contains(&format!("  {}", control.echo_backend(0))), "{text}");
        // Whoever reads it has enough after two.
        let lb = tests::lb_binary().unwrap().display().to_string();
        let socket = control.site.lab.socket().display().to_string();
        let line = format!("{lb} stats --watch --json --socket {socket} | head -n 2");
        let watched = control.site.lab.balancer().run(["sh", "-c", &line]).unwrap().stdout;
        let each: Vec<Value> = watched.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(each.len(), 2);

        let refused = control.site.agent.attempt_lb(["top"]).unwrap();
        assert!(refused.stderr.contains("`lb top` needs a terminal; `lb stats --watch` does not"), "{refused:?}");
        let line = format!("stty cols 80 rows 24; {lb} top --socket {socket}");
        let screen = control.site.lab.balancer().run_with_input(["script", "-qec", &line, "/dev/null"], "q").unwrap();
        for word in ["web4", "echo", "packets/s", "q quit"] {
            assert!(screen.stdout.contains(word), "{word} is not in {:?}", screen.stdout);
        }
    });
}

#[test]
fn a_hundred_changes_lose_nothing_and_move_nobody() {
    if !needs_root("a_hundred_changes_lose_nothing_and_move_nobody") {
        return;
    }
    let control = Control::up();
    let [first, third] = [0, 2].map(|number| control.echo_backend(number).to_string());
    control.undisturbed(|| {
        for round in 1..=20 {
            control.lb(&["backend", "weight", ECHO, &first, &(1 + round % 3).to_string()]);
            control.lb(&["backend", "add", ECHO, &third]);
            control.lb(&["apply"]);
            control.lb(&["backend", "drain", ECHO, &first]);
            control.lb(&["backend", "undrain", ECHO, &first]);
            control.lb(&["backend", "remove", ECHO, &third]);
        }
    });
    assert_eq!(control.changes().len(), 1, "{:?}", control.changes());
    let kept = fs::read_dir(control.site.lab.folder().join("balancer-state")).unwrap().count();
    assert_eq!(kept, 1, "something is left behind");
}

#[test]
fn a_config_that_cannot_be_installed_changes_nothing() {
    if !needs_root("a_config_that_cannot_be_installed_changes_nothing") {
        return;
    }
    let control = Control::up();
    let lab = &control.site.lab;
    let disk = SmallDisk::mount(&lab.folder());
    let (installed, new) = (disk.0.join("lb.toml"), lab.folder().join("new.toml"));
    fs::write(&installed, &control.site.config).unwrap();
    fs::write(&new, config(lab, "", &[0, 2])).unwrap();
    // Another agent, whose config is on the small disk, takes the first one's place.
    control.site.agent.terminate().unwrap();
    let (lb, state) = (tests::lb_binary().unwrap(), lab.folder().join("state"));
    let state = format!("STATE_DIRECTORY={}", state.display());
    let line =
        ["env".as_ref(), state.as_ref(), lb.as_os_str(), "run".as_ref(), "--config".as_ref(), installed.as_os_str()];
    lab.balancer().spawn(line).unwrap();
    tests::wait_until(support::TURN, "the agent answers", || {
        control.site.agent.attempt_lb(["status"]).unwrap().status.success().then_some(())
    })
    .unwrap();
    let new = new.display().to_string();
    control.undisturbed(|| {
        let refused = |why: &str| {
            let output = control.site.agent.attempt_lb(["apply", &new]).unwrap();
            let said = format!("lb: nothing was changed: cannot write {}: {why}", installed.display());
            assert!(output.stderr.starts_with(&said), "{output:?}");
            assert_eq!(output.status.code(), Some(1));
            let status = control.site.agent.status().unwrap();
            assert_eq!(serving(&status, control.web()), [control.backend(0), control.backend(1)].into());
            assert_eq!(fs::read_to_string(&installed).unwrap(), control.site.config);
            assert!(!disk.0.join("lb.toml.new").exists());
        };
        let _ = fs::write(disk.0.join("full"), vec![0; 1 << 20]);
        refused("No space left on device");
        fs::remove_file(disk.0.join("full")).unwrap();
        disk.remount("ro");
        refused("Read-only file system");
        disk.remount("rw");
        assert_eq!(control.lb(&["apply", &new]), "installed and applied\n");
        assert_eq!(fs::read_to_string(&installed).unwrap(), fs::read_to_string(&new).unwrap());
    });
}
