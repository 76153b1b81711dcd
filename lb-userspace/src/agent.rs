//! The agent: everything that happens arrives here as an event, changes the conditions, and is settled by one plan.
//!
//! This is the only place with channels and `select!`.

use crate::{
    api::{self, Command, Refusal},
    config::Config,
    dns::listen::{Counts, Listener},
    kernel::{
        KernelError, attach,
        load::{self, Pins},
        log,
        maps::{Found, Maps},
        netlink::{self, Link, Netlink},
    },
    link_groups::LinkGroups,
    model::{
        actual::{Actual, BackendKey},
        desired::{self, Conditions, Desired, Drain},
        dns::{names::Names, render, respond::Asked},
        health::Health,
        intent::{Intent, Target},
        op::Op,
        plan::plan,
        reach::{Hop, NoHop, Way, reach},
    },
    probe::{self, Probed},
    status::{BackendStatus, DnsStatus, InterfaceStatus, ServiceStatus, Status},
};
use anyhow::{Context as _, Result};
use aya::Ebpf;
use futures_util::StreamExt as _;
use lb_common::{
    tables::{DRAINING, Traffic},
    wire::ethernet,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::{Semaphore, mpsc, watch},
    task::{AbortHandle, JoinHandle, block_in_place},
    time::{Instant as Deadline, sleep_until},
};

/// How long changes of the network are gathered before the ways are looked up again.
const GATHER: Duration = Duration::from_millis(50);
/// How often the ways are looked up without a change, should word of one have been lost.
const REFRESH: Duration = Duration::from_secs(10);
/// Questions noted for the kernel at once; what does not fit is asked again anyway.
const ASKED: usize = 1_024;

/// Runs until SIGTERM or SIGINT. The data path stays up.
pub async fn run(path: &Path, intent: Intent, pins: Pins) -> Result<()> {
    let listener = api::bind(intent.socket()).await?;
    let (netlink, mut changes) = netlink::connect()?;
    let (results, mut probed) = mpsc::channel(probe::CONCURRENT);
    let (asked, mut questions) = mpsc::channel(ASKED);
    let (commands, mut commanded) = mpsc::channel(16);
    let mut reload = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut agent = Agent::start(path, intent, pins, netlink, results, asked).await?;

    let api = tokio::spawn(api::serve(listener, commands));
    tracing::info!("ready");
    let mut refresh = Deadline::now() + REFRESH;
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
    api.abort();
    api::remove(agent.intent.socket());
    tracing::info!("stopped; the data path stays up, `lb detach` takes it down");
    Ok(())
}

struct Agent {
    path: PathBuf,
    started: Instant,
    intent: Intent,
    conditions: Conditions,
    attached: BTreeMap<String, u32>,
    /// By the operator's wish, until `lb attach`.
    detached: bool,
    health: BTreeMap<Target, Health>,
    probes: BTreeMap<Target, AbortHandle>,
    places: Arc<Semaphore>,
    results: mpsc::Sender<Probed>,
    netlink: Netlink,
    pins: Pins,
    ebpf: Ebpf,
    maps: Maps,
    actual: Actual,
    changed: bool,
    link_groups: LinkGroups,
    names: watch::Sender<Arc<Names>>,
    listener: Option<JoinHandle<()>>,
    asked: mpsc::Sender<Asked>,
    counts: Arc<Counts>,
}

impl Agent {
    async fn start(
        path: &Path,
        intent: Intent,
        pins: Pins,
        netlink: Netlink,
        results: mpsc::Sender<Probed>,
        asked: mpsc::Sender<Asked>,
    ) -> Result<Self> {
        let (mut ebpf, mut maps) = block_in_place(|| load::load(Some(&pins)))?;
        log::forward(&mut ebpf);
        let found = maps.read()?;
        let mut agent = Self {
            path: path.into(),
            started: Instant::now(),
            conditions: Conditions::default(),
            attached: BTreeMap::new(),
            detached: false,
            health: BTreeMap::new(),
            probes: BTreeMap::new(),
            places: Arc::new(Semaphore::new(probe::CONCURRENT)),
            results,
            netlink,
            pins,
            ebpf,
            maps,
            actual: Actual::default(),
            changed: true,
            link_groups: LinkGroups::default(),
            names: watch::Sender::default(),
            listener: None,
            asked,
            counts: Arc::default(),
            intent,
        };
        agent.inherit(found);
        let listener = Listener::bind(agent.intent.dns())?;
        agent.keep_probes();
        // One that does not exist is told before anything is changed.
        agent.links(&agent.intent).await?;
        agent.look_up_ways().await;
        // The tables are right before the first packet comes.
        agent.settle()?;
        agent.attach().await?;
        agent.listen(listener);
        Ok(agent)
    }

    /// Takes over what an earlier agent left: what it held for up, drained, and asked for.
    fn inherit(&mut self, found: Found) {
        let mut answered = BTreeSet::new();
        for (_, answer) in found.actual.answers.values() {
            let Some(asked) = render::asked(answer) else { continue };
            answered.extend(render::addresses(answer).into_iter().map(|address| (asked.wire.clone(), address)));
            self.conditions.asked.insert(asked);
        }
        for service in self.intent.services() {
            for backend in &service.backends {
                let key = BackendKey::new(service.endpoint, backend.endpoint, service.mode);
                let Some((id, entry)) = found.actual.backends.get(&key) else { continue };
                if found.serving.contains(id) {
                    self.health.insert(backend.target, Health::inherited_up());
                    // For as long as the kernel has forgotten the neighbour.
                    let (destination, source) = ethernet::parts(entry.ethernet);
                    let hop = Hop { interface: entry.interface, destination, source };
                    self.conditions.ways.insert(backend.endpoint.ip(), Ok(Way { hop, gateway: None }));
                }
                if entry.flags & DRAINING != 0 {
                    self.conditions.drains.insert((service.endpoint, backend.endpoint));
                }
            }
        }
        for name in self.intent.names() {
            for (address, target) in &name.addresses {
                if let Some(target) = target.filter(|_| answered.contains(&(name.wire.clone(), *address))) {
                    self.health.insert(target, Health::inherited_up());
                }
            }
        }
        self.actual = found.actual;
    }

    /// Starts and stops probes until exactly the targets of the intent are probed.
    fn keep_probes(&mut self) {
        let targets = self.intent.targets();
        self.probes.retain(|target, probe| {
            let wanted = targets.contains(target);
            if !wanted {
                probe.abort();
            }
            wanted
        });
        // Another check of the same address goes on from what is known of it: nothing is down because its interval changed.
        let up: BTreeSet<SocketAddr> =
            self.health.iter().filter(|(_, health)| health.is_up()).map(|(target, _)| target.address).collect();
        self.health.retain(|target, _| targets.contains(target));
        for target in targets {
            let unknown = || if up.contains(&target.address) { Health::inherited_up() } else { Health::new() };
            self.health.entry(target).or_insert_with(unknown);
            let start = || probe::start(target, Arc::clone(&self.places), self.results.clone());
            self.probes.entry(target).or_insert_with(start);
        }
        self.note_health();
    }

    fn note_health(&mut self) {
        let up = self.health.iter().filter(|(_, health)| health.is_up());
        self.conditions.up = up.map(|(target, _)| *target).collect();
        self.changed = true;
    }

    fn probed(&mut self, Probed { target, result }: Probed) {
        let now = self.started.elapsed();
        let Some(change) = self.health.get_mut(&target).and_then(|health| health.on(now, &target.check, result)) else {
            return;
        };
        let after_ms = change.after.as_millis();
        match change.reason {
            None => tracing::info!(target = %target.address, after_ms, "up"),
            Some(reason) => tracing::warn!(target = %target.address, after_ms, %reason, "down"),
        }
        self.note_health();
    }

    fn asked(&mut self, asked: Asked) {
        self.changed |= self.conditions.asked.insert(asked);
    }

    /// The interfaces of a config, with their indexes.
    async fn links(&self, intent: &Intent) -> Result<Vec<(u32, Link)>> {
        let links = self.netlink.links().await?;
        let link = |name: &String| {
            let found = links.iter().find(|(_, link)| link.name == *name);
            let (index, link) = found.ok_or_else(|| KernelError::NoInterface { name: name.clone() })?;
            Ok((*index, link.clone()))
        };
        intent.interfaces().iter().map(link).collect()
    }

    /// Interfaces may go, and come back with other indexes; those that are there do their work meanwhile.
    async fn follow_interfaces(&mut self) -> Result<(), KernelError> {
        let mut links = self.netlink.links().await?;
        links.retain(|_, link| self.intent.interfaces().contains(&link.name));
        let before = std::mem::take(&mut self.conditions.interfaces);
        self.conditions.interfaces = links.iter().map(|(index, link)| (*index, link.mac)).collect();
        for (name, index) in &self.attached {
            if before.contains_key(index) && !links.contains_key(index) {
                tracing::warn!(interface = name, index, "gone");
            }
        }
        self.changed |= before != self.conditions.interfaces;
        let back =
            links.into_iter().filter(|(index, link)| self.attached.get(&link.name).is_some_and(|known| known != index));
        let back: Vec<_> = back.collect();
        if !back.is_empty() {
            // The tables are right before the first packet comes.
            self.settle_or_log();
        }
        for (index, link) in back {
            if let Err(error) = self.attach_to(&link.name, index) {
                tracing::warn!("{:#}", anyhow::Error::from(error));
            }
        }
        Ok(())
    }

    async fn look_up_ways(&mut self) {
        if let Err(error) = self.follow_interfaces().await {
            tracing::warn!("{:#}", anyhow::Error::from(error));
        }
        let backends = self.intent.services().iter().flat_map(|service| &service.backends);
        let addresses: BTreeSet<IpAddr> = backends.map(|backend| backend.endpoint.ip()).collect();
        let mut ways = match self.netlink.ways(&addresses).await {
            Ok(ways) => ways,
            Err(error) => return tracing::warn!("{:#}", anyhow::Error::from(error)),
        };
        for (address, way) in &mut ways {
            let before = self.conditions.ways.get(address);
            // A neighbour that the kernel has just forgotten is mostly still there: its answer, or its silence, will tell.
            if let (Err(NoHop::Asked { index, .. }), Some(Ok(known))) = (&way, before)
                && known.hop.interface == *index
            {
                *way = Ok(*known);
            }
            match (&way, before) {
                (Err(reason), None | Some(Ok(_))) => tracing::warn!(backend = %address, %reason, "no next hop"),
                (Ok(_), Some(Err(_))) => tracing::info!(backend = %address, "next hop found"),
                _ => (),
            }
        }
        self.changed |= ways != self.conditions.ways;
        self.conditions.ways = ways;
    }

    /// Puts the program on the interfaces of the config, and takes it off others that it is still on; if it can't be on one of
    /// them, nothing changes.
    async fn attach(&mut self) -> Result<()> {
        let wanted = self.links(&self.intent).await?;
        let before = attach::attached(self.pins.path());
        let mut added: Vec<String> = Vec::new();
        for (index, Link { name, .. }) in wanted {
            if self.attached.get(&name) == Some(&index) {
                continue;
            }
            if let Err(error) = self.attach_to(&name, index) {
                added.iter().for_each(|name| self.detach_from(name));
                return Err(error.into());
            }
            // One that was attached by an earlier agent has its traffic, whatever becomes of this one.
            if !before.contains(&name) {
                added.push(name);
            }
        }
        for name in before {
            if !self.intent.interfaces().contains(&name) {
                self.detach_from(&name);
            }
        }
        Ok(())
    }

    fn attach_to(&mut self, name: &str, index: u32) -> Result<(), KernelError> {
        let program = load::program(&mut self.ebpf, "lb")?;
        block_in_place(|| attach::attach(program, &self.pins, name, index, self.intent.attach()))?;
        self.attached.insert(name.into(), index);
        tracing::info!(interface = name, "attached");
        Ok(())
    }

    fn detach_from(&mut self, name: &str) {
        match attach::detach(self.pins.path(), name) {
            Ok(_) => tracing::info!(interface = name, "detached"),
            Err(error) => tracing::error!("{:#}", anyhow::Error::from(error)),
        }
        self.attached.remove(name);
    }

    fn detach(&mut self) -> Result<usize, KernelError> {
        let names = attach::attached(self.pins.path());
        for name in &names {
            attach::detach(self.pins.path(), name)?;
            self.attached.remove(name);
            tracing::info!(interface = name, "detached");
        }
        Ok(names.len())
    }

    fn listen(&mut self, listener: Listener) {
        let serve = listener.run(self.names.subscribe(), self.asked.clone(), Arc::clone(&self.counts));
        self.listener = Some(tokio::spawn(serve));
    }

    fn settle_or_log(&mut self) {
        if let Err(error) = self.settle() {
            tracing::error!("{error:#}");
        }
    }

    /// Makes the tables what they should be. After an error it is tried again with the next event.
    fn settle(&mut self) -> Result<()> {
        if !self.changed {
            return Ok(());
        }
        self.names.send_replace(Arc::new(desired::names(&self.intent, &self.conditions)));
        let desired = Desired::new(&self.intent, &self.conditions);
        self.join_groups(&desired);
        let ops = plan(&desired, &self.actual)?;
        let started = Instant::now();
        let (maps, actual) = (&mut self.maps, &mut self.actual);
        // What was done is recorded: after an error the next plan goes on from there.
        block_in_place(|| {
            ops.iter().try_for_each(|op| {
                maps.apply(op)?;
                actual.record(op);
                log_op(op);
                Ok::<_, KernelError>(())
            })
        })?;
        self.changed = false;
        if !ops.is_empty() {
            tracing::debug!(steps = ops.len(), microseconds = started.elapsed().as_micros(), "settled");
        }
        Ok(())
    }

    fn join_groups(&mut self, desired: &Desired) {
        let claimed = self.intent.services().iter().filter(|service| service.claim);
        let addresses = claimed.filter_map(|service| match service.endpoint.ip() {
            IpAddr::V6(address) => Some(address),
            IpAddr::V4(_) => None,
        });
        let interfaces = desired.interfaces.keys().copied().collect();
        if let Err(error) = self.link_groups.keep(&interfaces, &addresses.collect()) {
            tracing::warn!(%error, "cannot join the multicast groups that neighbour solicitations come to");
        }
    }

    /// Reads the config again. A wrong one changes nothing.
    async fn reload(&mut self) {
        if let Err(error) = self.try_reload().await {
            return tracing::error!("not reloaded, nothing is changed: {error:#}");
        }
        match self.settle() {
            Ok(()) => tracing::info!(config = %self.path.display(), "reloaded"),
            Err(error) => tracing::error!("reloaded, but the tables can't follow yet: {error:#}"),
        }
    }

    async fn try_reload(&mut self) -> Result<()> {
        let intent = Intent::new(&Config::read(&self.path)?)?;
        if (intent.socket(), intent.pins(), intent.attach())
            != (self.intent.socket(), self.intent.pins(), self.intent.attach())
        {
            anyhow::bail!("`socket`, `pins` and `attach` change only with a restart, after `lb detach`");
        }
        // The tables know an interface before its first frame comes.
        let links = self.links(&intent).await?;
        self.conditions.interfaces.extend(links.into_iter().map(|(index, link)| (index, link.mac)));
        self.changed = true;
        self.settle()?;

        let before = std::mem::replace(&mut self.intent, intent);
        if let Err(error) = self.take_up(before.dns()).await {
            self.intent = before;
            return Err(error);
        }
        self.conditions.drains.retain(|(service, backend)| {
            let mut services = self.intent.services().iter().filter(|one| one.endpoint == *service);
            services.any(|one| one.backends.iter().any(|one| one.endpoint == *backend))
        });
        self.keep_probes();
        self.look_up_ways().await;
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

    async fn command(&mut self, command: Command) {
        match command {
            Command::Status(reply) => {
                let _ = reply.send(self.status().map_err(|error| Refusal::failed(&error)));
            }
            Command::Drain { service, backend, drain, reply } => {
                let _ = reply.send(self.drain(&service, backend, drain));
            }
            Command::Attach(reply) => {
                self.detached = false;
                let done = self.attach().await.map(|()| self.attached.len());
                let _ = reply.send(done.map_err(|error| Refusal::failed(&error)));
            }
            Command::Detach(reply) => {
                self.detached = true;
                let _ = reply.send(self.detach().map_err(|error| Refusal::failed(&error.into())));
            }
        }
    }

    fn drain(&mut self, name: &str, address: SocketAddr, drain: bool) -> Result<(), Refusal> {
        let service = self.intent.services().iter().find(|service| service.name == name);
        let service = service.ok_or_else(|| Refusal::no_service(name, self.intent.services()))?;
        let backend = service
            .backends
            .iter()
            .find(|backend| (backend.endpoint.ip(), backend.endpoint.port()) == (address.ip(), address.port()));
        let backend = backend.ok_or_else(|| Refusal::no_backend(service, address))?;
        let key: Drain = (service.endpoint, backend.endpoint);
        self.changed |= if drain { self.conditions.drains.insert(key) } else { self.conditions.drains.remove(&key) };
        tracing::info!(service = name, backend = %address, drain, "drain");
        // The answer tells of something done.
        self.settle().map_err(|error| Refusal::failed(&error))
    }

    fn status(&self) -> Result<Status> {
        let services =
            self.intent.services().iter().map(|service| self.service_status(service)).collect::<Result<_>>()?;
        let interface = |name: &String| InterfaceStatus {
            name: name.clone(),
            index: self.attached.get(name).copied().filter(|index| self.conditions.interfaces.contains_key(index)),
        };
        let counts = self.maps.counts()?;
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").into(),
            uptime_seconds: self.started.elapsed().as_secs(),
            interfaces: self.intent.interfaces().iter().map(interface).collect(),
            services,
            dns: DnsStatus {
                listen: self.intent.dns().to_vec(),
                names: self.intent.names().len(),
                answers_in_kernel: self.actual.answers.len(),
                answered_by_kernel: counts.get(&lb_common::verdict::Why::Answered).copied().unwrap_or_default(),
                agent: self.counts.snapshot(),
            },
            packets: counts.into_iter().map(|(why, count)| (why.name().into(), count)).collect(),
        })
    }

    fn service_status(&self, service: &crate::model::intent::Service) -> Result<ServiceStatus> {
        let known = self.actual.services.get(&service.endpoint);
        let members = known.and_then(|known| known.members.clone()).unwrap_or_else(|| [].into());
        let backend = |backend: &crate::model::intent::Backend| -> Result<BackendStatus> {
            let key = BackendKey::new(service.endpoint, backend.endpoint, service.mode);
            let traffic = match self.actual.backends.get(&key) {
                Some((id, _)) => self.maps.traffic(*id)?,
                None => Traffic::default(),
            };
            let health = self.health.get(&backend.target).copied().unwrap_or_default();
            let no_next_hop = reach(&self.conditions, service.mode, backend.endpoint.ip()).err();
            Ok(BackendStatus {
                address: SocketAddr::new(backend.endpoint.ip(), backend.endpoint.port()),
                weight: backend.weight,
                health: health.state(),
                since_seconds: health.changed().map(|changed| self.started.elapsed().saturating_sub(changed).as_secs()),
                last_failure: health.last().and_then(Result::err).map(|failure| failure.to_string()),
                draining: self.conditions.drains.contains(&(service.endpoint, backend.endpoint)),
                no_next_hop: no_next_hop.map(|reason| reason.to_string()),
                serving: members.iter().any(|member| member.key == key),
                packets: traffic.packets,
                bytes: traffic.bytes,
            })
        };
        let backends: Vec<BackendStatus> = service.backends.iter().map(backend).collect::<Result<_>>()?;
        Ok(ServiceStatus {
            name: service.name.clone(),
            address: SocketAddr::new(service.endpoint.ip(), service.endpoint.port()),
            protocol: if service.endpoint.protocol() == lb_common::wire::transport::TCP { "tcp" } else { "udp" }.into(),
            mode: service.mode.to_string(),
            slots: service.slots,
            packets: backends.iter().map(|backend| backend.packets).sum(),
            bytes: backends.iter().map(|backend| backend.bytes).sum(),
            backends,
        })
    }
}

fn log_op(op: &Op) {
    match op {
        Op::SwapTable { endpoint, region, members, .. } => {
            tracing::debug!(address = %endpoint.ip(), port = endpoint.port(), slots = region.slots, backends = members.len(), "table swapped");
        }
        Op::PutService { endpoint, .. } => {
            tracing::info!(address = %endpoint.ip(), port = endpoint.port(), "service added")
        }
        Op::RemoveService { endpoint, .. } => {
            tracing::info!(address = %endpoint.ip(), port = endpoint.port(), "service removed");
        }
        _ => (),
    }
}
