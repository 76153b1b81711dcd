//! When a target is probed next.

use super::target::Check;
use std::time::Duration;

/// From the start of the probe of this round, counted from zero, to the next. `draw` is any number by chance.
///
/// Targets of one config are all probed at once at the start. Their second probes are spread over the whole interval, so that from then
/// on each has a time of its own; a longer pause than the interval's there is none but by the jitter.
pub fn pause(check: &Check, round: u64, draw: u64) -> Duration {
    let interval = check.interval.max(Duration::from_millis(1));
    if check.jitter == 0 {
        return interval;
    }
    // A number from 0 up to, but not including, 1,000.
    let part = ((u128::from(draw) * 1_000) >> 64) as u32;
    if round == 0 {
        // Not at once: what answered a moment ago does so again, and that says nothing.
        return interval / 2 + interval / 2 * part / 1_000;
    }
    let most = interval / 100 * check.jitter;
    interval - most + most * 2 * part / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_jitter_it_is_the_interval() {
        let check = Check { jitter: 0, ..Check::default() };
        for round in 0..3 {
            assert_eq!(pause(&check, round, u64::MAX), Duration::from_secs(1));
        }
    }

    #[test]
    fn many_targets_are_spread() {
        let check = Check::default();
        let draw = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for round in [0, 1] {
            let mut tenths = [0; 20];
            for number in 0..5_000 {
                tenths[pause(&check, round, draw(number)).as_millis() as usize / 100] += 1;
            }
            let busiest = tenths.iter().max().unwrap();
            assert!(*busiest < if round == 0 { 1_200 } else { 2_700 }, "{tenths:?}");
        }
    }

    proptest! {
        #[test]
        fn it_is_never_off_by_more_than_the_jitter(interval in 1_u64..86_400_000, jitter in 1_u32..=50, round: u64, draw: u64) {
            let interval = Duration::from_millis(interval);
            let check = Check { interval, jitter, ..Check::default() };
            let pause = pause(&check, round, draw);
            let most = interval * jitter / 100;
            prop_assert!(pause <= interval + most && pause >= if round == 0 { interval / 2 } else { interval - most }, "{pause:?}");
            prop_assert!(pause > Duration::ZERO);
        }
    }
}
