//! The packet path on the host, judged by frames that another library built.
//!
//! Every expected frame is put together from scratch, with its lengths and checksums, by etherparse or byte by byte
//! (`support::datagram`, which is held against etherparse), or is the frame that came in: nothing here is compared with what the
//! path itself computed.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test a panic is the report; the settings of clippy cover only functions marked as tests"
)]

mod support;

mod buffer;
mod checksum;
mod cookies;
mod dns;
mod echo;
mod errors;
mod forward;
mod fragments;
mod index;
mod laws;
mod layouts;
mod limits;
mod mutations;
mod names;
mod nat;
mod parse;
mod picks;
mod spread;
mod too_long;
mod track;
mod tunnel;
mod vlan;
mod ways;
