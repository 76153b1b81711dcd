//! A million names of a file, answered by the kernel: `LB_DNS_NAMES=1000000`, best with an optimised `lb` in `LB_BIN`.

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use std::{
    env,
    fmt::Write as _,
    fs,
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};
use support::{
    count,
    names::{answered, dns_config},
};
use tests::{
    Agent, Lab, Layout, needs_root,
    numbers::Numbers,
    questions::{Asker, Question},
};

/// An agent that was built without optimisation takes minutes for a million: then they are fewer, unless `LB_DNS_NAMES` says how
/// many.
const NAMES: u32 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };
/// Mebibytes that the maps of the answers may take with a million names, and with one.
const MOST: u64 = 512;
const IDLE: u64 = 16;
/// A build without optimisation takes its time.
const READY: Duration = Duration::from_secs(600);
/// Questions to names picked by chance.
const ASKED: usize = 20_000;
const WINDOW: usize = 32;

fn name(number: u32) -> String {
    format!("name-{number}.example.com")
}

fn address(number: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + number).into()
}

#[test]
fn a_million_names_are_answered_by_the_kernel() {
    if !needs_root("a_million_names_are_answered_by_the_kernel") {
        return;
    }
    let names: u32 = env::var("LB_DNS_NAMES").map_or(NAMES, |count| count.parse().unwrap());
    let lab = Lab::blueprint(Layout::Bridged).backends(0).up().unwrap();
    let config = dns_config(&lab, "");
    let megabytes = |agent: &Agent| count(&agent.status().unwrap(), "dns", "answer_memory").div_ceil(1 << 20);

    let one = config.clone() + &support::name("www.example.com", &[address(1)], "");
    let agent = Agent::start(lab.balancer(), &one).unwrap();
    let idle = megabytes(&agent);
    agent.terminate().unwrap();

    let file = lab.folder().join("names.txt");
    let lines = (0..names).fold(String::new(), |mut text, number| {
        writeln!(text, "{} 300 A {}", name(number), address(number)).unwrap();
        text
    });
    fs::write(&file, lines).unwrap();
    let config = format!("{config}\n[[dns.records]]\nfile = {file:?}\n");
    let start = Instant::now();
    let agent = Agent::start_within(lab.balancer(), &config, READY).unwrap();
    let (loaded, full) = (start.elapsed(), megabytes(&agent));
    println!("{names} names after {loaded:?}: {full} MiB of maps, {idle} MiB with one name");
    let before = agent.status().unwrap();
    assert_eq!(count(&before, "dns", "answers_in_kernel"), u64::from(names));
    assert_eq!(count(&before, "dns", "left_to_agent"), 0);
    assert!(idle <= IDLE && full <= MOST, "{idle} MiB and {full} MiB");

    let mut numbers = Numbers::new(7);
    let picked: Vec<u32> = (0..ASKED).map(|_| numbers.below(names as usize) as u32).collect();
    for server in [IpAddr::from(lab.balancer().ipv4()), lab.balancer().ipv6().into()] {
        let asker = Asker::open(lab.client(), None, server).unwrap();
        let question =
            |number: usize| picked.get(number).map(|picked| Question::new(&name(*picked), Question::A)).unwrap();
        let responses = asker.ask_all(ASKED, WINDOW, question).unwrap();
        for (response, number) in responses.into_iter().zip(&picked) {
            assert_eq!(response.unwrap().addresses, [address(*number)], "{number}");
        }
    }
    let [kernel, agent] = answered(&agent.status().unwrap());
    let [kernel_before, agent_before] = answered(&before);
    assert_eq!([kernel - kernel_before, agent - agent_before], [2 * ASKED as u64, 0]);
}
