//! A plan leads from any state to any other, every prefix of it is safe for traffic, and no flow of a live backend is moved.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of a test"
)]

mod answers;
mod checks;
mod fold;
mod histories;
mod path;
mod prefixes;
mod readable;
mod sweeps;
mod world;
