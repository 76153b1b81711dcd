//! The way out of a tunnel on the host, judged by frames that another library built.
//!
//! Every expected frame is the one that came in, or put together from scratch by etherparse without the outer header: nothing
//! here is compared with what the decapsulator itself computed.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test a panic is the report; the settings of clippy cover only functions marked as tests"
)]

mod frames;

mod balancer;
mod congestion;
mod laws;
mod sources;
mod ways;
