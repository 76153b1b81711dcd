//! Samples of frames, for `lb trace`.

use crate::{frame::XdpFrame, maps::Watch};
use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns},
    macros::map,
    maps::{Array, PerCpuArray, ProgramArray, RingBuf},
    programs::XdpContext,
};
use lb_common::{
    frame::Frame as _,
    trace::{MOST_A_SECOND, Sample, Sampling, Tracing, WAITING_BYTES},
    verdict::Verdict,
};

/// The program for rare frames, as in `PROGRAMS`.
#[map]
pub static TRACED_PROGRAMS: ProgramArray = ProgramArray::with_max_entries(1, 0);
#[map]
static TRACING: Array<Tracing> = Array::with_max_entries(1, 0);
#[map]
static SAMPLING: PerCpuArray<Sampling> = PerCpuArray::with_max_entries(1, 0);
/// The sample that a CPU is taking: it outlives the call of the program for rare frames. Of length 0 if there is none.
#[map]
static TAKING: PerCpuArray<Sample> = PerCpuArray::with_max_entries(1, 0);
#[map]
static TAKEN: RingBuf = RingBuf::with_byte_size(WAITING_BYTES, 0);

/// The agent looks at the samples when it wants to.
const NO_WAKEUP: u64 = 1;
const NANOSECONDS: u64 = 1_000_000_000;

/// Begins a sample of a frame that has just come, if one is due.
#[inline(always)]
pub fn sample(context: &XdpContext) {
    let (Some(tracing), Some(sampling), Some(taking)) =
        (TRACING.get(0), SAMPLING.get_ptr_mut(0), TAKING.get_ptr_mut(0))
    else {
        return;
    };
    // SAFETY: elements of this CPU alone, of plain words. Nothing interrupts a program here to run another one on this CPU's frames.
    let (sampling, taking) = unsafe { (&mut *sampling, &mut *taking) };
    taking.length = 0;
    // SAFETY: the helper has no arguments.
    let second = unsafe { bpf_ktime_get_coarse_ns() } / NANOSECONDS;
    if second >= tracing.until_seconds {
        return;
    }
    if sampling.left_out + 1 < tracing.every {
        sampling.left_out += 1;
        return;
    }
    sampling.left_out = 0;
    if sampling.second != second {
        (sampling.second, sampling.taken) = (second, 0);
    }
    if sampling.taken >= u64::from(MOST_A_SECOND) {
        sampling.missed += 1;
        return;
    }
    sampling.taken += 1;
    let frame = XdpFrame::new(context);
    // SAFETY: as above.
    taking.begin(unsafe { bpf_ktime_get_ns() }, frame.interface(), frame.len() as u32);
    if frame.load(0, &mut taking.head).is_none() {
        taking.length = 0;
    }
}

/// Notes what becomes of the frame that is being sampled.
pub struct Tracer;

impl Watch for Tracer {
    #[inline(always)]
    fn forwarded(backend: u32) {
        if let Some(taking) = TAKING.get_ptr_mut(0) {
            // SAFETY: as in `sample`.
            unsafe { (*taking).backend = backend };
        }
    }

    #[inline(always)]
    fn decided(verdict: Verdict) {
        let (Some(taking), Some(sampling)) = (TAKING.get_ptr_mut(0), SAMPLING.get_ptr_mut(0)) else { return };
        // SAFETY: as in `sample`.
        let (taking, sampling) = unsafe { (&mut *taking, &mut *sampling) };
        if taking.length == 0 {
            return;
        }
        taking.decided(verdict);
        if TAKEN.output::<Sample>(&*taking, NO_WAKEUP).is_err() {
            sampling.missed += 1;
        }
        taking.length = 0;
    }
}
