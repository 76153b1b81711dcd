//! The command's tree: one file for each verb that does more than ask.

mod attach;
mod change;
mod check;
mod config;
mod decap;
mod detach;
mod dns;
mod explain;
mod health;
mod pcapng;
mod run;
mod shell;
mod stats;
mod status;
mod top;
mod trace;

use crate::{
    api::{TcpError, client::ClientError},
    changes::state::StateError,
    config::ConfigErrors,
    dns::listen::ListenError,
    kernel::KernelError,
};
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use std::{path::PathBuf, process::ExitCode};

/// Load balancer and health-checked DNS server in the packet path.
///
/// Exit codes: 0 done, 1 the answer is no, 2 wrong usage or config, 3 the kernel refused.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the agent in the foreground. SIGHUP reloads the config; SIGTERM ends it and leaves the data path up.
    Run {
        /// The config.
        #[arg(long, env = "LB_CONFIG", default_value = "/etc/lb/lb.toml")]
        config: PathBuf,
    },
    /// Say whether a config is right, and if not, where it is wrong.
    Check {
        /// The config.
        file: PathBuf,
        /// As JSON, if it is right.
        #[arg(long)]
        json: bool,
    },
    /// Show services, backends, DNS and where packets went.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        agent: Agent,
    },
    /// Show what the health checks say: state, last answer, and the last turns with their reasons.
    Health {
        /// Only of this: the name of a service or a DNS name, an address, or an address with port.
        of: Option<String>,
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        agent: Agent,
    },
    /// Show how much goes to each service and backend.
    Stats(stats::StatsArgs),
    /// Show services, backends, rates, health and DNS on the whole terminal.
    Top(top::TopArgs),
    /// Show what the kernel answers of DNS.
    #[command(subcommand)]
    Dns(dns::Verb),
    /// Tell what the data path does with a packet by what the maps hold now, and why; none is sent.
    #[command(subcommand)]
    Explain(explain::Verb),
    /// Show what becomes of packets as they come: samples, decoded, or as a file for Wireshark and tcpdump.
    Trace(trace::TraceArgs),
    /// Show services, add and remove them.
    #[command(subcommand)]
    Service(change::ServiceVerb),
    /// Show backends, add, remove and change them.
    #[command(subcommand)]
    Backend(change::BackendVerb),
    /// Have this machine answer for a service address on the link, or not.
    #[command(subcommand)]
    Vip(change::VipVerb),
    /// Show the changes that were made by command, and take them back.
    Changes(config::ChangesArgs),
    /// Print the config that holds: the agent's file with the changes that were made by command.
    Export(config::ExportArgs),
    /// Tell what another config would change, by the steps that the agent would take. Nothing is changed.
    Diff(config::DiffArgs),
    /// Read the config again, or install another one, and say what came of it. A wrong one changes nothing.
    Apply(config::ApplyArgs),
    /// Attach the data path to the interfaces of the config, after `lb detach`, and see that frames reach it there.
    Attach(attach::Attach),
    /// Take the data path down: through the agent, or, when none runs, by the pins that it left.
    Detach {
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        agent: Agent,
        /// Where the agent had its pins.
        #[arg(long, default_value = crate::config::DEFAULT_PINS)]
        pins: PathBuf,
    },
    /// On a backend: take packets out of the tunnels that a balancer sends them through. No agent is needed, nor a tunnel device;
    /// the service's address is on the loopback.
    #[command(subcommand)]
    Decap(decap::Verb),
    /// Print a shell's completions of this command.
    Completions(shell::CompletionsArgs),
    /// Print the manual page, or write those of all commands to a folder.
    Man(shell::ManArgs),
}

/// Which agent is meant.
#[derive(Clone, Debug, Args)]
struct Agent {
    /// The agent's socket.
    #[arg(long, env = "LB_SOCKET", default_value = crate::config::DEFAULT_SOCKET)]
    socket: PathBuf,
}

/// Does what the command line says.
pub fn run(cli: Cli) -> Result<()> {
    match cli.verb {
        Verb::Run { config } => run::run(&config),
        Verb::Check { file, json } => check::check(&file, json),
        Verb::Status { json, agent } => wait(status::status(&agent.socket, json)),
        Verb::Health { of, json, agent } => wait(health::health(&agent.socket, of.as_deref(), json)),
        Verb::Dns(verb) => wait(dns::run(verb)),
        Verb::Explain(verb) => wait(explain::explain(verb)),
        Verb::Trace(args) => wait(trace::trace(args)),
        Verb::Service(verb) => wait(change::service(verb)),
        Verb::Backend(verb) => wait(change::backend(verb)),
        Verb::Vip(verb) => wait(change::vip(verb)),
        Verb::Changes(args) => wait(config::changes(args)),
        Verb::Export(args) => wait(config::export(args)),
        Verb::Diff(args) => wait(config::diff(args)),
        Verb::Apply(args) => wait(config::apply(args)),
        Verb::Attach(arguments) => wait(attach::attach(arguments)),
        Verb::Detach { json, agent, pins } => wait(detach::detach(agent.socket, pins, json)),
        Verb::Stats(args) => wait(stats::stats(args)),
        Verb::Top(args) => wait(top::top(args)),
        Verb::Completions(args) => shell::completions(&args),
        Verb::Man(args) => shell::man(&args),
        Verb::Decap(verb) => wait(decap::run(verb)),
    }
}

/// The exit code for an error.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if let Some(ClientError::Refused(refusal)) = error.downcast_ref() {
        ExitCode::from(refusal.kind.exit_code())
    } else if error.is::<ConfigErrors>() || error.is::<StateError>() {
        ExitCode::from(2)
    } else if error.is::<KernelError>() || error.is::<ListenError>() {
        ExitCode::from(3)
    } else if let Some(error) = error.downcast_ref::<TcpError>() {
        ExitCode::from(error.exit_code())
    } else if let Some(error) = error.downcast_ref::<decap::DecapError>() {
        ExitCode::from(error.exit_code())
    } else {
        ExitCode::FAILURE
    }
}

/// Prints an answer as JSON.
fn json(answer: &impl Serialize) -> Result<()> {
    println!("{:#}", serde_json::to_value(answer)?);
    Ok(())
}

/// Waits for a request to the agent.
fn wait<T>(request: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(request)
}
