//! Cookies: those of RFC 9018 appendix A, and what a client gets for each that it may send.

use crate::support::{
    SIDES, Side,
    messages::{A, Edns, Name, Question, question_frame, reply_frame},
    steered,
    tables::{Build, NOW, TTL, empty},
};
use lb_common::{
    dns::cookie::{Cookie, check, fresh},
    host::HostTables,
    tables::{Endpoint, address_words, answers::COOKIES},
    verdict::{Verdict, Why},
};
use std::net::{IpAddr, SocketAddr};

fn word(hex: &str) -> u64 {
    u64::from_str_radix(hex, 16).unwrap().swap_bytes()
}

fn secret(hex: &str) -> [u64; 2] {
    [word(&hex[..16]), word(&hex[16..])]
}

fn cookie(hex: &str) -> Cookie {
    Cookie { client: word(&hex[..16]), stamp: word(&hex[16..32]), hash: word(&hex[32..]) }
}

fn made(secret_hex: &str, address: &str, now: u32, client: &str) -> Cookie {
    let address: IpAddr = address.parse().unwrap();
    fresh(&secret(secret_hex), &address_words(address), if address.is_ipv4() { 4 } else { 6 }, now, word(client))
}

const SECRET: &str = "e5e973e5a6b2a43f48e7dc849e37bfcf";

#[test]
fn cookies_are_those_of_rfc_9018_appendix_a() {
    for (secret, address, now, expected) in [
        (SECRET, "198.51.100.100", 1_559_731_985, "2464c4abcf10c957010000005cf79f111f8130c3eee29480"),
        (SECRET, "198.51.100.100", 1_559_734_385, "2464c4abcf10c957010000005cf7a871d4a564a1442aca77"),
        (
            "445536bcd2513298075a5d379663c962",
            "2001:db8:220:1:59de:d0f4:8769:82b8",
            1_559_741_961,
            "22681ab97d52c298010000005cf7c609a6bb79d16625507a",
        ),
    ] {
        assert_eq!(made(secret, address, now, &expected[..16]), cookie(expected));
    }
    // Appendix A.4: the old secret's cookie is accepted, and the reply has one of the new secret.
    let secrets = [secret("445536bcd2513298075a5d379663c962"), secret("dd3bdf9344b678b185a6f5cb60fca715")];
    let address = address_words("2001:db8:220:1:59de:d0f4:8769:82b8".parse().unwrap());
    let old = cookie("22681ab97d52c298010000005cf7c57926556bd0934c72f8");
    let checked = check(&secrets, &address, 6, 1_559_741_961, old.client, Some([old.stamp, old.hash]), false);
    assert!(checked.is_valid);
    assert_eq!(checked.reply, cookie("22681ab97d52c298010000005cf7c609a6bb79d16625507a"));
}

const SECRETS: [[u64; 2]; 2] = [[1, 2], [3, 4]];
const CLIENT: u64 = 0x0807_0605_0403_0201;

fn tables(side: &Side) -> HostTables {
    let mut tables =
        empty().with_dns(side.dns()).with_answer(&Name::of("example.com"), &["192.0.2.1".parse().unwrap()]);
    let settings = tables.dns_settings();
    (settings.features, settings.cookie_secrets) = (COOKIES, SECRETS);
    tables
}

fn of(side: &Side, secret: usize, now: u64) -> Cookie {
    let from = Endpoint::new(side.client, 17, 0);
    fresh(&SECRETS[secret], &from.address, if side.client.is_ipv4() { 4 } else { 6 }, now as u32, CLIENT)
}

fn option(words: &[u64]) -> Vec<u8> {
    let data: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    [&[0, 10, 0, data.len() as u8], &data[..]].concat()
}

fn option_of(cookie: Cookie) -> Vec<u8> {
    option(&[cookie.client, cookie.stamp, cookie.hash])
}

/// What goes back for these options, with the tables' records behind the question.
fn replied(side: &Side, options: Vec<u8>, sent: Vec<u8>) {
    let name = Name::of("example.com");
    let edns = Edns { options, ..Edns::of_size(1232) };
    let question = Question { edns: Some(edns), ..Question::plain(&name, A) };
    let asked = question_frame(side.client(), side.dns(), question.bytes());
    let mut message = question.reply(&["192.0.2.1".parse().unwrap()], TTL);
    let end = message.len();
    message[end - 1] = sent.len() as u8;
    message.extend(&sent);
    let (verdict, reply) = steered(&asked.bytes(), &tables(side));
    assert_eq!((verdict, reply), (Verdict::Transmit(Why::Answered), reply_frame(&asked, message).bytes()));
}

#[test]
fn each_cookie_gets_what_it_is_worth() {
    for side in SIDES {
        let fresh = option_of(of(&side, 0, NOW));
        replied(&side, Vec::new(), Vec::new());
        replied(&side, option(&[CLIENT]), fresh.clone());
        for (secret, made, is_kept) in [
            (0, NOW, true),
            (0, NOW - 1_799, true),
            (0, NOW - 1_800, false),
            (0, NOW - 3_600, false),
            (0, NOW - 3_601, false),
            (0, NOW + 300, true),
            (0, NOW + 301, false),
            (1, NOW, false),
            (1, NOW - 1_000, false),
        ] {
            let sent = option_of(of(&side, secret, made));
            replied(&side, sent.clone(), if is_kept { sent } else { fresh.clone() });
        }
        let wrong = Cookie { hash: 7, ..of(&side, 0, NOW) };
        replied(&side, option_of(wrong), fresh.clone());
        let other_version = Cookie { stamp: of(&side, 0, NOW).stamp ^ 3, ..of(&side, 0, NOW) };
        replied(&side, option_of(other_version), fresh.clone());
        // Of a server that makes them otherwise.
        replied(&side, option(&[CLIENT, 1]), fresh.clone());
        replied(&side, option(&[CLIENT, 1, 2, 3, 4]), fresh.clone());
        // The first one counts, wherever it is.
        let padding = [0, 12, 0, 3, 0, 0, 0];
        replied(&side, [&padding[..], &option(&[CLIENT]), &option(&[9]), &padding].concat(), fresh.clone());
    }
}

#[test]
fn a_cookie_that_was_shown_before_is_worth_no_more_than_the_first_time() {
    let side = SIDES[0];
    let (name, mut tables) = (Name::of("example.com"), tables(&side));
    let sent = option_of(of(&side, 0, NOW - 100));
    let is_sent_back = |tables: &HostTables, client: &str| {
        let edns = Edns { options: sent.clone(), ..Edns::of_size(1232) };
        let question = Question { edns: Some(edns), ..Question::plain(&name, A) };
        let client = SocketAddr::new(client.parse().unwrap(), 40_000);
        let (verdict, reply) = steered(&question_frame(client, side.dns(), question.bytes()).bytes(), tables);
        assert_eq!(verdict, Verdict::Transmit(Why::Answered));
        reply.ends_with(&sent)
    };
    let client = side.client.to_string();
    for _ in 0..3 {
        assert!(is_sent_back(&tables, &client));
        assert!(!is_sent_back(&tables, "198.51.100.9"));
    }
    // It is too old for another half an hour.
    tables.seconds += 1_700;
    assert!(!is_sent_back(&tables, &client));
    tables.seconds -= 1_700;
    assert!(is_sent_back(&tables, &client));
    // A new secret: what is remembered was made with another one.
    tables.dns_settings().cookie_secrets = [[5, 6], SECRETS[0]];
    assert!(!is_sent_back(&tables, &client));
    assert!(!is_sent_back(&tables, &client));
}

#[test]
fn a_cookie_is_valid_for_as_long_as_rfc_9018_says() {
    let side = SIDES[0];
    let address = Endpoint::new(side.client, 17, 0).address;
    let is_valid = |secret: usize, made: u64| {
        let Cookie { client, stamp, hash } = of(&side, secret, made);
        check(&SECRETS, &address, 4, NOW as u32, client, Some([stamp, hash]), false).is_valid
    };
    for secret in 0..2 {
        assert!(is_valid(secret, NOW) && is_valid(secret, NOW - 3_600) && is_valid(secret, NOW + 300));
        assert!(!is_valid(secret, NOW - 3_601) && !is_valid(secret, NOW + 301));
    }
    let Cookie { client, stamp, hash } = of(&side, 0, NOW);
    assert!(!check(&SECRETS, &[address[0] ^ 1, 0], 4, NOW as u32, client, Some([stamp, hash]), false).is_valid);
}
