//! What setup shows while it works: a spinner on a terminal, plain lines elsewhere.

use std::{
    io::IsTerminal as _,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// Reports that something is there already.
pub fn found(name: &str, place: &str) {
    eprintln!("found       {name} ({place})");
}

/// Reports that something is not there.
pub fn missing(name: &str) {
    eprintln!("missing     {name}");
}

/// Runs `work`, saying what is being installed, and how long it took when it succeeds.
pub fn installing<T>(subject: &str, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    let spinner = Spinner::start(subject);
    let result = work();
    spinner.stop();
    let seconds = start.elapsed().as_secs();
    match &result {
        Ok(_) => eprintln!("installing  {subject} ... done in {seconds} s"),
        Err(_) => eprintln!("installing  {subject} ... failed after {seconds} s"),
    }
    result
}

/// The sign of life during a step.
enum Spinner {
    Turning(ProgressBar),
    /// Without a terminal the line is begun here and written again, whole, at the end: other output may come between.
    Plain,
}

impl Spinner {
    fn start(subject: &str) -> Self {
        if !std::io::stderr().is_terminal() {
            eprintln!("installing  {subject} ...");
            return Self::Plain;
        }
        let style = ProgressStyle::with_template("{spinner} installing  {wide_msg} {elapsed}");
        let bar = ProgressBar::new_spinner().with_message(subject.to_owned());
        if let Ok(style) = style {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self::Turning(bar)
    }

    fn stop(self) {
        if let Self::Turning(bar) = self {
            bar.finish_and_clear();
        }
    }
}
