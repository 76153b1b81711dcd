//! Prefixes and the settings made of them.

use crate::frames::{Four, Outcome, Six, Tunneled, outcome, tables};
use lb_common::decap::{
    tables::{LAYOUT, MAX_SOURCES, Settings, Source, endpoint},
    verdict::{Verdict, Why},
};
use proptest::{prelude::*, test_runner::Config};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

fn ipv4() -> impl Strategy<Value = IpAddr> {
    any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into())
}

fn ipv6() -> impl Strategy<Value = IpAddr> {
    any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).into())
}

/// The bits of an address, as text: what a prefix is about.
fn bits(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => format!("{:032b}", address.to_bits()),
        IpAddr::V6(address) => format!("{:0128b}", address.to_bits()),
    }
}

/// The same address but for one bit.
fn flipped(address: IpAddr, bit: u32) -> IpAddr {
    match address {
        IpAddr::V4(address) => Ipv4Addr::from(address.to_bits() ^ 1 << (31 - bit)).into(),
        IpAddr::V6(address) => Ipv6Addr::from(address.to_bits() ^ 1 << (127 - bit)).into(),
    }
}

proptest! {
    #![proptest_config(Config { cases: 512, failure_persistence: None, ..Config::default() })]

    #[test]
    fn a_prefix_holds_who_begins_like_it(prefix in prop_oneof![ipv4(), ipv6()], length in 0_u32..=128, flip in 0_u32..128) {
        let all = bits(prefix).len() as u32;
        let (length, flip) = (length.min(all), flip % all);
        let settings = Settings::new(&[Source::new(prefix, length)]).unwrap();
        prop_assert!(settings.admits(&endpoint(prefix)));
        let other = flipped(prefix, flip);
        let begins = bits(other)[..length as usize] == bits(prefix)[..length as usize];
        prop_assert_eq!(settings.admits(&endpoint(other)), begins);

        let (address, length_again) = Source::new(prefix, length).parts();
        prop_assert_eq!(length_again, length);
        prop_assert!(bits(address).starts_with(&bits(prefix)[..length as usize]));
        prop_assert!(bits(address)[length as usize..].bytes().all(|bit| bit == b'0'));
    }

    #[test]
    fn a_prefix_holds_nobody_of_the_other_family(four in ipv4(), six in ipv6(), length in 0_u32..=32) {
        let all_of = |address| Settings::new(&[Source::new(address, length)]).unwrap();
        prop_assert!(!all_of(four).admits(&endpoint(six)));
        prop_assert!(!all_of(six).admits(&endpoint(four)));
    }
}

#[test]
fn settings_hold_as_many_sources_as_there_is_room_for() {
    for count in 0..=MAX_SOURCES {
        let sources: Vec<_> = (0..count).map(|last| Source::new([10, 0, 0, last as u8].into(), 32)).collect();
        let settings = Settings::new(&sources).unwrap();
        assert_eq!(settings.layout, LAYOUT);
        assert_eq!(settings.sources().copied().collect::<Vec<_>>(), sources);
        for last in 0..=MAX_SOURCES {
            let admitted = count == 0 || last < count;
            assert_eq!(settings.admits(&endpoint([10, 0, 0, last as u8].into())), admitted, "{last} of {count}");
        }
        // The places that are free hold zeros, which are nobody's address.
        assert_eq!(settings.admits(&endpoint([0; 4].into())), count == 0);
        assert_eq!(settings.admits(&endpoint([0; 16].into())), count == 0);
    }
    assert_eq!(Settings::new(&[Source::new([10, 0, 0, 1].into(), 32); MAX_SOURCES + 1]), None);
}

#[test]
fn sources_of_one_family_shut_out_the_other() {
    for (outer, sources) in [(Four, ("::", 0)), (Six, ("0.0.0.0", 0))] {
        let frame = Tunneled::new(outer, Four).bytes();
        let expected = Outcome::expected(Verdict::Pass(Why::OtherSource), frame.clone());
        assert_eq!(outcome(&frame, &tables(&[sources])), expected);
    }
}
