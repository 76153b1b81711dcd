//! What goes into the tables comes out of them.

use crate::support::cases;
use bytemuck::Zeroable as _;
use lb_common::{
    tables::{Endpoint, Known, Region, address_words},
    wire::ethernet::{Addresses, Ethernet, addresses, parts},
};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::{FromBytes as _, FromZeros as _, IntoBytes as _};

fn address() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| Ipv4Addr::from(bits).into()),
        any::<u128>().prop_map(|bits| Ipv6Addr::from(bits).into())
    ]
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn an_endpoint_gives_back_its_parts(address in address(), protocol in any::<u8>(), port in any::<u16>()) {
        let endpoint = Endpoint::new(address, protocol, port);
        prop_assert_eq!((endpoint.ip(), endpoint.protocol(), endpoint.port()), (address, protocol, port));
        prop_assert_eq!(endpoint.port_bytes(), port.to_be_bytes());
        prop_assert_eq!(endpoint.address, address_words(address));
    }

    #[test]
    fn endpoints_are_equal_only_if_all_parts_are(
        one in (address(), any::<u8>(), any::<u16>()),
        other in (address(), any::<u8>(), any::<u16>()),
        taken in any::<[bool; 3]>(),
    ) {
        let mix = (
            if taken[0] { one.0 } else { other.0 },
            if taken[1] { one.1 } else { other.1 },
            if taken[2] { one.2 } else { other.2 },
        );
        let same = Endpoint::new(one.0, one.1, one.2) == Endpoint::new(mix.0, mix.1, mix.2);
        prop_assert_eq!(same, one == mix);
    }

    #[test]
    fn an_address_lies_in_memory_as_on_the_wire(four in any::<[u8; 4]>(), six in any::<[u8; 16]>()) {
        let (words4, words6) = (address_words(four.into()), address_words(six.into()));
        prop_assert_eq!(&words4.as_bytes()[..4], &four);
        prop_assert_eq!(&words4.as_bytes()[4..], &[0; 12]);
        prop_assert_eq!(words6.as_bytes(), &six);
    }

    #[test]
    fn rendered_mac_addresses_are_stored_as_they_are(destination in any::<[u8; 6]>(), source in any::<[u8; 6]>()) {
        let mut words = Addresses::new_zeroed();
        words.set(addresses(destination, source));
        prop_assert_eq!(parts(addresses(destination, source)), (destination, source));
        prop_assert_eq!(words.as_bytes(), [destination, source].concat());

        words.turn_around();
        prop_assert_eq!(words.as_bytes(), [source, destination].concat());
        words.turn_around();
        prop_assert_eq!(words.as_bytes(), [destination, source].concat());

        let header = [&destination[..], &source, &[0x86, 0xdd]].concat();
        let header = Ethernet::ref_from_bytes(&header).unwrap();
        prop_assert_eq!((header.destination, header.source, header.ethertype.get()), (destination, source, 0x86dd));
    }

    #[test]
    fn a_region_fits_a_word(first in any::<u32>(), slots in any::<u32>()) {
        let region = Region { first, slots };
        prop_assert_eq!(Region::from_word(region.word()), region);
    }
}

#[test]
fn an_ipv4_address_is_not_the_ipv6_address_of_the_same_words() {
    let four = Endpoint::new([1, 2, 3, 4].into(), 6, 80);
    let six = Endpoint::new([1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0].into(), 6, 80);
    assert_eq!(four.address, six.address);
    assert_ne!(four, six);
}

#[test]
fn what_was_added_is_known_and_little_else() {
    let number = |number: u32| {
        address_words(if number.is_multiple_of(2) {
            IpAddr::from((0xc000_0200 + number).to_be_bytes())
        } else {
            IpAddr::from((0x2001_0db8_u128 << 96 | u128::from(number)).to_be_bytes())
        })
    };
    let (mut known, mut other) = (Known::zeroed(), Known::zeroed());
    assert!(!known.may_have(&number(0)));
    (0..50).for_each(|each| known.add(&number(each)));
    (50..100).for_each(|each| other.add(&number(each)));
    known.join(&other);
    assert!((0..100).all(|each| known.may_have(&number(each))), "nothing is missed");
    let taken = (100..100_100).filter(|each| known.may_have(&number(*each))).count();
    println!("{taken} of 100,000 others are taken for members");
    assert!(taken < 4_000, "{taken} of 100,000 others are taken for members");
    assert!((0..1_000).all(|each| Known::ALL.may_have(&number(each))));
}
