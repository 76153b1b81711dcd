//! Programs that measure the path, `cargo xtask bench`: never part of `lb`.
//!
//! One run is 64 rounds of restoring the frame and calling the path, so that what the kernel does around a run vanishes.
//! The path is compiled from the very sources of the program, as one function that is called.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macro that makes a program of a function leaves its documentation inside")]
#![feature(asm_experimental_arch)]

mod control;
mod frame;
mod handle;
mod maps;
#[expect(dead_code, reason = "of what another program asks, only the numbers of names are used")]
mod questions;

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX},
        xdp_md,
    },
    helpers::generated::{bpf_redirect, bpf_xdp_adjust_head, bpf_xdp_adjust_tail, bpf_xdp_store_bytes},
    macros::{map, xdp},
    maps::PerCpuArray,
    programs::XdpContext,
};
use control::{
    ADDRESS4, ADDRESS4_TAGGED, ADDRESS6, ALL, CLIENT4, Control, DATAGRAM4, HEADERS, LINK, NAME4, NUMBER4, ONE_FLOW,
    ROUNDS, TAGGED, TEMPLATE_WORDS,
};
use core::{arch::asm, hint::black_box};
use maps::{DEVICES, Nobody};
use questions::{SCATTER, digits};

#[map]
static CONTROL: PerCpuArray<Control> = PerCpuArray::with_max_entries(1, 0);
/// Frames that a receiver took, by CPU.
#[map]
static RECEIVED: PerCpuArray<u64> = PerCpuArray::with_max_entries(1, 0);

/// One call of the path; notes where the frame began and ended before and after.
#[xdp]
pub fn probe(context: XdpContext) -> u32 {
    let Some(control) = CONTROL.get_ptr_mut(0) else { return XDP_ABORTED };
    let before = frame(context.ctx);
    let action = path(context.ctx);
    let after = frame(context.ctx);
    // SAFETY: this CPU's own element.
    unsafe { (*control).bounds = [before.0, before.1, after.0, after.1].map(|address| address as u64) };
    action
}

#[xdp]
pub fn rounds_path(context: XdpContext) -> u32 {
    rounds(context.ctx, path)
}

#[xdp]
pub fn rounds_pass(context: XdpContext) -> u32 {
    rounds(context.ctx, pass)
}

#[xdp]
pub fn rounds_swap(context: XdpContext) -> u32 {
    rounds(context.ctx, swap)
}

#[xdp]
pub fn rounds_encapsulate(context: XdpContext) -> u32 {
    rounds(context.ctx, encapsulate)
}

/// Makes a live frame of the template and sends it out of an interface.
#[xdp]
pub fn generate(context: XdpContext) -> u32 {
    let Some(control) = CONTROL.get_ptr_mut(0) else { return XDP_ABORTED };
    if prepare(context.ctx, control).is_none() {
        return XDP_ABORTED;
    }
    // SAFETY: this CPU's own element; the helper takes an index and flags.
    unsafe { bpf_redirect((*control).interface as u32, 0) as u32 }
}

/// Counts a live frame where it ends.
#[xdp]
pub fn receive(_context: XdpContext) -> u32 {
    received()
}

#[xdp]
pub fn live_swap(context: XdpContext) -> u32 {
    swap(context.ctx)
}

#[xdp]
pub fn live_redirect(_context: XdpContext) -> u32 {
    let Some(control) = CONTROL.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: this CPU's own element.
    let interface = unsafe { (*control).away } as u32;
    DEVICES.redirect(interface, 0).unwrap_or(XDP_ABORTED)
}

#[xdp]
pub fn live_path(context: XdpContext) -> u32 {
    path(context.ctx)
}

#[xdp]
pub fn live_path_drop(context: XdpContext) -> u32 {
    path(context.ctx);
    received()
}

#[inline(always)]
fn received() -> u32 {
    if let Some(count) = RECEIVED.get_ptr_mut(0) {
        // SAFETY: this CPU's own element.
        unsafe { *count += 1 };
    }
    XDP_DROP
}

#[inline(always)]
fn rounds(context: *mut xdp_md, round: impl Fn(*mut xdp_md) -> u32) -> u32 {
    let Some(control) = CONTROL.get_ptr_mut(0) else { return XDP_ABORTED };
    let mut action = XDP_ABORTED;
    for _ in 0..ROUNDS {
        if prepare(context, control).is_none() {
            return XDP_ABORTED;
        }
        action = round(context);
        if undo(context, control).is_none() {
            return XDP_ABORTED;
        }
    }
    action
}

/// The path. Where the program hands a rare frame to the other one, this calls it: a run may end in another program no more than
/// 33 times.
#[inline(always)]
fn path(context: *mut xdp_md) -> u32 {
    match plain(context) {
        NOT_PLAIN => rare(context),
        action => action,
    }
}

/// No action.
const NOT_PLAIN: u32 = u32::MAX;

/// The path of nearly every frame, called. A global function is verified once by itself, not in each of the rounds.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn plain(context: *mut xdp_md) -> u32 {
    handle::plain::<Nobody>(&XdpContext::new(context)).unwrap_or(NOT_PLAIN)
}

/// The path of other frames, likewise.
#[inline(never)]
#[unsafe(no_mangle)]
pub extern "C" fn rare(context: *mut xdp_md) -> u32 {
    handle::rare::<Nobody>(&XdpContext::new(context))
}

/// The least that a program does: lets the frame pass.
#[inline(never)]
fn pass(context: *mut xdp_md) -> u32 {
    constant::<XDP_PASS>(context)
}

/// Sends the frame back.
#[inline(never)]
fn swap(context: *mut xdp_md) -> u32 {
    let (start, end) = frame(context);
    if start + 12 > end {
        return XDP_ABORTED;
    }
    // SAFETY: within the frame, as was just compared; any alignment will do.
    unsafe {
        let (first, rest) = ((start as *const u64).read_unaligned(), ((start + 8) as *const u32).read_unaligned());
        let source = first >> 48 | u64::from(rest) << 16;
        (start as *mut u64).write_unaligned(source | first << 48);
        ((start + 8) as *mut u32).write_unaligned((first >> 16) as u32);
    }
    constant::<XDP_TX>(context)
}

/// Puts an outer IPv4 header on the frame that is always the same.
#[inline(never)]
fn encapsulate(context: *mut xdp_md) -> u32 {
    // SAFETY: the context is this program's; no address of the frame is kept.
    if unsafe { bpf_xdp_adjust_head(context, -20) } != 0 {
        return XDP_ABORTED;
    }
    let (start, end) = frame(black_box(context));
    if start + 34 > end {
        return XDP_ABORTED;
    }
    // Locally administered MAC addresses, and 84 bytes from 10.0.0.1 to 10.0.0.2 in IPv4.
    let words = [0x0002_0200_0000_0002, 0x0045_0008_0100_0000, 0x0440_0000_0000_5400, 0x000a_0100_000a_92a6];
    for (index, word) in words.into_iter().enumerate() {
        // SAFETY: within the frame, as was just compared.
        unsafe { ((start + index * 8) as *mut u64).write_unaligned(word) };
    }
    // SAFETY: as before.
    unsafe { ((start + 32) as *mut u16).write_unaligned(0x0200) };
    constant::<XDP_TX>(context)
}

/// A constant that LLVM does not carry over to the caller, which would leave nothing to call.
#[inline(always)]
fn constant<const ACTION: u32>(context: *mut xdp_md) -> u32 {
    let mut action = context as u64;
    // SAFETY: sets one register.
    unsafe { asm!("{0} = {1}", inlateout(reg) action, const ACTION) };
    action as u32
}

/// Where the frame begins and ends.
#[inline(always)]
fn frame(context: *mut xdp_md) -> (usize, usize) {
    // SAFETY: the kernel hands the program a valid context.
    unsafe { ((*context).data as usize, (*context).data_end as usize) }
}

/// Writes what the path overwrites, and the flow of this round.
#[inline(always)]
fn prepare(context: *mut xdp_md, control: *mut Control) -> Option<()> {
    let (start, end) = frame(black_box(context));
    if start + 64 > end {
        return None;
    }
    // SAFETY: this CPU's own element.
    let Control { template, restored, flows, flow_mask, first_flow, next_flow, length, .. } = unsafe { &mut *control };
    match *restored {
        ALL => {
            let length = black_box(*length);
            if length == 0 || length > (TEMPLATE_WORDS * 8) as u64 {
                return None;
            }
            // SAFETY: the helper checks the frame's side; the template is that long.
            let result = unsafe { bpf_xdp_store_bytes(context, 0, template.as_mut_ptr().cast(), length as u32) };
            if result != 0 {
                return None;
            }
        }
        HEADERS => {
            for (index, word) in template.iter().enumerate().take(8) {
                // SAFETY: within the frame, as was compared.
                unsafe { ((start + index * 8) as *mut u64).write_unaligned(*word) };
            }
            if start + 72 <= end {
                // SAFETY: within the frame, as was just compared.
                unsafe { ((start + 64) as *mut u64).write_unaligned(template[8]) };
            }
        }
        LINK | TAGGED => {
            // By fields: a load that two stores have to be put together for waits until both are done, which no frame from
            // a network card would make it do.
            // SAFETY: within the frame, as was compared.
            unsafe {
                (start as *mut u64).write_unaligned(template[0]);
                ((start + 8) as *mut u32).write_unaligned(template[1] as u32);
                ((start + 12) as *mut u16).write_unaligned((template[1] >> 32) as u16);
                if *restored == TAGGED {
                    ((start + 14) as *mut u16).write_unaligned((template[1] >> 48) as u16);
                    ((start + 16) as *mut u16).write_unaligned(template[2] as u16);
                }
            }
        }
        _ => return None,
    }
    if *flows != ONE_FLOW {
        let scattered = next_flow.wrapping_mul(SCATTER);
        let flow = match *flows {
            CLIENT4 => first_flow.wrapping_add(scattered >> 24 & *flow_mask),
            NAME4 => ((scattered >> 32) * *flow_mask) >> 32,
            _ => first_flow.wrapping_add(*next_flow & *flow_mask),
        };
        *next_flow = next_flow.wrapping_add(1);
        let (start, end) = frame(context);
        if start + 64 > end {
            return None;
        }
        // SAFETY: within the frame, as was just compared.
        unsafe {
            match *flows {
                ADDRESS4 | CLIENT4 => ((start + 26) as *mut u32).write_unaligned((flow as u32).to_be()),
                ADDRESS4_TAGGED => ((start + 30) as *mut u32).write_unaligned((flow as u32).to_be()),
                DATAGRAM4 => ((start + 18) as *mut u16).write_unaligned((flow as u16).to_be()),
                ADDRESS6 => ((start + 30) as *mut u64).write_unaligned(flow.to_be()),
                NAME4 => ((start + NUMBER4) as *mut u64).write_unaligned(u64::from_ne_bytes(digits(flow as u32))),
                _ => return None,
            }
        }
    }
    Some(())
}

/// Moves the front and the end of the frame back. `None` if they then are not where they were.
#[inline(always)]
fn undo(context: *mut xdp_md, control: *mut Control) -> Option<()> {
    // SAFETY: this CPU's own element.
    let Control { front, end: tail, length, .. } = unsafe { &*control };
    // SAFETY: the context is this program's; no address of the frame is kept.
    unsafe {
        if *front != 0 && bpf_xdp_adjust_head(context, -*front as i32) != 0 {
            return None;
        }
        if *tail != 0 && bpf_xdp_adjust_tail(context, -*tail as i32) != 0 {
            return None;
        }
    }
    let (start, end) = frame(context);
    if (end - start) as u64 != *length { None } else { Some(()) }
}

/// Unreachable: nothing here panics, and the kernel refuses a program that could come here.
#[cfg(not(test))]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo) -> ! {
    loop {}
}

/// Programs may call helpers that the kernel reserves for the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
