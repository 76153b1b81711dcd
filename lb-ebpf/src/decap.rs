//! The XDP program of a backend: a frame comes in, [`decapsulate`] takes it out of its tunnel, the stack gets it.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macro that makes a program of a function leaves its documentation inside")]
#![feature(asm_experimental_arch)]

mod decap_maps;
mod frame;

use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    macros::xdp,
    programs::XdpContext,
};
use decap_maps::Maps;
use frame::XdpFrame;
use lb_common::decap::{decapsulate, verdict::Verdict};

/// Takes what comes in by an interface out of its tunnel.
#[xdp]
pub fn lb_decap(context: XdpContext) -> u32 {
    match decapsulate(&mut XdpFrame::new(&context), &Maps) {
        Verdict::Pass(_) => XDP_PASS,
        Verdict::Drop(_) => XDP_DROP,
    }
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
