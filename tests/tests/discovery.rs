//! Backends by name: what a real DNS server says enters like any other change, and its death changes nothing.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use serde_json::Value;
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
};
use support::{backend_of, head, lab, serving, status_of, wait_for};
use tests::{Agent, Lab, Layout, LineServer, Lines, Nginx, Zone, needs_program, needs_root};

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
        let web = servers().map(|(_, host)| Nginx::start(host, &[80]).unwrap()).collect();
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
