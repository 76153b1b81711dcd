//! What is run in a namespace: its line, the output of what has ended, the handle of what goes on.

use std::{
    ffi::{OsStr, OsString},
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};

use crate::{belongings::lock, wait_until};

/// What a command that has ended left behind.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to its standard output; bytes that are not UTF-8 are replaced.
    pub stdout: String,
    /// What it wrote to its standard error, likewise.
    pub stderr: String,
}

/// A command that goes on in a namespace until it ends by itself, is killed, or its lab goes.
///
/// Clones are handles of the same process; dropping them leaves it running.
#[derive(Clone)]
pub struct Running(Arc<Process>);

struct Process {
    what: String,
    pid: u32,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Running {
    /// Starts `command`, its output going to the file `log`; `what` names it in errors.
    pub(crate) fn start(mut command: Command, what: String, log: PathBuf) -> Result<Self> {
        let output = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
        let errors = output.try_clone().context("duplicating the log's descriptor")?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .spawn()
            .with_context(|| format!("starting {what}"))?;
        Ok(Self(Arc::new(Process { what, pid: child.id(), log, child: Mutex::new(child) })))
    }

    /// The process id; `nsenter` replaces itself, so it is that of the program.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.pid
    }

    /// The file that its standard output and error go to.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.0.log
    }

    /// What it has written so far; bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(self.log_path()).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// How it ended, or `None` while it runs.
    pub fn ended(&self) -> Result<Option<ExitStatus>> {
        lock(&self.0.child).try_wait().with_context(|| format!("asking for the end of {self}"))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // Under the lock nobody can reap it, so the id cannot have passed to another process.
        let mut child = lock(&self.0.child);
        if let Some(status) = child.try_wait()? {
            bail!("{self} has ended ({status}), so it gets no {signal}{}", self.log_tail());
        }
        let pid = Pid::from_raw(i32::try_from(self.0.pid)?);
        signal::kill(pid, signal).with_context(|| format!("sending {signal} to {self}"))
    }

    /// Waits until it has ended by itself.
    pub fn wait(&self, deadline: Duration) -> Result<ExitStatus> {
        wait_until(deadline, &format!("{self} ended"), || self.ended().transpose())?
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    pub fn terminate(&self, deadline: Duration) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(deadline)
    }

    /// Ends it at once (SIGKILL) and reaps it; nothing happens if it has ended already.
    pub fn kill(&self) -> Result<()> {
        let mut child = lock(&self.0.child);
        child.kill().with_context(|| format!("killing {self}"))?;
        child.wait().with_context(|| format!("reaping {self}"))?;
        Ok(())
    }

    /// The end of the log, as it is put behind an error's first line.
    #[must_use]
    pub(crate) fn log_tail(&self) -> String {
        tail(&self.log())
    }
}

impl fmt::Display for Running {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (pid {})", self.0.what, self.0.pid)
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// A program with its arguments.
pub(crate) struct Line(Vec<OsString>);

impl Line {
    pub(crate) fn new<I>(line: I) -> Self
    where
        I: IntoIterator<Item: AsRef<OsStr>>,
    {
        Self(line.into_iter().map(|word| word.as_ref().to_owned()).collect())
    }

    /// The command, begun by `enter` with the program.
    pub(crate) fn command(&self, enter: impl FnOnce(&OsStr) -> Command) -> Command {
        let mut words = self.0.iter();
        let mut command = enter(words.next().map(OsString::as_os_str).unwrap_or_default());
        command.args(words);
        command
    }
}

impl fmt::Display for Line {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<_> = self.0.iter().map(|word| word.to_string_lossy()).collect();
        formatter.write_str(&words.join(" "))
    }
}

/// The last lines of `text`, each on a line of its own after a colon; nothing for an empty text.
pub(crate) fn tail(text: &str) -> String {
    // A verifier's refusal is explained by its last dozens of lines.
    const LINES: usize = 40;
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default();
    last.iter().fold(String::new(), |tail, line| {
        let lead = if tail.is_empty() { ":" } else { "" };
        format!("{tail}{lead}\n    {line}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_the_last_lines() {
        let text: String = (1..=50).map(|n| format!("line {n}\n")).collect();
        let tail = tail(&text);
        assert!(tail.starts_with(":\n    line 11\n"), "{tail}");
        assert!(tail.ends_with("\n    line 50"), "{tail}");
        assert_eq!(super::tail(" \n"), "");
    }
}
