//! Backends by name: DNS is asked, and another answer is another intent, which is taken up like any.

use super::{
    Agent,
    document::{Document, milliseconds},
};
use crate::{
    changes::Merged,
    config::ConfigErrors,
    dns::resolve::{Resolved, resolve},
    model::{
        discovery::{Outcome, Question, Records},
        intent::{Intent, Origin},
    },
    status::NameStatus,
};
use anyhow::{Error, Result};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    task::block_in_place,
    time::{Instant as Deadline, timeout_at},
};

/// Answers that wait to be taken up.
pub const TOLD: usize = 256;
/// How long a start waits for names of which nothing is known: else the first backend that is found would get all flows, and
/// those that follow a moment later would have to leave it them.
const FIRST: Duration = Duration::from_secs(1);

/// What a document means with what an earlier agent was answered. Answers that would make a right config wrong are forgotten.
pub fn first(document: &mut Document) -> Result<(Intent, Merged), ConfigErrors> {
    let text = document.text.clone();
    let kept = document.names.kept();
    let meant = match document.intent(&text) {
        Err(_) if !kept.is_empty() => {
            for kept in &kept {
                document.names.take_back(&kept.question);
            }
            let mut meant = document.intent(&text)?;
            for kept in kept {
                document.names.take(&kept.question, kept.records);
                match document.intent(&text) {
                    Ok(with) => meant = with,
                    Err(errors) => document.names.forget(&kept.question, errors.without_lines()),
                }
            }
            meant
        }
        meant => meant?,
    };
    document.names.want(meant.0.questions());
    Ok(meant)
}

/// Asks for the names of which nothing is known, hosts of SRV records after these, for a moment.
pub async fn ask_first(mut document: Document, mut intent: Intent) -> (Document, Intent) {
    let started = Instant::now();
    let until = Deadline::now() + FIRST;
    let (tell, mut told) = mpsc::channel(TOLD);
    while document.names.is_new() {
        let due = document.names.due(started.elapsed());
        if !due.is_empty() {
            tokio::spawn(resolve(intent.nameservers().to_vec(), due, tell.clone()));
        }
        let Ok(Some((question, outcome))) = timeout_at(until, told.recv()).await else { break };
        let Some(records) = note(&mut document, started.elapsed(), &question, outcome) else { continue };
        document.names.take(&question, records);
        let text = document.text.clone();
        match block_in_place(|| document.intent(&text)) {
            Ok((meant, merged)) => {
                intent = meant;
                document.stale = merged.stale;
                document.names.want(intent.questions());
            }
            Err(errors) => document.names.forget(&question, errors.without_lines()),
        }
    }
    // Who is still being asked is asked again by the agent itself, whose time begins anew.
    document.names.restart();
    (document, intent)
}

/// Notes what came of asking; returns what is new.
fn note(document: &mut Document, now: Duration, question: &Question, outcome: Outcome) -> Option<Records> {
    let before = document.names.known(question).map(|known| (known.error.is_some(), known.records.is_some()));
    let new = document.names.on(now, milliseconds(), question, outcome);
    match (before, document.names.known(question).and_then(|known| known.error)) {
        (Some((false, true)), Some(error)) => {
            tracing::warn!(%question, "DNS fails: {error}; the last answer stays in use");
        }
        (Some((false, false)), Some(error)) => {
            tracing::warn!(%question, "DNS fails: {error}; nothing is known of the name yet");
        }
        (Some((true, _)), None) => tracing::info!(%question, "DNS answers again"),
        _ => (),
    }
    new
}

impl Agent {
    /// Asks what is due, beside everything else.
    pub(super) fn ask_names(&mut self) {
        let now = self.now();
        let due = self.document.names.due(now);
        if !due.is_empty() {
            tokio::spawn(resolve(self.intent.nameservers().to_vec(), due, self.resolved.clone()));
        }
    }

    /// Takes up an answer, and those that have come with it.
    pub(super) async fn resolved(&mut self, first: Resolved, more: &mut mpsc::Receiver<Resolved>) {
        let mut news = Vec::new();
        let mut next = Some(first);
        while let Some((question, outcome)) = next {
            let now = self.now();
            news.extend(note(&mut self.document, now, &question, outcome).map(|records| (question, records)));
            next = more.try_recv().ok();
        }
        if news.is_empty() {
            return;
        }
        if self.take_answers(news.clone()).await.is_err() {
            // One of them is the cause; the others have their way.
            for (question, records) in news {
                if let Err(error) = self.take_answers(vec![(question.clone(), records)]).await {
                    tracing::warn!(%question, "the answer can't be used, the one before stays in use: {error:#}");
                    self.document.names.refuse(&question, format!("the answer can't be used: {error:#}"));
                }
            }
        }
        self.keep_names();
    }

    /// Takes up these answers, all or none.
    async fn take_answers(&mut self, news: Vec<(Question, Records)>) -> Result<()> {
        let before = self.document.names.clone();
        for (question, records) in news {
            tracing::info!(%question, "resolved: {records}");
            self.document.names.take(&question, records);
        }
        let text = self.document.text.clone();
        let taken = match block_in_place(|| self.document.intent(&text)) {
            Ok((intent, merged)) => self.take_intent(intent).await.map(|()| self.document.stale = merged.stale),
            Err(errors) => Err(Error::msg(errors.without_lines())),
        };
        if taken.is_err() {
            self.document.names = before;
        }
        taken
    }

    /// Keeps what is known for a later agent.
    pub(super) fn keep_names(&self) {
        let names = self.document.names.kept();
        if names.is_empty() && self.intent.questions().is_empty() {
            return;
        }
        if let Err(error) = block_in_place(|| self.document.store.save_names(names)) {
            let folder = self.document.store.folder().display();
            tracing::warn!(%folder, %error, "cannot keep what DNS says; an agent that starts without DNS will not know it");
        }
    }

    /// What there is to say of the names of a service's backends, or of one of them.
    pub(super) fn names_status<'q>(&self, questions: impl Iterator<Item = &'q Question>) -> Vec<NameStatus> {
        let now = milliseconds();
        let status = |question: &Question| {
            let known = self.document.names.known(question)?;
            Some(NameStatus {
                name: question.name.clone(),
                kind: question.kind.to_string(),
                records: known.records.map(Records::texts).unwrap_or_default(),
                resolved_seconds: known.heard.map(|heard| now.saturating_sub(heard) / 1_000),
                error: known.error.map(Into::into),
            })
        };
        questions.filter_map(status).collect()
    }

    /// The same of the names by which an address is a backend of somebody.
    pub(super) fn names_of<'o>(&self, origins: impl Iterator<Item = &'o Origin>) -> Vec<NameStatus> {
        let questions: BTreeSet<&Question> = origins.flat_map(Origin::questions).collect();
        self.names_status(questions.into_iter())
    }
}
