//! Whether a target is up, by what its probes say: it takes a few results in a row to turn, and who turns too often is held down.

use super::target::{Check, Damping};
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, fmt, time::Duration};
use thiserror::Error;

/// What is known of a target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    state: State,
    /// Results in a row that contradict the state.
    streak: u32,
    /// When the first of them came.
    contradicted: Duration,
    last: Option<Result<(), Failure>>,
    changed: Option<Duration>,
    /// Since when it is up again, having been down.
    recovered: Option<Duration>,
    /// None before its first turn that counts for damping: there may be a million targets, few of which flap.
    flaps: Option<Box<Flaps>>,
}

/// How often a target went down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Flaps {
    /// When, as far as that counts.
    downs: VecDeque<Duration>,
    /// Until then it is held down.
    held: Option<Duration>,
    /// How often in a row it was.
    holds: u32,
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
    /// The connection ended before there was an answer.
    #[error("the connection was closed")]
    Closed,
    /// What came is no answer of the protocol.
    #[error("not an answer of the protocol")]
    Protocol,
    /// No connection by TLS came about.
    #[error("no TLS")]
    Tls,
    /// The certificate is not accepted.
    #[error("the certificate is not accepted")]
    Certificate,
    /// Another HTTP status than those that are right.
    #[error("status {0}")]
    Status(u16),
    /// The page has not what it should have.
    #[error("the page is another one")]
    Body,
    /// Another DNS response code than the right one.
    #[error("response code {0}")]
    Code(u16),
    /// Another answer than the right one.
    #[error("another answer")]
    Answer,
    /// The target's agent said so.
    #[error("its agent says so")]
    Told,
    /// Another error of the operating system.
    #[error("{}", std::io::Error::from_raw_os_error(*.0))]
    Other(i32),
}

impl Failure {
    /// How many of it in a row take a target down: what the target says itself counts at once.
    fn needed(self, check: &Check) -> u32 {
        if self == Self::Told { 1 } else { check.fall }
    }
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
    /// For how long it is held down, if it turned too often.
    pub held: Option<Duration>,
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

    /// Since when it is up again, if it has been down before. The first result of all is no recovery: when an agent starts, all
    /// targets come up, and none of them is new.
    pub fn recovered(&self) -> Option<Duration> {
        self.recovered
    }

    /// For how much longer it is held down.
    pub fn held(&self, now: Duration) -> Option<Duration> {
        self.held_until().map(|until| until.saturating_sub(now)).filter(|left| !left.is_zero())
    }

    fn held_until(&self) -> Option<Duration> {
        self.flaps.as_ref()?.held
    }

    /// Results in a row that contradict the state.
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
            (State::Up, Err(failure)) => failure.needed(check),
        };
        if self.streak == 0 {
            self.contradicted = now;
        }
        self.streak = self.streak.saturating_add(1);
        if self.streak < needed || result.is_ok() && self.held_until().is_some_and(|until| now < until) {
            return None;
        }
        self.streak = 0;
        if let Some(flaps) = &mut self.flaps {
            flaps.held = None;
        }
        let damping = check.damping.filter(|_| self.state == State::Up);
        if let (Err(_), Some(damping)) = (result, damping) {
            self.flaps.get_or_insert_default().damp(now, self.changed, &damping);
        }
        self.recovered = (result.is_ok() && self.state == State::Down).then_some(now);
        self.state = if result.is_ok() { State::Up } else { State::Down };
        self.changed = Some(now);
        let after = now.saturating_sub(self.contradicted);
        Some(Change { up: result.is_ok(), after, reason: result.err(), held: self.held(now) })
    }
}

impl Flaps {
    /// Notes a turn to down of what has been up since `up`, and holds it there if there were too many. Who was held and has not been up for a whole window since is
    /// held again with its next turn: a hold may be longer than the window, and then no older turns are in it.
    fn damp(&mut self, now: Duration, up: Option<Duration>, damping: &Damping) {
        let Damping { turns, window, hold, most } = *damping;
        if up.is_none_or(|up| now.saturating_sub(up) >= window) {
            self.holds = 0;
        }
        self.downs.retain(|down| now.saturating_sub(*down) < window);
        self.downs.push_back(now);
        if self.downs.len() >= turns as usize || self.holds > 0 {
            // More of them say nothing more.
            let more = self.downs.len().saturating_sub(turns as usize);
            self.downs.drain(..more);
            self.held = Some(now + hold.saturating_mul(1 << self.holds.min(20)).min(most));
            self.holds = self.holds.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check() -> Check {
        Check { rise: 2, fall: 3, ..Check::default() }
    }

    /// One result a second, from the start on; the changes with their seconds.
    fn changes(health: &mut Health, results: &[Result<(), Failure>]) -> Vec<(u64, Change)> {
        let changes = (0..)
            .zip(results)
            .filter_map(|(second, result)| Some((second, health.on(Duration::from_secs(second), &check(), *result)?)));
        changes.collect()
    }

    fn up(after: u64) -> Change {
        Change { up: true, after: Duration::from_secs(after), reason: None, held: None }
    }

    fn down(after: u64, reason: Failure) -> Change {
        Change { up: false, after: Duration::from_secs(after), reason: Some(reason), held: None }
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
        let failures = [Failure::Refused, Failure::TimedOut, Failure::Status(503), Failure::Other(13)];
        let words = failures.map(|failure| failure.to_string());
        assert_eq!(words, ["connection refused", "timed out", "status 503", "Permission denied (os error 13)"]);
    }

    #[test]
    fn what_the_target_says_itself_counts_at_once() {
        let mut health = Health::inherited_up();
        assert_eq!(changes(&mut health, &[Err(Failure::Told)]), [(0, down(0, Failure::Told))]);
    }

    #[test]
    fn only_who_was_down_recovers() {
        let mut health = Health::new();
        changes(&mut health, &[GOOD]);
        assert_eq!(health.recovered(), None);
        let mut health = Health::new();
        changes(&mut health, &[BAD, GOOD, GOOD, GOOD]);
        assert_eq!(health.recovered(), Some(Duration::from_secs(2)));
    }

    fn damped() -> Check {
        let [window, hold, most] = [60, 30, 100].map(Duration::from_secs);
        Check { rise: 1, fall: 1, damping: Some(Damping { turns: 3, window, hold, most }), ..Check::default() }
    }

    /// The seconds at which it turned, with for how long it was held; it was asked every second and answered as `good` says.
    fn turns(check: &Check, seconds: u64, good: impl Fn(u64) -> bool) -> Vec<(u64, bool, Option<u64>)> {
        let mut health = Health::new();
        let turn = |second| {
            let result = if good(second) { GOOD } else { BAD };
            let change = health.on(Duration::from_secs(second), check, result)?;
            Some((second, change.up, change.held.map(|held| held.as_secs())))
        };
        (0..seconds).filter_map(turn).collect()
    }

    #[test]
    fn who_flaps_is_held_down_for_longer_and_longer_but_not_for_ever() {
        // It fails every fifth second.
        let turns = turns(&damped(), 330, |second| second % 5 != 4);
        let expected = [
            (0, true, None),
            (4, false, None),
            (5, true, None),
            (9, false, None),
            (10, true, None),
            (14, false, Some(30)),
            // At the end of the hold it fails; the next result is good.
            (45, true, None),
            (49, false, Some(60)),
            (110, true, None),
            (114, false, Some(100)),
            (215, true, None),
            (219, false, Some(100)),
            (320, true, None),
            (324, false, Some(100)),
        ];
        assert_eq!(turns, expected);
    }

    #[test]
    fn who_stays_up_for_a_window_begins_anew() {
        let bad = [4, 9, 14, 110, 115, 120];
        let turns = turns(&damped(), 160, |second| !bad.contains(&second));
        let held: Vec<_> = turns.iter().filter(|(_, up, _)| !up).map(|(second, _, held)| (*second, *held)).collect();
        assert_eq!(held, [(4, None), (9, None), (14, Some(30)), (110, None), (115, None), (120, Some(30))]);
    }

    #[test]
    fn who_goes_down_seldom_is_not_held() {
        assert!(turns(&damped(), 1_000, |second| second % 31 != 0).iter().all(|(_, _, held)| held.is_none()));
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
            let check = Check { rise, fall, ..Check::default() };
            let mut health = if inherited { Health::inherited_up() } else { Health::new() };
            let bare: Vec<_> = results.iter().map(|(result, _)| *result).collect();
            let states = naive(health.state(), &check, &bare);
            let (mut now, mut since) = (Duration::ZERO, Duration::ZERO);
            let mut succeeded = inherited;
            for ((result, pause), state) in results.into_iter().zip(states) {
                now += Duration::from_millis(pause);
                succeeded |= result.is_ok();
                let before = health.clone();
                if before.streak == 0 {
                    since = now;
                }
                let change = health.on(now, &check, result);
                prop_assert_eq!(health.state(), state);
                prop_assert!(succeeded || !health.is_up());
                let turned = (before.state() != state).then(|| Change { up: result.is_ok(), after: now - since, reason: result.err(), held: None });
                prop_assert_eq!(change, turned);
                prop_assert_eq!(health.last(), Some(result));
            }
        }

        #[test]
        fn damping_only_delays_the_way_up(
            results in prop::collection::vec((result(), 0_u64..20), 0..120),
            turns in 1_u32..4,
            window in 1_u64..100,
            hold in 1_u64..50,
            most in 50_u64..100,
        ) {
            let [window, hold, most] = [window, hold, most].map(Duration::from_secs);
            let plain = Check { rise: 1, fall: 1, ..Check::default() };
            let damped = Check { damping: Some(Damping { turns, window, hold, most }), ..plain.clone() };
            let (mut with, mut without) = (Health::new(), Health::new());
            let mut now = Duration::ZERO;
            let mut downs: Vec<Duration> = Vec::new();
            let mut held_until = Duration::ZERO;
            for (result, pause) in results {
                now += Duration::from_secs(pause);
                let was_up = with.is_up();
                let change = with.on(now, &damped, result);
                without.on(now, &plain, result);
                prop_assert!(without.is_up() || !with.is_up());
                // Nobody is down without being held whose last result was good.
                prop_assert_eq!(with.is_up(), without.is_up() && now >= held_until);
                if let Some(Change { up: false, held, .. }) = change && was_up {
                    downs.push(now);
                    let in_window = downs.iter().filter(|down| now - **down < window).count();
                    prop_assert!(in_window < turns as usize || held.is_some());
                    prop_assert!(held.is_none_or(|held| held >= hold.min(most) && held <= most));
                    held_until = now + held.unwrap_or_default();
                }
            }
        }
    }
}
