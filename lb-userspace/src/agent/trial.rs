//! Attaching by command: the proof that frames pass, and the trial that ends without a confirmation.
//!
//! A trial outlives whatever gave the command: the agent keeps its deadline. What is on trial is marked beside the pins, so that
//! an agent that is started after one that died in a trial takes it off again.

use super::Agent;
use crate::{
    api::trial::{AttachRequest, Attached, Phase, Proven, TrialStatus},
    kernel::{
        attach,
        features::{features, warnings},
        load,
        netlink::Link,
        proof::{self, Proof},
    },
    model::{intent::Attach, op::Op},
};
use anyhow::{Result, bail};
use std::time::Duration;
use tokio::{
    task::block_in_place,
    time::{Instant, sleep},
};

/// For how long a frame is waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// Neighbours are asked again after this: a frame may be lost.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// How often it is looked whether one has come.
const LOOK: Duration = Duration::from_millis(5);

/// What came of a proof.
#[derive(Debug, Default)]
struct Seen {
    /// After how long the first frame came, if one did.
    after: Option<Duration>,
    /// Neighbours that were asked for one.
    asked: usize,
}

/// Where a trial is.
#[derive(Debug, Default)]
pub(super) struct Trial {
    phase: Phase,
    /// By then it is confirmed, or its interfaces are detached.
    until: Option<Duration>,
    /// What it has attached.
    names: Vec<String>,
    /// Whether the operator had detached it all before.
    detached: bool,
}

impl Trial {
    /// When it ends without a confirmation.
    pub(super) fn until(&self) -> Option<Duration> {
        self.until
    }
}

impl Agent {
    /// Attaches, unless an agent before this one died in a trial: nobody will confirm that any more.
    pub(super) async fn attach_at_start(&mut self) -> Result<()> {
        let names = attach::unconfirmed(self.pins.path());
        if names.is_empty() {
            self.attach().await?;
            // A frame may still be in a program that the agent before this one left, and goes on by what is left with it.
            block_in_place(|| self.maps.apply(&Op::Grace))?;
            proof::remove_leftover(&self.pins);
            self.traces.remove_leftover();
            for (index, Link { name, .. }) in self.links(&self.intent).await? {
                self.warnings(&name, index).await.iter().for_each(|warning| tracing::warn!("{warning}"));
            }
            return Ok(());
        }
        names.iter().for_each(|name| self.detach_from(name));
        self.detached = true;
        self.trial.phase = Phase::RolledBack;
        tracing::error!(
            "the agent before this one ended before its `lb attach --confirm` was confirmed: {} taken off again, and nothing is \
             attached until `lb attach`",
            names.join(", ")
        );
        Ok(())
    }

    /// Attaches to all interfaces of the config, sees that frames reach the program there, and begins a trial if one is asked for.
    pub(super) async fn attach_by_command(&mut self, request: AttachRequest) -> Result<Attached> {
        let before = attach::attached(self.pins.path());
        let was_detached = std::mem::replace(&mut self.detached, false);
        if let Err(error) = self.attach().await {
            self.detached = was_detached;
            return Err(error);
        }
        let links: Vec<_> =
            self.links(&self.intent).await?.into_iter().map(|(index, link)| (link.name, index)).collect();
        let fresh: Vec<_> = links.iter().map(|(name, _)| name.clone()).filter(|name| !before.contains(name)).collect();
        let (proven, asked) = self.prove(&links).await?;
        let mut told = Vec::new();
        for (((name, index), proven), asked) in links.iter().zip(&proven).zip(asked) {
            match (&proven.milliseconds, asked) {
                (None, 0) => told.push(format!(
                    "{name}: no frame came within {} s, and there is nobody to ask for one: it is not proved that frames pass",
                    PATIENCE.as_secs()
                )),
                (None, asked) if !request.unproven => {
                    fresh.iter().for_each(|name| self.detach_from(name));
                    self.detached = was_detached;
                    bail!(
                        "{name}: no frame reached the program within {} s, though {asked} neighbour(s) were asked; {}. `ip neigh show dev \
                         {name}` lists them; `attach = \"generic\"` in the config may help, and `lb attach --unproven` attaches nevertheless",
                        PATIENCE.as_secs(),
                        if fresh.is_empty() { "it stays attached, as it was" } else { "nothing is attached" }
                    );
                }
                (None, asked) => told.push(format!("{name}: no frame came, though {asked} neighbour(s) were asked")),
                (Some(_), _) => (),
            }
            told.extend(self.warnings(name, *index).await);
        }
        told.iter().for_each(|warning| tracing::warn!("{warning}"));
        let mut on_trial = Vec::new();
        if let Some(seconds) = request.confirm_seconds.filter(|_| !fresh.is_empty()) {
            for name in &fresh {
                attach::mark_unconfirmed(self.pins.path(), name)?;
            }
            let until = Some(self.now() + Duration::from_secs(seconds.into()));
            tracing::warn!(
                interfaces = fresh.join(", "),
                seconds,
                "attached on trial: to be confirmed by `lb attach --confirmed`"
            );
            on_trial.clone_from(&fresh);
            self.trial = Trial { phase: Phase::Running, until, names: fresh, detached: was_detached };
        }
        Ok(Attached { interfaces: proven, warnings: told, on_trial, pins: self.pins.path().into() })
    }

    /// Sees whether frames reach the program on each of these interfaces, and tells how many neighbours were asked for one.
    async fn prove(&mut self, links: &[(String, u32)]) -> Result<(Vec<Proven>, Vec<usize>)> {
        let mode = self.intent.attach();
        let behind = load::program(&mut self.ebpf, self.traces.program())?.fd()?.try_clone()?;
        let mut proof = block_in_place(|| Proof::load(&self.pins, &behind))?;
        let begun =
            links.iter().try_for_each(|(name, index)| block_in_place(|| proof.begin(&self.pins, name, *index, mode)));
        let seen = if begun.is_ok() { self.watch(&proof, links).await } else { Vec::new() };
        // Whatever came of it, frames come to the balancer's program at once again, before the one that hands them on goes.
        let program = load::program(&mut self.ebpf, self.traces.program())?;
        let back: Vec<_> = links
            .iter()
            .map(|(name, index)| block_in_place(|| attach::attach(program, &self.pins, name, *index, mode)))
            .collect();
        drop(proof);
        back.into_iter().collect::<Result<(), _>>()?;
        begun?;
        let mode = if mode == Attach::Generic { "generic" } else { "native" };
        let (mut proven, mut asked) = (Vec::new(), Vec::new());
        for ((name, _), Seen { after, asked: neighbors }) in links.iter().zip(seen) {
            let milliseconds = after.and_then(|after| after.as_millis().try_into().ok());
            proven.push(Proven { name: name.clone(), mode: mode.into(), milliseconds });
            asked.push(neighbors);
        }
        Ok((proven, asked))
    }

    /// Waits for a frame on each of these interfaces.
    async fn watch(&self, proof: &Proof, links: &[(String, u32)]) -> Vec<Seen> {
        let mut seen: Vec<_> = links.iter().map(|_| Seen::default()).collect();
        let started = Instant::now();
        let mut ask_at = started;
        while started.elapsed() < PATIENCE && seen.iter().any(|seen| seen.after.is_none()) {
            let asks = ask_at <= Instant::now();
            if asks {
                ask_at += ASK_AGAIN;
            }
            for ((name, index), seen) in links.iter().zip(&mut seen).filter(|(_, seen)| seen.after.is_none()) {
                if proof.has_seen(*index) {
                    seen.after = Some(started.elapsed());
                } else if asks {
                    match self.netlink.ask_neighbors(*index).await {
                        Ok(asked) => seen.asked = seen.asked.max(asked),
                        Err(error) => tracing::warn!(interface = name, "{:#}", anyhow::Error::from(error)),
                    }
                }
            }
            sleep(LOOK).await;
        }
        seen
    }

    /// What the operator is to know of an interface.
    async fn warnings(&self, name: &str, index: u32) -> Vec<String> {
        if self.intent.attach() == Attach::Generic {
            return Vec::new();
        }
        let features = features(index).unwrap_or_else(|error| {
            tracing::debug!(interface = name, %error, "no word of its XDP features");
            None
        });
        warnings(name, self.netlink.is_veth(index).await, features)
    }

    /// The operator has found that it works.
    pub(super) fn confirm(&mut self) -> Result<usize> {
        if self.trial.phase != Phase::Running {
            bail!(
                "nothing waits for a confirmation{}",
                match self.trial.phase {
                    Phase::RolledBack => ": it was taken off again",
                    Phase::Confirmed => ": it was confirmed already",
                    Phase::Running | Phase::None => "",
                }
            );
        }
        for name in &self.trial.names {
            attach::confirm(self.pins.path(), name)?;
        }
        tracing::info!(interfaces = self.trial.names.join(", "), "confirmed");
        let confirmed = self.trial.names.len();
        self.trial = Trial { phase: Phase::Confirmed, ..Trial::default() };
        Ok(confirmed)
    }

    /// Takes off what nobody has confirmed in time.
    pub(super) fn end_trial(&mut self, now: Duration) {
        if self.trial.until.is_none_or(|until| now < until) {
            return;
        }
        let Trial { names, detached, .. } =
            std::mem::replace(&mut self.trial, Trial { phase: Phase::RolledBack, ..Trial::default() });
        tracing::error!(interfaces = names.join(", "), "not confirmed in time, taken off again");
        names.iter().for_each(|name| self.detach_from(name));
        self.detached = detached;
    }

    /// A trial of what is detached is none.
    pub(super) fn forget_trial(&mut self) {
        self.trial = Trial::default();
    }

    /// Where the trial is.
    pub(super) fn trial_status(&self) -> TrialStatus {
        let left = self.trial.until.map(|until| until.saturating_sub(self.now()));
        TrialStatus {
            phase: self.trial.phase,
            left_milliseconds: left.and_then(|left| left.as_millis().try_into().ok()),
        }
    }
}
