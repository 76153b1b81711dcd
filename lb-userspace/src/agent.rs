//! The agent: everything that happens arrives here as an event, changes the conditions, and is settled by one plan.
//!
//! This is the only place with channels and `select!`.

mod answers;
mod cache;
mod changes;
mod diff;
mod discovery;
mod document;
mod drain;
mod explain;
mod files;
mod health;
mod inherit;
mod interfaces;
mod probes;
mod reload;
mod report;
mod touched;
mod trace;
mod trial;

pub use changes::open;
pub use document::Document;

use crate::{
    api::{self, Command, InUse, Refusal, Tcp},
    dns::{
        listen::{Counts, Listener},
        resolve::Resolved,
    },
    kernel::{
        announce::Announcer,
        load::{self, Pins},
        log,
        maps::Maps,
        netlink::{self, Netlink},
    },
    link_groups::LinkGroups,
    model::{
        actual::Actual,
        answers::negatives::Negatives,
        desired::{Conditions, Desired, Drain},
        dns::{names::Names, respond::Asked},
        flows::FlowCounts,
        history::History,
        intent::{Intent, Target},
    },
    probe::{self, Prober, Sockets},
    settle,
    status::ReloadsStatus,
    supervisor::Supervisor,
};
use anyhow::Result;
use aya::Ebpf;
use futures_util::StreamExt as _;
use health::Record;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
    task::{AbortHandle, JoinHandle, block_in_place},
    time::{Instant as Deadline, interval, sleep_until},
};
use touched::{Index, Touched};
use trace::Traces;
use trial::Trial;

/// How long changes of the network are gathered before the ways are looked up again.
const GATHER: Duration = Duration::from_millis(50);
/// How often the ways are looked up without a change, should word of one have been lost.
const REFRESH: Duration = Duration::from_secs(10);
/// After this it is tried again to make the tables what they should be.
const RETRY: Duration = Duration::from_secs(1);
/// How often the files are looked at that the config names as such.
const LOOK: Duration = Duration::from_millis(500);
/// Questions noted for the kernel at once; what does not fit is asked again anyway.
const ASKED: usize = 1_024;

/// Runs until SIGTERM or SIGINT. The data path stays up.
pub async fn run(
    document: Document,
    intent: Intent,
    pins: Pins,
    sockets: Sockets,
    announcer: Option<Announcer>,
) -> Result<()> {
    let listener = api::bind(intent.socket()).await?;
    let (tcp, credentials) = match intent.api() {
        Some(api) => Some(Tcp::bind(api).await?).unzip(),
        None => (None, None),
    };
    let (netlink, mut changes) = netlink::connect()?;
    let (results, mut probed) = mpsc::channel(probe::CONCURRENT);
    let (asked, mut questions) = mpsc::channel(ASKED);
    let (resolved, mut names) = mpsc::channel(discovery::TOLD);
    let (commands, mut commanded) = mpsc::channel(16);
    let mut reload = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let prober = Prober::new(sockets, results);
    let (document, intent) = discovery::ask_first(document, intent).await;
    let mut agent = Agent::start(document, intent, (pins, announcer), netlink, prober, (asked, resolved)).await?;
    agent.credentials = credentials;

    let api = tokio::spawn(api::serve(listener, tcp, commands));
    tracing::info!("ready");
    let mut beats = interval(agent.supervisor.beat());
    agent.supervisor.ready(agent.summary());
    let mut refresh = Deadline::now() + REFRESH;
    let mut looks = interval(LOOK);
    loop {
        tokio::select! {
            Some(probed) = probed.recv() => agent.probed(probed),
            Some(asked) = questions.recv() => agent.asked(asked),
            Some(()) = changes.next() => {
                refresh = refresh.min(Deadline::now() + GATHER);
                continue;
            }
            () = sleep_until(refresh) => {
                refresh = Deadline::now() + REFRESH;
                agent.look_up_ways().await;
            }
            () = sleep_until(agent.wakes()) => agent.wake(),
            _ = beats.tick() => {
                agent.beat();
                agent.supervisor.alive(agent.summary());
                continue;
            }
            _ = looks.tick() => {
                agent.look_at_files().await;
                agent.ask_names();
                continue;
            }
            Some(first) = names.recv() => agent.resolved(first, &mut names).await,
            Some(command) = commanded.recv() => agent.command(command).await,
            _ = reload.recv() => agent.reload().await,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        // What has already arrived is settled together.
        while let Ok(more) = probed.try_recv() {
            agent.probed(more);
        }
        while let Ok(more) = questions.try_recv() {
            agent.asked(more);
        }
        agent.settle_or_log();
    }
    agent.supervisor.stopping();
    agent.end_traces();
    api.abort();
    if let Some(detour) = agent.prober.detour() {
        agent.netlink.unroute_marked(detour.mark()).await;
    }
    api::remove(agent.intent.socket());
    tracing::info!("stopped; the data path stays up, `lb detach` takes it down");
    Ok(())
}

struct Agent {
    document: Document,
    started: Instant,
    reloads: ReloadsStatus,
    /// What the API goes by over TCP, if it is answered there.
    credentials: Option<InUse>,
    intent: Intent,
    /// Finds the services of the intent.
    index: Index,
    conditions: Conditions,
    /// The change by which a backend is drained; none: it is in the config's file.
    drained_by: BTreeMap<Drain, Option<u64>>,
    /// Until then, what was not probed yet keeps its services waiting.
    undecided_until: Option<Duration>,
    attached: BTreeMap<String, u32>,
    /// By the operator's wish, until `lb attach`.
    detached: bool,
    trial: Trial,
    traces: Traces,
    health: HashMap<Target, Record>,
    /// When the weight of those rises next that have come back.
    rising: BTreeMap<Target, Duration>,
    history: History,
    probes: HashMap<Target, AbortHandle>,
    /// Files that are watched, as they were last looked at.
    seen_files: files::Seen,
    prober: Arc<Prober>,
    netlink: Netlink,
    announcer: Option<Announcer>,
    pins: Pins,
    ebpf: Ebpf,
    maps: Maps,
    actual: Actual,
    desired: Desired,
    /// What the conditions have changed since they were folded.
    touched: Touched,
    /// The intent is another one since it was folded.
    renewed: bool,
    /// The tables are not what is desired.
    unsettled: bool,
    /// Up to when deadlines have been noted.
    noted_at: Duration,
    /// When an adoption window or a drain ends, or another deadline passes.
    next: Option<Duration>,
    sweep_at: Option<Duration>,
    flows: FlowCounts,
    link_groups: LinkGroups,
    names: watch::Sender<Arc<Names>>,
    negatives: Negatives,
    listener: Option<JoinHandle<()>>,
    asked: mpsc::Sender<Asked>,
    resolved: mpsc::Sender<Resolved>,
    counts: Arc<Counts>,
    supervisor: Supervisor,
    /// The last reload was refused, so that the config in use is not the one in the file.
    refused: bool,
}

impl Agent {
    async fn start(
        document: Document,
        intent: Intent,
        (pins, announcer): (Pins, Option<Announcer>),
        netlink: Netlink,
        prober: Arc<Prober>,
        (asked, resolved): (mpsc::Sender<Asked>, mpsc::Sender<Resolved>),
    ) -> Result<Self> {
        let (mut ebpf, mut maps) = block_in_place(|| load::load(Some(&pins), intent.limits()))?;
        log::forward(&mut ebpf);
        let traces = Traces::new(&mut ebpf)?;
        // Windows that were open are open for as long as new ones.
        let actual = block_in_place(|| maps.read(intent.tracking().adopt))?;
        let mut agent = Self {
            document,
            started: Instant::now(),
            reloads: ReloadsStatus::default(),
            credentials: None,
            desired: Desired::default(),
            index: Index::new(&intent),
            conditions: Conditions::default(),
            drained_by: BTreeMap::new(),
            undecided_until: None,
            attached: BTreeMap::new(),
            detached: false,
            trial: Trial::default(),
            traces,
            health: HashMap::new(),
            rising: BTreeMap::new(),
            history: History::default(),
            probes: HashMap::new(),
            seen_files: files::Seen::new(),
            prober,
            netlink,
            announcer,
            pins,
            ebpf,
            maps,
            actual,
            touched: Touched::default(),
            renewed: true,
            unsettled: true,
            noted_at: Duration::ZERO,
            next: None,
            sweep_at: None,
            flows: FlowCounts::default(),
            link_groups: LinkGroups::default(),
            names: watch::Sender::default(),
            negatives: Negatives::default(),
            listener: None,
            asked,
            resolved,
            counts: Arc::default(),
            supervisor: Supervisor::from_environment(),
            refused: false,
            intent,
        };
        agent.tell_stale();
        agent.inherit();
        block_in_place(|| agent.inherit_answers())?;
        agent.warn_of_sizes();
        let listener = Listener::bind(agent.intent.dns())?;
        agent.make_detour(&agent.intent).await?;
        agent.keep_probes();
        // One that does not exist is told before anything is changed.
        agent.links(&agent.intent).await?;
        agent.look_up_ways().await;
        // The tables are right before the first packet comes.
        agent.settle()?;
        agent.attach_at_start().await?;
        agent.listen(listener);
        agent.keep_names();
        agent.note_files(&[]);
        Ok(agent)
    }

    /// What the model's times are counted from.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn listen(&mut self, listener: Listener) {
        let serve = listener.run(self.names.subscribe(), self.asked.clone(), Arc::clone(&self.counts));
        self.listener = Some(tokio::spawn(serve));
    }

    /// When something is to be done without an event.
    fn wakes(&self) -> Deadline {
        let next = [
            self.next,
            self.undecided_until,
            self.sweep_at,
            self.rising.values().min().copied(),
            self.trial.until(),
            self.traces.wakes(),
        ];
        let next = next.into_iter().flatten().min();
        // A day is as good as never, and no deadline of its own.
        let next = next.unwrap_or_else(|| self.now() + Duration::from_secs(86_400));
        Deadline::from_std(self.started + next)
    }

    /// Does what is due; what is then to be settled is settled by who calls.
    fn wake(&mut self) {
        let now = self.now();
        self.decide(now);
        self.raise(now);
        self.end_trial(now);
        self.trace_on(now);
        if self.sweep_at.is_some_and(|at| at <= now) {
            self.sweep();
        }
    }

    fn settle_or_log(&mut self) {
        if let Err(error) = self.settle() {
            tracing::error!("{error:#}");
        }
    }

    /// Makes the tables what they should be. After an error it is tried again with the next event, or soon.
    fn settle(&mut self) -> Result<()> {
        let now = self.now();
        let is_due = self.next.is_some_and(|next| next <= now);
        if is_due {
            self.note_deadlines(self.noted_at, now);
            self.noted_at = now;
        }
        if self.touched.is_any() || self.renewed {
            self.fold(now);
        } else if !is_due && !self.unsettled {
            return Ok(());
        }
        self.unsettled = true;
        self.next = Some(now + RETRY);
        let started = Instant::now();
        let (desired, maps, actual) = (&self.desired, &mut self.maps, &mut self.actual);
        let steps = block_in_place(|| settle::settle(desired, maps, actual, now))?;
        self.unsettled = false;
        self.beat();
        self.desired.answers.forget(self.actual.answers.reached.as_ref());
        self.next = [self.actual.first_end(), self.next_deadline(now)].into_iter().flatten().min();
        self.plan_sweep();
        if steps > 0 {
            tracing::debug!(steps, microseconds = started.elapsed().as_micros(), "settled");
        }
        Ok(())
    }

    /// Folds the intent with the conditions: all of it if it is another one, else what has changed.
    fn fold(&mut self, now: Duration) {
        let services = self.touched.take(&self.intent);
        if self.renewed {
            let mut desired = Desired::new(&self.intent, &self.conditions, now);
            desired.share(&self.desired);
            desired.keep_answers(std::mem::take(&mut self.desired));
            self.desired = desired;
        } else {
            self.desired.refresh(&self.intent, &self.conditions, now, services.into_iter());
        }
        self.fold_names();
        self.renewed = false;
        self.beat();
        self.join_groups();
    }

    async fn command(&mut self, command: Command) {
        match command {
            Command::Status(reply) => {
                let _ = reply.send(self.status().map_err(|error| Refusal::failed(&error)));
            }
            Command::Service { name, reply } => _ = reply.send(self.service_named(&name)),
            Command::Change(edit, reply) => _ = reply.send(self.change(edit).await),
            Command::Changes(reply) => _ = reply.send(Ok(self.change_list())),
            Command::DropChanges(id, reply) => _ = reply.send(self.drop_changes(id).await),
            Command::Export { with_secret, reply } => _ = reply.send(self.export(with_secret)),
            Command::Diff(text, reply) => _ = reply.send(self.diff(&text).await),
            Command::Apply(text, reply) => _ = reply.send(self.apply(text).await),
            Command::Health { of, reply } => _ = reply.send(self.health_report(of.as_deref())),
            Command::Explain(ask, reply) => _ = reply.send(block_in_place(|| self.explain(&ask))),
            Command::Trace(request, reply) => _ = reply.send(block_in_place(|| self.trace(&request))),
            Command::Attach(request, reply) => {
                let done = self.attach_by_command(request).await;
                let _ = reply.send(done.map_err(|error| Refusal::failed(&error)));
            }
            Command::Trial(reply) => _ = reply.send(Ok(self.trial_status())),
            Command::Confirm(reply) => _ = reply.send(self.confirm().map_err(|error| Refusal::failed(&error))),
            Command::Detach(reply) => {
                self.detached = true;
                self.forget_trial();
                let _ = reply.send(self.detach().map_err(|error| Refusal::failed(&error.into())));
            }
            Command::CacheList(reply) => {
                let _ = reply.send(self.cache_list().map_err(|error| Refusal::failed(&error)));
            }
            Command::CacheShow { name, reply } => {
                let _ = reply.send(self.cache_show(&name));
            }
            Command::CacheFlush { name, reply } => {
                let _ = reply.send(self.cache_flush(&name));
            }
            Command::Top(reply) => {
                let _ = reply.send(self.top().map_err(|error| Refusal::failed(&error)));
            }
        }
    }
}
