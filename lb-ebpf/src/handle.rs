//! One frame from the kernel's call to its action, by either half of [`path::steer`].

use crate::{
    frame::XdpFrame,
    maps::{DEVICES, Maps, Watch},
};
use aya_ebpf::{
    bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX},
    programs::XdpContext,
};
use aya_log_ebpf::error;
use lb_common::{
    path,
    tables::Tables,
    verdict::{Verdict, Why},
};

/// What nearly every frame takes; `None` for others, which are left as they were.
#[inline(always)]
pub fn plain<W: Watch>(context: &XdpContext) -> Option<u32> {
    let maps = Maps::<W>::new(context);
    let verdict = path::plain(&mut XdpFrame::new(context), &maps)?;
    W::decided(verdict);
    Some(match verdict {
        Verdict::Pass(Why::Inconsistent) => contradiction(context),
        verdict => act(&maps, verdict),
    })
}

/// What any frame can take.
#[inline(always)]
pub fn rare<W: Watch>(context: &XdpContext) -> u32 {
    let maps = Maps::<W>::new(context);
    let verdict = path::rare(&mut XdpFrame::new(context), &maps);
    W::decided(verdict);
    act(&maps, verdict)
}

#[inline(always)]
fn act(maps: &impl Tables, verdict: Verdict) -> u32 {
    match verdict {
        Verdict::Pass(_) => XDP_PASS,
        Verdict::Transmit(_) => XDP_TX,
        Verdict::Drop(_) => XDP_DROP,
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
///
/// Not `#[cold]`: that has a section of its own, and aya 0.14 takes functions at the same place in two sections for one.
#[inline(never)]
fn contradiction(context: &XdpContext) -> u32 {
    error!(context, "the tables contradict each other; a frame passed");
    XDP_PASS
}
