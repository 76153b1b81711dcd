//! Floods: what they get, and what they cost others. The flood of names goes on until it has had as many as `LB_DNS_FLOOD` says, such as
//! 10000000, and for ten seconds at least.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

#[expect(dead_code, reason = "each file of tests uses a part of it")]
mod support;

use std::{
    env,
    fmt::Write as _,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use support::{
    count,
    names::{DOMAIN, DnsSite},
};
use tests::{
    needs_root,
    questions::{Flood, Question, client_address},
};

const NAME: &str = "www.example.com";
/// Of the text that is asked for: more than three times the question, and not too much for the room that a packet over veth has.
const TEXT: usize = 140;
const RATE: u64 = 100;
const BURST: u64 = 200;
/// How long a flood goes on.
const FLOOD: Duration = Duration::from_secs(10);
/// The prefix that floods come from.
const FLOODED: u8 = 1;

/// Two floods at once fill the rings of their veths, which then drop frames that `lb` has never seen.
static ONE_FLOOD: Mutex<()> = Mutex::new(());

/// A site with limits, alone of its kind for as long as the guard is there.
fn limited() -> (DnsSite, MutexGuard<'static, ()>) {
    let alone = ONE_FLOOD.lock().unwrap_or_else(PoisonError::into_inner);
    let site = DnsSite::up(0, |_| {
        let text = "a".repeat(TEXT);
        let mut config = format!(
            "\n[dns.limit]\nresponses_per_second = {RATE}\nburst = {BURST}\nslip = 2\nmisses_per_second = 100\n{DOMAIN}\n\
             [[dns.name]]\nname = \"{NAME}\"\ntxt = [\"{text}\"]\n"
        );
        for number in 0..20 {
            write!(config, "\n[[dns.name]]\nname = \"hot{number}.example.com\"\naddresses = [\"192.0.2.1\"]\n")
                .unwrap();
        }
        config
    });
    (site, alone)
}

/// A flood of one question from a client's address.
fn flood_of_one(site: &DnsSite, server: IpAddr, host: u8) -> Flood {
    let message = Question::new(NAME, Question::TXT).edns(1_232).message(7);
    let from = client_address(server, FLOODED, host);
    Flood::start(site.client(), Some(from), server, 0, message, |_, _| {}).unwrap()
}

#[test]
fn a_flood_is_never_amplified_and_hurts_nobody_else() {
    if !needs_root("a_flood_is_never_amplified_and_hurts_nobody_else") {
        return;
    }
    let (site, _alone) = limited();
    for server in site.servers {
        let before = site.agent.status().unwrap();
        let question = Question::new(NAME, Question::TXT).edns(1_232);
        // A neighbour in the flooded prefix that has a cookie already.
        let neighbour = site.asker_from(server, FLOODED, 77);
        let cookie = neighbour.ask(&question.clone().cookie(b"neighbor")).unwrap().cookie;
        let flood = flood_of_one(&site, server, 66);
        let start = Instant::now();
        let (mut with_cookie, mut elsewhere, mut by_tcp) = (0, 0, 0);
        let mut lost = 0;
        while start.elapsed() < FLOOD {
            // Others go on: far more than the limit with a cookie, a few from elsewhere, and by TCP.
            let responses = neighbour.ask_all(100, 1, |_| question.clone().cookie(&cookie)).unwrap();
            with_cookie += responses.len();
            lost += responses.iter().filter(|response| response.is_none()).count();
            for response in responses.iter().flatten() {
                assert!(!response.is_truncated() && response.data.len() == 1, "{response:?}");
            }
            for prefix in 2..12 {
                let responses = site.asker_from(server, prefix, 1).ask_all(2, 1, |_| question.clone()).unwrap();
                elsewhere += responses.len();
                lost += responses.iter().filter(|response| response.is_none()).count();
                assert!(responses.iter().flatten().all(|response| response.data.len() == 1));
            }
            let answer =
                site.ask(server, NAME, "TXT", &["+tcp", "-b", &client_address(server, FLOODED, 88).to_string()]);
            assert_eq!(answer.answers.len(), 1, "{}", answer.text);
            by_tcp += 1;
        }
        let counts = flood.stop().unwrap();
        let elapsed = start.elapsed();
        let after = site.agent.status().unwrap();
        let rose = |why| count(&after, "packets", why) - count(&before, "packets", why);
        println!(
            "{counts:?} in {elapsed:?}: {} dropped, {} slipped; beside it {with_cookie} answers with a cookie, {elsewhere} to others, \
             {by_tcp} by TCP, {lost} lost",
            rose("dns_limited"),
            rose("dns_slipped")
        );
        let whole = (counts.sent_bytes / counts.sent + TEXT as u64 + 13) * BURST;
        assert!(counts.received_bytes <= whole + 3 * counts.sent_bytes, "{counts:?}");
        // Whole answers: the burst, and the rate for as long as it took.
        let most = BURST + RATE * (elapsed.as_secs() + 2);
        assert!(counts.received <= rose("dns_slipped") + most, "{counts:?} {after:#}");
        assert!(rose("dns_limited") > 0 && rose("dns_slipped") > 0, "{after:#}");
        assert!(lost * 100 <= with_cookie + elsewhere, "{lost} of {with_cookie} and {elsewhere} were lost");
        assert!(with_cookie as u64 > BURST, "{with_cookie}");
    }
}

#[test]
fn a_client_beyond_its_rate_is_sent_to_tcp() {
    if !needs_root("a_client_beyond_its_rate_is_sent_to_tcp") {
        return;
    }
    let (site, _alone) = limited();
    let server = site.servers[0];
    let asker = site.asker_from(server, 3, 3);
    let question = Question::new(NAME, Question::TXT);
    // The first that comes back truncated is no larger than its question.
    let slipped = (0..20).find_map(|_| {
        let responses = asker.ask_all(500, 500, |_| question.clone()).unwrap();
        responses.into_iter().flatten().find(|response| response.is_truncated())
    });
    let slipped = slipped.unwrap();
    assert!(slipped.bytes <= question.message(7).len() && slipped.data.is_empty(), "{slipped:?}");
    let from = client_address(server, 3, 3).to_string();
    let answer = site.ask(server, NAME, "TXT", &["+tcp", "-b", &from]);
    assert_eq!(answer.answers.len(), 1);
    // dig has its cookie after the first answer that it gets.
    let cookie = site.asker_from(server, 9, 9).ask(&question.clone().cookie(b"of-9-9.9")).unwrap().cookie;
    let digits: String = cookie.iter().map(|byte| format!("{byte:02x}")).collect();
    let from = client_address(server, 9, 9).to_string();
    for _ in 0..3 {
        let answer = site.ask(server, NAME, "TXT", &["-b", &from, &format!("+cookie={digits}")]);
        assert!(answer.edns.iter().any(|line| line.contains(&digits) && line.ends_with("(good)")), "{}", answer.text);
    }
    // Another's cookie, or one that nobody gave, is no way around the limit.
    let cookies = [cookie.clone(), [&cookie[..16], &[0; 8]].concat()];
    for forged in cookies {
        let responses = asker.ask_all(500, 500, |_| question.clone().cookie(&forged)).unwrap();
        let whole = responses.iter().flatten().filter(|response| !response.is_truncated()).count();
        assert!(whole < 500, "{whole}");
    }
}

#[test]
fn a_flood_of_names_that_nobody_has_hurts_nobody_else() {
    if !needs_root("a_flood_of_names_that_nobody_has_hurts_nobody_else") {
        return;
    }
    let (site, _alone) = limited();
    let server = site.servers[0];
    let before = site.agent.status().unwrap();
    let message = Question::new("aaaaaaaaaaaa.example.com", Question::A).message(7);
    // A name of its own for each: twelve letters, behind the header and a length.
    let change = |message: &mut [u8], number: u64| {
        for (place, byte) in message[13..25].iter_mut().enumerate() {
            *byte = b'a' + (number >> (4 * place) & 0xf) as u8;
        }
    };
    let from = client_address(server, FLOODED, 66);
    let least: u64 = env::var("LB_DNS_FLOOD").map_or(0, |names| names.parse().unwrap());
    let flood = Flood::start(site.client(), Some(from), server, 0, message, change).unwrap();
    let start = Instant::now();
    let (mut hot, mut hot_lost, mut misses, mut misses_lost) = (0_u64, 0, 0_u64, 0);
    let mut round = 0_u32;
    while start.elapsed() < FLOOD || flood.counts().sent < least {
        round += 1;
        for prefix in 2..42 {
            let asker = site.asker_from(server, prefix, 5);
            let name = |number: usize| format!("hot{}.example.com", (number + usize::from(prefix)) % 20);
            let responses = asker.ask_all(4, 4, |number| Question::new(&name(number), Question::A)).unwrap();
            hot += 4;
            hot_lost += responses.iter().filter(|response| response.is_none()).count() as u64;
            // What nobody has asked for before: the agent's to answer.
            let response = asker.ask(&Question::new(&format!("typo{prefix}x{round}.example.com"), Question::A));
            misses += 1;
            misses_lost += u64::from(!response.is_ok_and(|response| response.code() == 3));
        }
    }
    let counts = flood.stop().unwrap();
    let after = site.agent.status().unwrap();
    let rose = |group: &str, name: &str| count(&after, group, name) - count(&before, group, name);
    let to_agent = support::names::answered(&after)[1] - support::names::answered(&before)[1];
    println!(
        "a flood of {} names in {:?}, {} dropped; {hot} hot questions, {hot_lost} lost; {misses} honest misses, {misses_lost} lost; \
         {to_agent} came to the agent",
        counts.sent,
        start.elapsed(),
        rose("packets", "dns_miss_limited")
    );
    assert!(rose("packets", "answered") * 100 >= hot * 99, "{after:#}");
    assert!(hot_lost * 100 <= hot, "{hot_lost} of {hot} hot questions were lost");
    assert!(misses_lost * 100 <= misses, "{misses_lost} of {misses} honest misses were lost");
    assert!(rose("packets", "dns_miss_limited") > 0);
    // The agent has work as the limit says: for whom floods, 100 in a second and twice that at first.
    let most = misses + 200 + 100 * (start.elapsed().as_secs() + 2);
    assert!(to_agent <= most, "{to_agent} questions came to the agent, not {most}");
}
