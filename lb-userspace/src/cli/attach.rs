//! `lb attach`.

use super::Agent;
use crate::{
    api::{
        Interfaces,
        client::{self, ClientError},
        trial::{AttachRequest, Attached, Phase, TrialStatus},
    },
    kernel::attach,
};
use anyhow::{Result, bail};
use clap::Args;
use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{Instant, interval, timeout},
};

/// How often the agent is asked how the trial is going.
const ASK: Duration = Duration::from_millis(250);
/// An agent that says nothing for so long is as good as dead.
const SILENT: Duration = Duration::from_secs(1);
/// The agent ends a trial itself; after this long it is taken for unable to.
const GRACE: Duration = Duration::from_secs(1);

/// How to attach.
#[derive(Debug, Args)]
pub struct Attach {
    #[command(flatten)]
    agent: Agent,
    /// Take off again what is attached now, unless it is confirmed in this time (`30s`, `5m`): by Enter, or by `lb attach --confirmed`
    /// from elsewhere. Also if this terminal is gone, or the agent dies.
    #[arg(long, value_name = "TIME", value_parser = seconds, conflicts_with = "confirmed")]
    confirm: Option<u32>,
    /// Confirm what was attached with `--confirm`.
    #[arg(long)]
    confirmed: bool,
    /// Attach also where no frame is seen to reach the program.
    #[arg(long, conflicts_with = "confirmed")]
    unproven: bool,
    /// As JSON.
    #[arg(long, conflicts_with_all = ["confirm", "confirmed"])]
    json: bool,
    /// With `--confirmed`: where the agent had its pins, should it not run.
    #[arg(long, default_value = crate::config::DEFAULT_PINS)]
    pins: PathBuf,
}

/// Attaches, or confirms.
pub async fn attach(Attach { agent, confirm, confirmed, unproven, json, pins }: Attach) -> Result<()> {
    if confirmed {
        return self::confirmed(&agent.socket, &pins).await;
    }
    let request = AttachRequest { confirm_seconds: confirm, unproven };
    let attached: Attached = client::post(&agent.socket, "/attach", &request).await?;
    if json {
        return super::json(&attached);
    }
    println!("attached to {} interface(s)", attached.interfaces.len());
    for interface in &attached.interfaces {
        match interface.milliseconds {
            Some(after) => println!("{}: frames pass, {}, the first after {after} ms", interface.name, interface.mode),
            None => println!("{}: no frame seen, {}", interface.name, interface.mode),
        }
    }
    attached.warnings.iter().for_each(|warning| eprintln!("warning: {warning}"));
    match confirm {
        None => Ok(()),
        Some(_) if attached.on_trial.is_empty() => {
            println!("all of them were attached before: there is nothing to confirm");
            Ok(())
        }
        Some(seconds) => watch(&agent.socket, &attached, Duration::from_secs(seconds.into())).await,
    }
}

/// Waits for the confirmation, or sees to it that what is on trial goes.
async fn watch(socket: &Path, attached: &Attached, limit: Duration) -> Result<()> {
    let names = attached.on_trial.join(", ");
    println!("taken off again in {} s: Enter confirms, or `lb attach --confirmed` elsewhere", limit.as_secs());
    let end = Instant::now() + limit + GRACE;
    let mut enter = enter();
    // With the terminal gone the agent may still die: this goes on, and says nothing more.
    let mut hangup = signal(SignalKind::hangup())?;
    let mut asks = interval(ASK);
    loop {
        tokio::select! {
            Some(()) = enter.recv() => return confirmed(socket, &attached.pins).await,
            _ = hangup.recv() => continue,
            _ = asks.tick() => (),
        }
        let answer = timeout(SILENT, client::get::<TrialStatus>(socket, "/attach")).await;
        match answer.ok().and_then(Result::ok).map(|status| status.phase) {
            Some(Phase::Running) => (),
            Some(Phase::Confirmed) => {
                println!("confirmed: {names}");
                return Ok(());
            }
            Some(Phase::RolledBack | Phase::None) => bail!("not confirmed: {names} taken off again"),
            None => {
                // No agent: whoever confirms has taken the marks off.
                if attach::unconfirmed(&attached.pins).is_empty() {
                    println!("no longer on trial: {names}");
                    return Ok(());
                }
                if Instant::now() >= end {
                    for name in &attached.on_trial {
                        attach::detach(&attached.pins, name)?;
                    }
                    bail!("not confirmed, and the agent does not answer: {names} taken off again");
                }
            }
        }
    }
}

/// Enter on the terminal, if there is one.
fn enter() -> mpsc::Receiver<()> {
    let (sender, receiver) = mpsc::channel(1);
    if io::stdin().is_terminal() {
        thread::spawn(move || {
            // The end of the input is no Enter.
            if io::stdin().read_line(&mut String::new()).is_ok_and(|length| length > 0) {
                let _ = sender.blocking_send(());
            }
        });
    } else {
        // A receiver without senders is always ready, and says `None`, which the pattern in `select!` does not take.
        drop(sender);
    }
    receiver
}

/// Confirms through the agent; without one, by the pins.
async fn confirmed(socket: &Path, pins: &Path) -> Result<()> {
    let interfaces = match client::post(socket, "/attach/confirm", &()).await {
        Ok(Interfaces { interfaces }) => interfaces,
        Err(error) if matches!(error.downcast_ref(), Some(ClientError::NoAgent { .. })) => {
            let names = attach::unconfirmed(pins);
            if names.is_empty() {
                return Err(error.context(format!("nothing waits for a confirmation in {} either", pins.display())));
            }
            for name in &names {
                attach::confirm(pins, name)?;
            }
            names.len()
        }
        Err(error) => return Err(error),
    };
    println!("confirmed {interfaces} interface(s)");
    Ok(())
}

/// Seconds of `30`, `30s`, `5m` or `1h`.
pub(super) fn seconds(text: &str) -> Result<u32, String> {
    let (number, unit) = text.split_at(text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len()));
    let factor = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err("not a time such as `30s` or `5m`".into()),
    };
    let seconds = number.parse().ok().and_then(|number: u32| number.checked_mul(factor));
    seconds.filter(|seconds| (1..=86_400).contains(seconds)).ok_or_else(|| "not between 1s and 24h".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_bounds() {
        for (text, value) in [("30", 30), ("30s", 30), ("5m", 300), ("24h", 86_400), ("1", 1)] {
            assert_eq!(seconds(text), Ok(value), "{text}");
        }
        for text in ["", "s", "0", "0s", "25h", "86401", "1d", "1.5s", "-1", "99999999999", "4294967295h"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }
}
