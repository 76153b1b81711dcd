//! The program in the kernel and the path on the host do the same with every frame.

use lb_common::verdict::Why;
use std::collections::BTreeMap;
use tests::{
    Lab, Layout,
    fixture::{self, Action, Fixture},
    frames::{self, Named},
    mutations::Mutations,
    needs_root,
};

const FRAMES: usize = 130_000;
/// Least number of frames for every reason that a frame can bring about.
const LEAST_FRAMES: u64 = 200;
/// Least share of frames that are sent on or answered, in percent.
const LEAST_SENT: usize = 30;

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
            let (mut reasons, mut sent) = (BTreeMap::<Why, u64>::new(), 0);
            let bases = [frames::all().unwrap(), frames::counted().unwrap()].concat();
            for (round, Named { name, moment, frame, .. }) in Mutations::of(bases).take(FRAMES).enumerate() {
                fixture.go_to(moment).unwrap();
                let [kernel, host] = fixture.in_both(&frame).unwrap();
                assert_eq!(kernel, host, "round {round}, made from {name}: {}", hex(&frame));
                sent += usize::from(kernel.action != Action::Pass);
                for (why, count) in kernel.counts {
                    *reasons.entry(why).or_default() += count;
                }
            }
            let [kernel, host] = fixture.flows().unwrap();
            assert_eq!(kernel, host, "other flows are tracked");
            println!("{} flows are tracked", kernel.len());
            for why in Why::ALL {
                println!("{:>6}  {}", reasons.get(why).copied().unwrap_or_default(), why.name());
            }
            println!("{sent} of {FRAMES} sent on or answered");
            assert!(sent * 100 >= FRAMES * LEAST_SENT, "only {sent} of {FRAMES} frames were sent on or answered");
            // The reasons that no frame in a test run brings about: there is always room behind it, nobody changes an answer
            // meanwhile, and a DNS address is one of UDP.
            const UNREACHED: [Why; 3] = [Why::NoRoom, Why::DnsReplaced, Why::DnsTcp];
            let reachable = Why::ALL.iter().filter(|why| !UNREACHED.contains(why));
            let rare: Vec<_> =
                reachable.filter(|why| reasons.get(why).copied().unwrap_or_default() < LEAST_FRAMES).collect();
            assert!(rare.is_empty(), "too few frames for {rare:?}");
        })
        .unwrap();
}

fn hex(frame: &[u8]) -> String {
    frame.iter().map(|byte| format!("{byte:02x}")).collect()
}
