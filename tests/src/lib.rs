//! A lab for tests of `lb` on a real kernel: network namespaces for a client, a balancer and its
//! backends, real servers and clients inside them, and the agent under test.
//!
//! ```no_run
//! # fn main() -> anyhow::Result<()> {
//! use tests::{Agent, Lab, Layout, Nginx, curl_many};
//!
//! let lab = Lab::blueprint(Layout::Bridged).backends(2).up()?;
//! let server = Nginx::start(&lab.backends()[0], &[80])?;
//! let config = format!("socket = {:?}\npins = {:?}\n", lab.socket(), lab.pins());
//! let agent = Agent::start(lab.balancer(), &config)?;
//! let replies = curl_many(lab.client(), &format!("http://{}/", lab.service_ipv4(0)), 100)?;
//! # Ok(())
//! # }
//! ```
//!
//! A lab needs root, `ip`, `nsenter` and `ethtool`; everything that it makes goes away with it, after
//! a panic and on SIGINT or SIGTERM too.
#![deny(unsafe_code)]

mod agent;
mod belongings;
mod blueprint;
mod counters;
mod crowd;
mod curl;
pub mod decap;
mod decapsulation;
mod dig;
pub mod fixture;
pub mod followed;
mod frame_socket;
pub mod frames;
pub mod fuzzing;
pub mod guest;
mod host;
mod iperf;
mod knot;
mod lab;
mod layout;
mod leftovers;
mod lines;
pub mod mutations;
mod nginx;
pub mod numbers;
mod ping;
mod process;
#[expect(unsafe_code, reason = "bpf(2) has no safe wrapper that takes plain instructions")]
mod programs;
pub mod questions;
mod signals;
mod skip;
mod speaker;
mod systemd;
mod task;
mod udp_echo;
pub mod vectors;
mod wait;
mod wiring;

pub use agent::{Agent, lb_binary};
pub use blueprint::Blueprint;
pub use counters::{Counters, protocol_counters};
pub use crowd::Crowd;
pub use curl::{Reply, curl, curl_many, curl_with};
pub use decapsulation::Decapsulation;
pub use dig::{DigAnswer, Record, dig, drill, kdig};
pub use frame_socket::FrameSocket;
pub use host::{Host, Interface};
pub use iperf::{Amount, Transfer, iperf};
pub use knot::{Knot, Zone};
pub use lab::Lab;
pub use layout::Layout;
pub use leftovers::remove_kept;
pub use lines::{Connection, LineServer, Lines, LinesReport};
pub use nginx::{Nginx, Served, served_in_total};
pub use process::{Output, Running};
pub use skip::{needs_program, needs_root, needs_tun, skip};
pub use speaker::Speaker;
pub use systemd::Systemd;
pub use udp_echo::{UdpEcho, UdpFlow, UdpFlows, UdpReport, udp_exchange};
pub use wait::wait_until;
