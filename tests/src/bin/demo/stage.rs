//! The lab, its servers and the agent.

use super::report::Report;
use anyhow::{Context as _, Result};
use serde_json::Value;
use std::{
    fmt::Write as _,
    net::IpAddr,
    time::{Duration, Instant},
};
use tests::{Agent, Lab, Layout, Nginx, lb_binary, wait_until};

/// The servers' weights.
pub const WEIGHTS: [u32; 3] = [1, 2, 3];
/// The name that the servers have in DNS.
pub const NAME: &str = "www.example.com";
/// Time for a check to turn, with plenty to spare on a busy machine.
const TURN: Duration = Duration::from_secs(20);

/// Everything that is set up for one forward mode.
pub struct Stage {
    /// The namespaces.
    pub lab: Lab,
    /// The servers, in the order of [`WEIGHTS`].
    pub servers: Vec<Nginx>,
    agent: Agent,
}

impl Stage {
    /// Builds a lab, starts servers and agent, and waits until all is up.
    pub fn set(layout: Layout, mode: &str, report: &mut Report) -> Result<Self> {
        let started = Instant::now();
        let lab = Lab::blueprint(layout).backends(WEIGHTS.len() as u8).up()?;
        let port = if mode == "nat" { 8080 } else { 80 };
        let mut servers = Vec::new();
        for backend in lab.backends() {
            servers.push(Nginx::start(backend, &[port])?);
            if mode == "dsr" {
                for address in services(&lab) {
                    lab.add_service_address(backend, address)?;
                }
            }
        }
        let config = config(&lab, mode, port)?;
        let agent = Agent::start(lab.balancer(), &config)?;
        let stage = Self { lab, servers, agent };
        for service in ["web4", "web6"] {
            for index in 0..WEIGHTS.len() {
                stage.wait_for_state(service, index, true)?;
            }
        }
        report.step(&format!(
            "three nginx servers with weights {WEIGHTS:?} and the agent are up after {} ms",
            started.elapsed().as_millis()
        ));
        Ok(stage)
    }

    /// Addresses of the services: IPv4, then IPv6.
    pub fn services(&self) -> [IpAddr; 2] {
        services(&self.lab)
    }

    /// What the agent says of everything.
    pub fn status(&self) -> Result<Value> {
        self.agent.status()
    }

    /// The same as an operator sees it.
    pub fn status_text(&self) -> Result<String> {
        Ok(self.agent.lb(["status"])?.stdout)
    }

    /// Waits until a server is in a service's slot table, or out of it.
    pub fn wait_for_state(&self, service: &str, index: usize, serving: bool) -> Result<()> {
        let state = if serving { "serves" } else { "no longer serves" };
        wait_until(TURN, &format!("server {index} {state} {service}"), || {
            let status = self.status().ok()?;
            let services = status.get("services")?.as_array()?;
            let service = services.iter().find(|one| one.get("name").and_then(Value::as_str) == Some(service))?;
            let found = service.get("backends")?.get(index)?.get("serving")?.as_bool()?;
            (found == serving).then_some(())
        })
    }

    /// Commands to try by hand.
    pub fn hints(&self) -> String {
        let [ipv4, ipv6] = self.services();
        let client = self.lab.client().namespace();
        let balancer = self.lab.balancer();
        let socket = self.lab.socket();
        let mut text = String::new();
        let _ = writeln!(text, "nsenter --net=/run/netns/{client} curl http://{ipv4}/");
        let _ = writeln!(text, "nsenter --net=/run/netns/{client} curl 'http://[{ipv6}]/'");
        let _ = writeln!(text, "nsenter --net=/run/netns/{client} dig @{} {NAME}", balancer.ipv4());
        let lb = lb_binary().map_or_else(|_| "lb".into(), |path| path.display().to_string());
        let _ = writeln!(text, "{lb} status --socket {}", socket.display());
        text
    }

    /// Leaves everything up; says how it is removed.
    pub fn keep(self) -> Result<String> {
        self.lab.keep()
    }
}

fn services(lab: &Lab) -> [IpAddr; 2] {
    [lab.service_ipv4(0).into(), lab.service_ipv6(0).into()]
}

fn config(lab: &Lab, mode: &str, port: u16) -> Result<String> {
    let interfaces = match lab.layout() {
        Layout::Bridged | Layout::Distant => r#"["eth0"]"#,
        Layout::Routed => r#"["eth0", "eth1"]"#,
    };
    let balancer = lab.balancer();
    let mut text = format!(
        "interfaces = {interfaces}\nsecret = \"only for a demonstration\"\nsocket = {:?}\npins = {:?}\n\n\
         [check.web]\nport = {port}\ninterval_ms = 200\ntimeout_ms = 150\nrise = 2\nfall = 2\n",
        lab.socket(),
        lab.pins(),
    );
    let mut addresses = Vec::new();
    for (name, service) in ["web4", "web6"].iter().zip(services(lab)) {
        write!(
            text,
            "\n[[service]]\nname = \"{name}\"\naddress = \"{service}\"\nport = 80\nmode = \"{mode}\"\ncheck = \"web\"\n"
        )?;
        for (backend, weight) in lab.backends().iter().zip(WEIGHTS) {
            let address: IpAddr = if service.is_ipv4() { backend.ipv4().into() } else { backend.ipv6().into() };
            write!(text, "[[service.backend]]\naddress = \"{address}\"\nport = {port}\nweight = {weight}\n")?;
            addresses.push(format!("\"{address}\""));
        }
    }
    write!(
        text,
        "\n[dns]\nlisten = [\"{}\", \"{}\"]\n\n[[dns.name]]\nname = \"{NAME}\"\nttl_seconds = 5\ncheck = \"web\"\n\
         addresses = [{}]\n",
        balancer.ipv4(),
        balancer.ipv6(),
        addresses.join(", ")
    )
    .context("cannot write the config")?;
    Ok(text)
}
