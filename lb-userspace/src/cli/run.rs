//! `lb run`.

use crate::{
    agent,
    changes::state::DEFAULT_STATE,
    kernel::{announce::Announcer, detour::FrameSender, echo::echo_socket, load::Pins, privileges},
    probe::{Echoes, Sockets},
};
use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::{
    env,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
};
use tracing_subscriber::EnvFilter;

/// Sockets of probes, of the API and of DNS by TCP, with room to spare.
const OPEN_FILES: u64 = 16_384;

/// Runs the agent. `RUST_LOG` chooses what is logged, by default what an operator wants to know.
pub fn run(config: &Path) -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_target(false);
    // Colours are for people: a journal or a file would be full of escape sequences.
    log.with_ansi(io::stderr().is_terminal()).init();
    let (document, intent) = agent::open(config, state_folder)?;
    // Mounting and making folders takes more privileges than running. Given up before there are threads, or each would have its
    // own.
    let pins = Pins::hold(intent.pins())?;
    let [ipv4, ipv6] = [true, false].map(|ipv4| {
        echo_socket(ipv4)
            .inspect_err(|error| tracing::warn!(ipv4, %error, "no socket for checks of the kind icmp"))
            .ok()
    });
    let sender = FrameSender::open()
        .inspect_err(|error| tracing::warn!(%error, "no socket for checks with probe = \"service\""))
        .ok();
    more_files();
    let announcer = Announcer::open();
    if let Err(error) = &announcer {
        tracing::warn!(%error, "claims are not announced; CAP_NET_RAW at the start lets them be");
    }
    privileges::give_up()?;
    let sockets = Sockets { echoes: Echoes::new(ipv4, ipv6), sender };
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(agent::run(
        document,
        intent,
        pins,
        sockets,
        announcer.ok(),
    ))
}

/// Where the state is: as the config says, or as systemd does, which may name several folders.
fn state_folder(written: Option<&str>) -> PathBuf {
    let of_systemd =
        || env::var("STATE_DIRECTORY").ok()?.split(':').next().filter(|path| !path.is_empty()).map(PathBuf::from);
    written.map(PathBuf::from).or_else(of_systemd).unwrap_or_else(|| DEFAULT_STATE.into())
}

/// Probes and connections take more open files than a shell or systemd allow at first.
fn more_files() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        let wanted = hard.min(OPEN_FILES);
        if wanted > soft { setrlimit(Resource::RLIMIT_NOFILE, wanted, hard) } else { Ok(()) }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the number of open files");
    }
}
