//! The agent under test, `lb run`, and its command.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::{Host, Output, Running, wait_until};

/// Time for loading the programs on a busy machine.
const READY: Duration = Duration::from_secs(20);
/// Time for an orderly end.
const END: Duration = Duration::from_secs(10);

/// An agent that runs on a host until it is ended or the lab goes.
#[derive(Debug)]
pub struct Agent {
    host: Host,
    binary: PathBuf,
    config: PathBuf,
    running: Running,
}

impl Agent {
    /// Starts `lb run` with the text `config`, whose `socket` must be that of the lab
    /// ([`crate::Lab::socket`]), and waits until it answers there.
    pub fn start(host: &Host, config: &str) -> Result<Self> {
        Self::start_binary(host, &lb_binary()?, config)
    }

    /// As [`Agent::start`], with an `lb` of the caller's choice: another version, say.
    pub fn start_binary(host: &Host, binary: &Path, config: &str) -> Result<Self> {
        Self::begin(host, binary, config, READY)
    }

    /// As [`Agent::start`], by a command that becomes it, such as `env NAME=value`.
    pub fn start_by(host: &Host, words: &[&str], config: &str) -> Result<Self> {
        Self::begin_by(host, words, &lb_binary()?, config, READY)
    }

    /// As [`Agent::start`], with a config that takes its time.
    pub fn start_within(host: &Host, config: &str, ready: Duration) -> Result<Self> {
        Self::begin(host, &lb_binary()?, config, ready)
    }

    fn begin(host: &Host, binary: &Path, config: &str, ready: Duration) -> Result<Self> {
        Self::begin_by(host, &[], binary, config, ready)
    }

    fn begin_by(host: &Host, words: &[&str], binary: &Path, config: &str, ready: Duration) -> Result<Self> {
        let path = host.belongings().unique_path(host.role(), "-lb.toml");
        write(&path, config)?;
        // As systemd says it.
        let state = state_variable(host);
        let front = ["env".as_ref(), state.as_os_str()];
        let line = [binary.as_os_str(), "run".as_ref(), "--config".as_ref(), path.as_os_str()];
        let running = host.spawn(front.into_iter().chain(words.iter().map(OsStr::new)).chain(line))?;
        let agent = Self { host: host.clone(), binary: binary.to_owned(), config: path, running };
        agent.wait_until_it_answers(ready)?;
        Ok(agent)
    }

    /// Runs `lb` with arguments and the agent's socket; an exit status other than 0 is an error.
    pub fn lb<I>(&self, arguments: I) -> Result<Output>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        self.host.run(self.line(arguments))
    }

    /// As [`Agent::lb`], whatever the exit status: 1 is the answer no.
    pub fn attempt_lb<I>(&self, arguments: I) -> Result<Output>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        self.host.attempt(self.line(arguments))
    }

    /// What `lb status --json` says.
    pub fn status(&self) -> Result<Value> {
        let output = self.lb(["status", "--json"])?;
        serde_json::from_str(&output.stdout).with_context(|| format!("reading the status {:?}", output.stdout))
    }

    /// Replaces the config's text and tells the agent to read it (SIGHUP), which it does in its time.
    pub fn reload(&self, config: &str) -> Result<()> {
        // By renaming, so that the agent never reads a part.
        let new = self.config.with_extension("new");
        write(&new, config)?;
        fs::rename(&new, &self.config).with_context(|| format!("replacing {}", self.config.display()))?;
        self.running.signal(Signal::SIGHUP)
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn terminate(&self) -> Result<ExitStatus> {
        self.running.terminate(END)
    }

    /// Ends it at once (SIGKILL).
    pub fn kill(&self) -> Result<()> {
        self.running.kill()
    }

    /// Its process, with its log.
    #[must_use]
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// The file that holds its config.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }

    fn wait_until_it_answers(&self, ready: Duration) -> Result<()> {
        let mut last = String::new();
        // What costs it nothing, however much it has to do.
        let poll = || match (self.running.ended(), self.attempt_lb(["changes"])) {
            (Ok(None), Ok(output)) if output.status.success() => Some(Ok(())),
            (Ok(None), Ok(output)) => {
                last = output.stderr;
                None
            }
            (Ok(Some(status)), _) => Some(Err(anyhow!("{} ended ({status})", self.running))),
            (Err(error), _) | (_, Err(error)) => Some(Err(error)),
        };
        let waited = wait_until(ready, "`lb changes` succeeded", poll);
        waited
            .and_then(|answered| answered)
            .map_err(|error| anyhow!("{error:#}; it last said {last:?}; its log{}", self.running.log_tail()))
    }

    fn line<I>(&self, arguments: I) -> Vec<OsString>
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        let mut line = vec![self.binary.clone().into_os_string()];
        line.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        line.extend(["--socket".into(), self.host.belongings().socket().into_os_string()]);
        line
    }
}

/// Where agents on a host keep what outlives them, unless a config says otherwise: a folder of the lab's.
fn state_variable(host: &Host) -> OsString {
    let mut variable = OsString::from("STATE_DIRECTORY=");
    variable.push(host.belongings().folder().join(format!("{}-state", host.role())));
    variable
}

/// The `lb` under test: what `LB_BIN` names, else the one that was built into the folder of the test.
pub fn lb_binary() -> Result<PathBuf> {
    if let Some(path) = env::var_os("LB_BIN") {
        return Ok(path.into());
    }
    let test = env::current_exe().context("finding the path of the test")?;
    // Cargo puts tests into `deps` and programs beside it.
    let folders = test.ancestors().skip(1).take(2);
    let found = folders.map(|folder| folder.join("lb")).find(|path| path.is_file());
    let Some(path) = found else {
        bail!("there is no lb near {}: build it (cargo build), or name it in LB_BIN", test.display());
    };
    Ok(path)
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}
