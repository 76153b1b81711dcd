//! The command's tree: one file for each verb that does more than ask.

mod attach;
mod check;
mod decap;
mod detach;
mod dns;
mod explain;
mod run;
mod status;

use crate::{
    api::{DrainRequest, client},
    config::ConfigErrors,
    dns::listen::ListenError,
    kernel::KernelError,
};
use anyhow::Result;
use clap::{Args, Parser, Subcommand};
use std::{
    net::{AddrParseError, IpAddr, SocketAddr},
    path::PathBuf,
    process::ExitCode,
};

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
    },
    /// Show services, backends, DNS and where packets went.
    Status {
        /// As JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        agent: Agent,
    },
    /// Show what the kernel answers of DNS.
    #[command(subcommand)]
    Dns(dns::Verb),
    /// Tell what the data path does with a packet by what the maps hold now, and why; none is sent.
    #[command(subcommand)]
    Explain(explain::Verb),
    /// Change a backend.
    #[command(subcommand)]
    Backend(BackendVerb),
    /// Attach the data path to the interfaces of the config, after `lb detach`, and see that frames reach it there.
    Attach(attach::Attach),
    /// Take the data path down: through the agent, or, when none runs, by the pins that it left.
    Detach {
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
}

#[derive(Debug, Subcommand)]
enum BackendVerb {
    /// Send a backend no new flows. Those that it has stay until they end.
    Drain {
        #[command(flatten)]
        backend: BackendArgs,
        /// Give up the flows that are left after so many seconds; default `drain_seconds` of the config, or never.
        #[arg(long = "for", value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=604_800))]
        seconds: Option<u32>,
    },
    /// Send a backend new flows again.
    Undrain(BackendArgs),
}

#[derive(Debug, Args)]
struct BackendArgs {
    /// The service's name.
    service: String,
    /// The backend's address with port, `10.0.0.11:80` or `[2001:db8::11]:80`; without for a service on any port.
    #[arg(value_parser = backend_address)]
    backend: SocketAddr,
    #[command(flatten)]
    agent: Agent,
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
        Verb::Check { file } => check::check(&file),
        Verb::Status { json, agent } => wait(status::status(&agent.socket, json)),
        Verb::Dns(verb) => wait(dns::run(verb)),
        Verb::Explain(verb) => wait(explain::explain(verb)),
        Verb::Backend(BackendVerb::Drain { backend, seconds }) => wait(drain(backend, true, seconds)),
        Verb::Backend(BackendVerb::Undrain(backend)) => wait(drain(backend, false, None)),
        Verb::Attach(arguments) => wait(attach::attach(arguments)),
        Verb::Detach { agent, pins } => wait(detach::detach(agent.socket, pins)),
        Verb::Decap(verb) => wait(decap::run(verb)),
    }
}

/// The exit code for an error.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<ConfigErrors>() {
        ExitCode::from(2)
    } else if error.is::<KernelError>() || error.is::<ListenError>() {
        ExitCode::from(3)
    } else if let Some(error) = error.downcast_ref::<decap::DecapError>() {
        ExitCode::from(error.exit_code())
    } else {
        ExitCode::FAILURE
    }
}

/// An address with a port, or without for any.
fn backend_address(text: &str) -> Result<SocketAddr, AddrParseError> {
    let any = |address: IpAddr| SocketAddr::new(address, 0);
    text.parse().or_else(|error| text.parse().map(any).map_err(|_| error))
}

async fn drain(args: BackendArgs, drain: bool, seconds: Option<u32>) -> Result<()> {
    let BackendArgs { service, backend, agent } = args;
    let state = if drain { "draining" } else { "taking new flows" };
    let done = format!("service {service}: backend {} is {state}", status::address(backend));
    client::post::<()>(&agent.socket, "/drain", &DrainRequest { service, backend, drain, seconds }).await?;
    println!("{done}");
    Ok(())
}

/// Waits for a request to the agent.
fn wait<T>(request: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(request)
}
