//! Random histories of a service, with the real path on the tables in memory: no change moves a flow off a live backend.
#![expect(clippy::indexing_slicing, clippy::panic, clippy::unwrap_used, reason = "tests and their helpers")]

mod client;
mod machine;

use client::{Client, Pace};
use machine::Machine;
use proptest::prelude::*;

/// Backends that there may be.
const BACKENDS: usize = 6;
/// Seconds from one look at the clients to the next.
const TICK: u64 = 10;
/// `adopt_seconds`.
const ADOPT: u64 = 300;

/// What happens.
#[derive(Clone, Debug)]
enum Event {
    /// Time goes by; clients send when it is their time.
    Pass { ticks: u64 },
    /// The config gives a backend this weight; `None`: takes it out.
    Reload { backend: usize, weight: Option<u32> },
    /// The operator drains a backend, or does so no longer.
    Drain { backend: usize, drain: bool },
    /// A backend fails, or is up again.
    Health { backend: usize, up: bool },
    /// The agent looks at the flow tables.
    Sweep,
    /// The agent is started anew.
    Restart,
    /// Connections that are begun, and nothing more.
    Flood { count: u16 },
    /// Clients come.
    Come { count: usize, pace: Pace },
}

fn event() -> impl Strategy<Value = Event> {
    let backend = 0..BACKENDS;
    prop_oneof![
        6 => (1_u64..60).prop_map(|ticks| Event::Pass { ticks }),
        4 => (backend.clone(), prop::option::of(0_u32..5)).prop_map(|(backend, weight)| Event::Reload { backend, weight }),
        2 => (backend.clone(), any::<bool>()).prop_map(|(backend, drain)| Event::Drain { backend, drain }),
        3 => (backend, any::<bool>()).prop_map(|(backend, up)| Event::Health { backend, up }),
        3 => Just(Event::Sweep),
        1 => Just(Event::Restart),
        1 => (1_u16..300).prop_map(|count| Event::Flood { count }),
        3 => (1_usize..20, prop_oneof![Just(Pace::Often), Just(Pace::Seldom), Just(Pace::Rarely), Just(Pace::Once)])
            .prop_map(|(count, pace)| Event::Come { count, pace }),
    ]
}

/// A machine with clients, and another one of the fleet with the same history and no traffic.
struct World {
    machine: Machine,
    other: Machine,
    clients: Vec<Client>,
    now: u64,
    floods: u32,
}

impl World {
    fn new() -> Self {
        let (machine, other) = (Machine::new(), Machine::new());
        Self { machine, other, clients: Vec::new(), now: 1_000, floods: 0 }
    }

    fn both(&mut self, mut change: impl FnMut(&mut Machine)) {
        for machine in [&mut self.machine, &mut self.other] {
            change(machine);
            machine.settle();
        }
        // From now on a client has to send within the adoption window, or its flow belongs to whoever has its slot.
        self.clients.iter_mut().for_each(|client| client.change(self.now));
    }

    fn happen(&mut self, event: &Event) {
        match event {
            Event::Pass { ticks } => (0..*ticks).for_each(|_| self.tick()),
            Event::Reload { backend, weight } => self.both(|machine| machine.reload(*backend, *weight)),
            Event::Drain { backend, drain } => self.both(|machine| machine.drain(*backend, *drain)),
            Event::Health { backend, up } => {
                self.both(|machine| machine.health(*backend, *up));
                if !up {
                    self.clients.iter_mut().for_each(|client| client.failed(*backend));
                }
            }
            Event::Sweep => {
                self.machine.sweep();
                self.other.sweep();
            }
            Event::Restart => self.machine.restart(),
            Event::Flood { count } => self.flood(*count),
            Event::Come { count, pace } => {
                for _ in 0..*count {
                    let client = Client::new(self.clients.len() as u32, *pace, self.now);
                    self.clients.push(client);
                    self.send(self.clients.len() - 1);
                }
            }
        }
    }

    fn tick(&mut self) {
        self.now += TICK;
        for machine in [&mut self.machine, &mut self.other] {
            machine.now(self.now);
            machine.settle();
        }
        for index in 0..self.clients.len() {
            if self.clients[index].is_due(self.now) {
                self.send(index);
            }
        }
    }

    fn send(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let frame = client.frame();
        let clean = self.machine.is_clean(&frame);
        let before = self.machine.flows();
        let served = self.machine.serves(&frame);
        if clean {
            assert_eq!(self.machine.flows(), before, "a clean slot touched a table");
        }
        if client.is_new() && clean {
            // It is in a slot without a history here, so all that the fleet shares tells who serves it.
            assert_eq!(self.other.owner(&frame), served, "another machine has another backend for {client:?}");
        }
        client.sent(self.now, served);
    }

    fn flood(&mut self, count: u16) {
        let established = self.machine.established();
        for _ in 0..count {
            self.floods += 1;
            self.machine.serves(&client::syn(0xc633_0000 + self.floods));
        }
        assert_eq!(self.machine.established(), established, "a flood reached established flows");
        // What a table of fixed size would have pushed out: the oldest first, whoever they are.
        for address in self.machine.push_out_half_open(64) {
            self.clients.iter_mut().for_each(|client| client.pushed_out(address));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn no_change_moves_a_flow_off_a_live_backend(events in prop::collection::vec(event(), 1..60)) {
        let mut world = World::new();
        world.happen(&Event::Come { count: 60, pace: Pace::Often });
        world.happen(&Event::Come { count: 60, pace: Pace::Seldom });
        for event in &events {
            world.happen(event);
        }
        // Long afterwards: nothing was only put off.
        world.happen(&Event::Pass { ticks: 2 * ADOPT / TICK });
        world.happen(&Event::Sweep);
        world.happen(&Event::Pass { ticks: ADOPT / TICK });
    }

    #[test]
    fn without_flows_elsewhere_all_slots_are_clean_again(events in prop::collection::vec(event(), 1..30)) {
        let mut world = World::new();
        for event in &events {
            world.happen(event);
        }
        world.clients.clear();
        // Longer than any flow is waited for.
        world.happen(&Event::Pass { ticks: 7_600 / TICK });
        world.happen(&Event::Sweep);
        prop_assert_eq!(world.machine.changed_slots(), 0);
        prop_assert_eq!(world.machine.flows(), vec![]);
    }
}
