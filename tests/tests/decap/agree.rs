//! The program in the kernel and the decapsulator on the host do the same with every frame.

use lb_common::decap::verdict::Why;
use std::collections::BTreeMap;
use tests::{
    decap::{
        Fixture,
        frames::{Named, all},
        mutations::Mutations,
    },
    needs_root,
};

const FRAMES: usize = 24_000;
/// Least number of frames for every reason that a frame can bring about.
const LEAST_FRAMES: u64 = 200;
/// Least number of frames that come out of each of the four mixes.
const LEAST_TAKEN_OUT: u64 = 1_000;

#[test]
fn kernel_and_host_take_mutated_frames_out_alike() {
    if !needs_root("kernel_and_host_take_mutated_frames_out_alike") {
        return;
    }
    let mut fixture = Fixture::load().unwrap();
    let mut reasons = BTreeMap::<Why, u64>::new();
    for (round, Named { name, frame, .. }) in Mutations::of(all().unwrap()).take(FRAMES).enumerate() {
        let (kernel, host) = (fixture.in_kernel(&frame).unwrap(), fixture.on_host(&frame));
        assert_eq!(kernel, host, "round {round}, made from {name}: {}", hex(&frame));
        for (why, count) in kernel.counts {
            *reasons.entry(why).or_default() += count;
        }
    }
    let seen = |why: &Why| reasons.get(why).copied().unwrap_or_default();
    for why in Why::ALL {
        println!("{:>6}  {}", seen(why), why.name());
    }
    let taken_out = [Why::Ipv4InIpv4, Why::Ipv6InIpv4, Why::Ipv4InIpv6, Why::Ipv6InIpv6];
    let rare: Vec<_> = taken_out.iter().filter(|why| seen(why) < LEAST_TAKEN_OUT).collect();
    assert!(rare.is_empty(), "too few frames came out by {rare:?}");
    // No frame takes the settings away.
    let reachable = Why::ALL.iter().filter(|why| **why != Why::Inconsistent);
    let rare: Vec<_> = reachable.filter(|why| seen(why) < LEAST_FRAMES).collect();
    assert!(rare.is_empty(), "too few frames for {rare:?}");
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}
