//! The program in the kernel and the path on the host do the same with every frame.
#![expect(clippy::indexing_slicing, reason = "helpers of a test")]

use lb_common::verdict::Why;
use std::collections::BTreeMap;
use tests::{
    Lab, Layout,
    fixture::{self, Action, Fixture},
    frames, needs_root,
};

const FRAMES: usize = 24_000;
/// Least number of frames for every reason that a frame can bring about.
const LEAST_FRAMES: u64 = 200;
/// Least share of frames that are sent on or answered, in percent.
const LEAST_SENT: usize = 30;

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
fn mutated(frame: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    let mut frame = frame.to_vec();
    match numbers.below(10) {
        // As it is, or from another port: the path has to see enough that is right.
        0 | 1 => (),
        2..=4 => {
            let offset = [34, 35, 54, 55][numbers.below(4)];
            if let Some(byte) = frame.get_mut(offset) {
                *byte = numbers.next() as u8;
            }
        }
        5 | 6 => {
            for _ in 0..=numbers.below(3) {
                let offset = numbers.below(frame.len());
                frame[offset] ^= 1 << numbers.below(8);
            }
        }
        7 => {
            let offset = numbers.below(frame.len().min(80));
            frame[offset] = numbers.next() as u8;
        }
        // The kernel takes no frame shorter than an Ethernet header.
        8 => frame.truncate(14 + numbers.below(frame.len() - 13)),
        _ => frame.extend((0..=numbers.below(40)).map(|_| numbers.next() as u8)),
    }
    frame
}

#[test]
fn kernel_and_host_agree_on_mutated_frames() {
    if !needs_root("kernel_and_host_agree_on_mutated_frames") {
        return;
    }
    let lab = Lab::blueprint(Layout::Routed).backends(1).up().unwrap();
    fixture::neighbors(lab.balancer()).unwrap();
    lab.balancer()
        .inside(|| {
            // Turns are counted by CPU.
            fixture::stay_on_one_cpu().unwrap();
            let mut fixture = Fixture::load(lab.balancer()).unwrap();
            let bases = frames::all().unwrap();
            let mut numbers = Numbers(1);
            let (mut reasons, mut sent) = (BTreeMap::<Why, u64>::new(), 0);
            for round in 0..FRAMES {
                let base = &bases[round % bases.len()];
                let frame = mutated(&base.frame, &mut numbers);
                let (kernel, host) = (fixture.in_kernel(&frame).unwrap(), fixture.on_host(&frame));
                assert_eq!(kernel, host, "round {round}, made from {}: {}", base.name, hex(&frame));
                sent += usize::from(kernel.action != Action::Pass);
                for (why, count) in kernel.counts {
                    *reasons.entry(why).or_default() += count;
                }
            }
            for why in Why::ALL {
                println!("{:>6}  {}", reasons.get(why).copied().unwrap_or_default(), why.name());
            }
            println!("{sent} of {FRAMES} sent on or answered");
            assert!(sent * 100 >= FRAMES * LEAST_SENT, "only {sent} of {FRAMES} frames were sent on or answered");
            // The one reason that no frame in a test run brings about: there is always room behind it.
            let reachable = Why::ALL.iter().filter(|why| **why != Why::NoRoom);
            let rare: Vec<_> =
                reachable.filter(|why| reasons.get(why).copied().unwrap_or_default() < LEAST_FRAMES).collect();
            assert!(rare.is_empty(), "too few frames for {rare:?}");
        })
        .unwrap();
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}
