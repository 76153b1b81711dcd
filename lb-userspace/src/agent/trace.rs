//! Traces: for as long as there is one, the programs that take samples stand on the interfaces.

use super::Agent;
use crate::{
    api::{Kind, Refusal},
    kernel::{
        KernelError, attach, load,
        maps::Maps,
        trace::{PROGRAMS, Tracer, wall_offset},
    },
    model::{
        explain::Key,
        op::Op,
        trace::{Backends, Event, Known, Line, Names, TraceRequest, Wanted, event, known},
    },
};
use aya::Ebpf;
use lb_common::{host::HostTables, tables::Endpoint};
use std::{collections::BTreeMap, time::Duration};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    task::block_in_place,
};

/// How often samples are told. A ring of them is not full by then, however many a CPU takes.
const TELL: Duration = Duration::from_millis(50);
/// Lines that may wait for who asked for them: a second of one CPU's samples.
const WAITING: usize = 5_000;
/// Traces at a time.
const MOST: usize = 16;

/// All traces.
pub(super) struct Traces {
    tracer: Tracer,
    running: Vec<Trace>,
    /// When samples are told next.
    next: Option<Duration>,
    /// Samples that had been missed when that was last asked.
    missed: u64,
}

/// One of them.
struct Trace {
    wanted: Wanted,
    lines: mpsc::Sender<String>,
    /// One of so many frames; the kernel may take more samples, for another one.
    every: u64,
    passed_over: u64,
    /// Events that are still to be told.
    left: Option<u64>,
    until: Option<Duration>,
    /// Events that were not told, and of which that was not told yet.
    lost: u64,
}

impl Trace {
    fn is_over(&self, now: Duration) -> bool {
        self.left == Some(0) || self.until.is_some_and(|until| until <= now) || self.lines.is_closed()
    }

    /// Tells an event, if it is one that was asked for. Of the samples, one of `step` is this trace's.
    fn tell(&mut self, event: &Event, step: u64) {
        self.passed_over += 1;
        if self.passed_over < step {
            return;
        }
        self.passed_over = 0;
        if self.left == Some(0) || !self.wanted.holds(event) {
            return;
        }
        if self.send(&Line::Event(self.wanted.told(event).into())) {
            self.left = self.left.map(|left| left.saturating_sub(1));
        } else {
            self.lost += 1;
        }
    }

    /// Says so if something was lost.
    fn admit(&mut self) {
        if self.lost > 0 && self.send(&Line::Lost { events: self.lost }) {
            self.lost = 0;
        }
    }

    fn send(&self, line: &Line) -> bool {
        let Ok(text) = serde_json::to_string(line) else { return false };
        // Nobody misses what goes to somebody who has gone.
        !matches!(self.lines.try_send(text + "\n"), Err(TrySendError::Full(_)))
    }
}

impl Traces {
    /// None yet.
    pub(super) fn new(ebpf: &mut Ebpf) -> Result<Self, KernelError> {
        Ok(Self { tracer: Tracer::take(ebpf)?, running: Vec::new(), next: None, missed: 0 })
    }

    /// The program that belongs on interfaces now.
    pub(super) fn program(&self) -> &'static str {
        let [traced, _] = PROGRAMS;
        if self.next.is_some() { traced } else { "lb" }
    }

    /// When samples are told next.
    pub(super) fn wakes(&self) -> Option<Duration> {
        self.next
    }

    /// Lets go of what an agent has left that died in a trace, once no interface has its program any more.
    pub(super) fn remove_leftover(&mut self) {
        if let Err(error) = self.tracer.end() {
            tracing::warn!("{:#}", anyhow::Error::from(error));
        }
    }

    /// One of so many frames is sampled, at least 1: what all traces can choose theirs from.
    fn every(&self) -> u64 {
        self.running.iter().map(|trace| trace.every).reduce(common_divisor).unwrap_or(1)
    }
}

fn common_divisor(one: u64, other: u64) -> u64 {
    if other == 0 { one } else { common_divisor(other, one % other) }
}

/// Backends as the maps hold them.
struct InMaps<'m> {
    maps: &'m Maps,
    known: BTreeMap<u32, Option<Known>>,
}

impl Backends for InMaps<'_> {
    fn by_id(&mut self, id: u32) -> Option<Known> {
        *self.known.entry(id).or_insert_with(|| {
            let mut tables = HostTables::default();
            self.maps.look(&Key::Backend(id), &mut tables).ok()?;
            tables.backends.get(&id).and_then(known)
        })
    }

    fn by_own(&mut self, own: &Endpoint) -> Option<Known> {
        let mut tables = HostTables::default();
        for own in [*own, own.without_port()] {
            self.maps.look(&Key::Returning(own), &mut tables).ok()?;
        }
        let id = tables.returns.values().copied().next()?;
        self.by_id(id)
    }
}

impl Agent {
    /// Begins a trace, which goes on until it has told what it was asked for, or nobody listens.
    pub(super) fn trace(&mut self, request: &TraceRequest) -> Result<mpsc::Receiver<String>, Refusal> {
        let services = self.intent.services().iter().map(|service| service.name.as_str());
        let wanted = Wanted::new(request, services)
            .map_err(|error| Refusal::new(Kind::BadRequest, format!("the request can't be read: {error}")))?;
        if self.attached.is_empty() {
            return Err(Refusal::new(Kind::Conflict, "nothing is attached, so there is nothing to trace: `lb attach`"));
        }
        if self.traces.running.len() >= MOST {
            return Err(Refusal::new(Kind::Conflict, format!("there are {MOST} traces already; end one of them")));
        }
        if self.traces.next.is_none() {
            self.begin_traces().map_err(|error| {
                let error = anyhow::Error::from(error)
                    .context("no samples can be taken, and frames go the way they went before");
                Refusal::failed(&error)
            })?;
        }
        let (lines, told) = mpsc::channel(WAITING);
        let trace = Trace {
            wanted,
            lines,
            every: request.every.map_or(1, Into::into),
            passed_over: 0,
            left: request.count.map(Into::into),
            // To begin may have taken its time.
            until: request.seconds.map(|seconds| self.now() + Duration::from_secs(seconds.get())),
            lost: 0,
        };
        // What was sampled before is not this one's.
        self.tell_samples();
        self.traces.running.push(trace);
        self.renew_traces();
        Ok(told)
    }

    /// Puts the programs that take samples in the place of those that don't.
    fn begin_traces(&mut self) -> Result<(), KernelError> {
        let Traces { tracer, missed, .. } = &mut self.traces;
        *missed = tracer.missed()?;
        // Nothing has changed if this fails.
        tracer.begin(&mut self.ebpf)?;
        self.traces.next = Some(self.now() + TELL);
        if let Err(error) = self.put_program() {
            self.end_traces();
            return Err(error);
        }
        tracing::info!("tracing");
        Ok(())
    }

    /// Puts the program that belongs there on all interfaces that have one.
    fn put_program(&mut self) -> Result<(), KernelError> {
        let (mode, program) = (self.intent.attach(), load::program(&mut self.ebpf, self.traces.program())?);
        let mut failed = None;
        // All of them, whatever becomes of one.
        for (name, index) in &self.attached {
            if let Err(error) = attach::attach(program, &self.pins, name, *index, mode) {
                tracing::warn!(interface = name, %error, "another program can't be put here");
                failed = Some(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Tells what was sampled, and ends the traces that are over.
    pub(super) fn trace_on(&mut self, now: Duration) {
        if self.traces.next.is_none_or(|next| now < next) {
            return;
        }
        self.traces.next = Some(now + TELL);
        block_in_place(|| self.tell_samples());
        self.traces.running.retain(|trace| !trace.is_over(now));
        if self.traces.running.is_empty() {
            block_in_place(|| self.end_traces());
        } else {
            self.renew_traces();
        }
    }

    fn renew_traces(&mut self) {
        let every = self.traces.every();
        if let Err(error) = self.traces.tracer.renew(every) {
            tracing::warn!("{:#}", anyhow::Error::from(error));
        }
    }

    fn tell_samples(&mut self) {
        let every = self.traces.every();
        let samples = self.traces.tracer.taken();
        let interfaces = self.attached.iter().map(|(name, index)| (*index, name.clone())).collect();
        let missed = self.traces.tracer.missed().unwrap_or(self.traces.missed);
        let lost = missed.saturating_sub(self.traces.missed);
        self.traces.missed = missed;
        self.traces.running.iter_mut().for_each(|trace| trace.lost += lost);
        if !samples.is_empty() {
            let offset = wall_offset().unwrap_or_default();
            let names = Names::new(self.intent.services(), self.intent.dns(), &interfaces);
            let mut backends = InMaps { maps: &self.maps, known: BTreeMap::new() };
            for sample in &samples {
                let event = event(sample, offset, &names, &mut backends);
                self.traces.running.iter_mut().for_each(|trace| trace.tell(&event, trace.every / every));
            }
        }
        self.traces.running.iter_mut().for_each(Trace::admit);
    }

    /// Ends all traces: the programs without samples stand on the interfaces again.
    pub(super) fn end_traces(&mut self) {
        if self.traces.next.take().is_none() {
            return;
        }
        self.traces.running.clear();
        // A program that a frame is still in calls the other one.
        let ended = self.put_program().and_then(|()| self.maps.apply(&Op::Grace));
        // Where it could not be replaced, it goes on without samples.
        if let Err(error) = ended.and_then(|()| self.traces.tracer.end()) {
            tracing::error!("{:#}", anyhow::Error::from(error));
        }
        self.traces.tracer.taken();
        tracing::info!("tracing has ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(places: usize) -> (Trace, mpsc::Receiver<String>) {
        let (lines, told) = mpsc::channel(places);
        let trace =
            Trace { wanted: Wanted::default(), lines, every: 1, passed_over: 0, left: None, until: None, lost: 0 };
        (trace, told)
    }

    fn an_event() -> Event {
        let text = r#"{"unix_nanoseconds":1,"interface":"eth0","verdict":"pass","why":"no_service","protocol":"arp","length":60}"#;
        serde_json::from_str(text).unwrap()
    }

    fn read(told: &mut mpsc::Receiver<String>) -> Vec<Line> {
        std::iter::from_fn(|| told.try_recv().ok()).map(|line| serde_json::from_str(&line).unwrap()).collect()
    }

    #[test]
    fn what_nobody_takes_in_time_is_counted_and_told_as_lost() {
        let (mut trace, mut told) = trace(2);
        (0..5).for_each(|_| trace.tell(&an_event(), 1));
        // There is no place for that either.
        trace.admit();
        assert!(matches!(read(&mut told)[..], [Line::Event(_), Line::Event(_)]));
        trace.admit();
        trace.tell(&an_event(), 1);
        assert!(matches!(read(&mut told)[..], [Line::Lost { events: 3 }, Line::Event(_)]));
        trace.admit();
        assert_eq!(read(&mut told), []);
        assert!(!trace.is_over(Duration::ZERO));
        drop(told);
        assert!(trace.is_over(Duration::ZERO));
    }

    #[test]
    fn traces_at_a_time_share_the_samples() {
        assert_eq!([4, 6, 10].into_iter().reduce(common_divisor), Some(2));
        let (mut trace, mut told) = trace(100);
        trace.left = Some(3);
        (0..8).for_each(|_| trace.tell(&an_event(), 2));
        assert_eq!((read(&mut told).len(), trace.left), (3, Some(0)));
        assert!(trace.is_over(Duration::ZERO));
    }
}
