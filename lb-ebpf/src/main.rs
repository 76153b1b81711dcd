//! The XDP programs: a frame comes in, the path decides, the verdict becomes an action.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macro that makes a program of a function leaves its documentation inside")]
#![feature(asm_experimental_arch)]

mod frame;
mod handle;
mod maps;
mod trace;

use aya_ebpf::{bindings::xdp_action::XDP_PASS, macros::xdp, programs::XdpContext};
use maps::{Nobody, PROGRAMS};
use trace::{TRACED_PROGRAMS, Tracer};

/// Where the program for rare frames is.
const RARE: u32 = 0;

/// Balances and answers what comes in by an interface.
#[xdp]
pub fn lb(context: XdpContext) -> u32 {
    handle::plain::<Nobody>(&context).unwrap_or_else(|| {
        // SAFETY: a program of the same type; it does not return here. What it would do is left to the kernel without it.
        unsafe { PROGRAMS.tail_call(&context, RARE) };
        XDP_PASS
    })
}

/// The same for the frames that few are. A program of its own, so that what nearly every frame takes is short, and neither shares
/// the other's stack or the verifier's patience.
#[xdp]
pub fn lb_rare(context: XdpContext) -> u32 {
    handle::rare::<Nobody>(&context)
}

/// As [`lb`], with samples of what it does. It stands in its place while there is a trace.
#[xdp]
pub fn lb_traced(context: XdpContext) -> u32 {
    trace::sample(&context);
    handle::plain::<Tracer>(&context).unwrap_or_else(|| {
        // SAFETY: as in `lb`.
        unsafe { TRACED_PROGRAMS.tail_call(&context, RARE) };
        XDP_PASS
    })
}

/// As [`lb_rare`], with what became of those frames that were sampled.
#[xdp]
pub fn lb_traced_rare(context: XdpContext) -> u32 {
    handle::rare::<Tracer>(&context)
}

/// Unreachable: the path has nothing that panics, and the kernel refuses a program that could come here.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// Programs may call helpers that the kernel reserves for the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
