//! Which of a service's backends take flows: those that are up, with the backups if these are too few, and with whom the checks
//! hold for down if that is still too few and the operator wants it so.

use serde::{Deserialize, Serialize};
use std::fmt;

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
    /// It is a backup.
    pub backup: bool,
}

/// What takes the flows. While something is not known yet, nobody who is down is taken for up.
pub fn pool(candidates: &[Candidate], minimum: u32, fail_open: bool, undecided: bool) -> Pool {
    let healthy = |backups: bool| {
        let count = candidates.iter().filter(|one| one.able && one.up && (backups || !one.backup)).count();
        count >= minimum as usize
    };
    let has_backups = candidates.iter().any(|one| one.backup);
    if healthy(false) {
        Pool::Main
    } else if has_backups && healthy(true) {
        Pool::WithBackups
    } else if fail_open && !undecided {
        Pool::FailOpen
    } else if has_backups && candidates.iter().any(|one| one.able && one.up && one.backup) {
        Pool::WithBackups
    } else {
        Pool::BelowMinimum
    }
}

impl Pool {
    /// Whether a backend takes flows.
    pub const fn takes(self, one: &Candidate) -> bool {
        one.able
            && match self {
                Self::Main | Self::BelowMinimum => one.up && !one.backup,
                Self::WithBackups => one.up,
                Self::FailOpen => true,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const UP: Candidate = Candidate { able: true, up: true, backup: false };
    const DOWN: Candidate = Candidate { up: false, ..UP };
    const DRAINED: Candidate = Candidate { able: false, ..UP };
    const BACKUP: Candidate = Candidate { backup: true, ..UP };
    const BACKUP_DOWN: Candidate = Candidate { backup: true, ..DOWN };

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
        assert!(!Pool::FailOpen.takes(&DRAINED) && Pool::FailOpen.takes(&BACKUP_DOWN));
        assert!(!Pool::Main.takes(&BACKUP) && Pool::WithBackups.takes(&BACKUP) && !Pool::WithBackups.takes(&DOWN));
    }

    proptest! {
        #[test]
        fn laws(
            candidates in prop::collection::vec((any::<bool>(), any::<bool>(), any::<bool>()), 0..8),
            minimum in 1_u32..6,
            fail_open: bool,
            undecided: bool,
        ) {
            let candidates: Vec<_> =
                candidates.into_iter().map(|(able, up, backup)| Candidate { able, up, backup }).collect();
            let pool = pool(&candidates, minimum, fail_open, undecided);
            let main_up = candidates.iter().filter(|one| one.able && one.up && !one.backup).count() as u32;
            let takes: Vec<_> = candidates.iter().filter(|one| pool.takes(one)).collect();
            // Backups have no flows while enough of the others are up, and all who are up have some otherwise.
            prop_assert_eq!(main_up >= minimum, pool == Pool::Main);
            if main_up >= minimum {
                prop_assert!(takes.iter().all(|one| one.up && !one.backup));
            } else {
                prop_assert!(candidates.iter().filter(|one| one.able && one.up).all(|one| pool.takes(one)));
            }
            // Nobody who is down takes flows but by the operator's wish.
            prop_assert!(fail_open && !undecided || takes.iter().all(|one| one.up));
            prop_assert!(takes.iter().all(|one| one.able));
        }
    }
}
