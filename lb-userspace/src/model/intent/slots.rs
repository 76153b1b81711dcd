//! Sizes of slot tables. They are primes, so that every number has an inverse, which orders are made of (see [`crate::model::maglev`]).

use std::ops::RangeInclusive;

/// Sizes that a table can have.
pub(super) const SIZES: RangeInclusive<u32> = 251..=65_537;
/// A backend with a smaller exact share than this could end up without a slot.
const LEAST_SHARE: u64 = 2;
/// Slots for each backend that a table has by default: one slot more or less is then about 1 % of a backend's share.
const SLOTS_PER_BACKEND: usize = 100;
/// Sizes that a table has by default: few, and far apart, so that adding a backend seldom changes the size, which moves most flows.
const DEFAULTS: [u32; 9] = [251, 509, 1_009, 2_003, 4_001, 8_009, 16_001, 32_003, 65_537];

/// The size for this many backends.
pub(super) fn default_size(backends: usize) -> u32 {
    let wanted = backends.saturating_mul(SLOTS_PER_BACKEND);
    let enough = DEFAULTS.into_iter().find(|size| usize::try_from(*size).is_ok_and(|size| size >= wanted));
    enough.unwrap_or(*SIZES.end())
}

/// Whether it has no divisors.
pub(super) fn is_prime(number: u32) -> bool {
    number > 1 && (2..).take_while(|divisor| divisor * divisor <= number).all(|divisor| !number.is_multiple_of(divisor))
}

/// The smallest size of at least `slots`, if there is one.
pub(super) fn size_from(slots: u64) -> Option<u32> {
    let slots = u32::try_from(slots).ok()?;
    (slots.max(*SIZES.start())..=*SIZES.end()).find(|size| is_prime(*size))
}

/// The least number of slots in which a backend with this weight, not zero, out of this total is sure of one.
pub(super) fn least_slots(weight: u32, total: u64) -> u64 {
    (LEAST_SHARE * total).div_ceil(weight.into())
}

/// The number of slots from which on the exact share of this weight, not zero, out of this total is a whole slot: with fewer it
/// may get none.
pub(super) fn enough_for_one(weight: u32, total: u64) -> u32 {
    u32::try_from(total.div_ceil(weight.into())).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_sizes_are_primes_within_the_range() {
        assert!(DEFAULTS.iter().all(|size| is_prime(*size) && SIZES.contains(size)));
        assert!(DEFAULTS.is_sorted());
        assert_eq!((DEFAULTS.first(), DEFAULTS.last()), (Some(SIZES.start()), Some(SIZES.end())));
    }

    #[test]
    fn a_default_size_has_a_hundred_slots_a_backend_until_the_largest() {
        let sizes = [0, 1, 2, 3, 5, 6, 10, 11, 320, 321, 655, 656, usize::MAX].map(default_size);
        assert_eq!(sizes, [251, 251, 251, 509, 509, 1_009, 1_009, 2_003, 32_003, 65_537, 65_537, 65_537, 65_537]);
    }

    #[test]
    fn primes_are_told_from_other_numbers() {
        let primes: Vec<u32> = (0..40).filter(|number| is_prime(*number)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37]);
        assert!(is_prime(65_537) && is_prime(251) && !is_prime(251 * 251));
    }

    #[test]
    fn the_next_size_is_a_prime_or_none() {
        assert_eq!(size_from(0), Some(251));
        assert_eq!(size_from(1_000), Some(1_009));
        assert_eq!(size_from(65_522), Some(65_537));
        assert_eq!(size_from(65_538), None);
        assert_eq!(size_from(u64::MAX), None);
    }

    #[test]
    fn the_least_slots_give_a_share_of_two() {
        assert_eq!(least_slots(1, 3), 6);
        assert_eq!(least_slots(3, 10), 7);
        assert_eq!(least_slots(u32::MAX, u64::from(u32::MAX)), 2);
    }
}
