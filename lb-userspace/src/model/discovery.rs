//! Backends that the config names by host or by SRV record: what DNS has said of them, and when it is asked again.
//!
//! Time is that of the caller. Who asks does so for [`Discovery::due`] and tells of it by [`Discovery::on`]; the [`Answers`] are
//! what an [`crate::model::intent::Intent`] is made of besides the config.

use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::Duration,
};

/// The least and the most that an answer holds, whatever its TTL: a TTL of 0 is no reason to ask without a pause, and a mistake
/// in a zone should not last for a week.
pub const HOLDS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3_600)];
/// After a failure it is asked again, each time after twice as long.
const RETRIES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// The type of the records that are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named like the types")]
pub enum Kind {
    A,
    #[serde(rename = "AAAA")]
    Aaaa,
    #[serde(rename = "SRV")]
    Srv,
}

impl Kind {
    /// Of the addresses of a family.
    pub const fn of_family(is_ipv4: bool) -> Self {
        if is_ipv4 { Self::A } else { Self::Aaaa }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::A => "A",
            Self::Aaaa => "AAAA",
            Self::Srv => "SRV",
        })
    }
}

/// What DNS is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Question {
    /// In lower case, without a dot at the end.
    pub name: String,
    /// The type.
    pub kind: Kind,
}

impl Question {
    /// Of a name as it is written somewhere.
    pub fn new(name: &str, kind: Kind) -> Self {
        Self { name: canonical(name), kind }
    }
}

impl Question {
    /// The same of the addresses of the other family.
    fn other_family(&self) -> Option<Self> {
        let kind = match self.kind {
            Kind::A => Kind::Aaaa,
            Kind::Aaaa => Kind::A,
            Kind::Srv => return None,
        };
        Some(Self { name: self.name.clone(), kind })
    }
}

impl fmt::Display for Question {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.name, self.kind)
    }
}

/// A name in lower case, without a dot at the end.
pub fn canonical(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// A server by an SRV record (RFC 2782).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Server {
    /// The lowest serve.
    pub priority: u16,
    /// Its share among those of the priority.
    pub weight: u16,
    /// Its port.
    pub port: u16,
    /// The host, like the name of a [`Question`].
    pub host: String,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Records {
    /// To `A` and `AAAA`; empty: there are addresses of the other family alone.
    Addresses(BTreeSet<IpAddr>),
    /// To `SRV`; empty: the service is said to be nowhere.
    Servers(BTreeSet<Server>),
}

impl Records {
    fn has_no_address(&self) -> bool {
        matches!(self, Self::Addresses(addresses) if addresses.is_empty())
    }

    /// Each of them.
    pub fn texts(&self) -> Vec<String> {
        match self {
            Self::Addresses(addresses) => addresses.iter().map(ToString::to_string).collect(),
            Self::Servers(servers) => {
                let text = |server: &Server| {
                    let Server { priority, weight, port, host } = server;
                    format!("{priority} {weight} {port} {host}")
                };
                servers.iter().map(text).collect()
            }
        }
    }
}

impl fmt::Display for Records {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = self.texts();
        formatter.write_str(if texts.is_empty() { "none" } else { "" })?;
        formatter.write_str(&texts.join(", "))
    }
}

/// What is known of names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers(BTreeMap<Question, Records>);

impl Answers {
    /// The addresses of a host.
    pub fn addresses(&self, host: &str, kind: Kind) -> impl Iterator<Item = IpAddr> {
        let records = self.0.get(&Question::new(host, kind));
        let addresses = match records {
            Some(Records::Addresses(addresses)) => Some(addresses),
            _ => None,
        };
        addresses.into_iter().flatten().copied()
    }

    /// The servers of an SRV name.
    pub fn servers(&self, name: &str) -> impl Iterator<Item = &Server> {
        let records = self.0.get(&Question::new(name, Kind::Srv));
        let servers = match records {
            Some(Records::Servers(servers)) => Some(servers),
            _ => None,
        };
        servers.into_iter().flatten()
    }

    /// With another answer, or without one.
    pub fn put(&mut self, question: &Question, records: Option<Records>) {
        match records {
            Some(records) => _ = self.0.insert(question.clone(), records),
            None => _ = self.0.remove(question),
        }
    }

    fn has_address(&self, question: &Question) -> bool {
        matches!(self.0.get(question), Some(Records::Addresses(addresses)) if !addresses.is_empty())
    }

    /// Whether there is one to this.
    pub fn has(&self, question: &Question) -> bool {
        self.0.contains_key(question)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(Question, Records)> for Answers {
    fn from_iter<I: IntoIterator<Item = (Question, Records)>>(answers: I) -> Self {
        Self(answers.into_iter().collect())
    }
}

/// What came of asking.
pub type Outcome = Result<Found, String>;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its records.
    pub records: Records,
    /// For how long it holds.
    pub ttl: Duration,
}

/// An answer as it is kept over a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// What was asked.
    #[serde(flatten)]
    pub question: Question,
    /// What was answered.
    pub records: Records,
    /// When that was heard last, in milliseconds since 1970.
    pub at: u64,
}

/// What is known of one question.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// When the answer was heard last, in milliseconds since 1970.
    heard: Option<u64>,
    /// Somebody is at it.
    asking: bool,
    /// It has been asked since the start.
    tried: bool,
    next: Duration,
    failures: u32,
    error: Option<String>,
}

/// What there is to say of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known<'a> {
    /// What is in use.
    pub records: Option<&'a Records>,
    /// When it was heard last, in milliseconds since 1970.
    pub heard: Option<u64>,
    /// Why the last try has brought nothing new, if it failed.
    pub error: Option<&'a str>,
}

/// All questions of a config.
#[derive(Clone, Debug, Default)]
pub struct Discovery {
    answers: Answers,
    entries: BTreeMap<Question, Entry>,
}

impl Discovery {
    /// From what an earlier agent has known.
    pub fn inherited(kept: Vec<Kept>) -> Self {
        let mut discovery = Self::default();
        for Kept { question, records, at } in kept {
            discovery.answers.put(&question, Some(records));
            discovery.entries.insert(question, Entry { heard: Some(at), ..Entry::default() });
        }
        discovery
    }

    /// What is to be kept for a later agent.
    pub fn kept(&self) -> Vec<Kept> {
        let known = self.answers.0.iter();
        let kept = known.map(|(question, records)| Kept {
            question: question.clone(),
            records: records.clone(),
            at: self.entries.get(question).and_then(|entry| entry.heard).unwrap_or_default(),
        });
        kept.collect()
    }

    /// What an intent is made of.
    pub fn answers(&self) -> &Answers {
        &self.answers
    }

    /// These questions are to be asked, and no others. New ones are due at once.
    pub fn want(&mut self, questions: &BTreeSet<Question>) {
        self.entries.retain(|question, _| questions.contains(question));
        self.answers.0.retain(|question, _| questions.contains(question));
        for question in questions {
            self.entries.entry(question.clone()).or_default();
        }
    }

    /// What is to be asked now; it is taken for being asked until [`Self::on`] tells of it.
    pub fn due(&mut self, now: Duration) -> Vec<Question> {
        let due = self.entries.iter_mut().filter(|(_, entry)| !entry.asking && entry.next <= now);
        due.map(|(question, entry)| {
            entry.asking = true;
            question.clone()
        })
        .collect()
    }

    /// Whether there is a question of which nothing is known and which was not asked yet.
    pub fn is_new(&self) -> bool {
        self.entries.iter().any(|(question, entry)| !entry.tried && !self.answers.0.contains_key(question))
    }

    /// Notes what came of asking at `now`, or in milliseconds since 1970 at `heard`. An answer that is another one than that in
    /// use is returned, and comes into use by [`Self::take`]. A failure leaves what is in use.
    ///
    /// That a name has no address of one family, while it has one of the other, is an answer like any. That it has none at all is taken
    /// for a mistake in the zone, which should not end a service.
    pub fn on(&mut self, now: Duration, heard: u64, question: &Question, outcome: Outcome) -> Option<Records> {
        let has_another = question.other_family().is_some_and(|other| self.answers.has_address(&other));
        let outcome = match outcome {
            Ok(Found { records, .. }) if records.has_no_address() && !has_another => {
                Err(format!("the name has no {} record", question.kind))
            }
            outcome => outcome,
        };
        // The config may be without it by now.
        let entry = self.entries.get_mut(question)?;
        entry.asking = false;
        entry.tried = true;
        match outcome {
            Ok(Found { records, ttl }) => {
                let [least, most] = HOLDS;
                entry.failures = 0;
                entry.next = now + ttl.clamp(least, most);
                entry.heard = Some(heard);
                entry.error = None;
                (self.answers.0.get(question) != Some(&records)).then_some(records)
            }
            Err(error) => {
                let [first, most] = RETRIES;
                entry.next = now + first.saturating_mul(1 << entry.failures.min(10)).min(most);
                entry.failures += 1;
                entry.error = Some(error);
                None
            }
        }
    }

    /// An answer is in use.
    pub fn take(&mut self, question: &Question, records: Records) {
        if self.entries.contains_key(question) {
            self.answers.put(question, Some(records));
        }
    }

    /// An answer can't be used; that before is.
    pub fn refuse(&mut self, question: &Question, reason: String) {
        if let Some(entry) = self.entries.get_mut(question) {
            entry.error = Some(reason);
        }
    }

    /// An answer is not in use for now.
    pub fn take_back(&mut self, question: &Question) {
        self.answers.put(question, None);
    }

    /// Nobody is at anything any more: what was being asked is asked again.
    pub fn restart(&mut self) {
        for entry in self.entries.values_mut() {
            entry.asking = false;
        }
    }

    /// An answer of an earlier agent can't be used any more; there is none until DNS is asked.
    pub fn forget(&mut self, question: &Question, reason: String) {
        self.answers.put(question, None);
        self.refuse(question, reason);
    }

    /// What there is to say of a question.
    pub fn known(&self, question: &Question) -> Option<Known<'_>> {
        let entry = self.entries.get(question)?;
        let records = self.answers.0.get(question);
        Some(Known { records, heard: entry.heard.filter(|_| records.is_some()), error: entry.error.as_deref() })
    }
}

#[cfg(test)]
mod tests;
