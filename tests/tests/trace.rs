//! `lb trace` end to end: what it tells is what happened, and when nobody asks, nothing is there that could.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use aya::programs::loaded_programs;
use lb_common::{tables::NOBODY, trace::ACTIONS, verdict::Why};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};
use support::{SERVICES, Site, TURN, dns, failures, head, name, service, service_addresses, url, wait_for};
use tests::{
    Agent, Host, Lab, Layout, Reply, Running, UdpEcho, UdpFlows, curl_many, dig,
    fixture::{self, Action, Fixture},
    frames, lb_binary, needs_program, needs_root, wait_until,
};

/// The name of the program on the balancer's first interface.
fn program(lab: &Lab) -> String {
    let line = ["ip", "-json", "link", "show", "dev", "eth0"];
    let links: Value = serde_json::from_str(&lab.balancer().run(line).unwrap().stdout).unwrap();
    let id = links[0]["xdp"]["prog"]["id"].as_u64().unwrap();
    let found = loaded_programs().filter_map(Result::ok).find(|program| u64::from(program.id()) == id);
    // Another one may just have taken its place.
    found.map_or_else(String::new, |program| program.name_as_str().unwrap().to_owned())
}

/// Starts `lb trace`, and waits until samples are taken.
fn begin(lab: &Lab, arguments: &[&str]) -> Running {
    let (binary, socket) = (lb_binary().unwrap(), lab.socket());
    let front = [binary.to_str().unwrap(), "trace", "--socket", socket.to_str().unwrap()];
    let command = lab.balancer().spawn(front.iter().chain(arguments)).unwrap();
    wait_until(TURN, "the trace begins", || (program(lab) == "lb_traced").then_some(())).unwrap();
    command
}

/// Waits until a trace ends by itself, and gives its lines.
fn end(command: &Running) -> Vec<Value> {
    assert_eq!(command.wait(TURN).unwrap().code(), Some(0), "{}", command.log());
    lines(command)
}

fn lines(command: &Running) -> Vec<Value> {
    command.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn wait_until_gone(lab: &Lab) {
    wait_until(TURN, "nothing takes samples any more", || (program(lab) == "lb").then_some(())).unwrap();
}

#[test]
fn the_path_is_the_same_with_samples_and_they_tell_what_it_did() {
    if !needs_root("the_path_is_the_same_with_samples_and_they_tell_what_it_did") {
        return;
    }
    let lab = Lab::blueprint(Layout::Routed).backends(1).up().unwrap();
    fixture::neighbors(lab.balancer()).unwrap();
    let run = || {
        fixture::stay_on_one_cpu().unwrap();
        let mut traced = Fixture::load(lab.balancer()).unwrap();
        let mut tracer = traced.trace().unwrap();
        for named in frames::all().unwrap() {
            traced.forget().unwrap();
            traced.go_to(named.moment).unwrap();
            named.before.iter().for_each(|frame| _ = traced.in_both(frame).unwrap());
            tracer.renew(1).unwrap();
            tracer.taken();
            // What the usual program does is what the host does.
            let [outcome, expected] = traced.in_both(&named.frame).unwrap();
            assert_eq!(outcome, expected, "{}", named.name);
            let samples = tracer.taken();
            let [sample] = samples.as_slice() else { unreachable!("{}: {samples:?}", named.name) };
            let action = match outcome.action {
                Action::Pass => "pass",
                Action::Transmit => "transmit",
                Action::Redirect => "redirect",
                Action::Drop => "drop",
            };
            let why = Why::ALL[sample.why as usize];
            assert_eq!(ACTIONS[sample.action as usize], action, "{}", named.name);
            assert!(outcome.counts.contains_key(&why), "{}: {why:?}, {:?}", named.name, outcome.counts);
            let backend = outcome.traffic.keys().copied().next().unwrap_or(NOBODY);
            assert_eq!(sample.backend, backend, "{}", named.name);
            assert_eq!(sample.length as usize, named.frame.len(), "{}", named.name);
            let kept = named.frame.len().min(256);
            let head: &[u8] = bytemuck::cast_slice(&sample.head);
            assert_eq!(head[..kept], named.frame[..kept], "{}", named.name);
        }
        // Every third frame, and none after the lease.
        let frame = frames::all().unwrap().into_iter().next().unwrap().frame;
        tracer.renew(3).unwrap();
        (0..9).for_each(|_| _ = traced.in_kernel(&frame).unwrap());
        assert_eq!(tracer.taken().len(), 3);
        tracer.renew(1).unwrap();
        thread::sleep(Duration::from_secs(5));
        traced.in_kernel(&frame).unwrap();
        assert_eq!(tracer.taken().len(), 0);
        // No more in a second than a CPU is to take; the others are counted.
        let before = tracer.missed().unwrap();
        for _ in 0..20 {
            tracer.renew(1).unwrap();
            (0..1_000).for_each(|_| _ = traced.in_kernel(&frame).unwrap());
        }
        let (taken, missed) = (tracer.taken().len() as u64, tracer.missed().unwrap() - before);
        assert!(missed > 0 && taken + missed == 20_000, "{taken} taken, {missed} missed");
    };
    lab.balancer().inside(run).unwrap();
}

/// Requests over both families are told, with who served them.
fn requests_are_told(mode: &str, why: &str) {
    let site = Site::up(Layout::Bridged, mode, &[1, 1, 1]);
    for (index, service) in site.services().into_iter().enumerate() {
        let trace = begin(&site.lab, &["--json", "--service", SERVICES[index], "--why", why]);
        let replies = site.requests(service, 12);
        wait_until(TURN, "the requests are told", || (seen(&trace).len() >= 12).then_some(())).unwrap();
        trace.signal(Signal::SIGINT).unwrap();
        trace.wait(TURN).unwrap();
        wait_until_gone(&site.lab);
        let served: BTreeSet<&str> = replies.iter().map(|reply| reply.body.trim()).collect();
        let backends = site.backends(service);
        let mut told = BTreeSet::new();
        for event in lines(&trace) {
            assert_eq!((&event["what"], &event["why"]), (&"event".into(), &why.into()), "{event:#}");
            assert_eq!((&event["service"], &event["protocol"]), (&SERVICES[index].into(), &"tcp".into()));
            assert_eq!(event["destination"], service.ip().to_string(), "{event:#}");
            assert_eq!(event["interface"], "eth0");
            assert_eq!(event.get("frame"), None);
            let backend: SocketAddr = event["backend"].as_str().unwrap().parse().unwrap();
            let number = backends.iter().position(|known| *known == backend).unwrap();
            told.insert(site.lab.backends()[number].role().to_owned());
        }
        assert_eq!(told.iter().map(String::as_str).collect::<BTreeSet<_>>(), served);
    }
}

/// The clients' ports that were told.
fn seen(trace: &Running) -> BTreeSet<u64> {
    lines(trace).iter().filter_map(|event| event["source_port"].as_u64()).collect()
}

#[test]
fn requests_are_told_by_dsr() {
    if needs_root("requests_are_told_by_dsr") {
        requests_are_told("dsr", "forwarded_dsr");
    }
}

#[test]
fn requests_are_told_by_nat() {
    if needs_root("requests_are_told_by_nat") {
        requests_are_told("nat", "forwarded_nat");
    }
}

#[test]
fn replies_of_nat_backends_are_told() {
    if !needs_root("replies_of_nat_backends_are_told") {
        return;
    }
    let site = Site::up(Layout::Bridged, "nat", &[1]);
    let client = site.lab.client().ipv4().to_string();
    let trace = begin(&site.lab, &["--json", "--why", "returned", "--client", &client, "--count", "3"]);
    let service = site.services()[0];
    site.requests(service, 5);
    let events = end(&trace);
    assert_eq!(events.len(), 3);
    for event in events {
        assert_eq!(event["service"], SERVICES[0], "{event:#}");
        assert_eq!(event["backend"], site.backends(service)[0].to_string(), "{event:#}");
        assert_eq!(event["destination"], client, "{event:#}");
    }
}

#[test]
fn drops_and_what_passes_are_told() {
    if !needs_root("drops_and_what_passes_are_told") {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).backends(1).up().unwrap();
    let limit = "\n[dns.limit]\nresponses_per_second = 1\nslip = 0\n";
    let config = head(&lab) + &dns(&lab) + limit + &name("www.example.com", &["192.0.2.1".parse().unwrap()], "");
    let agent = Agent::start(lab.balancer(), &config).unwrap();
    wait_for(&agent, "there are answers in the kernel", |status| {
        status["dns"]["answers_in_kernel"].as_u64().is_some_and(|count| count > 0)
    });
    let trace = begin(&lab, &["--json", "--service", "dns", "--why", "dns_limited", "--count", "1"]);
    let all = begin(&lab, &["--service", "dns", "--for", "3s"]);
    let server = lab.balancer().ipv4().into();
    for _ in 0..40 {
        if trace.wait(Duration::from_millis(1)).is_ok() {
            break;
        }
        let _ = dig(lab.client(), server, "www.example.com", "A", &["+tries=1", "+timeout=1", "+nocookie"]);
    }
    let events = end(&trace);
    assert_eq!((&events[0]["verdict"], &events[0]["service"]), (&"drop".into(), &"dns".into()), "{events:#?}");
    assert_eq!(all.wait(TURN).unwrap().code(), Some(0), "{}", all.log());
    assert!(all.log().contains(": transmit answered service dns"), "{}", all.log());
    wait_until_gone(&lab);
}

#[test]
fn an_agent_that_can_not_load_the_programs_says_so_and_goes_on() {
    const NAME: &str = "an_agent_that_can_not_load_the_programs_says_so_and_goes_on";
    if !needs_root(NAME) || !needs_program(NAME, "prlimit") {
        return;
    }
    let lab = Lab::blueprint(Layout::Bridged).backends(1).up().unwrap();
    // Without checks, so that nothing but the request needs a descriptor.
    let config = head(&lab) + &dns(&lab) + &name("www.example.com", &["192.0.2.1".parse().unwrap()], "");
    let agent = Agent::start(lab.balancer(), &config).unwrap();
    wait_for(&agent, "there are answers in the kernel", |status| {
        status["dns"]["answers_in_kernel"].as_u64().is_some_and(|count| count > 0)
    });
    let answers = |trace: Option<&Running>| {
        let options = ["+tries=1", "+timeout=2", "+nocookie"];
        let answer = dig(lab.client(), lab.balancer().ipv4().into(), "www.example.com", "A", &options).unwrap();
        assert_eq!(answer.answers.len(), 1, "{}, {:?}", answer.text, trace.map(Running::log));
    };
    let pid = agent.running().pid();
    // The kernel has a descriptor for the request, and none for the program: it is refused when it is already verified.
    let used = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let used: BTreeSet<u32> = used.map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    let limit = (0..).filter(|number| !used.contains(number)).nth(1).unwrap();
    let limited = |to: &str| lab.balancer().run(["prlimit", "--pid", &pid.to_string(), &format!("--nofile={to}:")]);
    limited(&limit.to_string()).unwrap();
    let output = agent.attempt_lb(["trace"]).unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    assert!(output.stderr.contains("no samples can be taken"), "{output:?}");
    assert_eq!(program(&lab), "lb");
    limited("1024").unwrap();
    answers(None);
    assert!(agent.running().ended().unwrap().is_none());
    let trace = begin(&lab, &["--json", "--why", "answered", "--count", "1"]);
    answers(Some(&trace));
    assert_eq!(end(&trace)[0]["service"], "dns");
    wait_until_gone(&lab);
}

#[test]
fn a_file_is_read_by_tcpdump() {
    const NAME: &str = "a_file_is_read_by_tcpdump";
    if !needs_root(NAME) || !needs_program(NAME, "tcpdump") {
        return;
    }
    let site = Site::up(Layout::Bridged, "dsr", &[1]);
    let [service, _] = site.services();
    let file = site.lab.socket().with_extension("pcapng");
    let path = file.to_str().unwrap();
    let trace = begin(&site.lab, &["--service", SERVICES[0], "--count", "4", "--pcapng", path]);
    site.requests(service, 4);
    assert_eq!(trace.wait(TURN).unwrap().code(), Some(0), "{}", trace.log());
    let bytes = fs::read(&file).unwrap();
    let read = site.lab.balancer().run(["tcpdump", "-nr", path]).unwrap();
    fs::remove_file(&file).unwrap();
    let to = format!("> {}.80: Flags [", service.ip());
    assert_eq!(read.stdout.lines().filter(|line| line.contains(&to)).count(), 4, "{read:?}");
    // Clients and servers are on one link.
    let comment = format!("transmit forwarded_dsr service web4 backend {}", site.backends(service)[0]);
    assert_eq!(bytes.windows(comment.len()).filter(|window| *window == comment.as_bytes()).count(), 4);
}

#[test]
fn a_trace_ends_as_it_was_asked_to() {
    if !needs_root("a_trace_ends_as_it_was_asked_to") {
        return;
    }
    let mut site = Site::up(Layout::Bridged, "dsr", &[1]);
    let [service, _] = site.services();
    assert_eq!(program(&site.lab), "lb");
    // After its time, whatever came.
    let trace = begin(&site.lab, &["--json", "--why", "dns_limited", "--for", "1s"]);
    let begun = Instant::now();
    assert_eq!(end(&trace), Vec::<Value>::new());
    assert!(begun.elapsed() > Duration::from_millis(500), "{:?}", begun.elapsed());
    wait_until_gone(&site.lab);

    // Two share the program; that one of them ends ends neither it nor the other.
    let short = begin(&site.lab, &["--json", "--service", SERVICES[0], "--every", "2", "--count", "2"]);
    let long = begin(&site.lab, &["--json", "--service", SERVICES[0]]);
    site.requests(service, 20);
    assert_eq!(end(&short).len(), 2);
    assert_eq!(program(&site.lab), "lb_traced");
    let before = lines(&long).len();
    site.requests(service, 5);
    wait_until(TURN, "it goes on", || (lines(&long).len() > before).then_some(())).unwrap();
    // Who asked is killed.
    long.kill().unwrap();
    wait_until_gone(&site.lab);
    let ends = || site.agent.running().log().matches("tracing has ended").count();
    wait_until(TURN, "both ends are told", || (ends() == 2).then_some(())).unwrap();

    // An agent that stops leaves the program that was there.
    let trace = begin(&site.lab, &["--json"]);
    site.agent.terminate().unwrap();
    trace.wait(TURN).unwrap();
    assert_eq!(program(&site.lab), "lb");

    // One that is killed can't, but traffic goes on, samples end by themselves, and the next agent cleans up.
    site.agent = Agent::start(site.lab.balancer(), &site.config).unwrap();
    let trace = begin(&site.lab, &["--json"]);
    site.agent.kill().unwrap();
    trace.wait(TURN).unwrap();
    assert_eq!(program(&site.lab), "lb_traced");
    let replies = curl_many(site.lab.client(), &url(service), 30).unwrap();
    assert_eq!(failures(&replies), Vec::<&Reply>::new());
    site.agent = Agent::start(site.lab.balancer(), &site.config).unwrap();
    assert_eq!(program(&site.lab), "lb");
    site.requests(service, 10);

    // What is detached is not traced, and what makes no sense is said.
    for (arguments, code, said) in [
        (["--service", "none"], 2, "there is no service `none`; the config has: web4, web6, dns"),
        (["--why", "none"], 2, "there is no reason `none`; there are: forwarded_dsr, "),
        (["--client", "10.0.0.1/8"], 2, "write 10.0.0.0/8"),
        (["--every", "0"], 2, "invalid value '0'"),
    ] {
        let output = site.agent.attempt_lb([&["trace"], &arguments[..]].concat()).unwrap();
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert!(output.stderr.contains(said), "{output:?}");
    }
    assert_eq!(program(&site.lab), "lb");
    site.agent.lb(["detach"]).unwrap();
    let output = site.agent.attempt_lb(["trace"]).unwrap();
    assert!(output.status.code() == Some(1) && output.stderr.contains("nothing is attached"), "{output:?}");
}

#[test]
fn nothing_is_lost_when_traces_begin_and_end() {
    if !needs_root("nothing_is_lost_when_traces_begin_and_end") {
        return;
    }
    let lab = support::lab(Layout::Bridged, "dsr", 2);
    let addresses = service_addresses(&lab).map(|address| SocketAddr::new(address.ip(), 9_000));
    let _echoes: Vec<_> = lab.backends().iter().map(|host| UdpEcho::start(host, &addresses).unwrap()).collect();
    let backends = |address: &SocketAddr| -> Vec<_> {
        let ip = |host: &Host| if address.is_ipv4() { host.ipv4().into() } else { host.ipv6().into() };
        lab.backends().iter().map(|host| (SocketAddr::new(ip(host), 9_000), 1)).collect()
    };
    let services = ["echo4", "echo6"].iter().zip(&addresses);
    let services = services.map(|(name, address)| service(name, "udp", *address, "dsr", &backends(address)));
    // Probes are by TCP, so they go to nginx.
    let config = head(&lab) + "port = 80\n" + &services.collect::<String>();
    let mut site = Site::start(lab, config);
    let lab = &site.lab;
    let flows: Vec<_> =
        addresses.iter().map(|address| UdpFlows::start(lab.client(), *address, 10, 100).unwrap()).collect();
    for _ in 0..5 {
        let trace = begin(lab, &["--json", "--count", "100"]);
        assert_eq!(end(&trace).iter().filter(|line| line["what"] == "event").count(), 100);
        wait_until_gone(lab);
        flows.iter().for_each(|flows| flows.wait_for_more(10).unwrap());
    }
    // The agent is killed while one goes on, and the next one puts the usual program back.
    let trace = begin(&site.lab, &["--json"]);
    site.agent.kill().unwrap();
    trace.wait(TURN).unwrap();
    flows.iter().for_each(|flows| flows.wait_for_more(10).unwrap());
    assert_eq!(program(&site.lab), "lb_traced");
    site.agent = Agent::start(site.lab.balancer(), &site.config).unwrap();
    wait_until_gone(&site.lab);
    flows.iter().for_each(|flows| flows.wait_for_more(10).unwrap());
    for flows in flows {
        let report = flows.stop().unwrap();
        assert!(report.lost().is_empty() && report.errors().is_empty(), "{:?} {:?}", report.lost(), report.errors());
    }
}
