//! The XDP programs: a frame comes in, the two halves of [`path::steer`] decide, the verdict becomes an action.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macro that makes a program of a function leaves its documentation inside")]
#![feature(asm_experimental_arch)]

mod frame;
mod maps;

use aya_ebpf::{
    bindings::xdp_action::{XDP_PASS, XDP_TX},
    macros::xdp,
    programs::XdpContext,
};
use aya_log_ebpf::error;
use frame::XdpFrame;
use lb_common::{
    path,
    tables::Tables as _,
    verdict::{Verdict, Why},
};
use maps::{DEVICES, Maps, PROGRAMS, RARE};

/// Balances and answers what comes in by an interface.
#[xdp]
pub fn lb(context: XdpContext) -> u32 {
    let maps = Maps::new(&context);
    match path::plain(&mut XdpFrame::new(&context), &maps) {
        Some(Verdict::Pass(Why::Inconsistent)) => contradiction(&context),
        Some(verdict) => act(&maps, verdict),
        None => {
            // SAFETY: a program of the same type; it does not return here. What it would do is left to the kernel without it.
            let _ = unsafe { PROGRAMS.tail_call(&context, RARE) };
            XDP_PASS
        }
    }
}

/// The same for the frames that few are. A program of its own, so that what nearly every frame takes is short, and neither shares
/// the other's stack or the verifier's patience.
#[xdp]
pub fn lb_rare(context: XdpContext) -> u32 {
    let maps = Maps::new(&context);
    let verdict = path::rare(&mut XdpFrame::new(&context), &maps);
    act(&maps, verdict)
}

#[inline(always)]
fn act(maps: &Maps, verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Pass(_) => XDP_PASS,
        Verdict::Transmit(_) => XDP_TX,
        Verdict::Redirect(_, interface) => match DEVICES.redirect(interface, 0) {
            Ok(action) => action,
            Err(_) => {
                maps.count(Why::Inconsistent);
                XDP_PASS
            }
        },
    }
}

/// Says that the tables contradict each other, which only a defect of the agent can bring about, and lets the frame pass.
#[inline(never)]
fn contradiction(context: &XdpContext) -> u32 {
    error!(context, "the tables contradict each other; a frame passed");
    XDP_PASS
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
