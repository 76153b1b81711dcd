//! Two balancers of one service, and keepalived from Debian's packages that moves its address between them: connections live on,
//! since both send a flow to the same backend.
#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};
use support::{TURN, farm::service_ips, has_program, head, service};
use tests::{
    Counters, Host, Lab, Layout, LineServer, Lines, Running, lb_binary, needs_program, needs_root, wait_until,
};

/// Connections in each family.
const CONNECTIONS: usize = 12;
const PORT: u16 = 7000;

/// A machine with `lb` and keepalived on it.
struct Balancer<'l> {
    host: &'l Host,
    socket: PathBuf,
    agent: Running,
    keepalived: Option<Running>,
}

/// The servers: all of the lab's backends but the last, which is the second balancer.
fn servers(lab: &Lab) -> &[Host] {
    lab.backends().split_last().unwrap().1
}

impl<'l> Balancer<'l> {
    /// Starts the agent on a machine; `name` tells the two apart.
    fn start(lab: &'l Lab, host: &'l Host, name: &str) -> Self {
        let socket = lab.folder().join(format!("{name}.sock"));
        let pins = lab.pins().with_file_name(name);
        let head = head(lab)
            .replace(&lab.socket().display().to_string(), &socket.display().to_string())
            .replace(&lab.pins().display().to_string(), &pins.display().to_string());
        let mut config = head + &format!("port = {PORT}\n");
        for (name, ip) in ["lines4", "lines6"].into_iter().zip(service_ips(lab)) {
            let own = |host: &Host| if ip.is_ipv4() { IpAddr::from(host.ipv4()) } else { host.ipv6().into() };
            let backends: Vec<_> = servers(lab).iter().map(|host| (SocketAddr::new(own(host), PORT), 1)).collect();
            // Who has the address tells the neighbours, which is keepalived's part.
            config += &service(name, "tcp", SocketAddr::new(ip, PORT), "dsr", &backends)
                .replace("mode = ", "claim = \"routed\"\nmode = ");
        }
        let path = lab.folder().join(format!("{name}.toml"));
        fs::write(&path, config).unwrap();
        let binary = lb_binary().unwrap();
        let agent = host.spawn([binary.as_os_str(), "run".as_ref(), "--config".as_ref(), path.as_os_str()]).unwrap();
        let balancer = Self { host, socket, agent, keepalived: None };
        let ready = wait_until(TURN, "all backends serve", || {
            let services = balancer.status()?["services"].as_array()?.clone();
            let backends = services.iter().flat_map(|service| service["backends"].as_array().unwrap());
            (!services.is_empty() && backends.into_iter().all(|backend| backend["serving"] == true)).then_some(())
        });
        ready.unwrap_or_else(|error| panic!("{error:#}: {}", balancer.agent.log()));
        balancer
    }

    fn status(&self) -> Option<Value> {
        let binary = lb_binary().unwrap();
        let line = [binary.to_str().unwrap(), "status", "--json", "--socket", self.socket.to_str().unwrap()];
        serde_json::from_str(&self.host.attempt(line).unwrap().stdout).ok()
    }

    /// Packets that it has sent to backends.
    fn forwarded(&self) -> u64 {
        self.status().unwrap()["packets"]["forwarded_dsr"].as_u64().unwrap_or_default()
    }

    /// Starts keepalived, in whose eyes the machine with the higher priority has the addresses.
    fn join(&mut self, lab: &Lab, name: &str, priority: u8) {
        let [ipv4, ipv6] = service_ips(lab);
        let config = format!(
            "global_defs {{\n    router_id {name}\n    vrrp_version 3\n    vrrp_garp_master_delay 1\n}}\n\
             vrrp_instance service {{\n    state BACKUP\n    interface eth0\n    virtual_router_id 77\n    priority {priority}\n    \
             advert_int 0.2\n    virtual_ipaddress {{\n        {ipv4}/32 dev eth0\n    }}\n    \
             virtual_ipaddress_excluded {{\n        {ipv6}/128 dev eth0 nodad\n    }}\n}}\n"
        );
        let file = |ending: &str| lab.folder().join(format!("keepalived-{name}.{ending}")).display().to_string();
        fs::write(file("conf"), config).unwrap();
        let line = [
            "keepalived",
            "--vrrp",
            "--dont-fork",
            "--log-console",
            "--log-detail",
            "--use-file",
            &file("conf"),
            "--pid",
            &file("pid"),
            "--vrrp_pid",
            &file("vrrp.pid"),
        ];
        self.keepalived = Some(self.host.spawn(line).unwrap());
    }

    fn has_addresses(&self, lab: &Lab) -> bool {
        let held = self.host.run(["ip", "-json", "address", "show", "dev", "eth0"]).unwrap().stdout;
        service_ips(lab).iter().all(|ip| held.contains(&format!("\"{ip}\"")))
    }

    fn wait_for_addresses(&self, lab: &Lab) {
        wait_until(TURN, "the addresses are here", || self.has_addresses(lab).then_some(()))
            .unwrap_or_else(|error| panic!("{error:#}: {}", self.keepalived.as_ref().unwrap().log()));
    }

    fn leave(&mut self) {
        self.keepalived.take().unwrap().terminate(TURN).unwrap();
    }
}

#[test]
fn connections_live_on_when_the_address_moves() {
    const NAME: &str = "connections_live_on_when_the_address_moves";
    if !needs_root(NAME) || !needs_program(NAME, "keepalived") {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).backends(4).up().unwrap();
    let other = lab.backends().last().unwrap();
    other.remove_pass("eth0").unwrap();
    for server in servers(&lab) {
        for ip in service_ips(&lab) {
            lab.add_service_address(server, ip).unwrap();
        }
    }
    let line_servers: Vec<_> = servers(&lab).iter().map(|host| LineServer::start(host, PORT).unwrap()).collect();
    let mut first = Balancer::start(&lab, lab.balancer(), "first");
    let mut second = Balancer::start(&lab, other, "second");
    assert!(has_program(&lab, "eth0"));
    first.join(&lab, "first", 150);
    first.wait_for_addresses(&lab);
    second.join(&lab, "second", 100);

    let services = service_ips(&lab).map(|ip| SocketAddr::new(ip, PORT));
    let lines = services.map(|service| Lines::start(lab.client(), service, CONNECTIONS).unwrap());
    let more = || lines.iter().for_each(|lines| lines.wait_for_more(10).unwrap());
    more();
    assert!(!second.has_addresses(&lab));
    assert_eq!(second.forwarded(), 0);
    let before = Counters::read(lab.everyone()).unwrap();

    // In an orderly way, there and back.
    first.leave();
    second.wait_for_addresses(&lab);
    more();
    let forwarded = second.forwarded();
    assert!(forwarded > 0);
    first.join(&lab, "first", 150);
    first.wait_for_addresses(&lab);
    more();
    // Who has the address no longer goes on sending what still comes to its backends: nothing is lost in between.
    let lost = Counters::read(lab.everyone()).unwrap().moved_since(&before, &[]);
    assert_eq!(lost, BTreeMap::new());

    // The machine is cut off, with all that it has.
    lab.segment().ip(&["link set balancer down".into()]).unwrap();
    second.wait_for_addresses(&lab);
    more();
    assert!(second.forwarded() > forwarded);
    let owners =
        |address: &SocketAddr| line_servers.iter().filter(|server| server.seen().contains_key(address)).count();
    for report in lines.map(|lines| lines.stop().unwrap()) {
        assert!(report.broken().is_empty(), "{report:?}");
        assert_eq!(report.connections.len(), CONNECTIONS);
        for connection in &report.connections {
            assert_eq!((connection.names.len(), owners(&connection.local.unwrap())), (1, 1), "{connection:?}");
        }
        assert!(report.servers().len() > 1, "{report:?}");
    }
}
