//! Whether a target is up, by what its probes say: it takes a few results in a row to turn.

use super::intent::Check;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};
use thiserror::Error;

/// What is known of a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    state: State,
    /// Results in a row that contradict the state.
    streak: u32,
    /// When the first of them came.
    contradicted: Duration,
    last: Option<Result<(), Failure>>,
    changed: Option<Duration>,
}

/// Up or down, or not known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not probed yet; counts as down.
    #[default]
    Unknown,
    /// Takes traffic.
    Up,
    /// Takes none.
    Down,
}

impl fmt::Display for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Unknown => "unknown",
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// Why a probe failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, Error)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// The machine is there, but nothing listens.
    #[error("connection refused")]
    Refused,
    /// No answer in time.
    #[error("timed out")]
    TimedOut,
    /// There is no way to the machine.
    #[error("unreachable")]
    Unreachable,
    /// Another error of the operating system.
    #[error("{}", std::io::Error::from_raw_os_error(*.0))]
    Other(i32),
}

/// A turn of a target's health.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Whether it is up now.
    pub up: bool,
    /// How long the turn took: from the first result that contradicted the old state.
    pub after: Duration,
    /// Why it is down.
    pub reason: Option<Failure>,
}

impl Health {
    /// Of a target that was not probed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Of a target that an earlier agent held for up: so does this one, until as many probes as usual say otherwise.
    pub fn inherited_up() -> Self {
        Self { state: State::Up, ..Self::default() }
    }

    /// Whether it takes traffic.
    pub fn is_up(&self) -> bool {
        self.state == State::Up
    }

    /// Up or down, or not known yet.
    pub fn state(&self) -> State {
        self.state
    }

    /// What the last probe said.
    pub fn last(&self) -> Option<Result<(), Failure>> {
        self.last
    }

    /// When it last turned.
    pub fn changed(&self) -> Option<Duration> {
        self.changed
    }

    /// Takes the result of a probe at `now`, counted from any fixed point in time. The first result of an unknown target decides.
    pub fn on(&mut self, now: Duration, check: &Check, result: Result<(), Failure>) -> Option<Change> {
        self.last = Some(result);
        let needed = match (self.state, result) {
            (State::Up, Ok(())) | (State::Down, Err(_)) => {
                self.streak = 0;
                return None;
            }
            (State::Unknown, _) => 1,
            (State::Down, Ok(())) => check.rise,
            (State::Up, Err(_)) => check.fall,
        };
        if self.streak == 0 {
            self.contradicted = now;
        }
        self.streak += 1;
        if self.streak < needed {
            return None;
        }
        self.streak = 0;
        self.state = if result.is_ok() { State::Up } else { State::Down };
        self.changed = Some(now);
        Some(Change { up: result.is_ok(), after: now.saturating_sub(self.contradicted), reason: result.err() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHECK: Check =
        Check { interval: Duration::from_secs(1), timeout: Duration::from_millis(500), rise: 2, fall: 3 };

    /// One result a second, from the start on; the changes with their seconds.
    fn changes(health: &mut Health, results: &[Result<(), Failure>]) -> Vec<(u64, Change)> {
        let changes = (0..)
            .zip(results)
            .filter_map(|(second, result)| Some((second, health.on(Duration::from_secs(second), &CHECK, *result)?)));
        changes.collect()
    }

    fn up(after: u64) -> Change {
        Change { up: true, after: Duration::from_secs(after), reason: None }
    }

    fn down(after: u64, reason: Failure) -> Change {
        Change { up: false, after: Duration::from_secs(after), reason: Some(reason) }
    }

    const GOOD: Result<(), Failure> = Ok(());
    const BAD: Result<(), Failure> = Err(Failure::Refused);

    #[test]
    fn the_first_result_decides() {
        let mut health = Health::new();
        assert_eq!((health.state(), health.is_up()), (State::Unknown, false));
        assert_eq!(changes(&mut health, &[GOOD]), [(0, up(0))]);
        assert!(health.is_up());
        assert_eq!(changes(&mut Health::new(), &[BAD]), [(0, down(0, Failure::Refused))]);
    }

    #[test]
    fn later_it_takes_several_in_a_row() {
        let results = [GOOD, BAD, BAD, GOOD, BAD, BAD, Err(Failure::TimedOut), GOOD, BAD, GOOD, GOOD];
        let expected = [(0, up(0)), (6, down(2, Failure::TimedOut)), (10, up(1))];
        assert_eq!(changes(&mut Health::new(), &results), expected);
    }

    #[test]
    fn an_inherited_target_is_up_until_as_many_failures_as_usual() {
        let mut health = Health::inherited_up();
        assert!(health.is_up());
        assert_eq!(changes(&mut health, &[GOOD, BAD, BAD]), []);
        assert!(health.is_up());
        assert_eq!(changes(&mut Health::inherited_up(), &[BAD, BAD, BAD]), [(2, down(2, Failure::Refused))]);
    }

    #[test]
    fn it_tells_what_came_last() {
        let mut health = Health::new();
        assert_eq!((health.last(), health.changed(), health.streak), (None, None, 0));
        changes(&mut health, &[BAD, GOOD]);
        assert_eq!((health.last(), health.changed(), health.streak), (Some(GOOD), Some(Duration::ZERO), 1));
    }

    #[test]
    fn failures_are_said_in_words() {
        let failures = [Failure::Refused, Failure::TimedOut, Failure::Unreachable, Failure::Other(13)];
        let words = failures.map(|failure| failure.to_string());
        assert_eq!(words, ["connection refused", "timed out", "unreachable", "Permission denied (os error 13)"]);
    }

    /// The state after each result, by looking back over those since the last turn.
    fn naive(first: State, check: &Check, results: &[Result<(), Failure>]) -> Vec<State> {
        let (mut state, mut turned) = (first, 0);
        let mut states = Vec::new();
        for (index, result) in results.iter().enumerate() {
            let since = &results[turned..=index];
            let ends_with = |count: u32, good: bool| {
                since.len() >= count as usize
                    && since.iter().rev().take(count as usize).all(|result| result.is_ok() == good)
            };
            let next = match state {
                State::Unknown => {
                    if result.is_ok() {
                        State::Up
                    } else {
                        State::Down
                    }
                }
                State::Up => {
                    if ends_with(check.fall, false) {
                        State::Down
                    } else {
                        State::Up
                    }
                }
                State::Down => {
                    if ends_with(check.rise, true) {
                        State::Up
                    } else {
                        State::Down
                    }
                }
            };
            if next != state {
                (state, turned) = (next, index + 1);
            }
            states.push(state);
        }
        states
    }

    fn result() -> impl Strategy<Value = Result<(), Failure>> {
        prop_oneof![3 => Just(GOOD), 2 => Just(BAD), 1 => Just(Err(Failure::TimedOut))]
    }

    proptest! {
        #[test]
        fn it_goes_with_the_naive_model(
            results in prop::collection::vec((result(), 0_u64..5_000), 0..60),
            rise in 1_u32..5,
            fall in 1_u32..5,
            inherited: bool,
        ) {
            let check = Check { rise, fall, ..CHECK };
            let mut health = if inherited { Health::inherited_up() } else { Health::new() };
            let bare: Vec<_> = results.iter().map(|(result, _)| *result).collect();
            let states = naive(health.state(), &check, &bare);
            let (mut now, mut since) = (Duration::ZERO, Duration::ZERO);
            let mut succeeded = inherited;
            for ((result, pause), state) in results.into_iter().zip(states) {
                now += Duration::from_millis(pause);
                succeeded |= result.is_ok();
                let before = health;
                if before.streak == 0 {
                    since = now;
                }
                let change = health.on(now, &check, result);
                prop_assert_eq!(health.state(), state);
                prop_assert!(succeeded || !health.is_up());
                let turned = (before.state() != state).then(|| Change { up: result.is_ok(), after: now - since, reason: result.err() });
                prop_assert_eq!(change, turned);
                prop_assert_eq!(health.last(), Some(result));
            }
        }
    }
}
