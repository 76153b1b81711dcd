//! The program in the kernel and the decapsulator on the host do the same with every frame.

use lb_common::decap::verdict::Why;
use std::collections::BTreeMap;
use tests::{
    decap::{
        Fixture,
        frames::{Named, all, repair},
    },
    needs_root,
};

const FRAMES: usize = 24_000;
/// Least number of frames for every reason that a frame can bring about.
const LEAST_FRAMES: u64 = 200;
/// Least number of frames that come out of each of the four mixes.
const LEAST_TAKEN_OUT: u64 = 1_000;

/// Deterministic numbers (SplitMix64): a failure is the same failure the next time.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// Another frame, more or less like this one.
fn mutated(base: &Named, numbers: &mut Numbers) -> Vec<u8> {
    let mut frame = base.frame.clone();
    match numbers.below(10) {
        0 | 1 => (),
        2..=5 => {
            for _ in 0..=numbers.below(2) {
                let offset = numbers.below(frame.len());
                frame[offset] ^= 1 << numbers.below(8);
            }
        }
        6 | 7 => {
            let offset = base.outer + numbers.below(60);
            frame[offset] = numbers.next() as u8;
        }
        // The kernel takes no frame shorter than an Ethernet header.
        8 => frame.truncate(14 + numbers.below(frame.len() - 13)),
        _ => frame.extend((0..=numbers.below(40)).map(|_| numbers.next() as u8)),
    }
    if numbers.below(4) != 0 {
        repair(&mut frame, base.outer);
    }
    frame
}

#[test]
fn kernel_and_host_take_mutated_frames_out_alike() {
    if !needs_root("kernel_and_host_take_mutated_frames_out_alike") {
        return;
    }
    let mut fixture = Fixture::load().unwrap();
    let bases = all().unwrap();
    let mut numbers = Numbers(1);
    let mut reasons = BTreeMap::<Why, u64>::new();
    for round in 0..FRAMES {
        let base = &bases[round % bases.len()];
        let frame = mutated(base, &mut numbers);
        let (kernel, host) = (fixture.in_kernel(&frame).unwrap(), fixture.on_host(&frame));
        assert_eq!(kernel, host, "round {round}, made from {}: {}", base.name, hex(&frame));
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
