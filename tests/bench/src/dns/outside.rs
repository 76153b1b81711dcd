//! Generators that others wrote: dnsperf, with sockets, and kxdpgun, with AF_XDP.

use super::asker::Answers;
use anyhow::{Context as _, Result, bail};
use std::{
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};
use tests::Host;

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generator {
    /// Waits for answers, with 200 questions on the way in all.
    Dnsperf,
    /// Sends so many questions a second, whatever comes back.
    Kxdpgun(u64),
}

impl Generator {
    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Dnsperf => "dnsperf",
            Self::Kxdpgun(_) => "kxdpgun",
        }
    }

    /// What it does, in few words.
    pub fn describe(self) -> String {
        match self {
            Self::Dnsperf => self.name().to_owned(),
            Self::Kxdpgun(rate) => format!("{} at {rate} a second", self.name()),
        }
    }

    /// Where its table is among those of the others.
    pub const fn order(self) -> u64 {
        match self {
            Self::Dnsperf => 0,
            Self::Kxdpgun(rate) => rate,
        }
    }

    /// Asks a server for whole seconds, out of an interface, on one CPU.
    pub fn ask(
        self,
        client: &Host,
        (interface, server): (&str, IpAddr),
        questions: &Path,
        seconds: u32,
        cpu: usize,
    ) -> Result<Answers> {
        let (cpu, seconds, server) = (cpu.to_string(), seconds.to_string(), server.to_string());
        let questions = questions.to_str().context("the path of the questions is no text")?;
        let begin = ["taskset", "-c", &cpu];
        let started = Instant::now();
        let output = match self {
            Self::Dnsperf => {
                let line =
                    ["dnsperf", "-s", &server, "-d", questions, "-l", &seconds, "-c", "8", "-T", "1", "-q", "200"];
                client.attempt(begin.iter().chain(&line))?
            }
            Self::Kxdpgun(rate) => {
                let rate = rate.to_string();
                let line = ["kxdpgun", "-t", &seconds, "-Q", &rate, "-i", questions, "-I", interface, &server];
                client.attempt(begin.iter().chain(&line))?
            }
        };
        let elapsed = started.elapsed();
        let text = format!("{}{}", output.stdout, output.stderr);
        if !output.status.success() {
            bail!("{} ended ({}): {}", self.name(), output.status, text.lines().last().unwrap_or_default());
        }
        let (sent, answered, time) = match self {
            Self::Dnsperf => ("Queries sent:", "NOERROR", number(&text, "Run time (s):")),
            Self::Kxdpgun(_) => ("total queries:", "NOERROR", number(&text, "duration:")),
        };
        let sent =
            number(&text, sent).with_context(|| format!("{} does not say what it sent:\n{text}", self.name()))?;
        let answered = number(&text, answered).unwrap_or_default();
        Ok(Answers {
            elapsed: time.map_or(elapsed, Duration::from_secs_f64),
            sent: sent as u64,
            answered: answered as u64,
            truncated: 0,
            wrong: 0,
            times: Vec::new(),
            note: None,
        })
    }
}

/// The first number behind a word.
fn number(text: &str, word: &str) -> Option<f64> {
    let (_, rest) = text.split_once(word)?;
    let begin = rest.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    let end = begin.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(begin.len());
    begin.get(..end)?.trim_end_matches('.').parse().ok()
}
