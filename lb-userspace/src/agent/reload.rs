//! Another config.

use super::{Agent, touched::Index};
use crate::{
    dns::listen::Listener,
    model::intent::{Intent, Service},
};
use anyhow::{Context as _, Result};
use std::{collections::BTreeSet, net::SocketAddr};

impl Agent {
    /// Reads the config again. A wrong one changes nothing.
    pub(super) async fn reload(&mut self) {
        self.supervisor.reloading();
        let taken = self.try_reload().await;
        self.end_reload(taken);
    }

    /// Reads the files again that the config names; the config's own is what it was.
    pub(super) async fn reload_files(&mut self) {
        self.supervisor.reloading();
        let taken = self.take_text(self.document.text.clone()).await;
        self.end_reload(taken);
    }

    fn end_reload(&mut self, taken: Result<()>) {
        if let Err(error) = taken {
            tracing::error!("not reloaded, nothing is changed: {error:#}");
        } else {
            match self.settle() {
                Ok(()) => tracing::info!(config = %self.document.path.display(), "reloaded"),
                Err(error) => tracing::error!("reloaded, but the tables can't follow yet: {error:#}"),
            }
        }
        self.supervisor.ready(self.summary());
    }

    /// Takes up another intent; an error leaves the one before.
    pub(super) async fn take_intent(&mut self, intent: Intent) -> Result<()> {
        let sizes =
            |intent: &Intent| (intent.socket().to_owned(), intent.pins().to_owned(), intent.attach(), intent.limits());
        if sizes(&intent) != sizes(&self.intent) {
            anyhow::bail!("`socket`, `pins`, `attach` and [limits] change only with a restart, after `lb detach`");
        }
        if (intent.state(), intent.api()) != (self.intent.state(), self.intent.api()) {
            anyhow::bail!("`state` and [api] change only with a restart");
        }
        self.make_detour(&intent).await?;
        // The tables know an interface before its first frame comes.
        let links = self.links(&intent).await?;
        self.conditions.interfaces.extend(links.into_iter().map(|(index, link)| (index, link.mac)));
        self.touched.rest();
        self.settle()?;

        let before = std::mem::replace(&mut self.intent, intent);
        if let Err(error) = self.take_up(before.dns()).await {
            self.intent = before;
            return Err(error);
        }
        self.index = Index::new(&self.intent);
        self.renewed = true;
        self.note_files(before.watched());
        self.note_leaving(&before);
        self.note_drains();
        self.warn_of_sizes();
        self.keep_probes();
        self.look_up_ways().await;
        self.document.names.want(self.intent.questions());
        self.ask_names();
        Ok(())
    }

    /// Takes up what can be refused of a new intent: its DNS addresses and its interfaces. An error leaves both as they were.
    async fn take_up(&mut self, old: &[SocketAddr]) -> Result<()> {
        let addresses = |list: &[SocketAddr]| list.iter().copied().collect::<BTreeSet<_>>();
        // Sockets of addresses that stay are kept only if all stay: answering pauses for no longer than a bind takes.
        let new = self.intent.dns().to_vec();
        let moves = self.listener.is_none() || addresses(&new) != addresses(old);
        if moves && let Err(error) = self.listen_on(&new).await {
            self.listen_on(old).await.context("the old DNS addresses can't be had back; reload again")?;
            return Err(error);
        }
        if self.detached {
            return Ok(());
        }
        let attached = self.attach().await;
        if moves && attached.is_err() {
            self.listen_on(old).await.context("the old DNS addresses can't be had back; reload again")?;
        }
        attached
    }

    /// Answers on these DNS addresses and no longer on those before.
    async fn listen_on(&mut self, addresses: &[SocketAddr]) -> Result<()> {
        if let Some(listener) = self.listener.take() {
            listener.abort();
            // Its sockets are closed when it has ended, and not before.
            let _ = listener.await;
        }
        self.listen(Listener::bind(addresses)?);
        Ok(())
    }

    /// Says which tables in use are not of the size that the config has for them.
    pub(super) fn warn_of_sizes(&self) {
        self.intent.services().iter().for_each(|service| self.warn_of_size(service));
    }

    /// Says it of one service.
    pub(super) fn warn_of_size(&self, service: &Service) {
        let known = self.actual.services.get(&service.endpoint);
        let Some(table) = known.and_then(|known| known.table.as_ref()) else { return };
        let (slots, wanted) = (table.region().slots, service.slots);
        if slots < service.least_slots {
            tracing::warn!(
                service = service.name,
                "{slots} slots leave some backend without any; the table is made anew with {wanted}: flows may move"
            );
        } else if slots != wanted {
            tracing::warn!(
                service = service.name,
                "the table in use keeps its {slots} slots, or flows would move; {wanted} come with `lb detach`"
            );
        }
    }
}
