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

    /// How many results in a row contradict the state.
    pub fn streak(&self) -> u32 {
        self.streak
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
