//! `cargo xtask setup`: makes a machine able to build and test `lb`.
//!
//! It looks first. When nothing is missing it changes nothing and uses no network; when something is missing that it
//! may not install, it says which commands to run instead and installs nothing at all.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom},
    process::{Command, Stdio},
};

use anyhow::{Context as _, bail};

use crate::{
    bpf_tools,
    need::{Cure, NEEDS, Need},
    plan::{Machine, Step, plan},
    progress,
};

/// How a setup ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is there.
    Ready,
    /// Something is missing; what to run for it has been said.
    Lacking,
    /// Something is missing that this process may not install; the commands have been said.
    Refused,
}

/// Installs what is missing, or with `check` only reports it.
///
/// # Errors
/// When a command of the installation fails, or does not bring what it should.
pub fn run(check: bool) -> anyhow::Result<Outcome> {
    run_with(check, &[])
}

/// The same with further needs.
///
/// # Errors
/// As for [`run`].
pub fn run_with(check: bool, more: &'static [Need]) -> anyhow::Result<Outcome> {
    let missing = look(NEEDS.iter().chain(more));
    if missing.is_empty() {
        eprintln!("nothing is missing");
        return Ok(Outcome::Ready);
    }
    let machine = Machine::here();
    let cures: Vec<Cure> = missing.iter().map(|need| need.cure).collect();
    let steps = plan(&cures, &machine);
    let (advice, work): (Vec<&Step>, Vec<&Step>) = steps.iter().partition(|step| matches!(step, Step::Advice(_)));
    let may = work.iter().all(|step| step.is_ours(&machine));

    if check || !may {
        say(if check { "to be run" } else { "setup may not do this here; run yourself" }, &steps, &machine);
        return Ok(if check { Outcome::Lacking } else { Outcome::Refused });
    }
    for step in work {
        progress::installing(&step.subject(), || take(step))?;
    }
    let left = look(missing.into_iter());
    if let Some(need) = left.iter().find(|need| !matches!(need.cure, Cure::Advice(_))) {
        bail!("{} was installed but is still not found", need.name);
    }
    if left.is_empty() {
        return Ok(Outcome::Ready);
    }
    say("to be run by yourself", advice, &machine);
    Ok(Outcome::Lacking)
}

/// Reports each need and returns those that are not met.
fn look<'a>(needs: impl Iterator<Item = &'a Need>) -> Vec<&'a Need> {
    needs
        .filter(|need| match need.found() {
            Some(place) => {
                progress::found(need.name, &place);
                false
            }
            None => {
                progress::missing(need.name);
                true
            }
        })
        .collect()
}

fn say<'a>(heading: &str, steps: impl IntoIterator<Item = &'a Step>, machine: &Machine) {
    eprintln!("{heading}:");
    for step in steps {
        eprintln!("  {}", step.by_hand(machine));
    }
}

fn take(step: &Step) -> anyhow::Result<()> {
    let (variables, words) = step.command();
    let mut command = match step {
        Step::Packages(_) => {
            // Old lists name packages that the mirror no longer has. A failure is not the end: the lists here may do,
            // and if not, the installation says what is wrong.
            let _ = run_logged(Command::new("apt-get").arg("update"));
            without_services("/usr/sbin/policy-rc.d", &words)
        }
        _ => command_of(&words),
    };
    run_logged(command.envs(variables)).with_context(|| format!("cannot install {}", step.subject()))
}

fn command_of(words: &[&str]) -> Command {
    let (program, arguments) = words.split_first().unwrap_or((&"true", &[]));
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// The command, run such that it starts no service.
fn without_services(policy: &str, words: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", include_str!("without_services.sh"), "without_services", policy]).args(words);
    command
}

/// Runs a command silently; when it fails, keeps everything it said and shows the end of it.
pub fn run_logged(command: &mut Command) -> anyhow::Result<()> {
    let mut log = tempfile::Builder::new().prefix("lb-setup-").suffix(".log").tempfile()?;
    let status = command
        .stdin(Stdio::null())
        .stdout(log.as_file().try_clone()?)
        .stderr(log.as_file().try_clone()?)
        .status()
        .with_context(|| format!("cannot run {}", command.get_program().display()))?;
    if status.success() {
        return Ok(());
    }
    let mut said = Vec::new();
    log.seek(SeekFrom::Start(0))?;
    log.read_to_end(&mut said)?;
    let (_, place) = log.keep()?;
    bail!("{status}; all that it said is in {}, the end of it:\n{}", place.display(), last_lines(&said, 20));
}

fn last_lines(said: &[u8], count: usize) -> String {
    let text = String::from_utf8_lossy(said);
    let skipped = text.lines().count().saturating_sub(count);
    text.lines().skip(skipped).collect::<Vec<_>>().join("\n")
}

impl Machine {
    /// This machine, and what this process may do to it.
    fn here() -> Self {
        Self {
            root: is_root(),
            apt: bpf_tools::program("apt-get").is_some(),
            debian: fs::read_to_string("/etc/os-release")
                .is_ok_and(|text| text.lines().any(|line| line == "ID=debian")),
            rustup: bpf_tools::program("rustup").is_some(),
        }
    }
}

/// Whether the effective user is root.
pub fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").is_ok_and(|status| effective_user(&status) == Some(0))
}

/// The second number of the `Uid` line: proc_pid_status(5) gives real, effective, saved and file-system id.
fn effective_user(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn run_policed(policy: &Path, script: &str) -> bool {
        let mut command = without_services(policy.to_str().unwrap(), &["sh", "-c", script]);
        command.env("POLICY", policy).status().unwrap().success()
    }

    #[test]
    fn services_are_refused_only_while_the_command_runs() {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy-rc.d");
        assert!(run_policed(&policy, r#""$POLICY"; test $? = 101"#));
        assert!(!policy.exists());
        assert!(!run_policed(&policy, "exit 3"));
        assert!(!policy.exists(), "left behind by a failure");
    }

    #[test]
    fn services_are_allowed_again_after_an_interrupt() {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy-rc.d");
        assert!(!run_policed(&policy, r#"test -e "$POLICY" && kill -INT $PPID"#));
        assert!(!policy.exists());
    }

    #[test]
    fn a_policy_that_the_machine_has_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let policy = folder.path().join("policy-rc.d");
        fs::write(&policy, "mine").unwrap();
        assert!(run_policed(&policy, "true"));
        assert_eq!(fs::read_to_string(&policy).unwrap(), "mine");
    }

    #[test]
    fn a_failing_command_shows_its_last_lines_and_keeps_all() {
        let error = run_logged(Command::new("sh").args(["-c", "seq 30; exit 7"])).unwrap_err().to_string();
        assert!(error.contains("exit status: 7"), "{error}");
        assert!(error.ends_with(&(11..=30).map(|number| format!("\n{number}")).collect::<String>()), "{error}");
        let place = error.split_once("is in ").unwrap().1.split_once(", the end").unwrap().0;
        assert_eq!(fs::read_to_string(place).unwrap().lines().count(), 30);
        fs::remove_file(place).unwrap();
    }

    #[test]
    fn a_command_that_does_not_exist_is_an_error_with_its_name() {
        let error = run_logged(&mut Command::new("no-such-program")).unwrap_err();
        assert!(format!("{error:#}").contains("cannot run no-such-program"));
    }

    #[test]
    fn the_effective_user_is_the_second_number() {
        assert_eq!(effective_user("Name:\tx\nUid:\t1000\t0\t1000\t1000\n"), Some(0));
        assert_eq!(effective_user("Name:\tx\n"), None);
    }
}
