//! What the kinds of checks do, and which keys belong to which.

use super::super::{AgentCheck, Authorities, Datagram, Http, Kind, Lookup, Tls, part::Part, text};
use crate::config::{
    Config, Problem,
    schema::{self, Written},
};
use lb_common::wire::dns::{A, AAAA};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use std::ops::RangeInclusive;
use toml::Spanned;

const PERCENTS: RangeInclusive<u32> = 0..=100;
const DEFAULT_FLOOR: u32 = 10;
const DEFAULT_STEP: u32 = 5;
const STATUSES: RangeInclusive<u16> = 100..=599;
const DEFAULT_STATUSES: (u16, u16) = (200, 399);
/// What fits a datagram on every link.
const LONGEST_DATAGRAM: usize = 1_200;
const HEX: &str = "hex:";

/// The words for the kinds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Tcp,
    Http,
    Https,
    Dns,
    Udp,
    Icmp,
    Agent,
}

const WORDS: [(&str, Word); 7] = [
    ("tcp", Word::Tcp),
    ("http", Word::Http),
    ("https", Word::Https),
    ("dns", Word::Dns),
    ("udp", Word::Udp),
    ("icmp", Word::Icmp),
    ("agent", Word::Agent),
];

/// The kind of a check, with all that belongs to it.
pub(super) fn read(written: &schema::Check, config: &Config, part: &mut Part<'_, '_>) -> Option<Kind> {
    let word = part.choice_or_first("kind", &written.kind, &WORDS)?;
    strangers(written, word, part);
    Some(match word {
        Word::Tcp => Kind::Tcp,
        Word::Http => Kind::Http(http(written, None, part)?),
        Word::Https => {
            let tls = tls(written, config, part);
            Kind::Http(http(written, Some(tls?), part)?)
        }
        Word::Dns => Kind::Dns(lookup(written, part)?),
        Word::Udp => Kind::Udp(datagram(written, part)?),
        Word::Icmp => {
            if let Some(port) = &written.port {
                part.report(port, Problem::PortOfIcmp);
            }
            Kind::Icmp
        }
        Word::Agent => Kind::Agent(agent(written, part)?),
    })
}

/// Reports the keys that belong to other kinds.
fn strangers(written: &schema::Check, word: Word, part: &mut Part<'_, '_>) {
    let http = matches!(word, Word::Http | Word::Https);
    let (https, dns, agent) = (word == Word::Https, word == Word::Dns, word == Word::Agent);
    let udp = word == Word::Udp;
    const HTTP: &str = "\"http\" or \"https\"";
    fn place<T>(written: &Written<T>) -> Option<std::ops::Range<usize>> {
        written.as_ref().map(Spanned::span)
    }
    let keys = [
        ("method", place(&written.method), http, HTTP),
        ("path", place(&written.path), http, HTTP),
        ("host", place(&written.host), http, HTTP),
        ("status", place(&written.status), http, HTTP),
        ("body", place(&written.body), http, HTTP),
        ("server_name", place(&written.server_name), https, "\"https\""),
        ("ca_file", place(&written.ca_file), https, "\"https\""),
        ("verify", place(&written.verify), https, "\"https\""),
        ("name", place(&written.name), dns, "\"dns\""),
        ("type", place(&written.record), dns, "\"dns\""),
        ("rcode", place(&written.rcode), dns, "\"dns\""),
        ("address", place(&written.address), dns, "\"dns\""),
        ("send", place(&written.send), udp || agent, "\"udp\" or \"agent\""),
        ("expect", place(&written.expect), udp, "\"udp\""),
        ("weight_floor_percent", place(&written.weight_floor_percent), agent, "\"agent\""),
        ("weight_step_percent", place(&written.weight_step_percent), agent, "\"agent\""),
    ];
    for (key, place, belongs, kinds) in keys {
        if let Some(place) = place.filter(|_| !belongs) {
            part.report_at(Some(place), Problem::OtherKind { key, kinds });
        }
    }
}

fn http(written: &schema::Check, tls: Option<Tls>, part: &mut Part<'_, '_>) -> Option<Http> {
    let head = part.choice_or_first("method", &written.method, &[("GET", false), ("HEAD", true)]);
    let path = match &written.path {
        Some(path) => {
            let text = path.get_ref();
            // As in `hyper`: what is in a path and is no part of it has to be written as `%20`.
            let is_right = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#');
            if !is_right || text.parse::<hyper::Uri>().is_err() {
                part.report(path, Problem::HttpPath { path: text.clone() });
                return None;
            }
            text.clone()
        }
        None => "/".into(),
    };
    let host = written.host.as_ref().map(|host| {
        let text = host.get_ref();
        let is_right = !text.is_empty() && text.parse::<hyper::http::uri::Authority>().is_ok() && !text.contains('@');
        if !is_right {
            part.report(host, Problem::HostName { what: "host", value: text.clone() });
        }
        is_right.then(|| text.clone())
    });
    let status = match &written.status {
        Some(status) => statuses(status, part)?,
        None => vec![DEFAULT_STATUSES],
    };
    if let (Some(body), Some(true)) = (&written.body, head) {
        part.report(body, Problem::BodyOfHead);
    }
    let body = text("body", &written.body, part)?;
    let host = host.map_or(Some(None), |host| host.map(Some))?;
    Some(Http { tls, head: head?, path, host, status, body })
}

fn statuses(written: &Spanned<String>, part: &mut Part<'_, '_>) -> Option<Vec<(u16, u16)>> {
    let number = |text: &str| text.trim().parse().ok().filter(|status| STATUSES.contains(status));
    let range = |text: &str| match text.split_once('-') {
        Some((first, last)) => Some((number(first)?, number(last)?)).filter(|(first, last)| first <= last),
        None => number(text).map(|status| (status, status)),
    };
    let ranges: Option<Vec<_>> = written.get_ref().split(',').map(range).collect();
    if ranges.is_none() {
        part.report(written, Problem::StatusRange { value: written.get_ref().clone() });
    }
    ranges
}

fn tls(written: &schema::Check, config: &Config, part: &mut Part<'_, '_>) -> Option<Tls> {
    let verify = written.verify.as_ref().is_none_or(|verify| *verify.get_ref());
    let authorities = match &written.ca_file {
        Some(file) if !verify => {
            part.report(file, Problem::AuthoritiesUnused);
            None
        }
        Some(file) => {
            let text = config.authorities_of_file(file.get_ref()).unwrap_or_default();
            let read: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(text).map(|read| read.map(|der| der.as_ref().to_vec())).collect();
            let read = read.ok().filter(|read| {
                let is_anchor = |der: &Vec<u8>| rustls::RootCertStore::empty().add(der.as_slice().into()).is_ok();
                !read.is_empty() && read.iter().all(is_anchor)
            });
            if read.is_none() {
                part.report(file, Problem::NoAuthorities);
            }
            read.map(|read| Authorities::These(read.into()))
        }
        None if verify => Some(Authorities::System),
        None => Some(Authorities::Anyone),
    };
    // A host may have a port, which is no part of a server's name.
    let host = written.host.as_ref().and_then(|host| host.get_ref().parse::<hyper::http::uri::Authority>().ok());
    let name = match &written.server_name {
        Some(name) => {
            if ServerName::try_from(name.get_ref().as_str()).is_err() {
                part.report(name, Problem::HostName { what: "server_name", value: name.get_ref().clone() });
                return None;
            }
            Some(name.get_ref().clone())
        }
        None => host.map(|host| host.host().trim_matches(['[', ']']).to_owned()),
    };
    let name = name.filter(|name| ServerName::try_from(name.as_str()).is_ok());
    Some(Tls { name, authorities: authorities? })
}

fn lookup(written: &schema::Check, part: &mut Part<'_, '_>) -> Option<Lookup> {
    let name = part.required("name", &written.name, "name = \"www.example.com\", which is asked for");
    let name = name.and_then(|name| {
        text::name_in(name, part)?;
        Some(name.get_ref().trim_end_matches('.').to_ascii_lowercase())
    });
    let kinds = [("A", A), ("AAAA", AAAA), ("CNAME", 5), ("MX", 15), ("NS", 2), ("SOA", 6), ("SRV", 33), ("TXT", 16)];
    let kind = part.choice_or_first("type", &written.record, &kinds);
    let codes = [("NOERROR", 0), ("NXDOMAIN", 3), ("SERVFAIL", 2), ("REFUSED", 5)];
    let code = part.choice_or_first("rcode", &written.rcode, &codes);
    let address = written.address.as_ref().map(|address| {
        let read = part.address("address", address)?;
        if kind.is_some_and(|kind| kind != if read.is_ipv4() { A } else { AAAA }) || code.is_some_and(|code| code != 0)
        {
            part.report(address, Problem::NeverAnswered { address: read });
        }
        Some(read)
    });
    let address = address.map_or(Some(None), |address| address.map(Some))?;
    Some(Lookup { name: name?, kind: kind?, code: code?, address })
}

fn datagram(written: &schema::Check, part: &mut Part<'_, '_>) -> Option<Datagram> {
    let send = bytes("send", &written.send, part);
    let expect = bytes("expect", &written.expect, part);
    Some(Datagram { send: send?.unwrap_or_default(), expect: expect? })
}

fn agent(written: &schema::Check, part: &mut Part<'_, '_>) -> Option<AgentCheck> {
    part.required("port", &written.port, "port = ..., where the agent answers");
    let send = text("send", &written.send, part);
    let floor = part.number_or("weight_floor_percent", &written.weight_floor_percent, PERCENTS, DEFAULT_FLOOR);
    let step = part.number_or("weight_step_percent", &written.weight_step_percent, PERCENTS, DEFAULT_STEP);
    Some(AgentCheck { send: send?, floor: floor?, step: step? })
}

/// A text that is not empty.
fn text(key: &'static str, written: &Written<String>, part: &mut Part<'_, '_>) -> Option<Option<String>> {
    let Some(written) = written else { return Some(None) };
    if written.get_ref().is_empty() {
        part.report(written, Problem::EmptyText { key });
        return None;
    }
    Some(Some(written.get_ref().clone()))
}

/// Bytes that are written as a text, or as `hex:` and digits.
fn bytes(key: &'static str, written: &Written<String>, part: &mut Part<'_, '_>) -> Option<Option<Vec<u8>>> {
    let Some(text) = text(key, written, part)? else { return Some(None) };
    let written = written.as_ref()?;
    let bytes = match text.strip_prefix(HEX) {
        Some(digits) => {
            let nibbles: Option<Vec<u8>> =
                digits.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
            let nibbles = nibbles.filter(|nibbles| !nibbles.is_empty() && nibbles.len().is_multiple_of(2));
            nibbles.map(|nibbles| {
                nibbles.chunks(2).map(|pair| pair.iter().fold(0, |byte, nibble| byte << 4 | nibble)).collect()
            })
        }
        None => Some(text.clone().into_bytes()),
    };
    let Some(bytes): Option<Vec<u8>> = bytes else {
        part.report(written, Problem::NotHex { key, value: text });
        return None;
    };
    if bytes.len() > LONGEST_DATAGRAM {
        part.report(written, Problem::LongDatagram { key, length: bytes.len(), most: LONGEST_DATAGRAM });
    }
    Some(Some(bytes))
}
