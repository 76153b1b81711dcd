//! What the fuzz targets in `tests/fuzz` try, and the laws that have to hold: a broken one is a panic.
//!
//! `tests/regressions.rs` replays what they have found, kept in `tests/fuzz/regressions`.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a panic is how a fuzz target says that a law is broken"
)]

pub mod frame;
mod frame_laws;
mod owner;
mod plan_laws;
pub mod plan_ops;
pub mod seeds;
mod world;

// What other tests hold against the same code, to be one text: a reader of packets, one of checksums, and what has to hold
// after every step of a plan.
#[path = "../../../lb-userspace/tests/plan/checks.rs"]
mod checks;
#[path = "../../../lb-userspace/tests/plan/path.rs"]
mod path;
#[path = "../../../lb-userspace/tests/plan/readable.rs"]
mod readable;
#[path = "../../../lb-common/tests/path/support/reader.rs"]
mod reader;
#[expect(dead_code, reason = "the other tests mend checksums as well")]
#[path = "../../../lb-common/tests/path/support/sound.rs"]
mod sound;
