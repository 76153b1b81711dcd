//! What the tests of DNS start from: a lab whose balancer answers for names, and who answered a question.

use super::{count, head};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    thread,
};
use tests::{
    Agent, DigAnswer, Host, Lab, Layout, dig,
    fixture::stay_on_cpu,
    questions::{Asker, Question, Response, add_clients, client_address},
};

/// Bytes that a packet on veth can always grow by in front: the kernel keeps 256 and needs some of them itself.
pub const HEADROOM: usize = 192;
/// The domain that a [`DnsSite`] answers for.
pub const DOMAIN: &str = "
[[dns.domain]]
name = \"example.com\"
primary = \"ns1.example.com\"
";

/// Questions that the kernel answered, whatever it said.
const KERNEL: [&str; 4] = ["answered", "answered_negative", "answered_cached", "dns_truncated"];

/// A lab, its agent, and where it answers: over IPv4 and over IPv6.
pub struct DnsSite {
    pub config: String,
    pub agent: Agent,
    pub servers: [IpAddr; 2],
    pub lab: Lab,
}

/// Who answered a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Kernel,
    Agent,
}

impl DnsSite {
    /// With a port for checks, and `names` behind what is said of DNS as a whole.
    pub fn up(backends: u8, names: impl FnOnce(&Lab) -> String) -> Self {
        Self::up_with(backends, "", names)
    }

    /// The same with more to be said of DNS as a whole, such as a lease.
    pub fn up_with(backends: u8, more: &str, names: impl FnOnce(&Lab) -> String) -> Self {
        let lab = Lab::blueprint(Layout::Bridged).backends(backends).up().unwrap();
        let config = dns_config(&lab, more) + &names(&lab);
        Self::start(lab, config)
    }

    pub fn start(lab: Lab, config: String) -> Self {
        let agent = Agent::start(lab.balancer(), &config).unwrap();
        add_clients(lab.client(), lab.balancer()).unwrap();
        let servers = [lab.balancer().ipv4().into(), lab.balancer().ipv6().into()];
        Self { config, agent, servers, lab }
    }

    pub fn client(&self) -> &Host {
        self.lab.client()
    }

    pub fn ask(&self, server: IpAddr, name: &str, kind: &str, more: &[&str]) -> DigAnswer {
        dig(self.client(), server, name, kind, more).unwrap()
    }

    /// Asks, and finds out who answered.
    pub fn ask_whom(&self, server: IpAddr, name: &str, kind: &str, more: &[&str]) -> (DigAnswer, By) {
        let before = self.answered();
        let answer = self.ask(server, name, kind, more);
        let after = self.answered();
        let by = match [after[0] - before[0], after[1] - before[1]] {
            [1, 0] => By::Kernel,
            [0, 1] => By::Agent,
            other => panic!("{other:?} answers to one question: {}", answer.text),
        };
        (answer, by)
    }

    /// Questions answered by the kernel and by the agent so far.
    pub fn answered(&self) -> [u64; 2] {
        answered(&self.agent.status().unwrap())
    }

    /// A client at the lab's own address.
    pub fn asker(&self, server: IpAddr) -> Asker {
        Asker::open(self.client(), None, server).unwrap()
    }

    /// A client in a prefix of its own.
    pub fn asker_from(&self, server: IpAddr, prefix: u8, host: u8) -> Asker {
        Asker::open(self.client(), Some(client_address(server, prefix, host)), server).unwrap()
    }

    /// Asks so many times from a CPU, one after the other; all have to be answered. A packet over veth stays on the CPU of its sender.
    pub fn ask_on_cpu(&self, cpu: usize, server: IpAddr, question: &Question, times: usize) -> Vec<Response> {
        let asker = self.asker(server);
        thread::scope(|scope| {
            let asking = scope.spawn(|| {
                stay_on_cpu(cpu).unwrap();
                let responses = asker.ask_all(times, 1, |_| question.clone()).unwrap();
                responses.into_iter().map(|response| response.unwrap()).collect()
            });
            asking.join().unwrap()
        })
    }

    /// What the kernel's maps hold of a name; nothing if it holds none.
    pub fn held(&self, name: &str) -> Vec<Value> {
        let output = self.agent.attempt_lb(["dns", "cache", "show", name, "--json"]).unwrap();
        serde_json::from_str(&output.stdout).unwrap_or_default()
    }
}

/// A config up to the names.
pub fn dns_config(lab: &Lab, more: &str) -> String {
    head(lab) + "port = 80\n" + &super::dns(lab) + more + "\n"
}

/// Questions answered by the kernel and by the agent, in what the status says.
pub fn answered(status: &Value) -> [u64; 2] {
    let kernel = KERNEL.iter().map(|why| count(status, "packets", why)).sum();
    [kernel, status["dns"]["agent"]["queries"].as_u64().unwrap()]
}

pub fn ipv4(number: u8) -> IpAddr {
    Ipv4Addr::new(192, 0, 2, number).into()
}

pub fn ipv6(number: u16) -> IpAddr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number).into()
}

/// So many addresses of each family.
pub fn addresses(ipv4s: u8, ipv6s: u16) -> Vec<IpAddr> {
    (1..=ipv4s).map(ipv4).chain((1..=ipv6s).map(ipv6)).collect()
}

/// The addresses of one type, as a set.
pub fn found(answer: &DigAnswer, kind: &str) -> BTreeSet<IpAddr> {
    let data = answer.data(kind);
    let found: BTreeSet<_> = data.iter().map(|data| data.parse().unwrap()).collect();
    assert_eq!(found.len(), answer.answers.len(), "{}", answer.text);
    found
}

pub fn of_kind(addresses: &[IpAddr], kind: &str) -> BTreeSet<IpAddr> {
    let wanted = addresses.iter().filter(|address| address.is_ipv4() == (kind == "A"));
    wanted.copied().collect()
}

/// The addresses of the lab's servers, both of each.
pub fn of_servers(lab: &Lab) -> Vec<IpAddr> {
    let hosts = lab.backends().iter();
    hosts.flat_map(|host| [IpAddr::from(host.ipv4()), host.ipv6().into()]).collect()
}

/// Waits for a condition that a question shows.
pub fn wait_for_answer(what: &str, mut holds: impl FnMut() -> bool) {
    tests::wait_until(super::TURN, what, || holds().then_some(())).unwrap();
}
