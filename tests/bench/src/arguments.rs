//! What can be asked for. `cargo xtask bench` compiles this file as well, so that it is said before anything is built.

use std::path::PathBuf;

/// What is measured.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum What {
    /// The path's own cost per packet, without the kernel around it
    Path(PathArguments),
    /// What the tables take in memory and in time: before the first service, and with many services
    Load(LoadArguments),
    /// What an operator waits for: from a failure or a change to the maps, start, checks, and what the agent takes
    Agent(AgentArguments),
    /// DNS answers by lb and by other servers: CPU time, rate and latency
    Dns(DnsArguments),
}

/// How the path is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct PathArguments {
    /// Also write each case's numbers to this file, as one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also send live frames over veths, on one CPU and on two, and count them where they arrive
    #[arg(long)]
    pub live: bool,
    /// How often each case is measured, all cases in turn
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
    /// Packets of one run
    #[arg(long, value_name = "N", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(64..=1 << 30))]
    pub packets: u32,
    /// Live frames of one run on each CPU; they are sent five times
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(64..=1 << 30))]
    pub frames: u32,
    /// Only cases with one of these in their name, parted by semicolons, and the floors
    #[arg(long, value_name = "TEXT", value_delimiter = ';')]
    pub only: Vec<String>,
    /// The CPU that everything but the second one's live frames is done on
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub cpu: usize,
}

/// How large the tables are.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct LoadArguments {
    /// Services
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    pub services: u32,
    /// Backends of each service
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=251))]
    pub backends: u32,
}

/// How the agent is measured.
#[derive(Clone, Debug, clap::Args)]
pub struct AgentArguments {
    /// Also write each figure to this file, as one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Services at the start, and at most where a change is measured
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=1 << 16))]
    pub services: u32,
    /// Backends of each service at the start
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=251))]
    pub backends: u32,
    /// Targets that one core checks, a third of which hang
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u16).range(3..=30_000))]
    pub targets: u16,
    /// Idle connections that changes are made to
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub connections: usize,
    /// How many of the deaths of a backend are measured, of three
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub deaths: usize,
}

/// How DNS servers are measured.
#[derive(Clone, Debug, clap::Args)]
pub struct DnsArguments {
    /// Which of lb's ways to an answer
    #[arg(long, value_name = "WAY", value_enum, default_value_t = AnswerPath::Kernel)]
    pub path: AnswerPath,
    /// Also write each number to this file, as one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Only cases with one of these in their name, parted by semicolons
    #[arg(long, value_name = "TEXT", value_delimiter = ';')]
    pub only: Vec<String>,
    /// Only these subjects, parted by commas: floor, lb, knot, knot-xdp, nsd, unbound, dnsdist
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub subjects: Vec<String>,
    /// How often each case is measured with each subject, all subjects in turn
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub runs: u32,
    /// How long each time
    #[arg(long, value_name = "N", default_value_t = 2.0, value_parser = seconds)]
    pub seconds: f64,
    /// Packets of one run for the path's own cost
    #[arg(long, value_name = "N", default_value_t = 1 << 20, value_parser = clap::value_parser!(u32).range(64..=1 << 30))]
    pub packets: u32,
    /// The CPU of the servers; the path's own cost is measured there as well
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub cpu: usize,
    /// The CPU that asks
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub asking_cpu: usize,
}

/// A way to an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum AnswerPath {
    /// From the program in the kernel
    Kernel,
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.05..=60.0).contains(&seconds) { Ok(seconds) } else { Err("not between 0.05 and 60".into()) }
}
