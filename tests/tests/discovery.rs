//! Backends by name: what a real DNS server says enters like any other change, and its death changes nothing.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};
use support::{
    TURN, backend_of, failures,
    farm::{Farm, Load, Mode, Requests, backend_ip, service_ips},
    head, lab, serving, status_of, url, wait_for,
};
use tests::{
    Agent, Lab, Layout, LineServer, Lines, Nginx, Zone, curl_many, lb_binary, needs_program, needs_root, wait_until,
};

const PORT: u16 = 7000;
/// Lines that every connection has to have had before a change counts as survived.
const ENOUGH: u64 = 10;

/// Servers of which each has a port of its own, and a DNS server beside them.
struct Site {
    web: Vec<Nginx>,
    _lines: Vec<LineServer>,
    zone: Zone,
    lab: Lab,
}

impl Site {
    /// `count` servers; `records` says what the zone is.
    fn up(count: usize, records: impl Fn(&Lab) -> String) -> Self {
        let lab = lab(Layout::Routed, "nat", count + 1);
        let servers = || lab.backends().iter().take(count).enumerate();
        let web = servers().map(|(_, host)| Nginx::start(host, &[80, 8001, 8002, 8003]).unwrap()).collect();
        let lines =
            servers().flat_map(|(_, host)| [7001, 7002, 7003].map(|port| LineServer::start(host, port).unwrap()));
        let lines = lines.collect();
        let zone = Zone::start(&lab.backends()[count], "example.com", &records(&lab)).unwrap();
        Self { web, _lines: lines, zone, lab }
    }

    fn service(&self) -> SocketAddr {
        (self.lab.service_ipv4(0), PORT).into()
    }

    /// A service whose backends are these.
    fn config(&self, backends: &str) -> String {
        let (service, zone) = (self.service(), self.lab.backends().last().unwrap().ipv4());
        format!(
            "{}port = 80\n\n[resolver]\nnameservers = [\"{zone}\"]\n\n[[service]]\nname = \"api\"\naddress = \"{}\"\n\
             port = {PORT}\nmode = \"nat\"\ncheck = \"web\"\n{backends}",
            head(&self.lab),
            service.ip()
        )
    }
}

fn ip(lab: &Lab, number: usize) -> IpAddr {
    lab.backends()[number].ipv4().into()
}

/// The records of api-server-01 to 03, which are at these backends.
fn hosts(lab: &Lab, numbers: [usize; 3]) -> String {
    let mut text = String::new();
    for (host, number) in numbers.into_iter().enumerate() {
        writeln!(text, "api-server-0{}.internal.example.com. A {}", host + 1, ip(lab, number)).unwrap();
    }
    text
}

fn wait_until_serving(agent: &Agent, service: SocketAddr, wanted: &[(IpAddr, u16)]) -> Value {
    let wanted: BTreeSet<SocketAddr> = wanted.iter().map(|place| (*place).into()).collect();
    wait_for(agent, &format!("{wanted:?} serve"), |status| serving(status, service) == wanted)
}

/// What the status says of a service's names: their errors.
fn errors(status: &Value, service: SocketAddr) -> Vec<bool> {
    let names = status_of(status, service)["names"].as_array().unwrap();
    names.iter().map(|name| name["error"].is_string()).collect()
}

#[test]
fn one_name_over_hosts_each_with_its_own_port_and_weight() {
    const TEST: &str = "one_name_over_hosts_each_with_its_own_port_and_weight";
    if !needs_root(TEST) || !needs_program(TEST, "knotd") {
        return;
    }
    let mut site = Site::up(4, |lab| hosts(lab, [0, 1, 2]));
    let (service, at) = (site.service(), [0, 1, 2, 3].map(|number| ip(&site.lab, number)));
    let mut backends = String::new();
    for number in 1..=3 {
        write!(
            backends,
            "[[service.backend]]\nhost = \"api-server-0{number}.internal.example.com\"\nport = 700{number}\nweight = {number}\n"
        )
        .unwrap();
    }
    let config = site.config(&backends);
    let agent = Agent::start(site.lab.balancer(), &config).unwrap();
    let status = wait_until_serving(&agent, service, &[(at[0], 7001), (at[1], 7002), (at[2], 7003)]);
    for (ip, number) in at.into_iter().zip(1..=3) {
        let backend = backend_of(&status, service, (ip, 7000 + number).into());
        assert_eq!(backend["weight"], number);
        assert_eq!(backend["host"], format!("api-server-0{number}.internal.example.com"));
    }
    let text = agent.lb(["status"]).unwrap().stdout;
    assert!(text.contains("name api-server-01.internal.example.com A: 1 record(s), resolved"), "{text}");
    let text = agent.lb(["health", &at[1].to_string()]).unwrap().stdout;
    assert!(text.contains("by api-server-02.internal.example.com A: 1 record(s), resolved"), "{text}");

    // An address changes: nobody's connection moves or breaks, also not at the one that is gone.
    let lines = Lines::start(site.lab.client(), service, 24).unwrap();
    lines.wait_for_more(ENOUGH).unwrap();
    site.zone.set(&hosts(&site.lab, [3, 1, 2])).unwrap();
    let status = wait_until_serving(&agent, service, &[(at[3], 7001), (at[1], 7002), (at[2], 7003)]);
    assert_eq!(backend_of(&status, service, (at[0], 7001).into())["leaving"], true);
    lines.wait_for_more(ENOUGH).unwrap();

    // DNS dies: what it said last holds.
    site.zone.stop().unwrap();
    wait_for(&agent, "the failures are told", |status| errors(status, service) == [true; 3]);
    let text = agent.lb(["status"]).unwrap().stdout;
    assert!(text.contains("; DNS fails now: "), "{text}");
    wait_until_serving(&agent, service, &[(at[3], 7001), (at[1], 7002), (at[2], 7003)]);
    lines.wait_for_more(ENOUGH).unwrap();

    // It also holds for an agent that is started without DNS.
    agent.terminate().unwrap();
    let agent = Agent::start(site.lab.balancer(), &config).unwrap();
    let status = wait_until_serving(&agent, service, &[(at[3], 7001), (at[1], 7002), (at[2], 7003)]);
    assert!(status_of(&status, service)["names"][0]["resolved_seconds"].is_u64());
    lines.wait_for_more(ENOUGH).unwrap();

    // A name of which nothing is known is no reason not to start or to reload, and takes nothing from the others.
    let more = "[[service.backend]]\nhost = \"api-server-04.internal.example.com\"\nport = 7002\n";
    agent.reload(&(config.clone() + more)).unwrap();
    wait_for(&agent, "the unknown name is told", |status| errors(status, service) == [true; 4]);
    let text = agent.lb(["status"]).unwrap().stdout;
    assert!(text.contains("name api-server-04.internal.example.com A: not resolved yet; DNS fails now: "), "{text}");
    wait_until_serving(&agent, service, &[(at[3], 7001), (at[1], 7002), (at[2], 7003)]);

    // DNS is back.
    site.zone
        .set(&(hosts(&site.lab, [3, 1, 2]) + &format!("api-server-04.internal.example.com. A {}\n", at[0])))
        .unwrap();
    site.zone.start_again().unwrap();
    wait_until_serving(&agent, service, &[(at[3], 7001), (at[1], 7002), (at[2], 7003), (at[0], 7002)]);
    wait_for(&agent, "nothing fails any more", |status| errors(status, service) == [false; 4]);

    let report = lines.stop().unwrap();
    assert_eq!(report.connections.len(), 24);
    for connection in &report.connections {
        assert_eq!((connection.names.len(), &connection.broken), (1, &None), "{connection:?}");
    }
}

#[test]
fn srv_records_say_ports_weights_and_who_is_a_backup() {
    const TEST: &str = "srv_records_say_ports_weights_and_who_is_a_backup";
    if !needs_root(TEST) || !needs_program(TEST, "knotd") {
        return;
    }
    let srv = |records: &[(u16, u16, u16, usize)]| {
        let mut text = String::new();
        for (priority, weight, port, host) in records {
            let host = format!("api-server-0{host}.internal.example.com.");
            writeln!(text, "_http._tcp.example.com. SRV {priority} {weight} {port} {host}").unwrap();
        }
        text
    };
    let before = srv(&[(10, 1, 7001, 1), (10, 3, 7002, 2), (20, 0, 7003, 3)]);
    let mut site = Site::up(3, |lab| hosts(lab, [0, 1, 2]) + &before);
    let (service, at) = (site.service(), [0, 1, 2].map(|number| ip(&site.lab, number)));
    let config = site.config("[[service.backend]]\nsrv = \"_http._tcp.example.com\"\n");
    let agent = Agent::start(site.lab.balancer(), &config).unwrap();
    let status = wait_until_serving(&agent, service, &[(at[0], 7001), (at[1], 7002)]);
    let backend = |number: usize| backend_of(&status, service, (at[number], 7001 + number as u16).into());
    assert_eq!([0, 1].map(|number| backend(number)["weight"].as_u64().unwrap()), [1, 3]);
    assert_eq!((&backend(2)["backup"], &backend(2)["srv"]), (&true.into(), &"_http._tcp.example.com".into()));

    // The higher priority serves when nobody of the lower does, and no longer.
    site.web[0].stop().unwrap();
    wait_until_serving(&agent, service, &[(at[1], 7002)]);
    site.web[1].stop().unwrap();
    wait_until_serving(&agent, service, &[(at[2], 7003)]);
    site.web[0].start_again().unwrap();
    wait_until_serving(&agent, service, &[(at[0], 7001)]);
    site.web[1].start_again().unwrap();
    wait_until_serving(&agent, service, &[(at[0], 7001), (at[1], 7002)]);

    // Another port and another priority.
    site.zone
        .set(&(hosts(&site.lab, [0, 1, 2]) + &srv(&[(10, 1, 7002, 1), (20, 3, 7002, 2), (10, 1, 7003, 3)])))
        .unwrap();
    wait_until_serving(&agent, service, &[(at[0], 7002), (at[2], 7003)]);
    let text = agent.lb(["status"]).unwrap().stdout;
    assert!(text.contains("name _http._tcp.example.com SRV: 3 record(s), resolved"), "{text}");
    assert!(text.contains("host api-server-01.internal.example.com, by _http._tcp.example.com"), "{text}");
}

#[test]
fn an_answer_that_contradicts_the_config_is_told_and_not_used() {
    const TEST: &str = "an_answer_that_contradicts_the_config_is_told_and_not_used";
    if !needs_root(TEST) || !needs_program(TEST, "knotd") {
        return;
    }
    let mut site = Site::up(3, |lab| hosts(lab, [1, 2, 2]));
    let (service, at) = (site.service(), [0, 1, 2].map(|number| ip(&site.lab, number)));
    let host = |number: usize| {
        format!("[[service.backend]]\nhost = \"api-server-0{number}.internal.example.com\"\nport = 7001\n")
    };
    // A NAT backend is behind one service only.
    let other = format!(
        "\n[[service]]\nname = \"other\"\naddress = \"{}\"\nport = 7009\nmode = \"nat\"\ncheck = \"web\"\n\
         [[service.backend]]\naddress = \"{}\"\nport = 7001\n",
        service.ip(),
        at[0]
    );
    let config = site.config(&(host(1) + &host(2) + &other));
    let agent = Agent::start(site.lab.balancer(), &config).unwrap();
    wait_until_serving(&agent, service, &[(at[1], 7001), (at[2], 7001)]);
    site.zone.set(&hosts(&site.lab, [0, 2, 2])).unwrap();
    let status = wait_for(&agent, "the answer is refused", |status| errors(status, service) == [true, false]);
    let error = status_of(&status, service)["names"][0]["error"].as_str().unwrap();
    assert!(error.contains("the answer can't be used") && error.contains("is also behind service"), "{error}");
    wait_until_serving(&agent, service, &[(at[1], 7001), (at[2], 7001)]);
    // Another name goes on meanwhile, and this one when it can.
    site.zone.set(&hosts(&site.lab, [0, 1, 1])).unwrap();
    wait_until_serving(&agent, service, &[(at[1], 7001)]);
    site.zone.set(&hosts(&site.lab, [2, 1, 1])).unwrap();
    wait_for(&agent, "nothing fails any more", |status| errors(status, service) == [false; 2]);
    wait_until_serving(&agent, service, &[(at[2], 7001), (at[1], 7001)]);
}

#[test]
fn requests_to_one_name_reach_hosts_by_their_ports_and_weights() {
    const TEST: &str = "requests_to_one_name_reach_hosts_by_their_ports_and_weights";
    if !needs_root(TEST) || !needs_program(TEST, "knotd") {
        return;
    }
    let site = Site::up(3, |lab| hosts(lab, [0, 1, 2]));
    let (service, at) = (site.service(), [0, 1, 2].map(|number| ip(&site.lab, number)));
    let mut backends = String::new();
    for (number, weight) in [(1, 1), (2, 2), (3, 5)] {
        write!(
            backends,
            "[[service.backend]]\nhost = \"api-server-0{number}.internal.example.com\"\nport = 800{number}\nweight = {weight}\n"
        )
        .unwrap();
    }
    let config = site.config(&backends);
    let agent = Agent::start(site.lab.balancer(), &config).unwrap();
    wait_until_serving(&agent, service, &[(at[0], 8001), (at[1], 8002), (at[2], 8003)]);
    let replies = curl_many(site.lab.client(), &url(service), 400).unwrap();
    assert!(failures(&replies).is_empty(), "{:?}", failures(&replies));
    let mut counts = BTreeMap::<&str, usize>::new();
    for reply in &replies {
        *counts.entry(reply.body.trim()).or_default() += 1;
    }
    // By chance, five standard deviations wide.
    for ((host, expected), range) in
        [("backend-0", 50), ("backend-1", 100), ("backend-2", 250)].iter().zip([33, 43, 48])
    {
        let count = counts.get(host).copied().unwrap_or_default();
        assert!(count.abs_diff(*expected) <= range, "{counts:?}");
    }
    for (number, server) in site.web.iter().enumerate() {
        let ports: BTreeSet<u16> = server.served().unwrap().iter().map(|served| served.local.port()).collect();
        assert_eq!(ports.into_iter().filter(|port| *port != 80).collect::<Vec<_>>(), [8001 + number as u16]);
    }

    // What is found is told, and drained like what is written, for as long as it is there.
    let backend = SocketAddr::new(at[1], 8002).to_string();
    let line = format!("api  {backend}  weight 2  up  host api-server-02.internal.example.com\n");
    let list = agent.lb(["backend", "list", "api"]).unwrap().stdout;
    assert!(list.contains(&line), "{list}");
    agent.lb(["backend", "drain", "api", &backend]).unwrap();
    wait_until_serving(&agent, service, &[(at[0], 8001), (at[2], 8003)]);
    let export = agent.lb(["export", "--with-secret"]).unwrap().stdout;
    let state = if export.contains("drained") { "drained" } else { "draining" };
    let told = format!("#   api  {backend}  weight 2  {state}  host api-server-02.internal.example.com\n");
    assert!(export.starts_with("# By name or from a file, ") && export.contains(&told), "{export}");
    assert!(export.ends_with(&config), "{export}");
    // It is a config, and is exported again with what holds then.
    let path = site.lab.folder().join("exported.toml");
    std::fs::write(&path, &export).unwrap();
    agent.lb(["apply", path.to_str().unwrap()]).unwrap();
    wait_until_serving(&agent, service, &[(at[0], 8001), (at[2], 8003)]);
    let again = agent.lb(["export", "--with-secret"]).unwrap().stdout;
    assert_eq!((again.matches("# By name").count(), again.lines().count()), (1, export.lines().count()), "{again}");
    let refused = agent.attempt_lb(["backend", "weight", "api", &backend, "3"]).unwrap();
    assert!(refused.stderr.contains("by host = \"api-server-02.internal.example.com\" of the config"), "{refused:?}");
    agent.lb(["backend", "undrain", "api", &backend]).unwrap();
    wait_until_serving(&agent, service, &[(at[0], 8001), (at[1], 8002), (at[2], 8003)]);
    assert!(agent.lb(["changes"]).unwrap().stdout.starts_with("no changes"));
}

/// Says that something is done, also when a test fails before.
struct Done<'d>(&'d AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn new_hosts_of_srv_records_take_over_without_a_gap() {
    const TEST: &str = "new_hosts_of_srv_records_take_over_without_a_gap";
    if !needs_root(TEST) || !needs_program(TEST, "knotd") {
        return;
    }
    // Each time by hosts of another name, so that nobody is known when the SRV records are others.
    let records = |lab: &Lab, name: &str, number: usize| {
        let port = 8001 + number;
        format!(
            "_http._tcp.example.com. SRV 10 1 {port} {name}.example.com.\n{name}.example.com. A {}\n",
            ip(lab, number)
        )
    };
    let mut site = Site::up(2, |lab| records(lab, "first", 0));
    let (service, at) = (site.service(), [0, 1].map(|number| ip(&site.lab, number)));
    let config = site.config("[[service.backend]]\nsrv = \"_http._tcp.example.com\"\n");
    let agent = Agent::start(site.lab.balancer(), &config).unwrap();
    wait_until_serving(&agent, service, &[(at[0], 8001)]);
    let done = AtomicBool::new(false);
    let replies = thread::scope(|scope| {
        let requests = scope.spawn(|| {
            let mut replies = Vec::new();
            while !done.load(Ordering::SeqCst) {
                replies.extend(curl_many(site.lab.client(), &url(service), 20).unwrap());
            }
            replies
        });
        let _done = Done(&done);
        for (name, number) in [("second", 1), ("third", 0), ("fourth", 1)] {
            site.zone.set(&records(&site.lab, name, number)).unwrap();
            wait_until_serving(&agent, service, &[(at[number], 8001 + number as u16)]);
        }
        // Hosts that are nowhere: who had the flows has them.
        site.zone.set("_http._tcp.example.com. SRV 10 1 8001 nowhere.example.com.\n").unwrap();
        wait_for(&agent, "the host is unknown", |status| {
            let names = status_of(status, service)["names"].as_array().unwrap();
            names.iter().any(|name| name["name"] == "nowhere.example.com" && name["error"].is_string())
        });
        let seen = site.web[1].served().unwrap().len();
        wait_until(TURN, "requests go on", || (site.web[1].served().unwrap().len() > seen + 50).then_some(())).unwrap();
        done.store(true, Ordering::SeqCst);
        requests.join().unwrap()
    });
    assert!(failures(&replies).is_empty(), "{:?}", failures(&replies));
    // The root as the host: decidedly nowhere.
    site.zone.set("_http._tcp.example.com. SRV 0 0 0 .\n").unwrap();
    wait_for(&agent, "nobody is there", |status| {
        let names = status_of(status, service)["names"].as_array().unwrap();
        names.len() == 1 && names[0]["records"].as_array().unwrap().is_empty() && names[0]["error"].is_null()
    });
    assert_eq!(failures(&curl_many(site.lab.client(), &url(service), 1).unwrap()).len(), 1);
}

#[test]
fn answers_of_every_kind() {
    const TEST: &str = "answers_of_every_kind";
    if !needs_root(TEST) || !needs_program(TEST, "knotd") {
        return;
    }
    // Aliases, a TTL of 0, addresses that no backend can have, and more of them than a datagram takes.
    let alias = "www.example.com. 0 CNAME front.example.com.\nfront.example.com. CNAME node.example.com.\n";
    let node = |lab: &Lab, numbers: &[usize], many: usize| {
        let mut text = alias.to_owned();
        for number in numbers {
            writeln!(text, "node.example.com. 0 A {}", ip(lab, *number)).unwrap();
        }
        for number in 0..many {
            writeln!(text, "node.example.com. 0 A 10.200.{}.{}", number / 250, number % 250 + 1).unwrap();
        }
        text + "node.example.com. 0 A 127.0.0.1\nnode.example.com. 0 A 0.0.0.0\nnode.example.com. 0 A 224.0.0.1\n"
    };
    let mut site = Site::up(2, |lab| node(lab, &[0], 0));
    let (service, at) = (site.service(), [0, 1].map(|number| ip(&site.lab, number)));
    let config = site.config("[[service.backend]]\nhost = \"www.example.com\"\nport = 8001\n");
    let agent = Agent::start(site.lab.balancer(), &config).unwrap();
    let status = wait_until_serving(&agent, service, &[(at[0], 8001)]);
    assert_eq!(status_of(&status, service)["backends"].as_array().unwrap().len(), 1, "{status:#}");
    let count = |status: &Value| status_of(status, service)["names"][0]["records"].as_array().unwrap().len();
    site.zone.set(&node(&site.lab, &[0, 1], 200)).unwrap();
    wait_for(&agent, "a long answer comes", |status| count(status) == 205);
    wait_until_serving(&agent, service, &[(at[0], 8001), (at[1], 8001)]);
    site.zone.set(&node(&site.lab, &[1], 0)).unwrap();
    wait_for(&agent, "a short one comes", |status| count(status) == 4);
    let status = wait_until_serving(&agent, service, &[(at[1], 8001)]);
    assert!(status_of(&status, service)["backends"].as_array().unwrap().len() <= 2, "{status:#}");

    // That there is no such name, or no address, takes nobody away, and is told.
    for (zone, told) in
        [(alias.to_owned(), "NXDOMAIN"), (format!("{alias}node.example.com. TXT none\n"), "the name has no A record")]
    {
        site.zone.set(&zone).unwrap();
        let status = wait_for(&agent, told, |status| {
            let error = &status_of(status, service)["names"][0]["error"];
            error.as_str().is_some_and(|error| error.contains(told))
        });
        assert_eq!(serving(&status, service), [SocketAddr::new(at[1], 8001)].into());
        let metrics = site.lab.balancer().run([
            "curl",
            "-s",
            "--unix-socket",
            site.lab.socket().to_str().unwrap(),
            "http://lb/metrics",
        ]);
        let metrics = metrics.unwrap().stdout;
        assert!(metrics.contains("lb_service_discovery_failures{service=\"api\"} 1\n"), "{metrics}");
    }
    site.zone.set(&node(&site.lab, &[0], 0)).unwrap();
    wait_until_serving(&agent, service, &[(at[0], 8001)]);

    // More than the maps are made for is refused like in a config, and what was before holds.
    let few = config.replace("\n[[service]]", "\n[limits]\nbackends = 64\n\n[[service]]");
    agent.terminate().unwrap();
    let [socket, pins] = [site.lab.socket(), site.lab.pins()].map(|path| path.display().to_string());
    let binary = lb_binary().unwrap().display().to_string();
    site.lab.balancer().run([&*binary, "detach", "--socket", &socket, "--pins", &pins]).unwrap();
    let agent = Agent::start(site.lab.balancer(), &few).unwrap();
    wait_until_serving(&agent, service, &[(at[0], 8001)]);
    site.zone.set(&node(&site.lab, &[0, 1], 200)).unwrap();
    let status = wait_for(&agent, "too long an answer is refused", |status| {
        status_of(status, service)["names"][0]["error"].as_str().is_some_and(|error| error.contains("limits"))
    });
    assert_eq!(serving(&status, service), [SocketAddr::new(at[0], 8001)].into());
}

/// The config of a farm whose backends are api-server-01 to 03 in both families, and the records of these at such backends.
fn by_name(farm: &Farm, zone: IpAddr) -> String {
    let mut text = farm.config(&[0, 1, 2]);
    for number in 0..3 {
        for ip in service_ips(&farm.lab).map(|service| backend_ip(&farm.lab, farm.mode, service, number)) {
            let host = format!("host = \"api-server-0{}.internal.example.com\"", number + 1);
            text = text
                .replace(&format!("[[service.backend]]\naddress = \"{ip}\""), &format!("[[service.backend]]\n{host}"));
        }
    }
    text.replacen("\n[[service]]", &format!("\n[resolver]\nnameservers = [\"{zone}\"]\n\n[[service]]"), 1)
}

fn at_backends(lab: &Lab, numbers: [&[usize]; 3]) -> String {
    let mut text = String::new();
    for (host, numbers) in (1..).zip(numbers) {
        for host_of in numbers.iter().map(|number| &lab.backends()[*number]) {
            let name = format!("api-server-0{host}.internal.example.com.");
            writeln!(text, "{name} A {}\n{name} AAAA {}", host_of.ipv4(), host_of.ipv6()).unwrap();
        }
    }
    text
}

#[test]
fn names_that_change_under_load_lose_nothing() {
    const TEST: &str = "names_that_change_under_load_lose_nothing";
    if !needs_root(TEST) || !needs_program(TEST, "knotd") {
        return;
    }
    let mut farm = Farm::up(Mode::Nat, 5, &[0, 1, 2], "");
    let resolver = &farm.lab.backends()[4];
    let mut zone = Zone::start(resolver, "example.com", &at_backends(&farm.lab, [&[0], &[1], &[2]])).unwrap();
    let config = by_name(&farm, resolver.ipv4().into());
    assert_eq!(config.matches("host = ").count(), 18, "{config}");
    farm.agent.reload(&config).unwrap();
    wait_for(&farm.agent, "the backends are by name", |status| {
        status["services"].as_array().unwrap().iter().all(|service| service["names"].as_array().unwrap().len() == 3)
    });
    farm.wait_until_serving(&[0, 1, 2]);
    let before = farm.losses();
    let load = Load::start(&farm, 10);
    let requests = Requests::start(&farm);

    // One host moves, one has two addresses, all move at once, and all back.
    for (numbers, serving) in [
        ([&[3][..], &[1], &[2]], &[1, 2, 3][..]),
        ([&[3, 0], &[1], &[2]], &[0, 1, 2, 3]),
        ([&[3], &[3], &[3]], &[3]),
        ([&[0], &[1], &[2]], &[0, 1, 2]),
    ] {
        zone.set(&at_backends(&farm.lab, numbers)).unwrap();
        farm.wait_until_serving(serving);
        load.wait_for_more(10);
    }
    // DNS dies, the agent too, and both come back.
    zone.stop().unwrap();
    wait_for(&farm.agent, "the failures are told", |status| {
        let services = status["services"].as_array().unwrap();
        let mut names = services.iter().flat_map(|service| service["names"].as_array().unwrap());
        names.all(|name| name["error"].is_string())
    });
    farm.agent.kill().unwrap();
    farm.agent = Agent::start(farm.lab.balancer(), &config).unwrap();
    farm.wait_until_serving(&[0, 1, 2]);
    load.wait_for_more(10);
    zone.set(&at_backends(&farm.lab, [&[0], &[1], &[3]])).unwrap();
    zone.start_again().unwrap();
    farm.wait_until_serving(&[0, 1, 3]);
    load.wait_for_more(10);

    requests.assert_undisturbed();
    assert_eq!(farm.losses().moved_since(&before, &[]), BTreeMap::new());
    assert_eq!(farm.moved(), BTreeMap::new());
    load.stop().assert_undisturbed();
}
