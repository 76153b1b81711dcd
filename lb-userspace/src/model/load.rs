//! How much of its weight a target takes: slow start, and what the agent on it says (HAProxy's agent-check).

use super::target::AgentCheck;
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// The whole weight.
pub const WHOLE: u32 = 1_000;
/// A slow start begins with this part of the weight.
const FIRST: u32 = 100;
/// In so many steps it rises to the whole: each moves slots, and with them the flows that are not tracked yet.
const STEPS: u32 = 10;
/// Percent that an agent may say; more would leave the others next to nothing.
const MOST_PERCENT: u32 = 1_000;

/// How much of its weight a target takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The part of the weight, in thousandths.
    pub per_mille: u32,
    /// It takes no new flows, and keeps those that it has.
    pub drains: bool,
    /// It said itself that it is down.
    pub down: bool,
}

impl Default for Load {
    fn default() -> Self {
        Self { per_mille: WHOLE, drains: false, down: false }
    }
}

impl Load {
    /// Of two that both hold.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let per_mille = u64::from(self.per_mille) * u64::from(other.per_mille) / u64::from(WHOLE);
        Self {
            per_mille: u32::try_from(per_mille).unwrap_or(u32::MAX),
            drains: self.drains || other.drains,
            down: self.down || other.down,
        }
    }
}

/// The part of its weight that a target takes which came back at `since`, and when that changes next.
pub fn slow_start(since: Duration, length: Duration, now: Duration) -> (u32, Option<Duration>) {
    let gone = now.saturating_sub(since);
    if gone >= length {
        return (WHOLE, None);
    }
    // Not by floating point: at the time of a step the step has to be taken.
    let step = (gone.as_nanos() * u128::from(STEPS) / length.as_nanos()) as u32;
    let next = since + length * (step + 1) / STEPS;
    let next = if (next - since).as_nanos() * u128::from(STEPS) < length.as_nanos() * u128::from(step + 1) {
        next + Duration::from_nanos(1)
    } else {
        next
    };
    (FIRST + (WHOLE - FIRST) * step / STEPS, Some(next))
}

/// What an agent said, as far as it was understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// Percent of the weight.
    pub percent: Option<u32>,
    /// What its operator wants of it.
    pub wish: Option<Wish>,
    /// Whether it is up.
    pub up: Option<bool>,
}

/// What the operator of a target wants of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wish {
    /// It takes flows.
    #[default]
    Ready,
    /// It takes no new ones.
    Drain,
    /// It takes none.
    Maint,
}

impl Said {
    /// Reads a line such as `up 75%`, `drain` or `down # disk full`: words between blanks or commas; what stands behind `#` is for
    /// people. Nothing if no word of it is known.
    pub fn read(line: &str) -> Option<Self> {
        let words = line.split(['\r', '\n']).next().unwrap_or_default().split('#').next().unwrap_or_default();
        let mut said = Self::default();
        for word in words.split([' ', '\t', ',']) {
            match word.to_ascii_lowercase().as_str() {
                "ready" => said.wish = Some(Wish::Ready),
                "drain" => said.wish = Some(Wish::Drain),
                "maint" => said.wish = Some(Wish::Maint),
                "up" => said.up = Some(true),
                "down" | "fail" | "failed" | "stopped" => said.up = Some(false),
                word => {
                    let percent = word.strip_suffix('%').and_then(|number| number.parse::<u32>().ok());
                    said.percent = percent.map(|percent| percent.min(MOST_PERCENT)).or(said.percent);
                }
            }
        }
        (said != Self::default()).then_some(said)
    }
}

/// What holds of all that an agent has said: each word does until another takes its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Voice {
    wish: Wish,
    up: bool,
    percent: u32,
}

impl Default for Voice {
    fn default() -> Self {
        Self { wish: Wish::Ready, up: true, percent: 100 }
    }
}

impl Voice {
    /// Takes what it says now. The percentage is taken over only if it differs enough from what holds, and never below the floor.
    pub fn hear(&mut self, said: &Said, check: &AgentCheck) {
        self.wish = said.wish.unwrap_or(self.wish);
        self.up = said.up.unwrap_or(self.up);
        if let Some(percent) = said.percent.map(|percent| percent.max(check.floor)) {
            let crosses_zero = (percent == 0) != (self.percent == 0);
            if crosses_zero || percent.abs_diff(self.percent) >= check.step {
                self.percent = percent;
            }
        }
    }

    /// Whether it can take flows.
    pub fn is_up(&self) -> bool {
        self.up && self.wish != Wish::Maint
    }

    /// What follows for its weight.
    pub fn load(&self) -> Load {
        Load { per_mille: self.percent * WHOLE / 100, drains: self.wish == Wish::Drain, down: !self.is_up() }
    }
}

impl fmt::Display for Voice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let wish = match self.wish {
            Wish::Ready => "ready",
            Wish::Drain => "drain",
            Wish::Maint => "maint",
        };
        write!(formatter, "{} {wish} {}%", if self.up { "up" } else { "down" }, self.percent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CHECK: AgentCheck = AgentCheck { send: None, floor: 10, step: 5 };

    fn said(percent: Option<u32>, wish: Option<Wish>, up: Option<bool>) -> Option<Said> {
        Some(Said { percent, wish, up })
    }

    #[test]
    fn lines_of_agents() {
        let lines = [
            ("75%\n", said(Some(75), None, None)),
            ("up ready 100%\r\n", said(Some(100), Some(Wish::Ready), Some(true))),
            ("DRAIN,5%", said(Some(5), Some(Wish::Drain), None)),
            ("maint # until Tuesday 50%", said(None, Some(Wish::Maint), None)),
            ("down\ndrain", said(None, None, Some(false))),
            ("stopped", said(None, None, Some(false))),
            ("fail#up", said(None, None, Some(false))),
            ("99999%", said(Some(1_000), None, None)),
            ("maxconn:30 up", said(None, None, Some(true))),
            ("", None),
            ("hello", None),
            ("-5%", None),
            ("%", None),
            ("# up", None),
        ];
        for (line, expected) in lines {
            assert_eq!(Said::read(line), expected, "{line}");
        }
    }

    fn heard(lines: &[&str]) -> (String, Load) {
        let mut voice = Voice::default();
        for line in lines {
            voice.hear(&Said::read(line).unwrap(), &CHECK);
        }
        (voice.to_string(), voice.load())
    }

    #[test]
    fn each_word_holds_until_another_takes_its_place() {
        let load = |per_mille, drains, down| Load { per_mille, drains, down };
        let cases: [(&[&str], &str, Load); 9] = [
            (&[], "up ready 100%", load(1_000, false, false)),
            (&["50%"], "up ready 50%", load(500, false, false)),
            (&["drain", "50%"], "up drain 50%", load(500, true, false)),
            (&["drain", "up"], "up drain 100%", load(1_000, true, false)),
            (&["drain", "ready"], "up ready 100%", load(1_000, false, false)),
            (&["maint", "up"], "up maint 100%", load(1_000, false, true)),
            (&["down 50%", "ready"], "down ready 50%", load(500, false, true)),
            (&["down", "up"], "up ready 100%", load(1_000, false, false)),
            (&["250%"], "up ready 250%", load(2_500, false, false)),
        ];
        for (lines, expected, load) in cases {
            assert_eq!(heard(lines), (expected.into(), load), "{lines:?}");
        }
    }

    #[test]
    fn weights_have_a_floor_and_hysteresis() {
        assert_eq!(heard(&["0%"]).0, "up ready 10%");
        assert_eq!(heard(&["96%"]).0, "up ready 100%");
        assert_eq!(heard(&["95%", "91%", "99%"]).0, "up ready 95%");
        assert_eq!(heard(&["95%", "100%"]).0, "up ready 100%");
        // Without a floor, none is none at once.
        let mut voice = Voice { percent: 3, ..Voice::default() };
        let check = AgentCheck { floor: 0, ..CHECK };
        for (line, percent) in [("0%", 0), ("1%", 1), ("5%", 1), ("6%", 6)] {
            voice.hear(&Said::read(line).unwrap(), &check);
            assert_eq!(voice.percent, percent);
        }
    }

    #[test]
    fn a_slow_start_takes_ten_steps() {
        let (since, length) = (Duration::from_secs(100), Duration::from_secs(10));
        let at = |seconds| slow_start(since, length, Duration::from_secs(seconds));
        assert_eq!(at(100), (100, Some(Duration::from_secs(101))));
        assert_eq!(at(101), (190, Some(Duration::from_secs(102))));
        assert_eq!(at(109), (910, Some(Duration::from_secs(110))));
        assert_eq!(at(110), (1_000, None));
        assert_eq!(slow_start(since, Duration::ZERO, since), (1_000, None));
    }

    #[test]
    fn loads_are_multiplied() {
        let half = Load { per_mille: 500, ..Load::default() };
        let drains = Load { drains: true, ..Load::default() };
        assert_eq!(half.and(half), Load { per_mille: 250, ..half });
        assert_eq!(half.and(drains), Load { per_mille: 500, drains: true, down: false });
        let huge = Load { per_mille: u32::MAX, ..half };
        assert_eq!(huge.and(huge).per_mille, u32::MAX);
    }

    proptest! {
        #[test]
        fn a_slow_start_only_rises_and_says_when(since in 0_u64..1 << 40, length in 1_u64..1 << 40) {
            let (since, length) = (Duration::from_nanos(since), Duration::from_nanos(length));
            let (mut now, mut steps, mut before) = (since, 0, 0);
            loop {
                let (part, next) = slow_start(since, length, now);
                prop_assert!(part > before && part <= WHOLE);
                before = part;
                let Some(next) = next else { break };
                prop_assert!(next > now);
                if next - now > Duration::from_nanos(1) {
                    prop_assert_eq!(slow_start(since, length, next - Duration::from_nanos(1)).0, part);
                }
                now = next;
                steps += 1;
            }
            prop_assert_eq!(before, WHOLE);
            prop_assert!(steps <= STEPS && now <= since + length + Duration::from_nanos(1));
        }

        #[test]
        fn no_line_is_too_odd(line in ".{0,80}") {
            let mut voice = Voice::default();
            if let Some(said) = Said::read(&line) {
                voice.hear(&said, &CHECK);
            }
            prop_assert!(voice.load().per_mille <= MOST_PERCENT * 10 && voice.load().per_mille >= 100);
        }
    }
}
