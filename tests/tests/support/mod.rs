//! What the end-to-end tests start from: a lab with servers and an agent, its config, and what the status says.
#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

pub mod farm;
pub mod names;
pub mod transcript;

use serde_json::Value;
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tests::{Agent, Host, Lab, Layout, Nginx, Reply, wait_until};

/// Time for checks, netlink and plans to have their effect, with plenty to spare on a busy machine.
pub const TURN: Duration = Duration::from_secs(20);
/// The services of a [`Site`], over IPv4 and over IPv6.
pub const SERVICES: [&str; 2] = ["web4", "web6"];

/// Where the servers of a [`Site`] listen: at the port of backends in mode `dsr`, and at that in mode `nat`.
const PORTS: [u16; 2] = [80, 8080];

/// A lab whose servers are up behind one service in each family.
pub struct Site {
    pub config: String,
    pub agent: Agent,
    pub servers: Vec<Nginx>,
    pub lab: Lab,
}

impl Site {
    /// Backends with these weights, waited for until they all serve, those of weight 0 apart.
    pub fn up(layout: Layout, mode: &str, weights: &[u32]) -> Self {
        let lab = lab(layout, mode, weights.len());
        let config = head(&lab) + &services(&lab, mode, weights);
        Self::start(lab, config)
    }

    /// The same with a config of the caller's.
    pub fn start(lab: Lab, config: String) -> Self {
        let servers: Vec<_> = lab.backends().iter().map(|host| Nginx::start(host, &PORTS).unwrap()).collect();
        let agent = Agent::start(lab.balancer(), &config).unwrap();
        wait_for(&agent, "all backends with a weight serve", |status| {
            let mut backends = status["services"]
                .as_array()
                .unwrap()
                .iter()
                .flat_map(|service| service["backends"].as_array().unwrap());
            backends.all(|backend| backend["serving"] == (backend["weight"] != 0))
        });
        Self { config, agent, servers, lab }
    }

    /// Where the services are.
    pub fn services(&self) -> [SocketAddr; 2] {
        service_addresses(&self.lab)
    }

    /// Where the backends of a service are: at 80 if `dsr`, at 8080 if `nat`.
    pub fn backends(&self, service: SocketAddr) -> Vec<SocketAddr> {
        let listed = status_of(&self.agent.status().unwrap(), service)["backends"].clone();
        let listed = listed.as_array().unwrap().iter();
        listed.map(|backend| address(&backend["address"])).collect()
    }

    /// Requests from the client to a service, each of which has to succeed.
    pub fn requests(&self, service: SocketAddr, count: usize) -> Vec<Reply> {
        let replies = tests::curl_many(self.lab.client(), &url(service), count).unwrap();
        assert_eq!(failures(&replies), Vec::<&Reply>::new());
        replies
    }
}

/// A lab in which the mode works, its backends prepared.
pub fn lab(layout: Layout, mode: &str, backends: usize) -> Lab {
    let blueprint = Lab::blueprint(layout).backends(backends.try_into().unwrap());
    let nat = mode == "nat";
    let lab = blueprint.route_back_via_balancer(nat).up().unwrap();
    for backend in lab.backends().iter().filter(|_| !nat) {
        for service in service_addresses(&lab) {
            lab.add_service_address(backend, service.ip()).unwrap();
        }
    }
    lab
}

/// The part of a config that is about no service. A dead server is found out within about a second, while a slow
/// one on a busy machine is not taken for dead.
pub fn head(lab: &Lab) -> String {
    let interfaces = lab.balancer().interfaces().iter();
    let interfaces: Vec<_> = interfaces.map(|interface| &interface.name).collect();
    format!(
        "interfaces = {interfaces:?}\nsecret = \"only for tests in a lab\"\nsocket = {:?}\npins = {:?}\n\n\
         [check.web]\ninterval_ms = 400\ntimeout_ms = 350\nrise = 1\nfall = 2\n",
        lab.socket(),
        lab.pins()
    )
}

/// The part of a config that is about [`SERVICES`].
pub fn services(lab: &Lab, mode: &str, weights: &[u32]) -> String {
    let service = |(name, address): (&&str, SocketAddr)| {
        let of_family = |host: &Host| -> IpAddr {
            match address {
                SocketAddr::V4(_) => host.interfaces().last().unwrap().ipv4.into(),
                SocketAddr::V6(_) => host.interfaces().last().unwrap().ipv6.into(),
            }
        };
        let hosts = lab.backends().iter().zip(weights);
        let backends: Vec<_> =
            hosts.map(|(host, weight)| (SocketAddr::new(of_family(host), server_port(mode)), *weight)).collect();
        service(name, "tcp", address, mode, &backends)
    };
    SERVICES.iter().zip(service_addresses(lab)).map(service).collect()
}

/// The part of a config that is about one service.
pub fn service(name: &str, protocol: &str, address: SocketAddr, mode: &str, backends: &[(SocketAddr, u32)]) -> String {
    let mut text = format!(
        "\n[[service]]\nname = \"{name}\"\naddress = \"{}\"\nport = {}\nprotocol = \"{protocol}\"\n\
         mode = \"{mode}\"\ncheck = \"web\"\nslots = 1009\n",
        address.ip(),
        address.port()
    );
    for (backend, weight) in backends {
        let (ip, port) = (backend.ip(), backend.port());
        writeln!(text, "[[service.backend]]\naddress = \"{ip}\"\nport = {port}\nweight = {weight}").unwrap();
    }
    text
}

/// The part of a config that has the balancer answer DNS questions at its addresses; names follow.
pub fn dns(lab: &Lab) -> String {
    let (ipv4, ipv6) = (lab.balancer().ipv4(), lab.balancer().ipv6());
    format!("\n[dns]\nlisten = [\"{ipv4}\", \"{ipv6}\"]\n")
}

/// The part of a config that is about one name; `more` is put behind it, such as `check = "web"`.
pub fn name(name: &str, addresses: &[IpAddr], more: &str) -> String {
    let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
    format!("\n[[dns.name]]\nname = \"{name}\"\nttl_seconds = 5\naddresses = {addresses:?}\n{more}\n")
}

/// Where a lab's [`SERVICES`] are.
pub fn service_addresses(lab: &Lab) -> [SocketAddr; 2] {
    let ips: [IpAddr; 2] = [lab.service_ipv4(0).into(), lab.service_ipv6(0).into()];
    ips.map(|ip| SocketAddr::new(ip, 80))
}

fn server_port(mode: &str) -> u16 {
    PORTS[usize::from(mode == "nat")]
}

pub fn url(address: SocketAddr) -> String {
    format!("http://{address}/")
}

/// Those of the replies that are none.
pub fn failures(replies: &[Reply]) -> Vec<&Reply> {
    let failed = |reply: &&Reply| reply.status != Some(200) || reply.error.is_some();
    replies.iter().filter(failed).collect()
}

/// Waits until the status is as it should be, and gives it.
pub fn wait_for(agent: &Agent, what: &str, mut holds: impl FnMut(&Value) -> bool) -> Value {
    let mut last = Value::Null;
    let waited = wait_until(TURN, what, || {
        last = agent.status().unwrap();
        holds(&last).then(|| last.clone())
    });
    waited.unwrap_or_else(|error| {
        panic!("{error:#}; the status is {last:#}; the agent's log:\n{}", agent.running().log())
    })
}

/// What the status says of the service at an address.
pub fn status_of(status: &Value, service: SocketAddr) -> &Value {
    let mut services = status["services"].as_array().unwrap().iter();
    services
        .find(|one| address(&one["address"]) == service)
        .unwrap_or_else(|| panic!("the status has no service at {service}: {status:#}"))
}

/// What the status says of a backend of the service at an address.
pub fn backend_of(status: &Value, service: SocketAddr, backend: SocketAddr) -> &Value {
    backend_in(status_of(status, service), backend)
}

/// What is said of a backend in what the status says of its service.
pub fn backend_in(service: &Value, backend: SocketAddr) -> &Value {
    let mut listed = service["backends"].as_array().unwrap().iter();
    listed
        .find(|one| address(&one["address"]) == backend)
        .unwrap_or_else(|| panic!("there is no backend {backend}: {service:#}"))
}

/// The backends in a service's slot table.
pub fn serving(status: &Value, service: SocketAddr) -> BTreeSet<SocketAddr> {
    serving_in(status_of(status, service))
}

/// The backends in the slot table, in what the status says of a service.
pub fn serving_in(service: &Value) -> BTreeSet<SocketAddr> {
    let backends = service["backends"].as_array().unwrap();
    let serving = backends.iter().filter(|backend| backend["serving"] == true);
    serving.map(|backend| address(&backend["address"])).collect()
}

/// A counter of the status, such as `packets` `forwarded_dsr`.
pub fn count(status: &Value, group: &str, name: &str) -> u64 {
    let count = status[group][name].as_u64();
    count.unwrap_or_else(|| panic!("the status has no {group} {name}: {status:#}"))
}

/// Whether an interface of the balancer has an XDP program.
pub fn has_program(lab: &Lab, interface: &str) -> bool {
    let line = ["ip", "-json", "link", "show", "dev", interface];
    let links: Value = serde_json::from_str(&lab.balancer().run(line).unwrap().stdout).unwrap();
    links[0].get("xdp").is_some()
}

fn address(value: &Value) -> SocketAddr {
    value.as_str().unwrap().parse().unwrap()
}
