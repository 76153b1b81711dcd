//! `bench dns`: what an answer takes, of `lb` and of others.
//!
//! Each subject has a machine of its own with a cable to who asks. All run at the same time and only one is asked, in turn, so that
//! what the machine does otherwise meets all of them. Servers and what receives for them have one CPU, who asks has another.

mod asker;
mod cable;
mod cases;
mod data;
mod meter;
mod outside;
mod own;
mod rows;
mod subject;

use crate::arguments::{AnswerPath, DnsArguments};
use anyhow::{Context as _, Result, anyhow, ensure};
use asker::{Answers, Asker, Pace};
use aya::util::online_cpus;
use cable::Cable;
use cases::{Asked, Case, Setup};
use data::Data;
use meter::Reading;
use outside::Generator;
use rows::{Row, Run};
use serde_json::Value;
use std::{
    path::Path,
    time::{Duration, Instant},
};
use subject::{Place, Started, Subject, pin_all};
use tests::{Host, Lab, Layout, Running, wait_until};

/// Questions without an answer at the same time; as a start, see [`Bench::prepare`]. A veth has as many places for frames that wait
/// (`VETH_RING_SIZE` of its driver) and drops those that find none.
const WINDOW: u32 = 256;
/// Fewer would leave a server waiting for who asks.
const LEAST_WINDOW: u32 = 16;
/// More than this share may not be lost, else the window is halved: a socket's buffer is full.
const LOST: f64 = 0.001;
/// How long it may take until a subject answers, and with a million names, which have to be read.
const READY: Duration = Duration::from_secs(10);
const READY_LARGE: Duration = Duration::from_secs(120);
/// Who is asked by generators that others wrote.
const ASKED_BY_OTHERS: [Subject; 3] = [Subject::Lb, Subject::KnotXdp, Subject::Knot];
/// How often, at most.
const OTHERS_RUNS: u32 = 3;
/// Questions a second of kxdpgun, which does not look for the best rate by itself.
const RATES: [u64; 3] = [150_000, 400_000, 1_000_000];
/// Whose latency is measured.
const TIMED: [Subject; 4] = [Subject::Floor, Subject::Lb, Subject::KnotXdp, Subject::Knot];
/// How long is asked to find out how many questions a subject stands at a time.
const TRY: Duration = Duration::from_millis(150);
/// How long a cache may take to be filled.
const FILLING: Duration = Duration::from_secs(3);
/// What is sent to see whether a subject answers.
const PING: Duration = Duration::from_millis(1);

/// Measures what was asked for and reports it.
pub fn run(arguments: &DnsArguments) -> Result<()> {
    let AnswerPath::Kernel = arguments.path;
    let DnsArguments { cpu, asking_cpu, .. } = *arguments;
    let online = online_cpus().map_err(|(_, error)| error).context("cannot count the CPUs")?;
    ensure!(cpu != asking_cpu, "servers and who asks need a CPU each");
    for cpu in [cpu, asking_cpu] {
        ensure!(online.iter().any(|online| *online as usize == cpu), "there is no CPU {cpu}");
    }
    let subjects = subjects(arguments)?;
    let cases = cases(arguments)?;
    let lab = Lab::blueprint(Layout::Bridged).backends(u8::try_from(subjects.len())?).up()?;
    let mut asker = Asker::load(asking_cpu)?;
    let mut places = Vec::new();
    for ((subject, host), number) in subjects.into_iter().zip(lab.backends()).zip(1..) {
        let cable = Cable::lay(number, lab.client(), host, [cpu, asking_cpu])?;
        asker.take(lab.client(), &cable)?;
        places.push((subject, host, cable));
    }
    let mut bench = Bench { arguments, lab: &lab, asker, rows: Vec::new() };
    for setup in Setup::ALL {
        let cases: Vec<_> = cases.iter().filter(|case| case.setup == setup).collect();
        if !cases.is_empty() {
            bench.measure(&places, setup, &cases)?;
        }
    }
    rows::print(&bench.rows);
    match &arguments.json {
        Some(path) => rows::write(&bench.rows, path),
        None => Ok(()),
    }
}

fn subjects(arguments: &DnsArguments) -> Result<Vec<Subject>> {
    let wanted = &arguments.subjects;
    for name in wanted {
        ensure!(Subject::ALL.iter().any(|subject| subject.name() == name), "there is no subject {name:?}");
    }
    let is_wanted = |subject: &Subject| wanted.is_empty() || wanted.iter().any(|name| subject.name() == name);
    Ok(Subject::ALL.into_iter().filter(is_wanted).collect())
}

fn cases(arguments: &DnsArguments) -> Result<Vec<Case>> {
    let mut cases = Case::all();
    let only = &arguments.only;
    cases.retain(|case| only.is_empty() || only.iter().any(|text| case.name.contains(text)));
    ensure!(!cases.is_empty(), "no case has one of {only:?} in its name");
    Ok(cases)
}

/// What is being measured, and what has been.
struct Bench<'a> {
    arguments: &'a DnsArguments,
    lab: &'a Lab,
    asker: Asker,
    rows: Vec<Row>,
}

/// A subject with its cable, and why it could not be started; it was not tried if no case fits it.
type Begun<'a> = (Subject, &'a Cable, Result<Started, Option<String>>);

/// A subject that answers a case.
struct Ready<'a> {
    subject: Subject,
    started: &'a Started,
    cable: &'a Cable,
    window: u32,
}

impl Bench<'_> {
    /// All cases of one setup.
    fn measure(&mut self, places: &[(Subject, &Host, Cable)], setup: Setup, cases: &[&Case]) -> Result<()> {
        let data = Data::write(self.lab, setup)?;
        let mut running = Vec::new();
        for (subject, host, cable) in places {
            if cases.iter().all(|case| subject.unfit(case).is_some()) {
                running.push((*subject, cable, Err(None)));
                continue;
            }
            eprintln!("starting {} ({setup:?})", subject.name());
            let place = Place { lab: self.lab, host, cable, cpu: self.arguments.cpu };
            let started = subject.start(&mut self.asker, &place, &data);
            running.push((*subject, cable, started.map_err(|error| Some(format!("{error:#}")))));
        }
        for case in cases {
            self.measure_case(&running, case)?;
        }
        running
            .into_iter()
            .filter_map(|(_, _, started)| started.ok())
            .try_for_each(|started| started.end(&mut self.asker))
    }

    fn measure_case(&mut self, running: &[Begun<'_>], case: &Case) -> Result<()> {
        eprintln!("measuring {}", case.name);
        let mut rows = Vec::new();
        let mut ready = Vec::new();
        for (subject, cable, started) in running {
            let prepared = match (subject.unfit(case), started) {
                (Some(why), _) => Err(why.to_owned()),
                (None, Err(why)) => Err(why.clone().unwrap_or_default()),
                (None, Ok(started)) => {
                    self.prepare(*subject, started, cable, case).map_err(|error| format!("{error:#}"))
                }
            };
            rows.push(match prepared {
                Ok(prepared) => {
                    ready.push((rows.len(), prepared));
                    Row::new(case.name, *subject)
                }
                Err(why) => Row::missing(case.name, *subject, why),
            });
        }
        let time = Duration::from_secs_f64(self.arguments.seconds);
        for _ in 0..self.arguments.runs {
            for (number, ready) in &ready {
                let run = self.ask(ready, case, Pace::Window(ready.window), time)?;
                if let Some(row) = rows.get_mut(*number) {
                    row.note = row.note.take().or(run.answers.note.map(str::to_owned));
                    row.runs.push(run);
                }
            }
        }
        for (number, ready) in &ready {
            if let Some(row) = rows.get_mut(*number) {
                self.look_closer(ready, case, row)?;
            }
        }
        self.rows.extend(rows);
        if case.name == Case::HOT.name {
            self.measure_latency(&ready, case)?;
            self.ask_by_others(&ready, case)?;
        }
        Ok(())
    }

    /// Waits until a subject answers, has it fill its cache, and finds out how many questions it stands at the same time.
    fn prepare<'r>(
        &mut self,
        subject: Subject,
        started: &'r Started,
        cable: &'r Cable,
        case: &Case,
    ) -> Result<Ready<'r>> {
        if subject == Subject::Floor {
            self.asker.set_floor(case)?;
        } else if let Some(process) = &started.process {
            let is_knot = matches!(subject, Subject::Knot | Subject::KnotXdp);
            ensure!(
                !is_knot || case.asked != Asked::Weighted || Data::knows_weights(),
                "the package knot-module-geoip is not installed"
            );
            started.check()?;
            pin_all(process.pid(), self.arguments.cpu)?;
        }
        let mut ready = Ready { subject, started, cable, window: 1 };
        let mut last = String::from("it does not answer");
        let patience = if case.setup == Setup::Million { READY_LARGE } else { READY };
        let answered = wait_until(patience, "it answers", || {
            match started.check().and_then(|()| self.try_asking(&ready, case, false, PING)) {
                Ok(answers) if answers.answered > 0 => return Some(Ok(())),
                Ok(answers) if answers.wrong > 0 => last = "it gives another answer".into(),
                Ok(_) => {}
                Err(error) => last = format!("{error:#}"),
            }
            started.check().err().map(Err)
        });
        answered.map_err(|_| anyhow!(last))??;
        ready.window = LEAST_WINDOW;
        let mut left = if subject.is_cache() { u64::from(case.names()) } else { 0 };
        let filling = Instant::now();
        while left > 0 && filling.elapsed() < FILLING {
            let time = if case.names() == 1 { TRY } else { FILLING };
            left = left.saturating_sub(self.try_asking(&ready, case, true, time)?.answered);
        }
        ready.window = WINDOW;
        while ready.window > LEAST_WINDOW && self.try_asking(&ready, case, false, TRY)?.unanswered() > LOST {
            ready.window /= 2;
        }
        Ok(ready)
    }

    fn try_asking(&mut self, ready: &Ready<'_>, case: &Case, in_turn: bool, time: Duration) -> Result<Answers> {
        let way = (self.lab.client(), ready.cable);
        self.asker.ask(way, case, ready.subject.expected(case), (Pace::Window(ready.window), in_turn), time)
    }

    /// Asks, and reads what that takes.
    fn ask(&mut self, ready: &Ready<'_>, case: &Case, pace: Pace, time: Duration) -> Result<Run> {
        let way = (self.lab.client(), ready.cable);
        let before = self.reading(ready)?;
        let answers = self.asker.ask(way, case, ready.subject.expected(case), (pace, false), time);
        let answers = answers.with_context(|| format!("{}, asked for {}", ready.subject.name(), case.name))?;
        Ok(Run { answers, spent: before.until(self.reading(ready)?) })
    }

    fn reading(&self, ready: &Ready<'_>) -> Result<Reading> {
        Reading::now(ready.started.process.as_ref().map(Running::pid), ready.cable.receiver, self.arguments.cpu)
    }

    /// What only `lb` can be asked: whether the kernel answers, and what that takes the path itself.
    fn look_closer(&mut self, ready: &Ready<'_>, case: &Case, row: &mut Row) -> Result<()> {
        let Some(agent) = &ready.started.agent else { return Ok(()) };
        let answered = || -> Result<u64> {
            let answered = agent.status()?.pointer("/dns/answered_by_kernel").and_then(Value::as_u64);
            answered.context("lb does not say what the kernel answers")
        };
        let before = answered()?;
        let answers = self.try_asking(ready, case, false, TRY)?;
        let by_agent = answers.answered.saturating_sub(answered()? - before);
        if by_agent > 0 {
            row.note = Some(format!("{by_agent} of {} answers by the agent", answers.answered));
        }
        let host = self.host(ready.cable)?;
        match host.inside(|| own::measure(&self.lab.pins(), ready.cable, case, self.arguments))? {
            Ok(own) => row.own = Some(own),
            Err(error) => row.note = Some(format!("own cost not measured: {error:#}")),
        }
        Ok(())
    }

    /// The machine at the end of a cable.
    fn host(&self, cable: &Cable) -> Result<&Host> {
        let number = usize::from(cable.number);
        self.lab.backends().get(number - 1).context("a cable without a machine")
    }

    /// How long answers take at half of the rate that a subject reached, and at half of Knot's.
    fn measure_latency(&mut self, ready: &[(usize, Ready<'_>)], case: &Case) -> Result<()> {
        let time = Duration::from_secs_f64(self.arguments.seconds);
        let rate_of = |rows: &[Row], subject: Subject| {
            let found = rows.iter().find(|row| row.case == case.name && row.subject == subject);
            found.and_then(Row::rate).map(|rate| rate / 2.0)
        };
        let knot = rate_of(&self.rows, Subject::Knot);
        for (name, common) in [("latency at half of its own rate", None), ("latency at half of knot's rate", knot)] {
            let mut rows = Vec::new();
            for (_, ready) in ready.iter().filter(|(_, ready)| TIMED.contains(&ready.subject)) {
                let own = rate_of(&self.rows, ready.subject);
                let Some(rate) = common.or(own) else { continue };
                rows.push((ready, rate, Row { limited_by: Some("rate"), ..Row::new(name, ready.subject) }));
            }
            for _ in 0..self.arguments.runs {
                for (ready, rate, row) in &mut rows {
                    row.runs.push(self.ask(ready, case, Pace::Rate(*rate as u64), time)?);
                }
            }
            self.rows.extend(rows.into_iter().map(|(_, _, row)| row));
        }
        Ok(())
    }

    /// The same question from dnsperf and kxdpgun. What asks otherwise makes room for the latter, which brings a program of its own.
    fn ask_by_others(&mut self, ready: &[(usize, Ready<'_>)], case: &Case) -> Result<()> {
        let questions = Data::questions(&self.lab.folder())?;
        for (_, ready) in ready.iter().filter(|(_, ready)| ASKED_BY_OTHERS.contains(&ready.subject)) {
            let mut rows = vec![self.ask_by(Generator::Dnsperf, ready, case, &questions)];
            self.asker.leave(ready.cable)?;
            rows.extend(RATES.map(|rate| self.ask_by(Generator::Kxdpgun(rate), ready, case, &questions)));
            // Its program may be left behind, by which way is not known: one of the two fails.
            for way in ["xdp", "xdpdrv"] {
                self.lab.client().attempt(["ip", "link", "set", &ready.cable.client_name, way, "off"])?;
            }
            self.asker.take(self.lab.client(), ready.cable)?;
            self.rows.extend(rows);
        }
        // Case by case, as the tables are.
        self.rows.sort_by_key(|row| row.generator.map(Generator::order));
        Ok(())
    }

    fn ask_by(&self, generator: Generator, ready: &Ready<'_>, case: &Case, questions: &Path) -> Row {
        let name = format!("{}, {}", case.name, generator.describe());
        let ask = || -> Result<Run> {
            let before = self.reading(ready)?;
            let way = (ready.cable.client_name.as_str(), ready.cable.addresses(false)[0]);
            let seconds = self.arguments.seconds.ceil() as u32;
            let answers = generator.ask(self.lab.client(), way, questions, seconds, self.arguments.asking_cpu)?;
            Ok(Run { answers, spent: before.until(self.reading(ready)?) })
        };
        let runs: Result<Vec<_>> = (0..self.arguments.runs.min(OTHERS_RUNS)).map(|_| ask()).collect();
        let row = match runs {
            Ok(runs) => Row { runs, ..Row::new(&name, ready.subject) },
            Err(error) => Row::missing(&name, ready.subject, format!("{error:#}")),
        };
        Row { generator: Some(generator), ..row }
    }
}
