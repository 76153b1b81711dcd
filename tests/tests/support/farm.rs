//! Several services at once behind one balancer, in any mode, and the load that a change is made under: long-lived
//! connections, numbered datagrams, and new requests.

use super::{TURN, backend_in, failures, head, service, serving_in, url, wait_for};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::{BufRead as _, BufReader, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};
use tests::{
    Agent, Counters, Decapsulation, Host, Lab, Layout, LineServer, Lines, LinesReport, Nginx, Reply, UdpEcho, UdpFlows,
    UdpReport, curl_many, udp_exchange, wait_until,
};

/// How packets reach their backends, in a layout where they do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Dsr,
    Nat,
    /// To the backends' IPv4 addresses, whichever family the service is of.
    Tunnel4,
    /// To their IPv6 addresses.
    Tunnel6,
    /// To their IPv4 addresses, where `lb decap` takes them out.
    Decap,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::Dsr => "dsr",
            Self::Nat => "nat",
            Self::Tunnel4 | Self::Tunnel6 | Self::Decap => "tunnel",
        }
    }

    pub fn layout(self) -> Layout {
        match self {
            Self::Dsr | Self::Tunnel4 => Layout::Bridged,
            Self::Nat | Self::Decap => Layout::Routed,
            Self::Tunnel6 => Layout::Distant,
        }
    }

    fn is_tunnel(self) -> bool {
        self.name() == "tunnel"
    }
}

/// What is served in each family: requests, lines, and datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Web,
    Lines,
    Echo,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Web, Self::Lines, Self::Echo];

    fn name(self, service: SocketAddr) -> String {
        let name = match self {
            Self::Web => "web",
            Self::Lines => "lines",
            Self::Echo => "echo",
        };
        format!("{name}{}", if service.is_ipv4() { 4 } else { 6 })
    }

    pub fn port(self) -> u16 {
        match self {
            Self::Web => 80,
            Self::Lines | Self::Echo => 7000,
        }
    }

    /// The port at a backend: `nat` may change it, and does for one kind.
    fn own_port(self, mode: Mode) -> u16 {
        if (self, mode) == (Self::Web, Mode::Nat) { 8080 } else { self.port() }
    }
}

/// A lab with servers of every kind at each backend, and an agent.
pub struct Farm {
    pub agent: Agent,
    pub mode: Mode,
    pub web: Vec<Nginx>,
    pub lines: Vec<LineServer>,
    pub echoes: Vec<UdpEcho>,
    more: String,
    /// Clients of [`Farm::wait_for_new_datagrams`], whose ports are free for others soon after.
    passing: Mutex<BTreeSet<SocketAddr>>,
    _tunnels: Vec<Decapsulation>,
    pub lab: Lab,
}

impl Farm {
    /// `count` backends, of which `members` are in the config at first; `more` is the part of the config that is about
    /// nothing else, such as tracking.
    pub fn up(mode: Mode, count: usize, members: &[usize], more: &str) -> Self {
        Self::in_layout(mode, mode.layout(), count, members, more)
    }

    pub fn in_layout(mode: Mode, layout: Layout, count: usize, members: &[usize], more: &str) -> Self {
        let blueprint = Lab::blueprint(layout).backends(count.try_into().unwrap());
        Self::in_lab(mode, blueprint.route_back_via_balancer(mode == Mode::Nat).up().unwrap(), members, more)
    }

    pub fn in_lab(mode: Mode, lab: Lab, members: &[usize], more: &str) -> Self {
        let tunnels = prepare(&lab, mode);
        let echo = |host: &Host| {
            let ips = if mode == Mode::Nat { own_ips(host) } else { service_ips(&lab) };
            UdpEcho::start(host, &ips.map(|ip| SocketAddr::new(ip, Kind::Echo.port()))).unwrap()
        };
        // Probes go to the backends' own addresses, at port 80.
        let web = lab.backends().iter().map(|host| Nginx::start(host, &[80, 8080]).unwrap()).collect();
        let lines = lab.backends().iter().map(|host| LineServer::start(host, Kind::Lines.port()).unwrap()).collect();
        let echoes = lab.backends().iter().map(echo).collect();
        let config = config(&lab, mode, members, more);
        let agent = Agent::start(lab.balancer(), &config).unwrap();
        let farm = Self {
            agent,
            mode,
            web,
            lines,
            echoes,
            more: more.to_owned(),
            passing: Mutex::default(),
            _tunnels: tunnels,
            lab,
        };
        farm.wait_until_serving(members);
        farm
    }

    /// Where the services of a kind are, over IPv4 and over IPv6.
    pub fn services(&self, kind: Kind) -> [SocketAddr; 2] {
        service_ips(&self.lab).map(|ip| SocketAddr::new(ip, kind.port()))
    }

    /// All services, with their kinds.
    pub fn all_services(&self) -> Vec<(Kind, SocketAddr)> {
        Kind::ALL.into_iter().flat_map(|kind| self.services(kind).map(|service| (kind, service))).collect()
    }

    /// Where a service has its backend with this number.
    pub fn backend(&self, kind: Kind, service: SocketAddr, number: usize) -> SocketAddr {
        backend(&self.lab, self.mode, kind, service, number)
    }

    /// The config with these backends.
    pub fn config(&self, members: &[usize]) -> String {
        config(&self.lab, self.mode, members, &self.more)
    }

    /// Gives a command about a backend for every service, such as `drain`.
    pub fn backend_command(&self, verb: &str, number: usize, more: &[&str]) {
        for (kind, service) in self.all_services() {
            let backend = self.backend(kind, service, number).to_string();
            let line = ["backend", verb, &kind.name(service), &backend];
            self.agent.lb(line.iter().chain(more)).unwrap();
        }
    }

    /// Waits until new flows of every service go to exactly these backends.
    pub fn wait_until_serving(&self, numbers: &[usize]) -> Value {
        wait_for(&self.agent, &format!("exactly {numbers:?} serve"), |status| {
            self.all_services().into_iter().all(|(kind, service)| {
                let wanted: BTreeSet<_> = numbers.iter().map(|number| self.backend(kind, service, *number)).collect();
                serving_in(self.service_status(status, kind, service)) == wanted
            })
        })
    }

    /// Waits until what those answer who get datagrams of new flows says that the adoption windows are closed: before, such
    /// datagrams go to who had their slots before the change.
    pub fn wait_for_new_datagrams(&self, what: &str, holds: impl Fn(&BTreeSet<&str>) -> bool) {
        for service in self.services(Kind::Echo) {
            wait_until(TURN, &format!("{what}: datagrams to {service}"), || {
                let report = udp_exchange(self.lab.client(), service, 32, 1, 100).unwrap();
                self.passing.lock().unwrap().extend(report.flows.iter().map(|flow| flow.local));
                holds(&report.servers()).then_some(())
            })
            .unwrap();
        }
    }

    /// What the status says of a service. Those of two kinds may differ by nothing but their protocol.
    pub fn service_status<'s>(&self, status: &'s Value, kind: Kind, service: SocketAddr) -> &'s Value {
        let name = kind.name(service);
        let mut services = status["services"].as_array().unwrap().iter();
        services.find(|one| one["name"] == *name).unwrap_or_else(|| panic!("there is no {name}: {status:#}"))
    }

    /// What the status says of a backend of a service.
    pub fn backend_status<'s>(&self, status: &'s Value, kind: Kind, service: SocketAddr, number: usize) -> &'s Value {
        backend_in(self.service_status(status, kind, service), self.backend(kind, service, number))
    }

    /// Who has seen which flow of a load, by the servers' own logs.
    pub fn owners(&self) -> BTreeMap<(Kind, SocketAddr), BTreeSet<String>> {
        let mut owners: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        let lines = self.lines.iter().map(|server| (Kind::Lines, server.host(), server.seen()));
        let echoes = self.echoes.iter().map(|server| (Kind::Echo, server.host(), server.seen()));
        let passing = self.passing.lock().unwrap();
        for (kind, host, seen) in lines.chain(echoes) {
            for client in seen.into_keys().filter(|client| kind == Kind::Lines || !passing.contains(client)) {
                owners.entry((kind, client)).or_default().insert(host.role().to_owned());
            }
        }
        owners
    }

    /// The flows that more than one backend has seen.
    pub fn moved(&self) -> BTreeMap<(Kind, SocketAddr), BTreeSet<String>> {
        self.owners().into_iter().filter(|(_, owners)| owners.len() > 1).collect()
    }

    /// What the lab has lost so far.
    pub fn losses(&self) -> Counters {
        Counters::read(self.lab.everyone()).unwrap()
    }
}

/// Prepares the backends of a lab for a mode; what is returned is to live as long as packets are to arrive.
pub fn prepare(lab: &Lab, mode: Mode) -> Vec<Decapsulation> {
    for host in lab.everyone() {
        never_send_again_in_vain(host);
    }
    if mode != Mode::Nat {
        for backend in lab.backends() {
            for ip in service_ips(lab) {
                lab.add_service_address(backend, ip).unwrap();
            }
        }
    }
    lab.backends().iter().filter(|_| mode.is_tunnel()).map(|backend| decapsulation(backend, mode)).collect()
}

/// A retransmission is to tell of a loss, and not of a machine that is busy with another test: nothing is sent again before two
/// seconds without an answer.
fn never_send_again_in_vain(host: &Host) {
    host.set([("ipv4/tcp_early_retrans", "0"), ("ipv4/tcp_recovery", "0")]).unwrap();
    // Since Linux 6.11; before, what there is has to do.
    let _ = host.set([("ipv4/tcp_rto_min_us", "2000000")]);
}

/// Unless it is by `lb`: by the kernel's devices where it has them.
fn decapsulation(backend: &Host, mode: Mode) -> Decapsulation {
    if mode == Mode::Decap {
        Decapsulation::by_lb(backend).unwrap()
    } else if Decapsulation::lacking_devices(backend).unwrap().is_none() {
        Decapsulation::by_devices(backend).unwrap()
    } else {
        Decapsulation::by_sockets(backend).unwrap()
    }
}

pub fn service_ips(lab: &Lab) -> [IpAddr; 2] {
    [lab.service_ipv4(0).into(), lab.service_ipv6(0).into()]
}

fn own_ips(host: &Host) -> [IpAddr; 2] {
    [host.ipv4().into(), host.ipv6().into()]
}

/// The address that a mode sends packets of a service to, at the backend with this number.
pub fn backend_ip(lab: &Lab, mode: Mode, service: IpAddr, number: usize) -> IpAddr {
    let [ipv4, ipv6] = own_ips(&lab.backends()[number]);
    match mode {
        Mode::Tunnel4 | Mode::Decap => ipv4,
        Mode::Tunnel6 => ipv6,
        Mode::Dsr | Mode::Nat => {
            if service.is_ipv4() {
                ipv4
            } else {
                ipv6
            }
        }
    }
}

fn backend(lab: &Lab, mode: Mode, kind: Kind, service: SocketAddr, number: usize) -> SocketAddr {
    SocketAddr::new(backend_ip(lab, mode, service.ip(), number), kind.own_port(mode))
}

/// The part of a config that is about no service.
pub fn farm_head(lab: &Lab, mode: Mode) -> String {
    // A machine that is busy with two tests is not dead.
    let head = head(lab).replace("interval_ms = 400\ntimeout_ms = 350\n", "interval_ms = 500\ntimeout_ms = 500\n");
    let tunnel = "\n[tunnel]\nsource_ipv4 = \"10.99.0.0/16\"\nsource_ipv6 = \"fd99::/64\"\n";
    head + "port = 80\n" + if mode.is_tunnel() { tunnel } else { "" }
}

fn config(lab: &Lab, mode: Mode, members: &[usize], more: &str) -> String {
    let mut text = farm_head(lab, mode) + more;
    for kind in Kind::ALL {
        for ip in service_ips(lab) {
            let address = SocketAddr::new(ip, kind.port());
            let protocol = if kind == Kind::Echo { "udp" } else { "tcp" };
            let backends: Vec<_> =
                members.iter().map(|number| (backend(lab, mode, kind, address, *number), 1)).collect();
            write!(text, "{}", service(&kind.name(address), protocol, address, mode.name(), &backends)).unwrap();
        }
    }
    text
}

/// Sends a line of many segments, which fill the client's link, and takes its answer, which has to be the same.
pub fn exchange_a_long_line(client: &Host, service: SocketAddr, length: usize) {
    let exchanged = client.inside(|| {
        let mut stream = TcpStream::connect_timeout(&service, TURN).unwrap();
        stream.set_read_timeout(Some(TURN)).unwrap();
        let line: String = ('a'..='z').cycle().take(length).collect();
        stream.write_all(format!("{line}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        (line, answer)
    });
    let (line, answer) = exchanged.unwrap();
    let (name, echoed) = answer.split_once(' ').unwrap();
    assert!(echoed.trim_end() == line, "{service}: {} bytes by {name}", answer.len());
}

/// Long-lived connections and flows of datagrams to a farm, in both families.
pub struct Load {
    lines: Vec<Lines>,
    echoes: Vec<UdpFlows>,
}

impl Load {
    /// Starts `count` of each, and waits until all had an answer.
    pub fn start(farm: &Farm, count: usize) -> Self {
        const SIZE: usize = 200;
        let client = farm.lab.client();
        let lines = farm.services(Kind::Lines).map(|service| Lines::start(client, service, count).unwrap());
        let echoes = farm.services(Kind::Echo).map(|service| UdpFlows::start(client, service, count, SIZE).unwrap());
        Self { lines: lines.into(), echoes: echoes.into() }
    }

    /// Waits until every one of them had `more` answers.
    pub fn wait_for_more(&self, more: u64) {
        for lines in &self.lines {
            lines.wait_for_more(more).unwrap();
        }
        self.wait_for_more_datagrams(more);
    }

    /// The same of the flows of datagrams alone: connections that are broken get no more.
    pub fn wait_for_more_datagrams(&self, more: u64) {
        for echoes in &self.echoes {
            echoes.wait_for_more(more).unwrap();
        }
    }

    pub fn lines(&self) -> &[Lines] {
        &self.lines
    }

    pub fn stop(self) -> LoadReport {
        LoadReport {
            lines: self.lines.into_iter().map(|lines| lines.stop().unwrap()).collect(),
            echoes: self.echoes.into_iter().map(|echoes| echoes.stop().unwrap()).collect(),
        }
    }
}

/// What came of a [`Load`].
#[derive(Debug)]
pub struct LoadReport {
    pub lines: Vec<LinesReport>,
    pub echoes: Vec<UdpReport>,
}

impl LoadReport {
    /// Asserts that nothing was broken, lost, doubled, or answered by two.
    pub fn assert_undisturbed(&self) {
        for report in &self.lines {
            assert!(report.broken().is_empty(), "broken connections: {:?}", report.broken());
            let moved = report.connections.iter().filter(|connection| connection.names.len() != 1);
            assert_eq!(moved.count(), 0, "{report:?}");
        }
        for report in &self.echoes {
            assert_eq!((report.lost(), report.duplicated()), (BTreeMap::new(), BTreeMap::new()));
            assert_eq!(report.errors(), BTreeMap::new());
            for flow in &report.flows {
                assert_eq!(flow.servers().len(), 1, "{} was answered by {:?}", flow.local, flow.servers());
            }
        }
    }

    /// Who answered lines.
    pub fn line_servers(&self) -> BTreeSet<&str> {
        self.lines.iter().flat_map(LinesReport::servers).collect()
    }

    /// Who answered datagrams.
    pub fn echo_servers(&self) -> BTreeSet<&str> {
        self.echoes.iter().flat_map(UdpReport::servers).collect()
    }
}

/// Requests that go on in both families, each by a connection of its own.
pub struct Requests {
    done: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<Vec<Reply>>>,
}

impl Requests {
    pub fn start(farm: &Farm) -> Self {
        let (done, made) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let threads = farm.services(Kind::Web).map(|service| {
            let (done, made, client) = (Arc::clone(&done), Arc::clone(&made), farm.lab.client().clone());
            thread::spawn(move || {
                let mut replies = Vec::new();
                while !done.load(Ordering::SeqCst) {
                    replies.extend(curl_many(&client, &url(service), 20).unwrap());
                    made.store(replies.len(), Ordering::SeqCst);
                }
                replies
            })
        });
        let requests = Self { done, made, threads: threads.into() };
        wait_until(TURN, "requests were made", || (requests.made.load(Ordering::SeqCst) > 0).then_some(())).unwrap();
        requests
    }

    /// Stops them, and asserts that none has failed.
    pub fn assert_undisturbed(mut self) -> Vec<Reply> {
        self.done.store(true, Ordering::SeqCst);
        let threads = std::mem::take(&mut self.threads).into_iter();
        let replies: Vec<_> = threads.flat_map(|thread| thread.join().unwrap()).collect();
        assert_eq!(failures(&replies), Vec::<&Reply>::new());
        replies
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.done.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            // Its panic is not this one's reason.
            let _ = thread.join();
        }
    }
}
