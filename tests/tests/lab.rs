//! The lab's own tests: it comes up in both layouts and families, and nothing is left of it.
#![expect(clippy::unwrap_used, reason = "clippy knows tests by their attribute, not their helpers")]

use std::{
    env, fs,
    net::{IpAddr, SocketAddr},
    os::unix::{fs::PermissionsExt, process::ExitStatusExt},
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tests::{
    Agent, Host, Lab, Layout, Nginx, curl, curl_many, dig, needs_root, remove_kept, served_in_total, wait_until,
};

const SOON: Duration = Duration::from_secs(2);
/// Long enough for an answer on an idle path, short enough to wait for one that must not come.
const NEVER: Duration = Duration::from_millis(300);

fn addresses(host: &Host) -> Vec<IpAddr> {
    host.interfaces().iter().flat_map(|interface| [interface.ipv4.into(), interface.ipv6.into()]).collect()
}

fn url(address: IpAddr) -> String {
    format!("http://{}/", SocketAddr::new(address, 80))
}

/// All that there is of the lab with this prefix, apart from what runs.
fn traces(prefix: &str) -> Vec<PathBuf> {
    [Path::new("/run/netns"), &env::temp_dir(), Path::new("/sys/fs/bpf")]
        .iter()
        .flat_map(|folder| fs::read_dir(folder).into_iter().flatten())
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name == prefix || name.starts_with(&format!("{prefix}-"))
        })
        .collect()
}

fn prefix(lab: &Lab) -> String {
    lab.folder().file_name().unwrap().to_str().unwrap().to_owned()
}

fn runs(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

fn comes_up(layout: Layout) {
    let lab = Lab::blueprint(layout).backends(3).up().unwrap();
    let machines: Vec<_> = [lab.client(), lab.balancer()].into_iter().chain(lab.backends()).collect();
    for from in &machines {
        for to in &machines {
            for address in addresses(to) {
                // Routed, the client has no business with the balancer's side of the backends, but
                // it has a route there.
                from.ping(address, 1000, SOON).unwrap();
            }
        }
    }

    let servers: Vec<_> = lab.backends().iter().map(|host| Nginx::start(host, &[80, 8080]).unwrap()).collect();
    for server in &servers {
        for address in addresses(server.host()) {
            for reply in curl_many(lab.client(), &url(address), 5).unwrap() {
                assert_eq!(reply.error, None);
                assert_eq!(reply.status, Some(200));
                assert_eq!(reply.body, format!("{}\n", server.host().role()));
            }
        }
    }
    let client = addresses(lab.client());
    for (served, server) in served_in_total(&servers, 30).unwrap().iter().zip(&servers) {
        assert_eq!(served.len(), 10);
        let local = addresses(server.host());
        for request in served {
            assert!(client.contains(&request.remote.ip()), "{request:?}");
            assert!(local.contains(&request.local.ip()), "{request:?}");
        }
    }
}

#[test]
fn a_bridged_lab_comes_up() {
    if needs_root("a_bridged_lab_comes_up") {
        comes_up(Layout::Bridged);
    }
}

#[test]
fn a_routed_lab_comes_up() {
    if needs_root("a_routed_lab_comes_up") {
        comes_up(Layout::Routed);
    }
}

#[test]
fn interfaces_are_what_veth_needs() {
    if !needs_root("interfaces_are_what_veth_needs") {
        return;
    }
    for layout in [Layout::Bridged, Layout::Routed] {
        let lab = Lab::blueprint(layout).up().unwrap();
        let links = |host: &Host| -> Vec<serde_json::Value> {
            let output = host.run(["ip", "-json", "-details", "link"]).unwrap();
            serde_json::from_str(&output.stdout).unwrap()
        };
        let mut indexes = Vec::new();
        for host in [lab.client(), lab.balancer()].into_iter().chain(lab.backends()) {
            let links = links(host);
            for interface in host.interfaces() {
                let link = links.iter().find(|link| link["ifname"] == *interface.name).unwrap();
                assert_eq!(link["ifindex"], interface.index, "{host:?} {link}");
                assert_eq!(link["address"], interface.mac_text(), "{host:?} {link}");
                indexes.push(interface.index);
                // XDP_ATTACHED_DRV
                let expected = if host.role() == "balancer" { None } else { Some(1) };
                assert_eq!(link["xdp"]["mode"].as_u64(), expected, "{host:?} {link}");
                let features = host.run(["ethtool", "-k", &interface.name]).unwrap().stdout;
                for feature in ["tx-checksumming: off", "tcp-segmentation-offload: off"] {
                    assert!(features.contains(feature), "{host:?} {features}");
                }
            }
        }
        indexes.sort_unstable();
        indexes.dedup();
        assert_eq!(indexes.len(), if layout == Layout::Routed { 5 } else { 4 });
        let ports: Vec<_> = links(lab.segment())
            .into_iter()
            .filter(|link| link["master"] == "br0")
            .map(|port| (port["ifname"].clone(), port["xdp"]["mode"].clone()))
            .collect();
        assert_eq!(ports.len(), if layout == Layout::Routed { 3 } else { 4 });
        assert!(ports.iter().all(|(_, mode)| *mode == 1), "{ports:?}");

        lab.backends()[0].remove_pass("eth0").unwrap();
        assert!(links(&lab.backends()[0]).iter().all(|link| link.get("xdp").is_none()));
    }
}

#[test]
fn the_way_back_can_be_via_the_balancer() {
    if !needs_root("the_way_back_can_be_via_the_balancer") {
        return;
    }
    for yes in [false, true] {
        let lab = Lab::blueprint(Layout::Bridged).route_back_via_balancer(yes).up().unwrap();
        let backend = &lab.backends()[0];
        for (client, balancer) in addresses(lab.client()).iter().zip(addresses(lab.balancer())) {
            let route = backend.run(["ip", "route", "get", &client.to_string()]).unwrap().stdout;
            assert_eq!(route.contains(&format!("via {balancer} ")), yes, "{route}");
            backend.ping(*client, 8, SOON).unwrap();
        }
    }
}

#[test]
fn a_service_address_is_served_but_not_announced() {
    if !needs_root("a_service_address_is_served_but_not_announced") {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).up().unwrap();
    let (client, backend) = (lab.client(), &lab.backends()[0]);
    let services = [lab.service_ipv4(0).into(), lab.service_ipv6(0).into()];
    let _server = Nginx::start(backend, &[80]).unwrap();

    // On `eth0` such addresses are answered for, so the client's question does reach the backend.
    let others: [IpAddr; 2] = [lab.service_ipv4(1).into(), lab.service_ipv6(1).into()];
    backend
        .ip(&[format!("address add {}/24 dev eth0", others[0]), format!("address add {}/64 dev eth0 nodad", others[1])])
        .unwrap();
    for address in others {
        client.ping(address, 8, SOON).unwrap();
    }

    for service in services {
        lab.add_service_address(backend, service).unwrap();
        client.ping(service, 8, NEVER).unwrap_err();
        let neighbour = client.run(["ip", "neighbour", "show", &service.to_string()]).unwrap();
        assert!(!neighbour.stdout.contains("lladdr"), "{neighbour:?}");

        // What direct server return does: only the hardware address tells the backend.
        let mac = backend.interfaces()[0].mac_text();
        let service_text = service.to_string();
        client.run(["ip", "neighbour", "replace", &service_text, "lladdr", &mac, "dev", "eth0"]).unwrap();
        let reply = curl(client, &url(service)).unwrap();
        assert_eq!((reply.status, reply.body.as_str()), (Some(200), "backend-0\n"), "{reply:?}");
    }
}

#[test]
fn failed_requests_are_told_in_their_place() {
    if !needs_root("failed_requests_are_told_in_their_place") {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).backends(1).up().unwrap();
    let mut server = Nginx::start(&lab.backends()[0], &[80]).unwrap();
    let address = lab.backends()[0].ipv4().into();

    let replies = curl_many(lab.client(), &url(address), 1000).unwrap();
    assert_eq!(replies.len(), 1000);
    assert!(replies.iter().all(|reply| reply.status == Some(200) && reply.error.is_none()));
    let mut ports: Vec<_> = replies.iter().map(|reply| reply.local_port.unwrap()).collect();
    let served = served_in_total([&server], 1000).unwrap().remove(0);
    let logged: Vec<_> = served.iter().map(|request| request.remote.port()).collect();
    assert_eq!(ports, logged);
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 1000);
    assert_eq!(served[999].target, "/?1000");

    server.stop().unwrap();
    let replies = curl_many(lab.client(), &url(address), 10).unwrap();
    assert_eq!(replies.len(), 10);
    assert!(replies.iter().all(|reply| reply.status.is_none() && reply.error.is_some()));

    server.start_again().unwrap();
    assert_eq!(curl(lab.client(), &url(address)).unwrap().status, Some(200));
}

#[test]
fn errors_name_namespace_command_and_reason() {
    if !needs_root("errors_name_namespace_command_and_reason") {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).backends(1).up().unwrap();
    let error = lab.client().run(["ip", "link", "show", "no-such"]).unwrap_err();
    let error = format!("{error:#}");
    for part in [lab.client().namespace(), "`ip link show no-such`", "does not exist"] {
        assert!(error.contains(part), "{error}");
    }
    // Nobody listens there, and the backend says so.
    let server = lab.backends()[0].ipv4().into();
    let error = dig(lab.client(), server, "www.example.com", "A", &[]).unwrap_err();
    assert!(format!("{error:#}").contains("-q www.example.com -t A"), "{error:#}");
}

#[test]
fn nothing_is_left_after_drop() {
    if !needs_root("nothing_is_left_after_drop") {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).up().unwrap();
    let prefix = prefix(&lab);
    let server = Nginx::start(&lab.backends()[0], &[80]).unwrap();
    let child = lab.client().spawn(["sleep", "1000"]).unwrap();
    // A child of a child, which the lab has no handle of.
    let shell = lab.client().spawn(["sh", "-c", "sleep 1000 & echo $!; wait"]).unwrap();
    let grandchild = wait_until(SOON, "the shell said what it started", || shell.log().trim().parse().ok()).unwrap();
    assert!(runs(child.pid()) && runs(grandchild));
    // Four machines, the segment, two folders.
    assert_eq!(traces(&prefix).len(), 7, "{:?}", traces(&prefix));

    drop(lab);
    assert_eq!(traces(&prefix), Vec::<PathBuf>::new());
    assert!(!runs(child.pid()) && !runs(shell.pid()));
    wait_until(SOON, "the grandchild was gone", || (!runs(grandchild)).then_some(())).unwrap();
    // A host may be held for longer than its lab, but it can do nothing any more.
    assert!(server.host().spawn(["true"]).is_err());
}

#[test]
fn nothing_is_left_after_a_panic() {
    if !needs_root("nothing_is_left_after_a_panic") {
        return;
    }
    let mut seen = None;
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        let lab = Lab::blueprint(Layout::Routed).up().unwrap();
        let child = lab.client().spawn(["sleep", "1000"]).unwrap();
        seen = Some((prefix(&lab), child.pid()));
        lab.client().inside(|| panic!("a panic that is meant to be")).unwrap();
    }));
    assert!(result.is_err());
    let (prefix, child) = seen.unwrap();
    assert_eq!(traces(&prefix), Vec::<PathBuf>::new());
    assert!(!runs(child));
}

/// Names the file that `a_lab_until_a_signal` writes its lab to.
const TELL: &str = "LAB_TELL";

/// Not a test: the process that the tests below send a signal.
#[test]
#[ignore = "waits for a signal"]
fn a_lab_until_a_signal() {
    let lab = Lab::blueprint(Layout::Routed).up().unwrap();
    let child = lab.client().spawn(["sleep", "1000"]).unwrap();
    let file = PathBuf::from(env::var_os(TELL).unwrap());
    let new = file.with_extension("new");
    fs::write(&new, format!("{} {}", prefix(&lab), child.pid())).unwrap();
    fs::rename(new, file).unwrap();
    child.wait(Duration::from_secs(60)).unwrap();
    // The child ends a moment before this process does.
    wait_until(Duration::from_secs(60), "a signal ended this", || None::<()>).unwrap();
}

/// Has a process of its own bring a lab up, sends it `signal`, and gives what it had and its end.
fn signalled(signal: Signal) -> (String, u32, process::ExitStatus) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lab");
    let mut process = Command::new(env::current_exe().unwrap())
        .args(["--exact", "a_lab_until_a_signal", "--ignored"])
        .env(TELL, &file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let told = wait_until(Duration::from_secs(30), "the other lab was up", || fs::read_to_string(&file).ok()).unwrap();
    let (prefix, child) = told.split_once(' ').unwrap();
    let child = child.parse().unwrap();
    assert!(runs(child) && !traces(prefix).is_empty());
    kill(Pid::from_raw(process.id().try_into().unwrap()), signal).unwrap();
    let status = wait_until(Duration::from_secs(10), "the signal ended it", || process.try_wait().unwrap()).unwrap();
    (prefix.to_owned(), child, status)
}

#[test]
fn nothing_is_left_after_sigint() {
    if !needs_root("nothing_is_left_after_sigint") {
        return;
    }
    let (prefix, child, status) = signalled(Signal::SIGINT);
    assert_eq!(status.code(), Some(130));
    assert_eq!(traces(&prefix), Vec::<PathBuf>::new());
    assert!(!runs(child));
}

#[test]
fn nothing_is_left_after_sigterm() {
    if !needs_root("nothing_is_left_after_sigterm") {
        return;
    }
    let (prefix, child, status) = signalled(Signal::SIGTERM);
    assert_eq!(status.code(), Some(143));
    assert_eq!(traces(&prefix), Vec::<PathBuf>::new());
    assert!(!runs(child));
}

#[test]
fn the_next_lab_removes_what_a_killed_process_left() {
    if !needs_root("the_next_lab_removes_what_a_killed_process_left") {
        return;
    }
    let (prefix, child, status) = signalled(Signal::SIGKILL);
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));
    let lab = Lab::blueprint(Layout::Bridged).backends(0).up().unwrap();
    assert_eq!(traces(&prefix), Vec::<PathBuf>::new());
    wait_until(SOON, "the other lab's child was gone", || (!runs(child)).then_some(())).unwrap();
    drop(lab);
}

#[test]
fn children_take_signals_as_usual() {
    if !needs_root("children_take_signals_as_usual") {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).backends(0).up().unwrap();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let child = lab.client().spawn(["sleep", "1000"]).unwrap();
        child.signal(signal).unwrap();
        assert_eq!(child.wait(SOON).unwrap().signal(), Some(signal as i32));
        assert!(child.signal(signal).is_err());
    }
}

#[test]
fn a_kept_lab_stays() {
    if !needs_root("a_kept_lab_stays") {
        return;
    }
    let lab = Lab::blueprint(Layout::Routed).up().unwrap();
    let prefix = prefix(&lab);
    let description = lab.keep().unwrap();
    for part in [prefix.as_str(), "backend-1", "10.78.2.22", "fd78:2::22", "remove it with: "] {
        assert!(description.contains(part), "{description}");
    }
    // Its process lives, so this leaves it.
    remove_kept().unwrap();
    assert!(!traces(&prefix).is_empty());
    let (_, remove) = description.split_once("remove it with: ").unwrap();
    assert!(Command::new("sh").args(["-c", remove]).status().unwrap().success());
    assert_eq!(traces(&prefix), Vec::<PathBuf>::new());
}

/// Behaves like `lb` toward the lab: `run` says what it reads and gets, the rest says its arguments.
const STAND_IN: &str = r#"#!/bin/sh
case "$1" in
run)
    grep -q broken "$3" && { echo "the config is broken"; exit 2; }
    socket=$(sed -n 's/^socket = "\(.*\)"/\1/p' "$3")
    trap 'echo "again: $(cat "$3")"' HUP
    trap 'rm "$socket"; exit 0' TERM
    sleep 0.1
    touch "$socket"
    while :; do sleep 0.01; done;;
status)
    for socket; do :; done
    [ -e "$socket" ] || { echo "nobody is there" >&2; exit 1; }
    echo "{\"said\": \"$*\"}";;
changes)
    for socket; do :; done
    [ -e "$socket" ];;
*)
    echo "$*"; exit 1;;
esac
"#;

#[test]
fn an_agent_is_started_asked_reloaded_and_ended() {
    if !needs_root("an_agent_is_started_asked_reloaded_and_ended") {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).backends(0).up().unwrap();
    let lb = lab.folder().join("lb");
    fs::write(&lb, STAND_IN).unwrap();
    fs::set_permissions(&lb, fs::Permissions::from_mode(0o755)).unwrap();
    let config = format!("socket = {:?}\npins = {:?}\n", lab.socket(), lab.pins());

    let agent = Agent::start_binary(lab.balancer(), &lb, &config).unwrap();
    let said = format!("status --json --socket {}", lab.socket().display());
    assert_eq!(agent.status().unwrap()["said"], *said);
    let answer = agent.attempt_lb(["backend", "drain", "one"]).unwrap();
    assert_eq!(answer.status.code(), Some(1));
    assert!(answer.stdout.starts_with("backend drain one --socket /"), "{answer:?}");
    assert!(agent.lb(["backend"]).is_err());

    agent.reload("another = true").unwrap();
    wait_until(SOON, "the agent had read the config again", || {
        agent.running().log().contains("again: another = true").then_some(())
    })
    .unwrap();
    // What it does on SIGTERM shows by the status 0, which SIGKILL cannot give.
    agent.reload(&config).unwrap();
    assert!(agent.terminate().unwrap().success());
    assert!(!lab.socket().exists());

    let agent = Agent::start_binary(lab.balancer(), &lb, &config).unwrap();
    agent.kill().unwrap();
    let status = agent.running().ended().unwrap().unwrap();
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32));

    // The stand-in answers by the file that the killed one left.
    fs::remove_file(lab.socket()).unwrap();
    let error = Agent::start_binary(lab.balancer(), &lb, "broken").unwrap_err();
    assert!(format!("{error:#}").contains("the config is broken"), "{error:#}");
}
