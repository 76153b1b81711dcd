//! Stands before the balancer's program while it is proved that frames reach an interface: notes that one came, and hands it on.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macro that makes a program of a function leaves its documentation inside")]

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS,
    macros::{map, xdp},
    maps::{HashMap, ProgramArray},
    programs::XdpContext,
};
use lb_common::tables::MAX_INTERFACES;

/// Whether a frame has come, by the index of the interface. The agent puts in those that it asks about.
#[map]
static SEEN: HashMap<u32, u64> = HashMap::with_max_entries(MAX_INTERFACES, 0);
/// The balancer's program.
#[map]
static BEHIND: ProgramArray = ProgramArray::with_max_entries(1, 0);

#[xdp]
pub fn lb_seen(context: XdpContext) -> u32 {
    if let Some(seen) = SEEN.get_ptr_mut(context.ingress_ifindex() as u32) {
        // SAFETY: a word of a map, aligned to 8 bytes, in which everybody writes the same.
        unsafe { seen.write_volatile(1) };
    }
    // SAFETY: a program of the same type; it does not return here.
    unsafe { BEHIND.tail_call(&context, 0) };
    XDP_PASS
}

/// Unreachable: nothing here panics.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// The same as the balancer's programs.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
