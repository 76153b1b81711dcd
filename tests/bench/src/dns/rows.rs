//! Numbers as tables for people and as lines of JSON for programs.

use super::{
    asker::{Answers, percentile},
    meter::Spent,
    outside::Generator,
    subject::Subject,
};
use anyhow::{Context as _, Result};
use serde_json::{Map, Value, json};
use std::{fs, path::Path};

/// A subject that has this share of its CPU or more is what limits the rate.
const FULL: f64 = 0.9;
/// A CPU that is idle for this share of the time or more is not what limits it.
const IDLE: f64 = 0.05;

/// One run of a case with a subject.
#[derive(Clone, Debug)]
pub struct Run {
    /// What came back.
    pub answers: Answers,
    /// What it took.
    pub spent: Spent,
}

impl Run {
    /// CPU time a right answer.
    fn cpu_ns(&self) -> f64 {
        self.spent.total() as f64 / self.answers.answered.max(1) as f64
    }

    fn limited_by(&self) -> &'static str {
        if self.spent.share(self.answers.elapsed) >= FULL {
            "server"
        } else if self.spent.idle >= IDLE {
            "generator"
        } else {
            "CPU share"
        }
    }
}

/// What was found out about a case with a subject.
#[derive(Clone, Debug)]
pub struct Row {
    /// The case.
    pub case: String,
    /// Who.
    pub subject: Subject,
    /// Its runs; with none, `missing` says why.
    pub runs: Vec<Run>,
    /// Why there are none.
    pub missing: Option<String>,
    /// The path's own nanoseconds, and those of a program that only lets the same frame pass.
    pub own: Option<[f64; 2]>,
    /// What limits the rate, where it is known beforehand.
    pub limited_by: Option<&'static str>,
    /// Who asked, if another one did.
    pub generator: Option<Generator>,
    /// What else is to be said.
    pub note: Option<String>,
}

impl Row {
    /// Without any run yet.
    pub fn new(case: &str, subject: Subject) -> Self {
        Self {
            case: case.into(),
            subject,
            runs: Vec::new(),
            missing: None,
            own: None,
            limited_by: None,
            generator: None,
            note: None,
        }
    }

    /// That could not be measured.
    pub fn missing(case: &str, subject: Subject, why: impl Into<String>) -> Self {
        Self { missing: Some(why.into()), ..Self::new(case, subject) }
    }

    /// The run in the middle, by CPU time.
    fn middle(&self) -> Option<&Run> {
        let mut runs: Vec<_> = self.runs.iter().collect();
        runs.sort_by(|a, b| a.cpu_ns().total_cmp(&b.cpu_ns()));
        runs.get(runs.len() / 2).copied()
    }

    /// Its median of CPU nanoseconds an answer.
    pub fn cpu_ns(&self) -> Option<f64> {
        self.middle().map(Run::cpu_ns)
    }

    /// The median of right answers a second.
    pub fn rate(&self) -> Option<f64> {
        let mut rates: Vec<_> = self.runs.iter().map(|run| run.answers.rate()).collect();
        rates.sort_by(f64::total_cmp);
        rates.get(rates.len() / 2).copied()
    }

    /// The path's own nanoseconds without those of the floor.
    fn own_ns(&self) -> Option<f64> {
        self.own.map(|[path, floor]| path - floor)
    }

    fn limit(&self) -> Option<&'static str> {
        self.limited_by.or_else(|| self.middle().map(Run::limited_by))
    }

    /// The times of all runs.
    fn times(&self) -> Option<[f64; 3]> {
        let rows = self.runs.iter().map(|run| run.answers.times.len()).max().filter(|rows| *rows > 0)?;
        let of = |row| self.runs.iter().map(|run| run.answers.times.get(row).copied().unwrap_or_default()).sum();
        let times: Vec<u64> = (0..rows).map(of).collect();
        Some([0.5, 0.99, 0.999].map(|share| percentile(&times, share)))
    }

    fn json(&self) -> Value {
        let mut line = Map::new();
        let mut put = |name: &str, value: Value| line.insert(name.to_owned(), value);
        let rounded = |number: f64| (number * 10.0).round() / 10.0;
        let cpu_ns = self.cpu_ns();
        put("case", json!(self.case));
        put("subject", json!(self.subject.name()));
        put("cpu_ns", json!(cpu_ns.map(rounded)));
        put("own_ns", json!(self.own_ns().map(rounded)));
        put("qps_per_core", json!(cpu_ns.map(|cpu_ns| (1e9 / cpu_ns).round())));
        put("limited_by", json!(self.limit()));
        if let Some(rate) = self.rate() {
            put("qps", json!(rate.round()));
            put("unanswered", json!(self.unanswered()));
            put("truncated", json!(self.runs.iter().map(|run| run.answers.truncated).sum::<u64>()));
        }
        if let Some([half, most, nearly_all]) = self.times() {
            put("p50_us", json!(half));
            put("p99_us", json!(most));
            put("p999_us", json!(nearly_all));
        }
        if let Some(why) = &self.missing {
            put("not_run", json!(why));
        }
        if let Some(note) = &self.note {
            put("note", json!(note));
        }
        Value::Object(line)
    }

    /// The largest share of questions without a right answer.
    fn unanswered(&self) -> f64 {
        let largest = self.runs.iter().map(|run| run.answers.unanswered()).fold(0.0, f64::max);
        (largest * 1e5).round() / 1e5
    }

    fn print(&self, lb: Option<f64>) {
        let name = self.subject.name();
        let (Some(run), Some(cpu_ns), Some(rate)) = (self.middle(), self.cpu_ns(), self.rate()) else {
            println!("  {name:9}  not run: {}", self.missing.as_deref().unwrap_or("no time was asked for"));
            return;
        };
        let answered = run.answers.answered.max(1);
        let [server, receiver] = [run.spent.server, run.spent.receiver].map(|spent| spent / answered);
        let all = self.runs.iter().map(Run::cpu_ns);
        let (least, most) = all.fold((f64::MAX, 0.0_f64), |(least, most), ns| (least.min(ns), most.max(ns)));
        let ratio = lb.map_or(String::from("-"), |lb| format!("{:.2}", cpu_ns / lb));
        let share = run.spent.share(run.answers.elapsed) * 100.0;
        print!(
            "  {name:9}  {cpu_ns:8.0} {:>17} {server:7} {receiver:6}  {ratio:>6}  {:9.0}  {rate:9.0}  {:6.2}%  {share:4.0}% {:9}",
            format!("{least:.0}..{most:.0}"),
            1e9 / cpu_ns,
            self.unanswered() * 100.0,
            self.limit().unwrap_or_default()
        );
        if let Some([path, floor]) = self.own {
            print!("  own {:.1} ns ({path:.1} less {floor:.1})", path - floor);
        }
        if let Some([half, most, nearly_all]) = self.times() {
            print!("  {half:.1} / {most:.1} / {nearly_all:.1} us");
        }
        match &self.note {
            Some(note) => println!("  ({note})"),
            None => println!(),
        }
    }
}

/// Prints the rows, case by case. Ratios are to `lb`.
pub fn print(rows: &[Row]) {
    let mut last = None;
    for row in rows {
        if last != Some(&row.case) {
            println!(
                "\n{}\n  {:9}  {:>8} {:>17} {:>7} {:>6}  {:>6}  {:>9}  {:>9}  {:>7}  {:>5} {:9}",
                row.case,
                "subject",
                "CPU ns",
                "least..most",
                "server",
                "rx",
                "to lb",
                "q/s core",
                "q/s",
                "lost",
                "used",
                "limit"
            );
            last = Some(&row.case);
        }
        let lb = rows.iter().find(|other| other.case == row.case && other.subject == Subject::Lb);
        row.print(lb.and_then(Row::cpu_ns));
    }
}

/// Writes the rows to a file, one JSON object a line.
pub fn write(rows: &[Row], path: &Path) -> Result<()> {
    let text: String = rows.iter().map(|row| format!("{}\n", row.json())).collect();
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
