//! DNS questions, plain ones and others, over both families.

use super::{Named, rare, tcp, udp};
use crate::fixture::{COOKIE_SECRET, KNOWN_CLIENTS, Moment, WALL_CLOCK};
use anyhow::{Context as _, Result};
use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{Name, RecordType},
};
use lb_common::{
    dns::cookie,
    tables::{FAMILY_4, FAMILY_6, address_words},
};
use std::net::IpAddr;

const SERVERS: [&str; 2] = ["192.0.2.53", "2001:db8::53"];
const PORT: u16 = 40_001;
const LONG: &str = "a-rather-long-name-that-leaves-little-room-for-sixteen-records.example.com.";
const WWW: &str = "www.example.com.";
/// Options of EDNS.
const NSID: u16 = 3;
const CLIENT_SUBNET: u16 = 8;
const COOKIE: u16 = 10;
/// The DO bit, and version 1, in what the TTL of an OPT record is.
const DNSSEC_OK: u32 = 1 << 15;
const VERSION_1: u32 = 1 << 16;
/// What a client's cookie is.
const CLIENT_COOKIE: [u8; 8] = *b"a client";

struct Question {
    name: &'static str,
    moment: Moment,
    message: Vec<u8>,
}

/// All whose outcome depends on no other frame.
pub(super) fn all() -> Result<Vec<Named>> {
    let mut all = Vec::new();
    for (client, server) in KNOWN_CLIENTS.into_iter().zip(SERVERS) {
        let family = family(client);
        let mut add = |name: &str, moment, frame: Result<Vec<u8>>| {
            let frame = frame.with_context(|| format!("cannot build frame {name}"))?;
            // Leaked once a test: names are `&'static` for all other frames.
            let name = format!("dns{family}_{name}").leak();
            all.push(Named { name, moment, before: Vec::new(), frame });
            anyhow::Ok(())
        };
        for Question { name, moment, message } in questions(client.parse()?)? {
            add(name, moment, udp(client, PORT, server, 53, &message))?;
        }
        let www = question(WWW, RecordType::A, |_| ())?;
        let asked = || udp(client, PORT, server, 53, &www);
        for port in [0, 53] {
            add(&format!("from_port_{port}"), Moment::Usual, udp(client, port, server, 53, &www))?;
            let message = with_opt(&www, 1232, 0, &[]);
            add(&format!("edns_from_port_{port}"), Moment::Usual, udp(client, port, server, 53, &message))?;
        }
        add("tagged", Moment::Usual, asked().map(|frame| rare::tagged(&frame, &[10])))?;
        let many = with_opt(&question("many.example.com.", RecordType::AAAA, |_| ())?, 1232, 0, &[]);
        let many = udp(client, PORT, server, 53, &many);
        add("tagged_twice_many_aaaa", Moment::Usual, many.map(|frame| rare::tagged(&frame, &[10, 20])))?;
        add("by_tcp", Moment::Usual, tcp(client, PORT, server, 53))?;
        add("by_tcp_from_another_port", Moment::Usual, tcp(client, PORT + 1, server, 53))?;
        let options = |frame: Vec<u8>| {
            if client.contains(':') { rare::with_extensions(&frame, &[60]) } else { rare::with_options(&frame) }
        };
        add("behind_options", Moment::Usual, asked().map(options))?;
        // One byte less than there are.
        let length = if client.contains(':') { 14 + 40 + 5 } else { 14 + 20 + 5 };
        let shorter = |frame: Vec<u8>| {
            let byte = frame.get(length).copied().unwrap_or_default();
            super::with_byte(frame, length, byte - 1)
        };
        add("another_udp_length", Moment::Usual, asked().map(shorter))?;
    }
    Ok(all)
}

/// What is counted for each client.
pub(super) fn counted() -> Result<Vec<Named>> {
    let mut all = Vec::new();
    for (client, server) in KNOWN_CLIENTS.into_iter().zip(SERVERS) {
        let www = question(WWW, RecordType::A, |_| ())?;
        let valid = with_opt(&www, 1232, 0, &option(COOKIE, &server_cookie(client.parse()?, 60)));
        let messages = [
            ("a", www.clone()),
            ("aaaa", question(WWW, RecordType::AAAA, |_| ())?),
            ("edns", with_opt(&www, 1232, 0, &[])),
            ("client_cookie", with_opt(&www, 1232, 0, &option(COOKIE, &CLIENT_COOKIE))),
            ("valid_cookie", valid),
            ("miss", question("elsewhere.example.com.", RecordType::A, |_| ())?),
        ];
        for (name, message) in messages {
            let name = format!("dns{}_counted_{name}", family(client)).leak();
            let frame = udp(client, PORT, server, 53, &message)?;
            all.push(Named { name, moment: Moment::Counting, before: Vec::new(), frame });
        }
    }
    Ok(all)
}

fn family(client: &str) -> u8 {
    if client.contains(':') { 6 } else { 4 }
}

fn questions(client: IpAddr) -> Result<Vec<Question>> {
    use RecordType::{A, AAAA, CNAME, HTTPS, MX, NS, SRV, TXT};
    let mut all = Vec::new();
    let mut add = |name, moment, message| all.push(Question { name, moment, message });
    let plain = |owner, kind| question(owner, kind, |_| ());
    let opt = |owner, kind, size, extended, options: &[u8]| {
        anyhow::Ok(with_opt(&question(owner, kind, |_| ())?, size, extended, options))
    };
    for (name, owner, kind) in [
        ("a", WWW, A),
        ("aaaa", WWW, AAAA),
        ("mixed_case", "wWw.ExAmPlE.cOm.", A),
        ("many_a", "many.example.com.", A),
        ("many_aaaa", "many.example.com.", AAAA),
        ("too_large", LONG, AAAA),
        ("spent", "spent.example.com.", A),
        ("cached", "cached.example.com.", A),
        ("unknown_name", "absent.example.com.", A),
        ("other_type", WWW, MX),
        ("miss", "elsewhere.example.com.", A),
        ("unknown_type", WWW, HTTPS),
        ("root", ".", NS),
        ("shuffle", "shuffle.example.com.", A),
        ("weighted", "weighted.example.com.", A),
        ("weighted_aaaa", "weighted.example.com.", AAAA),
        ("sticky", "sticky.example.com.", A),
        ("sticky_aaaa", "sticky.example.com.", AAAA),
        ("failover", "failover.example.com.", A),
        ("down", "down.example.com.", A),
        ("nodata", "nodata.example.com.", A),
        ("fail_open", "open.example.com.", A),
        ("fallback", "fallback.example.com.", A),
        ("alias_a", "alias.example.com.", A),
        ("alias_cname", "alias.example.com.", CNAME),
        ("mx", "mail.example.com.", MX),
        ("txt", "mail.example.com.", TXT),
        ("srv", "mail.example.com.", SRV),
        ("txt_too_large", "txt.example.com.", TXT),
    ] {
        add(name, Moment::Usual, plain(owner, kind)?);
    }
    for (name, owner, kind, size, extended) in [
        ("edns", WWW, A, 1232, 0),
        ("edns_many_aaaa", "many.example.com.", AAAA, 4096, 0),
        ("edns_small", LONG, AAAA, 512, 0),
        ("edns_large", LONG, AAAA, 1232, 0),
        ("edns_version_1", WWW, A, 1232, VERSION_1),
        ("edns_version_1_unknown_name", "absent.example.com.", A, 1232, VERSION_1),
        ("dnssec_ok", WWW, A, 1232, DNSSEC_OK),
        ("cached_dnssec_ok", "cached.example.com.", A, 1232, DNSSEC_OK),
        ("size_of_0", WWW, A, 0, 0),
        ("txt_just_fits", "txt.example.com.", TXT, 1232, 0),
        ("srv_edns", "mail.example.com.", SRV, 4096, DNSSEC_OK),
        ("nodata_edns", "nodata.example.com.", A, 1232, 0),
        ("unknown_name_edns", "absent.example.com.", A, 1232, 0),
    ] {
        add(name, Moment::Usual, opt(owner, kind, size, extended, &[])?);
    }

    let subnet = option(CLIENT_SUBNET, &[0, 1, 24, 0, 198, 51, 100]);
    let several = [subnet.clone(), option(COOKIE, &CLIENT_COOKIE), option(0xfde9, b"?")].concat();
    let mut forged = server_cookie(client, 60);
    forged.iter_mut().last().into_iter().for_each(|byte| *byte ^= 1);
    for (name, options) in [
        ("unknown_option", subnet.clone()),
        ("several_options", several),
        ("nsid", option(NSID, &[])),
        ("nine_options", option(0xfde9, &[]).repeat(9)),
        ("option_beyond_the_end", vec![0, 8, 0, 9, 0]),
        ("cookie_of_client", option(COOKIE, &CLIENT_COOKIE)),
        ("cookie_fresh", option(COOKIE, &server_cookie(client, 60))),
        ("cookie_old", option(COOKIE, &server_cookie(client, 2_400))),
        ("cookie_too_old", option(COOKIE, &server_cookie(client, 4_000))),
        ("cookie_forged", option(COOKIE, &forged)),
        ("cookie_of_another_server", option(COOKIE, &[&CLIENT_COOKIE[..], &[7; 8]].concat())),
        ("cookie_twice", option(COOKIE, &CLIENT_COOKIE).repeat(2)),
        ("cookie_of_7_bytes", option(COOKIE, &[7; 7])),
        ("cookie_of_9_bytes", option(COOKIE, &[7; 9])),
        ("cookie_of_41_bytes", option(COOKIE, &[7; 41])),
    ] {
        add(name, Moment::Usual, opt(WWW, A, 1232, 0, &options)?);
    }
    // The cookie is too much.
    add("txt_does_not_fit_with_cookie", Moment::Usual, {
        opt("txt.example.com.", TXT, 1232, 0, &option(COOKIE, &CLIENT_COOKIE))?
    });

    let response = |message: &mut Message| message.metadata.message_type = MessageType::Response;
    add("response", Moment::Usual, question(WWW, A, response)?);
    add("notify", Moment::Usual, question(WWW, A, |message| message.metadata.op_code = OpCode::Notify)?);
    let root = |message: &mut Message| _ = message.add_query(Query::query(Name::root(), A));
    add("two_questions", Moment::Usual, question(WWW, A, root)?);
    add("no_recursion", Moment::Usual, question(WWW, A, |message| message.metadata.recursion_desired = false)?);
    add("checking_disabled", Moment::Usual, question(WWW, A, |message| message.metadata.checking_disabled = true)?);
    malformed(&plain(WWW, A)?).into_iter().for_each(|(name, message)| add(name, Moment::Usual, message));

    for (name, moment) in [
        ("limited", Moment::Limited),
        ("slipping", Moment::Slipping),
        ("miss_limited", Moment::MissLimited),
        ("lapsed", Moment::Lapsed),
        ("refusing", Moment::Refusing),
    ] {
        let named = |what: &str| -> &'static str { format!("{name}_{what}").leak() };
        add(named("a"), moment, plain(WWW, A)?);
        add(named("cached"), moment, plain("cached.example.com.", A)?);
        add(named("srv_edns"), moment, opt("mail.example.com.", SRV, 1232, 0, &[])?);
        add(named("client_cookie"), moment, opt(WWW, A, 1232, 0, &option(COOKIE, &CLIENT_COOKIE))?);
        add(named("valid_cookie"), moment, opt(WWW, A, 1232, 0, &option(COOKIE, &server_cookie(client, 60)))?);
        add(named("miss"), moment, plain("elsewhere.example.com.", A)?);
        let miss = opt("elsewhere.example.com.", A, 1232, 0, &option(COOKIE, &server_cookie(client, 60)))?;
        add(named("miss_with_valid_cookie"), moment, miss);
    }
    Ok(all)
}

/// What nobody asks like this.
fn malformed(www: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let (header, question) = www.split_at(12);
    let asked = |name: &[u8]| [header, name, &[0, 1, 0, 1]].concat();
    let label = |length: u8| [&[length][..], &vec![b'x'; length.into()]].concat();
    let counted = |at: usize, message: Vec<u8>| super::with_byte(message, at, 1);
    let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    let longest = [label(63), label(63), label(63), label(61), vec![0]].concat();
    let too_long = [label(63), label(63), label(63), label(62), vec![0]].concat();
    vec![
        ("pointer", asked(&[0xc0, 12])),
        ("pointer_in_name", asked(b"\x03www\xc0\x0c")),
        ("label_of_63", asked(&[label(63), vec![0]].concat())),
        ("label_of_64", asked(&[label(64), vec![0]].concat())),
        ("name_of_255", asked(&longest)),
        ("name_of_256", asked(&too_long)),
        ("name_without_end", [header, &label(40)].concat()),
        ("zero_within_a_label", asked(b"\x03w\0w\x07example\x03com\0")),
        ("header_alone", header.to_vec()),
        ("half_a_header", header.iter().copied().take(6).collect()),
        ("question_cut_off", www.iter().copied().take(www.len() - 2).collect()),
        ("no_question", super::with_byte(www.to_vec(), 5, 0)),
        ("trailing_byte", [www, &[0]].concat()),
        ("trailing_record", counted(11, [www, &[0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0]].concat())),
        ("opt_twice", super::with_byte([www, &opt, &opt].concat(), 11, 2)),
        ("opt_twice_counted_once", counted(11, [www, &opt, &opt].concat())),
        ("opt_as_answer", counted(7, [www, &opt].concat())),
        ("opt_as_authority", counted(9, [www, &opt].concat())),
        ("opt_before_the_question", counted(11, [header, &opt, question].concat())),
        ("opt_cut_off", counted(11, [www, opt.get(..8).unwrap_or_default()].concat())),
    ]
}

fn question(owner: &str, kind: RecordType, change: impl FnOnce(&mut Message)) -> Result<Vec<u8>> {
    let mut message = Message::query();
    message.metadata.id = 0x1234;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(owner)?, kind));
    change(&mut message);
    Ok(message.to_vec()?)
}

/// With an OPT record of this size, which a codec would not make as wrong as some have to be.
fn with_opt(message: &[u8], size: u16, extended: u32, options: &[u8]) -> Vec<u8> {
    let mut message = super::with_byte(message.to_vec(), 11, 1);
    message.extend([0, 0, 41]);
    message.extend(size.to_be_bytes());
    message.extend(extended.to_be_bytes());
    message.extend((options.len() as u16).to_be_bytes());
    message.extend(options);
    message
}

fn option(code: u16, data: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes()[..], &(data.len() as u16).to_be_bytes(), data].concat()
}

/// Both cookies of a client that asked so many seconds ago.
fn server_cookie(client: IpAddr, ago: u32) -> Vec<u8> {
    let (first, second) = COOKIE_SECRET.split_at(8);
    let word = |half: &[u8]| half.try_into().map(u64::from_ne_bytes).unwrap_or_default();
    let secret = [word(first), word(second)];
    let family = if client.is_ipv4() { FAMILY_4 } else { FAMILY_6 };
    let cookie = u64::from_ne_bytes(CLIENT_COOKIE);
    let made = cookie::fresh(&secret, &address_words(client), family, WALL_CLOCK - ago, cookie);
    [made.client, made.stamp, made.hash].map(u64::to_ne_bytes).concat()
}
