//! The unit as it ships, under a systemd that runs: it says when it is ready, is restarted when it dies or hangs, keeps its state, and has
//! the privileges that the unit leaves it and no others; clients notice nothing of it.

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{fs, net::SocketAddr, path::Path, time::Duration};
use support::{failures, head, lab, service_addresses, services, url};
use tests::{Layout, Nginx, Reply, Systemd, curl_many, lb_binary, needs_root, skip, wait_until};

/// For systemd to restart it, and for checks to have their effect.
const TIME: Duration = Duration::from_secs(20);
/// What the unit has, only sooner.
const SOONER: &str = "[Service]\nWatchdogSec=2s\n";

#[test]
fn the_unit_keeps_the_agent_alive_and_small() {
    let name = "the_unit_keeps_the_agent_alive_and_small";
    if !needs_root(name) {
        return;
    }
    if let Some(reason) = Systemd::missing() {
        return skip(name, reason);
    }
    let lab = lab(Layout::Bridged, "dsr", 2);
    let _servers: Vec<_> = lab.backends().iter().map(|host| Nginx::start(host, &[80]).unwrap()).collect();
    let config = head(&lab) + "port = 80\n" + &services(&lab, "dsr", &[1, 1]);
    // Where they are by default.
    let config: String = config
        .lines()
        .filter(|line| !line.starts_with("socket =") && !line.starts_with("pins ="))
        .fold(String::new(), |all, line| all + line + "\n");
    let (file, sooner) = (lab.folder().join("lb.toml"), lab.folder().join("sooner.conf"));
    fs::write(&file, config).unwrap();
    fs::write(&sooner, SOONER).unwrap();
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../lb-userspace/systemd/lb.service");
    let systemd = Systemd::boot(
        lab.balancer(),
        &[
            (&lb_binary().unwrap(), "/usr/local/bin/lb"),
            (&file, "/etc/lb/lb.toml"),
            (&unit, "/etc/systemd/system/lb.service"),
            (&sooner, "/etc/systemd/system/lb.service.d/sooner.conf"),
        ],
    )
    .unwrap();
    let wait_for = |what: &str, holds: &dyn Fn() -> bool| {
        wait_until(TIME, what, || holds().then_some(())).unwrap_or_else(|error| {
            panic!(
                "{error:#}: {}\n{}",
                systemd.run(["systemctl", "status", "lb"]).unwrap_or_else(|error| error.to_string()),
                systemd.journal().unwrap()
            )
        });
    };
    let is_up = || {
        systemd.property("ActiveState").unwrap() == "active"
            && systemd.property("StatusText").unwrap().ends_with("; 2 service(s), 0 name(s); 4 of 4 target(s) up")
    };
    let requests = || -> Vec<Reply> {
        service_addresses(&lab)
            .into_iter()
            .flat_map(|service: SocketAddr| curl_many(lab.client(), &url(service), 20).unwrap())
            .collect()
    };
    // What clients see while something is done to the agent.
    let undisturbed = |work: &dyn Fn()| {
        work();
        assert_eq!(failures(&requests()), Vec::<&Reply>::new());
    };
    wait_for("it is up, and says so", &is_up);
    undisturbed(&|| ());

    // Small: these capabilities, no new privileges, a filter of system calls, and a file system that is read only.
    let process = systemd.main_process().unwrap().unwrap();
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned();
    // CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF; CAP_NET_RAW is given up.
    let capabilities = 1_u64 << 10 | 1 << 12 | 1 << 38 | 1 << 39;
    assert_eq!(field("CapEff:"), format!("{capabilities:016x}"));
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".into(), "2".into()));
    let mounts = fs::read_to_string(format!("/proc/{process}/mountinfo")).unwrap();
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(root.split(' ').nth(5).unwrap().split(',').any(|option| option == "ro"), "{mounts}");

    // Changes are kept in the folder that it was given.
    let backend = SocketAddr::new(lab.backends().first().unwrap().ipv4().into(), 80).to_string();
    systemd.run(["lb", "backend", "weight", "web4", &backend, "3"]).unwrap();
    assert_eq!(systemd.run(["stat", "--format", "%a", "/var/lib/lb", "/run/lb/lb.sock"]).unwrap(), "700\n660\n");
    let weight = || systemd.run(["lb", "backend", "list"]).unwrap().contains(&format!("{backend}  weight 3"));
    assert!(weight(), "{}", systemd.run(["lb", "backend", "list"]).unwrap());

    undisturbed(&|| _ = systemd.run(["systemctl", "reload", "lb"]).unwrap());
    wait_for("it has reloaded", &|| systemd.journal().unwrap().contains(" reloaded config="));

    // Killed, or hung, it is started again.
    let restarts = |count: u32| systemd.property("NRestarts").unwrap() == count.to_string() && is_up();
    for (count, signal, how) in [(1, Signal::SIGKILL, "killed"), (2, Signal::SIGSTOP, "hung")] {
        let process = systemd.main_process().unwrap().unwrap();
        undisturbed(&|| kill(Pid::from_raw(process.try_into().unwrap()), signal).unwrap());
        wait_for(&format!("it was {how} and is up again"), &|| restarts(count));
        undisturbed(&|| assert!(weight()));
    }

    // Stopped, it leaves the data path; a command takes that down.
    undisturbed(&|| _ = systemd.run(["systemctl", "stop", "lb"]).unwrap());
    assert_eq!(systemd.property("Result").unwrap(), "success");
    systemd.run(["lb", "detach"]).unwrap();
    let [service, _] = service_addresses(&lab);
    assert_eq!(failures(&curl_many(lab.client(), &url(service), 1).unwrap()).len(), 1);
}
