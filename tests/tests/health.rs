//! Health checks of real servers: what each kind finds, what becomes of the flows, and what is told of it.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use serde_json::Value;
use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path};
use support::{
    TURN, backend_of, failures,
    farm::{Mode, backend_ip, farm_head, prepare, service_ips},
    head, lab, service, serving, status_of, url, wait_for,
};
use tests::{
    Agent, Decapsulation, Host, Knot, Lab, Layout, Nginx, Reply, Running, Speaker, UdpEcho, curl_many, needs_root,
    needs_tun, wait_until,
};

/// The service of this number over IPv4, and its backends at a port.
fn at(lab: &Lab, number: u8, port: u16) -> (SocketAddr, Vec<SocketAddr>) {
    let backends = lab.backends().iter().map(|host| SocketAddr::new(host.ipv4().into(), port));
    (SocketAddr::new(lab.service_ipv4(number).into(), port), backends.collect())
}

/// The part of a config that is about such a service; `more` are keys of its own, its check among them.
fn of_service(lab: &Lab, name: &str, number: u8, protocol: &str, port: u16, more: &str) -> String {
    let (address, backends) = at(lab, number, port);
    let backends: Vec<_> = backends.into_iter().map(|backend| (backend, 1)).collect();
    service(name, protocol, address, "dsr", &backends).replace("check = \"web\"", more)
}

/// A lab whose backends have these services' addresses.
fn lab_of(services: u8, backends: usize) -> Lab {
    let lab = lab(Layout::Bridged, "dsr", backends);
    for host in lab.backends() {
        for number in 1..services {
            lab.add_service_address(host, lab.service_ipv4(number).into()).unwrap();
        }
    }
    lab
}

fn interval(lab: &Lab) -> String {
    // That of the check `web`, for the others.
    head(lab).split_once("[check.web]\n").unwrap().1.to_owned()
}

/// Waits until these backends, by number, are the ones that take a service's flows.
fn wait_until_serving(agent: &Agent, service: &(SocketAddr, Vec<SocketAddr>), numbers: &[usize]) -> Value {
    let wanted: BTreeSet<_> = numbers.iter().map(|number| service.1[*number]).collect();
    wait_for(agent, &format!("{wanted:?} serve {}", service.0), |status| serving(status, service.0) == wanted)
}

/// Waits until the last probe of a backend failed with this.
fn wait_for_failure(agent: &Agent, service: &(SocketAddr, Vec<SocketAddr>), number: usize, failure: &str) -> Value {
    wait_for(agent, &format!("{} failed: {failure}", service.1[number]), |status| {
        backend_of(status, service.0, service.1[number])["last_failure"] == failure
    })
}

/// What `lb health --json` tells of something, its targets by address.
fn health(agent: &Agent, of: &str) -> Value {
    serde_json::from_str(&agent.lb(["health", "--json", of]).unwrap().stdout).unwrap()
}

/// nginx with TLS, and a page `/up` that is a file.
struct Pages {
    up: std::path::PathBuf,
    _running: Running,
}

impl Pages {
    fn start(host: &Host, folder: &Path, certificate: &Path, key: &Path) -> Self {
        fs::create_dir_all(folder).unwrap();
        let up = folder.join("up");
        fs::write(&up, "all is fine\n").unwrap();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|of| format!("{of}_temp_path {}/{of};\n", folder.display()))
            .collect();
        let config = format!(
            "daemon off;\nmaster_process off;\npid {0}/pid;\nerror_log {0}/error.log;\nevents {{ }}\nhttp {{\naccess_log off;\n\
             {temporary}server {{\nlisten 80;\nlisten 443 ssl;\nssl_certificate {1};\nssl_certificate_key {2};\n\
             location = /up {{ root {0}; }}\nlocation / {{ return 200 \"{3}\\n\"; }}\n}}\n}}\n",
            folder.display(),
            certificate.display(),
            key.display(),
            host.role()
        );
        let path = folder.join("nginx.conf");
        fs::write(&path, config).unwrap();
        let log = folder.join("error.log");
        let line = ["nginx", "-c", path.to_str().unwrap(), "-e", log.to_str().unwrap()];
        Self { up, _running: host.spawn(line).unwrap() }
    }

    fn say(&self, page: Option<&str>) {
        match page {
            Some(page) => fs::write(&self.up, page).unwrap(),
            None => fs::remove_file(&self.up).unwrap(),
        }
    }
}

/// An authority, and certificates that it has signed for these names, each as a file and that of its key.
fn certificates(host: &Host, folder: &Path, names: &[&str]) -> (String, Vec<[std::path::PathBuf; 2]>) {
    let path = |name: &str| folder.join(name).display().to_string();
    let openssl = |line: String| {
        let words = ["openssl"].into_iter().chain(line.split(' ')).collect::<Vec<_>>();
        host.run(words).unwrap();
    };
    let (authority, authority_key) = (path("authority.pem"), path("authority.key"));
    openssl(format!(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -subj /CN=authority -keyout {authority_key} -out {authority}"
    ));
    let sign = |name: &&str| {
        let [certificate, key, request, extension] =
            ["pem", "key", "csr", "ext"].map(|end| path(&format!("{name}.{end}")));
        fs::write(&extension, format!("subjectAltName=DNS:{name}\n")).unwrap();
        openssl(format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {key} -out {request}"
        ));
        openssl(format!(
            "x509 -req -in {request} -CA {authority} -CAkey {authority_key} -days 5 -extfile {extension} -out {certificate}"
        ));
        [certificate.into(), key.into()]
    };
    let signed = names.iter().map(sign).collect();
    (authority, signed)
}

#[test]
fn pages_by_http_and_https() {
    if !needs_root("pages_by_http_and_https") {
        return;
    }
    let lab = lab_of(3, 2);
    let (authority, signed) = certificates(lab.balancer(), &lab.folder(), &["www.example.com", "other.example.com"]);
    let pages: Vec<_> = lab
        .backends()
        .iter()
        .zip(&signed)
        .map(|(host, [certificate, key])| Pages::start(host, &lab.folder().join(host.role()), certificate, key))
        .collect();
    let interval = interval(&lab);
    let config = head(&lab)
        + &format!(
            "[check.page]\nkind = \"http\"\npath = \"/up\"\nstatus = \"200-299\"\nbody = \"fine\"\nhost = \"www.example.com\"\n{interval}"
        )
        + &format!(
            "[check.strict]\nkind = \"https\"\nport = 443\nserver_name = \"www.example.com\"\nca_file = \"{authority}\"\n{interval}"
        )
        + &format!(
            "[check.loose]\nkind = \"https\"\nport = 443\nserver_name = \"www.example.com\"\nverify = false\n{interval}"
        )
        + &of_service(&lab, "page", 0, "tcp", 80, "check = \"page\"")
        + &of_service(&lab, "strict", 1, "tcp", 80, "check = \"strict\"")
        + &of_service(&lab, "loose", 2, "tcp", 80, "check = \"loose\"");
    let agent = Agent::start(lab.balancer(), &config).unwrap();
    let [page, strict, loose] = [0, 1, 2].map(|number| at(&lab, number, 80));
    wait_until_serving(&agent, &page, &[0, 1]);
    wait_until_serving(&agent, &loose, &[0, 1]);

    // A certificate for another name is none, unless that is the operator's choice; then it is said.
    wait_until_serving(&agent, &strict, &[0]);
    let status = wait_for_failure(&agent, &strict, 1, "the certificate is not accepted");
    let [first, second] = [0, 1].map(|number| backend_of(&status, strict.0, strict.1[number]));
    assert!(second["last_output"].as_str().unwrap().contains("www.example.com"), "{second:#}");
    assert_eq!(
        (&first["certificate"]["name"], &first["certificate"]["covers"]),
        (&"www.example.com".into(), &true.into())
    );
    let covers = [0, 1].map(|number| &backend_of(&status, loose.0, loose.1[number])["certificate"]["covers"]);
    assert_eq!(covers, [&true, &false]);
    let told = agent.lb(["health", "loose"]).unwrap().stdout;
    assert!(told.contains("certificate does not cover www.example.com, expires in "), "{told}");

    // Who has another page takes no flows, and it is said what it has instead.
    for (said, reason, output) in
        [(Some("all is lost\n"), "the page is another one", "all is lost"), (None, "status 404", "404 Not Found")]
    {
        pages[0].say(said);
        wait_until_serving(&agent, &page, &[1]);
        let status = wait_for_failure(&agent, &page, 0, reason);
        assert_eq!(backend_of(&status, page.0, page.1[0])["last_output"], output);
        let replies = curl_many(lab.client(), &url(page.0), 20).unwrap();
        assert_eq!(failures(&replies), Vec::<&Reply>::new());
        assert!(replies.iter().all(|reply| reply.body == "backend-1\n"));
        let turn = &health(&agent, &page.1[0].to_string())["targets"][0]["turns"][0];
        assert_eq!((&turn["up"], &turn["reason"], &turn["output"]), (&false.into(), &reason.into(), &output.into()));
        let log = agent.running().log();
        assert!(log.contains(&format!("output=\"{output}\"")), "{log}");
        pages[0].say(Some("fine again\n"));
        wait_until_serving(&agent, &page, &[0, 1]);
    }
    let told = health(&agent, "page");
    assert_eq!(told["targets"].as_array().unwrap().len(), 2, "{told:#}");
    let turns: Vec<_> = told["targets"][0]["turns"].as_array().unwrap().iter().map(|turn| turn["up"] == true).collect();
    assert_eq!(turns, [true, false, true, false, true], "{told:#}");
    let unknown = agent.attempt_lb(["health", "nothing"]).unwrap();
    assert_eq!(unknown.status.code(), Some(1));
    assert!(unknown.stderr.starts_with("lb: nothing that is checked is called `nothing`"), "{unknown:?}");
}

#[test]
fn questions_datagrams_and_echoes() {
    if !needs_root("questions_datagrams_and_echoes") {
        return;
    }
    let lab = lab_of(4, 2);
    let [first, second] = lab.backends() else { panic!("there are two") };
    let _knot = Knot::start(first, "example.com", "00112233445566778899aabbccddeeff").unwrap();
    let mut echo = UdpEcho::start(first, &[SocketAddr::new(first.ipv4().into(), 9)]).unwrap();
    let _silent = second.inside(|| std::net::UdpSocket::bind((second.ipv4(), 9))).unwrap().unwrap();
    let interval = interval(&lab);
    let name = "name = \"example.com\"";
    let ping6 = {
        let service6 = SocketAddr::new(lab.service_ipv6(0).into(), 80);
        let backends: Vec<_> = lab.backends().iter().map(|host| (SocketAddr::new(host.ipv6().into(), 80), 1)).collect();
        service("ping6", "tcp", service6, "dsr", &backends).replace("check = \"web\"", "check = \"ping\"")
    };
    let config = head(&lab)
        + &format!("[check.dns]\nkind = \"dns\"\n{name}\naddress = \"192.0.2.1\"\n{interval}")
        + &format!("[check.no]\nkind = \"dns\"\n{name}\naddress = \"192.0.2.2\"\n{interval}")
        + &format!("[check.udp]\nkind = \"udp\"\nsend = \"hello\"\nexpect = \"backend-0\"\n{interval}")
        + &format!("[check.any]\nkind = \"udp\"\nport = 9\n{interval}")
        + &format!("[check.ping]\nkind = \"icmp\"\n{interval}")
        + &of_service(&lab, "dns", 0, "udp", 53, "check = \"dns\"")
        + &of_service(&lab, "no", 1, "udp", 53, "check = \"no\"")
        + &of_service(&lab, "udp", 0, "udp", 9, "check = \"udp\"")
        + &of_service(&lab, "any", 1, "udp", 9, "check = \"any\"")
        + &of_service(&lab, "ping", 2, "tcp", 80, "check = \"ping\"")
        + &ping6;
    let agent = Agent::start(lab.balancer(), &config).unwrap();
    let (dns, no, udp, any) = (at(&lab, 0, 53), at(&lab, 1, 53), at(&lab, 0, 9), at(&lab, 1, 9));
    let (ping, service6) = (at(&lab, 2, 80), SocketAddr::new(lab.service_ipv6(0).into(), 80));
    let ping6 = (service6, lab.backends().iter().map(|host| SocketAddr::new(host.ipv6().into(), 80)).collect());
    wait_until_serving(&agent, &dns, &[0]);
    wait_for_failure(&agent, &dns, 1, "connection refused");
    let status = wait_for_failure(&agent, &no, 0, "another answer");
    assert_eq!(backend_of(&status, no.0, no.1[0])["last_output"], "No Error 192.0.2.1");
    wait_until_serving(&agent, &udp, &[0]);
    wait_for_failure(&agent, &udp, 1, "timed out");
    // Without an answer to expect silence is right; a port that nobody has is not.
    wait_until_serving(&agent, &any, &[0, 1]);
    echo.stop();
    wait_until_serving(&agent, &any, &[1]);
    wait_for_failure(&agent, &any, 0, "connection refused");

    wait_until_serving(&agent, &ping, &[0, 1]);
    wait_until_serving(&agent, &ping6, &[0, 1]);
    second.set([("ipv4/icmp_echo_ignore_all", "1")]).unwrap();
    wait_until_serving(&agent, &ping, &[0]);
    let status = wait_for_failure(&agent, &ping, 1, "timed out");
    assert_eq!(serving(&status, service6).len(), 2);
    second.set([("ipv6/icmp/echo_ignore_all", "1")]).unwrap();
    wait_until_serving(&agent, &ping6, &[0]);
    for family in ["ipv4/icmp_echo_ignore_all", "ipv6/icmp/echo_ignore_all"] {
        second.set([(family, "0")]).unwrap();
    }
    wait_until_serving(&agent, &ping, &[0, 1]);
    wait_until_serving(&agent, &ping6, &[0, 1]);
}

#[test]
fn backends_say_themselves_how_they_are() {
    if !needs_root("backends_say_themselves_how_they_are") {
        return;
    }
    let lab = lab_of(2, 2);
    let _servers: Vec<_> = lab.backends().iter().map(|host| Nginx::start(host, &[80]).unwrap()).collect();
    let speak =
        |host: &Host| Speaker::start(host, SocketAddr::new(host.ipv4().into(), 7_777), "ready up 100%\n").unwrap();
    let speakers: Vec<_> = lab.backends().iter().map(speak).collect();
    let config = head(&lab)
        + "port = 80\n"
        + &format!("[check.load]\nkind = \"agent\"\nport = 7777\nweight_floor_percent = 20\n{}", interval(&lab))
        + &of_service(&lab, "both", 0, "tcp", 80, "check = \"web\"\nagent = \"load\"")
        + &of_service(&lab, "alone", 1, "tcp", 80, "check = \"load\"");
    let agent = Agent::start(lab.balancer(), &config).unwrap();
    let all = [at(&lab, 0, 80), at(&lab, 1, 80)];
    for service in &all {
        wait_until_serving(&agent, service, &[0, 1]);
    }
    let first_says = |line: &str, says: &str, percent: u32| {
        speakers[0].say(line);
        wait_for(&agent, &format!("{line:?} was heard"), |status| {
            all.iter().all(|(service, backends)| {
                let first = backend_of(status, *service, backends[0]);
                first["agent_says"] == says && first["weight_percent"] == percent
            })
        })
    };
    first_says("50%\n", "up ready 50%", 50);
    first_says("48% # too little to count\n51%\n", "up ready 50%", 50);
    let status = first_says("0%\n", "up ready 20%", 20);
    assert!(all.iter().all(|(service, _)| serving(&status, *service).len() == 2));

    // Drained, it is up and takes no new flows; in maintenance it takes none at all.
    first_says("drain\n", "up drain 20%", 20);
    for service in &all {
        let status = wait_until_serving(&agent, service, &[1]);
        let first = backend_of(&status, service.0, service.1[0]);
        assert_eq!((&first["health"], &first["draining"]), (&"up".into(), &false.into()));
        let replies = curl_many(lab.client(), &url(service.0), 20).unwrap();
        assert_eq!(failures(&replies), Vec::<&Reply>::new());
        assert!(replies.iter().all(|reply| reply.body == "backend-1\n"));
    }
    first_says("ready 100%\n", "up ready 100%", 100);
    for service in &all {
        wait_until_serving(&agent, service, &[0, 1]);
    }
    for line in ["maint\n", "ready down # the disk is full\n"] {
        speakers[0].say(line);
        for service in &all {
            wait_until_serving(&agent, service, &[1]);
        }
    }
    let words = "its agent says so: ready down # the disk is full";
    wait_until(TURN, "the agent's own words are told", || {
        let told = agent.lb(["health", &all[1].1[0].ip().to_string()]).unwrap().stdout;
        told.contains(words).then_some(())
    })
    .unwrap();
    first_says("up\n", "up ready 100%", 100);
    for service in &all {
        wait_until_serving(&agent, service, &[0, 1]);
    }
    // That it can't be reached says nothing of a backend that has another check.
    drop(speakers);
    let status = wait_for(&agent, "the agents are gone", |status| serving(status, all[1].0).is_empty());
    assert_eq!(serving(&status, all[0].0).len(), 2);
}

#[test]
fn backups_and_fail_open() {
    if !needs_root("backups_and_fail_open") {
        return;
    }
    let lab = lab_of(1, 3);
    let mut servers: Vec<_> = lab.backends().iter().map(|host| Nginx::start(host, &[80]).unwrap()).collect();
    let keys = "check = \"web\"\nminimum_healthy = 1\nbelow_minimum = \"fail-open\"";
    let config = head(&lab) + "port = 80\n" + &of_service(&lab, "web", 0, "tcp", 80, keys) + "backup = true\n";
    let agent = Agent::start(lab.balancer(), &config).unwrap();
    let web = at(&lab, 0, 80);
    let pool = |status: &Value| status_of(status, web.0)["pool"].as_str().unwrap().to_owned();
    let served = |by: &str| {
        let replies = curl_many(lab.client(), &url(web.0), 20).unwrap();
        assert_eq!(failures(&replies), Vec::<&Reply>::new());
        assert!(replies.iter().all(|reply| by.contains(reply.body.trim())), "{replies:?}");
    };
    let status = wait_until_serving(&agent, &web, &[0, 1]);
    assert_eq!((pool(&status), &backend_of(&status, web.0, web.1[2])["health"]), ("main".into(), &"up".into()));
    served("backend-0 backend-1");

    servers[0].stop().unwrap();
    wait_until_serving(&agent, &web, &[1]);
    servers[1].stop().unwrap();
    let status = wait_until_serving(&agent, &web, &[2]);
    assert_eq!(pool(&status), "with-backups");
    served("backend-2");
    let text = agent.lb(["status"]).unwrap().stdout;
    assert!(text.contains("too few backends are up, so the backups take flows too; minimum_healthy is 1"), "{text}");

    servers[2].stop().unwrap();
    let status = wait_until_serving(&agent, &web, &[0, 1, 2]);
    assert_eq!(pool(&status), "fail-open");
    // One that comes back, and be it the backup, takes all.
    servers[2].start_again().unwrap();
    wait_until_serving(&agent, &web, &[2]);
    servers[0].start_again().unwrap();
    let status = wait_until_serving(&agent, &web, &[0]);
    assert_eq!(pool(&status), "main");
    served("backend-0");
}

#[test]
fn who_flaps_is_held_down_and_who_comes_back_starts_slowly() {
    if !needs_root("who_flaps_is_held_down_and_who_comes_back_starts_slowly") {
        return;
    }
    let lab = lab_of(2, 2);
    let mut servers: Vec<_> = lab.backends().iter().map(|host| Nginx::start(host, &[80]).unwrap()).collect();
    let interval = interval(&lab);
    let config = head(&lab)
        + &format!(
            "[check.held]\nflap_turns = 2\nflap_window_seconds = 3600\nflap_hold_seconds = 3600\nflap_hold_most_seconds = 3600\n{interval}"
        )
        + &format!("[check.slow]\nslow_start_seconds = 3600\n{interval}")
        + &of_service(&lab, "held", 0, "tcp", 80, "check = \"held\"")
        + &of_service(&lab, "slow", 1, "tcp", 80, "check = \"slow\"");
    let agent = Agent::start(lab.balancer(), &config).unwrap();
    let [held, slow] = [0, 1].map(|number| at(&lab, number, 80));
    let percent = |status: &Value| backend_of(status, slow.0, slow.1[0])["weight_percent"].as_u64();
    let status = wait_until_serving(&agent, &held, &[0, 1]);
    assert_eq!(percent(&status), Some(100));
    for service in [&held, &slow] {
        wait_until_serving(&agent, service, &[0, 1]);
    }
    servers[0].stop().unwrap();
    wait_until_serving(&agent, &held, &[1]);
    wait_until_serving(&agent, &slow, &[1]);
    servers[0].start_again().unwrap();
    wait_until_serving(&agent, &held, &[0, 1]);
    let status = wait_until_serving(&agent, &slow, &[0, 1]);
    assert_eq!(percent(&status), Some(10));
    servers[0].stop().unwrap();
    wait_until_serving(&agent, &held, &[1]);
    wait_until_serving(&agent, &slow, &[1]);
    servers[0].start_again().unwrap();
    // The same server is up for the one check, and for the other it is not.
    wait_until_serving(&agent, &slow, &[0, 1]);
    let is_contradicted = || {
        let told = health(&agent, "held");
        let first =
            told["targets"].as_array().unwrap().iter().find(|target| target["turns"][0]["up"] == false).cloned();
        first.filter(|first| first["contradicted"].as_u64() > Some(1))
    };
    let first = wait_until(TURN, "several good results in a row have changed nothing", is_contradicted).unwrap();
    assert!(first["held_seconds"].as_u64() > Some(3_000), "{first:#}");
    assert_eq!(serving(&agent.status().unwrap(), held.0), [held.1[1]].into());
    let text = agent.lb(["health", "held"]).unwrap().stdout;
    assert!(text.contains("s more: it has turned too often\n"), "{text}");
    let log = agent.running().log();
    assert!(log.contains("held_seconds=3600") || log.contains("held_seconds=3599"), "{log}");
}

/// Where nginx was asked for the page of the checks.
fn asked_at(server: &Nginx) -> BTreeSet<SocketAddr> {
    let served = server.served().unwrap();
    served.into_iter().filter(|one| one.target == "/check").map(|one| one.local).collect()
}

/// How many rules for marked packets of checks there are, in each family.
fn rules(lab: &Lab) -> [usize; 2] {
    let count = |line: &[&str]| lab.balancer().run(line).unwrap().stdout.matches("fwmark 0x6c62").count();
    [count(&["ip", "-4", "rule"]), count(&["ip", "-6", "rule"])]
}

/// A farm whose servers are checked at the services' addresses.
struct Checked {
    lab: Lab,
    decapsulations: Vec<Decapsulation>,
    servers: Vec<Nginx>,
    config: String,
    /// The services, each with its backends.
    services: [(SocketAddr, Vec<SocketAddr>); 2],
}

fn checked_at_services(mode: Mode) -> Checked {
    let lab = Lab::blueprint(mode.layout()).backends(2).up().unwrap();
    let decapsulations = prepare(&lab, mode);
    let servers: Vec<_> = lab.backends().iter().map(|host| Nginx::start(host, &[80]).unwrap()).collect();
    let services = service_ips(&lab).map(|ip| {
        let backend = |number| SocketAddr::new(backend_ip(&lab, mode, ip, number), 80);
        (SocketAddr::new(ip, 80), vec![backend(0), backend(1)])
    });
    let check = "port = 80\nprobe = \"service\"\nkind = \"http\"\npath = \"/check\"\n";
    let mut config = farm_head(&lab, mode).replace("port = 80\n", check);
    for (name, (address, backends)) in ["web4", "web6"].iter().zip(&services) {
        let backends: Vec<_> = backends.iter().map(|backend| (*backend, 1)).collect();
        config += &service(name, "tcp", *address, mode.name(), &backends);
    }
    Checked { lab, decapsulations, servers, config, services }
}

#[test]
fn a_backend_without_the_service_address_is_down() {
    if !needs_root("a_backend_without_the_service_address_is_down")
        || !needs_tun("a_backend_without_the_service_address_is_down")
    {
        return;
    }
    let Checked { lab, decapsulations: _, servers, config, services: [web4, web6] } = checked_at_services(Mode::Dsr);
    let agent = Agent::start(lab.balancer(), &config).unwrap();
    for service in [&web4, &web6] {
        wait_until_serving(&agent, service, &[0, 1]);
    }
    for server in &servers {
        assert_eq!(asked_at(server), [web4.0, web6.0].into(), "each at its own, and at no address of the backend");
    }
    assert_eq!(rules(&lab), [1, 1]);

    let second = &lab.backends()[1];
    let address = |verb: &str| second.ip(&[format!("address {verb} {}/32 dev lo", web4.0.ip())]).unwrap();
    address("delete");
    wait_until_serving(&agent, &web4, &[0]);
    let status = wait_for_failure(&agent, &web4, 1, "timed out");
    assert_eq!(serving(&status, web6.0).len(), 2, "the other family has its address");
    let told = agent.lb(["health", &second.ipv4().to_string()]).unwrap().stdout;
    assert!(told.starts_with(&format!("{} via {}  http GET /check  down", web4.0, second.ipv4())), "{told}");
    address("add");
    wait_until_serving(&agent, &web4, &[0, 1]);

    // One that is killed leaves rules that lead nowhere; the next agent takes them away, and its own with it when it ends.
    agent.kill().unwrap();
    let agent = Agent::start(lab.balancer(), &config).unwrap();
    assert_eq!(rules(&lab), [1, 1]);
    address("delete");
    wait_until_serving(&agent, &web4, &[0]);
    assert_eq!(agent.terminate().unwrap().code(), Some(0));
    assert_eq!(rules(&lab), [0, 0]);
}

#[test]
fn a_backend_without_its_tunnel_is_down() {
    if !needs_root("a_backend_without_its_tunnel_is_down") || !needs_tun("a_backend_without_its_tunnel_is_down") {
        return;
    }
    let Checked { lab, mut decapsulations, servers, config, services } = checked_at_services(Mode::Tunnel4);
    let agent = Agent::start(lab.balancer(), &config).unwrap();
    for service in &services {
        wait_until_serving(&agent, service, &[0, 1]);
    }
    for server in &servers {
        assert_eq!(asked_at(server), services.iter().map(|(address, _)| *address).collect());
    }
    drop(decapsulations.pop());
    for service in &services {
        wait_until_serving(&agent, service, &[0]);
        let replies = curl_many(lab.client(), &url(service.0), 20).unwrap();
        assert_eq!(failures(&replies), Vec::<&Reply>::new());
    }
    // At its own address it is as well as ever.
    let own = curl_many(lab.balancer(), &url(services[0].1[1]), 1).unwrap();
    assert_eq!(failures(&own), Vec::<&Reply>::new());
}

#[test]
fn a_third_of_a_thousand_targets_hang() {
    const TARGETS: u16 = 999;
    const HANGING: u16 = TARGETS / 3;
    if !needs_root("a_third_of_a_thousand_targets_hang") {
        return;
    }
    let lab = lab(Layout::Routed, "nat", 1);
    let host = &lab.backends()[0];
    let address = host.interfaces().last().unwrap().ipv4;
    let ports = |from: u16, count: u16| (from..from + count).collect::<Vec<_>>();
    let (answering, hanging) = (ports(10_000, TARGETS - HANGING), ports(20_000, HANGING));
    let mut server = Nginx::start(host, &answering).unwrap();
    // Connections are taken by the kernel, and nobody ever answers.
    let silent = || hanging.iter().map(|port| std::net::TcpListener::bind((address, *port))).collect();
    let _silent: Vec<_> = host.inside(|| -> std::io::Result<Vec<_>> { silent() }).unwrap().unwrap();
    let service_address = SocketAddr::new(lab.service_ipv4(0).into(), 80);
    let backends: Vec<_> =
        answering.iter().chain(&hanging).map(|port| (SocketAddr::new(address.into(), *port), 1)).collect();
    let config = head(&lab).replace("[check.web]\n", "[check.web]\nkind = \"http\"\n")
        + &service("many", "tcp", service_address, "nat", &backends).replace("slots = 1009", "slots = 65537");
    let agent = Agent::start_within(lab.balancer(), &config, TURN).unwrap();
    let wanted: BTreeSet<_> =
        backends.iter().map(|(backend, _)| *backend).filter(|backend| backend.port() < 20_000).collect();
    let all_serve =
        |agent: &Agent| wait_for(agent, "all that answer serve", |status| serving(status, service_address) == wanted);
    all_serve(&agent);
    wait_for(&agent, "all others have timed out", |status| {
        let listed = status_of(status, service_address)["backends"].as_array().unwrap();
        let timed_out = listed.iter().filter(|backend| backend["last_failure"] == "timed out").count();
        (listed.len(), timed_out) == (usize::from(TARGETS), usize::from(HANGING))
    });

    // While they go on hanging, all others are found out at once, and found again.
    server.stop().unwrap();
    wait_for(&agent, "nobody serves", |status| serving(status, service_address).is_empty());
    server.start_again().unwrap();
    all_serve(&agent);
}

#[test]
fn backends_of_a_watched_file() {
    if !needs_root("backends_of_a_watched_file") {
        return;
    }
    let lab = lab_of(1, 3);
    let _servers: Vec<_> = lab.backends().iter().map(|host| Nginx::start(host, &[80]).unwrap()).collect();
    let web = at(&lab, 0, 80);
    let file = lab.folder().join("targets.json");
    // As one that is read at any time has to be written: whole.
    let write = |text: &str| {
        let new = file.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &file).unwrap();
    };
    let targets = |numbers: &[usize]| {
        let targets: Vec<_> = numbers.iter().map(|number| web.1[*number].to_string()).collect();
        write(&format!("[{{\"targets\": {targets:?}, \"labels\": {{\"weight\": \"2\"}}}}]"));
    };
    targets(&[0]);
    let (service, _) =
        of_service(&lab, "web", 0, "tcp", 80, "check = \"web\"").split_once("[[service.backend]]").map_or_else(
            || panic!("a service has backends"),
            |(service, backends)| (service.to_owned(), backends.to_owned()),
        );
    let config = head(&lab) + "port = 80\n" + &service + &format!("backends_file = {file:?}\n");
    let agent = Agent::start(lab.balancer(), &config).unwrap();
    let status = wait_until_serving(&agent, &web, &[0]);
    assert_eq!(backend_of(&status, web.0, web.1[0])["weight"], 2);
    // What is being edited in the config does not count yet, and be it wrong.
    fs::write(agent.config(), "interfaces = [").unwrap();
    targets(&[0, 1, 2]);
    wait_until_serving(&agent, &web, &[0, 1, 2]);
    targets(&[1, 2]);
    wait_until_serving(&agent, &web, &[1, 2]);

    // A wrong one changes nothing, nor does one that is gone; each is complained about once.
    let is_told = |what: &str| {
        let status = wait_for(&agent, what, |status| {
            let error = &status_of(status, web.0)["backends_file"]["error"];
            error.as_str().is_some_and(|error| error.contains(what))
        });
        assert_eq!(serving(&status, web.0), [web.1[1], web.1[2]].into());
        assert_eq!(agent.running().log().matches(what).count(), 1, "{}", agent.running().log());
    };
    write("[{\"targets\": [\"nobody\"]}]");
    is_told("target `nobody` is not an IP address");
    fs::remove_file(&file).unwrap();
    is_told("No such file or directory");
    targets(&[0, 2]);
    wait_until_serving(&agent, &web, &[0, 2]);
    let replies = curl_many(lab.client(), &url(web.0), 20).unwrap();
    assert_eq!(failures(&replies), Vec::<&Reply>::new());
}

#[test]
fn a_wrong_file_holds_up_nobody_else() {
    if !needs_root("a_wrong_file_holds_up_nobody_else") {
        return;
    }
    let lab = lab_of(2, 3);
    let _servers: Vec<_> = lab.backends().iter().map(|host| Nginx::start(host, &[80]).unwrap()).collect();
    let services = [at(&lab, 0, 80), at(&lab, 1, 80)];
    let [one, two] = &services;
    let files = ["one.json", "two.json"].map(|name| lab.folder().join(name));
    let write = |number: usize, text: &str| {
        let new = files[number].with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(&new, &files[number]).unwrap();
    };
    let list = |number: usize, backends: &[usize]| {
        let targets: Vec<_> = backends.iter().map(|backend| services[number].1[*backend].to_string()).collect();
        write(number, &format!("[{{\"targets\": {targets:?}}}]"));
    };
    let service = |number: usize, name: &str| {
        let text = of_service(&lab, name, number as u8, "tcp", 80, "check = \"web\"");
        text.split_once("[[service.backend]]").unwrap().0.to_owned() + &format!("backends_file = {:?}\n", files[number])
    };
    let config = head(&lab) + "port = 80\n" + &service(0, "one") + &service(1, "two");
    list(0, &[0]);
    list(1, &[0]);
    let agent = Agent::start(lab.balancer(), &config).unwrap();
    wait_until_serving(&agent, one, &[0]);
    wait_until_serving(&agent, two, &[0]);
    let file_of = |status: &Value, number: usize| status_of(status, services[number].0)["backends_file"].clone();
    let wait_for_error = |agent: &Agent, number: usize, what: &str| {
        wait_for(agent, what, |status| {
            file_of(status, number)["error"].as_str().is_some_and(|error| error.contains(what))
        })
    };

    // One whose JSON is none, then one that is wrong only as a part of the config.
    let other_port = format!("[{{\"targets\": [\"{}:81\"]}}]", one.1[1].ip());
    for (number, (text, what)) in
        [("[", "EOF while parsing"), (&*other_port, "backend port 81 is not the service's port 80")].iter().enumerate()
    {
        write(0, text);
        wait_for_error(&agent, 0, what);
        // The other one's changes, reloads and changes by command go on.
        list(1, &[1, 2]);
        wait_until_serving(&agent, two, &[1, 2]);
        let backend = two.1[1].to_string();
        agent.lb(["backend", "drain", "two", &backend]).unwrap();
        wait_until_serving(&agent, two, &[2]);
        let said = agent.attempt_lb(["apply"]).unwrap();
        assert!(said.status.success() && said.stderr.contains(what), "{said:?}");
        agent.lb(["backend", "undrain", "two", &backend]).unwrap();
        agent.reload(&config.replace("fall = 2", &format!("fall = {}", 3 + number))).unwrap();
        list(1, &[0, 1]);
        wait_until_serving(&agent, two, &[0, 1]);
        let status = wait_until_serving(&agent, one, &[0]);
        assert_eq!(file_of(&status, 1)["error"], Value::Null);
        assert_eq!(backend_of(&status, one.0, one.1[0])["file"], *files[0].to_str().unwrap());
        let text = agent.lb(["status"]).unwrap().stdout;
        assert!(text.contains("one.json: wrong now, what it listed before holds: "), "{text}");
        let text = agent.lb(["health", "one"]).unwrap().stdout;
        assert!(text.contains("one.json: wrong now, what it listed before holds: "), "{text}");
    }
    assert!(agent.running().log().contains("what the file listed before holds: "), "{}", agent.running().log());

    // It also holds for an agent that is started while the file is wrong, but not for a config that names it for the first time.
    agent.terminate().unwrap();
    let agent = Agent::start(lab.balancer(), &config).unwrap();
    wait_for_error(&agent, 0, "backend port 81");
    wait_until_serving(&agent, one, &[0]);
    wait_until_serving(&agent, two, &[0, 1]);
    fs::write(lab.folder().join("three.json"), "[").unwrap();
    let named = config.replace("one.json", "three.json");
    let path = lab.folder().join("named.toml");
    fs::write(&path, named).unwrap();
    let refused = agent.attempt_lb(["apply", path.to_str().unwrap()]).unwrap();
    assert!(!refused.status.success() && refused.stderr.contains("three.json: EOF"), "{refused:?}");

    // It is right again.
    list(0, &[0, 1, 2]);
    wait_until_serving(&agent, one, &[0, 1, 2]);
    wait_for(&agent, "nothing is wrong", |status| (0..2).all(|number| file_of(status, number)["error"].is_null()));
}
