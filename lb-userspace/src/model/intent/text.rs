//! Names and records as they are written.

use super::part::Part;
use crate::{
    config::Problem,
    model::dns::data::{self, Data},
};
use lb_common::wire::dns::{A, AAAA};
use std::{net::Ipv4Addr, net::Ipv6Addr, str::FromStr};
use toml::Spanned;

/// Bytes of the longest label and of the longest name (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;
const LONGEST_NAME: usize = 255;
/// What is expected of whom the owner of a name writes `.` for: that there is none (RFC 2782, RFC 7505).
const NOBODY: &str = ".";

/// A name of the config as on the wire, in lower case.
pub(super) fn name_in(written: &Spanned<String>, part: &mut Part<'_, '_>) -> Option<Vec<u8>> {
    match name(written.get_ref()) {
        Ok(wire) => Some(wire),
        Err(problem) => {
            part.report(written, problem);
            None
        }
    }
}

/// A name as on the wire (RFC 1035 section 3.1), in lower case.
pub(super) fn name(name: &str) -> Result<Vec<u8>, Problem> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(Problem::EmptyName);
    }
    let mut wire = Vec::with_capacity(name.len() + 2);
    for label in name.split('.') {
        if label.is_empty() {
            return Err(Problem::EmptyLabel);
        }
        if label == "*" {
            return Err(Problem::Wildcard);
        }
        let odd = |character: &char| !character.is_ascii_alphanumeric() && !"-_".contains(*character);
        if let Some(character) = label.chars().find(odd) {
            return Err(Problem::NameCharacter { character });
        }
        let length = u8::try_from(label.len()).ok().filter(|_| label.len() <= LONGEST_LABEL);
        wire.push(length.ok_or_else(|| Problem::LongLabel { label: label.into() })?);
        wire.extend(label.bytes().map(|byte| byte.to_ascii_lowercase()));
    }
    wire.push(0);
    if wire.len() > LONGEST_NAME {
        return Err(Problem::LongName { length: wire.len() });
    }
    Ok(wire)
}

/// What a record of this type says.
pub(super) fn data(kind: u16, text: &str) -> Result<Data, Problem> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let read = match (kind, words.as_slice()) {
        (A, [address]) => number::<Ipv4Addr>(address).map(|address| Data::address(address.into())),
        (AAAA, [address]) => number::<Ipv6Addr>(address).map(|address| Data::address(address.into())),
        (data::CNAME, [target]) => Some(Data::cname(&name(target)?)),
        (data::MX, [preference, exchange]) => match number(preference) {
            Some(preference) => Some(Data::mx(preference, &name_or_nobody(exchange)?)),
            None => None,
        },
        (data::SRV, [priority, weight, port, target]) => match (number(priority), number(weight), number(port)) {
            (Some(priority), Some(weight), Some(port)) => {
                Some(Data::srv(priority, weight, port, &name_or_nobody(target)?))
            }
            _ => None,
        },
        (data::TXT, _) => strings(text).map(|strings| Data::txt(&strings)),
        _ => None,
    };
    let example = match kind {
        A => "192.0.2.1",
        AAAA => "2001:db8::1",
        data::CNAME => "host.example.com",
        data::MX => "`10 mail.example.com`",
        data::SRV => "`10 60 5060 sip.example.com`",
        _ => "`\"some text\"`",
    };
    read.ok_or_else(|| Problem::NotOfType { kind: data::kind_name(kind), value: text.into(), example })
}

fn number<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn name_or_nobody(text: &str) -> Result<Vec<u8>, Problem> {
    if text == NOBODY { Ok(vec![0]) } else { name(text) }
}

/// The strings of a TXT record: one as it stands, or several in quotes, in which `\` comes before a quote and itself.
fn strings(text: &str) -> Option<Vec<Vec<u8>>> {
    if !text.starts_with('"') {
        return Some(vec![text.as_bytes().into()]);
    }
    let mut strings = Vec::new();
    let mut bytes = text.bytes();
    loop {
        let Some(start) = bytes.find(|byte| !byte.is_ascii_whitespace()) else { return Some(strings) };
        if start != b'"' {
            return None;
        }
        let mut string = Vec::new();
        loop {
            match bytes.next()? {
                b'"' => break,
                b'\\' => string.push(bytes.next()?),
                byte => string.push(byte),
            }
        }
        strings.push(string);
    }
}
