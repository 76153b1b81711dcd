//! The agent of `lb` and the parts that its command is made of.
//!
//! A change goes one way: [`config`] as written, [`model::intent`] as meant, [`model::desired`] with the state of the world
//! folded in, [`model::plan`] as steps, [`kernel::maps`] as done. What the operator changes by command is an edit of the first
//! ([`changes`]); health, netlink and the DNS questions that were asked enter at the third step. There is no second way to a map.
#![deny(unsafe_code)]

pub mod agent;
pub mod api;
pub mod changes;
pub mod cli;
pub mod config;
pub mod dns;
#[expect(unsafe_code, reason = "system calls, mapped memory and the promise to aya are made here, and only here")]
pub mod kernel;
pub mod link_groups;
pub mod metrics;
pub mod model;
pub mod probe;
pub mod rates;
pub mod settle;
pub mod status;
pub mod supervisor;
