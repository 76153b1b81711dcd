use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const NAME: &[u8] = b"\x03www\x07example\x03com\0";

fn with_weights(weights: &[u32]) -> Vec<Address> {
    let address = |(number, weight): (u8, &u32)| Address {
        address: [192, 0, 2, number].into(),
        weight: *weight,
        tier: 1,
        target: None,
    };
    (1..).zip(weights).map(address).collect()
}

fn by_policy(policy: Policy, addresses: &[Address]) -> Rendered {
    super::addresses(NAME, 30, policy, &addresses.iter().collect::<Vec<_>>())
}

/// The last bytes of a body's addresses.
fn numbers(body: &Body) -> Vec<u8> {
    body.records.chunks(16).map(|record| record[15]).collect()
}

#[test]
fn a_set_of_addresses_is_one_body_whose_records_take_turns() {
    let rendered = by_policy(Policy::RoundRobin, &with_weights(&[1; 3]));
    assert_eq!((rendered.pick, &rendered.slots[..]), (Pick::Turn, &[][..]));
    let [body] = &rendered.bodies[..] else { panic!("{rendered:?}") };
    assert_eq!((numbers(body), body.turns, body.counts), (vec![1, 2, 3], 3, [3, 0, 0]));
    assert_eq!((body.flags, body.spent_at, body.class), (0x8400, u64::MAX, 0));
    for policy in [Policy::RoundRobin, Policy::Shuffle, Policy::Weighted, Policy::Sticky, Policy::Failover] {
        let one = by_policy(policy, &with_weights(&[1]));
        assert_eq!((one.pick, one.slots.len(), one.bodies.len(), one.bodies[0].turns), (Pick::Only, 0, 1, 0));
    }
}

#[test]
fn records_of_other_lengths_are_rendered_once_for_each_rotation() {
    let data = ["a", "bb", "ccc"].map(|text| Data::txt(&[text]));
    let rendered = set(NAME, 30, &data.each_ref().map(Data::view));
    assert_eq!((rendered.pick, &rendered.slots[..]), (Pick::Turn, &[0, 1, 2][..]));
    let firsts: Vec<u8> = rendered.bodies.iter().map(|body| body.records[13]).collect();
    assert_eq!(firsts, *b"abc");
    assert!(rendered.bodies.iter().all(|body| body.turns == 0 && body.counts == [3, 0, 0]));
    // Equally long, but every second one would begin at an odd offset.
    let odd = ["aa", "bb"].map(|text| Data::txt(&[text]));
    assert_eq!(set(NAME, 30, &odd.each_ref().map(Data::view)).bodies.len(), 2);
    let even = ["a", "b"].map(|text| Data::txt(&[text]));
    assert_eq!(set(NAME, 30, &even.each_ref().map(Data::view)).bodies[0].turns, 2);
    let many: Vec<Data> = (0..40).map(|length| Data::txt(&["x".repeat(length)])).collect();
    let rendered = set(NAME, 30, &many.iter().map(Data::view).collect::<Vec<_>>());
    assert_eq!((rendered.pick, rendered.bodies.len(), rendered.slots.len()), (Pick::Only, 1, 0));
}

#[test]
fn orders_of_a_shuffle_are_no_rotations_of_each_other() {
    for (count, orders) in [(2, 1), (3, 2), (4, 6), (5, 8), (16, 8)] {
        let rendered = by_policy(Policy::Shuffle, &with_weights(&vec![1; count]));
        assert_eq!((rendered.pick, rendered.bodies.len()), (Pick::Random, orders));
        assert_eq!(rendered.slots, (0..orders as u16).filter(|_| orders > 1).collect::<Vec<_>>());
        let all: BTreeSet<Vec<u8>> = rendered.bodies.iter().map(numbers).collect();
        assert!(all.len() == orders && all.iter().all(|order| order[0] == 1 && order.len() == count));
        assert!(rendered.bodies.iter().all(|body| usize::from(body.turns) == count));
    }
}

#[test]
fn weights_are_met_in_an_interleaved_sequence() {
    assert_eq!(interleaved(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
    assert_eq!(interleaved(&[2, 2]), [0, 1]);
    assert_eq!(interleaved(&[0, 3]), [1]);
    let rendered = by_policy(Policy::Weighted, &with_weights(&[3, 1]));
    assert_eq!((rendered.pick, &rendered.slots[..]), (Pick::Turn, &[0, 0, 1, 0][..]));
    assert_eq!(rendered.bodies.iter().map(numbers).collect::<Vec<_>>(), [[1], [2]]);
}

fn weights() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(prop_oneof![0..=10_u32, 0..=65_535_u32], 2..=16)
        .prop_filter("a weight", |weights| weights.iter().any(|weight| *weight > 0))
}

proptest! {
    /// Exactly by weight where the weights come out with as many slots, else off by less than one slot.
    #[test]
    fn shares_are_exact(weights in weights()) {
        let slots = interleaved(&weights);
        let total: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
        prop_assert!(!slots.is_empty() && slots.len() <= WEIGHT_SLOTS as usize);
        for (number, weight) in (0..).zip(&weights) {
            let share = slots.iter().filter(|slot| **slot == number).count() as u64;
            let (exact, own) = (slots.len() as u64 * u64::from(*weight), share * total);
            prop_assert!(own.abs_diff(exact) < total);
            if slots.len() < WEIGHT_SLOTS as usize {
                prop_assert_eq!(own, exact);
            }
        }
    }

    /// In every stretch of the sequence, which goes round, each has its part of it but for two.
    #[test]
    fn turns_are_spread_evenly(weights in weights(), start: prop::sample::Index, length: prop::sample::Index) {
        let slots = interleaved(&weights);
        let (start, length) = (start.index(slots.len()), 1 + length.index(slots.len()));
        for number in 0..weights.len() as u16 {
            let of = |part: &mut dyn Iterator<Item = &u16>| part.filter(|slot| **slot == number).count() as f64;
            let all = of(&mut slots.iter());
            let part = of(&mut slots.iter().cycle().skip(start).take(length));
            let even = all * length as f64 / slots.len() as f64;
            // The most that smooth weighted round robin is off grows slowly with who takes part.
            prop_assert!((part - even).abs() <= 2.0 + (weights.len() as f64).log2(), "{number}: {part} instead of {even}");
        }
    }

    /// When an address leaves, only its own clients move, but for the few that Maglev moves.
    #[test]
    fn a_sticky_name_moves_the_clients_of_who_left(weights in prop::collection::vec(1..=20_u32, 2..=16), gone: prop::sample::Index) {
        let addresses = with_weights(&weights);
        let gone = gone.index(addresses.len());
        let rest: Vec<Address> = addresses.iter().enumerate().filter(|(number, _)| *number != gone).map(|(_, one)| one.clone()).collect();
        let chosen = |addresses: &[Address]| -> Vec<IpAddr> {
            let slots = sticky(&addresses.iter().collect::<Vec<_>>());
            slots.iter().map(|slot| addresses[usize::from(*slot)].address).collect()
        };
        let (before, after) = (chosen(&addresses), chosen(&rest));
        prop_assert_eq!((before.len(), after.len()), (STICKY_SLOTS as usize, STICKY_SLOTS as usize));
        let moved = before.iter().zip(&after).filter(|(before, after)| **before != addresses[gone].address && before != after);
        prop_assert!(moved.count() * 100 <= 8 * before.len());
        let total: u32 = weights.iter().sum();
        for (address, weight) in addresses.iter().zip(&weights) {
            let share = before.iter().filter(|other| **other == address.address).count() as f64;
            prop_assert!((share - f64::from(STICKY_SLOTS) * f64::from(*weight) / f64::from(total)).abs() < 1.0);
        }
    }
}
