//! Files of records: one a line, a million of them in seconds.
//!
//! Lines are read into one run of bytes, sorted by name, and put together as [`Stored`].

use super::{part::Problems, text};
use crate::{
    config::{Place, Problem, RecordsText},
    model::dns::{
        data::{self, CNAME, Data, LARGEST_SET, View},
        stored::{Set, Stored},
    },
};
use std::{
    cmp::Ordering,
    collections::BTreeMap,
    hash::{DefaultHasher, Hasher as _},
    path::Path,
};

/// Problems of a file that are told; whoever has the wrong file need not see each of its lines.
const SHOWN: usize = 20;

/// Reads the files. What something is wrong with is left out; `taken` are the names that the config has itself, with their lines.
pub(super) fn read(files: &[RecordsText], taken: &BTreeMap<Vec<u8>, usize>, problems: &mut Problems<'_>) -> Stored {
    let mut records = Records::default();
    let mut wrong: Vec<Vec<Wrong>> = Vec::new();
    for (file, RecordsText { text, .. }) in files.iter().enumerate() {
        let mut of_file = Vec::new();
        for (number, line) in (1_u32..).zip(text.lines()) {
            let Err((place, problem)) = records.read_line(file, number, line, taken) else { continue };
            of_file.push(Wrong { line: number, place, problem });
        }
        wrong.push(of_file);
    }
    let stored = records.stored(&mut wrong);
    for (mut wrong, RecordsText { path, .. }) in wrong.into_iter().zip(files) {
        wrong.sort_by_key(|wrong| wrong.line);
        report(path, wrong, problems);
    }
    stored
}

struct Wrong {
    line: u32,
    place: Place,
    problem: Problem,
}

fn report(path: &Path, wrong: Vec<Wrong>, problems: &mut Problems<'_>) {
    if wrong.len() > SHOWN {
        let problem = Problem::ManyProblems { count: wrong.len(), shown: SHOWN };
        problems.of_file(path, None, Place::Top, problem);
    }
    for Wrong { line, place, problem } in wrong.into_iter().take(SHOWN) {
        problems.of_file(path, Some(line as usize), place, problem);
    }
}

/// What the lines say.
#[derive(Default)]
struct Records {
    /// Names and data of the lines.
    bytes: Vec<u8>,
    lines: Vec<Line>,
}

/// A line that could be read.
#[derive(Clone, Copy)]
struct Line {
    /// Of the name: equal names lie together once lines are sorted by it, then by the name itself.
    hash: u64,
    /// Where its name begins; the data follows.
    at: u32,
    name_length: u8,
    file: u8,
    kind: u16,
    data_length: u16,
    ttl_seconds: u32,
    line: u32,
}

impl Records {
    fn read_line(
        &mut self,
        file: usize,
        number: u32,
        text: &str,
        taken: &BTreeMap<Vec<u8>, usize>,
    ) -> Result<(), (Place, Problem)> {
        let text = text.trim();
        if text.is_empty() || text.starts_with(['#', ';']) {
            return Ok(());
        }
        let (name, rest) = word(text);
        let of_name = |problem| (Place::Name(name.into()), problem);
        let wire = text::name(name).map_err(of_name)?;
        let (ttl, rest) = word(rest);
        let (kind, rest) = word(rest);
        if rest.is_empty() {
            return Err((Place::Top, Problem::NotARecord));
        }
        let ttl_seconds = ttl.parse().ok().filter(|ttl| *ttl <= LONGEST_TTL);
        let ttl_seconds = ttl_seconds.ok_or_else(|| of_name(Problem::NotATtl { word: ttl.into() }))?;
        let kind =
            data::KINDS.iter().find(|(_, name)| name.eq_ignore_ascii_case(kind)).map(|(kind, _)| *kind).ok_or(kind);
        let kind = kind.map_err(|word| of_name(Problem::UnknownType { word: word.into() }))?;
        let Data { bytes, .. } = text::data(kind, rest).map_err(of_name)?;
        if let Some(line) = taken.get(&wire) {
            return Err(of_name(Problem::NameInConfig { line: *line }));
        }
        let mut hasher = DefaultHasher::new();
        hasher.write(&wire);
        self.lines.push(Line {
            hash: hasher.finish(),
            at: self.bytes.len() as u32,
            name_length: wire.len() as u8,
            file: file as u8,
            kind,
            data_length: bytes.len() as u16,
            ttl_seconds,
            line: number,
        });
        self.bytes.extend(wire);
        self.bytes.extend(bytes);
        Ok(())
    }

    fn name(&self, line: &Line) -> &[u8] {
        self.bytes.get(line.at as usize..).and_then(|bytes| bytes.get(..line.name_length.into())).unwrap_or_default()
    }

    fn view(&self, line: &Line) -> View<'_> {
        let start = line.at as usize + usize::from(line.name_length);
        let bytes = self.bytes.get(start..start + usize::from(line.data_length)).unwrap_or_default();
        View { kind: line.kind, bytes }
    }

    fn stored(mut self, wrong: &mut [Vec<Wrong>]) -> Stored {
        let mut lines = std::mem::take(&mut self.lines);
        let names = |one: &Line, other: &Line| {
            let hashes = one.hash.cmp(&other.hash);
            if hashes == Ordering::Equal { self.name(one).cmp(self.name(other)) } else { hashes }
        };
        lines.sort_unstable_by(|one, other| {
            names(one, other).then((one.kind, one.file, one.line).cmp(&(other.kind, other.file, other.line)))
        });
        let mut stored = Stored::default();
        for of_name in lines.chunk_by(|one, other| names(one, other) == Ordering::Equal) {
            let Some(first) = of_name.first() else { continue };
            let mut report = |line: &Line, problem| {
                let place = Place::Name(shown(self.name(line)));
                if let Some(wrong) = wrong.get_mut(usize::from(line.file)) {
                    wrong.push(Wrong { line: line.line, place, problem });
                }
            };
            let other = of_name.iter().find(|line| line.kind != CNAME);
            for cname in of_name.iter().filter(|line| line.kind == CNAME) {
                let beside = other.or(Some(first)).filter(|other| other.line != cname.line || other.file != cname.file);
                if let Some(beside) = beside {
                    report(cname, Problem::CnameBeside { line: beside.line as usize });
                }
            }
            let sets = of_name.chunk_by(|one, other| one.kind == other.kind);
            let sets: Vec<Set<'_>> = sets.filter_map(|lines| self.set(lines, &mut report)).collect();
            stored.push(self.name(first), &sets);
        }
        stored
    }

    fn set(&self, lines: &[Line], report: &mut impl FnMut(&Line, Problem)) -> Option<Set<'_>> {
        let first = lines.first()?;
        let kind = data::kind_name(first.kind);
        let mut seen = BTreeMap::new();
        for line in lines.iter().filter(|_| lines.len() > 1) {
            if line.ttl_seconds != first.ttl_seconds {
                let problem = Problem::OtherTtl { kind, other: first.ttl_seconds, line: first.line as usize };
                report(line, problem);
            }
            if let Some(earlier) = seen.insert(self.view(line), line.line).filter(|_| first.kind != CNAME) {
                report(line, Problem::RecordTwice { line: earlier as usize });
            }
        }
        let data: Vec<View<'_>> = lines.iter().map(|line| self.view(line)).collect();
        let length = data::set_length(data.iter().copied());
        if length > LARGEST_SET {
            report(first, Problem::LargeSet { kind, length, most: LARGEST_SET });
        }
        Some(Set { kind: first.kind, ttl_seconds: first.ttl_seconds, data })
    }
}

/// RFC 2181 section 8.
const LONGEST_TTL: u32 = 0x7fff_ffff;

fn word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// A name as it is written.
fn shown(wire: &[u8]) -> String {
    let labels = data::suffixes(wire).filter_map(|name| {
        let (length, rest) = name.split_first()?;
        rest.get(..usize::from(*length))
    });
    let labels: Vec<_> = labels.filter(|label| !label.is_empty()).map(String::from_utf8_lossy).collect();
    labels.join(".")
}
