//! What comes of a probe.

use crate::model::{certificate::Certificate, health::Failure, load::Said};
use std::io;

/// Characters of an answer that are shown.
const SHOWN: usize = 120;
/// Errors of this machine: it has run out of something.
const OWN: [i32; 4] = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];

/// What came of a probe.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Whether the target works.
    pub result: Result<(), Failure>,
    /// What it answered, short and printable, or what else there is to say.
    pub output: Option<Box<str>>,
    /// What its agent said.
    pub said: Option<Said>,
    /// The certificate that it has shown.
    pub certificate: Option<Box<Certificate>>,
}

impl From<Result<(), Failure>> for Outcome {
    fn from(result: Result<(), Failure>) -> Self {
        Self { result, output: None, said: None, certificate: None }
    }
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Err(failure).into()
    }
}

impl From<io::Error> for Outcome {
    fn from(error: io::Error) -> Self {
        let failure = match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::Refused,
            io::ErrorKind::TimedOut => Failure::TimedOut,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Failure::Unreachable,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof => {
                Failure::Closed
            }
            _ => Failure::Other(error.raw_os_error().unwrap_or(libc::EIO)),
        };
        failure.into()
    }
}

impl Outcome {
    /// The target did not answer in time.
    pub fn timed_out() -> Self {
        Failure::TimedOut.into()
    }

    /// The same, with what the target answered.
    #[must_use]
    pub fn with_output(self, answer: &[u8]) -> Self {
        let text = printable(answer);
        Self { output: (!text.is_empty()).then(|| text.into()), ..self }
    }

    /// Whether a probe like it keeps its socket until the timeout.
    pub fn hangs(&self) -> bool {
        self.result == Err(Failure::TimedOut)
    }

    /// What this machine could not do, if that is why nothing was probed.
    pub fn own_fault(&self) -> Option<Failure> {
        self.result.err().filter(|failure| matches!(failure, Failure::Other(error) if OWN.contains(error)))
    }
}

/// The first line of an answer as people and logs can take it.
pub fn printable(answer: &[u8]) -> String {
    let start = answer.get(..SHOWN * 4).unwrap_or(answer);
    let text = String::from_utf8_lossy(start);
    let line = text.trim().lines().next().unwrap_or_default();
    let shown = line.chars().take(SHOWN);
    // Nothing in a log looks like another line, and no terminal is told anything.
    shown.map(|character| if character.is_control() { '.' } else { character }).collect::<String>().trim_end().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_shown_short_and_printable() {
        let long = "x".repeat(1_000);
        let cases = [
            ("", ""),
            ("  hello \r\nworld", "hello"),
            ("\x1b[31mred\x07", ".[31mred."),
            ("\u{9b}x", ".x"),
            ("\n\nsecond", "second"),
            (&long, &long[..120]),
        ];
        for (answer, shown) in cases {
            assert_eq!(printable(answer.as_bytes()), shown);
        }
        assert_eq!(printable(b"a\xff\xfeb"), "a\u{fffd}\u{fffd}b");
    }

    #[test]
    fn what_this_machine_lacks_is_no_fault_of_the_target() {
        let outcome = |error| Outcome::from(io::Error::from_raw_os_error(error));
        assert!(outcome(libc::EMFILE).own_fault().is_some());
        assert!(outcome(libc::ECONNREFUSED).own_fault().is_none());
        assert_eq!(outcome(libc::ECONNRESET).result, Err(Failure::Closed));
    }
}
