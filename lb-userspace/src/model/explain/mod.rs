//! What the path does with a packet, told without sending one: the real [`steer`] runs on a copy of what it asks for.
//!
//! The tables are far too large to be copied whole. So a run notes what it asked for; that is read, and the packet goes its way once
//! more, until it asks for nothing new. What a run writes (flows, turns, tokens) stays in its own copy.

mod frame;
mod message;
mod question;
mod record;
mod told;

pub use question::{Ask, Protocol};
pub use record::Key;
pub use told::{Explanation, Reply, Told};

use super::intent::Service;
use lb_common::{
    host::{Buffer, HostTables},
    path::steer,
    tables::NOBODY,
    verdict::Verdict,
};
use record::{Recorder, Step};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};
use thiserror::Error;

/// A path has a few look-ups, each of which can lead to another: about ten. More than this and the tables change all the time.
const RUNS: usize = 64;
/// Room for a reply on both sides of a frame, more than any needs.
const ROOM: usize = 2_048;
/// Nobody's index: what leaves does so by an interface that is named, whichever the packet came in by.
const NO_INTERFACE: u32 = 0;

/// Why nothing can be explained.
#[derive(Debug, Error)]
pub enum ExplainError<E> {
    /// No such packet can be made.
    #[error(transparent)]
    Ask(#[from] question::AskError),
    /// The tables can't be read.
    #[error(transparent)]
    Read(E),
    /// It does not come to an end.
    #[error("the tables change faster than they can be read; try again")]
    Restless,
}

/// What names are taken from.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// The services of the config.
    pub services: &'a [Service],
    /// Where DNS questions are answered.
    pub dns: &'a [SocketAddr],
    /// Interfaces by their indexes.
    pub interfaces: &'a BTreeMap<u32, String>,
}

/// The last run of the path.
struct Run {
    steps: Vec<Step>,
    verdict: Verdict,
    frame: Buffer,
    /// What it was run on.
    tables: HostTables,
}

/// Finds out what the path does with a packet. `now` is the time of its clock; `read` puts what a key stands for into the tables.
pub fn explain<E>(
    ask: &Ask,
    now: Duration,
    names: &Names<'_>,
    mut read: impl FnMut(&Key, &mut HostTables) -> Result<(), E>,
) -> Result<Explanation, ExplainError<E>> {
    let asked = ask.asked(names.dns)?;
    let bytes = frame::frame(&asked);
    let mut tables = HostTables::default();
    (tables.seconds, tables.milliseconds) = (now.as_secs(), now.subsec_millis().into());
    let mut known = BTreeSet::new();
    for _ in 0..RUNS {
        let mut run = run(&bytes, &tables);
        let keys = run.steps.iter().filter_map(Step::key).filter(|key| !known.contains(key));
        let new: BTreeSet<Key> = keys.collect();
        for key in &new {
            read(key, &mut tables).map_err(ExplainError::Read)?;
        }
        if new.is_empty() {
            // Not asked for, but named.
            let backends = run.steps.iter().flat_map(Step::backends).filter(|id| *id < NOBODY).map(Key::Backend);
            let leaves_by = match run.verdict {
                Verdict::Redirect(_, index) => Some(Key::Interface(index)),
                _ => None,
            };
            for key in backends.chain(leaves_by).collect::<BTreeSet<_>>().difference(&known) {
                read(key, &mut run.tables).map_err(ExplainError::Read)?;
            }
            return Ok(told::tell(&asked, &run, names));
        }
        known.extend(new);
    }
    Err(ExplainError::Restless)
}

fn run(bytes: &[u8], tables: &HostTables) -> Run {
    let mut frame = Buffer::new(bytes, NO_INTERFACE, ROOM, ROOM);
    let tables = tables.clone();
    let recorder = Recorder::new(&tables);
    let verdict = steer(&mut frame, &recorder);
    Run { steps: recorder.steps(), verdict, frame, tables }
}
