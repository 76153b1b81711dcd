//! `lb service`, `lb backend`, `lb vip`: changes that stay until they are taken back.

use super::{Agent, json, status};
use crate::{
    api::{BackendChange, Done, client},
    changes::edit::{BackendState, Written, as_in_commands},
    status::{BackendStatus, ServiceStatus},
};
use anyhow::Result;
use clap::{Args, Subcommand, builder::PossibleValuesParser};
use serde_json::{Value, json};
use std::net::{AddrParseError, IpAddr, SocketAddr};

#[derive(Debug, Subcommand)]
pub(super) enum ServiceVerb {
    /// Add a service with its backends.
    Add(Box<ServiceArgs>),
    /// Remove a service. Its packets pass to the kernel from then on.
    Remove {
        /// The service's name.
        service: String,
        #[command(flatten)]
        output: Output,
    },
    /// List the services.
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Show a service with its backends.
    Show {
        /// The service's name.
        service: String,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub(super) struct ServiceArgs {
    /// What the service is called.
    name: String,
    /// Where clients connect to: `192.0.2.10:80`, `[2001:db8::10]:80`, or without a port for all that no other service has.
    #[arg(value_parser = backend_address)]
    address: SocketAddr,
    /// How packets reach the backends.
    #[arg(long, value_parser = PossibleValuesParser::new(["dsr", "nat", "tunnel"]))]
    mode: String,
    /// The protocol; default tcp.
    #[arg(long, value_parser = PossibleValuesParser::new(["tcp", "udp"]))]
    protocol: Option<String>,
    /// The name of the backends' health check in the config.
    #[arg(long)]
    check: Option<String>,
    /// A backend, `10.0.0.11`, `10.0.0.11:8080` or, with a weight, `10.0.0.11=3`; any number of times, at least once.
    #[arg(long = "backend", value_name = "BACKEND", required = true, value_parser = weighted_backend)]
    backends: Vec<(SocketAddr, Option<i64>)>,
    /// Another key of `[[service]]` with its value as in the config, such as `slots=1009`; any number of times.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    more: Vec<(String, Value)>,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
pub(super) enum BackendVerb {
    /// Add a backend to a service.
    Add {
        #[command(flatten)]
        backend: BackendArgs,
        /// Its share of the flows, in proportion to the other backends' weights; default 1.
        #[arg(long)]
        weight: Option<i64>,
        /// Another key of `[[service.backend]]` with its value as in the config; any number of times.
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
        more: Vec<(String, Value)>,
    },
    /// Remove a backend from a service. It takes no new flows, and goes with the last one that it has.
    Remove(BackendArgs),
    /// List the backends of a service, or of all.
    List {
        /// The service's name.
        service: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Give a backend another weight. No established flow moves.
    Weight {
        #[command(flatten)]
        backend: BackendArgs,
        /// Its share of the flows, in proportion to the other backends' weights.
        weight: i64,
    },
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
    /// Send a backend nothing at all from now on: flows that it has move to others.
    Disable(BackendArgs),
    /// Send a disabled backend flows again, when it is healthy.
    Enable(BackendArgs),
}

#[derive(Debug, Args)]
pub(super) struct BackendArgs {
    /// The service's name.
    service: String,
    /// The backend's address with port, `10.0.0.11:80` or `[2001:db8::11]:80`; without for a service on any port.
    #[arg(value_parser = backend_address)]
    backend: SocketAddr,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Subcommand)]
pub(super) enum VipVerb {
    /// Have ARP and neighbour solicitations for a service address answered by this machine.
    Claim(VipArgs),
    /// Have nobody answer them: the address is routed to this machine, or another one has it.
    Release(VipArgs),
}

#[derive(Debug, Args)]
pub(super) struct VipArgs {
    /// The address of one or more services.
    address: IpAddr,
    #[command(flatten)]
    output: Output,
}

/// In what form the answer is.
#[derive(Clone, Debug, Args)]
pub(super) struct Output {
    /// As JSON.
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) agent: Agent,
}

pub(super) async fn service(verb: ServiceVerb) -> Result<()> {
    match verb {
        ServiceVerb::Add(args) => add_service(*args).await,
        ServiceVerb::Remove { service, output } => {
            let done = client::delete(&output.agent.socket, &format!("/services/{service}")).await?;
            tell(&done, &output, &format!("service {service}: removed"))
        }
        ServiceVerb::List { output } => {
            let services: Vec<ServiceStatus> = client::get(&output.agent.socket, "/services").await?;
            if output.json {
                return json(&services);
            }
            for service in &services {
                println!("{}", status::service_line(service));
            }
            Ok(())
        }
        ServiceVerb::Show { service, output } => {
            let service: ServiceStatus = client::get(&output.agent.socket, &format!("/services/{service}")).await?;
            if output.json {
                return json(&service);
            }
            println!("{}", status::service_text(&service).join("\n"));
            Ok(())
        }
    }
}

async fn add_service(args: ServiceArgs) -> Result<()> {
    let ServiceArgs { name, address, mode, protocol, check, backends, more, output } = args;
    let any = address.port() == 0;
    let mut service = Written::new();
    service.insert("name".into(), name.as_str().into());
    service.insert("address".into(), address.ip().to_string().into());
    service.insert("port".into(), if any { "any".into() } else { address.port().into() });
    service.extend(protocol.map(|protocol| ("protocol".into(), protocol.into())));
    service.insert("mode".into(), mode.into());
    service.extend(check.map(|check| ("check".into(), check.into())));
    service.extend(more);
    let backends = backends.into_iter().map(|(address, weight)| Value::Object(written(address, weight)));
    service.insert("backend".into(), backends.collect());
    let done = client::post(&output.agent.socket, "/services", &service).await?;
    tell(&done, &output, &format!("service {name}: added at {}", status::address(address)))
}

pub(super) async fn backend(verb: BackendVerb) -> Result<()> {
    match verb {
        BackendVerb::Add { backend, weight, more } => {
            let BackendArgs { service, backend, output } = backend;
            let mut keys = written(backend, weight);
            keys.extend(more);
            let done = client::post(&output.agent.socket, &format!("/services/{service}/backends"), &keys).await?;
            tell(&done, &output, &format!("service {service}: backend {} is added", status::address(backend)))
        }
        BackendVerb::Remove(args) => {
            let done = client::delete(&args.output.agent.socket, &args.path()).await?;
            args.tell(&done, "is removed")
        }
        BackendVerb::List { service, output } => list(service, &output).await,
        BackendVerb::Weight { backend, weight } => {
            let change = BackendChange { weight: Some(weight), ..BackendChange::default() };
            patch(&backend, change, &format!("has weight {weight}")).await
        }
        BackendVerb::Drain { backend, seconds } => {
            let state = Some(BackendState::Drain);
            patch(&backend, BackendChange { state, drain_seconds: seconds, weight: None }, "is draining").await
        }
        BackendVerb::Undrain(backend) => state(&backend, BackendState::Active, "is taking new flows").await,
        BackendVerb::Disable(backend) => state(&backend, BackendState::Disabled, "is disabled").await,
        BackendVerb::Enable(backend) => state(&backend, BackendState::Active, "is enabled").await,
    }
}

pub(super) async fn vip(verb: VipVerb) -> Result<()> {
    let (VipArgs { address, output }, verb, state) = match verb {
        VipVerb::Claim(args) => (args, "claim", "is answered for by this machine"),
        VipVerb::Release(args) => (args, "release", "is answered for by nobody here"),
    };
    let done = client::post(&output.agent.socket, &format!("/vips/{address}/{verb}"), &()).await?;
    tell(&done, &output, &format!("address {address} {state}"))
}

async fn list(service: Option<String>, output: &Output) -> Result<()> {
    let services: Vec<ServiceStatus> = match service {
        Some(service) => vec![client::get(&output.agent.socket, &format!("/services/{service}")).await?],
        None => client::get(&output.agent.socket, "/services").await?,
    };
    if output.json {
        let backends: Vec<_> = services
            .iter()
            .flat_map(|ServiceStatus { name, backends, .. }| {
                backends.iter().map(move |backend| json!({ "service": name, "backend": backend }))
            })
            .collect();
        return json(&backends);
    }
    for ServiceStatus { name, backends, names, backends_file, .. } in &services {
        for backend in backends {
            let BackendStatus { address, weight, .. } = backend;
            let by = backend.found_by().map(|by| format!("  {by}")).unwrap_or_default();
            println!("{name}  {}  weight {weight}  {}{by}", as_in_commands(*address), backend.state());
        }
        // Where there may be more of them, or others.
        for name_status in names.iter().filter(|status| status.error.is_some() || status.resolved_seconds.is_none()) {
            println!("{name}  name {}", status::name_text(name_status));
        }
        for file in backends_file.iter().filter(|file| file.error.is_some()) {
            println!("{name}  file {}", status::file_text(file));
        }
    }
    Ok(())
}

impl BackendArgs {
    fn path(&self) -> String {
        format!("/services/{}/backends/{}", self.service, as_in_commands(self.backend))
    }

    fn tell(&self, done: &Done, state: &str) -> Result<()> {
        let line = format!("service {}: backend {} {state}", self.service, status::address(self.backend));
        tell(done, &self.output, &line)
    }
}

async fn state(args: &BackendArgs, state: BackendState, text: &str) -> Result<()> {
    patch(args, BackendChange { state: Some(state), ..BackendChange::default() }, text).await
}

async fn patch(args: &BackendArgs, change: BackendChange, text: &str) -> Result<()> {
    let done = client::patch(&args.output.agent.socket, &args.path(), &change).await?;
    args.tell(&done, text)
}

/// Prints what was done, and on standard error what else follows from it.
pub(super) fn tell(done: &Done, output: &Output, line: &str) -> Result<()> {
    if output.json {
        return json(done);
    }
    println!("{line}{}", if done.changed { "" } else { " already" });
    warn(done);
    Ok(())
}

/// Says which changes are not in effect, and which files are wrong.
pub(super) fn warn(done: &Done) {
    for stale in &done.stale {
        eprintln!("lb: change {} no longer applies: {}", stale.id, stale.reason);
    }
    for file in &done.wrong_files {
        eprintln!("lb: {}", status::file_text(file));
    }
}

/// As `[[service.backend]]` has it.
fn written(address: SocketAddr, weight: Option<i64>) -> Written {
    let mut backend = Written::new();
    backend.insert("address".into(), address.ip().to_string().into());
    if address.port() != 0 {
        backend.insert("port".into(), address.port().into());
    }
    backend.extend(weight.map(|weight| ("weight".into(), weight.into())));
    backend
}

/// An address with a port, or without for any.
pub(super) fn backend_address(text: &str) -> Result<SocketAddr, AddrParseError> {
    let any = |address: IpAddr| SocketAddr::new(address, 0);
    text.parse().or_else(|error| text.parse().map(any).map_err(|_| error))
}

fn weighted_backend(text: &str) -> Result<(SocketAddr, Option<i64>), String> {
    let (address, weight) = match text.split_once('=') {
        Some((address, weight)) => {
            (address, Some(weight.parse().map_err(|_| format!("`{weight}` is no weight; write a number"))?))
        }
        None => (text, None),
    };
    Ok((backend_address(address).map_err(|error| error.to_string())?, weight))
}

/// A key with a value in TOML; a word without quotes is a string.
fn key_value(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    let written = format!("value = {value}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
    let value = match written {
        Some(value) => serde_json::to_value(value).map_err(|error| error.to_string())?,
        None => value.into(),
    };
    Ok((key.trim().into(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_values_as_in_the_config() {
        for (text, value) in [
            ("slots=1009", json!(1009)),
            ("echo=false", json!(false)),
            ("check=web", json!("web")),
            ("check=\"web\"", json!("web")),
        ] {
            let key = text.split('=').next().unwrap().to_owned();
            assert_eq!(key_value(text), Ok((key, value)));
        }
        assert_eq!(key_value("slots"), Err("write KEY=VALUE".into()));
    }

    #[test]
    fn backends_have_a_port_and_a_weight_or_not() {
        let read = |text: &str| weighted_backend(text).map(|(address, weight)| (as_in_commands(address), weight));
        assert_eq!(read("10.0.0.1"), Ok(("10.0.0.1".into(), None)));
        assert_eq!(read("10.0.0.1:80=3"), Ok(("10.0.0.1:80".into(), Some(3))));
        assert_eq!(read("[2001:db8::1]:80=0"), Ok(("[2001:db8::1]:80".into(), Some(0))));
        assert!(read("10.0.0.1=x").is_err() && read("web").is_err());
    }
}
