//! The CPU time of a subject: of its threads and of the one that receives for it, in nanoseconds as the scheduler counts them.

use anyhow::{Context as _, Result};
use std::{fs, time::Duration};

/// What is read before and after.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Of the server's threads.
    server: u64,
    /// Of the thread that receives.
    receiver: u64,
    /// How long the CPU has been idle, and for how long it has been counted, in ticks.
    idle: [u64; 2],
}

/// What lies between two readings.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// Nanoseconds of the server's threads.
    pub server: u64,
    /// Nanoseconds of the thread that receives.
    pub receiver: u64,
    /// The share of the time that the CPU was idle.
    pub idle: f64,
}

impl Reading {
    /// Reads: `process` with its children, `receiver`, and the CPU.
    pub fn now(process: Option<u32>, receiver: u32, cpu: usize) -> Result<Self> {
        let mut server = 0;
        let mut processes: Vec<u32> = process.into_iter().collect();
        while let Some(process) = processes.pop() {
            let folder = format!("/proc/{process}/task");
            for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))? {
                let thread = entry?.path();
                // A thread that has just ended has no file.
                let text = |name: &str| fs::read_to_string(thread.join(name)).unwrap_or_default();
                server += first_number(&text("schedstat"));
                processes.extend(text("children").split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            }
        }
        let path = format!("/proc/{receiver}/schedstat");
        let receiver = first_number(&fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?);
        Ok(Self { server, receiver, idle: idle(cpu)? })
    }

    /// What has been spent since.
    pub fn until(self, later: Self) -> Spent {
        let [idle, all] = [0, 1].map(|number| {
            let of = |reading: Self| reading.idle.into_iter().nth(number).unwrap_or_default();
            of(later).saturating_sub(of(self))
        });
        Spent {
            server: later.server.saturating_sub(self.server),
            receiver: later.receiver.saturating_sub(self.receiver),
            idle: idle as f64 / all.max(1) as f64,
        }
    }
}

impl Spent {
    /// All nanoseconds.
    pub const fn total(&self) -> u64 {
        self.server + self.receiver
    }

    /// The share of a CPU.
    pub fn share(&self, elapsed: Duration) -> f64 {
        self.total() as f64 / elapsed.as_nanos().max(1) as f64
    }
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

/// `/proc/stat` of proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal.
fn idle(cpu: usize) -> Result<[u64; 2]> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    let name = format!("cpu{cpu} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name)).with_context(|| format!("no CPU {cpu}"))?;
    let ticks: Vec<u64> = line.split_whitespace().take(8).filter_map(|word| word.parse().ok()).collect();
    Ok([ticks.iter().skip(3).take(2).sum(), ticks.iter().sum()])
}
