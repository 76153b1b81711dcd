//! `cargo xtask test`: every check there is, in stages, and one line at the end that counts them. `cargo xtask kernels`
//! is one of these stages alone.
//!
//! A stage that fails does not keep the next from running. What a test could not run here is listed by name with its
//! reason and counted as skipped: a test says so by a line `name: reason` in the file that `LB_SKIPS` names.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    process::{Command, ExitCode, Stdio},
};

use anyhow::Context as _;

use crate::{
    fuzz, kernels,
    setup::{self, Outcome},
    tally::{Line, Tally},
    workspace::Workspace,
};

/// One step of the test run: a call of cargo.
struct Stage {
    /// What to call cargo with, words parted by one space.
    call: &'static str,
    variables: &'static [(&'static str, &'static str)],
    /// A target folder of its own, for a stage whose variables would make cargo build everything again.
    folder: Option<&'static str>,
}

/// What needs neither root nor a kernel.
const QUICK: &[Stage] = &[
    Stage::new("fmt --all --check"),
    Stage::new("clippy --workspace --all-targets -- -D warnings"),
    // clippy comes with the host's toolchain, which has no `core` for BPF. The program is read as if it were for the
    // host, where it needs an unstable feature and must not unwind.
    Stage {
        variables: &[("RUSTC_BOOTSTRAP", "1"), ("CARGO_PROFILE_DEV_PANIC", "abort")],
        folder: Some("lints"),
        ..Stage::new("clippy --package lb-ebpf --features bpf,bench -- -D warnings")
    },
    Stage::new("test --no-fail-fast"),
];

/// What runs on a real kernel: this one, and those that are booted for it.
const KERNEL: &[Stage] = &[
    // The tests start `lb`, which cargo does not know and so would leave as old as it is.
    Stage::new("build --package lb-userspace --package tests"),
    // Each test has a lab of its own with several processes: more at a time starve each other.
    Stage {
        variables: &[("RUST_TEST_THREADS", "2")],
        ..Stage::new("test --no-fail-fast --package tests --package bench")
    },
];

/// What boots other kernels; a part of the last stage above, but here it says what it saw.
const KERNELS: &[Stage] = &[Stage::new("test --package tests --test kernels -- --nocapture")];

/// How much to run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What needs neither root nor a kernel.
    Quick,
    /// Everything.
    All,
    /// Only what boots other kernels.
    Kernels,
}

impl Scope {
    fn stages(self) -> impl Iterator<Item = &'static Stage> {
        let stages: [&[Stage]; 2] = match self {
            Self::Quick => [QUICK, &[]],
            Self::All => [QUICK, KERNEL],
            Self::Kernels => [KERNELS, &[]],
        };
        stages.into_iter().flatten()
    }
}

impl Stage {
    const fn new(call: &'static str) -> Self {
        Self { call, variables: &[], folder: None }
    }

    /// Whether it reports tests; else it holds or does not, as a whole.
    fn has_tests(&self) -> bool {
        self.call.starts_with("test")
    }

    fn command(&self, workspace: &Workspace) -> Command {
        let mut command = workspace.cargo(self.call.split(' '));
        command.envs(self.variables.iter().copied());
        if let Some(folder) = self.folder {
            command.env("CARGO_TARGET_DIR", workspace.target.join(folder));
        }
        command
    }
}

/// Runs the stages; the answer is yes when nothing failed and something ran.
///
/// # Errors
/// When cargo cannot be run at all.
pub fn run(scope: Scope) -> anyhow::Result<ExitCode> {
    let mut report = Report::default();
    match setup::run(false) {
        Ok(Outcome::Ready) => {}
        Ok(Outcome::Lacking | Outcome::Refused) => report.skip("setup: something is missing, see above"),
        Err(error) => {
            eprintln!("error: {error:#}");
            report.fail("setup");
        }
    }
    let workspace = Workspace::find()?;
    if scope != Scope::Quick {
        kernels::fetch(&workspace)?;
    }
    let skips = tempfile::NamedTempFile::with_prefix("lb-skips-").context("cannot make a file for skipped tests")?;
    for stage in scope.stages() {
        let mut command = stage.command(&workspace);
        command.env("LB_SKIPS", skips.path());
        report.add(stage, &mut command, &mut io::stdout())?;
    }
    if scope == Scope::All {
        report.fuzz(&workspace)?;
    }
    let said = fs::read_to_string(skips.path()).context("cannot read which tests were skipped")?;
    report.add_skips(&said);
    report.print();
    Ok(report.answer())
}

/// What came of the stages so far.
#[derive(Default)]
struct Report {
    total: Tally,
    /// Tests that libtest ran, without the checks that are no tests.
    tests: Tally,
    /// `name: reason`.
    skipped: Vec<String>,
    failed: Vec<String>,
}

impl Report {
    /// Runs a stage, passing on what it says.
    fn add(&mut self, stage: &Stage, command: &mut Command, show: &mut impl Write) -> anyhow::Result<()> {
        let name = format!("cargo {}", stage.call);
        eprintln!("\n== {name}");
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {name}"))?;
        let mut tests = Tally::default();
        if let Some(output) = child.stdout.take() {
            tests = self.read(BufReader::new(output), show)?;
        }
        let succeeded = child.wait().with_context(|| format!("cannot wait for {name}"))?.success();
        self.total += tests;
        self.tests += tests;
        // A stage can fail without a failed test: it was not built, or a test binary crashed.
        if !stage.has_tests() || (!succeeded && tests.failed == 0) {
            self.total += Tally::of_check(succeeded);
        }
        if !succeeded {
            self.failed.push(name);
        }
        Ok(())
    }

    /// Shows a stage's output as it comes and counts the tests in it.
    fn read(&mut self, mut output: impl BufRead, show: &mut impl Write) -> anyhow::Result<Tally> {
        let mut tests = Tally::default();
        let mut bytes = Vec::new();
        // By bytes: what a test prints need not be UTF-8.
        while output.read_until(b'\n', &mut bytes)? > 0 {
            show.write_all(&bytes)?;
            match Line::parse(String::from_utf8_lossy(&bytes).trim_end()) {
                Line::Summary(tally) => tests += tally,
                Line::Ignored(name, reason) => self.skipped.push(format!("{name}: {reason}")),
                Line::Other => {}
            }
            bytes.clear();
        }
        Ok(tests)
    }

    /// Fuzzes for a moment, where that can be done.
    fn fuzz(&mut self, workspace: &Workspace) -> anyhow::Result<()> {
        if let Some(reason) = fuzz::missing() {
            fuzz::Target::ALL.iter().for_each(|target| self.skip(&format!("fuzzing {}: {reason}", target.name())));
            return Ok(());
        }
        for (target, mut command) in fuzz::same_commands(workspace)? {
            let name = format!("fuzzing {}", target.name());
            eprintln!("\n== {name}");
            let held = command.status().with_context(|| format!("cannot start {name}"))?.success();
            self.total += Tally::of_check(held);
            if !held {
                self.failed.push(name);
            }
        }
        Ok(())
    }

    fn skip(&mut self, line: &str) {
        self.total.skipped += 1;
        self.skipped.push(line.to_owned());
    }

    fn fail(&mut self, name: &str) {
        self.total += Tally::of_check(false);
        self.failed.push(name.to_owned());
    }

    /// Takes the tests that said in the file that they were skipped out of those that passed.
    fn add_skips(&mut self, said: &str) {
        let lines: Vec<String> = said.lines().map(str::to_owned).collect();
        self.total = self.total.with_skips(lines.len());
        self.tests = self.tests.with_skips(lines.len());
        self.skipped.extend(lines);
    }

    fn print(&self) {
        println!();
        for line in &self.skipped {
            println!("skipped  {line}");
        }
        for name in &self.failed {
            println!("failed   {name}");
        }
        println!("{}", self.total);
    }

    fn answer(&self) -> ExitCode {
        let ran = self.tests.passed > 0;
        if self.total.failed == 0 && self.failed.is_empty() && ran { ExitCode::SUCCESS } else { ExitCode::from(1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE_PASS: &str = "echo 'test result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out'";

    #[test]
    fn a_check_counts_as_one() {
        let holds = report_of("fmt", "true");
        assert_eq!(holds.total.to_string(), "1 passed, 0 failed, 0 skipped");
        let does_not = report_of("fmt", "false");
        assert_eq!(does_not.total.to_string(), "0 passed, 1 failed, 0 skipped");
    }

    #[test]
    fn binaries_add_up() {
        let report = report_of("test", &format!("{THREE_PASS}; {THREE_PASS}"));
        assert_eq!(report.total.to_string(), "6 passed, 0 failed, 0 skipped");
        assert_eq!(report.answer(), ExitCode::SUCCESS);
    }

    #[test]
    fn failed_tests_are_not_counted_twice() {
        let script = "echo 'test result: FAILED. 1 passed; 2 failed; 0 ignored'; exit 101";
        let report = report_of("test", script);
        assert_eq!(report.total.to_string(), "1 passed, 2 failed, 0 skipped");
        assert_eq!(report.failed, ["cargo test"]);
        assert_eq!(report.answer(), ExitCode::from(1));
    }

    #[test]
    fn a_crash_without_a_failed_test_is_a_failure() {
        let report = report_of("test", &format!("{THREE_PASS}; exit 101"));
        assert_eq!(report.total.to_string(), "3 passed, 1 failed, 0 skipped");
        assert_eq!(report.answer(), ExitCode::from(1));
    }

    #[test]
    fn skipped_tests_are_listed_and_did_not_pass() {
        let script = format!("echo 'test slow ... ignored, takes a day'; {THREE_PASS}");
        let mut report = report_of("test", &script);
        report.add_skips("a: needs root\nb: needs dig\n");
        assert_eq!(report.total.to_string(), "1 passed, 0 failed, 2 skipped");
        let listed = ["slow: takes a day", "a: needs root", "b: needs dig"];
        assert_eq!(report.skipped, listed);
    }

    #[test]
    fn when_no_test_ran_the_answer_is_no() {
        assert_eq!(report_of("fmt", "true").answer(), ExitCode::from(1));
        let mut all_skipped = report_of("test", THREE_PASS);
        all_skipped.add_skips("a: x\nb: x\nc: x\n");
        assert_eq!(all_skipped.answer(), ExitCode::from(1));
    }

    /// Shows nothing: what these scripts say would be counted by a `cargo xtask test` around this one.
    fn report_of(call: &'static str, script: &str) -> Report {
        let mut report = Report::default();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        report.add(&Stage::new(call), &mut command, &mut io::sink()).unwrap();
        report
    }
}
