//! Counts of tests, from what libtest prints. Pure.

use std::{fmt, ops::AddAssign};

/// How many tests passed, failed and were skipped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Ran and held.
    pub passed: usize,
    /// Ran and did not hold, or could not be built.
    pub failed: usize,
    /// Did not run, for a reason that is known.
    pub skipped: usize,
}

impl Tally {
    /// One check that is no test: formatting, lints.
    pub fn of_check(holds: bool) -> Self {
        Self { passed: usize::from(holds), failed: usize::from(!holds), skipped: 0 }
    }

    /// The same, knowing that `count` of the tests that passed only said that they could not run.
    pub fn with_skips(self, count: usize) -> Self {
        Self { passed: self.passed.saturating_sub(count), skipped: self.skipped + count, ..self }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// What one line of libtest's output adds to the count.
#[derive(Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// The summary of one test binary.
    Summary(Tally),
    /// A test that its `#[ignore]` left out, counted by the summary, and why.
    Ignored(&'a str, &'a str),
    /// Anything else.
    Other,
}

impl<'a> Line<'a> {
    /// Reads a line without its line break.
    pub fn parse(line: &'a str) -> Self {
        summary(line).map(Self::Summary).or_else(|| ignored(line)).unwrap_or(Self::Other)
    }
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
fn summary(line: &str) -> Option<Tally> {
    let (_, counts) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let mut tally = Tally::default();
    for count in counts.split("; ") {
        match count.split_once(' ') {
            Some((number, "passed")) => tally.passed = number.parse().ok()?,
            Some((number, "failed")) => tally.failed = number.parse().ok()?,
            Some((number, "ignored")) => tally.skipped = number.parse().ok()?,
            _ => {}
        }
    }
    Some(tally)
}

/// `test name ... ignored` or `test name ... ignored, reason`
fn ignored(line: &str) -> Option<Line<'_>> {
    let (name, verdict) = line.strip_prefix("test ")?.split_once(" ... ignored")?;
    Some(Line::Ignored(name, verdict.strip_prefix(", ").unwrap_or("ignored")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries_are_counted_whatever_their_verdict() {
        let line = "test result: FAILED. 12 passed; 3 failed; 2 ignored; 0 measured; 7 filtered out; finished in 1.20s";
        assert_eq!(Line::parse(line), Line::Summary(Tally { passed: 12, failed: 3, skipped: 2 }));
        let line = "test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(Line::parse(line), Line::Summary(Tally::default()));
    }

    #[test]
    fn ignored_tests_are_named_with_their_reason() {
        assert_eq!(Line::parse("test a::b ... ignored, needs a day"), Line::Ignored("a::b", "needs a day"));
        assert_eq!(
            Line::parse("test src/lib.rs - (line 3) ... ignored"),
            Line::Ignored("src/lib.rs - (line 3)", "ignored")
        );
    }

    #[test]
    fn other_lines_add_nothing() {
        for line in ["", "running 3 tests", "test a::b ... ok", "test a::b ... FAILED", "test result: who knows"] {
            assert_eq!(Line::parse(line), Line::Other, "{line}");
        }
    }

    #[test]
    fn a_test_that_skipped_itself_did_not_pass() {
        let mut total = Tally { passed: 10, failed: 1, skipped: 1 };
        total += Tally::of_check(true);
        total += Tally::of_check(false);
        assert_eq!(total.with_skips(4).to_string(), "7 passed, 2 failed, 5 skipped");
    }
}
