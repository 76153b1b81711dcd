//! A suite's balancer: the same tables on the host and, if wanted, in the kernel.

use super::{
    compare::Outcome,
    file::{Action, Common, Configuration, Vip, vip_of},
    flow::Flow,
};
use anyhow::{Context as _, Result, bail, ensure};
use aya::{
    Ebpf,
    programs::{TestRun as _, TestRunOptions},
};
use lb_common::{
    host::{Buffer, HostTables},
    path::steer,
    verdict::Verdict,
    wire::{ethernet::Ethernet, ipv4::Ipv4, ipv6::Ipv6},
};
use lb_userspace::{
    config::Config,
    kernel::{
        load::{load, program},
        maps::Maps,
    },
    model::{
        actual::Actual,
        desired::{Conditions, Desired},
        host,
        intent::{Intent, Limits},
        op::Op,
        plan::plan,
        reach::{Hop, Way},
    },
};
use std::{collections::BTreeMap, fmt::Write as _, net::IpAddr, time::Duration};

/// The interface that frames come in and leave by: loopback, as in a test run of the kernel's.
const INTERFACE: u32 = 1;
/// Room around a frame, as much as a test run of the kernel's has at least.
const ROOM: usize = 192;

/// A balancer with a suite's configuration.
pub struct Balancer {
    host: HostTables,
    kernel: Option<Kernel>,
    vips: Vec<Vip>,
    down: BTreeMap<String, Vec<IpAddr>>,
}

struct Kernel {
    ebpf: Ebpf,
    maps: Maps,
}

impl Balancer {
    /// Makes its tables, in the kernel as well if `in_kernel`.
    pub fn new(common: &Common, configuration: &Configuration, in_kernel: bool) -> Result<Self> {
        let Configuration { vips, down_reals: down, .. } = configuration.clone();
        let mut balancer = Self { host: HostTables::default(), kernel: None, vips, down };
        balancer.host.seconds = 1_000_000;
        let text = balancer.config(common)?;
        let intent = Intent::new(&Config::parse(&text)?).context("the suite's configuration")?;
        let ops = balancer.ops(common, &intent)?;
        ops.iter().for_each(|op| host::apply(&mut balancer.host, op));
        if in_kernel {
            let (ebpf, mut maps) = load(None, Limits::default())?;
            ops.iter().try_for_each(|op| maps.apply(op))?;
            balancer.kernel = Some(Kernel { ebpf, maps });
        }
        Ok(balancer)
    }

    /// The config: a service in mode `tunnel` for each VIP, with a check of its own, so that a real can be down behind one only.
    fn config(&self, common: &Common) -> Result<String> {
        let [source4, source6] = common.sources();
        let mut text = format!(
            "interfaces = [\"lo\"]\nsecret = \"only for tests, nobody keeps it\"\n\
             [tunnel]\nsource_ipv4 = \"{source4}\"\nsource_ipv6 = \"{source6}\"\n"
        );
        let nobody = self.vips.iter().flat_map(|vip| &vip.reals).take(1);
        for (number, vip) in (1..).zip(&self.vips) {
            let Vip { address, proto, reals, flags, .. } = vip;
            let port = if vip.port == 0 { "\"any\"".into() } else { vip.port.to_string() };
            write!(
                text,
                "[check.c{number}]\nport = {number}\n[[service]]\nname = \"s{number}\"\naddress = \"{address}\"\n\
                 port = {port}\nprotocol = \"{proto}\"\nmode = \"tunnel\"\nclaim = \"routed\"\ncheck = \"c{number}\"\n"
            )?;
            if flags.iter().any(|flag| flag == "udp_flow_migration") {
                text += "udp = \"move\"\n";
            }
            // A service has at least one backend; who is never up is none.
            for real in reals.iter().chain(nobody.clone().filter(|_| reals.is_empty())) {
                writeln!(text, "[[service.backend]]\naddress = \"{real}\"")?;
            }
        }
        Ok(text)
    }

    fn ops(&self, common: &Common, intent: &Intent) -> Result<Vec<Op>> {
        let (source, destination) = (common.input_dst_mac.0, common.gateway_mac.0);
        let mut conditions = Conditions::default();
        conditions.interfaces.insert(INTERFACE, source);
        let longest = common.max_frame_bytes - Ethernet::LEN as u16;
        for (service, vip) in intent.services().iter().zip(&self.vips) {
            let reals = self.reals_of(vip);
            for backend in &service.backends {
                let real = backend.endpoint.ip();
                let mtu = longest + if real.is_ipv4() { Ipv4::LEN } else { Ipv6::LEN } as u16;
                let hop = Hop { interface: INTERFACE, destination, source, mtu };
                conditions.ways.insert(real, Ok(Way { hop, gateway: None }));
                if reals.contains(&real) {
                    conditions.up.insert(backend.target.clone());
                }
            }
        }
        let desired = Desired::new(intent, &conditions, Duration::ZERO);
        Ok(plan(&desired, &Actual::new(intent.limits()), Duration::ZERO)?)
    }

    /// The reals of a VIP that are up.
    fn reals_of(&self, vip: &Vip) -> Vec<IpAddr> {
        let Vip { address, port, proto, reals, .. } = vip;
        let down = self.down.get(&format!("{address}:{port}/{proto}"));
        reals.iter().filter(|real| down.is_none_or(|down| !down.contains(real))).copied().collect()
    }

    /// The reals that packets of a flow may go to.
    pub fn reals(&self, flow: Option<Flow>) -> Vec<IpAddr> {
        let vip = flow.and_then(|flow| vip_of(&self.vips, &flow));
        vip.map(|vip| self.reals_of(vip)).unwrap_or_default()
    }

    /// Runs a frame through the path on the host; in the kernel too, if it is there: then both must do the same.
    pub fn run(&mut self, frame: &[u8]) -> Result<Outcome> {
        let mut buffer = Buffer::new(frame, INTERFACE, ROOM, ROOM);
        let verdict = steer(&mut buffer, &self.host);
        let action = match verdict {
            Verdict::Pass(_) => Action::Pass,
            Verdict::Transmit(_) => Action::Transmit,
            Verdict::Drop(_) => Action::Drop,
            Verdict::Redirect(..) => Action::Other,
        };
        let outcome = Outcome { action, frame: buffer.bytes().to_vec(), why: verdict.why().name() };
        if let Some(kernel) = &mut self.kernel {
            let kernel = kernel.run(frame)?;
            ensure!(kernel == outcome, "the kernel's is {kernel:02x?}, the host's {outcome:02x?}");
        }
        Ok(outcome)
    }
}

impl Kernel {
    fn run(&mut self, frame: &[u8]) -> Result<Outcome> {
        let before = self.maps.counts()?;
        let mut out = vec![0; 4096];
        let options = TestRunOptions { data_in: Some(frame), data_out: Some(&mut out), ..TestRunOptions::default() };
        let result = program(&mut self.ebpf, "lb")?.test_run(options).context("BPF_PROG_TEST_RUN failed")?;
        out.truncate(result.data_size_out as usize);
        let action = match result.return_value {
            1 => Action::Drop,
            2 => Action::Pass,
            3 => Action::Transmit,
            other => bail!("the program returned {other}"),
        };
        let after = self.maps.counts()?;
        let moved = after.iter().find(|(why, count)| before.get(why) != Some(count));
        Ok(Outcome { action, frame: out, why: moved.context("no counter moved")?.0.name() })
    }
}
