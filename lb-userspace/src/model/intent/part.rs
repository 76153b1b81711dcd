//! One part of the config while it is read: its values become what they mean, or a problem with its line.

use crate::config::{ConfigError, ConfigErrors, Place, Problem, Source, schema::Written};
use std::{
    net::IpAddr,
    ops::{Range, RangeInclusive},
    path::Path,
};
use toml::Spanned;

/// What is wrong so far.
pub(super) struct Problems<'a> {
    source: &'a Source,
    errors: Vec<ConfigError>,
}

impl<'a> Problems<'a> {
    /// None yet.
    pub(super) fn none(source: &'a Source) -> Self {
        Self { source, errors: Vec::new() }
    }

    /// The part of the config at `place`, whose table begins at `span`; the whole file has no such place.
    pub(super) fn part(&mut self, place: Place, span: Option<Range<usize>>) -> Part<'_, 'a> {
        Part { problems: self, place, span }
    }

    /// Reports what is wrong with a line of another file.
    pub(super) fn of_file(&mut self, file: &Path, line: Option<usize>, place: Place, problem: Problem) {
        self.errors.push(ConfigError { file: Some(file.into()), line, place, problem });
    }

    /// What was read, if nothing is wrong with it.
    pub(super) fn unless<T>(mut self, read: Option<T>) -> Result<T, ConfigErrors> {
        match read {
            Some(read) if self.errors.is_empty() => Ok(read),
            _ => {
                self.errors.sort_by(|one, other| (&one.file, one.line).cmp(&(&other.file, other.line)));
                Err(ConfigErrors { path: self.source.path().into(), errors: self.errors })
            }
        }
    }
}

/// One part of the config.
pub(super) struct Part<'p, 'a> {
    problems: &'p mut Problems<'a>,
    place: Place,
    span: Option<Range<usize>>,
}

impl Part<'_, '_> {
    /// The line of something written.
    pub(super) fn line<T>(&self, written: &Spanned<T>) -> usize {
        self.problems.source.line(&written.span())
    }

    /// Reports what is wrong with a value.
    pub(super) fn report<T>(&mut self, written: &Spanned<T>, problem: Problem) {
        self.report_at(Some(written.span()), problem);
    }

    /// Reports what is missing in the part, or wrong with it as a whole.
    pub(super) fn report_here(&mut self, problem: Problem) {
        self.report_at(self.span.clone(), problem);
    }

    /// Reports a problem at a place of the text, or with the whole file.
    pub(super) fn report_at(&mut self, span: Option<Range<usize>>, problem: Problem) {
        let line = span.map(|span| self.problems.source.line(&span));
        self.problems.errors.push(ConfigError { file: None, line, place: self.place.clone(), problem });
    }

    /// A value that has to be there.
    pub(super) fn required<'w, T>(
        &mut self,
        key: &'static str,
        written: &'w Written<T>,
        cure: &'static str,
    ) -> Option<&'w Spanned<T>> {
        if written.is_none() {
            self.report_here(Problem::Missing { key, cure });
        }
        written.as_ref()
    }

    /// A number within bounds.
    pub(super) fn number(
        &mut self,
        what: &'static str,
        written: &Spanned<i64>,
        range: RangeInclusive<u32>,
    ) -> Option<u32> {
        let value = *written.get_ref();
        let number = u32::try_from(value).ok().filter(|number| range.contains(number));
        if number.is_none() {
            let (least, most) = range.into_inner();
            self.report(written, Problem::OutOfRange { what, value, least, most });
        }
        number
    }

    /// The same, with a default.
    pub(super) fn number_or(
        &mut self,
        what: &'static str,
        written: &Written<i64>,
        range: RangeInclusive<u32>,
        default: u32,
    ) -> Option<u32> {
        written.as_ref().map_or(Some(default), |written| self.number(what, written, range))
    }

    /// A port.
    pub(super) fn port(&mut self, what: &'static str, written: &Spanned<i64>) -> Option<u16> {
        self.port_number(what, written, *written.get_ref())
    }

    /// A port that is written somehow, as this number.
    pub(super) fn port_number<T>(&mut self, what: &'static str, written: &Spanned<T>, value: i64) -> Option<u16> {
        let port = u16::try_from(value).ok().filter(|port| *port > 0);
        if port.is_none() {
            self.report(written, Problem::NotAPort { what, value });
        }
        port
    }

    /// Any address.
    pub(super) fn address(&mut self, what: &'static str, written: &Spanned<String>) -> Option<IpAddr> {
        self.address_text(what, written, written.get_ref())
    }

    /// Any address that is written somehow, as this text.
    pub(super) fn address_text<T>(&mut self, what: &'static str, written: &Spanned<T>, text: &str) -> Option<IpAddr> {
        let address = text.parse().ok();
        if address.is_none() {
            self.report(written, Problem::NotAnAddress { what, value: text.into() });
        }
        address
    }

    /// An address that one machine can have.
    pub(super) fn address_of_machine(&mut self, what: &'static str, written: &Spanned<String>) -> Option<IpAddr> {
        let address = self.address(what, written)?;
        self.usable(what, written, address)
    }

    /// An address that other machines can send to.
    pub(super) fn address_on_network(&mut self, what: &'static str, written: &Spanned<String>) -> Option<IpAddr> {
        let address = self.address(what, written)?;
        self.usable_on_network(what, written, address)
    }

    fn usable(&mut self, what: &'static str, written: &Spanned<String>, address: IpAddr) -> Option<IpAddr> {
        self.unless_unusable(what, written, address, unusable(address))
    }

    fn usable_on_network(&mut self, what: &'static str, written: &Spanned<String>, address: IpAddr) -> Option<IpAddr> {
        self.unless_unusable(what, written, address, unusable_on_network(address))
    }

    /// The address of a network whose addresses other machines can get packets from; the cure is another one.
    pub(super) fn usable_network(
        &mut self,
        what: &'static str,
        written: &Spanned<String>,
        address: IpAddr,
        cure: &'static str,
    ) -> Option<IpAddr> {
        let unusable = unusable_on_network(address).map(|(kind, _)| (kind, cure));
        self.unless_unusable(what, written, address, unusable)
    }

    fn unless_unusable(
        &mut self,
        what: &'static str,
        written: &Spanned<String>,
        address: IpAddr,
        unusable: Option<(&'static str, &'static str)>,
    ) -> Option<IpAddr> {
        let Some((kind, cure)) = unusable else { return Some(address) };
        self.report(written, Problem::UnusableAddress { what, address, kind, cure });
        None
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(
        &mut self,
        what: &'static str,
        written: &Spanned<String>,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let value = written.get_ref();
        let choice = choices.iter().find(|(word, _)| word == value);
        if choice.is_none() {
            let known: Vec<_> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            self.report(written, Problem::UnknownChoice { what, value: value.clone(), known: either(&known) });
        }
        choice.map(|(_, choice)| *choice)
    }

    /// The same, with the first as the default.
    pub(super) fn choice_or_first<T: Copy>(
        &mut self,
        what: &'static str,
        written: &Written<String>,
        choices: &[(&str, T)],
    ) -> Option<T> {
        match written {
            Some(written) => self.choice(what, written, choices),
            None => choices.first().map(|(_, choice)| *choice),
        }
    }
}

/// `a`, `a or b`, `a, b or c`.
fn either(words: &[String]) -> String {
    match words {
        [some @ .., but_one, last] => {
            some.iter().map(|word| format!("{word}, ")).collect::<String>() + but_one + " or " + last
        }
        _ => words.concat(),
    }
}

const ONE_MACHINE: &str = "the address of one machine";

/// What is wrong with an address as one that other machines can send to, and the cure.
pub(super) fn unusable_on_network(address: IpAddr) -> Option<(&'static str, &'static str)> {
    unusable(address).or_else(|| address.is_loopback().then_some(("a loopback address", ONE_MACHINE)))
}

/// What is wrong with an address as a machine's, and the cure.
fn unusable(address: IpAddr) -> Option<(&'static str, &'static str)> {
    if address.is_unspecified() {
        return Some(("the unspecified address", ONE_MACHINE));
    }
    if address.is_multicast() {
        return Some(("a multicast address", ONE_MACHINE));
    }
    match address {
        IpAddr::V4(address) if address.is_broadcast() => Some(("the broadcast address", ONE_MACHINE)),
        IpAddr::V6(address) if address.to_ipv4_mapped().is_some() => {
            Some(("an IPv4 address in IPv6 form", "it in IPv4 form"))
        }
        // It would take an interface to tell which one is meant.
        IpAddr::V6(address) if address.is_unicast_link_local() => {
            Some(("a link-local address", "a global or unique local one"))
        }
        _ => None,
    }
}
