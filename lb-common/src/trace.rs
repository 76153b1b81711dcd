//! What the path and the agent share of traces: samples of frames, each with what became of it.

use crate::{tables::NOBODY, verdict::Verdict};
use bytemuck::{Pod, Zeroable};

/// Words of a frame that are kept: its headers, and a DNS question.
pub const HEAD_WORDS: usize = 32;
/// Samples that a CPU takes in a second at most.
pub const MOST_A_SECOND: u32 = 5_000;
/// Bytes of samples that may wait for the agent.
pub const WAITING_BYTES: u32 = 1 << 20;

/// What is to be sampled.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Tracing {
    /// Until this time of the path's clock, in seconds: an agent that dies says no more that it goes on.
    pub until_seconds: u64,
    /// One of so many frames.
    pub every: u64,
}

/// Where a CPU is with its samples.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Pod, Zeroable)]
pub struct Sampling {
    /// The second that it is in.
    pub second: u64,
    /// Samples taken in it.
    pub taken: u64,
    /// Frames to be left out before the next sample.
    pub left_out: u64,
    /// Samples that should have been taken, and were not: too many in a second, or too many waiting.
    pub missed: u64,
}

/// A frame as it came, and what became of it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
pub struct Sample {
    /// When it came, by the monotonic clock.
    pub nanoseconds: u64,
    /// By which interface.
    pub interface: u32,
    /// Its length.
    pub length: u32,
    /// What happened to it: see [`Sample::decided`].
    pub action: u32,
    /// Number of its [`Why`](crate::verdict::Why).
    pub why: u32,
    /// The interface that it was redirected to.
    pub to: u32,
    /// Id of the backend that it went to, or [`NOBODY`].
    pub backend: u32,
    /// Its beginning; what is behind its end is any other frame's.
    pub head: [u64; HEAD_WORDS],
}

/// Names of what can happen to a frame, by [`Sample::action`].
pub const ACTIONS: [&str; 4] = ["pass", "transmit", "redirect", "drop"];

impl Sample {
    /// A frame has come, and nothing has happened to it yet. Its beginning is to be copied.
    #[inline(always)]
    pub fn begin(&mut self, nanoseconds: u64, interface: u32, length: u32) {
        (self.nanoseconds, self.interface, self.length) = (nanoseconds, interface, length);
        self.backend = NOBODY;
    }

    /// This happens to it.
    #[inline(always)]
    pub fn decided(&mut self, verdict: Verdict) {
        (self.action, self.to) = match verdict {
            Verdict::Pass(_) => (0, 0),
            Verdict::Transmit(_) => (1, 0),
            Verdict::Redirect(_, interface) => (2, interface),
            Verdict::Drop(_) => (3, 0),
        };
        self.why = verdict.why() as u32;
    }
}
