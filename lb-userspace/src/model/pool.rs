//! Which of a service's backends take flows: those that are up, with the backups if these are too few, and with whom the checks
//! hold for down if that is still too few and the operator wants it so. Backups may be in several tiers (as SRV records have them):
//! of these take flows no more than it needs.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};

/// What takes a service's flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pool {
    /// The backends that are up, backups excepted.
    #[default]
    Main,
    /// The backups that are up besides.
    WithBackups,
    /// All, up or not.
    FailOpen,
    /// Those that are up, which are too few.
    BelowMinimum,
}

impl fmt::Display for Pool {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Main => "backends that are up",
            Self::WithBackups => "too few backends are up, so the backups take flows too",
            Self::FailOpen => "too few backends are up, so all take flows (fail-open)",
            Self::BelowMinimum => "fewer backends are up than should be",
        })
    }
}

/// A backend as far as it matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// It could take flows, were it up: there is a way to it, it has a weight, and nobody wants it to have none.
    pub able: bool,
    /// It is up.
    pub up: bool,
    /// 0, or a backup's: it takes flows only if in the lower ones too few are up.
    pub tier: u32,
}

impl Candidate {
    const fn is_backup(&self) -> bool {
        self.tier > 0
    }
}

/// The lowest tier up to which enough are up; if that is none, the highest.
pub fn deepest(candidates: &[Candidate], minimum: u32) -> u32 {
    let mut up = BTreeMap::<u32, usize>::new();
    for one in candidates {
        *up.entry(one.tier).or_default() += usize::from(one.able && one.up);
    }
    let mut sum = 0;
    let enough = up.iter().find(|(_, up)| {
        sum += **up;
        sum >= minimum as usize
    });
    enough.or(up.last_key_value()).map_or(0, |(tier, _)| *tier)
}

/// What takes the flows. While something is not known yet, nobody who is down is taken for up.
pub fn pool(candidates: &[Candidate], minimum: u32, fail_open: bool, undecided: bool) -> Pool {
    let healthy = |backups: bool| {
        let count = candidates.iter().filter(|one| one.able && one.up && (backups || !one.is_backup())).count();
        count >= minimum as usize
    };
    let has_backups = candidates.iter().any(Candidate::is_backup);
    if healthy(false) {
        Pool::Main
    } else if has_backups && healthy(true) {
        Pool::WithBackups
    } else if fail_open && !undecided {
        Pool::FailOpen
    } else if has_backups && candidates.iter().any(|one| one.able && one.up && one.is_backup()) {
        Pool::WithBackups
    } else {
        Pool::BelowMinimum
    }
}

impl Pool {
    /// Whether a backend takes flows; `deepest` is what [`deepest`] says.
    pub const fn takes(self, one: &Candidate, deepest: u32) -> bool {
        one.able
            && match self {
                Self::Main | Self::BelowMinimum => one.up && !one.is_backup(),
                Self::WithBackups => one.up && one.tier <= deepest,
                Self::FailOpen => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UP: Candidate = Candidate { able: true, up: true, tier: 0 };
    const DOWN: Candidate = Candidate { up: false, ..UP };
    const DRAINED: Candidate = Candidate { able: false, ..UP };
    const BACKUP: Candidate = Candidate { tier: 1, ..UP };
    const BACKUP_DOWN: Candidate = Candidate { tier: 1, ..DOWN };

    #[test]
    fn who_takes_flows() {
        let cases: [(&[Candidate], u32, bool, Pool); 10] = [
            (&[UP, DOWN], 1, false, Pool::Main),
            (&[DOWN, DOWN], 1, false, Pool::BelowMinimum),
            (&[DOWN, DOWN], 1, true, Pool::FailOpen),
            (&[UP, DOWN, DOWN], 2, true, Pool::FailOpen),
            (&[UP, DOWN, DOWN], 2, false, Pool::BelowMinimum),
            (&[UP, BACKUP], 1, true, Pool::Main),
            (&[DOWN, BACKUP], 1, true, Pool::WithBackups),
            (&[UP, DOWN, BACKUP, BACKUP_DOWN], 3, false, Pool::WithBackups),
            (&[UP, DOWN, BACKUP, BACKUP_DOWN], 3, true, Pool::FailOpen),
            (&[DRAINED, DRAINED], 1, true, Pool::FailOpen),
        ];
        for (candidates, minimum, fail_open, expected) in cases {
            assert_eq!(pool(candidates, minimum, fail_open, false), expected, "{candidates:?}");
        }
        assert_eq!(pool(&[DOWN], 1, true, true), Pool::BelowMinimum);
        assert!(!Pool::FailOpen.takes(&DRAINED, 1) && Pool::FailOpen.takes(&BACKUP_DOWN, 0));
        assert!(
            !Pool::Main.takes(&BACKUP, 1) && Pool::WithBackups.takes(&BACKUP, 1) && !Pool::WithBackups.takes(&DOWN, 1)
        );
    }

    #[test]
    fn of_several_tiers_no_more_serve_than_it_needs() {
        let tier = |tier: u32, up: bool| Candidate { able: true, up, tier };
        let cases: [(&[Candidate], u32, u32); 6] = [
            (&[tier(0, true), tier(1, true), tier(2, true)], 1, 0),
            (&[tier(0, false), tier(1, true), tier(2, true)], 1, 1),
            (&[tier(0, false), tier(1, false), tier(2, true)], 1, 2),
            (&[tier(0, true), tier(1, false), tier(2, true), tier(3, true)], 2, 2),
            (&[tier(0, false), tier(1, false), tier(2, false)], 1, 2),
            (&[], 1, 0),
        ];
        for (candidates, minimum, expected) in cases {
            assert_eq!(deepest(candidates, minimum), expected, "{candidates:?}");
        }
    }

    proptest! {
        #[test]
        fn laws(
            candidates in prop::collection::vec((any::<bool>(), any::<bool>(), 0_u32..4), 0..8),
            minimum in 1_u32..6,
            fail_open: bool,
            undecided: bool,
        ) {
            let candidates: Vec<_> =
                candidates.into_iter().map(|(able, up, tier)| Candidate { able, up, tier }).collect();
            let deepest = deepest(&candidates, minimum);
            let pool = pool(&candidates, minimum, fail_open, undecided);
            let main_up = candidates.iter().filter(|one| one.able && one.up && !one.is_backup()).count() as u32;
            let takes: Vec<_> = candidates.iter().filter(|one| pool.takes(one, deepest)).collect();
            // Backups have no flows while enough of the lower tiers are up, and all who are up in those that it needs have some.
            prop_assert_eq!(main_up >= minimum, pool == Pool::Main);
            if main_up >= minimum {
                prop_assert!(takes.iter().all(|one| one.up && !one.is_backup()));
            } else {
                let able = || candidates.iter().filter(|one| one.able && one.up);
                prop_assert!(able().filter(|one| one.tier <= deepest).all(|one| pool.takes(one, deepest)));
                let lower = able().filter(|one| one.tier < deepest).count() as u32;
                prop_assert!(lower < minimum, "a tier serves though those below are enough");
            }
            // Nobody who is down takes flows but by the operator's wish.
            prop_assert!(fail_open && !undecided || takes.iter().all(|one| one.up));
            prop_assert!(takes.iter().all(|one| one.able));
        }
    }
}
