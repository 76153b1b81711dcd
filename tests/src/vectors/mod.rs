//! Packet vectors of other balancers: frames, a configuration, and what is to come of them.
//!
//! The file is no part of this project. For what this project can do, each vector is run by tables made of the same configuration, on
//! the host and in the kernel, and compared as the file says: who serves a flow and where an outer header comes from is every
//! balancer's own. What differs on purpose is told by [`compare::POLICIES`]; everything else that differs is a failure.

mod balancer;
mod compare;
mod decapsulator;
mod file;
mod flow;
mod scope;

use anyhow::{Context as _, Result};
use balancer::Balancer;
use compare::{Case, Homes, Judgement, Outcome};
use decapsulator::Decapsulator;
use file::{Configuration, File, Vector};
use flow::Flow;
use std::{collections::BTreeMap, fmt, net::IpAddr, path::Path};

/// More may not differ, on purpose or not.
const MOST_DIFFERING: usize = 25;

/// What came of a file of vectors.
#[derive(Debug, Default)]
pub struct Report {
    equal: usize,
    /// Ids, with what they try and why they differ.
    differing: Vec<(String, String, &'static str)>,
    /// Ids, with what they try and what is wrong.
    failing: Vec<(String, String, String)>,
    /// How many are not for this project, by reason.
    foreign: BTreeMap<&'static str, usize>,
}

impl Report {
    /// Whether all is as it should be.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.equal > 0 && self.failing.is_empty() && self.differing.len() <= MOST_DIFFERING
    }
}

/// Runs all vectors of a file, in the kernel as well if `in_kernel`.
pub fn run(path: &Path, in_kernel: bool) -> Result<Report> {
    let file = File::read(path)?;
    let mut report = Report::default();
    for vectors in file.vectors.chunk_by(|one, next| one.suite == next.suite) {
        run_suite(&file, vectors, in_kernel, &mut report)?;
    }
    Ok(report)
}

/// What a suite is run on.
enum Machine {
    Balancer(Box<Balancer>),
    Decapsulator(Box<Decapsulator>),
}

impl Machine {
    /// A suite without VIPs is about the way back out of a tunnel.
    fn new(file: &File, configuration: &Configuration, vectors: &[Vector], in_kernel: bool) -> Result<Self> {
        Ok(if configuration.vips.is_empty() {
            Self::Decapsulator(Box::new(Decapsulator::new(vectors, in_kernel)?))
        } else {
            Self::Balancer(Box::new(Balancer::new(&file.common, configuration, in_kernel)?))
        })
    }

    fn run(&mut self, frame: &[u8]) -> Result<Outcome> {
        match self {
            Self::Balancer(balancer) => balancer.run(frame),
            Self::Decapsulator(decapsulator) => decapsulator.run(frame),
        }
    }

    /// The reals that a frame may go to.
    fn reals(&self, frame: &[u8]) -> Vec<IpAddr> {
        match self {
            Self::Balancer(balancer) => balancer.reals(Flow::of(frame)),
            Self::Decapsulator(_) => Vec::new(),
        }
    }
}

/// Runs vectors that follow each other in one suite, on the same tables.
fn run_suite(file: &File, vectors: &[Vector], in_kernel: bool, report: &mut Report) -> Result<()> {
    let mut machine = None;
    let mut homes = Homes::default();
    for vector in vectors {
        let configuration = file.configuration(&vector.suite)?;
        if let Some(reason) = scope::foreign(vector, &configuration) {
            *report.foreign.entry(reason).or_default() += 1;
            continue;
        }
        let machine = match &mut machine {
            Some(machine) => machine,
            none => none.insert(Machine::new(file, &configuration, vectors, in_kernel)?),
        };
        let (id, tries) = (vector.id.clone(), vector.description.clone());
        let outcome = machine.run(&vector.frame).with_context(|| id.clone())?;
        let reals = machine.reals(&vector.frame);
        match compare::judge(&Case { vector, outcome, reals }, &mut homes) {
            Judgement::Equal => report.equal += 1,
            Judgement::Differs(reason) => report.differing.push((id, tries, reason)),
            Judgement::Fails(why) => report.failing.push((id, tries, why)),
        }
    }
    Ok(())
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { equal, differing, failing, foreign } = self;
        for (id, tries, reason) in differing {
            writeln!(formatter, "differs  {id} ({tries}): {reason}")?;
        }
        for (id, tries, why) in failing {
            writeln!(formatter, "fails    {id} ({tries}): {why}")?;
        }
        for (reason, count) in foreign {
            writeln!(formatter, "{count:>4} not applicable: {reason}")?;
        }
        let applicable = equal + differing.len() + failing.len();
        write!(
            formatter,
            "{applicable} applicable: {equal} equal, {} differing as a policy (at most {MOST_DIFFERING} may), {} failing; \
             {} not applicable",
            differing.len(),
            failing.len(),
            foreign.values().sum::<usize>()
        )
    }
}
