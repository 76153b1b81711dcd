//! The XDP program: a frame comes in, [`path::steer`] decides, the verdict becomes an action.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod frame;
mod maps;

use aya_ebpf::{
    bindings::xdp_action::{XDP_ABORTED, XDP_PASS, XDP_TX},
    macros::xdp,
    programs::XdpContext,
};
use aya_log_ebpf::error;
use frame::XdpFrame;
use lb_common::{
    path,
    verdict::{Verdict, Why},
};
use maps::{DEVICES, Maps};

/// Balances and answers what comes in by an interface.
#[xdp]
pub fn lb(context: XdpContext) -> u32 {
    let mut frame = XdpFrame::new(&context);
    match path::steer(&mut frame, &Maps::new(&context)) {
        Verdict::Pass(why) => {
            if why == Why::Inconsistent {
                error!(&context, "the tables contradict each other; a packet passed");
            }
            XDP_PASS
        }
        Verdict::Transmit(_) => XDP_TX,
        Verdict::Redirect(_, interface) => DEVICES.redirect(interface, 0).unwrap_or(XDP_ABORTED),
    }
}

/// Lets everything pass. The peer of a veth needs a program for frames that are sent to it by XDP to arrive.
#[xdp]
pub fn pass(_: XdpContext) -> u32 {
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
