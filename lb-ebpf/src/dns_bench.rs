//! Programs that measure DNS servers, `cargo xtask bench dns`: never part of `lb`.
//!
//! `ask` makes live frames of questions and sends them into a veth, `take` looks at the responses where they come back, and `floor` is
//! the least that an answer in the kernel can be.
#![no_std]
#![no_main]
#![expect(missing_docs, reason = "the macro that makes a program of a function leaves its documentation inside")]

mod questions;

use aya_ebpf::{
    bindings::{
        xdp_action::{XDP_ABORTED, XDP_DROP, XDP_PASS, XDP_TX},
        xdp_md,
    },
    helpers::generated::{
        bpf_ktime_get_ns, bpf_redirect, bpf_xdp_adjust_tail, bpf_xdp_load_bytes, bpf_xdp_store_bytes,
    },
    macros::{map, xdp},
    maps::Array,
    programs::XdpContext,
};
use core::hint::black_box;
use questions::{
    Constant, FIRST_PORT, PORTS, QUESTION_BYTES, Questions, ROWS, SAMPLE_BYTES, SAMPLED, SAMPLES, SCATTER, Sample,
    UDP4, UDP6, digits, row,
};

/// Only one CPU asks and takes, which therefore needs no atomic operations.
#[map]
static QUESTIONS: Array<Questions> = Array::with_max_entries(1, 0);
#[map]
static CONSTANT: Array<Constant> = Array::with_max_entries(1, 0);
#[map]
static KEPT: Array<Sample> = Array::with_max_entries(SAMPLES, 0);
/// When a question was sent, by the client's port.
#[map]
static SENT_AT: Array<u64> = Array::with_max_entries(1 << 16, 0);
/// Responses by how long they took.
#[map]
static TIMES: Array<u64> = Array::with_max_entries(ROWS, 0);

/// The DNS header behind that of UDP.
const MESSAGE: usize = 8;
/// After this time without a response, nobody waits for those of a full window.
const PATIENCE_NS: u64 = 5_000_000;

/// Makes the next question of a live frame, if one is due.
#[xdp]
pub fn ask(context: XdpContext) -> u32 {
    let Some(questions) = QUESTIONS.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: the only reference to the element in this program.
    let questions = unsafe { &mut *questions };
    if !is_due(questions) {
        return XDP_DROP;
    }
    let number = questions.sent;
    let port = (FIRST_PORT + number % PORTS) as u16;
    if questions.timed != 0 {
        let Some(sent_at) = SENT_AT.get_ptr_mut(port.into()) else { return XDP_ABORTED };
        // SAFETY: a valid pointer; see `QUESTIONS`. The helper takes nothing.
        unsafe { *sent_at = bpf_ktime_get_ns() };
    }
    if write(questions, number, port).is_none() {
        return XDP_ABORTED;
    }
    let length = black_box(questions.length);
    if length == 0 || length > QUESTION_BYTES as u64 {
        return XDP_ABORTED;
    }
    // SAFETY: the helper checks the frame's side; the template is that long.
    let stored = unsafe { bpf_xdp_store_bytes(context.ctx, 0, questions.template.as_mut_ptr().cast(), length as u32) };
    if stored != 0 {
        return XDP_ABORTED;
    }
    questions.sent = number + 1;
    // SAFETY: the helper takes an index and flags.
    unsafe { bpf_redirect(questions.interface as u32, 0) as u32 }
}

/// Whether there is room in the window, or time for one more at the rate.
#[inline(always)]
fn is_due(questions: &mut Questions) -> bool {
    if questions.window == 0 {
        // SAFETY: the helper takes nothing.
        let elapsed = unsafe { bpf_ktime_get_ns() }.wrapping_sub(questions.started);
        return questions.sent * 1_000_000_000 <= elapsed * questions.rate;
    }
    let responses = questions.answered + questions.truncated + questions.wrong;
    let waiting = questions.sent - questions.given_up - responses;
    if (waiting as i64) < questions.window as i64 {
        return true;
    }
    // SAFETY: the helper takes nothing.
    let now = unsafe { bpf_ktime_get_ns() };
    if responses != questions.moved || questions.moved_at == 0 {
        (questions.moved, questions.moved_at) = (responses, now);
    } else if now - questions.moved_at > PATIENCE_NS {
        questions.given_up += waiting;
        questions.moved_at = now;
    }
    false
}

/// Writes into the template what differs from question to question. Port and id are each other's complement, which leaves the sum
/// as it is.
#[inline(always)]
fn write(questions: &mut Questions, number: u64, port: u16) -> Option<()> {
    let mut sum = questions.sum;
    let scattered = number.wrapping_mul(SCATTER);
    let udp = within(questions.udp)?;
    if questions.number != 0 {
        let name = match questions.in_turn {
            0 => ((scattered >> 32) * questions.names) >> 32,
            _ => number.checked_rem(questions.names)?,
        };
        let word = u64::from_ne_bytes(digits(name as u32));
        sum += (word & 0xffff_ffff) + (word >> 32);
        let place = within(questions.number)?;
        // SAFETY: within the template, as was just compared.
        unsafe { questions.template.as_mut_ptr().add(place).cast::<u64>().write_unaligned(word) };
    }
    if questions.clients != 0 {
        let client = (questions.first_client + (scattered >> 24 & questions.clients)) as u32;
        let client = client.to_be();
        sum += u64::from(client);
        let checksum = !fold(questions.sum4 + u64::from(client));
        // SAFETY: within the template: checksum and source of the IPv4 header.
        unsafe {
            questions.template.as_mut_ptr().add(24).cast::<u16>().write_unaligned(checksum);
            questions.template.as_mut_ptr().add(26).cast::<u32>().write_unaligned(client);
        }
    }
    // SAFETY: within the template, as `within` leaves room for 32 bytes.
    unsafe {
        let header = questions.template.as_mut_ptr().add(udp);
        header.cast::<u16>().write_unaligned(port.to_be());
        header.add(6).cast::<u16>().write_unaligned(!fold(sum));
        header.add(MESSAGE).cast::<u16>().write_unaligned(!port.to_be());
    }
    Some(())
}

/// A place in the template with at least 32 bytes behind it.
#[inline(always)]
fn within(place: u64) -> Option<usize> {
    let place = black_box(place);
    if place > (QUESTION_BYTES - 32) as u64 { None } else { Some(place as usize) }
}

#[inline(always)]
fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// Looks at a response and ends it. What is none passes.
#[xdp]
pub fn take(context: XdpContext) -> u32 {
    let Some(questions) = QUESTIONS.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: the only reference to the element in this program.
    let questions = unsafe { &mut *questions };
    if questions.taken == 0 {
        return XDP_PASS;
    }
    match questions.udp {
        UDP4 => look::<{ UDP4 as usize }>(context.ctx, questions),
        UDP6 => look::<{ UDP6 as usize }>(context.ctx, questions),
        _ => XDP_PASS,
    }
}

#[inline(always)]
fn look<const UDP: usize>(context: *mut xdp_md, questions: &mut Questions) -> u32 {
    let (start, end) = frame(context);
    if start + UDP + MESSAGE + 12 > end {
        return XDP_PASS;
    }
    // SAFETY: within the frame, as was just compared; any alignment will do.
    let (kind, protocol, source, port, id, flags, answers) = unsafe {
        let read = |place: usize| ((start + place) as *const u16).read_unaligned();
        let protocol = ((start + if UDP == UDP4 as usize { 23 } else { 20 }) as *const u8).read();
        let message = UDP + MESSAGE;
        (read(12), protocol, read(UDP), read(UDP + 2), read(message), read(message + 2), read(message + 6))
    };
    let family: u16 = if UDP == UDP4 as usize { 0x0800 } else { 0x86dd };
    if kind != family.to_be() || protocol != 17 || source != 53_u16.to_be() {
        return XDP_PASS;
    }
    let (flags, answers) = (u16::from_be(flags), u16::from_be(answers));
    let is_response = flags & 0x8000 != 0 && id == !port;
    let responses = questions.answered + questions.truncated + questions.wrong;
    if !is_response {
        questions.wrong += 1;
    } else if flags & 0x0200 != 0 {
        questions.truncated += 1;
    } else if u64::from(flags & 15) | u64::from(answers) << 16 == questions.expected {
        questions.answered += 1;
    } else {
        questions.wrong += 1;
    }
    if questions.timed != 0 {
        time(u16::from_be(port));
    }
    if responses.is_multiple_of(SAMPLED) {
        keep(context, (responses / SAMPLED) as u32 % SAMPLES, (end - start) as u64);
    }
    XDP_DROP
}

#[inline(always)]
fn time(port: u16) {
    let Some(sent_at) = SENT_AT.get(port.into()) else { return };
    // SAFETY: the helper takes nothing.
    let taken = unsafe { bpf_ktime_get_ns() }.wrapping_sub(*sent_at);
    let Some(count) = TIMES.get_ptr_mut(row(taken) as u32) else { return };
    // SAFETY: a valid pointer; see `QUESTIONS`.
    unsafe { *count += 1 };
}

#[inline(always)]
fn keep(context: *mut xdp_md, number: u32, length: u64) {
    let Some(sample) = KEPT.get_ptr_mut(number) else { return };
    let length = black_box(length);
    if length == 0 || length > SAMPLE_BYTES as u64 {
        return;
    }
    // SAFETY: a valid pointer; the helper writes as many bytes, for which there is room.
    unsafe {
        let kept = bpf_xdp_load_bytes(context, 0, (*sample).bytes.as_mut_ptr().cast(), length as u32);
        (*sample).length = if kept == 0 { length } else { 0 };
    }
}

/// Lets everything pass: a veth takes what a program sends back only if there is one at its other end.
#[xdp]
pub fn pass(_context: XdpContext) -> u32 {
    XDP_PASS
}

/// Answers every question to port 53 with the same four A records, whatever it asks. The checksums are brought up to date from
/// those of the question, as all that changes is the same each time.
#[xdp]
pub fn floor(context: XdpContext) -> u32 {
    let Some(constant) = CONSTANT.get(0) else { return XDP_PASS };
    match constant.udp {
        UDP4 => respond::<{ UDP4 as usize }>(context.ctx, constant),
        UDP6 => respond::<{ UDP6 as usize }>(context.ctx, constant),
        _ => XDP_PASS,
    }
}

#[inline(always)]
fn respond<const UDP: usize>(context: *mut xdp_md, constant: &Constant) -> u32 {
    let (start, end) = frame(context);
    if start + UDP + MESSAGE + 12 > end {
        return XDP_PASS;
    }
    let is_ipv4 = UDP == UDP4 as usize;
    // SAFETY: within the frame, as was just compared; any alignment will do.
    let (kind, port, flags) = unsafe {
        let read = |place: usize| ((start + place) as *const u16).read_unaligned();
        (read(12), read(UDP + 2), read(UDP + MESSAGE + 2))
    };
    let family: u16 = if is_ipv4 { 0x0800 } else { 0x86dd };
    if kind != family.to_be() || port != 53_u16.to_be() || flags & 0x80 != 0 {
        return XDP_PASS;
    }
    // SAFETY: the context is this program's; no address of the frame is kept.
    if unsafe { bpf_xdp_adjust_tail(context, constant.growth as i32) } != 0 {
        return XDP_PASS;
    }
    let (start, end) = frame(black_box(context));
    if start + UDP + MESSAGE + 12 > end {
        return XDP_DROP;
    }
    // SAFETY: within the frame, as was just compared; any alignment will do.
    unsafe {
        swap::<u32>(start, start + 6);
        swap::<u16>(start + 4, start + 10);
        if is_ipv4 {
            swap::<u32>(start + 26, start + 30);
            ((start + 16) as *mut u16).write_unaligned(constant.network_length as u16);
            add_to_checksum(start + 24, constant.network_sum);
        } else {
            swap::<u64>(start + 22, start + 38);
            swap::<u64>(start + 30, start + 46);
            ((start + 18) as *mut u16).write_unaligned(constant.network_length as u16);
        }
        swap::<u16>(start + UDP, start + UDP + 2);
        ((start + UDP + 4) as *mut u16).write_unaligned(constant.datagram_length as u16);
        add_to_checksum(start + UDP + 6, constant.datagram_sum);
        ((start + UDP + MESSAGE + 2) as *mut u16).write_unaligned(constant.flags as u16);
        ((start + UDP + MESSAGE + 4) as *mut u64).write_unaligned(constant.counts);
    }
    let at = black_box(constant.at);
    if at > QUESTION_BYTES as u64 {
        return XDP_DROP;
    }
    let records = black_box(start + at as usize);
    if records + size_of_val(&constant.records) > end {
        return XDP_DROP;
    }
    for (index, word) in constant.records.iter().enumerate() {
        // SAFETY: within the frame, as was just compared.
        unsafe { ((records + index * 8) as *mut u64).write_unaligned(*word) };
    }
    XDP_TX
}

/// Swaps two words of the frame.
///
/// # Safety
/// Both have to be within the frame.
#[inline(always)]
unsafe fn swap<W>(first: usize, second: usize) {
    let (first, second) = (first as *mut W, second as *mut W);
    // SAFETY: the caller's word.
    unsafe {
        let word = first.read_unaligned();
        first.write_unaligned(second.read_unaligned());
        second.write_unaligned(word);
    }
}

/// Brings a checksum up to date for a sum that has grown.
///
/// # Safety
/// It has to be within the frame.
#[inline(always)]
unsafe fn add_to_checksum(place: usize, sum: u64) {
    let checksum = place as *mut u16;
    // SAFETY: the caller's word.
    unsafe { checksum.write_unaligned(!fold(u64::from(!checksum.read_unaligned()) + sum)) };
}

/// Where the frame begins and ends.
#[inline(always)]
fn frame(context: *mut xdp_md) -> (usize, usize) {
    // SAFETY: the kernel hands the program a valid context.
    unsafe { ((*context).data as usize, (*context).data_end as usize) }
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
