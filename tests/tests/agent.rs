//! The life of the agent: killed, started again, ended, reloaded, detached and attached, while clients go on asking.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
};
use support::{
    Site, TURN, backend_of, count, dns, failures, has_program, head, lab, name, service, service_addresses, services,
    serving, url, wait_for,
};
use tests::{Agent, Host, Lab, Layout, Nginx, Output, Reply, curl, curl_many, dig, lb_binary, needs_root, wait_until};

const NAME: &str = "www.example.com";

/// Says that the work under load is done, also when it panics: the load would go on for ever.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Does `work` while clients make requests to both services, none of which may fail: the last of them begin when the
/// work is done.
fn under_load<T>(client: &Host, services: [SocketAddr; 2], work: impl FnOnce() -> T) -> (T, Vec<Reply>) {
    let (begun, done) = (AtomicBool::new(false), AtomicBool::new(false));
    let load = |service: SocketAddr| {
        let mut replies = Vec::new();
        loop {
            let last = done.load(Ordering::SeqCst);
            replies.extend(curl_many(client, &url(service), 50).unwrap());
            begun.store(true, Ordering::SeqCst);
            if last {
                return replies;
            }
        }
    };
    let (result, replies) = thread::scope(|scope| {
        let loads = services.map(|service| scope.spawn(move || load(service)));
        let guard = Done(&done);
        wait_until(TURN, "requests are being made", || begun.load(Ordering::SeqCst).then_some(())).unwrap();
        let result = work();
        drop(guard);
        let replies: Vec<_> = loads.into_iter().flat_map(|load| load.join().unwrap()).collect();
        (result, replies)
    });
    assert_eq!(failures(&replies), Vec::<&Reply>::new());
    (result, replies)
}

/// The addresses of the backends, as the name of a [`site`] has them.
fn name_addresses(lab: &Lab) -> Vec<IpAddr> {
    let near = |host: &Host| host.interfaces().last().unwrap().clone();
    let ipv4 = lab.backends().iter().map(|host| near(host).ipv4.into());
    let ipv6 = lab.backends().iter().map(|host| near(host).ipv6.into());
    ipv4.chain(ipv6).collect()
}

/// A site with a DNS name over the same servers, whose check is at the port that the service leaves free.
fn site(layout: Layout, mode: &str, weights: &[u32]) -> Site {
    let lab = lab(layout, mode, weights.len());
    let (port, other) = if mode == "nat" { (8080, 80) } else { (80, 8080) };
    let head = head(&lab);
    let (_, check) = head.split_once("[check.web]").unwrap();
    let config = format!("{head}port = {port}\n\n[check.name]{check}port = {other}\n")
        + &services(&lab, mode, weights)
        + &dns(&lab)
        + &name(NAME, &name_addresses(&lab), "check = \"name\"");
    Site::start(lab, config)
}

/// The addresses that the balancer gives for the name.
fn resolve(lab: &Lab, kind: &str) -> BTreeSet<IpAddr> {
    let answer = dig(lab.client(), lab.balancer().ipv4().into(), NAME, kind, &[]).unwrap();
    answer.data(kind).iter().map(|data| data.parse().unwrap()).collect()
}

/// The addresses that it is to give.
fn all(lab: &Lab, kind: &str) -> BTreeSet<IpAddr> {
    let addresses = name_addresses(lab).into_iter();
    addresses.filter(|address| address.is_ipv4() == (kind == "A")).collect()
}

fn resolves_all(lab: &Lab) {
    for kind in ["A", "AAAA"] {
        assert_eq!(resolve(lab, kind), all(lab, kind));
    }
}

/// Has both answers, with all addresses, put into the kernel.
fn warm_up(site: &Site) {
    for kind in ["A", "AAAA"] {
        wait_until(TURN, &format!("all {kind} addresses are up"), || {
            (resolve(&site.lab, kind) == all(&site.lab, kind)).then_some(())
        })
        .unwrap();
    }
    wait_for(&site.agent, "both answers are in the kernel", |status| count(status, "dns", "answers_in_kernel") == 2);
}

/// Runs `lb` without an agent's handle.
fn lb(lab: &Lab, arguments: &[&str]) -> Output {
    let binary = lb_binary().unwrap();
    let line = [binary.to_str().unwrap()].into_iter().chain(arguments.iter().copied());
    lab.balancer().attempt(line).unwrap()
}

#[test]
fn clients_do_not_notice_that_the_agent_is_killed() {
    if !needs_root("clients_do_not_notice_that_the_agent_is_killed") {
        return;
    }
    let site = site(Layout::Bridged, "dsr", &[1, 1]);
    warm_up(&site);
    under_load(site.lab.client(), site.services(), || {
        site.agent.kill().unwrap();
        // Nobody but the kernel is there to answer.
        for _ in 0..20 {
            resolves_all(&site.lab);
        }
    });
    assert!(has_program(&site.lab, "eth0"));
}

#[test]
fn a_restarted_agent_adopts_what_it_finds() {
    if !needs_root("a_restarted_agent_adopts_what_it_finds") {
        return;
    }
    let site = site(Layout::Routed, "nat", &[1, 2, 1]);
    warm_up(&site);
    let services = site.services();
    let drained = services.map(|service| site.backends(service)[2]);
    for (service, drained) in ["web4", "web6"].iter().zip(drained) {
        site.agent.lb(["backend", "drain", service, &drained.to_string()]).unwrap();
    }
    let before = site.agent.status().unwrap();
    // Nobody listens at these ports: what the new agent did not take for up would go down by its first check.
    let slow = site.config.replace("port = 8080\n\n[", "port = 9\n\n[").replace("port = 80\n\n[", "port = 19\n\n[");
    let slow = slow.replace("interval_ms = 400", "interval_ms = 60000").replace("fall = 2", "fall = 10");
    assert!(
        slow.contains("port = 9\n")
            && slow.contains("port = 19\n")
            && slow.contains("fall = 10")
            && slow.contains("60000")
    );

    let (agent, replies) = under_load(site.lab.client(), services, || {
        site.agent.kill().unwrap();
        let agent = Agent::start(site.lab.balancer(), &slow).unwrap();
        let status = agent.status().unwrap();
        for (service, drained) in services.into_iter().zip(drained) {
            assert_eq!(serving(&status, service), serving(&before, service));
            assert_eq!(backend_of(&status, service, drained)["draining"], true);
            for backend in site.backends(service) {
                let packets = |status: &Value| backend_of(status, service, backend)["packets"].as_u64().unwrap();
                assert!(packets(&status) >= packets(&before), "{backend} was counted anew: {status:#}");
            }
        }
        assert_eq!(count(&status, "dns", "answers_in_kernel"), 2);
        resolves_all(&site.lab);
        let status = agent.status().unwrap();
        assert_eq!(status["dns"]["agent"]["queries"], 0, "{status:#}");
        agent
    });
    assert!(replies.iter().all(|reply| reply.body != "backend-2\n"));

    // With the old config it finds out by itself, and a drain ends by command alone.
    agent.reload(&site.config).unwrap();
    for ((name, service), drained) in ["web4", "web6"].iter().zip(services).zip(drained) {
        wait_for(&agent, "the drained backend is up", |status| backend_of(status, service, drained)["health"] == "up");
        assert_eq!(serving(&agent.status().unwrap(), service), serving(&before, service));
        agent.lb(["backend", "undrain", name, &drained.to_string()]).unwrap();
        assert_eq!(serving(&agent.status().unwrap(), service).len(), 3);
    }
}

#[test]
fn sigterm_leaves_the_data_path_and_detach_takes_it_down() {
    if !needs_root("sigterm_leaves_the_data_path_and_detach_takes_it_down") {
        return;
    }
    let site = site(Layout::Bridged, "dsr", &[1, 1]);
    warm_up(&site);
    under_load(site.lab.client(), site.services(), || {
        assert_eq!(site.agent.terminate().unwrap().code(), Some(0), "{}", site.agent.running().log());
        resolves_all(&site.lab);
    });
    assert!(!site.lab.socket().exists());
    let status = site.agent.attempt_lb(["status"]).unwrap();
    assert_eq!(status.status.code(), Some(1));
    let socket = site.lab.socket().display().to_string();
    assert!(
        status.stderr.starts_with(&format!("lb: no agent answers at {socket}: start one with `lb run`")),
        "{status:?}"
    );

    let pins = site.lab.pins().display().to_string();
    let detach = || lb(&site.lab, &["detach", "--socket", &socket, "--pins", &pins]);
    let detached = detach();
    assert_eq!(detached.status.code(), Some(0), "{detached:?}");
    assert_eq!(detached.stdout, format!("no agent runs; detached from 1 interface(s) and removed {pins}\n"));
    assert!(!has_program(&site.lab, "eth0"));
    assert!(!site.lab.pins().exists());
    dig(site.lab.client(), site.lab.balancer().ipv4().into(), NAME, "A", &[]).unwrap_err();

    let again = detach();
    assert_eq!(again.status.code(), Some(1));
    assert!(again.stderr.contains(&format!("nothing is pinned in {pins} either")), "{again:?}");

    // From nothing, an agent starts as the first did.
    let agent = Agent::start(site.lab.balancer(), &site.config).unwrap();
    for service in site.services() {
        wait_for(&agent, "all backends serve again", |status| serving(status, service).len() == 2);
        site.requests(service, 20);
    }
}

#[test]
fn maps_of_other_sizes_are_refused() {
    if !needs_root("maps_of_other_sizes_are_refused") {
        return;
    }
    let site = site(Layout::Bridged, "dsr", &[1, 1]);
    assert_eq!(site.agent.terminate().unwrap().code(), Some(0));
    let pins = site.lab.pins().display().to_string();
    let attempt = |limits: &str| {
        fs::write(site.agent.config(), format!("{}\n[limits]\n{limits}\n", site.config)).unwrap();
        lb(&site.lab, &["run", "--config", &site.agent.config().display().to_string()])
    };
    for (limits, what, found) in [
        ("services = 32", "services", 4_096),
        ("backends = 32", "backends", 16_384),
        ("flows = 2048", "flows", 131_072),
    ] {
        let refused = attempt(limits);
        assert_eq!(refused.status.code(), Some(3), "{refused:?}");
        let cure = format!(
            "the maps in {pins} have room for {found} {what}, [limits] asks for {}: take the data path down with `lb detach --pins \
             {pins}` and start again, or write {what} = {found}\n",
            limits.split_once(" = ").unwrap().1
        );
        assert!(refused.stderr.ends_with(&cure), "{:?} does not end with {cure:?}", refused.stderr);
    }
    // Nothing has changed for the clients, and the cure helps.
    site.requests(site.services()[0], 20);
    assert_eq!(lb(&site.lab, &["detach", "--pins", &pins]).status.code(), Some(0));
    let limited = format!("{}\n[limits]\nservices = 32\nbackends = 32\nflows = 2048\n", site.config);
    let agent = Agent::start(site.lab.balancer(), &limited).unwrap();
    wait_for(&agent, "all backends serve", |status| serving(status, site.services()[0]).len() == 2);
    site.requests(site.services()[0], 20);
}

#[test]
fn detached_and_attached_through_the_agent() {
    if !needs_root("detached_and_attached_through_the_agent") {
        return;
    }
    let site = site(Layout::Routed, "nat", &[1, 1]);
    let [service, _] = site.services();
    site.requests(service, 10);

    let said = site.agent.lb(["detach"]).unwrap().stdout;
    assert_eq!(said, "detached from 2 interface(s); the agent goes on, `lb attach` attaches again\n");
    let status = site.agent.status().unwrap();
    for (interface, number) in ["eth0", "eth1"].iter().zip(0..) {
        assert!(!has_program(&site.lab, interface));
        assert_eq!(status["interfaces"][number]["name"], *interface);
        assert_eq!(status["interfaces"][number]["index"], Value::Null);
    }
    let text = site.agent.lb(["status"]).unwrap().stdout;
    assert!(text.contains("interface eth0  detached\ninterface eth1  detached\n"), "{text}");
    assert_eq!(curl(site.lab.client(), &url(service)).unwrap().status, None);

    // A reload does not take the operator's word back.
    site.agent.reload(&site.config).unwrap();
    wait_until(TURN, "the reload", || site.agent.running().log().contains(" reloaded").then_some(())).unwrap();
    assert!(!has_program(&site.lab, "eth0") && !has_program(&site.lab, "eth1"));

    let said = site.agent.lb(["attach"]).unwrap().stdout;
    let lines: Vec<_> = said.lines().collect();
    assert_eq!((lines[0], lines.len()), ("attached to 2 interface(s)", 3), "{said}");
    for (line, interface) in lines[1..].iter().zip(["eth0", "eth1"]) {
        assert!(line.starts_with(&format!("{interface}: frames pass, native, the first after ")), "{said}");
    }
    let status = site.agent.status().unwrap();
    for (interface, number) in site.lab.balancer().interfaces().iter().zip(0..) {
        assert!(has_program(&site.lab, &interface.name));
        assert_eq!(status["interfaces"][number]["index"], interface.index);
    }
    for service in site.services() {
        assert_eq!(serving(&status, service).len(), 2);
        site.requests(service, 20);
    }
}

#[test]
fn a_reload_adds_and_removes() {
    if !needs_root("a_reload_adds_and_removes") {
        return;
    }
    let lab = lab(Layout::Bridged, "dsr", 3);
    let [web4, web6] = service_addresses(&lab);
    let more = SocketAddr::new(lab.service_ipv4(1).into(), 80);
    let backend = |number: usize| (SocketAddr::new(lab.backends()[number].ipv4().into(), 80), 1);
    let backend6 = |number: usize| (SocketAddr::new(lab.backends()[number].ipv6().into(), 80), 1);
    for host in lab.backends() {
        lab.add_service_address(host, more.ip()).unwrap();
    }
    let kept = head(&lab) + "port = 80\n" + &service("web6", "tcp", web6, "dsr", &[backend6(0), backend6(1)]);
    let old = kept.clone() + &service("web4", "tcp", web4, "dsr", &[backend(0), backend(1)]);
    let new = kept.clone()
        + &service("web4", "tcp", web4, "dsr", &[backend(0), backend(2)])
        + &service("more", "tcp", more, "dsr", &[backend(1)])
        + &dns(&lab)
        + &name(NAME, &name_addresses(&lab), "check = \"web\"");
    let [first, second, third] = [0, 1, 2].map(|number| backend(number).0);
    let site = Site::start(lab, old.clone());
    let before = site.agent.status().unwrap();
    assert_eq!(serving(&before, web4), [first, second].into());

    // What the reload does not speak of goes on as if nothing were.
    under_load(site.lab.client(), [web6; 2], || {
        site.agent.reload(&new).unwrap();
        wait_for(&site.agent, "the new backend and the new service serve", |status| {
            status["services"].as_array().unwrap().len() == 3
                && serving(status, web4) == [first, third].into()
                && serving(status, more) == [second].into()
        });
    });
    let served: BTreeSet<_> = site.requests(web4, 100).into_iter().map(|reply| reply.body).collect();
    assert_eq!(served, ["backend-0\n", "backend-2\n"].map(str::to_owned).into());
    assert!(site.requests(more, 10).iter().all(|reply| reply.body == "backend-1\n"));
    warm_up(&site);

    under_load(site.lab.client(), [web6; 2], || {
        site.agent.reload(&old).unwrap();
        wait_for(&site.agent, "all is as it was", |status| {
            status["services"].as_array().unwrap().len() == 2 && serving(status, web4) == [first, second].into()
        });
    });
    site.requests(web4, 50);
    assert_eq!(curl(site.lab.client(), &url(more)).unwrap().status, None);
    // Neither kernel nor agent answers any more.
    dig(site.lab.client(), site.lab.balancer().ipv4().into(), NAME, "A", &[]).unwrap_err();
    assert_eq!(site.agent.running().log().matches(" reloaded").count(), 2, "{}", site.agent.running().log());
}

#[test]
fn a_reload_that_changes_the_check_takes_no_backend_out() {
    if !needs_root("a_reload_that_changes_the_check_takes_no_backend_out") {
        return;
    }
    let site = site(Layout::Bridged, "dsr", &[1]);
    let changed = site.config.replace("interval_ms = 400", "interval_ms = 410");
    assert_ne!(changed, site.config);
    // Had the only backend of each service to be found up again, requests would fail until then.
    under_load(site.lab.client(), site.services(), || {
        site.agent.reload(&changed).unwrap();
        wait_until(TURN, "the reload", || site.agent.running().log().contains(" reloaded").then_some(())).unwrap();
    });
    let log = site.agent.running().log();
    // Each was found up by the first agent's first probes, and has not been anything else since.
    assert_eq!(log.matches(" up ").count(), log.split(" reloaded").next().unwrap().matches(" up ").count(), "{log}");
}

#[test]
fn a_wrong_config_changes_nothing() {
    if !needs_root("a_wrong_config_changes_nothing") {
        return;
    }
    let site = site(Layout::Bridged, "dsr", &[1, 1]);
    warm_up(&site);
    let of_interest = |status: &Value| {
        let [web4, web6] = site.services().map(|service| serving(status, service));
        (web4, web6, status["interfaces"].clone(), status["dns"]["names"].clone())
    };
    // Over TCP it is the agent that answers, at both addresses.
    let asked_by_tcp = || {
        let balancer = site.lab.balancer();
        [IpAddr::from(balancer.ipv4()), balancer.ipv6().into()]
            .map(|server| dig(site.lab.client(), server, NAME, "A", &["+tcp"]).is_ok())
    };
    let before = of_interest(&site.agent.status().unwrap());
    let misspelt = site.config.replace("weight = 1", "wieght = 1");
    let line = 1 + misspelt.lines().position(|line| line.starts_with("wieght")).unwrap();
    let no_interface = site.config.replace("[\"eth0\"]", "[\"eth7\"]");
    let one_address = |config: &str| config.replace(&format!(", \"{}\"]", site.lab.balancer().ipv6()), "]");
    let reloads = [
        (misspelt, format!(":{line}: unknown key `wieght`; the keys here are `address`, `port`, `weight`")),
        (no_interface.clone(), "interface eth7 does not exist".into()),
        // What is wrong is found after the sockets for DNS have been opened anew.
        (one_address(&no_interface), "interface eth7 does not exist".into()),
        (
            site.config.replace(&format!("[\"{}\"", site.lab.balancer().ipv4()), "[\"10.77.0.77\""),
            "cannot listen on 10.77.0.77:53 (udp): this machine does not have the address".into(),
        ),
        (
            site.config.replace("agent.sock", "other.sock"),
            "`socket`, `pins`, `attach` and [limits] change only with a restart, after `lb detach`".into(),
        ),
    ];
    for (config, said) in reloads {
        let so_far = site.agent.running().log().len();
        assert_ne!(config, site.config);
        site.agent.reload(&config).unwrap();
        let refusal = wait_until(TURN, "the agent refused the config", || {
            let log = site.agent.running().log()[so_far..].to_owned();
            let (_, rest) = log.split_once("not reloaded, nothing is changed: ")?;
            // The config's errors are one a line.
            rest.ends_with('\n').then(|| rest.to_owned())
        });
        let refusal = refusal.unwrap();
        assert!(refusal.contains(&said), "{said:?} is not in {refusal:?}");
        assert_eq!(of_interest(&site.agent.status().unwrap()), before);
        for service in site.services() {
            site.requests(service, 20);
        }
        resolves_all(&site.lab);
        assert_eq!(asked_by_tcp(), [true, true]);
    }
    let log = site.agent.running().log();
    assert!(!log.contains('\x1b'), "the log is for a terminal: {log}");

    // A right one is taken, and only the address that is gone is no longer answered at.
    let so_far = log.len();
    site.agent.reload(&one_address(&site.config)).unwrap();
    wait_until(TURN, "the agent takes a right config", || {
        site.agent.running().log()[so_far..].contains(" reloaded").then_some(())
    })
    .unwrap();
    assert_eq!(asked_by_tcp(), [true, false]);
    resolves_all(&site.lab);
}

#[test]
fn interfaces_come_and_go_by_reload() {
    if !needs_root("interfaces_come_and_go_by_reload") {
        return;
    }
    let lab = lab(Layout::Routed, "nat", 1);
    let _server = Nginx::start(&lab.backends()[0], &[8080]).unwrap();
    let both = head(&lab) + &services(&lab, "nat", &[1]);
    let one = both.replace("[\"eth0\", \"eth1\"]", "[\"eth0\"]");
    assert_ne!(both, one);
    let [web4, web6] = service_addresses(&lab);
    let agent = Agent::start(lab.balancer(), &one).unwrap();
    let out_of_reach = |status: &Value| {
        let index = lab.balancer().interfaces()[1].index;
        let reason = format!("it is reached by interface number {index} of `ip link`, which is not among");
        [web4, web6].into_iter().all(|service| {
            let backend = &support::status_of(status, service)["backends"][0];
            backend["health"] == "up"
                && backend["serving"] == false
                && backend["no_next_hop"].as_str().is_some_and(|text| text.starts_with(&reason))
        })
    };
    wait_for(&agent, "the backend is up, but out of reach", out_of_reach);
    assert!(has_program(&lab, "eth0") && !has_program(&lab, "eth1"));

    agent.reload(&both).unwrap();
    wait_for(&agent, "the backend serves", |status| serving(status, web4).len() + serving(status, web6).len() == 2);
    assert!(has_program(&lab, "eth0") && has_program(&lab, "eth1"));
    for service in [web4, web6] {
        let replies = curl_many(lab.client(), &url(service), 20).unwrap();
        assert_eq!(failures(&replies), Vec::<&Reply>::new());
    }

    agent.reload(&one).unwrap();
    wait_for(&agent, "the backend is out of reach again", out_of_reach);
    assert!(has_program(&lab, "eth0") && !has_program(&lab, "eth1"));
    let interfaces = agent.status().unwrap()["interfaces"].clone();
    assert_eq!(interfaces.as_array().unwrap().len(), 1, "{interfaces:#}");
}

#[test]
fn an_interface_that_comes_back_is_attached_again() {
    if !needs_root("an_interface_that_comes_back_is_attached_again") {
        return;
    }
    let lab = lab(Layout::Bridged, "dsr", 1);
    let add = |index: u32| {
        // A dot, as in the names of VLANs, which a pin's name may not have.
        let add = format!("link add extra.0 index {index} type veth peer name extra1");
        [add, "link set extra.0 up".into(), "link set extra1 up".into()]
    };
    lab.balancer().ip(&add(501)).unwrap();
    let config = (head(&lab) + &services(&lab, "dsr", &[1])).replace("[\"eth0\"]", "[\"eth0\", \"extra.0\"]");
    let site = Site::start(lab, config);
    let lab = &site.lab;
    let is_attached = |status: &Value, index: u32| status["interfaces"][1]["index"] == index;
    assert!(has_program(lab, "extra.0") && is_attached(&site.agent.status().unwrap(), 501));

    let ((), _) = under_load(lab.client(), site.services(), || {
        lab.balancer().ip(&["link delete extra.0".into()]).unwrap();
        wait_for(&site.agent, "the interface is gone", |status| status["interfaces"][1]["index"].is_null());
        lab.balancer().ip(&add(502)).unwrap();
        wait_for(&site.agent, "the interface is attached again", |status| is_attached(status, 502));
    });
    assert!(has_program(lab, "extra.0"));
    let log = site.agent.running().log();
    assert!(!log.contains("ERROR"), "{log}");

    // The same while nobody looks: what the next agent finds pinned is of an interface that is no more.
    site.agent.kill().unwrap();
    lab.balancer().ip(&["link delete extra.0".into()]).unwrap();
    lab.balancer().ip(&add(503)).unwrap();
    let agent = Agent::start(lab.balancer(), &site.config).unwrap();
    wait_for(&agent, "the new one is attached", |status| is_attached(status, 503));
    assert!(has_program(lab, "extra.0"));
    let log = agent.running().log();
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn a_running_agent_has_few_privileges_and_closed_files() {
    if !needs_root("a_running_agent_has_few_privileges_and_closed_files") {
        return;
    }
    let site = site(Layout::Bridged, "dsr", &[1]);
    let status = fs::read_to_string(format!("/proc/{}/status", site.agent.running().pid())).unwrap();
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    // CAP_NET_BIND_SERVICE, CAP_NET_ADMIN, CAP_PERFMON and CAP_BPF of the kernel's capability.h.
    let few = [10, 12, 38, 39].into_iter().fold(0, |set, bit| set | 1_u64 << bit);
    assert_eq!((set("CapEff:"), set("CapPrm:"), set("CapInh:")), (few, few, 0));

    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&site.lab.socket()), mode(&site.lab.pins())), (0o660, 0o700));
}

#[test]
fn status_and_check_are_for_people() {
    if !needs_root("status_and_check_are_for_people") {
        return;
    }
    let mut site = site(Layout::Bridged, "dsr", &[1, 3]);
    warm_up(&site);
    let [web4, _] = site.services();
    site.requests(web4, 20);
    site.servers[0].stop().unwrap();
    let dead = site.backends(web4)[0];
    wait_for(&site.agent, "the dead backend is down", |status| backend_of(status, web4, dead)["health"] == "down");

    let text = site.agent.lb(["status"]).unwrap().stdout;
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    let line = |start: &[&str]| {
        let found = lines.iter().find(|line| line.starts_with(start));
        found.unwrap_or_else(|| panic!("no line starts with {start:?} in\n{text}"))
    };
    assert_eq!(lines[0][..3], ["lb", "0.1.0,", "up"]);
    assert_eq!(*line(&["interface"]), ["interface", "eth0", "attached"]);
    assert_eq!(line(&["service", "web4"])[2..], ["tcp", &web4.to_string(), "dsr", "1009", "slots"]);
    assert_eq!(line(&[&dead.to_string()])[1..3], ["1", "down"]);
    let alive = line(&[&site.backends(web4)[1].to_string()]);
    let all = text.lines().skip_while(|line| !line.starts_with("service web4")).find(|line| line.starts_with("  all"));
    let all: u64 = all.unwrap().split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(all >= alive[3].parse().unwrap(), "{text}");
    assert_eq!(alive[1..3], ["3", "up"]);
    assert!(alive[3].parse::<u64>().unwrap() > 0 && alive[4].parse::<u64>().unwrap() > 0, "{text}");
    assert_eq!(line(&["dns"])[3..], ["1", "name(s)"]);
    assert!(line(&["forwarded_dsr"])[1].parse::<u64>().unwrap() > 0);

    let file = site.agent.config().display().to_string();
    let check = lb(&site.lab, &["check", &file]);
    assert_eq!(check.status.code(), Some(0), "{check:?}");
    assert_eq!(check.stdout, format!("{file}: right: 2 service(s) with 4 backend(s), 1 name(s)\n"));
    fs::write(site.agent.config(), site.config.replace("\"dsr\"", "\"drs\"")).unwrap();
    let check = lb(&site.lab, &["check", &file]);
    assert_eq!((check.status.code(), check.stdout.as_str()), (Some(2), ""), "{check:?}");
    assert!(check.stderr.contains("drs"), "{check:?}");
}
